/*
 * view/flatten.c
 *		One query of what is written with subqueries, WITH and views.
 *
 * What is only spelling goes before anything else looks at the query: a subquery, WITH query or ordinary view that holds the
 * stream is pulled up into the query around it, as PostgreSQL's planner does with simple subqueries. What does not hold the
 * stream stays, to be joined. A subquery that aggregates, sorts out or limits is no spelling, and is refused.
 *
 * Conditions of what was inside come before those outside: a row that a security_barrier view hides is shown to no function of
 * the query around it. Where the planner would put them into an order of its own, such views are refused.
 *
 * What was pulled up leaves its entry in the range table: a view's for its permissions, others as RTE_RESULT.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "utils/catcache.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "stream/definition.h"
#include "view/check.h"
#include "view/compile.h"
#include "view/flatten.h"
#include "view/settings.h"
#include "view/reads.h"
#include "view/size.h"

/*
 * What is written once can be named many times, in something that is named many times: the whole of it is bounded, which otherwise takes all memory before
 * anything refuses it.
 */
#define FLATTEN_MAX_STEPS 256 /* subqueries and views that hold the stream */

typedef struct Flatten
{
	Query *query;
	int	   steps;
	int	   entries; /* of range tables, in the copies of WITH queries */
	List  *hops;	/* window expressions of subqueries that make several rows of one */
	List  *derived; /* OIDs of derived streams, where the query is a rule as it is stored */
	bool   barrier; /* something was a security_barrier view */
	bool   windows; /* no stream is read but a continuous view's closed windows */
} Flatten;

/* ---- groups ---- */

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

/* ---- WITH ---- */

typedef struct FlattenCte
{
	const CommonTableExpr *cte;
	int					   depth;	/* of the query at hand below the one that has the CTE */
	int					   size;	/* of the CTE, in entries of range tables */
	int					  *entries; /* so far */
} FlattenCte;

static void
flatten_refuse_size(void)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_STATEMENT_TOO_COMPLEX), errmsg("the query of a continuous view is too large"),
		 errdetail("Its stream is below more than %d subqueries and views, or its views and WITH queries, put where "
				   "they are named, name more than %d tables.",
				   FLATTEN_MAX_STEPS, STREAMEXT_MAX_ENTRIES),
		 errhint(
			 "Write fewer subqueries around the stream; make tables or materialized views of what is named more than once and holds no stream.")));
}

/* Puts a copy of the WITH query wherever it is named. */
static bool
flatten_cte_walker(Node *node, FlattenCte *inlined)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind != RTE_CTE || strcmp(rte->ctename, inlined->cte->ctename) != 0 ||
			rte->ctelevelsup != inlined->depth)
			return false;
		*inlined->entries += inlined->size;
		if (*inlined->entries > STREAMEXT_MAX_ENTRIES)
			flatten_refuse_size();
		rte->rtekind = RTE_SUBQUERY;
		rte->subquery = castNode(Query, copyObject(inlined->cte->ctequery));
		if (inlined->depth > 0)
			IncrementVarSublevelsUp((Node *) rte->subquery, inlined->depth, 1);
		rte->ctename = NULL;
		rte->ctelevelsup = 0;
		rte->coltypes = rte->coltypmods = rte->colcollations = NIL;
		return false;
	}
	if (IsA(node, Query))
	{
		inlined->depth++;
		(void) query_tree_walker((Query *) node, flatten_cte_walker, inlined, QTW_EXAMINE_RTES_AFTER);
		inlined->depth--;
		return false;
	}
	return expression_tree_walker(node, flatten_cte_walker, inlined);
}

