/*
 * sql/shard_prepare.c
 *		A shard's part of streamext.shard_view: INSERT INTO streamext.shard_request (view) ... RETURNING, which another server sends through
 *		postgres_fdw, makes the view of rows (read/shard_rows.c) beside the continuous view and tells what is to be known of it.
 *
 * All of it runs as who inserts: he needs CREATE in the view's schema, and the rights on the view that streamext.partial asks for.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/varlena.h"

#include "aggregate/portable.h"
#include "base/relation.h"
#include "read/scan.h"
#include "read/shard_rows.h"
#include "view/inner.h"

#include "sql/shard.h"

PG_FUNCTION_INFO_V1(streamext_shard_prepare);

/* ---- what can be merged ---- */

static void
prepare_refuse(const CompiledView *view, const char *what, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("continuous view \"%s\" cannot be merged from several servers: %s",
						   get_rel_name(view->relid), what),
					errhint("%s", hint)));
}

static void
prepare_check(const CompiledView *view)
{
	if (view->stateless || view->derived)
		prepare_refuse(view, "it has no aggregates", "Its rows can be read by UNION ALL over foreign tables.");
	if (OidIsValid(streamext_view_inner(view->relid)))
		prepare_refuse(view, "the windows that it counts are those of one server",
					   "Call streamext.shard_view for the view in its FROM, and put an ordinary view over that.");
	if (view->parts != NIL)
		prepare_refuse(
			view, "it reads several streams by UNION ALL",
			"Call streamext.shard_view for a view of each part, and put an ordinary view with UNION ALL over these.");
	streamext_shard_check_whole(view);
}

/* ---- what is told ---- */

static void
prepare_type(StringInfo to, Oid type, int32 typmod, Oid collation)
{
	appendStringInfoString(to, format_type_with_typemod(type, typmod));
	if (OidIsValid(collation) && collation != get_typcollation(type))
		appendStringInfo(to, " COLLATE %s", generate_collation_name(collation));
}

char *
streamext_shard_columns(const CompiledView *view)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int k = 0; k < view->nkeys; k++)
	{
		appendStringInfo(&buf, ", k%d ", k + 1);
		prepare_type(&buf, view->keys[k].type, view->keys[k].typmod, view->keys[k].collation);
	}
	for (int a = 0; a < view->naggs; a++)
		appendStringInfo(&buf, ", a%d bytea", a + 1);
	if (view->window.kind == WINDOW_SESSION)
		appendStringInfoString(&buf, ", last timestamp with time zone");
	return buf.data;
}

/* p.k1, ... but for the window's start, each before `after`. */
static void
prepare_session_keys(StringInfo to, const CompiledView *view, const char *after)
{
	for (int k = 0; k < view->nkeys; k++)
		if (k != view->window_key)
			appendStringInfo(to, "p.k%d%s", k + 1, after);
}

/*
 * A session of one shard goes on with another's that begins no later than gap after it. So all rows of a key are put in order of their starts; one that
 * starts more than gap after all before it have ended begins a session, and `session` counts these.
 */
static void
prepare_sessions(StringInfo to, const CompiledView *view)
{
	StringInfoData keys;

	initStringInfo(&keys);
	prepare_session_keys(&keys, view, ", ");
	if (keys.len > 0)
	{
		keys.data[keys.len - 2] = '\0';
		keys.data = psprintf("PARTITION BY %s ", keys.data);
	}
	appendStringInfo(
		to,
		"(SELECT p.*, sum(p.begins) OVER (%sORDER BY p.k%d, p.last) AS session FROM (SELECT p.*, CASE WHEN p.k%d <= "
		"max(p.last) OVER (%sORDER BY p.k%d, p.last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + "
		"'%lld us'::interval THEN 0 ELSE 1 END AS begins FROM %s p) p)",
		keys.data, view->window_key + 1, view->window_key + 1, keys.data, view->window_key + 1,
		(long long) view->window.size, SHARD_ROWS_TOKEN);
}

