/*
 * state/pane.c
 *		Panes and groups of one view on one shard: the writer's look-ups and growth. Readers' copies: state_copy below.
 *
 * A pane begins as one smallest chunk that holds its header, an index of 16 slots and the first entries, so that a pane
 * of few groups costs 1 kB. Its entries grow by blocks that double up to STREAMEXT_CHUNK_MAX and never move; its index
 * doubles too.
 *
 * Memory ordering. The writer works beside readers that hold the lock shared. What it appends becomes reachable by one
 * aligned store after a write barrier: StateBlock.used after the entry below it, the link to a block after its header,
 * PaneIndexSlot.ref after the entry and the slot's hash. A reader loads those first and has a read barrier before what
 * they lead to. All that is visible to it was published under the exclusive lock before and is therefore complete and
 * stable. Swapping the index, and inserting into or replacing the array of panes, is done under the exclusive lock.
 *
 * Lock order: the stream slot's lock (state->lock), then the chunk allocator's. New chunks are asked for without the
 * former.
 *
 * The same code makes a reader's private state from a checkpoint: memory of a context instead of chunks, no lock.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "base/chunk.h"
#include "port/atomics.h"
#include "state/pane.h"

#define PANE_FIRST_SLOTS 16
#define PANE_INDEX_MAX ((uint32) 1 << 31)

/* The first chunk of a pane. */
typedef struct PaneChunk
{
	Pane		  pane;
	PaneIndexSlot index[PANE_FIRST_SLOTS];
	StateBlock	  block; /* up to the chunk's end */
} PaneChunk;

StaticAssertDecl(sizeof(PaneChunk) <= STREAMEXT_CHUNK_MIN / 2, "a pane's header leaves room for entries");
StaticAssertDecl(offsetof(GroupEntry, data) % 8 == 0, "aggregate states are aligned");
StaticAssertDecl(offsetof(StateBlock, data) % 8 == 0, "entries are aligned");

#define STATE_ALIGN(size) TYPEALIGN(8, (Size) (size))

/* Of a state in private memory, whose entries are too far apart for STREAMEXT_REF. */
typedef struct StatePrivate
{
	MemoryContext cxt;
	GroupEntry	**entries; /* PaneIndexSlot.ref counts from 1 */
	uint32		  n;
	uint32		  capacity;
} StatePrivate;


/* ---- shared or private ---- */

static void
state_lock(ViewState *state)
{
	if (state->own == NULL)
		LWLockAcquire(state->lock, LW_EXCLUSIVE);
}

static void
state_unlock(ViewState *state)
{
	if (state->own == NULL)
		LWLockRelease(state->lock);
}

static void *
state_alloc(ViewState *state, Size size, Size *actual)
{
	if (state->own == NULL)
		return streamext_chunk_alloc(size, actual);
	*actual = size;
	return MemoryContextAllocHuge(state->own->cxt, size);
}

static void
state_free(ViewState *state, void *chunk)
{
	if (state->own == NULL)
		streamext_chunk_free(chunk);
	else if (chunk != NULL)
		pfree(chunk);
}

static inline GroupEntry *
slot_entry(const ViewState *state, uint32 ref)
{
	return unlikely(state->own != NULL) ? state->own->entries[ref - 1] : (GroupEntry *) STREAMEXT_PTR(ref);
}

/* What a slot of the index is to hold for the entry. */
static uint32
slot_ref(ViewState *state, GroupEntry *entry)
{
	StatePrivate *own = state->own;

	if (own == NULL)
		return STREAMEXT_REF(entry);
	if (own->n == own->capacity)
	{
		own->capacity *= 2;
		own->entries = repalloc_huge(own->entries, own->capacity * sizeof(GroupEntry *));
	}
	own->entries[own->n++] = entry;
	return own->n;
}


/* ---- panes ---- */

void
streamext_state_init(ViewState *state, LWLock *lock, uint32 state_size)
{
	memset(state, 0, sizeof(ViewState));
	state->lock = lock;
	state->state_size = STATE_ALIGN(state_size);
	state->horizon = DT_NOBEGIN;
	state->period = 1;
}

