/*
 * sources: view/key state/pane state/copy base/checksum durable/slice_bytes
 *
 * A slice of streamext_internal.history whose checksum is right, whatever is in it: refused, or every group's key and state and every
 * blob is within it.
 */
#include "fuzz.h"

#include "durable/history_read.c"

static void
history_check(const StateCopy *copy)
{
	for (int p = 0; p < copy->npanes; p++)
		for (Size g = 0; g < copy->panes[p].ngroups; g++)
		{
			const GroupEntry *entry = copy->panes[p].groups[g];
			char			 *bytes = palloc(entry->size);

			memcpy(bytes, entry, entry->size);
			REQUIRE(entry->size >= offsetof(GroupEntry, data) + copy->state_size + entry->key_size);
			pfree(bytes);
		}
	for (int b = 0; b < copy->nblocks; b++)
	{
		char *bytes = palloc(copy->blocks[b].size);

		memcpy(bytes, copy->blocks[b].copy, copy->blocks[b].size);
		pfree(bytes);
	}
}

/* Reads the state, and counts. */
static void
history_count(void *into, const void *from)
{
	char state[8];

	memcpy(state, from, sizeof(state));
	++*(uint64 *) into;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	KeySpec		 key = { .typlen = -1, .bytewise = true };
	CompiledView view = {
		.nkeys = 1, .keys = &key, .window_key = -1, .set_key = -1, .state_size = 16, .builtin = true
	};
	FuzzInput		   in = { data, size };
	HistoryReader	   reader = { .state_size = view.state_size, .view = &view, .sum = { .state_size = 16, .n = 1 } };
	struct SliceSumAgg agg = { .offset = 8, .combine = history_count };
	char			  *bytes;
	Size			   total;
	StateCopy		  *copy = NULL;

	server_start();
	reader.matcher = streamext_key_matcher(&view, CurrentMemoryContext);
	reader.by_hash = fuzz_number(&in, 2) == 1;
	reader.hash = fuzz_number(&in, 4);
	total = in.size + (reader.by_hash ? 0 : HISTORY_PAD);
	bytes = palloc(VARHDRSZ + total); /* as a bytea: what is behind the checksum is aligned */
	reader.slice.bytes = bytes + VARHDRSZ;
	reader.slice.size = total;
	memset(reader.slice.bytes, 0, Min(total, HISTORY_PAD));
	fuzz_bytes(&in, reader.slice.bytes + (total - in.size), in.size);
	if (total >= HISTORY_PAD + sizeof(SliceHeader))
	{
		SliceHeader *header = (SliceHeader *) (reader.slice.bytes + HISTORY_PAD);
		pg_crc32c	 crc;

		header->format = HISTORY_FORMAT;
		header->state_size = view.state_size;
		crc = streamext_slice_checksum(reader.slice.bytes, total);
		memcpy(reader.slice.bytes, &crc, sizeof(crc));
	}
	if (SERVER_TRY(copy = slice_to_copy(&reader, CurrentMemoryContext)) && copy != NULL)
		history_check(copy);
	reader.sum.aggs = &agg;
	if (SERVER_TRY(copy = slice_to_sum(&reader, CurrentMemoryContext)) && copy != NULL)
		REQUIRE(copy->panes[0].ngroups == 1 && *(uint64 *) (copy->panes[0].groups[0]->data + 8) == reader.nsummed);
	server_reset();
	return 0;
}
