/*
 * view/doubts.c
 *		What CREATE VIEW says of a continuous view that is valid and hardly meant. What the function promises is in view/doubts.h.
 *
 * Nothing is refused here: each of these views is sometimes meant.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"

#include "view/check.h"
#include "view/doubts.h"
#include "view/window_clause.h"

/* ---- windows ---- */

/* The window is so long that its default step is not the usual second. */
static void
doubt_step(const CompiledView *view)
{
	Interval step = { .time = view->window.step };

	if (!view->window.sliding || view->options.step != 0 || view->window.step <= USECS_PER_SEC)
		return;
	ereport(NOTICE, (errmsg("the window slides in steps of %s",
							DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&step)))),
					 view->sliding_unit != 0 ? 0 : errdetail("A window has at most %d steps.", STREAMEXT_MAX_PANES),
					 errhint("Set streamext.step to have another one.")));
}

/* Of a window that is a second long and comes each minute, most records are in none: size and slide are easily swapped. */
static void
doubt_gaps(const CompiledView *view)
{
	const Window *window = &view->window;
	Interval	  size = { .time = window->size };
	Interval	  slide = { .time = window->slide };

	if (window->kind != WINDOW_HOP || window->slide <= window->size)
		return;
	ereport(NOTICE, (errmsg("records between the windows are in none of them"),
					 errdetail("streamext.hop has windows of %s, one each %s.",
							   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&size))),
							   DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&slide)))),
					 errhint("The size comes first: streamext.hop(size, slide, event_time).")));
}

/* Options of windows that end. */
static void
doubt_options(const CompiledView *view)
{
	const char *name = view->options.retention != 0 ? "streamext.retention" : "streamext.lateness";

	if ((view->options.retention == 0 && view->options.lateness == 0) || streamext_window_has_ends(&view->window) ||
		view->window.kind == WINDOW_SESSION)
		return;
	ereport(NOTICE,
			(errmsg("view option \"%s\" has nothing to act on", name),
			 errdetail(view->window.sliding ? "A window that slides over now() has no end and no late rows."
											: "The view has no window: its groups have no end and no late rows."),
			 errhint("Group by a window of the event time, such as streamext.tumble('1 minute', event_time).")));
}

/* ---- keys ---- */

/* Where date_trunc('minute', ts) AS ts ... GROUP BY ts groups by the column, not by the expression. True: it was told. */
static bool
doubt_alias(const CompiledView *view, const StreamConfig *config)
{
	ListCell *lc;

	for (int k = 0; k < view->nkeys; k++)
	{
		Var	 *var = (Var *) view->keys[k].expr;
		char *column;

		if (var == NULL || !streamext_view_is_event_time(view, config, (Node *) var))
			continue;
		column = get_attname(view->stream_relid, var->varattno, false);
		foreach (lc, view->query->targetList)
		{
			TargetEntry *entry = lfirst_node(TargetEntry, lc);

			if (entry->resjunk || entry->resname == NULL || strcmp(entry->resname, column) != 0 ||
				streamext_view_window_function((Node *) entry->expr) == FUNCTION_OTHER)
				continue;
			ereport(
				WARNING,
				(errmsg("the view groups by the stream's column \"%s\", not by the output column of the same name",
						column),
				 errdetail(
					 "GROUP BY prefers input columns to output columns, so each distinct time is a group of its own."),
				 errhint("Give the output column another name, or repeat the expression in GROUP BY.")));
			return true;
		}
	}
	return false;
}

typedef struct DoubtWalk
{
	const CompiledView *view;
	const StreamConfig *config;
} DoubtWalk;

/* Calls whose values come round again: the hour of a day, its name. */
static bool
doubt_comes_round(const FuncExpr *func)
{
	Const *how = list_length(func->args) == 2 ? linitial(func->args) : NULL;

	switch (func->funcid)
	{
		case F_EXTRACT_TEXT_TIMESTAMP:
		case F_EXTRACT_TEXT_TIMESTAMPTZ:
		case F_EXTRACT_TEXT_DATE:
		case F_DATE_PART_TEXT_TIMESTAMP:
		case F_DATE_PART_TEXT_TIMESTAMPTZ:
		case F_DATE_PART_TEXT_DATE:
			return how != NULL && IsA(how, Const) && !how->constisnull &&
				   pg_strcasecmp(TextDatumGetCString(how->constvalue), "epoch") != 0 &&
				   pg_strcasecmp(TextDatumGetCString(how->constvalue), "julian") != 0;
		case F_TO_CHAR_TIMESTAMP_TEXT:
		case F_TO_CHAR_TIMESTAMPTZ_TEXT:
			how = lsecond(func->args);
			return IsA(how, Const) && !how->constisnull &&
				   strpbrk(TextDatumGetCString(how->constvalue), "YyJjIi") == NULL;
		case F_TIME_TIMESTAMP:
		case F_TIME_TIMESTAMPTZ:
		case F_TIMETZ_TIMESTAMPTZ:
			return true;
		default:
			return false;
	}
}

/* Whether the value goes on with time for ever. */
static bool
doubt_goes_on(Node *node, DoubtWalk *walk)
{
	if (node == NULL || (!IsA(node, List) && exprType(node) == BOOLOID) ||
		(IsA(node, FuncExpr) && doubt_comes_round((FuncExpr *) node)))
		return false;
	if (streamext_view_is_event_time(walk->view, walk->config, node))
		return true;
	return expression_tree_walker(node, doubt_goes_on, walk);
}

/* Groups of a view without a window are kept in memory for good. */
static void
doubt_keys(const CompiledView *view, const StreamConfig *config)
{
	DoubtWalk walk = { view, config };

	if (view->window.kind != WINDOW_NONE || view->window.sliding || OidIsValid(view->inner) || view->derived ||
		view->stateless)
		return;
	for (int k = 0; k < view->nkeys; k++)
	{
		const KeySpec *key = &view->keys[k];

		if (key->expr == NULL || !doubt_goes_on((Node *) key->expr, &walk))
			continue;
		ereport(
			NOTICE,
			(errmsg("the view's groups never end: key \"%s\" goes on with the event time and is no window", key->name),
			 errdetail("Groups of a view without a window stay in memory."),
			 errhint("Windows end: date_trunc('minute', event_time), or streamext.tumble('1 minute', event_time).")));
		return;
	}
}

void
streamext_view_doubt(const CompiledView *view, const StreamConfig *config)
{
	if (!doubt_alias(view, config))
		doubt_keys(view, config);
	doubt_step(view);
	doubt_gaps(view);
	doubt_options(view);
}
