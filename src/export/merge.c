/*
 * export/merge.c
 *		streamext.export_begin and streamext.export_merge: the only transaction that there is between an engine and an exported view.
 *
 * All that is counted and how far is in one row of streamext.exported, which a merge locks first. So merges of a view come one after the
 * other, an engine that was replaced finds another run there, and what it sends twice finds positions that are there already: nothing is
 * taken twice whatever the engine does again. What is done as whom:
 *
 *		streamext.exported			the extension
 *		the session's stage tables	who calls: they are his own
 *		the table of the view		the view's owner, and nothing of his but its triggers could run there
 *
 * The caller needs INSERT on the view and nothing else.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "aggregate/portable.h"
#include "base/own_table.h"
#include "common/int.h"
#include "export/dialect.h"
#include "export/rows.h"
#include "shared/clock.h"

PG_FUNCTION_INFO_V1(streamext_export_begin);
PG_FUNCTION_INFO_V1(streamext_export_merge);
PG_FUNCTION_INFO_V1(streamext_export_now);

typedef struct Merge
{
	ExportPlan		*plan;
	Oid				 view;
	TimestampTz		 watermark; /* before it; DT_NOBEGIN: none */
	char			*positions; /* those merged, as JSON text */
	TupleDesc		 desc;		/* of `rows` */
	Tuplestorestate *rows;		/* of the stage, without what is late, with `opens` behind them where there is such */
	int64			 nrows;
	int64			 late; /* records */
	int64			 rejected;
	List			*newest; /* of ExportNewest, of raw records */
} Merge;

/* ---- lateness ---- */

/* Whether the watermark has reached a time and what it is waited beyond that. */
static bool
merge_is_closed(const Merge *merge, TimestampTz end)
{
	if (merge->watermark == DT_NOBEGIN || pg_add_s64_overflow(end, merge->plan->view->options.lateness, &end))
		return false;
	return merge->watermark >= end;
}

/* The first of a pane's hopping windows that is open; DT_NOBEGIN: all are, DT_NOEND: none is. */
static TimestampTz
merge_first_open(const Merge *merge, int64 pane)
{
	const Window *window = &merge->plan->view->window;
	TimestampTz	  first, last;

	streamext_window_starts(window, pane, &first, &last);
	if (first > last || merge_is_closed(merge, streamext_window_end(window, last)))
		return DT_NOEND;
	for (TimestampTz start = first;; start += window->slide)
		if (!merge_is_closed(merge, streamext_window_end(window, start)))
			return start == first ? DT_NOBEGIN : start;
}

/* Which windows take a group's rows; `last` is the time of the newest of them. As merge_first_open. */
static TimestampTz
merge_takes_from(const Merge *merge, TimestampTz at, TimestampTz last)
{
	const Window *window = &merge->plan->view->window;
	TimestampTz	  first, end;
	int64		  pane;

	if (window->kind == WINDOW_SESSION)
		return !pg_add_s64_overflow(last, window->size, &last) && merge_is_closed(merge, last) ? DT_NOEND : DT_NOBEGIN;
	if (window->kind == WINDOW_NONE)
		return DT_NOBEGIN;
	pane = streamext_window_pane(window, at);
	if (!merge_is_closed(merge, streamext_window_pane_end(window, pane)))
		return DT_NOBEGIN;
	if (window->kind == WINDOW_HOP)
		return merge_first_open(merge, pane);
	/* where a predicate slides too, a window is of several panes */
	streamext_window_starts(window, pane, &first, &end);
	return merge_is_closed(merge, streamext_window_end(window, first)) ? DT_NOEND : DT_NOBEGIN;
}

/* ---- the stage ---- */

TupleDesc
streamext_export_stage_desc(const ExportPlan *plan, bool opens, bool states)
{
	TupleDesc  desc = CreateTemplateTupleDesc(plan->nkeys + plan->npartials + 1 + (plan->has_at ? 1 : 0) +
											  (plan->view->window.kind == WINDOW_SESSION ? 2 : 0) + (opens ? 1 : 0));
	AttrNumber att = 0;

	streamext_export_desc_group(desc, &att, plan);
	if (plan->view->window.kind == WINDOW_SESSION)
	{
		TupleDescInitEntry(desc, ++att, "first", TIMESTAMPTZOID, -1, 0);
		TupleDescInitEntry(desc, ++att, "last", TIMESTAMPTZOID, -1, 0);
	}
	TupleDescInitEntry(desc, ++att, "rows", INT8OID, -1, 0);
	for (int p = 0; p < plan->npartials; p++)
	{
		Oid type = states ? plan->partials[p].typeoid : plan->partials[p].stageoid;

		TupleDescInitEntry(desc, ++att, plan->partials[p].name, type, -1, 0);
		if (OidIsValid(get_typcollation(type)))
			TupleDescInitEntryCollation(desc, att, plan->partials[p].collation);
	}
	if (opens)
		TupleDescInitEntry(desc, ++att, "opens", TIMESTAMPTZOID, -1, 0);
	return desc;
}

