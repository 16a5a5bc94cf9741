/*
 * read/rows.c
 *		From copied panes to groups and windows.
 *
 * Rows are made in one of two ways. If each group of a pane is a row of its own, straight from the copy. Otherwise groups
 * are gathered over panes and shards into slices, ascending by pane, and each group's slices are combined into windows;
 * for hopping windows by two stacks, so that a slice costs about three combinations however many windows hold it; slices of rows
 * that were late for some of their windows are combined into each of the others one by one; sessions are chained from slices
 * here (fold/session.h). What was gathered stays over rescans.
 *
 * Panes that are left out make windows incomplete, but only such as the quals drop: they all stay as filters.
 */
#include "postgres.h"

#include "common/int.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "view/span.h"
#include "read/scan.h"

/* What one group's row in one pane and shard holds. */
typedef struct Slice
{
	int64			  pane;
	TimestampTz		  from; /* its rows count in windows that start then or later; DT_NOBEGIN: in all */
	const GroupEntry *entry;
	const StateCopy	 *copy;
} Slice;

typedef struct ScanGroup
{
	uint32			  hash;
	uint32			  key_size;
	int				  nslices;
	int				  nlate;  /* behind those: slices with a `from`, ascending by it */
	Slice			 *slices; /* ascending by pane */
	const GroupEntry *entry;  /* one that holds the key */
} ScanGroup;

/* Slices of the hopping window at hand: [head, middle) with what follows combined, [middle, tail) combined as it came. */
typedef struct ScanQueue
{
	int			  head, middle, tail;
	AggPartial ***suffixes; /* by slice from 0: of each aggregate, slice to middle - 1 combined */
	AggPartial	**back;		/* of each aggregate, [middle, tail) combined */
	int			  late;		/* of the group's late slices, the first that may still count */
	int			  nlate;	/* that count in the window at hand */
	const Slice **late_slices;
} ScanQueue;

typedef enum RowSource
{
	ROW_EMPTY, /* nothing was ever counted: empty partials */
	ROW_SLICES,
	ROW_QUEUE
} RowSource;

struct RowReader
{
	ScanRead		   *scan;
	const CompiledView *view;
	AggReader		  **readers; /* by aggregate; NULL: not wanted */

	/* since the last start */
	bool			 done;
	bool			 any;	  /* a row was made */
	int				 empties; /* rows made of nothing */
	int64			 min, max;
	const ScanProbe *probe; /* or NULL: all groups */

	/* straight from the copy */
	bool			   direct;
	int				   copy, pane, group; /* of the pane; of all that were gathered */
	GroupEntry *const *pane_groups;
	int				   npane_groups;
	MemoryContext	   sealed_cxt; /* of the slice at hand */

	/* by groups */
	MemoryContext table_cxt;
	bool		  gathered;
	int			  ngroups;
	ScanGroup	 *groups;
	int			 *index; /* group + 1 by hash; 0: free */
	uint32		  index_mask;
	MemoryContext group_cxt; /* reset for each group */
	bool		  in_group;
	bool		  total; /* the group is of a grouping set without the window */
	ScanGroup	 *current;
	int			  next_slice;
	TimestampTz	  next_start;
	bool		  starts_ended;
	TimestampTz	  horizon; /* of the copies; sessions only */
	ScanQueue	  queue;

	/* the row at hand */
	RowSource		  source;
	const GroupEntry *key_entry;
	TimestampTz		  start;
	TimestampTz		  last; /* of a session */
	Slice			  single;
	const Slice		 *slices;
	int				  nslices;
};

RowReader *
streamext_rows_create(ScanRead *scan, AggReader **readers, MemoryContext cxt)
{
	RowReader *rows = MemoryContextAllocZero(cxt, sizeof(RowReader));

	rows->scan = scan;
	rows->view = scan->read->view;
	rows->readers = readers;
	rows->table_cxt = AllocSetContextCreate(cxt, "streamext groups", ALLOCSET_DEFAULT_SIZES);
	rows->group_cxt = AllocSetContextCreate(cxt, "streamext group", ALLOCSET_DEFAULT_SIZES);
	rows->sealed_cxt = AllocSetContextCreate(cxt, "streamext sealed pane", ALLOCSET_DEFAULT_SIZES);
	return rows;
}

