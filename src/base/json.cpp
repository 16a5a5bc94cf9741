/*
 * base/json.cpp
 *		JSON payloads by simdjson's on-demand parser. This, json_plain.cpp and json_tree.cpp are C++.
 *
 * The wanted paths form a tree of names and array indexes. A payload is walked once along that tree; fields come in the same
 * order in most streams, so each node first tries the child after the one it matched last. On-demand parsing checks only what
 * it is asked for, so values nobody wants are walked too (json_validate): malformed is malformed for every reader.
 *
 * Nearly all payloads are plain, and are left to json_plain.cpp, which never decides that something is malformed: what it does not know comes here.
 */
#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <new>

#include "base/json.h"
#include "base/json_plain.h"
#include "base/json_tree.h"

using namespace simdjson;

#define JSON_PLAIN_TRIES 8	  /* after so many payloads in a row that were not plain */
#define JSON_PLAIN_PAUSE 1000 /* so many are not tried */

namespace
{

/* Of a payload that is no object: whether it is one value, as sensors send it. */
bool
json_is_scalar(const char *s, size_t size)
{
	while (size > 0 && json_is_space(*s))
		s++, size--;
	return size > 0 && *s != '[' && *s != '{';
}

/* The JSON grammar of a number, which raw tokens have not been checked against. */
bool
json_is_number(const char *p, size_t size)
{
	const char *end = p + size;
	auto		digits = [&]()
	{
		const char *start = p;

		while (p < end && *p >= '0' && *p <= '9')
			p++;
		return p > start;
	};

	if (p < end && *p == '-')
		p++;
	if (p < end && *p == '0')
		p++;
	else if (!digits())
		return false;
	if (p < end && *p == '.')
	{
		p++;
		if (!digits())
			return false;
	}
	if (p < end && (*p == 'e' || *p == 'E'))
	{
		p++;
		if (p < end && (*p == '+' || *p == '-'))
			p++;
		if (!digits())
			return false;
	}
	return p == end;
}

/* The JSON grammar of a string with its quotes: PostgreSQL's json asks no more, also not that surrogates come in pairs. */
bool
json_is_string(std::string_view token)
{
	if (token.size() < 2 || token.front() != '"' || token.back() != '"')
		return false;
	token = token.substr(1, token.size() - 2);
	for (size_t i = 0; i < token.size(); i++)
	{
		if (token[i] == '"')
			return false;
		if (token[i] != '\\')
			continue;
		if (++i == token.size() || strchr("\"\\/bfnrtu", token[i]) == nullptr)
			return false;
		if (token[i] == 'u')
			for (int digit = 0; digit < 4; digit++)
				if (++i == token.size() || !isxdigit(static_cast<unsigned char>(token[i])))
					return false;
	}
	return true;
}

/* True if a number's text is not zero though its double is: underflow, which PostgreSQL's input functions refuse. */
bool
json_underflows(const char *p, size_t size)
{
	for (; size > 0 && *p != 'e' && *p != 'E'; p++, size--)
		if (*p >= '1' && *p <= '9')
			return true;
	return false;
}

/*
 * True of a number that simdjson 3.0.1 reads as another double: one that begins with zero and has more digits than 64 bits
 * hold (0.12345678901234567890), whose overflow it looks for among the zeros only.
 */
bool
json_misreads(const char *p, size_t size)
{
	if (size > 0 && *p == '-')
		p++, size--;
	return size > strlen("0.1234567890123456789") && *p == '0';
}

/* One walk of the on-demand parser's. */
struct JsonWalk
{
	int			max_depth;
	uint64_t	walk; /* its number */
	const char *end;  /* of the payload */

	error_code walk_value(JsonNode *node, ondemand::value value, int depth, JsonValue *values);
	error_code walk_container(JsonNode *node, ondemand::value value, bool is_object, int depth, JsonValue *values);
	error_code walk_object(JsonNode *node, ondemand::object object, int depth, JsonValue *values);
	error_code walk_array(JsonNode *node, ondemand::array array, int depth, JsonValue *values);
	error_code extract(ondemand::value value, ondemand::json_type type, JsonWant want, JsonValue *out);
	JsonNode  *find_field(JsonNode *node, ondemand::field &field, error_code &error);
};

std::string_view
json_token(ondemand::value &value)
{
	std::string_view token = value.raw_json_token();

	while (!token.empty() && json_is_space(token.back()))
		token.remove_suffix(1);
	return token;
}

} /* namespace */

