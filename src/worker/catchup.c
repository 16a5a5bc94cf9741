/*-------------------------------------------------------------------------
 *
 * worker/catchup.c
 *		The second process of a stream and shard: new views read what the stream has read before, while its worker goes on.
 *
 * When views wait for it (ViewSlot.owner.catchup), the launcher starts one. It has a connector of its own, reads from the least position of
 * the views it took, and folds into them alone, under the stream's lock as any publication; the stream's counters, positions,
 * watermark, buffer and the dead letters of the whole stream are its worker's. Event time goes by each view's own watermark. When
 * the views have reached the stream's positions they are handed over (worker/handover.c), and when no view waits it ends.
 *
 * At the end both read the same records at the same time, and neither is sure to be ahead. So once it is near, the stream's worker is
 * held for a moment (StreamSlot.handover.hold_until, bounded): it reads nothing, and the views draw level within milliseconds.
 *
 * Position vectors are in the order of the slot's partitions, which the stream's worker may change; records are in that of our
 * connector, and are mapped. What was prepared by a layout that is not the slot's at publication is thrown away and read again.
 *
 * An error, or the end of the process, leaves the views as published, waiting for the next one. One that cannot be had is
 * said so in the views' state (worker/launcher.c).
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "shared/database.h"
#include "base/content.h"
#include "base/clip.h"
#include "base/budget.h"
#include "worker/alone.h"
#include "worker/letters_reread.h"
#include "durable/history.h"
#include "durable/events.h"
#include "worker/worker.h"
#include "worker/poison.h"
#include "worker/worker_private.h"

#define CATCHUP_TICK_MS 100
#define CATCHUP_FULL_RETRY_MS 500
#define CATCHUP_EXPIRE_MS 400
#define CATCHUP_NEAR_RECORDS 50000 /* the stream's worker is held for these */
#define CATCHUP_HOLD_MS 300		   /* at most, */
#define CATCHUP_HOLD_EVERY_MS 3000 /* and not more often */

static Worker catchup_self;

/* ---------------------------------------------------------------- start and end */

/* Gives back what the process has, whatever w->shard.views says by then. Needs registry_lock. */
static void
catchup_give_back(Worker *w, const char *message)
{
	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	LWLockAcquire(w->shard.slot->lock, LW_EXCLUSIVE);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (!view->id.in_use || view->id.stream != w->shard.index || view->owner.catchup != CATCHUP_ACTIVE)
			continue;
		streamext_view_give(view, false);
		if (message != NULL)
			streamext_view_set_error(view, message);
	}
	streamext_stream_hold(w->shard.slot, 0);
	LWLockRelease(w->shard.slot->lock);
}

static void
catchup_at_exit(int code, Datum arg)
{
	Worker	  *w = &catchup_self;
	Connector *connector = w->shard.connector;

	streamext_poison_leave();
	LWLockReleaseAll();
	w->shard.connector = NULL;
	if (connector != NULL)
		w->shard.ops->close(connector);
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	streamext_alone_at_exit(w);
	catchup_give_back(w, NULL);
	streamext_stream_leave(w->shard.slot, true, code != 0 && !ShutdownRequestPending);
	streamext_wake_worker(w->shard.slot);
	LWLockRelease(streamext_shared->registry_lock);
	streamext_poison_end();
	streamext_wake_launcher();
}

static void
catchup_fail(Worker *w)
{
	ErrorData *error;

	HOLD_INTERRUPTS();
	LWLockReleaseAll();
	MemoryContextSwitchTo(w->shard.cxt);
	error = CopyErrorData();
	EmitErrorReport();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	catchup_give_back(w, error->message);
	LWLockRelease(streamext_shared->registry_lock);
	proc_exit(1);
}

/* ---------------------------------------------------------------- where to read */

/* With the lock. False: the slot's vectors or partitions are not those that the stream's worker will make them. */
static bool
catchup_map(Worker *w)
{
	StreamSlot *slot = w->shard.slot;
	Connector  *c = w->shard.connector;
	ListCell   *lc;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	foreach (lc, w->shard.views)
		if (((WorkerView *) lfirst(lc))->slot->counted.npositions != slot->counted.npartitions)
			return false;
	for (int i = 0; i < c->npartitions; i++)
	{
		int found = 0;

		while (found < slot->counted.npartitions &&
			   (slot->counted.partitions[found].partition != c->partitions[i].partition ||
				strcmp(slot->counted.partitions[found].topic, c->partitions[i].topic) != 0))
			found++;
		if (found == slot->counted.npartitions)
			return false; /* a new one: the stream's worker comes to it as well */
		w->map.index[i] = found;
	}
	w->shard.npartitions = slot->counted.npartitions;
	w->map.layout = slot->counted.layout;
	return true;
}