/* Later ones may name earlier ones. */
void
streamext_flatten_ctes(Query *query, int *entries)
{
	while (query->cteList != NIL)
	{
		CommonTableExpr *cte = linitial_node(CommonTableExpr, query->cteList);
		FlattenCte		 inlined = { cte, -1, 1 + streamext_query_size((Query *) cte->ctequery), entries };

		CHECK_FOR_INTERRUPTS();

		if (cte->cterecursive)
			streamext_view_refuse("WITH RECURSIVE", "Make an ordinary view of it and join with that.");
		if (contain_volatile_functions((Node *) cte->ctequery))
			streamext_view_refuse("volatile functions in WITH",
								  "Put the function into the output or HAVING, where it is evaluated at read.");
		query->cteList = list_delete_first(query->cteList);
		(void) flatten_cte_walker((Node *) query, &inlined);
	}
	query->hasRecursive = false;
}

/* ---- what may be pulled up ---- */

/* What is set-returning still: hopping windows, which must be a key. */
static void
flatten_note_hops(Flatten *flatten, const Query *subquery)
{
	ListCell *lc;

	foreach (lc, subquery->targetList)
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		if (!expression_returns_set(expr))
			continue;
		if (streamext_view_window_function(expr) != FUNCTION_HOP)
			streamext_view_refuse("set-returning operators", STREAMEXT_FLATTEN_HINT_SETS);
		flatten->hops = lappend(flatten->hops, expr);
	}
}

bool
streamext_flatten_has_window(const Query *query)
{
	ListCell *lc;

	foreach (lc, query->groupClause)
		if (streamext_view_window_function(get_sortgroupclause_expr(lfirst(lc), query->targetList)) != FUNCTION_OTHER)
			return true;
	return false;
}

/* How the outer view comes to be once the inner one, whose groups are these, is a view of its own by that name. */
static const char *
flatten_hint_outer(const Query *grouped, const char *name)
{
	if (grouped->hasWindowFuncs || grouped->distinctClause != NIL || grouped->limitCount != NULL ||
		grouped->limitOffset != NULL)
		return psprintf("and an ordinary view that names %s in the place of the subquery: DISTINCT, LIMIT and window "
						"functions are of all rows that there are when it is read.",
						name);
	if (streamext_flatten_has_window(grouped))
		return psprintf(
			"and name %s in this one, in the place of the subquery: it takes the closed windows. Where another one stands "
			"beside it, in a join or by UNION ALL, make this one an ordinary view.",
			name);
	return psprintf("and an ordinary view that names %s in the place of the subquery: without a window nothing of "
					"it is ever final, and its answer is always the newest.",
					name);
}

/* One that is free in every schema, so that the statement can be typed as it is. */
static const char *
flatten_inner_name(void)
{
	const char *name = "inner_view";
	bool		taken = true;

	for (int n = 2; taken; n++)
	{
		CatCList *others = SearchSysCacheList1(RELNAMENSP, CStringGetDatum(name));

		taken = others->n_members > 0;
		ReleaseSysCacheList(others);
		if (taken)
			name = psprintf("inner_view%d", n);
	}
	return name;
}

/* Views that a statement has made of its own queries in FROM are gone once it is refused: they stand as queries in what it hints at. */
static bool
flatten_write_out(Node *node, void *context)
{
	RangeTblEntry *rte = (RangeTblEntry *) node;
	Relation	   rel;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, flatten_write_out, context, QTW_EXAMINE_RTES_BEFORE);
	if (!IsA(node, RangeTblEntry))
		return expression_tree_walker(node, flatten_write_out, context);
	/* a rule's range table has its own view twice, and reads it nowhere */
	if (!rte->inFromCl || rte->rtekind != RTE_RELATION || rte->relkind != RELKIND_VIEW ||
		!streamext_view_options(rte->relid).inner)
		return false;
	rel = relation_open(rte->relid, AccessShareLock);
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = copyObject(get_view_query(rel));
	rte->inh = false;
	relation_close(rel, NoLock);
	return false; /* the walker goes on into the subquery */
}

