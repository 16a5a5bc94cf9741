/*-------------------------------------------------------------------------
 *
 * worker/batch_cycle.c
 *		One batch: poll, decode, fold into each view, dead letters, publish, buffer.
 *
 * All in one transaction. What may fail comes first and changes nothing that others see: decoding, the views' prepare,
 * dead letters. Then, under the stream's exclusive lock, everything at once: views, positions, counters, watermark. An
 * error before that leaves the positions where they were, and the next worker reads the batch again.
 *
 * A batch that does not fit into memory stays at hand, decoded, and is offered again.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "durable/checkpoint.h"
#include "shared/clock.h"
#include "durable/letters.h"
#include "worker/letters_hold.h"
#include "worker/letters_reread.h"
#include "base/fault.h"
#include "worker/poison.h"
#include "worker/worker_private.h"

/* Records of the batch at hand: not read before by the stream; of these, not rejected for the whole stream. */
static bool batch_new[STREAMEXT_BATCH_ROWS];
static bool batch_accepted[STREAMEXT_BATCH_ROWS];

/* ---------------------------------------------------------------- times */

static int64
batch_elapsed(instr_time since)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, since);
	return INSTR_TIME_GET_MICROSEC(now);
}

/* The batch is committed. The catch-up worker's are not the stream's. */
static void
batch_count_times(Worker *w)
{
	StreamSlot *slot = w->shard.slot;
	TimestampTz newest = DT_NOBEGIN;

	if (w->shard.catchup)
		return;
	streamext_times_count(&slot->times, TIME_BATCH, batch_elapsed(w->times.began));
	streamext_times_count(&slot->times, TIME_DECODE, w->times.decode);
	streamext_times_count(&slot->times, TIME_FOLD, w->times.fold);
	for (int i = 0; i < w->shard.npartitions; i++)
		newest = Max(newest, slot->counted.partitions[i].max_event_time);
	if (!TIMESTAMP_NOT_FINITE(newest))
		streamext_times_count(&slot->times, TIME_EVENT_LAG, streamext_clock_now() - newest);
}

/* ---------------------------------------------------------------- decode and prepare */

static void
batch_decode(Worker *w, TimestampTz now)
{
	Batch		 *batch = w->reading.batch;
	IdentityScope scope = streamext_decoder_enter(w->setup.decoder);
	instr_time	  begin;
	ListCell	 *lc;

	INSTR_TIME_SET_CURRENT(begin);
	batch->rejected = batch->late = NIL; /* of a try that has failed */
	streamext_decoder_run(w->setup.decoder, batch, now);
	streamext_identity_leave(scope);

	for (int i = 0; i < batch->nrecords; i++)
	{
		batch_new[i] = batch_accepted[i] =
			!w->shard.catchup &&
			batch->records[i].position >= w->shard.slot->counted.partitions[batch->records[i].partition_index].position;
		if (unlikely(batch->records[i].payload == NULL || w->shard.config->header) &&
			streamext_decoder_ignores(w->shard.config, &batch->records[i]))
			batch_accepted[i] = false;
	}
	foreach (lc, batch->rejected)
		batch_accepted[((RejectedRecord *) lfirst(lc))->record] = false;
	w->times.decode = batch_elapsed(begin);
	w->reading.decoded = true;
}

/* False: memory is full, and nothing is prepared. */
static bool
batch_prepare_views(Worker *w)
{
	WorkerView *full = NULL;
	instr_time	begin;
	ListCell   *lc;

	INSTR_TIME_SET_CURRENT(begin);
	w->reading.full_reason[0] = '\0';
	foreach (lc, w->shard.views)
		((WorkerView *) lfirst(lc))->prepared = false;
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold != NULL && !v->paused && !streamext_worker_prepare_view(w, v))
		{
			full = v;
			break;
		}
	}
	w->times.fold = batch_elapsed(begin);
	if (full == NULL)
		return true;
	streamext_worker_note_full(w, full);
	streamext_worker_abandon_views(w);
	/* better no former content than no progress */
	streamext_view_retire(full->slot);
	if (full->slot->health.status != VIEW_FULL)
	{
		streamext_stream_lock_exclusive(w->shard.slot);
		streamext_view_set_status(full->slot, VIEW_FULL, w->reading.full_reason);
		LWLockRelease(w->shard.slot->lock);
	}
	return false;
}

/* ---------------------------------------------------------------- dead letters and on_error */

/*
 * A record that the stream took when it was read first, and rejects for the views that read it again: each of these gets a letter of its
 * own, for the others have counted it.
 */
