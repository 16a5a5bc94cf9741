/*-------------------------------------------------------------------------
 *
 * durable/checkpoint_cut.c
 *		What goes into a checkpoint: the state of all views between two batches, as the rows it will be.
 *
 * The cut fixes the moment: positions, counters, and of each view the panes that have changed. Then their changed groups are copied to
 * private memory, for a few ms between two batches, until all are. A batch that comes before the end of it first has those groups
 * copied that it will change (streamext_checkpoint_keep), so each group is in the checkpoint as it was at the cut; and panes are
 * not dropped meanwhile. What ends a view's fold or drops its state otherwise first lets the copying come to its end
 * (streamext_checkpoint_copy_rest).
 *
 * The cut gives each view two periods (state/pane.h): `period`, which ends, so that what is to be copied are the groups with visible in
 * (after, period]; and the next one, which marks copied groups. Who publishes after the cut uses the one after that. Once the
 * checkpoint is committed ViewState.saved is the second, and copied groups that have not changed since are clean; if it is given up,
 * saved stays, and they are as dirty as they were.
 *
 * A pane's groups come from two sides, from the copying as it gets there and from batches that are ahead of it, so each pane has a
 * chain of rows of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/timestamp.h"

#include "durable/checkpoint_state.h"
#include "base/fault.h"

#define CUT_STEP_GROUPS 64 /* between two looks at the clock */

/* A view is written whole when its log is larger than its state (of which about half is slack) by this. */
#define CHECKPOINT_WHOLE_FACTOR 2
#define CHECKPOINT_WHOLE_BYTES (4 * 1024 * 1024)

/* ---------------------------------------------------------------- the cut's rows */

#define CUT_BLOCK_BYTES (1024 * 1024)
#define CUT_ROW_MAX MAXALIGN(offsetof(CutRow, data) + CHECKPOINT_ROW_BYTES)

/* Rows back to back, aligned. */
struct CutBlock
{
	int32 used;
	char  bytes[CUT_BLOCK_BYTES] pg_attribute_aligned(MAXIMUM_ALIGNOF);
};

/* It is the pane's last one, and may become as large as a row can be. */
static void
cut_open_row(CheckpointCut *cut, CutPane *pane)
{
	CutRow *row;

	if (cut->block == NULL || cut->block->used + CUT_ROW_MAX > CUT_BLOCK_BYTES)
	{
		cut->block = MemoryContextAllocHuge(cut->cxt, sizeof(CutBlock));
		cut->block->used = 0;
	}
	row = (CutRow *) (cut->block->bytes + cut->block->used);
	cut->block->used += CUT_ROW_MAX;
	row->next = NULL;
	row->size = 0;
	if (pane->last != NULL)
		pane->last->next = row;
	else
		pane->first = row;
	pane->last = row;
}

/* What it does not need is the next one's, unless rows of other panes came between. */
static void
cut_close_row(CheckpointCut *cut, CutPane *pane)
{
	CutRow *row = pane->last;
	Size	bytes = row->size + CHECKPOINT_ROW_OVERHEAD;

	if ((char *) row + CUT_ROW_MAX == cut->block->bytes + cut->block->used)
		cut->block->used -= CUT_ROW_MAX - MAXALIGN(offsetof(CutRow, data) + row->size);
	cut->nrows++;
	cut->bytes += bytes;
	pane->view->nrows++;
	pane->view->bytes += bytes;
}

typedef struct CutTarget
{
	CheckpointCut *cut;
	CutPane		  *pane;
} CutTarget;

/* An AggPut. To the pane's open row, and more as it fills. */
static void
cut_put(void *arg, const void *bytes, Size size)
{
	CutTarget  *to = arg;
	const char *from = bytes;

	for (;;)
	{
		CutRow *row = to->pane->last;
		Size	fits = Min(size, CHECKPOINT_ROW_BYTES - row->size);

		memcpy(row->data + row->size, from, fits);
		row->size += fits;
		from += fits;
		size -= fits;
		if (size == 0)
			return;
		cut_close_row(to->cut, to->pane);
		cut_open_row(to->cut, to->pane);
	}
}

/* ---------------------------------------------------------------- the cut's groups */

