/*
 * sink/outbox.h
 *		Rows that go to another system wait in the table streamext_internal.outbox, part of the transaction that inserts them.
 *
 * So nothing is sent before a commit and nothing after a rollback, be it of a subtransaction; a view's windows and how far it has given them are
 * one transaction. The worker of the stream that is the target sends what is committed, in the order of ids (sink/delivery.h), and
 * deletes it. What it has been told to keep for somebody to look at (streamext.sinks.dead) stays there, marked.
 */
#ifndef STREAMEXT_OUTBOX_H
#define STREAMEXT_OUTBOX_H

#include "base/streamext.h"

#include "stream/definition.h"

typedef struct OutboxWriter OutboxWriter;

/* Raises if the relation is a foreign table of another system whose rows could never be written: its format, or where they would go. */
extern void streamext_outbox_check(Oid target);

/* Rows for the stream, in the current context; raises if it cannot be written, or so much waits that no more is taken (53400). */
extern OutboxWriter *streamext_outbox_begin(const StreamConfig *config);
/* A row of the stream's columns. Raises what output functions raise; they run as the current user. */
extern void streamext_outbox_put(OutboxWriter *writer, const Datum *values, const bool *nulls);
/* All rows are in the table. */
extern void streamext_outbox_end(OutboxWriter *writer);

/* From commit on rows are sent again that were marked; how many. */
extern int64 streamext_outbox_retry(Oid target);

/* What commit and PREPARE do about rows in the outbox. */
extern void streamext_outbox_install_callbacks(void);

#endif /* STREAMEXT_OUTBOX_H */
