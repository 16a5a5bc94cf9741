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
 * published in shared memory. SIGTERM in the midst of a user's expression ends that expression.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "shared/database.h"
#include "worker/retire.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/sinval.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/clip.h"
#include "durable/checkpoint.h"
#include "shared/clock.h"
#include "base/content.h"
#include "base/fault.h"
#include "durable/history.h"
#include "sink/windows.h"
#include "base/budget.h"
#include "worker/alone.h"
#include "worker/letters_hold.h"
#include "worker/retry.h"
#include "worker/seek.h"
#include "durable/events.h"
#include "worker/worker.h"
#include "worker/poison.h"
#include "worker/worker_private.h"

#define WORKER_FULL_RETRY_MS 500
#define WORKER_GATHER_US 1000 /* a batch of fewer records than this many is followed by the next one no sooner */
#define WORKER_GATHER_RECORDS 256
#define WORKER_EXPECT_MS 20 /* until a catch-up worker has let go */
#define WORKER_TICK_MS 100	/* for connectors without a descriptor to wait on */
#define WORKER_STALLED_TICK_MS 1000
#define WORKER_FLUSH_TICK_MS 10
#define WORKER_EXPIRE_MS 1000
#define WORKER_SLIDING_MS 10000			   /* panes of sliding views go even if nothing arrives */
#define WORKER_LAG_MS 1000				   /* how often a paused stream asks how far behind it is */
#define WORKER_LAG_RECORDS 10000		   /* more than that behind the source is catching_up */
#define WORKER_LAG_BYTES (4 * 1024 * 1024) /* the same for journals */

static Worker		 worker_self;
static WaitEventSet *worker_wait_set = NULL; /* latch and connector; NULL: none yet */
static int			 worker_wait_fd = -1;

/* ---------------------------------------------------------------- settings */

/* What a database's or role's settings must not change. Also for probes. */
void
streamext_worker_session(void)
{
	static const char *const settings[][2] = {
		{ "search_path", "pg_catalog, pg_temp" },
		{ "statement_timeout", "0" },
		{ "lock_timeout", "0" },
		{ "idle_in_transaction_session_timeout", "0" },
#if PG_VERSION_NUM >= 170000
		{ "transaction_timeout", "0" },
#endif
		{ "default_transaction_isolation", "read committed" },
		{ "default_transaction_read_only", "off" },
		{ "session_replication_role", "origin" },
		{ "row_security", "on" },
		{ "synchronous_commit", "off" }, /* what is written, dead letters and history, can be made again */
		{ "application_name", "streamext worker" },
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* ---------------------------------------------------------------- start and end */

static void
worker_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	ShutdownRequestPending = true; /* for the loop: a quiet end */
	die(postgres_signal_arg);	   /* for whatever else is running */
	errno = save_errno;
}

/* Another process has crashed, or the server is stopped at once: not by what is at work here. */
static void
worker_sigquit(SIGNAL_ARGS)
{
	streamext_poison_leave();
	SignalHandlerForCrashExit(postgres_signal_arg);
}

void
streamext_worker_signals(void)
{
	pqsignal(SIGQUIT, worker_sigquit);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, worker_sigterm);
	BackgroundWorkerUnblockSignals();
	/* A reload since the fork is lost: PostgreSQL has the signal ignored until there is a handler. */
	ConfigReloadPending = true;
}

void
streamext_worker_contexts(Worker *w)
{
	w->shard.cxt = AllocSetContextCreate(TopMemoryContext, "streamext worker", ALLOCSET_DEFAULT_SIZES);
	w->views_cxt = AllocSetContextCreate(w->shard.cxt, "streamext views", ALLOCSET_DEFAULT_SIZES);
	w->round_cxt = AllocSetContextCreate(w->shard.cxt, "streamext worker round", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(w->shard.cxt);
}

bool
streamext_worker_enter(Worker *w, int index, bool catchup)
{
	ShardIdentity *identity = &w->shard.identity;

	memcpy(identity, MyBgworkerEntry->bgw_extra, sizeof(ShardIdentity));
	if (!streamext_stream_enter(index, identity->dboid, identity->relid, identity->shard, catchup))
		return false;
	w->shard.does = &streamext_worker_shard_ops;
	w->shard.index = index;
	w->shard.slot = &streamext_shared->streams[index];
	w->shard.catchup = catchup;
	return true;
}

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
			streamext_alone_at_exit(w);
			streamext_stream_leave(slot, false, code != 0 && !ShutdownRequestPending);
		}
		LWLockRelease(streamext_shared->registry_lock);
		ConditionVariableBroadcast(&slot->progress);
	}
	streamext_wake_launcher();
}

