/*
 * source/feed/feed.c
 *		Feeds: a client of an endless HTTP answer or websocket, whose records go through the stream's journal.
 *
 * One partition, whose positions are the journal's. What libcurl brings (source/feed/link.c) is cut into records (cutter.c), looked at
 * (intake.c), appended, and read again from the journal: so what is there is counted once, and the last record there is where the server is
 * asked to go on. All of it in the worker's own process, between its batches: while the worker does not read, the server is held back by TCP.
 */
#include "base/streamext.h"

#include "libpq/pqsignal.h"
#include "utils/timestamp.h"

#include "source/connector.h"
#include "source/feed/intake.h"
#include "source/feed/link.h"
#include "source/feed/options.h"
#include "source/journal/inbox.h"

#define FEED_KEEP (16 * 1024 * 1024)   /* bytes counted that stay: the token, and what repeats are known by */
#define FEED_STEP (1024 * 1024)		   /* bytes counted between two trims */
#define FEED_BEHIND (64 * 1024 * 1024) /* bytes of the journal not read yet with which nothing more is taken in */
#define FEED_QUIET_MS 30			   /* flush: nothing came for so long, */
#define FEED_FLUSH_MS 500			   /* or it has waited for so long */
#define FEED_AGAIN_MS 1000			   /* after a failed append */

typedef struct FeedConnector
{
	JournalInbox inbox;
	bool		 closed;
	FeedOptions	 options;
	FeedIntake	*intake;
	FeedLink	*link;
	bool		 loaded;	   /* the intake knows what the journal holds */
	FeedText	 kept;		   /* until then: the last checkpoint's mark, malloc'd */
	FeedText	 marks[2];	   /* of what was polled last, and before; size 0: none */
	int64		 marked[2];	   /* the position behind that */
	TimestampTz	 append_at;	   /* after a failure: not before this */
	bool		 held;		   /* what the server sends was left alone, for reasons of our own */
	uint64		 flush_ticket; /* what flush has seen */
	int64		 flush_end;
	TimestampTz	 flush_since, flush_quiet_since;
} FeedConnector;

static Connector *
feed_open(const ConnectorOpen *args)
{
	FeedConnector *k = MemoryContextAllocZero(args->cxt, sizeof(FeedConnector));
	Connector	  *c = &k->inbox.c;
	MemoryContext  old = MemoryContextSwitchTo(args->cxt);

	streamext_inbox_init(&k->inbox, &streamext_feed_ops, args, "feed");
	k->inbox.keep = FEED_KEEP;
	k->inbox.step = FEED_STEP;
	c->stalled = true;
	c->npartitions = 1;
	pqsignal(SIGPIPE, SIG_IGN);
	streamext_feed_read_options(&k->options, args->config->server_options);
	streamext_connector_guard(c, args->cxt);
	k->intake = streamext_feed_intake_new(&k->options);
	if (!streamext_feed_text_add(&k->kept, args->mark, args->mark_size, SIZE_MAX))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	k->link = streamext_feed_link_new(c, &k->options, k->intake);
	c->wait_fd = streamext_feed_link_fd(k->link);
	if (streamext_inbox_connect(&k->inbox))
		c->stalled = true;
	streamext_feed_link_wake(k->link, 0);
	MemoryContextSwitchTo(old);
	return c;
}

static void
feed_close(Connector *c)
{
	FeedConnector *k = (FeedConnector *) c;

	if (k->closed)
		return;
	k->closed = true;
	c->wait_fd = -1;
	if (k->link != NULL)
		streamext_feed_link_free(k->link);
	if (k->intake != NULL)
		streamext_feed_intake_free(k->intake);
	k->link = NULL;
	k->intake = NULL;
	streamext_feed_text_free(&k->kept);
	for (int i = 0; i < lengthof(k->marks); i++)
		streamext_feed_text_free(&k->marks[i]);
	streamext_inbox_close(c);
}

