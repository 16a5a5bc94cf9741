/*
 * fuzz/json_lexer.h
 *		PostgreSQL's own parser of JSON, for targets that compare with it.
 */
#ifndef STREAMEXT_FUZZ_JSON_LEXER_H
#define STREAMEXT_FUZZ_JSON_LEXER_H

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"

/* Of UTF-8, for pg_parse_json. */
static inline JsonLexContext *
fuzz_json_lexer(char *json, size_t size, bool need_escapes)
{
#if PG_VERSION_NUM >= 170000
	return makeJsonLexContextCstringLen(NULL, json, size, PG_UTF8, need_escapes);
#else
	return makeJsonLexContextCstringLen(json, size, PG_UTF8, need_escapes);
#endif
}

#endif /* STREAMEXT_FUZZ_JSON_LEXER_H */
