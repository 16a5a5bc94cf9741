/*
 * sql/rebuild.h
 *		What a view held before it was begun anew, for readers until it has caught up.
 */
#ifndef STREAMEXT_VIEW_RETAIN_H
#define STREAMEXT_VIEW_RETAIN_H

#include "base/streamext.h"
#include "shared/shmem.h"
#include "view/compile.h"
#include "worker/worker_private.h"

/*
 * Empties the slot, which is this process's to write and has no fold: positions, counts and state as those of a view that has
 * counted nothing. What it held goes to a slot of its own, if there is one free, and is read until streamext_view_retire.
 * Takes registry_lock and the stream's lock.
 */
extern void streamext_view_begin_anew(ViewSlot *slot);

/* Gives up what was held before; readers see the view's own state from now on. */
extern void streamext_view_retire(ViewSlot *slot);

/* The same for all views that have caught up with the stream, between batches. */
extern void streamext_views_retire(Worker *w);

/* Deletes what history has of retired content, when no reader can want it any more. No transaction is open. */
extern void streamext_views_tidy(Worker *w, TimestampTz now);

/* When there is something to do; DT_NOEND: never. */
extern TimestampTz streamext_views_tidy_deadline(const Worker *w, TimestampTz now);

/* One more than that, from commit on. Checks no rights. */
extern void streamext_view_next_round(Oid viewoid, Oid stream);

/* How often streamext.rebuild was called for the view: its state is to be of this round. In a transaction with a snapshot. */
extern int64 streamext_view_round(Oid viewoid);

/* Where the view's content is to be read: in another slot, this one, or nowhere (NULL). Needs registry_lock and the stream's lock. */
static inline const ViewSlot *
streamext_view_content(const ViewSlot *slot, const CompiledView *view)
{
	const ViewSlot *retained = slot->retained_slot > 0 ? &streamext_shared->views[slot->retained_slot - 1] : NULL;

	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	Assert(LWLockHeldByMe(streamext_shared->streams[slot->stream].lock));
	if (retained != NULL && retained->layout == view->layout)
		return retained;
	return slot->definition != 0 && slot->layout == view->layout ? slot : NULL;
}

#endif /* STREAMEXT_VIEW_RETAIN_H */