/* Whether the group is of the cut and not copied yet. */
static inline bool
cut_wants(const CutView *view, const GroupEntry *entry)
{
	return entry->visible > view->after && entry->visible <= view->period;
}

/* A pane's first row begins with its head. */
static void
cut_begin_pane(CheckpointCut *cut, CutPane *pane)
{
	PaneHead head = { pane->nrows, 0 };

	if (pane->first != NULL)
		return;
	cut_open_row(cut, pane);
	memcpy(pane->first->data, &head, sizeof(PaneHead));
	pane->first->size = sizeof(PaneHead);
}

/* The mark is no publication: it turns one number that readers take for visible into another one. */
static void
cut_entry(CheckpointCut *cut, CutPane *pane, GroupEntry *entry)
{
	const CutView *cv = pane->view;
	CutTarget	   to = { cut, pane };

	streamext_checkpoint_put_entry(cv->view, &cv->slot->counted.state, entry, cv->whole, cv->plain, cut_put, &to);
	((PaneHead *) pane->first->data)->nentries++;
	entry->visible = cv->period + 1;
}

static bool
cut_has_changes(const ViewState *state)
{
	for (int i = 0; i < state->npanes; i++)
		if (state->panes[i]->changed > state->saved)
			return true;
	return false;
}

/* ---------------------------------------------------------------- the position row */

static void
position_view(const Shard *shard, const WorkerView *v, const CheckpointView *last, CheckpointView *view)
{
	int					n = shard->slot->counted.npartitions;
	const ViewSlot	   *slot = v->slot;
	CheckpointViewHead *head = &view->head;

	head->viewoid = v->viewoid;
	head->definition = slot->counted.definition;
	head->round = slot->counted.round;
	head->retry = slot->counted.retry;
	head->start_position = slot->counted.start_position;
	head->accepted = slot->counted.accepted;
	head->late = slot->counted.late;
	head->rejected = slot->counted.rejected;
	head->first_pane = slot->counted.state.npanes > 0 ? slot->counted.state.panes[0]->id : PG_INT64_MAX;
	head->horizon = slot->counted.state.horizon;
	head->layout = slot->counted.layout;
	head->history = slot->history.number;
	head->history_shard = slot->history.shard;
	head->sealed = slot->history.sealed;
	head->sealed_until = slot->history.sealed_until;
	head->groups = slot->counted.state.ngroups;
	head->panes = slot->counted.state.npanes;
	head->behind = v->behind;
	head->watermark = v->behind ? v->watermark : DT_NOBEGIN;
	if (last != NULL)
	{
		head->base = last->head.base;
		head->rows = last->head.rows;
		head->bytes = last->head.bytes;
	}
	view->positions = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
		view->positions[i] = i < slot->counted.npositions ? slot->counted.positions[i] : -1;
	if (v->behind)
	{
		view->max_event_time = palloc(sizeof(TimestampTz) * Max(n, 1));
		memcpy(view->max_event_time, v->max_event_time, sizeof(TimestampTz) * n);
	}
}

/* A view that does not run stays in the log as it was last. False: its partitions are not the stream's. */
static bool
position_carry(const CheckpointPosition *from, const CheckpointView *last, const CheckpointPosition *position,
			   CheckpointView *view)
{
	int n = position->head.npartitions;

	*view = *last;
	view->positions = palloc(sizeof(int64) * Max(n, 1));
	view->max_event_time = palloc(sizeof(TimestampTz) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		view->positions[i] = -1;
		view->max_event_time[i] = DT_NOBEGIN;
	}
	for (int j = 0; j < from->head.npartitions; j++)
	{
		const CheckpointPartition *theirs = &from->partitions[j];
		int						   i;

		for (i = 0; i < n; i++)
			if (position->partitions[i].partition == theirs->partition &&
				strcmp(position->partitions[i].topic, theirs->topic) == 0)
				break;
		if (i == n)
			return false;
		view->positions[i] = last->positions[j];
		if (last->head.behind)
			view->max_event_time[i] = last->max_event_time[j];
	}
	return true;
}