void
streamext_rows_end(RowReader *rows)
{
	MemoryContextDelete(rows->table_cxt);
	MemoryContextDelete(rows->group_cxt);
	MemoryContextDelete(rows->sealed_cxt);
	rows->table_cxt = rows->group_cxt = rows->sealed_cxt = NULL;
	if (rows->scan->history != NULL)
		streamext_history_close(rows->scan->history);
	rows->scan->history = NULL;
}

/* ---- gathering groups ---- */

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
gather_panes(const ScanRead *read, int *npanes, Size *nentries)
{
	GatherPane *panes;
	int			n = 0;

	*npanes = 0;
	*nentries = 0;
	for (int c = 0; c < read->copies->n; c++)
		*npanes += read->copies->items[c]->npanes;
	panes = palloc_extended(sizeof(GatherPane) * Max(*npanes, 1), MCXT_ALLOC_HUGE);
	for (int c = 0; c < read->copies->n; c++)
	{
		StateCopy *copy = read->copies->items[c];

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
gather_key(const RowReader *rows, const GroupEntry *entry)
{
	return STREAMEXT_ENTRY_KEY(entry, rows->view->state_size);
}

static void
gather_index(RowReader *rows, uint32 size)
{
	if (rows->index != NULL)
		pfree(rows->index);
	rows->index =
		MemoryContextAllocExtended(rows->table_cxt, sizeof(int) * (Size) size, MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	rows->index_mask = size - 1;
	for (int g = 0; g < rows->ngroups; g++)
	{
		uint32 at = rows->groups[g].hash & rows->index_mask;

		if ((g & (STREAMEXT_PROBES - 1)) == 0)
			CHECK_FOR_INTERRUPTS();
		while (rows->index[at] != 0)
			at = (at + 1) & rows->index_mask;
		rows->index[at] = g + 1;
	}
}

/* The number of the group with this key, or -1; *at is where it stands or would stand in the index. */
static int
gather_find(const RowReader *rows, uint32 hash, const char *key, uint32 key_size, uint32 *at)
{
	uint32 probes = 0;

	for (*at = hash & rows->index_mask; rows->index[*at] != 0; *at = (*at + 1) & rows->index_mask)
	{
		const ScanGroup *group = &rows->groups[rows->index[*at] - 1];

		if ((++probes & (STREAMEXT_PROBES - 1)) == 0)
			CHECK_FOR_INTERRUPTS();
		if (group->hash == hash && streamext_key_equal(rows->scan->read->matcher, gather_key(rows, group->entry),
													   group->key_size, key, key_size))
			return rows->index[*at] - 1;
	}
	return -1;
}

static int
gather_group(RowReader *rows, const GroupEntry *entry, Size *capacity)
{
	uint32		at;
	uint32		hash = rows->view->keys_change
						   ? streamext_key_rehash(rows->scan->read->matcher, gather_key(rows, entry), entry->key_size)
						   : entry->hash;
	TimestampTz from;
	uint32		key_size = streamext_key_split(rows->view, gather_key(rows, entry), entry->key_size, &from);
	int			g = gather_find(rows, hash, gather_key(rows, entry), key_size, &at);
	ScanGroup  *group;

	if (g >= 0)
	{
		rows->groups[g].nslices++;
		return g;
	}
	if ((Size) rows->ngroups == *capacity)
	{
		*capacity *= 2;
		rows->groups = repalloc_huge(rows->groups, sizeof(ScanGroup) * *capacity);
	}
	g = rows->ngroups++;
	group = &rows->groups[g];
	group->hash = hash;
	group->key_size = key_size;
	group->entry = entry;
	group->nslices = 1;
	group->nlate = 0;
	group->slices = NULL;
	if ((uint64) rows->ngroups * 4 > ((uint64) rows->index_mask + 1) * 3)
		gather_index(rows, (rows->index_mask + 1) * 2);
	else
		rows->index[at] = g + 1;
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

/* Builds groups, each with its slices in order, of all that was copied. */
static void
gather_groups(RowReader *rows)
{
	MemoryContext old = MemoryContextSwitchTo(rows->table_cxt);
	int			  npanes;
	Size		  nentries;
	GatherPane	 *panes = gather_panes(rows->scan, &npanes, &nentries);
	Size		  capacity = 64;
	int			 *group_of;
	Slice		 *slices;
	Size		  n = 0;

	if (nentries > (Size) INT_MAX)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("continuous view \"%s\" has too many groups to be read at once",
							   get_rel_name(rows->view->relid))));
	group_of = MemoryContextAllocHuge(rows->table_cxt, sizeof(int) * Max(nentries, 1));
	slices = MemoryContextAllocHuge(rows->table_cxt, sizeof(Slice) * Max(nentries, 1));
	rows->groups = palloc(sizeof(ScanGroup) * capacity);
	gather_index(rows, 128);

	for (int p = 0; p < npanes; p++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < panes[p].pane->ngroups; i++)
			group_of[n++] = gather_group(rows, panes[p].pane->groups[i], &capacity);
	}
	n = 0;
	for (int g = 0; g < rows->ngroups; g++)
	{
		rows->groups[g].slices = slices + n;
		n += rows->groups[g].nslices;
		rows->groups[g].nslices = 0;
	}
	n = 0;
	for (int p = 0; p < npanes; p++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < panes[p].pane->ngroups; i++)
		{
			ScanGroup *group = &rows->groups[group_of[n++]];
			Slice	  *slice = &group->slices[group->nslices++];

			slice->pane = panes[p].pane->id;
			slice->entry = panes[p].pane->groups[i];
			slice->copy = panes[p].copy;
			(void) streamext_key_split(rows->view, gather_key(rows, slice->entry), slice->entry->key_size,
									   &slice->from);
			group->nlate += slice->from != DT_NOBEGIN;
		}
	}
	for (int g = 0; g < rows->ngroups; g++)
		if (rows->groups[g].nlate > 0)
			gather_split_late(&rows->groups[g]);
	pfree(group_of);
	pfree(panes);
	rows->gathered = true;
	MemoryContextSwitchTo(old);
}

