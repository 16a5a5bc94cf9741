/*
 * read/explain.c
 *		What EXPLAIN says of a scan of a continuous view, and of its groups made in the scan.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/timestamp.h"

#include "base/relation.h"
#include "read/scan.h"
#include "view/union.h"

static char *
explain_interval(int64 usecs)
{
	Interval interval = { .time = usecs };

	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&interval)));
}

static char *
explain_window(const CompiledView *view)
{
	const Window  *window = &view->window;
	StringInfoData buf;

	initStringInfo(&buf);
	switch (window->kind)
	{
		case WINDOW_NONE:
			if (!window->sliding)
				appendStringInfoString(&buf, "none");
			break;
		case WINDOW_TUMBLE:
			appendStringInfo(&buf, "tumbling, size %s", explain_interval(window->size));
			break;
		case WINDOW_HOP:
			appendStringInfo(&buf, "hopping, size %s", explain_interval(window->size));
			appendStringInfo(&buf, ", slide %s", explain_interval(window->slide));
			break;
		case WINDOW_TRUNC:
			appendStringInfo(&buf, "tumbling, by calendar %s in %s", window->trunc_unit,
							 window->trunc_zone != NULL ? window->trunc_zone : view->options.timezone);
			break;
		case WINDOW_SESSION:
			appendStringInfo(&buf, "session, gap %s", explain_interval(window->size));
			break;
	}
	if (window->sliding)
	{
		appendStringInfo(&buf, "%ssliding, length %s", buf.len > 0 ? ", " : "", explain_interval(window->length));
		appendStringInfo(&buf, ", step %s", explain_interval(window->step));
	}
	return buf.data;
}

static char *
explain_keys(const CompiledView *view, const ViewScanPlan *prune)
{
	StringInfoData buf;
	const char	  *separator = "";

	if (prune->keys == NIL)
		return pstrdup("all groups");
	initStringInfo(&buf);
	appendStringInfoString(&buf, "hash look-up on (");
	for (int k = 0; k < view->nkeys; k++)
	{
		if (view->keys[k].is_window ? !list_member_int(prune->strategies, BTEqualStrategyNumber)
									: !list_member_int(prune->keys, k))
			continue;
		appendStringInfo(&buf, "%s%s", separator, quote_identifier(view->keys[k].name));
		separator = ", ";
	}
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

static char *
explain_panes(const CustomScanState *node, const CompiledView *view, const ViewScanPlan *prune, List *ancestors,
			  ExplainState *es)
{
	static const char *const operators[] = { "?", "<", "<=", "=", ">=", ">" };
	List					*context = set_deparse_context_plan(es->deparse_cxt, node->ss.ps.plan, ancestors);
	StringInfoData			 buf;
	ListCell				*lc, *lc2;

	initStringInfo(&buf);
	forboth (lc, prune->strategies, lc2, prune->bounds)
		appendStringInfo(&buf, "%s%s %s %s", buf.len > 0 ? " AND " : "",
						 quote_identifier(view->keys[view->window_key].name), operators[lfirst_int(lc)],
						 deparse_expression(lfirst(lc2), context, false, false));
	if (view->window.sliding)
		appendStringInfo(&buf, "%swithin %s of now", buf.len > 0 ? " AND " : "", explain_interval(view->window.length));
	if (buf.len == 0)
		appendStringInfoString(&buf, "all");
	return buf.data;
}

/* What of the scan's panes was looked for in history: by the time of the first and after the last. */
static char *
explain_history(const CompiledView *view, const ScanRead *scan)
{
	const Window   *window = &view->window;
	const ViewRead *read = scan->read;
	int64			min = scan->by_hash ? scan->min : read->min;
	int64			max = scan->by_hash ? scan->max : read->max;
	TimestampTz		until = read->sealed_until;
	const char	   *from = "the start";

	if (min > max)
		return pstrdup("nothing");
	if (max < PG_INT64_MAX)
		until = Min(until, streamext_window_pane_end(window, max));
	if (min > PG_INT64_MIN)
	{
		TimestampTz start = window->kind == WINDOW_TRUNC ? min : streamext_window_pane_end(window, min - 1);

		if (start >= until)
			return pstrdup("nothing");
		from = pstrdup(timestamptz_to_str(start));
	}
	return psprintf("panes from %s to %s", from, timestamptz_to_str(until));
}

/* The names of the streams. */
static List *
explain_parts(const CompiledView *view)
{
	List	 *names = NIL;
	ListCell *lc;

	foreach (lc, view->parts)
		names = lappend(names, pstrdup(quote_identifier(get_rel_name(((const UnionPart *) lfirst(lc))->stream))));
	return names;
}

/* With ANALYZE: what was read. */
static void
explain_read(const CompiledView *view, const ScanRead *scan, ExplainState *es)
{
	const CopyArray	   *copies = scan->copies;
	const HistoryStats *own = &scan->stats;
	const HistoryStats *stats = own->slices > 0 || scan->by_hash ? own : &scan->read->stats;
	int64				panes = 0;
	int64				groups = 0;

	for (int c = 0; c < copies->n; c++)
	{
		panes += copies->items[c]->npanes;
		for (int p = 0; p < copies->items[c]->npanes; p++)
			groups += copies->items[c]->panes[p].ngroups;
	}
	ExplainPropertyInteger("Panes Copied", NULL, panes, es);
	ExplainPropertyInteger("Groups Copied", NULL, groups, es);
	if (scan->read->sealed_until == DT_NOBEGIN)
		return;
	ExplainPropertyText("History", explain_history(view, scan), es);
	ExplainPropertyInteger("History Slices", NULL, stats->slices, es);
	ExplainPropertyInteger("History Groups", NULL, stats->groups, es);
	ExplainPropertyInteger("History Bytes", NULL, stats->bytes, es);
}

void
streamext_scan_explain(const CustomScanState *node, const ViewScanPlan *prune, const CompiledView *view,
					   const ScanRead *read, List *ancestors, ExplainState *es)
{
	char *name =
		es->verbose ? streamext_relation_name(view->relid) : pstrdup(quote_identifier(get_rel_name(view->relid)));

	ExplainPropertyText("Continuous View", name, es);
	if (view->parts != NIL)
		ExplainPropertyList("Union All Of", explain_parts(view), es);
	if (OidIsValid(view->inner))
		ExplainPropertyText("Closed Windows Of", quote_identifier(get_rel_name(view->inner)), es);
	ExplainPropertyText("Window", explain_window(view), es);
	ExplainPropertyText("Keys", explain_keys(view, prune), es);
	ExplainPropertyText("Panes", explain_panes(node, view, prune, ancestors, es), es);
	if (es->analyze && read != NULL)
		explain_read(view, read, es);
}
