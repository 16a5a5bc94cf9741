/*
 * worker/chores.c
 *		What a stream's worker does between two batches when it is due.
 *
 * A table: each chore says what it does now, and when it will be due by itself, which is how long the worker may sleep. The order counts: panes
 * go before a checkpoint is cut, and the state is told before whoever has flushed is.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "durable/checkpoint.h"
#include "durable/events.h"
#include "durable/history.h"
#include "shared/clock.h"
#include "sink/windows.h"
#include "worker/alone.h"
#include "worker/letters_hold.h"
#include "worker/retire.h"
#include "worker/retry.h"
#include "worker/worker_private.h"

#define WORKER_FLUSH_TICK_MS 10
#define WORKER_EXPIRE_MS 1000
#define WORKER_SLIDING_MS 10000			   /* panes of sliding views go even if nothing arrives */
#define WORKER_LAG_RECORDS 10000		   /* more than that behind the source is catching_up */
#define WORKER_LAG_BYTES (4 * 1024 * 1024) /* the same for journals */

/* ---- watermark, panes ---- */

static void
chore_watermark(Worker *w, TimestampTz now, bool paused)
{
	if (paused || w->reading.full)
		streamext_worker_look_away(w);
	else if (w->shard.attached)
		streamext_worker_watch_watermark(w, false);
}

static TimestampTz
chore_watermark_deadline(Worker *w, TimestampTz now, bool reading)
{
	return reading && w->shard.attached ? streamext_worker_watermark_deadline(w, now) : DT_NOEND;
}

static bool
chore_has_sliding_panes(Worker *w)
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
chore_is_behind(Worker *w)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
		if (((WorkerView *) lfirst(lc))->behind)
			return true;
	return false;
}

static void
chore_expire(Worker *w, TimestampTz now, bool paused)
{
	ListCell *lc;
	bool	  due = w->expiry.due || w->reading.full || chore_is_behind(w) || now >= streamext_history_retry_at();

	if (!w->shard.attached ||
		!TimestampDifferenceExceeds(w->expiry.at, now, due ? WORKER_EXPIRE_MS : WORKER_SLIDING_MS) ||
		!(due || chore_has_sliding_panes(w)) || streamext_checkpoint_is_copying(&w->shard))
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

static TimestampTz
chore_expire_deadline(Worker *w, TimestampTz now, bool reading)
{
	TimestampTz retry_at = streamext_history_retry_at();

	if (w->shard.attached && (w->expiry.due || retry_at != DT_NOEND))
		return Max(TimestampTzPlusMilliseconds(w->expiry.at, WORKER_EXPIRE_MS + 1), w->expiry.due ? 0 : retry_at);
	if (w->shard.attached && !streamext_clock_is_set() && chore_has_sliding_panes(w))
		return TimestampTzPlusMilliseconds(w->expiry.at, WORKER_SLIDING_MS + 1);
	return DT_NOEND;
}

/* ---- views that go, checkpoints, letters tried again, sinks ---- */

static void
chore_retire(Worker *w, TimestampTz now, bool paused)
{
	streamext_views_retire(w);
	streamext_views_tidy(w, now);
}

static TimestampTz
chore_retire_deadline(Worker *w, TimestampTz now, bool reading)
{
	return streamext_views_tidy_deadline(w, now);
}

static void
chore_checkpoint(Worker *w, TimestampTz now, bool paused)
{
	streamext_checkpoint_run(&w->shard, now);
}

static TimestampTz
chore_checkpoint_deadline(Worker *w, TimestampTz now, bool reading)
{
	return streamext_checkpoint_deadline(&w->shard, now);
}

static void
chore_retries(Worker *w, TimestampTz now, bool paused)
{
	streamext_retries_settle(w);
}

static TimestampTz
chore_retries_deadline(Worker *w, TimestampTz now, bool reading)
{
	return reading && streamext_retries_due(w) ? now : DT_NOEND;
}

static void
chore_into(Worker *w, TimestampTz now, bool paused)
{
	streamext_into_windows(&w->shard, now);
}

static TimestampTz
chore_into_deadline(Worker *w, TimestampTz now, bool reading)
{
	return streamext_into_deadline(&w->shard);
}

/* What keeps a stream from being read (a topic that was made anew, on_error 'stop') is none of what goes out. */
static void
chore_delivery(Worker *w, TimestampTz now, bool paused)
{
	w->sending.config = w->shard.identity.shard == 0 && !w->shard.catchup ? w->shard.config : NULL;
	w->sending.slot = w->shard.slot;
	streamext_delivery_run(&w->sending, now, !paused || w->reading.stopped);
}

static TimestampTz
chore_delivery_deadline(Worker *w, TimestampTz now, bool reading)
{
	return reading || w->reading.stopped || !streamext_pause_requested(w->shard.slot)
			   ? streamext_delivery_deadline(&w->sending, now)
			   : DT_NOEND;
}

/* ---- rate and state ---- */

static void
chore_rate(Worker *w, TimestampTz now, bool paused)
{
	streamext_worker_rest_rate(w, now);
}

static TimestampTz
chore_rate_deadline(Worker *w, TimestampTz now, bool reading)
{
	return w->shard.slot->status.rate > 0 ? now + USECS_PER_SEC : DT_NOEND;
}

/* Outages are events: that the source is unreachable, and that it is back. */
static void
chore_note_state(Worker *w, StreamState state)
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
chore_log_state(Worker *w, StreamState state, const char *message)
{
	StreamState old = w->shard.slot->status.state;
	bool		well = state == STREAM_RUNNING || state == STREAM_CATCHING_UP;

	if (state == old || (well && (old == STREAM_RUNNING || old == STREAM_CATCHING_UP || old == STREAM_STARTING)))
		return;
	ereport(LOG, (errmsg("stream \"%s.%s\" is %s%s%s", w->shard.config->schema, w->shard.config->name,
						 streamext_stream_state_name(state), message[0] != '\0' ? ": " : "", message)));
}

static void
chore_state(Worker *w, TimestampTz now, bool paused)
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
	else if (chore_is_behind(w) ||
			 streamext_worker_lag(w) > (w->shard.ops->replayable ? WORKER_LAG_RECORDS : WORKER_LAG_BYTES))
		state = STREAM_CATCHING_UP;
	else
		state = STREAM_RUNNING;
	if (state == STREAM_FULL && w->shard.slot->status.state != STREAM_FULL)
		message = w->reading.full_reason[0] != '\0' ? w->reading.full_reason : "streamext.memory_limit is reached";
	streamext_stream_set_refused(w->shard.slot, c->refused);
	chore_note_state(w, state);
	chore_log_state(w, state, message != NULL ? message : state == STREAM_STALLED ? c->error : "");
	streamext_stream_events_write(&w->shard); /* who sees the state, or has flushed, finds them */
	streamext_stream_set_state(w->shard.slot, state, message);
}