void
streamext_state_init_private(ViewState *state, uint32 state_size, MemoryContext cxt)
{
	StatePrivate *own = MemoryContextAllocZero(cxt, sizeof(StatePrivate));

	streamext_state_init(state, NULL, state_size);
	own->cxt = cxt;
	own->capacity = 1024;
	own->entries = MemoryContextAlloc(cxt, own->capacity * sizeof(GroupEntry *));
	state->own = own;
}

/* Where the first pane with an id not below `id` stands, or would. */
static int
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

/* Room for one more pane in the array; false when memory is full. */
static bool
state_reserve_pane(ViewState *state)
{
	Pane **old = state->panes;
	Size   old_size = (Size) state->panes_capacity * sizeof(Pane *);
	Size   size;
	Pane **panes;

	if (state->npanes < state->panes_capacity)
		return true;
	if (state->panes_capacity > INT_MAX / 2)
		return false;
	panes = state_alloc(state, Max(old_size * 2, STREAMEXT_CHUNK_MIN), &size);
	if (panes == NULL)
		return false;
	if (old != NULL)
		memcpy(panes, old, state->npanes * sizeof(Pane *));

	state_lock(state);
	state->panes = panes;
	state->panes_capacity = Min(size / sizeof(Pane *), INT_MAX);
	state->bytes += size - old_size;
	state_unlock(state);

	state_free(state, old);
	return true;
}

/* A pane without groups in a chunk of its own, not yet in the array; NULL when memory is full. */
static Pane *
state_make_pane(ViewState *state, int64 id)
{
	Size	   size;
	PaneChunk *chunk = state_alloc(state, STREAMEXT_CHUNK_MIN, &size);

	if (chunk == NULL)
		return NULL;
	memset(chunk, 0, sizeof(PaneChunk));
	chunk->block.size = size - offsetof(PaneChunk, block) - offsetof(StateBlock, data);
	chunk->pane.id = id;
	chunk->pane.entries = chunk->pane.entries_tail = &chunk->block;
	chunk->pane.index = chunk->index;
	chunk->pane.index_mask = PANE_FIRST_SLOTS - 1;
	chunk->pane.bytes = size;
	return &chunk->pane;
}

Pane *
streamext_state_pane(ViewState *state, int64 id)
{
	Pane *pane = state->recent;
	int	  at;

	if (pane != NULL && pane->id == id)
		return pane;

	at = state_lower_bound(state, id);
	if (at < state->npanes && state->panes[at]->id == id)
		return state->recent = state->panes[at];

	if (!state_reserve_pane(state))
		return NULL;
	pane = state_make_pane(state, id);
	if (pane == NULL)
		return NULL;

	state_lock(state);
	memmove(&state->panes[at + 1], &state->panes[at], (state->npanes - at) * sizeof(Pane *));
	state->panes[at] = pane;
	state->npanes++;
	state->bytes += pane->bytes;
	state->recent = pane;
	state_unlock(state);
	return pane;
}

static void
state_free_blocks(StateBlock *block, const StateBlock *first)
{
	while (block != NULL)
	{
		StateBlock *next = block->next;

		if (block != first)
			streamext_chunk_free(block);
		block = next;
	}
}

static void
state_free_pane(Pane *pane)
{
	PaneChunk *chunk = (PaneChunk *) pane;

	state_free_blocks(pane->entries, &chunk->block);
	state_free_blocks(pane->blobs, NULL);
	if (pane->index != chunk->index)
		streamext_chunk_free(pane->index);
	streamext_chunk_free(chunk);
}

void
streamext_state_drop_pane(ViewState *state, Pane *pane)
{
	int at = state_lower_bound(state, pane->id);

	Assert(state->own != NULL || LWLockHeldByMeInMode(state->lock, LW_EXCLUSIVE));
	Assert(at < state->npanes && state->panes[at] == pane);
	state->npanes--;
	memmove(&state->panes[at], &state->panes[at + 1], (state->npanes - at) * sizeof(Pane *));
	state->ngroups -= pane->ngroups;
	state->bytes -= pane->bytes;
	state->recent = NULL;
	state_free_pane(pane);
}

