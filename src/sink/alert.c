/*-------------------------------------------------------------------------
 *
 * sink/alert.c
 *		Alerts: one evaluation of one view.
 *
 * The view is read as its owner, in a security-restricted operation: a list of keys and rows. What is pending and firing stands in
 * streamext_internal.alert_state, and one statement (alert_step) takes it from there to the next state, writes the events, and returns those to be
 * told. State, events and notifications are committed together, so that a crash neither repeats nor forgets one.
 *
 * For `clear` the view is read a second time in the same statement, hence of the same moment, without its WHERE.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/array.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

#include "base/giving.h"
#include "base/identity.h"
#include "base/own_table.h"
#include "base/relation.h"
#include "view/flatten.h"
#include "sink/alert.h"
#include "sink/outbox.h"
#include "stream/definition.h"
#include "view/builtin.h"
#include "view/compile.h"
#include "view/settings.h"
#include "view/size.h"
#include "view/target.h"

#define ALERT_MAX_ROWS 100000
#define ALERT_FETCH 1000
#define ALERT_KEPT_EVENTS "10000" /* of each view */
#define ALERT_PAYLOAD_MAX 7999	  /* bytes that NOTIFY takes */

typedef struct Alert
{
	Oid					  view;
	Oid					  owner;
	Oid					  target;  /* of events: a foreign table; or InvalidOid */
	char				 *name;	   /* qualified */
	char				 *columns; /* of the view, quoted */
	List				 *keys;	   /* char *: columns */
	Query				 *query;
	ContinuousViewOptions options;
} Alert;

/* ---------------------------------------------------------------- definition */

/* Whether a column of a continuous view is one that it groups by. */
static bool
alert_is_key_of(Oid relid, AttrNumber column)
{
	const CompiledView *view;
	ListCell		   *lc;

	if (!streamext_view_options(relid).continuous)
		return false;
	view = streamext_view_cached(relid, CurrentMemoryContext);
	foreach (lc, view->query->groupClause)
	{
		TargetEntry *entry =
			get_sortgroupref_tle(lfirst_node(SortGroupClause, lc)->tleSortGroupRef, view->query->targetList);

		if (!entry->resjunk && entry->resno == column)
			return true;
	}
	return false;
}

/* Output columns that are keys of the continuous views in FROM. */
static List *
alert_default_keys(Query *query, TupleDesc desc)
{
	List	 *keys = NIL;
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry	  *entry = lfirst_node(TargetEntry, lc);
		Var			  *var = (Var *) entry->expr;
		RangeTblEntry *rte;

		if (entry->resjunk || !IsA(var, Var) || var->varlevelsup != 0)
			continue;
		rte = rt_fetch(var->varno, query->rtable);
		if (rte->rtekind == RTE_RELATION && alert_is_key_of(rte->relid, var->varattno))
			keys = lappend(keys, pstrdup(NameStr(TupleDescAttr(desc, entry->resno - 1)->attname)));
	}
	return keys;
}

static bool
alert_has_column(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
			return true;
	return false;
}

static List *
alert_named_keys(const char *option, TupleDesc desc, const char *view)
{
	char	 *names = pstrdup(option);
	List	 *keys;
	ListCell *lc;

	if (!SplitIdentifierString(names, ',', &keys) || keys == NIL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for view option \"streamext.key\": %s", option),
						errdetail("The value must be names of columns, separated by commas."),
						errhint("Quote names in it as in SQL, such as streamext.key = 'device, \"Line\"'.")));
	foreach (lc, keys)
		if (!alert_has_column(desc, lfirst(lc)))
			ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
							errmsg("column \"%s\" of view \"%s\" does not exist", (char *) lfirst(lc), view),
							errhint("streamext.key names columns that the view outputs.")));
	return keys;
}

