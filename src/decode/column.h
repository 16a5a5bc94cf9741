/*
 * decode/column.h
 *		What the formats and the decoder share: the decoder at work, and the ways of a value into its column's vector.
 *
 * A value's bytes either become a Datum at once, by the fast paths here, or are noted as a text that the decoder's second pass gives
 * to the type's input function. Nothing here raises but for want of memory, and nothing allocates for a value: memory is the batch's.
 */
#ifndef STREAMEXT_DECODE_COLUMN_H
#define STREAMEXT_DECODE_COLUMN_H

#include "base/streamext.h"

#include <math.h>

#include "catalog/pg_type.h"

#include "decode/batch.h"
#include "decode/decoder.h"
#include "decode/format.h"
#include "decode/time.h"
#include "decode/value.h"

#define DECODE_ARENA_BLOCK (64 * 1024)

/* How a column's values are made. */
typedef enum ColumnWay
{
	WAY_NULL, /* dropped column */
	WAY_BOOL,
	WAY_INT, /* int2, int4, int8 */
	WAY_FLOAT4,
	WAY_FLOAT8,
	WAY_TEXT, /* text, varchar without length */
	WAY_TIMESTAMPTZ,
	WAY_UNIX,  /* numbers of seconds or parts of one since 1970 */
	WAY_INPUT, /* the type's input function */
	WAY_METADATA
} ColumnWay;

typedef struct DecoderColumn
{
	ColumnWay			way;
	const StreamColumn *column;
	int					wanted; /* the format's: where in a parsed payload the value is */
	ValueInput		   *input;
	bool				structured; /* from JSON: an array or composite type */
	bool				no_number;	/* times that are not written as numbers */
	char			  **text;		/* [row] to be converted, or NULL; made when first needed, cleared for each batch */
	int					ntext;
	int missing, null, rejected, unseen; /* of the batch's; unseen: of records that an earlier column has rejected */
} DecoderColumn;

struct Decoder
{
	MemoryContext  cxt;
	MemoryContext  scratch; /* of a few values that are being converted; empty between batches */
	StreamConfig  *config;
	void		  *format; /* what FormatOps.open made */
	int			   natts;
	DecoderColumn *columns;
	int			   npayload, nmetadata;
	int			  *payload;	 /* columns that the format fills */
	int			  *metadata; /* those that the decoder does */

	/* of the batch at hand */
	Batch *batch;
	char  *arena; /* free rest of the current block */
	Size   arena_left;
	bool  *bad; /* [row] */
	int	   nbad;
	int	   ninternal; /* of these, by internal errors */
	int	   nread;	  /* records that the format could read, whatever becomes of them */
};

/* What is around the payload and not of it, as the option trim has it, is no part of it any more. */
extern void streamext_decode_trim(StreamRecord *record);

/* Notes a text for the conversion pass; NULL or the reason why no type could take it. */
extern const char *streamext_decode_note(Decoder *decoder, DecoderColumn *col, int row, const char *s, Size size);

/* Text or bytea from a record's bytes; NULL or the reason to reject, with *sqlstate. */
extern const char *streamext_decode_bytes(Decoder *decoder, DecoderColumn *col, const char *s, Size size, int row,
										  Datum *value, int *sqlstate);

/* A number since 1970 into the column's type; NULL or the reason to reject, with *sqlstate. */
extern const char *streamext_decode_unix(const DecoderColumn *col, const char *s, Size size, Datum *value,
										 int *sqlstate);

/* The moment at which clocks of the zone show the time. */
extern TimestampTz streamext_decode_local(TimestampTz shown, pg_tz *zone);

/* size bytes of the batch's memory, 8-aligned, without an allocation each. */
static inline void *
decode_alloc(Decoder *decoder, Size size)
{
	void *result;

	size = MAXALIGN(size);
	if (unlikely(size > decoder->arena_left))
	{
		if (size > DECODE_ARENA_BLOCK / 4)
			return MemoryContextAlloc(decoder->batch->cxt, size);
		decoder->arena = MemoryContextAlloc(decoder->batch->cxt, DECODE_ARENA_BLOCK);
		decoder->arena_left = DECODE_ARENA_BLOCK;
	}
	result = decoder->arena;
	decoder->arena += size;
	decoder->arena_left -= size;
	return result;
}

