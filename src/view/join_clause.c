/*
 * view/join_clause.c
 *		FROM of a continuous view that joins its stream: found, checked, hashed.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "stream/definition.h"
#include "view/check.h"
#include "view/compile.h"
#include "view/join_clause.h"
#include "view/reads.h"

#define JOIN_PLACE "FROM"

typedef struct JoinCheck
{
	Query *query;  /* the view's */
	Index  stream; /* 0: not met yet */
	Oid	   inner;  /* the continuous view that stands for it; InvalidOid: there is a stream */
	int	   sublevels;
	int	   views; /* nested below this many */
} JoinCheck;

/* ---- what is joined ---- */

static bool join_check_walker(Node *node, JoinCheck *check);

/* A relation besides the stream: raises for streams and continuous views, also below ordinary views. */
static void
join_check_relation(JoinCheck *check, RangeTblEntry *rte)
{
	Relation rel;

	if (streamext_stream_kind(rte->relid) != NULL)
		streamext_view_refuse("joins of two streams",
							  "Make a continuous view of each stream and join the views in a query.");
	if (rte->tablesample != NULL)
		streamext_view_refuse("TABLESAMPLE",
							  "Choose rows in WHERE by what is in them, such as hashtext(key) % 100 = 0.");
	if (rte->relkind != RELKIND_VIEW)
		return;
	if (streamext_view_options(rte->relid).continuous)
		streamext_view_refuse("joined continuous views in FROM", "Join with them in a query over this view.");
	rel = relation_open(rte->relid, AccessShareLock);
	check->views++;
	(void) query_tree_walker(get_view_query(rel), join_check_walker, check,
							 QTW_EXAMINE_RTES_BEFORE | QTW_IGNORE_JOINALIASES);
	check->views--;
	relation_close(rel, NoLock);
}

/* The entries that PostgreSQL before 16 puts into every view's range table for rules are no part of FROM. */
static bool
join_is_rule_entry(const RangeTblEntry *rte)
{
	return rte->rtekind == RTE_RELATION && !rte->inFromCl && rte->relkind == RELKIND_VIEW;
}

/* A check_function_callback. Functions that read tables are read like tables. */
static bool
join_check_function(Oid funcid, void *context)
{
	streamext_view_check_function(funcid, JOIN_PLACE, true);
	return false;
}

/* Whatever stands in FROM besides the stream, with its subqueries. */
static bool
join_check_walker(Node *node, JoinCheck *check)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_RELATION && !join_is_rule_entry(rte))
			join_check_relation(check, rte);
		return false;
	}
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;
		bool   result;

		if (query->rowMarks != NIL)
			streamext_view_refuse("FOR UPDATE and FOR SHARE",
								  "Leave it out: rows are read as they come, and none is locked.");
		check->sublevels++;
		result = query_tree_walker(query, join_check_walker, check, QTW_EXAMINE_RTES_BEFORE | QTW_IGNORE_JOINALIASES);
		check->sublevels--;
		return result;
	}
	if (IsA(node, SQLValueFunction))
		streamext_view_refuse(
			psprintf("%s in %s", streamext_view_value_function_name(((SQLValueFunction *) node)->op), JOIN_PLACE),
			"What is joined must not depend on when and by whom it is read; the output and HAVING may.");
	if (IsA(node, NextValueExpr))
		streamext_view_refuse("sequences in " JOIN_PLACE, "Name a table with such a column by streamext.into.");
	if (IsA(node, Var) && check->views == 0 && ((Var *) node)->varlevelsup == check->sublevels &&
		((Var *) node)->varno == check->stream)
		streamext_view_check_var((Var *) node, JOIN_PLACE);
	(void) check_functions_in_node(node, join_check_function, NULL);
	return expression_tree_walker(node, join_check_walker, check);
}

/* One entry of the view's own range table that is not the stream. */
static void
join_check_entry(JoinCheck *check, RangeTblEntry *rte)
{
	switch (rte->rtekind)
	{
		case RTE_RELATION:
			if (!join_is_rule_entry(rte))
				join_check_relation(check, rte);
			break;
		case RTE_SUBQUERY:
		case RTE_FUNCTION:
		case RTE_TABLEFUNC:
		case RTE_VALUES:
			(void) range_table_entry_walker(rte, join_check_walker, check, QTW_IGNORE_JOINALIASES);
			break;
		case RTE_JOIN:
		case RTE_RESULT:
			break;
		default:
			streamext_view_refuse("what is joined here", "Join with tables, views, subqueries, VALUES or functions.");
	}
}

