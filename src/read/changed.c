/*
 * read/changed.c
 *		What has to be read of a view after a former look. What the functions promise is in read/changed.h.
 *
 * A pane that is published into changes the windows that hold it, for the keys that were published; so the windows wanted are those that hold
 * the first and the last such pane, and what is between. They are read whole, from all of their panes. A pane that went into history since
 * the former look may have been published into before it went: those are wanted for all keys.
 *
 * Marks are taken under the locks under which memory is copied, so what they do not cover is published later.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "read/changed.h"
#include "read/scan.h"
#include "shared/shmem.h"

#define CHANGED_FEW 4 /* one in so many groups of a pane, at most, is few */

static ReadChanged *changed_next = NULL;

void
streamext_read_changed(ReadChanged *changed)
{
	changed_next = changed;
}

ReadChanged *
streamext_changed_take(Oid view)
{
	ReadChanged *changed = changed_next;

	if (changed == NULL || changed->view != view)
		return NULL;
	changed_next = NULL;
	return changed;
}

/* ---- what the slots say ---- */

/* The content of the view's slot number i; NULL: it is another's slot, or shared memory does not say. */
static const ViewSlot *
changed_content(const ViewRead *read, int i, bool *unknown)
{
	const ViewSlot *slot = &streamext_shared->views[i];
	const ViewSlot *content;

	if (!slot->id.in_use || slot->id.retained || slot->id.dboid != MyDatabaseId ||
		slot->id.viewoid != read->view->relid)
		return NULL;
	content = streamext_view_content(slot, read->view);
	if (content == NULL || (content == slot && !slot->counted.ready))
		*unknown = true;
	return content;
}

/*
 * Whether rows are groups of one window each, so that a group says which rows are others when it changes. Of keys that are equal and not the same (1.0
 * and 1.00) the first pane's is shown; that of all panes is not that of some.
 */
static bool
changed_by_groups(const CompiledView *view)
{
	const Window *window = &view->window;

	if (!streamext_keys_bytewise(view) && (window->kind == WINDOW_HOP || window->sliding))
		return false;
	return view->has_group_by && view->nkeys > 0 && view->nempty == 0 && !view->keys_change && !view->has_totals &&
		   view->nsets == 0 && window->kind != WINDOW_SESSION &&
		   !(window->kind == WINDOW_HOP && window->slide > window->size);
}

static void
changed_take_marks(const ViewRead *read, FeedLook *now, int shards)
{
	bool unknown = false;

	now->nmarks = 0;
	now->first = read->first;
	now->last = read->last;
	for (int i = 0; i < streamext_shared->nviews && !unknown; i++)
	{
		const ViewSlot *content = changed_content(read, i, &unknown);

		if (content == NULL || unknown || now->nmarks == STREAMEXT_MAX_SHARDS)
			continue;
		now->marks[now->nmarks].born = content->counted.born;
		now->marks[now->nmarks].sealed = content->history.sealed;
		now->marks[now->nmarks++].period = streamext_state_note_period((ViewState *) &content->counted.state);
	}
	if (unknown || now->nmarks != Max(shards, 1))
		now->nmarks = 0;
}

/* Whether the states are those of the former look, gone on. */
static bool
changed_goes_on(const FeedLook *before, const FeedLook *now)
{
	bool same =
		now->nmarks > 0 && before->nmarks == now->nmarks && before->first == now->first && before->last == now->last;

	for (int i = 0; same && i < now->nmarks; i++)
	{
		const FeedMark *old = &before->marks[i];
		const FeedMark *new = &now->marks[i];

		same = old->born == new->born && old->period <= new->period && old->sealed <= new->sealed &&
			   (old->sealed == new->sealed || old->sealed != PG_INT64_MIN);
	}
	return same;
}