/* ---- who waits ---- */

static void
chore_flush(Worker *w, TimestampTz now, bool paused)
{
	StreamSlot *slot = w->shard.slot;
	uint64		requested = pg_atomic_read_u64(&slot->ask.flush_requested);

	if (paused)
		return;
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
chore_awaits_view(Worker *w)
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
chore_settle(Worker *w, TimestampTz now, bool paused)
{
	StreamSlot *slot = w->shard.slot;

	if (paused)
		return;
	if (w->flush.settle_ticket == 0)
	{
		uint64 requested = pg_atomic_read_u64(&slot->ask.settle_requested);

		if (requested <= pg_atomic_read_u64(&slot->ask.settle_done) || chore_awaits_view(w))
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

static TimestampTz
chore_tick_deadline(Worker *w, TimestampTz now, bool reading)
{
	StreamRequests *ask = &w->shard.slot->ask;
	bool			waits =
		w->flush.ticket != 0 || pg_atomic_read_u64(&ask->settle_requested) > pg_atomic_read_u64(&ask->settle_done);

	return reading && w->shard.attached && waits ? TimestampTzPlusMilliseconds(now, WORKER_FLUSH_TICK_MS) : DT_NOEND;
}

/* ---- the table ---- */

static const WorkerChore worker_chores[] = {
	{ chore_watermark, chore_watermark_deadline },
	{ chore_expire, chore_expire_deadline },
	{ chore_retire, chore_retire_deadline },
	{ chore_checkpoint, chore_checkpoint_deadline },
	{ chore_retries, chore_retries_deadline },
	{ chore_into, chore_into_deadline },
	{ chore_delivery, chore_delivery_deadline },
	{ chore_rate, chore_rate_deadline },
	{ chore_state, NULL },
	{ chore_flush, NULL },
	{ chore_settle, chore_tick_deadline },
};

void
streamext_chores_run(Worker *w, bool paused)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < lengthof(worker_chores); i++)
		worker_chores[i].run(w, now, paused);
}

TimestampTz
streamext_chores_deadline(Worker *w, TimestampTz now, bool reading)
{
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < lengthof(worker_chores); i++)
		if (worker_chores[i].deadline != NULL)
			next = Min(next, worker_chores[i].deadline(w, now, reading));
	return next;
}
