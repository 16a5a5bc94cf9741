/*
 * decode/avro.h
 *		Avro's binary encoding as far as Flume's events are written in it, read strictly: what does not lie within the bytes, and a length or
 *		number of items that could not, is a fault. Pure: no allocation, no error.
 *
 * An event is a map of texts and bytes: blocks of pairs, each with their number before it and the last one 0; then a length and the body.
 */
#ifndef STREAMEXT_AVRO_H
#define STREAMEXT_AVRO_H

#include "base/streamext.h"

typedef struct AvroReader
{
	const char *p, *end;
} AvroReader;

/* The items of a map or an array; begin with zeros. */
typedef struct AvroItems
{
	int64		left;	   /* of the block at hand */
	const char *block_end; /* where it says that it ends, or NULL */
	bool		ended;
} AvroItems;

typedef struct AvroEvent
{
	AvroReader	headers; /* the map */
	const char *body;
	uint32		body_size;
} AvroEvent;

/* All move the reader behind what they have read. False: a fault, and the reader is anywhere. */

extern bool streamext_avro_long(AvroReader *reader, int64 *value);
extern bool streamext_avro_bytes(AvroReader *reader, const char **bytes, uint32 *size);
/* Whether there is one more item, which the caller then reads. */
extern bool streamext_avro_item(AvroReader *reader, AvroItems *items, bool *more);
/* A map of texts or bytes, passed over. */
extern bool streamext_avro_skip_map(AvroReader *reader);
extern bool streamext_avro_event(AvroReader *reader, AvroEvent *event);

/* For what the functions above write nobody needs more. */
#define AVRO_LONG_SIZE 10
/* The bytes that the number takes. */
extern int streamext_avro_put_long(char to[AVRO_LONG_SIZE], int64 value);

#endif /* STREAMEXT_AVRO_H */
