/*-------------------------------------------------------------------------
 *
 * checkpoint.c
 *		Taking checkpoints.
 *
 * Cut, between two batches: the groups published into since the last committed checkpoint are copied to private memory, as the
 * rows they will be, together with the position row of this moment. Write, between the batches that follow: slices of a
 * few milliseconds, a transaction each; the last one holds the position row. Its commit makes the checkpoint; as commits get to
 * disk in order, nothing is waited for. When it is on disk the connector is told, which trims its journal.
 *
 * What has changed: GroupEntry.visible and Pane.changed hold the period of their last publication (state.h), ViewState.saved the
 * last period that a committed checkpoint holds. They are in shared memory, so a worker that follows one that died in
 * between goes on; a checkpoint that was given up is taken again with the next one.
 *
 * A view whose rows in the log are much more than its state is written whole, and its base moves up; so do those of all views after a
 * checkpoint of which only some slices were committed, because these rows have no position row that would tell them apart.
 *
 * Everything here is done by the worker in its main loop; there is no lock but the table's.
 *
 *-------------------------------------------------------------------------
 */
#include "streamext.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "checkpoint_private.h"
#include "fault.h"
#include "into.h"

#define CHECKPOINT_SLICE_MS 5
#define CHECKPOINT_COST_FACTOR 10 /* at most a tenth of the time is spent with checkpoints */
#define CHECKPOINT_BLOCKED_MS 50
#define CHECKPOINT_FAILED_MS 5000
#define CHECKPOINT_CONFIRM_MS 100
#define CHECKPOINT_FINISH_MS 5000

/* A view is written whole when its log is larger than its state (of which about half is slack) by this. */
#define CHECKPOINT_WHOLE_FACTOR 2
#define CHECKPOINT_WHOLE_BYTES (4 * 1024 * 1024)
#define CHECKPOINT_ROW_OVERHEAD 80

int streamext_checkpoint_interval = 1000;

/* ---------------------------------------------------------------- the cut's rows */

typedef struct CutRow
{
	int64 pane;
	Oid	  view;
	int32 size;
	char  data[FLEXIBLE_ARRAY_MEMBER];
} CutRow;

#define CUT_BLOCK_BYTES (1024 * 1024)
#define CUT_ROW_MAX MAXALIGN(offsetof(CutRow, data) + CHECKPOINT_ROW_BYTES)

/* Rows back to back. */
typedef struct CutBlock
{
	struct CutBlock *next;
	int32			 used;
	char			 bytes[CUT_BLOCK_BYTES];
} CutBlock;

typedef struct CutView
{
	Oid		  viewoid;
	ViewSlot *slot;
	uint64	  definition;
	uint32	  period;
} CutView;

struct CheckpointCut
{
	MemoryContext	   cxt; /* of all of it */
	uint64			   source;
	int64			   seq;
	CheckpointPosition position;
	StringInfoData	   encoded;	   /* the position row */
	StringInfoData	   comparable; /* the same without what differs anyway */
	CutView			  *views;
	int				   nviews;
	const Connector	  *connector; /* that `confirm` is for */
	int				   nconfirm;
	int64			  *confirm;
	TimestampTz		   begun_at;
	uint64			   cost_us;
	uint64			   bytes;
	int32			   nrows;

	CutBlock *blocks;
	CutBlock *block; /* the last one */
	CutRow	 *row;	 /* open; NULL: none */

	/* writing */
	CutBlock *reading; /* what is to be written next */
	int32	  offset;
	int32	  written; /* rows, committed or about to be */
	bool	  committed; /* some slice was */
};

static void
cut_open_row(CheckpointCut *cut, Oid view, int64 pane)
{
	CutBlock *block = cut->block;

	if (block == NULL || block->used + CUT_ROW_MAX > CUT_BLOCK_BYTES)
	{
		block = MemoryContextAllocHuge(cut->cxt, sizeof(CutBlock));
		block->next = NULL;
		block->used = 0;
		if (cut->block != NULL)
			cut->block->next = block;
		else
			cut->blocks = block;
		cut->block = block;
	}
	cut->row = (CutRow *) (block->bytes + block->used);
	cut->row->view = view;
	cut->row->pane = pane;
	cut->row->size = 0;
}

