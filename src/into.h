/*
 * into.h
 *		Stateless continuous queries: each accepted row of the stream, transformed, written once to an ordinary table.
 *
 * The rows of a batch and the view's positions behind it are written in one transaction, so that after whatever end of the
 * worker the table streamext.into_positions says which records have their rows in the target.
 */
#ifndef STREAMEXT_INTO_H
#define STREAMEXT_INTO_H

#include "streamext.h"
#include "batch.h"
#include "shmem.h"

/* Where a view stands in a partition, as committed. */
typedef struct IntoPosition
{
	char	   *topic;
	int			partition;
	int64		position;
} IntoPosition;

/* streamext.into as the user wrote it, qualified and quoted; raises unless it names a table that rows can be put into. */
extern char *streamext_into_resolve(const char *name);
/* The table of a resolved name; raises as above. */
extern Oid	streamext_into_target(const char *name);
/* The view depends on the table; replaces what it depended on before. InvalidOid: on none. */
extern void streamext_into_depend(Oid viewoid, Oid target);

/*
 * INSERT INTO target (output names of targetList) SELECT ... FROM rows, analysed; columns are assigned by name. rows
 * NULL: there are none. Raises what PostgreSQL raises for such an INSERT.
 */
extern Query *streamext_into_query(Oid target, List *targetList, Query *rows);
/* QueryRewrite of such a query, whose locks are held. */
extern Query *streamext_into_rewrite(Query *insert);
/* Raises what such an INSERT would, without any rows; 42501 unless the current user may do it. */
extern void streamext_into_check(Oid target, List *targetList);

/* The view's positions in the stream (of IntoPosition), in the current memory context. */
extern List *streamext_into_load(Oid viewoid, Oid stream);
/*
 * In the transaction that writes the rows: the view, which stood at its slot's positions, is behind the batch. Raises 40001 if the table
 * says that it has been further: another process has written rows of the batch.
 */
extern void streamext_into_save(ViewSlot *slot, Batch *batch);

#endif							/* STREAMEXT_INTO_H */
