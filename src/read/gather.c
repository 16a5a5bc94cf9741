/*
 * read/gather.c
 *		Panes of all shards to groups with their slices.
 *
 * Panes are taken in ascending order, so that a group's slices come in theirs. Where the keys' types may have changed since a state was
 * written (keys_change), a key is hashed anew. Slices of rows that were late for some of their windows stand behind the others.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "read/gather.h"

typedef struct GatherPane
{
	const PaneCopy	*pane;
	const StateCopy *copy;
	int				 number; /* of the copy */
} GatherPane;

static int
gather_compare(const void *a, const void *b)
{
	const GatherPane *x = a;
	const GatherPane *y = b;

	if (x->pane->id != y->pane->id)
		return x->pane->id < y->pane->id ? -1 : 1;
	return x->number < y->number ? -1 : x->number > y->number;
}

/* All panes of all shards, of memory and history, ascending. */
static GatherPane *
gather_panes(const CopyArray *copies, int *npanes, Size *nentries)
{
	GatherPane *panes;
	int			n = 0;

	*npanes = 0;
	*nentries = 0;
	for (int c = 0; c < copies->n; c++)
		*npanes += copies->items[c]->npanes;
	panes = palloc_extended(sizeof(GatherPane) * Max(*npanes, 1), MCXT_ALLOC_HUGE);
	for (int c = 0; c < copies->n; c++)
	{
		StateCopy *copy = copies->items[c];

		for (int p = 0; p < copy->npanes; p++)
		{
			panes[n].pane = &copy->panes[p];
			panes[n].copy = copy;
			panes[n++].number = c;
			*nentries += copy->panes[p].ngroups;
		}
	}
	qsort(panes, n, sizeof(GatherPane), gather_compare);
	return panes;
}

static const char *
gather_key(const Gathered *gathered, const GroupEntry *entry)
{
	return STREAMEXT_ENTRY_KEY(entry, gathered->view->state_size);
}

static void
gather_index(Gathered *gathered, uint32 size)
{
	if (gathered->index != NULL)
		pfree(gathered->index);
	gathered->index =
		MemoryContextAllocExtended(gathered->cxt, sizeof(int) * (Size) size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	gathered->index_mask = size - 1;
	for (int g = 0; g < gathered->ngroups; g++)
	{
		uint32 at = gathered->groups[g].hash & gathered->index_mask;

		if ((g & (STREAMEXT_PROBES - 1)) == 0)
			CHECK_FOR_INTERRUPTS();
		while (gathered->index[at] != 0)
			at = (at + 1) & gathered->index_mask;
		gathered->index[at] = g + 1;
	}
}

/* The number of the group with this key, or -1; *at is where it stands or would stand in the index. */
static int
gather_find(const Gathered *gathered, uint32 hash, const char *key, uint32 key_size, uint32 *at)
{
	uint32 probes = 0;

	for (*at = hash & gathered->index_mask; gathered->index[*at] != 0; *at = (*at + 1) & gathered->index_mask)
	{
		const ScanGroup *group = &gathered->groups[gathered->index[*at] - 1];

		if ((++probes & (STREAMEXT_PROBES - 1)) == 0)
			CHECK_FOR_INTERRUPTS();
		if (group->hash == hash &&
			streamext_key_equal(gathered->matcher, gather_key(gathered, group->entry), group->key_size, key, key_size))
			return gathered->index[*at] - 1;
	}
	return -1;
}

/* *late: left alone, or true if the entry's slice is a late one. */
static int
gather_group(Gathered *gathered, const GroupEntry *entry, Size *capacity, bool *late)
{
	uint32		at;
	uint32		hash = gathered->view->keys_change
						   ? streamext_key_rehash(gathered->matcher, gather_key(gathered, entry), entry->key_size)
						   : entry->hash;
	TimestampTz from;
	uint32		key_size = streamext_key_split(gathered->view, gather_key(gathered, entry), entry->key_size, &from);
	int			g = gather_find(gathered, hash, gather_key(gathered, entry), key_size, &at);
	ScanGroup  *group;

	*late |= from != DT_NOBEGIN;
	if (g >= 0)
	{
		gathered->groups[g].nslices++;
		return g;
	}
	if ((Size) gathered->ngroups == *capacity)
	{
		*capacity *= 2;
		gathered->groups = repalloc_huge(gathered->groups, sizeof(ScanGroup) * *capacity);
	}
	g = gathered->ngroups++;
	group = &gathered->groups[g];
	group->hash = hash;
	group->key_size = key_size;
	group->entry = entry;
	group->nslices = 1;
	group->nlate = 0;
	group->slices = NULL;
	if ((uint64) gathered->ngroups * 4 > ((uint64) gathered->index_mask + 1) * 3)
		gather_index(gathered, (gathered->index_mask + 1) * 2);
	else
		gathered->index[at] = g + 1;
	return g;
}

static int
gather_compare_late(const void *a, const void *b)
{
	const Slice *x = a;
	const Slice *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

/* Puts the group's late slices behind the others. */
static void
gather_split_late(ScanGroup *group)
{
	Slice *late = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Slice) * group->nlate);
	int	   n = 0, nlate = 0;

	for (int i = 0; i < group->nslices; i++)
	{
		if (group->slices[i].from == DT_NOBEGIN)
			group->slices[n++] = group->slices[i];
		else
			late[nlate++] = group->slices[i];
	}
	qsort(late, nlate, sizeof(Slice), gather_compare_late);
	memcpy(group->slices + n, late, sizeof(Slice) * nlate);
	group->nslices = n;
	pfree(late);
}

