/*
 * base/json.h
 *		The C interface of the simdjson files (base/json.cpp, json_plain.cpp, json_tree.cpp): one JSON object in, the wanted values out.
 *
 * It makes no PostgreSQL call, lets no exception out and allocates only when a payload is larger than any before. The whole
 * payload is validated, also the fields nobody wants, by the grammar that PostgreSQL's json has: a record is malformed or it is not, whoever
 * looks. Only of a string that is wanted unescaped surrogates must come in pairs.
 */
#ifndef STREAMEXT_DECODER_JSON_H
#define STREAMEXT_DECODER_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C"
{
#endif

	/* What a column wants to make of a value; decides what the parser extracts. */
	typedef enum JsonWant
	{
		JSON_WANT_BOOL,
		JSON_WANT_INT,
		JSON_WANT_DOUBLE,
		JSON_WANT_TEXT, /* strings unescaped, anything else as its JSON text */
		JSON_WANT_RAW	/* any value as its JSON text */
	} JsonWant;

	typedef enum JsonValueKind
	{
		JSON_MISSING, /* not there */
		JSON_NULL,
		JSON_BOOL,	 /* b */
		JSON_INT,	 /* i */
		JSON_DOUBLE, /* d */
		JSON_STRING, /* s: unescaped, valid UTF-8; may hold NUL */
		JSON_TEXT	 /* s: the value's JSON text: what did not fit the wish */
	} JsonValueKind;

	typedef struct JsonValue
	{
		JsonValueKind kind;
		uint32_t	  size;
		union
		{
			bool		b;
			int64_t		i;
			double		d;
			const char *s; /* not NUL-terminated; good until the next parse */
		} u;
	} JsonValue;

	typedef struct JsonParser JsonParser;

	/* max_depth: nesting of objects and arrays. nocase: names match in whatever case their ASCII letters are. NULL: out of memory. */
	extern JsonParser *streamext_json_create(int max_depth, bool nocase);
	extern void		   streamext_json_destroy(JsonParser *parser);

	/*
 * Adds a wanted value and returns its number (0, 1, ...). path NULL: the top-level field called `name`, literally. Else a path
 * (base/path.h). -1: it is none; -2: out of memory.
 */
	extern int streamext_json_want(JsonParser *parser, const char *name, const char *path, JsonWant want);

	/* Fills values[0 .. wanted). NULL, or why the payload is malformed (static text). */
	extern const char *streamext_json_parse(JsonParser *parser, const char *payload, size_t size, JsonValue *values);

	/* False: no string of the payload parsed last holds NUL, which takes an escape. */
	extern bool streamext_json_may_hold_nul(const JsonParser *parser);

#ifdef __cplusplus
}
#endif

#endif /* STREAMEXT_DECODER_JSON_H */
