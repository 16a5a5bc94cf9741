/*-------------------------------------------------------------------------
 *
 * shared/shmem.c
 *		The registry in shared memory: request and start-up, slots, the gate between readers and writer.
 *
 * One allocation holds SharedState, then the StreamSlots, then the ViewSlots. The tranche `streamext` has the registry lock, the
 * chunk allocator's lock, and three locks for each stream slot.
 *
 * Removal takes registry_lock exclusive, then the slot's own locks, so that nobody reads a state while it is freed, and
 * who waits on a slot's `progress` is told.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/chunk.h"
#include "shared/shmem.h"

#define SHMEM_TRANCHE "streamext"
#define SHMEM_FIXED_LOCKS 2
#define SHMEM_SLOT_LOCKS 3

/* How long the writer lets waiting readers go first at most, and how long it sleeps between looks. */
#define GATE_BOUND_US 5000
#define GATE_SLEEP_US 50

SharedState *streamext_shared = NULL;

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
shmem_init_stream(StreamSlot *slot, LWLockPadded *locks)
{
	pg_atomic_init_u32(&slot->generation, 0);
	pg_atomic_init_u32(&slot->generation_seen, 0);
	pg_atomic_init_u32(&slot->readers_waiting, 0);
	pg_atomic_init_u32(&slot->pause, 0);
	pg_atomic_init_u32(&slot->stops, 0);
	pg_atomic_init_u32(&slot->catchup_requests, 0);
	pg_atomic_init_u32(&slot->windows_due, 0);
	pg_atomic_init_u64(&slot->flush_requested, 0);
	pg_atomic_init_u64(&slot->flush_done, 0);
	pg_atomic_init_u64(&slot->journal_end, (uint64) -1);
	ConditionVariableInit(&slot->progress);
	slot->lock = &locks[0].lock;
	slot->buffer_lock = &locks[1].lock;
	slot->journal_lock = &locks[2].lock;
}

static void
shmem_init(SharedState *shared, LWLockPadded *locks)
{
	char *at = (char *) shared;

	memset(shared, 0, shmem_registry_size());
	shared->registry_lock = &locks[0].lock;
	pg_atomic_init_u32(&shared->rights, 0);
	pg_atomic_init_u64(&shared->test_clock, 0);
	shared->nstreams = streamext_max_streams;
	shared->nviews = streamext_max_views;
	at += MAXALIGN(sizeof(SharedState));
	shared->streams = (StreamSlot *) at;
	at += MAXALIGN(sizeof(StreamSlot) * streamext_max_streams);
	shared->views = (ViewSlot *) at;
	for (int i = 0; i < shared->nstreams; i++)
		shmem_init_stream(&shared->streams[i], &locks[SHMEM_FIXED_LOCKS + SHMEM_SLOT_LOCKS * i]);
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

/* ---------------------------------------------------------------- stream slots */

/* Needs registry_lock. */
static int
shmem_lookup_stream(Oid dboid, Oid relid, int shard)
{
	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];

		if (slot->in_use && slot->relid == relid && slot->dboid == dboid && slot->shard == shard)
			return i;
	}
	return -1;
}

int
streamext_find_stream(Oid dboid, Oid relid, int shard)
{
	int index;

	if (streamext_shared == NULL)
		return -1;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	index = shmem_lookup_stream(dboid, relid, shard);
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

/* Everything but locks and the identity. */
static void
shmem_clear_stream(StreamSlot *slot)
{
	pg_atomic_write_u32(&slot->generation, 0);
	pg_atomic_write_u32(&slot->generation_seen, 0);
	pg_atomic_write_u32(&slot->pause, 0);
	pg_atomic_write_u64(&slot->flush_requested, 0);
	pg_atomic_write_u64(&slot->flush_done, 0);
	pg_atomic_write_u64(&slot->journal_end, (uint64) -1);
	slot->worker_pid = 0;
	slot->worker_latch = NULL;
	slot->launched_at = slot->started_at = 0;
	slot->owner = InvalidOid;
	slot->restarts = 0;
	slot->catchup_pid = 0;
	slot->catchup_latch = NULL;
	slot->catchup_started_at = slot->hold_until = 0;
	slot->catchup_failed = slot->catchup_done = false;
	slot->layout++;
	slot->state = STREAM_STARTING;
	slot->last_error[0] = '\0';
	slot->last_error_at = 0;
	slot->source = 0;
	slot->seek = 0;
	slot->partitions = NULL;
	slot->npartitions = slot->partitions_capacity = 0;
	slot->buffer = NULL;
	slot->buffer_size = 0;
	slot->watermark = DT_NOBEGIN;
	slot->idle = false;
	slot->batches = slot->rows_in = slot->bytes_in = slot->rejected = slot->tombstones = 0;
	slot->rate = 0;
	slot->checkpoint_seq = 0;
	slot->checkpoint_at = 0;
	slot->checkpoint_bytes = 0;
	slot->checkpoint_ms = 0;
	slot->checkpoint_pending = false;
}

/* Needs registry_lock exclusive. */
static int
shmem_make_stream(Oid dboid, Oid relid, int shard)
{
	int index = shmem_lookup_stream(dboid, relid, shard);

	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	for (int i = 0; index < 0 && i < streamext_shared->nstreams; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];

		if (slot->in_use)
			continue;
		shmem_clear_stream(slot);
		slot->dboid = dboid;
		slot->relid = relid;
		slot->shard = shard;
		slot->in_use = true;
		index = i;
	}
	return index;
}