void
streamext_state_unlink_panes(ViewState *state, int npanes)
{
	Assert(state->own != NULL || LWLockHeldByMeInMode(state->lock, LW_EXCLUSIVE));
	if (npanes == 0)
		return; /* there may be no array */
	for (int i = 0; i < npanes; i++)
	{
		state->ngroups -= state->panes[i]->ngroups;
		state->bytes -= state->panes[i]->bytes;
	}
	state->npanes -= npanes;
	memmove(&state->panes[0], &state->panes[npanes], state->npanes * sizeof(Pane *));
	state->recent = NULL;
}

void
streamext_state_free_panes(Pane **panes, int npanes)
{
	for (int i = 0; i < npanes; i++)
		state_free_pane(panes[i]);
}

void
streamext_state_reset(ViewState *state)
{
	int i;

	for (i = 0; i < state->npanes; i++)
		state_free_pane(state->panes[i]);
	streamext_chunk_free(state->panes);
	streamext_state_init(state, state->lock, state->state_size);
}


/* ---- blocks ---- */

static inline Size
block_chunk_size(const StateBlock *block)
{
	return offsetof(StateBlock, data) + (Size) block->size;
}

/*
 * A block for at least `need` bytes, twice as large as the one before it if there is memory for that; not yet linked.
 * NULL when memory is full.
 */
static StateBlock *
state_make_block(ViewState *state, Pane *pane, const StateBlock *tail, Size need)
{
	Size		least = offsetof(StateBlock, data) + need;
	Size		want = STREAMEXT_CHUNK_MIN;
	Size		size;
	StateBlock *block;

	/* The first block of entries is somewhat less than the chunk it is in: it counts as 1 kB. */
	if (tail != NULL)
		want = Min(Max(block_chunk_size(tail), STREAMEXT_CHUNK_MIN) * 2, STREAMEXT_CHUNK_MAX);
	want = Max(want, least);
	while ((block = state_alloc(state, want, &size)) == NULL)
	{
		if (want / 2 < least || want / 2 < STREAMEXT_CHUNK_MIN)
			return NULL;
		want /= 2;
	}

	block->next = NULL;
	block->size = size - offsetof(StateBlock, data);
	block->used = 0;
	pane->bytes += size;
	state->bytes += size;
	return block;
}

/*
 * need bytes (a multiple of 8) at the end of the chain, which may get a new block; NULL when memory is full. They do not
 * exist for readers until the caller adds them to (*tail)->used, after a write barrier.
 */
static char *
state_reserve(ViewState *state, Pane *pane, StateBlock **head, StateBlock **tail, Size need)
{
	StateBlock *block = *tail;

	if (unlikely(block == NULL || block->size - block->used < need))
	{
		if (need > MaxAllocSize)
			return NULL;
		block = state_make_block(state, pane, *tail, need);
		if (block == NULL)
			return NULL;
		pg_write_barrier();
		if (*tail != NULL)
			(*tail)->next = block;
		else
			*head = block;
		*tail = block;
	}
	return block->data + block->used;
}

void *
streamext_state_blob(ViewState *state, Pane *pane, Size size)
{
	char *blob;

	if (size > MaxAllocSize)
		return NULL;
	size = STATE_ALIGN(Max(size, 1));
	blob = state_reserve(state, pane, &pane->blobs, &pane->blobs_tail, size);
	if (blob != NULL)
		pane->blobs_tail->used += size;
	return blob;
}


/* ---- groups ---- */

/* The first free slot for a hash. */
static inline PaneIndexSlot *
index_free_slot(PaneIndexSlot *index, uint32 mask, uint32 hash)
{
	uint32 at = hash & mask;

	while (index[at].ref != 0)
		at = (at + 1) & mask;
	return &index[at];
}

