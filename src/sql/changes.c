/*-------------------------------------------------------------------------
 *
 * sql/changes.c
 *		streamext.changes: how a view has changed since a token; waits for changes if asked to.
 *
 * While it waits no feed is held; the view stays locked, and the snapshot held, as by any statement that runs.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"

#include "sink/changes.h"
#include "sink/row_jsonb.h"
#include "view/window.h"

PG_FUNCTION_INFO_V1(streamext_changes);

#define CHANGES_COLUMNS 4

typedef struct ChangesCall
{
	ReturnSetInfo *rsinfo;
	MemoryContext  per_row;
	Datum		   upsert, delete, reset; /* what op is */
	uint64		   rows;				  /* with the reset */
} ChangesCall;

static Datum
changes_op(const ChangesCall *call, char op)
{
	return op == STREAMEXT_CHANGE_RESET ? call->reset : op == STREAMEXT_CHANGE_DELETE ? call->delete : call->upsert;
}

static void
changes_put(void *arg, const Change *change)
{
	ChangesCall	 *call = arg;
	MemoryContext old = MemoryContextSwitchTo(call->per_row);
	Datum		  values[CHANGES_COLUMNS];
	bool		  nulls[CHANGES_COLUMNS] = { false };

	values[0] = changes_op(call, change->op);
	values[1] = CStringGetTextDatum(change->token);
	values[2] = TimestampTzGetDatum(change->at);
	nulls[3] = change->row == NULL;
	values[3] = (Datum) 0;
	if (change->row != NULL)
		values[3] = JsonbPGetDatum(streamext_row_jsonb(change->row, change->row_size));
	tuplestore_putvalues(call->rsinfo->setResult, call->rsinfo->setDesc, values, nulls);
	call->rows++;
	MemoryContextSwitchTo(old);
	MemoryContextReset(call->per_row);
}

/* Up to the next look, or the end of the wait. */
static void
changes_sleep(int64 usecs)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, Max((usecs + 999) / 1000, 1),
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* When to look next, `interval` after the last look, whoever has looked. */
static TimestampTz
changes_next_look(const ChangesReader *reader, TimestampTz now, int64 interval)
{
	TimestampTz looked_at = streamext_changes_looked_at(reader);

	return (looked_at > now - interval ? looked_at : now) + interval;
}

/*
 * Until there is something to tell, or the end of the wait. Who has a token has what was read within the interval told, which is new enough but at
 * the end: so the view is read once in an interval, however fast he asks again, and whoever else asks.
 */
static void
changes_wait(ChangesCall *call, ChangesReader *reader, const char *after, TimestampTz until)
{
	int64			interval = streamext_changes_emit_interval(reader);
	ChangesQuestion question = { .after = after };

	for (;;)
	{
		TimestampTz now = GetCurrentTimestamp();
		bool		over = now >= until;

		question.fresh = over || after == NULL ? now : now - interval;
		(void) streamext_changes_read(reader, &question, changes_put, call, NULL);
		if (call->rows > 0 || over)
			return;
		question.idle = true;
		changes_sleep(Min(until, changes_next_look(reader, now, interval)) - now);
	}
}

Datum
streamext_changes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo  *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	TimestampTz		now = GetCurrentTimestamp();
	ChangesCall		call = { 0 };
	ChangesQuestion question = { 0 };
	ChangesReader  *reader;
	char		   *after;
	int64			wait;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the view must not be NULL")));
	after = PG_ARGISNULL(1) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(1));
	wait = PG_ARGISNULL(2) ? 0 : streamext_interval_usecs(PG_GETARG_INTERVAL_P(2), "wait");
	if (wait < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("wait must not be negative")));
	InitMaterializedSRF(fcinfo, 0);
	call.rsinfo = rsinfo;
	call.per_row = AllocSetContextCreate(CurrentMemoryContext, "streamext changes row", ALLOCSET_DEFAULT_SIZES);
	call.upsert = CStringGetTextDatum("upsert");
	call.delete = CStringGetTextDatum("delete");
	call.reset = CStringGetTextDatum("reset");
	reader = streamext_changes_open(PG_GETARG_OID(0));
	question.after = after;
	question.fresh = now;
	if (wait > 0)
		changes_wait(&call, reader, after, now + wait);
	else
		(void) streamext_changes_read(reader, &question, changes_put, &call, NULL);
	PG_RETURN_NULL();
}