/* ---- the stream ---- */

/* Where there is no stream, the continuous view whose closed windows are read stands for it. */
static bool
join_is_stream(const JoinCheck *check, const RangeTblEntry *rte)
{
	if (rte->rtekind != RTE_RELATION)
		return streamext_union_is(rte);
	return streamext_stream_kind(rte->relid) != NULL || (rte->relid == check->inner && check->stream == 0);
}

/* Finds the stream and looks at how it is joined. nullable: an outer join above may extend this side with NULLs. */
static void
join_check_tree(JoinCheck *check, Node *node, bool nullable)
{
	if (IsA(node, RangeTblRef))
	{
		int			   varno = ((RangeTblRef *) node)->rtindex;
		RangeTblEntry *rte = rt_fetch(varno, check->query->rtable);

		if (!join_is_stream(check, rte))
			return;
		if (check->stream != 0)
			streamext_view_refuse("joins of two streams",
								  "Make a continuous view of each stream and join the views in a query.");
		if (nullable)
			streamext_view_refuse(
				"outer joins that keep rows without one of the stream",
				"The stream must stand on the left side of LEFT JOIN, or on the right side of RIGHT JOIN.");
		if (rte->rtekind == RTE_RELATION)
			streamext_view_check_from(rte);
		check->stream = varno;
	}
	else if (IsA(node, JoinExpr))
	{
		JoinExpr *join = (JoinExpr *) node;

		join_check_tree(check, join->larg, nullable || join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL);
		join_check_tree(check, join->rarg, nullable || join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL);
		streamext_view_check_below(join->quals, "a JOIN condition");
	}
	else
	{
		ListCell *lc;

		foreach (lc, castNode(FromExpr, node)->fromlist)
			join_check_tree(check, lfirst(lc), nullable);
	}
}

Index
streamext_join_check(Query *query)
{
	JoinCheck check = { .query = query };
	Oid		  found = streamext_view_stream_of(query);
	Index	  varno = 0;
	ListCell *lc;

	check.inner = get_rel_relkind(found) == RELKIND_VIEW ? found : InvalidOid;
	foreach (lc, query->jointree->fromlist)
		join_check_tree(&check, lfirst(lc), false);
	if (check.stream == 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("there is no stream in FROM"),
			 errdetail(
				 "A continuous view reads a stream: a foreign table of one of the wrappers kafka, mqtt, http, flume, feed and local."),
			 errhint("Name a stream in FROM; what reads tables alone can be an ordinary or a materialized view.")));
	foreach (lc, query->rtable)
		if (++varno != check.stream)
			join_check_entry(&check, lfirst_node(RangeTblEntry, lc));
	return check.stream;
}

/* A CheckSubquery. */
static void
join_check_subquery(Query *subquery, void *arg)
{
	(void) join_check_walker((Node *) subquery, arg);
}

void
streamext_join_check_where(Query *query, Index stream, Node *qual)
{
	JoinCheck check = { .query = query, .stream = stream };

	streamext_view_check_below_but(qual, "WHERE", join_check_subquery, &check);
}

/* ---- definition ---- */

/* Takes out who reads, and which columns are read by whom: the same rows come of it. */
static bool
join_strip_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

#if PG_VERSION_NUM >= 160000
		rte->perminfoindex = 0;
#else
		rte->requiredPerms = 0;
		rte->checkAsUser = InvalidOid;
		rte->selectedCols = rte->insertedCols = rte->updatedCols = NULL;
#endif
		return false;
	}
	if (IsA(node, Query))
	{
#if PG_VERSION_NUM >= 160000
		((Query *) node)->rteperminfos = NIL;
#endif
		return query_tree_walker((Query *) node, join_strip_walker, context, QTW_EXAMINE_RTES_BEFORE);
	}
	return expression_tree_walker(node, join_strip_walker, context);
}

List *
streamext_join_definition(const Query *query)
{
	List *rtable = copyObject(query->rtable);

	(void) range_table_walker(rtable, join_strip_walker, NULL, QTW_EXAMINE_RTES_BEFORE);
	return list_make2(rtable, query->jointree->fromlist);
}

List *
streamext_join_quals_definition(const List *quals)
{
	List *result = copyObject(unconstify(List *, quals));

	(void) join_strip_walker((Node *) result, NULL);
	return result;
}
