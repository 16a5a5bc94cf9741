/*
 * dead_letter.h
 *		Rejected records into the table streamext.dead_letter, late ones into streamext.late_row.
 */
#ifndef STREAMEXT_DEAD_LETTER_H
#define STREAMEXT_DEAD_LETTER_H

#include "streamext.h"
#include "batch.h"
#include "decoder.h"

/*
 * Inserts batch->rejected (ON CONFLICT DO NOTHING on stream, view, topic, partition, position, so that a replay adds nothing) and deletes
 * the oldest beyond streamext.dead_letter_limit. Needs a transaction.
 */
extern void streamext_dead_letters_write(Batch *batch, Decoder *decoder);

/* The same for batch->late, into streamext.late_row and by streamext.late_row_limit; on_error has no say in it. */
extern void streamext_late_rows_write(Batch *batch, Decoder *decoder);

#endif							/* STREAMEXT_DEAD_LETTER_H */
