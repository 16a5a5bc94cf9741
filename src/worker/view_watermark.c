/*
 * worker/view_watermark.c
 *		Event time's progress of a view that reads again what the stream has read before.
 *
 * A view that is behind would find everything late by the stream's watermark. It gets one of its own until it has caught up: over its own progress in
 * the partitions in which it is behind, and the stream's in the others. After a restart of the worker this begins anew, which makes fewer rows late.
 */
#include "base/streamext.h"

#include "worker/worker_private.h"

/* Advances v->watermark to what holds before the next batch. */
void
streamext_worker_view_watermark(Worker *w, WorkerView *v)
{
	TimestampTz least = DT_NOEND;

	if (OidIsValid(w->shard.config->from.inner) || OidIsValid(w->shard.config->from.origin))
		return; /* windows come in whatever order, and so do parts: until it has caught up none is late */
	for (int i = 0; i < w->shard.npartitions; i++)
	{
		PartitionSlot *partition = &w->shard.slot->counted.partitions[i];

		if (streamext_worker_view_position(w, v, i) < partition->position)
			least = Min(least, v->max_event_time[i]);
		else if (!partition->idle)
			least = Min(least, partition->max_event_time);
	}
	if (least == DT_NOEND)
		return;
	if (least != DT_NOBEGIN)
		v->watermark = Max(v->watermark, least - w->shard.config->time.watermark_delay);
}

/* Takes the batch's rows that are new to the view. Before its positions move. */
void
streamext_worker_view_events(Worker *w, WorkerView *v)
{
	Batch *batch = w->reading.batch;

	for (int row = 0; row < batch->nrows; row++)
	{
		StreamRecord *record = &batch->records[batch->record[row]];
		int			  i = record->partition_index;

		if (record->position >= streamext_worker_view_position(w, v, i) &&
			batch->event_time[row] > v->max_event_time[i])
			v->max_event_time[i] = batch->event_time[row];
	}
}
