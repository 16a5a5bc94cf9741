/*
 * view_compile.c
 *		A continuous view's query: what of it is kept, and how.
 *
 * The query is split at the aggregation. Below it (WHERE, group keys, aggregate arguments, FILTER) stands what the worker
 * evaluates once for each row, so nothing there may depend on when, by whom or against which tables it is evaluated
 * (view_check.c). Above it (HAVING, output expressions, DISTINCT, ORDER BY, LIMIT, window
 * functions) everything is the reader's and stays with PostgreSQL.
 *
 * Nothing is planned or folded here but the constants of windows: keys and aggregates must stay equal() to the
 * expressions of the query, which view_plan.c looks for.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_agg.h"
#include "parser/scansup.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "chunk.h"
#include "into.h"
#include "options.h"
#include "session.h"
#include "view_check.h"
#include "view_compile.h"
#include "view_join.h"

/* Sliding over whole days: the start moves by daylight saving time, always in steps of this. */
#define COMPILE_DST_STEP	(30 * INT64CONST(60000000))

typedef struct CompileContext
{
	CompiledView *view;
	StreamConfig *config;
	int			sublevels;
	List	   *aggrefs;
} CompileContext;

/* What expressions run under; a view made before the option was kept falls back to fixed settings, never to the session's. */
static void
compile_default_options(ContinuousViewOptions *options)
{
	if (options->timezone == NULL)
		options->timezone = pstrdup("UTC");
	if (options->datestyle == NULL)
		options->datestyle = pstrdup("ISO, MDY");
	if (options->intervalstyle == NULL)
		options->intervalstyle = pstrdup("postgres");
}

/* ---- the query's shape ---- */

/*
 * PostgreSQL 18 puts an entry for the grouping step into the range table, whose columns the target list refers to; here the
 * group expressions themselves are wanted, as in the versions before.
 */
void
streamext_view_flatten_groups(Query *query)
{
#if PG_VERSION_NUM >= 180000
	if (!query->hasGroupRTE)
		return;
	query->targetList = (List *) flatten_group_exprs(NULL, query, (Node *) query->targetList);
	query->havingQual = flatten_group_exprs(NULL, query, query->havingQual);
	query->hasGroupRTE = false;
	if (llast_node(RangeTblEntry, query->rtable)->rtekind == RTE_GROUP)
		query->rtable = list_delete_last(query->rtable);
#endif
}

/* Finds the stream in FROM: the only item there, or the one stream that is joined with other things. */
static void
compile_from(CompiledView *view)
{
	Query	   *query = view->query;

	if (query->jointree->fromlist == NIL)
		streamext_view_refuse("queries without a stream in FROM", NULL);
	view->has_joins = streamext_join_is_join(query);
	if (view->has_joins)
		view->stream_varno = streamext_join_check(query);
	else
	{
		view->stream_varno = linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex;
		streamext_view_check_from(rt_fetch(view->stream_varno, query->rtable));
	}
	view->stream_relid = rt_fetch(view->stream_varno, query->rtable)->relid;
}

/* ---- time ---- */

static bool
compile_is_event_time(const CompileContext *context, const Node *node)
{
	const Var  *var = (const Var *) node;
	const StreamConfig *config = context->config;

	if (!IsA(node, Var) || var->varno != context->view->stream_varno || var->varlevelsup != 0 ||
		var->varattno <= 0 || var->vartype != TIMESTAMPTZOID)
		return false;
	if (config->event_time != 0)
		return var->varattno == config->event_time;
	return config->columns[var->varattno - 1].metadata == METADATA_TIMESTAMP;
}

/* The argument as a constant that is not NULL, or NULL if it is none. */
static Const *
compile_const(Node *node)
{
	node = eval_const_expressions(NULL, copyObject(node));
	if (!IsA(node, Const) || ((Const *) node)->constisnull)
		return NULL;
	return (Const *) node;
}