static List *
batch_reject_for_views(Worker *w, const RejectedRecord *rejected, List *more)
{
	const StreamRecord *record = &w->reading.batch->records[rejected->record];
	ListCell		   *lc;

	foreach (lc, w->shard.views)
	{
		const WorkerView *v = lfirst(lc);
		RejectedRecord	 *own;

		if (!v->prepared || (record->partition_index < v->slot->counted.npositions &&
							 v->slot->counted.positions[record->partition_index] > record->position))
			continue;
		own = MemoryContextAlloc(w->reading.batch->cxt, sizeof(RejectedRecord));
		*own = *rejected;
		own->view = v->viewoid;
		own->known = own->unlettered = false;
		more = lappend(more, own);
	}
	return more;
}

/* What was rejected for the whole stream when it was read first is not written again when a view reads it again. */
static void
batch_write_dead_letters(Worker *w)
{
	Batch		 *batch = w->reading.batch;
	MemoryContext old = MemoryContextSwitchTo(batch->cxt);
	List		 *more = NIL;
	ListCell	 *lc;

	foreach (lc, batch->rejected)
	{
		RejectedRecord *rejected = lfirst(lc);

		if (rejected->view != InvalidOid)
			continue;
		rejected->known = !batch_new[rejected->record];
		if (!rejected->known)
			rejected->done = streamext_letters_ahead(w, &batch->records[rejected->record]);
		else if (rejected->unlettered)
			more = batch_reject_for_views(w, rejected, more);
	}
	batch->rejected = list_concat(batch->rejected, more);
	MemoryContextSwitchTo(old);
	if (batch->rejected == NIL && batch->late == NIL)
		return;
	if (streamext_letters_may_wait(w))
	{
		streamext_letters_stage(batch, w->setup.decoder);
		return;
	}
	streamext_dead_letters_write(batch, w->setup.decoder);
	streamext_late_rows_write(batch, w->setup.decoder);
}

/* The first record of the batch that is rejected and not only known to be; -1: none. */
static int
batch_first_rejected(const Worker *w)
{
	int		  first = -1;
	ListCell *lc;

	foreach (lc, w->reading.batch->rejected)
	{
		const RejectedRecord *rejected = lfirst(lc);

		if ((rejected->view != InvalidOid || batch_new[rejected->record]) && (first < 0 || rejected->record < first))
			first = rejected->record;
	}
	return first;
}

/*
 * on_error 'stop': nothing behind the first rejected record counts before resume(). True: the batch was cut behind it, and is to be decoded and
 * prepared once more; the rest is read again.
 */
static bool
batch_cut(Worker *w)
{
	int first = w->shard.config->on_error == ON_ERROR_STOP ? batch_first_rejected(w) : -1;

	if (first < 0 || first == w->reading.batch->nrecords - 1)
		return false;
	streamext_worker_cut(w, first + 1);
	return true;
}

/* on_error 'stop': the batch ends with the record, and nothing after it is read until resume(). */
static void
batch_check_stop(Worker *w)
{
	Batch		   *batch = w->reading.batch;
	char			message[STREAMEXT_MAX_MESSAGE];
	RejectedRecord *rejected = NULL;
	StreamRecord   *record;
	ListCell	   *lc;

	if (w->shard.config->on_error != ON_ERROR_STOP)
		return;
	foreach (lc, batch->rejected)
	{
		rejected = lfirst(lc);
		if (!rejected->known)
			break;
	}
	if (lc == NULL)
		return;
	record = &batch->records[rejected->record];
	/* a view's reason is not for all who may read the stream */
	streamext_clip_format(message, sizeof(message),
						  "stopped at a rejected record (partition %d, position " INT64_FORMAT "): %s",
						  record->partition, record->position,
						  OidIsValid(rejected->view) ? psprintf("a continuous view has raised SQLSTATE %s",
																unpack_sql_state(rejected->sqlstate))
													 : rejected->reason);
	streamext_worker_stop(w, message);
}

/* ---------------------------------------------------------------- publish */

/* With the exclusive lock, before positions move. */
static uint64
batch_publish_counters(Worker *w)
{
	Batch	   *batch = w->reading.batch;
	StreamSlot *slot = w->shard.slot;
	uint64		n = 0;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	for (int i = 0; i < batch->nrecords; i++)
	{
		if (!batch_new[i])
			continue;
		n++;
		slot->counted.bytes_in += batch->records[i].payload_size;
		slot->counted.partitions[batch->records[i].partition_index].rows++;
		if (unlikely(!batch_accepted[i]))
		{
			if (streamext_decoder_ignores(w->shard.config, &batch->records[i]))
				slot->counted.tombstones++;
			else
				slot->counted.rejected++;
		}
	}
	slot->counted.rows_in += n;
	slot->counted.batches++;
	/* what is read again is not counted again, and of a batch that begins with such the rest neither */
	for (int i = 0; n == batch->nrecords && i < slot->ncolumns; i++)
		streamext_decoder_count(w->setup.decoder, i, &slot->columns[i]);
	streamext_worker_count_rate(w, n);
	return n;
}