/* While there are transactions still. */
static void
worker_letters_at_exit(int code, Datum arg)
{
	streamext_letters_at_exit(&worker_self);
}

/* From the catch block: reports, makes shared memory whole, and leaves. */
static void
worker_fail(Worker *w)
{
	ErrorData *error;

	HOLD_INTERRUPTS();
	LWLockReleaseAll();
	MemoryContextSwitchTo(w->shard.cxt);
	error = CopyErrorData();
	EmitErrorReport();
	FlushErrorState();
	AbortOutOfAnyTransaction();
	if (w->shard.slot != NULL)
		streamext_stream_set_state(w->shard.slot, STREAM_FAILED, error->message);
	proc_exit(1);
}

/* ---------------------------------------------------------------- stop, pause, rate */

/* Until resume(). The reason is the stream's error. */
void
streamext_worker_stop(Worker *w, const char *reason)
{
	w->reading.stopped = true;
	pg_atomic_fetch_add_u32(&w->shard.slot->ask.stops, 1);
	streamext_pause_request(w->shard.slot, true);
	streamext_stream_set_state(
		w->shard.slot, w->shard.connector != NULL && w->shard.connector->diverged ? STREAM_DIVERGED : STREAM_FAILED,
		reason);
}

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

/* With the exclusive lock. n records have arrived now. */
void
streamext_worker_count_rate(Worker *w, uint64 n)
{
	int64  second = GetCurrentTimestamp() / USECS_PER_SEC;
	uint64 sum = 0;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	if (second - w->rate.second >= WORKER_RATE_SECONDS || second < w->rate.second)
		memset(w->rate.counts, 0, sizeof(w->rate.counts));
	else
		for (int64 s = w->rate.second + 1; s <= second; s++)
			w->rate.counts[s % WORKER_RATE_SECONDS] = 0;
	w->rate.second = second;
	w->rate.counts[second % WORKER_RATE_SECONDS] += n;
	for (int i = 0; i < WORKER_RATE_SECONDS; i++)
		sum += w->rate.counts[i];
	streamext_stream_set_rate(w->shard.slot, (double) sum / WORKER_RATE_SECONDS);
}

/* ---------------------------------------------------------------- what is due */

static bool
worker_has_sliding_panes(Worker *w)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold != NULL && streamext_fold_view(v->fold)->window.sliding && v->slot->counted.state.npanes > 0)
			return true;
	}
	return false;
}

static bool
worker_is_behind(Worker *w)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
		if (((WorkerView *) lfirst(lc))->behind)
			return true;
	return false;
}

static void
worker_expire(Worker *w, TimestampTz now)
{
	ListCell *lc;
	bool	  due = w->expiry.due || w->reading.full || worker_is_behind(w);

	if (!TimestampDifferenceExceeds(w->expiry.at, now, due ? WORKER_EXPIRE_MS : WORKER_SLIDING_MS) ||
		!(due || worker_has_sliding_panes(w)) || streamext_checkpoint_is_copying(&w->shard))
		return;
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold != NULL && !v->paused)
			streamext_fold_expire(v->fold, v->behind ? v->watermark : w->shard.slot->counted.watermark);
	}
	w->expiry.at = now;
	w->expiry.due = streamext_history_seal(&w->shard);
	if (w->expiry.due)
		w->expiry.at = 0; /* the rest at once */
}

static void
worker_serve_flush(Worker *w)
{
	StreamSlot *slot = w->shard.slot;
	uint64		requested = pg_atomic_read_u64(&slot->ask.flush_requested);

	if (w->flush.ticket == 0)
	{
		if (requested <= pg_atomic_read_u64(&slot->ask.flush_done))
			return;
		/* who asked may have made a view before, or given its owner a right */
		pg_memory_barrier();
		if (streamext_worker_rights_due(w) ||
			pg_atomic_read_u32(&slot->ask.generation) != pg_atomic_read_u32(&slot->ask.generation_seen))
			return;
		w->flush.ticket = requested;
		w->flush.known = false;
	}
	if (!w->shard.attached)
		return;
	if (!w->flush.known)
	{
		w->flush.known = w->shard.ops->flush_target(w->shard.connector, w->flush.ticket, w->flush.targets);
		w->flush.npartitions = w->shard.connector->npartitions;
	}
	if (!w->flush.known || w->flush.npartitions > w->shard.npartitions || w->reading.pending ||
		w->requests.retries != NIL || !streamext_worker_reached(w, w->flush.targets, w->flush.npartitions))
		return;
	if (!streamext_letters_settled(w))
		return;
	/* who flushed may look at the lag and the watermark next */
	streamext_worker_watch_watermark(w, true);
	streamext_worker_publish_ends(w);
	pg_atomic_write_u64(&slot->ask.flush_done, w->flush.ticket);
	w->flush.ticket = 0;
	ConditionVariableBroadcast(&slot->progress);
}