/* Of the connector, that the checkpoint after a restart has it too. */
static void
position_mark(const Shard *shard, const CheckpointPosition *last, CheckpointPosition *position)
{
	StringInfoData mark;

	if (shard->connector == NULL || shard->ops->mark == NULL || position->head.npartitions == 0)
		return;
	initStringInfo(&mark);
	shard->ops->mark(shard->connector, position->partitions[0].position, &mark);
	if (mark.len == 0 && last != NULL)
		appendBinaryStringInfo(&mark, last->mark, last->mark_size);
	Assert(mark.len <= CHECKPOINT_MARK_BYTES);
	position->mark = mark.data;
	position->mark_size = mark.len;
}

/* All of it as it is now; of the views' groups what the last one said. In the current memory context. */
static void
position_take(const Shard *shard, CheckpointPosition *position)
{
	const CheckpointPosition *last = shard->checkpoint->last;
	ListCell				 *lc;

	memset(position, 0, sizeof(*position));
	position->head.dboid = shard->identity.dboid;
	streamext_checkpoint_take_counts(&shard->slot->counted, position);
	position_mark(shard, last, position);
	position->views =
		palloc0(sizeof(CheckpointView) * (list_length(shard->views) + (last != NULL ? last->head.nviews : 0) + 1));
	foreach (lc, shard->views)
	{
		const WorkerView *v = lfirst(lc);

		/* one that is begun anew is kept as it was before, until it has caught up */
		if (v->fold != NULL && v->slot->id.retained_slot == 0)
			position_view(shard, v, streamext_checkpoint_find_view(last, v->viewoid),
						  &position->views[position->head.nviews++]);
	}
	for (int i = 0; last != NULL && i < last->head.nviews; i++)
		if (streamext_checkpoint_find_view(position, last->views[i].head.viewoid) == NULL &&
			position_carry(last, &last->views[i], position, &position->views[position->head.nviews]))
			position->head.nviews++;
}

/* What is durable once this checkpoint is: of a journal, what every view has counted, be it running or not. */
static void
position_confirm(const Shard *shard, CheckpointCut *cut)
{
	const CheckpointPosition *position = &cut->position;
	int						  n = Min(position->head.npartitions, shard->npartitions);
	ListCell				 *lc;

	cut->connector = shard->connector;
	cut->nconfirm = n;
	cut->confirm = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
		cut->confirm[i] = position->partitions[i].position;
	if (shard->ops->replayable)
		return;
	for (int v = 0; v < position->head.nviews; v++)
		for (int i = 0; i < n; i++)
		{
			const CheckpointView *view = &position->views[v];
			int64				  counted = view->positions[i] >= 0 ? view->positions[i] : view->head.start_position;

			cut->confirm[i] = Min(cut->confirm[i], counted);
		}
	foreach (lc, shard->views)
	{
		const WorkerView *v = lfirst(lc);

		for (int i = 0; i < n && v->slot->id.retained_slot > 0; i++)
			cut->confirm[i] = Min(cut->confirm[i], i < v->slot->counted.npositions && v->slot->counted.positions[i] >= 0
													   ? v->slot->counted.positions[i]
													   : v->slot->counted.start_position);
		for (int i = 0; i < n && streamext_checkpoint_find_view(position, v->viewoid) == NULL; i++)
			cut->confirm[i] = Min(cut->confirm[i], v->slot->counted.start_position);
	}
}

/* ---------------------------------------------------------------- cutting */

void
streamext_checkpoint_cut_free(Checkpoint *c)
{
	if (c->cut == NULL)
		return;
	if (c->cut->committed)
		c->incomplete = true;
	MemoryContextDelete(c->cut->cxt);
	c->cut = NULL;
}