/* Doubles the index (at least to what fills a smallest chunk); false when memory is full. */
static bool
state_grow_index(ViewState *state, Pane *pane)
{
	PaneIndexSlot *old = pane->index;
	uint32		   old_slots = pane->index_mask + 1;
	bool		   old_inline = old == ((PaneChunk *) pane)->index;
	Size		   old_size = old_inline ? 0 : old_slots * sizeof(PaneIndexSlot);
	uint32		   slots;
	Size		   size;
	PaneIndexSlot *index;
	uint32		   i;

	if (old_slots >= PANE_INDEX_MAX)
		return false;
	slots = Max(old_slots * 2, (uint32) (STREAMEXT_CHUNK_MIN / sizeof(PaneIndexSlot)));
	index = state_alloc(state, slots * sizeof(PaneIndexSlot), &size);
	if (index == NULL)
		return false;
	memset(index, 0, slots * sizeof(PaneIndexSlot));
	for (i = 0; i < old_slots; i++)
	{
		if (old[i].ref != 0)
			*index_free_slot(index, slots - 1, old[i].hash) = old[i];
	}

	state_lock(state);
	pane->index = index;
	pane->index_mask = slots - 1;
	pane->bytes += size - old_size;
	state->bytes += size - old_size;
	state_unlock(state);

	if (!old_inline)
		state_free(state, old);
	return true;
}

/* A new entry that the index does not know yet; NULL when memory is full. */
static GroupEntry *
state_make_entry(ViewState *state, Pane *pane, uint32 hash, const char *key, uint32 key_size)
{
	Size		size = STATE_ALIGN(offsetof(GroupEntry, data) + (Size) state->state_size + key_size);
	GroupEntry *entry;

	entry = (GroupEntry *) state_reserve(state, pane, &pane->entries, &pane->entries_tail, size);
	if (entry == NULL)
		return NULL;
	entry->hash = hash;
	entry->size = size;
	entry->key_size = key_size;
	entry->visible = 0;
	memset(entry->data, 0, state->state_size);
	if (key_size > 0)
		memcpy(entry->data + state->state_size, key, key_size);
	pg_write_barrier();
	pane->entries_tail->used += size;
	return entry;
}

GroupEntry *
streamext_state_group(ViewState *state, Pane *pane, uint32 hash, const char *key, uint32 key_size, GroupEqual equal,
					  void *equal_arg, bool *is_new)
{
	const uint32   state_size = state->state_size;
	PaneIndexSlot *index = pane->index;
	uint32		   mask = pane->index_mask;
	uint32		   at = hash & mask;
	PaneIndexSlot *slot;
	GroupEntry	  *entry;

	for (slot = &index[at]; slot->ref != 0; slot = &index[at])
	{
		if (slot->hash == hash)
		{
			const char *stored;

			entry = slot_entry(state, slot->ref);
			stored = STREAMEXT_ENTRY_KEY(entry, state_size);
			if (equal != NULL ? equal(equal_arg, stored, entry->key_size, key, key_size)
							  : (entry->key_size == key_size && streamext_state_same_bytes(stored, key, key_size)))
			{
				*is_new = false;
				return entry;
			}
		}
		at = (at + 1) & mask;
		/* a place stands for a count of the probes, which would cost each row a register */
		if (unlikely((at & (STREAMEXT_PROBES - 1)) == 0))
			CHECK_FOR_INTERRUPTS();
	}

	if (((uint64) pane->ngroups + 1) * 4 > ((uint64) mask + 1) * 3)
	{
		if (!state_grow_index(state, pane))
			return NULL;
		slot = index_free_slot(pane->index, pane->index_mask, hash);
	}
	entry = state_make_entry(state, pane, hash, key, key_size);
	if (entry == NULL)
		return NULL;
	pane->ngroups++;
	state->ngroups++;
	slot->hash = hash;
	pg_write_barrier();
	slot->ref = slot_ref(state, entry);
	*is_new = true;
	return entry;
}


/* ---- readers' copies ---- */

/*
 * A copy is made in two steps: the first notes what stretches of shared memory there are to be copied (whole blocks, or
 * single entries), the second takes memory for all of it and copies. A stretch is never read beyond what was noted.
 */