/* The same for a timestamptz, which may be cast from a date or timestamp: under the view's TimeZone that is a constant too. */
static Const *
compile_const_time(const CompiledView *view, Node *node)
{
	Const	   *c = compile_const(node);
	FuncExpr   *cast = (FuncExpr *) node;
	int			level;
	Datum		value;

	if (c != NULL || !IsA(node, FuncExpr) || (cast->funcid != F_TIMESTAMPTZ_TIMESTAMP && cast->funcid != F_TIMESTAMPTZ_DATE))
		return c;
	c = compile_const(linitial(cast->args));
	if (c == NULL)
		return NULL;
	level = NewGUCNestLevel();
	(void) set_config_option("TimeZone", view->options.timezone, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	value = OidFunctionCall1(cast->funcid, c->constvalue);
	AtEOXact_GUC(true, level);
	return makeConst(TIMESTAMPTZOID, -1, InvalidOid, sizeof(TimestampTz), value, false, FLOAT8PASSBYVAL);
}

/* A call's arguments in the order of its parameters, however they are written. */
static List *
compile_arguments(const FuncExpr *func)
{
	List	   *result = list_copy(func->args);
	ListCell   *cell;

	foreach(cell, func->args)
		if (IsA(lfirst(cell), NamedArgExpr))
		{
			NamedArgExpr *named = lfirst_node(NamedArgExpr, cell);

			lfirst(list_nth_cell(result, named->argnumber)) = named->arg;
		}
	return result;
}

/* Microseconds, a day being 24 hours; months have no fixed length. */
static int64
compile_interval(const Interval *interval, const char *what)
{
	if (interval->month != 0)
		streamext_view_refuse(psprintf("months or years in %s", what), "Use a fixed interval, in days or shorter units.");
	return streamext_interval_usecs(interval, what);
}

static int64
compile_const_interval(Node *node, const char *what)
{
	Const	   *c = compile_const(node);
	int64		result;

	if (c == NULL || c->consttype != INTERVALOID)
		streamext_view_refuse(psprintf("a %s that is not a constant", what), NULL);
	result = compile_interval(DatumGetIntervalP(c->constvalue), psprintf("the %s", what));
	if (result <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the %s must be positive", what)));
	return result;
}

static void
compile_date_bin(CompiledView *view, FuncExpr *func)
{
	Window	   *window = &view->window;
	TimestampTz origin = DatumGetTimestampTz(compile_const_time(view, lthird(func->args))->constvalue);

	if (TIMESTAMP_NOT_FINITE(origin))
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("the origin of date_bin must be finite")));
	window->kind = WINDOW_TUMBLE;
	window->size = window->slide = compile_const_interval(linitial(func->args), "stride of date_bin");
	window->origin = origin;
}

static void
compile_date_trunc(Window *window, FuncExpr *func)
{
	char	   *unit = TextDatumGetCString(compile_const(linitial(func->args))->constvalue);

	window->kind = WINDOW_TRUNC;
	window->trunc_unit = downcase_identifier(unit, strlen(unit), false, false);
	if (list_length(func->args) == 3)
	{
		Datum		zone = compile_const(lthird(func->args))->constvalue;

		streamext_view_check_zone(zone);
		window->trunc_zone = TextDatumGetCString(zone);
	}
}

/* date_bin and date_trunc make a window over the event time with constants; over anything else they are ordinary functions. */
static bool
compile_is_calendar_window(const CompileContext *context, FuncExpr *func)
{
	int			n = list_length(func->args);

	if (!compile_is_event_time(context, lsecond(func->args)))
		return false;
	return compile_const(linitial(func->args)) != NULL && (n < 3 || compile_const_time(context->view, lthird(func->args)) != NULL);
}

pg_noreturn static void
compile_refuse_time(const CompileContext *context, const char *what)
{
	streamext_view_refuse(psprintf("%s on anything but the stream's event time", what),
						  context->config->event_time != 0 ? "The stream's event time is the column that its option event_time names." :
						  "The stream has no option event_time. Name a timestamptz column with ALTER FOREIGN TABLE ... OPTIONS (ADD event_time '...'), or declare one with metadata 'timestamp' for the time that the source gives.");
}

