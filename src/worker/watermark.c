/*-------------------------------------------------------------------------
 *
 * worker/watermark.c
 *		Event time's progress: of the stream, and of views that read again what the stream has read before.
 *
 * The stream's watermark is the least of its partitions' greatest event times, less watermark_delay; it never goes back. A
 * partition is idle when nothing has arrived for idle_timeout and nothing is known to wait in the source; idle ones do not hold
 * it back, but if all are idle it stays.
 *
 * A view that is behind would find everything late by that watermark. It gets one of its own until it has caught up: over its
 * own progress in the partitions in which it is behind, and the stream's in the others. After a restart of the worker this begins anew, which makes fewer rows late.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "durable/checkpoint.h"
#include "shared/clock.h"
#include "worker/worker_private.h"

static TimestampTz
watermark_after(TimestampTz event_time, int64 delay)
{
	return event_time == DT_NOBEGIN ? DT_NOBEGIN : event_time - delay;
}

/* ---------------------------------------------------------------- the stream's */

/* Takes the accepted rows of the batch that the stream has not read before. With the exclusive lock, before positions move. */
void
streamext_worker_stream_events(Worker *w, TimestampTz now)
{
	Batch		  *batch = w->batch;
	PartitionSlot *partitions = w->slot->partitions;

	Assert(LWLockHeldByMeInMode(w->slot->lock, LW_EXCLUSIVE));
	for (int i = 0; i < batch->nrecords; i++)
	{
		StreamRecord *record = &batch->records[i];

		if (record->position >= partitions[record->partition_index].position)
			partitions[record->partition_index].last_arrival = now;
	}
	for (int row = 0; row < batch->nrows; row++)
	{
		StreamRecord  *record = &batch->records[batch->record[row]];
		PartitionSlot *partition = &partitions[record->partition_index];

		if (record->position >= partition->position && batch->event_time[row] > partition->max_event_time)
			partition->max_event_time = batch->event_time[row];
	}
}

static bool
watermark_is_idle(Worker *w, const PartitionSlot *partition, TimestampTz now)
{
	if (partition->high_watermark >= 0 && partition->position < partition->high_watermark)
		return false;
	return now - partition->last_arrival >= w->config->idle_timeout;
}

/* Takes the exclusive lock if there is something to change. */
void
streamext_worker_advance_watermark(Worker *w, TimestampTz now)
{
	StreamSlot *slot = w->slot;
	TimestampTz least = DT_NOEND;

	for (int i = 0; i < w->npartitions; i++)
		if (!watermark_is_idle(w, &slot->partitions[i], now))
			least = Min(least, slot->partitions[i].max_event_time);
	if (least == DT_NOEND)
		return;
	least = watermark_after(least, w->config->watermark_delay);
	if (least <= slot->watermark)
		return;
	if (LWLockHeldByMe(slot->lock))
		slot->watermark = least;
	else
	{
		streamext_stream_lock_exclusive(slot);
		slot->watermark = least;
		LWLockRelease(slot->lock);
	}
	w->expire_due = true;
	streamext_checkpoint_note(w);
}

/* When a partition that holds the watermark back will be idle; DT_NOEND: none does, or a set clock decides. */
TimestampTz
streamext_worker_idle_deadline(Worker *w, TimestampTz now)
{
	TimestampTz deadline = DT_NOEND;
	int			active = 0;

	if (streamext_clock_is_set())
		return DT_NOEND;
	for (int i = 0; i < w->npartitions; i++)
	{
		PartitionSlot *partition = &w->slot->partitions[i];

		if (watermark_is_idle(w, partition, now))
			continue;
		active++;
		if (partition->high_watermark < 0 || partition->position >= partition->high_watermark)
			deadline = Min(deadline, partition->last_arrival + w->config->idle_timeout);
	}
	return active >= 2 ? deadline : DT_NOEND;
}

/* ---------------------------------------------------------------- of a view that is behind */

/* Advances v->watermark to what holds before the next batch. */
void
streamext_worker_view_watermark(Worker *w, WorkerView *v)
{
	TimestampTz now = streamext_clock_now();
	TimestampTz least = DT_NOEND;

	for (int i = 0; i < w->npartitions; i++)
	{
		PartitionSlot *partition = &w->slot->partitions[i];

		if (streamext_worker_view_position(w, v, i) < partition->position)
			least = Min(least, v->max_event_time[i]);
		else if (!watermark_is_idle(w, partition, now))
			least = Min(least, partition->max_event_time);
	}
	if (least == DT_NOEND)
		return;
	least = watermark_after(least, w->config->watermark_delay);
	v->watermark = Max(v->watermark, least);
}

/* Takes the batch's rows that are new to the view. Before its positions move. */
void
streamext_worker_view_events(Worker *w, WorkerView *v)
{
	Batch *batch = w->batch;

	for (int row = 0; row < batch->nrows; row++)
	{
		StreamRecord *record = &batch->records[batch->record[row]];
		int			  i = record->partition_index;

		if (record->position >= streamext_worker_view_position(w, v, i) &&
			batch->event_time[row] > v->max_event_time[i])
			v->max_event_time[i] = batch->event_time[row];
	}
}
