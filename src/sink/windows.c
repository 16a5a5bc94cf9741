/*
 * sink/windows.c
 *		Windows that are given away: each window's rows, once, when no row can come into it any more. An outlet is who takes them: the target of
 *		streamext.into, and each continuous view over this one (view/inner.h).
 *
 * What is written is what a SELECT on the view returns for these windows: the statement is one, and its scan of the view is
 * limited to windows that end within a range of time (read/scan.h), of sessions to those whose last row is within it.
 *
 * Exactly once: a window is written when a committed checkpoint holds a watermark by which it is closed and a view that
 * had counted everything up to there (ViewSlot.into.settled). So after any crash the state that is gone on with has the window
 * whole, and a row that could change it is late. The rows go into the table together with the end of the range
 * (streamext_internal.into_window, streamext_internal.flow), where the next one begins. In memory that is Outlet.written, which moves also when there was
 * nothing to write; retention takes nothing beyond the least of all outlets (ViewSlot.written, streamext_into_limit).
 *
 * One process writes: the worker of shard 0, up to where all shards are settled. A window that the table refuses fails the view,
 * which is gone on with later from where it is. What keeps windows from a view over this one is tried again.
 *
 * A view over this one wants all windows that there are; these go a range of time after the other, each as long as about WINDOWS_ROWS rows are.
 * Behind each its stream is told the watermark that holds when all is read (StreamSlot.windows_mark): the start of a window that comes
 * later is after that of the last one, and a session's that is open now not before the least of these.
 */
#include "base/streamext.h"

#include "access/table.h"
#include "access/xact.h"
#include "common/int.h"
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
#include "durable/flow_position.h"
#include "durable/into_position.h"
#include "view/definition.h"
#include "view/closing.h"
#include "view/inner.h"
#include "view/target.h"
#include "read/scan.h"
#include "sink/sink.h"
#include "sink/windows.h"
#include "shared/shard.h"

#define INTO_RETRY_MS 1000
#define INTO_RETRY_REST 4					   /* times as long as a try took, until the next */
#define INTO_PATIENCE 3						   /* failures in a row, until they are told */
#define INTO_ROWS 20000						   /* rows of windows in one transaction, roughly */
#define INTO_SPAN (256 * INT64CONST(60000000)) /* of the first range, which the next are measured by */

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