/* Its triggers and rules would run as who calls, who need not be who began the session (SECURITY DEFINER). */
static void
merge_check_own(Oid relid)
{
	HeapTuple	  tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form = HeapTupleIsValid(tuple) ? (Form_pg_class) GETSTRUCT(tuple) : NULL;
	bool		  own = form != NULL && form->relowner == GetUserId();
	bool		  ordinary = form != NULL && form->relkind == RELKIND_RELATION;

	if (form != NULL)
		ReleaseSysCache(tuple);
	if (!own)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("stage table \"%s\" is not a table of role \"%s\"", get_rel_name(relid),
							   GetUserNameFromId(GetUserId(), false)),
						errhint("Make it by the plan that streamext.export_begin returns, as the role that merges.")));
	if (!ordinary)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
						errmsg("stage table \"%s\" is not a table", get_rel_name(relid)),
						errhint("Drop it, and make it by the plan that streamext.export_begin returns.")));
}

/* A stage table of the session, the caller's own; InvalidOid: there is none. */
static Oid
merge_find_stage(const Merge *merge, const char *name)
{
	Oid schema = LookupExplicitNamespace("pg_temp", true);
	Oid relid = OidIsValid(schema) ? get_relname_relid(streamext_export_stage(merge->plan, name), schema) : InvalidOid;

	if (OidIsValid(relid))
		merge_check_own(relid);
	return relid;
}

static void
merge_check_stage(Relation rel, TupleDesc wanted)
{
	TupleDesc has = RelationGetDescr(rel);
	bool	  same = has->natts == wanted->natts;

	for (int i = 0; same && i < has->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(has, i), b = TupleDescAttr(wanted, i);

		same = !a->attisdropped && a->atttypid == b->atttypid && a->atttypmod == b->atttypmod &&
			   strcmp(NameStr(a->attname), NameStr(b->attname)) == 0;
	}
	if (!same)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
						errmsg("stage table \"%s\" has not the columns that the view's plan has",
							   RelationGetRelationName(rel)),
						errhint("Drop it, and make it by the plan that streamext.export_begin returns.")));
}

static TimestampTz
merge_time(const TupleTableSlot *slot, int column)
{
	TimestampTz t = slot->tts_isnull[column] ? DT_NOBEGIN : DatumGetTimestampTz(slot->tts_values[column]);

	if (TIMESTAMP_NOT_FINITE(t))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a partial without a time, or with an infinite one")));
	return t;
}

static void
merge_take_row(Merge *merge, TupleTableSlot *slot, Datum *values, bool *nulls)
{
	const ExportPlan *plan = merge->plan;
	int				  natts = slot->tts_tupleDescriptor->natts;
	int				  at = plan->nkeys, rows = at;
	TimestampTz		  from = DT_NOBEGIN, last = 0;

	slot_getallattrs(slot);
	if (plan->has_at)
		rows++;
	if (plan->view->window.kind == WINDOW_SESSION)
	{
		(void) merge_time(slot, rows);
		last = merge_time(slot, rows + 1);
		rows += 2;
	}
	if (slot->tts_isnull[rows] || DatumGetInt64(slot->tts_values[rows]) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a partial does not say of how many records it is")));
	if (plan->has_at)
		from = merge_takes_from(merge, merge_time(slot, at), last);
	if (from == DT_NOEND)
	{
		if (pg_add_s64_overflow(merge->late, DatumGetInt64(slot->tts_values[rows]), &merge->late))
			ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
							errmsg("partials say of more late records than can be counted")));
		return;
	}
	memcpy(values, slot->tts_values, sizeof(Datum) * natts);
	memcpy(nulls, slot->tts_isnull, sizeof(bool) * natts);
	if (streamext_export_has_opens(plan))
	{
		values[natts] = TimestampTzGetDatum(from);
		nulls[natts] = from == DT_NOBEGIN;
	}
	tuplestore_putvalues(merge->rows, merge->desc, values, nulls);
	merge->nrows++;
}