/* ---- hopping windows: two stacks ---- */

static AggPartial *
slice_load(const RowReader *rows, int a, const Slice *slice)
{
	return streamext_partial_load(rows->readers[a], slice->entry, slice->copy);
}

static void
queue_clear(ScanQueue *queue, int at)
{
	queue->head = queue->middle = queue->tail = at;
}

/* Appends slice number queue->tail; in group_cxt. */
static void
queue_push(RowReader *rows, ScanQueue *queue)
{
	const Slice *slice = &rows->current->slices[queue->tail];

	for (int a = 0; a < rows->view->naggs; a++)
	{
		if (rows->readers[a] == NULL)
			continue;
		if (queue->tail == queue->middle)
			queue->back[a] = streamext_partial_copy(rows->readers[a], slice_load(rows, a, slice));
		else
			streamext_partial_combine(rows->readers[a], queue->back[a], slice_load(rows, a, slice));
	}
	queue->tail++;
}

/* Makes the front of what is in the back: each slice combined with all after it. */
static void
queue_flip(RowReader *rows, ScanQueue *queue)
{
	int naggs = rows->view->naggs;

	for (int i = queue->tail - 1; i >= queue->head; i--)
	{
		queue->suffixes[i] = palloc(sizeof(AggPartial *) * Max(naggs, 1));
		for (int a = 0; a < naggs; a++)
		{
			AggPartial *partial;

			if (rows->readers[a] == NULL)
				continue;
			partial = streamext_partial_copy(rows->readers[a], slice_load(rows, a, &rows->current->slices[i]));
			if (i < queue->tail - 1)
				streamext_partial_combine(rows->readers[a], partial, queue->suffixes[i + 1][a]);
			queue->suffixes[i][a] = partial;
		}
	}
	queue->middle = queue->tail;
}

static void
queue_evict(RowReader *rows, ScanQueue *queue)
{
	if (queue->head == queue->middle)
	{
		if (queue->tail - queue->head == 1)
		{
			queue_clear(queue, queue->tail);
			return;
		}
		queue_flip(rows, queue);
	}
	queue->head++;
}

