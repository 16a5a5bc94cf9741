/*
 * base/json.cpp
 *		JSON payloads by simdjson's on-demand parser: the one C++ file.
 *
 * The wanted paths form a tree of names and array indexes. A payload is walked once along that tree; fields come in the same
 * order in most streams, so each node first tries the child after the one it matched last. On-demand parsing checks only what
 * it is asked for, so values nobody wants are walked too (json_validate): malformed is malformed for every reader.
 *
 * Nearly all payloads are plain: objects of strings without escapes, short numbers, literals. Those are walked by JsonPlain
 * right over the positions that simdjson's first stage finds (it has checked UTF-8 and control characters by then), at a third
 * of the cost. It never decides that something is malformed: whatever it does not know is left to the on-demand parser.
 */
#define SIMDJSON_EXCEPTIONS 0
#include <simdjson.h>

#include <cctype>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "base/json.h"
#include "base/number.h"
#include "base/path.h"

using namespace simdjson;

#define JSON_PLAIN_TRIES 8	  /* after so many payloads in a row that were not plain */
#define JSON_PLAIN_PAUSE 1000 /* so many are not tried */

namespace
{

struct Node
{
	char	 *name = nullptr; /* NULL: an array element */
	size_t	  name_size = 0;
	long	  index = 0;
	int		 *wanted = nullptr; /* numbers of the values that are found here */
	JsonWant *wants = nullptr;
	int		  nwanted = 0;
	Node	**children = nullptr;
	int		  nchildren = 0;
	int		  guess = 0;
	bool	  nocase = false;	/* ASCII letters of the name match in either case */
	bool	  verbatim = false; /* the name stands in JSON as it is, without an escape */
	uint64_t  walked = 0;		/* the walk that was here last; kept where there are children */
};

inline char
json_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

/* Whether the key, of the node's name's size, is that name. */
inline bool
json_same(const Node *node, const char *key)
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

/* Grows a malloc'd array by one; false: out of memory. */
template <typename T>
bool
json_append(T *&array, int n, T value)
{
	T *grown = static_cast<T *>(realloc(array, sizeof(T) * (n + 1)));

	if (grown == nullptr)
		return false;
	grown[n] = value;
	array = grown;
	return true;
}

void
json_free_node(Node *node)
{
	for (int i = 0; i < node->nchildren; i++)
	{
		json_free_node(node->children[i]);
		delete node->children[i];
	}
	free(node->children);
	free(node->wanted);
	free(node->wants);
	free(node->name);
}

/* As if nothing below the node had been found. */
void
json_forget(const Node *node, JsonValue *values)
{
	for (int i = 0; i < node->nwanted; i++)
		values[node->wanted[i]].kind = JSON_MISSING;
	for (int i = 0; i < node->nchildren; i++)
		json_forget(node->children[i], values);
}

/* To be called where a walk comes to a value: of a field that comes twice the last counts, with all that is in it. */
inline void
json_arrive(Node *node, uint64_t walk, JsonValue *values)
{
	if (node == nullptr || node->nchildren == 0)
		return;
	if (node->walked == walk)
		json_forget(node, values);
	node->walked = walk;
}

/* The child with this name (or index, if name is NULL), made if need be; NULL: out of memory. */
Node *
json_child(Node *node, const char *name, size_t name_size, long index, bool nocase)
{
	for (int i = 0; i < node->nchildren; i++)
	{
		Node *child = node->children[i];

		if (name == nullptr ? child->name == nullptr && child->index == index
							: child->name != nullptr && child->name_size == name_size && json_same(child, name))
			return child;
	}

	Node *child = new (std::nothrow) Node;

	if (child == nullptr)
		return nullptr;
	child->index = index;
	child->nocase = nocase;
	if (name != nullptr)
	{
		child->name = static_cast<char *>(malloc(name_size + 1));
		if (child->name == nullptr)
		{
			delete child;
			return nullptr;
		}
		memcpy(child->name, name, name_size);
		child->name_size = name_size;
		child->verbatim = memchr(name, '\\', name_size) == nullptr && memchr(name, '"', name_size) == nullptr;
	}
	if (!json_append(node->children, node->nchildren, child))
	{
		json_free_node(child);
		delete child;
		return nullptr;
	}
	node->nchildren++;
	return child;
}

inline bool
json_is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

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

} /* namespace */

/* One walk over a plain payload. False from any function: not plain. */
struct JsonPlain
{
	const char	   *buffer;
	const uint32_t *at;	 /* position of the token at hand */
	const uint32_t *end; /* behind the last; the payload's size is stored there */
	JsonValue	   *values;
	int				max_depth;
	uint64_t		walk;

	bool walk_object(Node *node, int depth);
	bool walk_array(Node *node, int depth);
	bool walk_value(Node *node, int depth);
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

struct JsonParser
{
	ondemand::parser									 parser;
	std::unique_ptr<internal::dom_parser_implementation> stage1; /* for plain payloads; null: none */
	int			doubt = 0;	/* payloads to leave to the on-demand parser, because the last ones were not plain */
	int			missed = 0; /* payloads in a row that were not plain */
	Node		root;
	int			nwanted = 0;
	int			max_depth = 0;
	bool		nocase = false;
	uint64_t	walk = 0;		  /* number of the walk at hand; a payload may take two */
	char	   *buffer = nullptr; /* the payload with the padding that simdjson reads beyond */
	size_t		capacity = 0;
	const char *end = nullptr; /* of the padded buffer */

