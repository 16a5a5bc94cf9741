/*-------------------------------------------------------------------------
 *
 * sql/rebuild.c
 *		A view that is begun anew (streamext.rebuild, CREATE OR REPLACE) shows its former content until it has caught up.
 *
 * The slot that processes know is emptied and counts from the start. What it held, panes in memory and the mark of its slices in
 * history, moves to a second ViewSlot (`retained`) that only readers look at; ViewSlot.retained_slot leads to it. Nobody writes
 * it. When the view has caught up with its stream both are exchanged for readers in one step, under the stream's exclusive
 * lock, and the second slot is free again. A view that is begun anew while it catches up keeps the older content.
 *
 * Readers compile the newest definition. They take former content if it is laid out as that wants (CompiledView.layout: the
 * same keys, window and aggregates), which is always so after streamext.rebuild. Else they read what is counted so far.
 *
 * Slices in history: the new ones go to another set of shard numbers (ViewSlot.history_shard), the former are deleted some time
 * after the exchange, when every statement that had noted their mark has its snapshot.
 *
 * Checkpoints hold the former state, as it was last, until the exchange: after a crash the view is at its former round, shows
 * that, and begins anew once more. What its round is to be stands in the table streamext.round.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "base/own_table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "durable/checkpoint.h"
#include "sql/control.h"
#include "sql/lock.h"
#include "durable/history.h"
#include "stream/definition.h"
#include "durable/journal_base.h"
#include "sql/rebuild.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(streamext_rebuild);

#define RETAIN_TIDY_MS 10000

/* ---------------------------------------------------------------- to a slot of its own */

static bool
retain_has_content(const ViewSlot *slot)
{
	return slot->definition != 0 && (slot->state.npanes > 0 || (slot->history != 0 && slot->sealed != PG_INT64_MIN));
}

/* With both locks. Its index + 1; 0: none is free. */
static int
retain_move(const ViewSlot *slot)
{
	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	Assert(LWLockHeldByMeInMode(streamext_shared->streams[slot->stream].lock, LW_EXCLUSIVE));
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *retained = &streamext_shared->views[i];

		if (retained->in_use)
			continue;
		*retained = *slot;
		retained->retained = true;
		retained->retained_slot = 0;
		retained->status = VIEW_RUNNING;
		retained->catchup = CATCHUP_NONE;
		retained->catchup_started = 0;
		retained->last_error[0] = '\0';
		retained->positions = NULL;
		retained->npositions = 0;
		return i + 1;
	}
	return 0;
}

/* With the stream's lock. What it held has been moved or freed. */
static void
retain_empty(ViewSlot *slot)
{
	streamext_state_init(&slot->state, slot->state.lock, slot->state.state_size);
	slot->accepted = slot->late = slot->rejected = 0;
	slot->retry = 0;
	for (int i = 0; i < slot->npositions; i++)
		slot->positions[i] = -1;
	slot->catchup_started = 0;
	slot->catchup_rows = 0;
	slot->history = 0;
	slot->history_shard = slot->shard;
	memset(&slot->history_written, 0, sizeof(HistoryTotals));
	memset(&slot->history_deleted, 0, sizeof(HistoryTotals));
	slot->sealed = slot->covered = PG_INT64_MIN;
	slot->sealed_until = slot->floor = DT_NOBEGIN;
	slot->settled = DT_NOBEGIN;
}

void
streamext_view_begin_anew(ViewSlot *slot)
{
	StreamSlot *stream = &streamext_shared->streams[slot->stream];

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	streamext_stream_lock_exclusive(stream);
	if (slot->retained_slot == 0 && retain_has_content(slot))
		slot->retained_slot = retain_move(slot);
	else
		streamext_state_reset(&slot->state);
	retain_empty(slot);
	LWLockRelease(stream->lock);
	LWLockRelease(streamext_shared->registry_lock);
}

void
streamext_view_retire(ViewSlot *slot)
{
	if (slot->retained_slot == 0)
		return;
	streamext_free_retained(slot);
}

/* ---------------------------------------------------------------- the exchange */

