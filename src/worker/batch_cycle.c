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
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "durable/checkpoint.h"
#include "shared/clock.h"
#include "durable/letters.h"
#include "worker/alone.h"
#include "worker/letters_hold.h"
#include "worker/letters_reread.h"
#include "base/fault.h"
#include "base/transaction.h"
#include "worker/seek.h"
#include "durable/events.h"
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

/* ---------------------------------------------------------------- poll */

/* The batch is given up; it will be read again. */
void
streamext_worker_drop_batch(Worker *w)
{
	if (!w->reading.pending)
		return;
	streamext_connector_release(w->shard.connector);
	w->reading.pending = w->reading.full = w->reading.cut = false;
	w->reading.dropped = true;
	w->shard.attached = false;
}

/* The position of the first record of a partition, else where the connector stands. */
static int64
batch_first_position(Worker *w, int index)
{
	for (int i = 0; i < w->reading.batch->nrecords; i++)
		if (w->reading.batch->records[i].partition_index == index)
			return w->reading.batch->records[i].position;
	return w->shard.connector->partitions[index].position;
}

/* Partitions came up with this poll. False: the batch cannot be used, because one should be read from elsewhere. */
static bool
batch_adopt_partitions(Worker *w)
{
	int	 known = w->shard.npartitions;
	bool usable = streamext_worker_adopt(w);

	for (int i = known; i < w->shard.npartitions && usable; i++)
	{
		int64 target = streamext_worker_target(w, i);

		usable = target < 0 || target == batch_first_position(w, i);
	}
	if (usable)
		return true;
	streamext_connector_release(w->shard.connector);
	w->reading.dropped = w->reading.batch->nrecords > 0;
	w->shard.attached = false;
	return false;
}

static void
batch_fill_positions(Worker *w)
{
	Batch *batch = w->reading.batch;

	batch->npartitions = w->shard.npartitions;
	for (int i = 0; i < w->shard.npartitions; i++)
		batch->positions[i] = Max(w->shard.connector->partitions[i].position, -1);
	for (int i = 0; i < batch->nrecords; i++)
	{
		StreamRecord *record = &batch->records[i];

		batch->positions[record->partition_index] =
			Max(batch->positions[record->partition_index], record->next_position);
	}
}

/* With the exclusive lock. Where reading began is kept with the first position that becomes known. */
static void
batch_publish_positions(Worker *w)
{
	Batch		  *batch = w->reading.batch;
	PartitionSlot *partitions = w->shard.slot->counted.partitions;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	for (int i = 0; i < batch->npartitions; i++)
	{
		if (partitions[i].start_position < 0 && batch->positions[i] >= 0)
			partitions[i].start_position = batch_first_position(w, i);
		partitions[i].position = Max(partitions[i].position, batch->positions[i]);
		partitions[i].high_watermark = w->shard.connector->partitions[i].high_watermark;
		if (w->shard.connector->partitions[i].last.position > partitions[i].last.position)
			partitions[i].last = w->shard.connector->partitions[i].last;
	}
}

/* With the exclusive lock, after the positions. */
static void
batch_update_views(Worker *w)
{
	ListCell *lc;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold == NULL || v->paused)
			continue;
		streamext_view_advance(v->slot, w->reading.batch->positions, w->reading.batch->npartitions);
		if (v->behind)
			streamext_worker_check_behind(w, v);
		streamext_view_set_status(v->slot, v->behind ? VIEW_CATCHING_UP : VIEW_RUNNING, NULL);
	}
}

/* Positions may move without records: aborted transactions, control records, a start that became known. */
static void
batch_publish_empty(Worker *w)
{
	bool	  moved = false;
	ListCell *lc;

	for (int i = 0; i < w->shard.npartitions && !moved; i++)
		moved = w->reading.batch->positions[i] > w->shard.slot->counted.partitions[i].position ||
				w->shard.connector->partitions[i].high_watermark != w->shard.slot->counted.partitions[i].high_watermark;
	foreach (lc, w->shard.views)
		moved = moved || ((WorkerView *) lfirst(lc))->behind;
	if (!moved)
		return;
	streamext_letters_passed(w);
	streamext_stream_lock_exclusive(w->shard.slot);
	if (!w->shard.slot->handover.done)
	{
		batch_publish_positions(w);
		batch_update_views(w);
	}
	LWLockRelease(w->shard.slot->lock);
	streamext_checkpoint_note(&w->shard);
}