/* If the group key is a window, fills the view's window and returns true. */
static bool
compile_window(CompileContext *context, Node *node)
{
	CompiledView *view = context->view;
	Window	   *window = &view->window;
	WindowFunction function = streamext_view_window_function(node);
	FuncExpr   *func = (FuncExpr *) node;
	List	   *args;

	if (function == FUNCTION_OTHER)
		return false;
	args = compile_arguments(func);
	if (function == FUNCTION_DATE_BIN || function == FUNCTION_DATE_TRUNC)
	{
		if (!compile_is_calendar_window(context, func))
			return false;
	}
	else if (!compile_is_event_time(context, llast(args)))
		compile_refuse_time(context, "windows");
	if (window->kind != WINDOW_NONE)
		streamext_view_refuse("two windows", "Make a view for each window.");

	switch (function)
	{
		case FUNCTION_DATE_BIN:
			compile_date_bin(view, func);
			break;
		case FUNCTION_DATE_TRUNC:
			compile_date_trunc(window, func);
			break;
		case FUNCTION_TUMBLE:
			window->kind = WINDOW_TUMBLE;
			window->size = window->slide = compile_const_interval(linitial(args), "size of streamext.tumble");
			break;
		case FUNCTION_HOP:
			window->kind = WINDOW_HOP;
			window->size = compile_const_interval(linitial(args), "size of streamext.hop");
			window->slide = compile_const_interval(lsecond(args), "slide of streamext.hop");
			break;
		case FUNCTION_SESSION:
			window->kind = WINDOW_SESSION;
			window->size = compile_const_interval(linitial(args), "gap of streamext.session");
			break;
		case FUNCTION_OTHER:
			break;
	}
	return true;
}

static bool
compile_is_now(const Node *node)
{
	if (IsA(node, FuncExpr))
		return ((const FuncExpr *) node)->funcid == F_NOW || ((const FuncExpr *) node)->funcid == F_TRANSACTION_TIMESTAMP;
	return IsA(node, SQLValueFunction) && ((const SQLValueFunction *) node)->op == SVFOP_CURRENT_TIMESTAMP;
}

