/*-------------------------------------------------------------------------
 *
 * worker/trouble.c
 *		Errors that are no row's: a cancel, a deadlock, a lock, memory, disk, the network.
 *
 * Nothing of the batch is published, and it comes again: at once, then after pauses that grow. A view on which it has failed
 * TROUBLE_TRIES times is set aside, so that the stream and its other views go on: it is `failed` with the error, and started again by itself
 * after a pause that doubles (worker/view_end.c), where it stood (it is behind then). A stream whose records cannot even be decoded, or whose
 * letters cannot be written, fails after as many tries; the launcher starts its worker again.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/transaction.h"
#include "durable/letters.h"
#include "worker/poison.h"
#include "worker/worker_private.h"

#define TROUBLE_TRIES 4
#define TROUBLE_PAUSE_MS 50 /* before the third try; doubles */

bool
streamext_worker_error_is_passing(const ErrorData *error)
{
	return streamext_error_blame(error) != BLAME_ROW;
}

/* In no transaction. What the views have prepared is void, and so is what a raise has left of it. */
static void
trouble_abandon(Worker *w)
{
	ListCell *lc;

	streamext_letters_unstage();
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold != NULL)
			streamext_fold_abandon(v->fold);
		v->prepared = false;
	}
}

/* Which view, for it is the one that can be given up. NULL: the stream itself. */
static void
trouble_note(Worker *w, WorkerView *culprit, const ErrorData *error)
{
	StreamSlot *slot = w->shard.slot;

	w->trouble.tries++;
	w->reading.batch->again = streamext_worker_is_last_try(w);
	w->trouble.backoff_until = 0;
	if (w->trouble.tries > 1)
		w->trouble.backoff_until =
			TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TROUBLE_PAUSE_MS << Min(w->trouble.tries - 2, 6));
	if (culprit != NULL)
	{
		streamext_stream_lock_exclusive(slot);
		streamext_view_set_error(culprit->slot, error->message);
		LWLockRelease(slot->lock);
	}
	else if (!w->shard.catchup)
		w->trouble.noted_at = streamext_stream_note_trouble(slot, error->message);
}

static void
trouble_over(Worker *w)
{
	w->trouble.tries = 0;
	streamext_stream_trouble_over(w->shard.slot, &w->trouble.noted_at);
}

/* In the catch block around a batch. True: it comes again; else the error is to be raised. */
static void
trouble_caught(Worker *w)
{
	MemoryContext cxt = w->round_cxt;
	WorkerView	 *culprit = w->trouble.culprit;
	ErrorData	 *error;

	w->trouble.culprit = NULL;
	streamext_poison_leave();
	error = streamext_worker_caught(cxt);
	trouble_abandon(w);
	if (!streamext_worker_error_is_passing(error) || (culprit == NULL && w->trouble.tries + 1 >= TROUBLE_TRIES))
		ReThrowError(error);
	ereport(LOG, (errmsg("a batch of %s comes again: %s", w->shard.config->name, streamext_error_text(error))));
	trouble_note(w, culprit, error);
	if (culprit != NULL && w->trouble.tries >= TROUBLE_TRIES)
	{
		ereport(LOG, (errmsg("continuous view %s is set aside for a while: %s", culprit->label,
							 streamext_error_text(error))));
		streamext_worker_set_aside(w, culprit, error);
		w->trouble.tries = 0;
		w->trouble.backoff_until = 0;
	}
	FreeErrorData(error);
}

bool
streamext_worker_try(Worker *w, bool (*run)(Worker *), void (*undo)(Worker *))
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool result = true;

	w->trouble.culprit = NULL;
	PG_TRY();
	{
		result = run(w);
		streamext_poison_done(w, false);
		trouble_over(w);
	}
	PG_CATCH();
	{
		trouble_caught(w);
		if (undo != NULL)
			undo(w);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return result;
}

bool
streamext_worker_is_last_try(const Worker *w)
{
	return w->trouble.tries == TROUBLE_TRIES - 1;
}

bool
streamext_worker_backs_off(Worker *w)
{
	if (w->trouble.backoff_until == 0)
		return false;
	if (w->trouble.backoff_until > GetCurrentTimestamp())
		return true;
	w->trouble.backoff_until = 0;
	return false;
}

TimestampTz
streamext_worker_retry_view_at(const Worker *w)
{
	TimestampTz next = DT_NOEND;
	ListCell   *lc;

	foreach (lc, w->shard.views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->fold == NULL && v->slot->health.status == VIEW_FAILED && v->slot->health.retry_at != 0)
			next = Min(next, v->slot->health.retry_at);
	}
	return next;
}

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

void
streamext_worker_check_poison(Worker *w)
{
	const char *reason = streamext_poison_stops();

	if (reason != NULL)
		streamext_worker_stop(w, reason);
}
