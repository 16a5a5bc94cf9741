/*-------------------------------------------------------------------------
 *
 * fold/fold.c
 *		One batch into one view.
 *
 * prepare, unlocked, in this order:
 *	1. select: rows the view has not counted yet, less those that find none of their windows open, less those that WHERE drops; key, argument and FILTER
 *	   expressions are evaluated into vectors (plain columns are used as they are). In a view that joins, WHERE and
 *	   expressions are those of a query over the rows that are not late (fold/join.h), and what follows works on its rows;
 *	2. group: the pane and the group of each selected row, made if need be (new groups stay invisible);
 *	3. aggregate: what aggregates without a native form can do ahead.
 * publish, under the stream's exclusive lock: native folds over the vectors, counters, positions. It cannot raise.
 *
 * Steps that run user code are guarded: they run as the view's owner in a security-restricted operation with the view's own session
 * settings, inside a subtransaction; a row on which they raise is rejected for this view only and the rest goes on. Views whose
 * expressions are all plain columns of well-behaved types need no guard and pay nothing for it.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "common/int.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/budget.h"
#include "base/chunk.h"
#include "base/transaction.h"
#include "fold/fold_private.h"
#include "base/notify.h"
#include "durable/into_position.h"
#include "view/closing.h"
#include "fold/join.h"
#include "fold/session.h"
#include "state/buffer.h"

#define PANE_CACHE 16

/* ---------------------------------------------------------------- guarded steps */

/* The row of the batch that a row number stands for. */
static inline int
fold_source(const ViewFold *fold, int row)
{
	return fold->sources != NULL ? fold->sources[row] : row;
}

static void
fold_reject(ViewFold *fold, int row, const ErrorData *error)
{
	streamext_batch_reject(fold->batch, fold->view->relid, fold->batch->record[fold_source(fold, row)],
						   error->sqlerrcode, error->message);
	fold->rejected++;
}

/* A step: works from *row (or *index) on; raises with it at the culprit. Returns false when memory is full. */
typedef bool (*FoldStep)(ViewFold *fold, volatile int *at);

typedef struct FoldGuarded
{
	ViewFold	 *fold;
	FoldStep	  step;
	volatile int *at;
	bool		  result;
} FoldGuarded;

/* A StreamextStep. */
static void
fold_guarded_step(void *arg)
{
	FoldGuarded	 *guarded = arg;
	IdentityScope scope = streamext_fold_enter_owner(guarded->fold);

	guarded->result = guarded->step(guarded->fold, guarded->at);
	streamext_identity_leave(scope);
}

/*
 * Runs a step as the view's owner in a subtransaction. Returns NULL if it went through (*result is what it returned), else
 * the error, with *at at the culprit. An error that is no row's is raised; so is an internal one in a batch that is tried first.
 */
static ErrorData *
fold_guarded(ViewFold *fold, FoldStep step, volatile int *at, volatile bool *result)
{
	FoldGuarded	  guarded = { fold, step, at, false };
	MemoryContext old = MemoryContextSwitchTo(fold->batch->cxt);
	ErrorData	 *error = streamext_try(fold_guarded_step, &guarded);

	MemoryContextSwitchTo(old);
	/* cancelled in the midst of a row, which is not to blame alone, whatever its code has made of that */
	if (error != NULL && streamext_budget_is_over())
		ReThrowError(error);
	CHECK_FOR_INTERRUPTS();
	*result = guarded.result;
	if (error == NULL)
		return NULL;
	switch (streamext_error_blame(error))
	{
		case BLAME_ROW:
			break;
		case BLAME_INTERNAL:
			if (!fold->batch->again)
				ReThrowError(error);
			fold->internal = error;
			break;
		case BLAME_GENERAL:
			ReThrowError(error);
	}
	return error;
}

/* An internal error on every row is not the rows'. */
static void
fold_check_internal(ViewFold *fold)
{
	if (fold->internal != NULL && fold->accepted == 0)
		ReThrowError(fold->internal);
}

