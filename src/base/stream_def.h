/*
 * base/stream_def.h
 *		A stream's definition, as every room below reads it. What fills it is stream/definition.c.
 */
#ifndef STREAMEXT_STREAM_DEF_H
#define STREAMEXT_STREAM_DEF_H

#include "base/streamext.h"

#include "access/tupdesc.h"

#include "pgtime.h"

struct ConnectorOps;
struct FormatOps;

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

/* How a column's times are written; the words of the option time_format are in this order. */
typedef enum TimeFormat
{
	TIME_FORMAT_ISO, /* as the type's input function reads it */
	TIME_FORMAT_UNIX,
	TIME_FORMAT_UNIX_MS,
	TIME_FORMAT_UNIX_US,
	TIME_FORMAT_UNIX_NS,
	TIME_FORMAT_PATTERN /* of to_timestamp */
} TimeFormat;

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
	METADATA_HEADER, /* the one of the column's name among the headers of an envelope (decode/format.h) */
	METADATA_OWN	 /* text that ConnectorOps.metadata gives */
} MetadataKind;

/* A word of the column option metadata. A connector's are an array that ends with a name of NULL. */
typedef struct MetadataSpec
{
	const char	*name;
	MetadataKind kind;
	bool		 text;	/* METADATA_OWN: only text columns take it; else every type, by its input function */
	int			 limit; /* behind the word, a blank and a number from 1 to this; 0: nothing */
	bool		 named; /* behind the word, a blank and a name, which may be anything */
} MetadataSpec;

/* What a column has found in the payloads that its format could read; each is one of these. */
typedef struct ColumnCounts
{
	uint64 present;	 /* a value */
	uint64 missing;	 /* no field */
	uint64 null;	 /* a field without a value */
	uint64 rejected; /* a value that the column does not take */
} ColumnCounts;

typedef struct StreamColumn
{
	AttrNumber			attnum;
	bool				dropped;
	char			   *name;
	Oid					type;
	int32				typmod;
	bool				notnull;
	MetadataKind		metadata;
	const MetadataSpec *metadata_spec;	 /* NULL: METADATA_NONE */
	int					metadata_number; /* behind the word */
	TimeFormat			time_format;
	bool				time_format_given;
	char			   *time_pattern;  /* TIME_FORMAT_PATTERN */
	char			   *time_zone;	   /* of texts that name none; NULL: UTC */
	pg_tz			   *zone;		   /* the same, or NULL */
	bool				bad_is_null;   /* a value that cannot be read is NULL; else its record is rejected */
	char			   *encoding;	   /* of a bytea's text; NULL: as bytea's input function reads it */
	const char		   *metadata_name; /* behind the word, or NULL */
	char *path; /* option path, or NULL: the column's name is one literal JSON key, its place a CSV field */
} StreamColumn;

/* A stream's definition; everything palloc'd in the context current at the call. */
/* What only the connector understands: by ConnectorOps.configure, where it has such. */
typedef struct SourceOptions
{
	List	   *topics; /* of char *; mqtt: one filter */
	StreamStart start;
	TimestampTz start_time;
	JournalMode journal;
	int			partition_first; /* kafka: of every */
	int			partition_step;	 /* so many partitions this one is the server's; 0 of 1: all are */
	int			qos;			 /* mqtt */
	int			mqtt_protocol;	 /* 5 or 3 (3.1.1) */
	char	   *client_id;		 /* or NULL */
} SourceOptions;

/* How event time goes on; microseconds. */
typedef struct StreamTime
{
	int64 watermark_delay;
	int64 idle_timeout;
	int64 close_idle; /* silence after which the clock moves the watermark on; 0: it never does */
	int64 max_ahead;
} StreamTime;

/* Of the streams that continuous views have themselves. */
typedef struct StreamFrom
{
	/* of one over another view (view/inner.h) */
	Oid	   inner;		 /* whose closed windows its records are; InvalidOid: it is no such stream */
	uint64 inner_number; /* of all that these depend on */

	/* of one over UNION ALL (view/union.h) */
	List *parts;  /* StreamConfig of each shard; NIL: it is no such stream, or such a part itself */
	Oid	  origin; /* of a part: the stream whose source it reads; InvalidOid: it is no part */
	char *tag;	  /* of a part: what tells it from the view's other parts where topics and positions may be the same */
} StreamFrom;

typedef struct StreamConfig
{
	Oid						   relid;
	Oid						   owner;
	Oid						   serverid;
	char					  *schema;
	char					  *name;
	const struct ConnectorOps *connector;
	List					  *server_options; /* DefElem, as stored */
	List					  *table_options;
	List					  *user_options; /* of the owner's user mapping (or PUBLIC's); secrets: never print */

	const struct FormatOps *format;
	AttrNumber				event_time; /* 0: broker's or arrival time */
	StreamTime				time;
	int						buffer_size; /* records */
	OnError					on_error;
	bool					tombstones_rejected; /* records without a payload; else they are passed over */
	int						workers;
	const char			   *datestyle;	   /* under which values are read */
	bool					fields_nocase; /* names of fields match in whatever case their ASCII letters are */
	bool					header;		   /* records that only name the columns are passed over: csv */
	bool					trims;		   /* byte order marks, NULs and line ends around payloads do not count */

	SourceOptions source;

	StreamFrom from;

	TupleDesc	  desc;
	StreamColumn *columns; /* desc->natts */
} StreamConfig;

#endif /* STREAMEXT_STREAM_DEF_H */