typedef struct CopyList
{
	StateCopyBlock *items;
	int				n;
	int				capacity;
	Size			bytes;
} CopyList;

typedef struct StateCopier
{
	MemoryContext cxt;
	StateCopy	 *copy;
	CopyList	  entries;
	CopyList	  blobs;
	int			 *pane_end;	  /* by pane of the copy: end of its stretches in `entries` */
	Size		  max_groups; /* visible ones, at most */
} StateCopier;

static void
copy_note(StateCopier *copier, CopyList *list, const char *shared, Size size)
{
	if (size == 0)
		return;
	if (list->n == list->capacity)
	{
		list->capacity = list->capacity == 0 ? 64 : list->capacity * 2;
		if (list->items == NULL)
			list->items = MemoryContextAllocHuge(copier->cxt, list->capacity * sizeof(StateCopyBlock));
		else
			list->items = repalloc_huge(list->items, list->capacity * sizeof(StateCopyBlock));
	}
	list->items[list->n].shared = shared;
	list->items[list->n].size = size;
	list->items[list->n].copy = NULL;
	list->n++;
	list->bytes += size;
}

static void
copy_note_chain(StateCopier *copier, CopyList *list, StateBlock *const *head)
{
	const StateBlock *block = *(StateBlock *const volatile *) head;

	while (block != NULL)
	{
		uint32 used;

		pg_read_barrier();
		used = *(const volatile uint32 *) &block->used;
		copy_note(copier, list, block->data, used);
		block = *(StateBlock *const volatile *) &block->next;
	}
	pg_read_barrier();
}

/* Notes the pane's visible entries with this hash; true if there is one. */
static bool
copy_note_hash(StateCopier *copier, const ViewState *state, const Pane *pane, uint32 hash)
{
	uint32 at = hash & pane->index_mask;
	bool   any = false;

	for (;;)
	{
		const volatile PaneIndexSlot *slot = &pane->index[at];
		uint32						  ref = slot->ref;

		if (ref == 0)
			return any;
		pg_read_barrier();
		if (slot->hash == hash)
		{
			const GroupEntry *entry = slot_entry(state, ref);

			if (entry->visible != 0)
			{
				copy_note(copier, &copier->entries, (const char *) entry, entry->size);
				copier->max_groups++;
				any = true;
			}
		}
		at = (at + 1) & pane->index_mask;
	}
}

/* First step: panes from min_id to max_id, all of their groups (hashes NULL) or those with one of n hashes, which differ. */
static void
copy_gather(StateCopier *copier, const ViewState *state, int64 min_id, int64 max_id, const uint32 *hashes, int n)
{
	StateCopy *copy = copier->copy;
	int		   first = state_lower_bound(state, min_id);
	int		   end = max_id == PG_INT64_MAX ? state->npanes : state_lower_bound(state, max_id + 1);
	int		   npanes = Max(end - first, 0);
	int		   i;

	copy->panes = MemoryContextAllocHuge(copier->cxt, Max(npanes, 1) * sizeof(PaneCopy));
	copier->pane_end = MemoryContextAllocHuge(copier->cxt, Max(npanes, 1) * sizeof(int));
	for (i = first; i < end; i++)
	{
		const Pane *pane = state->panes[i];
		bool		blobs = hashes == NULL;

		if (pane->nrows == 0)
			continue;
		for (int h = 0; hashes != NULL && h < n; h++)
			blobs |= copy_note_hash(copier, state, pane, hashes[h]);
		if (hashes == NULL)
		{
			copy_note_chain(copier, &copier->entries, &pane->entries);
			/* Whatever is visible now was counted before it was published. */
			copier->max_groups += *(const volatile uint32 *) &pane->ngroups;
		}
		if (blobs)
			copy_note_chain(copier, &copier->blobs, &pane->blobs);
		copy->panes[copy->npanes].id = pane->id;
		copy->panes[copy->npanes].nrows = pane->nrows;
		copier->pane_end[copy->npanes] = copier->entries.n;
		copy->npanes++;
	}
}