/* A view that has only just caught up gets its fold first. */
static bool
worker_awaits_view(Worker *w)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->fold == NULL && v->slot->owner.catchup != CATCHUP_NONE && !v->paused && !streamext_alone_is(v->slot))
			return true;
	}
	return false;
}

/* Who flushes waits for a checkpoint of all that is counted by now: behind it closed windows are given away. */
static void
worker_serve_settle(Worker *w)
{
	StreamSlot *slot = w->shard.slot;

	if (w->flush.settle_ticket == 0)
	{
		uint64 requested = pg_atomic_read_u64(&slot->ask.settle_requested);

		if (requested <= pg_atomic_read_u64(&slot->ask.settle_done) || worker_awaits_view(w))
			return;
		w->flush.settle_ticket = requested;
		if (OidIsValid(w->shard.config->from.origin) && w->shard.connector != NULL && w->shard.attached)
			streamext_worker_watch_watermark(w, true); /* what the other parts have read by now counts */
		streamext_checkpoint_want(&w->shard);
		streamext_checkpoint_run(&w->shard, GetCurrentTimestamp());
	}
	if (!streamext_checkpoint_is_through(&w->shard))
		return;
	pg_atomic_write_u64(&slot->ask.settle_done, w->flush.settle_ticket);
	w->flush.settle_ticket = 0;
	ConditionVariableBroadcast(&slot->progress);
}

/* Outages are events: that the source is unreachable, and that it is back. */
static void
worker_note_state(Worker *w, StreamState state)
{
	if (state == STREAM_STALLED && !w->source.outage && w->shard.connector->error[0] != '\0')
	{
		streamext_connector_event(w->shard.connector, "stalled", -1, 0, "%s", w->shard.connector->error);
		w->source.outage = true;
	}
	else if (w->source.outage && (state == STREAM_RUNNING || state == STREAM_CATCHING_UP))
	{
		streamext_connector_event(w->shard.connector, "recovered", -1, 0, "the source is reachable");
		w->source.outage = false;
	}
}

/* One line in the server's log for each change that an operator may have to know of; catching up comes and goes. */
static void
worker_log_state(Worker *w, StreamState state, const char *message)
{
	StreamState old = w->shard.slot->status.state;
	bool		well = state == STREAM_RUNNING || state == STREAM_CATCHING_UP;

	if (state == old || (well && (old == STREAM_RUNNING || old == STREAM_CATCHING_UP || old == STREAM_STARTING)))
		return;
	ereport(LOG, (errmsg("stream \"%s.%s\" is %s%s%s", w->shard.config->schema, w->shard.config->name,
						 streamext_stream_state_name(state), message[0] != '\0' ? ": " : "", message)));
}

static void
worker_update_state(Worker *w, bool paused)
{
	Connector  *c = w->shard.connector;
	StreamState state;
	const char *message = NULL;

	if (w->reading.stopped || c == NULL)
		return;
	if (c->errors != w->source.errors)
	{
		w->source.errors = c->errors;
		if (c->error[0] != '\0')
			message = c->error;
	}
	if (paused)
		state = STREAM_PAUSED;
	else if (w->reading.full)
		state = STREAM_FULL;
	else if (c->stalled)
		state = STREAM_STALLED;
	else if (worker_is_behind(w) ||
			 streamext_worker_lag(w) > (w->shard.ops->replayable ? WORKER_LAG_RECORDS : WORKER_LAG_BYTES))
		state = STREAM_CATCHING_UP;
	else
		state = STREAM_RUNNING;
	if (state == STREAM_FULL && w->shard.slot->status.state != STREAM_FULL)
		message = w->reading.full_reason[0] != '\0' ? w->reading.full_reason : "streamext.memory_limit is reached";
	streamext_stream_set_refused(w->shard.slot, c->refused);
	worker_note_state(w, state);
	worker_log_state(w, state, message != NULL ? message : state == STREAM_STALLED ? c->error : "");
	streamext_stream_events_write(&w->shard); /* who sees the state, or has flushed, finds them */
	streamext_stream_set_state(w->shard.slot, state, message);
}

