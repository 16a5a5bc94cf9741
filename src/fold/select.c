/*
 * fold/select.c
 *		The first step of a batch: which rows count in the view.
 *
 * Late is decided before any expression, once for each run of rows of a pane. Then WHERE, and every expression that is more than a plain
 * column, row by row into vectors; rows that raise are rejected.
 */
#include "base/streamext.h"

#include "common/int.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/budget.h"
#include "base/transaction.h"
#include "fold/fold_private.h"
#include "fold/session.h"
#include "view/closing.h"

/* The watermark, not before that of rows which a view that gives its windows has behind it for good. */
static inline TimestampTz
select_watermark(const ViewFold *fold)
{
	if (!fold->slot->into.gives)
		return fold->batch->watermark;
	return Max(fold->batch->watermark, fold->slot->into.settled);
}

/* Windows that end by then have been given and do not change, even if the lateness was raised since; DT_NOBEGIN: none. */
static inline TimestampTz
select_written(const ViewFold *fold)
{
	if (!fold->slot->into.gives || fold->slot->into.settled == DT_NOBEGIN)
		return DT_NOBEGIN;
	return fold->slot->into.given;
}

/* Whether a window that ends then takes no more rows. */
static inline bool
select_is_closed(const ViewFold *fold, TimestampTz end)
{
	if (end <= select_written(fold))
		return true;
	if (pg_add_s64_overflow(end, fold->view->options.lateness, &end))
		return false;
	return select_watermark(fold) >= end;
}

/* The first hopping window of a pane that is not closed; DT_NOBEGIN: all are open, DT_NOEND: none is. */
static TimestampTz
select_first_open(const ViewFold *fold, int64 pane)
{
	const Window *window = &fold->view->window;
	TimestampTz	  first, last;
	int64		  low = 0, high;

	streamext_window_starts(window, pane, &first, &last);
	if (first > last || select_is_closed(fold, streamext_window_end(window, last)))
		return DT_NOEND;
	high = (last - first) / window->slide;
	while (low < high)
	{
		int64 middle = low + (high - low) / 2;

		if (select_is_closed(fold, streamext_window_end(window, first + middle * window->slide)))
			low = middle + 1;
		else
			high = middle;
	}
	return low == 0 ? DT_NOBEGIN : first + low * window->slide;
}

/* Which windows take a row of this pane that comes now: those that start at the result or later. DT_NOBEGIN: all, DT_NOEND: none. */
static TimestampTz
select_takes_from(const ViewFold *fold, int64 pane)
{
	const Window *window = &fold->view->window;
	TimestampTz	  first, last;

	/* Never into a sealed pane, even if the watermark has begun anew or the lateness was raised since. */
	if (pane <= fold->slot->history.sealed && (pane > fold->slot->history.covered || fold->batch->owed != NULL))
		return DT_NOEND;
	if (!select_is_closed(fold, streamext_window_pane_end(window, pane)))
		return DT_NOBEGIN;
	if (window->kind == WINDOW_HOP)
		return select_first_open(fold, pane);
	/* where a predicate slides too, a window is of several panes */
	if (!window->sliding)
		return DT_NOEND;
	streamext_window_starts(window, pane, &first, &last);
	return select_is_closed(fold, streamext_window_end(window, first)) ? DT_NOEND : DT_NOBEGIN;
}

/* Notes that a row counts in some of its windows only. */
static void
select_note_from(ViewFold *fold, int row, TimestampTz from)
{
	Batch *batch = fold->batch;

	if (fold->selected.froms == NULL)
	{
		fold->selected.froms = MemoryContextAllocHuge(batch->cxt, sizeof(TimestampTz) * batch->nrows);
		for (int i = 0; i < batch->nrows; i++)
			fold->selected.froms[i] = DT_NOBEGIN;
	}
	fold->selected.froms[row] = from;
}

