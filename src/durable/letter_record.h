/*
 * durable/letter_record.h
 *		The column `record` of streamext_internal.dead_letter.
 */
#ifndef STREAMEXT_LETTER_RECORD_H
#define STREAMEXT_LETTER_RECORD_H

#include "base/streamext.h"
#include "decode/batch.h"

#define DEAD_LETTER_PAYLOAD (1024 * 1024) /* bytes that are kept, of keys and headers too */

/* In the current memory context. *whole: nothing was too large to be kept. */
extern bytea *streamext_letter_record(const Batch *batch, StreamRecord *record, bool *whole);

#endif /* STREAMEXT_LETTER_RECORD_H */