static void
merge_read_stage(Merge *merge)
{
	Oid				relid = merge_find_stage(merge, "partial");
	Relation		rel;
	TableScanDesc	scan;
	TupleTableSlot *slot;
	Datum		   *values;
	bool		   *nulls;

	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE),
						errmsg("there is no stage table \"%s\"", streamext_export_stage(merge->plan, "partial")),
						errhint("Make it as the plan says, in this session.")));
	merge->desc = streamext_export_stage_desc(merge->plan, streamext_export_has_opens(merge->plan), false);
	merge->rows = tuplestore_begin_heap(false, false, work_mem);
	values = palloc(sizeof(Datum) * merge->desc->natts);
	nulls = palloc(sizeof(bool) * merge->desc->natts);
	rel = table_open(relid, AccessShareLock);
	merge_check_stage(rel, streamext_export_stage_desc(merge->plan, false, false));
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	slot = table_slot_create(rel, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		merge_take_row(merge, slot, values, nulls);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	PopActiveSnapshot();
	table_close(rel, NoLock);
}

/* ---- statements over tuple stores ---- */

void
streamext_export_run_over(const char *name, Tuplestorestate *store, TupleDesc desc, int64 n, const char *sql,
						  int expected)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	enr->md.name = unconstify(char *, name);
	enr->md.tupdesc = desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = n;
	enr->reldata = store;
	if (SPI_connect() != SPI_OK_CONNECT || SPI_register_relation(enr) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute(sql, false, 0) != expected)
		elog(ERROR, "could not run: %s", sql);
	SPI_finish();
}

/* Records that were sent as they are: decoded, and what is left of them aggregated into the stage. As who calls. */
static void
merge_raw(Merge *merge)
{
	ExportRows rows = { .plan = merge->plan, .letters = true, .cxt = CurrentMemoryContext };
	char	  *relation;

	(void) merge_find_stage(merge, "partial"); /* it is the caller's own, where rows go */
	if (!OidIsValid(merge_find_stage(merge, "records")))
		return;
	rows.desc = streamext_export_row_desc(merge->plan);
	rows.store = tuplestore_begin_heap(false, false, work_mem);
	relation = psprintf(
		"pg_temp.%s r WHERE r.position >= coalesce((%s::jsonb #>> ARRAY[r.topic, r.partition::text])::bigint, r.position)",
		streamext_export_stage(merge->plan, "records"), quote_literal_cstr(merge->positions));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	streamext_export_rows_run(&rows, relation);
	SPI_finish();
	if (rows.records > rows.rejected)
	{
		IdentityScope scope = streamext_identity_enter_lightly(GetUserId());

		streamext_export_run_over("raw_rows", rows.store, rows.desc, rows.records,
								  streamext_export_fill(merge->plan, "raw_rows r"), SPI_OK_INSERT);
		streamext_identity_leave(scope);
	}
	tuplestore_end(rows.store);
	merge->rejected += rows.rejected;
	merge->newest = rows.newest;
}

static void
merge_into_table(Merge *merge)
{
	IdentityScope scope;

	if (merge->nrows == 0)
		return;
	scope = streamext_identity_enter(merge->plan->view->owner);
	streamext_export_run_over("batch", merge->rows, merge->desc, merge->nrows,
							  streamext_export_merge_sql(merge->plan, "batch", false), SPI_OK_MERGE);
	streamext_identity_leave(scope);
}

/* What is merged is not merged again. */
static void
merge_empty_stages(const Merge *merge)
{
	static const char *const stages[] = { "partial", "records" };
	IdentityScope			 scope = streamext_identity_enter_lightly(GetUserId());

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	for (int i = 0; i < lengthof(stages); i++)
		if (OidIsValid(merge_find_stage(merge, stages[i])) &&
			SPI_execute(psprintf("TRUNCATE pg_temp.%s", streamext_export_stage(merge->plan, stages[i])), false, 0) !=
				SPI_OK_UTILITY)
			elog(ERROR, "could not empty a stage table");
	SPI_finish();
	streamext_identity_leave(scope);
}

/* ---- the row of streamext.exported ---- */

/* One row, all of it as who made the extension; values in the current memory context, as text. n columns. */
static bool
merge_ask(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, char **answers, int n)
{
	MemoryContext cxt = CurrentMemoryContext, old;
	IdentityScope own = streamext_own_begin();
	bool		  found;
	int			  rc = SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0);

	if (rc < 0)
		elog(ERROR, "could not run a statement on streamext.exported: %s", SPI_result_code_string(rc));
	found = SPI_processed > 0;
	old = MemoryContextSwitchTo(cxt);
	for (int i = 0; found && i < n; i++)
	{
		char *answer = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1);

		answers[i] = answer == NULL ? NULL : pstrdup(answer);
	}
	MemoryContextSwitchTo(old);
	streamext_own_end(own);
	return found;
}