int
streamext_add_stream(Oid dboid, Oid relid, int shard)
{
	int index;

	streamext_require_preload();
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = shmem_make_stream(dboid, relid, shard);
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

int
streamext_announce_stream(Oid dboid, Oid relid, int shard, bool make)
{
	int index;

	LWLockAcquire(streamext_shared->registry_lock, make ? LW_EXCLUSIVE : LW_SHARED);
	index = make ? shmem_make_stream(dboid, relid, shard) : shmem_lookup_stream(dboid, relid, shard);
	if (index >= 0)
	{
		StreamSlot *slot = &streamext_shared->streams[index];

		/* 0 means reserved */
		if (pg_atomic_add_fetch_u32(&slot->generation, 1) == 0)
			pg_atomic_add_fetch_u32(&slot->generation, 1);
		streamext_wake_worker(slot);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

/* ---------------------------------------------------------------- view slots */

static int
shmem_lookup_view(Oid dboid, Oid viewoid, int shard)
{
	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (view->in_use && view->viewoid == viewoid && view->dboid == dboid && view->shard == shard && !view->retained)
			return i;
	}
	return -1;
}

int
streamext_find_view(Oid dboid, Oid viewoid, int shard)
{
	int index;

	if (streamext_shared == NULL)
		return -1;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	index = shmem_lookup_view(dboid, viewoid, shard);
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

static int
shmem_add_view(Oid dboid, Oid viewoid, int stream, int64 start_position, bool reserved)
{
	StreamSlot *slot = &streamext_shared->streams[stream];
	int			index;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = shmem_lookup_view(dboid, viewoid, slot->shard);
	for (int i = 0; index < 0 && i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (view->in_use)
			continue;
		memset(view, 0, sizeof(ViewSlot));
		view->dboid = dboid;
		view->viewoid = viewoid;
		view->stream = stream;
		view->shard = slot->shard;
		view->status = VIEW_STARTING;
		view->start_position = start_position;
		view->reserved = reserved;
		view->in_use = true;
		index = i;
	}
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

int
streamext_add_view(Oid dboid, Oid viewoid, int stream, int64 start_position)
{
	return shmem_add_view(dboid, viewoid, stream, start_position, false);
}

int
streamext_reserve_view(Oid dboid, Oid viewoid, int stream, int64 start_position)
{
	return shmem_add_view(dboid, viewoid, stream, start_position, true);
}

/* Needs registry_lock and the stream's lock, both exclusive. With what it retains. */
static void
shmem_free_view(ViewSlot *view)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->stream].lock, LW_EXCLUSIVE));
	if (view->retained_slot > 0)
		shmem_free_view(&streamext_shared->views[view->retained_slot - 1]);
	if (view->definition != 0)
		streamext_state_reset(&view->state);
	if (view->positions != NULL)
		streamext_chunk_free(view->positions);
	memset(view, 0, sizeof(ViewSlot));
}

void
streamext_settle_view(Oid dboid, Oid viewoid, int shard, bool committed)
{
	int index;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = shmem_lookup_view(dboid, viewoid, shard);
	if (index >= 0 && streamext_shared->views[index].reserved)
	{
		ViewSlot *view = &streamext_shared->views[index];

		view->reserved = false;
		if (!committed)
		{
			StreamSlot *slot = &streamext_shared->streams[view->stream];

			LWLockAcquire(slot->lock, LW_EXCLUSIVE);
			shmem_free_view(view);
			LWLockRelease(slot->lock);
		}
	}
	LWLockRelease(streamext_shared->registry_lock);
}

void
streamext_free_retained(ViewSlot *view)
{
	StreamSlot *slot = &streamext_shared->streams[view->stream];

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	streamext_stream_lock_exclusive(slot);
	if (view->retained_slot > 0)
		shmem_free_view(&streamext_shared->views[view->retained_slot - 1]);
	view->retained_slot = 0;
	LWLockRelease(slot->lock);
	LWLockRelease(streamext_shared->registry_lock);
}