/* The rows of all shards, a group once. */
static char *
prepare_merge(const CompiledView *view, const int *order)
{
	bool		   session = view->window.kind == WINDOW_SESSION;
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoString(&buf, "SELECT ");
	for (int k = 0; k < view->nkeys; k++)
		appendStringInfo(&buf, session && k == view->window_key ? "%smin(p.k%d) AS k%d" : "%sp.k%d", k > 0 ? ", " : "",
						 k + 1, k + 1);
	for (int a = 0; a < view->naggs; a++)
	{
		const AggSpec *spec = &view->aggs[order[a]];

		appendStringInfo(&buf, "%sstreamext.merge(p.a%d, NULL::%s, %s::text) AS a%d", view->nkeys + a > 0 ? ", " : "",
						 a + 1, format_type_be_qualified(spec->aggref->aggtype),
						 quote_literal_cstr(streamext_portable_definition(spec)), a + 1);
	}
	appendStringInfoString(&buf, " FROM ");
	if (session)
	{
		prepare_sessions(&buf, view);
		appendStringInfoString(&buf, " p GROUP BY ");
		prepare_session_keys(&buf, view, ", ");
		appendStringInfoString(&buf, "p.session");
		return buf.data;
	}
	appendStringInfoString(&buf, SHARD_ROWS_TOKEN " p");
	for (int k = 0; k < view->nkeys; k++)
		appendStringInfo(&buf, "%sp.k%d", k > 0 ? ", " : " GROUP BY ", k + 1);
	return buf.data;
}

char *
streamext_shard_query(const CompiledView *view)
{
	int			  level = streamext_portable_pin();
	IdentityScope scope = streamext_identity_enter(view->owner); /* constants are folded */
	int			 *order = palloc(sizeof(int) * Max(view->naggs, 1));
	char		 *query = streamext_shard_outputs_text(view, order);

	query = streamext_shard_replace(query, SHARD_GROUPS_TOKEN, psprintf("(%s)", prepare_merge(view, order)));
	streamext_identity_leave(scope);
	AtEOXact_GUC(false, level);
	while (*query == ' ')
		query++;
	return query;
}

/* All that has to be the same on all shards. */
char *
streamext_shard_same(const CompiledView *view)
{
	const ContinuousViewOptions *o = &view->options;

	return psprintf(
		"%s\nstep %lld, max_groups %lld, TimeZone %s, DateStyle %s, encoding %s, collation %s",
		streamext_shard_query_text(view->relid), (long long) o->step, (long long) o->max_groups,
		o->timezone != NULL ? o->timezone : "", o->datestyle != NULL ? o->datestyle : "", GetDatabaseEncodingName(),
		GetConfigOption("lc_collate", true, false) != NULL ? GetConfigOption("lc_collate", true, false) : "");
}

/* The stream's option partitions, or NULL. */
static char *
prepare_partitions(const CompiledView *view)
{
	ListCell *lc;

	foreach (lc, GetForeignTable(view->stream_relid)->options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "partitions") == 0)
			return defGetString(lfirst(lc));
	return NULL;
}

/* ---- the view of rows ---- */

static void
prepare_run(const char *sql)
{
	IdentityScope scope = streamext_identity_enter_lightly(GetUserId()); /* who asks, whose view it will be */

	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not run: %s", sql);
	streamext_identity_leave(scope);
}

static char *
prepare_rows_sql(const CompiledView *view, const char *name, const char *of)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "CREATE VIEW %s AS SELECT streamext.shard_rows_of('%s'::pg_catalog.text) AS shard", name,
					 streamext_shard_fingerprint(view->relid));
	for (int k = 0; k < view->nkeys; k++)
	{
		appendStringInfo(&buf, ", streamext.shard_key(%d, NULL::", k + 1);
		prepare_type(&buf, view->keys[k].type, view->keys[k].typmod, view->keys[k].collation);
		appendStringInfo(&buf, ") AS k%d", k + 1);
	}
	for (int a = 0; a < view->naggs; a++)
		appendStringInfo(&buf, ", streamext.shard_partial(%d) AS a%d", a + 1, a + 1);
	if (view->window.kind == WINDOW_SESSION)
		appendStringInfoString(&buf, ", streamext.shard_last() AS last");
	appendStringInfo(&buf, " FROM %s", of);
	return buf.data;
}

/*
 * Whether there is such a view already, of this query. Raises if there is something else of the name. Who asks will read it, and what
 * stands in a view runs as its reader: so it is only taken from those whom he trusts by asking for this continuous view.
 */