/* What aggregates below the stream is a view of its own; the hint has the statement. What is innermost comes first. */
static void
flatten_refuse_inner(const Query *subquery, const char *construct)
{
	Query	   *grouped = copyObject(unconstify(Query *, subquery));
	const char *name = flatten_inner_name();
	Query	   *written;
	char	   *text;

	if (contain_vars_of_level((Node *) grouped, 1))
		streamext_view_refuse(construct, "Make it a continuous view of its own, without what it names beside itself by "
										 "LATERAL, and join with that where it is read.");
	(void) streamext_view_flatten(subquery, NULL);
	written = copyObject(grouped);
	(void) flatten_write_out((Node *) written, NULL);
	text = streamext_view_text(written);
	streamext_view_flatten_groups(grouped);
	streamext_view_refuse(construct,
						  psprintf("Make it a view of its own, CREATE VIEW %s WITH (streamext.continuous) AS %s; %s",
								   name, text, flatten_hint_outer(grouped, name)));
}

void
streamext_flatten_check(const Query *subquery)
{
	if (subquery->setOperations != NULL)
		streamext_view_refuse("UNION, INTERSECT and EXCEPT over the stream in FROM", STREAMEXT_HINT_UNION);
	if (subquery->hasAggs || subquery->groupClause != NIL || subquery->groupingSets != NIL ||
		subquery->havingQual != NULL)
		flatten_refuse_inner(subquery, "GROUP BY and aggregates over the stream in FROM");
	if (subquery->hasDistinctOn)
		streamext_view_refuse(
			"DISTINCT ON over the stream in FROM",
			"Group by its columns, and take streamext.first(column, time) or streamext.last(column, time) of the others.");
	if (subquery->distinctClause != NIL)
		flatten_refuse_inner(subquery, "DISTINCT over the stream in FROM");
	if (subquery->hasWindowFuncs)
		streamext_view_refuse("window functions over the stream in FROM",
							  "Make a continuous view without them, and a query or ordinary view with them over it.");
	if (subquery->limitCount != NULL || subquery->limitOffset != NULL)
		streamext_view_refuse("LIMIT over the stream in FROM", "Put LIMIT into a query over the continuous view.");
	if (subquery->rowMarks != NIL)
		streamext_view_refuse("FOR UPDATE and FOR SHARE",
							  "Leave it out: rows are read as they come, and none is locked.");
}

/* ---- pulling up ---- */

/* An ordinary view that is UNION ALL stands in FROM as if it were written there; who may read it is asked with the parts. */
static void
flatten_expand_union(RangeTblEntry *rte, Query *subquery)
{
	RangeTblEntry *kept = copyObject(rte);

	kept->inFromCl = kept->lateral = false;
#if PG_VERSION_NUM >= 160000
	kept->perminfoindex = 0;
#endif
	subquery->rtable = lappend(subquery->rtable, kept);
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = subquery;
	rte->inh = false;
}

/* A UNION ALL stands in plain sight as a stream does. */
static bool
flatten_is_union(Flatten *flatten, RangeTblEntry *rte, Query *subquery)
{
	if (subquery->setOperations == NULL || !streamext_view_is_union_all(subquery->setOperations))
		return false;
	streamext_flatten_ctes(subquery, &flatten->entries);
	if (rte->rtekind != RTE_SUBQUERY)
		flatten_expand_union(rte, subquery);
	return true;
}

/* The subquery that the entry is, or NULL if the stream is not in there or in plain sight. */
static Query *
flatten_subquery(Flatten *flatten, RangeTblEntry *rte)
{
	Relation rel;
	Query	*result;
	Oid		 found = streamext_view_found_in_entry(flatten->query, rte, flatten->windows);

	/* a continuous view whose windows are read stands in plain sight as a stream does */
	if (!OidIsValid(found) || (flatten->windows && (found == rte->relid || found == streamext_view_of_entry(rte))))
		return NULL;
	if (rte->rtekind == RTE_SUBQUERY)
	{
		flatten->barrier = flatten->barrier || rte->security_barrier;
		return flatten_is_union(flatten, rte, rte->subquery) ? NULL : rte->subquery;
	}
	if (rte->relkind != RELKIND_VIEW)
		return NULL;
	rel = relation_open(rte->relid, AccessShareLock);
	flatten->barrier = flatten->barrier || RelationIsSecurityView(rel);
	if (streamext_view_options(rte->relid).continuous)
		flatten->derived = lappend_oid(flatten->derived, rte->relid);
	result = copyObject(get_view_query(rel));
	relation_close(rel, NoLock);
	return flatten_is_union(flatten, rte, result) ? NULL : result;
}

