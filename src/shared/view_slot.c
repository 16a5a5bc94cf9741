/*
 * shared/view_slot.c
 *		Slots of views and shards: made, found, removed, emptied; and what a view held before it was begun anew. What the functions promise
 *		is in shared/view_slot.h.
 *
 * The slot that processes know of a view that is begun anew is emptied and counts from the start. What it held moves to a second slot
 * (`retained`), that readers find by ViewSlot.id.retained_slot and nobody writes; it is free again when the view has caught up.
 */
#include "base/streamext.h"

#include "base/chunk.h"
#include "base/clip.h"
#include "shared/ownership.h"
#include "shared/shmem.h"

/* ---------------------------------------------------------------- made, found, removed */

static int
view_slot_lookup_view(Oid dboid, Oid viewoid, int shard)
{
	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	for (int i = 0; i < streamext_shared->views_end; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (view->id.in_use && view->id.viewoid == viewoid && view->id.dboid == dboid && view->id.shard == shard &&
			!view->id.retained)
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
	index = view_slot_lookup_view(dboid, viewoid, shard);
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

static void
view_slot_taken(int index)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	streamext_shared->views_end = Max(streamext_shared->views_end, index + 1);
}

static int
view_slot_add(Oid dboid, Oid viewoid, int stream, int64 start_position, bool reserved)
{
	StreamSlot *slot = &streamext_shared->streams[stream];
	int			index;

	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	index = view_slot_lookup_view(dboid, viewoid, slot->id.shard);
	for (int i = 0; index < 0 && i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (view->id.in_use)
			continue;
		memset(view, 0, sizeof(ViewSlot));
		view->id.dboid = dboid;
		view->id.viewoid = viewoid;
		view->id.stream = stream;
		view->id.shard = slot->id.shard;
		view->health.status = VIEW_STARTING;
		view->counted.start_position = start_position;
		view->id.reserved = reserved;
		view->id.in_use = true;
		view_slot_taken(i);
		index = i;
	}
	return index;
}

int
streamext_add_view(Oid dboid, Oid viewoid, int stream, int64 start_position)
{
	int index;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = view_slot_add(dboid, viewoid, stream, start_position, false);
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

/* Whether it may be one more of the owner's. A slot whose owner nobody has looked for is not new. */
static bool
view_slot_may_own(int index, Oid owner, int most)
{
	int others = 0;

	if (most == 0 || (index >= 0 && (streamext_shared->views[index].owner.role == owner ||
									 !OidIsValid(streamext_shared->views[index].owner.role))))
		return true;
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];

		others += i != index && view->id.in_use && !view->id.retained && view->owner.role == owner;
	}
	return others < most;
}

int
streamext_reserve_view(Oid dboid, Oid viewoid, int stream, int64 start_position, Oid owner, int most)
{
	int index;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = view_slot_lookup_view(dboid, viewoid, streamext_shared->streams[stream].id.shard);
	if (view_slot_may_own(index, owner, most))
	{
		index = view_slot_add(dboid, viewoid, stream, start_position, true);
		if (index >= 0)
			streamext_shared->views[index].owner.role = owner;
	}
	else
		index = STREAMEXT_VIEWS_OWNED;
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

/* Needs registry_lock and the stream's lock, both exclusive. With what it retains. */
void
streamext_view_slot_free(ViewSlot *view)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->id.stream].lock, LW_EXCLUSIVE));
	if (view->id.retained_slot > 0)
		streamext_view_slot_free(&streamext_shared->views[view->id.retained_slot - 1]);
	if (view->counted.definition != 0)
		streamext_state_reset(&view->counted.state);
	if (view->counted.positions != NULL)
		streamext_chunk_free(view->counted.positions);
	streamext_buffer_destroy(view->counted.rows);
	memset(view, 0, sizeof(ViewSlot));
	while (streamext_shared->views_end > 0 && !streamext_shared->views[streamext_shared->views_end - 1].id.in_use)
		streamext_shared->views_end--;
}

