/*
 * export/handover.c
 *		What a continuous view has counted goes into the table of its partials, with how far it is: an engine goes on from there.
 *
 * All is of one moment, at which positions, groups and counts fit each other: what shared memory has published, under the stream's lock, and
 * history up to the mark noted with it (read/whole.h). It is on disk when the exporting transaction is; whether the worker's own checkpoint has got
 * as far does not matter, because nobody goes on from that one. What the worker counts of the view after that moment is let go with its state.
 *
 * A group of a pane is a row of the table, as a batch of all of it would have been merged. The plan's partials are the aggregates' values where
 * those are what is kept, else they are taken out of the states (aggregate/parts.h).
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "aggregate/parts.h"
#include "base/own_table.h"
#include "export/plan.h"
#include "read/whole.h"
#include "view/span.h"

#define HANDOVER_WAIT_MS 60000
#define HANDOVER_TICK_MS 20

struct HandOver
{
	ExportPlan		*plan;
	TupleDesc		 desc;
	Tuplestorestate *rows; /* as of a stage that nothing is late of */
	int64			 nrows;
	char			*positions; /* JSON */
	char			*newest;
	TimestampTz		 watermark; /* DT_NOBEGIN: none */
	int64			 accepted, late, rejected;
};

/* ---- groups ---- */

typedef struct HandOverRow
{
	HandOver		*to;
	const WholeRead *whole;
	AggReader	   **readers;
	AggPartial	   **partials; /* of the slice at hand, by aggregate; NULL: not looked at */
	MemoryContext	 cxt;	   /* of a row */
	int				 set;	   /* grouping sets: the number of that with all keys; -1: there are no sets */
	Datum			*values;
	bool			*nulls;
	int				 n;
} HandOverRow;

static void
handover_put(HandOverRow *row, Datum value, bool isnull)
{
	row->values[row->n] = value;
	row->nulls[row->n++] = isnull;
}

/* The grouping set whose groups all others' can be made of; -1: there are no sets. */
static int
handover_set(const ExportPlan *plan)
{
	const CompiledView *view = plan->view;
	uint32				all = 0;

	for (int k = 0; k < view->nkeys; k++)
		if (k != view->set_key)
			all |= (uint32) 1 << k;
	for (int s = 0; s < view->nsets; s++)
		if (view->sets[s] == all)
			return s;
	if (view->nsets > 0)
		streamext_export_refuse(plan,
								"its state cannot be handed over, as none of its grouping sets is of all its keys",
								"Add such a set, or make the view and export it in one transaction: it is counted from "
								"the stream's start then.");
	return -1;
}

static Datum
handover_finish(const HandOverRow *row, const AggPartial *partial, const ExportPartial *p, bool *isnull)
{
	const Aggref *aggref = row->whole->read->view->aggs[p->aggregate].aggref;
	AggReader	 *reader = row->readers[p->aggregate];
	Datum		  value = streamext_partial_final(reader, streamext_partial_copy(reader, partial), isnull);

	/* the plan sums them as double precision */
	if (aggref->aggtype == FLOAT4OID && p->typeoid == FLOAT8OID)
		return *isnull ? (Datum) 0 : Float8GetDatum((float8) DatumGetFloat4(value));
	Assert(aggref->aggtype == p->typeoid);
	return value;
}

static Datum
handover_partial(HandOverRow *row, const ExportPartial *p, const Slice *slice, bool *isnull)
{
	AggReader *reader = row->readers[p->aggregate];
	AggPart	   part = AGG_PART_STATE;
	Datum	   value;

	if (row->partials[p->aggregate] == NULL)
		row->partials[p->aggregate] = streamext_slice_load(reader, slice);
	if (p->finished)
		return handover_finish(row, row->partials[p->aggregate], p, isnull);
	if (p->kind == EXPORT_COUNT)
		part = AGG_PART_COUNT;
	else if (p->kind == EXPORT_SUM || p->kind == EXPORT_SUM_NUMERIC)
		part = AGG_PART_SUM;
	else if (p->kind == EXPORT_SQUARES)
		part = AGG_PART_SQUARES;
	else if (p->kind == EXPORT_SET)
		part = AGG_PART_VALUES;
	else if (p->at != NULL || p->kind == EXPORT_FIRST_AT || p->kind == EXPORT_LAST_AT)
		part = AGG_PART_TIME;
	value = streamext_aggregate_part(reader, row->partials[p->aggregate], part, p->argtype, isnull);
	/* a position: before all that is still to come */
	return p->at != NULL && !*isnull ? Int64GetDatum(-1) : value;
}

