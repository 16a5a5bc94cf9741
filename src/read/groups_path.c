/*
 * read/groups_path.c
 *		When GROUP BY above a continuous view is done in the view's scan (read/groups.c).
 *
 * A coarser answer out of a finer view is made of states that are combined, so neither a tuple of each window nor a state on its way to an aggregate need
 * be made. That is done where all of this holds; else the plan is PostgreSQL's own, and gives the same:
 *	- FROM is the view alone, and each condition of WHERE is of the window alone or of the other keys alone;
 *	- each expression of GROUP BY is a key, or of the window alone, and can be hashed;
 *	- each aggregate is streamext.merge, count(*), sum of a count, min of a min or max of a max, without FILTER, DISTINCT or ORDER BY.
 * HAVING, outputs and what is above them are PostgreSQL's.
 */
#include "base/streamext.h"

#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planner.h"
#include "optimizer/restrictinfo.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/selfuncs.h"
#include "utils/syscache.h"

#include "base/own_schema.h"
#include "read/groups.h"

/* What groups may take that have to be kept until the end, or until the window is behind them. */
#define GROUPS_MEMORY (256 * INT64CONST(1024 * 1024))
#define GROUPS_OVERHEAD 64 /* bytes a group, beside its states */

static create_upper_paths_hook_type groups_next_hook = NULL;

typedef struct GroupsSearch
{
	PlannerInfo		   *root;
	RelOptInfo		   *rel;
	const CompiledView *view;
	GroupsPlan			plan;
	List			   *columns; /* Expr of the node's tuples behind the keys, groups and aggregates */
	Oid					merge;	 /* streamext_internal.merge_states */
} GroupsSearch;

/* ---- what is read of the view ---- */

/* Sets bit 0 for the window's key, 1 for others, 2 for anything else. */
static int
groups_reads(const GroupsSearch *search, Node *expr)
{
	List	 *vars = pull_var_clause(expr, PVC_RECURSE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS | PVC_RECURSE_PLACEHOLDERS);
	int		  reads = 0;
	ListCell *lc;

	foreach (lc, vars)
	{
		const Var *var = lfirst(lc);

		if (!IsA(var, Var) || var->varno != search->rel->relid || var->varlevelsup != 0 || var->varattno <= 0 ||
			var->varattno > search->view->nkeys)
			reads |= 4;
		else
			reads |= search->view->keys[var->varattno - 1].is_window ? 1 : 2;
	}
	return reads;
}

/* What is evaluated once for many rows. */
static bool
groups_is_steady(Node *expr)
{
	return !contain_volatile_functions(expr) && !contain_subplans(expr) && !expression_returns_set(expr) &&
		   !contain_agg_clause(expr);
}

/* ---- GROUP BY ---- */

static GroupsOrder
groups_order_of_trunc(Node *unit)
{
	static const char *const hours[] = { "hour", "minute", "second" };
	char					*name;

	if (!IsA(unit, Const) || ((Const *) unit)->constisnull)
		return GROUPS_ORDER_NONE;
	name = TextDatumGetCString(((Const *) unit)->constvalue);
	for (int i = 0; i < lengthof(hours); i++)
		if (strcmp(name, hours[i]) == 0)
			return GROUPS_ORDER_HOUR;
	return GROUPS_ORDER_DAY;
}

static GroupsOrder
groups_order(Node *expr)
{
	Oid		  tumble[] = { INTERVALOID, TIMESTAMPTZOID };
	FuncExpr *call = (FuncExpr *) expr;
	int		  window;
	ListCell *lc;

	if (IsA(expr, Var))
		return GROUPS_ORDER_AT_ONCE;
	if (!IsA(expr, FuncExpr) || list_length(call->args) < 2)
		return GROUPS_ORDER_NONE;
	window = 1;
	foreach (lc, call->args)
		if (foreach_current_index(lc) == window ? !IsA(lfirst(lc), Var) : !IsA(lfirst(lc), Const))
			return GROUPS_ORDER_NONE;
	if (call->funcid == F_DATE_TRUNC_TEXT_TIMESTAMPTZ || call->funcid == F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT)
		return groups_order_of_trunc(linitial(call->args));
	if (call->funcid == F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ ||
		call->funcid == streamext_own_function("tumble", tumble, lengthof(tumble)))
		return GROUPS_ORDER_AT_ONCE;
	return GROUPS_ORDER_NONE;
}