/* For lateness, retention and readers of all shards: how far all outlets are, and the foremost. */
static void
into_publish(const WorkerView *v)
{
	const ViewSlot *own = v->slot;
	TimestampTz		written = DT_NOEND, given = DT_NOBEGIN;
	ListCell	   *lc;

	foreach (lc, v->outlets)
	{
		const Outlet *outlet = lfirst(lc);

		written = Min(written, outlet->written);
		given = Max(given, outlet->written);
	}
	if (own->into.written == written && own->into.given == given)
		return;
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
		slot->into.given = Max(slot->into.given, given);
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

/* In a transaction, as the view's owner. */
static Sink *
into_sink(WorkerView *v, Outlet *outlet, const CompiledView *view)
{
	Oid target = outlet->flow ? outlet->target : streamext_into_target(view->options.into);

	if (outlet->sink != NULL && outlet->sink->target != target)
	{
		streamext_sink_close(outlet->sink);
		outlet->sink = NULL;
	}
	if (outlet->sink == NULL)
		outlet->sink = streamext_sink_open(view->relid, target, v->cxt);
	return outlet->sink;
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
into_give(WorkerView *v, Outlet *outlet, const CompiledView *view, TimestampTz from, TimestampTz until)
{
	volatile uint64 rows = 0;
	Sink		   *sink = into_sink(v, outlet, view);
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

/* In the transaction that gives the rows: it is counted, and told. */
static void
into_count(WorkerView *v, const Outlet *outlet, TimestampTz from, TimestampTz until, uint64 rows)
{
	StringInfoData payload;

	if (outlet->flow)
	{
		streamext_flow_save(outlet->target, outlet->number, from, until);
		return;
	}
	initStringInfo(&payload);
	appendStringInfoString(&payload, "{\"after\": ");
	into_append_time(&payload, from);
	appendStringInfoString(&payload, ", \"until\": ");
	into_append_time(&payload, until);
	appendStringInfo(&payload, ", \"rows\": " UINT64_FORMAT "}", rows);
	streamext_into_save_window(v->viewoid, from, until);
	streamext_into_notify(v->viewoid, payload.data);
}

/* Windows that end in (from, until], in a transaction of their own. */
static void
into_write(WorkerView *v, Outlet *outlet, TimestampTz from, TimestampTz until)
{
	const CompiledView *view = v->view;
	IdentityScope		scope;
	uint64				rows;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	streamext_worker_short_lock_timeout();
	scope = streamext_fold_enter_owner(v->fold);
	rows = into_give(v, outlet, view, from, until);
	streamext_identity_leave(scope);
	if (rows > 0)
		into_count(v, outlet, from, until, rows);
	PopActiveSnapshot();
	STREAMEXT_FAULT("into-before-commit");
	CommitTransactionCommand();
	if (rows > 0)
		STREAMEXT_FAULT("into-after-commit");
	outlet->rows = rows;
}

/* The sink hears how far the windows are that it has been given. */
static void
into_tell(WorkerView *v, Outlet *outlet, TimestampTz from, TimestampTz until)
{
	if (outlet->sink == NULL)
	{
		IdentityScope scope;

		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		scope = streamext_fold_enter_owner(v->fold);
		(void) into_sink(v, outlet, v->view);
		streamext_identity_leave(scope);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	if (outlet->sink->ops->settled != NULL)
		outlet->sink->ops->settled(outlet->sink, until);
}

/* ---------------------------------------------------------------- views over this one */

/* The first window's start and, of sessions, the least of those that end after `from`; DT_NOEND: there is none. */
static TimestampTz
into_least_start(WorkerView *v, TimestampTz from)
{
	const CompiledView	*view = v->view;
	AttrNumber			 column = streamext_inner_window_column(view);
	volatile TimestampTz result = DT_NOEND;
	IdentityScope		 scope;

	if (column == 0)
		return DT_NOEND;
	scope = streamext_fold_enter_owner(v->fold);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	streamext_read_windows(view->relid, from, DT_NOEND);
	PG_TRY();
	{
		char *name;
		bool  isnull = true;
		Datum least;

		(void) into_columns(view->relid, &name);
		if (SPI_execute(psprintf("SELECT pg_catalog.min(%s) FROM %s",
								 quote_identifier(get_attname(view->relid, column, false)), name),
						true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not look for windows");
		least = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		if (!isnull)
			result = DatumGetTimestampTz(least);
	}
	PG_FINALLY();
	{
		streamext_read_windows(InvalidOid, DT_NOBEGIN, DT_NOEND);
	}
	PG_END_TRY();
	SPI_finish();
	streamext_identity_leave(scope);
	return result;
}

/* Where the outer view is, and that it wants these windows; *from: where to begin. */
static void
into_look(WorkerView *v, Outlet *outlet, TimestampTz from, TimestampTz until)
{
	FlowPosition position;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	streamext_worker_short_lock_timeout();
	position = streamext_flow_load(outlet->target);
	outlet->ready = position.number != 0 && position.inner == streamext_inner_number(v->view);
	outlet->number = position.number;
	outlet->written = position.written;
	outlet->first = DT_NOEND;
	if (outlet->ready && position.written == DT_NOBEGIN)
		outlet->first = into_least_start(v, DT_NOBEGIN);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* The watermark of the outer view's stream behind windows that end by `until`. */
static TimestampTz
into_mark(const Window *window, TimestampTz until, TimestampTz open)
{
	TimestampTz mark;

	switch (window->kind)
	{
		case WINDOW_SESSION:
			return Min(until, open);
		case WINDOW_TRUNC:
			return until == DT_NOBEGIN ? until : streamext_window_pane_by(window, until - 1);
		default:
			return pg_sub_s64_overflow(until, window->size, &mark) ? DT_NOBEGIN : mark;
	}
}

static void
into_open_sessions(WorkerView *v, Outlet *outlet, TimestampTz from, TimestampTz until)
{
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	streamext_worker_short_lock_timeout();
	outlet->open = into_least_start(v, until);
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* The stream of the outer view; NULL: it has none yet. */
static StreamSlot *
into_flow_slot(const Shard *shard, const Outlet *outlet)
{
	int index = streamext_find_stream(shard->identity.dboid, outlet->target, 0);

	return index < 0 ? NULL : &streamext_shared->streams[index];
}

/* Whether the outer view's worker has looked into the catalogue since it was asked what it wants. */
static bool
into_is_stale(const StreamSlot *slot, const Outlet *outlet)
{
	return outlet->seen != pg_atomic_read_u32(unconstify(pg_atomic_uint32 *, &slot->ask.generation_seen));
}

/* Tells the outer view's worker what holds when it has read all. False: it has none yet. */
static bool
into_set_mark(const Shard *shard, const WorkerView *v, const Outlet *outlet)
{
	TimestampTz mark = into_mark(&v->view->window, outlet->written, outlet->open);
	StreamSlot *slot = into_flow_slot(shard, outlet);

	if (slot == NULL)
		return false;
	if (slot->windows.mark == mark && slot->windows.number == outlet->number)
		return true;					   /* nobody else writes them */
	streamext_stream_lock_exclusive(slot); /* behind the journal's end */
	slot->windows.mark = mark;
	slot->windows.number = outlet->number;
	LWLockRelease(slot->lock);
	streamext_wake_worker(slot);
	return true;
}

/* ---------------------------------------------------------------- all of them */

static bool
into_lacks_room(const ErrorData *error)
{
	int class = ERRCODE_TO_CATEGORY(error->sqlerrcode);

	return class == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) ||
		   class == ERRCODE_TO_CATEGORY(ERRCODE_IO_ERROR);
}

/*
 * Windows that wait hold up retention and flush: the stream says so, at once if they wait for room, on a disk or in the journal of a view
 * over this one that does not count them. What is tried again for another reason passes by itself mostly. What the view's expressions say is
 * not for all who see the stream.
 */
static void
into_note_trouble(Shard *shard, const WorkerView *v, Outlet *outlet, const ErrorData *error)
{
	char *reason;

	if (++outlet->failures < INTO_PATIENCE && !into_lacks_room(error))
		return;
	reason = streamext_error_blame(error) == BLAME_GENERAL
				 ? error->message
				 : psprintf("error %s, which the server's log tells", unpack_sql_state(error->sqlerrcode));
	shard->windows_trouble_at = streamext_stream_note_trouble(
		shard->slot, psprintf("closed windows of continuous view %s wait: %s", v->label, reason));
}

/* The outer view counts nothing until somebody does something about it: who flushes does not wait for its journal to have room. */
static bool
into_is_stopped(const Shard *shard, const Outlet *outlet)
{
	int			index = streamext_find_view(shard->identity.dboid, outlet->target, 0);
	StreamSlot *slot = into_flow_slot(shard, outlet);
	ViewStatus	status;

	if (index < 0 || slot == NULL)
		return false;
	streamext_stream_lock_shared(slot);
	status = streamext_shared->views[index].health.status;
	LWLockRelease(slot->lock);
	return status == VIEW_PAUSED || status == VIEW_FAILED;
}

/* Trouble on the way to a view over this one is that view's, and is tried again. */
static bool
into_blames_view(const Outlet *outlet, const ErrorData *error)
{
	return !outlet->flow && streamext_error_blame(error) == BLAME_ROW;
}

/* One of these; trouble ends the view unless it may pass. False: try again later. */
static bool
into_try(Shard *shard, WorkerView *v, Outlet *outlet, void (*step)(WorkerView *, Outlet *, TimestampTz, TimestampTz),
		 TimestampTz from, TimestampTz until)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool done = true;

	PG_TRY();
	{
		step(v, outlet, from, until);
	}
	PG_CATCH();
	{
		ErrorData *error = streamext_worker_caught(cxt);

		ereport(LOG, (errmsg("windows of continuous view %s could not be written: %s", v->label,
							 streamext_error_text(error))));
		done = into_blames_view(outlet, error);
		outlet->ready = !outlet->flow;
		if (done)
			shard->does->fail_view(shard, v, error->message);
		else
			into_note_trouble(shard, v, outlet, error);
		outlet->held = !done && outlet->flow && error->sqlerrcode == ERRCODE_CONFIGURATION_LIMIT_EXCEEDED &&
					   into_is_stopped(shard, outlet);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return done;
}

/* The end of the range that begins at `from`, at most `until`. */
static TimestampTz
into_range(const WorkerView *v, Outlet *outlet, TimestampTz from, TimestampTz until)
{
	const Window *window = &v->view->window;
	TimestampTz	  begin = from == DT_NOBEGIN ? outlet->first : from;
	TimestampTz	  end;

	if (!outlet->flow || begin == DT_NOEND || begin >= until)
		return until;
	if (outlet->rows > INTO_ROWS)
		outlet->span = Max(outlet->span / 2, 1);
	else if (outlet->rows < INTO_ROWS / 4)
		outlet->span = Min(outlet->span, PG_INT64_MAX / 4) * 2;
	for (;;)
	{
		if (pg_add_s64_overflow(begin, outlet->span, &end) || end >= until)
			return until;
		end = streamext_view_last_end(window, end);
		if (end > begin)
			return end;
		outlet->span *= 2;
	}
}

/* Whether the outlet wants windows, and from where on is known. *done = false: that is to be seen later. */
static bool
into_is_ready(Shard *shard, WorkerView *v, Outlet *outlet, bool *done)
{
	StreamSlot *slot;

	if (!outlet->flow)
		return true;
	slot = into_flow_slot(shard, outlet);
	*done = slot != NULL;
	if (slot == NULL)
		return false;
	if (!outlet->ready || into_is_stale(slot, outlet))
	{
		outlet->seen = pg_atomic_read_u32(&slot->ask.generation_seen);
		pg_memory_barrier();
		*done = into_try(shard, v, outlet, into_look, DT_NOBEGIN, DT_NOBEGIN);
	}
	return outlet->ready && *done; /* else its worker says when it is */
}

/* What is closed by `until` for one outlet. False: try again later. */
static bool
into_outlet(Shard *shard, WorkerView *v, Outlet *outlet, TimestampTz until)
{
	const CompiledView *view = v->view;
	TimestampTz			last = streamext_view_last_end(&view->window, until);
	bool				session = view->window.kind == WINDOW_SESSION;
	bool				done;

	if (!into_is_ready(shard, v, outlet, &done))
		return done;
	while (last > outlet->written)
	{
		TimestampTz end = into_range(v, outlet, outlet->written, last);

		if (!into_try(shard, v, outlet, into_write, outlet->written, end))
			return false;
		if (v->fold == NULL)
			return true;
		outlet->written = end;
		if (outlet->flow && end < last && !into_set_mark(shard, v, outlet))
			return false;
	}
	if (outlet->flow && session && !into_try(shard, v, outlet, into_open_sessions, DT_NOBEGIN, outlet->written))
		return false;
	if (outlet->flow)
		return into_set_mark(shard, v, outlet);
	if (!session)
		outlet->written = Max(outlet->written, until);
	return true;
}

/* The same; a try may read many rows in vain, and neither the stream's records nor who flushes are to wait for that. */
static bool
into_outlet_or_rest(Shard *shard, WorkerView *v, Outlet *outlet, TimestampTz until)
{
	TimestampTz begin = GetCurrentTimestamp(), end;
	bool		done;

	if (outlet->held && begin < outlet->retry_at && into_is_stopped(shard, outlet))
		return false;
	outlet->held = false;
	done = into_outlet(shard, v, outlet, until);
	end = GetCurrentTimestamp();
	outlet->retry_at = TimestampTzPlusMilliseconds(end, INTO_RETRY_MS) + Max(end - begin, 0) * INTO_RETRY_REST;
	return done;
}

/* What is closed of one view: which outlets have it; others try again later. */
static void
into_view(Shard *shard, WorkerView *v)
{
	const CompiledView *view = v->view;
	bool				again = false;
	TimestampTz			until = streamext_view_closed(view, into_all_settled(shard, v->slot, &again));
	ListCell		   *lc;

	foreach (lc, v->outlets)
	{
		Outlet *outlet = lfirst(lc);

		outlet->done = !again && (until == DT_NOBEGIN || into_outlet_or_rest(shard, v, outlet, until));
		if (v->fold == NULL)
			return;
	}
	if (until != DT_NOBEGIN)
		into_publish(v);
}

/* When a sink wants to be told again; DT_NOEND: none does. */
static TimestampTz
into_sinks_deadline(const Shard *shard)
{
	TimestampTz deadline = DT_NOEND;
	ListCell   *lc, *lc2;

	foreach (lc, shard->views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->fold == NULL || v->paused)
			continue;
		foreach (lc2, v->outlets)
		{
			const Sink *sink = ((const Outlet *) lfirst(lc2))->sink;

			if (sink != NULL && sink->ops->deadline != NULL)
				deadline = Min(deadline, sink->ops->deadline(sink));
		}
	}
	return deadline;
}

/* False: try again later; *awaited: and who flushes waits for that. */
static bool
into_view_and_sink(Shard *shard, WorkerView *v, bool *awaited)
{
	bool	  done = true;
	ListCell *lc;

	into_view(shard, v);
	if (v->fold == NULL)
		return true;
	foreach (lc, v->outlets)
	{
		Outlet *outlet = lfirst(lc);

		if (v->fold != NULL && !outlet->flow && outlet->written != DT_NOBEGIN)
			outlet->done = into_try(shard, v, outlet, into_tell, DT_NOBEGIN, outlet->written) && outlet->done;
		if (outlet->done)
			outlet->failures = 0;
		done = outlet->done && done;
		*awaited = *awaited || !(outlet->done || outlet->held);
	}
	return done;
}

static Outlet *
into_add_outlet(WorkerView *v, Oid target, bool flow)
{
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	Outlet		 *outlet = palloc0(sizeof(Outlet));

	outlet->target = target;
	outlet->flow = flow;
	outlet->written = DT_NOBEGIN;
	outlet->first = outlet->open = DT_NOEND;
	outlet->span = INTO_SPAN;
	v->outlets = lappend(v->outlets, outlet);
	MemoryContextSwitchTo(old);
	return outlet;
}

void
streamext_outlets_start(WorkerView *v)
{
	const CompiledView *view = v->view;
	StreamSlot		   *stream = &streamext_shared->streams[v->slot->id.stream];
	TimestampTz			written = DT_NOEND, given = DT_NOBEGIN;
	ListCell		   *lc;

	v->outlets = NIL;
	if (streamext_into_has_windows(view))
	{
		Outlet *outlet = into_add_outlet(v, InvalidOid, false);

		outlet->ready = true;
		written = outlet->written =
			Max(v->slot->into.gives ? v->slot->into.written : DT_NOBEGIN, streamext_into_load_window(v->viewoid));
	}
	foreach (lc, streamext_view_outers(v->viewoid))
	{
		FlowPosition position = streamext_flow_load(lfirst_oid(lc));

		into_add_outlet(v, lfirst_oid(lc), true)->written = position.written;
		written = Min(written, position.written);
	}
	foreach (lc, v->outlets)
		given = Max(given, ((Outlet *) lfirst(lc))->written);
	streamext_stream_lock_exclusive(stream);
	v->slot->into.gives = v->outlets != NIL;
	v->slot->into.written = v->outlets != NIL ? written : DT_NOBEGIN;
	v->slot->into.given = Max(v->slot->into.given, given);
	LWLockRelease(stream->lock);
	/* what is closed since long is given at once */
	if (v->outlets != NIL && stream->id.shard == 0)
		pg_atomic_write_u32(&stream->ask.windows_due, 1);
}

void
streamext_into_windows(Shard *shard, TimestampTz now)
{
	uint64	  requested = pg_atomic_read_u64(&shard->slot->ask.windows_requested);
	bool	  asked = requested > pg_atomic_read_u64(&shard->slot->ask.windows_done);
	bool	  done = true, awaited = false;
	ListCell *lc;

	if (shard->config == NULL || (now < shard->windows_retry_at && !(asked && shard->windows_held)) ||
		(pg_atomic_read_u32(&shard->slot->ask.windows_due) == 0 && !asked && now < into_sinks_deadline(shard)))
		return;
	pg_atomic_write_u32(&shard->slot->ask.windows_due, 0);
	pg_memory_barrier();
	foreach (lc, shard->views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold != NULL && !v->paused && v->outlets != NIL)
			done = into_view_and_sink(shard, v, &awaited) && done;
	}
	if (done) /* before who flushes looks */
		streamext_stream_trouble_over(shard->slot, &shard->windows_trouble_at);
	shard->windows_held = !done && !awaited;
	if (!awaited && asked)
	{
		pg_atomic_write_u64(&shard->slot->ask.windows_done, requested);
		ConditionVariableBroadcast(&shard->slot->progress);
	}
	if (done)
		return;
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

		any = any || (v->fold != NULL && v->outlets != NIL);
	}
	if (!any || first < 0)
		return;
	pg_atomic_write_u32(&streamext_shared->streams[first].ask.windows_due, 1);
	if (shard->identity.shard != 0)
		streamext_wake_worker(&streamext_shared->streams[first]);
}