/* The groups that were published, and the panes that were, or that history has taken; *sealed: up to there it has all. */
static void
changed_find(ReadChanged *changed, const ViewRead *read, int64 *first, int64 *last, int64 *sealed)
{
	bool unknown = false;
	int	 n = 0;

	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *content = changed_content(read, i, &unknown);

		if (content != NULL)
			streamext_state_changed_add(changed->groups, &content->counted.state, changed->before.marks[n++].period);
	}
	*first = changed->groups->min_id;
	*last = changed->groups->max_id;
	*sealed = PG_INT64_MIN;
	changed->all_keys = changed->groups->published > changed->groups->groups / CHANGED_FEW;
	for (int i = 0; i < changed->now.nmarks; i++)
	{
		const FeedMark *old = &changed->before.marks[i];
		const FeedMark *new = &changed->now.marks[i];

		*sealed = Max(*sealed, new->sealed);
		if (old->sealed == new->sealed)
			continue;
		changed->all_keys = true;
		*first = Min(*first, old->sealed + 1);
		*last = Max(*last, new->sealed);
	}
}

/* Nothing is read. */
static void
changed_nothing(ReadChanged *changed, ViewRead *read)
{
	changed->all_keys = false;
	changed->from = PG_INT64_MAX;
	changed->until = PG_INT64_MIN;
	read->first = 1;
	read->last = 0;
}

/* The windows with these panes, and all panes of those. */
static void
changed_narrow(ReadChanged *changed, ViewRead *read, int64 first, int64 last, int64 sealed)
{
	const Window *window = &read->view->window;
	TimestampTz	  start;
	int64		  pane;

	streamext_window_starts(window, first, &changed->from, &start);
	streamext_window_starts(window, last, &start, &changed->until);
	streamext_window_pane_range(window, changed->from, &read->first, &pane);
	streamext_window_pane_range(window, changed->until, &pane, &read->last);
	read->first = Min(read->first, first);
	read->last = Max(read->last, last);
	read->from = streamext_window_end(window, changed->from) - 1;
	read->until = streamext_window_end(window, changed->until);
	/* rows of history are not told by their hash */
	changed->all_keys = changed->all_keys || read->first <= sealed;
}

void
streamext_changed_begin(ViewRead *read, bool plain, int shards)
{
	ReadChanged *changed = read->changed;
	bool		 by_groups = plain && changed_by_groups(read->view);
	int64		 first, last, sealed;

	changed->begun = true;
	changed->whole = true;
	changed_take_marks(read, &changed->now, shards);
	if (!by_groups)
		changed->now.nmarks = 0;
	if (!changed_goes_on(&changed->before, &changed->now))
		return;
	changed->groups = streamext_state_changed_create(changed->cxt);
	changed_find(changed, read, &first, &last, &sealed);
	changed->whole = false;
	changed->from = PG_INT64_MIN;
	changed->until = PG_INT64_MAX;
	if (first > last)
		changed_nothing(changed, read);
	else if (streamext_window_has_ends(&read->view->window))
		changed_narrow(changed, read, first, last, sealed);
	else
		changed->whole = changed->all_keys;
}

bool
streamext_changed_by_group(const ViewRead *read)
{
	return read->changed != NULL && read->changed->begun && !read->changed->whole && !read->changed->all_keys;
}

/* ---- what is read ---- */

void
streamext_changed_note(ReadChanged *changed, uint32 hash, TimestampTz start)
{
	if (changed->nrows == changed->capacity)
	{
		changed->capacity = Max(changed->capacity * 2, 256);
		changed->rows = changed->rows == NULL
							? MemoryContextAllocHuge(changed->cxt, sizeof(ChangedRow) * changed->capacity)
							: repalloc_huge(changed->rows, sizeof(ChangedRow) * changed->capacity);
	}
	changed->rows[changed->nrows].hash = hash;
	changed->rows[changed->nrows++].start = start;
}

bool
streamext_changed_has(const ReadChanged *changed, uint32 hash, TimestampTz start)
{
	return changed->whole || (start >= changed->from && start <= changed->until &&
							  (changed->all_keys || streamext_state_changed_has(changed->groups, hash)));
}
