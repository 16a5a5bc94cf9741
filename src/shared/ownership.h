/*
 * shared/ownership.h
 *		Verbs on ViewSlot.owner: which process has a view. worker/handover.c says when, and has the picture of all transitions.
 *
 * All with the stream's lock exclusive.
 */
#ifndef STREAMEXT_OWNERSHIP_H
#define STREAMEXT_OWNERSHIP_H

#include "base/streamext.h"
#include "shared/slots.h"

/* NONE or ACTIVE -> WANTED: the catch-up worker shall have it. `anew`: it begins to catch up. */
extern void streamext_view_give(ViewSlot *view, bool anew);

/* WANTED -> ACTIVE: the catch-up worker has it. */
extern void streamext_view_take(ViewSlot *view);

/* ACTIVE -> WANTED, as it is published; -> NONE if it has failed. Any other state stays. */
extern void streamext_view_let_go(ViewSlot *view);

/* ACTIVE -> DONE: it has reached the stream's positions. */
extern void streamext_view_arrive(ViewSlot *view);

/* DONE -> NONE: the stream's worker has a fold on it; -> WANTED: it could not have one (`available` false). */
extern void streamext_view_accept(ViewSlot *view, bool available);

/* DONE, or WANTED if nobody else would wait for it (`alone`), -> NONE. True: it is the stream's worker's. */
extern bool streamext_view_reclaim(ViewSlot *view, bool alone);

/* It was emptied, and is the stream's worker's. */
extern void streamext_view_disown(ViewSlot *view);

/* The process that has it reads for it what the stream has read before (`behind`), or does not any more. */
extern void streamext_view_note_behind(ViewSlot *view, bool behind);
extern void streamext_view_count_behind(ViewSlot *view, uint64 rows);

/* It goes on by itself (worker/alone.c), and not less long than until then. */
extern void streamext_view_set_alone(ViewSlot *view, TimestampTz until);
/* What it is away for is over, if it has been: another definition may well be quicker. Without the lock, by the process that has it. */
extern void streamext_view_end_alone(ViewSlot *view);

/* Whose share of memory it takes. */
extern void streamext_view_set_role(ViewSlot *view, Oid role);

#endif /* STREAMEXT_OWNERSHIP_H */
