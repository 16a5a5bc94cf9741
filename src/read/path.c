/*
 * read/path.c
 *		Paths and plans of a continuous view's scan, and what it may leave out.
 *
 * The scan of view_rows has custom paths only: one without parameters, and one for nested loops when join clauses give all
 * keys. Equality on all stored keys is a hash look-up, comparisons of the window key bound the panes; both are taken
 * from the quals, which remain as filters, so that pruning may be conservative. Rows are estimated from the true number
 * of groups.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_opfamily.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "shared/shmem.h"
#include "read/scan.h"

static Plan *path_to_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses,
						  List *custom_plans);

/* Of a derived stream: what a buffer has by default. */
#define PATH_DERIVED_ROWS 1000

static set_rel_pathlist_hook_type path_next_hook = NULL;

/* The key column that the expression is, or -1; binary-compatible casts do not matter. */
static int
path_key_column(const CompiledView *view, Index rti, Node *node)
{
	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	if (node == NULL || !IsA(node, Var) || ((Var *) node)->varno != rti || ((Var *) node)->varlevelsup != 0 ||
		((Var *) node)->varattno <= 0 || ((Var *) node)->varattno > view->nkeys)
		return -1;
	return ((Var *) node)->varattno - 1;
}

static bool
path_is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/* True if `key opno value` holds only for what the key's own hash and equality call equal to the value. */
static bool
path_is_key_equality(const KeySpec *key, Oid opno, Oid collation, Node *value)
{
	Oid left, right;

	if (path_is_integer(key->type) && path_is_integer(exprType(value)))
		return get_op_opfamily_strategy(opno, INTEGER_BTREE_FAM_OID) == BTEqualStrategyNumber;
	if (opno != key->eqop)
		return false;
	op_input_types(opno, &left, &right);
	if ((IsPolymorphicType(left) || left == RECORDOID) && getBaseType(exprType(value)) != getBaseType(key->type))
		return false;
	if (key->bytewise)
		return !OidIsValid(collation) || get_collation_isdeterministic(collation);
	return collation == key->collation;
}

static int
path_window_strategy(Oid opno)
{
	switch (get_opcode(opno))
	{
		case F_TIMESTAMPTZ_LT:
			return BTLessStrategyNumber;
		case F_TIMESTAMPTZ_LE:
			return BTLessEqualStrategyNumber;
		case F_TIMESTAMPTZ_EQ:
			return BTEqualStrategyNumber;
		case F_TIMESTAMPTZ_GE:
			return BTGreaterEqualStrategyNumber;
		case F_TIMESTAMPTZ_GT:
			return BTGreaterStrategyNumber;
		default:
			return InvalidStrategy;
	}
}

/* Takes key <op> value into the plan if it is of use. Only the first equality of a key counts. */
static bool
path_match(ViewScanPlan *plan, const CompiledView *view, Index rti, Oid opno, Oid collation, Node *key, Node *value)
{
	int k = path_key_column(view, rti, key);

	if (k < 0 || !OidIsValid(opno))
		return false;
	if (view->keys[k].is_window)
	{
		int strategy = path_window_strategy(opno);

		if (strategy == InvalidStrategy || exprType(value) != TIMESTAMPTZOID)
			return false;
		if (view->window.kind == WINDOW_SESSION)
		{
			/* A session may go on for ever: its start only tells where panes begin. */
			if (strategy == BTLessStrategyNumber || strategy == BTLessEqualStrategyNumber)
				return false;
			if (strategy == BTEqualStrategyNumber)
				strategy = BTGreaterEqualStrategyNumber;
		}
		plan->strategies = lappend_int(plan->strategies, strategy);
		plan->bounds = lappend(plan->bounds, value);
		return true;
	}
	if (list_member_int(plan->keys, k) || !path_is_key_equality(&view->keys[k], opno, collation, value))
		return false;
	plan->keys = lappend_int(plan->keys, k);
	plan->types = lappend_oid(plan->types, exprType(value));
	plan->values = lappend(plan->values, value);
	return true;
}

