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
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
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
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/hooks.h"
#include "base/own_schema.h"
#include "view/check.h"
#include "view/reads.h"
#include "view/compile.h"
#include "view/flatten.h"
#include "view/union.h"
#include "view/join_clause.h"
#include "view/rights.h"
#include "read/scan.h"
#include "read/shard_rows.h"

typedef struct PlanContext
{
	PlannerGlobal *glob; /* collects what inlined functions depend on; made when needed */
	ParamListInfo  params;
	List		  *substituted; /* RangeTblEntry's made here, not to be looked at */
	bool		   marked;		/* a query around this place locks or changes rows */
} PlanContext;

/* Replaces what stands below the aggregation by columns of view_rows. */
typedef struct PlanMutator
{
	const CompiledView *view;
	Index				varno; /* of view_rows */
	int					sublevels;
	int *
		ranks; /* of the aggregates in the order of their columns, filled in as they are met, else -1; NULL: as they are numbered */
	int nranks;
} PlanMutator;

static planner_hook_type plan_next_hook = NULL;

/* ---- recognising things ---- */

bool
streamext_is_view_rows(Oid funcid)
{
	HeapTuple tuple;
	bool	  result = false;

	if (funcid < FirstNormalObjectId)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		return false;
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId &&
		strcmp(NameStr(((Form_pg_proc) GETSTRUCT(tuple))->proname), "view_rows") == 0)
		result = streamext_own_schema(((Form_pg_proc) GETSTRUCT(tuple))->pronamespace);
	ReleaseSysCache(tuple);
	return result;
}

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

static Var *
plan_key_var(const PlanMutator *mutator, int k)
{
	const KeySpec *key = &mutator->view->keys[k];

	return makeVar(mutator->varno, k + 1, key->type, key->typmod, key->collation, mutator->sublevels);
}

/* The group key that the expression is, or -1. Below the top level PostgreSQL accepts only plain columns as such. */
static int
plan_find_key(const PlanMutator *mutator, Node *node)
{
	const CompiledView *view = mutator->view;

	if (mutator->sublevels == 0)
	{
		for (int k = 0; k < view->nkeys; k++)
			if (equal(node, view->keys[k].expr))
				return k;
	}
	else if (IsA(node, Var) && ((Var *) node)->varlevelsup == mutator->sublevels)
	{
		for (int k = 0; k < view->nkeys; k++)
		{
			Var *key = (Var *) view->keys[k].expr;

			if (key != NULL && IsA(key, Var) && key->varno == ((Var *) node)->varno &&
				key->varattno == ((Var *) node)->varattno)
				return k;
		}
	}
	return -1;
}

static Node *
plan_aggregate_var(PlanMutator *mutator, Aggref *aggref)
{
	const CompiledView *view = mutator->view;
	Aggref			   *wanted = aggref;

	if (mutator->sublevels > 0)
	{
		wanted = copyObject(aggref);
		IncrementVarSublevelsUp((Node *) wanted, -mutator->sublevels, mutator->sublevels);
	}
	for (int a = 0; a < view->naggs; a++)
		if (equal(wanted, view->aggs[a].aggref))
		{
			if (mutator->ranks != NULL && mutator->ranks[a] < 0)
				mutator->ranks[a] = mutator->nranks++;
			return (Node *) makeVar(mutator->varno, view->nkeys + (mutator->ranks != NULL ? mutator->ranks[a] : a) + 1,
									aggref->aggtype, -1, aggref->aggcollid, mutator->sublevels);
		}
	elog(ERROR, "aggregate not found in the compiled view");
	return NULL; /* keep the compiler quiet */
}

