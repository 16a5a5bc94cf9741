/*
 * view/nest.c
 *		Queries in FROM that group by a window. What the functions promise is in view/nest.h.
 *
 * What is only spelling around them is left to view/flatten.c, and what cannot be such a view (no window, LIMIT, window functions, columns
 * from beside itself, parts of UNION ALL, one of several that would be joined) to its refusals.
 */
#include "postgres.h"

#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"

#include "view/flatten.h"
#include "view/nest.h"
#include "view/reads.h"

/* ---- finding ---- */

/* The entries of FROM that hold a stream, or a continuous view's windows. */
static List *
nest_sources(const Query *query, const Node *from)
{
	List	 *found = NIL;
	ListCell *lc;

	if (IsA(from, RangeTblRef))
	{
		RangeTblEntry *rte = rt_fetch(((const RangeTblRef *) from)->rtindex, query->rtable);

		if (OidIsValid(streamext_view_found_in_entry(query, rte, false)) ||
			OidIsValid(streamext_view_found_in_entry(query, rte, true)))
			found = list_make1(rte);
		return found;
	}
	if (IsA(from, JoinExpr))
		return list_concat(nest_sources(query, ((const JoinExpr *) from)->larg),
						   nest_sources(query, ((const JoinExpr *) from)->rarg));
	foreach (lc, ((const FromExpr *) from)->fromlist)
		found = list_concat(found, nest_sources(query, lfirst(lc)));
	return found;
}

static bool
nest_groups(const Query *query)
{
	return query->hasAggs || query->groupClause != NIL || query->groupingSets != NIL || query->havingQual != NULL ||
		   query->distinctClause != NIL;
}

/* Whether the query, which groups, can be a view whose closed windows are read. */
static bool
nest_has_closed_windows(const Query *query, int depth)
{
	const Query *flat;

	if (query->hasWindowFuncs || query->limitCount != NULL || query->limitOffset != NULL || query->rowMarks != NIL)
		return false;
	for (int level = 1; level <= depth; level++)
		if (contain_vars_of_level((Node *) query, level))
			return false;
	flat = streamext_view_flatten(query, NULL);
	return flat->distinctClause == NIL && streamext_flatten_has_window(flat);
}

static RangeTblEntry *
nest_find(Query *query, int depth, int *size)
{
	List		  *sources;
	RangeTblEntry *entry;
	RangeTblEntry *inside;

	check_stack_depth();
	if (query->setOperations != NULL || query->jointree == NULL || query->hasModifyingCTE)
		return NULL;
	streamext_flatten_ctes(query, size);
	sources = nest_sources(query, (Node *) query->jointree);
	entry = list_length(sources) == 1 ? linitial_node(RangeTblEntry, sources) : NULL;
	if (entry == NULL || entry->rtekind != RTE_SUBQUERY)
		return NULL;
	inside = nest_find(entry->subquery, depth + 1, size);
	if (inside != NULL)
		return inside;
	if (!nest_groups(entry->subquery) || !nest_has_closed_windows(entry->subquery, depth))
		return NULL;
	return entry;
}

RangeTblEntry *
streamext_nest_next(Query *query)
{
	int size = 0; /* in range tables' entries, of what WITH queries have become */

	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL)
		return NULL;
	return nest_find(query, 1, &size);
}

/* ---- its view ---- */

Query *
streamext_nest_query(const RangeTblEntry *entry)
{
	Query	 *query = copyObject(entry->subquery);
	List	 *names = NIL;
	ListCell *name = list_head(entry->eref->colnames);
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *column = lfirst_node(TargetEntry, lc);
		char		*unique;

		if (column->resjunk)
			continue;
		unique = strVal(lfirst(name));
		for (int i = 1; list_member(names, makeString(unique)); i++)
			unique = makeObjectName(strVal(lfirst(name)), NULL, psprintf("%d", i)); /* whole characters */
		column->resname = unique;
		names = lappend(names, makeString(unique));
		name = lnext(entry->eref->colnames, name);
	}
	return query;
}

typedef struct NestReplace
{
	const Query *query;
	Oid			 view;
} NestReplace;

static void
nest_replace_entry(RangeTblEntry *rte, Oid view)
{
	rte->rtekind = RTE_RELATION;
	rte->relid = view;
	rte->relkind = RELKIND_VIEW;
	rte->rellockmode = AccessShareLock;
	rte->inh = true;
	rte->lateral = false;
	rte->security_barrier = false;
	rte->subquery = NULL;
	if (rte->alias != NULL)
		rte->alias->colnames = NIL;
}

static bool
nest_replace_walker(Node *node, NestReplace *replace)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_SUBQUERY && equal(rte->subquery, replace->query))
			nest_replace_entry(rte, replace->view);
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, nest_replace_walker, replace, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, nest_replace_walker, replace);
}

void
streamext_nest_replace(Query *query, const RangeTblEntry *entry, Oid view)
{
	NestReplace replace = { copyObject(entry->subquery), view };

	(void) nest_replace_walker((Node *) query, &replace);
}
