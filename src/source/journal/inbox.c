/*
 * source/journal/inbox.c
 *		A stream's journal as a source of records. What the functions promise is in source/journal/inbox.h.
 *
 * The end is made known (and a torn tail repaired) by whoever is the first to open as a writer since the server's start, the worker
 * here or an appender, under the lock that all writers of a pushed connector's journal take.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/latch.h"

#include "source/journal/inbox.h"

#define INBOX_READS 4					/* journal reads a poll at most */
#define INBOX_FORGET (16 * 1024 * 1024) /* journal 'none': bytes given out between trims */
#define INBOX_HANDLES 32				/* journals kept open by an appender */

/* ---- the worker's side ---- */

void
streamext_inbox_init(JournalInbox *inbox, const ConnectorOps *ops, const ConnectorOpen *args, const char *topic)
{
	Connector *c = &inbox->c;

	c->ops = ops;
	c->config = args->config;
	c->shard = args->shard;
	c->shards = Max(args->shards, 1);
	c->wait_fd = -1;
	c->partitions = &inbox->partition;
	inbox->place = args->journal;
	inbox->wanted = -1;
	strlcpy(inbox->partition.topic, topic, sizeof(inbox->partition.topic));
	inbox->partition.partition = args->shard;
	inbox->partition.position = inbox->partition.high_watermark = -1;
	inbox->records = MemoryContextAlloc(args->cxt, sizeof(JournalRecord) * STREAMEXT_BATCH_ROWS);
}

static void
inbox_record(const JournalInbox *inbox, JournalRecord *from, StreamRecord *to)
{
	memset(to, 0, sizeof(*to));
	to->payload = from->payload;
	to->payload_size = from->payload_size;
	to->topic = from->topic_size > 0 ? from->topic : inbox->partition.topic;
	to->partition = inbox->c.shard;
	to->position = from->position;
	to->next_position = from->next_position;
	to->timestamp = from->timestamp;
	to->qos = from->qos;
	to->retained = from->retained;
	to->row_type_hash = from->row_type_hash;
	to->layout = from->layout;
	to->message = from;
}

int
streamext_inbox_read(JournalInbox *inbox, StreamRecord *records, int max)
{
	int64 position = inbox->blocks ? inbox->block_at : inbox->partition.position;
	bool  corrupt;
	int n = streamext_journal_read(inbox->journal, &position, inbox->records, Min(max, STREAMEXT_BATCH_ROWS), &corrupt);

	if (inbox->blocks)
		inbox->block_at = position;
	else
		inbox->partition.position = position;
	if (corrupt)
		return -1;
	for (int i = 0; i < n; i++)
		inbox_record(inbox, &inbox->records[i], &records[i]);
	return n;
}

void
streamext_inbox_forget(JournalInbox *inbox)
{
	int64 position = inbox->partition.position;

	if (inbox->place.mode != JOURNAL_NONE || position - inbox->trimmed < INBOX_FORGET)
		return;
	inbox->trimmed = position;
	streamext_journal_trim(inbox->journal, position - inbox->keep);
}

/* Puts the reader where it was wanted. */
static void
inbox_place(JournalInbox *inbox)
{
	Connector *c = &inbox->c;
	int64	   base = streamext_journal_base(inbox->journal), end = streamext_journal_end(inbox->journal);

	c->failed = c->diverged = false;
	if (inbox->wanted < 0)
		inbox->partition.position = inbox->block_at = base;
	else if (inbox->blocks)
	{
		int64 wanted = Max(inbox->wanted, base);

		inbox->block_at = streamext_journal_containing(inbox->journal, wanted);
		inbox->partition.position = Max(inbox->block_at, wanted);
	}
	else
		inbox->partition.position = streamext_journal_align(inbox->journal, Max(inbox->wanted, base));
	inbox->partition.high_watermark = end;
	if (inbox->wanted >= 0 && inbox->partition.position > inbox->wanted)
		streamext_connector_event(c, "gap", 0, 0,
								  "the journal goes on at position " INT64_FORMAT " instead of " INT64_FORMAT,
								  inbox->partition.position, inbox->wanted);
	if (inbox->partition.position > end)
	{
		c->failed = c->diverged = true;
		streamext_connector_report(
			c, "the stream's journal ends at " INT64_FORMAT ", before position " INT64_FORMAT " to go on from", end,
			inbox->partition.position);
	}
}