/* NULL: the view is gone, or no alert. */
static Alert *
alert_load(Oid relid)
{
	Alert		  *alert = palloc0(sizeof(Alert));
	Relation	   rel = try_relation_open(relid, AccessShareLock);
	StringInfoData columns;
	TupleDesc	   desc;

	if (rel == NULL)
		return NULL;
	alert->options = streamext_view_options(relid);
	if (!alert->options.alert || rel->rd_rel->relkind != RELKIND_VIEW)
	{
		relation_close(rel, NoLock);
		return NULL;
	}
	desc = RelationGetDescr(rel);
	alert->view = relid;
	alert->owner = rel->rd_rel->relowner;
	alert->name =
		quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel));
	alert->query = copyObject(get_view_query(rel));
	streamext_view_flatten_groups(alert->query);
	alert->keys = alert->options.key != NULL ? alert_named_keys(alert->options.key, desc, RelationGetRelationName(rel))
											 : alert_default_keys(alert->query, desc);
	initStringInfo(&columns);
	for (int i = 0; i < desc->natts; i++)
		appendStringInfo(&columns, "%s%s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(desc, i)->attname)));
	alert->columns = columns.data;
	relation_close(rel, NoLock);
	return alert;
}

/* The text of the view's own query without its WHERE. Within the owner's scope, whose search_path qualifies all names. */
static char *
alert_unfiltered(const Alert *alert)
{
	Relation rel = relation_open(alert->view, AccessShareLock);
	Query	*query = copyObject(get_view_query(rel));
	char	*text;

	query->jointree->quals = NULL;
	text = streamext_view_text(query);
	relation_close(rel, NoLock);
	return text;
}

/*
 * Keys and rows of the view; with `clear` also keys, without a row, that are there when WHERE is left out and of which it does not hold. Within the
 * owner's scope.
 */
static char *
alert_query(const Alert *alert)
{
	StringInfoData key;
	StringInfoData query;
	ListCell	  *lc;

	initStringInfo(&key);
	appendStringInfoString(&key, "pg_catalog.jsonb_build_object(");
	foreach (lc, alert->keys)
		appendStringInfo(&key, "%s%s, v.%s", foreach_current_index(lc) > 0 ? ", " : "", quote_literal_cstr(lfirst(lc)),
						 quote_identifier(lfirst(lc)));
	appendStringInfoString(&key, ")::pg_catalog.text");
	initStringInfo(&query);
	appendStringInfo(&query, "SELECT %s, pg_catalog.to_jsonb(v.*)::pg_catalog.text FROM %s AS v", key.data,
					 alert->name);
	if (alert->options.clear != NULL)
		appendStringInfo(
			&query,
			" UNION ALL SELECT %s, NULL FROM (%s) AS v(%s) GROUP BY 1 HAVING NOT coalesce(pg_catalog.bool_and((%s\n)), false)",
			key.data, alert_unfiltered(alert), alert->columns, alert->options.clear);
	return query.data;
}

/* The columns of a target that an event fills: its own, and those of the alert's rows, by name. */
static char *
alert_target_columns(const Alert *alert, Oid target)
{
	static const char *const own[] = { "id", "view", "key", "kind", "at", "row" };
	Relation				 rel = table_open(target, AccessShareLock);
	Relation				 view = relation_open(alert->view, AccessShareLock);
	TupleDesc				 desc = RelationGetDescr(rel);
	StringInfoData			 columns;

	initStringInfo(&columns);
	for (int i = 0; i < desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(desc, i)->attname);
		bool		fills = alert_has_column(RelationGetDescr(view), name);

		for (int j = 0; j < lengthof(own); j++)
			fills = fills || strcmp(own[j], name) == 0;
		if (fills && !TupleDescAttr(desc, i)->attisdropped && TupleDescAttr(desc, i)->attgenerated == '\0')
			appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "", quote_identifier(name));
	}
	relation_close(view, NoLock);
	table_close(rel, NoLock);
	if (columns.len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN), errmsg("\"%s\" has no column of an event", get_rel_name(target)),
				 errhint("Events have id, view, key, kind, at, row, and what the alert outputs.")));
	return columns.data;
}

