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

#include "base/chunk.h"
#include "fold/fold_private.h"
#include "fold/session.h"
#include "state/buffer.h"
#include "state/changed.h"

/* An internal error on every row is not the rows'. */
static void
fold_check_internal(ViewFold *fold)
{
	if (fold->counts.internal != NULL && fold->counts.accepted == 0)
		ReThrowError(fold->counts.internal);
}

/* A batch may be offered again; what it rejected for this view the first time, or kept as late, is decided anew. */
static void
fold_withdraw_rejects(ViewFold *fold)
{
	ListCell *lc;

	streamext_batch_withdraw(fold->batch, fold->view->relid);
	foreach (lc, fold->batch->rejected)
	{
		RejectedRecord *r = lfirst(lc);

		if (r->view == InvalidOid && streamext_fold_is_new(fold, &fold->batch->records[r->record]))
			fold->counts.rejected++;
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
	fold->selected.n = 0;
	fold->selected.sources = NULL;
	fold->selected.sets = NULL;
	fold->selected.froms = NULL;
	fold->counts.accepted = fold->counts.late = fold->counts.rejected = 0;
	fold->counts.nkept = 0;
	fold->counts.internal = NULL;
	for (int i = 0; i < fold->exprs.n; i++)
		if (fold->exprs.items[i].column >= 0)
		{
			fold->exprs.items[i].values = batch->values[fold->exprs.items[i].column];
			fold->exprs.items[i].nulls = batch->nulls[fold->exprs.items[i].column];
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
		streamext_fold_select(fold);
		if (view->stateless)
			streamext_fold_into(fold);
		else if (fold->join != NULL)
			streamext_fold_join(fold);
		if (view->derived)
			streamext_fold_keep(fold);
		if (view->nsets > 0)
			streamext_fold_expand_sets(fold);
		fits = streamext_fold_group(fold) && streamext_fold_aggregate(fold) && fold_reserve_positions(fold);
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
	streamext_fold_forget_aggregates(fold);
	if (fold->new_positions != NULL)
		streamext_chunk_free(fold->new_positions);
	fold->new_positions = NULL;
	fold->selected.n = fold->counts.nkept = 0;
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
	*groups = fold->selected.groups;
	*panes = fold->selected.panes;
	return fold->selected.n;
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
	streamext_state_end_noted(&slot->counted.state);
	for (int i = 0; i < fold->selected.n; i++)
	{
		if (sessions)
			streamext_session_add(view, fold->selected.groups[i],
								  batch->event_time[streamext_fold_source(fold, fold->selected.rows[i])]);
		fold->selected.groups[i]->visible = slot->counted.state.period;
		fold->selected.panes[i]->nrows++;
		fold->selected.panes[i]->changed = slot->counted.state.period;
	}
	if (fold->counts.nkept > 0)
		streamext_buffer_append(slot->counted.rows, streamext_shared->streams[slot->id.stream].buffer_lock,
								fold->counts.kept, NULL, fold->counts.nkept);
	fold->counts.nkept = 0;
	slot->counted.accepted += fold->counts.accepted;
	slot->counted.late += fold->counts.late;
	if (batch->owed == NULL)
		slot->counted.rejected += fold->counts.rejected;
	else
		slot->counted.rejected -= Min(slot->counted.rejected, fold->counts.accepted + fold->counts.late);

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
	fold->selected.n = 0;
}

void
streamext_fold_end(ViewFold *fold)
{
	streamext_fold_abandon(fold);
	if (fold->join != NULL)
		streamext_join_end(fold->join);
	FreeExprContext(fold->econtext, false);
	ExecDropSingleTupleTableSlot(fold->row);
	MemoryContextDelete(fold->cxt);
}
