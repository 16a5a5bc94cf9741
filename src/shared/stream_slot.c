/*
 * shared/stream_slot.c
 *		Slots of streams and shards: made, found, removed, told. What the functions promise is in shared/stream_slot.h.
 *
 * Removal takes registry_lock exclusive, then the slot's own locks, so that nobody reads a state while it is freed, and
 * who waits on a slot's `progress` is told.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timestamp.h"

#include "base/chunk.h"
#include "base/clip.h"
#include "shared/database.h"
#include "shared/shmem.h"

/* ---------------------------------------------------------------- made and found */

void
streamext_stream_slot_init(StreamSlot *slot, LWLockPadded *locks)
{
	pg_atomic_init_u32(&slot->ask.generation, 0);
	pg_atomic_init_u32(&slot->ask.generation_seen, 0);
	pg_atomic_init_u32(&slot->readers_waiting, 0);
	pg_atomic_init_u32(&slot->ask.pause, 0);
	pg_atomic_init_u32(&slot->ask.stops, 0);
	pg_atomic_init_u32(&slot->ask.catchup_requests, 0);
	pg_atomic_init_u32(&slot->ask.windows_due, 0);
	pg_atomic_init_u32(&slot->ask.outbox_due, 0);
	pg_atomic_init_u64(&slot->ask.flush_requested, 0);
	pg_atomic_init_u64(&slot->ask.flush_done, 0);
	pg_atomic_init_u64(&slot->ask.settle_requested, 0);
	pg_atomic_init_u64(&slot->ask.settle_done, 0);
	pg_atomic_init_u64(&slot->ask.windows_requested, 0);
	pg_atomic_init_u64(&slot->ask.windows_done, 0);
	pg_atomic_init_u64(&slot->journal_end, (uint64) -1);
	streamext_times_init(&slot->times);
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
	for (int i = 0; i < streamext_shared->streams_end; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];

		if (slot->id.in_use && slot->id.relid == relid && slot->id.dboid == dboid && slot->id.shard == shard)
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
	uint32 layout = slot->counted.layout;

	pg_atomic_write_u32(&slot->ask.generation, 0);
	pg_atomic_write_u32(&slot->ask.generation_seen, 0);
	pg_atomic_write_u32(&slot->ask.pause, 0);
	pg_atomic_write_u64(&slot->ask.flush_requested, 0);
	pg_atomic_write_u64(&slot->ask.flush_done, 0);
	pg_atomic_write_u64(&slot->ask.settle_requested, 0);
	pg_atomic_write_u64(&slot->ask.settle_done, 0);
	pg_atomic_write_u64(&slot->ask.windows_requested, 0);
	pg_atomic_write_u64(&slot->ask.windows_done, 0);
	pg_atomic_write_u64(&slot->journal_end, (uint64) -1);
	memset(&slot->worker, 0, sizeof(StreamProcess));
	memset(&slot->catchup, 0, sizeof(StreamProcess));
	memset(&slot->status, 0, sizeof(StreamStatus));
	slot->status.state = STREAM_STARTING;
	slot->status.since = GetCurrentTimestamp();
	memset(&slot->counted, 0, sizeof(StreamCounted));
	slot->counted.layout = layout + 1;
	slot->counted.watermark = DT_NOBEGIN;
	slot->quiet = (StreamQuiet){ .own = DT_NOBEGIN, .silent_since = DT_NOEND };
	slot->follow.origin = InvalidOid;
	pg_atomic_write_u64(&slot->follow.kept, (uint64) -1);
	memset(&slot->handover, 0, sizeof(StreamHandover));
	slot->windows = (StreamWindows){ .mark = DT_NOBEGIN };
	memset(&slot->checkpoint, 0, sizeof(StreamCheckpoint));
	streamext_times_clear(&slot->times);
	slot->payer = slot->owner = InvalidOid;
	slot->buffer = NULL;
	slot->buffer_size = 0;
	slot->columns = NULL;
	slot->ncolumns = 0;
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

		if (slot->id.in_use)
			continue;
		stream_slot_clear_stream(slot);
		slot->id.dboid = dboid;
		slot->id.relid = relid;
		slot->id.shard = shard;
		slot->id.in_use = true;
		streamext_shared->streams_end = Max(streamext_shared->streams_end, i + 1);
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

bool
streamext_stream_charge(int index, Oid role, int most)
{
	StreamSlot *slot = &streamext_shared->streams[index];
	int			others = 0;
	bool		granted;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	for (int i = 0; i < streamext_shared->nstreams && OidIsValid(role); i++)
		others += i != index && streamext_shared->streams[i].id.in_use && streamext_shared->streams[i].payer == role;
	granted = !OidIsValid(role) || slot->payer == role || others < most;
	if (granted)
		slot->payer = role;
	LWLockRelease(streamext_shared->registry_lock);
	return granted;
}

bool
streamext_stream_own(int index, Oid owner, int most)
{
	StreamSlot *slot = &streamext_shared->streams[index];
	int			others = 0;
	bool		granted;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	for (int i = 0; i < streamext_shared->nstreams && most > 0; i++)
		others += i != index && streamext_shared->streams[i].id.in_use && streamext_shared->streams[i].owner == owner;
	/* after a restart nobody may have looked yet whose it is */
	granted = most == 0 || others < most || slot->owner == owner ||
			  (!OidIsValid(slot->owner) && pg_atomic_read_u32(&slot->ask.generation) != 0);
	if (granted)
		slot->owner = owner;
	LWLockRelease(streamext_shared->registry_lock);
	return granted;
}

bool
streamext_stream_follow(int index, Oid origin)
{
	StreamFollow *follow = &streamext_shared->streams[index].follow;
	bool		  other;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	other = follow->origin != origin;
	follow->origin = origin;
	if (other)
		pg_atomic_write_u64(&follow->kept, (uint64) -1);
	LWLockRelease(streamext_shared->registry_lock);
	return other;
}

void
streamext_stream_keep(StreamSlot *slot, Oid origin, int64 position)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	if (slot->follow.origin == origin)
		pg_atomic_write_u64(&slot->follow.kept, (uint64) position);
	LWLockRelease(streamext_shared->registry_lock);
}

