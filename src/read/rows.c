/*
 * read/rows.c
 *		From copied panes to groups and windows.
 *
 * Rows are made in one of two ways. If each group of a pane is a row of its own, straight from the copy. Otherwise groups
 * are gathered over panes and shards into slices, ascending by pane (gather.c), and each group's slices are combined into windows: hopping
 * ones by hop.c; sessions are chained from slices here (fold/session.h). What was gathered stays over rescans.
 *
 * Panes that are left out make windows incomplete, but only such as the quals drop: they all stay as filters.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "view/span.h"
#include "read/gather.h"

typedef enum RowSource
{
	ROW_EMPTY, /* nothing was ever counted: empty partials */
	ROW_SLICES,
	ROW_HOP
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
	int64			   stands_for; /* groups that each of them is */
	MemoryContext	   sealed_cxt; /* of the slice at hand */
	bool			   summed;	   /* slices have one group each */

	/* by groups */
	Gathered	  gathered;
	MemoryContext group_cxt; /* reset for each group */
	bool		  in_group;
	bool		  total; /* the group is of a grouping set without the window */
	ScanGroup	 *current;
	int			  next_slice;
	TimestampTz	  horizon; /* of the copies; sessions only */
	HopWindows	  hop;

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
	rows->gathered.view = rows->view;
	rows->gathered.matcher = scan->read->matcher;
	rows->gathered.cxt = AllocSetContextCreate(cxt, "streamext groups", ALLOCSET_DEFAULT_SIZES);
	rows->group_cxt = AllocSetContextCreate(cxt, "streamext group", ALLOCSET_DEFAULT_SIZES);
	rows->hop.view = rows->view;
	rows->hop.readers = readers;
	rows->hop.cxt = rows->group_cxt;
	rows->sealed_cxt = AllocSetContextCreate(cxt, "streamext sealed pane", ALLOCSET_DEFAULT_SIZES);
	return rows;
}

void
streamext_rows_end(RowReader *rows)
{
	MemoryContextDelete(rows->gathered.cxt);
	MemoryContextDelete(rows->group_cxt);
	MemoryContextDelete(rows->sealed_cxt);
	rows->gathered.cxt = rows->group_cxt = rows->sealed_cxt = NULL;
	if (rows->scan->history != NULL)
		streamext_history_close(rows->scan->history);
	rows->scan->history = NULL;
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
		rows->source = ROW_HOP;
		if (!streamext_hop_next(&rows->hop))
			return false;
		rows->start = rows->hop.start;
		return true;
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
	rows->in_group = true;
	rows->total = streamext_key_is_total(rows->view, STREAMEXT_ENTRY_KEY(group->entry, rows->view->state_size));
	if (rows->view->window.kind == WINDOW_HOP)
		streamext_hop_begin(&rows->hop, group);
}

/* The next of the groups that are wanted; NULL: there is none. */
static ScanGroup *
gathered_next_group(RowReader *rows)
{
	if (rows->probe != NULL)
		return rows->group++ > 0 ? NULL : streamext_gather_find(&rows->gathered, rows->probe);
	return rows->group < rows->gathered.ngroups ? &rows->gathered.groups[rows->group++] : NULL;
}

static bool
gathered_next_row(RowReader *rows)
{
	if (!rows->gathered.done)
		streamext_gather(&rows->gathered, rows->scan->copies);
	for (;;)
	{
		ScanGroup *group;

		if (rows->in_group && group_next_window(rows))
			return true;
		CHECK_FOR_INTERRUPTS();
		rows->in_group = false;
		group = gathered_next_group(rows);
		if (group == NULL)
			return false;
		group_start(rows, group);
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
	if (rows->summed)
		rows->stands_for = streamext_history_summed(read->history);
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
	rows->stands_for = 1;
	rows->summed = false;
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
		streamext_history_begin(rows->scan->history, rows->view,
								rows->scan->unhashed ? NULL : rows->scan->read->matcher, &rows->scan->read->shards[0],
								min, max, NULL);
	}
}

void
streamext_rows_sum(RowReader *rows)
{
	const AggSpec **aggs;
	int				n = 0;

	if (rows->scan->history == NULL)
		return;
	aggs = palloc(sizeof(AggSpec *) * Max(rows->view->naggs, 1));
	for (int a = 0; a < rows->view->naggs; a++)
		if (rows->readers[a] != NULL)
			aggs[n++] = &rows->view->aggs[a];
	streamext_history_sum(rows->scan->history, aggs, n);
	pfree(aggs);
	rows->summed = true;
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

AggPartial *
streamext_rows_partial(const RowReader *rows, int a)
{
	AggReader  *reader = rows->readers[a];
	AggPartial *partial;

	switch (rows->source)
	{
		case ROW_EMPTY:
			return streamext_partial_empty(reader);
		case ROW_HOP:
			return streamext_hop_partial(&rows->hop, a);
		case ROW_SLICES:
			break;
	}
	partial = streamext_slice_load(reader, &rows->slices[0]);
	/* The final function may change it, and a rescan will want it as it is. */
	partial = streamext_partial_copy(reader, partial);
	for (int i = 1; i < rows->nslices; i++)
		streamext_partial_combine(reader, partial, streamext_slice_load(reader, &rows->slices[i]));
	return partial;
}

Datum
streamext_rows_aggregate(const RowReader *rows, int a, bool *isnull)
{
	const AggSpec *spec = &rows->view->aggs[a];

	/* Final functions of native aggregates change nothing, so that no partial need be made. */
	if (rows->source == ROW_SLICES && rows->nslices == 1 && spec->mode == AGG_NATIVE)
		return spec->native->final(rows->slices[0].entry->data + spec->offset, isnull);
	return streamext_partial_final(rows->readers[a], streamext_rows_partial(rows, a), isnull);
}

Datum
streamext_rows_state(const RowReader *rows, int a)
{
	StringInfoData state;

	initStringInfo(&state);
	streamext_partial_give(rows->readers[a], streamext_rows_partial(rows, a), &state);
	return PointerGetDatum(streamext_merge_seal(rows->view, a, &state));
}

const char *
streamext_rows_states(const RowReader *rows)
{
	return rows->direct && rows->source == ROW_SLICES ? rows->single.entry->data : NULL;
}

int
streamext_rows_rest(RowReader *rows, int max, GroupEntry *const **entries, int64 *stand_for)
{
	int first = rows->single.entry != NULL ? rows->group - 1 : rows->group;
	int n = Min(rows->npane_groups - first, max);

	Assert(rows->direct && rows->source == ROW_SLICES);
	*entries = rows->pane_groups + first;
	*stand_for = rows->stands_for;
	rows->group = first + n;
	rows->single.entry = NULL;
	return n;
}

bool
streamext_rows_ascend(const RowReader *rows)
{
	return rows->direct && rows->copy >= rows->scan->copies->n;
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