static void
merge_not_exported(Oid viewoid)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("view \"%s\" is not exported", get_rel_name(viewoid)),
					errhint("Its owner calls streamext.export('%s', 'spark').", get_rel_name(viewoid))));
}

/* Of positions: how many are below those merged, and how many above or new. */
static const char merge_compare_sql[] =
	"SELECT count(*) FILTER (WHERE n.next < n.merged), count(*) FILTER (WHERE n.merged IS NULL OR n.next > n.merged), count(*) FILTER (WHERE n.next < 0) "
	"FROM (SELECT p.value::bigint AS next, ($1 #>> ARRAY[t.key, p.key])::bigint AS merged "
	"FROM jsonb_each($2) AS t, jsonb_each_text(t.value) AS p WHERE p.key::integer >= 0) AS n";

/*
 * $1 view, $2 positions, $3 newest of the engine, $4 of raw records, $5 clock, $6 idle_timeout, $7 watermark_delay (us), $8 counts, $9 late, $10 rejected
 * here, $11 ms, $12 rows, $13 max_ahead of the clock, which the engine's word does not go beyond, as no record's does. Partitions that have been silent for
 * idle_timeout do not hold the watermark; it does not go back.
 */
static const char merge_note_sql[] =
	"WITH e AS (SELECT * FROM streamext.exported WHERE view = $1), "
	"given AS (SELECT t.key AS topic, p.key AS part, max(least((p.value)::timestamptz, $13)) AS newest "
	"FROM (SELECT $3 AS j UNION ALL SELECT $4) AS g, jsonb_each(g.j) AS t, jsonb_each_text(t.value) AS p GROUP BY 1, 2), "
	"had AS (SELECT t.key AS topic, p.key AS part, (p.value ->> 't')::timestamptz AS newest, (p.value ->> 'at')::timestamptz AS at "
	"FROM e, jsonb_each(e.newest) AS t, jsonb_each(t.value) AS p), "
	"now AS (SELECT topic, part, greatest(had.newest, given.newest) AS newest, "
	"CASE WHEN given.newest > had.newest OR had.newest IS NULL THEN $5 ELSE had.at END AS at "
	"FROM had FULL JOIN given USING (topic, part)), "
	"mark AS (SELECT min(newest) FILTER (WHERE at > $5 - $6 * '1 us'::interval) - $7 * '1 us'::interval AS mark FROM now), "
	"pos AS (SELECT topic, jsonb_object_agg(part, next) AS parts FROM "
	"(SELECT t.key AS topic, p.key AS part, max(p.value::bigint) AS next FROM (SELECT e.positions AS j FROM e UNION ALL SELECT $2) AS g, "
	"jsonb_each(g.j) AS t, jsonb_each_text(t.value) AS p GROUP BY 1, 2) AS q GROUP BY topic) "
	"UPDATE streamext.exported AS x SET positions = coalesce((SELECT jsonb_object_agg(topic, parts) FROM pos), '{}'), "
	"newest = coalesce((SELECT jsonb_object_agg(topic, parts) FROM (SELECT topic, jsonb_object_agg(part, jsonb_build_object('t', newest, 'at', at)) AS parts "
	"FROM now GROUP BY topic) AS q), '{}'), watermark = greatest(x.watermark, (SELECT mark FROM mark)), "
	"delivered = x.delivered + ($8 ->> 'delivered')::bigint, late = x.late + $9 + coalesce(($8 ->> 'late')::bigint, 0), "
	"rejected = x.rejected + $10 + coalesce(($8 ->> 'rejected')::bigint, 0), "
	"last_merge_at = clock_timestamp(), seen_at = clock_timestamp(), merge_ms = $11, rows_merged = x.rows_merged + $12 "
	"WHERE x.view = $1 RETURNING x.watermark, x.delivered - x.late - x.rejected";

