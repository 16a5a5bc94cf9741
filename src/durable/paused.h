/*
 * durable/paused.h
 *		Which streams and continuous views are paused: the table streamext_internal.paused.
 */
#ifndef STREAMEXT_PAUSED_H
#define STREAMEXT_PAUSED_H

#include "base/streamext.h"
#include "nodes/pg_list.h"

#include "shared/shmem.h"

/* In a transaction with a snapshot. */
extern bool streamext_is_paused(Oid relid);

/* All of this database that are; what is no more is deleted on the way. In a transaction with a snapshot, by a worker. */
extern List *streamext_paused_list(void);

/*
 * What the table says, unless StreamSlot.ask.pause is not `seen` any more: who has changed it settles it at the end of the transaction. In
 * a transaction with a snapshot that is not older. Of new shared memory `seen` is 0.
 */
extern void streamext_pause_settle(StreamSlot *slot, uint32 seen);

#endif /* STREAMEXT_PAUSED_H */
