/*
 * view/doubts.c
 *		What CREATE VIEW says of a continuous view that is valid and hardly meant. What the function promises is in view/doubts.h.
 *
 * Nothing is refused here: each of these views is sometimes meant.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "pgtime.h"
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

/* The window of whole days that begins `steps` further than the one of 1 July 2024, as the zone's clocks show it. */
static struct pg_tm *
doubt_start(const Window *window, int steps, const pg_tz *zone)
{
	const int64 summer = 8948 * USECS_PER_DAY; /* since 2000-01-01 */
	int64		start = window->origin + (summer - window->origin) / window->slide * window->slide;
	pg_time_t	at = (pg_time_t) ((start + steps * window->slide) / USECS_PER_SEC) +
				   (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;

	return pg_localtime(&at, zone);
}

/* Windows of days are 24 hours and begin where UTC does, which a view in Berlin is rarely meant to have. */
static void
doubt_days(const CompiledView *view)
{
	const Window *window = &view->window;
	pg_tz		 *zone = pg_tzset(view->options.timezone);
	struct pg_tm *tm;
	int			  summer, winter;

	if ((window->kind != WINDOW_TUMBLE && window->kind != WINDOW_HOP) || window->slide < USECS_PER_DAY ||
		window->slide % USECS_PER_DAY != 0 || zone == NULL)
		return;
	tm = doubt_start(window, 0, zone);
	summer = tm == NULL ? 0 : tm->tm_hour * 60 + tm->tm_min;
	tm = doubt_start(window, 184 * USECS_PER_DAY / window->slide, zone);
	winter = tm == NULL ? 0 : tm->tm_hour * 60 + tm->tm_min;
	/* a time of day that date_bin's origin says, and that it stays, is meant */
	if (summer == winter && (summer == 0 || window->origin != 0))
		return;
	ereport(NOTICE,
			(errmsg("windows of whole days do not begin at midnight in time zone %s", view->options.timezone),
			 summer == winter ? errdetail("They begin at %02d:%02d: a day is 24 hours.", summer / 60, summer % 60)
							  : errdetail("They begin at %02d:%02d, in summer at %02d:%02d: a day is 24 hours.",
										  winter / 60, winter % 60, summer / 60, summer % 60),
			 errhint("date_trunc('day', event_time) has the time zone's days, also those of 23 and 25 hours.")));
}

/* Options of windows that end. */
static void
doubt_options(const CompiledView *view)
{
	const char *name = view->options.retention != 0 ? "streamext.retention" : "streamext.lateness";

	if ((view->options.retention == 0 && view->options.lateness == 0) || streamext_window_has_ends(&view->window) ||
		view->window.kind == WINDOW_SESSION)
		return;
	if (OidIsValid(view->inner) && streamext_view_options(view->inner).inner)
		return; /* they are for the queries in FROM */
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

/* The stream's column that date_trunc or date_bin cuts into pieces of time, if it is not the event time. */
static const Var *
doubt_other_time(const DoubtWalk *walk, const Node *node)
{
	const FuncExpr *func = (const FuncExpr *) node;
	const Var	   *var;

	if (node == NULL || !IsA(node, FuncExpr))
		return NULL;
	switch (func->funcid)
	{
		case F_DATE_TRUNC_TEXT_TIMESTAMP:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ:
		case F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT:
		case F_DATE_BIN_INTERVAL_TIMESTAMP_TIMESTAMP:
		case F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ:
			var = lsecond(func->args);
			break;
		default:
			return NULL;
	}
	return IsA(var, Var) && var->varno == walk->view->stream_varno && var->varlevelsup == 0 && var->varattno > 0 &&
				   !streamext_view_is_event_time(walk->view, walk->config, (const Node *) var)
			   ? var
			   : NULL;
}

/* A key that looks like a window, over another column: most often the stream lacks its event_time. */
static void
doubt_tell_other_time(const DoubtWalk *walk, const KeySpec *key, const Var *var)
{
	const StreamConfig *config = walk->config;
	const char		   *column = config->columns[var->varattno - 1].name;

	ereport(
		NOTICE,
		(errmsg("the view's groups never end: key \"%s\" is of column \"%s\", which is not the stream's event time",
				key->name, column),
		 errdetail("Groups of a view without a window stay in memory."),
		 config->event_time != 0
			 ? errhint("Windows are of column \"%s\".", config->columns[config->event_time - 1].name)
		 : var->vartype == TIMESTAMPTZOID
			 ? errhint("Make it that before there are views: ALTER FOREIGN TABLE ... OPTIONS (ADD event_time '%s').",
					   column)
			 : errhint("The event time is a column of type timestamptz that the stream's option event_time names.")));
}

static void
doubt_tell_going_on(const StreamConfig *config, const KeySpec *key)
{
	const char *column = config->event_time != 0 ? config->columns[config->event_time - 1].name : "event_time";

	ereport(
		NOTICE,
		(errmsg("the view's groups never end: key \"%s\" goes on with the event time and is no window", key->name),
		 errdetail("Groups of a view without a window stay in memory."),
		 OidIsValid(config->from.inner)
			 ? errhint(
				   "Windows end: date_trunc(unit, %s), or streamext.tumble(size, %s), also of the inner windows' own size.",
				   quote_identifier(column), quote_identifier(column))
			 : errhint("Windows end: date_trunc('minute', event_time), or streamext.tumble('1 minute', event_time).")));
}

/* Groups of a view without a window are kept in memory for good. */
static void
doubt_keys(const CompiledView *view, const StreamConfig *config)
{
	DoubtWalk walk = { view, config };

	if (view->window.kind != WINDOW_NONE || view->window.sliding || view->derived || view->stateless)
		return;
	for (int k = 0; k < view->nkeys; k++)
	{
		const KeySpec *key = &view->keys[k];
		const Var	  *other = doubt_other_time(&walk, (const Node *) key->expr);

		if (other != NULL)
		{
			doubt_tell_other_time(&walk, key, other);
			return;
		}
		if (key->expr == NULL || !doubt_goes_on((Node *) key->expr, &walk))
			continue;
		doubt_tell_going_on(config, key);
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
	doubt_days(view);
	doubt_options(view);
}