/* Puts events, JSON objects of a text array, into the target. */
static char *
alert_insert(const Alert *alert, Oid target)
{
	char *name = streamext_relation_name(target);
	char *columns = alert_target_columns(alert, target);

	return psprintf(
		"INSERT INTO %s (%s) SELECT %s FROM (SELECT p.* FROM pg_catalog.unnest($1) WITH ORDINALITY AS u(e, n) "
		"CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(NULL::%s, "
		"COALESCE((u.e::pg_catalog.jsonb OPERATOR(pg_catalog.->) 'row'), '{}') OPERATOR(pg_catalog.||) "
		"u.e::pg_catalog.jsonb) AS p ORDER BY u.n) AS events",
		name, columns, columns, name);
}

Oid
streamext_alert_target(const char *to)
{
	Oid	  relid = InvalidOid;
	List *names;

	if (*to == '\0' || strlen(to) >= 4 * NAMEDATALEN + sizeof("\"\".\"\""))
		return InvalidOid;
	/* a plain name, or what is kept as the full name of a table that needs quotes; other channels may be called anything */
	if ((strchr(to, '"') != NULL ||
		 (strspn(to, "abcdefghijklmnopqrstuvwxyz_.0123456789") == strlen(to) && !isdigit((unsigned char) *to))) &&
		SplitIdentifierString(pstrdup(to), '.', &names) && list_length(names) <= 2)
		relid = RangeVarGetRelid(makeRangeVar(list_length(names) == 2 ? linitial(names) : NULL, llast(names), -1),
								 NoLock, true);
	return OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE ? relid : InvalidOid;
}

/* A channel, or a foreign table that takes rows. */
static void
alert_check_to(const Alert *alert)
{
	const char *to = alert->options.to;
	Oid			target = streamext_into_depended(alert->view);

	if (OidIsValid(target))
	{
		const ConnectorOps *connector = streamext_stream_kind(target);

		if (connector == NULL || !connector->writable)
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("alerts cannot be sent to foreign table \"%s\"", get_rel_name(target)),
							errhint("Streams of the wrappers %s take rows.", streamext_connector_writable())));
		return;
	}
	if (*to == '\0' || strlen(to) >= NAMEDATALEN)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("invalid value for view option \"streamext.to\": %s", to),
						errdetail("A channel of NOTIFY has a name of 1 to %d bytes.", NAMEDATALEN - 1),
						errhint("Name a channel so, or a foreign table that takes rows.")));
}

/* As the owner: that the target's INSERT is possible, and allowed. */
static void
alert_check_insert(const Alert *alert, Oid target)
{
	Oid types[] = { TEXTARRAYOID };

	if (pg_class_aclcheck(target, alert->owner, ACL_INSERT) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FOREIGN_TABLE, get_rel_name(target));
	if (SPI_prepare(alert_insert(alert, target), 1, types) == NULL)
		elog(ERROR, "could not prepare the INSERT of events");
	streamext_outbox_check(target);
}

/* Whether the alert's column is one that the continuous view groups by. Others have another value with the next row. */
static bool
alert_key_stays(const Alert *alert, Oid relid, const char *name)
{
	ListCell *lc;

	foreach (lc, alert->query->targetList)
	{
		const TargetEntry *entry = lfirst_node(TargetEntry, lc);
		const Var		  *var = (const Var *) entry->expr;

		if (!entry->resjunk && strcmp(streamext_view_column_name(alert->view, entry), name) == 0)
			return IsA(var, Var) && var->varlevelsup == 0 &&
				   rt_fetch(var->varno, alert->query->rtable)->relid == relid && alert_is_key_of(relid, var->varattno);
	}
	return false;
}

