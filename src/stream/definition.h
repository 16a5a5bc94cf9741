/*
 * stream/definition.h
 *		The options of servers, user mappings, streams and columns: one table, checked at DDL time; and a stream's
 *		definition as read from the catalogue.
 */
#ifndef STREAMEXT_OPTIONS_H
#define STREAMEXT_OPTIONS_H

#include "base/streamext.h"
#include "access/tupdesc.h"
#include "decode/csv.h"

typedef enum ConnectorKind
{
	CONNECTOR_NONE, /* not one of our wrappers */
	CONNECTOR_KAFKA,
	CONNECTOR_MQTT,
	CONNECTOR_LOCAL
} ConnectorKind;

typedef enum StreamFormat
{
	FORMAT_JSON,
	FORMAT_CSV,	 /* the payload is one line of CSV */
	FORMAT_TEXT, /* the payload is the one column without metadata, by its type's input function */
	FORMAT_RAW,	 /* the payload is the one bytea column without metadata */
	FORMAT_ROW	 /* local streams: the row as INSERT made it */
} StreamFormat;

typedef enum StreamStart
{
	START_EARLIEST,
	START_LATEST,
	START_TIMESTAMP
} StreamStart;

typedef enum OnError
{
	ON_ERROR_DEAD_LETTER,
	ON_ERROR_SKIP,
	ON_ERROR_STOP
} OnError;

typedef enum JournalMode
{
	JOURNAL_NONE,
	JOURNAL_OS,
	JOURNAL_FSYNC
} JournalMode;

typedef enum MetadataKind
{
	METADATA_NONE, /* the column comes from the payload */
	METADATA_TOPIC,
	METADATA_PARTITION,
	METADATA_OFFSET,
	METADATA_KEY,
	METADATA_TIMESTAMP,
	METADATA_HEADERS, /* jsonb or text: {"name": "value", ...} */
	METADATA_QOS,
	METADATA_RETAINED,
	METADATA_TOPIC_LEVEL
} MetadataKind;

typedef struct StreamColumn
{
	AttrNumber	 attnum;
	bool		 dropped;
	char		*name;
	Oid			 type;
	int32		 typmod;
	bool		 notnull;
	MetadataKind metadata;
	int			 topic_level; /* from 1 */
	char		*path; /* option path, or NULL: the column's name is one literal JSON key, its place a CSV field */
} StreamColumn;

/* A stream's definition; everything palloc'd in the context current at the call. */
typedef struct StreamConfig
{
	Oid			  relid;
	Oid			  owner;
	Oid			  serverid;
	char		 *schema;
	char		 *name;
	ConnectorKind connector;
	List		 *server_options; /* DefElem, as stored */
	List		 *table_options;
	List		 *user_options; /* of the owner's user mapping (or PUBLIC's); secrets: never print */

	StreamFormat format;
	CsvDialect	 csv;
	List		*topics;	 /* of char *; mqtt: one filter */
	AttrNumber	 event_time; /* 0: broker's or arrival time */
	int64		 watermark_delay;
	int64		 idle_timeout;
	int64		 max_ahead;
	StreamStart	 start;
	TimestampTz	 start_time;
	int			 buffer_size; /* records */
	OnError		 on_error;
	JournalMode	 journal;
	int64		 journal_floor; /* for streamext_journal_open; 0 unless the worker has set it */
	int			 workers;
	int			 qos;			/* mqtt */
	int			 mqtt_protocol; /* 5 or 3 (3.1.1) */
	char		*client_id;		/* or NULL */

	TupleDesc	  desc;
	StreamColumn *columns;		 /* desc->natts */
	uint32		  row_type_hash; /* of the live columns' numbers and types: guards FORMAT_ROW payloads */
} StreamConfig;

/* The connector kind of a relation (CONNECTOR_NONE if it is not a stream of this extension). Needs a transaction. */
extern ConnectorKind streamext_stream_kind(Oid relid);

/* NULL if the relation is not a stream (any more). Raises on options that DDL would have refused. */
extern StreamConfig *streamext_stream_config(Oid relid);

/* Checks what options and columns mean together (called by the DDL hook after CREATE / ALTER FOREIGN TABLE); raises. */
extern void streamext_stream_check(Oid relid);

/* Raises: a stream has neither parent nor child. */
pg_noreturn extern void streamext_stream_refuse_inheritance(const char *name);

/* An option's text or NULL. */
extern const char *streamext_option(List *options, const char *name);

extern const char *streamext_connector_name(ConnectorKind kind);
extern const char *streamext_format_name(StreamFormat format);
extern const char *streamext_metadata_name(MetadataKind metadata);

#endif /* STREAMEXT_OPTIONS_H */
