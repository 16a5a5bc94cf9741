/*
 * shared/view_slot.c
 *		Slots of views and shards: made, found, removed, emptied; and what a view held before it was begun anew. What the functions promise
 *		is in shared/view_slot.h.
 *
 * The slot that processes know of a view that is begun anew is emptied and counts from the start. What it held moves to a second slot
 * (`retained`), that readers find by ViewSlot.retained_slot and nobody writes; it is free again when the view has caught up.
 */
#include "base/streamext.h"

#include "base/chunk.h"
#include "shared/shmem.h"

/* ---------------------------------------------------------------- made, found, removed */

static int
view_slot_lookup_view(Oid dboid, Oid viewoid, int shard)
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
	index = view_slot_lookup_view(dboid, viewoid, shard);
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

static int
view_slot_add_view(Oid dboid, Oid viewoid, int stream, int64 start_position, bool reserved)
{
	StreamSlot *slot = &streamext_shared->streams[stream];
	int			index;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = view_slot_lookup_view(dboid, viewoid, slot->shard);
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
	return view_slot_add_view(dboid, viewoid, stream, start_position, false);
}

int
streamext_reserve_view(Oid dboid, Oid viewoid, int stream, int64 start_position)
{
	return view_slot_add_view(dboid, viewoid, stream, start_position, true);
}

/* Needs registry_lock and the stream's lock, both exclusive. With what it retains. */
void
streamext_view_slot_free(ViewSlot *view)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[view->stream].lock, LW_EXCLUSIVE));
	if (view->retained_slot > 0)
		streamext_view_slot_free(&streamext_shared->views[view->retained_slot - 1]);
	if (view->definition != 0)
		streamext_state_reset(&view->state);
	if (view->positions != NULL)
		streamext_chunk_free(view->positions);
	streamext_buffer_destroy(view->rows);
	memset(view, 0, sizeof(ViewSlot));
}

void
streamext_settle_view(Oid dboid, Oid viewoid, int shard, bool committed)
{
	int index;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = view_slot_lookup_view(dboid, viewoid, shard);
	if (index >= 0 && streamext_shared->views[index].reserved)
	{
		ViewSlot *view = &streamext_shared->views[index];

		view->reserved = false;
		if (!committed)
		{
			StreamSlot *slot = &streamext_shared->streams[view->stream];

			LWLockAcquire(slot->lock, LW_EXCLUSIVE);
			streamext_view_slot_free(view);
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
		streamext_view_slot_free(&streamext_shared->views[view->retained_slot - 1]);
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
	return slot->definition != 0 && (slot->state.npanes > 0 || (slot->history != 0 && slot->sealed != PG_INT64_MIN));
}

/* With both locks. Its index + 1; 0: none is free. */
static int
view_slot_move(const ViewSlot *slot)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[slot->stream].lock, LW_EXCLUSIVE));
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *retained = &streamext_shared->views[i];

		if (retained->in_use)
			continue;
		*retained = *slot;
		retained->retained = true;
		retained->retained_slot = 0;
		retained->status = VIEW_RUNNING;
		retained->catchup = CATCHUP_NONE;
		retained->catchup_started = 0;
		retained->last_error[0] = '\0';
		retained->rows = NULL;
		retained->positions = NULL;
		retained->npositions = 0;
		return i + 1;
	}
	return 0;
}

/* The one list of what a view that has counted nothing has. With the stream's lock. What it held has been moved or freed. */
static void
view_slot_empty(ViewSlot *slot)
{
	streamext_state_init(&slot->state, slot->state.lock, slot->state.state_size);
	streamext_buffer_destroy(slot->rows);
	slot->rows = NULL;
	slot->accepted = slot->late = slot->rejected = 0;
	slot->retry = 0;
	for (int i = 0; i < slot->npositions; i++)
		slot->positions[i] = -1;
	slot->history = 0;
	slot->history_shard = slot->shard;
	memset(&slot->history_written, 0, sizeof(HistoryTotals));
	memset(&slot->history_deleted, 0, sizeof(HistoryTotals));
	slot->sealed = slot->covered = PG_INT64_MIN;
	slot->sealed_until = slot->floor = DT_NOBEGIN;
	slot->settled = slot->written = DT_NOBEGIN;
}

void
streamext_view_slot_begin(ViewSlot *slot, uint64 definition, uint64 layout, uint32 state_size)
{
	StreamSlot *stream = &streamext_shared->streams[slot->stream];
	int			history_shard = slot->history_shard;

	streamext_stream_lock_exclusive(stream);
	slot->state.lock = stream->lock;
	slot->state.state_size = state_size;
	view_slot_empty(slot);
	slot->history_shard = history_shard;
	slot->definition = definition;
	slot->layout = layout;
	LWLockRelease(stream->lock);
}

/* Needs registry_lock and the stream's lock, exclusive. */
void
streamext_view_slots_void(int stream)
{
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (!view->in_use || view->stream != stream || view->retained)
			continue;
		if (view->definition != 0)
			streamext_state_reset(&view->state);
		if (view->positions != NULL)
			streamext_chunk_free(view->positions);
		view->positions = NULL;
		view->npositions = 0;
		streamext_buffer_destroy(view->rows);
		view->rows = NULL;
		view->definition = 0;
		view->ready = false;
		view->catchup = CATCHUP_NONE;
		view->accepted = view->late = view->rejected = 0;
	}
}

void
streamext_view_begin_anew(ViewSlot *slot)
{
	StreamSlot *stream = &streamext_shared->streams[slot->stream];
	TimestampTz written = slot->written;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	streamext_stream_lock_exclusive(stream);
	if (slot->retained_slot == 0 && view_slot_has_content(slot))
		slot->retained_slot = view_slot_move(slot);
	else
		streamext_state_reset(&slot->state);
	view_slot_empty(slot);
	slot->written = written;
	slot->catchup_started = 0;
	slot->catchup_rows = 0;
	LWLockRelease(stream->lock);
	LWLockRelease(streamext_shared->registry_lock);
}

void
streamext_view_retire(ViewSlot *slot)
{
	if (slot->retained_slot == 0)
		return;
	streamext_free_retained(slot);
}

/* ---------------------------------------------------------------- states */

int64
streamext_handover_backlog(const StreamSlot *stream, const ViewSlot *view)
{
	int64 backlog = 0;

	for (int i = 0; i < stream->npartitions; i++)
	{
		const PartitionSlot *partition = &stream->partitions[i];
		int64				 position = i < view->npositions ? view->positions[i] : -1;

		if (position < 0)
			position = Max(partition->begin >= 0 ? partition->begin : partition->start_position, 0);
		backlog += Max(partition->position - position, 0);
	}
	return backlog;
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