static void
cut_close_row(CheckpointCut *cut)
{
	CutRow *row = cut->row;

	cut->row = NULL;
	cut->block->used += MAXALIGN(offsetof(CutRow, data) + row->size);
	cut->nrows++;
	cut->bytes += row->size + CHECKPOINT_ROW_OVERHEAD;
}

/* An AggPut. To the open row, and more of the same view and pane as it fills. */
static void
cut_put(void *arg, const void *bytes, Size size)
{
	CheckpointCut *cut = arg;
	const char	  *from = bytes;

	for (;;)
	{
		CutRow *row = cut->row;
		Size	fits = Min(size, CHECKPOINT_ROW_BYTES - row->size);

		memcpy(row->data + row->size, from, fits);
		row->size += fits;
		from += fits;
		size -= fits;
		if (size == 0)
			return;
		cut_close_row(cut);
		cut_open_row(cut, row->view, row->pane);
	}
}

/* ---------------------------------------------------------------- the cut's groups */

static void
cut_entry(CheckpointCut *cut, const CompiledView *view, ViewState *state, GroupEntry *entry, bool whole, bool plain)
{
	EntryHead head = { state->state_size + entry->key_size, entry->hash, entry->key_size };

	if (!plain)
		for (int a = 0; a < view->naggs; a++)
			if (!streamext_aggregate_is_plain(&view->aggs[a]))
				head.size +=
					sizeof(uint32) + streamext_aggregate_export_size(&view->aggs[a], state, entry, whole);
	cut_put(cut, &head, sizeof(head));
	cut_put(cut, entry->data, state->state_size + entry->key_size);
	if (!plain)
		for (int a = 0; a < view->naggs; a++)
		{
			uint32 size;

			if (streamext_aggregate_is_plain(&view->aggs[a]))
				continue;
			size = streamext_aggregate_export_size(&view->aggs[a], state, entry, whole);
			cut_put(cut, &size, sizeof(size));
			streamext_aggregate_export(&view->aggs[a], state, entry, whole, cut_put, cut);
		}
}

