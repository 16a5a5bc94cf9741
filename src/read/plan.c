/*
 * read/plan.c
 *		The planner hook: continuous views' expanded rules become scans of their state.
 *
 * When the planner is called the rewriter has put each view's rule into the query as a subquery. The hook walks the whole
 * tree and, where that subquery is a continuous view's, keeps its output, HAVING (as WHERE), DISTINCT, ORDER BY, LIMIT and
 * window functions and puts a scan of streamext_internal.view_rows in the place of FROM, WHERE and GROUP BY. All range table entries
 * stay, the stream's and the view's own: the executor checks their permissions as if nothing had happened.
 *
 * SQL functions in FROM would bring their views to light only within the planner, so those that the planner would inline
 * are inlined here; what their plans depend on is added to the result. As a safety net, planning a scan of a stream below a
 * continuous view that was not replaced is an error.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "nodes/pathnodes.h"
#include "nodes/plannodes.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "parser/analyze.h"
#if PG_VERSION_NUM >= 160000
#include "parser/parse_relation.h"
#endif
#include "parser/parsetree.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/hooks.h"
#include "view/check.h"
#include "view/reads.h"
#include "view/compile.h"
#include "view/flatten.h"
#include "view/union.h"
#include "view/join_clause.h"
#include "view/rights.h"
#include "read/scan.h"

typedef struct PlanContext
{
	PlannerGlobal *glob; /* collects what inlined functions depend on; made when needed */
	ParamListInfo  params;
	List		  *substituted; /* RangeTblEntry's made here, not to be looked at */
	bool		   marked;		/* a query around this place locks or changes rows */
} PlanContext;

static planner_hook_type plan_next_hook = NULL;

/* ---- recognising things ---- */

#if PG_VERSION_NUM < 160000
static bool
plan_is_continuous(Oid relid)
{
	return streamext_view_options(relid).continuous;
}
#endif

/* The continuous view whose rule this query is, if the query itself says so (before PostgreSQL 16: by its OLD entry). */
static Oid
plan_rule_of(const Query *query)
{
#if PG_VERSION_NUM < 160000
	RangeTblEntry *rte = query->rtable == NIL ? NULL : linitial_node(RangeTblEntry, query->rtable);

	if (rte != NULL && rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_VIEW && rte->eref != NULL &&
		strcmp(rte->eref->aliasname, "old") == 0 && plan_is_continuous(rte->relid))
		return rte->relid;
#endif
	return InvalidOid;
}

/* ---- functions in FROM ---- */

static void
plan_refuse_view_rows(const RangeTblEntry *rte)
{
	ListCell *lc;

	foreach (lc, rte->functions)
	{
		Node *expr = lfirst_node(RangeTblFunction, lc)->funcexpr;

		if (expr != NULL && IsA(expr, FuncExpr) && streamext_is_view_rows(((FuncExpr *) expr)->funcid))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("streamext_internal.view_rows cannot be called"),
					 errhint("Select from the continuous view.")));
	}
}

/* True if it is worth asking PostgreSQL whether it would inline the function. */
static bool
plan_may_inline(const RangeTblEntry *rte)
{
	Node	 *expr;
	HeapTuple tuple;
	bool	  result;

	if (list_length(rte->functions) != 1 || rte->funcordinality)
		return false;
	expr = linitial_node(RangeTblFunction, rte->functions)->funcexpr;
	if (expr == NULL || !IsA(expr, FuncExpr) || !((FuncExpr *) expr)->funcretset)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(((FuncExpr *) expr)->funcid));
	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == SQLlanguageId;
	ReleaseSysCache(tuple);
	return result;
}

/* As the planner's preprocessing of function entries does, only earlier. */
static void
plan_inline_function(PlanContext *context, Query *query, RangeTblEntry *rte)
{
	PlannerInfo *root;
	Query		*inlined;

	if (context->glob == NULL)
	{
		context->glob = makeNode(PlannerGlobal);
		context->glob->boundParams = context->params;
	}
	root = makeNode(PlannerInfo);
	root->parse = query;
	root->glob = context->glob;
	root->query_level = 1;
	root->planner_cxt = CurrentMemoryContext;
	root->wt_param_id = -1;

	rte->functions = (List *) eval_const_expressions(root, (Node *) rte->functions);
	inlined = inline_set_returning_function(root, rte);
	if (inlined == NULL)
		return;
	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = inlined;
	rte->security_barrier = false;
	rte->functions = NIL;
	rte->funcordinality = false;
}

/* ---- substitution ---- */

