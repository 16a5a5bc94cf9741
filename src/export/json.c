/*
 * export/json.c
 *		streamext.export_plan: a plan as JSON, for the runner of an engine and for people. No secret is in it.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#include "aggregate/portable.h"
#include "base/relation.h"
#include "decode/format.h"
#include "export/dialect.h"
#include "source/connector.h"
#include "stream/definition.h"

PG_FUNCTION_INFO_V1(streamext_export_plan);

static void
json_put_name(StringInfo to, const char *name)
{
	char last = to->len > 0 ? to->data[to->len - 1] : '{';

	if (last != '{' && last != '[')
		appendStringInfoString(to, ", ");
	escape_json(to, name);
	appendStringInfoString(to, ": ");
}

static void
json_put_text(StringInfo to, const char *name, const char *value)
{
	json_put_name(to, name);
	if (value == NULL)
		appendStringInfoString(to, "null");
	else
		escape_json(to, value);
}

static void
json_put_number(StringInfo to, const char *name, int64 value)
{
	json_put_name(to, name);
	appendStringInfo(to, INT64_FORMAT, value);
}

static void
json_put_bool(StringInfo to, const char *name, bool value)
{
	json_put_name(to, name);
	appendStringInfoString(to, value ? "true" : "false");
}

/* Options of the server but those that are secret; the user mapping's are all kept back. */
static void
json_put_server(StringInfo to, const StreamConfig *config)
{
	const OptionSpec *tables[STREAMEXT_OPTION_TABLES];
	ListCell		 *lc;

	streamext_stream_tables(config->connector, tables);
	json_put_name(to, "options");
	appendStringInfoChar(to, '{');
	foreach (lc, config->server_options)
	{
		DefElem *def = lfirst_node(DefElem, lc);
		bool	 told = false;

		for (int i = 0; tables[i] != NULL; i++)
		{
			const OptionSpec *spec = streamext_option_find(tables[i], PLACE_SERVER, def->defname);

			told = told || (spec != NULL && !spec->secret);
		}
		if (told)
			json_put_text(to, def->defname, defGetString(def));
	}
	appendStringInfoChar(to, '}');
}

static void
json_put_source(StringInfo to, const StreamConfig *config)
{
	static const char *const starts[] = {
		[START_EARLIEST] = "earliest", [START_LATEST] = "latest", [START_TIMESTAMP] = "timestamp"
	};
	ListCell *lc;

	json_put_name(to, "source");
	appendStringInfoChar(to, '{');
	json_put_text(to, "connector", config->connector->name);
	json_put_server(to, config);
	json_put_name(to, "topics");
	appendStringInfoChar(to, '[');
	foreach (lc, config->source.topics)
	{
		if (foreach_current_index(lc) > 0)
			appendStringInfoString(to, ", ");
		escape_json(to, lfirst(lc));
	}
	appendStringInfoChar(to, ']');
	json_put_text(to, "start", starts[config->source.start]);
	if (config->source.start == START_TIMESTAMP)
		json_put_number(to, "start_time_us", config->source.start_time);
	json_put_text(to, "tombstones", config->tombstones_rejected ? "reject" : "ignore");
	json_put_text(to, "fields", config->fields_nocase ? "nocase" : "exact");
	json_put_text(to, "trim", config->trims ? "payload" : "none");
	json_put_text(to, "partitions",
				  psprintf("%d/%d", config->source.partition_first, Max(config->source.partition_step, 1)));
	appendStringInfoChar(to, '}');
}

/* ---- columns ---- */

static void
json_put_column(StringInfo to, const ExportPlan *plan, const StreamColumn *column)
{
	appendStringInfoString(to, to->data[to->len - 1] == '[' ? "{" : ", {");
	json_put_text(to, "name", column->name);
	json_put_text(to, "type", format_type_with_typemod(column->type, column->typmod));
	json_put_text(to, "engine_type", plan->dialect->type(plan, column->type, column->typmod));
	if (column->path != NULL)
		json_put_text(to, "path", column->path);
	if (column->metadata_spec != NULL)
		json_put_text(to, "metadata", column->metadata_spec->name);
	if (column->notnull)
		json_put_bool(to, "not_null", true);
	if (column->time_format_given)
		json_put_bool(to, "time_format", true);
	if (column->time_zone != NULL)
		json_put_text(to, "time_zone", column->time_zone);
	if (column->bad_is_null)
		json_put_text(to, "on_bad_value", "null");
	if (column->encoding != NULL)
		json_put_text(to, "encoding", column->encoding);
	appendStringInfoChar(to, '}');
}

static void
json_put_columns(StringInfo to, const ExportPlan *plan)
{
	const StreamConfig *config = plan->config;

	json_put_name(to, "columns");
	appendStringInfoChar(to, '[');
	for (int i = 0; i < config->desc->natts; i++)
		if (!config->columns[i].dropped)
			json_put_column(to, plan, &config->columns[i]);
	appendStringInfoChar(to, ']');
	json_put_text(to, "event_time", config->event_time == 0 ? NULL : config->columns[config->event_time - 1].name);
}

/* ---- time ---- */