static Datum
merge_jsonb(const char *text)
{
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

/* Of what came raw, as the engine says it: {topic: {partition: time}}. A topic may stand there more than once, so a list of such. */
static Datum
merge_raw_newest(const Merge *merge)
{
	StringInfoData buf;
	ListCell	  *lc;
	List		  *topics = NIL;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	foreach (lc, merge->newest)
	{
		const char *topic = ((ExportNewest *) lfirst(lc))->topic;
		ListCell   *other;
		bool		known = false;

		foreach (other, topics)
			known = known || strcmp(lfirst(other), topic) == 0;
		if (known)
			continue;
		topics = lappend(topics, unconstify(char *, topic));
		appendStringInfoString(&buf, list_length(topics) > 1 ? ", " : "");
		escape_json(&buf, topic);
		appendStringInfoString(&buf, ": {");
		foreach (other, merge->newest)
		{
			const ExportNewest *n = lfirst(other);

			if (strcmp(n->topic, topic) == 0)
				appendStringInfo(&buf, "%s\"%d\": \"%s\"", buf.data[buf.len - 1] == '{' ? "" : ", ", n->partition,
								 timestamptz_to_str(n->newest));
		}
		appendStringInfoChar(&buf, '}');
	}
	appendStringInfoChar(&buf, '}');
	return merge_jsonb(buf.data);
}

/* Reads and locks the view's row. False: these positions are merged already. */
static bool
merge_begin(Merge *merge, pg_uuid_t *run, Jsonb *positions)
{
	Oid	  types[] = { OIDOID, UUIDOID, JSONBOID };
	Datum values[] = { ObjectIdGetDatum(merge->view), UUIDPGetDatum(run), (Datum) 0 };
	char *row[3];
	char *count[3];

	if (!merge_ask(
			"SELECT coalesce(run = $2, false), positions, (extract(epoch FROM watermark - '2000-01-01Z') * 1000000)::bigint FROM streamext.exported "
			"WHERE view = $1 FOR UPDATE",
			2, types, values, NULL, row, 3))
		merge_not_exported(merge->view);
	if (strcmp(row[0], "t") != 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("a newer run of view \"%s\" has begun", get_rel_name(merge->view)),
						errdetail("This one is not taken from any more."),
						errhint("Stop this engine, or call streamext.export_begin.")));
	merge->positions = row[1];
	merge->watermark = row[2] == NULL ? DT_NOBEGIN : (TimestampTz) strtoll(row[2], NULL, 10);
	types[0] = types[1] = JSONBOID;
	values[0] = merge_jsonb(row[1]);
	values[1] = JsonbPGetDatum(positions);
	(void) merge_ask(merge_compare_sql, 2, types, values, NULL, count, 3);
	if (strcmp(count[0], "0") != 0 || strcmp(count[2], "0") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("positions of view \"%s\" would go back", get_rel_name(merge->view)),
						errdetail("Merged are: %s", row[1]), errhint("Go on from these.")));
	return strcmp(count[1], "0") != 0;
}

/* A watermark that is infinite would close all windows for good, and is no time that the next batch could be judged by. */
static void
merge_check_newest(Jsonb *newest)
{
	Oid	  types[] = { JSONBOID };
	Datum values[] = { JsonbPGetDatum(newest) };
	char *infinite[1];

	(void) merge_ask("SELECT count(*) FROM jsonb_each($1) AS t, jsonb_each_text(t.value) AS p "
					 "WHERE NOT isfinite(p.value::timestamptz)",
					 1, types, values, NULL, infinite, 1);
	if (strcmp(infinite[0], "0") != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a newest event time is infinite"),
						errhint("newest is {topic: {partition: time}}, of records that are counted.")));
}

/* The watermark after it. */
static char *
merge_note(const Merge *merge, Jsonb *positions, Jsonb *newest, Jsonb *counts, double ms)
{
	Oid	  types[] = { OIDOID,	JSONBOID, JSONBOID, JSONBOID,  TIMESTAMPTZOID, INT8OID,		  INT8OID,
					  JSONBOID, INT8OID,  INT8OID,	FLOAT8OID, INT8OID,		   TIMESTAMPTZOID };
	Datum values[] = { ObjectIdGetDatum(merge->view),
					   JsonbPGetDatum(positions),
					   JsonbPGetDatum(newest),
					   merge_raw_newest(merge),
					   TimestampTzGetDatum(streamext_clock_now()),
					   Int64GetDatum(merge->plan->config->time.idle_timeout),
					   Int64GetDatum(merge->plan->config->time.watermark_delay),
					   JsonbPGetDatum(counts),
					   Int64GetDatum(merge->late),
					   Int64GetDatum(merge->rejected),
					   Float8GetDatum(ms),
					   Int64GetDatum(merge->nrows),
					   TimestampTzGetDatum(streamext_clock_now() + merge->plan->config->time.max_ahead) };
	char *row[2];

	if (!merge_ask(merge_note_sql, lengthof(types), types, values, NULL, row, 2))
		merge_not_exported(merge->view);
	if (row[1] == NULL || row[1][0] == '-')
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("counts of a batch do not add up: more records late and rejected than delivered"),
						errhint("counts is {\"delivered\": n, \"rejected\": m}, of all records of the batch.")));
	return row[0];
}

