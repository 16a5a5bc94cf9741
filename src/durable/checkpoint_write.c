/*-------------------------------------------------------------------------
 *
 * durable/checkpoint_write.c
 *		Taking checkpoints.
 *
 * Cut, between two batches (durable/checkpoint_cut.c): the groups published into since the last committed checkpoint are copied to private memory
 * as they are then, as the rows they will be, together with the position row of this moment. Write, between the batches that follow:
 * slices of a few milliseconds, a transaction each; the last one holds the position row. Its commit makes the checkpoint; as commits get to
 * disk in order, nothing is waited for. When it is on disk the connector is told, which trims its journal.
 *
 * What has changed: GroupEntry.visible and Pane.changed hold the period of their last publication (state/pane.h), ViewState.saved the
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
#include "base/streamext.h"

#include "base/clip.h"
#include "base/transaction.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "durable/checkpoint_state.h"
#include "base/fault.h"
#include "durable/letters.h"

#define CHECKPOINT_COST_FACTOR 10 /* at most a tenth of the time is spent with checkpoints */
#define CHECKPOINT_BLOCKED_MS 50
#define CHECKPOINT_FAILED_MS 5000
#define CHECKPOINT_CONFIRM_MS 100
#define CHECKPOINT_FINISH_MS 5000


/* ---------------------------------------------------------------- writing */

/* Rows of the cut until time is up; true when all are written. */
static bool
write_rows(CheckpointCut *cut, CheckpointWriter *writer, CheckpointRow *row, instr_time begin, bool all)
{
	row->kind = CHECKPOINT_ENTRIES;
	for (; cut->view < cut->nviews; cut->view++, cut->pane = 0)
		for (; cut->pane < cut->views[cut->view].npanes; cut->pane++, cut->row = NULL)
		{
			const CutView *view = &cut->views[cut->view];
			const CutPane *pane = &view->panes[cut->pane];

			for (CutRow *from = cut->row != NULL ? cut->row : pane->first; from != NULL; from = from->next)
			{
				if (!all && cut->written % 16 == 0 &&
					streamext_checkpoint_elapsed_us(begin) > CHECKPOINT_SLICE_MS * 1000)
				{
					cut->row = from;
					return false;
				}
				row->view = view->viewoid;
				row->pane = pane->id;
				row->part = cut->written++;
				row->size = from->size;
				row->data = from->data;
				streamext_checkpoint_write(writer, row);
			}
		}
	return true;
}

static void
write_position(CheckpointCut *cut, CheckpointWriter *writer, CheckpointRow *row)
{
	row->kind = CHECKPOINT_POSITION;
	row->view = InvalidOid;
	row->pane = 0;
	row->part = cut->written;
	streamext_checkpoint_write_bytes(writer, row, cut->encoded.data, cut->encoded.len);
	cut->bytes += cut->encoded.len + (uint64) (row->part - cut->written) * CHECKPOINT_ROW_OVERHEAD;
	cut->written = row->part;
}

typedef enum SliceResult
{
	SLICE_MORE,
	SLICE_LAST,
	SLICE_BLOCKED
} SliceResult;

/* One transaction. Raises whatever the table raises. */
static SliceResult
write_slice(Shard *shard, CheckpointCut *cut, bool all)
{
	CheckpointRow	  row = { .seq = cut->seq, .stream = shard->identity.relid, .shard = shard->identity.shard };
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
	last = write_rows(cut, writer, &row, begin, all);
	if (last)
		write_position(cut, writer, &row);
	streamext_checkpoint_writer_end(writer);
	table_close(rel, NoLock);
	STREAMEXT_FAULT(last ? "checkpoint-before-commit" : "checkpoint-in-slice");
	CommitTransactionCommand();
	STREAMEXT_FAULT(last ? "checkpoint-after-commit" : "checkpoint-after-slice");
	cut->committed = true;
	cut->cost_us += streamext_checkpoint_elapsed_us(begin);
	return last ? SLICE_LAST : SLICE_MORE;
}

