/*
 * base/json_plain.cpp
 *		Plain JSON payloads, walked right over the positions that simdjson's first stage finds (it has checked UTF-8 and control characters by then), at a
 *		third of the cost of its on-demand parser.
 *
 * It never decides that something is malformed: whatever it does not know is left to that one (base/json.cpp).
 */
#define SIMDJSON_EXCEPTIONS 0

#include <cstring>

#include "base/json_plain.h"
#include "base/number.h"

using namespace simdjson;

namespace
{

/* One walk over a plain payload. False from any function: not plain. */
struct JsonPlain
{
	const char	   *buffer;
	const uint32_t *at;	 /* position of the token at hand */
	const uint32_t *end; /* behind the last; the payload's size is stored there */
	JsonValue	   *values;
	int				max_depth;
	uint64_t		walk;

	bool walk_object(JsonNode *node, int depth);
	bool walk_array(JsonNode *node, int depth);
	bool walk_value(JsonNode *node, int depth);
	bool number(JsonWant want, JsonValue *out);

	/* Behind the last byte of the token at hand. */
	const char *
	token_end() const
	{
		const char *p = buffer + at[1];

		while (json_is_space(p[-1]))
			p--;
		return p;
	}
};

bool
JsonPlain::number(JsonWant want, JsonValue *out)
{
	const char	 *start = buffer + *at;
	const char	 *stop = token_end();
	const char	 *digits = start + (*start == '-');
	DecimalNumber number;

	if ((*digits == '0' && stop - digits > 1 && digits[1] != '.') ||
		!streamext_parse_decimal(start, stop - start, &number))
		return false;
	if (want == JSON_WANT_DOUBLE)
	{
		out->kind = JSON_DOUBLE;
		return streamext_decimal_double(&number, &out->u.d);
	}
	if (want == JSON_WANT_INT && number.scale == 0)
	{
		out->kind = JSON_INT;
		out->u.i = streamext_decimal_int(&number);
	}
	else
		json_set_text(out, JSON_TEXT, std::string_view(start, stop - start));
	return true;
}

bool
JsonPlain::walk_value(JsonNode *node, int depth)
{
	const char		*start = buffer + *at;
	bool			 wanted = node != nullptr && node->nwanted > 0;
	JsonWant		 want = wanted ? node->wants[0] : JSON_WANT_TEXT;
	JsonValue		 ignored;
	JsonValue		*out = wanted ? &values[node->wanted[0]] : &ignored;
	std::string_view token;

	if (wanted && node->nwanted > 1)
		return false;
	json_arrive(node, walk, values);
	switch (*start)
	{
		case '{':
			return !wanted && depth < max_depth && walk_object(node, depth + 1);
		case '[':
			return !wanted && depth < max_depth && walk_array(node, depth + 1);
		case '"':
		{
			const char *stop = token_end() - 1;

			if (stop <= start || *stop != '"')
				return false;
			if (want == JSON_WANT_RAW)
				json_set_text(out, JSON_TEXT, std::string_view(start, stop + 1 - start));
			else
				json_set_text(out, JSON_STRING, std::string_view(start + 1, stop - start - 1));
			break;
		}
		case 't':
		case 'f':
			token = std::string_view(start, token_end() - start);
			if (token != "true" && token != "false")
				return false;
			if (want == JSON_WANT_BOOL)
			{
				out->kind = JSON_BOOL;
				out->u.b = *start == 't';
			}
			else
				json_set_text(out, JSON_TEXT, token);
			break;
		case 'n':
			token = std::string_view(start, token_end() - start);
			if (token != "null")
				return false;
			out->kind = JSON_NULL;
			break;
		default:
			if (!number(want, out))
				return false;
	}
	at++;
	return true;
}

/* At the opening brace; leaves behind the closing one. */
bool
JsonPlain::walk_object(JsonNode *node, int depth)
{
	at++;
	if (at < end && buffer[*at] == '}')
	{
		at++;
		return true;
	}
	for (;;)
	{
		JsonNode   *child = nullptr;
		const char *key = buffer + *at;
		size_t		size;

		/* key, colon and a value: three tokens at least, and one behind them */
		if (end - at < 4 || *key != '"' || buffer[at[1]] != ':')
			return false;
		size = token_end() - key;
		if (size < 2 || key[size - 1] != '"')
			return false;
		key++;
		size -= 2;
		for (int tried = 0, i = node != nullptr ? node->guess : 0; node != nullptr && tried < node->nchildren;
			 tried++, i++)
		{
			if (i >= node->nchildren)
				i = 0;
			if (node->children[i]->name_size == size && node->children[i]->name != nullptr &&
				json_same(node->children[i], key))
			{
				child = node->children[i];
				node->guess = i + 1;
				break;
			}
		}

		at += 2;
		if (!walk_value(child, depth) || at >= end)
			return false;
		switch (buffer[*at++])
		{
			case ',':
				break;
			case '}':
				return true;
			default:
				return false;
		}
	}
}

/* At the opening bracket; leaves behind the closing one. */
bool
JsonPlain::walk_array(JsonNode *node, int depth)
{
	long index = 0;

	at++;
	if (at < end && buffer[*at] == ']')
	{
		at++;
		return true;
	}
	for (;; index++)
	{
		JsonNode *child = nullptr;

		for (int i = 0; node != nullptr && i < node->nchildren; i++)
			if (node->children[i]->name == nullptr && node->children[i]->index == index)
				child = node->children[i];
		if (end - at < 2 || !walk_value(child, depth) || at >= end)
			return false;
		switch (buffer[*at++])
		{
			case ',':
				break;
			case ']':
				return true;
			default:
				return false;
		}
	}
}

} /* namespace */

bool
JsonPlainParser::parse(JsonNode *root, const char *buffer, size_t size, size_t capacity, int max_depth, uint64_t walk,
					   JsonValue *values)
{
	JsonPlain plain;

	if (root->nwanted > 0 || memchr(buffer, '\\', size) != nullptr)
		return false;
	if (stage1 == nullptr || stage1->capacity() < size)
	{
		stage1.reset();
		if (get_active_implementation()->create_dom_parser_implementation(capacity, max_depth, stage1) != SUCCESS)
		{
			stage1.reset();
			return false;
		}
	}
	if (stage1->stage1(reinterpret_cast<const uint8_t *>(buffer), size, stage1_mode::regular) != SUCCESS)
		return false;

	plain.buffer = buffer;
	plain.at = stage1->structural_indexes.get();
	plain.end = plain.at + stage1->n_structural_indexes;
	plain.values = values;
	plain.max_depth = max_depth;
	plain.walk = walk;
	return buffer[*plain.at] == '{' && plain.walk_object(root, 1) && plain.at == plain.end;
}
