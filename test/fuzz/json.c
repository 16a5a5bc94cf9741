/*
 * sources: base/json base/json_plain base/json_tree base/path
 *
 * A JSON payload. Whether it is malformed does not depend on what is wanted of it, but for lone surrogates, nor on what was
 * parsed before; PostgreSQL's parser says the same; what is found are texts in the payload's encoding.
 */
#include "fuzz.h"

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"

#include "base/json.h"

#define DEPTH 64

static const struct
{
	const char *name, *path;
	JsonWant	want;
} wanted[] = {
	{ "id", NULL, JSON_WANT_INT },	  { "name", NULL, JSON_WANT_TEXT }, { "x", NULL, JSON_WANT_DOUBLE },
	{ "ok", NULL, JSON_WANT_BOOL },	  { "raw", NULL, JSON_WANT_RAW },	{ NULL, "a.b[2].c", JSON_WANT_TEXT },
	{ NULL, "$.a.b", JSON_WANT_RAW }, { NULL, "$", JSON_WANT_RAW },		{ NULL, "a.b[0]", JSON_WANT_INT },
	{ "x", NULL, JSON_WANT_TEXT },
};

static JsonParser *all, *none;

static void
json_check(const JsonParser *parser, const JsonValue *value)
{
	if (value->kind == JSON_STRING && !streamext_json_may_hold_nul(parser))
		REQUIRE(memchr(value->u.s, 0, value->size) == NULL);
	if (value->kind == JSON_STRING || value->kind == JSON_TEXT)
	{
		char *copy = palloc(value->size); /* every byte is read */

		memcpy(copy, value->u.s, value->size);
		for (uint32 at = 0; at < value->size; at++) /* there may be NULs */
		{
			int part = (int) strnlen(copy + at, value->size - at);

			REQUIRE(pg_encoding_verifymbstr(PG_UTF8, copy + at, part) == part);
			at += part;
		}
	}
	else
		REQUIRE(value->kind <= JSON_DOUBLE);
}

/* PostgreSQL's own answer: JSON in UTF-8, an object. Depth is not looked at. */
static bool
json_expected(char *payload, size_t size)
{
	size_t at = 0;

	if (memchr(payload, 0, size) != NULL || pg_encoding_verifymbstr(PG_UTF8, payload, size) != size)
		return false;
	while (at < size && strchr(" \t\n\r", payload[at]) != NULL)
		at++;
	return at < size && payload[at] == '{' &&
		   pg_parse_json(makeJsonLexContextCstringLen(payload, size, PG_UTF8, false), &nullSemAction) == JSON_SUCCESS;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	JsonValue	values[lengthof(wanted)], others[1];
	FuzzInput	in = { data, size };
	const char *error, *error_none, *error_again;
	char	   *payload;
	bool		path;

	server_start();
	if (all == NULL)
	{
		all = streamext_json_create(DEPTH, false);
		none = streamext_json_create(DEPTH, false);
		for (int i = 0; i < lengthof(wanted); i++)
			REQUIRE(streamext_json_want(all, wanted[i].name, wanted[i].path, wanted[i].want) == i);
	}
	path = fuzz_number(&in, 8) == 0;
	payload = fuzz_copy(&in, size = in.size);
	if (path)
	{
		JsonParser *parser = streamext_json_create(DEPTH, false);
		FuzzInput	text = { (uint8_t *) payload, size };
		int			number = streamext_json_want(parser, NULL, fuzz_text(&text, size), JSON_WANT_TEXT);

		REQUIRE(number == 0 || number == -1);
		if (number == 0 && streamext_json_parse(parser, "{\"a\":{\"b\":[1,{\"c\":\"\\u00e4\"}]}}", 30, values) == NULL)
			json_check(parser, &values[0]);
		streamext_json_destroy(parser);
	}
	else
	{
		error = streamext_json_parse(all, payload, size, values);
		if (error == NULL)
			for (int i = 0; i < lengthof(wanted); i++)
				json_check(all, &values[i]);
		error_none = streamext_json_parse(none, payload, size, others);
		REQUIRE((error_none == NULL) == json_expected(payload, size) ||
				(error_none != NULL && strstr(error_none, "too deep")));
		error_again = streamext_json_parse(all, payload, size, values);
		REQUIRE((error == NULL) == (error_again == NULL));
		/* only an escape that stands for no character may be read over where nobody wants the string */
		REQUIRE((error == NULL) == (error_none == NULL) ||
				(error_none == NULL && memmem(payload, size, "\\u", 2) != NULL));
	}
	server_reset();
	return 0;
}
