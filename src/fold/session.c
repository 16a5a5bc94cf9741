/*
 * fold/session.c
 *		When a session's rows are late, and when a pane of sessions may be dropped. See session.h.
 *
 * Groups are told apart by the hash of their key alone: groups that share one are taken for one, whose sessions are longer,
 * so that panes stay somewhat longer than they need to. What readers leave out is decided by key.
 *
 * Lock order: registry_lock shared, then the locks of the stream's other shards, shared.
 */
#include "base/streamext.h"

#include "miscadmin.h"

#include "fold/session.h"
#include "view/closing.h"

/* The states of all shards of a view. Panes that are looked at next are found by cursors, which only go forward. */
typedef struct SessionShards
{
	int				 n;
	const ViewState *states[STREAMEXT_MAX_SHARDS];
	int				 cursors[STREAMEXT_MAX_SHARDS];
	LWLock			*locks[STREAMEXT_MAX_SHARDS]; /* held; NULL: this process writes it */
	TimestampTz		 horizon;					  /* the least */
} SessionShards;

/* ---- lateness and horizon ---- */

bool
streamext_session_is_late(const CompiledView *view, const ViewState *state, TimestampTz t, TimestampTz watermark)
{
	TimestampTz end = streamext_session_reach(&view->window, t);

	/* A watermark that was lost with its worker may begin anew before the horizon. */
	if (state->horizon != DT_NOBEGIN && t <= streamext_session_reach(&view->window, state->horizon))
		return true;
	if (end == PG_INT64_MAX || pg_add_s64_overflow(end, view->options.lateness, &end))
		return false;
	return watermark >= end;
}

void
streamext_session_advance(const CompiledView *view, ViewSlot *slot, TimestampTz watermark)
{
	TimestampTz horizon = streamext_session_horizon(view, watermark);

	if (horizon <= slot->counted.state.horizon)
		return;
	streamext_stream_lock_exclusive(&streamext_shared->streams[slot->id.stream]);
	slot->counted.state.horizon = horizon;
	LWLockRelease(slot->counted.state.lock);
}

/* ---- the shards ---- */

/* False if one of them has no state of this view yet. Takes locks; call release in either case. */
static bool
shards_acquire(SessionShards *shards, const CompiledView *view, const ViewSlot *own)
{
	shards->n = 0;
	shards->horizon = DT_NOEND;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int s = 0; s < streamext_shared->nstreams; s++)
		for (int i = 0; i < streamext_shared->nviews; i++)
		{
			const ViewSlot *slot = &streamext_shared->views[i];

			if (!slot->id.in_use || slot->id.retained || slot->id.stream != s || slot->id.dboid != own->id.dboid ||
				slot->id.viewoid != own->id.viewoid)
				continue;
			if (shards->n == STREAMEXT_MAX_SHARDS)
				return false;
			shards->locks[shards->n] = slot == own ? NULL : streamext_shared->streams[s].lock;
			if (slot != own)
				streamext_stream_lock_shared(&streamext_shared->streams[s]);
			shards->states[shards->n++] = &slot->counted.state;
			if (slot->counted.definition != view->definition)
				return false;
			shards->horizon = Min(shards->horizon, slot->counted.state.horizon);
		}
	return true;
}

static void
shards_release(SessionShards *shards)
{
	for (int s = shards->n - 1; s >= 0; s--)
		if (shards->locks[s] != NULL)
			LWLockRelease(shards->locks[s]);
	LWLockRelease(streamext_shared->registry_lock);
}

/* Puts the cursors before the pane with this id. */
static void
shards_seek(SessionShards *shards, int64 pane)
{
	for (int s = 0; s < shards->n; s++)
	{
		const ViewState *state = shards->states[s];
		int				 low = 0;
		int				 high = state->npanes;

		while (low < high)
		{
			int middle = low + (high - low) / 2;

			if (state->panes[middle]->id < pane)
				low = middle + 1;
			else
				high = middle;
		}
		shards->cursors[s] = low;
	}
}

/* The least id at the cursors that is not above max; false: none. */
static bool
shards_next(const SessionShards *shards, int64 max, int64 *pane)
{
	bool found = false;

	for (int s = 0; s < shards->n; s++)
	{
		const ViewState *state = shards->states[s];
		int64			 id;

		if (shards->cursors[s] >= state->npanes)
			continue;
		id = state->panes[shards->cursors[s]]->id;
		if (id > max || (found && id >= *pane))
			continue;
		*pane = id;
		found = true;
	}
	return found;
}

/* The group's rows in the pane over all shards, widening *span; takes the cursors past it. False: there are none. */
static bool
shards_span(SessionShards *shards, const CompiledView *view, int64 id, uint32 hash, SessionSpan *span)
{
	bool found = false;

	for (int s = 0; s < shards->n; s++)
	{
		const ViewState *state = shards->states[s];
		const Pane		*pane;

		if (shards->cursors[s] >= state->npanes || state->panes[shards->cursors[s]]->id != id)
			continue;
		pane = state->panes[shards->cursors[s]++];
		for (uint32 at = hash & pane->index_mask; pane->index[at].ref != 0; at = (at + 1) & pane->index_mask)
		{
			const GroupEntry  *entry = (const GroupEntry *) STREAMEXT_PTR(pane->index[at].ref);
			const SessionSpan *one;

			if (pane->index[at].hash != hash || entry->visible == 0)
				continue;
			one = streamext_session_span(view, entry);
			span->first = found ? Min(span->first, one->first) : one->first;
			span->last = found ? Max(span->last, one->last) : one->last;
			found = true;
		}
	}
	return found;
}

/* ---- panes ---- */

/* The end of the session that the group with this hash has in the pane; known only as far as beyond the horizon. */
static TimestampTz
session_end(SessionShards *shards, const CompiledView *view, int64 pane, uint32 hash)
{
	const Window *window = &view->window;
	TimestampTz	  end = DT_NOBEGIN;
	int64		  max = pane;

	shards_seek(shards, pane);
	while (end <= shards->horizon && shards_next(shards, max, &pane))
	{
		SessionSpan span;
		TimestampTz reach;

		if (!shards_span(shards, view, pane, hash, &span))
			continue;
		if (end != DT_NOBEGIN && span.first > streamext_session_reach(window, end))
			break;
		end = span.last;
		reach = streamext_session_reach(window, end);
		max = reach >= END_TIMESTAMP ? PG_INT64_MAX : streamext_window_pane(window, reach);
	}
	return end;
}

bool
streamext_session_is_over(const CompiledView *view, const ViewSlot *slot, const Pane *pane, TimestampTz *beyond)
{
	SessionShards shards;
	bool		  over = shards_acquire(&shards, view, slot) && shards.horizon != DT_NOBEGIN;

	*beyond = DT_NOBEGIN;
	for (const StateBlock *block = pane->entries; over && block != NULL; block = block->next)
		for (uint32 at = 0; over && at < block->used;)
		{
			const GroupEntry *entry = (const GroupEntry *) (block->data + at);

			at += entry->size;
			if (entry->visible == 0)
				continue;
			*beyond = session_end(&shards, view, pane->id, entry->hash);
			over = *beyond <= shards.horizon;
		}
	shards_release(&shards);
	return over;
}
