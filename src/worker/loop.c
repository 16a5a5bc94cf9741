/*-------------------------------------------------------------------------
 *
 * worker/loop.c
 *		The process of one stream and shard: it does the whole way from the connector to published views.
 *
 * The loop: look into the catalogue if somebody has changed it, take a batch and fold it, do what is due (watermark of idle
 * partitions, expiry, flushes, state), and go on at once if there was a batch. Otherwise sleep on latch and connector, with
 * a timeout only when something will be due by itself. No transaction is open while it sleeps.
 *
 * An error ends the process with the stream's state `failed` and its message; the launcher starts another one, which goes on from what is
 * published in shared memory.
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
#include "utils/timestamp.h"

#include "base/budget.h"
#include "base/content.h"
#include "base/fault.h"
#include "base/transaction.h"
#include "durable/events.h"
#include "worker/alone.h"
#include "worker/letters_hold.h"
#include "worker/poison.h"
#include "worker/retry.h"
#include "worker/seek.h"
#include "worker/worker.h"
#include "worker/worker_private.h"

#define WORKER_FULL_RETRY_MS 500
#define WORKER_GATHER_US 1000 /* a batch of fewer records than this many is followed by the next one no sooner */
#define WORKER_GATHER_RECORDS 256
#define WORKER_EXPECT_MS 20 /* until a catch-up worker has let go */
#define WORKER_TICK_MS 100	/* for connectors without a descriptor to wait on */
#define WORKER_STALLED_TICK_MS 1000
#define WORKER_LAG_MS 1000 /* how often a paused stream asks how far behind it is */

static Worker worker_self;

/* ---- the end ---- */

static void
worker_at_exit(int code, Datum arg)
{
	Worker	   *w = &worker_self;
	StreamSlot *slot = w->shard.slot;
	Connector  *connector = w->shard.connector;

	streamext_poison_leave();
	LWLockReleaseAll();
	w->shard.connector = NULL;
	if (connector != NULL)
		w->shard.ops->close(connector); /* its threads end before another worker may begin */
	if (slot != NULL)
	{
		LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
		if (slot->worker.pid == MyProcPid)
		{
			/* a view that had to be ended is no failure of the stream: the launcher goes on with the others at once */
			bool ended_view = streamext_alone_at_exit(w);

			streamext_stream_leave(slot, false, code != 0 && !ShutdownRequestPending && !ended_view);
		}
		LWLockRelease(streamext_shared->registry_lock);
		ConditionVariableBroadcast(&slot->progress);
	}
	streamext_poison_end();
	streamext_wake_launcher();
}

/* While there are transactions still. */
static void
worker_letters_at_exit(int code, Datum arg)
{
	streamext_letters_at_exit(&worker_self);
}

/*
 * From the catch block: reports, makes shared memory whole, and leaves. Who had to give way to another transaction has not failed: the launcher starts
 * it again at once.
 */
static void
worker_fail(Worker *w)
{
	ErrorData *error;
	bool	   gave_way;

	HOLD_INTERRUPTS();
	LWLockReleaseAll();
	MemoryContextSwitchTo(w->shard.cxt);
	error = CopyErrorData();
	gave_way = streamext_error_is_lock(error->sqlerrcode);
	EmitErrorReport();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	if (w->shard.slot != NULL && !gave_way)
		streamext_stream_set_state(w->shard.slot, STREAM_FAILED, error->message);
	proc_exit(gave_way ? 0 : 1);
}

/* ---- pause ---- */

/* True if nothing shall be read. */
static bool
worker_check_pause(Worker *w)
{
	bool paused = streamext_pause_requested(w->shard.slot);

	if (w->shard.connector != NULL && w->shard.connector->failed && !w->reading.stopped)
	{
		streamext_stream_events_write(&w->shard);
		streamext_worker_stop(w, w->shard.connector->error[0] != '\0' ? w->shard.connector->error
																	  : "the connector has failed");
		return true;
	}
	/* the catch-up worker has stopped the stream */
	if (paused && STREAMEXT_STATE_FAILED(w->shard.slot->status.state))
		w->reading.stopped = true;
	if (w->reading.stopped && !paused)
	{
		w->reading.stopped = false;
		streamext_poison_absolve();
		if (w->shard.connector != NULL && w->shard.connector->failed)
		{
			w->setup.refresh_at = GetCurrentTimestamp(); /* opens it anew */
			paused = true;
		}
	}
	return paused;
}

