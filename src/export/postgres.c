/*
 * export/postgres.c
 *		The dialect of PostgreSQL itself: an engine for tests, and what raw records go through.
 *
 * Records are decoded and keys and arguments evaluated by streamext.export_rows, so every expression that a continuous view may have can be
 * exported; what is left to SQL is the aggregation. Its texts are for people.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/typcache.h"

#include "base/relation.h"
#include "export/dialect.h"

static char *
postgres_type(const ExportPlan *plan, Oid type, int32 typmod)
{
	return format_type_with_typemod(type, typmod);
}

static char *
postgres_expression(ExportPlan *plan, Expr *expr)
{
	Node *copy = copyObject((Node *) expr);
	List *context = deparse_context_for(get_rel_name(plan->config->relid), plan->config->relid);

	if (plan->view->stream_varno != 1)
		ChangeVarNodes(copy, plan->view->stream_varno, 1, 0);
	return deparse_expression(copy, context, false, false);
}

/* An input as a float8. */
static char *
postgres_float(const ExportPartial *p, int i)
{
	return psprintf("i%d::double precision", p->input[i] + 1);
}

static char *
postgres_moments(const ExportPartial *p)
{
	char *x = postgres_float(p, 0);

	return psprintf("ARRAY[count(%s), coalesce(sum(%s), 0), coalesce(var_pop(%s) * count(%s), 0)]::double precision[]",
					x, x, x, x);
}

static char *
postgres_regression(const ExportPartial *p)
{
	char *y = postgres_float(p, 0), *x = postgres_float(p, 1);

	return psprintf(
		"ARRAY[regr_count(%s, %s), coalesce(sum(%s) FILTER (WHERE %s IS NOT NULL), 0), coalesce(regr_sxx(%s, %s), 0), "
		"coalesce(sum(%s) FILTER (WHERE %s IS NOT NULL), 0), coalesce(regr_syy(%s, %s), 0), "
		"coalesce(regr_sxy(%s, %s), 0)]::double precision[]",
		y, x, x, y, y, x, y, x, y, x, y, x);
}

/* By the time in input i, and between equal times by the position in the partition. */
static char *
postgres_by_time(const ExportPartial *p, const char *what, int i)
{
	bool last = p->kind == EXPORT_LAST || p->kind == EXPORT_LAST_POSITION;

	return psprintf("streamext.%s(%s, i%d ORDER BY r.position)", last ? "last" : "first", what, p->input[i] + 1);
}

/* Values as an array, each once where that can be told; NULL if there is a filter that lets none through. NULLs in it are left out by who reads it. */
static char *
postgres_values(const ExportPartial *p)
{
	bool  once = p->kind != EXPORT_PERCENTILE && OidIsValid(lookup_type_cache(p->argtype, TYPECACHE_LT_OPR)->lt_opr);
	char *values = psprintf("array_agg(%si%d)", once ? "DISTINCT " : "", p->input[0] + 1);

	return p->ninputs == 1 ? values : psprintf("CASE WHEN count(i%d) > 0 THEN %s END", p->input[1] + 1, values);
}

static char *
postgres_partial(ExportPlan *plan, const ExportPartial *p)
{
	static const char *const calls[] = {
		[EXPORT_COUNT] = "count",	  [EXPORT_SUM] = "sum",			  [EXPORT_MIN] = "min",
		[EXPORT_MAX] = "max",		  [EXPORT_BOOL_AND] = "bool_and", [EXPORT_BOOL_OR] = "bool_or",
		[EXPORT_BIT_AND] = "bit_and", [EXPORT_BIT_OR] = "bit_or",	  [EXPORT_BIT_XOR] = "bit_xor",
		[EXPORT_FIRST_AT] = "min",	  [EXPORT_LAST_AT] = "max",
	};
	int i = p->input[0] + 1;

	if (p->ninputs == 0)
		return pstrdup("count(*)");
	switch (p->kind)
	{
		case EXPORT_COUNT_PAIRS:
			return psprintf("regr_count(%s, %s)", postgres_float(p, 0), postgres_float(p, 1));
		case EXPORT_MOMENTS:
			return postgres_moments(p);
		case EXPORT_REGRESSION:
			return postgres_regression(p);
		case EXPORT_FIRST:
		case EXPORT_LAST:
			return postgres_by_time(p, psprintf("i%d", i), 1);
		case EXPORT_FIRST_POSITION:
		case EXPORT_LAST_POSITION:
			return postgres_by_time(p, "r.position", 0);
		case EXPORT_SET:
		case EXPORT_DISTINCT:
		case EXPORT_PERCENTILE:
			return postgres_values(p);
		case EXPORT_SUM_NUMERIC:
			return psprintf("sum(i%d::numeric)", i);
		case EXPORT_SQUARES:
			return psprintf("sum(i%d::numeric * i%d::numeric)", i, i);
		case EXPORT_SUM:
			if (p->argtype == FLOAT4OID)
				return psprintf("sum(%s)", postgres_float(p, 0));
			/* FALLTHROUGH */
		default:
			return psprintf("%s(i%d)", calls[p->kind], i);
	}
}

