/*-------------------------------------------------------------------------
 *
 * worker/alone.c
 *		Views that would hold up the others of their stream go on by themselves, in the stream's catch-up worker.
 *
 * A view may take streamext.view_time_limit for its part of a batch. When that is over the step is cancelled (base/budget.h) and the view
 * leaves: nothing of the batch has counted for it, and the catch-up worker reads from there on for it alone. The same where the views of
 * its owner have as much memory as streamext.owner_memory_share allows one role.
 *
 * There it gets fewer records at once each time it runs over again, down to one, which may take ALONE_PATIENCE times as long, and more
 * again as it gets quicker. It lags, but loses nothing. Views that are alone take turns, after all those that only catch up.
 *
 * It comes back when it has reached the stream's positions, but not before ViewSlot.owner.alone_until: each time in a row that it has to leave
 * it stays away twice as long, so that what it costs the others becomes a small share of their time.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/budget.h"
#include "base/chunk.h"
#include "worker/alone.h"

#define ALONE_DEFAULT_MS 5000  /* to stay away at first, without a limit */
#define ALONE_DOUBLINGS 7	   /* at most */
#define ALONE_FORGET_MS 600000 /* with the others for so long: as if it had never been away */
#define ALONE_PATIENCE 10	   /* limits that a single record may take */
#define ALONE_SHRINK 8
#define ALONE_TURN_LIMITS 3 /* a turn takes so many limits */
#define ALONE_TURN_MS 1000	/* but not less than this */


/* ---------------------------------------------------------------- the step */

static int
alone_limit(const Worker *w, const WorkerView *v)
{
	int64 ms = streamext_view_time_limit_ms;

	if (w->shard.catchup && streamext_alone_is(v->slot) && w->reading.batch->nrecords == 1)
		ms *= ALONE_PATIENCE;
	return Min(ms, INT_MAX);
}

void
streamext_alone_begin(Worker *w, WorkerView *v)
{
	Assert(w->alone.timed == NULL);
	w->alone.timed = v;
	w->alone.timed_at = GetCurrentTimestamp();
	streamext_budget_begin_view(v->viewoid, alone_limit(w, v));
}

bool
streamext_alone_end(Worker *w)
{
	w->alone.timed = NULL;
	return streamext_budget_end();
}

/* ---------------------------------------------------------------- leaving */

/* By the view's process. When it may come back at the earliest. */
static TimestampTz
alone_until(ViewSlot *view, TimestampTz now)
{
	int64 ms = streamext_view_time_limit_ms > 0 ? streamext_view_time_limit_ms : ALONE_DEFAULT_MS;

	if (streamext_alone_is(view))
		return view->owner.alone_until;
	if (TimestampDifferenceExceeds(view->owner.alone_ended, now, ALONE_FORGET_MS))
		view->owner.alone_times = 0;
	ms <<= Min(view->owner.alone_times, ALONE_DOUBLINGS);
	view->owner.alone_times++;
	return now + ms * 1000;
}

/* Gives the view away with what is told of it. In a transaction. */
static void
alone_leave(Worker *w, WorkerView *v, const char *kind, const char *reason)
{
	const char *name = get_rel_name(v->viewoid);
	TimestampTz now = GetCurrentTimestamp();

	if (!streamext_alone_is(v->slot))
	{
		ereport(LOG, (errmsg("continuous view %s goes on by itself: %s", v->label, reason)));
		streamext_connector_event(w->shard.connector, kind, -1, 0, "continuous view \"%s\" goes on by itself: %s",
								  name != NULL ? name : "?", reason);
	}
	streamext_fold_withdraw(v->fold);
	streamext_handover_alone(w, v, reason, alone_until(v->slot, now));
}

void
streamext_alone_overrun(Worker *w, WorkerView *v)
{
	int	 n = w->reading.batch->nrecords;
	bool again = w->shard.catchup && streamext_alone_is(v->slot);
	char reason[STREAMEXT_MAX_MESSAGE];

	streamext_clip_format(reason, sizeof(reason), "%s took longer than streamext.view_time_limit%s, %d ms",
						  again && n == 1 ? "one record" : "a batch", again && n == 1 ? " ten times over" : "",
						  streamext_view_time_limit_ms);
	alone_leave(w, v, "slow_view", reason);
	v->slot->owner.alone_most = again ? Max(n / ALONE_SHRINK, 1) : STREAMEXT_BATCH_ROWS;
	if (again && n == 1)
		w->alone.rest_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), streamext_view_time_limit_ms);
}

/* ---------------------------------------------------------------- shares of memory */

/* Without locks: a sum that is read while others write is as good a moment later. */
static Size
alone_bytes_of(Oid owner)
{
	Size bytes = 0;

	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];

		if (view->id.in_use && view->owner.role == owner && view->counted.definition != 0)
			bytes += view->counted.state.bytes;
	}
	return bytes;
}