/* What is left of an entry: nothing, or a view's permissions. Nobody refers to it any more. */
static void
flatten_retire(RangeTblEntry *rte)
{
	rte->lateral = false;
	rte->inFromCl = false;
	if (rte->rtekind == RTE_RELATION)
		return;
	rte->subquery = NULL;
	rte->security_barrier = false;
#if PG_VERSION_NUM >= 160000
	if (OidIsValid(rte->relid))
	{
		rte->rtekind = RTE_RELATION;
		return;
	}
#endif
	rte->rtekind = RTE_RESULT;
}

static Node *
flatten_resolve(Query *query, Node *node)
{
#if PG_VERSION_NUM >= 160000
	return flatten_join_alias_vars(NULL, query, node);
#else
	return flatten_join_alias_vars(query, node);
#endif
}

/*
 * Columns by the names of joins become those of what is joined. PostgreSQL wants a join's entry behind those that it names, which
 * it will not be of what is pulled up.
 */
static void
flatten_join_names(Query *query)
{
	ListCell *lc;

	query->targetList = (List *) flatten_resolve(query, (Node *) query->targetList);
	query->havingQual = flatten_resolve(query, query->havingQual);
	query->jointree = (FromExpr *) flatten_resolve(query, (Node *) query->jointree);
	foreach (lc, query->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->lateral && rte->rtekind == RTE_SUBQUERY)
			rte->subquery = (Query *) flatten_resolve(query, (Node *) rte->subquery);
		rte->functions = (List *) flatten_resolve(query, (Node *) rte->functions);
		rte->tablefunc = (TableFunc *) flatten_resolve(query, (Node *) rte->tablefunc);
		rte->values_lists = (List *) flatten_resolve(query, (Node *) rte->values_lists);
	}
	foreach (lc, query->rtable)
		lfirst_node(RangeTblEntry, lc)->joinaliasvars = NIL;
}

/* Level by level: what was inside refers to the query around it as to its own. */
static void
flatten_adopt_entries(Query *query, Query *subquery, bool lateral)
{
	ListCell *lc;

	OffsetVarNodes((Node *) subquery, list_length(query->rtable), 0);
	IncrementVarSublevelsUp((Node *) subquery, -1, 1);
	foreach (lc, subquery->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (lateral && (rte->rtekind == RTE_SUBQUERY || rte->rtekind == RTE_FUNCTION || rte->rtekind == RTE_VALUES ||
						rte->rtekind == RTE_TABLEFUNC))
			rte->lateral = true;
	}
}

void *
streamext_flatten_replace(void *node, int varno, RangeTblEntry *entry, List *outputs)
{
	bool sublinks = false;

#if PG_VERSION_NUM >= 180000
	return ReplaceVarsFromTargetList(node, varno, 0, entry, outputs, 0, REPLACEVARS_REPORT_ERROR, 0, &sublinks);
#else
	return ReplaceVarsFromTargetList(node, varno, 0, entry, outputs, REPLACEVARS_REPORT_ERROR, 0, &sublinks);
#endif
}

/* FROM with the item in the place of the reference. */
static Node *
flatten_replace_item(Node *node, int varno, Node *item)
{
	ListCell *lc;

	if (IsA(node, RangeTblRef))
		return ((RangeTblRef *) node)->rtindex == varno ? item : node;
	if (IsA(node, JoinExpr))
	{
		((JoinExpr *) node)->larg = flatten_replace_item(((JoinExpr *) node)->larg, varno, item);
		((JoinExpr *) node)->rarg = flatten_replace_item(((JoinExpr *) node)->rarg, varno, item);
		return node;
	}
	foreach (lc, ((const FromExpr *) node)->fromlist)
		lfirst(lc) = flatten_replace_item(lfirst(lc), varno, item);
	return node;
}