static void
cut_pane(CheckpointCut *cut, const CompiledView *view, ViewState *state, const Pane *pane, bool whole)
{
	uint32	  after = whole ? 0 : state->saved;
	bool	  plain = true;
	PaneHead *head;

	for (int a = 0; a < view->naggs; a++)
		plain = plain && streamext_aggregate_is_plain(&view->aggs[a]);
	cut_open_row(cut, view->relid, pane->id);
	head = (PaneHead *) cut->row->data;
	head->nrows = pane->nrows;
	head->nentries = 0;
	cut->row->size = sizeof(PaneHead);
	for (StateBlock *block = pane->entries; block != NULL; block = block->next)
		for (uint32 at = 0; at < block->used;)
		{
			GroupEntry *entry = (GroupEntry *) (block->data + at);

			if (entry->visible > after)
			{
				cut_entry(cut, view, state, entry, whole, plain);
				head->nentries++;
			}
			at += entry->size;
		}
	cut_close_row(cut);
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
position_partitions(const StreamSlot *slot, CheckpointPosition *position)
{
	position->head.npartitions = slot->npartitions;
	position->partitions = palloc0(sizeof(CheckpointPartition) * Max(slot->npartitions, 1));
	for (int i = 0; i < slot->npartitions; i++)
	{
		const PartitionSlot *from = &slot->partitions[i];
		CheckpointPartition *to = &position->partitions[i];

		strlcpy(to->topic, from->topic, sizeof(to->topic));
		to->partition = from->partition;
		to->position = from->position;
		to->start_position = from->start_position;
		to->begin = from->begin;
		to->max_event_time = from->max_event_time;
		to->rows = from->rows;
		to->missed = from->missed;
		to->last = from->last;
	}
}

static void
position_view(const Worker *w, const WorkerView *v, const CheckpointView *last, CheckpointView *view)
{
	int				  n = w->slot->npartitions;
	const ViewSlot	 *slot = v->slot;
	CheckpointViewHead *head = &view->head;

	head->viewoid = v->viewoid;
	head->definition = slot->definition;
	head->round = slot->round;
	head->start_position = slot->start_position;
	head->accepted = slot->accepted;
	head->late = slot->late;
	head->rejected = slot->rejected;
	head->first_pane = slot->state.npanes > 0 ? slot->state.panes[0]->id : PG_INT64_MAX;
	head->horizon = slot->state.horizon;
	head->layout = slot->layout;
	head->history = slot->history;
	head->history_shard = slot->history_shard;
	head->sealed = slot->sealed;
	head->sealed_until = slot->sealed_until;
	head->groups = slot->state.ngroups;
	head->panes = slot->state.npanes;
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
		view->positions[i] = i < slot->npositions ? slot->positions[i] : -1;
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

/* All of it as it is now; of the views' groups what the last one said. In the current memory context. */
static void
position_take(const Worker *w, CheckpointPosition *position)
{
	const StreamSlot		 *slot = w->slot;
	const CheckpointPosition *last = w->checkpoint->last;
	ListCell				 *lc;

	memset(position, 0, sizeof(*position));
	position->head.source = slot->source;
	position->head.dboid = w->identity.dboid;
	position->head.watermark = slot->watermark;
	position->head.batches = slot->batches;
	position->head.rows_in = slot->rows_in;
	position->head.bytes_in = slot->bytes_in;
	position->head.rejected = slot->rejected;
	position->head.seek = slot->seek;
	position_partitions(slot, position);
	position->views = palloc0(sizeof(CheckpointView) * (list_length(w->views) + (last != NULL ? last->head.nviews : 0) + 1));
	foreach (lc, w->views)
	{
		const WorkerView *v = lfirst(lc);

		/* one that is begun anew is kept as it was before, until it has caught up */
		if (v->fold != NULL && v->slot->retained_slot == 0)
			position_view(w, v, streamext_checkpoint_find_view(last, v->viewoid),
						  &position->views[position->head.nviews++]);
	}
	for (int i = 0; last != NULL && i < last->head.nviews; i++)
		if (streamext_checkpoint_find_view(position, last->views[i].head.viewoid) == NULL &&
			position_carry(last, &last->views[i], position, &position->views[position->head.nviews]))
			position->head.nviews++;
}

/* What is durable once this checkpoint is: of a journal, what every view has counted, be it running or not. */
static void
position_confirm(const Worker *w, CheckpointCut *cut)
{
	const CheckpointPosition *position = &cut->position;
	int						  n = Min(position->head.npartitions, w->npartitions);
	ListCell				 *lc;

	cut->connector = w->connector;
	cut->nconfirm = n;
	cut->confirm = palloc(sizeof(int64) * Max(n, 1));
	for (int i = 0; i < n; i++)
		cut->confirm[i] = position->partitions[i].position;
	if (w->ops->replayable)
		return;
	for (int v = 0; v < position->head.nviews; v++)
		for (int i = 0; i < n; i++)
		{
			const CheckpointView *view = &position->views[v];
			int64 counted = view->positions[i] >= 0 ? view->positions[i] : view->head.start_position;

			cut->confirm[i] = Min(cut->confirm[i], counted);
		}
	foreach (lc, w->views)
	{
		const WorkerView *v = lfirst(lc);

		for (int i = 0; i < n && v->slot->retained_slot > 0; i++)
			cut->confirm[i] = Min(cut->confirm[i], i < v->slot->npositions && v->slot->positions[i] >= 0
													   ? v->slot->positions[i]
													   : v->slot->start_position);
		for (int i = 0; i < n && streamext_checkpoint_find_view(position, v->viewoid) == NULL; i++)
			cut->confirm[i] = Min(cut->confirm[i], v->slot->start_position);
	}
}

/* ---------------------------------------------------------------- cutting */

static void
cut_free(Checkpoint *c)
{
	if (c->cut == NULL)
		return;
	if (c->cut->committed)
		c->incomplete = true;
	MemoryContextDelete(c->cut->cxt);
	c->cut = NULL;
}

static void
cut_view(CheckpointCut *cut, const Checkpoint *c, WorkerView *v, CheckpointView *view)
{
	ViewState *state = &v->slot->state;
	int32	   rows = cut->nrows;
	uint64	   bytes = cut->bytes;
	bool	   whole = state->saved == 0 || view->head.base == 0 || c->incomplete ||
				 view->head.bytes > CHECKPOINT_WHOLE_FACTOR * state->bytes + CHECKPOINT_WHOLE_BYTES;
	CutView	  *cv = &cut->views[cut->nviews++];

	cv->viewoid = v->viewoid;
	cv->slot = v->slot;
	cv->definition = v->slot->definition;
	cv->period = state->period;
	if (whole)
	{
		view->head.base = cut->seq;
		view->head.rows = view->head.bytes = 0;
	}
	for (int i = 0; i < state->npanes; i++)
		if (whole ? state->panes[i]->changed > 0 : state->panes[i]->changed > state->saved)
			cut_pane(cut, streamext_fold_view(v->fold), state, state->panes[i], whole);
	view->head.rows += cut->nrows - rows;
	view->head.bytes += cut->bytes - bytes;
	state->period++;
}

/*
 * False: nothing has changed. Even so a journal is told once what need not be kept: who took the last checkpoint may have died before it
 * did, and a full journal takes nothing that would bring the next one about.
 */
static bool
cut_is_needed(const Worker *w, CheckpointCut *cut)
{
	const Checkpoint *c = w->checkpoint;
	ListCell		 *lc;

	if (w->attached && !w->ops->replayable && !w->confirmed)
		return true;
	if (c->last == NULL || cut->comparable.len != c->last_encoded.len ||
		memcmp(cut->comparable.data, c->last_encoded.data, cut->comparable.len) != 0)
		return true;
	foreach (lc, w->views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->fold != NULL && v->slot->retained_slot == 0 && cut_has_changes(&v->slot->state))
			return true;
	}
	return false;
}

static uint64
elapsed_us(instr_time since)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, since);
	return INSTR_TIME_GET_MICROSEC(now);
}

