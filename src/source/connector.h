/*
 * source/connector.h
 *		What a source of records looks like to a worker: one const ops struct for each client library.
 *
 * Call order: open, then any of partitions/seek, then poll and release in turn, flush_target at any time, close.
 * All calls come from the worker's main thread. A client library's own threads make no PostgreSQL call and are created with
 * all signals masked. Each call is bounded to about 1 s. open, poll and seek report trouble in Connector.error (and state),
 * they raise only for what an operator must mend (bad option, out of memory); a source that is away is not an error but
 * `stalled`, and the connector goes on trying by itself.
 */
#ifndef STREAMEXT_CONNECTOR_H
#define STREAMEXT_CONNECTOR_H

#include "base/streamext.h"

#include "lib/stringinfo.h"

#include "base/option.h"
#include "base/record.h"
#include "base/stream_def.h"
#include "source/journal/journal.h"

/* Something that happened to the source, for streamext.stream_events. */
typedef struct ConnectorEvent
{
	const char *kind;	 /* constant */
	int			index;	 /* of the partition, -1: none in particular */
	int64		missed;	 /* records that are gone, up to the partition's position; 0 for other kinds */
	bool		counted; /* in PartitionSlot.missed */
	char		detail[STREAMEXT_MAX_MESSAGE];
} ConnectorEvent;

#define STREAMEXT_CONNECTOR_EVENTS 16

/* What streamext.seek names; SEEK_OFFSET is not for connectors. */
typedef enum SeekKind
{
	SEEK_EARLIEST,
	SEEK_LATEST,
	SEEK_TIME,
	SEEK_OFFSET
} SeekKind;

typedef struct ConnectorPartition
{
	char  topic[256];
	int32 partition;
	int64 position;		  /* next to be delivered */
	int64 high_watermark; /* the source's end as last heard, -1 unknown */

	/*
	 * Of the last record ever delivered, by connectors that can find another one in its place (then they are diverged). The
	 * worker keeps it with the position and sets it before the first poll of a new connector.
	 */
	RecordMark last;
} ConnectorPartition;

typedef struct Connector
{
	const struct ConnectorOps *ops;
	StreamConfig			  *config;
	int						   shard, shards;
	int						   wait_fd;		/* readable when poll may have something; -1: none, poll each tick */
	int						   npartitions; /* may grow; existing indexes never change */
	ConnectorPartition		  *partitions;
	bool					   stalled; /* source unreachable */
	bool					   failed;	/* will not come back without an operator */
	bool refused;  /* the last error will not pass by itself: no such topic, no right; it is tried again all the same */
	bool diverged; /* failed, because this is not the source that was read before */
	bool gone;	   /* at close: the stream was dropped, the source need keep nothing for it */
	bool delivered; /* the last poll's records live: until release nothing is polled or sought */
	bool known; /* set by the worker: the stream has had partitions here before, so another one is new to the source */
	char error[STREAMEXT_MAX_MESSAGE]; /* last error, no secrets; "" none */
	uint64		   errors;			   /* counts them, so that the worker sees a new one */
	TimestampTz	   reported_at;		   /* of `error` */
	int			   nevents;			   /* since the worker took the last ones */
	ConnectorEvent events[STREAMEXT_CONNECTOR_EVENTS];
} Connector;

struct SourceSample;

/* What open is given. The journal's place is there whether or not the connector keeps one; what it points to outlives the connector. */
typedef struct ConnectorOpen
{
	StreamConfig *config;
	int			  shard, shards;
	MemoryContext cxt;
	JournalPlace  journal;
	const char	 *mark; /* the last checkpoint's, by ConnectorOps.mark; good during the call */
	uint32		  mark_size;
} ConnectorOpen;