static void
flatten_pull_up(Flatten *flatten, int varno, Query *subquery)
{
	RangeTblEntry *shell = rt_fetch(varno, flatten->query->rtable);
	RangeTblEntry *entry;
	Query		  *query;
	Node		  *quals;
	Node		  *item;

	CHECK_FOR_INTERRUPTS();
	if (++flatten->steps > FLATTEN_MAX_STEPS)
		flatten_refuse_size();
	shell->subquery = NULL; /* the subquery is at hand */
	entry = copyObject(shell);
	streamext_flatten_ctes(subquery, &flatten->entries);
	streamext_flatten_check(subquery);
	streamext_flatten_sets(subquery);
	flatten_join_names(flatten->query);
	flatten_join_names(subquery);
	entry->rtekind = RTE_SUBQUERY;
	entry->subquery = subquery;
	flatten_adopt_entries(flatten->query, subquery, shell->lateral);
	flatten_retire(shell);
	query = streamext_flatten_replace(flatten->query, varno, entry, subquery->targetList);
	flatten->hops = streamext_flatten_replace(flatten->hops, varno, entry, subquery->targetList);
	flatten_note_hops(flatten, subquery);
#if PG_VERSION_NUM >= 160000
	CombineRangeTables(&query->rtable, &query->rteperminfos, subquery->rtable, subquery->rteperminfos);
#else
	query->rtable = list_concat(query->rtable, subquery->rtable);
#endif
	query->hasSubLinks = query->hasSubLinks || subquery->hasSubLinks;
	query->hasTargetSRFs = query->hasTargetSRFs || subquery->hasTargetSRFs;

	/* Where an outer join might extend the stream's rows the query is refused, so its conditions may as well be the whole's. */
	quals = subquery->jointree->quals;
	subquery->jointree->quals = NULL;
	item = (Node *) subquery->jointree;
	if (list_length(subquery->jointree->fromlist) == 1)
		item = linitial(subquery->jointree->fromlist);
	flatten_replace_item((Node *) query->jointree, varno, item);
	if (query->jointree->quals == NULL)
		query->jointree->quals = quals;
	else if (quals != NULL)
		query->jointree->quals = make_and_qual(quals, query->jointree->quals);
	flatten->query = query;
}

/* Pulls up the first that holds the stream; false: there is none. */
static bool
flatten_step(Flatten *flatten, Node *node)
{
	ListCell *lc;

	if (IsA(node, RangeTblRef))
	{
		int	   varno = ((RangeTblRef *) node)->rtindex;
		Query *subquery = flatten_subquery(flatten, rt_fetch(varno, flatten->query->rtable));

		if (subquery != NULL)
			flatten_pull_up(flatten, varno, subquery);
		return subquery != NULL;
	}
	if (IsA(node, JoinExpr))
		return flatten_step(flatten, ((JoinExpr *) node)->larg) || flatten_step(flatten, ((JoinExpr *) node)->rarg);
	foreach (lc, ((const FromExpr *) node)->fromlist)
		if (flatten_step(flatten, lfirst(lc)))
			return true;
	return false;
}

/* Items that stand beside each other need no FROM of their own. */
static void
flatten_splice(FromExpr *from)
{
	List	 *items = NIL;
	ListCell *lc;

	foreach (lc, from->fromlist)
	{
		FromExpr *inner = lfirst(lc);

		if (IsA(inner, FromExpr))
		{
			flatten_splice(inner);
			items = list_concat(items, inner->fromlist);
		}
		else
			items = lappend(items, inner);
	}
	from->fromlist = items;
}

/* ---- UNION ALL ---- */