/* Copies everything that is to be written, if there is anything. */
static void
checkpoint_cut(Worker *w, TimestampTz now)
{
	Checkpoint	  *c = w->checkpoint;
	MemoryContext  cxt = AllocSetContextCreate(c->cxt, "streamext checkpoint cut", ALLOCSET_DEFAULT_SIZES);
	MemoryContext  old = MemoryContextSwitchTo(cxt);
	CheckpointCut *cut = palloc0(sizeof(CheckpointCut));
	instr_time	   begin;
	ListCell	  *lc;

	INSTR_TIME_SET_CURRENT(begin);
	c->noted = false;
	cut->cxt = cxt;
	cut->begun_at = now;
	cut->source = w->slot->source;
	position_take(w, &cut->position);
	initStringInfo(&cut->comparable);
	streamext_checkpoint_encode(&cut->comparable, &cut->position);
	if (!cut_is_needed(w, cut))
	{
		w->slot->checkpoint_pending = false;
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);
		return;
	}

	cut->seq = ++c->seq;
	cut->views = palloc(sizeof(CutView) * Max(list_length(w->views), 1));
	foreach (lc, w->views)
	{
		WorkerView	   *v = lfirst(lc);
		CheckpointView *view = streamext_checkpoint_find_view(&cut->position, v->viewoid);

		if (v->fold != NULL && v->slot->retained_slot == 0)
			cut_view(cut, c, v, view);
	}
	resetStringInfo(&cut->comparable);
	streamext_checkpoint_encode(&cut->comparable, &cut->position);
	cut->position.seq = cut->seq;
	cut->position.head.taken_at = now;
	cut->position.head.first_part = cut->nrows;
	initStringInfo(&cut->encoded);
	streamext_checkpoint_encode(&cut->encoded, &cut->position);
	position_confirm(w, cut);
	cut->reading = cut->blocks;
	c->cut = cut;
	MemoryContextSwitchTo(old);
	cut->cost_us = elapsed_us(begin);
	STREAMEXT_FAULT("checkpoint-after-cut");
}