/* now() - interval, also written now() + interval: the interval subtracted. NULL if it is anything else. */
static Interval *
compile_now_minus(Node *node)
{
	OpExpr	   *op = (OpExpr *) node;
	Interval   *result;
	Oid			function;
	Const	   *c;

	if (!IsA(node, OpExpr) || list_length(op->args) != 2 || !compile_is_now(linitial(op->args)))
		return NULL;
	function = get_opcode(op->opno);
	if (function != F_TIMESTAMPTZ_MI_INTERVAL && function != F_TIMESTAMPTZ_PL_INTERVAL)
		return NULL;
	c = compile_const(lsecond(op->args));
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
compile_sliding_lower(CompiledView *view, const Interval *interval, bool inclusive)
{
	Window	   *window = &view->window;

	if (window->sliding)
		streamext_view_refuse("two sliding predicates", "Keep one predicate like event_time > now() - interval '1 minute'.");
	window->sliding = true;
	window->length = compile_interval(interval, "the interval of the sliding predicate");
	window->lower_inclusive = inclusive;
	if (window->length <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the interval of the sliding predicate must be positive")));
	view->sliding_days = interval->day;
}

/* event_time + interval: the interval, or NULL if it is anything else. */
static Interval *
compile_event_time_plus(const CompileContext *context, Node *node)
{
	OpExpr	   *op = (OpExpr *) node;
	Const	   *c;
	Interval   *interval;

	if (!IsA(node, OpExpr) || get_opcode(op->opno) != F_TIMESTAMPTZ_PL_INTERVAL || !compile_is_event_time(context, linitial(op->args)))
		return NULL;
	c = compile_const(lsecond(op->args));
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
compile_age(const CompileContext *context, Node *age, Node *bound)
{
	OpExpr	   *op = (OpExpr *) age;
	Const	   *c;
	Interval   *result;

	if (!IsA(age, OpExpr) || get_opcode(op->opno) != F_TIMESTAMPTZ_MI || !compile_is_now(linitial(op->args)) ||
		!compile_is_event_time(context, lsecond(op->args)))
		return NULL;
	c = compile_const(bound);
	if (c == NULL)
		return NULL;
	result = palloc0(sizeof(Interval));
	result->time = compile_interval(DatumGetIntervalP(c->constvalue), "the interval of the sliding predicate");
	return result;
}

/*
 * Takes left <function> right into the window if it is of one of the forms
 *		event_time > now() - interval, event_time + interval > now(), now() - event_time < interval		(the lower bound)
 *		event_time <= now()
 * false: it is none of them.
 */
static bool
compile_sliding_sides(CompileContext *context, Oid function, Node *left, Node *right)
{
	Window	   *window = &context->view->window;
	Interval   *interval = NULL;

	if (function == F_TIMESTAMPTZ_GT || function == F_TIMESTAMPTZ_GE)
	{
		if (IsA(left, Var))
		{
			interval = compile_now_minus(right);
			if (interval != NULL && !compile_is_event_time(context, left))
				compile_refuse_time(context, "sliding predicates");
		}
		else if (compile_is_now(right))
			interval = compile_event_time_plus(context, left);
	}
	else if (function == F_INTERVAL_LT || function == F_INTERVAL_LE)
		interval = compile_age(context, left, right);
	if (interval != NULL)
	{
		compile_sliding_lower(context->view, interval, function == F_TIMESTAMPTZ_GE || function == F_INTERVAL_LE);
		return true;
	}
	if ((function == F_TIMESTAMPTZ_LT || function == F_TIMESTAMPTZ_LE) && compile_is_event_time(context, left) && compile_is_now(right))
	{
		if (window->has_upper)
			streamext_view_refuse("two upper bounds at now()", NULL);
		window->has_upper = true;
		window->upper_inclusive = function == F_TIMESTAMPTZ_LE;
		return true;
	}
	return false;
}

/* Takes a qual that bounds the event time by now() into the window; false: it is none. */
static bool
compile_sliding(CompileContext *context, Node *qual)
{
	OpExpr	   *op = (OpExpr *) qual;
	Oid			commutator;

	if (!IsA(qual, OpExpr) || list_length(op->args) != 2)
		return false;
	commutator = get_commutator(op->opno);
	return compile_sliding_sides(context, get_opcode(op->opno), linitial(op->args), lsecond(op->args)) ||
		(OidIsValid(commutator) && compile_sliding_sides(context, get_opcode(commutator), lsecond(op->args), linitial(op->args)));
}

static List *
compile_flatten_and(Node *node, List *result)
{
	ListCell   *lc;

	if (node == NULL)
		return result;
	if (IsA(node, List))
	{
		foreach(lc, (List *) node)
			result = compile_flatten_and(lfirst(lc), result);
		return result;
	}
	if (!is_andclause(node))
		return lappend(result, node);
	foreach(lc, ((BoolExpr *) node)->args)
		result = compile_flatten_and(lfirst(lc), result);
	return result;
}

static void
compile_quals(CompileContext *context)
{
	CompiledView *view = context->view;
	ListCell   *lc;

	foreach(lc, compile_flatten_and(view->query->jointree->quals, NIL))
	{
		Node	   *qual = lfirst(lc);

		if (!view->stateless && compile_sliding(context, qual))
			continue;
		streamext_view_check_below(qual, "WHERE");
		view->quals = lappend(view->quals, qual);
	}
	if (view->window.has_upper && !view->window.sliding)
		streamext_view_refuse("an upper bound at now() without a sliding predicate",
					   "Add a predicate like event_time > now() - interval '1 minute'.");
}

/* The rest of the window once keys and quals are known. */
static void
compile_finish_window(CompiledView *view)
{
	Window	   *window = &view->window;

	if (window->sliding)
		window->step = view->options.step;	/* 0: the default */
	else if (view->options.step > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("view option \"streamext.step\" needs a sliding predicate"),
				 errhint("A sliding predicate is written like event_time > now() - interval '1 minute'.")));
	streamext_window_finish(window);
	if (view->sliding_days != 0 && COMPILE_DST_STEP % window->pane != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("view option \"streamext.step\" must divide 30 minutes when the sliding predicate counts in days"),
				 errdetail("A day is an hour shorter or longer where daylight saving time begins or ends."),
				 errhint("Write the interval in hours, or set streamext.step to a divisor of 30 minutes.")));
}

/* ---- keys ---- */

static bool
compile_bytewise(Oid type, Oid collation)
{
	Oid			base = getBaseType(type);

	switch (base)
	{
		case BOOLOID:
		case CHAROID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCOLLATIONOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case UUIDOID:
		case BYTEAOID:
		case MACADDROID:
		case MACADDR8OID:
			return true;
		case TEXTOID:
		case VARCHAROID:
			return !OidIsValid(collation) || get_collation_isdeterministic(collation);
		default:
			return type_is_enum(base);
	}
}

static void
compile_key(CompileContext *context, KeySpec *key, const SortGroupClause *group, const TargetEntry *entry)
{
	Node	   *expr = (Node *) entry->expr;
	Oid			left,
				right;

	key->expr = entry->expr;
	key->name = pstrdup(entry->resname != NULL ? entry->resname : "?column?");
	key->type = exprType(expr);
	key->typmod = exprTypmod(expr);
	key->collation = exprCollation(expr);
	get_typlenbyvalalign(key->type, &key->typlen, &key->typbyval, &key->typalign);
	key->eqop = group->eqop;
	key->is_window = compile_window(context, expr);
	if (key->is_window)
		return;

	streamext_view_check_below(expr, "GROUP BY");
	if (key->type == RECORDOID || key->type == RECORDARRAYOID ||
		!group->hashable || !get_op_hash_functions(group->eqop, &left, &right))
		streamext_view_refuse(psprintf("GROUP BY on type %s", format_type_be(key->type)), "The type cannot be hashed.");
	key->eqfunc = get_opcode(group->eqop);
	key->hashfunc = left;
	key->bytewise = compile_bytewise(key->type, key->collation);
}

static uint32
compile_set_mask(const CompiledView *view, const List *refs)
{
	uint32		mask = 0;
	int			k = 0;
	ListCell   *lc;

	foreach(lc, view->query->groupClause)
	{
		if (list_member_int(refs, lfirst_node(SortGroupClause, lc)->tleSortGroupRef))
			mask |= (uint32) 1 << k;
		k++;
	}
	return mask;
}

/* GROUPING SETS, ROLLUP and CUBE: a row belongs to a group of each set. */
static void
compile_sets(CompiledView *view)
{
	List	   *sets = expand_grouping_sets(view->query->groupingSets, view->query->groupDistinct, -1);
	KeySpec    *key = &view->keys[view->nkeys];
	int			from = 0;
	int			to;
	ListCell   *lc;

	if (list_length(sets) > STREAMEXT_MAX_SETS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("continuous views can have at most %d grouping sets", STREAMEXT_MAX_SETS)));
	if (view->window.kind == WINDOW_SESSION)
		streamext_view_refuse("grouping sets with session windows", NULL);
	view->nsets = list_length(sets);
	view->sets = palloc(sizeof(uint32) * view->nsets);
	to = view->nsets;
	foreach(lc, sets)
	{
		uint32		mask = compile_set_mask(view, lfirst(lc));

		if (view->window_key >= 0 && (mask & ((uint32) 1 << view->window_key)) == 0)
			streamext_view_refuse("grouping sets without the window",
								  "Put the window beside them, as in GROUP BY window_start, ROLLUP (site, device).");
		view->sets[mask == 0 ? from++ : --to] = mask;
	}
	view->nempty = from;

	view->set_key = view->nkeys++;
	key->type = INT4OID;
	key->typmod = -1;
	get_typlenbyvalalign(key->type, &key->typlen, &key->typbyval, &key->typalign);
	key->bytewise = true;
	key->eqop = Int4EqualOperator;
	key->eqfunc = F_INT4EQ;
	key->hashfunc = F_HASHINT4;
	key->name = pstrdup("grouping_set");
}