static void
worker_housekeeping(Worker *w, bool paused)
{
	TimestampTz now = GetCurrentTimestamp();

	if (paused || w->reading.full)
		streamext_worker_look_away(w);
	else if (w->shard.attached)
		streamext_worker_watch_watermark(w, false);
	if (w->shard.attached)
		worker_expire(w, now);
	streamext_views_retire(w);
	streamext_views_tidy(w, now);
	streamext_checkpoint_run(&w->shard, now);
	streamext_retries_settle(w);
	streamext_into_windows(&w->shard, now);
	w->sending.config = w->shard.identity.shard == 0 && !w->shard.catchup ? w->shard.config : NULL;
	w->sending.slot = w->shard.slot;
	streamext_delivery_run(&w->sending, now, !paused);
	if (w->shard.slot->status.rate > 0 && now / USECS_PER_SEC > w->rate.second)
	{
		streamext_stream_lock_exclusive(w->shard.slot);
		streamext_worker_count_rate(w, 0);
		LWLockRelease(w->shard.slot->lock);
	}
	worker_update_state(w, paused);
	if (!paused)
	{
		worker_serve_flush(w);
		worker_serve_settle(w);
	}
}

/* ---------------------------------------------------------------- sleep */

/* The connector's descriptor is closed or another one. */
void
streamext_worker_unwatch(void)
{
	if (worker_wait_set != NULL)
		FreeWaitEventSet(worker_wait_set);
	worker_wait_set = NULL;
	worker_wait_fd = -1;
}