/* Adds an entry for the permissions of one that is left behind somewhere below `from`. */
static void
plan_keep_permissions(Query *query, const Query *from, const RangeTblEntry *rte)
{
	RangeTblEntry *kept = makeNode(RangeTblEntry);

	*kept = *rte;
	kept->rtekind = RTE_RELATION;
	kept->subquery = NULL;
	kept->security_barrier = kept->lateral = kept->inh = kept->inFromCl = false;
	kept->securityQuals = NIL;
#if PG_VERSION_NUM >= 160000
	if (rte->perminfoindex == 0)
		return;
	kept->perminfoindex = 0;
	query->rteperminfos = lappend(
		query->rteperminfos, copyObject(getRTEPermissionInfo(from->rteperminfos, unconstify(RangeTblEntry *, rte))));
	kept->perminfoindex = list_length(query->rteperminfos);
#endif
	query->rtable = lappend(query->rtable, kept);
}

/* The planner forgets a subquery that nobody refers to, with its permissions. */
static void
plan_keep_permissions_of(Query *query, const Query *left)
{
	ListCell *lc;

	check_stack_depth();
	foreach (lc, left->rtable)
	{
		const RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

#if PG_VERSION_NUM >= 160000
		if (rte->rtekind == RTE_RELATION || (rte->rtekind == RTE_SUBQUERY && OidIsValid(rte->relid)))
#else
		if (rte->rtekind == RTE_RELATION)
#endif
			plan_keep_permissions(query, left, rte);
		if (rte->rtekind == RTE_SUBQUERY && rte->subquery != NULL)
			plan_keep_permissions_of(query, rte->subquery);
	}
}

/* Entries that FROM leaves behind: relations stay for their permissions, also those within subqueries; the rest goes. */
static void
plan_retire_entries(Query *query)
{
	int n = list_length(query->rtable);

	for (int i = 0; i < n; i++)
	{
		ListCell	  *lc = list_nth_cell(query->rtable, i);
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		RangeTblEntry *none;

		rte->lateral = false;
		if (rte->rtekind == RTE_RELATION)
			continue;
		if (rte->rtekind == RTE_SUBQUERY && rte->subquery != NULL)
		{
#if PG_VERSION_NUM >= 160000
			if (OidIsValid(rte->relid))
				plan_keep_permissions(query, query, rte);
#endif
			plan_keep_permissions_of(query, rte->subquery);
			lc = list_nth_cell(query->rtable, i);
		}
		none = makeNode(RangeTblEntry);
		none->rtekind = RTE_RESULT;
		none->eref = makeAlias("*RESULT*", NIL);
		lfirst(lc) = none;
	}
}

/* A derived stream's rows are what comes out of it. */
static void
plan_name_outputs(Query *query, Index varno)
{
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);
		Node		*expr = (Node *) entry->expr;

		entry->expr = (Expr *) makeVar(varno, foreach_current_index(lc) + 1, exprType(expr), exprTypmod(expr),
									   exprCollation(expr), 0);
	}
}

/* Whether FROM is a continuous view that the rewriter has expanded, or UNION ALL of streams. */
static bool
plan_reads_view(const Query *query)
{
	const List			*from = query->jointree->fromlist;
	const RangeTblEntry *entry;

	if (list_length(from) != 1 || !IsA(linitial(from), RangeTblRef))
		return false;
	entry = rt_fetch(linitial_node(RangeTblRef, from)->rtindex, query->rtable);
	return OidIsValid(streamext_view_of_entry(entry)) || streamext_union_is(entry);
}

/* Makes the rule's query, in place, read the view's state. */
static void
plan_substitute(PlanContext *context, Query *query, Oid viewoid)
{
	const CompiledView *view;
	RangeTblEntry	   *rte;
	RangeTblRef		   *ref;
	Index				varno;

	streamext_require_preload();
	if (query->rowMarks != NIL)
		CheckSelectLocking(query, linitial_node(RowMarkClause, query->rowMarks)->strength);

	/* What is joined, or is a view whose windows are read, has been rewritten here, in the worker it has not; keys and aggregates are the same. */
	*query = *streamext_view_flatten(query, NULL);
	view = streamext_view_is_join(query) || plan_reads_view(query) ? streamext_view_compile(viewoid)
																   : streamext_view_compile_query(viewoid, query, NULL);
	if (view->stateless)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("continuous view \"%s\" keeps no rows", get_rel_name(viewoid)),
						errhint("Its rows are in the table %s.", view->options.into)));
	streamext_rights_check_invoker(view);
	if (view->has_joins || OidIsValid(view->inner) || view->parts != NIL)
		plan_retire_entries(query);
	rte = streamext_view_rows_entry(view);
	context->substituted = lappend(context->substituted, rte);
	query->rtable = lappend(query->rtable, rte);
	varno = list_length(query->rtable);

	if (view->derived)
		plan_name_outputs(query, varno);
	else
		query->targetList = (List *) streamext_outputs_over(view, (Node *) query->targetList, varno);
	query->havingQual = streamext_outputs_over(view, query->havingQual, varno);

	ref = makeNode(RangeTblRef);
	ref->rtindex = varno;
	query->jointree = makeFromExpr(list_make1(ref), query->havingQual);
	query->havingQual = NULL;
	query->groupClause = NIL;
	query->groupingSets = NIL;
	query->groupDistinct = false;
	query->hasAggs = false;
	query->hasTargetSRFs = expression_returns_set((Node *) query->targetList);

	/* Row marks want whole rows, which a subquery has and view_rows has not: so it shall stay a subquery. */
	query->hasForUpdate = context->marked;
}