static void
handover_put_group(HandOverRow *row, const ScanGroup *group, const Slice *slice)
{
	const ExportPlan   *plan = row->to->plan;
	const CompiledView *view = row->whole->read->view;
	Datum				keys[STREAMEXT_MAX_KEYS + 1];
	bool				nulls[STREAMEXT_MAX_KEYS + 1];

	streamext_key_deserialize(view, STREAMEXT_ENTRY_KEY(group->entry, view->state_size), keys, nulls);
	if (row->set >= 0 && DatumGetInt32(keys[view->set_key]) != row->set)
		return;
	row->n = 0;
	memset(row->partials, 0, sizeof(AggPartial *) * view->naggs);
	for (int k = 0; k < plan->nkeys; k++)
		handover_put(row, keys[plan->keys[k]], nulls[plan->keys[k]]);
	if (plan->has_at)
		handover_put(row, TimestampTzGetDatum(streamext_window_pane_time(&view->window, slice->pane)), false);
	if (view->window.kind == WINDOW_SESSION)
	{
		const SessionSpan *span = streamext_session_span(view, slice->entry);

		handover_put(row, TimestampTzGetDatum(span->first), false);
		handover_put(row, TimestampTzGetDatum(span->last), false);
	}
	handover_put(row, Int64GetDatum(0), false); /* nobody asks how many records it is of */
	for (int p = 0; p < plan->npartials; p++)
	{
		bool  isnull;
		Datum value = handover_partial(row, &plan->partials[p], slice, &isnull);

		handover_put(row, value, isnull);
	}
	if (streamext_export_has_opens(plan))
		handover_put(row, TimestampTzGetDatum(slice->from), slice->from == DT_NOBEGIN);
	Assert(row->n == row->to->desc->natts);
	tuplestore_putvalues(row->to->rows, row->to->desc, row->values, row->nulls);
	row->to->nrows++;
}

static void
handover_groups(HandOver *to, const WholeRead *whole)
{
	const CompiledView *view = whole->read->view;
	HandOverRow			row = { .to = to, .whole = whole, .set = handover_set(to->plan) };
	IdentityScope		scope;
	bool				entered = streamext_read_enter(view, &scope);
	MemoryContext		old;

	row.readers = streamext_whole_readers(whole);
	row.partials = palloc(sizeof(AggPartial *) * Max(view->naggs, 1));
	row.values = palloc(sizeof(Datum) * to->desc->natts);
	row.nulls = palloc(sizeof(bool) * to->desc->natts);
	row.cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext handed over group", ALLOCSET_DEFAULT_SIZES);
	for (int g = 0; g < whole->groups.ngroups; g++)
	{
		const ScanGroup *group = &whole->groups.groups[g];

		for (int s = 0; s < group->nslices + group->nlate; s++)
		{
			CHECK_FOR_INTERRUPTS();
			old = MemoryContextSwitchTo(row.cxt);
			handover_put_group(&row, group, &group->slices[s]);
			MemoryContextSwitchTo(old);
			MemoryContextReset(row.cxt);
		}
	}
	MemoryContextDelete(row.cxt);
	streamext_read_leave(entered, &scope);
}

/* ---- how far ---- */

typedef void (*HandOverValue)(StringInfo to, const WholePartition *partition);

static void
handover_put_position(StringInfo to, const WholePartition *partition)
{
	if (partition->position >= 0)
		appendStringInfo(to, INT64_FORMAT, partition->position);
}

static void
handover_put_newest(StringInfo to, const WholePartition *partition)
{
	if (partition->newest == DT_NOBEGIN)
		return;
	appendStringInfo(to, "{\"t\": \"%s\"", timestamptz_to_str(partition->newest));
	appendStringInfo(to, ", \"at\": \"%s\"}", timestamptz_to_str(partition->arrival));
}

