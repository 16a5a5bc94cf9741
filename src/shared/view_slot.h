/*
 * shared/view_slot.h
 *		Verbs on the slots of views and shards.
 */
#ifndef STREAMEXT_VIEW_SLOT_H
#define STREAMEXT_VIEW_SLOT_H

#include "base/streamext.h"
#include "shared/slots.h"
#include "view/compile.h"

/* A private copy of a slot's index; -1 if there is none. Takes registry_lock shared. */
extern int streamext_find_view(Oid dboid, Oid viewoid, int shard);

/* Makes the slot if it is not there (registry_lock exclusive); -1 when streamext.max_views is reached. */
extern int streamext_add_view(Oid dboid, Oid viewoid, int stream, int64 start_position);
#define STREAMEXT_VIEWS_OWNED (-2)
/*
 * The same for a transaction about to commit: no worker frees the slot until the transaction ends and settles it. The view counts as one of the owner's from
 * now on; STREAMEXT_VIEWS_OWNED: he has `most` others, and this one was not his. Zero: no limit.
 */
extern int	streamext_reserve_view(Oid dboid, Oid viewoid, int stream, int64 start_position, Oid owner, int most);
extern void streamext_settle_view(Oid dboid, Oid viewoid, int shard, bool committed);

/* Frees a slot and its state. No worker may run on it any more; false: nothing was done, because a catch-up worker does. */
extern bool streamext_remove_view(int view);
/* The same, with what it retains. Needs registry_lock and the stream's lock, both exclusive. */
extern void streamext_view_slot_free(ViewSlot *view);

/* What a definition that is new to the slot begins with: nothing counted. Takes the stream's lock. */
extern void streamext_view_slot_begin(ViewSlot *slot, uint64 definition, uint64 layout, uint32 state_size);

/*
 * Empties the slot, which is this process's to write and has no fold: positions, counts and state as those of a view that has
 * counted nothing. What it held goes to a slot of its own, if there is one free, and is read until streamext_view_retire.
 * Takes registry_lock and the stream's lock.
 */
extern void streamext_view_begin_anew(ViewSlot *slot);

/* Gives up what was held before; readers see the view's own state from now on. */
extern void streamext_view_retire(ViewSlot *slot);

/* The slot is without state, so that the view's next fold begins it. With the stream's lock. */
extern void streamext_view_slot_void(ViewSlot *slot);

/* What the stream's views have counted is void; their folds find them empty. Needs registry_lock and the stream's lock, exclusive. */
extern void streamext_view_slots_void(int stream);

/* Records (offsets, that is) between the view and the stream, as far as known. Needs the stream's lock or to be its worker. */
extern int64 streamext_handover_backlog(const StreamSlot *stream, const ViewSlot *view);

/* Moves it on, in no partition back; sets where it stands in one. With the stream's lock exclusive. */
extern void streamext_view_advance(ViewSlot *view, const int64 *positions, int n);
extern void streamext_view_set_position(ViewSlot *view, int partition, int64 position);

/* Before anything is counted: the round that it is, and where it begins on a source that cannot be replayed. By the view's process. */
extern void streamext_view_set_round(ViewSlot *view, int64 round);
extern void streamext_view_set_start(ViewSlot *view, int64 position);

/* Readers take its state from now on. Takes the lock. */
extern void streamext_view_show(ViewSlot *view);

/* The state holds what this request to retry letters has brought. With the lock. */
extern void streamext_view_retried(ViewSlot *view, int64 request);

/*
 * How it fares; with the stream's lock exclusive. The message is what is told of it: NULL leaves what was said, "" takes it back.
 */
extern void streamext_view_set_status(ViewSlot *view, ViewStatus status, const char *message);
extern void streamext_view_set_error(ViewSlot *view, const char *message);
/* It has no fold until somebody does something; set_aside, after it: until then. */
extern void streamext_view_fail(ViewSlot *view, const char *message);
extern void streamext_view_set_aside(ViewSlot *view, TimestampTz until);
/* It has counted a batch. */
extern void streamext_view_succeeded(ViewSlot *view);

extern const char *streamext_view_status_name(ViewStatus status);

/* Where the view's content is to be read: in another slot, this one, or nowhere (NULL). Needs registry_lock and the stream's lock. */
static inline const ViewSlot *
streamext_view_content(const ViewSlot *slot, const CompiledView *view)
{
	const ViewSlot *retained = slot->id.retained_slot > 0 ? &streamext_shared->views[slot->id.retained_slot - 1] : NULL;

	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	Assert(LWLockHeldByMe(streamext_shared->streams[slot->id.stream].lock));
	if (retained != NULL && retained->counted.layout == view->layout)
		return retained;
	return slot->counted.definition != 0 && slot->counted.layout == view->layout ? slot : NULL;
}

#endif /* STREAMEXT_VIEW_SLOT_H */
