/*
 * shared/stream_slot.c
 *		Slots of streams and shards: made, found, removed, told. What the functions promise is in shared/stream_slot.h.
 *
 * Removal takes registry_lock exclusive, then the slot's own locks, so that nobody reads a state while it is freed, and
 * who waits on a slot's `progress` is told.
 */
#include "base/streamext.h"

#include "storage/latch.h"
#include "utils/timestamp.h"

#include "base/chunk.h"
#include "base/clip.h"
#include "shared/shmem.h"

/* ---------------------------------------------------------------- made and found */

void
streamext_stream_slot_init(StreamSlot *slot, LWLockPadded *locks)
{
	pg_atomic_init_u32(&slot->generation, 0);
	pg_atomic_init_u32(&slot->generation_seen, 0);
	pg_atomic_init_u32(&slot->readers_waiting, 0);
	pg_atomic_init_u32(&slot->pause, 0);
	pg_atomic_init_u32(&slot->stops, 0);
	pg_atomic_init_u32(&slot->catchup_requests, 0);
	pg_atomic_init_u32(&slot->windows_due, 0);
	pg_atomic_init_u32(&slot->outbox_due, 0);
	pg_atomic_init_u64(&slot->flush_requested, 0);
	pg_atomic_init_u64(&slot->flush_done, 0);
	pg_atomic_init_u64(&slot->settle_requested, 0);
	pg_atomic_init_u64(&slot->settle_done, 0);
	pg_atomic_init_u64(&slot->windows_requested, 0);
	pg_atomic_init_u64(&slot->windows_done, 0);
	pg_atomic_init_u64(&slot->journal_end, (uint64) -1);
	ConditionVariableInit(&slot->progress);
	slot->lock = &locks[0].lock;
	slot->buffer_lock = &locks[1].lock;
	slot->journal_lock = &locks[2].lock;
}

/* Needs registry_lock. */
static int
stream_slot_lookup_stream(Oid dboid, Oid relid, int shard)
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
	index = stream_slot_lookup_stream(dboid, relid, shard);
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

/* Everything but locks and the identity. */
static void
stream_slot_clear_stream(StreamSlot *slot)
{
	pg_atomic_write_u32(&slot->generation, 0);
	pg_atomic_write_u32(&slot->generation_seen, 0);
	pg_atomic_write_u32(&slot->pause, 0);
	pg_atomic_write_u64(&slot->flush_requested, 0);
	pg_atomic_write_u64(&slot->flush_done, 0);
	pg_atomic_write_u64(&slot->settle_requested, 0);
	pg_atomic_write_u64(&slot->settle_done, 0);
	pg_atomic_write_u64(&slot->windows_requested, 0);
	pg_atomic_write_u64(&slot->windows_done, 0);
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
	slot->silent_since = DT_NOEND;
	slot->batches = slot->rows_in = slot->bytes_in = slot->rejected = slot->tombstones = 0;
	slot->rate = 0;
	slot->columns = NULL;
	slot->ncolumns = 0;
	slot->checkpoint_seq = 0;
	slot->checkpoint_at = 0;
	slot->checkpoint_bytes = 0;
	slot->checkpoint_ms = 0;
	slot->checkpoint_pending = false;
}

/* Needs registry_lock exclusive. */
static int
stream_slot_make_stream(Oid dboid, Oid relid, int shard)
{
	int index = stream_slot_lookup_stream(dboid, relid, shard);

	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	for (int i = 0; index < 0 && i < streamext_shared->nstreams; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];

		if (slot->in_use)
			continue;
		stream_slot_clear_stream(slot);
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
	index = stream_slot_make_stream(dboid, relid, shard);
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

int
streamext_announce_stream(Oid dboid, Oid relid, int shard, bool make)
{
	int index;

	LWLockAcquire(streamext_shared->registry_lock, make ? LW_EXCLUSIVE : LW_SHARED);
	index = make ? stream_slot_make_stream(dboid, relid, shard) : stream_slot_lookup_stream(dboid, relid, shard);
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

/* ---------------------------------------------------------------- removed */

/* Needs registry_lock exclusive. */
static void
stream_slot_free_stream(int index)
{
	StreamSlot	 *slot = &streamext_shared->streams[index];
	StreamBuffer *buffer;

	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	LWLockAcquire(slot->lock, LW_EXCLUSIVE);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (view->in_use && view->stream == index)
			streamext_view_slot_free(view);
	}
	if (slot->partitions != NULL)
		streamext_chunk_free(slot->partitions);
	if (slot->columns != NULL)
		streamext_chunk_free(slot->columns);
	LWLockAcquire(slot->buffer_lock, LW_EXCLUSIVE);
	buffer = slot->buffer;
	slot->in_use = false;
	stream_slot_clear_stream(slot);
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
		stream_slot_free_stream(index);
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
		stream_slot_free_stream(index);
	LWLockRelease(streamext_shared->registry_lock);
	return same;
}

/* ---------------------------------------------------------------- states, requests and wake-ups */

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

void
streamext_pause_request(StreamSlot *slot, bool pause)
{
	uint32 old = pg_atomic_read_u32(&slot->pause);

	while (!pg_atomic_compare_exchange_u32(&slot->pause, &old, streamext_pause_next(old, pause)))
		;
}