/* Whether a row that comes too late for some of its windows or all (DT_NOEND) counts in any; notes what becomes of it. */
static bool
select_takes_late(ViewFold *fold, int row, TimestampTz from)
{
	if (from != DT_NOEND)
	{
		select_note_from(fold, row, from);
		return true;
	}
	fold->counts.late++;
	if (fold->view->options.keep_late)
		streamext_batch_keep_late(fold->batch, fold->view->relid, row);
	return false;
}

static inline bool
select_is_late_for_session(ViewFold *fold, TimestampTz t)
{
	TimestampTz written = select_written(fold);

	return (written != DT_NOBEGIN && t <= streamext_session_reach(&fold->view->window, written)) ||
		   streamext_session_is_late(fold->view, &fold->slot->counted.state, t, select_watermark(fold));
}

static void
select_load_row(ViewFold *fold, int row)
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
select_evaluate(ViewFold *fold, int row)
{
	select_load_row(fold, row);
	if (fold->where != NULL && !ExecQual(fold->where, fold->econtext))
		return false;
	for (int i = 0; i < fold->exprs.n; i++)
	{
		FoldExpr *fe = &fold->exprs.items[i];

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
select_rows(ViewFold *fold, volatile int *at, void *arg)
{
	Batch		 *batch = fold->batch;
	const Window *window = &fold->view->window;
	bool		  evaluate = fold->guard.select && fold->join == NULL;
	bool		  set_aside = batch->set_aside != NIL;
	int64		  covered = fold->slot->history.covered;
	int64		  known_pane = 0;
	TimestampTz	  from = DT_NOBEGIN; /* of known_pane, or the row's session: which of its windows take the row */
	bool		  known = false;

	for (; *at < batch->nrows; (*at)++)
	{
		int	  row = *at;
		int64 pane;

		if (!streamext_fold_is_new(fold, &batch->records[batch->record[row]]))
			continue;
		if (unlikely(set_aside) && streamext_batch_is_set_aside(batch, fold->view->relid, batch->record[row]))
		{
			streamext_batch_reject(batch, fold->view->relid, batch->record[row], ERRCODE_INTERNAL_ERROR,
								   ((RejectedRecord *) linitial(batch->set_aside))->reason);
			fold->counts.rejected++;
			continue;
		}
		pane = streamext_window_pane(window, batch->event_time[row]);
		if (window->kind == WINDOW_SESSION)
			from = select_is_late_for_session(fold, batch->event_time[row]) ? DT_NOEND : DT_NOBEGIN;
		else if (!known || pane != known_pane)
		{
			from = select_takes_from(fold, pane);
			known_pane = pane;
			known = true;
		}
		if (unlikely(from != DT_NOBEGIN) && !select_takes_late(fold, row, from))
			continue;
		fold->selected.pane_ids[row] = pane;
		/* What fell into panes that history had when the state was begun is in their slices. */
		if ((!evaluate || select_evaluate(fold, row)) && pane > covered)
			fold->selected.rows[fold->selected.n++] = row;
		fold->counts.accepted++;
	}
	return true;
}

/* The same without a subtransaction for each row that raises. */
static bool
select_plain(ViewFold *fold, volatile int *at, void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;

	while (*at < fold->batch->nrows)
	{
		ErrorData *volatile error = NULL;

		PG_TRY();
		{
			(void) select_rows(fold, at, NULL);
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
		streamext_fold_reject(fold, *at, error);
		(*at)++;
		FreeErrorData(error);
	}
	return true;
}

void
streamext_fold_select(ViewFold *fold)
{
	FoldStep step = fold->guard.plain_select ? select_plain : select_rows;

	volatile int  at = 0;
	volatile bool result;

	if (!fold->guard.select)
	{
		select_rows(fold, &at, NULL);
		return;
	}
	while (at < fold->batch->nrows)
	{
		ErrorData *error = streamext_fold_guarded(fold, step, NULL, &at, &result);

		if (error != NULL && !streamext_fold_renew(fold))
		{
			streamext_fold_reject(fold, at, error);
			at++;
		}
	}
}
