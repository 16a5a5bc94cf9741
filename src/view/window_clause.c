/*
 * view/window_clause.c
 *		What a continuous view's query says of time: the window among its group keys, the sliding predicate in WHERE.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/identity.h"
#include "view/check.h"
#include "view/window_clause.h"

/* Sliding over whole days: the start moves by daylight saving time, always in steps of this. */
#define WINDOW_DST_STEP (30 * INT64CONST(60000000))

/* ---- constants and the event time ---- */

bool
streamext_view_is_event_time(const CompiledView *view, const StreamConfig *config, const Node *node)
{
	const Var *var = (const Var *) node;

	if (!IsA(node, Var) || var->varno != view->stream_varno || var->varlevelsup != 0 || var->varattno <= 0 ||
		var->vartype != TIMESTAMPTZOID)
		return false;
	if (config->event_time != 0)
		return var->varattno == config->event_time;
	return config->columns[var->varattno - 1].metadata == METADATA_TIMESTAMP;
}

static bool
window_mistrusts(Oid function, void *context)
{
	return streamext_identity_mistrusts_function(function);
}

static bool
window_mistrust_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, window_mistrusts, NULL) ||
		(!IsA(node, List) && streamext_identity_mistrusts_type(exprType(node))))
		streamext_view_refuse(
			"functions and types of ordinary roles in the window of a superuser's view",
			"What a window's constants are is evaluated when the view is made. Make it as the role that shall own it, or write the constant itself.");
	return expression_tree_walker(node, window_mistrust_walker, context);
}

/* PostgreSQL's own functions take long over what is long. */
static bool
window_long_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (!IsA(node, List) && get_typlen(exprType(node)) < 0)
		return true;
	return expression_tree_walker(node, window_long_walker, context);
}

/* The argument as a constant that is not NULL, or NULL if it is none. */
static Const *
window_const(Node *node)
{
	(void) window_mistrust_walker(node, NULL);
	if (streamext_identity_glances() && !IsA(node, Const) && window_long_walker(node, NULL))
		streamext_identity_refuse_glance();
	node = eval_const_expressions(NULL, copyObject(node));
	if (!IsA(node, Const) || ((Const *) node)->constisnull)
		return NULL;
	return (Const *) node;
}

/* The same for a timestamptz, which may be cast from a date or timestamp: under the view's TimeZone that is a constant too. */
static Const *
window_const_time(const CompiledView *view, Node *node)
{
	Const	 *c = window_const(node);
	FuncExpr *cast = (FuncExpr *) node;
	int		  level;
	Datum	  value;

	if (c != NULL || !IsA(node, FuncExpr) ||
		(cast->funcid != F_TIMESTAMPTZ_TIMESTAMP && cast->funcid != F_TIMESTAMPTZ_DATE))
		return c;
	c = window_const(linitial(cast->args));
	if (c == NULL)
		return NULL;
	level = NewGUCNestLevel();
	streamext_identity_set("TimeZone", view->options.timezone);
	value = OidFunctionCall1(cast->funcid, c->constvalue);
	AtEOXact_GUC(true, level);
	return makeConst(TIMESTAMPTZOID, -1, InvalidOid, sizeof(TimestampTz), value, false, FLOAT8PASSBYVAL);
}

/* A call's arguments in the order of its parameters, however they are written. */
static List *
window_arguments(const FuncExpr *func)
{
	List	 *result = list_copy(func->args);
	ListCell *cell;

	foreach (cell, func->args)
		if (IsA(lfirst(cell), NamedArgExpr))
		{
			NamedArgExpr *named = lfirst_node(NamedArgExpr, cell);

			lfirst(list_nth_cell(result, named->argnumber)) = named->arg;
		}
	return result;
}