/* ---------------------------------------------------------------- writing */

/* Rows of the cut until time is up; true when all are written. */
static bool
write_rows(Worker *w, CheckpointCut *cut, CheckpointWriter *writer, CheckpointRow *row, instr_time begin, bool all)
{
	for (; cut->reading != NULL; cut->reading = cut->reading->next, cut->offset = 0)
		while (cut->offset < cut->reading->used)
		{
			CutRow *from = (CutRow *) (cut->reading->bytes + cut->offset);

			if (!all && cut->written % 16 == 0 && elapsed_us(begin) > CHECKPOINT_SLICE_MS * 1000)
				return false;
			row->kind = CHECKPOINT_ENTRIES;
			row->view = from->view;
			row->pane = from->pane;
			row->part = cut->written++;
			row->size = from->size;
			row->data = from->data;
			streamext_checkpoint_write(writer, row);
			cut->offset += MAXALIGN(offsetof(CutRow, data) + from->size);
		}
	return true;
}

static void
write_position(CheckpointCut *cut, CheckpointWriter *writer, CheckpointRow *row)
{
	row->kind = CHECKPOINT_POSITION;
	row->view = InvalidOid;
	row->pane = 0;
	for (int at = 0; at < cut->encoded.len; at += CHECKPOINT_ROW_BYTES)
	{
		row->part = cut->written++;
		row->size = Min(CHECKPOINT_ROW_BYTES, cut->encoded.len - at);
		row->data = cut->encoded.data + at;
		streamext_checkpoint_write(writer, row);
		cut->bytes += row->size + CHECKPOINT_ROW_OVERHEAD;
	}
}

typedef enum SliceResult
{
	SLICE_MORE,
	SLICE_LAST,
	SLICE_BLOCKED
} SliceResult;

/* One transaction. Raises whatever the table raises. */
static SliceResult
write_slice(Worker *w, CheckpointCut *cut, bool all)
{
	CheckpointRow	  row = { .seq = cut->seq, .stream = w->identity.relid, .shard = w->identity.shard };
	CheckpointWriter *writer;
	Relation		  rel;
	instr_time		  begin;
	bool			  last;

	INSTR_TIME_SET_CURRENT(begin);
	StartTransactionCommand();
	rel = streamext_checkpoint_log_open(RowExclusiveLock);
	if (rel == NULL)
	{
		CommitTransactionCommand();
		return SLICE_BLOCKED;
	}
	writer = streamext_checkpoint_writer(rel);
	last = write_rows(w, cut, writer, &row, begin, all);
	if (last)
		write_position(cut, writer, &row);
	streamext_checkpoint_writer_end(writer);
	table_close(rel, NoLock);
	STREAMEXT_FAULT(last ? "checkpoint-before-commit" : "checkpoint-in-slice");
	CommitTransactionCommand();
	STREAMEXT_FAULT(last ? "checkpoint-after-commit" : "checkpoint-after-slice");
	cut->committed = true;
	cut->cost_us += elapsed_us(begin);
	return last ? SLICE_LAST : SLICE_MORE;
}

