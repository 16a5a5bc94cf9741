/*
 * sql/pause.h
 *		Which streams and continuous views are paused: the table streamext.paused.
 */
#ifndef STREAMEXT_PAUSE_H
#define STREAMEXT_PAUSE_H

#include "base/streamext.h"
#include "nodes/pg_list.h"

#include "shared/shmem.h"

struct Worker;

/* All of this database that are; what is no more is deleted on the way. In a transaction with a snapshot, by a worker. */
extern List *streamext_paused_list(void);

/*
 * StreamSlot.pause: bit 0 says whether the stream shall not be read, the others count the changes. Whoever has read the table
 * in an older snapshot sees by them that somebody knew better since.
 */
static inline bool
streamext_pause_requested(StreamSlot *slot)
{
	return (pg_atomic_read_u32(&slot->pause) & 1) != 0;
}

extern void streamext_pause_request(StreamSlot *slot, bool pause);

/*
 * What the table says, unless StreamSlot.pause is not `seen` any more: who has changed it settles it at the end of the transaction. In
 * a transaction with a snapshot that is not older. Of new shared memory `seen` is 0.
 */
extern void streamext_pause_settle(struct Worker *w, uint32 seen);

#endif /* STREAMEXT_PAUSE_H */
