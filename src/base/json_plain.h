/*
 * base/json_plain.h
 *		Plain JSON payloads: objects of strings without escapes, short numbers, literals. C++.
 */
#ifndef STREAMEXT_JSON_PLAIN_H
#define STREAMEXT_JSON_PLAIN_H

#include <simdjson.h>

#include <memory>

#include "base/json_tree.h"

#pragma GCC visibility push(hidden)

struct JsonPlainParser
{
	std::unique_ptr<simdjson::internal::dom_parser_implementation> stage1; /* null: none */

	/*
	 * True: values are filled. False: the on-demand parser is to look; values may hold anything. `capacity`: of the buffer, with the padding that
	 * simdjson reads; `walk`: a number that no walk along the tree has had.
	 */
	bool parse(JsonNode *root, const char *buffer, size_t size, size_t capacity, int max_depth, uint64_t walk,
			   JsonValue *values);
};

#pragma GCC visibility pop

#endif /* STREAMEXT_JSON_PLAIN_H */