static void
worker_pause_connector(Worker *w, bool pause)
{
	if (w->shard.connector == NULL || w->reading.paused == pause)
		return;
	w->shard.ops->pause(w->shard.connector, pause);
	w->reading.paused = pause;
}

/* ---- sleep ---- */

/* When something will be due by itself; DT_NOEND: never. */
static TimestampTz
worker_deadline(Worker *w, TimestampTz now, bool reading)
{
	TimestampTz next = streamext_chores_deadline(w, now, reading);

	if (w->reading.full)
		next = Min(next, w->reading.retry_at);
	if (w->setup.refresh_at != 0)
		next = Min(next, w->setup.refresh_at);
	if (w->trouble.backoff_until != 0)
		next = Min(next, w->trouble.backoff_until);
	next = Min(next, streamext_worker_retry_view_at(w));
	if (w->shard.slot->handover.hold_until != 0)
		next = Min(next, Max(w->shard.slot->handover.hold_until, now + 1000));
	next = Min(next, streamext_letters_deadline(w));
	if (!reading)
		return w->shard.attached && !w->reading.full ? Min(next, TimestampTzPlusMilliseconds(now, WORKER_LAG_MS))
													 : next;
	if (!w->shard.attached)
		return w->requests.seeks == NIL ? now : Min(next, TimestampTzPlusMilliseconds(now, WORKER_TICK_MS));
	if (w->shard.connector->wait_fd < 0 && !w->shard.ops->sets_latch)
		next = Min(next, TimestampTzPlusMilliseconds(now, WORKER_TICK_MS));
	if (w->shard.connector->stalled)
		next = Min(next, TimestampTzPlusMilliseconds(now, WORKER_STALLED_TICK_MS));
	return next;
}

/* A connector that is not being read is not waited for: its descriptor would stay readable. */
static void
worker_sleep(Worker *w, bool reading)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline = worker_deadline(w, now, reading);
	long		timeout = -1;

	pgstat_report_stat(true);
	if (deadline != DT_NOEND)
		timeout = deadline <= now ? 0 : Min((deadline - now + 999) / 1000, INT_MAX);
	if (timeout == 0)
		return;
	streamext_worker_doze(reading ? w->shard.connector->wait_fd : -1, timeout);
	/* a sleep that ended when it should is no break */
	if (w->watch.looked_at != 0)
		w->watch.looked_at = deadline == DT_NOEND ? GetCurrentTimestamp() : Min(GetCurrentTimestamp(), deadline);
}

/* ---- the loop ---- */

static void
worker_note_full(Worker *w, bool full)
{
	w->reading.full = full;
	if (full)
		w->reading.retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WORKER_FULL_RETRY_MS);
}

/* The catch-up worker is about to draw level; it needs milliseconds, and has but a bounded time. */
static bool
worker_is_held(Worker *w)
{
	if (w->shard.slot->handover.hold_until == 0)
		return false;
	if (w->shard.slot->handover.hold_until > GetCurrentTimestamp())
		return true;
	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_stream_hold(w->shard.slot, 0);
	LWLockRelease(w->shard.slot->lock);
	return false;
}

/*
 * Records that come one by one are taken a millisecond's at a time: a batch costs a transaction, a lock and two changes of process,
 * however small it is. The first one after a pause does not wait.
 */
static void
worker_gather(Worker *w)
{
	int64 wait = w->reading.gather_until - GetCurrentTimestamp();

	if (wait > 0 && wait <= WORKER_GATHER_US)
		pg_usleep(wait);
}

/* Reads and folds at most one batch. True: there may be more at once. */
static bool
worker_advance(Worker *w)
{
	streamext_handover_accept(w);
	if (worker_is_held(w))
		return false;
	if (streamext_letters_deadline(w) != DT_NOEND ||
		(streamext_letters_are_asked_for(w) && !streamext_letters_settled(w)))
		return false;
	if (w->shard.attached && !w->reading.pending && streamext_seeks_due(w))
		w->shard.attached = false;
	if (!w->shard.attached)
	{
		worker_note_full(w, !streamext_worker_attach(w));
		if (w->reading.full || !w->shard.attached)
			return false;
	}
	if (!w->reading.pending && streamext_retries_due(w))
	{
		if (streamext_worker_backs_off(w))
			return false;
		worker_note_full(w, !streamext_retries_run(w));
		if (w->reading.full)
			return false;
		if (w->trouble.tries > 0)
			return w->trouble.backoff_until == 0;
	}
	if (!w->reading.pending)
	{
		worker_pause_connector(w, false);
		worker_gather(w);
		if (!streamext_worker_poll(w))
			return !w->shard.attached;
		w->reading.gather_until =
			w->reading.batch->nrecords < WORKER_GATHER_RECORDS ? GetCurrentTimestamp() + WORKER_GATHER_US : 0;
		/* what was committed after a change is read by the changed definition */
		pg_memory_barrier();
		if (streamext_worker_rights_due(w) || pg_atomic_read_u32(&w->shard.slot->ask.generation) !=
												  pg_atomic_read_u32(&w->shard.slot->ask.generation_seen))
			return true;
	}
	if (streamext_worker_backs_off(w))
		return false;
	worker_note_full(w, !streamext_worker_fold(w));
	if (w->reading.full)
		worker_pause_connector(w, true);
	return !w->reading.full && w->trouble.backoff_until == 0;
}