/* With the lock. */
static void
catchup_settle_view(Worker *w, WorkerView *v)
{
	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	for (int i = 0; i < w->shard.npartitions; i++)
		streamext_view_set_position(v->slot, i, streamext_worker_view_position(w, v, i));
	for (int i = 0; i < STREAMEXT_MAX_PARTITIONS; i++)
		v->max_event_time[i] = DT_NOBEGIN; /* the watermark stays */
	v->behind = true;
}

/* After a refresh, new partitions, another layout, a dropped batch. False: not now. */
static bool
catchup_attach(Worker *w)
{
	Connector *c = w->shard.connector;
	int		   known = w->map.nmapped;
	bool	   mapped;
	int64	   targets[STREAMEXT_MAX_PARTITIONS];
	ListCell  *lc;

	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->max_event_time != NULL)
			continue;
		v->max_event_time = MemoryContextAlloc(v->cxt, sizeof(TimestampTz) * STREAMEXT_MAX_PARTITIONS);
		v->watermark = DT_NOBEGIN;
	}
	streamext_stream_lock_exclusive(w->shard.slot);
	mapped = catchup_map(w);
	if (mapped)
	{
		foreach (lc, w->shard.views)
			catchup_settle_view(w, lfirst(lc));
		for (int i = 0; i < c->npartitions; i++)
		{
			if (w->shard.slot->counted.partitions[w->map.index[i]].last.position > c->partitions[i].last.position)
				c->partitions[i].last = w->shard.slot->counted.partitions[w->map.index[i]].last;
			targets[i] = PG_INT64_MAX;
			foreach (lc, w->shard.views)
				targets[i] = Min(targets[i], ((WorkerView *) lfirst(lc))->slot->counted.positions[w->map.index[i]]);
		}
	}
	LWLockRelease(w->shard.slot->lock);
	if (!mapped)
		return false;

	for (int i = 0; i < c->npartitions; i++)
	{
		int64 position = c->partitions[i].position;

		if (targets[i] >= 0 ? position == targets[i] : position < 0)
			continue;
		if (targets[i] < 0 && i >= known && !w->reading.dropped)
			continue; /* just opened: it is there */
		streamext_connector_seek(c, i, targets[i]);
	}
	w->map.nmapped = c->npartitions;
	w->reading.dropped = false;
	w->shard.attached = true;
	return true;
}

/* ---------------------------------------------------------------- one batch */

/* Positions and records from the connector's order to the slot's. */
static void
catchup_translate(Worker *w)
{
	Batch *batch = w->reading.batch;

	batch->npartitions = w->shard.npartitions;
	for (int i = 0; i < w->shard.npartitions; i++)
		batch->positions[i] = -1;
	for (int i = 0; i < w->map.nmapped; i++)
		batch->positions[w->map.index[i]] = Max(w->shard.connector->partitions[i].position, -1);
	for (int i = 0; i < batch->nrecords; i++)
	{
		StreamRecord *record = &batch->records[i];

		record->partition_index = w->map.index[record->partition_index];
		batch->positions[record->partition_index] =
			Max(batch->positions[record->partition_index], record->next_position);
	}
}

/* With the lock. */
static void
catchup_move_view(Worker *w, WorkerView *v)
{
	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	streamext_view_advance(v->slot, w->reading.batch->positions, w->reading.batch->npartitions);
}

/* Positions move without records too: aborted transactions, control records. */
static void
catchup_publish_empty(Worker *w)
{
	ListCell *lc;

	streamext_letters_passed(w);
	streamext_stream_lock_exclusive(w->shard.slot);
	if (w->shard.slot->counted.layout != w->map.layout)
		w->shard.attached = false;
	else
		foreach (lc, w->shard.views)
			catchup_move_view(w, lfirst(lc));
	LWLockRelease(w->shard.slot->lock);
}