bool
streamext_remove_view(int index)
{
	ViewSlot *view = &streamext_shared->views[index];
	bool	  removed = true;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	if (view->in_use)
	{
		StreamSlot *slot = &streamext_shared->streams[view->stream];

		LWLockAcquire(slot->lock, LW_EXCLUSIVE);
		removed = view->catchup != CATCHUP_ACTIVE;
		if (removed)
			shmem_free_view(view);
		LWLockRelease(slot->lock);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return removed;
}

/* Needs registry_lock exclusive. */
static void
shmem_free_stream(int index)
{
	StreamSlot	 *slot = &streamext_shared->streams[index];
	StreamBuffer *buffer;

	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (view->in_use && view->stream == index)
			shmem_free_view(view);
	}
	if (slot->partitions != NULL)
		streamext_chunk_free(slot->partitions);
	LWLockAcquire(slot->buffer_lock, LW_EXCLUSIVE);
	buffer = slot->buffer;
	slot->in_use = false;
	shmem_clear_stream(slot);
	slot->dboid = slot->relid = InvalidOid;
	slot->shard = 0;
	if (buffer != NULL)
		streamext_buffer_destroy(buffer);
	LWLockRelease(slot->buffer_lock);
	LWLockRelease(slot->lock);
	ConditionVariableBroadcast(&slot->progress);
}

bool
streamext_remove_stream(int index)
{
	StreamSlot *slot = &streamext_shared->streams[index];
	bool		removed;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	removed = slot->catchup_pid == 0;
	if (slot->in_use && removed)
		shmem_free_stream(index);
	LWLockRelease(streamext_shared->registry_lock);
	return removed;
}

bool
streamext_remove_stream_at(int index, uint32 generation)
{
	StreamSlot *slot = &streamext_shared->streams[index];
	bool		same;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	same = slot->in_use && slot->catchup_pid == 0 && pg_atomic_read_u32(&slot->generation) == generation;
	if (same)
		shmem_free_stream(index);
	LWLockRelease(streamext_shared->registry_lock);
	return same;
}

/* ---------------------------------------------------------------- the gate */

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

/* ---------------------------------------------------------------- states and wake-ups */

void
streamext_stream_set_state(StreamSlot *slot, StreamState state, const char *message)
{
	if (slot->state == state && message == NULL)
		return;
	streamext_stream_lock_exclusive(slot);
	slot->state = state;
	if (message != NULL)
	{
		streamext_clip(slot->last_error, message, STREAMEXT_MAX_MESSAGE);
		slot->last_error_at = GetCurrentTimestamp();
	}
	LWLockRelease(slot->lock);
	ConditionVariableBroadcast(&slot->progress);
}

const char *
streamext_stream_state_name(StreamState state)
{
	switch (state)
	{
		case STREAM_STARTING:
		case STREAM_WAITING:
			return "waiting";
		case STREAM_RUNNING:
			return "running";
		case STREAM_CATCHING_UP:
			return "catching_up";
		case STREAM_PAUSED:
			return "paused";
		case STREAM_STALLED:
			return "stalled";
		case STREAM_DIVERGED:
			return "diverged";
		case STREAM_FULL:
			return "full";
		case STREAM_STANDBY:
			return "standby";
		case STREAM_FAILED:
			return "failed";
	}
	return "unknown";
}

const char *
streamext_view_status_name(ViewStatus status)
{
	switch (status)
	{
		case VIEW_STARTING:
		case VIEW_WAITING:
			return "waiting";
		case VIEW_RUNNING:
			return "running";
		case VIEW_CATCHING_UP:
			return "catching_up";
		case VIEW_PAUSED:
			return "paused";
		case VIEW_FULL:
			return "full";
		case VIEW_FAILED:
			return "failed";
	}
	return "unknown";
}

/* Latches are in PGPROCs, so one that is no longer its worker's is still a latch: setting it costs somebody a look. */
void
streamext_wake_worker(StreamSlot *slot)
{
	Latch *latch = slot->worker_latch;
	Latch *catchup_latch = slot->catchup_latch;

	pg_memory_barrier();
	if (slot->worker_pid != 0 && latch != NULL)
		SetLatch(latch);
	if (slot->catchup_pid != 0 && catchup_latch != NULL)
		SetLatch(catchup_latch);
}

void
streamext_wake_launcher(void)
{
	Latch *latch = streamext_shared->launcher_latch;

	pg_memory_barrier();
	if (streamext_shared->launcher_pid != 0 && latch != NULL)
		SetLatch(latch);
}

void
streamext_wake_all_workers(void)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
		if (streamext_shared->streams[i].in_use)
			streamext_wake_worker(&streamext_shared->streams[i]);
	LWLockRelease(streamext_shared->registry_lock);
}