/* {topic: {partition: value}}; partitions without a value are left out. */
static char *
handover_json(const WholeRead *whole, HandOverValue put)
{
	StringInfoData buf, value;
	bool		  *done = palloc0(sizeof(bool) * Max(whole->npartitions, 1));

	initStringInfo(&buf);
	initStringInfo(&value);
	appendStringInfoChar(&buf, '{');
	for (int i = 0; i < whole->npartitions; i++)
	{
		const char *topic = whole->partitions[i].topic;

		if (done[i])
			continue;
		if (buf.len > 1)
			appendStringInfoString(&buf, ", ");
		escape_json(&buf, topic);
		appendStringInfoString(&buf, ": {");
		for (int j = i; j < whole->npartitions; j++)
		{
			if (strcmp(whole->partitions[j].topic, topic) != 0)
				continue;
			done[j] = true;
			resetStringInfo(&value);
			put(&value, &whole->partitions[j]);
			if (value.len > 0)
				appendStringInfo(&buf, "%s\"%d\": %s", buf.data[buf.len - 1] == '{' ? "" : ", ",
								 whole->partitions[j].partition, value.data);
		}
		appendStringInfoChar(&buf, '}');
	}
	appendStringInfoChar(&buf, '}');
	return buf.data;
}

/* Whether it is known where the view is in some partition; else an engine begins where the stream's option start says. */
static bool
handover_has_begun(const WholeRead *whole)
{
	for (int i = 0; i < whole->npartitions; i++)
		if (whole->partitions[i].position >= 0)
			return true;
	return false;
}

/* Newest event times are the stream's: of a view that has not got there they would close windows for records that it has still to count. */
static void
handover_check_behind(const ExportPlan *plan)
{
	char *stream = get_rel_name(plan->view->stream_relid);

	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("continuous view \"%s\" has still to count what stream \"%s\" has read",
						   get_rel_name(plan->view->relid), stream),
					errdetail("What it has counted can be handed over when it has caught up."),
					errhint("If it is paused, resume it; export it after streamext.flush('%s').", stream)));
}

/* A view that has just been made catches up in no time; what takes longer is left to the caller. */
void
streamext_export_wait(Oid viewoid)
{
	for (int waited = 0; waited < HANDOVER_WAIT_MS && streamext_whole_standing(viewoid) == WHOLE_BEHIND;
		 waited += HANDOVER_TICK_MS)
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, HANDOVER_TICK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

HandOver *
streamext_export_take(ExportPlan *plan)
{
	WholeRead *whole;
	HandOver  *to = palloc0(sizeof(HandOver));

	/* as who reads the view needs its owner to have them */
	(void) streamext_view_has_rights(plan->view, true);
	whole = streamext_read_whole(plan->view->relid);
	if (whole->accepted + whole->late + whole->rejected == 0 &&
		(whole->behind || whole->former || !handover_has_begun(whole)))
		return NULL;
	if (whole->behind || whole->former)
		handover_check_behind(plan);
	to->plan = plan;
	to->desc = streamext_export_stage_desc(plan, streamext_export_has_opens(plan), true);
	to->rows = tuplestore_begin_heap(false, false, work_mem);
	to->watermark = whole->watermark;
	to->accepted = whole->accepted;
	to->late = whole->late;
	to->rejected = whole->rejected;
	to->positions = handover_json(whole, handover_put_position);
	to->newest = handover_json(whole, handover_put_newest);
	if (whole->groups.ngroups > 0)
		handover_groups(to, whole);
	return to;
}

/* ---- the table ---- */

static void
handover_note(const HandOver *from)
{
	Oid	  types[] = { OIDOID, JSONBOID, JSONBOID, TIMESTAMPTZOID, INT8OID, INT8OID, INT8OID };
	Datum values[] = { ObjectIdGetDatum(from->plan->view->relid),
					   DirectFunctionCall1(jsonb_in, CStringGetDatum(from->positions)),
					   DirectFunctionCall1(jsonb_in, CStringGetDatum(from->newest)),
					   TimestampTzGetDatum(from->watermark),
					   Int64GetDatum(from->accepted + from->late + from->rejected),
					   Int64GetDatum(from->late),
					   Int64GetDatum(from->rejected) };
	char  nulls[] = "       ";

	if (from->watermark == DT_NOBEGIN)
		nulls[3] = 'n';
	(void) streamext_control_execute(
		"UPDATE streamext.exported SET positions = $2, newest = $3, watermark = $4, delivered = $5, "
		"late = $6, rejected = $7 WHERE view OPERATOR(pg_catalog.=) $1",
		lengthof(types), types, values, nulls, SPI_OK_UPDATE);
}

void
streamext_export_give(const HandOver *from)
{
	IdentityScope scope;

	if (from->nrows > 0)
	{
		scope = streamext_identity_enter(from->plan->view->owner);
		streamext_export_run_over("batch", from->rows, from->desc, from->nrows,
								  streamext_export_merge_sql(from->plan, "batch", true), SPI_OK_MERGE);
		streamext_identity_leave(scope);
	}
	tuplestore_end(from->rows);
	handover_note(from);
}
