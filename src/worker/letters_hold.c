/*-------------------------------------------------------------------------
 *
 * worker/letters_hold.c
 *		Which letters are held for a while, and when they are written.
 *
 * A letter costs many times what its record does, and of a source that sends rubbish at full speed the table keeps the newest only. So while large
 * batches follow each other, letters are held in this process (durable/letters.h), the newest streamext.dead_letter_limit of them, and written
 *	- before a checkpoint's cut: what a committed checkpoint has passed has its letters, so that a crash loses none (durable/checkpoint_write.c);
 *	- before a flush is answered, and when there is nothing to read just now: whoever looks then finds them;
 *	- before whatever asks for letters or changes them: a refresh, a seek, a retry, a view that is to read again;
 *	- after a second at most, more only if the writing takes more than a tenth of the time;
 *	- at the end of the process, for its positions stay in shared memory.
 *
 * Letters that views may have to be taken out of (worker/letters_reread.c) are never held: not while a view is behind or in the hands of the
 * catch-up worker, which looks for them in the table.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/transaction.h"
#include "durable/letters.h"
#include "worker/letters_hold.h"
#include "worker/retry.h"
#include "worker/seek.h"

#define LETTERS_BATCH 256	 /* records; a smaller batch's are written with it */
#define LETTERS_PAUSE_MS 500 /* after a failure */

/* Whether nobody but this process, between two batches, could ask for letters of records that are being read. */
static bool
letters_are_private(const Worker *w)
{
	ListCell *lc;

	if (w->shard.catchup || !w->letters.behind || w->shard.slot->handover.done)
		return false;
	foreach (lc, w->shard.views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->behind || v->slot->owner.catchup != CATCHUP_NONE)
			return false;
	}
	return true;
}

bool
streamext_letters_may_wait(const Worker *w)
{
	if (w->shard.config->on_error == ON_ERROR_STOP || w->shard.catchup)
		return false;
	/* in their order */
	if (streamext_letters_are_held())
		return true;
	return w->reading.batch->nrecords >= LETTERS_BATCH && letters_are_private(w);
}

/* In the catch block. */
static void
letters_failed(Worker *w, MemoryContext cxt)
{
	ErrorData *error = streamext_worker_caught(cxt);
	char	   message[STREAMEXT_MAX_MESSAGE];

	ereport(LOG, (errcode(error->sqlerrcode),
				  errmsg("dead letters of stream \"%s.%s\" could not be written: %s", w->shard.config->schema,
						 w->shard.config->name, streamext_error_text(error))));
	streamext_clip_format(message, sizeof(message), "dead letters could not be written: %s", error->message);
	w->letters.trouble_at = streamext_stream_note_trouble(w->shard.slot, message);
	FreeErrorData(error);
	w->letters.retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LETTERS_PAUSE_MS);
}

bool
streamext_letters_settled(Worker *w)
{
	MemoryContext cxt = CurrentMemoryContext;

	if (!streamext_letters_are_held())
		return true;
	if (w->letters.retry_at > GetCurrentTimestamp())
		return false;
	w->letters.retry_at = 0;
	PG_TRY();
	{
		streamext_letters_settle(w->shard.identity.relid);
		streamext_stream_trouble_over(w->shard.slot, &w->letters.trouble_at);
	}
	PG_CATCH();
	{
		letters_failed(w, cxt);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return w->letters.retry_at == 0;
}

bool
streamext_letters_are_asked_for(const Worker *w)
{
	return !letters_are_private(w) || streamext_seeks_due(w) || streamext_retries_due(w);
}

void
streamext_letters_round(Worker *w, bool idle)
{
	if (streamext_letters_are_held() && (idle || !letters_are_private(w) || streamext_letters_are_due()))
		(void) streamext_letters_settled(w);
}

TimestampTz
streamext_letters_deadline(const Worker *w)
{
	return w->letters.retry_at != 0 && streamext_letters_are_held() ? w->letters.retry_at : DT_NOEND;
}

void
streamext_letters_at_exit(Worker *w)
{
	if (!streamext_letters_are_held())
		return;
	LWLockReleaseAll();
	AbortOutOfAnyTransaction();
	streamext_letters_settle(w->shard.identity.relid);
}