static bool
catchup_poll(Worker *w)
{
	Batch *batch = w->reading.batch;

	streamext_batch_reset(batch);
	batch->nrecords = streamext_connector_poll(w->shard.connector, batch->records,
											   Min(streamext_alone_most(w), streamext_poison_most(w)));
	if (w->shard.connector->npartitions > w->map.nmapped)
	{
		w->reading.dropped = w->reading.dropped || batch->nrecords > 0;
		streamext_connector_release(w->shard.connector);
		w->shard.attached = false;
		return false;
	}
	catchup_translate(w);
	if (batch->nrecords == 0)
	{
		streamext_connector_release(w->shard.connector);
		catchup_publish_empty(w);
		return false;
	}
	streamext_reading_take(w);
	return true;
}

static bool
catchup_publish(Worker *w, TimestampTz now)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
		if (((WorkerView *) lfirst(lc))->prepared)
			streamext_worker_view_events(w, lfirst(lc));

	streamext_stream_lock_exclusive(w->shard.slot);
	if (w->shard.slot->counted.layout != w->map.layout)
	{
		LWLockRelease(w->shard.slot->lock);
		return false;
	}
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (!v->prepared)
			continue;
		streamext_worker_count_view(w, v);
		w->reading.batch->watermark = v->watermark;
		streamext_poison_view(w, v);
		streamext_fold_publish(v->fold, w->reading.batch);
		v->prepared = false;
		streamext_view_succeeded(v->slot);
		streamext_view_set_status(v->slot, VIEW_CATCHING_UP, NULL);
	}
	LWLockRelease(w->shard.slot->lock);
	streamext_alone_succeeded(w);
	return true;
}

/* Views whose fold has failed, or that go on by themselves from here, are not ours any more. */
static void
catchup_drop_failed(Worker *w)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold != NULL)
			continue;
		streamext_handover_release(w, v->slot);
		w->shard.views = foreach_delete_current (w->shard.views, lc);
	}
}

/* Windows beyond retention go while the view passes them: the history may be longer than memory. */
static void
catchup_expire(Worker *w)
{
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	if (!TimestampDifferenceExceeds(w->expiry.at, now, CATCHUP_EXPIRE_MS))
		return;
	foreach (lc, w->shard.views)
		streamext_fold_expire(((WorkerView *) lfirst(lc))->fold, ((WorkerView *) lfirst(lc))->watermark);
	/* what is left for another time is so little that reading goes on in between */
	w->expiry.at = streamext_history_seal(&w->shard) ? 0 : now;
}

/* Reads and folds at most one batch. True: there may be more at once. */
static bool
catchup_advance(Worker *w)
{
	if (GetCurrentTimestamp() < w->alone.rest_until || (!w->shard.attached && !catchup_attach(w)))
		return false;
	if (!w->reading.pending && !catchup_poll(w))
		return !w->shard.attached;
	/* what was committed after a change is read by the changed definition */
	pg_memory_barrier();
	if (streamext_worker_rights_due(w))
		return true;
	if (pg_atomic_read_u32(&w->shard.slot->ask.generation) != w->map.generation)
		return w->setup.refresh_at == 0;
	if ((w->reading.full && GetCurrentTimestamp() < w->reading.retry_at) || streamext_worker_backs_off(w))
		return false;
	w->reading.full = !streamext_worker_fold(w);
	if (w->reading.full)
		w->reading.retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), CATCHUP_FULL_RETRY_MS);
	catchup_drop_failed(w);
	return !w->reading.full && w->trouble.backoff_until == 0;
}

/* ---------------------------------------------------------------- the loop */

static void
catchup_pause(Worker *w, bool pause)
{
	if (w->shard.connector == NULL || w->reading.paused == pause)
		return;
	w->shard.ops->pause(w->shard.connector, pause);
	w->reading.paused = pause;
}

/* What the connector says is the views' error. Raises if it will not come back. */
static void
catchup_check_connector(Worker *w)
{
	Connector *c = w->shard.connector;
	ListCell  *lc;

	if (c->errors != w->source.errors)
	{
		w->source.errors = c->errors;
		streamext_stream_lock_exclusive(w->shard.slot);
		foreach (lc, w->shard.views)
			streamext_view_set_error(((WorkerView *) lfirst(lc))->slot, c->error);
		LWLockRelease(w->shard.slot->lock);
	}
	if (c->failed)
		streamext_stream_events_write(&w->shard);
	if (c->failed)
		ereport(ERROR, (errcode(ERRCODE_FDW_ERROR),
						errmsg("%s", c->error[0] != '\0' ? c->error : "the connector has failed")));
}