bool
streamext_alone_is_over_share(Worker *w, WorkerView *v)
{
	Size share;

	v->over_share = false;
	if (streamext_owner_memory_share >= 100)
		return false;
	share = streamext_chunk_total() / 100 * streamext_owner_memory_share;
	if (alone_bytes_of(v->slot->owner.role) < share)
		return false;
	v->over_share = true;
	if (!w->shard.catchup || !streamext_alone_is(v->slot))
		alone_leave(w, v, "full_view", "its owner's views have reached streamext.owner_memory_share");
	return true;
}

/* ---------------------------------------------------------------- shares of processes */

/* Of two that start at the same time one sees the other: the one that claimed its slot later, or stands behind it. */
static int
alone_workers_before(int stream)
{
	const StreamSlot *mine = &streamext_shared->streams[stream];
	int				  n = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		const StreamSlot *slot = &streamext_shared->streams[i];

		if (i == stream || !slot->id.in_use || slot->worker.pid == 0 || slot->owner != mine->owner)
			continue;
		n += mine->worker.pid == 0 || slot->worker.started_at < mine->worker.started_at ||
			 (slot->worker.started_at == mine->worker.started_at && i < stream);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return n;
}

bool
streamext_alone_has_no_worker(int stream)
{
	StreamSlot *slot = &streamext_shared->streams[stream];
	char		message[STREAMEXT_MAX_MESSAGE];

	if (streamext_owner_workers == 0 || !OidIsValid(slot->owner) ||
		alone_workers_before(stream) < streamext_owner_workers)
		return false;
	snprintf(message, sizeof(message),
			 "the streams of its owner have as many workers as streamext.owner_workers allows, %d",
			 streamext_owner_workers);
	streamext_stream_set_state(slot, STREAM_WAITING, message);
	return true;
}

/* ---------------------------------------------------------------- in the catch-up worker */

/* The only view at hand, if it is one that goes on by itself. */
static WorkerView *
alone_view(const Worker *w)
{
	WorkerView *v = list_length(w->shard.views) == 1 ? linitial(w->shard.views) : NULL;

	return v != NULL && v->fold != NULL && streamext_alone_is(v->slot) ? v : NULL;
}

int
streamext_alone_most(const Worker *w)
{
	const WorkerView *v = alone_view(w);

	return v != NULL && v->slot->owner.alone_most > 0 ? v->slot->owner.alone_most : STREAMEXT_BATCH_ROWS;
}

/* A batch of the view's went well. */
void
streamext_alone_succeeded(Worker *w)
{
	WorkerView *v = alone_view(w);

	if (v == NULL || v->slot->owner.alone_most >= STREAMEXT_BATCH_ROWS ||
		w->reading.batch->nrecords < v->slot->owner.alone_most ||
		TimestampDifferenceExceeds(w->alone.timed_at, GetCurrentTimestamp(), streamext_view_time_limit_ms / 4))
		return;
	v->slot->owner.alone_most = Min(v->slot->owner.alone_most * 2, STREAMEXT_BATCH_ROWS);
}

void
streamext_alone_begin_turn(Worker *w)
{
	int64 ms = Max((int64) streamext_view_time_limit_ms * ALONE_TURN_LIMITS, ALONE_TURN_MS);

	w->alone.turn_until = GetCurrentTimestamp() + ms * 1000;
}

bool
streamext_alone_turn_is_over(Worker *w)
{
	bool others = false;

	if (alone_view(w) == NULL || GetCurrentTimestamp() < w->alone.turn_until)
		return false;
	streamext_alone_begin_turn(w);
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews && !others; i++)
		others = streamext_shared->views[i].id.in_use && streamext_shared->views[i].id.stream == w->shard.index &&
				 streamext_shared->views[i].owner.catchup == CATCHUP_WANTED;
	LWLockRelease(streamext_shared->registry_lock);
	return others;
}

/* ---------------------------------------------------------------- the end of the process */

bool
streamext_alone_at_exit(Worker *w)
{
	WorkerView *v = w->alone.timed;

	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	if (v == NULL || w->shard.slot == NULL || !streamext_budget_is_over())
		return false;
	LWLockAcquire(w->shard.slot->lock, LW_EXCLUSIVE);
	streamext_view_set_alone(v->slot, alone_until(v->slot, GetCurrentTimestamp()));
	v->slot->owner.alone_most = 1;
	streamext_view_give(v->slot, false);
	streamext_view_set_status(v->slot, VIEW_CATCHING_UP,
							  "it took longer than streamext.view_time_limit and could not be cancelled");
	LWLockRelease(w->shard.slot->lock);
	return true;
}