void
streamext_settle_view(Oid dboid, Oid viewoid, int shard, bool committed)
{
	int index;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = view_slot_lookup_view(dboid, viewoid, shard);
	if (index >= 0 && streamext_shared->views[index].id.reserved)
	{
		ViewSlot *view = &streamext_shared->views[index];

		view->id.reserved = false;
		if (!committed)
		{
			StreamSlot *slot = &streamext_shared->streams[view->id.stream];

			LWLockAcquire(slot->lock, LW_EXCLUSIVE);
			streamext_view_slot_free(view);
			LWLockRelease(slot->lock);
		}
	}
	LWLockRelease(streamext_shared->registry_lock);
}

/* Frees what a view retains; readers see its own state from then on. By the process that the view is with. */
static void
view_free_retained(ViewSlot *view)
{
	StreamSlot *slot = &streamext_shared->streams[view->id.stream];

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	streamext_stream_lock_exclusive(slot);
	if (view->id.retained_slot > 0)
		streamext_view_slot_free(&streamext_shared->views[view->id.retained_slot - 1]);
	view->id.retained_slot = 0;
	LWLockRelease(slot->lock);
	LWLockRelease(streamext_shared->registry_lock);
}

bool
streamext_remove_view(int index)
{
	ViewSlot *view = &streamext_shared->views[index];
	bool	  removed = true;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	if (view->id.in_use)
	{
		StreamSlot *slot = &streamext_shared->streams[view->id.stream];

		LWLockAcquire(slot->lock, LW_EXCLUSIVE);
		removed = view->owner.catchup != CATCHUP_ACTIVE;
		if (removed)
			streamext_view_slot_free(view);
		LWLockRelease(slot->lock);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return removed;
}

/* ---------------------------------------------------------------- emptied */

static bool
view_slot_has_content(const ViewSlot *slot)
{
	return slot->counted.definition != 0 &&
		   (slot->counted.state.npanes > 0 || (slot->history.number != 0 && slot->history.sealed != PG_INT64_MIN));
}

/* With both locks. Its index + 1; 0: none is free. */
static int
view_slot_move(const ViewSlot *slot)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[slot->id.stream].lock, LW_EXCLUSIVE));
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *retained = &streamext_shared->views[i];

		if (retained->id.in_use)
			continue;
		*retained = *slot;
		retained->id.retained = true;
		retained->id.retained_slot = 0;
		retained->health.status = VIEW_RUNNING;
		retained->owner.catchup = CATCHUP_NONE;
		retained->owner.started = 0;
		retained->health.last_error[0] = '\0';
		retained->counted.rows = NULL;
		retained->counted.positions = NULL;
		retained->counted.npositions = 0;
		view_slot_taken(i);
		return i + 1;
	}
	return 0;
}

/* The one list of what a view that has counted nothing has. With the stream's lock. What it held has been moved or freed. */
static void
view_slot_empty(ViewSlot *slot)
{
	streamext_state_init(&slot->counted.state, slot->counted.state.lock, slot->counted.state.state_size);
	slot->counted.born = pg_atomic_add_fetch_u64(&streamext_shared->births, 1);
	streamext_buffer_destroy(slot->counted.rows);
	slot->counted.rows = NULL;
	slot->counted.accepted = slot->counted.late = slot->counted.rejected = 0;
	slot->counted.retry = 0;
	for (int i = 0; i < slot->counted.npositions; i++)
		slot->counted.positions[i] = -1;
	slot->history.number = 0;
	slot->history.shard = slot->id.shard;
	memset(&slot->history.written, 0, sizeof(HistoryTotals));
	memset(&slot->history.deleted, 0, sizeof(HistoryTotals));
	slot->history.sealed = slot->history.covered = PG_INT64_MIN;
	slot->history.sealed_until = slot->history.floor = DT_NOBEGIN;
	slot->into.settled = slot->into.written = slot->into.given = DT_NOBEGIN;
}

void
streamext_view_slot_begin(ViewSlot *slot, uint64 definition, uint64 layout, uint32 state_size)
{
	StreamSlot *stream = &streamext_shared->streams[slot->id.stream];
	int			history_shard = slot->history.shard;

	streamext_stream_lock_exclusive(stream);
	slot->counted.state.lock = stream->lock;
	slot->counted.state.state_size = state_size;
	view_slot_empty(slot);
	slot->history.shard = history_shard;
	slot->counted.definition = definition;
	slot->counted.layout = layout;
	LWLockRelease(stream->lock);
}