static void
worker_watch(int fd)
{
	if (worker_wait_set != NULL && worker_wait_fd == fd)
		return;
	streamext_worker_unwatch();
#if PG_VERSION_NUM >= 170000
	worker_wait_set = CreateWaitEventSet(NULL, 3);
#else
	worker_wait_set = CreateWaitEventSet(TopMemoryContext, 3);
#endif
	AddWaitEventToSet(worker_wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(worker_wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(worker_wait_set, WL_SOCKET_READABLE, fd, NULL, NULL);
	worker_wait_fd = fd;
}

/* When something will be due by itself; DT_NOEND: never. */
static TimestampTz
worker_deadline(Worker *w, TimestampTz now, bool reading)
{
	TimestampTz next = DT_NOEND;

	if (w->reading.full)
		next = Min(next, w->reading.retry_at);
	if (w->setup.refresh_at != 0)
		next = Min(next, w->setup.refresh_at);
	if (w->trouble.backoff_until != 0)
		next = Min(next, w->trouble.backoff_until);
	next = Min(next, streamext_worker_retry_view_at(w));
	if (w->shard.slot->handover.hold_until != 0)
		next = Min(next, Max(w->shard.slot->handover.hold_until, now + 1000));
	if (w->shard.slot->status.rate > 0)
		next = Min(next, now + USECS_PER_SEC);
	if (w->shard.attached && w->expiry.due)
		next = Min(next, TimestampTzPlusMilliseconds(w->expiry.at, WORKER_EXPIRE_MS + 1));
	else if (w->shard.attached && !streamext_clock_is_set() && worker_has_sliding_panes(w))
		next = Min(next, TimestampTzPlusMilliseconds(w->expiry.at, WORKER_SLIDING_MS + 1));
	next = Min(next, streamext_checkpoint_deadline(&w->shard, now));
	next = Min(next, streamext_views_tidy_deadline(w, now));
	next = Min(next, streamext_into_deadline(&w->shard));
	next = Min(next, streamext_letters_deadline(w));
	if (reading || !streamext_pause_requested(w->shard.slot))
		next = Min(next, streamext_delivery_deadline(&w->sending, now));
	if (!reading)
		return w->shard.attached && !w->reading.full ? Min(next, TimestampTzPlusMilliseconds(now, WORKER_LAG_MS))
													 : next;

	if (streamext_retries_due(w))
		return now;
	if (!w->shard.attached)
		return w->requests.seeks == NIL ? now : Min(next, TimestampTzPlusMilliseconds(now, WORKER_TICK_MS));
	if (w->flush.ticket != 0 ||
		pg_atomic_read_u64(&w->shard.slot->ask.settle_requested) > pg_atomic_read_u64(&w->shard.slot->ask.settle_done))
		next = Min(next, TimestampTzPlusMilliseconds(now, WORKER_FLUSH_TICK_MS));
	if (w->shard.connector->wait_fd < 0 && !w->shard.ops->sets_latch)
		next = Min(next, TimestampTzPlusMilliseconds(now, WORKER_TICK_MS));
	if (w->shard.connector->stalled)
		next = Min(next, TimestampTzPlusMilliseconds(now, WORKER_STALLED_TICK_MS));
	return Min(next, streamext_worker_watermark_deadline(w, now));
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

/* Until the latch is set, the descriptor (-1: none) is readable, or the time is over; ms, -1: no limit. */
void
streamext_worker_doze(int fd, long timeout)
{
	WaitEvent event;

	if (fd >= 0)
	{
		worker_watch(fd);
		(void) WaitEventSetWait(worker_wait_set, timeout, &event, 1, PG_WAIT_EXTENSION);
	}
	else
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout > 0 ? WL_TIMEOUT : 0), timeout,
						 PG_WAIT_EXTENSION);
}

/* ---------------------------------------------------------------- the loop */

void
streamext_worker_interrupts(void)
{
	if (ShutdownRequestPending)
	{
		HOLD_INTERRUPTS(); /* die() has asked for the end already */
		if (streamext_letters_settled(&worker_self))
			streamext_checkpoint_finish(&worker_self.shard);
		proc_exit(0);
	}
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
}

/* A worker that has crashed before does not come back at once. */
void
streamext_worker_calm(long ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	TimestampTz now;

	while ((now = GetCurrentTimestamp()) < until)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (until - now + 999) / 1000,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		streamext_worker_interrupts();
	}
}

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
		worker_note_full(w, !streamext_worker_try_retries(w));
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
	worker_note_full(w, !streamext_worker_try_fold(w));
	if (w->reading.full)
		worker_pause_connector(w, true);
	return !w->reading.full && w->trouble.backoff_until == 0;
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
		streamext_worker_interrupts();
		paused = worker_check_pause(w);
		if (w->setup.refresh_at == 0 && streamext_worker_retry_view_at(w) <= GetCurrentTimestamp())
			w->setup.refresh_at = GetCurrentTimestamp();
		if (streamext_worker_rights_due(w))
			streamext_worker_check_rights(w);
		if (w->shard.connector == NULL || (w->setup.refresh_at != 0 && w->setup.refresh_at <= GetCurrentTimestamp()) ||
			pg_atomic_read_u32(&w->shard.slot->ask.generation) !=
				pg_atomic_read_u32(&w->shard.slot->ask.generation_seen))
		{
			/* a locked view is tried again in its time, not in each round */
			if (w->setup.refresh_at == 0 || w->setup.refresh_at <= GetCurrentTimestamp() || w->shard.connector == NULL)
			{
				if (!streamext_letters_settled(w))
				{
					streamext_worker_doze(-1, WORKER_FULL_RETRY_MS);
					continue;
				}
				if (!streamext_worker_refresh(w))
					return;
				if (w->shard.connector == NULL)
					streamext_worker_doze(-1, WORKER_EXPECT_MS);
				continue;
			}
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
		worker_housekeeping(w, paused);
		streamext_stream_events_write(&w->shard);
		if (!more)
			worker_sleep(w, !paused && !w->reading.full && w->trouble.backoff_until == 0 && !worker_is_held(w));
	}
}

void
streamext_worker_main(Datum arg)
{
	Worker *w = &worker_self;

	streamext_worker_signals();
	if (!streamext_worker_enter(w, DatumGetInt32(arg), false))
		proc_exit(0);
	/* on_error 'stop' outlives the worker */
	w->reading.stopped =
		STREAMEXT_STATE_FAILED(w->shard.slot->status.state) && streamext_pause_requested(w->shard.slot);
	before_shmem_exit(worker_at_exit, 0);

	BackgroundWorkerInitializeConnectionByOid(w->shard.identity.dboid, InvalidOid, 0);
	before_shmem_exit(worker_letters_at_exit, 0);
	streamext_budget_register();
	streamext_content_keep();
	streamext_worker_session();
	streamext_fault_start();
	streamext_worker_contexts(w);
	w->flush.targets = palloc(sizeof(int64) * STREAMEXT_MAX_PARTITIONS);
	streamext_worker_calm(streamext_poison_start(w));

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
