/*
 * decode/write.h
 *		The way back: a row of a stream's columns becomes a payload of its format.
 */
#ifndef STREAMEXT_WRITE_H
#define STREAMEXT_WRITE_H

#include "base/streamext.h"

#include "lib/stringinfo.h"

#include "base/stream_def.h"

typedef struct PayloadWriter
{
	const struct FormatOps *format;
	TupleDesc				desc;	 /* of the columns that come from the payload, by their names in it */
	int					   *columns; /* desc->natts indexes into the stream's columns */
	Datum				   *values;
	bool				   *nulls;
} PayloadWriter;

/* Raises 0A000 where the format, or a column's path, cannot be written. */
extern PayloadWriter *streamext_write_begin(const StreamConfig *config);

/* Appends the payload; values by attribute number - 1. False: the row is NULL where the payload is its one column. Raises what output functions raise. */
extern bool streamext_write_row(PayloadWriter *writer, const Datum *values, const bool *nulls, StringInfo to);

/* ---- for the formats ---- */

extern bool streamext_write_json(const PayloadWriter *writer, StringInfo to);
extern bool streamext_write_text(const PayloadWriter *writer, StringInfo to);
extern bool streamext_write_raw(const PayloadWriter *writer, StringInfo to);

#endif /* STREAMEXT_WRITE_H */
