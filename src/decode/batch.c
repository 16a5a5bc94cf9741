/*-------------------------------------------------------------------------
 *
 * decode/batch.c
 *		The memory of a batch: vectors of fixed capacity, and a context for what a batch's values point to.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "mb/pg_wchar.h"

#include "decode/batch.h"

Batch *
streamext_batch_create(StreamConfig *config, Connector *connector, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	int			  natts = config->desc->natts;
	Batch		 *batch = palloc0(sizeof(Batch));

	batch->cxt = AllocSetContextCreate(cxt, "streamext batch", ALLOCSET_DEFAULT_SIZES);
	batch->config = config;
	batch->connector = connector;
	batch->records = palloc0(sizeof(StreamRecord) * STREAMEXT_BATCH_ROWS);
	batch->record = palloc(sizeof(int) * STREAMEXT_BATCH_ROWS);
	batch->values = palloc(sizeof(Datum *) * Max(natts, 1));
	batch->nulls = palloc(sizeof(bool *) * Max(natts, 1));
	for (int i = 0; i < natts; i++)
	{
		batch->values[i] = palloc0(sizeof(Datum) * STREAMEXT_BATCH_ROWS);
		batch->nulls[i] = palloc0(sizeof(bool) * STREAMEXT_BATCH_ROWS);
	}
	batch->event_time = palloc0(sizeof(TimestampTz) * STREAMEXT_BATCH_ROWS);
	batch->positions = palloc(sizeof(int64) * STREAMEXT_MAX_PARTITIONS);
	batch->watermark = DT_NOBEGIN;
	MemoryContextSwitchTo(old);
	return batch;
}

void
streamext_batch_reset(Batch *batch)
{
	batch->nrecords = batch->nrows = 0;
	batch->rejected = batch->late = batch->set_aside = NIL;
	batch->owed = NULL;
	batch->again = false;
	MemoryContextReset(batch->cxt);
}

void
streamext_batch_reject(Batch *batch, Oid view, int record, int sqlstate, const char *reason)
{
	MemoryContext	old = MemoryContextSwitchTo(batch->cxt);
	RejectedRecord *rejected = palloc(sizeof(RejectedRecord));
	Size			size = strlen(reason);

	if (unlikely(size > STREAMEXT_MAX_REASON))
		size = pg_mbcliplen(reason, size, STREAMEXT_MAX_REASON);
	rejected->view = view;
	rejected->record = record;
	rejected->sqlstate = sqlstate;
	rejected->reason = palloc(size + 1);
	memcpy(rejected->reason, reason, size);
	rejected->reason[size] = '\0';
	rejected->known = rejected->unlettered = false;
	rejected->done = NULL;
	batch->rejected = lappend(batch->rejected, rejected);
	MemoryContextSwitchTo(old);
}

void
streamext_batch_set_aside(Batch *batch, Oid view, int record, const char *reason)
{
	MemoryContext	old = MemoryContextSwitchTo(batch->cxt);
	RejectedRecord *aside = palloc0(sizeof(RejectedRecord));

	aside->view = view;
	aside->record = record;
	aside->sqlstate = ERRCODE_INTERNAL_ERROR;
	aside->reason = pstrdup(reason);
	batch->set_aside = lappend(batch->set_aside, aside);
	MemoryContextSwitchTo(old);
}

bool
streamext_batch_is_set_aside(const Batch *batch, Oid view, int record)
{
	ListCell *lc;

	foreach (lc, batch->set_aside)
	{
		const RejectedRecord *aside = lfirst(lc);

		if (aside->view == view && aside->record == record)
			return true;
	}
	return false;
}

void
streamext_batch_withdraw(Batch *batch, Oid view)
{
	ListCell *lc;

	foreach (lc, batch->late)
		if (((LateRecord *) lfirst(lc))->view == view)
			batch->late = foreach_delete_current (batch->late, lc);
	foreach (lc, batch->rejected)
		if (((RejectedRecord *) lfirst(lc))->view == view)
			batch->rejected = foreach_delete_current (batch->rejected, lc);
}

void
streamext_batch_keep_late(Batch *batch, Oid view, int row)
{
	MemoryContext old = MemoryContextSwitchTo(batch->cxt);
	LateRecord	 *late = palloc(sizeof(LateRecord));

	late->view = view;
	late->record = batch->record[row];
	late->event_time = batch->event_time[row];
	batch->late = lappend(batch->late, late);
	MemoryContextSwitchTo(old);
}