/* Of the queue's slices a partial that may be changed; NULL: it has none. In the current memory context. */
static AggPartial *
queue_partial(const RowReader *rows, int a)
{
	const ScanQueue *queue = &rows->queue;
	AggReader		*reader = rows->readers[a];
	AggPartial		*partial;

	if (queue->head == queue->tail)
		return NULL;
	if (queue->head == queue->middle)
		return streamext_partial_copy(reader, queue->back[a]);
	partial = streamext_partial_copy(reader, queue->suffixes[queue->head][a]);
	if (queue->tail > queue->middle)
		streamext_partial_combine(reader, partial, queue->back[a]);
	return partial;
}

/* The same of the whole window. */
static AggPartial *
hop_partial(const RowReader *rows, int a)
{
	const ScanQueue *queue = &rows->queue;
	AggPartial		*partial = queue_partial(rows, a);

	for (int i = 0; i < queue->nlate; i++)
	{
		AggPartial *late = slice_load(rows, a, queue->late_slices[i]);

		if (partial == NULL)
			partial = streamext_partial_copy(rows->readers[a], late);
		else
			streamext_partial_combine(rows->readers[a], partial, late);
	}
	return partial;
}

/* Start of the last window that holds a late slice. */
static TimestampTz
late_last_start(const RowReader *rows, const Slice *slice)
{
	TimestampTz first, last;

	streamext_window_starts(&rows->view->window, slice->pane, &first, &last);
	return last;
}

/* The first start from next_start on of a window with a late slice; DT_NOEND: there is none. */
static TimestampTz
late_next_start(RowReader *rows)
{
	const ScanGroup *group = rows->current;
	const Slice		*late = group->slices + group->nslices;
	ScanQueue		*queue = &rows->queue;

	while (queue->late < group->nlate && late_last_start(rows, &late[queue->late]) < rows->next_start)
		queue->late++;
	for (int i = queue->late; i < group->nlate; i++)
		if (late_last_start(rows, &late[i]) >= rows->next_start)
			return Max(late[i].from, rows->next_start);
	return DT_NOEND;
}

/* Finds those that count in the window at hand. */
static void
late_find(RowReader *rows)
{
	const ScanGroup *group = rows->current;
	const Slice		*late = group->slices + group->nslices;
	ScanQueue		*queue = &rows->queue;

	queue->nlate = 0;
	for (int i = queue->late; i < group->nlate && late[i].from <= rows->start; i++)
		if (late_last_start(rows, &late[i]) >= rows->start)
			queue->late_slices[queue->nlate++] = &late[i];
}

/* The first start from next_start on of a window with one of the slices behind the queue, which is empty; DT_NOEND: there is none. */
static TimestampTz
queue_next_start(RowReader *rows)
{
	const ScanGroup *group = rows->current;
	ScanQueue		*queue = &rows->queue;

	for (; queue->tail < group->nslices; queue_clear(queue, queue->tail + 1))
	{
		TimestampTz from, to;

		streamext_window_starts(&rows->view->window, group->slices[queue->tail].pane, &from, &to);
		if (from <= to && to >= rows->next_start)
			return Max(rows->next_start, from);
	}
	return DT_NOEND;
}

/*
 * The next window of the group that holds a slice: its slices are in the queue and its start in rows->start. next_start
 * is the earliest start that may come; starts_ended stands for one beyond the range of int64.
 */
static bool
hop_next_window(RowReader *rows)
{
	const Window	*window = &rows->view->window;
	const ScanGroup *group = rows->current;
	ScanQueue		*queue = &rows->queue;

	while (!rows->starts_ended)
	{
		int64 first, last;

		if (queue->head == queue->tail)
		{
			TimestampTz next = queue_next_start(rows);

			if (group->nlate > 0)
				next = Min(next, late_next_start(rows));
			if (next == DT_NOEND)
				return false;
			rows->next_start = next;
		}
		rows->start = rows->next_start;
		streamext_window_pane_range(window, rows->start, &first, &last);
		while (queue->head < queue->tail && group->slices[queue->head].pane < first)
			queue_evict(rows, queue);
		while (queue->tail < group->nslices && group->slices[queue->tail].pane <= last)
		{
			if (group->slices[queue->tail].pane < first)
				queue_clear(queue, queue->tail + 1);
			else
				queue_push(rows, queue);
		}
		if (group->nlate > 0)
			late_find(rows);
		if (queue->head == queue->tail && queue->nlate == 0)
			continue;
		rows->starts_ended = pg_add_s64_overflow(rows->start, window->slide, &rows->next_start);
		return true;
	}
	return false;
}