/* ---------------------------------------------------------------- step 1: select */

/* False if the view has counted the record before, or rejected it and it is not to be tried again. */
static inline bool
fold_is_new(ViewFold *fold, const StreamRecord *record)
{
	if (unlikely(fold->batch->owed != NULL))
		return fold->batch->owed[record - fold->batch->records];
	return record->partition_index >= fold->slot->counted.npositions ||
		   record->position >= fold->slot->counted.positions[record->partition_index];
}

/* The watermark, not before that of rows which a view that gives its windows has behind it for good. */
static inline TimestampTz
fold_watermark(const ViewFold *fold)
{
	if (!fold->slot->into.gives)
		return fold->batch->watermark;
	return Max(fold->batch->watermark, fold->slot->into.settled);
}

/* Windows that end by then have been given and do not change, even if the lateness was raised since; DT_NOBEGIN: none. */
static inline TimestampTz
fold_written(const ViewFold *fold)
{
	if (!fold->slot->into.gives || fold->slot->into.settled == DT_NOBEGIN)
		return DT_NOBEGIN;
	return fold->slot->into.given;
}

/* Whether a window that ends then takes no more rows. */
static inline bool
fold_is_closed(const ViewFold *fold, TimestampTz end)
{
	if (end <= fold_written(fold))
		return true;
	if (pg_add_s64_overflow(end, fold->view->options.lateness, &end))
		return false;
	return fold_watermark(fold) >= end;
}

/* The first hopping window of a pane that is not closed; DT_NOBEGIN: all are open, DT_NOEND: none is. */
static TimestampTz
fold_first_open(const ViewFold *fold, int64 pane)
{
	const Window *window = &fold->view->window;
	TimestampTz	  first, last;
	int64		  low = 0, high;

	streamext_window_starts(window, pane, &first, &last);
	if (first > last || fold_is_closed(fold, streamext_window_end(window, last)))
		return DT_NOEND;
	high = (last - first) / window->slide;
	while (low < high)
	{
		int64 middle = low + (high - low) / 2;

		if (fold_is_closed(fold, streamext_window_end(window, first + middle * window->slide)))
			low = middle + 1;
		else
			high = middle;
	}
	return low == 0 ? DT_NOBEGIN : first + low * window->slide;
}

/* Which windows take a row of this pane that comes now: those that start at the result or later. DT_NOBEGIN: all, DT_NOEND: none. */
static TimestampTz
fold_takes_from(const ViewFold *fold, int64 pane)
{
	const Window *window = &fold->view->window;
	TimestampTz	  first, last;

	/* Never into a sealed pane, even if the watermark has begun anew or the lateness was raised since. */
	if (pane <= fold->slot->history.sealed && (pane > fold->slot->history.covered || fold->batch->owed != NULL))
		return DT_NOEND;
	if (!fold_is_closed(fold, streamext_window_pane_end(window, pane)))
		return DT_NOBEGIN;
	if (window->kind == WINDOW_HOP)
		return fold_first_open(fold, pane);
	/* where a predicate slides too, a window is of several panes */
	if (!window->sliding)
		return DT_NOEND;
	streamext_window_starts(window, pane, &first, &last);
	return fold_is_closed(fold, streamext_window_end(window, first)) ? DT_NOEND : DT_NOBEGIN;
}

/* Notes that a row counts in some of its windows only. */
static void
fold_note_from(ViewFold *fold, int row, TimestampTz from)
{
	Batch *batch = fold->batch;

	if (fold->froms == NULL)
	{
		fold->froms = MemoryContextAllocHuge(batch->cxt, sizeof(TimestampTz) * batch->nrows);
		for (int i = 0; i < batch->nrows; i++)
			fold->froms[i] = DT_NOBEGIN;
	}
	fold->froms[row] = from;
}