static char *
postgres_at(ExportPlan *plan)
{
	return pstrdup("at");
}

/* "streamext.export_rows(view, batch) AS r (columns)" */
static void
postgres_put_rows(StringInfo to, const ExportPlan *plan)
{
	Oid relid = plan->view->relid;

	appendStringInfo(to, "streamext.export_rows(%s::regclass, 'batch'::regclass) AS r (",
					 quote_literal_cstr(streamext_relation_name(relid)));
	streamext_export_row_columns(to, plan);
	appendStringInfoChar(to, ')');
}

char *
streamext_export_fill(ExportPlan *plan, const char *rows)
{
	StringInfoData buf;
	bool		   session = plan->view->window.kind == WINDOW_SESSION;

	initStringInfo(&buf);
	appendStringInfo(&buf, "INSERT INTO %s (", streamext_export_stage(plan, "partial"));
	streamext_export_stage_names(&buf, plan);
	appendStringInfoString(&buf, ") SELECT ");
	for (int k = 0; k < plan->nkeys; k++)
		appendStringInfo(&buf, "r.k%d, ", k + 1);
	if (plan->has_at)
		appendStringInfoString(&buf, "r.at, ");
	if (session)
		appendStringInfoString(&buf, "min(r.event_time), max(r.event_time), ");
	appendStringInfoString(&buf, "count(*)");
	for (int p = 0; p < plan->npartials; p++)
		appendStringInfo(&buf, ", %s", postgres_partial(plan, &plan->partials[p]));
	appendStringInfo(&buf, " FROM %s WHERE r.kept", rows);
	for (int k = 0; k < plan->nkeys; k++)
		appendStringInfo(&buf, "%sr.k%d", k > 0 ? ", " : " GROUP BY ", k + 1);
	if (plan->has_at)
		appendStringInfo(&buf, "%sr.at", plan->nkeys > 0 ? ", " : " GROUP BY ");
	if (plan->nkeys == 0 && !plan->has_at)
		appendStringInfoString(&buf, " HAVING count(*) > 0");
	return buf.data;
}

static char *
postgres_rows(const ExportPlan *plan)
{
	StringInfoData buf;

	initStringInfo(&buf);
	postgres_put_rows(&buf, plan);
	return buf.data;
}

static char *
postgres_fill(ExportPlan *plan)
{
	return streamext_export_fill(plan, postgres_rows(plan));
}

/* What the decoder or an expression rejects: it is rejected again when it is merged, with a dead letter. */
static char *
postgres_fill_raw(ExportPlan *plan)
{
	return psprintf(
		"INSERT INTO %s SELECT b.topic, b.partition, b.position, b.\"timestamp\", b.key, b.payload FROM batch b JOIN %s "
		"USING (topic, partition, position) WHERE r.rejected",
		streamext_export_stage(plan, "records"), postgres_rows(plan));
}

static char *
postgres_newest(ExportPlan *plan)
{
	return psprintf(
		"SELECT coalesce(jsonb_object_agg(t.topic, t.newest), '{}') FROM (SELECT p.topic, jsonb_object_agg(p.partition, p.newest) AS newest "
		"FROM (SELECT r.topic, r.partition, max(r.event_time) AS newest FROM %s WHERE r.event_time IS NOT NULL GROUP BY 1, 2) p "
		"GROUP BY p.topic) t",
		postgres_rows(plan));
}

static char *
postgres_counts(ExportPlan *plan)
{
	return psprintf("SELECT jsonb_build_object('delivered', count(*), 'rejected', 0) FROM batch b%s",
					plan->config->tombstones_rejected ? "" : " WHERE b.payload IS NOT NULL");
}

const ExportDialect streamext_export_postgres = {
	.name = "postgres",
	.type = postgres_type,
	.expression = postgres_expression,
	.partial = postgres_partial,
	.at = postgres_at,
	.fill = postgres_fill,
	.fill_raw = postgres_fill_raw,
	.newest = postgres_newest,
	.counts = postgres_counts,
};
