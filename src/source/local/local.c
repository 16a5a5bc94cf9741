/*
 * source/local/local.c
 *		The source without an outside system: rows that INSERT and COPY put into the stream's journal at commit (sql/spool.c).
 *
 * One partition ("local", 0) on shard 0; other shards have nothing to read. The committing backend sets the worker's latch, so
 * there is no descriptor to wait on. Positions are journal positions. The end is made known (and a torn tail repaired) here
 * when nobody has written since server start, under the slot's journal_lock like every use as a writer.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/latch.h"

#include "source/connector.h"
#include "source/journal/journal.h"
#include "shared/shmem.h"

#define LOCAL_TOPIC "local"
#define LOCAL_READS 4 /* journal reads a poll at most */

typedef struct LocalConnector
{
	Connector		   base;
	ConnectorPartition partition;
	Journal			  *journal; /* NULL: not open (yet); see local_connect */
	int64			   wanted;	/* where to begin once the journal is open; -1: at the journal's beginning */
	bool			   paused;
	JournalRecord	  *records; /* STREAMEXT_BATCH_ROWS */
} LocalConnector;

/* Puts the reader where it was wanted. */
static void
local_place(LocalConnector *local)
{
	Connector *c = &local->base;
	int64	   base = streamext_journal_base(local->journal), end = streamext_journal_end(local->journal);

	c->failed = c->diverged = false;
	if (local->wanted < 0)
		local->partition.position = base;
	else
		local->partition.position = streamext_journal_align(local->journal, Max(local->wanted, base));
	local->partition.high_watermark = end;
	if (local->wanted >= 0 && local->partition.position > local->wanted)
		streamext_connector_event(c, "gap", 0, 0,
								  "the journal goes on at position " INT64_FORMAT " instead of " INT64_FORMAT,
								  local->partition.position, local->wanted);
	if (local->partition.position > end)
	{
		c->failed = c->diverged = true;
		streamext_connector_report(
			c, "the stream's journal ends at " INT64_FORMAT ", before position " INT64_FORMAT " to go on from", end,
			local->partition.position);
	}
}

/* Opens the journal if it is not; a failure is tried again at the next poll. */
static bool
local_connect(LocalConnector *local)
{
	Connector  *c = &local->base;
	StreamSlot *slot;
	int			index;
	int			saved;

	if (local->journal != NULL)
		return true;
	index = streamext_find_stream(MyDatabaseId, c->config->relid, c->shard);
	if (index < 0)
	{
		c->stalled = true;
		streamext_connector_report(c, "the stream has no slot in shared memory");
		return false;
	}
	slot = &streamext_shared->streams[index];

	LWLockAcquire(slot->journal_lock, LW_EXCLUSIVE);
	local->journal = streamext_journal_open(MyDatabaseId, c->config->relid, c->shard, c->config->journal, true,
											c->config->journal_floor, &slot->journal_end);
	saved = errno;
	LWLockRelease(slot->journal_lock);
	if (local->journal == NULL)
	{
		c->stalled = true;
		streamext_connector_report(c, "could not open the stream's journal: %s", strerror(saved));
		return false;
	}
	c->stalled = false;
	c->error[0] = '\0';
	local_place(local);
	return true;
}

static Connector *
local_open(StreamConfig *config, int shard, int shards, MemoryContext cxt)
{
	LocalConnector *local = MemoryContextAllocZero(cxt, sizeof(LocalConnector));
	Connector	   *c = &local->base;

	c->ops = &streamext_local_ops;
	c->config = config;
	c->shard = shard;
	c->shards = shards;
	c->wait_fd = -1;
	c->partitions = &local->partition;
	local->wanted = -1;
	strlcpy(local->partition.topic, LOCAL_TOPIC, sizeof(local->partition.topic));
	local->partition.position = local->partition.high_watermark = -1;
	if (shard > 0)
		return c;

	c->npartitions = 1;
	streamext_connector_guard(c, cxt);
	local->records = MemoryContextAlloc(cxt, sizeof(JournalRecord) * STREAMEXT_BATCH_ROWS);
	(void) local_connect(local);
	return c;
}

