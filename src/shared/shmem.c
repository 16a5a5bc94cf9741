/*
 * shared/shmem.c
 *		The registry in shared memory: request and start-up.
 *
 * One allocation holds SharedState, then the StreamSlots, then the ViewSlots. The tranche `streamext` has the registry lock, the
 * chunk allocator's lock, that of the feeds' directory, and three locks for each stream slot.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

#include "base/chunk.h"
#include "shared/shmem.h"

#define SHMEM_TRANCHE "streamext"
#define SHMEM_FIXED_LOCKS 3
#define SHMEM_SLOT_LOCKS 3

static shmem_request_hook_type shmem_previous_request_hook = NULL;
static shmem_startup_hook_type shmem_previous_startup_hook = NULL;

/* ---------------------------------------------------------------- request and start-up */

static Size
shmem_registry_size(void)
{
	Size size = MAXALIGN(sizeof(SharedState));

	size = add_size(size, MAXALIGN(mul_size(sizeof(StreamSlot), streamext_max_streams)));
	size = add_size(size, MAXALIGN(mul_size(sizeof(ViewSlot), streamext_max_views)));
	return size;
}

static void
shmem_request(void)
{
	if (shmem_previous_request_hook)
		shmem_previous_request_hook();
	RequestAddinShmemSpace(add_size(shmem_registry_size(), streamext_chunk_shmem_size()));
	RequestNamedLWLockTranche(SHMEM_TRANCHE, SHMEM_FIXED_LOCKS + SHMEM_SLOT_LOCKS * streamext_max_streams);
}

static void
shmem_init(SharedState *shared, LWLockPadded *locks)
{
	char *at = (char *) shared;

	memset(shared, 0, shmem_registry_size());
	shared->registry_lock = &locks[0].lock;
	streamext_teller_init(shared->tellers);
	streamext_feed_init(&shared->feeds, &locks[2].lock);
	pg_atomic_init_u64(&shared->births, 0);
	pg_atomic_init_u32(&shared->rights, 0);
	pg_atomic_init_u64(&shared->test_clock, 0);
	streamext_gateway_slots_init(shared->gateways);
	shared->nstreams = streamext_max_streams;
	shared->nviews = streamext_max_views;
	at += MAXALIGN(sizeof(SharedState));
	shared->streams = (StreamSlot *) at;
	at += MAXALIGN(sizeof(StreamSlot) * streamext_max_streams);
	shared->views = (ViewSlot *) at;
	for (int i = 0; i < shared->nstreams; i++)
		streamext_stream_slot_init(&shared->streams[i], &locks[SHMEM_FIXED_LOCKS + SHMEM_SLOT_LOCKS * i]);
}

static void
shmem_startup(void)
{
	LWLockPadded *locks;
	bool		  found;

	if (shmem_previous_startup_hook)
		shmem_previous_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	locks = GetNamedLWLockTranche(SHMEM_TRANCHE);
	streamext_shared = ShmemInitStruct("streamext", shmem_registry_size(), &found);
	if (!found)
		shmem_init(streamext_shared, locks);
	streamext_chunk_shmem_init(&locks[1].lock);
	LWLockRelease(AddinShmemInitLock);
}

void
streamext_shmem_install_hooks(void)
{
	shmem_previous_request_hook = shmem_request_hook;
	shmem_request_hook = shmem_request;
	shmem_previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}