/* Microseconds, a day being 24 hours; months have no fixed length. */
static int64
window_interval(const Interval *interval, const char *what)
{
	if (interval->month != 0)
		streamext_view_refuse(psprintf("months or years in %s", what),
							  "Use a fixed interval, in days or shorter units.");
	return streamext_interval_usecs(interval, what);
}

static int64
window_const_interval(Node *node, const char *what)
{
	Const *c = window_const(node);
	int64  result;

	if (c == NULL || c->consttype != INTERVALOID)
		streamext_view_refuse(psprintf("a %s that is not a constant", what),
							  "Write the interval itself, such as '10 s'.");
	result = window_interval(DatumGetIntervalP(c->constvalue), psprintf("the %s", what));
	if (result <= 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("the %s must be positive", what),
						errhint("Write an interval such as '10 s'.")));
	return result;
}

/* ---- the window among the keys ---- */

static void
window_date_bin(CompiledView *view, FuncExpr *func)
{
	Window	   *window = &view->window;
	TimestampTz origin = DatumGetTimestampTz(window_const_time(view, lthird(func->args))->constvalue);

	if (TIMESTAMP_NOT_FINITE(origin))
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("the origin of date_bin must be finite"),
						errhint("Name a moment at which a window begins, such as '2000-01-01'.")));
	window->kind = WINDOW_TUMBLE;
	window->size = window->slide = window_const_interval(linitial(func->args), "stride of date_bin");
	window->origin = origin;
}

static void
window_date_trunc(Window *window, FuncExpr *func)
{
	char *unit = TextDatumGetCString(window_const(linitial(func->args))->constvalue);

	window->kind = WINDOW_TRUNC;
	window->trunc_unit = downcase_identifier(unit, strlen(unit), false, false);
	if (list_length(func->args) == 3)
	{
		Datum zone = window_const(lthird(func->args))->constvalue;

		streamext_view_check_zone(zone);
		window->trunc_zone = TextDatumGetCString(zone);
	}
}

/* date_bin and date_trunc make a window over the event time with constants; over anything else they are ordinary functions. */
static bool
window_is_calendar(const CompiledView *view, const StreamConfig *config, FuncExpr *func)
{
	int n = list_length(func->args);

	if (!streamext_view_is_event_time(view, config, lsecond(func->args)))
		return false;
	return window_const(linitial(func->args)) != NULL && (n < 3 || window_const_time(view, lthird(func->args)) != NULL);
}

pg_noreturn static void
window_refuse_time(const StreamConfig *config, const char *what)
{
	streamext_view_refuse(
		psprintf("%s on anything but the stream's event time", what),
		OidIsValid(config->from.inner)
			? (config->event_time != 0
				   ? "The event time of a continuous view in FROM is its column that is the start of its window."
				   : "The continuous view in FROM has no column that is the start of its window; output it, as in "
					 "streamext.tumble('1 min', ts) AS window_start.")
		: config->event_time != 0
			? "The stream's event time is the column that its option event_time names."
			: "The stream has no option event_time. Name a timestamptz column with ALTER FOREIGN TABLE ... OPTIONS (ADD "
			  "event_time '...'), or declare one with metadata 'timestamp' for the time that the source gives.");
}

bool
streamext_view_window_key(CompiledView *view, const StreamConfig *config, Node *node)
{
	Window		  *window = &view->window;
	WindowFunction function = streamext_view_window_function(node);
	FuncExpr	  *func = (FuncExpr *) node;
	List		  *args;

	if (function == FUNCTION_OTHER)
		return false;
	args = window_arguments(func);
	if (function == FUNCTION_DATE_BIN || function == FUNCTION_DATE_TRUNC)
	{
		if (!window_is_calendar(view, config, func))
			return false;
	}
	else if (!streamext_view_is_event_time(view, config, llast(args)))
		window_refuse_time(config, "windows");
	if (window->kind != WINDOW_NONE)
		streamext_view_refuse("two windows", "Make a view for each window.");

	switch (function)
	{
		case FUNCTION_DATE_BIN:
			window_date_bin(view, func);
			break;
		case FUNCTION_DATE_TRUNC:
			window_date_trunc(window, func);
			break;
		case FUNCTION_TUMBLE:
			window->kind = WINDOW_TUMBLE;
			window->size = window->slide = window_const_interval(linitial(args), "size of streamext.tumble");
			break;
		case FUNCTION_HOP:
			window->kind = WINDOW_HOP;
			window->size = window_const_interval(linitial(args), "size of streamext.hop");
			window->slide = window_const_interval(lsecond(args), "slide of streamext.hop");
			break;
		case FUNCTION_SESSION:
			window->kind = WINDOW_SESSION;
			window->size = window_const_interval(linitial(args), "gap of streamext.session");
			break;
		case FUNCTION_OTHER:
			break;
	}
	return true;
}

