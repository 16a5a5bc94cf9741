/*
 * export/state.c
 *		The table of merged partials of an exported view, the statement that merges a batch's into it, and the query over it that is the view.
 *
 * A row of the table is a group in a pane: keys, the time that stands for the pane, partials. What comes late for some of a pane's hopping
 * windows has rows of its own that say from which window on they count (opens), as groups of a continuous view have (docs/internals.md).
 *
 * The table is found by a hash of keys and pane, so that keys of any length and NULLs cost the same, and a batch is one hashed join. The
 * query groups in any case, so should two rows of one group ever stand there, as after another major version of PostgreSQL hashes otherwise,
 * the answer is the same.
 */
#include "base/streamext.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "base/relation.h"
#include "export/plan.h"
#include "read/shard_rows.h"

/* ---- names ---- */

char *
streamext_export_table(Oid viewoid)
{
	const char *name = get_rel_name(viewoid);
	const char *suffix = "_export";
	int			room = NAMEDATALEN - 1 - strlen(suffix);
	Oid			relid = streamext_export_partials(viewoid);

	if (OidIsValid(relid) && get_rel_relkind(relid) != RELKIND_RELATION)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("the table of merged partials of view \"%s\" is gone", name),
						errhint("streamext.import takes the view back; it can be exported again then.")));
	if (OidIsValid(relid))
		return streamext_relation_name(relid);
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(viewoid)),
									  psprintf("%.*s%s", pg_mbcliplen(name, strlen(name), room), name, suffix));
}

char *
streamext_export_stage(const ExportPlan *plan, const char *name)
{
	return psprintf("streamext_%s_%u", name, plan->view->relid);
}

char *
streamext_export_key_type(const ExportPlan *plan, int key)
{
	const KeySpec *spec = &plan->view->keys[plan->keys[key]];
	char		  *name = format_type_with_typemod(spec->type, spec->typmod);

	if (OidIsValid(spec->collation) && spec->collation != get_typcollation(spec->type))
		return psprintf("%s COLLATE %s", name, generate_collation_name(spec->collation));
	return name;
}

static bool
state_is_session(const ExportPlan *plan)
{
	return plan->view->window.kind == WINDOW_SESSION;
}

/* "k1, ..., at, opens" with a prefix before each. */
static void
state_put_group(StringInfo to, const ExportPlan *plan, const char *prefix)
{
	const char *comma = "";

	for (int k = 0; k < plan->nkeys; k++, comma = ", ")
		appendStringInfo(to, "%s%sk%d", comma, prefix, k + 1);
	if (plan->has_at)
		appendStringInfo(to, "%s%sat", comma, prefix);
	if (streamext_export_has_opens(plan))
		appendStringInfo(to, ", %sopens", prefix);
}

bool
streamext_export_has_opens(const ExportPlan *plan)
{
	return plan->view->window.kind == WINDOW_HOP;
}

/* ---- tables ---- */

static void
state_put_keys(StringInfo to, const ExportPlan *plan)
{
	for (int k = 0; k < plan->nkeys; k++)
		appendStringInfo(to, "k%d %s, ", k + 1, streamext_export_key_type(plan, k));
	if (plan->has_at)
		appendStringInfoString(to, "at timestamp with time zone NOT NULL, ");
}

static void
state_put_partials(StringInfo to, const ExportPlan *plan)
{
	if (state_is_session(plan))
		appendStringInfoString(to, "first timestamp with time zone NOT NULL, last timestamp with time zone NOT NULL, ");
}

char *
streamext_export_create_table(const ExportPlan *plan)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "CREATE TABLE %s (", streamext_export_table(plan->view->relid));
	state_put_keys(&buf, plan);
	if (streamext_export_has_opens(plan))
		appendStringInfoString(&buf, "opens timestamp with time zone, ");
	state_put_partials(&buf, plan);
	for (int p = 0; p < plan->npartials; p++)
		appendStringInfo(&buf, "%s %s, ", plan->partials[p].name, plan->partials[p].type);
	appendStringInfoString(&buf, "h bigint NOT NULL) WITH (fillfactor = 70)");
	return buf.data;
}

char *
streamext_export_create_stage(const ExportPlan *plan)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "CREATE TEMP TABLE IF NOT EXISTS %s (", streamext_export_stage(plan, "partial"));
	state_put_keys(&buf, plan);
	state_put_partials(&buf, plan);
	appendStringInfoString(&buf, "rows bigint NOT NULL");
	for (int p = 0; p < plan->npartials; p++)
		appendStringInfo(&buf, ", %s %s", plan->partials[p].name, plan->partials[p].stage);
	appendStringInfo(&buf, "); DELETE FROM %s", streamext_export_stage(plan, "partial"));
	return buf.data;
}