int64
streamext_stream_followed(const StreamSlot *stream, const List *views, int64 limit)
{
	List *missing = list_copy(views);

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];
		uint64		kept;

		if (!slot->id.in_use || slot->id.dboid != stream->id.dboid || slot->follow.origin != stream->id.relid)
			continue;
		missing = list_delete_oid(missing, slot->id.relid);
		kept = pg_atomic_read_u64(&slot->follow.kept);
		limit = Min(limit, kept == (uint64) -1 ? 0 : (int64) kept);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return missing != NIL ? 0 : limit;
}

void
streamext_stream_wake_followers(const StreamSlot *stream)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];

		if (slot->id.in_use && slot->id.dboid == stream->id.dboid && slot->follow.origin == stream->id.relid)
			streamext_wake_worker(slot);
	}
	LWLockRelease(streamext_shared->registry_lock);
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
		if (pg_atomic_add_fetch_u32(&slot->ask.generation, 1) == 0)
			pg_atomic_add_fetch_u32(&slot->ask.generation, 1);
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

		if (view->id.in_use && view->id.stream == index)
			streamext_view_slot_free(view);
	}
	if (slot->counted.partitions != NULL)
		streamext_chunk_free(slot->counted.partitions);
	if (slot->columns != NULL)
		streamext_chunk_free(slot->columns);
	LWLockAcquire(slot->buffer_lock, LW_EXCLUSIVE);
	buffer = slot->buffer;
	slot->id.in_use = false;
	while (streamext_shared->streams_end > 0 && !streamext_shared->streams[streamext_shared->streams_end - 1].id.in_use)
		streamext_shared->streams_end--;
	stream_slot_clear_stream(slot);
	slot->id.dboid = slot->id.relid = InvalidOid;
	slot->id.shard = 0;
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
	removed = slot->catchup.pid == 0;
	if (slot->id.in_use && removed)
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
	same = slot->id.in_use && slot->catchup.pid == 0 && pg_atomic_read_u32(&slot->ask.generation) == generation;
	if (same)
		stream_slot_free_stream(index);
	LWLockRelease(streamext_shared->registry_lock);
	return same;
}

/* ---------------------------------------------------------------- processes */

bool
streamext_stream_enter(int index, Oid dboid, Oid relid, int shard, bool catchup)
{
	StreamSlot	  *slot = &streamext_shared->streams[index];
	StreamProcess *process = catchup ? &slot->catchup : &slot->worker;
	bool		   mine;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	mine = slot->id.in_use && process->pid == 0 && slot->id.dboid == dboid && slot->id.relid == relid &&
		   slot->id.shard == shard && !streamext_database_leaving(dboid);
	if (mine)
	{
		process->latch = MyLatch;
		if (!catchup)
			slot->quiet = (StreamQuiet){ .silent_since = DT_NOEND };
		pg_write_barrier();
		process->pid = MyProcPid;
		if (process->started_at != 0)
			process->restarts++;
		process->started_at = GetCurrentTimestamp();
		process->failed = false;
	}
	LWLockRelease(streamext_shared->registry_lock);
	return mine;
}

/* The launcher waits before it tries a failed one again. With the lock. */
static void
stream_slot_end_worker(StreamSlot *slot, bool failed)
{
	StreamState state = slot->status.state;

	slot->quiet = (StreamQuiet){ .silent_since = DT_NOEND };
	if (STREAMEXT_STATE_FAILED(state))
		return;
	if (failed)
	{
		slot->status.state = STREAM_FAILED;
		slot->status.since = GetCurrentTimestamp();
		streamext_stream_set_error(slot, "the worker has ended; see the server's log");
	}
	else if (state != STREAM_PAUSED && state != STREAM_WAITING)
	{
		slot->status.state = STREAM_STARTING;
		slot->status.since = GetCurrentTimestamp();
	}
}