void
streamext_views_retire(Worker *w)
{
	bool	  any = false;
	ListCell *lc;

	if (!w->attached || w->pending)
		return;
	foreach (lc, w->views)
	{
		WorkerView *v = lfirst(lc);

		if (v->slot->retained_slot == 0 || v->fold == NULL || v->paused || v->behind ||
			v->slot->npositions < w->slot->npartitions)
			continue;
		streamext_view_retire(v->slot);
		v->retired_at = GetCurrentTimestamp();
		any = true;
	}
	if (any)
		streamext_checkpoint_note(w);
}

void
streamext_views_tidy(Worker *w, TimestampTz now)
{
	ListCell *lc;

	foreach (lc, w->views)
	{
		WorkerView *v = lfirst(lc);

		/* a checkpoint from before would go on with the former state */
		if (v->retired_at == 0 || v->slot->checkpoint_at < v->retired_at ||
			!TimestampDifferenceExceeds(v->retired_at, now, RETAIN_TIDY_MS))
			continue;
		v->retired_at = 0;
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		streamext_history_tidy(v->slot);
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(w->round_cxt);
	}
}

TimestampTz
streamext_views_tidy_deadline(const Worker *w, TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	ListCell   *lc;

	foreach (lc, w->views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->retired_at != 0)
			next = Min(next, Max(TimestampTzPlusMilliseconds(v->retired_at, RETAIN_TIDY_MS + 1),
								 TimestampTzPlusMilliseconds(now, RETAIN_TIDY_MS / 10)));
	}
	return next;
}

/* ---------------------------------------------------------------- streamext.rebuild */

static const char round_read_sql[] = "SELECT number FROM streamext.round WHERE view OPERATOR(pg_catalog.=) $1";
static const char round_tidy_sql[] = "DELETE FROM streamext.round AS r WHERE NOT EXISTS "
									 "(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) r.view)";
static const char round_next_sql[] = "INSERT INTO streamext.round AS r (view, number) VALUES ($1, 1) "
									 "ON CONFLICT (view) DO UPDATE SET number = r.number OPERATOR(pg_catalog.+) 1";

int64
streamext_view_round(Oid viewoid)
{
	Oid	  types[1] = { OIDOID };
	Datum values[1] = { ObjectIdGetDatum(viewoid) };

	return OidIsValid(streamext_control_table("round"))
			   ? streamext_control_execute(round_read_sql, 1, types, values, NULL, SPI_OK_SELECT)
			   : 0;
}

/* Raises if the journal of a source that cannot be replayed does not hold any more what the view has counted. */
static void
rebuild_check_journal(Oid viewoid, Oid stream)
{
	StreamConfig *config = streamext_stream_config(stream);
	int			  view = streamext_find_view(MyDatabaseId, viewoid, 0);

	if (config == NULL || config->connector->replayable)
		return;
	if (view < 0 || !streamext_view_is_held(&streamext_shared->views[view], config))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("continuous view \"%s\" cannot be counted anew", get_rel_name(viewoid)),
						errdetail("The journal of its stream does not hold any more all that the view has counted."),
						errhint("Drop and create the view to begin with what comes next.")));
}

void
streamext_view_next_round(Oid viewoid, Oid stream)
{
	Oid	  types[1] = { OIDOID };
	Datum values[1] = { ObjectIdGetDatum(viewoid) };

	(void) streamext_control_execute(round_tidy_sql, 0, NULL, NULL, NULL, SPI_OK_DELETE);
	(void) streamext_control_execute(round_next_sql, 1, types, values, NULL, SPI_OK_INSERT);
	streamext_touch_view(viewoid, stream);
}

Datum
streamext_rebuild(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	Oid stream;

	streamext_require_preload();
	stream = streamext_control_view(relid);
	if (!OidIsValid(stream))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view", streamext_lock_relation(relid, AccessShareLock))));
	if (streamext_view_options(relid).into != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("a view with streamext.into cannot be counted anew"),
				 errdetail("Its rows would be written into the table once more."),
				 errhint("Empty the table, then drop and create the view.")));
	rebuild_check_journal(relid, stream);
	streamext_view_next_round(relid, stream);
	PG_RETURN_VOID();
}