char *
streamext_export_create_raw(const ExportPlan *plan)
{
	return psprintf(
		"CREATE TEMP TABLE IF NOT EXISTS %s (topic text NOT NULL, partition integer NOT NULL, position bigint NOT NULL, "
		"timestamp timestamp with time zone, key bytea, payload bytea); DELETE FROM %s",
		streamext_export_stage(plan, "records"), streamext_export_stage(plan, "records"));
}

void
streamext_export_stage_names(StringInfo to, const ExportPlan *plan)
{
	for (int k = 0; k < plan->nkeys; k++)
		appendStringInfo(to, "k%d, ", k + 1);
	if (plan->has_at)
		appendStringInfoString(to, "at, ");
	if (state_is_session(plan))
		appendStringInfoString(to, "first, last, ");
	appendStringInfoString(to, "rows");
	for (int p = 0; p < plan->npartials; p++)
		appendStringInfo(to, ", %s", plan->partials[p].name);
}

/* ---- merging ---- */

/* All columns of the table but h. */
static void
state_put_columns(StringInfo to, const ExportPlan *plan, const char *prefix)
{
	int before = to->len;

	state_put_group(to, plan, prefix);
	if (state_is_session(plan))
		appendStringInfo(to, ", %sfirst, %slast", prefix, prefix);
	for (int p = 0; p < plan->npartials; p++)
		appendStringInfo(to, "%s%s%s", to->len > before ? ", " : "", prefix, plan->partials[p].name);
}

static bool
state_has_group(const ExportPlan *plan)
{
	return plan->nkeys > 0 || plan->has_at;
}

/* A batch's partials, a group once, with its hash. */
static void
state_put_batch(StringInfo to, const ExportPlan *plan, const char *stage, bool states)
{
	appendStringInfoString(to, "SELECT ");
	if (state_has_group(plan))
	{
		appendStringInfoString(to, "hash_record_extended(ROW(");
		state_put_group(to, plan, "");
		appendStringInfoString(to, "), 0) AS h, ");
		state_put_group(to, plan, "");
	}
	else
		appendStringInfoString(to, "0::bigint AS h");
	if (state_is_session(plan))
		appendStringInfoString(to, ", min(first) AS first, max(last) AS last");
	for (int p = 0; p < plan->npartials; p++)
		appendStringInfo(to, ", %s AS %s",
						 states ? streamext_export_combine_many(&plan->partials[p], "")
								: streamext_export_combine_stage(&plan->partials[p]),
						 plan->partials[p].name);
	appendStringInfo(to, " FROM %s", stage);
	if (state_has_group(plan))
	{
		appendStringInfoString(to, " GROUP BY ");
		state_put_group(to, plan, "");
	}
	else
		appendStringInfoString(to, " HAVING count(*) > 0");
}

static void
state_put_same(StringInfo to, const ExportPlan *plan)
{
	appendStringInfoString(to, "t.h = s.h");
	for (int k = 0; k < plan->nkeys; k++)
		appendStringInfo(to, " AND t.k%d IS NOT DISTINCT FROM s.k%d", k + 1, k + 1);
	if (plan->has_at)
		appendStringInfoString(to, " AND t.at = s.at");
	if (streamext_export_has_opens(plan))
		appendStringInfoString(to, " AND t.opens IS NOT DISTINCT FROM s.opens");
}

char *
streamext_export_merge_sql(const ExportPlan *plan, const char *stage, bool states)
{
	StringInfoData buf;
	const char	  *comma = "";
	int			   begun;

	initStringInfo(&buf);
	appendStringInfo(&buf, "MERGE INTO %s t USING (", streamext_export_table(plan->view->relid));
	state_put_batch(&buf, plan, stage, states);
	appendStringInfoString(&buf, ") s ON ");
	state_put_same(&buf, plan);
	begun = buf.len;
	appendStringInfoString(&buf, " WHEN MATCHED THEN UPDATE SET ");
	if (state_is_session(plan))
	{
		appendStringInfoString(&buf, "first = least(t.first, s.first), last = greatest(t.last, s.last)");
		comma = ", ";
	}
	for (int p = 0; p < plan->npartials; p++, comma = ", ")
		appendStringInfo(&buf, "%s%s = %s", comma, plan->partials[p].name,
						 streamext_export_combine_two(&plan->partials[p]));
	if (comma[0] == '\0') /* keys alone */
	{
		buf.len = begun;
		appendStringInfoString(&buf, " WHEN MATCHED THEN DO NOTHING");
	}
	appendStringInfoString(&buf, " WHEN NOT MATCHED THEN INSERT (h");
	if (state_has_group(plan) || plan->npartials > 0)
		appendStringInfoString(&buf, ", ");
	state_put_columns(&buf, plan, "");
	appendStringInfoString(&buf, ") VALUES (s.h");
	if (state_has_group(plan) || plan->npartials > 0)
		appendStringInfoString(&buf, ", ");
	state_put_columns(&buf, plan, "s.");
	appendStringInfoString(&buf, ")");
	return buf.data;
}

