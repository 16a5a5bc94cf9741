/*-------------------------------------------------------------------------
 *
 * sql/pause.c
 *		streamext.pause and streamext.resume, of streams and of continuous views.
 *
 * The table streamext_internal.paused is the truth, so that a pause outlives the server. Workers read it when they look into the
 * catalogue, which the commit of a change makes them do: that is all there is to a view's pause.
 *
 * A stream's is also a flag in shared memory (StreamSlot.ask.pause), which takes effect at once and has been awaited
 * when the function returns. The end of the transaction settles it: by the table, or, if it is aborted, as it was. A
 * worker sets it from the table when shared memory is new. `on_error 'stop'` sets it too, and only there.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "sql/commit.h"
#include "base/own_table.h"
#include "sql/control.h"
#include "durable/paused.h"
#include "shared/shmem.h"
#include "view/union.h"

PG_FUNCTION_INFO_V1(streamext_pause);
PG_FUNCTION_INFO_V1(streamext_resume);

#define PAUSE_TICK_MS 100
#define PAUSE_WAIT_MS 5000

/* ---------------------------------------------------------------- the table */

static const char pause_insert_sql[] =
	"INSERT INTO streamext_internal.paused (relation) VALUES ($1) ON CONFLICT DO NOTHING";
static const char pause_delete_sql[] = "DELETE FROM streamext_internal.paused WHERE relation OPERATOR(pg_catalog.=) $1";

static int64
pause_execute(const char *sql, Oid relid, int expected)
{
	Oid	  types[1] = { OIDOID };
	Datum values[1] = { ObjectIdGetDatum(relid) };

	return streamext_control_execute(sql, 1, types, values, NULL, expected);
}

/* True if it was listed before. */
static bool
pause_change(Oid relid, bool pause)
{
	if (pause)
		return pause_execute(pause_insert_sql, relid, SPI_OK_INSERT) == 0;
	return pause_execute(pause_delete_sql, relid, SPI_OK_DELETE) > 0;
}

/* ---------------------------------------------------------------- the flag */

/* ---------------------------------------------------------------- the flag, until the transaction ends */

typedef struct PauseChange
{
	Oid	   relid;
	bool   former;
	bool   final;
	uint32 stops[STREAMEXT_MAX_SHARDS]; /* StreamSlot.ask.stops as of the call */
} PauseChange;

static List *pause_changes = NIL; /* of this transaction, in its context */

/* stops: of a call of resume that now commits: what has stopped since, because it went on by then, stays stopped. NULL: whatever was. */
static void
pause_set(Oid relid, bool pause, const uint32 *stops)
{
	StreamSlot *slots[STREAMEXT_MAX_SHARDS];
	int			n = streamext_control_find_slots(relid, slots);

	for (int i = 0; i < n; i++)
	{
		if (!pause && stops != NULL && pg_atomic_read_u32(&slots[i]->ask.stops) != stops[slots[i]->id.shard])
			continue;
		streamext_pause_request(slots[i], pause);
		streamext_wake_worker(slots[i]);
	}
}

static void
pause_xact_callback(XactEvent event, void *arg)
{
	ListCell *lc;

	if (pause_changes == NIL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			/* a subtransaction may have been undone */
			PushActiveSnapshot(GetTransactionSnapshot());
			foreach (lc, pause_changes)
			{
				PauseChange *change = lfirst(lc);

				change->final = streamext_is_paused(change->relid);
			}
			PopActiveSnapshot();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
			foreach (lc, pause_changes)
			{
				PauseChange *change = lfirst(lc);

				if (event == XACT_EVENT_COMMIT)
					pause_set(change->relid, change->final, change->stops);
				else
					pause_set(change->relid, change->former, NULL);
			}
			pause_changes = NIL;
			break;
		case XACT_EVENT_PRE_PREPARE:
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("cannot PREPARE a transaction that has paused or resumed a stream")));
			break;
		default:
			break;
	}
}

static void
pause_note(Oid relid, bool former, StreamSlot *const *slots, int n)
{
	static bool	  registered = false;
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	PauseChange	 *change = palloc0(sizeof(PauseChange));
	ListCell	 *lc;

	if (!registered)
		RegisterXactCallback(pause_xact_callback, NULL);
	registered = true;
	foreach (lc, pause_changes)
		if (((PauseChange *) lfirst(lc))->relid == relid)
			former = ((PauseChange *) lfirst(lc))->former;
	change->relid = relid;
	change->former = change->final = former;
	for (int i = 0; i < n; i++)
		change->stops[slots[i]->id.shard] = pg_atomic_read_u32(&slots[i]->ask.stops);
	pause_changes = lappend(pause_changes, change);
	MemoryContextSwitchTo(old);
}

/* ---------------------------------------------------------------- the functions */

/* Until the shard has stopped or gone on, or will not hear, or is of another stream by now; at most PAUSE_WAIT_MS. */
static void
pause_wait(StreamSlot *slot, Oid relid, bool stopped)
{
	TimestampTz start = GetCurrentTimestamp();

	ConditionVariablePrepareToSleep(&slot->progress);
	while (slot->id.in_use && slot->id.relid == relid && slot->worker.pid != MyProcPid && slot->worker.pid != 0 &&
		   (slot->status.state == STREAM_PAUSED || STREAMEXT_STATE_FAILED(slot->status.state)) != stopped &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), PAUSE_WAIT_MS))
		(void) ConditionVariableTimedSleep(&slot->progress, PAUSE_TICK_MS, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

static void
pause_stream(Oid relid, bool pause)
{
	StreamSlot *slots[STREAMEXT_MAX_SHARDS];
	int			n = streamext_control_slots(relid, streamext_control_stream(relid, true), slots);
	bool		former;

	/* the worker may not have looked into the table yet */
	former = pause_change(relid, pause) || streamext_pause_requested(slots[0]);
	pause_note(relid, former, slots, n);
	pause_set(relid, pause, NULL);
	for (int i = 0; i < n; i++)
		pause_wait(slots[i], relid, pause);
}

static void
pause_or_resume(Oid relid, bool pause)
{
	Oid stream;

	streamext_require_preload();
	stream = streamext_control_view(relid);
	if (!OidIsValid(stream))
	{
		ListCell *lc;

		pause_stream(relid, pause);
		/* they read it beside its worker */
		foreach (lc, streamext_union_views(relid))
			streamext_touch_view(lfirst_oid(lc), InvalidOid);
		return;
	}
	(void) pause_change(relid, pause);
	streamext_touch_view(relid, stream);
}

Datum
streamext_pause(PG_FUNCTION_ARGS)
{
	pause_or_resume(PG_GETARG_OID(0), true);
	PG_RETURN_VOID();
}

Datum
streamext_resume(PG_FUNCTION_ARGS)
{
	pause_or_resume(PG_GETARG_OID(0), false);
	PG_RETURN_VOID();
}
