/*-------------------------------------------------------------------------
 *
 * durable/checkpoint_view.c
 *		From a view's rows in the log to a state: in shared memory for the worker that goes on with it, in private memory for readers.
 *
 * The rows are read from the newest checkpoint back to the view's base. The first version of a group that is met is the
 * last one written, so older ones are skipped and nothing is in memory twice; only rows of VALUES aggregates are gathered from
 * all. Readers see none of it before the panes' row counts are set (streamext_checkpoint_load_show).
 *
 * A checksum that is wrong, or contents that contradict themselves, raise XX001.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "miscadmin.h"

#include "base/identity.h"
#include "durable/checkpoint_state.h"

static void
load_damaged(const ViewLoad *load, const char *what)
{
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("pane " INT64_FORMAT ": %s", load->pane_id, what)));
}

void
streamext_checkpoint_load_full(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("no memory to restore the view's last checkpoint"),
			 errhint("Raise streamext.memory_limit and restart the server.")));
}

/* Notes how many rows the pane has; the first time is the newest. */
static void
load_note_pane(ViewLoad *load)
{
	if (load->pane->changed != 0)
		return;
	load->pane->changed = 1;
	if (load->npanes == load->panes_capacity)
	{
		load->panes_capacity *= 2;
		load->panes = repalloc_huge(load->panes, sizeof(LoadPane) * load->panes_capacity);
	}
	load->panes[load->npanes].pane = load->pane;
	load->panes[load->npanes].nrows = load->head.nrows;
	load->npanes++;
}

static void
load_import(ViewLoad *load, GroupEntry *entry, bool newest, const char *states, const char *extra, Size left)
{
	ViewState *state = load->state;

	for (int a = 0; a < load->view->naggs; a++)
	{
		const AggSpec *spec = &load->view->aggs[a];
		uint32		   size;

		if (streamext_aggregate_is_plain(spec))
			continue;
		if (left < sizeof(size))
			load_damaged(load, "a group ends too early");
		memcpy(&size, extra, sizeof(size));
		extra += sizeof(size);
		left -= sizeof(size);
		if (left < size)
			load_damaged(load, "a group ends too early");
		if (!streamext_aggregate_import(spec, state, load->pane, entry, newest, states + spec->offset, extra, size))
			streamext_checkpoint_load_full();
		extra += size;
		left -= size;
	}
	if (left != 0)
		load_damaged(load, "a group is longer than what is in it");
}

static void
load_entry(ViewLoad *load, const EntryHead *head, const char *bytes)
{
	ViewState  *state = load->state;
	const char *key = bytes + state->state_size;
	const char *extra = key + head->key_size;
	GroupEntry *entry;
	uint32		hash;
	bool		newest;

	if (head->size < state->state_size || head->size - state->state_size < head->key_size)
		load_damaged(load, "a group is too short");
	hash = streamext_key_rehash(load->matcher, key, head->key_size);
	entry = streamext_state_group(state, load->pane, hash, key, head->key_size, NULL, NULL, &newest);
	if (entry == NULL)
		streamext_checkpoint_load_full();
	if (newest)
	{
		memcpy(entry->data, bytes, state->state_size);
		entry->visible = 1; /* the pane has no rows yet */
	}
	load_import(load, entry, newest, bytes, extra, head->size - (extra - bytes));
}

static void
load_begin_pane(ViewLoad *load)
{
	memcpy(&load->head, load->bytes, sizeof(PaneHead));
	load->headed = true;
	load->entries = 0;
	load->pane = streamext_state_pane(load->state, load->pane_id);
	if (load->pane == NULL)
		streamext_checkpoint_load_full();
	load_note_pane(load);
}

/* Takes the whole groups among the bytes at hand. */
static void
load_parse(ViewLoad *load)
{
	Size at = 0;

	if (!load->headed)
	{
		if (load->used < sizeof(PaneHead))
			return;
		load_begin_pane(load);
		at = sizeof(PaneHead);
	}
	while (load->used - at >= sizeof(EntryHead))
	{
		EntryHead head;

		memcpy(&head, load->bytes + at, sizeof(head));
		if (load->used - at - sizeof(head) < head.size)
			break;
		load_entry(load, &head, load->bytes + at + sizeof(head));
		load->entries++;
		at += sizeof(head) + head.size;
	}
	load->used -= at;
	memmove(load->bytes, load->bytes + at, load->used);
}

