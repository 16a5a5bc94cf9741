/*
 * view/flatten_sets.c
 *		Set-returning functions of the output that are evaluated for each row: there they mean what they mean in FROM, and so they are put there.
 *
 * Those above the aggregation stay where they are, for the reader; streamext.hop is a window, and none of these.
 */
#include "postgres.h"

#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

#include "view/check.h"
#include "view/compile.h"
#include "view/flatten.h"
#include "view/reads.h"

/* Set-returning functions of the output, which become one entry in FROM. */
typedef struct FlattenSets
{
	Index varno;
	List *calls; /* FuncExpr */
	bool  take;	 /* those that are met; else only what was taken is replaced */
} FlattenSets;

static Node *
flatten_set_var(const FlattenSets *sets, int n, const FuncExpr *call)
{
	return (Node *) makeVar(sets->varno, n + 1, call->funcresulttype, -1, call->funccollid, 0);
}

static void
flatten_take_set(FlattenSets *sets, FuncExpr *call)
{
	if (expression_returns_set((Node *) call->args))
		streamext_view_refuse("set-returning functions within each other", STREAMEXT_FLATTEN_HINT_SETS);
	if (get_expr_result_type((Node *) call, NULL, NULL) != TYPEFUNC_SCALAR)
		streamext_view_refuse("functions that return sets of rows outside of FROM", STREAMEXT_FLATTEN_HINT_SETS);
	sets->calls = lappend(sets->calls, call);
}

static Node *
flatten_set_mutator(Node *node, FlattenSets *sets)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcretset)
	{
		ListCell *lc;

		foreach (lc, sets->calls)
			if (equal(lfirst(lc), node))
				return flatten_set_var(sets, foreach_current_index(lc), (FuncExpr *) node);
		if (!sets->take)
			return node;
		flatten_take_set(sets, (FuncExpr *) node);
		return flatten_set_var(sets, list_length(sets->calls) - 1, (FuncExpr *) node);
	}
	if (IsA(node, Query))
		return node;
	return expression_tree_mutator(node, flatten_set_mutator, sets);
}

/* ROWS FROM (...): side by side, as they are in the output. */
static RangeTblEntry *
flatten_set_entry(const FlattenSets *sets)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	ListCell	  *lc;

	rte->rtekind = RTE_FUNCTION;
	rte->lateral = true;
	rte->inFromCl = true;
	rte->eref = makeAlias("sets", NIL);
	foreach (lc, sets->calls)
	{
		RangeTblFunction *function = makeNode(RangeTblFunction);

		function->funcexpr = lfirst(lc);
		function->funccolcount = 1;
		rte->functions = lappend(rte->functions, function);
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(psprintf("set%d", foreach_current_index(lc))));
	}
	return rte;
}

/* True if the output expression stands below the aggregation, and is no hopping window. */
static bool
flatten_is_below(const Query *query, const TargetEntry *entry)
{
	ListCell *lc;

	if (streamext_view_window_function((Node *) entry->expr) == FUNCTION_HOP)
		return false;
	if (streamext_view_is_stateless(query))
		return true;
	foreach (lc, query->groupClause)
		if (lfirst_node(SortGroupClause, lc)->tleSortGroupRef == entry->ressortgroupref)
			return true;
	return false;
}

void
streamext_flatten_sets(Query *query)
{
	FlattenSets	 sets = { .varno = list_length(query->rtable) + 1, .take = true };
	RangeTblRef *ref;
	bool		 hops = false;
	ListCell	*lc;

	if (!query->hasTargetSRFs)
		return;
	foreach (lc, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);

		if (!expression_returns_set((Node *) entry->expr))
			continue;
		hops = hops || streamext_view_window_function((Node *) entry->expr) == FUNCTION_HOP;
		if (flatten_is_below(query, entry))
			entry->expr = (Expr *) flatten_set_mutator((Node *) entry->expr, &sets);
	}
	if (sets.calls == NIL)
		return;
	if (hops)
		streamext_view_refuse("streamext.hop beside other set-returning functions", STREAMEXT_FLATTEN_HINT_SETS);
	sets.take = false;
	query->targetList = (List *) flatten_set_mutator((Node *) query->targetList, &sets);
	query->hasTargetSRFs = expression_returns_set((Node *) query->targetList);
	query->rtable = lappend(query->rtable, flatten_set_entry(&sets));
	ref = makeNode(RangeTblRef);
	ref->rtindex = sets.varno;
	query->jointree->fromlist = lappend(query->jointree->fromlist, ref);
}