/* Second step: memory for a list, and the bytes. */
static void
copy_bytes(StateCopier *copier, CopyList *list)
{
	char *to;
	int	  i;

	if (list->n == 0)
		return;
	to = MemoryContextAllocHuge(copier->cxt, list->bytes);
	for (i = 0; i < list->n; i++)
	{
		list->items[i].copy = to;
		memcpy(to, list->items[i].shared, list->items[i].size);
		to += list->items[i].size;
	}
}

/* Appends the visible entries of a copied stretch to groups[n ..]; gives the new n. */
static Size
copy_walk(const StateCopier *copier, const StateCopyBlock *stretch, GroupEntry **groups, Size n)
{
	Size at = 0;

	while (at < stretch->size)
	{
		GroupEntry *entry = (GroupEntry *) (stretch->copy + at);

		if (entry->size < offsetof(GroupEntry, data) || entry->size > stretch->size - at)
			elog(ERROR, "streamext: an entry of %u bytes in a block of %zu", entry->size, stretch->size);
		if (entry->visible != 0)
		{
			if (n >= copier->max_groups)
				elog(ERROR, "streamext: a pane has more visible groups than were made");
			groups[n++] = entry;
		}
		at += entry->size;
	}
	return n;
}

static int
copy_block_compare(const void *a, const void *b)
{
	const char *x = ((const StateCopyBlock *) a)->shared;
	const char *y = ((const StateCopyBlock *) b)->shared;

	return x < y ? -1 : x > y;
}

static StateCopy *
copy_make(const ViewState *state, int64 min_id, int64 max_id, const uint32 *hashes, int nhashes, MemoryContext cxt)
{
	StateCopier	 copier = { .cxt = cxt };
	StateCopy	*copy = MemoryContextAllocZero(cxt, sizeof(StateCopy));
	GroupEntry **groups;
	Size		 n = 0;
	int			 stretch = 0;
	int			 i;

	copier.copy = copy;
	copy->state_size = state->state_size;
	copy->horizon = state->horizon;
	copy_gather(&copier, state, min_id, max_id, hashes, nhashes);
	groups = MemoryContextAllocHuge(cxt, Max(copier.max_groups, 1) * sizeof(GroupEntry *));
	copy_bytes(&copier, &copier.entries);
	copy_bytes(&copier, &copier.blobs);

	for (i = 0; i < copy->npanes; i++)
	{
		PaneCopy *pane = &copy->panes[i];
		Size	  first = n;

		for (; stretch < copier.pane_end[i]; stretch++)
			n = copy_walk(&copier, &copier.entries.items[stretch], groups, n);
		pane->groups = groups + first;
		pane->ngroups = n - first;
	}

	copy->nblocks = copier.blobs.n;
	copy->blocks = copier.blobs.items;
	if (copy->nblocks > 1)
		qsort(copy->blocks, copy->nblocks, sizeof(StateCopyBlock), copy_block_compare);
	if (copier.entries.items != NULL)
		pfree(copier.entries.items);
	pfree(copier.pane_end);
	return copy;
}

StateCopy *
streamext_state_copy(const ViewState *state, int64 min_id, int64 max_id, MemoryContext cxt)
{
	return copy_make(state, min_id, max_id, NULL, 0, cxt);
}

StateCopy *
streamext_state_copy_hashes(const ViewState *state, int64 min_id, int64 max_id, const uint32 *hashes, int n,
							MemoryContext cxt)
{
	return copy_make(state, min_id, max_id, hashes, n, cxt);
}

const void *
streamext_state_copied(const StateCopy *copy, const void *shared)
{
	int low = 0;
	int high = copy->nblocks;

	if (shared == NULL)
		return NULL;

	/* The last block that does not begin after it. */
	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (copy->blocks[middle].shared <= (const char *) shared)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || (const char *) shared >= copy->blocks[low - 1].shared + copy->blocks[low - 1].size)
		elog(ERROR, "streamext: a blob is not among the copied ones");
	return copy->blocks[low - 1].copy + ((const char *) shared - copy->blocks[low - 1].shared);
}