	error_code walk_value(Node *node, ondemand::value value, int depth, JsonValue *values);
	error_code walk_container(Node *node, ondemand::value value, bool is_object, int depth, JsonValue *values);
	error_code walk_object(Node *node, ondemand::object object, int depth, JsonValue *values);
	error_code walk_array(Node *node, ondemand::array array, int depth, JsonValue *values);
	error_code extract(ondemand::value value, ondemand::json_type type, JsonWant want, JsonValue *out);
	Node	  *find_field(Node *node, ondemand::field &field, error_code &error);
	bool	   parse_plain(size_t size, JsonValue *values);
};

namespace
{

std::string_view
json_token(ondemand::value &value)
{
	std::string_view token = value.raw_json_token();

	while (!token.empty() && json_is_space(token.back()))
		token.remove_suffix(1);
	return token;
}

void
json_set_text(JsonValue *out, JsonValueKind kind, std::string_view text)
{
	out->kind = kind;
	out->u.s = text.data();
	out->size = static_cast<uint32_t>(text.size());
}

} /* namespace */

/* ---- plain payloads ---- */

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
JsonPlain::walk_value(Node *node, int depth)
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
JsonPlain::walk_object(Node *node, int depth)
{
	at++;
	if (at < end && buffer[*at] == '}')
	{
		at++;
		return true;
	}
	for (;;)
	{
		Node	   *child = nullptr;
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
JsonPlain::walk_array(Node *node, int depth)
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
		Node *child = nullptr;

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

/* True: values are filled. False: the on-demand parser is to look; values may hold anything. */
bool
JsonParser::parse_plain(size_t size, JsonValue *values)
{
	JsonPlain plain;

	if (root.nwanted > 0 || memchr(buffer, '\\', size) != nullptr)
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
	plain.walk = ++walk;
	return buffer[*plain.at] == '{' && plain.walk_object(&root, 1) && plain.at == plain.end;
}

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
JsonParser::extract(ondemand::value value, ondemand::json_type type, JsonWant want, JsonValue *out)
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
JsonParser::walk_container(Node *node, ondemand::value value, bool is_object, int depth, JsonValue *values)
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
json_share(const Node *node, ondemand::value value, ondemand::json_type type, JsonValue *values)
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
JsonParser::walk_value(Node *node, ondemand::value value, int depth, JsonValue *values)
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
Node *
JsonParser::find_field(Node *node, ondemand::field &field, error_code &error)
{
	const char *raw = field.key().raw();
	size_t		left = end - raw;

	error = SUCCESS;
	for (int tried = 0, i = node->guess; tried < node->nchildren; tried++, i++)
	{
		if (i >= node->nchildren)
			i = 0;

		Node *child = node->children[i];

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
JsonParser::walk_object(Node *node, ondemand::object object, int depth, JsonValue *values)
{
	static Node nobody;

	for (auto &&result : object)
	{
		ondemand::field field;
		error_code		error = std::move(result).get(field);

		if (error)
			return error;

		Node *child = find_field(node != nullptr ? node : &nobody, field, error);

		if (error || (error = walk_value(child, field.value(), depth, values)))
			return error;
	}
	return SUCCESS;
}

error_code
JsonParser::walk_array(Node *node, ondemand::array array, int depth, JsonValue *values)
{
	long index = 0;

	for (auto &&result : array)
	{
		ondemand::value value;
		error_code		error = std::move(result).get(value);
		Node		   *child = nullptr;

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
	json_free_node(&parser->root);
	free(parser->buffer);
	delete parser;
}

extern "C" int
streamext_json_want(JsonParser *parser, const char *name, const char *path, JsonWant want)
{
	Node *node = &parser->root;

	if (path == nullptr)
		node = json_child(node, name, strlen(name), 0, parser->nocase);
	else
	{
		PathReader reader;
		char	  *key = static_cast<char *>(malloc(strlen(path) + 1));
		PathStep   step = PATH_END;

		streamext_path_begin(&reader, path);
		while (key != nullptr && node != nullptr && (step = streamext_path_next(&reader, key)) < PATH_END)
			node = step == PATH_KEY ? json_child(node, key, reader.size, 0, parser->nocase)
									: json_child(node, nullptr, 0, reader.index, false);
		free(key);
		if (step == PATH_FAULT)
			return -1;
		if (key == nullptr)
			return -2;
	}
	if (node == nullptr || !json_append(node->wanted, node->nwanted, parser->nwanted) ||
		!json_append(node->wants, node->nwanted, want))
		return -2;
	node->nwanted++;

	/* A string is unescaped only once: a wish for its raw text goes last. */
	for (int i = node->nwanted - 1; i > 0 && node->wants[i - 1] == JSON_WANT_RAW && node->wants[i] != JSON_WANT_RAW;
		 i--)
	{
		std::swap(node->wants[i - 1], node->wants[i]);
		std::swap(node->wanted[i - 1], node->wanted[i]);
	}
	return parser->nwanted++;
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
	if (parser->parse_plain(size, values))
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

	/* simdjson takes a NUL behind a number for its end */
	if (memchr(payload, 0, size) != nullptr)
		return "the payload holds a NUL byte";
	if (!json_take(parser, payload, size))
		return "out of memory for the payload";
	if (json_try_plain(parser, size, values))
		return nullptr;

	parser->walk++;
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
		error = parser->walk_object(&parser->root, object, 1, values);
	if (!error && doc.current_location().error() != OUT_OF_BOUNDS)
		error = TRAILING_CONTENT;
	if (error)
		return error_message(error);

	for (int i = 0; i < parser->root.nwanted; i++)
		json_set_text(&values[parser->root.wanted[i]], JSON_TEXT, std::string_view(parser->buffer, size));
	return nullptr;
}