/* GROUPING(): a bit for each argument, set where the row's grouping set has it not. */
static Node *
plan_grouping(const PlanMutator *mutator, const GroupingFunc *grouping)
{
	const CompiledView *view = mutator->view;
	CaseExpr		   *result = makeNode(CaseExpr);

	if (view->nsets == 0)
		return (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(0), false, true);
	result->casetype = INT4OID;
	result->location = -1;
	for (int s = 0; s < view->nsets; s++)
	{
		CaseWhen *when = makeNode(CaseWhen);
		int32	  bits = 0;
		ListCell *lc;

		foreach (lc, grouping->refs)
		{
			int		  k = 0;
			ListCell *group;

			foreach (group, view->query->groupClause)
			{
				if (lfirst_node(SortGroupClause, group)->tleSortGroupRef == lfirst_int(lc))
					break;
				k++;
			}
			bits = (bits << 1) | ((view->sets[s] & ((uint32) 1 << k)) == 0);
		}
		when->expr =
			make_opclause(Int4EqualOperator, BOOLOID, false, (Expr *) plan_key_var(mutator, view->set_key),
						  (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(s), false, true),
						  InvalidOid, InvalidOid);
		when->result = (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(bits), false, true);
		when->location = -1;
		result->args = lappend(result->args, when);
	}
	result->defresult = (Expr *) makeNullConst(INT4OID, -1, InvalidOid);
	return (Node *) result;
}

static Node *
plan_mutate(Node *node, PlanMutator *mutator)
{
	int k;

	if (node == NULL)
		return NULL;
	k = plan_find_key(mutator, node);
	if (k >= 0)
		return (Node *) plan_key_var(mutator, k);
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == mutator->sublevels)
		return plan_aggregate_var(mutator, (Aggref *) node);
	if (IsA(node, GroupingFunc) && ((GroupingFunc *) node)->agglevelsup == mutator->sublevels)
		return plan_grouping(mutator, (GroupingFunc *) node);
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == mutator->sublevels)
		elog(ERROR, "a column of the stream is left above the aggregation");
	if (IsA(node, Query))
	{
		Node *result;

		mutator->sublevels++;
		result = (Node *) query_tree_mutator((Query *) node, plan_mutate, mutator, 0);
		mutator->sublevels--;
		return result;
	}
	return expression_tree_mutator(node, plan_mutate, mutator);
}

/* Past the rights on its schema: who may read the view needs none there. */
static Oid
plan_view_rows_function(void)
{
	Oid argtypes[] = { OIDOID };
	Oid function = streamext_own_function("view_rows", argtypes, lengthof(argtypes));

	if (!OidIsValid(function))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function streamext_internal.view_rows(oid) does not exist")));
	return function;
}

static void
plan_add_column(RangeTblEntry *rte, RangeTblFunction *function, const char *name, Oid type, int32 typmod, Oid collation)
{
	function->funccolcount++;
	function->funccolnames = lappend(function->funccolnames, makeString(pstrdup(name)));
	function->funccoltypes = lappend_oid(function->funccoltypes, type);
	function->funccoltypmods = lappend_int(function->funccoltypmods, typmod);
	function->funccolcollations = lappend_oid(function->funccolcollations, collation);
	rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(name)));
}