/* ---- everything else ---- */

static error_code
json_extract_string(ondemand::value value, std::string_view token, JsonWant want, JsonValue *out)
{
	std::string_view text;
	error_code		 error;

	if (want == JSON_WANT_RAW)
	{
		/* taken, not only looked at: what is left to be skipped may be a key and its value */
		if ((error = value.get_raw_json_string().error()))
			return error;
		json_set_text(out, JSON_TEXT, token);
		return json_is_string(token) ? SUCCESS : STRING_ERROR;
	}
	if ((error = value.get_string().get(text)))
		return error;
	json_set_text(out, JSON_STRING, text);
	return SUCCESS;
}

static error_code
json_extract_number(ondemand::value value, std::string_view token, JsonWant want, JsonValue *out)
{
	double	d;
	int64_t i;

	if (want == JSON_WANT_DOUBLE && !json_misreads(token.data(), token.size()) &&
		value.get_double().get(d) == SUCCESS && (d != 0.0 || !json_underflows(token.data(), token.size())))
	{
		out->kind = JSON_DOUBLE;
		out->u.d = d;
		return SUCCESS;
	}
	if (want == JSON_WANT_INT && value.get_int64().get(i) == SUCCESS)
	{
		out->kind = JSON_INT;
		out->u.i = i;
		return SUCCESS;
	}
	if (!json_is_number(token.data(), token.size()))
		return NUMBER_ERROR;
	json_set_text(out, JSON_TEXT, token);
	return SUCCESS;
}

static error_code
json_extract_bool(ondemand::value value, std::string_view token, JsonWant want, JsonValue *out)
{
	bool	   b;
	error_code error = value.get_bool().get(b);

	if (error)
		return error;
	if (want == JSON_WANT_BOOL)
	{
		out->kind = JSON_BOOL;
		out->u.b = b;
	}
	else
		json_set_text(out, JSON_TEXT, token);
	return SUCCESS;
}

/* A scalar into one wanted value. */
error_code
JsonWalk::extract(ondemand::value value, ondemand::json_type type, JsonWant want, JsonValue *out)
{
	std::string_view token = json_token(value);

	switch (type)
	{
		case ondemand::json_type::string:
			return json_extract_string(value, token, want, out);
		case ondemand::json_type::number:
			return json_extract_number(value, token, want, out);
		case ondemand::json_type::boolean:
			return json_extract_bool(value, token, want, out);
		default: /* null */
			out->kind = JSON_NULL;
			return token == "null" ? SUCCESS : N_ATOM_ERROR;
	}
}

/* An object or array, and its text into who wants the whole. */
error_code
JsonWalk::walk_container(JsonNode *node, ondemand::value value, bool is_object, int depth, JsonValue *values)
{
	std::string_view raw;
	bool			 wanted = node != nullptr && node->nwanted > 0;
	error_code		 error;

	if (depth >= max_depth)
		return DEPTH_ERROR;
	if (is_object)
	{
		ondemand::object object;

		if ((error = value.get_object().get(object)) || (error = walk_object(node, object, depth + 1, values)))
			return error;
		if (wanted && ((error = object.reset().error()) || (error = object.raw_json().get(raw))))
			return error;
	}
	else
	{
		ondemand::array array;

		if ((error = value.get_array().get(array)) || (error = walk_array(node, array, depth + 1, values)))
			return error;
		if (wanted && ((error = array.reset().error()) || (error = array.raw_json().get(raw))))
			return error;
	}
	for (int i = 0; wanted && i < node->nwanted; i++)
		json_set_text(&values[node->wanted[i]], JSON_TEXT, raw);
	return SUCCESS;
}

/* Several columns on one path: the others than the first get the text, which every type can be made from. */
static error_code
json_share(const JsonNode *node, ondemand::value value, ondemand::json_type type, JsonValue *values)
{
	const JsonValue *first = &values[node->wanted[0]];

	for (int i = 1; i < node->nwanted; i++)
		if (node->wants[i] == node->wants[0])
			values[node->wanted[i]] = *first;
		else if (first->kind == JSON_NULL)
			values[node->wanted[i]].kind = JSON_NULL;
		else if (type == ondemand::json_type::string && node->wants[i] != JSON_WANT_RAW)
		{
			if (first->kind != JSON_STRING)
				return UNEXPECTED_ERROR; /* cannot happen: streamext_json_want puts RAW wishes last */
			values[node->wanted[i]] = *first;
		}
		else
			json_set_text(&values[node->wanted[i]], JSON_TEXT, json_token(value));
	return SUCCESS;
}