static bool
prepare_is_there(Oid relid, const CompiledView *view)
{
	Oid	  owner = streamext_relation_owner(relid, false);
	char *text;

	if (owner != GetUserId() && owner != view->owner && !superuser_arg(owner))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE), errmsg("relation \"%s\" already exists", get_rel_name(relid)),
				 errdetail(
					 "It is the name of the view of rows that streamext.shard_view reads, and it is another role's.")));

	if (get_rel_relkind(relid) != RELKIND_VIEW ||
		strstr(text = streamext_shard_query_text(relid), "streamext.shard_rows_of(") == NULL)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_TABLE), errmsg("relation \"%s\" already exists", get_rel_name(relid)),
						errdetail("It is the name of the view of rows that streamext.shard_view reads.")));
	return strstr(text, streamext_shard_fingerprint(view->relid)) != NULL;
}

/* Its name without the schema's. */
static char *
prepare_rows_view(const CompiledView *view)
{
	Oid	  schema = get_rel_namespace(view->relid);
	char *name = streamext_shard_object(get_rel_name(view->relid), "_shard_rows");
	Oid	  there = get_relname_relid(name, schema);
	char *qualified = quote_qualified_identifier(get_namespace_name(schema), name);
	bool  fresh = OidIsValid(there) && prepare_is_there(there, view);
	int	  level;

	if (fresh)
		return name;
	level = streamext_portable_pin();
	if (OidIsValid(there))
		prepare_run(psprintf("DROP VIEW %s", qualified));
	prepare_run(prepare_rows_sql(view, qualified,
								 quote_qualified_identifier(get_namespace_name(schema), get_rel_name(view->relid))));
	AtEOXact_GUC(false, level);
	return name;
}

/* ---- the request ---- */

Oid
streamext_shard_find_view(const char *name, bool missing_ok)
{
	RangeVar *var = makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(name)));
	Oid		  relid = RangeVarGetRelid(var, AccessShareLock, missing_ok);

	if (OidIsValid(relid) && !streamext_view_options(relid).continuous)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a continuous view", name)));
	return relid;
}

/* streamext_internal.shard_prepare(): INSTEAD OF INSERT of streamext.shard_request. */
Datum
streamext_shard_prepare(PG_FUNCTION_ARGS)
{
	TriggerData		   *trigger = (TriggerData *) fcinfo->context;
	TupleDesc			desc;
	Datum				values[SHARD_REQUEST_COLUMNS] = { 0 };
	bool				nulls[SHARD_REQUEST_COLUMNS] = { 0 };
	const CompiledView *view;
	char			   *partitions, *rows;
	Oid					viewoid;
	HeapTuple			result;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_INSTEAD(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("streamext_internal.shard_prepare is the trigger of streamext.shard_request")));
	desc = RelationGetDescr(trigger->tg_relation);
	Assert(desc->natts == SHARD_REQUEST_COLUMNS);
	heap_deform_tuple(trigger->tg_trigtuple, desc, values, nulls);
	if (nulls[0])
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the request names no view")));
	viewoid = streamext_shard_find_view(TextDatumGetCString(values[0]), false);
	view = streamext_view_cached(viewoid, CurrentMemoryContext);
	prepare_check(view);
	streamext_partial_check_rights(viewoid, InvalidOid);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	rows = prepare_rows_view(view);
	rows = strcpy(SPI_palloc(strlen(rows) + 1), rows);
	SPI_finish();
	partitions = prepare_partitions(view);
	memset(nulls, false, sizeof(nulls));
	values[1] = CStringGetTextDatum(rows);
	values[2] = CStringGetTextDatum(streamext_shard_columns(view));
	values[3] = CStringGetTextDatum(streamext_shard_query(view));
	values[4] = CStringGetTextDatum(streamext_shard_same(view));
	values[5] = CStringGetTextDatum(streamext_shard_name());
	nulls[6] = partitions == NULL;
	values[6] = partitions == NULL ? (Datum) 0 : CStringGetTextDatum(partitions);
	result = heap_form_tuple(desc, values, nulls);
	return PointerGetDatum(result);
}

char *
streamext_shard_object(const char *name, const char *suffix)
{
	int room = NAMEDATALEN - 1 - strlen(suffix);

	return psprintf("%.*s%s", pg_mbcliplen(name, strlen(name), room), name, suffix);
}