/* Whether the view shows all rows of one continuous view, none of which ever leaves it, by what they are grouped by. */
static bool
alert_rows_stay(const Alert *alert)
{
	const Query		   *query = alert->query;
	const CompiledView *view;
	Oid					relid;
	ListCell		   *lc;

	if (list_length(query->jointree->fromlist) != 1 || !IsA(linitial(query->jointree->fromlist), RangeTblRef) ||
		query->jointree->quals != NULL || query->havingQual != NULL || query->limitCount != NULL ||
		query->limitOffset != NULL || query->hasTargetSRFs)
		return false;
	relid = rt_fetch(linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex, query->rtable)->relid;
	if (!OidIsValid(relid) || !streamext_view_options(relid).continuous)
		return false;
	foreach (lc, alert->keys)
		if (!alert_key_stays(alert, relid, lfirst(lc)))
			return false;
	view = streamext_view_cached(relid, CurrentMemoryContext);
	/* a session's start is another one when a row before it comes */
	return view->options.retention == 0 && !view->window.sliding && view->window.kind != WINDOW_SESSION &&
		   !view->stateless && view->query->havingQual == NULL && view->query->limitCount == NULL;
}

void
streamext_alert_check(Oid view)
{
	Alert		 *alert = alert_load(view);
	IdentityScope scope;
	SPIPlanPtr	  plan;
	Oid			  target;

	if (alert == NULL)
		return;
	if (alert->options.absent > 0 && alert->options.clear != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("view options \"streamext.absent\" and \"streamext.clear\" exclude each other"),
				 errdetail("What is absent clears when it is seen again."), errhint("Leave streamext.clear out.")));
	if (alert->options.absent > 0 && alert_rows_stay(alert))
		ereport(NOTICE, (errmsg("no key is ever absent from view %s", alert->name),
						 errdetail("The continuous view in its FROM keeps each row for good."),
						 errhint("Read one that rows leave, such as one of the last minute: WHERE event_time > now() - "
								 "interval '1 minute'.")));
	if (alert->options.to != NULL)
		alert_check_to(alert);
	scope = streamext_identity_enter(alert->owner);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	plan = SPI_prepare(alert_query(alert), 0, NULL);
	if (plan == NULL || !SPI_is_cursor_plan(plan))
		ereport(ERROR, (errcode(ERRCODE_SYNTAX_ERROR),
						errmsg("invalid value for view option \"streamext.clear\": %s", alert->options.clear),
						errdetail("The value must be one condition on the columns of the view."),
						errhint("Write it as in WHERE, such as streamext.clear = 'n < 5'.")));
	target = alert->options.to != NULL ? streamext_into_depended(view) : InvalidOid;
	if (OidIsValid(target))
		alert_check_insert(alert, target);
	SPI_finish();
	streamext_identity_leave(scope);
}

/* ---------------------------------------------------------------- reading */

typedef struct AlertRows
{
	Datum *keys, *rows, *kept;
	int	   nrows, nkept, capacity;
} AlertRows;

static void
alert_take(AlertRows *rows, Datum key, Datum row, bool is_row)
{
	if (rows->nrows + rows->nkept >= ALERT_MAX_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("an alert has more than %d rows", ALERT_MAX_ROWS),
				 errhint("Aggregate in the view, or give it a narrower WHERE.")));
	if (rows->nrows + rows->nkept >= rows->capacity)
	{
		rows->capacity = Max(rows->capacity * 2, 64);
		rows->keys =
			rows->keys ? repalloc(rows->keys, sizeof(Datum) * rows->capacity) : palloc(sizeof(Datum) * rows->capacity);
		rows->rows =
			rows->rows ? repalloc(rows->rows, sizeof(Datum) * rows->capacity) : palloc(sizeof(Datum) * rows->capacity);
		rows->kept =
			rows->kept ? repalloc(rows->kept, sizeof(Datum) * rows->capacity) : palloc(sizeof(Datum) * rows->capacity);
	}
	key = PointerGetDatum(PG_DETOAST_DATUM_COPY(key));
	if (is_row)
	{
		rows->keys[rows->nrows] = key;
		rows->rows[rows->nrows++] = PointerGetDatum(PG_DETOAST_DATUM_COPY(row));
	}
	else
		rows->kept[rows->nkept++] = key;
}

/*
 * A superuser's alert does not run what an ordinary role has written: a dump is being restored (base/identity.h). The plan has the view, those below it
 * and the option clear; that its rows become JSON calls casts of their types.
 */