/* A value at a node of the tree, or one that nobody wants (node NULL), which is only validated. */
error_code
JsonWalk::walk_value(JsonNode *node, ondemand::value value, int depth, JsonValue *values)
{
	ondemand::json_type type;
	error_code			error = value.type().get(type);

	if (error)
		return error;
	json_arrive(node, walk, values);
	if (type == ondemand::json_type::object || type == ondemand::json_type::array)
		return walk_container(node, value, type == ondemand::json_type::object, depth, values);
	if (node == nullptr || node->nwanted == 0)
	{
		JsonValue ignored;

		return extract(value, type, JSON_WANT_RAW, &ignored);
	}
	if ((error = extract(value, type, node->wants[0], &values[node->wanted[0]])) || node->nwanted == 1)
		return error;
	return json_share(node, value, type, values);
}

/*
 * The child that a field's key names, or NULL. Keys are compared as they stand; only one with an escape is unescaped. A name that needs one is none of
 * those that stand there: its backslash would be taken for that of an escape, its quote for the key's end.
 */
JsonNode *
JsonWalk::find_field(JsonNode *node, ondemand::field &field, error_code &error)
{
	const char *raw = field.key().raw();
	size_t		left = end - raw;

	error = SUCCESS;
	for (int tried = 0, i = node->guess; tried < node->nchildren; tried++, i++)
	{
		if (i >= node->nchildren)
			i = 0;

		JsonNode *child = node->children[i];

		if (child->verbatim && child->name_size < left && raw[child->name_size] == '"' && json_same(child, raw))
		{
			node->guess = i + 1;
			return child;
		}
	}

	for (const char *p = raw; p < end && *p != '"'; p++)
		if (*p == '\\')
		{
			std::string_view key;

			while (p < end && *p != '"')
				p += *p == '\\' ? 2 : 1;
			if (p >= end || !json_is_string(std::string_view(raw - 1, p + 2 - raw)))
				error = STRING_ERROR;
			/* one that cannot be unescaped is nobody's */
			if (error || node->nchildren == 0 || field.unescaped_key().get(key))
				return nullptr;
			for (int i = 0; i < node->nchildren; i++)
				if (node->children[i]->name != nullptr && key.size() == node->children[i]->name_size &&
					json_same(node->children[i], key.data()))
					return node->children[i];
			return nullptr;
		}
	return nullptr;
}

error_code
JsonWalk::walk_object(JsonNode *node, ondemand::object object, int depth, JsonValue *values)
{
	static JsonNode nobody;

	for (auto &&result : object)
	{
		ondemand::field field;
		error_code		error = std::move(result).get(field);

		if (error)
			return error;

		JsonNode *child = find_field(node != nullptr ? node : &nobody, field, error);

		if (error || (error = walk_value(child, field.value(), depth, values)))
			return error;
	}
	return SUCCESS;
}

error_code
JsonWalk::walk_array(JsonNode *node, ondemand::array array, int depth, JsonValue *values)
{
	long index = 0;

	for (auto &&result : array)
	{
		ondemand::value value;
		error_code		error = std::move(result).get(value);
		JsonNode	   *child = nullptr;

		if (error)
			return error;
		for (int i = 0; node != nullptr && i < node->nchildren; i++)
			if (node->children[i]->name == nullptr && node->children[i]->index == index)
				child = node->children[i];
		if ((error = walk_value(child, value, depth, values)))
			return error;
		index++;
	}
	return SUCCESS;
}

struct __attribute__((visibility("hidden"))) JsonParser
{
	ondemand::parser parser;
	JsonPlainParser	 plain;
	int				 doubt = 0;	 /* payloads to leave to the on-demand parser, because the last ones were not plain */
	int				 missed = 0; /* payloads in a row that were not plain */
	bool			 was_plain = false; /* the last one */
	JsonNode		 root;
	int				 nwanted = 0;
	int				 max_depth = 0;
	bool			 nocase = false;
	uint64_t		 walk = 0;		   /* number of the walk at hand; a payload may take two */
	char			*buffer = nullptr; /* the payload with the padding that simdjson reads beyond */
	size_t			 capacity = 0;
	const char		*end = nullptr; /* of the padded buffer */
};