/* ---- the view ---- */

static char *
state_interval(int64 usecs)
{
	return psprintf("'%lld us'::interval", (long long) usecs);
}

/* What rows the sliding predicate lets through. */
static void
state_put_sliding(StringInfo to, const Window *window)
{
	char *now = psprintf("streamext.export_now(%lld)", (long long) window->step);

	if (!window->sliding)
		return;
	appendStringInfo(to, " WHERE t.at %s %s - %s", window->lower_inclusive ? ">=" : ">", now,
					 state_interval(window->length));
	if (window->has_upper)
		appendStringInfo(to, " AND t.at %s %s", window->upper_inclusive ? "<=" : "<", now);
}

static char *
state_trunc(const ExportPlan *plan)
{
	const Window *window = &plan->view->window;

	if (!window->sliding)
		return "t.at";
	return psprintf("date_trunc(%s, t.at, %s)", quote_literal_cstr(window->trunc_unit),
					quote_literal_cstr(window->trunc_zone != NULL ? window->trunc_zone : plan->view->options.timezone));
}

static char *
state_tumble(const Window *window)
{
	if (!window->sliding)
		return "t.at";
	return psprintf("date_bin(%s, t.at, %s::timestamp with time zone)", state_interval(window->size),
					quote_literal_cstr(timestamptz_to_str(window->origin)));
}

/* Hopping windows of each row, those that it came too late for left out. */
static void
state_put_hop(StringInfo to, const ExportPlan *plan)
{
	const Window *window = &plan->view->window;

	appendStringInfo(
		to,
		"(SELECT t.*, w.w FROM %s t JOIN LATERAL streamext.hop(%s, %s, t.at) w(w) ON t.opens IS NULL OR w.w >= t.opens",
		streamext_export_table(plan->view->relid), state_interval(window->size), state_interval(window->slide));
	state_put_sliding(to, window);
	appendStringInfoChar(to, ')');
}

/* Panes are no wider than the gap, so a group's rows of one pane are of one session, and sessions are chains of panes. */
static void
state_put_sessions(StringInfo to, const ExportPlan *plan)
{
	StringInfoData by;

	initStringInfo(&by);
	for (int k = 0; k < plan->nkeys; k++)
		appendStringInfo(&by, "%st.k%d", k > 0 ? ", " : "PARTITION BY ", k + 1);
	appendStringInfo(
		to,
		"(SELECT t.*, min(t.first) OVER (%s%s t.session) AS w FROM (SELECT t.*, sum(t.begins) OVER (%s ORDER BY t.first) AS session FROM "
		"(SELECT t.*, CASE WHEN t.first - max(t.last) OVER (%s ORDER BY t.first, t.last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) <= %s "
		"THEN 0 ELSE 1 END AS begins FROM %s t",
		by.data, plan->nkeys > 0 ? "," : "PARTITION BY", by.data, by.data, state_interval(plan->view->window.size),
		streamext_export_table(plan->view->relid));
	state_put_sliding(to, &plan->view->window);
	appendStringInfoString(to, ") t) t)");
}

/* Rows of the table, with the window's start as w. */
static void
state_put_rows(StringInfo to, const ExportPlan *plan)
{
	const Window *window = &plan->view->window;

	switch (window->kind)
	{
		case WINDOW_HOP:
			state_put_hop(to, plan);
			return;
		case WINDOW_SESSION:
			state_put_sessions(to, plan);
			return;
		case WINDOW_TUMBLE:
			appendStringInfo(to, "(SELECT t.*, %s AS w", state_tumble(window));
			break;
		case WINDOW_TRUNC:
			appendStringInfo(to, "(SELECT t.*, %s AS w", state_trunc(plan));
			break;
		case WINDOW_NONE:
			appendStringInfoString(to, "(SELECT t.*");
			break;
	}
	appendStringInfo(to, " FROM %s t", streamext_export_table(plan->view->relid));
	state_put_sliding(to, window);
	appendStringInfoChar(to, ')');
}

/* A key's number among the columns k1, ...: of all but the window and the grouping set. */
static int
state_key_column(const ExportPlan *plan, int key)
{
	for (int k = 0; k < plan->nkeys; k++)
		if (plan->keys[k] == key)
			return k;
	elog(ERROR, "key %d is in no column", key);
	return -1; /* keep the compiler quiet */
}