static void
alert_check_trust(const Alert *alert, SPIPlanPtr plan)
{
	bool	  mistrusts = streamext_view_mistrusts_rows(alert->view);
	ListCell *source, *query;

	foreach (source, SPI_plan_get_plan_sources(plan))
		foreach (query, ((CachedPlanSource *) lfirst(source))->query_list)
			mistrusts = mistrusts || streamext_query_mistrusts(lfirst_node(Query, query));
	if (mistrusts)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("the alert is a superuser's and calls a function of an ordinary role"),
						errhint("Give the view to the role that has written it by ALTER VIEW ... OWNER TO.")));
}

/* Views below it may be others than when it was made; to put them into the query could take all memory, and nothing would end that. */
static void
alert_check_size(const char *sql)
{
	ListCell *lc;

	foreach (lc, pg_parse_query(sql))
		if (streamext_query_size(parse_analyze_fixedparams(lfirst_node(RawStmt, lc), sql, NULL, 0, NULL)) >
			STREAMEXT_MAX_ENTRIES)
			ereport(ERROR, (errcode(ERRCODE_STATEMENT_TOO_COMPLEX), errmsg("the query of an alert is too large"),
							errdetail("With the views put where they are named it names more than %d tables.",
									  STREAMEXT_MAX_ENTRIES),
							errhint("Make tables or materialized views of what is named more than once.")));
}

/* As the view's owner. What is taken is in the current memory context. */
static void
alert_read(const Alert *alert, AlertRows *rows)
{
	MemoryContext cxt = CurrentMemoryContext;
	IdentityScope scope = streamext_identity_enter(alert->owner);
	SPIPlanPtr	  plan;
	Portal		  portal;
	char		 *sql;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	sql = alert_query(alert);
	alert_check_size(sql);
	plan = SPI_prepare(sql, 0, NULL);
	alert_check_trust(alert, plan);
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	do
	{
		MemoryContext old;

		SPI_cursor_fetch(portal, true, ALERT_FETCH);
		old = MemoryContextSwitchTo(cxt);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			bool  no_key, no_row;
			Datum key = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &no_key);
			Datum row = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &no_row);

			alert_take(rows, key, row, !no_row);
		}
		MemoryContextSwitchTo(old);
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	SPI_finish();
	streamext_identity_leave(scope);
}

/* ---------------------------------------------------------------- the next state */

/*
 * $1 view, $2 now, $3 keys and $4 rows that are there, $5 keys of which `clear` does not hold, $6 has clear, $7 hold, $8 repeat, $9 absent: us,
 * NULL: none. The first row of a key is its row. seen_at is when a key that is not there was there last: at the evaluation before.
 */
