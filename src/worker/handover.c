/*-------------------------------------------------------------------------
 *
 * worker/handover.c
 *		Views that change hands between a stream's worker and its catch-up worker: every transition of ViewSlot.owner.catchup.
 *
 *	NONE -> WANTED		the stream's worker ends its fold on a view that is far behind the others (handover_request), or holds them up
 *						(handover_alone)
 *	WANTED -> NONE		it takes the view back, because no other view would wait for it (handover_reclaim)
 *	WANTED -> ACTIVE	the catch-up worker takes it (handover_take)
 *	ACTIVE -> WANTED	it lets it go: DDL, its own end, however that comes (handover_release)
 *	ACTIVE -> DONE		the view's positions are not below the stream's in any partition, at a batch boundary (handover_finish)
 *	DONE -> NONE		the stream's worker takes it over before it publishes its next batch (handover_accept)
 *
 * All under the stream's lock exclusive. A process leaves a fold behind only in its own memory; what is published is complete,
 * and the next fold reads it from there. The order in the last two makes the view count on where it stopped: as long as a
 * view is DONE the stream's positions do not move, so that whatever the stream's worker has at hand or reads next begins at or below
 * the view's positions, and the fold skips what lies below.
 *
 * Indexes into position vectors are the stream's worker's to change, also those of views in other hands; StreamSlot.counted.layout
 * tells (see there).
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "base/clip.h"
#include "base/transaction.h"
#include "access/xact.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "durable/checkpoint.h"
#include "worker/worker_private.h"

/* A view that is less than this many records behind the group that catches up joins it; else it waits for its turn. */
#define HANDOVER_JOIN_RECORDS 500000

/* ---------------------------------------------------------------- how far behind */

static bool
handover_reached(const StreamSlot *stream, const ViewSlot *view)
{
	if (view->counted.npositions < stream->counted.npartitions)
		return false;
	for (int i = 0; i < stream->counted.npartitions; i++)
		if (view->counted.positions[i] < stream->counted.partitions[i].position)
			return false;
	return true;
}

/* ---------------------------------------------------------------- the stream's worker */

/* Some views wait. */
static void
handover_announce(Worker *w)
{
	pg_atomic_add_fetch_u32(&w->shard.slot->ask.catchup_requests, 1);
	if (w->shard.slot->catchup.pid != 0)
		streamext_wake_worker(w->shard.slot);
	streamext_wake_launcher();
}

/*
 * Gives views that are far behind the most advanced one to the catch-up worker. With positions settled and before the
 * connector is sent anywhere.
 */
void
streamext_handover_request(Worker *w)
{
	int64	  least = PG_INT64_MAX;
	bool	  any = false;
	ListCell *lc;

	if (!w->shard.ops->replayable || streamext_catchup_min_rows < 0)
		return;
	foreach (lc, w->shard.views)
		if (((WorkerView *) lfirst(lc))->fold != NULL && !((WorkerView *) lfirst(lc))->paused)
			least = Min(least, streamext_handover_backlog(w->shard.slot, ((WorkerView *) lfirst(lc))->slot));
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold == NULL || v->paused ||
			streamext_handover_backlog(w->shard.slot, v->slot) - least <= streamext_catchup_min_rows)
			continue;
		streamext_checkpoint_copy_rest(&w->shard);
		streamext_worker_end_fold(v);
		v->prepared = v->behind = false;
		streamext_stream_lock_exclusive(w->shard.slot);
		streamext_view_give(v->slot, true);
		streamext_view_set_status(v->slot, VIEW_CATCHING_UP, "");
		LWLockRelease(w->shard.slot->lock);
		any = true;
	}
	if (any)
		handover_announce(w);
}

/* The view leaves its process, which ends its fold, and goes on by itself; in the catch-up worker too. */
void
streamext_handover_alone(Worker *w, WorkerView *v, const char *reason, TimestampTz until)
{
	streamext_checkpoint_copy_rest(&w->shard);
	streamext_worker_end_fold(v);
	v->prepared = v->behind = false;
	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_view_give(v->slot, !w->shard.catchup);
	streamext_view_set_alone(v->slot, until);
	streamext_view_set_status(v->slot, VIEW_CATCHING_UP, reason);
	LWLockRelease(w->shard.slot->lock);
	handover_announce(w);
}