/* Whether a row that comes too late for some of its windows or all (DT_NOEND) counts in any; notes what becomes of it. */
static bool
fold_takes_late(ViewFold *fold, int row, TimestampTz from)
{
	if (from != DT_NOEND)
	{
		fold_note_from(fold, row, from);
		return true;
	}
	fold->late++;
	if (fold->view->options.keep_late)
		streamext_batch_keep_late(fold->batch, fold->view->relid, row);
	return false;
}

static inline bool
fold_is_late_for_session(ViewFold *fold, TimestampTz t)
{
	TimestampTz written = fold_written(fold);

	return (written != DT_NOBEGIN && t <= streamext_session_reach(&fold->view->window, written)) ||
		   streamext_session_is_late(fold->view, &fold->slot->counted.state, t, fold_watermark(fold));
}

static void
fold_load_row(ViewFold *fold, int row)
{
	Batch		   *batch = fold->batch;
	TupleTableSlot *slot = fold->row;

	ExecClearTuple(slot);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		slot->tts_values[i] = batch->values[i][row];
		slot->tts_isnull[i] = batch->nulls[i][row];
	}
	ExecStoreVirtualTuple(slot);
}

/* WHERE and all expressions of one row; true if it is selected. Results stay in the batch's memory. */
static bool
fold_evaluate(ViewFold *fold, int row)
{
	fold_load_row(fold, row);
	if (fold->where != NULL && !ExecQual(fold->where, fold->econtext))
		return false;
	for (int i = 0; i < fold->nexprs; i++)
	{
		FoldExpr *fe = &fold->exprs[i];

		if (fe->state == NULL)
			continue;
		fe->values[row] = ExecEvalExpr(fe->state, fold->econtext, &fe->nulls[row]);
		if (fe->varlena && !fe->nulls[row])
			fe->values[row] = PointerGetDatum(PG_DETOAST_DATUM_PACKED(fe->values[row]));
	}
	return true;
}

/* From row *at on; guarded or not. */
static bool
fold_select_rows(ViewFold *fold, volatile int *at)
{
	Batch		 *batch = fold->batch;
	const Window *window = &fold->view->window;
	bool		  evaluate = fold->guard_select && fold->join == NULL;
	bool		  set_aside = batch->set_aside != NIL;
	int64		  covered = fold->slot->history.covered;
	int64		  known_pane = 0;
	TimestampTz	  from = DT_NOBEGIN; /* of known_pane, or the row's session: which of its windows take the row */
	bool		  known = false;

	for (; *at < batch->nrows; (*at)++)
	{
		int	  row = *at;
		int64 pane;

		if (!fold_is_new(fold, &batch->records[batch->record[row]]))
			continue;
		if (unlikely(set_aside) && streamext_batch_is_set_aside(batch, fold->view->relid, batch->record[row]))
		{
			streamext_batch_reject(batch, fold->view->relid, batch->record[row], ERRCODE_INTERNAL_ERROR,
								   ((RejectedRecord *) linitial(batch->set_aside))->reason);
			fold->rejected++;
			continue;
		}
		pane = streamext_window_pane(window, batch->event_time[row]);
		if (window->kind == WINDOW_SESSION)
			from = fold_is_late_for_session(fold, batch->event_time[row]) ? DT_NOEND : DT_NOBEGIN;
		else if (!known || pane != known_pane)
		{
			from = fold_takes_from(fold, pane);
			known_pane = pane;
			known = true;
		}
		if (unlikely(from != DT_NOBEGIN) && !fold_takes_late(fold, row, from))
			continue;
		fold->pane_ids[row] = pane;
		/* What fell into panes that history had when the state was begun is in their slices. */
		if ((!evaluate || fold_evaluate(fold, row)) && pane > covered)
			fold->rows[fold->nselected++] = row;
		fold->accepted++;
	}
	return true;
}

