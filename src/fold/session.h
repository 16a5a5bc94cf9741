/*
 * fold/session.h
 *		Session windows: what is kept for them, and when a session is over for good.
 *
 * A group's session is a run of its rows, each at most the gap after the one before. Panes are at most as wide as the gap,
 * so the rows of a group in one pane are of one session, and two panes' rows are of one session if no gap between the
 * panes in a row is longer than that. So no more is kept than the times of a group's first and last row in each pane; readers
 * chain panes into sessions (read/rows.c), and the writer never merges anything, in whatever order rows arrive.
 *
 * A row is late when the watermark has reached its time + gap + lateness. So a session that ends at e can grow until the
 * watermark is e + 2 gaps + lateness: a row at e + gap may still come and is of it. Retention begins there. The greatest e that it
 * has passed is the state's horizon: readers leave out sessions that end at or before it, and a pane is dropped, oldest
 * first, when no session that touches it goes on beyond the horizon. A session is therefore shown whole or not at all,
 * and one that does not end keeps its panes, with all of their groups.
 */
#ifndef STREAMEXT_SESSION_H
#define STREAMEXT_SESSION_H

#include "base/streamext.h"
#include "shared/shmem.h"
#include "state/pane.h"
#include "view/compile.h"
#include "view/span.h"

/* Whether a row at t comes too late for its session, or could be of one that is over for good. */
extern bool streamext_session_is_late(const CompiledView *view, const ViewState *state, TimestampTz t,
									  TimestampTz watermark);

/* Moves the state's horizon to where retention puts it; takes the lock if it moves. */
extern void streamext_session_advance(const CompiledView *view, ViewSlot *slot, TimestampTz watermark);

/*
 * True if all sessions that touch the pane are over for good, whichever shards hold their rows. Else *beyond is the end, as far as it
 * is known now, of one that is not: until the horizon has reached it there is no use in asking again.
 */
extern bool streamext_session_is_over(const CompiledView *view, const ViewSlot *slot, const Pane *pane,
									  TimestampTz *beyond);

#endif /* STREAMEXT_SESSION_H */