/* Whether it is time to look into the catalogue. */
static bool
worker_is_to_look(Worker *w)
{
	/* a locked view is tried again in its time, not in each round */
	if (w->shard.connector == NULL)
		return true;
	if (w->setup.refresh_at != 0)
		return w->setup.refresh_at <= GetCurrentTimestamp();
	return pg_atomic_read_u32(&w->shard.slot->ask.generation) !=
		   pg_atomic_read_u32(&w->shard.slot->ask.generation_seen);
}

/* Looks, unless letters are to be written first; false: the stream is gone. */
static bool
worker_look(Worker *w)
{
	if (!streamext_letters_settled(w))
	{
		streamext_worker_doze(-1, WORKER_FULL_RETRY_MS);
		return true;
	}
	if (!streamext_worker_refresh(w))
		return false;
	if (w->shard.connector == NULL)
		streamext_worker_doze(-1, WORKER_EXPECT_MS);
	return true;
}

/* Until the stream is gone. */
static void
worker_run(Worker *w)
{
	for (;;)
	{
		bool paused;
		bool more = false;

		/* what a connector allocates in passing lives as long as its records */
		MemoryContextSwitchTo(w->round_cxt);
		if (!w->reading.pending)
			MemoryContextReset(w->round_cxt);
		ResetLatch(MyLatch);
		streamext_worker_interrupts(w);
		paused = worker_check_pause(w);
		if (w->setup.refresh_at == 0 && streamext_worker_retry_view_at(w) <= GetCurrentTimestamp())
			w->setup.refresh_at = GetCurrentTimestamp();
		if (streamext_worker_rights_due(w))
			streamext_worker_check_rights(w);
		if (worker_is_to_look(w))
		{
			if (!worker_look(w))
				return;
			continue;
		}
		if (paused)
		{
			worker_pause_connector(w, true);
			streamext_worker_watch_lag(w);
		}
		else
			more = worker_advance(w) && !w->reading.stopped;
		paused = paused || w->reading.stopped;
		streamext_letters_round(w, !more);
		streamext_chores_run(w, paused);
		streamext_stream_events_write(&w->shard);
		if (!more)
			worker_sleep(w, !paused && !w->reading.full && w->trouble.backoff_until == 0 && !worker_is_held(w));
	}
}

static const WorkerRole worker_role = { .publish = streamext_batch_publish };

void
streamext_worker_main(Datum arg)
{
	Worker *w = &worker_self;

	streamext_worker_signals();
	if (!streamext_worker_enter(w, DatumGetInt32(arg), &worker_role))
		proc_exit(0);
	/* on_error 'stop' outlives the worker */
	w->reading.stopped =
		STREAMEXT_STATE_FAILED(w->shard.slot->status.state) && streamext_pause_requested(w->shard.slot);
	before_shmem_exit(worker_at_exit, 0);

	BackgroundWorkerInitializeConnectionByOid(w->shard.identity.dboid, InvalidOid, 0);
	before_shmem_exit(worker_letters_at_exit, 0);
	streamext_budget_register();
	streamext_budget_publish(&w->shard.slot->worker.deaf);
	streamext_content_keep();
	streamext_worker_session();
	streamext_fault_start();
	streamext_worker_contexts(w);
	w->flush.targets = palloc(sizeof(int64) * STREAMEXT_MAX_PARTITIONS);
	streamext_worker_calm(w, streamext_poison_start(w));
	streamext_worker_check_poison(w);

	PG_TRY();
	{
		worker_run(w);
	}
	PG_CATCH();
	{
		worker_fail(w);
	}
	PG_END_TRY();
	proc_exit(0);
}
