/*
 * view/size.c
 *		How large a query is once views stand where they are named.
 *
 * Thirty views, each of which names the one before it twice, are a thousand million tables, and a worker that plans them takes all memory. So each
 * view is measured once.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/rel.h"

#include "view/size.h"

typedef struct SizeWalk
{
	int	  size;
	List *views; /* OIDs of those that were measured, or are now: a view may come from itself by CREATE OR REPLACE */
	List *sizes;
} SizeWalk;

static bool size_walker(Node *node, SizeWalk *walk);

static void
size_add(SizeWalk *walk, int n)
{
	walk->size = Min(walk->size + n, STREAMEXT_MAX_ENTRIES + 1);
}

static void
size_add_view(SizeWalk *walk, Oid viewoid)
{
	int		 before = walk->size;
	int		 index = list_length(walk->views);
	Relation rel;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	for (int i = 0; i < index; i++)
		if (list_nth_oid(walk->views, i) == viewoid)
		{
			size_add(walk, list_nth_int(walk->sizes, i));
			return;
		}
	rel = try_relation_open(viewoid, AccessShareLock);
	if (rel == NULL)
		return;
	walk->views = lappend_oid(walk->views, viewoid);
	walk->sizes = lappend_int(walk->sizes, 0);
	walk->size = 0;
	if (rel->rd_rel->relkind == RELKIND_VIEW && rel->rd_rel->relhasrules && rel->rd_rules != NULL)
		(void) size_walker((Node *) get_view_query(rel), walk);
	relation_close(rel, NoLock);
	lfirst_int(list_nth_cell(walk->sizes, index)) = walk->size;
	walk->size = before;
	size_add(walk, list_nth_int(walk->sizes, index));
}

static bool
size_walker(Node *node, SizeWalk *walk)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		const RangeTblEntry *rte = (RangeTblEntry *) node;

		size_add(walk, 1);
		/* not those that a view's rule has of itself, nor what was pulled up */
		if (rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_VIEW && rte->inFromCl)
			size_add_view(walk, rte->relid);
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, size_walker, walk, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, size_walker, walk);
}

int
streamext_query_size(const Query *query)
{
	SizeWalk walk = { 0 };

	(void) size_walker((Node *) unconstify(Query *, query), &walk);
	return walk.size;
}
