/*
 * sink/windows.c
 *		streamext.into of views with windows: each window's rows into a table, once, when no row can come into it any more.
 *
 * What is written is what a SELECT on the view returns for these windows: the statement is one, and its scan of the view is
 * limited to windows that end within a range of time (read/scan.h), of sessions to those whose last row is within it.
 *
 * Exactly once: a window is written when a committed checkpoint holds a watermark by which it is closed and a view that
 * had counted everything up to there (ViewSlot.into.settled). So after any crash the state that is gone on with has the window
 * whole, and a row that could change it is late. The rows go into the table together with the end of the range
 * (streamext.into_window), where the next one begins. In memory that is ViewSlot.into.written, which moves also when there was
 * nothing to write; retention takes nothing beyond it (streamext_into_limit).
 *
 * One process writes: the worker of shard 0, up to where all shards are settled. A window that the table refuses fails the view,
 * which is gone on with later from where it is.
 */
#include "base/streamext.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/own_table.h"
#include "base/fault.h"
#include "base/giving.h"
#include "base/transaction.h"
#include "fold/fold_private.h"
#include "base/notify.h"
#include "durable/into_position.h"
#include "view/closing.h"
#include "view/target.h"
#include "read/scan.h"
#include "sink/sink.h"
#include "sink/windows.h"
#include "shared/shard.h"

#define INTO_RETRY_MS 1000

/* ---------------------------------------------------------------- notifications */

static void
into_append_time(StringInfo to, TimestampTz time)
{
	char buf[MAXDATELEN + 1];

	if (time == DT_NOBEGIN)
		appendStringInfoString(to, "null");
	else
		appendStringInfo(to, "\"%s\"", JsonEncodeDateTime(buf, TimestampTzGetDatum(time), TIMESTAMPTZOID, NULL));
}

/* ---------------------------------------------------------------- which windows */

/* The least of all shards of a view; DT_NOBEGIN if one of them is not there, or what is read is what the view held formerly (*again). */
static TimestampTz
into_all_settled(const Shard *shard, const ViewSlot *own, bool *again)
{
	TimestampTz settled = DT_NOEND;
	int			n = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot   *slot = &streamext_shared->views[i];
		StreamSlot *stream;

		if (!slot->id.in_use || slot->id.retained || slot->id.dboid != own->id.dboid ||
			slot->id.viewoid != own->id.viewoid)
			continue;
		stream = &streamext_shared->streams[slot->id.stream];
		streamext_stream_lock_shared(stream);
		*again = *again || slot->id.retained_slot > 0;
		settled = slot->counted.definition == own->counted.definition ? Min(settled, slot->into.settled) : DT_NOBEGIN;
		LWLockRelease(stream->lock);
		n++;
	}
	LWLockRelease(streamext_shared->registry_lock);
	return n == shard->config->workers && !*again ? settled : DT_NOBEGIN;
}

static void
into_publish(const ViewSlot *own, TimestampTz written)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot   *slot = &streamext_shared->views[i];
		StreamSlot *stream;

		if (!slot->id.in_use || slot->id.retained || slot->id.dboid != own->id.dboid ||
			slot->id.viewoid != own->id.viewoid)
			continue;
		stream = &streamext_shared->streams[slot->id.stream];
		streamext_stream_lock_exclusive(stream);
		slot->into.written = written;
		LWLockRelease(stream->lock);
	}
	LWLockRelease(streamext_shared->registry_lock);
}

/* ---------------------------------------------------------------- writing */

/* The view's outputs, quoted and separated by commas; *name: the view's. */
static char *
into_columns(Oid viewoid, char **name)
{
	Relation	   view = table_open(viewoid, AccessShareLock);
	TupleDesc	   desc = RelationGetDescr(view);
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < desc->natts; i++)
		appendStringInfo(&columns, "%s%s", i == 0 ? "" : ", ",
						 quote_identifier(NameStr(TupleDescAttr(desc, i)->attname)));
	*name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(view)), RelationGetRelationName(view));
	table_close(view, NoLock);
	return columns.data;
}