void
streamext_stream_leave(StreamSlot *slot, bool catchup, bool failed)
{
	StreamProcess *process = catchup ? &slot->catchup : &slot->worker;

	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	Assert(process->pid == MyProcPid);
	if (!catchup)
	{
		LWLockAcquire(slot->lock, LW_EXCLUSIVE);
		stream_slot_end_worker(slot, failed);
		LWLockRelease(slot->lock);
	}
	process->failed = failed;
	process->pid = 0;
	process->latch = NULL;
}

/* ---------------------------------------------------------------- what a worker finds in the catalogue */

void
streamext_stream_reset(StreamSlot *slot, uint64 source)
{
	PartitionSlot *partitions = slot->counted.partitions;
	uint32		   layout = slot->counted.layout;

	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	Assert(LWLockHeldByMeInMode(slot->lock, LW_EXCLUSIVE));
	memset(&slot->counted, 0, sizeof(StreamCounted));
	slot->counted.layout = layout + 1;
	slot->counted.watermark = DT_NOBEGIN;
	slot->counted.source = source;
	slot->quiet.idle = false;
	if (partitions != NULL)
		streamext_chunk_free(partitions);
}

void
streamext_stream_set_buffer(StreamSlot *slot, StreamBuffer *buffer, int size)
{
	Assert(LWLockHeldByMeInMode(slot->lock, LW_EXCLUSIVE));
	Assert(LWLockHeldByMeInMode(slot->buffer_lock, LW_EXCLUSIVE));
	slot->buffer = buffer;
	slot->buffer_size = size;
}

void
streamext_stream_set_columns(StreamSlot *slot, ColumnCounts *columns, int n)
{
	Assert(LWLockHeldByMeInMode(slot->lock, LW_EXCLUSIVE));
	slot->columns = columns;
	slot->ncolumns = columns != NULL ? n : 0;
}

void
streamext_stream_hold(StreamSlot *slot, TimestampTz until)
{
	Assert(LWLockHeldByMeInMode(slot->lock, LW_EXCLUSIVE));
	slot->handover.hold_until = until;
}

/* ---------------------------------------------------------------- states, requests and wake-ups */

void
streamext_stream_set_state(StreamSlot *slot, StreamState state, const char *message)
{
	if (slot->status.state == state && message == NULL)
		return;
	streamext_stream_lock_exclusive(slot);
	if (slot->status.state != state)
		slot->status.since = GetCurrentTimestamp();
	slot->status.state = state;
	if (message != NULL)
	{
		streamext_clip(slot->status.last_error, message, STREAMEXT_MAX_MESSAGE);
		slot->status.last_error_at = GetCurrentTimestamp();
	}
	LWLockRelease(slot->lock);
	ConditionVariableBroadcast(&slot->progress);
}

void
streamext_stream_set_error(StreamSlot *slot, const char *message)
{
	Assert(LWLockHeldByMeInMode(slot->lock, LW_EXCLUSIVE));
	streamext_clip(slot->status.last_error, message, STREAMEXT_MAX_MESSAGE);
	slot->status.last_error_at = GetCurrentTimestamp();
}

TimestampTz
streamext_stream_note_trouble(StreamSlot *slot, const char *message)
{
	TimestampTz noted;

	streamext_stream_lock_exclusive(slot);
	streamext_stream_set_error(slot, message);
	noted = slot->status.last_error_at;
	LWLockRelease(slot->lock);
	return noted;
}

void
streamext_stream_trouble_over(StreamSlot *slot, TimestampTz *noted)
{
	if (*noted == 0)
		return;
	streamext_stream_lock_exclusive(slot);
	/* the catalogue takes an error for past that is older than the state */
	if (slot->status.last_error_at == *noted && slot->status.since <= *noted)
		slot->status.since = Max(GetCurrentTimestamp(), *noted + 1);
	LWLockRelease(slot->lock);
	*noted = 0;
}

void
streamext_stream_set_rate(StreamSlot *slot, double rate)
{
	Assert(LWLockHeldByMeInMode(slot->lock, LW_EXCLUSIVE));
	slot->status.rate = rate;
}

void
streamext_stream_set_refused(StreamSlot *slot, bool refused)
{
	if (slot->status.refused == refused)
		return;
	streamext_stream_lock_exclusive(slot);
	slot->status.refused = refused;
	LWLockRelease(slot->lock);
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
	Latch *latch = slot->worker.latch;
	Latch *catchup_latch = slot->catchup.latch;

	pg_memory_barrier();
	if (slot->worker.pid != 0 && latch != NULL)
		SetLatch(latch);
	if (slot->catchup.pid != 0 && catchup_latch != NULL)
		SetLatch(catchup_latch);
}

void
streamext_wake_all_workers(void)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
		if (streamext_shared->streams[i].id.in_use)
			streamext_wake_worker(&streamext_shared->streams[i]);
	LWLockRelease(streamext_shared->registry_lock);
}

void
streamext_pause_request(StreamSlot *slot, bool pause)
{
	uint32 old = pg_atomic_read_u32(&slot->ask.pause);

	while (!pg_atomic_compare_exchange_u32(&slot->ask.pause, &old, streamext_pause_next(old, pause)))
		;
}