/* Opens the journal if it is not; a failure is tried again at the next poll. */
bool
streamext_inbox_connect(JournalInbox *inbox)
{
	Connector *c = &inbox->c;
	int		   saved;

	if (inbox->journal != NULL)
		return true;
	if (inbox->place.follows && pg_atomic_read_u64(inbox->place.end) == (uint64) -1)
	{
		c->stalled = true;
		streamext_connector_report(c, "the journal of the stream that is read is not open yet");
		return false;
	}
	LWLockAcquire(inbox->place.lock, LW_EXCLUSIVE);
	inbox->journal = streamext_journal_open(&inbox->place, !inbox->place.follows);
	saved = errno;
	LWLockRelease(inbox->place.lock);
	if (inbox->journal == NULL)
	{
		c->stalled = true;
		streamext_connector_report(c, "could not open the stream's journal: %s", strerror(saved));
		return false;
	}
	c->stalled = false;
	c->error[0] = '\0';
	inbox_place(inbox);
	return true;
}

/* There is one journal, of shard 0; other shards have nothing to read. */
Connector *
streamext_inbox_open(const ConnectorOps *ops, const ConnectorOpen *args, const char *topic)
{
	JournalInbox *inbox = MemoryContextAllocZero(args->cxt, sizeof(JournalInbox));

	streamext_inbox_init(inbox, ops, args, topic);
	if (args->shard > 0)
		return &inbox->c;
	inbox->c.npartitions = 1;
	streamext_connector_guard(&inbox->c, args->cxt);
	(void) streamext_inbox_connect(inbox);
	return &inbox->c;
}

void
streamext_inbox_seek(Connector *c, int index, int64 position)
{
	JournalInbox *inbox = (JournalInbox *) c;

	Assert(index == 0);
	inbox->wanted = position;
	if (inbox->journal != NULL)
		inbox_place(inbox);
	else
		inbox->partition.position = position;
}

