/*
 * read/hop.c
 *		The hopping windows of a group: by two stacks, so that a slice costs about three combinations however many windows hold it.
 *
 * Slices of rows that were late for some of their windows are combined into each of the others one by one.
 */
#include "postgres.h"

#include "common/int.h"
#include "utils/memutils.h"

#include "read/gather.h"

static void
queue_clear(HopWindows *hop, int at)
{
	hop->head = hop->middle = hop->tail = at;
}

/* Appends slice number hop->tail; in hop->cxt. */
static void
queue_push(HopWindows *hop)
{
	const Slice *slice = &hop->group->slices[hop->tail];

	for (int a = 0; a < hop->view->naggs; a++)
	{
		if (hop->readers[a] == NULL)
			continue;
		if (hop->tail == hop->middle)
			hop->back[a] = streamext_partial_copy(hop->readers[a], streamext_slice_load(hop->readers[a], slice));
		else
			streamext_partial_combine(hop->readers[a], hop->back[a], streamext_slice_load(hop->readers[a], slice));
	}
	hop->tail++;
}

/* Makes the front of what is in the back: each slice combined with all after it. */
static void
queue_flip(HopWindows *hop)
{
	int naggs = hop->view->naggs;

	for (int i = hop->tail - 1; i >= hop->head; i--)
	{
		hop->suffixes[i] = palloc(sizeof(AggPartial *) * Max(naggs, 1));
		for (int a = 0; a < naggs; a++)
		{
			AggPartial *partial;

			if (hop->readers[a] == NULL)
				continue;
			partial =
				streamext_partial_copy(hop->readers[a], streamext_slice_load(hop->readers[a], &hop->group->slices[i]));
			if (i < hop->tail - 1)
				streamext_partial_combine(hop->readers[a], partial, hop->suffixes[i + 1][a]);
			hop->suffixes[i][a] = partial;
		}
	}
	hop->middle = hop->tail;
}

static void
queue_evict(HopWindows *hop)
{
	if (hop->head == hop->middle)
	{
		if (hop->tail - hop->head == 1)
		{
			queue_clear(hop, hop->tail);
			return;
		}
		queue_flip(hop);
	}
	hop->head++;
}

/* Of the queue's slices a partial that may be changed; NULL: it has none. In the current memory context. */
static AggPartial *
queue_partial(const HopWindows *hop, int a)
{
	AggReader  *reader = hop->readers[a];
	AggPartial *partial;

	if (hop->head == hop->tail)
		return NULL;
	if (hop->head == hop->middle)
		return streamext_partial_copy(reader, hop->back[a]);
	partial = streamext_partial_copy(reader, hop->suffixes[hop->head][a]);
	if (hop->tail > hop->middle)
		streamext_partial_combine(reader, partial, hop->back[a]);
	return partial;
}

AggPartial *
streamext_hop_partial(const HopWindows *hop, int a)
{
	AggPartial *partial = queue_partial(hop, a);

	for (int i = 0; i < hop->nlate; i++)
	{
		AggPartial *late = streamext_slice_load(hop->readers[a], hop->late_slices[i]);

		if (partial == NULL)
			partial = streamext_partial_copy(hop->readers[a], late);
		else
			streamext_partial_combine(hop->readers[a], partial, late);
	}
	return partial;
}

/* Start of the last window that holds a late slice. */
static TimestampTz
late_last_start(const HopWindows *hop, const Slice *slice)
{
	TimestampTz first, last;

	streamext_window_starts(&hop->view->window, slice->pane, &first, &last);
	return last;
}

/* The first start from next_start on of a window with a late slice; DT_NOEND: there is none. */
static TimestampTz
late_next_start(HopWindows *hop)
{
	const ScanGroup *group = hop->group;
	const Slice		*late = group->slices + group->nslices;

	while (hop->late < group->nlate && late_last_start(hop, &late[hop->late]) < hop->next_start)
		hop->late++;
	for (int i = hop->late; i < group->nlate; i++)
		if (late_last_start(hop, &late[i]) >= hop->next_start)
			return Max(late[i].from, hop->next_start);
	return DT_NOEND;
}

/* Finds those that count in the window at hand. */
static void
late_find(HopWindows *hop)
{
	const ScanGroup *group = hop->group;
	const Slice		*late = group->slices + group->nslices;

	hop->nlate = 0;
	for (int i = hop->late; i < group->nlate && late[i].from <= hop->start; i++)
		if (late_last_start(hop, &late[i]) >= hop->start)
			hop->late_slices[hop->nlate++] = &late[i];
}

/* The first start from next_start on of a window with one of the slices behind the queue, which is empty; DT_NOEND: there is none. */
static TimestampTz
queue_next_start(HopWindows *hop)
{
	const ScanGroup *group = hop->group;

	for (; hop->tail < group->nslices; queue_clear(hop, hop->tail + 1))
	{
		TimestampTz from, to;

		streamext_window_starts(&hop->view->window, group->slices[hop->tail].pane, &from, &to);
		if (from <= to && to >= hop->next_start)
			return Max(hop->next_start, from);
	}
	return DT_NOEND;
}

/*
 * The next window of the group that holds a slice: its slices are in the queue and its start in hop->start. next_start
 * is the earliest start that may come; starts_ended stands for one beyond the range of int64.
 */
static bool
hop_next_window(HopWindows *hop)
{
	const Window	*window = &hop->view->window;
	const ScanGroup *group = hop->group;

	while (!hop->starts_ended)
	{
		int64 first, last;

		if (hop->head == hop->tail)
		{
			TimestampTz next = queue_next_start(hop);

			if (group->nlate > 0)
				next = Min(next, late_next_start(hop));
			if (next == DT_NOEND)
				return false;
			hop->next_start = next;
		}
		hop->start = hop->next_start;
		streamext_window_pane_range(window, hop->start, &first, &last);
		while (hop->head < hop->tail && group->slices[hop->head].pane < first)
			queue_evict(hop);
		while (hop->tail < group->nslices && group->slices[hop->tail].pane <= last)
		{
			if (group->slices[hop->tail].pane < first)
				queue_clear(hop, hop->tail + 1);
			else
				queue_push(hop);
		}
		if (group->nlate > 0)
			late_find(hop);
		if (hop->head == hop->tail && hop->nlate == 0)
			continue;
		hop->starts_ended = pg_add_s64_overflow(hop->start, window->slide, &hop->next_start);
		return true;
	}
	return false;
}

bool
streamext_hop_next(HopWindows *hop)
{
	MemoryContext old = MemoryContextSwitchTo(hop->cxt);
	bool		  found = hop_next_window(hop);

	MemoryContextSwitchTo(old);
	return found;
}

void
streamext_hop_begin(HopWindows *hop, const ScanGroup *group)
{
	hop->group = group;
	hop->next_start = PG_INT64_MIN;
	hop->starts_ended = false;
	queue_clear(hop, 0);
	hop->late = hop->nlate = 0;
	hop->suffixes = MemoryContextAllocHuge(hop->cxt, sizeof(AggPartial **) * Max(group->nslices, 1));
	hop->late_slices = MemoryContextAllocHuge(hop->cxt, sizeof(Slice *) * Max(group->nlate, 1));
	hop->back = MemoryContextAlloc(hop->cxt, sizeof(AggPartial *) * Max(hop->view->naggs, 1));
}
