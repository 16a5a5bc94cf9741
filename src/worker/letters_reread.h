/*
 * worker/letters_reread.h
 *		Dead letters of records that are read again.
 */
#ifndef STREAMEXT_DEAD_LETTER_REREAD_H
#define STREAMEXT_DEAD_LETTER_REREAD_H

#include "base/streamext.h"
#include "worker/worker_private.h"

/*
 * Takes the views that are about to count the batch at hand, which is decoded, out of the letters it passes. True: there were some, and
 * the transaction is to be committed before the batch is published. In a transaction with a snapshot.
 */
extern bool streamext_letters_reread(Worker *w);

/* The same for positions that move without records; in a transaction of its own, if there is need of one. */
extern void streamext_letters_passed(Worker *w);

/* The views that have counted a record which the stream is about to reject, as oid[] in text; NULL: none. */
extern const char *streamext_letters_ahead(Worker *w, const StreamRecord *record);

/* Letters of the shard's partitions are of a source that request `seek` leaves behind. In a transaction of its own. */
extern void streamext_letters_leave(Worker *w, int64 seek);

/* What is before this position was never the view's to count, in this partition of the slot; -1: all was. */
extern int64 streamext_letters_begin(const Worker *w, const ViewSlot *view, int index);

/* The index of the partition that a letter is of; -1: another shard's. */
extern int streamext_letters_partition(const Worker *w, const char *topic, int32 partition);

#endif /* STREAMEXT_DEAD_LETTER_REREAD_H */