/* ---- sessions ---- */

/* Sessions that end by then are gone, whatever is left of them. */
static TimestampTz
session_horizon(const ScanRead *read)
{
	TimestampTz horizon = DT_NOEND;

	for (int c = 0; c < read->copies->n; c++)
		horizon = Min(horizon, read->copies->items[c]->horizon);
	return horizon;
}

/* The group's rows from slice number `from` on that are in one pane, in whatever shards; gives the number behind them. */
static int
session_pane(const RowReader *rows, int from, SessionSpan *span)
{
	const ScanGroup *group = rows->current;
	int				 to;

	*span = *streamext_session_span(rows->view, group->slices[from].entry);
	for (to = from + 1; to < group->nslices && group->slices[to].pane == group->slices[from].pane; to++)
	{
		const SessionSpan *other = streamext_session_span(rows->view, group->slices[to].entry);

		span->first = Min(span->first, other->first);
		span->last = Max(span->last, other->last);
	}
	return to;
}

/* The next session of the group that is not gone: its slices are rows->slices and its start is in rows->start. */
static bool
session_next_window(RowReader *rows)
{
	const ScanGroup *group = rows->current;

	while (rows->next_slice < group->nslices)
	{
		int			from = rows->next_slice;
		SessionSpan session, span;
		int			to = session_pane(rows, from, &session);

		while (to < group->nslices)
		{
			int next = session_pane(rows, to, &span);

			if (span.first > streamext_session_reach(&rows->view->window, session.last))
				break;
			session.last = span.last;
			to = next;
		}
		rows->next_slice = to;
		if (session.last <= Max(rows->horizon, rows->scan->read->from) || session.last > rows->scan->read->until)
			continue;
		rows->start = session.first;
		rows->last = session.last;
		rows->source = ROW_SLICES;
		rows->slices = group->slices + from;
		rows->nslices = to - from;
		return true;
	}
	return false;
}

/* ---- rows ---- */

/* All of a group whose set is without the window is one row. */
static bool
group_total(RowReader *rows)
{
	const ScanGroup *group = rows->current;

	if (rows->next_slice >= group->nslices)
		return false;
	rows->source = ROW_SLICES;
	rows->slices = group->slices;
	rows->nslices = rows->next_slice = group->nslices;
	return true;
}

/* The next window of the group at hand; false: the group is done. */
static bool
group_next_window(RowReader *rows)
{
	const Window	*window = &rows->view->window;
	const ScanGroup *group = rows->current;
	int				 from = rows->next_slice;
	int				 to = group->nslices;
	TimestampTz		 last;

	rows->key_entry = group->entry;
	if (rows->total)
		return group_total(rows);
	if (window->kind == WINDOW_HOP)
	{
		MemoryContext old = MemoryContextSwitchTo(rows->group_cxt);
		bool		  found = hop_next_window(rows);

		MemoryContextSwitchTo(old);
		rows->source = ROW_QUEUE;
		return found;
	}
	if (window->kind == WINDOW_SESSION)
		return session_next_window(rows);
	if (from >= to)
		return false;
	if (window->kind != WINDOW_NONE)
	{
		int64 pane_last = group->slices[from].pane;
		int64 pane_first;

		streamext_window_starts(window, group->slices[from].pane, &rows->start, &last);
		streamext_window_pane_range(window, rows->start, &pane_first, &pane_last);
		for (to = from + 1; to < group->nslices && group->slices[to].pane <= pane_last; to++)
			;
	}
	rows->source = ROW_SLICES;
	rows->slices = group->slices + from;
	rows->nslices = to - from;
	rows->next_slice = to;
	return true;
}

