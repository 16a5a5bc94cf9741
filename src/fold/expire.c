/*-------------------------------------------------------------------------
 *
 * fold/expire.c
 *		Panes that nobody can ask for any more: beyond retention, or passed by a sliding window.
 *
 * Readers are told first (ViewSlot.history.floor), so that a window is whole or absent.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "common/int.h"
#include "utils/timestamp.h"

#include "shared/clock.h"
#include "fold/fold_private.h"
#include "view/closing.h"
#include "fold/session.h"

/* Sliding panes are kept this much longer than their window, for statements that started a while ago. */
#define SLIDING_SLACK (60 * USECS_PER_SEC)

/* True if no reader can ask for the pane any more. */
static bool
fold_is_expired(ViewFold *fold, const Pane *pane, TimestampTz watermark, TimestampTz now)
{
	const Window				*window = &fold->view->window;
	const ContinuousViewOptions *options = &fold->view->options;
	TimestampTz					 end;

	if (window->sliding && pg_atomic_read_u64(&streamext_shared->test_clock) == 0)
	{
		int64 first, last;

		streamext_window_sliding_range(window, now - SLIDING_SLACK, &first, &last);
		if (pane->id < first)
			return true;
	}
	if (options->retention == 0 || window->kind == WINDOW_NONE)
		return false;
	if (window->kind == WINDOW_SESSION)
		return fold->slot->counted.state.horizon >= fold->session_end &&
			   streamext_session_is_over(fold->view, fold->slot, pane, &fold->session_end);
	end = streamext_window_last_end(window, pane->id);
	return end < PG_INT64_MAX - options->retention - options->lateness &&
		   end + options->retention + options->lateness <= watermark;
}

/* Readers leave out windows that are gone in part before any part goes. */
static void
fold_raise_floor(ViewFold *fold, TimestampTz watermark)
{
	ViewSlot   *slot = fold->slot;
	TimestampTz floor = streamext_fold_floor(fold->view, watermark);

	if (floor <= slot->history.floor)
		return;
	streamext_stream_lock_exclusive(&streamext_shared->streams[slot->id.stream]);
	slot->history.floor = floor;
	LWLockRelease(slot->counted.state.lock);
}

void
streamext_fold_forget_panes(ViewFold *fold, Pane *const *panes, int npanes)
{
	for (int a = 0; a < fold->view->naggs; a++)
		for (int p = 0; p < npanes; p++)
			streamext_aggregate_forget_pane(fold->aggs[a], panes[p]);
}

void
streamext_fold_expire(ViewFold *fold, TimestampTz watermark)
{
	ViewState  *state = &fold->slot->counted.state;
	TimestampTz now = streamext_clock_now();

	watermark = streamext_into_limit(fold->view, fold->slot->into.gives, fold->slot->into.written, watermark);
	fold_raise_floor(fold, watermark);
	if (fold->view->window.kind == WINDOW_SESSION)
		streamext_session_advance(fold->view, fold->slot, watermark);
	while (state->npanes > 0 && fold_is_expired(fold, state->panes[0], watermark, now))
	{
		Pane *pane = state->panes[0];

		for (int a = 0; a < fold->view->naggs; a++)
			streamext_aggregate_forget_pane(fold->aggs[a], pane);
		streamext_stream_lock_exclusive(&streamext_shared->streams[fold->slot->id.stream]);
		streamext_state_drop_pane(state, pane);
		LWLockRelease(state->lock);
	}
}