/* ---- the sliding predicate ---- */

static bool
window_is_now(const Node *node)
{
	if (IsA(node, FuncExpr))
		return ((const FuncExpr *) node)->funcid == F_NOW ||
			   ((const FuncExpr *) node)->funcid == F_TRANSACTION_TIMESTAMP;
	return IsA(node, SQLValueFunction) && ((const SQLValueFunction *) node)->op == SVFOP_CURRENT_TIMESTAMP;
}

/* now() - interval, also written now() + interval: the interval subtracted. NULL if it is anything else. */
static Interval *
window_now_minus(Node *node)
{
	OpExpr	 *op = (OpExpr *) node;
	Interval *result;
	Oid		  function;
	Const	 *c;

	if (!IsA(node, OpExpr) || list_length(op->args) != 2 || !window_is_now(linitial(op->args)))
		return NULL;
	function = get_opcode(op->opno);
	if (function != F_TIMESTAMPTZ_MI_INTERVAL && function != F_TIMESTAMPTZ_PL_INTERVAL)
		return NULL;
	c = window_const(lsecond(op->args));
	if (c == NULL)
		return NULL;
	result = palloc(sizeof(Interval));
	*result = *DatumGetIntervalP(c->constvalue);
	if (function == F_TIMESTAMPTZ_PL_INTERVAL)
	{
		result->time = -result->time;
		result->day = -result->day;
		result->month = -result->month;
	}
	return result;
}

static void
window_sliding_lower(CompiledView *view, const Interval *interval, bool inclusive)
{
	Window *window = &view->window;

	if (window->sliding)
		streamext_view_refuse("two sliding predicates",
							  "Keep one predicate like event_time > now() - interval '1 minute'.");
	window->sliding = true;
	window->length = window_interval(interval, "the interval of the sliding predicate");
	window->lower_inclusive = inclusive;
	if (window->length <= 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the interval of the sliding predicate must be positive"),
						errhint("Write the predicate like event_time > now() - interval '1 minute'.")));
	view->sliding_days = interval->day;
}

/* The unit of date_trunc('minute', event_time) or ('second', …), which is the same in every zone; 0: it is anything else. */
static int64
window_truncated(const CompiledView *view, const StreamConfig *config, Node *node)
{
	FuncExpr *func = (FuncExpr *) node;
	Const	 *unit;
	char	 *name;

	if (streamext_view_window_function(node) != FUNCTION_DATE_TRUNC ||
		!streamext_view_is_event_time(view, config, lsecond(func->args)))
		return 0;
	unit = window_const(linitial(func->args));
	if (unit == NULL)
		return 0;
	name = TextDatumGetCString(unit->constvalue);
	return pg_strcasecmp(name, "minute") == 0	? USECS_PER_MINUTE
		   : pg_strcasecmp(name, "second") == 0 ? USECS_PER_SEC
												: 0;
}

/*
 * date_trunc(unit, event_time) > now() - interval, with now() at multiples of the unit and an interval that is one: the same as event_time >=
 * now() - interval + unit. With >= the unit is not added.
 */