static bool
path_match_clause(PlannerInfo *root, ViewScanPlan *plan, const CompiledView *view, Index rti, const RestrictInfo *rinfo)
{
	OpExpr *op = (OpExpr *) rinfo->clause;

	if (rinfo->pseudoconstant || !IsA(op, OpExpr) || list_length(op->args) != 2)
		return false;
	for (int side = 0; side < 2; side++)
	{
		Node *key = side == 0 ? linitial(op->args) : lsecond(op->args);
		Node *value = side == 0 ? lsecond(op->args) : linitial(op->args);

		if (path_key_column(view, rti, key) < 0 || bms_is_member(rti, pull_varnos(root, value)) ||
			contain_volatile_functions(value) || contain_subplans(value))
			continue;
		if (path_match(plan, view, rti, side == 0 ? op->opno : get_commutator(op->opno), op->inputcollid, key, value))
			return true;
	}
	return false;
}

static bool
path_all_keys(const ViewScanPlan *plan, const CompiledView *view)
{
	int stored = view->nkeys - (view->window_key >= 0 ? 1 : 0);

	return stored > 0 && list_length(plan->keys) == stored;
}

/* Equality on some keys only is of no use. */
ViewScanPlan
streamext_path_prune(PlannerInfo *root, const CompiledView *view, Index rti, List *clauses)
{
	ViewScanPlan plan = { .view = view->relid };
	ListCell	*lc;

	foreach (lc, clauses)
		path_match_clause(root, &plan, view, rti, lfirst_node(RestrictInfo, lc));
	if (view->keys_change || !path_all_keys(&plan, view))
		plan.keys = plan.types = plan.values = NIL;
	return plan;
}

/* As the registry has them; no lock. Rows are one for each group and window. */
void
streamext_path_count(const CompiledView *view, double *rows, double *panes)
{
	const Window *window = &view->window;

	*rows = *panes = PATH_DERIVED_ROWS;
	if (view->derived)
		return;
	*rows = *panes = 0;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *slot = &streamext_shared->views[i];

		if (!slot->id.in_use || slot->id.retained || slot->id.dboid != MyDatabaseId || slot->id.viewoid != view->relid)
			continue;
		if (slot->id.retained_slot > 0)
			slot = &streamext_shared->views[slot->id.retained_slot - 1];
		*rows += slot->counted.state.ngroups + (slot->history.written.groups - slot->history.deleted.groups);
		*panes += slot->counted.state.npanes + (slot->history.written.panes - slot->history.deleted.panes);
	}
	LWLockRelease(streamext_shared->registry_lock);

	*panes = Max(*panes, 1);
	if (window->kind == WINDOW_NONE)
		*rows /= *panes;
	else if (window->kind == WINDOW_HOP && window->slide < window->size)
		*rows *= (double) window->size / window->slide;
	*rows = view->has_group_by ? Max(*rows, 1) : 1;
}

static CustomPath *
path_make(PlannerInfo *root, RelOptInfo *rel, const CompiledView *view, const ViewScanPlan *plan, Relids required,
		  double rows, double panes)
{
	static const CustomPathMethods methods = { .CustomName = streamext_scan_name, .PlanCustomPath = path_to_plan };
	CustomPath					  *path = makeNode(CustomPath);
	double						   looked_at = plan->keys != NIL ? panes : rows;

	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.param_info = get_baserel_parampathinfo(root, rel, required);
	path->path.rows = path->path.param_info != NULL ? path->path.param_info->ppi_rows : rel->rows;
	path->path.startup_cost = cpu_operator_cost * looked_at;
	path->path.total_cost = path->path.startup_cost + (cpu_tuple_cost + rel->baserestrictcost.per_tuple) *
														  (plan->keys != NIL ? path->path.rows : rows);
	path->path.startup_cost += rel->baserestrictcost.startup + rel->reltarget->cost.startup;
	path->path.total_cost +=
		rel->baserestrictcost.startup + rel->reltarget->cost.startup + rel->reltarget->cost.per_tuple * path->path.rows;
	path->custom_private = list_make1_oid(view->relid);
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->methods = &methods;
	return path;
}

typedef struct PathColumn
{
	const CompiledView *view;
	Index				rti;
	int					key;
} PathColumn;

static bool
path_member_is_column(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *ec, EquivalenceMember *em, void *arg)
{
	const PathColumn *column = arg;

	return path_key_column(column->view, column->rti, (Node *) em->em_expr) == column->key;
}

