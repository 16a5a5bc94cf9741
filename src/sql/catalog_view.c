/*
 * sql/catalog_view.c
 *		The functions behind streamext.continuous_views, and streamext.view_positions.
 *
 * Which views there are is read from PostgreSQL's catalogue, how they do from copies of their slots, so that a view
 * without a slot is shown as well. Everybody may call the functions; they show a row only to who may see the view.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "view/reads.h"
#include "sql/catalog.h"
#include "sql/lock.h"
#include "stream/definition.h"
#include "durable/into_position.h"
#include "view/inner.h"
#include "view/rights.h"
#include "view/union.h"
#include "view/window.h"

PG_FUNCTION_INFO_V1(streamext_get_continuous_views);
PG_FUNCTION_INFO_V1(streamext_get_view_definition);
PG_FUNCTION_INFO_V1(streamext_view_positions);
PG_FUNCTION_INFO_V1(streamext_view_settings);
PG_FUNCTION_INFO_V1(streamext_view_streams);

/* ---- streamext.continuous_views ---- */

static char *
catalog_interval_text(int64 usecs)
{
	Interval interval = { .time = usecs };

	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&interval)));
}

/* Columns kind, size, slide, sliding. */
static void
catalog_put_window(Datum *values, bool *nulls, const Window *window)
{
	static const char *const kinds[] = { "none", "tumble", "hop", "trunc", "session" };

	streamext_catalog_put_text(values, nulls, 0, kinds[window->kind]);
	nulls[1] = nulls[2] = nulls[3] = true;
	if (window->kind == WINDOW_TRUNC)
		streamext_catalog_put_text(values, nulls, 1, window->trunc_unit);
	else if (window->kind != WINDOW_NONE)
		streamext_catalog_put_text(values, nulls, 1, catalog_interval_text(window->size));
	if (window->kind == WINDOW_HOP)
		streamext_catalog_put_text(values, nulls, 2, catalog_interval_text(window->slide));
	if (window->sliding)
		streamext_catalog_put_text(values, nulls, 3, catalog_interval_text(window->length));
}

/* A view does as its stream does, unless it does worse. */
static const char *
catalog_view_state(List *views, Oid stream)
{
	ViewStatus	worst = VIEW_RUNNING;
	StreamState state = streamext_catalog_stream_state(streamext_catalog_copy_shards(stream));
	ListCell   *cell;

	foreach (cell, views)
	{
		ViewStatus status = ((ViewCopy *) lfirst(cell))->status;

		if (status == VIEW_STARTING)
			status = VIEW_CATCHING_UP;
		worst = Max(worst, status);
	}
	if (state == STREAM_STANDBY)
		return streamext_stream_state_name(state);
	if (views == NIL)
		return streamext_view_status_name(VIEW_STARTING);
	if (worst >= VIEW_PAUSED || state == STREAM_RUNNING)
		return streamext_view_status_name(worst);
	return streamext_stream_state_name(state);
}