static bool
window_sliding_truncated(CompiledView *view, const StreamConfig *config, Oid function, Node *left, Node *right)
{
	int64	  unit = window_truncated(view, config, left);
	Interval *interval = unit != 0 ? window_now_minus(right) : NULL;
	Interval  moved;

	if (interval == NULL || interval->day != 0 || interval->month != 0 || interval->time % unit != 0)
		return false;
	moved = *interval;
	if (function == F_TIMESTAMPTZ_GT)
		moved.time -= unit;
	window_sliding_lower(view, &moved, true);
	view->sliding_unit = unit;
	return true;
}

/* event_time + interval: the interval, or NULL if it is anything else. */
static Interval *
window_event_time_plus(const CompiledView *view, const StreamConfig *config, Node *node)
{
	OpExpr	 *op = (OpExpr *) node;
	Const	 *c;
	Interval *interval;

	if (!IsA(node, OpExpr) || get_opcode(op->opno) != F_TIMESTAMPTZ_PL_INTERVAL ||
		!streamext_view_is_event_time(view, config, linitial(op->args)))
		return NULL;
	c = window_const(lsecond(op->args));
	if (c == NULL)
		return NULL;
	interval = DatumGetIntervalP(c->constvalue);
	if (interval->day != 0 || interval->month != 0)
		streamext_view_refuse("days, months or years added to the event time in WHERE",
							  "Write the predicate like event_time > now() - interval '1 day'.");
	return interval;
}

/* now() - event_time compared with an interval: the interval, in which a day is 24 hours as in such a comparison. */
static Interval *
window_age(const CompiledView *view, const StreamConfig *config, Node *age, Node *bound)
{
	OpExpr	 *op = (OpExpr *) age;
	Const	 *c;
	Interval *result;

	if (!IsA(age, OpExpr) || get_opcode(op->opno) != F_TIMESTAMPTZ_MI || !window_is_now(linitial(op->args)) ||
		!streamext_view_is_event_time(view, config, lsecond(op->args)))
		return NULL;
	c = window_const(bound);
	if (c == NULL)
		return NULL;
	result = palloc0(sizeof(Interval));
	result->time = window_interval(DatumGetIntervalP(c->constvalue), "the interval of the sliding predicate");
	return result;
}

/* event_time - now() compared with an interval: the interval subtracted, likewise. */
static Interval *
window_negative_age(const CompiledView *view, const StreamConfig *config, Node *age, Node *bound)
{
	OpExpr	 *op = (OpExpr *) age;
	Const	 *c;
	Interval *result;

	if (!IsA(age, OpExpr) || get_opcode(op->opno) != F_TIMESTAMPTZ_MI || !window_is_now(lsecond(op->args)) ||
		!streamext_view_is_event_time(view, config, linitial(op->args)))
		return NULL;
	c = window_const(bound);
	if (c == NULL)
		return NULL;
	result = palloc0(sizeof(Interval));
	result->time = -window_interval(DatumGetIntervalP(c->constvalue), "the interval of the sliding predicate");
	return result;
}

/*
 * Takes left <function> right into the window if it is of one of the forms
 *		event_time > now() - interval, event_time + interval > now(), now() - event_time < interval,
 *		event_time - now() > - interval		(the lower bound)
 *		event_time <= now()
 * false: it is none of them.
 */
