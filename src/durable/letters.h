/*
 * durable/letters.h
 *		Rejected records into the table streamext_internal.dead_letter, late ones into streamext_internal.late_row.
 */
#ifndef STREAMEXT_DEAD_LETTER_H
#define STREAMEXT_DEAD_LETTER_H

#include "base/streamext.h"
#include "decode/batch.h"
#include "decode/format.h"
#include "decode/decoder.h"

/*
 * Inserts those of batch->rejected that are not known and deletes the oldest beyond streamext.dead_letter_limit. A replay adds nothing: the letter that
 * is there gets the new reason. Needs a transaction.
 */
extern void streamext_dead_letters_write(Batch *batch, Decoder *decoder);

/* The same for batch->late, into streamext_internal.late_row and by streamext.late_row_limit; on_error has no say in it. */
extern void streamext_late_rows_write(Batch *batch, Decoder *decoder);

/*
 * Instead of both: rows of a batch that is about to be published are made ready (stage), which may raise; once it is published they are held (hold),
 * which cannot, and without that they are void (unstage). Of those held the newest are kept, as many as the tables keep. Settle writes them, in a transaction
 * of its own, in no other; if it raises they are held still. Until then nobody knows of them: the caller settles them before anybody could.
 */
extern void streamext_letters_stage(Batch *batch, Decoder *decoder);
extern void streamext_letters_unstage(void);
extern void streamext_letters_hold(void);
extern bool streamext_letters_are_held(void);
extern bool streamext_letters_are_due(void); /* they are many bytes, or held for long */
extern void streamext_letters_settle(Oid stream);

/*
 * The rest of a record whose topic, partition and position are known, from the table's columns payload (NULL: a tombstone) and record,
 * which it points into. False: they make no sense.
 */
extern bool streamext_dead_letter_record(StreamRecord *record, const FormatOps *format, const bytea *payload,
										 const bytea *rest);

/*
 * Who updates or deletes letters of a stream holds this lock until the end of the transaction, and has touched no letter before: several
 * processes do so, in whatever order. False: not to be had without waiting.
 */
extern bool streamext_dead_letters_lock(Oid stream, bool wait);

/* The letters' column `done`. */
extern List *streamext_dead_letter_done(Datum array);

/* Such an array, of one dimension, as statements on the tables take it. nulls: NULL if none is. */
extern Datum streamext_dead_letter_array(Datum *values, bool *nulls, int n, Oid type);

/* Text from outside as a text Datum, valid in the database's encoding. */
extern Datum streamext_dead_letter_text(const char *s);

#endif /* STREAMEXT_DEAD_LETTER_H */