/*
 * What `start` means for a partition is decided once, by the source's end of that moment. A crash must not have it decided again: nothing of it is
 * counted before that is on disk. False: it is not yet, and nothing is taken.
 */
static bool
batch_settle_start(Worker *w)
{
	StreamSlot *slot = w->shard.slot;
	bool		found = false;

	if (!w->shard.ops->replayable || w->shard.config->source.start == START_EARLIEST || w->shard.catchup)
		return true;
	for (int i = 0; i < w->shard.npartitions && !found; i++)
		found = slot->counted.partitions[i].start_position < 0 && w->shard.connector->partitions[i].position >= 0;
	if (found)
	{
		streamext_stream_lock_exclusive(slot);
		for (int i = 0; i < w->shard.npartitions; i++)
		{
			PartitionSlot *partition = &slot->counted.partitions[i];

			if (partition->start_position >= 0 || w->shard.connector->partitions[i].position < 0)
				continue;
			partition->start_position = batch_first_position(w, i);
			partition->position = Max(partition->position, partition->start_position);
		}
		LWLockRelease(slot->lock);
		w->reading.undecided = true;
	}
	if (!w->reading.undecided)
		return true;
	STREAMEXT_FAULT("start-before-checkpoint");
	streamext_checkpoint_note(&w->shard);
	w->reading.undecided = !streamext_checkpoint_now(&w->shard);
	return !w->reading.undecided;
}

/* Takes what the connector has; true if there is a batch to fold now. */
bool
streamext_worker_poll(Worker *w)
{
	Batch *batch = w->reading.batch;

	streamext_batch_reset(batch);
	batch->nrecords = streamext_connector_poll(w->shard.connector, batch->records, streamext_poison_most(w));
	if (unlikely(w->shard.connector->nevents > 0))
		streamext_stream_events_count(&w->shard);
	if (w->shard.connector->npartitions > w->shard.npartitions && !batch_adopt_partitions(w))
		return false;
	if (!batch_settle_start(w))
	{
		streamext_connector_release(w->shard.connector);
		w->reading.dropped = batch->nrecords > 0;
		w->shard.attached = false;
		return false;
	}
	batch_fill_positions(w);
	if (unlikely(w->requests.seeks != NIL))
		streamext_seeks_bound(w, batch);
	if (batch->nrecords == 0)
	{
		streamext_connector_release(w->shard.connector);
		batch_publish_empty(w);
		return false;
	}
	w->reading.pending = true;
	w->reading.decoded = false;
	streamext_poison_cut(w);
	return true;
}

/* Where the source's partitions end, as the connector knows it. */
void
streamext_worker_publish_ends(Worker *w)
{
	streamext_stream_lock_exclusive(w->shard.slot);
	for (int i = 0; i < w->shard.npartitions; i++)
		w->shard.slot->counted.partitions[i].high_watermark = w->shard.connector->partitions[i].high_watermark;
	LWLockRelease(w->shard.slot->lock);
}

