/*
 * state/pane.c
 *		Panes and groups of one view on one shard: the writer's look-ups and growth. Readers' copies: state/copy.c.
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
#include "state/pane_private.h"

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
