/*
 * state/changed.h
 *		Which groups of a view's state were published lately, for readers who look at it again.
 *
 * Publication notes the period that it is in (state/pane.h: GroupEntry.visible, Pane.changed), for checkpoints. So a reader who has noted the
 * period at one moment finds by it what was published after. The next publication ends the period for him, but not while a checkpoint is on
 * its way: then he finds what else was in the same period, too.
 */
#ifndef STREAMEXT_STATE_CHANGED_H
#define STREAMEXT_STATE_CHANGED_H

#include "base/streamext.h"
#include "state/pane.h"

typedef struct StateChanged
{
	MemoryContext cxt;
	int64		  min_id, max_id; /* panes published into; min_id > max_id: none */
	uint64		  published;	  /* groups, once for each pane and shard */
	uint64		  groups;		  /* of those panes in all */
	uint32		 *hashes;		  /* of their keys, each once */
	int			  nhashes;
	uint32		 *index; /* 1 + number of a hash; 0: free */
	uint32		  mask;
} StateChanged;

/* What is published from now on is of this period or later ones. With the lock, shared at least. */
extern uint32 streamext_state_note_period(ViewState *state);
/* Before a publication, by who makes it: with the lock, exclusive. */
extern void streamext_state_end_noted(ViewState *state);

extern StateChanged *streamext_state_changed_create(MemoryContext cxt);
/* What was published in period `since` or later; of several shards one after the other. With the lock, shared at least. */
extern void streamext_state_changed_add(StateChanged *changed, const ViewState *state, uint32 since);
/* Whether a group with this hash is among them. */
extern bool streamext_state_changed_has(const StateChanged *changed, uint32 hash);

#endif /* STREAMEXT_STATE_CHANGED_H */
