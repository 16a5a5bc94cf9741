/*
 * durable/checkpoint_counts.c
 *		What a stream has counted as a checkpoint has it, there and back by the same lists.
 */
#include "base/streamext.h"

#include "durable/checkpoint_log.h"
#include "shared/slots.h"

/* Of a partition; both have fields of these names. */
#define COPY_PARTITION(to, from)                                  \
	do                                                            \
	{                                                             \
		strlcpy((to)->topic, (from)->topic, sizeof((to)->topic)); \
		(to)->partition = (from)->partition;                      \
		(to)->position = (from)->position;                        \
		(to)->start_position = (from)->start_position;            \
		(to)->begin = (from)->begin;                              \
		(to)->max_event_time = (from)->max_event_time;            \
		(to)->rows = (from)->rows;                                \
		(to)->missed = (from)->missed;                            \
		(to)->last = (from)->last;                                \
	} while (0)

/* Of the stream. */
#define COPY_COUNTS(to, from)                    \
	do                                           \
	{                                            \
		(to)->watermark = (from)->watermark;     \
		(to)->batches = (from)->batches;         \
		(to)->rows_in = (from)->rows_in;         \
		(to)->bytes_in = (from)->bytes_in;       \
		(to)->rejected = (from)->rejected;       \
		(to)->seek = (from)->seek;               \
		(to)->retry = (from)->retry;             \
		(to)->npartitions = (from)->npartitions; \
	} while (0)

void
streamext_checkpoint_give_partition(const CheckpointPartition *from, PartitionSlot *to)
{
	memset(to, 0, sizeof(*to));
	COPY_PARTITION(to, from);
	to->high_watermark = -1;
}

void
streamext_checkpoint_take_counts(const StreamCounted *from, CheckpointPosition *to)
{
	COPY_COUNTS(&to->head, from);
	to->head.source = from->source;
	to->tombstones = from->tombstones;
	to->partitions = palloc0(sizeof(CheckpointPartition) * Max(from->npartitions, 1));
	for (int i = 0; i < from->npartitions; i++)
		COPY_PARTITION(&to->partitions[i], &from->partitions[i]);
}

void
streamext_checkpoint_give_counts(const CheckpointPosition *from, StreamCounted *to)
{
	COPY_COUNTS(to, &from->head);
	to->tombstones = from->tombstones;
}
