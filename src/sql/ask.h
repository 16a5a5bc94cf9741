/*
 * sql/ask.h
 *		A server's source asked by a session, with the caller's own login (source/sample.h).
 */
#ifndef STREAMEXT_ASK_H
#define STREAMEXT_ASK_H

#include "base/streamext.h"

#include "nodes/parsenodes.h"

#include "source/connector.h"
#include "source/sample.h"

/* How long it may take where nobody has said. */
#define STREAMEXT_ASK_WAIT (5 * USECS_PER_SEC)

/*
 * The newest n records of a topic, or of an MQTT filter those that come within the time. For who may use the server, as whom the source is
 * asked: his user mapping, else PUBLIC's. Raises where the source cannot be asked, is away, or lets him not.
 */
extern SourceSample *streamext_ask_topic(Oid serverid, const char *topic, int n, int64 wait, StreamConfig **config);

/* FdwRoutine.ImportForeignSchema: a stream for a topic, its columns guessed from the newest records. */
extern List *streamext_import(ImportForeignSchemaStmt *stmt, Oid serverid);

#endif /* STREAMEXT_ASK_H */