typedef struct ConnectorOps
{
	const char *name;	/* of the foreign data wrapper */
	int			number; /* in what checkpoints hold: never given to another */

	/* ---- what it is; every other file asks these, none for the name ---- */

	bool replayable; /* a new view can read from `start` */
	bool journaled;	 /* it is read from the stream's journal: positions count bytes, views begin at its end */
	bool pushed;	 /* other processes than the stream's worker append to the journal, under its lock */
	bool gateway;	 /* a process of its server takes the records in, whoever sends them (gateway/gateway.h) */
	bool writable;	 /* INSERT and COPY */
	bool published;	 /* writable: rows wait in the outbox (sink/outbox.h) and are sent there when they are committed */
	bool silent;	 /* rows go there and none come back: nothing to read, and nothing to count */
	bool sink;		 /* its foreign tables take rows of views: there is a SinkOps of the same name (sink/sink.h) */
	bool payloads;	 /* records are payloads of the option format; else rows */
	bool blocks;	 /* pushed: its journal's records hold several of the stream's each (source/journal/block.h) */
	bool bodies;	 /* payloads are bodies of events: the option body_format names what the option format would */
	bool seeks;		 /* streamext.seek of a time, of an offset */
	bool sets_latch; /* who has something for the worker sets its latch, there is no descriptor to wait on */
	bool shards_keep_source; /* with another number of workers positions mean what they meant */
	bool partitioned;		 /* by topic: a partition's number alone does not name it */

	/* How a second process reads, beside the worker and without a client of its own; NULL: as the worker does. */
	const struct ConnectorOps *again;

	/* ---- definitions; may raise ---- */

	const OptionSpec   *options;
	const MetadataSpec *metadata; /* NULL: its columns have none */

	/* What the options of one place mean together. May be NULL, as all of these. */
	void (*check_options)(OptionPlace place, List *options);
	/* Fills what StreamConfig has for the connector; options and columns are there. Also by workers: values that DDL let through. */
	void (*configure)(StreamConfig *config);
	/* What options and columns mean together: after CREATE and ALTER FOREIGN TABLE. */
	void (*check)(const StreamConfig *config);
	/* NOTICEs of what is valid and cannot work, or not as meant: after CREATE FOREIGN TABLE. */
	void (*doubt)(const StreamConfig *config);
	/* Which of the stream's workers reads a partition; -1: none does. May be NULL: there is one worker, or nobody asks. */
	int (*shard_of)(const StreamConfig *config, const char *topic, int32 partition);
	/* Options of a stream before and after ALTER. */
	void (*check_change)(const char *name, List *before, List *after);

	/* The value of a METADATA_OWN column, good as long as the record; false: NULL. Does not raise. The record may come from a dead letter. */
	bool (*own_metadata)(const StreamRecord *record, const StreamColumn *column, const char **value, Size *size);

	/* ---- at work ---- */

	/* Connects in the background; positions are at the stream's `start` unless seek follows. Palloc'd in cxt. */
	Connector *(*open)(const ConnectorOpen *args);

	/* Next record of partition `index` shall be `position`. Kafka may get -1: the stream's start. */
	void (*seek)(Connector *c, int index, int64 position);

	/*
	 * Up to max records without waiting; 0: none now. Positions advance. Partitions are added only by open and by a poll that
	 * returns 0, so that the worker can seek them before they deliver; partitions may move then, indexes do not change.
	 */
	int (*poll)(Connector *c, StreamRecord *records, int max);
	/* Ends the life of the last poll's records. */
	void (*release)(Connector *c);

	/*
	 * The position each partition must reach so that everything the source held at the call is counted: fills
	 * targets[npartitions]; false: not known yet, call again after the next poll. `ticket` numbers the flush (mqtt: its
	 * marker's name). Adds no partitions.
	 */
	bool (*flush_target)(Connector *c, uint64 ticket, int64 *targets);

	/*
	 * The positions of the first record, the end, or the first record of this time or later (SEEK_TIME: only Kafka); false: not
	 * known yet, call again after the next poll. Adds no partitions.
	 */
	bool (*find)(Connector *c, SeekKind kind, TimestampTz time, int64 *positions);

	/*
	 * Asks where n partitions end now: sets their high_watermark. What the source takes from then on is not in it. False: not known at the
	 * moment, or, of none, whether there are any. Adds no partitions.
	 */
	bool (*ends)(Connector *c, const int *indexes, int n);

	/* Everything below these positions is durable elsewhere: commit to the broker's group, trim the journal. May be NULL. */
	void (*commit)(Connector *c, const int64 *positions, int n);

	/*
	 * Appends what a checkpoint of this position (of partition 0) shall keep for the next open; nothing: what the last one has kept stays. For sources
	 * that are asked to go on by something else than a position. Does not wait. May be NULL.
	 */
	void (*mark)(Connector *c, int64 position, StringInfo to);

	/* jsonb text of a record's headers, palloc'd, or NULL. May be NULL. */
	char *(*headers)(Connector *c, const StreamRecord *record);
	/* Why there can be no such text, palloc'd, and its SQLSTATE; NULL: there can. NULL itself: the source's own limits see to that. */
	const char *(*headers_refused)(const StreamRecord *record, int *sqlstate);

	/* Stop or go on taking from the source (memory full, pause); poll returns 0 meanwhile. */
	void (*pause)(Connector *c, bool paused);

	/* Ends the client; may be called again. The Connector itself goes with its context. */
	void (*close)(Connector *c);

	/* ---- for a session ---- */

	/* Looks at the source once, beside any stream (source/sample.h). NULL: there is nothing to ask, records are brought to it. */
	void (*sample)(const StreamConfig *config, struct SourceSample *sample);
} ConnectorOps;