static const char alert_step[] =
	"WITH seen AS ("
	" SELECT DISTINCT ON (i.k) i.k, i.r"
	" FROM (SELECT u.k::jsonb AS k, u.r::jsonb AS r, u.n FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS u(k, r, n)) AS i"
	" ORDER BY i.k, i.n),"
	" kept AS (SELECT DISTINCT u.k::jsonb AS k FROM unnest($5::text[]) AS u(k)),"
	" before AS (SELECT (SELECT a.evaluated_at FROM streamext_internal.alert_view AS a WHERE a.view = $1) AS at),"
	" known AS (SELECT s.*, CASE WHEN s.present THEN b.at ELSE s.seen_at END AS last_seen"
	" FROM streamext_internal.alert_state AS s, before AS b WHERE s.view = $1),"
	" judged AS ("
	" SELECT coalesce(i.k, s.key) AS k, i.k IS NOT NULL AS is_present, coalesce(i.r, s.row) AS r, s.*,"
	"  CASE WHEN $9::bigint IS NULL THEN i.k IS NOT NULL ELSE i.k IS NULL AND $2 >= s.last_seen + $9 * interval '1 microsecond' END AS active,"
	"  CASE WHEN $9::bigint IS NOT NULL THEN i.k IS NULL WHEN $6 THEN kept.k IS NOT NULL ELSE i.k IS NOT NULL END AS stays"
	" FROM seen AS i FULL JOIN known AS s ON i.k = s.key LEFT JOIN kept ON kept.k = coalesce(i.k, s.key)),"
	" stepped AS ("
	" SELECT j.*, CASE WHEN j.state = 'firing' THEN CASE WHEN j.stays THEN 'firing' END"
	"  WHEN j.active AND $2 >= CASE WHEN j.state = 'pending' THEN j.since ELSE $2 END + $7 * interval '1 microsecond' THEN 'firing'"
	"  WHEN j.active THEN 'pending' END AS next FROM judged AS j),"
	" told AS ("
	" SELECT t.*, CASE WHEN t.state = 'firing' AND t.next IS NULL THEN 'cleared'"
	"  WHEN t.state IS DISTINCT FROM 'firing' AND t.next = 'firing' THEN 'fired'"
	"  WHEN t.state = 'firing' AND $2 >= t.last_event + $8::bigint * interval '1 microsecond' THEN 'repeated' END AS kind FROM stepped AS t),"
	" rows AS ("
	" SELECT t.k, t.next, CASE WHEN t.next IS NOT DISTINCT FROM t.state THEN t.since WHEN t.next IS NOT NULL THEN $2 END AS since, t.is_present,"
	"  CASE WHEN t.is_present THEN NULL ELSE t.last_seen END AS seen_at, CASE WHEN t.kind IS NOT NULL THEN $2 ELSE t.last_event END AS last_event, t.r"
	" FROM told AS t),"
	" stored AS ("
	" INSERT INTO streamext_internal.alert_state AS a (view, key, state, since, present, seen_at, last_event, \"row\")"
	" SELECT $1, n.k, n.next, n.since, n.is_present, n.seen_at, n.last_event, n.r FROM rows AS n WHERE n.next IS NOT NULL OR $9::bigint IS NOT NULL"
	" ON CONFLICT (view, key) DO UPDATE SET state = excluded.state, since = excluded.since, present = excluded.present, seen_at = excluded.seen_at,"
	"  last_event = excluded.last_event, \"row\" = excluded.\"row\""
	"  WHERE (a.state, a.since, a.present, a.seen_at, a.last_event, a.\"row\") IS DISTINCT FROM"
	"   (excluded.state, excluded.since, excluded.present, excluded.seen_at, excluded.last_event, excluded.\"row\")),"
	" gone AS ("
	" DELETE FROM streamext_internal.alert_state AS a USING rows AS n WHERE a.view = $1 AND a.key = n.k AND n.next IS NULL AND $9::bigint IS NULL),"
	" events AS ("
	" INSERT INTO streamext_internal.alert_event (view, key, kind, at, \"row\")"
	" SELECT $1, t.k, t.kind, $2, t.r FROM told AS t WHERE t.kind IS NOT NULL ORDER BY t.k"
	" RETURNING id, key, kind, at, \"row\")"
	" SELECT jsonb_build_object('id', e.id, 'view', $10::text, 'key', e.key, 'kind', e.kind, 'at', e.at, 'row', e.\"row\")::text,"
	"  jsonb_build_object('id', e.id, 'view', $10::text, 'key', e.key, 'kind', e.kind, 'at', e.at, 'row', NULL, 'cut', true)::text,"
	"  jsonb_build_object('id', e.id, 'view', $10::text, 'kind', e.kind, 'at', e.at, 'cut', true)::text"
	" FROM events AS e ORDER BY e.id";

/* The first text that NOTIFY takes. */
static void
alert_notify(const char *channel, HeapTuple event, TupleDesc desc)
{
	for (int i = 1; i <= 3; i++)
	{
		char *payload = SPI_getvalue(event, desc, i);

		if (strlen(payload) > ALERT_PAYLOAD_MAX)
			continue;
		Async_Notify(channel, payload);
		return;
	}
}