/* A join clause that gives the key a value from other relations, or NULL. */
static RestrictInfo *
path_find_join_clause(PlannerInfo *root, RelOptInfo *rel, const CompiledView *view, int key, ViewScanPlan *plan)
{
	PathColumn column = { view, rel->relid, key };
	List	  *clauses = NIL;
	ListCell  *lc;

	if (rel->has_eclass_joins)
		clauses =
			generate_implied_equalities_for_column(root, rel, path_member_is_column, &column, rel->lateral_referencers);
	foreach (lc, rel->joininfo)
		if (join_clause_is_movable_to(lfirst_node(RestrictInfo, lc), rel))
			clauses = lappend(clauses, lfirst(lc));
	foreach (lc, clauses)
	{
		RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc);

		if (path_match_clause(root, plan, view, rel->relid, rinfo) && list_member_int(plan->keys, key))
			return rinfo;
	}
	return NULL;
}

/* For nested loops: a look-up by values of the outer side, if join clauses give all keys that no restriction gives. */
static void
path_add_parameterized(PlannerInfo *root, RelOptInfo *rel, const CompiledView *view, double rows, double panes)
{
	ViewScanPlan plan = { .view = view->relid };
	Relids		 required = NULL;
	ListCell	*lc;

	foreach (lc, rel->baserestrictinfo)
		path_match_clause(root, &plan, view, rel->relid, lfirst_node(RestrictInfo, lc));
	for (int k = 0; k < view->nkeys; k++)
	{
		RestrictInfo *rinfo;

		if (view->keys[k].is_window || list_member_int(plan.keys, k))
			continue;
		rinfo = path_find_join_clause(root, rel, view, k, &plan);
		if (rinfo == NULL)
			return;
		required = bms_add_members(required, rinfo->clause_relids);
	}
	required = bms_del_member(required, rel->relid);
	if (bms_is_empty(required) || !path_all_keys(&plan, view))
		return;
	add_path(rel, (Path *) path_make(root, rel, view, &plan, required, rows, panes));
}

/* All columns of view_rows, in order: the tuples that the scan makes. */
static List *
path_scan_tlist(PlannerInfo *root, Index rti)
{
	RangeTblFunction *function = linitial_node(RangeTblFunction, planner_rt_fetch(rti, root)->functions);
	List			 *result = NIL;

	for (int i = 0; i < function->funccolcount; i++)
	{
		Var *var = makeVar(rti, i + 1, list_nth_oid(function->funccoltypes, i),
						   list_nth_int(function->funccoltypmods, i), list_nth_oid(function->funccolcollations, i), 0);

		result = lappend(result, makeTargetEntry((Expr *) var, i + 1, NULL, false));
	}
	return result;
}

static Plan *
path_to_plan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist, List *clauses, List *custom_plans)
{
	CustomScan		   *scan = makeNode(CustomScan);
	const CompiledView *view = streamext_view_cached(linitial_oid(path->custom_private), CurrentMemoryContext);
	ViewScanPlan		plan = streamext_path_prune(root, view, rel->relid, clauses);

	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = extract_actual_clauses(clauses, false);
	scan->scan.scanrelid = 0;
	scan->flags = path->flags;
	scan->custom_scan_tlist = path_scan_tlist(root, rel->relid);
	scan->methods = view->derived ? &streamext_derived_methods : &streamext_scan_methods;
	streamext_scan_plan_store(&plan, scan);
	return &scan->scan.plan;
}

static void
path_hook(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	Oid					viewoid;
	const CompiledView *view;
	ViewScanPlan		plan;
	CustomPath		   *path;
	double				rows, panes;

	if (path_next_hook != NULL)
		path_next_hook(root, rel, rti, rte);
	viewoid = streamext_view_rows_view(rte);
	if (!OidIsValid(viewoid) || IS_DUMMY_REL(rel))
		return;

	streamext_require_preload();
	view = streamext_view_cached(viewoid, CurrentMemoryContext);
	plan = streamext_path_prune(root, view, rti, rel->baserestrictinfo);
	streamext_path_count(view, &rows, &panes);
	rel->tuples = rows;
	set_baserel_size_estimates(root, rel);
	if (plan.keys != NIL)
		rel->rows = clamp_row_est(Min(rel->rows, view->window_key >= 0 ? panes : 1));

	rel->pathlist = NIL;
	rel->partial_pathlist = NIL;
	path = path_make(root, rel, view, &plan, rel->lateral_relids, rows, panes);
	add_path(rel, (Path *) path);
	if (plan.keys == NIL && (rel->has_eclass_joins || rel->joininfo != NIL))
		path_add_parameterized(root, rel, view, rows, panes);
}

void
streamext_path_install_hook(void)
{
	path_next_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = path_hook;
}
