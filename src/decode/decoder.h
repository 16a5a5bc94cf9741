/*
 * decode/decoder.h
 *		From records to rows: payloads of a format and metadata into a batch's column vectors.
 *
 * Untrusted bytes never raise out of here: a record that cannot be decoded is rejected with SQLSTATE and reason and the
 * others go on. Values that need a type's input function are converted column by column inside one subtransaction, row by
 * row after a failure. Time zone of the decode is UTC, DateStyle ISO, MDY: the caller sets them (streamext_decoder_enter).
 */
#ifndef STREAMEXT_DECODER_H
#define STREAMEXT_DECODER_H

#include "base/streamext.h"
#include "base/identity.h"
#include "base/moment.h"
#include "decode/batch.h"

typedef struct Decoder Decoder;

/* Types' input functions are looked up here: needs a transaction. */
extern Decoder *streamext_decoder_create(StreamConfig *config, MemoryContext cxt);

/*
 * Decodes batch->records[0 .. nrecords) into rows; needs a transaction. `now` is the clock for max_ahead. Rejects are in
 * batch->rejected. The connector (for headers) may be NULL.
 */
extern void streamext_decoder_run(Decoder *decoder, Batch *batch, TimestampTz now);

/* Adds what the column has found in the payloads of the last run. */
extern void streamext_decoder_count(const Decoder *decoder, int att, ColumnCounts *counts);

/* A record that is neither decoded nor rejected: a tombstone, if the stream's option tombstones says so, or a header. */
extern bool streamext_decoder_ignores(const StreamConfig *config, const StreamRecord *record);

/* A record's bytes as a person should see them in dead_letters: the payload, a row as JSON text. Palloc'd. */
extern bytea *streamext_decoder_payload(Decoder *decoder, const StreamRecord *record);

extern void streamext_decoder_free(Decoder *decoder);

/* Becomes the stream's owner, whose types' code is run, with the settings of decoding. Not for create and payload, which do so themselves. */
extern IdentityScope streamext_decoder_enter(const Decoder *decoder);

#endif /* STREAMEXT_DECODER_H */