static void
merge_seen(const Merge *merge)
{
	Oid	  types[] = { OIDOID };
	Datum values[] = { ObjectIdGetDatum(merge->view) };

	(void) merge_ask("UPDATE streamext.exported SET seen_at = clock_timestamp() WHERE view = $1 RETURNING view", 1,
					 types, values, NULL, NULL, 0);
}

/* streamext.export_merge(view regclass, run uuid, positions jsonb, newest jsonb, counts jsonb) */
Datum
streamext_export_merge(PG_FUNCTION_ARGS)
{
	Merge		merge = { .view = PG_GETARG_OID(0) };
	Jsonb	   *positions = PG_GETARG_JSONB_P(2);
	char	   *watermark = NULL;
	TimestampTz result = DT_NOBEGIN;
	instr_time	begun, took;
	int			level;

	INSTR_TIME_SET_CURRENT(begun);
	streamext_require_preload();
	streamext_export_check_rights(merge.view);
	level = streamext_portable_pin();
	merge.plan = streamext_export_make(streamext_export_compile(merge.view, NULL), &streamext_export_postgres);
	if (merge_begin(&merge, PG_GETARG_UUID_P(1), positions))
	{
		merge_check_newest(PG_GETARG_JSONB_P(3));
		merge_raw(&merge);
		merge_read_stage(&merge);
		merge_into_table(&merge);
		INSTR_TIME_SET_CURRENT(took);
		INSTR_TIME_SUBTRACT(took, begun);
		watermark =
			merge_note(&merge, positions, PG_GETARG_JSONB_P(3), PG_GETARG_JSONB_P(4), INSTR_TIME_GET_MILLISEC(took));
		if (watermark != NULL)
			result = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(watermark),
															 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	}
	else
	{
		merge_seen(&merge);
		result = merge.watermark;
	}
	merge_empty_stages(&merge);
	AtEOXact_GUC(false, level);
	if (result == DT_NOBEGIN)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(result);
}

/* ---- beginning ---- */

/* streamext.export_begin(view regclass, OUT run uuid, OUT plan jsonb, OUT positions jsonb, OUT watermark timestamptz) */
Datum
streamext_export_begin(PG_FUNCTION_ARGS)
{
	Oid					viewoid = PG_GETARG_OID(0);
	Oid					types[] = { OIDOID };
	Datum				arg[] = { ObjectIdGetDatum(viewoid) };
	char			   *row[3];
	char			   *engine;
	const CompiledView *view;
	TupleDesc			desc;
	Datum				values[4];
	bool				nulls[4] = { 0 };
	int					level;

	streamext_export_check_rights(viewoid);
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	level = streamext_portable_pin();
	if (!merge_ask(
			"UPDATE streamext.exported SET run = gen_random_uuid(), begun_at = clock_timestamp(), seen_at = clock_timestamp() "
			"WHERE view = $1 RETURNING run, positions, watermark",
			1, types, arg, NULL, row, 3))
		merge_not_exported(viewoid);
	view = streamext_export_compile(viewoid, &engine);
	streamext_export_renew(view);
	values[0] = DirectFunctionCall1(uuid_in, CStringGetDatum(row[0]));
	values[1] = merge_jsonb(streamext_export_json(streamext_export_make(view, streamext_export_dialect(engine))));
	values[2] = merge_jsonb(row[1]);
	nulls[3] = row[2] == NULL;
	if (!nulls[3])
		values[3] = DirectFunctionCall3(timestamptz_in, CStringGetDatum(row[2]), ObjectIdGetDatum(InvalidOid),
										Int32GetDatum(-1));
	AtEOXact_GUC(false, level);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/* streamext.export_now(step bigint): now() of an exported view's sliding window */
Datum
streamext_export_now(PG_FUNCTION_ARGS)
{
	int64		step = PG_GETARG_INT64(0);
	TimestampTz now = streamext_clock_statement();
	int64		rest;

	if (step <= 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a step must be positive")));
	rest = now % step;
	PG_RETURN_TIMESTAMPTZ(now - (rest < 0 ? rest + step : rest));
}
