/*
 * durable/checkpoint_counts.c
 *		What a stream has counted as a checkpoint has it, there and back: what is new in the one list belongs into the other.
 */
#include "base/streamext.h"

#include "durable/checkpoint_log.h"
#include "shared/slots.h"

static void
counts_take_partition(const PartitionSlot *from, CheckpointPartition *to)
{
	strlcpy(to->topic, from->topic, sizeof(to->topic));
	to->partition = from->partition;
	to->position = from->position;
	to->start_position = from->start_position;
	to->begin = from->begin;
	to->max_event_time = from->max_event_time;
	to->rows = from->rows;
	to->missed = from->missed;
	to->last = from->last;
}

void
streamext_checkpoint_give_partition(const CheckpointPartition *from, PartitionSlot *to)
{
	memset(to, 0, sizeof(*to));
	strlcpy(to->topic, from->topic, sizeof(to->topic));
	to->partition = from->partition;
	to->position = from->position;
	to->start_position = from->start_position;
	to->begin = from->begin;
	to->high_watermark = -1;
	to->max_event_time = from->max_event_time;
	to->rows = from->rows;
	to->missed = from->missed;
	to->last = from->last;
}

void
streamext_checkpoint_take_counts(const StreamCounted *from, CheckpointPosition *to)
{
	int n = from->npartitions;

	to->head.source = from->source;
	to->head.watermark = from->watermark;
	to->head.batches = from->batches;
	to->head.rows_in = from->rows_in;
	to->head.bytes_in = from->bytes_in;
	to->head.rejected = from->rejected;
	to->head.seek = from->seek;
	to->head.retry = from->retry;
	to->tombstones = from->tombstones;
	to->head.npartitions = n;
	to->partitions = palloc0(sizeof(CheckpointPartition) * Max(n, 1));
	for (int i = 0; i < n; i++)
		counts_take_partition(&from->partitions[i], &to->partitions[i]);
}

void
streamext_checkpoint_give_counts(const CheckpointPosition *from, StreamCounted *to)
{
	to->watermark = from->head.watermark;
	to->batches = from->head.batches;
	to->rows_in = from->head.rows_in;
	to->bytes_in = from->head.bytes_in;
	to->rejected = from->head.rejected;
	to->seek = from->head.seek;
	to->retry = from->head.retry;
	to->tombstones = from->tombstones;
	to->npartitions = from->head.npartitions;
}