/* The view's sink. In a transaction, as its owner. */
static Sink *
into_sink(WorkerView *v, const CompiledView *view)
{
	Oid target = streamext_into_target(view->options.into);

	if (v->sink != NULL && v->sink->target != target)
	{
		streamext_sink_close(v->sink);
		v->sink = NULL;
	}
	if (v->sink == NULL)
		v->sink = streamext_sink_open(view->relid, target, v->cxt);
	return v->sink;
}

/* Whose rows they are, for targets that are told. */
static Giving
into_giving(const CompiledView *view)
{
	Giving giving = { .view = view->relid };

	for (int k = 0; k < view->nkeys; k++)
		if (view->keys[k].is_window)
			giving.window = view->keys[k].name;
		else if (k != view->set_key)
			giving.keys = lappend(giving.keys, view->keys[k].name);
	return giving;
}

/* The number of rows. As the view's owner, restricted. */
static uint64
into_give(WorkerView *v, const CompiledView *view, TimestampTz from, TimestampTz until)
{
	volatile uint64 rows = 0;
	Sink		   *sink = into_sink(v, view);
	Giving			giving = into_giving(view);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	streamext_read_windows(view->relid, from, until);
	streamext_giving_begin(&giving);
	PG_TRY();
	{
		char *name;
		char *columns = into_columns(view->relid, &name);

		rows = sink->ops->rows(sink, psprintf("SELECT %s FROM %s", columns, name), columns);
	}
	PG_FINALLY();
	{
		streamext_giving_end();
		streamext_read_windows(InvalidOid, DT_NOBEGIN, DT_NOEND);
	}
	PG_END_TRY();
	SPI_finish();
	return rows;
}

/* Windows that end in (from, until], in a transaction of their own. */
static void
into_write(WorkerView *v, TimestampTz from, TimestampTz until)
{
	const CompiledView *view = v->view;
	StringInfoData		payload;
	IdentityScope		scope;
	uint64				rows;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	streamext_worker_short_lock_timeout();
	scope = streamext_fold_enter_owner(v->fold);
	rows = into_give(v, view, from, until);
	initStringInfo(&payload);
	appendStringInfoString(&payload, "{\"after\": ");
	into_append_time(&payload, from);
	appendStringInfoString(&payload, ", \"until\": ");
	into_append_time(&payload, until);
	appendStringInfo(&payload, ", \"rows\": " UINT64_FORMAT "}", rows);
	streamext_identity_leave(scope);
	if (rows > 0)
	{
		streamext_into_save_window(v->viewoid, from, until);
		streamext_into_notify(v->viewoid, payload.data);
	}
	PopActiveSnapshot();
	STREAMEXT_FAULT("into-before-commit");
	CommitTransactionCommand();
	if (rows > 0)
		STREAMEXT_FAULT("into-after-commit");
}

