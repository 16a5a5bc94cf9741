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

#include "stream/definition.h"

/* One message as the source delivered it. Pointers are good until release. */
typedef struct StreamRecord
{
	const char *payload; /* NULL: a tombstone */
	uint32		payload_size;
	uint32		key_size;
	const char *key;			 /* or NULL */
	const char *topic;			 /* NUL-terminated */
	int32		partition;		 /* number in the source (for metadata, dead letters) */
	int32		partition_index; /* into Connector.partitions and all position vectors */
	int64		position;		 /* Kafka offset; journal position */
	int64		next_position;	 /* the position vector's entry once this record is counted */
	TimestampTz timestamp;		 /* broker's or arrival time */
	uint8		qos;
	bool		retained;
	uint64		row_type_hash; /* FORMAT_ROW, else 0 */
	void	   *message;	   /* the connector's own */
	const char *headers;	   /* JSON, for the buffer: the decoder's, if a column takes them; else NULL */
} StreamRecord;

/* What tells one record from another that has come to stand at its position. */
typedef struct RecordMark
{
	int64		position; /* -1: none */
	TimestampTz timestamp;
	uint32		crc; /* of key and payload */
} RecordMark;

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
	bool					   stalled;	 /* source unreachable */
	bool					   failed;	 /* will not come back without an operator */
	bool					   diverged; /* failed, because this is not the source that was read before */
	bool					   gone;	 /* at close: the stream was dropped, the source need keep nothing for it */
	char					   error[STREAMEXT_MAX_MESSAGE]; /* last error, no secrets; "" none */
	uint64					   errors;						 /* counts them, so that the worker sees a new one */
	TimestampTz				   reported_at;					 /* of `error` */
	int						   nevents;						 /* since the worker took the last ones */
	ConnectorEvent			   events[STREAMEXT_CONNECTOR_EVENTS];
} Connector;

typedef struct ConnectorOps
{
	const char *name;
	bool		replayable; /* a new view can read from `start` */

	/* Connects in the background; positions are at the stream's `start` unless seek follows. Palloc'd in cxt. */
	Connector *(*open)(StreamConfig *config, int shard, int shards, MemoryContext cxt);

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

	/* Everything below these positions is durable elsewhere: commit to the broker's group, trim the journal. May be NULL. */
	void (*commit)(Connector *c, const int64 *positions, int n);

	/* jsonb text of a record's headers, palloc'd, or NULL. May be NULL. */
	char *(*headers)(Connector *c, const StreamRecord *record);

	/* Stop or go on taking from the source (memory full, pause); poll returns 0 meanwhile. */
	void (*pause)(Connector *c, bool paused);

	/* Ends the client; may be called again. The Connector itself goes with its context. */
	void (*close)(Connector *c);
} ConnectorOps;

extern const ConnectorOps streamext_kafka_ops;
extern const ConnectorOps streamext_mqtt_ops;
extern const ConnectorOps streamext_local_ops;

extern const ConnectorOps *streamext_connector_ops(ConnectorKind kind);

/* ---- for the connectors ---- */

/* Closes it when the context is reset or the process exits, whatever comes first; shared memory is still there then. */
extern void streamext_connector_guard(Connector *c, MemoryContext cxt);

/* Sets c->error (clipped, made valid in the database's encoding) and counts it; the same text again counts every 10 s. */
extern void streamext_connector_report(Connector *c, const char *format, ...) pg_attribute_printf(2, 3);

/* Notes an event; beyond STREAMEXT_CONNECTOR_EVENTS between two looks they are dropped. */
extern void streamext_connector_event(Connector *c, const char *kind, int index, int64 missed, const char *format, ...)
	pg_attribute_printf(5, 6);

/*
 * A secret of the user mapping: option `name`, or the trimmed contents of the file that option `file_name` names (below the data
 * directory); palloc'd. NULL if there is none; *problem then says what went wrong, or is NULL.
 */
extern char *streamext_connector_secret(const StreamConfig *config, const char *name, const char *file_name,
										char **problem);

/* Appends a header's name or value as a JSON string: text if it is that in the database's encoding, else as bytea prints it; NULL as null. */
extern void streamext_connector_header_text(StringInfo json, const char *value, size_t size);

#endif /* STREAMEXT_CONNECTOR_H */
