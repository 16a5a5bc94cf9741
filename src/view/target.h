/*
 * view/target.h
 *		streamext.into: what a view makes goes into an ordinary table, once.
 *
 * Of a stateless view each accepted row, transformed (view/target.c); of a view with windows each window's rows when it is closed
 * (sink/windows.c).
 *
 * The rows of a batch, the view's positions behind it and its counters are written in one transaction, so that after whatever end of the
 * worker the table streamext.into_position says which records have their rows in the target.
 */
#ifndef STREAMEXT_INTO_H
#define STREAMEXT_INTO_H

#include "base/streamext.h"
#include "decode/batch.h"
#include "shared/shmem.h"
#include "view/compile.h"

/* Where a view stands in a partition, as committed. */
typedef struct IntoPosition
{
	char *topic;
	int	  partition;
	int64 position;
} IntoPosition;

/* streamext.into as the user wrote it, qualified and quoted; raises unless it names a table that rows can be put into. */
extern char *streamext_into_resolve(const char *name);
/* The table of a resolved name; raises as above. */
extern Oid streamext_into_target(const char *name);
/* The view depends on the table; replaces what it depended on before. InvalidOid: on none. */
extern void streamext_into_depend(Oid viewoid, Oid target);

/*
 * INSERT INTO target (output names of targetList) SELECT ... FROM rows, analysed; columns are assigned by name. rows
 * NULL: there are none. Raises what PostgreSQL raises for such an INSERT.
 */
extern Query *streamext_into_query(Oid target, List *targetList, Query *rows);
/* QueryRewrite of such a query, whose locks are held. */
extern Query *streamext_into_rewrite(Query *insert);
/* Deferred constraints are looked at when a row is put in, for the rest of the (sub)transaction. */
extern void streamext_into_check_at_once(void);
/* Raises what such an INSERT would, without any rows; 42501 unless the current user may do it. */
extern void streamext_into_check(Oid target, List *targetList);

/* The greatest position that any view has in the stream; 0: none. In a transaction. */
extern int64 streamext_into_highest(Oid stream);
/* Of a view without windows: the records that it has counted, which are kept with its positions. In a transaction. */
extern void streamext_into_counts(Oid stream, Oid viewoid, uint64 *accepted, uint64 *rejected);
/* So many records that the view had rejected have their rows in the table now. Within SPI, in the transaction that writes these. */
extern void streamext_into_recount(Oid viewoid, Oid stream, const char *topic, int partition, int64 n);
/* The view's positions in the stream (of IntoPosition), in the current memory context. */
extern List *streamext_into_load(Oid viewoid, Oid stream);
/*
 * In the transaction that writes the rows: the view, which stood at its slot's positions, is behind the batch. Raises 40001 if the table
 * says that it has been further: another process has written rows of the batch.
 */
extern void streamext_into_save(ViewSlot *slot, Batch *batch);

/* To clients that LISTEN to the view's channel, when the transaction commits. */
extern void streamext_into_notify(Oid viewoid, const char *payload);

/* ---- views with windows ---- */

struct Worker;

/* True if it is such a view's windows that go into a table. */
static inline bool
streamext_into_has_windows(const CompiledView *view)
{
	return view->options.into != NULL && !view->stateless;
}

/* Up to which end the view's windows are in the table, as committed; DT_NOBEGIN: none. Needs a transaction. */
extern TimestampTz streamext_into_load_window(Oid viewoid);
/* The watermark, but not so late that retention would take windows that are not in the table yet; of other views the watermark. */
extern TimestampTz streamext_into_limit(const CompiledView *view, const ViewSlot *slot, TimestampTz watermark);
/* A checkpoint of the worker's views has been committed. */
extern void streamext_into_settled(const struct Worker *w);
/* Writes what is closed and not written; no transaction is open. Trouble ends the view, or is tried again. */
extern void streamext_into_windows(struct Worker *w, TimestampTz now);
/* When there is something to do; DT_NOEND: never. */
extern TimestampTz streamext_into_deadline(const struct Worker *w);

#endif /* STREAMEXT_INTO_H */