static Datum
alert_array(Datum *texts, int n)
{
	return PointerGetDatum(construct_array(texts, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
alert_run(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls)
{
	if (SPI_execute_with_args(streamext_own_sql(sql), nargs, types, values, nulls, false, 0) < 0)
		elog(ERROR, "could not write alerts");
}

/* Whom events are told: the channel at once; those for a target are kept in cxt for alert_deliver. */
static void
alert_tell(const Alert *alert, AlertRows *events, MemoryContext cxt)
{
	const char *to = alert->options.to;

	if (to == NULL)
		return;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old;

		if (!OidIsValid(alert->target))
		{
			alert_notify(to, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			continue;
		}
		old = MemoryContextSwitchTo(cxt);
		alert_take(events, CStringGetTextDatum(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1)),
				   (Datum) 0, false);
		MemoryContextSwitchTo(old);
	}
}

/* Events into the target, as the owner. */
static void
alert_deliver(const Alert *alert, const AlertRows *events)
{
	Giving		  giving = { .view = alert->view };
	IdentityScope scope;
	Oid			  types[] = { TEXTARRAYOID };
	Datum		  values[1];

	if (events->nkept == 0)
		return;
	scope = streamext_identity_enter(alert->owner);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	values[0] = alert_array(events->kept, events->nkept);
	PG_TRY();
	{
		streamext_giving_begin(&giving);
		if (SPI_execute_with_args(alert_insert(alert, alert->target), 1, types, values, NULL, false, 0) !=
			SPI_OK_INSERT)
			elog(ERROR, "could not send events");
	}
	PG_FINALLY();
	{
		streamext_giving_end();
	}
	PG_END_TRY();
	SPI_finish();
	streamext_identity_leave(scope);
}

/* What was found is the next state; events for a target are put into `events`. */
static void
alert_write(const Alert *alert, const AlertRows *rows, TimestampTz now, AlertRows *events)
{
	MemoryContext				 cxt = CurrentMemoryContext;
	const ContinuousViewOptions *options = &alert->options;
	Oid							 types[10] = { OIDOID,	TIMESTAMPTZOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID,
											   BOOLOID, INT8OID,		INT8OID,	  INT8OID,		TEXTOID };
	Datum						 values[10];
	char						 nulls[11] = "          ";
	IdentityScope				 scope;

	values[0] = ObjectIdGetDatum(alert->view);
	values[1] = TimestampTzGetDatum(now);
	values[2] = alert_array(rows->keys, rows->nrows);
	values[3] = alert_array(rows->rows, rows->nrows);
	values[4] = alert_array(rows->kept, rows->nkept);
	values[5] = BoolGetDatum(options->clear != NULL);
	values[6] = Int64GetDatum(options->hold);
	values[7] = Int64GetDatum(options->repeat);
	values[8] = Int64GetDatum(options->absent);
	values[9] = CStringGetTextDatum(alert->name);
	nulls[7] = options->repeat == 0 ? 'n' : ' ';
	nulls[8] = options->absent == 0 ? 'n' : ' ';
	scope = streamext_own_begin();
	alert_run(alert_step, 10, types, values, nulls);
	if (SPI_processed > 0)
	{
		alert_tell(alert, events, cxt);
		alert_run(
			"DELETE FROM streamext_internal.alert_event WHERE view = $1 AND id <="
			" (SELECT id FROM streamext_internal.alert_event WHERE view = $1 ORDER BY id DESC OFFSET " ALERT_KEPT_EVENTS
			" LIMIT 1)",
			1, types, values, NULL);
	}
	if (options->absent > 0)
		alert_run("INSERT INTO streamext_internal.alert_view AS a (view, evaluated_at) VALUES ($1, $2)"
				  " ON CONFLICT (view) DO UPDATE SET evaluated_at = $2 WHERE a.evaluated_at IS DISTINCT FROM $2",
				  2, types, values, NULL);
	streamext_own_end(scope);
}

void
streamext_alert_evaluate(Oid view, TimestampTz now)
{
	Alert	 *alert = alert_load(view);
	AlertRows rows = { 0 };
	AlertRows events = { 0 };

	if (alert == NULL)
		return;
	alert->target = alert->options.to != NULL ? streamext_into_depended(view) : InvalidOid;
	alert_read(alert, &rows);
	alert_write(alert, &rows, now, &events);
	alert_deliver(alert, &events);
}