/* The same without a subtransaction for each row that raises. */
static bool
fold_select_plain(ViewFold *fold, volatile int *at)
{
	MemoryContext cxt = CurrentMemoryContext;

	while (*at < fold->batch->nrows)
	{
		ErrorData *volatile error = NULL;

		PG_TRY();
		{
			(void) fold_select_rows(fold, at);
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(cxt);
			error = CopyErrorData();
			FlushErrorState();
		}
		PG_END_TRY();
		if (error == NULL)
			return true;
		if (streamext_budget_is_over() || streamext_error_blame(error) != BLAME_ROW)
			ReThrowError(error);
		CHECK_FOR_INTERRUPTS();
		fold_reject(fold, *at, error);
		(*at)++;
		FreeErrorData(error);
	}
	return true;
}

static void
fold_select(ViewFold *fold)
{
	FoldStep step = fold->plain_select ? fold_select_plain : fold_select_rows;

	volatile int  at = 0;
	volatile bool result;

	if (!fold->guard_select)
	{
		fold_select_rows(fold, &at);
		return;
	}
	while (at < fold->batch->nrows)
	{
		ErrorData *error = fold_guarded(fold, step, &at, &result);

		if (error != NULL && !streamext_fold_renew(fold))
		{
			fold_reject(fold, at, error);
			at++;
		}
	}
}

/* ---------------------------------------------------------------- step 1, continued: join */

typedef struct FoldJoin
{
	const int *rows; /* of the batch */
	int		   n;
	JoinRows  *joined;
} FoldJoin;

static FoldJoin fold_join_part; /* what the step works on */

/* A FoldStep. */
static bool
fold_join_step(ViewFold *fold, volatile int *at)
{
	streamext_join_run(fold->join, fold->batch, fold_join_part.rows, fold_join_part.n, fold_join_part.joined);
	return true;
}

/* Joins rows; where that raises, it is done again in halves, down to the row that is to blame. */
static void
fold_join_rows(ViewFold *fold, const int *rows, int n, JoinRows *joined)
{
	volatile int  at = 0;
	volatile bool result;
	ErrorData	 *error;

	if (n == 0)
		return;
	fold_join_part = (FoldJoin){ rows, n, joined };
	error = fold_guarded(fold, fold_join_step, &at, &result);
	if (error == NULL)
	{
		fold->inserted += joined == NULL ? streamext_join_inserted(fold->join) : 0;
		return;
	}
	if (!streamext_join_has_started(fold->join))
		ReThrowError(error); /* the tables, or rights on them */
	if (n == 1)
	{
		fold_reject(fold, rows[0], error);
		fold->accepted--;
		return;
	}
	fold_join_rows(fold, rows, n / 2, joined);
	fold_join_rows(fold, rows + n / 2, n - n / 2, joined);
}

/* Room for so many selected rows. */
static void
fold_reserve_rows(ViewFold *fold, Size n)
{
	if (n > INT_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("a batch makes too many rows")));
	if (n <= fold->capacity)
		return;
	fold->capacity = n;
	fold->rows = repalloc_huge(fold->rows, sizeof(int) * n);
	fold->panes = repalloc_huge(fold->panes, sizeof(Pane *) * n);
	fold->groups = repalloc_huge(fold->groups, sizeof(GroupEntry *) * n);
}

/* Each selected row once for each grouping set. */
static void
fold_expand_sets(ViewFold *fold)
{
	int	 nsets = fold->view->nsets;
	Size n = (Size) fold->nselected * nsets;

	fold_reserve_rows(fold, n);
	fold->sets = MemoryContextAllocHuge(fold->batch->cxt, Max(n, 1));
	for (int i = fold->nselected - 1; i >= 0; i--)
		for (int s = 0; s < nsets; s++)
		{
			fold->rows[i * nsets + s] = fold->rows[i];
			fold->sets[i * nsets + s] = s;
		}
	fold->nselected = n;
}