/* True if the view is, from now on at the latest, the stream's worker's. `alone`: no other view would wait for it. */
bool
streamext_handover_reclaim(StreamSlot *stream, ViewSlot *view, bool alone)
{
	bool mine;

	streamext_stream_lock_exclusive(stream);
	mine = streamext_view_reclaim(view, alone);
	LWLockRelease(stream->lock);
	return mine;
}

/* True while the catch-up worker has a view of this stream; it lets go soon after the generation has moved. */
bool
streamext_handover_is_busy(int stream)
{
	bool busy = false;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	LWLockAcquire(streamext_shared->streams[stream].lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews && !busy; i++)
		busy = streamext_shared->views[i].id.in_use && streamext_shared->views[i].id.stream == stream &&
			   streamext_shared->views[i].owner.catchup == CATCHUP_ACTIVE;
	LWLockRelease(streamext_shared->streams[stream].lock);
	LWLockRelease(streamext_shared->registry_lock);
	return busy;
}

/* A fold on a view that has caught up. False: the view is locked, and goes back. */
static bool
handover_accept_view(Worker *w, WorkerView *v)
{
	bool available = streamext_worker_start_view(w, v);

	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_view_accept(v->slot, available);
	if (v->fold != NULL)
	{
		/* what a fold found elsewhere than in shared memory */
		for (int i = 0; i < Min(w->shard.npartitions, v->slot->counted.npositions); i++)
			streamext_view_set_position(v->slot, i, streamext_worker_view_position(w, v, i));
		streamext_view_set_status(v->slot, v->paused ? VIEW_PAUSED : VIEW_RUNNING, "");
	}
	LWLockRelease(w->shard.slot->lock);
	return available;
}

/*
 * Takes over the views that have caught up. A batch at hand stays at hand, but for a view whose positions are not what they
 * were (it was replaced, or a partition came up): then it is as after a refresh.
 */
void
streamext_handover_accept(Worker *w)
{
	bool	  complete = true;
	bool	  level = true;
	ListCell *lc;

	if (!w->shard.slot->handover.done)
		return;
	streamext_stream_lock_exclusive(w->shard.slot);
	w->shard.slot->handover.done = false;
	streamext_stream_hold(w->shard.slot, 0);
	LWLockRelease(w->shard.slot->lock);
	w->letters.behind = false; /* of a batch at hand: these views have not been taken out of its letters */

	StartTransactionCommand();
	streamext_identity_rest(w->shard.config->owner);
	PushActiveSnapshot(GetTransactionSnapshot());
	streamext_worker_short_lock_timeout();
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->slot->owner.catchup != CATCHUP_DONE)
			continue;
		complete = handover_accept_view(w, v) && complete;
		level = level && (v->fold == NULL || handover_reached(w->shard.slot, v->slot));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	streamext_identity_rise();
	MemoryContextSwitchTo(w->round_cxt);

	if (!complete)
	{
		pg_atomic_add_fetch_u32(&w->shard.slot->ask.catchup_requests, 1);
		streamext_wake_launcher();
	}
	if (!level)
	{
		streamext_worker_drop_batch(w);
		w->shard.attached = false;
	}
	ConditionVariableBroadcast(&w->shard.slot->progress);
}

/* ---------------------------------------------------------------- the catch-up worker */