static void
compile_keys(CompileContext *context)
{
	CompiledView *view = context->view;
	List	   *groups = view->query->groupClause;
	ListCell   *lc;

	view->has_group_by = groups != NIL || view->query->groupingSets != NIL;
	view->window_key = -1;
	view->keys = palloc0(sizeof(KeySpec) * (list_length(groups) + 1));
	foreach(lc, groups)
	{
		SortGroupClause *group = lfirst_node(SortGroupClause, lc);
		KeySpec    *key = &view->keys[view->nkeys];

		compile_key(context, key, group, get_sortgroupclause_tle(group, view->query->targetList));
		if (key->is_window)
			view->window_key = view->nkeys;
		view->nkeys++;
	}
	view->set_key = -1;
	view->nempty = groups == NIL ? 1 : 0;
	if (view->query->groupingSets != NIL)
		compile_sets(view);
}

/* date_trunc('minute', ts) AS ts ... GROUP BY ts groups by the column, not by the expression. */
static void
compile_warn_alias(const CompileContext *context)
{
	const CompiledView *view = context->view;
	ListCell   *lc;

	for (int k = 0; k < view->nkeys; k++)
	{
		Var		   *var = (Var *) view->keys[k].expr;
		char	   *column;

		if (var == NULL || !compile_is_event_time(context, (Node *) var))
			continue;
		column = get_attname(view->stream_relid, var->varattno, false);
		foreach(lc, view->query->targetList)
		{
			TargetEntry *entry = lfirst_node(TargetEntry, lc);

			if (entry->resjunk || entry->resname == NULL || strcmp(entry->resname, column) != 0 ||
				streamext_view_window_function((Node *) entry->expr) == FUNCTION_OTHER)
				continue;
			ereport(WARNING,
					(errmsg("the view groups by the stream's column \"%s\", not by the output column of the same name", column),
					 errdetail("GROUP BY prefers input columns to output columns, so each distinct time is a group of its own."),
					 errhint("Give the output column another name, or repeat the expression in GROUP BY.")));
		}
	}
}