/* The panes that are to be copied, and the next period. */
static void
cut_view(CheckpointCut *cut, const Checkpoint *c, WorkerView *v, CheckpointView *view)
{
	ViewState *state = &v->slot->counted.state;
	CutView	  *cv = &cut->views[cut->nviews++];

	cv->viewoid = v->viewoid;
	cv->slot = v->slot;
	cv->definition = v->slot->counted.definition;
	cv->view = v->view;
	cv->period = state->period;
	cv->whole = state->saved == 0 || view->head.base == 0 || c->incomplete ||
				view->head.bytes > CHECKPOINT_WHOLE_FACTOR * state->bytes + CHECKPOINT_WHOLE_BYTES;
	cv->after = cv->whole ? 0 : state->saved;
	cv->plain = true;
	for (int a = 0; a < cv->view->naggs; a++)
		cv->plain = cv->plain && streamext_aggregate_is_plain(&cv->view->aggs[a]);
	if (cv->whole)
	{
		view->head.base = cut->seq;
		view->head.rows = view->head.bytes = 0;
	}
	cv->panes = palloc_extended(sizeof(CutPane) * Max(state->npanes, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (int i = 0; i < state->npanes; i++)
		if (state->panes[i]->changed > cv->after)
		{
			CutPane *pane = &cv->panes[cv->npanes++];

			pane->view = cv;
			pane->pane = state->panes[i];
			pane->id = state->panes[i]->id;
			pane->nrows = state->panes[i]->nrows;
		}
	state->cutting = true;
	pg_write_barrier(); /* streamext_state_note_period */
	state->period += 2;
}

/*
 * False: nothing has changed. Even so a journal is told once what need not be kept: who took the last checkpoint may have died before it
 * did, and a full journal takes nothing that would bring the next one about. Not while that is on its way.
 */
static bool
cut_is_needed(const Shard *shard, CheckpointCut *cut)
{
	const Checkpoint *c = shard->checkpoint;
	ListCell		 *lc;

	if (shard->attached && !shard->ops->replayable && !shard->confirmed && c->lsn == InvalidXLogRecPtr)
		return true;
	if (c->last == NULL || cut->comparable.len != c->last_encoded.len ||
		memcmp(cut->comparable.data, c->last_encoded.data, cut->comparable.len) != 0)
		return true;
	foreach (lc, shard->views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->fold != NULL && v->slot->id.retained_slot == 0 && cut_has_changes(&v->slot->counted.state))
			return true;
	}
	return false;
}

void
streamext_checkpoint_cut(Shard *shard, TimestampTz now)
{
	Checkpoint	  *c = shard->checkpoint;
	MemoryContext  cxt = AllocSetContextCreate(c->cxt, "streamext checkpoint cut", ALLOCSET_DEFAULT_SIZES);
	MemoryContext  old = MemoryContextSwitchTo(cxt);
	CheckpointCut *cut = palloc0(sizeof(CheckpointCut));
	instr_time	   begin;
	ListCell	  *lc;

	INSTR_TIME_SET_CURRENT(begin);
	cut->wanted = c->wanted;
	c->noted = c->wanted = false;
	cut->cxt = cxt;
	cut->begun_at = now;
	cut->source = shard->slot->counted.source;
	position_take(shard, &cut->position);
	initStringInfo(&cut->comparable);
	streamext_checkpoint_encode(&cut->comparable, &cut->position);
	if (!cut_is_needed(shard, cut))
	{
		shard->slot->checkpoint.pending = false;
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);
		return;
	}

	cut->seq = ++c->seq;
	cut->views = palloc0(sizeof(CutView) * Max(list_length(shard->views), 1));
	foreach (lc, shard->views)
	{
		WorkerView	   *v = lfirst(lc);
		CheckpointView *view = streamext_checkpoint_find_view(&cut->position, v->viewoid);

		if (v->fold != NULL && v->slot->id.retained_slot == 0)
			cut_view(cut, c, v, view);
	}
	position_confirm(shard, cut);
	cut->copying = true;
	c->cut = cut;
	MemoryContextSwitchTo(old);
	cut->cost_us = streamext_checkpoint_elapsed_us(begin);
}

/* ---------------------------------------------------------------- copying */

/* Everything is copied: now the position row can say how much it is. */
static void
copy_end(CheckpointCut *cut)
{
	MemoryContext old = MemoryContextSwitchTo(cut->cxt);

	for (int i = 0; i < cut->nviews; i++)
	{
		CutView		   *cv = &cut->views[i];
		CheckpointView *view = streamext_checkpoint_find_view(&cut->position, cv->viewoid);

		view->head.rows += cv->nrows;
		view->head.bytes += cv->bytes;
	}
	resetStringInfo(&cut->comparable);
	streamext_checkpoint_encode(&cut->comparable, &cut->position);
	cut->position.seq = cut->seq;
	cut->position.head.taken_at = cut->begun_at;
	cut->position.head.first_part = cut->nrows;
	initStringInfo(&cut->encoded);
	streamext_checkpoint_encode(&cut->encoded, &cut->position);
	cut->view = cut->pane = 0;
	cut->copying = false;
	MemoryContextSwitchTo(old);
}

