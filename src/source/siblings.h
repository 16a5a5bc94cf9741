/*
 * source/siblings.h
 *		Streams of one server among which no two may be named alike by who sends to it.
 */
#ifndef STREAMEXT_SIBLINGS_H
#define STREAMEXT_SIBLINGS_H

#include "base/streamext.h"

#include "base/stream_def.h"

/* What senders name a stream by; NULL: nothing. */
typedef char *(*SiblingName)(List *table_options, const char *schema, const char *name);

/* Foreign tables of the server, ascending. */
extern List *streamext_sibling_tables(Oid serverid);

/*
 * Another stream of the server that is named so, as schema.name, or NULL. For ConnectorOps.check: holds off until the transaction's end who
 * would make one meanwhile.
 */
extern char *streamext_sibling_named(const StreamConfig *config, const char *wanted, SiblingName name);

#endif /* STREAMEXT_SIBLINGS_H */