/* A UNION ALL that is the whole: SELECT columns FROM (it). ORDER BY and LIMIT are the whole's. */
static Query *
flatten_wrap_union(Query *inner)
{
	Query		  *query = makeNode(Query);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef	  *ref = makeNode(RangeTblRef);
	ListCell	  *lc;

	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = inner;
	rte->inFromCl = true;
	rte->eref = makeAlias("union", NIL);
	foreach (lc, inner->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		Node		*expr = (Node *) entry->expr;
		TargetEntry *column =
			makeTargetEntry((Expr *) makeVar(1, entry->resno, exprType(expr), exprTypmod(expr), exprCollation(expr), 0),
							entry->resno, entry->resname != NULL ? pstrdup(entry->resname) : NULL, false);

		column->ressortgroupref = entry->ressortgroupref;
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(entry->resname)));
		query->targetList = lappend(query->targetList, column);
	}
	ref->rtindex = 1;
	query->commandType = CMD_SELECT;
	query->querySource = inner->querySource;
	query->canSetTag = true;
	query->rtable = list_make1(rte);
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	query->sortClause = inner->sortClause;
	query->limitCount = inner->limitCount;
	query->limitOffset = inner->limitOffset;
	query->limitOption = inner->limitOption;
	query->rowMarks = inner->rowMarks;
	inner->sortClause = inner->rowMarks = NIL;
	inner->limitCount = inner->limitOffset = NULL;
	return query;
}

/* ---- DISTINCT ---- */

/* SELECT DISTINCT of rows is GROUP BY all of them. */
static void
flatten_distinct(Query *query)
{
	if (query->distinctClause == NIL || query->hasDistinctOn || query->hasWindowFuncs ||
		!streamext_view_is_stateless(query))
		return;
	query->groupClause = query->distinctClause;
	query->distinctClause = NIL;
}

/* ---- all of it ---- */

static bool
flatten_is_key(const Query *query, Node *expr)
{
	ListCell *lc;

	foreach (lc, query->groupClause)
		if (equal(get_sortgroupclause_expr(lfirst(lc), query->targetList), expr))
			return true;
	return false;
}

/* What became of the whole must mean what it meant in parts. */
static void
flatten_check_whole(const Flatten *flatten)
{
	const Query *query = flatten->query;
	ListCell	*lc;

	foreach (lc, flatten->hops)
		if (!flatten_is_key(query, lfirst(lc)))
			streamext_view_refuse("streamext.hop in a subquery without GROUP BY on it",
								  "Group by the window, or write streamext.hop beside GROUP BY.");
	if (flatten->barrier && streamext_view_is_join(query))
		streamext_view_refuse(
			"security_barrier views over the stream in a join",
			"Make a continuous view over the security_barrier view alone and join with it in a query.");
}

Query *
streamext_view_flatten(const Query *query, List **derived)
{
	Flatten flatten = { .query = copyObject(unconstify(Query *, query)) };

	if (streamext_query_size(query) > STREAMEXT_MAX_ENTRIES)
		flatten_refuse_size();
	flatten.windows = get_rel_relkind(streamext_view_stream_of(query)) == RELKIND_VIEW;
	streamext_view_flatten_groups(flatten.query);
	if (flatten.query->commandType != CMD_SELECT || flatten.query->utilityStmt != NULL)
		return flatten.query;
	streamext_flatten_ctes(flatten.query, &flatten.entries);
	if (flatten.query->setOperations != NULL && streamext_view_is_union_all(flatten.query->setOperations))
		flatten.query = flatten_wrap_union(flatten.query);
	if (flatten.query->setOperations == NULL)
		while (flatten_step(&flatten, (Node *) flatten.query->jointree))
			;
	flatten_splice(flatten.query->jointree);
	flatten_distinct(flatten.query);
	if (flatten.query->setOperations == NULL)
		streamext_flatten_sets(flatten.query);
	flatten_check_whole(&flatten);
	if (derived != NULL)
		*derived = flatten.derived;
	return flatten.query;
}