/* Some groups of the pane from where the copying stands; true if it has come to the pane's end. */
static bool
copy_groups(CheckpointCut *cut, CutPane *pane)
{
	if (cut->entries == NULL)
	{
		cut_begin_pane(cut, pane);
		cut->entries = pane->pane->entries;
		cut->offset = 0;
	}
	for (int n = 0; n < CUT_STEP_GROUPS; n++)
	{
		GroupEntry *entry;

		while (cut->offset >= cut->entries->used)
		{
			if (cut->entries->next == NULL)
			{
				cut->entries = NULL;
				cut_close_row(cut, pane);
				return true;
			}
			cut->entries = cut->entries->next;
			cut->offset = 0;
		}
		entry = (GroupEntry *) (cut->entries->data + cut->offset);
		if (cut_wants(pane->view, entry))
			cut_entry(cut, pane, entry);
		cut->offset += entry->size;
	}
	return false;
}

/* The pane that is to be copied next; NULL: all are. */
static CutPane *
copy_next(CheckpointCut *cut)
{
	for (; cut->view < cut->nviews; cut->view++, cut->pane = 0)
		if (cut->pane < cut->views[cut->view].npanes)
			return &cut->views[cut->view].panes[cut->pane];
	return NULL;
}

bool
streamext_checkpoint_copy(Shard *shard, bool all)
{
	CheckpointCut *cut = shard->checkpoint->cut;
	uint64		   most = streamext_fault_is_set("small-checkpoint-steps") ? 0 : CHECKPOINT_SLICE_MS * 1000;
	instr_time	   begin;
	CutPane		  *pane;

	INSTR_TIME_SET_CURRENT(begin);
	while ((pane = copy_next(cut)) != NULL)
	{
		if (copy_groups(cut, pane))
			cut->pane++;
		if (!all && streamext_checkpoint_elapsed_us(begin) > most)
			break;
	}
	if (pane == NULL)
		copy_end(cut);
	cut->cost_us += streamext_checkpoint_elapsed_us(begin);
	if (most == 0)
		pg_usleep(1000); /* batches come in between */
	if (pane == NULL)
		STREAMEXT_FAULT("checkpoint-after-cut");
	else
		STREAMEXT_FAULT("checkpoint-in-copy");
	return pane == NULL;
}

bool
streamext_checkpoint_is_copying(const Shard *shard)
{
	return shard->checkpoint != NULL && shard->checkpoint->cut != NULL && shard->checkpoint->cut->copying;
}

void
streamext_checkpoint_copy_rest(Shard *shard)
{
	if (streamext_checkpoint_is_copying(shard))
		(void) streamext_checkpoint_copy(shard, true);
}

/* ---------------------------------------------------------------- batches that come before the copying's end */

static CutView *
keep_view(CheckpointCut *cut, const WorkerView *v)
{
	for (int i = 0; i < cut->nviews; i++)
		if (cut->views[i].slot == v->slot && cut->views[i].viewoid == v->viewoid)
			return &cut->views[i];
	return NULL;
}

/* A pane with a group that the cut wants is in the cut. */
static CutPane *
keep_pane(CutView *view, int64 id)
{
	int low = 0;
	int high = view->npanes - 1;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (view->panes[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	Assert(view->npanes > 0 && view->panes[low].id == id);
	return &view->panes[low];
}

void
streamext_checkpoint_keep(Shard *shard, const WorkerView *v, GroupEntry *const *groups, Pane *const *panes, int n)
{
	CheckpointCut *cut = shard->checkpoint->cut;
	CutView		  *view = keep_view(cut, v);

	Assert(streamext_checkpoint_is_copying(shard));
	for (int i = 0; i < n && view != NULL; i++)
		if (cut_wants(view, groups[i]))
		{
			CutPane *pane = keep_pane(view, panes[i]->id);

			cut_begin_pane(cut, pane);
			cut_entry(cut, pane, groups[i]);
		}
}