/* What a reading error means: damage stays, what the system refused may pass. */
void
streamext_inbox_read_failed(Connector *c, int saved_errno)
{
	JournalInbox *inbox = (JournalInbox *) c;

	if (inbox->place.follows && streamext_journal_base(inbox->journal) > inbox->partition.position)
	{
		/* it was not kept any longer: goes on, and tells of the gap */
		inbox->wanted = inbox->partition.position;
		inbox_place(inbox);
		return;
	}
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

int
streamext_inbox_poll(Connector *c, StreamRecord *records, int max)
{
	JournalInbox *inbox = (JournalInbox *) c;
	int			  n = 0;

	if (c->npartitions == 0 || inbox->paused || !streamext_inbox_connect(inbox) || c->failed)
		return 0;
	streamext_inbox_forget(inbox);

	/* Rolled back rows may fill whole reads. */
	for (int tries = 0; tries < INBOX_READS && n == 0; tries++)
	{
		int64 before = inbox->partition.position;

		n = streamext_inbox_read(inbox, records, max);
		if (n < 0)
		{
			streamext_inbox_read_failed(c, errno);
			n = 0;
			break;
		}
		if (c->stalled)
		{
			c->stalled = false;
			c->error[0] = '\0';
		}
		if (inbox->partition.position == before)
			break;
		if (n == 0 && tries + 1 == INBOX_READS)
			SetLatch(MyLatch); /* nobody else will, and there may be more */
	}
	inbox->partition.high_watermark = streamext_journal_end(inbox->journal);
	return n;
}

/* Records are good until the next read of the journal anyway. */
void
streamext_inbox_release(Connector *c)
{
}

/* Rows of transactions that are just committing lie before the end and are waited for. */
bool
streamext_inbox_flush_target(Connector *c, uint64 ticket, int64 *targets)
{
	JournalInbox *inbox = (JournalInbox *) c;

	if (c->npartitions == 0)
		return true;
	if (!streamext_inbox_connect(inbox))
		return false;
	targets[0] = streamext_journal_end(inbox->journal);
	return true;
}

bool
streamext_inbox_find(Connector *c, SeekKind kind, TimestampTz time, int64 *positions)
{
	JournalInbox *inbox = (JournalInbox *) c;

	if (!streamext_inbox_connect(inbox))
		return false;
	positions[0] =
		kind == SEEK_EARLIEST ? streamext_journal_base(inbox->journal) : streamext_journal_end(inbox->journal);
	return true;
}

bool
streamext_inbox_ends(Connector *c, const int *indexes, int n)
{
	JournalInbox *inbox = (JournalInbox *) c;

	if (c->npartitions == 0)
		return true;
	if (inbox->journal == NULL || c->stalled || c->failed)
		return false;
	inbox->partition.high_watermark = streamext_journal_end(inbox->journal);
	return true;
}

void
streamext_inbox_commit(Connector *c, const int64 *positions, int n)
{
	JournalInbox *inbox = (JournalInbox *) c;

	if (n < 1 || inbox->journal == NULL || positions[0] - inbox->trimmed < inbox->step)
		return;
	inbox->trimmed = positions[0];
	streamext_journal_trim(inbox->journal, inbox->trimmed - inbox->keep);
}

void
streamext_inbox_pause(Connector *c, bool paused)
{
	((JournalInbox *) c)->paused = paused;
}

void
streamext_inbox_close(Connector *c)
{
	JournalInbox *inbox = (JournalInbox *) c;

	streamext_journal_close(inbox->journal);
	inbox->journal = NULL;
}

/* ---- the appender's side ---- */

typedef struct InboxHandle
{
	JournalPlace place;
	Journal		*journal; /* NULL: free */
} InboxHandle;

static InboxHandle inbox_handles[INBOX_HANDLES];
static int		   inbox_next_handle = 0;

static void
inbox_close_handle(InboxHandle *handle)
{
	streamext_journal_close(handle->journal);
	handle->journal = NULL;
}

/* NULL and errno on failure. */
static InboxHandle *
inbox_handle(const JournalPlace *place)
{
	InboxHandle *handle;

	for (int i = 0; i < INBOX_HANDLES; i++)
	{
		handle = &inbox_handles[i];
		if (handle->journal == NULL || handle->place.relid != place->relid || handle->place.shard != place->shard)
			continue;
		if (handle->place.end == place->end && handle->place.mode == place->mode)
			return handle;
		inbox_close_handle(handle); /* the slot is another one now */
	}
	handle = &inbox_handles[inbox_next_handle];
	inbox_next_handle = (inbox_next_handle + 1) % INBOX_HANDLES;
	if (handle->journal != NULL)
		inbox_close_handle(handle);
	handle->place = *place;
	handle->journal = streamext_journal_open(place, true);
	return handle->journal != NULL ? handle : NULL;
}

bool
streamext_inbox_append(const JournalPlace *place, const JournalRecord *records, int n)
{
	InboxHandle *handle;
	bool		 done;
	int			 saved;

	Assert(LWLockHeldByMeInMode(place->lock, LW_EXCLUSIVE));
	handle = inbox_handle(place);
	done = handle != NULL && streamext_journal_append(handle->journal, records, n);
	saved = errno;
	if (handle != NULL && !done)
		inbox_close_handle(handle);
	errno = saved;
	return done;
}