#define KIND(kind) extern const ConnectorOps streamext_##kind##_ops;
#include "source/kinds.h"
#undef KIND

/* ---- the order of calls, for the worker ---- */

static inline int
streamext_connector_poll(Connector *c, StreamRecord *records, int max)
{
	int n;

	Assert(!c->delivered && max > 0 && max <= STREAMEXT_BATCH_ROWS);
	n = c->ops->poll(c, records, max);
	Assert(n >= 0 && n <= max);
	c->delivered = n > 0;
	return n;
}

static inline void
streamext_connector_release(Connector *c)
{
	c->ops->release(c);
	c->delivered = false;
}

static inline void
streamext_connector_seek(Connector *c, int index, int64 position)
{
	Assert(!c->delivered && index >= 0 && index < c->npartitions && position >= -1);
	c->ops->seek(c, index, position);
}

/* All of them; NULL ends it. */
extern const ConnectorOps *const streamext_connectors[];

/* Of the streams that continuous views over others have (view/inner.h); no foreign table is of it, so it is not among these. */
extern const ConnectorOps streamext_view_ops;

/* The names of those that take INSERT, for messages; palloc'd. */
extern const char *streamext_connector_writable(void);

/* ---- for the connectors ---- */

extern const char *const streamext_words_identification[]; /* of ssl_endpoint_identification_algorithm */

/* Closes it when the context is reset or the process exits, whatever comes first; shared memory is still there then. */
extern void streamext_connector_guard(Connector *c, MemoryContext cxt);

/* Sets c->error (clipped, made valid in the database's encoding) and counts it; the same text again counts every 10 s. */
extern void streamext_connector_report(Connector *c, const char *format, ...) pg_attribute_printf(2, 3);

/* NOTICEs of a server's option that holds `address:port`s separated by commas: `one` is all that it takes. */
extern void streamext_connector_doubt_addresses(const StreamConfig *config, const char *option, bool one);

/* What others wrote, in place: STREAMEXT_MAX_MESSAGE bytes at most, valid in the database's encoding, control characters as blanks. */
extern void streamext_connector_clean(char *text);

/* Notes an event; beyond STREAMEXT_CONNECTOR_EVENTS between two looks they are dropped. */
extern void streamext_connector_event(Connector *c, const char *kind, int index, int64 missed, const char *format, ...)
	pg_attribute_printf(5, 6);

/*
 * A secret of the user mapping: option `name`, or the trimmed contents of the file that option `file_name` names (below the data
 * directory); palloc'd. NULL if there is none; *problem then says what went wrong, or is NULL.
 */
extern char *streamext_connector_secret(const StreamConfig *config, const char *name, const char *file_name,
										char **problem);

/* The same of a file that an option of any place names. */
extern char *streamext_connector_secret_file(List *options, const char *file_name, char **problem);

/* Appends a header's name or value as a JSON string: text if it is that in the database's encoding, else as bytea prints it; NULL as null. */
extern void streamext_connector_header_text(StringInfo json, const char *value, size_t size);

/* A record's headers by ConnectorOps.headers; NULL: it has none, or *refused says why they are not to be had. */
extern char *streamext_connector_headers(const ConnectorOps *ops, Connector *c, const StreamRecord *record,
										 const char **refused, int *sqlstate);

/* Whether StreamRecord.key is a key that users are shown. Connectors without such a key keep there what is their own. */
extern bool streamext_connector_has_keys(const ConnectorOps *ops);

#endif /* STREAMEXT_CONNECTOR_H */
