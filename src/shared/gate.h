/*
 * shared/gate.h
 *		The gate between a stream's readers and its writer.
 */
#ifndef STREAMEXT_GATE_H
#define STREAMEXT_GATE_H

#include "base/streamext.h"
#include "shared/slots.h"

/*
 * Shared lock on a stream for a reader, with the gate that keeps the writer from starving it; release with LWLockRelease.
 * The writer calls lock_exclusive, which first yields (bounded) while readers wait.
 */
extern void streamext_stream_lock_shared(StreamSlot *slot);
extern void streamext_stream_lock_exclusive(StreamSlot *slot);

#endif /* STREAMEXT_GATE_H */