static RangeTblEntry *
plan_make_entry(const CompiledView *view)
{
	RangeTblEntry	 *rte = makeNode(RangeTblEntry);
	RangeTblFunction *function = makeNode(RangeTblFunction);
	Const			 *arg = makeConst(OIDOID, -1, InvalidOid, sizeof(Oid), ObjectIdGetDatum(view->relid), false, true);
	FuncExpr		 *call = makeFuncExpr(plan_view_rows_function(), RECORDOID, list_make1(arg), InvalidOid, InvalidOid,
										  COERCE_EXPLICIT_CALL);
	char			 *name = get_rel_name(view->relid);
	ListCell		 *lc;

	call->funcretset = true;
	function->funcexpr = (Node *) call;
	rte->rtekind = RTE_FUNCTION;
	rte->functions = list_make1(function);
	rte->eref = makeAlias(name != NULL ? name : "view", NIL);
	rte->inFromCl = true;
	foreach (lc, view->outputs)
		plan_add_column(rte, function, "column", exprType(lfirst(lc)), exprTypmod(lfirst(lc)),
						exprCollation(lfirst(lc)));
	for (int k = 0; k < view->nkeys; k++)
		plan_add_column(rte, function, view->keys[k].name, view->keys[k].type, view->keys[k].typmod,
						view->keys[k].collation);
	for (int a = 0; a < view->naggs; a++)
	{
		Aggref *aggref = view->aggs[a].aggref;
		char   *function_name = get_func_name(aggref->aggfnoid);

		plan_add_column(rte, function, function_name != NULL ? function_name : "agg", aggref->aggtype, -1,
						aggref->aggcollid);
	}
	return rte;
}

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
	PlanMutator	   mutator = { 0 };
	RangeTblEntry *rte;
	RangeTblRef	  *ref;

	streamext_require_preload();
	if (query->rowMarks != NIL)
		CheckSelectLocking(query, linitial_node(RowMarkClause, query->rowMarks)->strength);

	/* What is joined, or is a view whose windows are read, has been rewritten here, in the worker it has not; keys and aggregates are the same. */
	*query = *streamext_view_flatten(query, NULL);
	mutator.view = streamext_view_is_join(query) || plan_reads_view(query)
					   ? streamext_view_compile(viewoid)
					   : streamext_view_compile_query(viewoid, query, NULL);
	if (mutator.view->stateless)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("continuous view \"%s\" keeps no rows", get_rel_name(viewoid)),
						errhint("Its rows are in the table %s.", mutator.view->options.into)));
	streamext_rights_check_invoker(mutator.view);
	if (mutator.view->has_joins || OidIsValid(mutator.view->inner) || mutator.view->parts != NIL)
		plan_retire_entries(query);
	rte = plan_make_entry(mutator.view);
	context->substituted = lappend(context->substituted, rte);
	query->rtable = lappend(query->rtable, rte);
	mutator.varno = list_length(query->rtable);

	if (mutator.view->derived)
		plan_name_outputs(query, mutator.varno);
	else
		query->targetList = (List *) plan_mutate((Node *) query->targetList, &mutator);
	query->havingQual = plan_mutate(query->havingQual, &mutator);

	ref = makeNode(RangeTblRef);
	ref->rtindex = mutator.varno;
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

/* ---- what another server makes of merged groups ---- */

Query *
streamext_shard_outputs(const CompiledView *view, RangeTblEntry *entry, int *order)
{
	PlanMutator	 mutator = { .view = view, .varno = 1, .ranks = palloc(sizeof(int) * Max(view->naggs, 1)) };
	Query		*query = copyObject(view->query);
	RangeTblRef *ref = makeNode(RangeTblRef);

	for (int a = 0; a < view->naggs; a++)
		mutator.ranks[a] = -1;
	ref->rtindex = 1;
	query->targetList = (List *) plan_mutate((Node *) query->targetList, &mutator);
	query->jointree = makeFromExpr(list_make1(ref), plan_mutate(query->havingQual, &mutator));
	query->havingQual = NULL;
	query->rtable = list_make1(entry);
#if PG_VERSION_NUM >= 160000
	query->rteperminfos = NIL;
#endif
	query->groupClause = NIL;
	query->groupingSets = NIL;
	query->groupDistinct = query->hasAggs = false;
	if (mutator.nranks != view->naggs)
		elog(ERROR, "an aggregate of the view is nowhere in its query");
	for (int a = 0; a < view->naggs; a++)
		order[mutator.ranks[a]] = a;
	return query;
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

	if (parse->commandType != CMD_UTILITY)
	{
		plan_walker((Node *) parse, &context);
		streamext_merge_expand(parse);
		streamext_partial_expand(parse);
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
plan_tell_buffer(Oid stream)
{
	static TimestampTz told;

	if (MyBgworkerEntry != NULL || told == GetCurrentStatementStartTimestamp())
		return;
	told = GetCurrentStatementStartTimestamp();
	ereport(NOTICE, (errmsg("the aggregate is over what the buffer of stream \"%s\" holds", get_rel_name(stream)),
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
		plan_tell_buffer(stream_relid);
}