static bool
groups_add_pane(GroupsSearch *search, const SortGroupClause *clause, Expr *expr)
{
	GroupsPlan *plan = &search->plan;
	int			column = search->view->nkeys + list_length(search->columns);

	if (!groups_is_steady((Node *) expr) || (groups_reads(search, (Node *) expr) & ~1) != 0)
		return false;
	if (IsA(expr, Var))
		column = ((Var *) expr)->varattno - 1;
	else
		search->columns = lappend(search->columns, expr);
	plan->panes = lappend(plan->panes, expr);
	plan->pane_columns = lappend_int(plan->pane_columns, column);
	plan->pane_operators = lappend_oid(plan->pane_operators, clause->eqop);
	plan->pane_collations = lappend_oid(plan->pane_collations, exprCollation((Node *) expr));
	plan->order = Min(plan->order, groups_order((Node *) expr));
	return true;
}

static bool
groups_take_group_by(GroupsSearch *search)
{
	const Query *query = search->root->parse;
	GroupsPlan	*plan = &search->plan;
	ListCell	*lc;

	plan->order = GROUPS_ORDER_NONE;
	plan->plain = query->groupClause == NIL;
	foreach (lc, query->groupClause)
	{
		const SortGroupClause *clause = lfirst_node(SortGroupClause, lc);
		Expr *expr = get_sortgroupclause_tle(unconstify(SortGroupClause *, clause), query->targetList)->expr;
		int	  reads = groups_reads(search, (Node *) expr);

		if (!OidIsValid(clause->eqop) || !clause->hashable)
			return false;
		if (IsA(expr, Var) && reads == 2)
		{
			plan->keys = lappend_int(plan->keys, ((Var *) expr)->varattno - 1);
			plan->key_operators = lappend_oid(plan->key_operators, clause->eqop);
			plan->key_collations = lappend_oid(plan->key_collations, exprCollation((Node *) expr));
		}
		else if (!groups_add_pane(search, clause, expr))
			return false;
	}
	return true;
}

/* ---- WHERE ---- */

static bool
groups_take_where(GroupsSearch *search)
{
	GroupsPlan *plan = &search->plan;
	ListCell   *lc;

	foreach (lc, search->rel->baserestrictinfo)
	{
		const RestrictInfo *clause = lfirst_node(RestrictInfo, lc);
		Node			   *expr = (Node *) clause->clause;

		if (clause->pseudoconstant || clause->security_level > 0 || !groups_is_steady(expr))
			return false;
		switch (groups_reads(search, expr))
		{
			case 0:
			case 1:
				plan->pane_quals = lappend(plan->pane_quals, expr);
				break;
			case 2:
				plan->key_quals = lappend(plan->key_quals, expr);
				break;
			default:
				return false;
		}
	}
	return true;
}

/* ---- aggregates ---- */

/* The number of the view's aggregate whose value or state the argument is; -1: none. */
static int
groups_aggregate_column(const GroupsSearch *search, const Aggref *aggref, bool state)
{
	const CompiledView *view = search->view;
	const TargetEntry  *argument = aggref->args == NIL ? NULL : linitial_node(TargetEntry, aggref->args);
	const Var		   *var = argument == NULL ? NULL : (const Var *) argument->expr;
	int					a;

	if (var == NULL || !IsA(var, Var) || var->varno != search->rel->relid || var->varlevelsup != 0)
		return -1;
	a = var->varattno - view->nkeys - 1 - (state ? view->naggs : 0);
	return a >= 0 && a < view->naggs ? a : -1;
}

/* min or max, of their own values. */
static bool
groups_is_extreme(const Aggref *aggref, const AggSpec *spec)
{
	HeapTuple tuple;
	bool	  result;

	if (spec->mode != AGG_NATIVE || spec->aggref->aggfnoid != aggref->aggfnoid ||
		spec->aggref->aggcollid != aggref->aggcollid)
		return false;
	tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = OidIsValid(((Form_pg_aggregate) GETSTRUCT(tuple))->aggsortop);
	ReleaseSysCache(tuple);
	return result;
}