/* Selected rows go into the table, and with them where the view then stands. */
static void
fold_into(ViewFold *fold)
{
	fold->inserted = 0;
	fold_join_rows(fold, fold->rows, fold->nselected, NULL);
	fold->nselected = 0;
	streamext_into_save(fold->slot, fold->batch);
	if (fold->inserted > 0)
		streamext_into_notify(fold->view->relid, psprintf("{\"rows\": " UINT64_FORMAT "}", fold->inserted));
}

/* From selected rows of the batch to joined ones. */
static void
fold_join(ViewFold *fold)
{
	Batch	 *batch = fold->batch;
	JoinRows *joined = streamext_join_begin(fold->join, batch);
	int		 *rows = palloc(sizeof(int) * Max(fold->nselected, 1));

	memcpy(rows, fold->rows, sizeof(int) * fold->nselected);
	fold_join_rows(fold, rows, fold->nselected, joined);
	fold_reserve_rows(fold, joined->n);
	fold->sources = joined->rows;
	fold->nselected = joined->n;
	for (int i = 0; i < joined->n; i++)
		fold->rows[i] = i;
	for (int e = 0; e < fold->nexprs; e++)
	{
		FoldExpr *fe = &fold->exprs[e];

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

/* The last rows of a derived stream are made ready for its buffer; there is nothing to be grouped. */
static void
fold_keep(ViewFold *fold)
{
	int	   natts = fold->output_desc->natts;
	int	   first = Max(0, fold->nselected - fold->config->buffer_size);
	Datum *values = palloc(sizeof(Datum) * natts);
	bool  *nulls = palloc(sizeof(bool) * natts);

	fold->kept = palloc0(sizeof(StreamRecord) * Max(fold->nselected - first, 1));
	for (int i = first; i < fold->nselected; i++)
	{
		MinimalTuple tuple;

		for (int k = 0; k < natts; k++)
		{
			const FoldExpr *fe = &fold->exprs[fold->output_expr[k]];

			values[k] = fe->values[fold->rows[i]];
			nulls[k] = fe->nulls[fold->rows[i]];
		}
#if PG_VERSION_NUM >= 180000
		tuple = heap_form_minimal_tuple(fold->output_desc, values, nulls, 0);
#else
		tuple = heap_form_minimal_tuple(fold->output_desc, values, nulls);
#endif
		fold->kept[fold->nkept].payload = (const char *) tuple;
		fold->kept[fold->nkept++].payload_size = tuple->t_len;
	}
	fold->nselected = 0;
}

/* ---------------------------------------------------------------- step 2: group */

/* Leaves the set's own keys. */
static inline void
fold_key_of_set(const ViewFold *fold, int set, Datum *values, bool *nulls)
{
	const CompiledView *view = fold->view;

	for (int k = 0; k < view->set_key; k++)
		if ((view->sets[set] & ((uint32) 1 << k)) == 0)
			nulls[k] = true;
	nulls[view->set_key] = false;
	values[view->set_key] = Int32GetDatum(set);
}

/* From selected row *at on; false: full. plain: no joins, grouping sets or rows that are late for some of their windows. */
static pg_attribute_always_inline bool
fold_group_some(ViewFold *fold, volatile int *at, bool plain)
{
	ViewState	 *state = &fold->slot->counted.state;
	CompiledView *view = fold->view;
	Datum		  values[STREAMEXT_MAX_KEYS];
	bool		  nulls[STREAMEXT_MAX_KEYS];
	int64		  cached_id[PANE_CACHE];
	Pane		 *cached[PANE_CACHE] = { NULL };

	for (; *at < fold->nselected; (*at)++)
	{
		int	   i = *at;
		int	   row = fold->rows[i];
		int64  pane_id = fold->pane_ids[plain ? row : fold_source(fold, row)];
		int	   c = (uint64) pane_id % PANE_CACHE;
		uint32 size;
		uint32 hash;
		bool   is_new;

		if (cached[c] == NULL || cached_id[c] != pane_id)
		{
			cached[c] = streamext_state_pane(state, pane_id);
			cached_id[c] = pane_id;
			if (cached[c] == NULL)
				return false;
		}
		for (int k = 0; k < view->nkeys; k++)
			if (fold->key_expr[k] >= 0)
			{
				FoldExpr *fe = &fold->exprs[fold->key_expr[k]];

				values[k] = fe->values[row];
				nulls[k] = fe->nulls[row];
			}
		if (!plain && fold->sets != NULL)
			fold_key_of_set(fold, fold->sets[i], values, nulls);
		size = streamext_key_serialize(view, values, nulls, &fold->key, &fold->key_capacity);
		hash = streamext_key_hash(fold->matcher, values, nulls, fold->key, size);
		if (!plain && fold->froms != NULL && fold->froms[fold_source(fold, row)] != DT_NOBEGIN)
			size = streamext_key_add_from(fold->froms[fold_source(fold, row)], &fold->key, &fold->key_capacity, size);
		fold->panes[i] = cached[c];
		fold->groups[i] =
			streamext_state_group(state, cached[c], hash, fold->key, size, fold->equal, fold->matcher, &is_new);
		if (fold->groups[i] == NULL)
			return false;
	}
	return true;
}

/* A FoldStep. */
static bool
fold_group_rows(ViewFold *fold, volatile int *at)
{
	if (fold->sources == NULL && fold->sets == NULL && fold->froms == NULL)
		return fold_group_some(fold, at, true);
	return fold_group_some(fold, at, false);
}

/*
 * Takes a selected row out, with all others that were joined from the same row of the batch: it was counted as accepted and
 * is rejected now. Returns how many rows before it went too.
 */
static int
fold_deselect(ViewFold *fold, int i)
{
	int source = fold_source(fold, fold->rows[i]);
	int before = 0;
	int n = 0;

	for (int k = 0; k < fold->nselected; k++)
	{
		if (fold_source(fold, fold->rows[k]) == source)
		{
			before += k < i;
			continue;
		}
		fold->rows[n] = fold->rows[k];
		if (fold->sets != NULL)
			fold->sets[n] = fold->sets[k];
		fold->groups[n] = fold->groups[k];
		fold->panes[n] = fold->panes[k];
		n++;
	}
	fold->nselected = n;
	fold->accepted--;
	return before;
}

static bool
fold_group(ViewFold *fold)
{
	volatile int  at = 0;
	volatile bool fits = true;

	if (!fold->guard_group)
		return fold_group_rows(fold, &at);
	while (fits && at < fold->nselected)
	{
		ErrorData *error = fold_guarded(fold, fold_group_rows, &at, &fits);

		if (error != NULL)
		{
			fold_reject(fold, fold->rows[at], error);
			at -= fold_deselect(fold, at);
		}
	}
	return fits;
}

/* ---------------------------------------------------------------- step 3: aggregate */

/* The rows each aggregate takes. */
static void
fold_make_inputs(ViewFold *fold)
{
	CompiledView *view = fold->view;
	MemoryContext old = MemoryContextSwitchTo(fold->batch->cxt);

	for (int a = 0; a < view->naggs; a++)
	{
		AggInput *in = &fold->inputs[a];
		int		  nargs = list_length(view->aggs[a].args);

		for (int arg = 0; arg < nargs; arg++)
		{
			in->args[arg] = fold->exprs[fold->arg_expr[a][arg]].values;
			in->nulls[arg] = fold->exprs[fold->arg_expr[a][arg]].nulls;
		}
		in->n = fold->nselected;
		in->rows = fold->rows;
		in->groups = fold->groups;
		in->panes = fold->panes;
		if (fold->filter_expr[a] >= 0)
		{
			FoldExpr	*filter = &fold->exprs[fold->filter_expr[a]];
			Size		 most = Max(fold->nselected, 1);
			int			*rows = MemoryContextAllocHuge(fold->batch->cxt, sizeof(int) * most);
			GroupEntry **groups = MemoryContextAllocHuge(fold->batch->cxt, sizeof(GroupEntry *) * most);
			Pane	   **panes = MemoryContextAllocHuge(fold->batch->cxt, sizeof(Pane *) * most);
			int			 n = 0;

			for (int i = 0; i < fold->nselected; i++)
			{
				int row = fold->rows[i];

				if (filter->nulls[row] || !DatumGetBool(filter->values[row]))
					continue;
				rows[n] = row;
				groups[n] = fold->groups[i];
				panes[n] = fold->panes[i];
				n++;
			}
			in->n = n;
			in->rows = rows;
			in->groups = groups;
			in->panes = panes;
		}
	}
	MemoryContextSwitchTo(old);
}

/* All aggregates; *at is a row number when it raises. */
static bool
fold_prepare_aggregates(ViewFold *fold, volatile int *at)
{
	for (int a = 0; a < fold->view->naggs; a++)
		if (fold->view->aggs[a].mode != AGG_NATIVE && !streamext_aggregate_prepare(fold->aggs[a], &fold->inputs[a], at))
			return false;
	return true;
}

static void
fold_forget(ViewFold *fold)
{
	for (int a = 0; a < fold->view->naggs; a++)
		streamext_aggregate_forget(fold->aggs[a]);
}

/* After a raise everything is done again without the culprit: transition states cannot be taken back row by row. */
static bool
fold_aggregate(ViewFold *fold)
{
	for (;;)
	{
		volatile int  row = -1;
		volatile bool fits = true;
		ErrorData	 *error;
		int			  i;

		fold_make_inputs(fold);
		if (!fold->guard_aggregate)
			return true;
		error = fold_guarded(fold, fold_prepare_aggregates, &row, &fits);
		if (error == NULL)
			return fits;
		fold_forget(fold);
		if (streamext_fold_renew(fold))
			continue;
		for (i = 0; i < fold->nselected && fold->rows[i] != row; i++)
			;
		if (i == fold->nselected)
			ReThrowError(error); /* not a row's fault */
		fold_reject(fold, row, error);
		fold_deselect(fold, i);
	}
}

/* ---------------------------------------------------------------- prepare and publish */

/* A batch may be offered again; what it rejected for this view the first time, or kept as late, is decided anew. */
static void
fold_withdraw_rejects(ViewFold *fold)
{
	ListCell *lc;

	streamext_batch_withdraw(fold->batch, fold->view->relid);
	foreach (lc, fold->batch->rejected)
	{
		RejectedRecord *r = lfirst(lc);

		if (r->view == InvalidOid && fold_is_new(fold, &fold->batch->records[r->record]))
			fold->rejected++;
	}
}

/* Room for the positions of partitions that came up since. */
static bool
fold_reserve_positions(ViewFold *fold)
{
	ViewSlot *slot = fold->slot;
	int		  n = fold->batch->npartitions;

	if (n <= slot->counted.npositions)
		return true;
	fold->new_positions = streamext_chunk_alloc(sizeof(int64) * n, NULL);
	if (fold->new_positions == NULL)
		return false;
	for (int i = 0; i < n; i++)
		fold->new_positions[i] = i < slot->counted.npositions ? slot->counted.positions[i] : -1;
	return true;
}

FoldResult
streamext_fold_prepare(ViewFold *fold, Batch *batch)
{
	ViewSlot	 *slot = fold->slot;
	CompiledView *view = fold->view;
	MemoryContext old = MemoryContextSwitchTo(batch->cxt);
	bool		  fits;

	fold->batch = batch;
	fold->nselected = 0;
	fold->sources = NULL;
	fold->sets = NULL;
	fold->froms = NULL;
	fold->accepted = fold->late = fold->rejected = 0;
	fold->nkept = 0;
	fold->internal = NULL;
	for (int i = 0; i < fold->nexprs; i++)
		if (fold->exprs[i].column >= 0)
		{
			fold->exprs[i].values = batch->values[fold->exprs[i].column];
			fold->exprs[i].nulls = batch->nulls[fold->exprs[i].column];
		}
	fold_withdraw_rejects(fold);
	(void) streamext_fold_renew(fold);
	if (view->types != NULL)
		streamext_fold_check_types(fold);

	/* a batch that memory has refused may have left groups of its own, which are not what refuses it when it is offered again */
	fold->admitted =
		fold->admitted || view->options.max_groups == 0 || slot->counted.state.ngroups <= view->options.max_groups;
	fits = fold->admitted;
	if (fits)
	{
		fold_select(fold);
		if (view->stateless)
			fold_into(fold);
		else if (fold->join != NULL)
			fold_join(fold);
		if (view->derived)
			fold_keep(fold);
		if (view->nsets > 0)
			fold_expand_sets(fold);
		fits = fold_group(fold) && fold_aggregate(fold) && fold_reserve_positions(fold);
		fold_check_internal(fold);
	}
	if (!fits)
		streamext_fold_abandon(fold);
	MemoryContextSwitchTo(old);
	return fits ? FOLD_OK : fold->admitted ? FOLD_FULL : FOLD_TOO_MANY_GROUPS;
}

void
streamext_fold_abandon(ViewFold *fold)
{
	fold_forget(fold);
	if (fold->new_positions != NULL)
		streamext_chunk_free(fold->new_positions);
	fold->new_positions = NULL;
	fold->nselected = fold->nkept = 0;
}

void
streamext_fold_withdraw(ViewFold *fold)
{
	if (fold->batch == NULL)
		return;
	fold_withdraw_rejects(fold);
	streamext_fold_abandon(fold);
}

int
streamext_fold_groups(const ViewFold *fold, GroupEntry *const **groups, Pane *const **panes)
{
	*groups = fold->groups;
	*panes = fold->panes;
	return fold->nselected;
}

void
streamext_fold_publish(ViewFold *fold, Batch *batch)
{
	ViewSlot	 *slot = fold->slot;
	CompiledView *view = fold->view;
	bool		  sessions = view->window.kind == WINDOW_SESSION;

	Assert(LWLockHeldByMeInMode(fold->slot->counted.state.lock, LW_EXCLUSIVE));
	for (int a = 0; a < view->naggs; a++)
		streamext_aggregate_publish(fold->aggs[a], &fold->inputs[a]);

	slot->counted.state.batches++;
	for (int i = 0; i < fold->nselected; i++)
	{
		if (sessions)
			streamext_session_add(view, fold->groups[i], batch->event_time[fold_source(fold, fold->rows[i])]);
		fold->groups[i]->visible = slot->counted.state.period;
		fold->panes[i]->nrows++;
		fold->panes[i]->changed = slot->counted.state.period;
	}
	if (fold->nkept > 0)
		streamext_buffer_append(slot->counted.rows, streamext_shared->streams[slot->id.stream].buffer_lock, fold->kept,
								NULL, fold->nkept);
	fold->nkept = 0;
	slot->counted.accepted += fold->accepted;
	slot->counted.late += fold->late;
	if (batch->owed == NULL)
		slot->counted.rejected += fold->rejected;
	else
		slot->counted.rejected -= Min(slot->counted.rejected, fold->accepted + fold->late);

	if (fold->new_positions != NULL)
	{
		if (slot->counted.positions != NULL)
			streamext_chunk_free(slot->counted.positions);
		slot->counted.positions = fold->new_positions;
		slot->counted.npositions = batch->npartitions;
		fold->new_positions = NULL;
	}
	for (int i = 0; i < batch->npartitions; i++)
		slot->counted.positions[i] = Max(slot->counted.positions[i], batch->positions[i]);
	fold->admitted = false;
	fold->nselected = 0;
}