/* ---- aggregates ---- */

static void
compile_add_aggref(CompileContext *context, Aggref *aggref)
{
	/* Seen from the view's own level, also where a sublink in the output refers to it. */
	aggref = copyObject(aggref);
	if (context->sublevels > 0)
		IncrementVarSublevelsUp((Node *) aggref, -context->sublevels, context->sublevels);
	if (list_member(context->aggrefs, aggref))
		return;
	streamext_view_check_aggregate(aggref);
	streamext_view_check_below((Node *) aggref->args, "an aggregate's arguments");
	streamext_view_check_below((Node *) aggref->aggdirectargs, "an aggregate's arguments");
	streamext_view_check_below((Node *) aggref->aggfilter, "FILTER");
	context->aggrefs = lappend(context->aggrefs, aggref);
}

static bool
compile_aggregate_walker(Node *node, CompileContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == context->sublevels)
	{
		compile_add_aggref(context, (Aggref *) node);
		return false;
	}
	if (IsA(node, GroupingFunc) && ((GroupingFunc *) node)->agglevelsup == context->sublevels)
		return false;			/* says which keys; nothing is evaluated */
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == context->sublevels)
		streamext_view_check_var((Var *) node, "the output");
	if (IsA(node, Query))
	{
		bool		result;

		context->sublevels++;
		result = query_tree_walker((Query *) node, compile_aggregate_walker, context, 0);
		context->sublevels--;
		return result;
	}
	return expression_tree_walker(node, compile_aggregate_walker, context);
}