/* Lets go what has caught up; holds the stream's worker when that is near. */
static void
catchup_finish(Worker *w)
{
	TimestampTz now = GetCurrentTimestamp();
	int64		backlog;

	if (!w->shard.attached || w->reading.pending)
		return;
	backlog = streamext_handover_finish(w);
	if (backlog < 0 || backlog > CATCHUP_NEAR_RECORDS || now < w->map.hold_at)
		return;
	if (streamext_alone_most(w) < STREAMEXT_BATCH_ROWS)
		return; /* it would not draw level meanwhile */
	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_stream_hold(w->shard.slot, TimestampTzPlusMilliseconds(now, CATCHUP_HOLD_MS));
	LWLockRelease(w->shard.slot->lock);
	w->map.hold_at = TimestampTzPlusMilliseconds(now, CATCHUP_HOLD_EVERY_MS);
}

static bool
catchup_refresh_due(Worker *w)
{
	if (w->setup.refresh_at != 0)
		return w->setup.refresh_at <= GetCurrentTimestamp();
	if (w->shard.views == NIL || pg_atomic_read_u32(&w->shard.slot->ask.generation) != w->map.generation)
		return true;
	if (w->reading.pending)
		return false;
	/* some more views wait; those that are near join */
	return pg_atomic_read_u32(&w->shard.slot->ask.catchup_requests) != w->map.requests ||
		   streamext_alone_turn_is_over(w);
}

static void
catchup_sleep(Worker *w, bool reading)
{
	int fd = reading && w->shard.attached && !w->reading.full ? w->shard.connector->wait_fd : -1;

	pgstat_report_stat(true);
	streamext_worker_doze(fd, CATCHUP_TICK_MS);
}

/* Until no view waits. */
static void
catchup_run(Worker *w)
{
	for (;;)
	{
		bool paused;
		bool more = false;

		MemoryContextSwitchTo(w->round_cxt);
		if (!w->reading.pending)
			MemoryContextReset(w->round_cxt);
		ResetLatch(MyLatch);
		streamext_worker_interrupts(NULL);
		streamext_stream_events_write(&w->shard);
		if (streamext_worker_rights_due(w))
			streamext_worker_check_rights(w);
		if (catchup_refresh_due(w) && !streamext_worker_refresh_catchup(w))
			return;
		paused = w->shard.views == NIL || streamext_pause_requested(w->shard.slot);
		catchup_pause(w, paused || w->reading.full);
		if (!paused)
		{
			more = catchup_advance(w);
			catchup_expire(w);
			catchup_check_connector(w);
			catchup_finish(w);
		}
		if (!more)
			catchup_sleep(w, !paused);
	}
}

static const WorkerRole catchup_role = { .catchup = true, .publish = catchup_publish };

void
streamext_catchup_main(Datum arg)
{
	Worker *w = &catchup_self;

	streamext_worker_signals();
	if (!streamext_worker_enter(w, DatumGetInt32(arg), &catchup_role))
		proc_exit(0);
	before_shmem_exit(catchup_at_exit, 0);

	BackgroundWorkerInitializeConnectionByOid(w->shard.identity.dboid, InvalidOid, 0);
	streamext_budget_register();
	streamext_budget_publish(&w->shard.slot->catchup.deaf);
	streamext_content_keep();
	streamext_worker_session();
	SetConfigOption("application_name", "streamext catch-up", PGC_SUSET, PGC_S_OVERRIDE);
	streamext_worker_contexts(w);
	w->map.index = palloc(sizeof(int) * STREAMEXT_MAX_PARTITIONS);
	w->setup.refresh_at = 0;
	streamext_worker_calm(NULL, streamext_poison_start(w));
	streamext_worker_check_poison(w);

	PG_TRY();
	{
		catchup_run(w);
	}
	PG_CATCH();
	{
		catchup_fail(w);
	}
	PG_END_TRY();
	proc_exit(0);
}
