/*
 * fold/aggregate.c
 *		What aggregates without a native form do ahead with the selected rows.
 *
 * First all rows of one aggregate after the other, in one subtransaction. Where a row raises in that, everything is forgotten and done row by
 * row: each aggregate notes what its state was before the row (all that was joined from one row of the batch), so that a row on which
 * one of them raises leaves all of them, and the next row goes on from there. That costs a copy of a state each row, and a
 * subtransaction for each that raises: as much as there are rows, however many raise.
 */
#include "base/streamext.h"

#include "fold/fold_private.h"

/* What counts in an aggregate. */
static inline bool
aggregate_takes(const ViewFold *fold, int a, int row)
{
	const FoldExpr *filter = fold->exprs.filter[a] >= 0 ? &fold->exprs.items[fold->exprs.filter[a]] : NULL;

	return filter == NULL || (!filter->nulls[row] && DatumGetBool(filter->values[row]));
}

/* The rows that its FILTER lets through. */
static void
aggregate_filter(ViewFold *fold, int a)
{
	AggInput	*in = &fold->inputs[a];
	Size		 most = Max(fold->selected.n, 1);
	int			*rows = MemoryContextAllocHuge(fold->batch->cxt, sizeof(int) * most);
	GroupEntry **groups = MemoryContextAllocHuge(fold->batch->cxt, sizeof(GroupEntry *) * most);
	Pane	   **panes = MemoryContextAllocHuge(fold->batch->cxt, sizeof(Pane *) * most);
	int			 n = 0;

	for (int i = 0; i < fold->selected.n; i++)
	{
		if (!aggregate_takes(fold, a, fold->selected.rows[i]))
			continue;
		rows[n] = fold->selected.rows[i];
		groups[n] = fold->selected.groups[i];
		panes[n] = fold->selected.panes[i];
		n++;
	}
	in->n = n;
	in->rows = rows;
	in->groups = groups;
	in->panes = panes;
}

/* The rows each aggregate takes. */
static void
aggregate_make_inputs(ViewFold *fold)
{
	CompiledView *view = fold->view;

	for (int a = 0; a < view->naggs; a++)
	{
		AggInput *in = &fold->inputs[a];
		int		  nargs = list_length(view->aggs[a].args);

		for (int arg = 0; arg < nargs; arg++)
		{
			in->args[arg] = fold->exprs.items[fold->exprs.arg[a][arg]].values;
			in->nulls[arg] = fold->exprs.items[fold->exprs.arg[a][arg]].nulls;
		}
		in->n = fold->selected.n;
		in->rows = fold->selected.rows;
		in->groups = fold->selected.groups;
		in->panes = fold->selected.panes;
		if (fold->exprs.filter[a] >= 0)
			aggregate_filter(fold, a);
	}
}

/* A FoldStep: all aggregates; *at is a row number when it raises. */
static bool
aggregate_prepare(ViewFold *fold, volatile int *at, void *arg)
{
	for (int a = 0; a < fold->view->naggs; a++)
		if (!streamext_aggregate_prepare(fold->aggs[a], &fold->inputs[a], at))
			return false;
	return true;
}

void
streamext_fold_forget_aggregates(ViewFold *fold)
{
	for (int a = 0; a < fold->view->naggs; a++)
		streamext_aggregate_forget(fold->aggs[a]);
}

/* ---- row by row ---- */

/* The selected rows by the row of the batch that they come from. */
typedef struct AggregateRows
{
	int	 *first; /* [row of the batch] -1: none */
	int	 *next;	 /* [selected] */
	bool *bad;	 /* [row of the batch] */
	bool  undo;	 /* what was tried last has raised, and is to be undone */
} AggregateRows;

static void
aggregate_sort_rows(const ViewFold *fold, AggregateRows *rows)
{
	rows->first = palloc(sizeof(int) * STREAMEXT_BATCH_ROWS);
	rows->next = palloc_extended(sizeof(int) * Max(fold->selected.n, 1), MCXT_ALLOC_HUGE);
	rows->bad = palloc0(sizeof(bool) * STREAMEXT_BATCH_ROWS);
	rows->undo = false;
	memset(rows->first, -1, sizeof(int) * STREAMEXT_BATCH_ROWS);
	for (int i = fold->selected.n - 1; i >= 0; i--)
	{
		int row = streamext_fold_source(fold, fold->selected.rows[i]);

		rows->next[i] = rows->first[row];
		rows->first[row] = i;
	}
}

