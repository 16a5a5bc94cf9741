/*
 * gateway/reader.h
 *		Reading a view for somebody who asked a gateway: in a process of its own, so that a slow query holds up nobody who sends, and what a view's
 *		query may do to its process is over with it.
 */
#ifndef STREAMEXT_READER_H
#define STREAMEXT_READER_H

#include "base/streamext.h"

#include "lib/stringinfo.h"

#include "base/identity.h"

#define STREAMEXT_READERS 5						/* of a gateway at once, one of them left to other roles */
#define STREAMEXT_READ_MS 30000					/* that a query may take */
#define STREAMEXT_READ_BYTES (64 * 1024 * 1024) /* of an answer */

typedef enum ReadFormat
{
	READ_JSON,
	READ_NDJSON,
	READ_CSV,
	READ_METRICS, /* no view but what the role may see of streamext.metrics, in the text format of Prometheus */
	READ_OPENMETRICS
} ReadFormat;

typedef struct GatewayRead
{
	int					status; /* of HTTP, once it has ended; not 200: body is the error's text */
	StringInfoData		body;
	struct ReadProcess *process;
} GatewayRead;

/*
 * Starts to read as the role. names: schema, view, then column and value of each filter, with a NUL each. limit < 0: none. NULL: no process is to be
 * had, try later.
 */
extern GatewayRead *streamext_gateway_read(Oid role, ReadFormat format, int64 limit, const char *names, Size size);
/* Takes what has come, without waiting; the latch is set when there is more. True: it has ended. */
extern bool streamext_gateway_read_poll(GatewayRead *read);
/* Ends it if it has not, and frees it. */
extern void streamext_gateway_read_end(GatewayRead *read);

/* ---- for processes that read views ---- */

/* The view that the role may read; raises. A schema that it may not use holds nothing for it. */
extern Oid streamext_reader_view(const char *schema, const char *name, Oid role);
/* The role's scope in a process that has no other work: also its session is the role's from then on. */
extern IdentityScope streamext_reader_enter(Oid role);
/* The answer's status of an error. */
extern int	streamext_reader_status(const ErrorData *error);
extern void streamext_reader_session(const char *name); /* its settings */

extern PGDLLEXPORT void streamext_reader_main(Datum arg); /* arg: of the segment that has the question */

#endif /* STREAMEXT_READER_H */