/* The cut is committed. */
static void
checkpoint_committed(Worker *w)
{
	Checkpoint	  *c = w->checkpoint;
	CheckpointCut *cut = c->cut;
	MemoryContext  old = MemoryContextSwitchTo(c->cxt);

	streamext_stream_lock_exclusive(w->slot);
	w->slot->checkpoint_seq = cut->seq;
	w->slot->checkpoint_at = cut->begun_at;
	w->slot->checkpoint_bytes = cut->bytes;
	w->slot->checkpoint_ms = cut->cost_us / 1000.0;
	w->slot->checkpoint_pending = c->noted;
	for (int i = 0; i < cut->nviews; i++)
	{
		CutView	 *cv = &cut->views[i];
		ViewSlot *slot = cv->slot;

		/* it may have been begun anew since */
		if (!slot->in_use || slot->viewoid != cv->viewoid || slot->stream != w->index ||
			slot->definition != cv->definition || slot->state.period != cv->period + 1)
			continue;
		slot->state.saved = cv->period;
		slot->checkpoint_at = cut->begun_at;
		slot->settled = Max(slot->settled, streamext_checkpoint_settled(&cut->position,
																		 streamext_checkpoint_find_view(&cut->position, cv->viewoid)));
	}
	LWLockRelease(w->slot->lock);

	MemoryContextReset(c->last_cxt);
	MemoryContextSwitchTo(c->last_cxt);
	c->last = streamext_checkpoint_decode(cut->encoded.data, cut->encoded.len);
	if (c->last == NULL)
		elog(ERROR, "a position row cannot be read back");
	c->last->seq = cut->seq;
	resetStringInfo(&c->last_encoded);
	appendBinaryStringInfo(&c->last_encoded, cut->comparable.data, cut->comparable.len);
	c->incomplete = false;

	c->lsn = XactLastCommitEnd;
	c->connector = cut->connector;
	c->nconfirm = cut->nconfirm;
	memcpy(c->confirm, cut->confirm, sizeof(int64) * cut->nconfirm);
	c->due_at = cut->begun_at + Max(streamext_checkpoint_interval * INT64CONST(1000),
									(int64) cut->cost_us * CHECKPOINT_COST_FACTOR);
	cut->committed = false;
	cut_free(c);
	MemoryContextSwitchTo(old);
	streamext_into_settled(w);
}

/* From a catch block, in no state in particular: back to none, and the log says why. */
static void
checkpoint_failed(Worker *w, MemoryContext cxt)
{
	Checkpoint *c = w->checkpoint;
	ErrorData  *error;
	char		message[STREAMEXT_MAX_MESSAGE];

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(cxt);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(cxt);
	RESUME_INTERRUPTS();
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	ereport(WARNING, (errcode(error->sqlerrcode),
					  errmsg("could not write a checkpoint of stream \"%s.%s\": %s", w->config->schema,
							 w->config->name, error->message)));
	snprintf(message, sizeof(message), "could not write a checkpoint: %s", error->message);
	streamext_stream_set_state(w->slot, w->slot->state, message);
	FreeErrorData(error);
	cut_free(c);
	c->noted = true;
	c->blocked_until = GetCurrentTimestamp() + CHECKPOINT_FAILED_MS * INT64CONST(1000);
}