/* Records of the batch that are new to a view which is behind, for its progress. Before its positions move. */
void
streamext_worker_count_view(Worker *w, WorkerView *v)
{
	uint64 n = 0;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	for (int i = 0; i < w->reading.batch->nrecords; i++)
		n += w->reading.batch->records[i].position >=
			 streamext_worker_view_position(w, v, w->reading.batch->records[i].partition_index);
	streamext_view_count_behind(v->slot, n);
}

/* False: a view that has caught up is to be taken over first. */
bool
streamext_batch_publish(Worker *w, TimestampTz now)
{
	StreamSlot *slot = w->shard.slot;
	instr_time	begin;
	ListCell   *lc;

	INSTR_TIME_SET_CURRENT(begin);
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->prepared && v->behind)
			streamext_worker_view_events(w, v);
	}

	streamext_stream_lock_exclusive(slot);
	if (slot->handover.done)
	{
		LWLockRelease(slot->lock);
		return false;
	}
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (!v->prepared)
			continue;
		if (v->behind)
			streamext_worker_count_view(w, v);
		w->reading.batch->watermark = v->behind ? v->watermark : slot->counted.watermark;
		streamext_poison_view(w, v);
		streamext_fold_publish(v->fold, w->reading.batch);
		v->prepared = false;
		streamext_view_succeeded(v->slot);
	}
	streamext_worker_stream_events(w, now);
	batch_publish_counters(w);
	streamext_reading_publish(w);
	streamext_worker_advance_watermark(w);
	LWLockRelease(slot->lock);
	w->times.fold += batch_elapsed(begin);
	streamext_checkpoint_note(&w->shard);
	if (w->shard.followers != NIL)
		streamext_stream_wake_followers(slot);
	return true;
}

static void
batch_begin_transaction(Worker *w)
{
	StartTransactionCommand();
	streamext_identity_rest(w->shard.config->owner);
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
batch_commit_transaction(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	streamext_identity_rise();
}

/*
 * Not published: the batch stays at hand, but for a catch-up worker, which may have to read from elsewhere. Views may have written into
 * tables, and will again.
 */
static void
batch_put_off(Worker *w)
{
	streamext_letters_unstage();
	streamext_worker_abandon_views(w);
	AbortCurrentTransaction();
	w->reading.full = false;
	if (w->shard.catchup)
		streamext_worker_drop_batch(w);
}

/* It is counted; the records are done with. */
static void
batch_finish(Worker *w)
{
	if (!w->shard.catchup && w->shard.slot->buffer != NULL)
		streamext_buffer_append(w->shard.slot->buffer, w->shard.slot->buffer_lock, w->reading.batch->records,
								batch_accepted, w->reading.batch->nrecords);
	batch_check_stop(w);
	streamext_connector_release(w->shard.connector);
	w->reading.pending = w->reading.full = false;
	if (w->reading.cut)
	{
		w->reading.cut = w->shard.attached = false;
		w->reading.dropped = true;
	}
}

/* The batch at hand, once. False: memory is full, it stays at hand; so it does when the views have changed meanwhile. */
static bool
batch_fold(Worker *w)
{
	TimestampTz now = streamext_clock_now();
	bool		letters;
	bool		published;

	INSTR_TIME_SET_CURRENT(w->times.began);
	streamext_poison_batch(w);
	batch_begin_transaction(w);
	if (!w->reading.decoded)
		batch_decode(w, now);
	if (streamext_letters_reread(w))
	{
		/* before anything is published: should this process end in between, the records are read once more */
		batch_commit_transaction();
		batch_begin_transaction(w);
	}
	if (!batch_prepare_views(w))
	{
		/* views may have written into tables, and will again */
		PopActiveSnapshot();
		AbortCurrentTransaction();
		return false;
	}
	if (batch_cut(w))
	{
		PopActiveSnapshot();
		streamext_worker_abandon_views(w);
		AbortCurrentTransaction();
		return true;
	}
	streamext_poison_rest(w);
	batch_write_dead_letters(w);
	letters = w->reading.batch->rejected != NIL || w->reading.batch->late != NIL;
	streamext_worker_keep_groups(w);
	published = w->role->publish(w, now);
	PopActiveSnapshot();
	if (!published)
	{
		batch_put_off(w);
		return true;
	}
	streamext_letters_hold();
	streamext_poison_done(w, true);
	STREAMEXT_FAULT("batch-before-commit");
	CommitTransactionCommand();
	streamext_identity_rise();
	STREAMEXT_FAULT("batch-after-commit");
	batch_count_times(w);
	pgstat_report_stat(letters);
	batch_finish(w);
	return true;
}

bool
streamext_worker_fold(Worker *w)
{
	return streamext_worker_try(w, batch_fold, NULL);
}
