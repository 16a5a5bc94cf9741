/*
 * state/changed.c
 *		The groups that were published since a period. What the functions promise is in state/changed.h.
 *
 * Walks the entries of the panes that were published into, beside a writer who appends: with the barriers of state/pane.c. A mark that a
 * checkpoint's cut sets meanwhile (durable/checkpoint_cut.c) is no lower than what it replaces.
 */
#include "postgres.h"

#include "port/atomics.h"
#include "utils/memutils.h"

#include "state/changed.h"

#define CHANGED_FIRST 64
#define CHANGED_PERIODS (PG_UINT32_MAX / 2) /* so many for readers; the rest lasts for checkpoints */

/*
 * A cut (durable/checkpoint_cut.c) takes no lock. It raises `period` after it has set `cutting`: who sees the new one sees that as well; who sees the
 * old one has noted less than what follows the cut.
 */
uint32
streamext_state_note_period(ViewState *state)
{
	uint32 period = *(volatile uint32 *) &state->period;

	Assert(state->lock == NULL || LWLockHeldByMe(state->lock));
	pg_read_barrier();
	if (*(volatile bool *) &state->cutting || period >= CHANGED_PERIODS)
		return period;
	state->noted = true;
	return period + 1;
}

void
streamext_state_end_noted(ViewState *state)
{
	Assert(state->lock == NULL || LWLockHeldByMeInMode(state->lock, LW_EXCLUSIVE));
	if (!state->noted)
		return;
	state->noted = false;
	if (!state->cutting && state->period < CHANGED_PERIODS)
		state->period++;
}

StateChanged *
streamext_state_changed_create(MemoryContext cxt)
{
	StateChanged *changed = MemoryContextAllocZero(cxt, sizeof(StateChanged));

	changed->cxt = cxt;
	changed->min_id = PG_INT64_MAX;
	changed->max_id = PG_INT64_MIN;
	changed->mask = 2 * CHANGED_FIRST - 1;
	changed->hashes = MemoryContextAlloc(cxt, sizeof(uint32) * CHANGED_FIRST);
	changed->index = MemoryContextAllocZero(cxt, sizeof(uint32) * ((Size) changed->mask + 1));
	return changed;
}

/* The place of a hash, or a free one. */
static uint32 *
changed_place(const StateChanged *changed, uint32 hash)
{
	uint32 at = hash & changed->mask;

	while (changed->index[at] != 0 && changed->hashes[changed->index[at] - 1] != hash)
		at = (at + 1) & changed->mask;
	return &changed->index[at];
}

static void
changed_grow(StateChanged *changed)
{
	Size slots = ((Size) changed->mask + 1) * 2;

	pfree(changed->index);
	changed->index =
		MemoryContextAllocExtended(changed->cxt, sizeof(uint32) * slots, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	changed->hashes = repalloc_huge(changed->hashes, sizeof(uint32) * (slots / 2));
	changed->mask = slots - 1;
	for (int i = 0; i < changed->nhashes; i++)
		*changed_place(changed, changed->hashes[i]) = i + 1;
}

static void
changed_put(StateChanged *changed, uint32 hash)
{
	uint32 *place = changed_place(changed, hash);

	if (*place != 0)
		return;
	if (changed->nhashes == (changed->mask + 1) / 2)
	{
		changed_grow(changed);
		place = changed_place(changed, hash);
	}
	changed->hashes[changed->nhashes] = hash;
	*place = ++changed->nhashes;
}

/* The pane's published groups of a period from `since` on. */
static void
changed_walk(StateChanged *changed, const Pane *pane, uint32 since)
{
	const StateBlock *block = *(StateBlock *const volatile *) &pane->entries;

	while (block != NULL)
	{
		uint32 used;

		pg_read_barrier();
		used = *(const volatile uint32 *) &block->used;
		pg_read_barrier();
		for (uint32 at = 0; at < used;)
		{
			const GroupEntry *entry = (const GroupEntry *) (block->data + at);

			if (*(const volatile uint32 *) &entry->visible >= since)
			{
				changed->published++;
				changed_put(changed, entry->hash);
			}
			at += entry->size;
		}
		block = *(StateBlock *const volatile *) &block->next;
	}
}

void
streamext_state_changed_add(StateChanged *changed, const ViewState *state, uint32 since)
{
	Assert(since > 0 && (state->lock == NULL || LWLockHeldByMe(state->lock)));
	for (int i = 0; i < state->npanes; i++)
	{
		const Pane *pane = state->panes[i];

		if (pane->nrows == 0 || pane->changed < since)
			continue;
		changed->min_id = Min(changed->min_id, pane->id);
		changed->max_id = Max(changed->max_id, pane->id);
		changed->groups += *(const volatile uint32 *) &pane->ngroups;
		changed_walk(changed, pane, since);
	}
}

bool
streamext_state_changed_has(const StateChanged *changed, uint32 hash)
{
	return *changed_place(changed, hash) != 0;
}
