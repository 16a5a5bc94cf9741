/*
 * source/http/http.h
 *		What HTTP servers and their streams are made of: options, and what a request leaves with its records. Who receives is
 *		gateway/http.c; the worker reads what that has put into the journal.
 */
#ifndef STREAMEXT_HTTP_H
#define STREAMEXT_HTTP_H

#include "base/streamext.h"

#include "source/connector.h"

typedef enum HttpSignature
{
	HTTP_SIGNATURE_SHA256,		/* sha256=<hex> of the body */
	HTTP_SIGNATURE_TIMESTAMPED, /* t=<unix>,v1=<hex> of t.body */
} HttpSignature;

extern const OptionSpec streamext_http_options[];

extern void streamext_http_check_options(OptionPlace place, List *options);
extern void streamext_http_configure(StreamConfig *config);
extern void streamext_http_check(const StreamConfig *config);

/* The path that a stream takes POSTs at, palloc'd. */
extern char *streamext_http_path(List *table_options, const char *schema, const char *name);

/* The option max_body, in bytes. */
extern int64 streamext_http_max_body(List *server_options);

/*
 * What the records of a request share (source/journal/block.h): the path, then texts with a NUL each: kind and name, value. Names of headers are in
 * lower case.
 */
typedef enum HttpPart
{
	HTTP_PART_ADDRESS = 'a', /* has no name */
	HTTP_PART_QUERY = 'q',
	HTTP_PART_HEADER = 'h',
} HttpPart;

extern void streamext_http_put(StringInfo common, HttpPart part, const char *name, const char *value, Size size);
/* Among these pairs, which end with a NUL; NULL: there is none. */
extern const char *streamext_http_find(const char *pairs, uint32 size, HttpPart part, const char *name);

#endif /* STREAMEXT_HTTP_H */