static bool
groups_add_aggregate(GroupsSearch *search, Aggref *aggref)
{
	GroupsPlan	 *plan = &search->plan;
	GroupsAggKind kind = GROUPS_MERGE;
	int			  a = -1;

	if (aggref->aggfilter != NULL || aggref->aggdistinct != NIL || aggref->aggorder != NIL ||
		aggref->agglevelsup != 0 || aggref->aggsplit != AGGSPLIT_SIMPLE)
		return false;
	if (aggref->aggfnoid == F_COUNT_)
		kind = GROUPS_ROWS;
	else if (aggref->aggfnoid == search->merge)
		a = groups_aggregate_column(search, aggref, true);
	else
	{
		const AggSpec *spec;

		a = groups_aggregate_column(search, aggref, false);
		if (a < 0)
			return false;
		spec = &search->view->aggs[a];
		if (aggref->aggfnoid == F_SUM_INT8 && spec->mode == AGG_NATIVE &&
			(spec->aggref->aggfnoid == F_COUNT_ || spec->aggref->aggfnoid == F_COUNT_ANY))
			kind = GROUPS_SUM;
		else if (!groups_is_extreme(aggref, spec))
			return false;
	}
	if (kind != GROUPS_ROWS && a < 0)
		return false;
	plan->kinds = lappend_int(plan->kinds, kind);
	plan->numbers = lappend_int(plan->numbers, a);
	plan->functions = lappend_oid(plan->functions, aggref->aggfnoid);
	search->columns = lappend(search->columns, aggref);
	return true;
}

static bool
groups_take_aggregates(GroupsSearch *search, PathTarget *target, List *having)
{
	List	 *exprs = list_concat_copy(target->exprs, having);
	List	 *found = NIL;
	ListCell *lc;

	foreach (lc, pull_var_clause((Node *) exprs,
								 PVC_INCLUDE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS | PVC_RECURSE_PLACEHOLDERS))
		if (IsA(lfirst(lc), Aggref))
			found = list_append_unique(found, lfirst(lc));
	foreach (lc, found)
		if (!groups_add_aggregate(search, lfirst_node(Aggref, lc)))
			return false;
	return true;
}

/* ---- whether to ---- */

/* Everything that view_rows gives is of the kind that the node makes; its look-up and bounds are known when it starts. */
static bool
groups_can_read(GroupsSearch *search, const ViewScanPlan *prune)
{
	const CompiledView *view = search->view;
	ListCell		   *lc;

	if (view->derived || view->nsets > 0 || view->nempty > 0 || !view->has_group_by)
		return false;
	foreach (lc, list_concat_copy(prune->values, prune->bounds))
		if (!streamext_read_is_known(lfirst(lc)))
			return false;
	return true;
}

/* All that has to be kept at once, as estimated. */
static bool
groups_fit(const GroupsSearch *search, double groups)
{
	double rows, panes;
	double size = GROUPS_OVERHEAD + search->view->state_size;
	double most = Max((double) GROUPS_MEMORY, (double) get_hash_memory_limit());

	streamext_path_count(search->view, &rows, &panes);
	if (search->plan.order != GROUPS_ORDER_NONE)
		groups = Min(groups, 4 * rows / panes);
	return groups * size <= most;
}

static Plan *groups_to_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
							List *custom_plans);

static void
groups_add_path(const GroupsSearch *search, RelOptInfo *output, List *having, double groups)
{
	static const CustomPathMethods methods = { .CustomName = streamext_groups_name, .PlanCustomPath = groups_to_plan };
	CustomPath					  *path = makeNode(CustomPath);
	double						   rows = search->rel->rows;
	QualCost					   cost;

	path->path.pathtype = T_CustomScan;
	path->path.parent = output;
	path->path.pathtarget = output->reltarget;
	path->path.rows = groups;
	/* less than half of what the scan alone takes with a tuple for each row */
	path->path.startup_cost = cpu_operator_cost * rows;
	cost_qual_eval(&cost, having, search->root);
	path->path.total_cost = path->path.startup_cost + cpu_operator_cost * rows + cost.startup +
							cost.per_tuple * groups + (cpu_tuple_cost + output->reltarget->cost.per_tuple) * groups +
							output->reltarget->cost.startup;
	path->custom_private = list_make5(makeInteger((int) search->rel->relid), search->rel->baserestrictinfo, having,
									  streamext_groups_plan_store(&search->plan), search->columns);
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->methods = &methods;
	add_path(output, (Path *) path);
}

