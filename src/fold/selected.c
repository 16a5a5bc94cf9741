/*
 * fold/selected.c
 *		What selected rows become before they are grouped: rows joined with tables, rows of a target table, rows of a derived stream, one for each
 *		grouping set.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "executor/executor.h"
#include "utils/builtins.h"

#include "base/notify.h"
#include "durable/into_position.h"
#include "fold/fold_private.h"
#include "fold/join.h"

typedef struct FoldJoin
{
	const int *rows; /* of the batch */
	int		   n;
	JoinRows  *joined;
} FoldJoin;

/* A FoldStep. */
static bool
selected_join_step(ViewFold *fold, volatile int *at, void *arg)
{
	const FoldJoin *part = arg;

	streamext_join_run(fold->join, fold->batch, part->rows, part->n, part->joined);
	return true;
}

/* Joins rows; where that raises, it is done again in halves, down to the row that is to blame. */
static void
selected_join(ViewFold *fold, const int *rows, int n, JoinRows *joined)
{
	volatile int  at = 0;
	volatile bool result;
	ErrorData	 *error;

	if (n == 0)
		return;
	error = streamext_fold_guarded(fold, selected_join_step, &(FoldJoin){ rows, n, joined }, &at, &result);
	if (error == NULL)
	{
		fold->counts.inserted += joined == NULL ? streamext_join_inserted(fold->join) : 0;
		return;
	}
	if (!streamext_join_has_started(fold->join))
		ReThrowError(error); /* the tables, or rights on them */
	if (n == 1)
	{
		streamext_fold_reject(fold, rows[0], error);
		fold->counts.accepted--;
		return;
	}
	selected_join(fold, rows, n / 2, joined);
	selected_join(fold, rows + n / 2, n - n / 2, joined);
}

/* Room for so many selected rows. */
static void
selected_reserve(ViewFold *fold, Size n)
{
	if (n > INT_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("a batch makes too many rows")));
	if (n <= fold->selected.capacity)
		return;
	fold->selected.capacity = n;
	fold->selected.rows = repalloc_huge(fold->selected.rows, sizeof(int) * n);
	fold->selected.panes = repalloc_huge(fold->selected.panes, sizeof(Pane *) * n);
	fold->selected.groups = repalloc_huge(fold->selected.groups, sizeof(GroupEntry *) * n);
}

void
streamext_fold_expand_sets(ViewFold *fold)
{
	int	 nsets = fold->view->nsets;
	Size n = (Size) fold->selected.n * nsets;

	selected_reserve(fold, n);
	fold->selected.sets = MemoryContextAllocHuge(fold->batch->cxt, Max(n, 1));
	for (int i = fold->selected.n - 1; i >= 0; i--)
		for (int s = 0; s < nsets; s++)
		{
			fold->selected.rows[i * nsets + s] = fold->selected.rows[i];
			fold->selected.sets[i * nsets + s] = s;
		}
	fold->selected.n = n;
}

void
streamext_fold_into(ViewFold *fold)
{
	fold->counts.inserted = 0;
	selected_join(fold, fold->selected.rows, fold->selected.n, NULL);
	fold->selected.n = 0;
	streamext_into_save(fold->slot, fold->batch);
	if (fold->counts.inserted > 0)
		streamext_into_notify(fold->view->relid, psprintf("{\"rows\": " UINT64_FORMAT "}", fold->counts.inserted));
}

void
streamext_fold_join(ViewFold *fold)
{
	Batch	 *batch = fold->batch;
	JoinRows *joined = streamext_join_begin(fold->join, batch);
	int		 *rows = palloc(sizeof(int) * Max(fold->selected.n, 1));

	memcpy(rows, fold->selected.rows, sizeof(int) * fold->selected.n);
	selected_join(fold, rows, fold->selected.n, joined);
	selected_reserve(fold, joined->n);
	fold->selected.sources = joined->rows;
	fold->selected.n = joined->n;
	for (int i = 0; i < joined->n; i++)
		fold->selected.rows[i] = i;
	for (int e = 0; e < fold->exprs.n; e++)
	{
		FoldExpr *fe = &fold->exprs.items[e];

		if (fe->joined >= 0)
		{
			fe->values = joined->values[fe->joined];
			fe->nulls = joined->nulls[fe->joined];
			continue;
		}
		fe->values = MemoryContextAllocHuge(batch->cxt, sizeof(Datum) * Max(joined->n, 1));
		fe->nulls = MemoryContextAllocHuge(batch->cxt, sizeof(bool) * Max(joined->n, 1));
		for (int i = 0; i < joined->n; i++)
		{
			fe->values[i] = batch->values[fe->column][joined->rows[i]];
			fe->nulls[i] = batch->nulls[fe->column][joined->rows[i]];
		}
	}
}

void
streamext_fold_keep(ViewFold *fold)
{
	int	   natts = fold->exprs.output_desc->natts;
	int	   first = Max(0, fold->selected.n - fold->config->buffer_size);
	Datum *values = palloc(sizeof(Datum) * natts);
	bool  *nulls = palloc(sizeof(bool) * natts);

	fold->counts.kept = palloc0(sizeof(StreamRecord) * Max(fold->selected.n - first, 1));
	for (int i = first; i < fold->selected.n; i++)
	{
		MinimalTuple tuple;

		for (int k = 0; k < natts; k++)
		{
			const FoldExpr *fe = &fold->exprs.items[fold->exprs.output[k]];

			values[k] = fe->values[fold->selected.rows[i]];
			nulls[k] = fe->nulls[fold->selected.rows[i]];
		}
		tuple = compat_minimal_tuple(fold->exprs.output_desc, values, nulls);
		fold->counts.kept[fold->counts.nkept].payload = (const char *) tuple;
		fold->counts.kept[fold->counts.nkept++].payload_size = tuple->t_len;
	}
	fold->selected.n = 0;
}
