/*
 * fold/join.h
 *		The rows of a batch, joined: one query a batch, by PostgreSQL's own planner and executor.
 *
 * The view's FROM and WHERE are run with the batch in the place of the stream, as of the active snapshot; its output is
 * what the fold needs that is not a plain column of the stream. A row of the batch makes any number of joined rows.
 */
#ifndef STREAMEXT_JOIN_H
#define STREAMEXT_JOIN_H

#include "base/streamext.h"
#include "decode/batch.h"
#include "view/compile.h"

typedef struct JoinRun JoinRun;

/* What came of the rows given since streamext_join_begin; in the batch's context. */
typedef struct JoinRows
{
	int		n;
	int		capacity;
	int	   *rows;	/* [n] row of the batch */
	Datum **values; /* [expression][n]; varlena values are unTOASTed */
	bool  **nulls;
} JoinRows;

/* exprs (of Expr) are over the joined row of view->query. cxt outlives transactions. */
extern JoinRun *streamext_join_start(CompiledView *view, StreamConfig *config, List *exprs, MemoryContext cxt);
extern void		streamext_join_end(JoinRun *join);

extern JoinRows *streamext_join_begin(JoinRun *join, Batch *batch);

/*
 * Joins these rows of the batch and appends to `to`; a stateless view's (to = NULL) are put into its table. Call as the view's owner, in a
 * subtransaction, with an active snapshot. After an error `to` holds what it held before, and streamext_join_has_started tells how far it
 * got.
 */
extern void streamext_join_run(JoinRun *join, Batch *batch, const int *rows, int nrows, JoinRows *to);

/* How many rows the last run has put into the table. */
extern uint64 streamext_join_inserted(const JoinRun *join);
/* Of a run that has raised: false if the query could not be run at all, whatever the rows. */
extern bool streamext_join_has_started(const JoinRun *join);

#endif /* STREAMEXT_JOIN_H */