/* The keys of view_rows, then the node's own columns. */
static List *
groups_scan_tlist(const CompiledView *view, Index rti, List *columns)
{
	List	 *result = NIL;
	ListCell *lc;

	for (int k = 0; k < view->nkeys; k++)
	{
		const KeySpec *key = &view->keys[k];
		Var			  *var = makeVar(rti, k + 1, key->type, key->typmod, key->collation, 0);

		result = lappend(result, makeTargetEntry((Expr *) var, k + 1, NULL, false));
	}
	foreach (lc, columns)
		result = lappend(result, makeTargetEntry(lfirst(lc), list_length(result) + 1, NULL, false));
	return result;
}

static Plan *
groups_to_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses, List *custom_plans)
{
	CustomScan		   *scan = makeNode(CustomScan);
	Index				rti = intVal(linitial(path->custom_private));
	const CompiledView *view =
		streamext_view_cached(streamext_view_rows_view(planner_rt_fetch(rti, root)), CurrentMemoryContext);
	ViewScanPlan prune = streamext_path_prune(root, view, rti, lsecond(path->custom_private));
	GroupsPlan	 plan = streamext_groups_plan_load(lfourth(path->custom_private));

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = lthird(path->custom_private);
	scan->scan.scanrelid = 0;
	scan->flags = path->flags;
	scan->custom_scan_tlist = groups_scan_tlist(view, rti, list_nth(path->custom_private, 4));
	scan->methods = &streamext_groups_methods;
	streamext_scan_plan_store(&prune, scan);
	Assert(list_length(scan->custom_private) == GROUPS_PRIVATE);
	scan->custom_private = list_concat(scan->custom_private, streamext_groups_plan_store(&plan));
	/* what is evaluated from there has to be known for its parameters and functions */
	scan->custom_exprs = list_concat(scan->custom_exprs, list_concat_copy(plan.pane_quals, plan.key_quals));
	scan->custom_exprs = list_concat(scan->custom_exprs, list_copy(plan.panes));
	return &scan->scan.plan;
}

/* A query that may be one of these. */
static bool
groups_may_be(PlannerInfo *root, UpperRelationKind stage, RelOptInfo *input)
{
	const Query *query = root->parse;

	return stage == UPPERREL_GROUP_AGG && input->reloptkind == RELOPT_BASEREL && input->rtekind == RTE_FUNCTION &&
		   query->groupingSets == NIL && (query->hasAggs || query->groupClause != NIL) && !IS_DUMMY_REL(input) &&
		   bms_is_empty(input->lateral_relids);
}

static void
groups_hook(PlannerInfo *root, UpperRelationKind stage, RelOptInfo *input, RelOptInfo *output, void *extra)
{
	Oid			 states[] = { BYTEAOID, OIDOID, INT4OID, ANYELEMENTOID };
	GroupsSearch search = { .root = root, .rel = input };
	List		*having;
	ViewScanPlan prune;
	Oid			 view;
	double		 groups = 1;

	if (groups_next_hook != NULL)
		groups_next_hook(root, stage, input, output, extra);
	if (!groups_may_be(root, stage, input))
		return;
	view = streamext_view_rows_view(planner_rt_fetch(input->relid, root));
	if (!OidIsValid(view))
		return;
	having = (List *) ((GroupPathExtraData *) extra)->havingQual;
	search.view = streamext_view_cached(view, CurrentMemoryContext);
	search.merge = streamext_own_function("merge_states", states, lengthof(states));
	prune = streamext_path_prune(root, search.view, input->relid, input->baserestrictinfo);
	if (!groups_can_read(&search, &prune) || !groups_take_where(&search) || !groups_take_group_by(&search) ||
		!groups_take_aggregates(&search, output->reltarget, having))
		return;
	if (root->parse->groupClause != NIL)
		groups = estimate_num_groups(root, get_sortgrouplist_exprs(root->parse->groupClause, root->parse->targetList),
									 input->rows, NULL, NULL);
	if (groups_fit(&search, groups))
		groups_add_path(&search, output, having, groups);
}

void
streamext_groups_path_install_hook(void)
{
	groups_next_hook = create_upper_paths_hook;
	create_upper_paths_hook = groups_hook;
}
