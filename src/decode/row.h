/*
 * decode/row.h
 *		Rows as INSERT made them (FORMAT_ROW): minimal tuples of the layout that their record names, whatever the stream's columns are by now.
 *
 * A row is read by its own layout (base/layout.h). Columns are matched by their numbers: one that was dropped since is passed over, one
 * that was added is NULL, or its default if that depends on nothing; a value whose column, or an attribute inside it, has another type now is cast
 * as PostgreSQL casts, and a row with a value that cannot be is no row of the stream.
 *
 * Records of versions before 1.1 have no layout but a 32-bit hash of the columns' types. Such a row is taken if and only if that hash is of the columns
 * as they are, each column's type is one whose bytes can be checked, and all its values pass.
 */
#ifndef STREAMEXT_ROW_H
#define STREAMEXT_ROW_H

#include "base/streamext.h"
#include "base/layout.h"
#include "base/record.h"
#include "base/stream_def.h"

typedef struct RowDecoder RowDecoder;

/* In the current memory context; needs a transaction. */
extern RowDecoder *streamext_row_decoder(const StreamConfig *config);

/* Before rows are decoded in a transaction: a type that the columns reach may have been altered. */
extern void streamext_row_decoder_refresh(RowDecoder *decoder);

/* True if decoding such a record runs casts, which may raise; false for all of the stream's layout as it is now. */
extern bool streamext_row_may_raise(RowDecoder *decoder, const StreamRecord *record);

/* Values by column, in the current memory context, pointing into `tuple`: payload_size bytes, aligned, to be filled here. NULL or the reason to reject. */
extern const char *streamext_row_decode(RowDecoder *decoder, const StreamRecord *record, void *tuple, Datum *values,
										bool *nulls, int *sqlstate);

/* The row as JSON text, by its own layout; NULL: it cannot be known, or no longer. Runs output functions, may raise. */
extern text *streamext_row_json(RowDecoder *decoder, const StreamRecord *record);

#endif /* STREAMEXT_ROW_H */