static void
local_seek(Connector *c, int index, int64 position)
{
	LocalConnector *local = (LocalConnector *) c;

	Assert(index == 0);
	local->wanted = position;
	if (local->journal != NULL)
		local_place(local);
	else
		local->partition.position = position;
}

/* What a reading error means: damage stays, what the system refused may pass. */
static void
local_read_failed(Connector *c, int saved_errno)
{
	if (saved_errno == EBADMSG)
	{
		c->failed = true;
		streamext_connector_report(c, "the stream's journal is damaged at position " INT64_FORMAT,
								   c->partitions[0].position);
	}
	else
	{
		c->stalled = true;
		streamext_connector_report(c, "could not read the stream's journal at position " INT64_FORMAT ": %s",
								   c->partitions[0].position, strerror(saved_errno));
	}
}

/* The last read's n rows as records. */
static void
local_records(const LocalConnector *local, StreamRecord *records, int n)
{
	for (int i = 0; i < n; i++)
	{
		const JournalRecord *row = &local->records[i];
		StreamRecord		*record = &records[i];

		memset(record, 0, sizeof(*record));
		record->payload = row->payload;
		record->payload_size = row->payload_size;
		record->topic = LOCAL_TOPIC;
		record->position = row->position;
		record->next_position = row->next_position;
		record->timestamp = row->timestamp;
		record->row_type_hash = row->row_type_hash;
	}
}

static int
local_poll(Connector *c, StreamRecord *records, int max)
{
	LocalConnector *local = (LocalConnector *) c;
	int				n = 0;

	if (c->npartitions == 0 || local->paused || !local_connect(local) || c->failed)
		return 0;

	/* Rolled back rows may fill whole reads. */
	for (int tries = 0; tries < LOCAL_READS && n == 0; tries++)
	{
		int64 before = local->partition.position;
		bool  corrupt;

		n = streamext_journal_read(local->journal, &local->partition.position, local->records,
								   Min(max, STREAMEXT_BATCH_ROWS), &corrupt);

		if (corrupt)
		{
			local_read_failed(c, errno);
			break;
		}
		if (c->stalled)
		{
			c->stalled = false;
			c->error[0] = '\0';
		}
		if (local->partition.position == before)
			break;
		if (n == 0 && tries + 1 == LOCAL_READS)
			SetLatch(MyLatch); /* nobody else will, and there may be more */
	}
	local_records(local, records, n);
	local->partition.high_watermark = streamext_journal_end(local->journal);
	return n;
}

/* Records are good until the next read of the journal anyway. */
static void
local_release(Connector *c)
{
}

/* Rows of transactions that are just committing lie before the end and are waited for. */
static bool
local_flush_target(Connector *c, uint64 ticket, int64 *targets)
{
	LocalConnector *local = (LocalConnector *) c;

	if (c->npartitions == 0)
		return true;
	if (!local_connect(local))
		return false;
	targets[0] = streamext_journal_end(local->journal);
	return true;
}

static bool
local_find(Connector *c, SeekKind kind, TimestampTz time, int64 *positions)
{
	LocalConnector *local = (LocalConnector *) c;

	if (!local_connect(local))
		return false;
	positions[0] =
		kind == SEEK_EARLIEST ? streamext_journal_base(local->journal) : streamext_journal_end(local->journal);
	return true;
}

static void
local_commit(Connector *c, const int64 *positions, int n)
{
	LocalConnector *local = (LocalConnector *) c;

	if (n > 0 && local->journal != NULL)
		streamext_journal_trim(local->journal, positions[0]);
}

static void
local_pause(Connector *c, bool paused)
{
	((LocalConnector *) c)->paused = paused;
}

static void
local_close(Connector *c)
{
	LocalConnector *local = (LocalConnector *) c;

	streamext_journal_close(local->journal);
	local->journal = NULL;
}

const ConnectorOps streamext_local_ops = {
	.name = "local",
	.replayable = false,
	.open = local_open,
	.seek = local_seek,
	.poll = local_poll,
	.release = local_release,
	.flush_target = local_flush_target,
	.find = local_find,
	.commit = local_commit,
	.pause = local_pause,
	.close = local_close,
};