static char *
state_key(const ExportPlan *plan, int key)
{
	return key == plan->view->window_key ? "s.w" : psprintf("s.k%d", state_key_column(plan, key) + 1);
}

static char *
state_null(const ExportPlan *plan, int key)
{
	const KeySpec *spec = &plan->view->keys[key];

	return psprintf("NULL::%s", format_type_with_typemod(spec->type, spec->typmod));
}

/* The groups of one grouping set, or of all keys. */
static void
state_put_groups(StringInfo to, const ExportPlan *plan, int set, const int *order)
{
	const CompiledView *view = plan->view;
	const char		   *comma = " GROUP BY ";

	for (int k = 0; k < view->nkeys; k++)
	{
		bool in = set < 0 || (view->sets[set] & ((uint32) 1 << k)) != 0;

		appendStringInfo(to, "%s%s AS k%d", k > 0 ? ", " : "SELECT ",
						 k == view->set_key ? psprintf("%d", set)
						 : in				? state_key(plan, k)
											: state_null(plan, k),
						 k + 1);
	}
	for (int a = 0; a < view->naggs; a++)
		appendStringInfo(to, "%s%s AS a%d", view->nkeys + a > 0 ? ", " : "SELECT ", plan->finals[order[a]], a + 1);
	appendStringInfoString(to, " FROM ");
	state_put_rows(to, plan);
	appendStringInfoString(to, " s");
	for (int k = 0; k < view->nkeys; k++)
		if (k != view->set_key && (set < 0 || (view->sets[set] & ((uint32) 1 << k)) != 0))
		{
			appendStringInfo(to, "%s%s", comma, state_key(plan, k));
			comma = ", ";
		}
	if (comma[1] == 'G')
		appendStringInfoString(to, " GROUP BY ()");
}

/* ---- the groups, as a continuous view keeps them ---- */

/* Of one grouping set: keys that are not in it are NULL, and rows that differ in those only are one. */
static void
state_put_set(StringInfo to, const ExportPlan *plan, int set)
{
	const char	  *pane = streamext_export_has_opens(plan) ? ", at, opens" : plan->has_at ? ", at" : "";
	StringInfoData by;

	initStringInfo(&by);
	appendStringInfo(to, "SELECT %d AS set", set);
	for (int k = 0; k < plan->nkeys; k++)
	{
		bool in = (plan->view->sets[set] & ((uint32) 1 << plan->keys[k])) != 0;

		appendStringInfo(to, ", %s", in ? psprintf("k%d", k + 1) : state_null(plan, plan->keys[k]));
		if (in)
			appendStringInfo(&by, ", k%d", k + 1);
	}
	appendStringInfoString(to, pane);
	appendStringInfoString(&by, pane);
	if (state_is_session(plan))
		appendStringInfoString(to, ", min(first), max(last)");
	for (int p = 0; p < plan->npartials; p++)
		appendStringInfo(to, ", %s", streamext_export_combine_many(&plan->partials[p], ""));
	appendStringInfo(to, " FROM %s", streamext_export_table(plan->view->relid));
	if (by.len > 0)
		appendStringInfo(to, " GROUP BY %s", by.data + 2);
	else
		appendStringInfoString(to, " HAVING count(*) > 0");
}

char *
streamext_export_groups_query(const ExportPlan *plan)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (plan->view->nsets == 0)
	{
		appendStringInfoString(&buf, "SELECT -1 AS set");
		if (state_has_group(plan) || plan->npartials > 0)
			appendStringInfoString(&buf, ", ");
		state_put_columns(&buf, plan, "");
		appendStringInfo(&buf, " FROM %s", streamext_export_table(plan->view->relid));
	}
	for (int set = 0; set < plan->view->nsets; set++)
	{
		if (set > 0)
			appendStringInfoString(&buf, " UNION ALL ");
		state_put_set(&buf, plan, set);
	}
	return buf.data;
}

char *
streamext_export_view_query(const ExportPlan *plan)
{
	int			  *order = palloc(sizeof(int) * Max(plan->view->naggs, 1));
	char		  *query = streamext_shard_outputs_text(plan->view, order);
	StringInfoData groups;

	initStringInfo(&groups);
	appendStringInfoChar(&groups, '(');
	for (int set = plan->view->nsets > 0 ? 0 : -1; set < Max(plan->view->nsets, 0); set++)
	{
		if (set > 0)
			appendStringInfoString(&groups, " UNION ALL ");
		state_put_groups(&groups, plan, set, order);
	}
	appendStringInfoChar(&groups, ')');
	query = streamext_shard_replace(query, SHARD_GROUPS_TOKEN, groups.data);
	while (*query == ' ')
		query++;
	return query;
}
