/*
 * source/journal/block.c
 *		Blocks: many records of a stream as one of its journal's. The format and what the functions promise are in source/journal/block.h.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/latch.h"

#include "source/journal/block.h"

#define BLOCK_READ 1024 /* blocks a read */
#define BLOCK_HEAD STREAMEXT_BLOCK_ENTRY(0, 0)

void
streamext_block_add(StringInfo block, const char *payload, uint32 size, const char *head, uint32 head_size)
{
	uint32 sizes[2] = { size, head_size };

	appendBinaryStringInfo(block, (char *) sizes, sizeof(sizes));
	if (head_size > 0)
		appendBinaryStringInfo(block, head, head_size);
	if (size > 0)
		appendBinaryStringInfo(block, payload, size);
}

Connector *
streamext_block_open(const ConnectorOps *ops, const ConnectorOpen *args, const char *name, Size size)
{
	BlockInbox *b = MemoryContextAllocZero(args->cxt, Max(size, sizeof(BlockInbox)));

	streamext_inbox_init(&b->inbox, ops, args, name);
	b->inbox.blocks = true;
	if (args->shard > 0)
		return &b->inbox.c;
	b->inbox.c.npartitions = 1;
	b->blocks = MemoryContextAlloc(args->cxt, sizeof(StreamRecord) * BLOCK_READ);
	streamext_connector_guard(&b->inbox.c, args->cxt);
	(void) streamext_inbox_connect(&b->inbox);
	return &b->inbox.c;
}

void
streamext_block_seek(Connector *c, int index, int64 position)
{
	BlockInbox *b = (BlockInbox *) c;

	b->nblocks = b->block = 0;
	b->from = position;
	streamext_inbox_seek(c, index, position);
}

/* The entry at b->at of the block; false: what is there is none. *next: where the one behind it is. */
static bool
block_entry(const BlockInbox *b, const StreamRecord *block, StreamRecord *record, uint32 *next)
{
	Size   shared = ((JournalRecord *) block->message)->topic_size;
	uint32 sizes[2];
	uint64 end = (uint64) b->at + BLOCK_HEAD;

	if (shared == 0)
	{
		*record = *block;
		record->message = NULL;
		*next = block->payload_size;
		return true;
	}
	if (end > block->payload_size)
		return false;
	memcpy(sizes, block->payload + b->at, sizeof(sizes));
	end += (uint64) sizes[0] + sizes[1];
	if (end > block->payload_size)
		return false;
	*record = *block;
	record->message = NULL;
	record->key = block->payload + b->at + BLOCK_HEAD;
	record->key_size = sizes[1];
	record->payload = record->key + sizes[1];
	record->payload_size = sizes[0];
	record->position = block->position + b->at;
	record->next_position = end == block->payload_size ? block->next_position : block->position + (int64) end;
	if (sizes[1] == 0) /* what they all share */
	{
		Size name = strlen(block->topic) + 1;

		record->key = shared > name ? block->topic + name : NULL;
		record->key_size = shared > name ? shared - name : 0;
	}
	record->message = (void *) record->key;
	*next = (uint32) end;
	return true;
}

/* More blocks if all of the last ones were given out; false: there are none, or trouble, which is reported. */
static bool
block_read(BlockInbox *b, int max)
{
	Connector *c = &b->inbox.c;
	int		   n;

	if (b->block < b->nblocks)
		return true;
	b->nblocks = b->block = 0;
	b->at = 0;
	streamext_inbox_forget(&b->inbox);
	n = streamext_inbox_read(&b->inbox, b->blocks, Min(max, BLOCK_READ));
	if (n < 0)
	{
		streamext_inbox_read_failed(c, errno);
		return false;
	}
	if (c->stalled)
	{
		c->stalled = false;
		c->error[0] = '\0';
	}
	b->nblocks = n;
	b->inbox.partition.high_watermark = streamext_journal_end(b->inbox.journal);
	if (n == 0 && b->inbox.block_at > b->inbox.partition.position)
	{
		b->inbox.partition.position = b->inbox.block_at; /* what was rolled back is passed over */
		SetLatch(MyLatch);
	}
	return n > 0;
}

/* All records of a poll are of one read, because the next one ends their life. */
int
streamext_block_poll(Connector *c, StreamRecord *records, int max)
{
	BlockInbox *b = (BlockInbox *) c;
	int			n = 0;

	if (c->npartitions == 0 || b->inbox.paused || !streamext_inbox_connect(&b->inbox) || c->failed ||
		!block_read(b, max))
		return 0;
	while (n < max && b->block < b->nblocks)
	{
		const StreamRecord *block = &b->blocks[b->block];
		uint32				next;

		if (!block_entry(b, block, &records[n], &next))
		{
			c->failed = true;
			streamext_connector_report(c, "the stream's journal holds no records at position " INT64_FORMAT,
									   block->position);
			break;
		}
		c->partitions[0].position = records[n].next_position;
		if (records[n].position >= b->from)
			n++;
		b->at = next;
		if (next == block->payload_size)
		{
			b->block++;
			b->at = 0;
		}
	}
	if (n == 0 && !c->failed)
		SetLatch(MyLatch); /* all of it was counted before; there may be more */
	return n;
}
