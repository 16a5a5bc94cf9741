/*
 * state/pane_private.h
 *		What the writer's look-ups and the readers' copies share.
 */
#ifndef STREAMEXT_PANE_PRIVATE_H
#define STREAMEXT_PANE_PRIVATE_H

#include "base/chunk.h"
#include "state/pane.h"

/* Of a state in private memory, whose entries are too far apart for STREAMEXT_REF. */
typedef struct StatePrivate
{
	MemoryContext cxt;
	GroupEntry	**entries; /* PaneIndexSlot.ref counts from 1 */
	uint32		  n;
	uint32		  capacity;
} StatePrivate;

static inline GroupEntry *
slot_entry(const ViewState *state, uint32 ref)
{
	return unlikely(state->own != NULL) ? state->own->entries[ref - 1] : (GroupEntry *) STREAMEXT_PTR(ref);
}

/* Where the first pane with an id not below `id` stands, or would. */
static inline int
state_lower_bound(const ViewState *state, int64 id)
{
	int low = 0;
	int high = state->npanes;

	/* Time goes forward: mostly it is the last one or one after it. */
	if (high > 0 && state->panes[high - 1]->id <= id)
		return state->panes[high - 1]->id == id ? high - 1 : high;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (state->panes[middle]->id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

#endif /* STREAMEXT_PANE_PRIVATE_H */