static void
feed_seek(Connector *c, int index, int64 position)
{
	FeedConnector *k = (FeedConnector *) c;

	streamext_inbox_seek(c, index, position);
	if (!k->closed)
		streamext_feed_link_wake(k->link, 0);
}

/* What was collected is in the journal when this returns true. */
static bool
feed_append(FeedConnector *k)
{
	Connector *c = &k->inbox.c;

	if (streamext_feed_intake_append(k->intake, k->inbox.journal))
	{
		k->append_at = 0;
		return true;
	}
	streamext_connector_report(c, "could not write the journal: %s",
							   errno == JOURNAL_AT_LIMIT ? "it has reached streamext.journal_limit" : strerror(errno));
	c->stalled = true;
	k->append_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), FEED_AGAIN_MS);
	streamext_feed_link_wake(k->link, FEED_AGAIN_MS);
	return false;
}

/* Takes in what the server has sent. False: there is no room for it. *more: something came, there may be more. */
static bool
feed_take_in(FeedConnector *k, bool *more)
{
	Connector  *c = &k->inbox.c;
	TimestampTz now = GetCurrentTimestamp();

	*more = false;
	if ((k->append_at != 0 && now < k->append_at) || !feed_append(k) ||
		streamext_journal_end(k->inbox.journal) - c->partitions[0].position > FEED_BEHIND)
	{
		k->held = true;
		return false;
	}
	if (k->held)
		streamext_feed_link_excuse(k->link);
	k->held = false;
	*more = streamext_feed_link_drive(k->link);
	if (!feed_append(k))
		return false;
	c->stalled = !streamext_feed_link_is_open(k->link);
	if (!c->stalled)
		c->error[0] = '\0';
	return true;
}

/* The journal is open and known. */
static bool
feed_is_ready(FeedConnector *k)
{
	Connector *c = &k->inbox.c;
	bool	   open = k->inbox.journal != NULL;

	if (k->closed || c->failed || !streamext_inbox_connect(&k->inbox))
		return false;
	if (!open)
		c->stalled = true;
	if (!k->loaded)
		streamext_feed_intake_load(k->intake, k->inbox.journal, k->kept.data, k->kept.size);
	k->loaded = true;
	return true;
}

/* The key is the id: behind the event's name and its NUL. */
static void
feed_record(StreamRecord *record)
{
	const JournalRecord *from = record->message;
	size_t				 event = strlen(from->topic);

	record->topic = from->topic;
	if (event + 1 < from->topic_size)
	{
		record->key = from->topic + event + 1;
		record->key_size = from->topic_size - event - 1;
	}
}

/* What is polled now is counted by the next checkpoint, or not yet. */
static void
feed_note_mark(FeedConnector *k, const StreamRecord *records, int n)
{
	FeedText before = k->marks[1];

	if (n == 0)
		return;
	if (!streamext_feed_intake_mark(k->intake, records, n, &before))
		return;
	k->marks[1] = k->marks[0];
	k->marked[1] = k->marked[0];
	k->marks[0] = before;
	k->marked[0] = k->inbox.partition.position;
}

static void
feed_mark(Connector *c, int64 position, StringInfo to)
{
	FeedConnector *k = (FeedConnector *) c;

	for (int i = 0; i < lengthof(k->marks); i++)
		if (k->marks[i].size > 0 && k->marked[i] <= position)
		{
			appendBinaryStringInfo(to, k->marks[i].data, k->marks[i].size);
			return;
		}
}

