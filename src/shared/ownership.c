/*
 * shared/ownership.c
 *		Which process has a view. What the functions promise is in shared/ownership.h.
 */
#include "base/streamext.h"

#include "storage/lwlock.h"
#include "utils/timestamp.h"

#include "shared/ownership.h"
#include "shared/shmem.h"

#define OWNERSHIP_LOCKED(view) LWLockHeldByMeInMode(streamext_shared->streams[(view)->id.stream].lock, LW_EXCLUSIVE)

void
streamext_view_give(ViewSlot *view, bool anew)
{
	Assert(OWNERSHIP_LOCKED(view));
	if (anew)
		view->owner.started = view->owner.rows = 0;
	view->owner.catchup = CATCHUP_WANTED;
}

void
streamext_view_take(ViewSlot *view)
{
	Assert(OWNERSHIP_LOCKED(view));
	Assert(view->owner.catchup == CATCHUP_WANTED);
	view->owner.catchup = CATCHUP_ACTIVE;
	view->owner.taken_at = GetCurrentTimestamp();
	if (view->owner.started == 0)
		view->owner.started = view->owner.taken_at;
}

void
streamext_view_let_go(ViewSlot *view)
{
	Assert(OWNERSHIP_LOCKED(view));
	if (view->owner.catchup == CATCHUP_ACTIVE)
		view->owner.catchup = view->health.status == VIEW_FAILED ? CATCHUP_NONE : CATCHUP_WANTED;
}

void
streamext_view_arrive(ViewSlot *view)
{
	Assert(OWNERSHIP_LOCKED(view));
	Assert(view->owner.catchup == CATCHUP_ACTIVE);
	view->owner.catchup = CATCHUP_DONE;
}

void
streamext_view_accept(ViewSlot *view, bool available)
{
	Assert(OWNERSHIP_LOCKED(view));
	view->owner.catchup = available ? CATCHUP_NONE : CATCHUP_WANTED;
	if (available && view->owner.alone_until != 0)
		view->owner.alone_ended = GetCurrentTimestamp();
	view->owner.alone_until = 0;
	view->owner.started = view->owner.rows = 0;
}

bool
streamext_view_reclaim(ViewSlot *view, bool alone)
{
	Assert(OWNERSHIP_LOCKED(view));
	if (view->owner.catchup == CATCHUP_DONE || (view->owner.catchup == CATCHUP_WANTED && alone))
		view->owner.catchup = CATCHUP_NONE;
	if (view->owner.catchup != CATCHUP_NONE)
		return false;
	view->owner.alone_until = 0;
	return true;
}

void
streamext_view_disown(ViewSlot *view)
{
	Assert(OWNERSHIP_LOCKED(view));
	view->owner.catchup = CATCHUP_NONE;
	view->owner.started = view->owner.rows = 0;
}

void
streamext_view_note_behind(ViewSlot *view, bool behind)
{
	Assert(OWNERSHIP_LOCKED(view));
	if (!behind)
		view->owner.started = 0;
	else if (view->owner.started == 0)
	{
		view->owner.started = GetCurrentTimestamp();
		view->owner.rows = 0;
	}
}

void
streamext_view_count_behind(ViewSlot *view, uint64 rows)
{
	Assert(OWNERSHIP_LOCKED(view));
	view->owner.rows += rows;
}

void
streamext_view_set_alone(ViewSlot *view, TimestampTz until)
{
	Assert(OWNERSHIP_LOCKED(view));
	view->owner.alone_until = until;
}

void
streamext_view_end_alone(ViewSlot *view)
{
	view->owner.alone_until = Min(view->owner.alone_until, 1);
}

void
streamext_view_set_role(ViewSlot *view, Oid role)
{
	view->owner.role = role;
}