/* The view's own options as name=value, without what CREATE VIEW kept by itself. */
static Datum
catalog_view_options(List *stored)
{
	Datum	 *items = palloc(sizeof(Datum) * (list_length(stored) + 1));
	int		  n = 0;
	ListCell *cell;

	foreach (cell, stored)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, "streamext.retention") == 0 || strcmp(def->defname, "streamext.lateness") == 0 ||
			strcmp(def->defname, "streamext.keep_late") == 0 || strcmp(def->defname, "streamext.step") == 0 ||
			strcmp(def->defname, "streamext.max_groups") == 0 || strcmp(def->defname, "streamext.into") == 0 ||
			strcmp(def->defname, "streamext.emit") == 0 || strcmp(def->defname, "streamext.emit_interval") == 0 ||
			strcmp(def->defname, "streamext.notify") == 0)
			items[n++] = CStringGetTextDatum(psprintf("%s=%s", def->defname, defGetString(def)));
	}
	return PointerGetDatum(construct_array(items, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Settings that are stored with the view besides the three that have columns of their own, as name=value. */
Datum
streamext_view_settings(PG_FUNCTION_ARGS)
{
	ContinuousViewOptions options = streamext_view_options(PG_GETARG_OID(0));
	Datum				 *items = palloc(sizeof(Datum) * (list_length(options.settings) + 1));
	int					  n = 0;
	ListCell			 *cell;

	if (!options.continuous)
		PG_RETURN_NULL();
	foreach (cell, options.settings)
		items[n++] = CStringGetTextDatum(
			psprintf("%s=%s", lfirst_node(DefElem, cell)->defname, strVal(lfirst_node(DefElem, cell)->arg)));
	PG_RETURN_DATUM(PointerGetDatum(construct_array(items, n, TEXTOID, -1, false, TYPALIGN_INT)));
}

/* Columns rows, total and estimated end; of several shards the latest end. */
static void
catalog_put_catchup(Datum *values, bool *nulls, List *views)
{
	int64		rows = 0, left = 0;
	TimestampTz now = GetCurrentTimestamp(), end = 0;
	bool		behind = false, known = true;
	ListCell   *cell;

	foreach (cell, views)
	{
		const ViewCopy *copy = lfirst(cell);

		if (copy->catchup_left < 0)
			continue;
		behind = true;
		rows += copy->catchup_rows;
		left += copy->catchup_left;
		if (copy->catchup_rows == 0 || copy->catchup_started == 0)
			known = false;
		else
			end = Max(end, now + (TimestampTz) ((double) (now - copy->catchup_started) / copy->catchup_rows *
												copy->catchup_left));
	}
	nulls[0] = nulls[1] = nulls[2] = true;
	if (!behind)
		return;
	nulls[0] = nulls[1] = false;
	values[0] = Int64GetDatum(rows);
	values[1] = Int64GetDatum(rows + left);
	if (known)
		streamext_catalog_put_time(values, nulls, 2, end);
}

/*
 * The end of the windows that are in history from all shards. One that has had nothing to seal up to where another one is, and will have nothing, is
 * as far.
 */
static TimestampTz
catalog_sealed_until(List *views, const CompiledView *compiled, int64 lateness)
{
	TimestampTz last = DT_NOBEGIN, least = DT_NOEND, closed;
	ListCell   *cell;

	foreach (cell, views)
	{
		const ViewCopy *copy = lfirst(cell);

		if (!TIMESTAMP_NOT_FINITE(copy->sealed_until))
			last = Max(last, copy->sealed_until);
	}
	closed = last;
	if (compiled != NULL && compiled->window.kind == WINDOW_HOP && last > DT_NOBEGIN)
		closed = streamext_window_last_end(&compiled->window, streamext_window_pane(&compiled->window, last - 1));
	foreach (cell, views)
	{
		const ViewCopy *copy = lfirst(cell);
		TimestampTz		until = copy->sealed_until;

		if (compiled != NULL && until < last && copy->watermark != DT_NOBEGIN && copy->watermark - lateness >= closed &&
			(copy->panes == 0 || streamext_window_pane_end(&compiled->window, copy->first_pane) > last))
			until = last;
		least = Min(least, until);
	}
	return least;
}

typedef struct CatalogViewStep
{
	ReturnSetInfo		 *rsinfo;
	Oid					  viewoid;
	ContinuousViewOptions options;
	List				 *stored;
	/* found when the view is not held */
	List		 *views;
	Oid			  stream; /* whose shards its slots are of */
	Oid			  reads;  /* what it reads */
	CompiledView *compiled;
	char		 *error;
	bool		  held;
} CatalogViewStep;

/* A StreamextStep: what takes locks. */
static void
catalog_view_step(void *arg)
{
	CatalogViewStep *step = arg;
	ListCell		*cell;

	step->views = streamext_catalog_copy_views(step->viewoid);
	step->stream = streamext_view_stream(step->viewoid);
	step->reads = streamext_view_inner(step->viewoid);
	if (!OidIsValid(step->reads))
		step->reads = step->stream;
	step->compiled = streamext_catalog_try_compile(step->viewoid, &step->error);
	foreach (cell, step->views)
		if (((const ViewCopy *) lfirst(cell))->last_error[0] != '\0')
			step->error = pstrdup(((const ViewCopy *) lfirst(cell))->last_error);
	if (step->error != NULL && !streamext_view_explains(step->viewoid))
		step->error = STREAMEXT_ERROR_HIDDEN;
}

/* What its slots say; the look came to this. */
static void
catalog_find_held_view(CatalogViewStep *step, CatalogLook look)
{
	ListCell *cell;

	step->held = true;
	step->compiled = NULL;
	step->views = streamext_catalog_copy_view_slots(step->viewoid);
	step->stream = step->reads = InvalidOid;
	foreach (cell, step->views)
		if (OidIsValid(((const ViewCopy *) lfirst(cell))->stream_relid))
			step->stream = step->reads = ((const ViewCopy *) lfirst(cell))->stream_relid;
	step->error = look == CATALOG_HELD
					  ? "another transaction holds the view or what it reads, so that not all can be told of it"
					  : NULL;
}

static void
catalog_put_view(CatalogViewStep *step)
{
	Datum						 values[25] = { 0 };
	bool						 nulls[25] = { 0 };
	TimestampTz					 sealed_until;
	const ContinuousViewOptions *options = &step->options;
	CompiledView				*compiled = step->compiled;
	List						*views = step->views;
	ViewCopy					 sums = { .checkpoint_at = DT_NOEND, .ready = true };
	ListCell					*cell;

	foreach (cell, views)
	{
		const ViewCopy *copy = lfirst(cell);

		sums.groups += copy->groups;
		sums.panes = Max(sums.panes, copy->panes);
		sums.bytes += copy->bytes;
		sums.accepted += copy->accepted;
		sums.late += copy->late;
		sums.rejected += copy->rejected;
		sums.history_panes = Max(sums.history_panes, copy->history_panes);
		sums.history_bytes += copy->history_bytes;
		sums.checkpoint_at = Min(sums.checkpoint_at, copy->checkpoint_at);
		sums.ready = sums.ready && copy->ready;
	}
	if (compiled != NULL && list_length(views) > 1)
		streamext_view_prepare_window(compiled); /* where one shard's panes lie is compared with another's */
	sealed_until = catalog_sealed_until(views, compiled, options->lateness);
	if (compiled != NULL && compiled->stateless)
		streamext_into_counts(step->stream, step->viewoid, &sums.accepted, &sums.rejected);
	values[0] = ObjectIdGetDatum(step->viewoid);
	values[1] = ObjectIdGetDatum(step->reads);
	nulls[1] = !OidIsValid(step->stream);
	nulls[2] = nulls[3] = nulls[4] = nulls[5] = true;
	if (compiled != NULL)
		catalog_put_window(values + 2, nulls + 2, &compiled->window);
	values[6] = CStringGetTextDatum(catalog_view_state(views, step->stream));
	values[7] = Int64GetDatum(sums.groups);
	values[8] = Int64GetDatum(sums.panes);
	values[9] = Int64GetDatum(sums.bytes);
	values[10] = Int64GetDatum(sums.accepted);
	values[11] = Int64GetDatum(sums.late);
	values[12] = Int64GetDatum(sums.rejected);
	/* a counter that falls is taken for a new one, and what it had for new when it is back */
	nulls[10] = nulls[11] = nulls[12] = step->held && (!sums.ready || sums.accepted == 0);
	streamext_catalog_put_text(values, nulls, 13, options->timezone);
	streamext_catalog_put_text(values, nulls, 14, options->datestyle);
	streamext_catalog_put_text(values, nulls, 15, options->intervalstyle);
	values[16] = catalog_view_options(step->stored);
	streamext_catalog_put_text(values, nulls, 17, step->error);
	streamext_catalog_put_time(values, nulls, 18, sums.checkpoint_at);
	catalog_put_catchup(values + 19, nulls + 19, views);
	values[22] = Int64GetDatum(sums.history_panes);
	values[23] = Int64GetDatum(sums.history_bytes);
	values[24] = TimestampTzGetDatum(sealed_until);
	nulls[24] = TIMESTAMP_NOT_FINITE(sealed_until);
	tuplestore_putvalues(step->rsinfo->setResult, step->rsinfo->setDesc, values, nulls);
}

Datum
streamext_get_continuous_views(PG_FUNCTION_ARGS)
{
	ListCell *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach (cell, streamext_views_with_options())
	{
		CatalogViewStep step = { .rsinfo = (ReturnSetInfo *) fcinfo->resultinfo, .viewoid = lfirst_oid(cell) };
		CatalogLook		look;
		bool			isnull;
		Datum			stored;
		HeapTuple		tuple;

		step.options = streamext_view_options(step.viewoid);
		if (!step.options.continuous || !streamext_catalog_may_see(step.viewoid))
			continue;
		look = streamext_catalog_look(catalog_view_step, &step);
		if (look != CATALOG_SEEN)
			catalog_find_held_view(&step, look);
		tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(step.viewoid));
		if (!HeapTupleIsValid(tuple))
			continue;
		stored = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
		step.stored = isnull ? NIL : untransformRelOptions(stored);
		catalog_put_view(&step);
		ReleaseSysCache(tuple);
	}
	PG_RETURN_VOID();
}

/* ---- its columns definition and streams ---- */

typedef struct CatalogTextStep
{
	Oid	  viewoid;
	Datum text;
	bool  isnull;
	List *streams;
} CatalogTextStep;

/* A StreamextStep. */
static void
catalog_definition_step(void *arg)
{
	CatalogTextStep *step = arg;
	LOCAL_FCINFO(call, 1);

	InitFunctionCallInfoData(*call, NULL, 1, InvalidOid, NULL, NULL);
	call->args[0].value = ObjectIdGetDatum(step->viewoid);
	call->args[0].isnull = false;
	step->text = pg_get_viewdef(call);
	step->isnull = call->isnull;
}

/* As pg_get_viewdef; NULL also if another transaction holds the view or what it reads. */
Datum
streamext_get_view_definition(PG_FUNCTION_ARGS)
{
	CatalogTextStep step = { .viewoid = PG_GETARG_OID(0) };

	if (streamext_catalog_look(catalog_definition_step, &step) != CATALOG_SEEN || step.isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(step.text);
}

/* A StreamextStep. */
static void
catalog_streams_step(void *arg)
{
	CatalogTextStep *step = arg;

	step->streams = streamext_union_streams(step->viewoid);
}

/* The streams that a view reads by UNION ALL; NULL: it does not, or is not for this user, or held by another transaction. */
Datum
streamext_view_streams(PG_FUNCTION_ARGS)
{
	CatalogTextStep step = { .viewoid = PG_GETARG_OID(0) };
	Datum		   *items;
	int				n = 0;
	ListCell	   *cell;

	if (!streamext_catalog_may_see(step.viewoid) ||
		streamext_catalog_look(catalog_streams_step, &step) != CATALOG_SEEN || step.streams == NIL)
		PG_RETURN_NULL();
	items = palloc(sizeof(Datum) * list_length(step.streams));
	foreach (cell, step.streams)
		items[n++] = ObjectIdGetDatum(lfirst_oid(cell));
	PG_RETURN_DATUM(PointerGetDatum(construct_array(items, n, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT)));
}

/* ---- streamext.view_positions ---- */

/* own: the definition of the stream that the view has itself; NULL: it has none */
static void
catalog_put_positions(ReturnSetInfo *rsinfo, const ViewCopy *view, const ShardCopy *shard, StreamConfig *own)
{
	Oid part = own != NULL ? streamext_stream_part(own, shard->slot.id.shard)->from.origin : InvalidOid;

	for (int i = 0; i < view->npositions && i < shard->slot.counted.npartitions; i++)
	{
		Datum values[3] = { 0 };
		bool  nulls[3] = { 0 };

		if (view->positions[i] < 0)
			continue;
		values[0] = Int32GetDatum(shard->partitions[i].partition);
		values[1] = Int64GetDatum(view->positions[i]);
		streamext_catalog_put_text(values, nulls, 2, streamext_catalog_topic(part, shard->partitions[i].topic));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

Datum
streamext_view_positions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			   viewoid = PG_GETARG_OID(0);
	char		  *name = get_rel_name(viewoid);
	Oid			   stream = streamext_lock_view(viewoid);
	StreamConfig  *own;
	AclResult	   allowed;
	List		  *shards;
	ListCell	  *cell;
	ListCell	  *other;

	streamext_lock_check_there(viewoid, name);
	if (!streamext_view_options(viewoid).continuous)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a continuous view", name)));
	allowed = pg_class_aclcheck(viewoid, GetUserId(), ACL_SELECT);
	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_VIEW, name);

	InitMaterializedSRF(fcinfo, 0);
	shards = streamext_catalog_copy_shards(stream);
	own = streamext_union_streams(viewoid) != NIL ? streamext_stream_config(viewoid) : NULL;
	foreach (cell, streamext_catalog_copy_views(viewoid))
	{
		const ViewCopy *view = lfirst(cell);

		if (view->checkpointed != NULL)
			catalog_put_positions(rsinfo, view, view->checkpointed, own);
		foreach (other, shards)
			if (view->checkpointed == NULL && ((ShardCopy *) lfirst(other))->index == view->stream)
				catalog_put_positions(rsinfo, view, lfirst(other), own);
	}
	PG_RETURN_VOID();
}