void
streamext_gather(Gathered *gathered, const CopyArray *copies)
{
	MemoryContext old = MemoryContextSwitchTo(gathered->cxt);
	int			  npanes;
	Size		  nentries;
	GatherPane	 *panes = gather_panes(copies, &npanes, &nentries);
	Size		  capacity = 64;
	int			 *group_of;
	Slice		 *slices;
	Size		  n = 0;
	bool		  late = false;

	if (nentries > (Size) INT_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("continuous view \"%s\" has too many groups to be read at once",
							   get_rel_name(gathered->view->relid))));
	group_of = MemoryContextAllocHuge(gathered->cxt, sizeof(int) * Max(nentries, 1));
	slices = MemoryContextAllocHuge(gathered->cxt, sizeof(Slice) * Max(nentries, 1));
	gathered->groups = palloc(sizeof(ScanGroup) * capacity);
	gather_index(gathered, 128);

	for (int p = 0; p < npanes; p++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < panes[p].pane->ngroups; i++)
			group_of[n++] = gather_group(gathered, panes[p].pane->groups[i], &capacity, &late);
	}
	n = 0;
	for (int g = 0; g < gathered->ngroups; g++)
	{
		gathered->groups[g].slices = slices + n;
		n += gathered->groups[g].nslices;
		gathered->groups[g].nslices = 0;
	}
	n = 0;
	for (int p = 0; p < npanes; p++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < panes[p].pane->ngroups; i++)
		{
			ScanGroup *group = &gathered->groups[group_of[n++]];
			Slice	  *slice = &group->slices[group->nslices++];

			slice->pane = panes[p].pane->id;
			slice->entry = panes[p].pane->groups[i];
			slice->copy = panes[p].copy;
			slice->from = DT_NOBEGIN;
			if (late)
				(void) streamext_key_split(gathered->view, gather_key(gathered, slice->entry), slice->entry->key_size,
										   &slice->from);
			group->nlate += slice->from != DT_NOBEGIN;
		}
	}
	for (int g = 0; g < gathered->ngroups; g++)
		if (gathered->groups[g].nlate > 0)
			gather_split_late(&gathered->groups[g]);
	pfree(group_of);
	pfree(panes);
	gathered->done = true;
	MemoryContextSwitchTo(old);
}

ScanGroup *
streamext_gather_find(const Gathered *gathered, const ScanProbe *probe)
{
	uint32 at;
	int	   g = gather_find(gathered, probe->hash, probe->key, probe->key_size, &at);

	return g < 0 ? NULL : &gathered->groups[g];
}