/* The sink hears how far the windows are that it has been given. */
static void
into_tell(WorkerView *v, TimestampTz from, TimestampTz until)
{
	if (v->sink == NULL)
	{
		IdentityScope scope;

		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		scope = streamext_fold_enter_owner(v->fold);
		(void) into_sink(v, v->view);
		streamext_identity_leave(scope);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	if (v->sink->ops->settled != NULL)
		v->sink->ops->settled(v->sink, until);
}

/* One of these; trouble ends the view unless it may pass. False: try again later. */
static bool
into_try(Shard *shard, WorkerView *v, void (*step)(WorkerView *, TimestampTz, TimestampTz), TimestampTz from,
		 TimestampTz until)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool done = true;

	PG_TRY();
	{
		step(v, from, until);
	}
	PG_CATCH();
	{
		ErrorData *error = streamext_worker_caught(cxt);

		ereport(LOG, (errmsg("windows of continuous view with OID %u could not be written: %s", v->viewoid,
							 streamext_error_text(error))));
		done = streamext_error_blame(error) == BLAME_ROW;
		if (done)
			shard->does->fail_view(shard, v, error->message);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return done;
}

/* What is closed of one view. False: try again later. */
static bool
into_view(Shard *shard, WorkerView *v)
{
	const CompiledView *view = v->view;
	TimestampTz			from = v->slot->into.written;
	bool				again = false;
	TimestampTz			until = streamext_view_closed(view, into_all_settled(shard, v->slot, &again));
	TimestampTz			end;

	if (until == DT_NOBEGIN || until <= from)
		return !again;
	end = streamext_view_last_end(&view->window, until);
	if (view->window.kind == WINDOW_SESSION)
		until = end;
	if (end > from)
	{
		if (!into_try(shard, v, into_write, from, end))
			return false;
		if (v->fold == NULL)
			return true;
	}
	if (until > from)
		into_publish(v->slot, until);
	return true;
}

/* When a sink wants to be told again; DT_NOEND: none does. */
static TimestampTz
into_sinks_deadline(const Shard *shard)
{
	TimestampTz deadline = DT_NOEND;
	ListCell   *lc;

	foreach (lc, shard->views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->sink != NULL && v->fold != NULL && !v->paused && v->sink->ops->deadline != NULL)
			deadline = Min(deadline, v->sink->ops->deadline(v->sink));
	}
	return deadline;
}

static bool
into_view_and_sink(Shard *shard, WorkerView *v)
{
	bool done = into_view(shard, v);

	if (v->fold != NULL && v->slot->into.written != DT_NOBEGIN)
		done = into_try(shard, v, into_tell, DT_NOBEGIN, v->slot->into.written) && done;
	return done;
}

void
streamext_into_windows(Shard *shard, TimestampTz now)
{
	uint64	  requested = pg_atomic_read_u64(&shard->slot->ask.windows_requested);
	bool	  done = true;
	ListCell *lc;

	if (shard->config == NULL || now < shard->windows_retry_at ||
		(pg_atomic_read_u32(&shard->slot->ask.windows_due) == 0 &&
		 requested <= pg_atomic_read_u64(&shard->slot->ask.windows_done) && now < into_sinks_deadline(shard)))
		return;
	pg_atomic_write_u32(&shard->slot->ask.windows_due, 0);
	pg_memory_barrier();
	foreach (lc, shard->views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold != NULL && !v->paused && streamext_into_has_windows(v->view))
			done = into_view_and_sink(shard, v) && done;
	}
	if (done)
	{
		if (requested > pg_atomic_read_u64(&shard->slot->ask.windows_done))
		{
			pg_atomic_write_u64(&shard->slot->ask.windows_done, requested);
			ConditionVariableBroadcast(&shard->slot->progress);
		}
		return;
	}
	shard->windows_retry_at = TimestampTzPlusMilliseconds(now, INTO_RETRY_MS);
	pg_atomic_write_u32(&shard->slot->ask.windows_due, 1);
}

TimestampTz
streamext_into_deadline(const Shard *shard)
{
	TimestampTz due = pg_atomic_read_u32(&shard->slot->ask.windows_due) == 0 ? into_sinks_deadline(shard) : DT_NOBEGIN;

	return due == DT_NOEND ? DT_NOEND : Max(due, shard->windows_retry_at);
}

void
streamext_into_settled(Shard *shard)
{
	int		  first = streamext_find_stream(shard->identity.dboid, shard->identity.relid, 0);
	bool	  any = false;
	ListCell *lc;

	foreach (lc, shard->views)
	{
		const WorkerView *v = lfirst(lc);

		any = any || (v->fold != NULL && streamext_into_has_windows(v->view));
	}
	if (!any || first < 0)
		return;
	pg_atomic_write_u32(&streamext_shared->streams[first].ask.windows_due, 1);
	if (shard->identity.shard != 0)
		streamext_wake_worker(&streamext_shared->streams[first]);
}