/* Asks a paused connector, which delivers nothing, for the source's end. */
void
streamext_worker_watch_lag(Worker *w)
{
	if (!w->shard.attached || w->reading.pending)
		return;
	(void) streamext_connector_poll(w->shard.connector, w->reading.batch->records, STREAMEXT_BATCH_ROWS);
	streamext_connector_release(w->shard.connector);
	streamext_worker_publish_ends(w);
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

typedef struct PrepareStep
{
	WorkerView *v;
	Batch	   *batch;
	FoldResult	result;
} PrepareStep;

/* A StreamextStep. */
static void
batch_prepare_step(void *arg)
{
	PrepareStep *step = arg;

	step->result = streamext_fold_prepare(step->v->fold, step->batch);
}

/*
 * An error that the fold does not lay to a row's charge, and that will not be over by itself, ends the view, not the stream. One that may be
 * is raised, with the view in w->trouble.culprit. False: memory is full.
 */
bool
streamext_worker_prepare_view(Worker *w, WorkerView *v)
{
	PrepareStep step = { v, w->reading.batch, FOLD_OK };
	ErrorData  *error;
	bool		over;

	if (v->behind)
		streamext_worker_view_watermark(w, v);
	w->reading.batch->watermark = v->behind ? v->watermark : w->shard.slot->counted.watermark;
	if (unlikely(streamext_alone_is_over_share(w, v)))
		return v->fold == NULL; /* it has left, or stops here */

	w->trouble.culprit = v;
	streamext_poison_view(w, v);
	streamext_alone_begin(w, v);
	error = streamext_try(batch_prepare_step, &step);
	over = streamext_alone_end(w);
	if (error != NULL && !over && streamext_worker_error_is_passing(error))
		ReThrowError(error);
	w->trouble.culprit = NULL;
	if (error != NULL && over)
	{
		streamext_alone_overrun(w, v);
		return true;
	}
	if (error != NULL)
	{
		ereport(LOG, (errmsg("continuous view %s has failed: %s", v->label, streamext_error_text(error))));
		streamext_worker_fail_view(w, v, error->message);
		return true;
	}
	v->prepared = step.result == FOLD_OK;
	v->too_many_groups = step.result == FOLD_TOO_MANY_GROUPS;
	return v->prepared;
}

void
streamext_worker_abandon_views(Worker *w)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->prepared)
			streamext_fold_abandon(v->fold);
		v->prepared = false;
	}
}

/* Which view it is, and which limit: who reads it has one or the other to change. */
void
streamext_worker_note_full(Worker *w, const WorkerView *full)
{
	const char *name = get_rel_name(full->viewoid);

	if (full->over_share)
		streamext_clip_format(
			w->reading.full_reason, sizeof(w->reading.full_reason),
			"the views of the owner of continuous view \"%s\" have reached streamext.owner_memory_share, %d %% of "
			"streamext.memory_limit",
			name != NULL ? name : "?", streamext_owner_memory_share);
	else if (full->too_many_groups)
		streamext_clip_format(w->reading.full_reason, sizeof(w->reading.full_reason),
							  "continuous view \"%s\" has more groups than its streamext.max_groups, " INT64_FORMAT,
							  name != NULL ? name : "?", (int64) streamext_fold_view(full->fold)->options.max_groups);
	else
		streamext_clip_format(w->reading.full_reason, sizeof(w->reading.full_reason),
							  "streamext.memory_limit is reached, by continuous view \"%s\" or another one",
							  name != NULL ? name : "?");
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
 * What is cut off is read again, so a partition stands at its first record that was. Not at the stream's position: a view that reads again what
 * the stream has counted would be taken there.
 */
void
streamext_worker_cut(Worker *w, int n)
{
	Batch *batch = w->reading.batch;

	for (int i = batch->nrecords - 1; i >= n; i--)
		batch->positions[batch->records[i].partition_index] = batch->records[i].position;
	batch->nrecords = n;
	w->reading.decoded = false;
	w->reading.cut = true;
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

/* What the prepared views are about to change is copied first, if a checkpoint is. */
void
streamext_worker_keep_groups(Worker *w)
{
	ListCell *lc;

	if (!streamext_checkpoint_is_copying(&w->shard))
		return;
	foreach (lc, w->shard.views)
	{
		const WorkerView  *v = lfirst(lc);
		GroupEntry *const *groups;
		Pane *const		  *panes;
		int				   n;

		if (!v->prepared)
			continue;
		n = streamext_fold_groups(v->fold, &groups, &panes);
		streamext_checkpoint_keep(&w->shard, v, groups, panes, n);
	}
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
	batch_publish_positions(w);
	batch_update_views(w);
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
bool
streamext_worker_fold(Worker *w)
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