/* ---- the hook ---- */

static void
plan_look_at_entry(PlanContext *context, Query *query, RangeTblEntry *rte)
{
	Oid view;

	if (rte->rtekind == RTE_FUNCTION)
	{
		if (list_member_ptr(context->substituted, rte))
			return;
		plan_refuse_view_rows(rte);
		if (plan_may_inline(rte))
			plan_inline_function(context, query, rte);
	}
	view = streamext_view_of_entry(rte);
	if (OidIsValid(view))
		plan_substitute(context, rte->subquery, view);
}

static bool
plan_walker(Node *node, PlanContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	 *query = (Query *) node;
		bool	  marked = context->marked;
		ListCell *lc;

		context->marked =
			marked || query->rowMarks != NIL || (query->commandType != CMD_SELECT && query->commandType != CMD_INSERT);
		foreach (lc, query->rtable)
			plan_look_at_entry(context, query, lfirst_node(RangeTblEntry, lc));
		query_tree_walker(query, plan_walker, context, 0);
		context->marked = marked;
		return false;
	}
	return expression_tree_walker(node, plan_walker, context);
}

static PlannedStmt *
plan_hook(Query *parse, const char *query_string, int cursorOptions, ParamListInfo boundParams)
{
	PlanContext	 context = { .params = boundParams };
	PlannedStmt *result;
	Oid			 state;

	if (parse->commandType != CMD_UTILITY)
	{
		plan_walker((Node *) parse, &context);
		streamext_merge_expand(parse);
		state = streamext_partial_expand(parse);
		if (OidIsValid(state))
			streamext_shard_expand(parse, state);
	}
	if (plan_next_hook != NULL)
		result = plan_next_hook(parse, query_string, cursorOptions, boundParams);
	else
		result = standard_planner(parse, query_string, cursorOptions, boundParams);
	if (context.glob != NULL)
	{
		result->invalItems = list_concat(result->invalItems, context.glob->invalItems);
		result->dependsOnRole |= context.glob->dependsOnRole;
	}
	return result;
}

void
streamext_plan_install_hook(void)
{
	plan_next_hook = planner_hook;
	planner_hook = plan_hook;
}

/* ---- safety net ---- */

static bool
plan_aggregates(const Query *query)
{
	return query->hasAggs || query->groupClause != NIL || query->havingQual != NULL;
}

/* The continuous view that the planner is about to run as a plain query over its stream, or InvalidOid. */
static Oid
plan_unsubstituted_view(PlannerInfo *root, Oid stream_relid)
{
	if (!plan_aggregates(root->parse))
		return InvalidOid;
#if PG_VERSION_NUM >= 160000
	if (root->parent_root != NULL)
	{
		ListCell *lc;

		foreach (lc, root->parent_root->parse->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
			Oid			   view = streamext_view_of_entry(rte);

			if (OidIsValid(view) && plan_aggregates(rte->subquery) && streamext_view_stream(view) == stream_relid)
				return view;
		}
	}
#endif
	return plan_rule_of(root->parse);
}

/* Once a statement: its answer is of the stream's newest records only, which is rarely meant. */
static void
plan_tell_buffer(Oid stream, const char *what)
{
	static TimestampTz told;

	if (MyBgworkerEntry != NULL || told == GetCurrentStatementStartTimestamp())
		return;
	told = GetCurrentStatementStartTimestamp();
	ereport(NOTICE, (errmsg("%s over what the buffer of stream \"%s\" holds", what, get_rel_name(stream)),
					 errdetail("The buffer keeps the stream's newest records (option \"buffer_size\")."),
					 errhint("CREATE VIEW ... WITH (streamext.continuous) counts all records.")));
}

void
streamext_scan_check_stream(PlannerInfo *root, Oid stream_relid)
{
	Oid view = plan_unsubstituted_view(root, stream_relid);

	if (OidIsValid(view))
	{
		streamext_require_preload(); /* without it there is no planner hook */
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("continuous view \"%s\" would be read from the buffer of its stream", get_rel_name(view)),
				 errdetail("The planner was reached past the planner hook of streamext.")));
	}
	if (plan_aggregates(root->parse))
		plan_tell_buffer(stream_relid, "the aggregate is");
	else if (root->parse->hasWindowFuncs)
		plan_tell_buffer(stream_relid, "the window function is");
	else if (root->parse->distinctClause != NIL)
		plan_tell_buffer(stream_relid, "DISTINCT is");
}