/* Appends a node's text without what depends only on where in a query text it was written. */
static void
compile_append_node(StringInfo buf, const void *node)
{
	static const char location[] = ":location ";
	char	   *text = nodeToString(node);
	char	   *at = text;
	char	   *found;

	/* A string inside has its blanks escaped, so the token is a field's name wherever it stands. */
	while ((found = strstr(at, location)) != NULL)
	{
		appendBinaryStringInfo(buf, at, found - at);
		at = found + strlen(location);
		while (*at == '-' || (*at >= '0' && *at <= '9'))
			at++;
	}
	appendStringInfoString(buf, at);
	appendStringInfoChar(buf, '\n');
	pfree(text);
}

/* By their text, so that a query that names the same ones in another order means the same state. */
static int
compile_compare_aggregates(const ListCell *a, const ListCell *b)
{
	StringInfoData one,
				other;
	int			result;

	initStringInfo(&one);
	initStringInfo(&other);
	compile_append_node(&one, lfirst(a));
	compile_append_node(&other, lfirst(b));
	result = strcmp(one.data, other.data);
	pfree(one.data);
	pfree(other.data);
	return result;
}

static void
compile_aggregates(CompileContext *context)
{
	CompiledView *view = context->view;
	ListCell   *lc;
	uint64		size = 0;

	compile_aggregate_walker((Node *) view->query->targetList, context);
	compile_aggregate_walker(view->query->havingQual, context);
	if (list_length(context->aggrefs) > STREAMEXT_MAX_AGGREGATES)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("continuous views can have at most %d different aggregates", STREAMEXT_MAX_AGGREGATES)));
	list_sort(context->aggrefs, compile_compare_aggregates);
	view->aggs = palloc0(sizeof(AggSpec) * Max(list_length(context->aggrefs), 1));
	foreach(lc, context->aggrefs)
	{
		AggSpec    *spec = &view->aggs[view->naggs++];

		streamext_aggregate_compile(lfirst_node(Aggref, lc), spec);
		spec->offset = (uint32) size;
		spec->state_size = MAXALIGN(spec->state_size);
		size += spec->state_size;
	}
	if (view->window.kind == WINDOW_SESSION)
	{
		view->span_offset = (uint32) size;
		size += sizeof(SessionSpan);
	}
	if (size > STREAMEXT_CHUNK_MAX / 2)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the aggregates of the view need too large a state")));
	view->state_size = (uint32) size;
}

/* ---- stateless ---- */

/* Output expressions are evaluated for each row; check: the table takes them, and the current user may insert. */
static void
compile_stateless(CompileContext *context, bool check)
{
	CompiledView *view = context->view;
	List	   *outputs = view->query->targetList;

	streamext_view_check_below((Node *) outputs, "the output");
	view->into = streamext_into_target(view->options.into);
	if (check)
		streamext_into_check(view->into, outputs);
}

/* ---- windows into a table ---- */

/* The target is looked for when there is something to be written: reading the view does without it. */
static void
compile_into_windows(const CompileContext *context, bool check)
{
	const CompiledView *view = context->view;

	streamext_view_check_into_window(&view->window);
	if (check)
		streamext_into_check(streamext_into_target(view->options.into), view->query->targetList);
}

/* ---- definition ---- */

static uint64
compile_hash(const StringInfoData *buf)
{
	uint64		hash = hash_bytes_extended((unsigned char *) buf->data, buf->len, 0);

	return hash == 0 ? 1 : hash;
}

/*
 * Everything that the kept state depends on; lateness and retention only change what becomes of rows from now on. First what
 * it is made of, then which rows are in it.
 */
