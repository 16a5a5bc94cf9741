/*
 * gateway/flume_recall.c
 *		Which batches came last before this process, from what it finds in a stream's journal. What the function promises is in gateway/flume_private.h.
 *
 * A gateway that ends between the append and the answer knows nothing of it when it is there again, and the batch comes again. So a batch's
 * blocks bear its mark, and the last of them, from the last one or two files of the journal, are noted as those of connections that have ended.
 */
#include "base/streamext.h"

#include "utils/memutils.h"

#include "gateway/flume_private.h"

#define RECALL_READ 256 /* blocks at a time */

static void
recall_block(FlumeTakenRing *ring, const JournalRecord *block, Oid relid)
{
	Size	  name = strlen(block->topic) + 1;
	FlumeMark mark;

	if (block->topic_size != name + sizeof(mark))
		return;
	memcpy(&mark, block->topic + name, sizeof(mark));
	streamext_flume_taken_note(ring, &mark, relid);
}

/* Damage is the worker's to tell. */
static void
recall_read(FlumeTakenRing *ring, Journal *journal, Oid relid)
{
	JournalRecord *blocks = palloc(sizeof(JournalRecord) * RECALL_READ);
	int64		   position = streamext_journal_recent(journal);
	bool		   corrupt;
	int			   n;

	while (position >= 0 && (n = streamext_journal_read(journal, &position, blocks, RECALL_READ, &corrupt)) > 0)
		for (int i = 0; i < n; i++)
			recall_block(ring, &blocks[i], relid);
	pfree(blocks);
}

void
streamext_flume_recall(FlumeTakenRing *ring, GatewayStream *stream)
{
	Oid			  relid = stream->config->relid;
	MemoryContext old;
	Journal		 *journal;

	if (list_member_oid(ring->recalled, relid) || !streamext_gateway_place(stream))
		return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	ring->recalled = lappend_oid(ring->recalled, relid);
	MemoryContextSwitchTo(old);
	journal = streamext_journal_open(&stream->place, false);
	if (journal == NULL)
		return;
	recall_read(ring, journal, relid);
	streamext_journal_close(journal);
}
