/*
 * durable/slice_bytes.h
 *		The bytes of a slice of history as its groups, checked (durable/history.h has what a slice is).
 *
 * Nothing here allocates, raises or writes elsewhere than said: a thread calls it (durable/history_ahead.c).
 */
#ifndef STREAMEXT_SLICE_BYTES_H
#define STREAMEXT_SLICE_BYTES_H

#include "durable/history.h"

/* Where the parts of a slice are. */
typedef struct SliceBytes
{
	const SliceHeader *header;
	const SliceBlock  *blocks;
	char			  *entries;
	char			  *blobs;
} SliceBytes;

/* Native aggregates of which only is asked what a slice's groups come to. */
typedef struct SliceSum
{
	uint32 state_size;
	int	   n;
	struct SliceSumAgg
	{
		uint32 offset;
		void (*combine)(void *into, const void *from);
	} * aggs; /* NULL: each group is asked for */
} SliceSum;

/* bytes: from the checksum on, what is behind it aligned. False: it has changed since it was written, or is not of this layout. */
extern bool streamext_slice_open(char *bytes, Size size, uint32 state_size, SliceBytes *slice);
/* Gives `into` the states of all groups combined, in order, and empty ones for other aggregates. False: an entry is not sound. */
extern bool streamext_slice_sum(const SliceBytes *slice, const SliceSum *sum, GroupEntry *into);

/* The entry at `at` of the entries; NULL: its sizes are not sound. */
static inline GroupEntry *
streamext_slice_entry(const SliceBytes *slice, Size at)
{
	const SliceHeader *header = slice->header;
	GroupEntry		  *entry = (GroupEntry *) (slice->entries + at);

	if (header->entries_size - at < offsetof(GroupEntry, data) || entry->size % 8 != 0 ||
		entry->size > header->entries_size - at ||
		entry->size < offsetof(GroupEntry, data) + (Size) header->state_size + entry->key_size)
		return NULL;
	return entry;
}

/* Of an entry without key. */
static inline Size
streamext_slice_sum_size(const SliceSum *sum)
{
	return offsetof(GroupEntry, data) + sum->state_size;
}

#endif /* STREAMEXT_SLICE_BYTES_H */
