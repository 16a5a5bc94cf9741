/*
 * shared/gate.c
 *		The gate between a stream's readers and its writer. What the functions promise is in shared/gate.h.
 */
#include "base/streamext.h"

#include "shared/gate.h"

/* How long the writer lets waiting readers go first at most, and how long it sleeps between looks. */
#define GATE_BOUND_US 5000
#define GATE_SLEEP_US 50

void
streamext_stream_lock_shared(StreamSlot *slot)
{
	pg_atomic_fetch_add_u32(&slot->readers_waiting, 1);
	LWLockAcquire(slot->lock, LW_SHARED);
	pg_atomic_fetch_sub_u32(&slot->readers_waiting, 1);
}

/*
 * LWLocks are not fair: a writer that releases and takes the lock again at once beats the readers it has just woken. Readers that wait
 * are counted, and the writer stays away until they are in (or the bound has passed: they may wait behind something else).
 */
void
streamext_stream_lock_exclusive(StreamSlot *slot)
{
	for (int waited = 0; waited < GATE_BOUND_US && pg_atomic_read_u32(&slot->readers_waiting) > 0;
		 waited += GATE_SLEEP_US)
		pg_usleep(GATE_SLEEP_US);
	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
}