static void
group_start(RowReader *rows, ScanGroup *group)
{
	MemoryContextReset(rows->group_cxt);
	rows->current = group;
	rows->next_slice = 0;
	rows->next_start = PG_INT64_MIN;
	rows->starts_ended = false;
	rows->in_group = true;
	rows->total = streamext_key_is_total(rows->view, STREAMEXT_ENTRY_KEY(group->entry, rows->view->state_size));
	queue_clear(&rows->queue, 0);
	rows->queue.late = rows->queue.nlate = 0;
	if (rows->view->window.kind == WINDOW_HOP)
	{
		rows->queue.suffixes = MemoryContextAllocHuge(rows->group_cxt, sizeof(AggPartial **) * Max(group->nslices, 1));
		rows->queue.late_slices = MemoryContextAllocHuge(rows->group_cxt, sizeof(Slice *) * Max(group->nlate, 1));
		rows->queue.back = MemoryContextAlloc(rows->group_cxt, sizeof(AggPartial *) * Max(rows->view->naggs, 1));
	}
}

static bool
gathered_next_row(RowReader *rows)
{
	uint32 at;
	int	   g;

	if (!rows->gathered)
		gather_groups(rows);
	for (;;)
	{
		if (rows->in_group && group_next_window(rows))
			return true;
		CHECK_FOR_INTERRUPTS();
		rows->in_group = false;
		if (rows->probe != NULL)
		{
			if (rows->group++ > 0)
				return false;
			g = gather_find(rows, rows->probe->hash, rows->probe->key, rows->probe->key_size, &at);
			if (g < 0)
				return false;
		}
		else
		{
			if (rows->group >= rows->ngroups)
				return false;
			g = rows->group++;
		}
		group_start(rows, &rows->groups[g]);
	}
}

/* True if the window at hand is beyond retention, though some or all of its panes are still there, or not wanted. */
static bool
row_is_gone(const RowReader *rows)
{
	const ViewRead *read = rows->scan->read;
	TimestampTz		floor = Max(read->floor, read->from);
	TimestampTz		end;

	if ((floor == DT_NOBEGIN && read->until == DT_NOEND) || !streamext_window_has_ends(&rows->view->window))
		return false;
	end = streamext_window_end(&rows->view->window, rows->start);
	return end <= floor || end > read->until;
}

/* Rows of this pane are next, unless none is wanted. */
static void
direct_enter_pane(RowReader *rows, const StateCopy *copy, const PaneCopy *pane)
{
	TimestampTz last;

	CHECK_FOR_INTERRUPTS();
	rows->group = rows->npane_groups = 0;
	if (pane->id < rows->min || pane->id > rows->max)
		return;
	if (rows->view->window.kind != WINDOW_NONE)
		streamext_window_starts(&rows->view->window, pane->id, &rows->start, &last);
	if (row_is_gone(rows))
		return;
	rows->single.pane = pane->id;
	rows->single.copy = copy;
	rows->pane_groups = pane->groups;
	rows->npane_groups = pane->ngroups;
}

/* Enters the next pane: of the copies, of one shard, then of history. False: there is none. */
static bool
direct_next_pane(RowReader *rows)
{
	ScanRead  *read = rows->scan;
	StateCopy *sealed;

	for (; rows->copy < read->copies->n; rows->copy++, rows->pane = 0)
	{
		const StateCopy *copy = read->copies->items[rows->copy];

		if (rows->pane < copy->npanes)
		{
			direct_enter_pane(rows, copy, &copy->panes[rows->pane++]);
			return true;
		}
	}
	if (read->history == NULL)
		return false;
	MemoryContextReset(rows->sealed_cxt);
	sealed = streamext_history_next(read->history, &read->stats, rows->sealed_cxt);
	if (sealed != NULL)
		direct_enter_pane(rows, sealed, &sealed->panes[0]);
	return sealed != NULL;
}

/* Each group of a pane is a row. */
static bool
direct_next_row(RowReader *rows)
{
	while (rows->group >= rows->npane_groups)
		if (!direct_next_pane(rows))
			return false;
	rows->key_entry = rows->single.entry = rows->pane_groups[rows->group++];
	return true;
}

