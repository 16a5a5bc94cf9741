/*
 * shared/registry.c
 *		The registry: where it is in this process, and the latch of who looks after it. Its start-up: shared/shmem.c.
 */
#include "base/streamext.h"

#include "storage/latch.h"

#include "shared/slots.h"

SharedState *streamext_shared = NULL;

void
streamext_wake_launcher(void)
{
	Latch *latch = streamext_shared->launcher_latch;

	pg_memory_barrier();
	if (streamext_shared->launcher_pid != 0 && latch != NULL)
		SetLatch(latch);
}