/* A slice of the cut at hand, or all of it. */
static SliceResult
checkpoint_write(Worker *w, bool all)
{
	Checkpoint			*c = w->checkpoint;
	MemoryContext		 cxt = CurrentMemoryContext;
	volatile SliceResult result = SLICE_BLOCKED;

	PG_TRY();
	{
		result = write_slice(w, c->cut, all);
		MemoryContextSwitchTo(cxt);
		if (result == SLICE_LAST)
			checkpoint_committed(w);
	}
	PG_CATCH();
	{
		checkpoint_failed(w, cxt);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return result;
}

static void
checkpoint_compact(Worker *w)
{
	MemoryContext cxt = CurrentMemoryContext;

	PG_TRY();
	{
		streamext_checkpoint_log_compact();
	}
	PG_CATCH();
	{
		checkpoint_failed(w, cxt);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
}

/* ---------------------------------------------------------------- when */

void
streamext_checkpoint_note(Worker *w)
{
	if (w->checkpoint == NULL)
		return;
	w->checkpoint->noted = true;
	w->slot->checkpoint_pending = true;
}

/* Tells the connector when a checkpoint has reached the disk. */
static void
checkpoint_confirm(Worker *w, bool wait)
{
	Checkpoint *c = w->checkpoint;

	if (c->lsn == InvalidXLogRecPtr)
		return;
	if (wait)
		XLogFlush(c->lsn);
	else if (GetFlushRecPtr(NULL) < c->lsn)
		return;
	STREAMEXT_FAULT("checkpoint-before-confirm");
	c->lsn = InvalidXLogRecPtr;
	if (w->connector != NULL && w->connector == c->connector && w->ops->commit != NULL &&
		c->nconfirm <= w->npartitions)
	{
		w->ops->commit(w->connector, c->confirm, c->nconfirm);
		w->confirmed = w->confirmed || c->nconfirm > 0;
		STREAMEXT_FAULT("checkpoint-after-confirm");
	}
}

void
streamext_checkpoint_confirm_nothing(Worker *w)
{
	Checkpoint *c = w->checkpoint;

	if (c == NULL)
		return;
	c->lsn = InvalidXLogRecPtr;
	if (c->cut != NULL)
		c->cut->nconfirm = 0;
}

void
streamext_checkpoint_run(Worker *w, TimestampTz now)
{
	Checkpoint *c = w->checkpoint;

	if (c == NULL || w->config == NULL)
		return;
	checkpoint_confirm(w, false);
	if (c->cut != NULL && c->cut->source != w->slot->source)
		cut_free(c);
	if (now < c->blocked_until)
		return;
	if (c->cut == NULL && c->noted && streamext_checkpoint_interval > 0 && now >= c->due_at)
		checkpoint_cut(w, now);
	if (c->cut == NULL)
		return;
	switch (checkpoint_write(w, false))
	{
		case SLICE_MORE:
			break;
		case SLICE_LAST:
			checkpoint_compact(w);
			break;
		case SLICE_BLOCKED:
			c->blocked_until = Max(c->blocked_until, now + CHECKPOINT_BLOCKED_MS * INT64CONST(1000));
			break;
	}
}

TimestampTz
streamext_checkpoint_deadline(Worker *w, TimestampTz now)
{
	const Checkpoint *c = w->checkpoint;
	TimestampTz		  next = DT_NOEND;

	if (c == NULL || w->config == NULL)
		return next;
	if (c->cut != NULL)
		next = Max(now, c->blocked_until);
	else if (c->noted && streamext_checkpoint_interval > 0)
		next = Max(c->due_at, c->blocked_until);
	if (c->lsn != InvalidXLogRecPtr)
		next = Min(next, now + CHECKPOINT_CONFIRM_MS * INT64CONST(1000));
	return next;
}

void
streamext_checkpoint_finish(Worker *w)
{
	Checkpoint *c = w->checkpoint;
	TimestampTz end = GetCurrentTimestamp() + CHECKPOINT_FINISH_MS * INT64CONST(1000);
	bool		cut = false;

	if (c == NULL || w->config == NULL)
		return;
	if (c->cut != NULL && c->cut->source != w->slot->source)
		cut_free(c);
	while (GetCurrentTimestamp() < end)
	{
		if (c->cut == NULL)
		{
			if (cut)
				break;
			cut = true;
			checkpoint_cut(w, GetCurrentTimestamp());
			continue;
		}
		if (checkpoint_write(w, true) == SLICE_BLOCKED)
			pg_usleep(10000);
	}
	checkpoint_confirm(w, true);
}