void
streamext_view_slot_void(ViewSlot *view)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->id.stream].lock, LW_EXCLUSIVE));
	if (view->counted.definition != 0)
		streamext_state_reset(&view->counted.state);
	view_slot_empty(view);
	if (view->counted.positions != NULL)
		streamext_chunk_free(view->counted.positions);
	view->counted.positions = NULL;
	view->counted.npositions = 0;
	view->counted.definition = 0;
	view->counted.ready = false;
}

/* Needs registry_lock and the stream's lock, exclusive. */
void
streamext_view_slots_void(int stream)
{
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (!view->id.in_use || view->id.stream != stream || view->id.retained)
			continue;
		streamext_view_slot_void(view);
		streamext_view_disown(view);
	}
}

void
streamext_view_begin_anew(ViewSlot *slot)
{
	StreamSlot *stream = &streamext_shared->streams[slot->id.stream];
	TimestampTz written = slot->into.written, given = slot->into.given;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	streamext_stream_lock_exclusive(stream);
	if (slot->id.retained_slot == 0 && view_slot_has_content(slot))
		slot->id.retained_slot = view_slot_move(slot);
	else
		streamext_state_reset(&slot->counted.state);
	view_slot_empty(slot);
	slot->into.written = written;
	slot->into.given = given;
	slot->owner.started = slot->owner.rows = 0;
	LWLockRelease(stream->lock);
	LWLockRelease(streamext_shared->registry_lock);
}

void
streamext_view_retire(ViewSlot *slot)
{
	if (slot->id.retained_slot == 0)
		return;
	view_free_retained(slot);
}

/* ---------------------------------------------------------------- what it has counted */

void
streamext_view_advance(ViewSlot *view, const int64 *positions, int n)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->id.stream].lock, LW_EXCLUSIVE));
	Assert(n <= view->counted.npositions);
	for (int i = 0; i < n; i++)
		view->counted.positions[i] = Max(view->counted.positions[i], positions[i]);
}

void
streamext_view_set_position(ViewSlot *view, int partition, int64 position)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->id.stream].lock, LW_EXCLUSIVE));
	Assert(partition < view->counted.npositions);
	view->counted.positions[partition] = position;
}

void
streamext_view_set_round(ViewSlot *view, int64 round)
{
	view->counted.round = round;
}

void
streamext_view_set_start(ViewSlot *view, int64 position)
{
	view->counted.start_position = position;
}

void
streamext_view_show(ViewSlot *view)
{
	StreamSlot *stream = &streamext_shared->streams[view->id.stream];

	if (view->counted.ready)
		return;
	streamext_stream_lock_exclusive(stream);
	view->counted.ready = true;
	LWLockRelease(stream->lock);
}

void
streamext_view_retried(ViewSlot *view, int64 request)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->id.stream].lock, LW_EXCLUSIVE));
	view->counted.retry = request;
}

/* ---------------------------------------------------------------- states */

int64
streamext_handover_backlog(const StreamSlot *stream, const ViewSlot *view)
{
	int64 backlog = 0;

	for (int i = 0; i < stream->counted.npartitions; i++)
	{
		const PartitionSlot *partition = &stream->counted.partitions[i];
		int64				 position = i < view->counted.npositions ? view->counted.positions[i] : -1;

		if (position < 0)
			position = Max(partition->begin >= 0 ? partition->begin : partition->start_position, 0);
		backlog += Max(partition->position - position, 0);
	}
	return backlog;
}

void
streamext_view_set_error(ViewSlot *view, const char *message)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->id.stream].lock, LW_EXCLUSIVE));
	streamext_clip(view->health.last_error, message, STREAMEXT_MAX_MESSAGE);
}

void
streamext_view_set_status(ViewSlot *view, ViewStatus status, const char *message)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->id.stream].lock, LW_EXCLUSIVE));
	view->health.status = status;
	if (message != NULL)
		streamext_view_set_error(view, message);
}

void
streamext_view_fail(ViewSlot *view, const char *message)
{
	streamext_view_set_status(view, VIEW_FAILED, message);
	view->health.retry_at = 0;
}

void
streamext_view_set_aside(ViewSlot *view, TimestampTz until)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->id.stream].lock, LW_EXCLUSIVE));
	view->health.failures++;
	view->health.retry_at = until;
}

void
streamext_view_succeeded(ViewSlot *view)
{
	view->health.failures = 0;
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
