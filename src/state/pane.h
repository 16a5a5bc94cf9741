/*
 * state/pane.h
 *		The kept content of one view on one shard: panes, each a hash table of groups with partial aggregates.
 *
 * Everything lives in chunks of shared memory that the pane owns, so dropping a pane is a few frees. One writer (the
 * stream's worker), any number of readers. The writer looks groups up and adds new ones WITHOUT the lock; a new group is
 * invisible (visible = 0) until the batch that made it is published under the exclusive lock. What readers walk under the
 * shared lock (array of panes, a pane's index, block chains) is only replaced by the writer under the exclusive lock,
 * which the functions below take themselves for the moment of the swap. Aggregate states start as zero bytes.
 *
 * No function here raises, but for a look-up that is interrupted before it has made anything; full memory is a NULL.
 */
#ifndef STREAMEXT_STATE_H
#define STREAMEXT_STATE_H

#include "base/streamext.h"
#include "base/chunk.h"
#include "datatype/timestamp.h"

typedef struct GroupEntry
{
	uint32 hash; /* of the key, view/key.c; the same in every pane and shard of the cluster */
	uint32 size; /* bytes to the next entry of the block, this header included; multiple of 8 */
	uint32 key_size;
	/*
	 * 0 until published, then ViewState.period of the last publication, under the exclusive lock; the period of a cut that holds it,
	 * without a lock (durable/checkpoint_cut.c)
	 */
	uint32 visible;
	char   data[FLEXIBLE_ARRAY_MEMBER]; /* state_size bytes of states, then key_size bytes of key */
} GroupEntry;

/* After so many steps a loop over an index looks whether it is to end: keys that share a place make it long. */
#define STREAMEXT_PROBES 256

/* Entries of a pane, or its blobs (out-of-line states), back to back; chained oldest first. */
typedef struct StateBlock
{
	struct StateBlock *next;
	uint32			   size; /* bytes of data[] */
	uint32			   used; /* written by the writer unlocked; entries beyond are not there for readers */
	char			   data[FLEXIBLE_ARRAY_MEMBER];
} StateBlock;

typedef struct PaneIndexSlot
{
	uint32 hash;
	uint32 ref; /* STREAMEXT_REF of the entry (a private state: its number); 0 = free */
} PaneIndexSlot;

typedef struct Pane
{
	int64		   id; /* see view/window.h */
	StateBlock	  *entries, *entries_tail;
	StateBlock	  *blobs, *blobs_tail;
	PaneIndexSlot *index;	   /* linear probing, load at most 3/4 */
	uint32		   index_mask; /* slots - 1 */
	uint32		   ngroups;	   /* visible or not */
	uint64		   nrows;	   /* rows folded; 0: readers skip the pane. Written at publication */
	uint32		   changed;	   /* ViewState.period when last published into; for checkpoints */
	Size		   bytes;	   /* chunks owned */
} Pane;

typedef struct ViewState
{
	LWLock *lock;		/* the stream slot's lock */
	uint32	state_size; /* bytes of aggregate states in an entry; multiple of 8 */
	Pane  **panes;		/* ascending by id */
	int		npanes;
	int		panes_capacity;
	uint64	batches; /* published so far */
	uint32	period;	 /* from 1; each checkpoint's cut ends it and takes the next one for itself */
	uint32	saved;	 /* last period that is in a committed checkpoint; 0: none */
	bool	cutting; /* from a cut on until a checkpoint is committed; period stays meanwhile */
	bool
		noted; /* a reader has noted period: the next publication ends it. Set with the lock shared (state/changed.h) */
	uint64 ngroups; /* over all panes, visible or not */
	Size   bytes;	/* chunks owned in all */
	TimestampTz
		  horizon; /* session views: readers leave out sessions that end by then (fold/session.h); DT_NOBEGIN: none */
	Pane *recent;  /* what the writer's last look-up gave, or NULL; the writer's alone */
	struct StatePrivate *own; /* NULL: in shared memory */
} ViewState;

/* True when the stored key equals the probed one; NULL stands for equal bytes. May raise. */
typedef bool (*GroupEqual)(void *arg, const char *stored, uint32 stored_size, const char *probe, uint32 probe_size);

/* ---- the writer; none of these may be called with the lock held ---- */

extern void streamext_state_init(ViewState *state, LWLock *lock, uint32 state_size);

/*
 * A state of this process alone, for what readers load from a checkpoint: its memory is cxt's and goes with it (panes are not
 * dropped one by one), it has no lock, and functions that would return NULL raise.
 */
extern void streamext_state_init_private(ViewState *state, uint32 state_size, MemoryContext cxt);

/* The pane with this id, made if need be; NULL when memory is full. */
extern Pane *streamext_state_pane(ViewState *state, int64 id);

/*
 * The group with this key, made (invisible, states zeroed) if need be; NULL when memory is full.
 * *is_new says that this call made it. An entry that is not new may still be invisible: left by a batch that was never
 * published. So publication makes every entry visible that the batch touches.
 */