static int
feed_poll(Connector *c, StreamRecord *records, int max)
{
	FeedConnector *k = (FeedConnector *) c;
	bool		   more;
	int			   n;

	if (!k->closed)
		c->wait_fd = -1; /* as long as nothing is taken in: it would stay readable */
	if (!feed_is_ready(k) || k->inbox.paused)
		return 0;
	if (feed_take_in(k, &more))
		c->wait_fd = streamext_feed_link_fd(k->link);
	streamext_inbox_forget(&k->inbox);
	n = streamext_inbox_read(&k->inbox, records, max);
	if (n < 0)
	{
		streamext_inbox_read_failed(c, errno);
		return 0;
	}
	for (int i = 0; i < n; i++)
		feed_record(&records[i]);
	feed_note_mark(k, records, n);
	c->partitions[0].high_watermark = streamext_journal_end(k->inbox.journal);
	if (more || c->partitions[0].position < c->partitions[0].high_watermark)
		streamext_feed_link_wake(k->link, 0);
	return n;
}

/* An event's name; "" is none. */
static bool
feed_own_metadata(const StreamRecord *record, const StreamColumn *column, const char **value, Size *size)
{
	*value = record->topic;
	*size = record->topic != NULL ? strlen(record->topic) : 0;
	return *size > 0;
}

/*
 * What the server still has nobody knows, and what it has sent may be on its way: so until nothing has come for a moment, but not for ever where
 * something always comes.
 */
static bool
feed_flush_target(Connector *c, uint64 ticket, int64 *targets)
{
	FeedConnector *k = (FeedConnector *) c;
	bool		   more;
	int64		   end;
	TimestampTz	   now;

	if (!feed_is_ready(k) || !feed_take_in(k, &more) || c->stalled)
		return false;
	end = streamext_journal_end(k->inbox.journal);
	now = GetCurrentTimestamp();
	if (ticket != k->flush_ticket)
		k->flush_since = now;
	if (ticket != k->flush_ticket || more || end != k->flush_end)
		k->flush_quiet_since = now;
	k->flush_ticket = ticket;
	k->flush_end = end;
	if (now - k->flush_quiet_since < FEED_QUIET_MS * 1000 && now - k->flush_since < FEED_FLUSH_MS * 1000)
		return false;
	targets[0] = end;
	return true;
}

static bool
feed_find(Connector *c, SeekKind kind, TimestampTz time, int64 *positions)
{
	return !((FeedConnector *) c)->closed && streamext_inbox_find(c, kind, time, positions);
}

static void
feed_pause(Connector *c, bool paused)
{
	FeedConnector *k = (FeedConnector *) c;

	if (!k->closed && k->inbox.paused && !paused)
		streamext_feed_link_wake(k->link, 0);
	k->inbox.paused = paused;
	k->held = k->held || paused;
}

/* ---- another process reads the journal, and no more ---- */

static const ConnectorOps feed_again_ops;

static Connector *
feed_open_again(const ConnectorOpen *args)
{
	return streamext_inbox_open(&feed_again_ops, args, "feed");
}

static int
feed_poll_again(Connector *c, StreamRecord *records, int max)
{
	int n = streamext_inbox_poll(c, records, max);

	for (int i = 0; i < n; i++)
		feed_record(&records[i]);
	return n;
}

#define FEED_DEFINITION                                                                                  \
	.name = "feed", .number = 6, .journaled = true, .payloads = true, .options = streamext_feed_options, \
	.metadata = streamext_feed_metadata, .check_options = streamext_feed_check_options,                  \
	.configure = streamext_feed_configure, .own_metadata = feed_own_metadata

static const ConnectorOps feed_again_ops = {
	FEED_DEFINITION,
	.open = feed_open_again,
	.poll = feed_poll_again,
	STREAMEXT_INBOX_OPS,
};

const ConnectorOps streamext_feed_ops = {
	FEED_DEFINITION,
	.again = &feed_again_ops,
	.open = feed_open,
	.seek = feed_seek,
	.poll = feed_poll,
	.release = streamext_inbox_release,
	.flush_target = feed_flush_target,
	.find = feed_find,
	.ends = streamext_inbox_ends,
	.commit = streamext_inbox_commit,
	.mark = feed_mark,
	.pause = feed_pause,
	.close = feed_close,
};
