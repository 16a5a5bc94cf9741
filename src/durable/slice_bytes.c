/*
 * durable/slice_bytes.c
 *		The bytes of a slice of history as its groups. What the functions promise is in durable/slice_bytes.h.
 */
#include "postgres.h"

#include "durable/slice_bytes.h"

/* What is in a slice is trusted, down to the states of transition functions, so nothing of it may have changed on disk. */
bool
streamext_slice_open(char *bytes, Size size, uint32 state_size, SliceBytes *slice)
{
	const SliceHeader *header = (const SliceHeader *) (bytes + HISTORY_PAD);
	pg_crc32c		   stored;

	if (size < HISTORY_PAD + sizeof(SliceHeader))
		return false;
	memcpy(&stored, bytes, sizeof(stored));
	if (!EQ_CRC32C(stored, streamext_slice_checksum(bytes, size)))
		return false;
	size -= HISTORY_PAD;
	if (header->format != HISTORY_FORMAT || header->state_size != state_size ||
		header->nblocks > (size - sizeof(SliceHeader)) / sizeof(SliceBlock) || header->entries_size > size ||
		header->blobs_size > size ||
		sizeof(SliceHeader) + header->nblocks * sizeof(SliceBlock) + header->entries_size + header->blobs_size !=
			size ||
		header->nentries > header->entries_size / offsetof(GroupEntry, data))
		return false;
	slice->header = header;
	slice->blocks = (const SliceBlock *) (header + 1);
	slice->entries = bytes + HISTORY_PAD + sizeof(SliceHeader) + header->nblocks * sizeof(SliceBlock);
	slice->blobs = slice->entries + header->entries_size;
	return true;
}

bool
streamext_slice_sum(const SliceBytes *slice, const SliceSum *sum, GroupEntry *into)
{
	const SliceHeader *header = slice->header;
	Size			   at = 0;

	memset(into, 0, streamext_slice_sum_size(sum));
	for (uint32 n = 0; n < header->nentries; n++)
	{
		const GroupEntry *entry = at < header->entries_size ? streamext_slice_entry(slice, at) : NULL;

		if (entry == NULL)
			return false;
		for (int a = 0; a < sum->n; a++)
			sum->aggs[a].combine(into->data + sum->aggs[a].offset, entry->data + sum->aggs[a].offset);
		at += entry->size;
	}
	return at == header->entries_size;
}