/* The cut is committed. */
static void
checkpoint_committed(Shard *shard)
{
	Checkpoint	  *c = shard->checkpoint;
	CheckpointCut *cut = c->cut;
	MemoryContext  old = MemoryContextSwitchTo(c->cxt);

	streamext_stream_lock_exclusive(shard->slot);
	shard->slot->checkpoint.seq = cut->seq;
	shard->slot->checkpoint.at = cut->begun_at;
	shard->slot->checkpoint.bytes = cut->bytes;
	shard->slot->checkpoint.ms = cut->cost_us / 1000.0;
	shard->slot->checkpoint.pending = c->noted;
	for (int i = 0; i < cut->nviews; i++)
	{
		CutView	 *cv = &cut->views[i];
		ViewSlot *slot = cv->slot;

		/* it may have been begun anew since */
		if (!slot->id.in_use || slot->id.viewoid != cv->viewoid || slot->id.stream != shard->index ||
			slot->counted.definition != cv->definition || !slot->counted.state.cutting ||
			slot->counted.state.period != cv->period + 2)
			continue;
		slot->counted.state.saved = cv->period + 1;
		slot->counted.state.cutting = false;
		slot->checkpoint_at = cut->begun_at;
		slot->into.settled = Max(
			slot->into.settled,
			streamext_checkpoint_settled(&cut->position, streamext_checkpoint_find_view(&cut->position, cv->viewoid)));
	}
	LWLockRelease(shard->slot->lock);

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
	c->due_at = cut->begun_at +
				Max(streamext_checkpoint_interval * INT64CONST(1000), (int64) cut->cost_us * CHECKPOINT_COST_FACTOR);
	cut->committed = false;
	streamext_checkpoint_cut_free(c);
	MemoryContextSwitchTo(old);
	streamext_stream_trouble_over(shard->slot, &c->trouble_at);
	shard->does->checkpointed(shard);
}

/* From a catch block: the log says why. */
static void
checkpoint_failed(Shard *shard, MemoryContext cxt)
{
	Checkpoint *c = shard->checkpoint;
	ErrorData  *error = streamext_worker_caught(cxt);
	char		message[STREAMEXT_MAX_MESSAGE];

	ereport(WARNING, (errcode(error->sqlerrcode),
					  errmsg("could not write a checkpoint of stream \"%s.%s\": %s", shard->config->schema,
							 shard->config->name, streamext_error_text(error))));
	streamext_clip_format(message, sizeof(message), "could not write a checkpoint: %s", error->message);
	c->trouble_at = streamext_stream_note_trouble(shard->slot, message);
	FreeErrorData(error);
	c->noted = true;
	c->wanted = c->wanted || (c->cut != NULL && c->cut->wanted);
	streamext_checkpoint_cut_free(c);
	c->blocked_until = GetCurrentTimestamp() + CHECKPOINT_FAILED_MS * INT64CONST(1000);
}

/* A slice of the cut at hand, or all of it. */
static SliceResult
checkpoint_write(Shard *shard, bool all)
{
	Checkpoint			*c = shard->checkpoint;
	MemoryContext		 cxt = CurrentMemoryContext;
	volatile SliceResult result = SLICE_BLOCKED;

	PG_TRY();
	{
		result = write_slice(shard, c->cut, all);
		MemoryContextSwitchTo(cxt);
		if (result == SLICE_LAST)
			checkpoint_committed(shard);
	}
	PG_CATCH();
	{
		checkpoint_failed(shard, cxt);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return result;
}

/* A cut of this moment, if anything has changed. Letters of what it has passed are committed before. False: they cannot be. */
static bool
checkpoint_begin(Shard *shard, TimestampTz now)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool settled = false;
	instr_time	  begin;
	int			  us;

	INSTR_TIME_SET_CURRENT(begin);
	PG_TRY();
	{
		streamext_letters_settle(shard->identity.relid);
		settled = true;
	}
	PG_CATCH();
	{
		checkpoint_failed(shard, cxt);
	}
	PG_END_TRY();
	if (!settled)
		return false;
	us = streamext_checkpoint_elapsed_us(begin);
	streamext_checkpoint_cut(shard, now);
	if (shard->checkpoint->cut != NULL)
		shard->checkpoint->cut->cost_us += us;
	return true;
}