/* The view's slot if it waits for a catch-up worker, then it is ours; else NULL. */
ViewSlot *
streamext_handover_take(Worker *w, Oid viewoid)
{
	ViewSlot *taken = NULL;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	streamext_stream_lock_exclusive(w->shard.slot);
	for (int i = 0; i < streamext_shared->nviews && taken == NULL; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (!view->id.in_use || view->id.stream != w->shard.index || view->id.viewoid != viewoid ||
			view->owner.catchup != CATCHUP_WANTED)
			continue;
		taken = view;
		streamext_view_take(view);
		streamext_view_set_status(view, VIEW_CATCHING_UP, view->owner.alone_until == 0 ? "" : NULL);
	}
	LWLockRelease(w->shard.slot->lock);
	LWLockRelease(streamext_shared->registry_lock);
	return taken;
}

/* Of the views that go on by themselves the one whose turn was the longest ago; NIL: none waits. With both locks. */
static List *
handover_choose_alone(Worker *w, List *oids)
{
	const ViewSlot *chosen = NULL;
	ListCell	   *lc;

	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	Assert(LWLockHeldByMe(w->shard.slot->lock));
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];

		if (!view->id.in_use || view->id.stream != w->shard.index || view->owner.catchup != CATCHUP_WANTED ||
			view->owner.alone_until == 0)
			continue;
		foreach (lc, oids)
			if (lfirst_oid(lc) == view->id.viewoid && (chosen == NULL || view->owner.taken_at < chosen->owner.taken_at))
				chosen = view;
	}
	return chosen != NULL ? list_make1_oid(chosen->id.viewoid) : NIL;
}

/*
 * The views of `oids` that are to be caught up together: the most advanced and what is near to it; when there are only such that go on
 * by themselves, one of them. Palloc'd.
 */
List *
streamext_handover_choose(Worker *w, List *oids)
{
	int64	  least = PG_INT64_MAX;
	List	 *chosen = NIL;
	ListCell *lc;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	LWLockAcquire(w->shard.slot->lock, LW_SHARED);
	for (int pass = 0; pass < 2; pass++)
		for (int i = 0; i < streamext_shared->nviews; i++)
		{
			ViewSlot *view = &streamext_shared->views[i];
			int64	  backlog;

			if (!view->id.in_use || view->id.stream != w->shard.index || view->owner.catchup != CATCHUP_WANTED ||
				view->owner.alone_until != 0)
				continue;
			backlog = streamext_handover_backlog(w->shard.slot, view);
			if (pass == 0)
				least = Min(least, backlog);
			else if (backlog - least <= HANDOVER_JOIN_RECORDS)
			{
				/* not lappend_oid within the locks: few, and errors release them */
				foreach (lc, oids)
					if (lfirst_oid(lc) == view->id.viewoid)
						break;
				if (lc != NULL)
					chosen = lappend_oid(chosen, view->id.viewoid);
			}
		}
	if (chosen == NIL)
		chosen = handover_choose_alone(w, oids);
	LWLockRelease(w->shard.slot->lock);
	LWLockRelease(streamext_shared->registry_lock);
	return chosen;
}

/* Lets the view go as it is published. The fold is ended after it, or by the end of the process: it writes nothing shared. */
void
streamext_handover_release(Worker *w, ViewSlot *view)
{
	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_view_let_go(view);
	LWLockRelease(w->shard.slot->lock);
}

/* Gives up those of our views that have caught up; returns the greatest backlog of the others, -1: there are none. No batch is at hand. */
int64
streamext_handover_finish(Worker *w)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		backlog = -1;
	bool		any = false;
	ListCell   *lc;

	streamext_stream_lock_exclusive(w->shard.slot);
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold == NULL || v->slot->owner.alone_until > now)
			continue;
		if (handover_reached(w->shard.slot, v->slot))
		{
			streamext_view_arrive(v->slot);
			w->shard.slot->handover.done = any = true;
		}
		else
			backlog = Max(backlog, streamext_handover_backlog(w->shard.slot, v->slot));
	}
	LWLockRelease(w->shard.slot->lock);
	if (!any)
		return backlog;
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold == NULL || v->slot->owner.catchup == CATCHUP_ACTIVE)
			continue;
		streamext_worker_end_fold(v);
		w->shard.views = foreach_delete_current (w->shard.views, lc);
	}
	streamext_wake_worker(w->shard.slot);
	return backlog;
}