static void
aggregate_try_row(ViewFold *fold, const AggregateRows *rows, int row)
{
	for (int a = 0; a < fold->view->naggs; a++)
		streamext_aggregate_try_begin(fold->aggs[a]);
	for (int a = 0; a < fold->view->naggs; a++)
	{
		for (int i = rows->first[row]; i >= 0; i = rows->next[i])
			if (aggregate_takes(fold, a, fold->selected.rows[i]))
				streamext_aggregate_try_row(fold->aggs[a], &fold->inputs[a], fold->selected.rows[i],
											fold->selected.panes[i], fold->selected.groups[i]);
		streamext_aggregate_try_end(fold->aggs[a]);
	}
}

/* A FoldStep over the rows of the batch. */
static bool
aggregate_try_rows(ViewFold *fold, volatile int *at, void *arg)
{
	AggregateRows *rows = arg;

	for (int a = 0; a < fold->view->naggs && rows->undo; a++)
		streamext_aggregate_try_undo(fold->aggs[a]);
	rows->undo = false;
	for (; *at < fold->batch->nrows; (*at)++)
		if (rows->first[*at] >= 0)
			aggregate_try_row(fold, rows, *at);
	return true;
}

/* The rows that are bad are selected no more. */
static void
aggregate_deselect(ViewFold *fold, const AggregateRows *rows)
{
	FoldSelected *selected = &fold->selected;
	int			  n = 0;

	for (int i = 0; i < selected->n; i++)
	{
		if (rows->bad[streamext_fold_source(fold, selected->rows[i])])
			continue;
		selected->rows[n] = selected->rows[i];
		if (selected->sets != NULL)
			selected->sets[n] = selected->sets[i];
		selected->groups[n] = selected->groups[i];
		selected->panes[n] = selected->panes[i];
		n++;
	}
	selected->n = n;
}

/* Rejects the rows that raise. False: functions have been changed, nothing is prepared. */
static bool
aggregate_row_by_row(ViewFold *fold)
{
	AggregateRows rows;
	volatile int  at = 0;
	volatile bool fits;
	bool		  outdated = false;

	aggregate_sort_rows(fold, &rows);
	for (int a = 0; a < fold->view->naggs; a++)
		streamext_aggregate_try_begin(fold->aggs[a]); /* nothing to be undone */
	while (!outdated && (at < fold->batch->nrows || rows.undo))
	{
		ErrorData *error = streamext_fold_guarded(fold, aggregate_try_rows, &rows, &at, &fits);

		if (error == NULL)
			break;
		if (rows.undo)
			ReThrowError(error);
		outdated = streamext_fold_is_outdated(fold);
		if (outdated)
			break;
		streamext_fold_reject(fold, fold->selected.rows[rows.first[at]], error);
		fold->counts.accepted--;
		rows.bad[at] = rows.undo = true;
		at++;
	}
	aggregate_deselect(fold, &rows);
	if (outdated)
		streamext_fold_forget_aggregates(fold);
	return !outdated;
}

/* ---- both ---- */

/* A FoldStep: what is left to be done after row_by_row. */
static bool
aggregate_finish(ViewFold *fold, volatile int *at, void *arg)
{
	for (int a = 0; a < fold->view->naggs; a++)
		if (!streamext_aggregate_try_finish(fold->aggs[a], &fold->inputs[a], at))
			return false;
	return true;
}

bool
streamext_fold_aggregate(ViewFold *fold)
{
	for (;;)
	{
		volatile int  row = -1;
		volatile bool fits = true;
		ErrorData	 *error;
		int			  i;

		aggregate_make_inputs(fold);
		if (!fold->guard.aggregate)
			return true;
		error = streamext_fold_guarded(fold, aggregate_prepare, NULL, &row, &fits);
		if (error == NULL)
			return fits;
		streamext_fold_forget_aggregates(fold);
		if (streamext_fold_renew(fold) || !aggregate_row_by_row(fold))
			continue;
		aggregate_make_inputs(fold);
		row = -1;
		error = streamext_fold_guarded(fold, aggregate_finish, NULL, &row, &fits);
		if (error == NULL)
			return fits;
		streamext_fold_forget_aggregates(fold);
		for (i = 0; i < fold->selected.n && fold->selected.rows[i] != row; i++)
			;
		if (i == fold->selected.n)
			ReThrowError(error); /* not a row's fault */
		streamext_fold_reject(fold, row, error);
		streamext_fold_deselect(fold, i);
	}
}