void
streamext_rows_start(RowReader *rows, int64 min, int64 max, const ScanProbe *probe)
{
	const Window *window = &rows->view->window;

	rows->any = rows->done = rows->in_group = rows->total = false;
	rows->empties = 0;
	rows->copy = rows->pane = rows->group = 0;
	rows->min = min;
	rows->max = max;
	rows->probe = probe;
	rows->done = (probe != NULL && probe->none) || (rows->scan->by_hash && rows->scan->probe.none);
	if (rows->done)
		rows->empties = rows->view->nempty;
	rows->direct = probe == NULL && !rows->view->keys_change && !rows->view->has_totals &&
				   rows->scan->read->nshards <= 1 && !window->sliding && window->kind != WINDOW_HOP &&
				   window->kind != WINDOW_SESSION;
	rows->horizon = session_horizon(rows->scan);
	if (rows->direct)
	{
		rows->npane_groups = 0;
		rows->source = ROW_SLICES;
		rows->slices = &rows->single;
		rows->nslices = 1;
	}
	if (rows->scan->history != NULL)
	{
		Assert(rows->direct);
		streamext_history_begin(rows->scan->history, rows->view, rows->scan->read->matcher,
								&rows->scan->read->shards[0], min, max, NULL);
	}
}

/* Without GROUP BY, and of each empty grouping set, there is a row even if nothing was ever counted. */
static bool
rows_next_empty(RowReader *rows)
{
	if (rows->empties >= rows->view->nempty)
		return false;
	rows->source = ROW_EMPTY;
	rows->empties++;
	return true;
}

bool
streamext_rows_next(RowReader *rows)
{
	if (rows->done)
		return rows_next_empty(rows);
	while (rows->direct ? direct_next_row(rows) : gathered_next_row(rows))
	{
		if (!rows->direct && !rows->total && row_is_gone(rows))
			continue;
		rows->any = true;
		return true;
	}
	rows->done = true;
	if (rows->any)
		rows->empties = rows->view->nempty;
	return rows_next_empty(rows);
}

int
streamext_rows_empty(const RowReader *rows)
{
	return rows->empties - 1;
}

/* An aggregate's partial, for its final function only; in the current memory context. */
static AggPartial *
row_partial(const RowReader *rows, int a)
{
	AggReader  *reader = rows->readers[a];
	AggPartial *partial;

	switch (rows->source)
	{
		case ROW_EMPTY:
			return streamext_partial_empty(reader);
		case ROW_QUEUE:
			return hop_partial(rows, a);
		case ROW_SLICES:
			break;
	}
	partial = slice_load(rows, a, &rows->slices[0]);
	/* The final function may change it, and a rescan will want it as it is. */
	partial = streamext_partial_copy(reader, partial);
	for (int i = 1; i < rows->nslices; i++)
		streamext_partial_combine(reader, partial, slice_load(rows, a, &rows->slices[i]));
	return partial;
}

Datum
streamext_rows_aggregate(const RowReader *rows, int a, bool *isnull)
{
	const AggSpec *spec = &rows->view->aggs[a];

	/* Final functions of native aggregates change nothing, so that no partial need be made. */
	if (rows->source == ROW_SLICES && rows->nslices == 1 && spec->mode == AGG_NATIVE)
		return spec->native->final(rows->slices[0].entry->data + spec->offset, isnull);
	return streamext_partial_final(rows->readers[a], row_partial(rows, a), isnull);
}

Datum
streamext_rows_state(const RowReader *rows, int a)
{
	StringInfoData state;

	initStringInfo(&state);
	streamext_partial_give(rows->readers[a], row_partial(rows, a), &state);
	return PointerGetDatum(streamext_merge_seal(rows->view, a, &state));
}

const GroupEntry *
streamext_rows_entry(const RowReader *rows)
{
	return rows->source == ROW_EMPTY ? NULL : rows->key_entry;
}

bool
streamext_rows_has_window(const RowReader *rows)
{
	return rows->source != ROW_EMPTY && !rows->total;
}

TimestampTz
streamext_rows_window(const RowReader *rows)
{
	return rows->start;
}

TimestampTz
streamext_rows_last(const RowReader *rows)
{
	return rows->last;
}