static inline Datum
decode_text(Decoder *decoder, const char *s, Size size)
{
	text *t = decode_alloc(decoder, VARHDRSZ + size);

	SET_VARSIZE(t, VARHDRSZ + size);
	memcpy(VARDATA(t), s, size);
	return PointerGetDatum(t);
}

static inline bool
decode_int_fits(Oid type, int64 i)
{
	return type == INT8OID	 ? true
		   : type == INT4OID ? i >= PG_INT32_MIN && i <= PG_INT32_MAX
							 : i >= PG_INT16_MIN && i <= PG_INT16_MAX;
}

static inline Datum
decode_int_datum(Oid type, int64 i)
{
	return type == INT8OID ? Int64GetDatum(i) : type == INT4OID ? Int32GetDatum((int32) i) : Int16GetDatum((int16) i);
}

/*
 * A value's text into its vector, by the fast paths of text, times and float4, else noted for the conversion pass. NULL or the
 * reason to reject, with *sqlstate.
 */
static inline const char *
decode_text_value(Decoder *decoder, DecoderColumn *col, const char *s, uint32 size, int row, Datum *value,
				  int *sqlstate)
{
	const char *reason;

	if (col->way == WAY_TEXT)
	{
		*value = decode_text(decoder, s, size);
		return NULL;
	}
	if (col->way == WAY_TIMESTAMPTZ)
	{
		TimestampTz t;
		bool		zoned;

		if (streamext_parse_zoned_time(s, size, &t, &zoned))
		{
			if (unlikely(col->column->zone != NULL) && !zoned)
				t = streamext_decode_local(t, col->column->zone);
			*value = TimestampTzGetDatum(t);
			return NULL;
		}
	}
	if (col->way == WAY_UNIX)
		return streamext_decode_unix(col, s, size, value, sqlstate);
	if (col->way == WAY_FLOAT4 && size < 64)
	{
		char  number[64];
		char *stop;
		float f;

		memcpy(number, s, size);
		number[size] = '\0';
		errno = 0;
		f = strtof(number, &stop);
		if (errno == 0 && f != 0 && isfinite(f) && stop == number + size &&
			(number[0] == '-' || (number[0] >= '0' && number[0] <= '9')))
		{
			*value = Float4GetDatum(f);
			return NULL;
		}
	}
	reason = streamext_decode_note(decoder, col, row, s, size);
	if (reason != NULL)
		*sqlstate = ERRCODE_UNTRANSLATABLE_CHARACTER;
	return reason;
}

/* Counts a value that could not be read; what comes behind it is not looked at. i: in decoder->payload. */
extern void streamext_decode_rejected(Decoder *decoder, int i);

/* Whether a value that could not be read is to be NULL: then it is, and *sqlstate is again what it was before. */
static inline bool
decode_forgive(const DecoderColumn *col, Datum *value, bool *isnull, int *sqlstate)
{
	if (!col->column->bad_is_null)
		return false;
	*value = (Datum) 0;
	*isnull = true;
	*sqlstate = ERRCODE_INVALID_TEXT_REPRESENTATION;
	return true;
}

/* For the formats: the value of payload column i in the row could not be read. True: it is NULL for that, and the record goes on. */
static inline bool
decode_pass_over(Decoder *decoder, int i, int row, const char **column, int *sqlstate)
{
	int			   att = decoder->payload[i];
	DecoderColumn *col = &decoder->columns[att];

	*column = col->column->name;
	if (decode_forgive(col, &decoder->batch->values[att][row], &decoder->batch->nulls[att][row], sqlstate))
	{
		col->rejected++;
		return true;
	}
	streamext_decode_rejected(decoder, i);
	return false;
}

#endif /* STREAMEXT_DECODE_COLUMN_H */