static void
compile_definition(const CompileContext *context)
{
	CompiledView *view = context->view;
	const Window *w = &view->window;
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%u %u %s/%s/%s\n", view->stream_relid, context->config->event_time,
					 view->options.timezone, view->options.datestyle, view->options.intervalstyle);
	appendStringInfo(&buf, "%d " INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT " %s %s\n",
					 w->kind, w->size, w->slide, w->origin, w->pane,
					 w->trunc_unit != NULL ? w->trunc_unit : "", w->trunc_zone != NULL ? w->trunc_zone : "");
	appendStringInfo(&buf, "%d %d " INT64_FORMAT " %d %d %d\n",
					 w->sliding, w->edges, w->length, w->lower_inclusive, w->has_upper, w->upper_inclusive);
	for (int k = 0; k < view->nkeys; k++)
		compile_append_node(&buf, view->keys[k].expr);
	for (int s = 0; s < view->nsets; s++)
		appendStringInfo(&buf, "%x ", view->sets[s]);
	compile_append_node(&buf, context->aggrefs);
	view->layout = compile_hash(&buf);
	compile_append_node(&buf, view->quals);
	if (view->has_joins)
	{
		List	   *from = streamext_join_definition(view->query);

		compile_append_node(&buf, from);
	}
	if (view->stateless)
	{
		appendStringInfo(&buf, "%u\n", view->into);
		compile_append_node(&buf, view->query->targetList);
	}
	view->definition = compile_hash(&buf);
	pfree(buf.data);
}

/* ---- entry points ---- */

void
streamext_view_check_rights(const CompiledView *view)
{
	ListCell   *cell;
#if PG_VERSION_NUM >= 160000
	List	   *infos = copyObject(view->query->rteperminfos);

	foreach(cell, infos)
		lfirst_node(RTEPermissionInfo, cell)->checkAsUser = view->owner;
	(void) ExecCheckPermissions(view->query->rtable, infos, true);
#else
	List	   *entries = copyObject(view->query->rtable);

	foreach(cell, entries)
		lfirst_node(RangeTblEntry, cell)->checkAsUser = view->owner;
	(void) ExecCheckRTPerms(entries, true);
#endif
}

static Oid
compile_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		return GetUserId();
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

CompiledView *
streamext_view_compile_query(Oid relid, Query *query, const ContinuousViewOptions *options)
{
	CompiledView *view = palloc0(sizeof(CompiledView));
	CompileContext context = {.view = view};

	view->relid = relid;
	view->owner = compile_owner(relid);
	view->options = options != NULL ? *options : streamext_view_options(relid);
	compile_default_options(&view->options);
	view->query = copyObject(query);
	streamext_view_flatten_groups(view->query);

	streamext_view_check_shape(view->query, view->options.into != NULL);
	view->stateless = streamext_view_is_stateless(view->query);
	compile_from(view);
	context.config = streamext_stream_config(view->stream_relid);
	if (context.config == NULL)
		elog(ERROR, "stream %u has gone", view->stream_relid);

	compile_keys(&context);
	if (view->stateless)
		compile_stateless(&context, options != NULL);
	compile_quals(&context);
	compile_finish_window(view);
	if (streamext_into_has_windows(view))
		compile_into_windows(&context, options != NULL);
	compile_aggregates(&context);
	compile_definition(&context);
	if (options != NULL)
		compile_warn_alias(&context);
	return view;
}

CompiledView *
streamext_view_compile(Oid relid)
{
	Relation	rel = relation_open(relid, AccessShareLock);
	CompiledView *view;

	if (rel->rd_rel->relkind != RELKIND_VIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a view", RelationGetRelationName(rel))));
	view = streamext_view_compile_query(relid, get_view_query(rel), NULL);
	relation_close(rel, NoLock);
	return view;
}

Oid
streamext_view_stream(Oid relid)
{
	Relation	rel = try_relation_open(relid, AccessShareLock);
	Oid			result = InvalidOid;

	if (rel == NULL)
		return InvalidOid;
	if (rel->rd_rel->relkind == RELKIND_VIEW && rel->rd_rel->relhasrules && rel->rd_rules != NULL)
		result = streamext_join_stream_of(get_view_query(rel));
	relation_close(rel, NoLock);
	return result;
}