static void
load_end_pane(ViewLoad *load)
{
	if (load->used != 0 || (load->headed && load->entries != load->head.nentries))
		load_damaged(load, "groups are missing");
	load->headed = false;
	load->pane = NULL;
}

static void
load_row(ViewLoad *load, const CheckpointRef *ref, bool first)
{
	MemoryContext old = MemoryContextSwitchTo(load->row_cxt);
	CheckpointRow row;

	streamext_checkpoint_log_fetch(load->rel, load->snapshot, ref, &row);
	MemoryContextSwitchTo(old);
	/* a row that is not full is the last one of its pane and checkpoint */
	if (first || !load->headed || row.pane != load->pane_id)
		load_end_pane(load);
	load->pane_id = row.pane;
	if (row.pane >= load->from->head.first_pane)
	{
		if (load->used + row.size > load->capacity)
		{
			load->capacity = Max(load->capacity * 2, load->used + row.size);
			load->bytes = repalloc_huge(load->bytes, load->capacity);
		}
		memcpy(load->bytes + load->used, row.data, row.size);
		load->used += row.size;
		load_parse(load);
	}
	MemoryContextReset(load->row_cxt);
}

/* All rows of the view, checkpoint by checkpoint backwards. */
static void
load_rows(ViewLoad *load)
{
	const CheckpointIndex *index = load->index;
	uint64				   rows = 0;
	int					   first;

	for (int end = index->n; end > 0; end = first)
	{
		int64 seq = index->refs[end - 1].seq;
		bool  begin = true;

		for (first = end - 1; first > 0 && index->refs[first - 1].seq == seq; first--)
			;
		if (seq > load->seq)
			continue;
		if (seq < load->from->head.base || seq == 0)
			break;
		for (int i = first; i < end; i++)
		{
			const CheckpointRef *ref = &index->refs[i];

			CHECK_FOR_INTERRUPTS();
			if (ref->kind != CHECKPOINT_ENTRIES || ref->view != load->from->head.viewoid)
				continue;
			load_row(load, ref, begin);
			begin = false;
			rows++;
		}
		load_end_pane(load);
	}
	if (rows != load->from->head.rows)
		load_damaged(load, "rows of the checkpoint are missing");
}

/* States that are not plain are told that nothing more comes. */
static void
load_end_import(ViewLoad *load)
{
	ViewState *state = load->state;

	for (int p = 0; p < state->npanes && !load->plain; p++)
		for (StateBlock *block = state->panes[p]->entries; block != NULL; block = block->next)
			for (uint32 at = 0; at < block->used;)
			{
				GroupEntry *entry = (GroupEntry *) (block->data + at);

				for (int a = 0; a < load->view->naggs; a++)
					streamext_aggregate_import_end(&load->view->aggs[a], state, entry);
				at += entry->size;
			}
}

void
streamext_checkpoint_load_view(ViewLoad *load)
{
	ViewState	 *state = load->state;
	IdentityScope scope;

	load->matcher = streamext_key_matcher(load->view, CurrentMemoryContext);
	load->row_cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext checkpoint row", ALLOCSET_DEFAULT_SIZES);
	load->capacity = 4 * CHECKPOINT_ROW_BYTES;
	load->bytes = palloc(load->capacity);
	load->panes_capacity = 64;
	load->panes = palloc(sizeof(LoadPane) * load->panes_capacity);
	load->plain = true;
	for (int a = 0; a < load->view->naggs; a++)
		load->plain = load->plain && streamext_aggregate_is_plain(&load->view->aggs[a]);
	state->saved = 1;
	state->period = 2;
	if (!load->view->builtin)
		scope = streamext_identity_enter(load->view->owner);
	load_rows(load);
	load_end_import(load);
	if (!load->view->builtin)
		streamext_identity_leave(scope);
}

void
streamext_checkpoint_load_show(const ViewLoad *load)
{
	for (int i = 0; i < load->npanes; i++)
		load->panes[i].pane->nrows = load->panes[i].nrows;
	load->state->horizon = load->from->head.horizon;
}