extern "C" JsonParser *
streamext_json_create(int max_depth, bool nocase)
{
	JsonParser *parser = new (std::nothrow) JsonParser;

	if (parser == nullptr)
		return nullptr;
	parser->max_depth = max_depth;
	parser->nocase = nocase;
	return parser;
}

extern "C" void
streamext_json_destroy(JsonParser *parser)
{
	if (parser == nullptr)
		return;
	streamext_json_free(&parser->root);
	free(parser->buffer);
	delete parser;
}

extern "C" int
streamext_json_want(JsonParser *parser, const char *name, const char *path, JsonWant want)
{
	int error = streamext_json_add(&parser->root, name, path, parser->nocase, want, parser->nwanted);

	return error < 0 ? error : parser->nwanted++;
}

static void
json_miss_all(const JsonParser *parser, JsonValue *values)
{
	for (int i = 0; i < parser->nwanted; i++)
		values[i].kind = JSON_MISSING;
}

/* The payload into the parser's buffer, with the blanks behind it that simdjson reads. False: there is no memory for it. */
static bool
json_take(JsonParser *parser, const char *payload, size_t size)
{
	if (size + SIMDJSON_PADDING > parser->capacity)
	{
		size_t capacity = (size + SIMDJSON_PADDING) * 2;
		char  *grown = static_cast<char *>(realloc(parser->buffer, capacity));

		if (grown == nullptr)
			return false;
		parser->buffer = grown;
		parser->capacity = capacity;
	}
	memcpy(parser->buffer, payload, size);
	memset(parser->buffer + size, ' ', SIMDJSON_PADDING);
	parser->end = parser->buffer + size;
	return true;
}

/* False: it is not plain, or not tried because so many before it were not; no value is set. */
static bool
json_try_plain(JsonParser *parser, size_t size, JsonValue *values)
{
	if (parser->doubt > 0)
	{
		parser->doubt--;
		return false;
	}
	if (parser->plain.parse(&parser->root, parser->buffer, size, parser->capacity, parser->max_depth, ++parser->walk,
							values))
	{
		parser->missed = 0;
		return true;
	}
	json_miss_all(parser, values);
	if (++parser->missed >= JSON_PLAIN_TRIES)
	{
		parser->doubt = JSON_PLAIN_PAUSE;
		parser->missed = 0;
	}
	return false;
}

extern "C" const char *
streamext_json_parse(JsonParser *parser, const char *payload, size_t size, JsonValue *values)
{
	ondemand::document doc;
	ondemand::object   object;
	error_code		   error;

	json_miss_all(parser, values);
	if (!json_take(parser, payload, size))
		return "out of memory for the payload";
	parser->was_plain = json_try_plain(parser, size, values);
	if (parser->was_plain)
		return nullptr;

	/* simdjson's on-demand parser takes a NUL behind a number for its end */
	if (memchr(payload, 0, size) != nullptr)
		return "the payload holds a NUL byte";

	error = parser->parser.iterate(parser->buffer, size, size + SIMDJSON_PADDING).get(doc);
	if (!error)
	{
		error = doc.get_object().get(object);
		if (error == INCORRECT_TYPE)
			return json_is_scalar(parser->buffer, size)
					   ? "the payload is not a JSON object; of bare values the option format is 'text'"
					   : "the payload is not a JSON object";
	}
	if (!error)
	{
		JsonWalk walk = { parser->max_depth, ++parser->walk, parser->end };

		error = walk.walk_object(&parser->root, object, 1, values);
	}
	if (!error && doc.current_location().error() != OUT_OF_BOUNDS)
		error = TRAILING_CONTENT;
	if (error)
		return error_message(error);

	for (int i = 0; i < parser->root.nwanted; i++)
		json_set_text(&values[parser->root.wanted[i]], JSON_TEXT, std::string_view(parser->buffer, size));
	return nullptr;
}

extern "C" bool
streamext_json_may_hold_nul(const JsonParser *parser)
{
	return !parser->was_plain;
}