static bool
window_sliding_sides(CompiledView *view, const StreamConfig *config, Oid function, Node *left, Node *right)
{
	Window	 *window = &view->window;
	Interval *interval = NULL;

	if (function == F_TIMESTAMPTZ_GT || function == F_TIMESTAMPTZ_GE)
	{
		if (window_sliding_truncated(view, config, function, left, right))
			return true;
		if (IsA(left, Var))
		{
			interval = window_now_minus(right);
			if (interval != NULL && !streamext_view_is_event_time(view, config, left))
				window_refuse_time(config, "sliding predicates");
		}
		else if (window_is_now(right))
			interval = window_event_time_plus(view, config, left);
	}
	else if (function == F_INTERVAL_LT || function == F_INTERVAL_LE)
		interval = window_age(view, config, left, right);
	else if (function == F_INTERVAL_GT || function == F_INTERVAL_GE)
		interval = window_negative_age(view, config, left, right);
	if (interval != NULL)
	{
		window_sliding_lower(view, interval,
							 function == F_TIMESTAMPTZ_GE || function == F_INTERVAL_LE || function == F_INTERVAL_GE);
		return true;
	}
	if ((function == F_TIMESTAMPTZ_LT || function == F_TIMESTAMPTZ_LE) &&
		streamext_view_is_event_time(view, config, left) && window_is_now(right))
	{
		if (window->has_upper)
			streamext_view_refuse("two upper bounds at now()", "Keep one predicate like event_time <= now().");
		window->has_upper = true;
		window->upper_inclusive = function == F_TIMESTAMPTZ_LE;
		return true;
	}
	return false;
}

bool
streamext_view_window_qual(CompiledView *view, const StreamConfig *config, Node *qual)
{
	OpExpr *op = (OpExpr *) qual;
	Oid		commutator;

	if (!IsA(qual, OpExpr) || list_length(op->args) != 2)
		return false;
	commutator = get_commutator(op->opno);
	return window_sliding_sides(view, config, get_opcode(op->opno), linitial(op->args), lsecond(op->args)) ||
		   (OidIsValid(commutator) &&
			window_sliding_sides(view, config, get_opcode(commutator), lsecond(op->args), linitial(op->args)));
}

/* ---- both ---- */

/* The same length without days. */
static const char *
window_hint_hours(int64 length)
{
	int64 hours = length / USECS_PER_HOUR, rest = length % USECS_PER_HOUR;

	if (rest == 0)
		return psprintf("Write the interval in hours: interval '" INT64_FORMAT " hours'", hours);
	return psprintf("Write the interval in hours: interval '" INT64_FORMAT " hours " INT64_FORMAT " us'", hours, rest);
}

/* The sliding predicate counts in days, and the windows' edges fall between steps where daylight saving time begins or ends. */
static void
window_refuse_days(const CompiledView *view)
{
	int64		length = view->window.length;
	const char *hours = window_hint_hours(length);
	bool		step = length / WINDOW_DST_STEP <= STREAMEXT_MAX_PANES && length % WINDOW_DST_STEP == 0;

	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
		 view->options.step != 0
			 ? errmsg("view option \"streamext.step\" must divide 30 minutes when the sliding predicate counts in "
					  "days")
			 : errmsg("a sliding predicate that counts in days is too long, or no multiple of 30 minutes"),
		 errdetail("A day is an hour shorter or longer where daylight saving time begins or ends, so the window must "
				   "consist of at most %d steps that divide 30 minutes.",
				   STREAMEXT_MAX_PANES),
		 errhint("%s%s.", hours, step ? ", or set streamext.step to '30 min' or a divisor of it" : "")));
}

void
streamext_view_window_finish(CompiledView *view)
{
	Window *window = &view->window;

	if (window->sliding)
		window->step = view->options.step != 0 ? view->options.step : view->sliding_unit; /* 0: the default */
	if (view->sliding_unit != 0 && window->step % view->sliding_unit != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("view option \"streamext.step\" must be a multiple of what the sliding predicate truncates to"),
				 errhint("Leave it out, or write the predicate like event_time > now() - interval '1 hour'.")));
	if (!window->sliding && view->options.step > 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("view option \"streamext.step\" needs a sliding predicate"),
						errhint("A sliding predicate is written like event_time > now() - interval '1 minute'.")));
	streamext_window_finish(window);
	if (view->sliding_days != 0 && WINDOW_DST_STEP % window->pane != 0)
		window_refuse_days(view);
}