extern GroupEntry *streamext_state_group(ViewState *state, Pane *pane, uint32 hash, const char *key, uint32 key_size,
										 GroupEqual equal, void *equal_arg, bool *is_new);

/* size bytes (8-aligned, not zeroed) that live as long as the pane; NULL when full. */
extern void *streamext_state_blob(ViewState *state, Pane *pane, Size size);

/* ---- the same look-up for keys that are equal exactly if their bytes are, inlined up to the first slot ---- */

/*
 * A batch that is to be looked up row by row runs at memory's latency; one that first asks for all the slots, then for
 * all the entries, at its bandwidth. Both are hints only.
 */
static inline void
streamext_state_prefetch_slot(const Pane *pane, uint32 hash)
{
#if defined(__GNUC__)
	__builtin_prefetch(&pane->index[hash & pane->index_mask]);
#endif
}

static inline void
streamext_state_prefetch_entry(const Pane *pane, uint32 hash)
{
#if defined(__GNUC__)
	uint32 ref = pane->index[hash & pane->index_mask].ref;

	if (ref != 0)
		__builtin_prefetch(STREAMEXT_PTR(ref));
#endif
}

/* memcmp() == 0 without a call for up to 16 bytes. */
static inline bool
streamext_state_same_bytes(const char *a, const char *b, uint32 size)
{
	if (size >= 8 && size <= 16)
	{
		uint64 a1, a2, b1, b2;

		memcpy(&a1, a, 8);
		memcpy(&b1, b, 8);
		memcpy(&a2, a + size - 8, 8);
		memcpy(&b2, b + size - 8, 8);
		return ((a1 ^ b1) | (a2 ^ b2)) == 0;
	}
	if (size >= 4 && size < 8)
	{
		uint32 a1, a2, b1, b2;

		memcpy(&a1, a, 4);
		memcpy(&b1, b, 4);
		memcpy(&a2, a + size - 4, 4);
		memcpy(&b2, b + size - 4, 4);
		return ((a1 ^ b1) | (a2 ^ b2)) == 0;
	}
	return memcmp(a, b, size) == 0;
}

/* streamext_state_group with equal = NULL. */
static inline GroupEntry *
streamext_state_group_bytewise(ViewState *state, Pane *pane, uint32 hash, const char *key, uint32 key_size,
							   bool *is_new)
{
	const PaneIndexSlot *slot = &pane->index[hash & pane->index_mask];

	if (likely(slot->ref != 0 && slot->hash == hash))
	{
		GroupEntry *entry = (GroupEntry *) STREAMEXT_PTR(slot->ref);

		if (likely(entry->key_size == key_size &&
				   streamext_state_same_bytes(entry->data + state->state_size, key, key_size)))
		{
			*is_new = false;
			return entry;
		}
	}
	return streamext_state_group(state, pane, hash, key, key_size, NULL, NULL, is_new);
}

/* ---- with the exclusive lock held ---- */

extern void streamext_state_drop_pane(ViewState *state, Pane *pane);
/* Takes out the first npanes; the caller frees them when it has let go of the lock. */
extern void streamext_state_unlink_panes(ViewState *state, int npanes);
extern void streamext_state_free_panes(Pane **panes, int npanes); /* no lock */
/* Frees everything; the state is as after init. */
extern void streamext_state_reset(ViewState *state);

/* ---- readers: private copies, made with the lock held shared (also by the worker, lock or not) ---- */

typedef struct StateCopyBlock
{
	const char *shared; /* where its bytes stood */
	Size		size;
	char	   *copy;
} StateCopyBlock;

typedef struct PaneCopy
{
	int64		 id;
	uint64		 nrows;
	int			 ngroups;
	GroupEntry **groups; /* only visible ones */
} PaneCopy;

typedef struct StateCopy
{
	uint32			state_size;
	TimestampTz		horizon;
	int				npanes;
	PaneCopy	   *panes;	 /* ascending by id, only with nrows > 0 */
	int				nblocks; /* blobs */
	StateCopyBlock *blocks;	 /* ascending by shared */
} StateCopy;

/* Copies the panes with min_id <= id <= max_id into cxt. Memory is taken before anything is copied where possible; may raise out of memory. */
extern StateCopy *streamext_state_copy(const ViewState *state, int64 min_id, int64 max_id, MemoryContext cxt);

/* The same, only the groups with one of these key hashes, which differ (the caller checks the keys). With blobs of those groups' panes. */
extern StateCopy *streamext_state_copy_hashes(const ViewState *state, int64 min_id, int64 max_id, const uint32 *hashes,
											  int n, MemoryContext cxt);

/* Where a blob that stood at `shared` stands in the copy. */
extern const void *streamext_state_copied(const StateCopy *copy, const void *shared);

#define STREAMEXT_ENTRY_KEY(entry, state_size) ((entry)->data + (state_size))

#endif /* STREAMEXT_STATE_H */