static void
json_put_window(StringInfo to, const ExportPlan *plan)
{
	static const char *const kinds[] = { [WINDOW_NONE] = "none",
										 [WINDOW_TUMBLE] = "tumble",
										 [WINDOW_HOP] = "hop",
										 [WINDOW_TRUNC] = "trunc",
										 [WINDOW_SESSION] = "session" };
	const Window			*window = &plan->view->window;

	json_put_number(to, "watermark_delay_us", plan->config->time.watermark_delay);
	json_put_number(to, "lateness_us", plan->view->options.lateness);
	json_put_number(to, "max_ahead_us", plan->config->time.max_ahead);
	json_put_number(to, "idle_timeout_us", plan->config->time.idle_timeout);
	json_put_name(to, "window");
	appendStringInfoChar(to, '{');
	json_put_text(to, "kind", kinds[window->kind]);
	json_put_bool(to, "sliding", window->sliding);
	json_put_number(to, "size_us", window->size);
	json_put_number(to, "slide_us", window->slide);
	json_put_number(to, "origin_us", window->origin);
	json_put_number(to, "pane_us", window->pane);
	json_put_bool(to, "edges", window->edges);
	json_put_text(to, "unit", window->trunc_unit);
	json_put_text(to, "zone",
				  window->kind != WINDOW_TRUNC ? NULL
				  : window->trunc_zone != NULL ? window->trunc_zone
											   : plan->view->options.timezone);
	appendStringInfoChar(to, '}');
	json_put_text(to, "at", plan->has_at ? plan->dialect->at(unconstify(ExportPlan *, plan)) : NULL);
}

/* ---- what is computed ---- */

static void
json_put_expressions(StringInfo to, ExportPlan *plan)
{
	const CompiledView *view = plan->view;
	ListCell		   *lc;

	json_put_text(to, "where",
				  view->quals == NIL ? NULL : plan->dialect->expression(plan, make_ands_explicit(view->quals)));
	json_put_name(to, "keys");
	appendStringInfoChar(to, '[');
	for (int k = 0; k < plan->nkeys; k++)
	{
		appendStringInfoString(to, k > 0 ? ", {" : "{");
		json_put_text(to, "name", psprintf("k%d", k + 1));
		json_put_text(to, "type", streamext_export_key_type(plan, k));
		json_put_text(to, "sql", plan->dialect->expression(plan, view->keys[plan->keys[k]].expr));
		appendStringInfoChar(to, '}');
	}
	appendStringInfoChar(to, ']');
	json_put_name(to, "partials");
	appendStringInfoChar(to, '[');
	for (int p = 0; p < plan->npartials; p++)
	{
		appendStringInfoString(to, p > 0 ? ", {" : "{");
		json_put_text(to, "name", plan->partials[p].name);
		json_put_text(to, "type", plan->partials[p].stage);
		json_put_text(to, "sql", plan->dialect->partial(plan, &plan->partials[p]));
		appendStringInfoChar(to, '}');
	}
	appendStringInfoChar(to, ']');
	json_put_name(to, "raises");
	appendStringInfoChar(to, '[');
	foreach (lc, plan->raises)
	{
		if (foreach_current_index(lc) > 0)
			appendStringInfoString(to, ", ");
		escape_json(to, lfirst(lc));
	}
	appendStringInfoChar(to, ']');
}

static void
json_put_stage(StringInfo to, const ExportPlan *plan, const char *name, const char *create, const char *fill)
{
	appendStringInfoString(to, to->data[to->len - 1] == '[' ? "{" : ", {");
	json_put_text(to, "name", name);
	json_put_text(to, "table", streamext_export_stage(plan, name));
	json_put_text(to, "create", create);
	json_put_text(to, "fill", fill);
	appendStringInfoChar(to, '}');
}

static const char *
json_optional(char *(*make)(ExportPlan *), ExportPlan *plan)
{
	return make == NULL ? NULL : make(plan);
}

static void
json_put_stages(StringInfo to, ExportPlan *plan)
{
	const ExportDialect *dialect = plan->dialect;

	json_put_name(to, "stages");
	appendStringInfoChar(to, '[');
	json_put_stage(to, plan, "partial", streamext_export_create_stage(plan), json_optional(dialect->fill, plan));
	json_put_stage(to, plan, "records", streamext_export_create_raw(plan), json_optional(dialect->fill_raw, plan));
	appendStringInfoChar(to, ']');
	json_put_text(to, "newest", json_optional(dialect->newest, plan));
	json_put_text(to, "counts", json_optional(dialect->counts, plan));
}

char *
streamext_export_json(ExportPlan *plan)
{
	int			   level = streamext_portable_pin();
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	json_put_number(&buf, "version", 1);
	json_put_text(&buf, "dialect", plan->dialect->name);
	json_put_text(&buf, "delivery", "merge");
	json_put_text(&buf, "view", streamext_relation_name(plan->view->relid));
	json_put_text(&buf, "stream", streamext_relation_name(plan->config->relid));
	json_put_source(&buf, plan->config);
	json_put_text(&buf, "format", plan->config->format->name);
	json_put_columns(&buf, plan);
	json_put_window(&buf, plan);
	json_put_expressions(&buf, plan);
	json_put_stages(&buf, plan);
	appendStringInfoChar(&buf, '}');
	AtEOXact_GUC(false, level);
	return buf.data;
}

/* streamext.export_plan(view regclass, dialect text) */
Datum
streamext_export_plan(PG_FUNCTION_ARGS)
{
	Oid					 viewoid = PG_GETARG_OID(0);
	const CompiledView	*view;
	const ExportDialect *dialect;

	if (get_rel_relkind(viewoid) == RELKIND_VIEW && pg_class_aclcheck(viewoid, GetUserId(), ACL_SELECT) != ACLCHECK_OK)
		streamext_export_check_rights(viewoid);
	view = streamext_export_compile(viewoid, NULL);
	dialect = streamext_export_dialect(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(streamext_export_json(streamext_export_make(view, dialect))));
}
