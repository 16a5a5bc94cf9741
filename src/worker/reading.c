/*
 * worker/reading.c
 *		The batch at hand, from the poll until positions pass it: what the connector has, where it is cut, when it is given up.
 *
 * Records are taken as they come, but a partition that came up with them may have to be read from elsewhere, and what `start` meant for it is on disk
 * before anything of it counts. What is cut off or given up is read again.
 */
#include "base/streamext.h"

#include "base/fault.h"
#include "durable/checkpoint.h"
#include "durable/events.h"
#include "worker/letters_reread.h"
#include "worker/poison.h"
#include "worker/seek.h"
#include "worker/worker_private.h"

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

/* The position of the first record of a partition, else where the connector stands. */
static int64
reading_first_position(Worker *w, int index)
{
	for (int i = 0; i < w->reading.batch->nrecords; i++)
		if (w->reading.batch->records[i].partition_index == index)
			return w->reading.batch->records[i].position;
	return w->shard.connector->partitions[index].position;
}

/* Partitions came up with this poll. False: the batch cannot be used, because one should be read from elsewhere. */
static bool
reading_adopt_partitions(Worker *w)
{
	int	 known = w->shard.npartitions;
	bool usable = streamext_worker_adopt(w);

	for (int i = known; i < w->shard.npartitions && usable; i++)
	{
		int64 target = streamext_worker_target(w, i);

		usable = target < 0 || target == reading_first_position(w, i);
	}
	if (usable)
		return true;
	streamext_connector_release(w->shard.connector);
	w->reading.dropped = w->reading.batch->nrecords > 0;
	w->shard.attached = false;
	return false;
}

static void
reading_fill_positions(Worker *w)
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

/* Where reading began is kept with the first position that becomes known. */
static void
reading_publish_positions(Worker *w)
{
	Batch		  *batch = w->reading.batch;
	PartitionSlot *partitions = w->shard.slot->counted.partitions;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	for (int i = 0; i < batch->npartitions; i++)
	{
		if (partitions[i].start_position < 0 && batch->positions[i] >= 0)
			partitions[i].start_position = reading_first_position(w, i);
		partitions[i].position = Max(partitions[i].position, batch->positions[i]);
		partitions[i].high_watermark = w->shard.connector->partitions[i].high_watermark;
		if (w->shard.connector->partitions[i].last.position > partitions[i].last.position)
			partitions[i].last = w->shard.connector->partitions[i].last;
	}
}

/* After the positions. */
static void
reading_update_views(Worker *w)
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

void
streamext_reading_publish(Worker *w)
{
	reading_publish_positions(w);
	reading_update_views(w);
}

/* Positions may move without records: aborted transactions, control records, a start that became known. */
static void
reading_publish_empty(Worker *w)
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
		streamext_reading_publish(w);
	LWLockRelease(w->shard.slot->lock);
	streamext_checkpoint_note(&w->shard);
}

/*
 * What `start` means for a partition is decided once, by the source's end of that moment. A crash must not have it decided again: nothing of it is
 * counted before that is on disk. False: it is not yet, and nothing is taken.
 */
static bool
reading_settle_start(Worker *w)
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
			partition->start_position = reading_first_position(w, i);
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

void
streamext_reading_take(Worker *w)
{
	int n;

	w->reading.pending = true;
	w->reading.decoded = false;
	n = streamext_poison_take(w);
	if (unlikely(n < w->reading.batch->nrecords))
		streamext_worker_cut(w, n);
}

/* Takes what the connector has; true if there is a batch to fold now. */
bool
streamext_worker_poll(Worker *w)
{
	Batch *batch = w->reading.batch;

	streamext_batch_reset(batch);
	if (unlikely(streamext_fault_point[0] != '\0'))
		streamext_fault_value("poll", w->shard.identity.relid);
	batch->nrecords = streamext_connector_poll(w->shard.connector, batch->records, streamext_poison_most(w));
	if (unlikely(w->shard.connector->nevents > 0))
		streamext_stream_events_count(&w->shard);
	if (w->shard.connector->npartitions > w->shard.npartitions && !reading_adopt_partitions(w))
		return false;
	if (!reading_settle_start(w))
	{
		streamext_connector_release(w->shard.connector);
		w->reading.dropped = batch->nrecords > 0;
		w->shard.attached = false;
		return false;
	}
	reading_fill_positions(w);
	if (unlikely(w->requests.seeks != NIL))
		streamext_seeks_bound(w, batch);
	if (batch->nrecords == 0)
	{
		streamext_connector_release(w->shard.connector);
		reading_publish_empty(w);
		return false;
	}
	streamext_reading_take(w);
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
