/*
 * state/copy.c
 *		Readers' copies of panes and their groups.
 *
 * A copy is made in two steps: the first notes what stretches of shared memory there are to be copied (whole blocks, or
 * single entries), the second takes memory for all of it and copies. A stretch is never read beyond what was noted. The lock is held shared,
 * beside the writer: what may be read then, and the barriers, are at the head of state/pane.c.
 */
#include "postgres.h"

#include "port/atomics.h"
#include "state/pane_private.h"

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