static int64
checkpoint_alive_bytes(const CheckpointPosition *last)
{
	int64 bytes = 0;

	for (int i = 0; i < last->head.nviews; i++)
		bytes += last->views[i].head.bytes;
	return bytes;
}

static void
checkpoint_compact(Shard *shard)
{
	MemoryContext cxt = CurrentMemoryContext;

	PG_TRY();
	{
		streamext_checkpoint_log_compact(checkpoint_alive_bytes(shard->checkpoint->last));
	}
	PG_CATCH();
	{
		checkpoint_failed(shard, cxt);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
}

/* ---------------------------------------------------------------- when */

void
streamext_checkpoint_note(Shard *shard)
{
	if (shard->checkpoint == NULL)
		return;
	shard->checkpoint->noted = true;
	shard->slot->checkpoint.pending = true;
}

void
streamext_checkpoint_want(Shard *shard)
{
	streamext_checkpoint_note(shard);
	if (shard->checkpoint != NULL)
		shard->checkpoint->wanted = true;
}

bool
streamext_checkpoint_is_through(const Shard *shard)
{
	return shard->checkpoint == NULL || (!shard->checkpoint->wanted && shard->checkpoint->cut == NULL);
}

/*
 * Others read the journal too, and it stays for them, but for more than half of streamext.journal_limit: one that is stuck shall not
 * keep the stream from taking rows. It tells of the gap (source/journal/inbox.c).
 */
static void
checkpoint_limit(Shard *shard)
{
	Checkpoint *c = shard->checkpoint;
	int64		end = (int64) pg_atomic_read_u64(&shard->slot->journal_end);
	int64		limit;

	if (!shard->ops->journaled || c->nconfirm != 1)
		return;
	limit = streamext_stream_followed(shard->slot, shard->followers, c->confirm[0]);
	if (streamext_journal_limit_mb > 0)
		limit = Max(limit, Min(c->confirm[0], end - (int64) streamext_journal_limit_mb * (1024 * 1024 / 2)));
	if (limit < c->confirm[0] && limit != c->limited)
		streamext_checkpoint_note(shard); /* looks again */
	c->limited = limit;
	c->confirm[0] = limit;
}

/* A part of UNION ALL is not alone at its source: nothing is told to that. */
static void
checkpoint_confirm_part(Shard *shard)
{
	Checkpoint *c = shard->checkpoint;

	if (shard->ops->journaled && c->nconfirm > 0)
		streamext_stream_keep(shard->slot, shard->config->from.origin, c->confirm[0]);
	shard->confirmed = shard->confirmed || c->nconfirm > 0;
}

/* Tells the connector when a checkpoint has reached the disk. */
static void
checkpoint_confirm(Shard *shard, bool wait)
{
	Checkpoint *c = shard->checkpoint;

	if (c->lsn == InvalidXLogRecPtr)
		return;
	if (wait)
		XLogFlush(c->lsn);
	else if (GetFlushRecPtr(NULL) < c->lsn)
		return;
	STREAMEXT_FAULT("checkpoint-before-confirm");
	c->lsn = InvalidXLogRecPtr;
	if (shard->connector == NULL || shard->connector != c->connector || c->nconfirm > shard->npartitions)
		return;
	if (OidIsValid(shard->config->from.origin))
		checkpoint_confirm_part(shard);
	else if (shard->ops->commit != NULL)
	{
		checkpoint_limit(shard);
		shard->ops->commit(shard->connector, c->confirm, c->nconfirm);
		shard->confirmed = shard->confirmed || c->nconfirm > 0;
		STREAMEXT_FAULT("checkpoint-after-confirm");
	}
}

void
streamext_checkpoint_confirm_nothing(Shard *shard)
{
	Checkpoint *c = shard->checkpoint;

	if (c == NULL)
		return;
	c->lsn = InvalidXLogRecPtr;
	if (c->cut != NULL)
		c->cut->nconfirm = 0;
}

void
streamext_checkpoint_run(Shard *shard, TimestampTz now)
{
	Checkpoint *c = shard->checkpoint;

	if (c == NULL || shard->config == NULL)
		return;
	checkpoint_confirm(shard, false);
	if (c->cut != NULL && c->cut->source != shard->slot->counted.source)
		streamext_checkpoint_cut_free(c);
	if (now < c->blocked_until)
		return;
	if (c->cut == NULL && (c->wanted || (c->noted && streamext_checkpoint_interval > 0 && now >= c->due_at)))
		(void) checkpoint_begin(shard, now);
	if (c->cut == NULL || (c->cut->copying && !streamext_checkpoint_copy(shard, false)))
		return;
	switch (checkpoint_write(shard, false))
	{
		case SLICE_MORE:
			break;
		case SLICE_LAST:
			checkpoint_compact(shard);
			break;
		case SLICE_BLOCKED:
			c->blocked_until = Max(c->blocked_until, now + CHECKPOINT_BLOCKED_MS * INT64CONST(1000));
			break;
	}
}

TimestampTz
streamext_checkpoint_deadline(Shard *shard, TimestampTz now)
{
	const Checkpoint *c = shard->checkpoint;
	TimestampTz		  next = DT_NOEND;

	if (c == NULL || shard->config == NULL)
		return next;
	if (c->cut != NULL || c->wanted)
		next = Max(now, c->blocked_until);
	else if (c->noted && streamext_checkpoint_interval > 0)
		next = Max(c->due_at, c->blocked_until);
	if (c->lsn != InvalidXLogRecPtr)
		next = Min(next, now + CHECKPOINT_CONFIRM_MS * INT64CONST(1000));
	return next;
}

/* What is under way to its end, and then one more of this moment. False: blocked. */
static bool
checkpoint_write_all(Shard *shard, bool *cut)
{
	Checkpoint *c = shard->checkpoint;

	if (c->cut != NULL && c->cut->source != shard->slot->counted.source)
		streamext_checkpoint_cut_free(c);
	for (;;)
	{
		if (c->cut == NULL)
		{
			if (*cut)
				return true;
			*cut = true;
			if (!checkpoint_begin(shard, GetCurrentTimestamp()))
				return false;
			continue;
		}
		streamext_checkpoint_copy_rest(shard);
		if (checkpoint_write(shard, true) == SLICE_BLOCKED)
			return false;
	}
}

bool
streamext_checkpoint_now(Shard *shard)
{
	Checkpoint *c = shard->checkpoint;
	TimestampTz now = GetCurrentTimestamp();
	bool		cut = false;

	if (c == NULL || shard->config == NULL)
		return true; /* the extension is being dropped */
	if (now < c->blocked_until)
		return false;
	if (!checkpoint_write_all(shard, &cut))
	{
		c->blocked_until = Max(c->blocked_until, now + CHECKPOINT_BLOCKED_MS * INT64CONST(1000));
		return false;
	}
	checkpoint_confirm(shard, true);
	return true;
}

void
streamext_checkpoint_finish(Shard *shard)
{
	Checkpoint *c = shard->checkpoint;
	TimestampTz end = GetCurrentTimestamp() + CHECKPOINT_FINISH_MS * INT64CONST(1000);
	bool		cut = false;

	if (c == NULL || shard->config == NULL)
		return;
	while (GetCurrentTimestamp() < end && !checkpoint_write_all(shard, &cut))
		pg_usleep(10000);
	checkpoint_confirm(shard, true);
}
