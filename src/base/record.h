/*
 * base/record.h
 *		One message as its source delivered it.
 */
#ifndef STREAMEXT_RECORD_H
#define STREAMEXT_RECORD_H

#include "base/streamext.h"

/* One message as the source delivered it. Pointers are good until release. */
typedef struct StreamRecord
{
	const char			   *payload; /* NULL: a tombstone */
	uint32					payload_size;
	uint32					key_size;
	const char			   *key;			 /* or NULL */
	const char			   *topic;			 /* NUL-terminated */
	int32					partition;		 /* number in the source (for metadata, dead letters) */
	int32					partition_index; /* into Connector.partitions and all position vectors */
	int64					position;		 /* Kafka offset; journal position */
	int64					next_position;	 /* the position vector's entry once this record is counted */
	TimestampTz				timestamp;		 /* broker's or arrival time */
	uint8					qos;
	bool					retained;
	uint32					row_type_hash; /* payloads that are rows without a layout (decode/row.h), else 0 */
	const struct RowLayout *layout;		   /* payloads that are rows: theirs, interned; else NULL */
	void				   *message;	   /* the connector's own */
	const char			   *headers;	   /* JSON, for the buffer: the decoder's, if a column takes them; else NULL */
} StreamRecord;

/* What tells one record from another that has come to stand at its position. */
typedef struct RecordMark
{
	int64		position; /* -1: none */
	TimestampTz timestamp;
	uint32		crc; /* of key and payload */
} RecordMark;

#endif /* STREAMEXT_RECORD_H */
