/*
 * base/json_tree.h
 *		The tree of wanted paths of a JSON payload: names and array indexes, and which values are found where. C++.
 *
 * Payloads are walked along it by json_plain.cpp and json.cpp; what is asked of it for each value is inline.
 */
#ifndef STREAMEXT_JSON_TREE_H
#define STREAMEXT_JSON_TREE_H

#include <cstdint>
#include <cstring>
#include <string_view>

#include "base/json.h"

#pragma GCC visibility push(hidden)

struct JsonNode
{
	char	  *name = nullptr; /* NULL: an array element */
	size_t	   name_size = 0;
	long	   index = 0;
	int		  *wanted = nullptr; /* numbers of the values that are found here */
	JsonWant  *wants = nullptr;
	int		   nwanted = 0;
	JsonNode **children = nullptr;
	int		   nchildren = 0;
	int		   guess = 0;
	bool	   nocase = false;	 /* ASCII letters of the name match in either case */
	bool	   verbatim = false; /* the name stands in JSON as it is, without an escape */
	uint64_t   walked = 0;		 /* the walk that was here last; kept where there are children */
};

inline char
json_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

/* Whether the key, of the node's name's size, is that name. */
inline bool
json_same(const JsonNode *node, const char *key)
{
	if (memcmp(key, node->name, node->name_size) == 0)
		return true;
	if (!node->nocase)
		return false;
	for (size_t i = 0; i < node->name_size; i++)
		if (json_lower(key[i]) != json_lower(node->name[i]))
			return false;
	return true;
}

/* As if nothing below the node had been found. */
extern void streamext_json_forget(const JsonNode *node, JsonValue *values);

/* To be called where a walk comes to a value: of a field that comes twice the last counts, with all that is in it. */
inline void
json_arrive(JsonNode *node, uint64_t walk, JsonValue *values)
{
	if (node == nullptr || node->nchildren == 0)
		return;
	if (node->walked == walk)
		streamext_json_forget(node, values);
	node->walked = walk;
}

/*
 * Makes value number `number` wanted at the path (base/path.h), or, if path is NULL, at the top-level field called name. -1: it is no path; -2: out of
 * memory.
 */
extern int streamext_json_add(JsonNode *root, const char *name, const char *path, bool nocase, JsonWant want,
							  int number);

/* All but the node itself. */
extern void streamext_json_free(JsonNode *node);

inline bool
json_is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

inline void
json_set_text(JsonValue *out, JsonValueKind kind, std::string_view text)
{
	out->kind = kind;
	out->u.s = text.data();
	out->size = static_cast<uint32_t>(text.size());
}

#pragma GCC visibility pop

#endif /* STREAMEXT_JSON_TREE_H */
