/*
 * read/merge.c
 *		streamext.merge(column): aggregates of a continuous view aggregated further, from their states.
 *
 * streamext.merge(anyelement) itself only refuses. The planner hook calls streamext_merge_expand when views have become scans: each
 * call over a bare aggregate column becomes streamext_internal.merge_states over the state of that aggregate, which the scan gives as a
 * further column. A state is combined as those of several panes are, by the aggregate's own functions, as the view's owner.
 *
 * States go from the scan to the aggregate within one process. What is in them is trusted like memory, so each carries a code that only who
 * knows this process's secret can make: of the view as it is defined, the aggregate and the bytes. And no query shows them: a whole row of what
 * gives a state is refused, since the state would be a column of it.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "base/layout.h"
#include "base/own_schema.h"
#include "read/scan.h"

PG_FUNCTION_INFO_V1(streamext_merge_refuse);
PG_FUNCTION_INFO_V1(streamext_merge_states_step);
PG_FUNCTION_INFO_V1(streamext_merge_states_final);

/* ---- states on their way ---- */

typedef struct MergeHeader
{
	uint8 code[16]; /* HMAC-SHA256, cut */
} MergeHeader;

static uint8 merge_secret[32]; /* this process's */
static bool	 merge_secret_drawn = false;

static void
merge_code_add(pg_hmac_ctx *hmac, const void *bytes, Size size)
{
	if (pg_hmac_update(hmac, bytes, size) < 0)
		elog(ERROR, "could not compute a state's code: %s", pg_hmac_error(hmac));
}

static MergeHeader
merge_header(const CompiledView *view, int number, const char *state, Size size)
{
	pg_hmac_ctx *hmac = pg_hmac_create(PG_SHA256);
	uint8		 hash[PG_SHA256_DIGEST_LENGTH];
	MergeHeader	 header;

	if (!merge_secret_drawn && !pg_strong_random(merge_secret, sizeof(merge_secret)))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not draw random numbers")));
	merge_secret_drawn = true;
	if (hmac == NULL || pg_hmac_init(hmac, merge_secret, sizeof(merge_secret)) < 0)
		elog(ERROR, "could not compute a state's code");
	merge_code_add(hmac, &view->relid, sizeof(view->relid));
	merge_code_add(hmac, &view->definition, sizeof(view->definition));
	merge_code_add(hmac, &number, sizeof(number));
	if (view->types != NULL)
		merge_code_add(hmac, view->types, view->types->size);
	merge_code_add(hmac, state, size);
	if (pg_hmac_final(hmac, hash, sizeof(hash)) < 0)
		elog(ERROR, "could not compute a state's code: %s", pg_hmac_error(hmac));
	pg_hmac_free(hmac);
	memcpy(header.code, hash, sizeof(header.code));
	return header;
}

bytea *
streamext_merge_seal(const CompiledView *view, int number, const StringInfo state)
{
	Size		size = VARHDRSZ + sizeof(MergeHeader) + state->len;
	MergeHeader header = merge_header(view, number, state->data, state->len);
	bytea	   *result;

	if (!AllocSizeIsValid(size))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("an aggregate's state is too large to be merged")));
	result = palloc(size);
	SET_VARSIZE(result, size);
	memcpy(VARDATA(result), &header, sizeof(MergeHeader));
	memcpy(VARDATA(result) + sizeof(MergeHeader), state->data, state->len);
	return result;
}

void
streamext_merge_open(const CompiledView *view, int number, const bytea *sealed, const char **state, Size *size)
{
	MergeHeader header = { 0 };
	bool		whole = VARSIZE_ANY_EXHDR(sealed) >= sizeof(MergeHeader);

	if (whole)
	{
		*state = VARDATA_ANY(sealed) + sizeof(MergeHeader);
		*size = VARSIZE_ANY_EXHDR(sealed) - sizeof(MergeHeader);
		header = merge_header(view, number, *state, *size);
	}
	if (!whole || memcmp(VARDATA_ANY(sealed), &header, sizeof(MergeHeader)) != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), errmsg("this is no state of an aggregate")));
}

/* ---- the aggregates ---- */

/* Of a call in a query: what is the same for all groups. */
typedef struct MergeCall
{
	Oid					viewoid;
	int					number; /* of the aggregate */
	const CompiledView *view;
	AggReader		   *reader;
} MergeCall;

typedef struct MergeState
{
	MergeCall  *call;
	AggPartial *partial;
} MergeState;

Datum
streamext_merge_refuse(PG_FUNCTION_ARGS)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("streamext.merge takes an aggregate column of a continuous view"),
		 errhint(
			 "Select from the continuous view, and give streamext.merge a column that is an aggregate and nothing else.")));
	PG_RETURN_NULL();
}

static MergeCall *
merge_call(FunctionCallInfo fcinfo)
{
	MergeCall	 *call = fcinfo->flinfo->fn_extra;
	MemoryContext cxt = fcinfo->flinfo->fn_mcxt;
	IdentityScope scope;
	bool		  entered;

	if (PG_ARGISNULL(2) || PG_ARGISNULL(3))
		streamext_merge_refuse(fcinfo);
	if (call == NULL || call->viewoid != PG_GETARG_OID(2) || call->number != PG_GETARG_INT32(3))
	{
		call = MemoryContextAllocZero(cxt, sizeof(MergeCall));
		call->viewoid = PG_GETARG_OID(2);
		call->number = PG_GETARG_INT32(3);
		call->view = streamext_view_cached(call->viewoid, cxt);
		if (call->number < 0 || call->number >= call->view->naggs)
			streamext_merge_refuse(fcinfo);
		entered = streamext_read_enter(call->view, &scope);
		call->reader = streamext_aggregate_reader(&call->view->aggs[call->number], cxt);
		streamext_read_leave(entered, &scope);
		fcinfo->flinfo->fn_extra = call;
	}
	return call;
}

/* merge_states_step(internal, state bytea, view oid, number int4, anyelement) */
Datum
streamext_merge_states_step(PG_FUNCTION_ARGS)
{
	MergeState	 *state = PG_ARGISNULL(0) ? NULL : (MergeState *) PG_GETARG_POINTER(0);
	MemoryContext aggregate, old;
	bytea		 *bytes;
	MergeCall	 *call;
	IdentityScope scope;
	AggPartial	 *from;
	const char	 *from_bytes;
	Size		  from_size;
	bool		  entered;

	if (!AggCheckCallContext(fcinfo, &aggregate))
		elog(ERROR, "merge_states_step called in non-aggregate context");
	if (PG_ARGISNULL(1)) /* the outer side of a join */
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(state);
	}
	bytes = PG_GETARG_BYTEA_PP(1);
	call = merge_call(fcinfo);
	streamext_merge_open(call->view, call->number, bytes, &from_bytes, &from_size);
	old = MemoryContextSwitchTo(aggregate);
	entered = streamext_read_enter(call->view, &scope);
	if (state == NULL)
	{
		state = palloc(sizeof(MergeState));
		state->call = call;
		state->partial = streamext_partial_empty(call->reader);
	}
	/* kept rows stay where they are until the end, all else is combined away */
	if (call->view->aggs[call->number].mode != AGG_VALUES)
		MemoryContextSwitchTo(old);
	from = streamext_partial_take(call->reader, from_bytes, from_size);
	streamext_partial_combine(call->reader, state->partial, from);
	streamext_read_leave(entered, &scope);
	MemoryContextSwitchTo(old);
	PG_RETURN_POINTER(state);
}

Datum
streamext_merge_states_final(PG_FUNCTION_ARGS)
{
	MergeState	 *state = PG_ARGISNULL(0) ? NULL : (MergeState *) PG_GETARG_POINTER(0);
	IdentityScope scope;
	Datum		  value;
	bool		  entered, isnull;

	if (state == NULL)
		PG_RETURN_NULL();
	entered = streamext_read_enter(state->call->view, &scope);
	/* the call may be finished again, as in a window */
	value = streamext_partial_final(state->call->reader, streamext_partial_copy(state->call->reader, state->partial),
									&isnull);
	streamext_read_leave(entered, &scope);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(value);
}

/* ---- the query ---- */

typedef struct MergeContext
{
	Query	   *query; /* whose calls are looked at */
	Oid			merge; /* streamext.merge(anyelement), InvalidOid: there is none */
	Oid			states;
	Oid			merge_bytea; /* streamext.merge(bytea, anyelement) */
	MergeColumn column;		 /* found last */
} MergeContext;

void
streamext_merge_add_states(RangeTblEntry *rte, const CompiledView *view)
{
	RangeTblFunction *function = linitial_node(RangeTblFunction, rte->functions);

	if (function->funccolcount > view->nkeys + view->naggs)
		return;
	for (int a = 0; a < view->naggs; a++)
	{
		function->funccolcount++;
		function->funccolnames = lappend(function->funccolnames, makeString("state"));
		function->funccoltypes = lappend_oid(function->funccoltypes, BYTEAOID);
		function->funccoltypmods = lappend_int(function->funccoltypmods, -1);
		function->funccolcollations = lappend_oid(function->funccolcollations, InvalidOid);
		rte->eref->colnames = lappend(rte->eref->colnames, makeString("state"));
	}
}

AttrNumber
streamext_merge_add_last(RangeTblEntry *rte, const CompiledView *view)
{
	RangeTblFunction *function = linitial_node(RangeTblFunction, rte->functions);

	streamext_merge_add_states(rte, view);
	if (function->funccolcount == view->nkeys + 2 * view->naggs)
	{
		function->funccolcount++;
		function->funccolnames = lappend(function->funccolnames, makeString("last"));
		function->funccoltypes = lappend_oid(function->funccoltypes, TIMESTAMPTZOID);
		function->funccoltypmods = lappend_int(function->funccoltypmods, -1);
		function->funccolcollations = lappend_oid(function->funccolcollations, InvalidOid);
		rte->eref->colnames = lappend(rte->eref->colnames, makeString("last"));
	}
	return function->funccolcount;
}

/* The column of a subquery's output that is this expression, added if need be. */
static AttrNumber
merge_output(RangeTblEntry *rte, Var *expr)
{
	Query		*query = rte->subquery;
	TargetEntry *tle;
	ListCell	*lc;

	foreach (lc, query->targetList)
		if (!lfirst_node(TargetEntry, lc)->resjunk && equal(lfirst_node(TargetEntry, lc)->expr, expr))
			return lfirst_node(TargetEntry, lc)->resno;
	tle = makeTargetEntry((Expr *) expr, list_length(query->targetList) + 1, "state", false);
	query->targetList = lappend(query->targetList, tle);
	while (list_length(rte->eref->colnames) < tle->resno)
		rte->eref->colnames = lappend(rte->eref->colnames, makeString("state"));
	return tle->resno;
}

/* Whether an expression of the query, at any depth, is a whole row of its entry varno. */
typedef struct MergeWholeRow
{
	Index varno, level;
} MergeWholeRow;

static bool
merge_is_whole_row(Node *node, MergeWholeRow *row)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varattno == InvalidAttrNumber && ((Var *) node)->varno == row->varno &&
			   ((Var *) node)->varlevelsup == row->level;
	if (IsA(node, Query))
	{
		bool found;

		row->level++;
		found = query_tree_walker((Query *) node, merge_is_whole_row, row, 0);
		row->level--;
		return found;
	}
	return expression_tree_walker(node, merge_is_whole_row, row);
}

static void
merge_check_whole_row(Query *query, Index varno)
{
	MergeWholeRow row = { varno, 0 };

	if (query_tree_walker(query, merge_is_whole_row, &row, 0))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("streamext.merge and streamext.partial are not supported beside a whole row"),
						errhint("Name the columns instead of the row.")));
}

Oid
streamext_merge_reader_of(const Query *query, RangeTblEntry *rte)
{
#if PG_VERSION_NUM >= 160000
	return rte->perminfoindex == 0 ? InvalidOid : getRTEPermissionInfo(query->rteperminfos, rte)->checkAsUser;
#else
	RangeTblEntry *old = rte->subquery->rtable == NIL ? NULL : linitial_node(RangeTblEntry, rte->subquery->rtable);

	return old != NULL && old->rtekind == RTE_RELATION && old->relkind == RELKIND_VIEW ? old->checkAsUser : InvalidOid;
#endif
}

Var *
streamext_merge_find_state(Query *query, Node *node, MergeColumn *column)
{
	Var			  *var = (Var *) node;
	Var			  *state;
	RangeTblEntry *rte;
	TargetEntry	  *tle;

	check_stack_depth();
	if (node == NULL || !IsA(node, Var) || var->varlevelsup != 0 || var->varattno <= 0)
		return NULL;
	rte = rt_fetch(var->varno, query->rtable);
	if (rte->rtekind == RTE_JOIN)
		return streamext_merge_find_state(query, list_nth(rte->joinaliasvars, var->varattno - 1), column);
	merge_check_whole_row(query, var->varno);
	if (rte->rtekind == RTE_FUNCTION && OidIsValid(streamext_view_rows_view(rte)))
	{
		column->view = streamext_view_cached(streamext_view_rows_view(rte), CurrentMemoryContext);
		column->number = var->varattno - column->view->nkeys - 1;
		if (column->number < 0 || column->number >= column->view->naggs)
			return NULL;
		streamext_merge_add_states(rte, column->view);
		state = makeVar(var->varno, var->varattno + column->view->naggs, BYTEAOID, -1, InvalidOid, 0);
	}
	else
	{
		Query *sub = rte->rtekind == RTE_SUBQUERY ? rte->subquery : NULL;

		if (sub == NULL || sub->setOperations != NULL || sub->groupClause != NIL || sub->groupingSets != NIL ||
			sub->hasAggs || sub->distinctClause != NIL)
			return NULL;
		tle = get_tle_by_resno(sub->targetList, var->varattno);
		column->reader = streamext_merge_reader_of(query, rte);
		state = tle == NULL || tle->resjunk ? NULL : streamext_merge_find_state(sub, (Node *) tle->expr, column);
		if (state == NULL)
			return NULL;
		state = makeVar(var->varno, merge_output(rte, state), BYTEAOID, -1, InvalidOid, 0);
	}
#if PG_VERSION_NUM >= 160000
	state->varnullingrels = bms_copy(var->varnullingrels);
#endif
	return state;
}

/* What the aggregate makes of nothing; NULL if that is NULL. */
static Node *
merge_of_nothing(const CompiledView *view, int number)
{
	const Aggref *aggref = view->aggs[number].aggref;
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext merge", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	IdentityScope scope;
	bool		  entered = streamext_read_enter(view, &scope);
	AggReader	 *reader = streamext_aggregate_reader(&view->aggs[number], cxt);
	Node		 *result = NULL;
	bool		  isnull, byval;
	int16		  len;
	Datum		  value = streamext_partial_final(reader, streamext_partial_empty(reader), &isnull);

	streamext_read_leave(entered, &scope);
	MemoryContextSwitchTo(old);
	get_typlenbyval(aggref->aggtype, &len, &byval);
	if (!isnull)
		result =
			(Node *) makeConst(aggref->aggtype, -1, aggref->aggcollid, len, datumCopy(value, byval, len), false, byval);
	MemoryContextDelete(cxt);
	return result;
}

/* streamext.merge(bytea) over what is no column of a view at hand takes portable partials (read/partial.c). */
static bool
merge_is_of_partials(const MergeContext *context, const Aggref *aggref, const Var *state)
{
	return aggref->aggfnoid == context->merge_bytea && state == NULL;
}

static Node *
merge_expand_call(MergeContext *context, Aggref *aggref)
{
	Var			 *state = NULL;
	Aggref		 *result;
	Node		 *nothing;
	CoalesceExpr *coalesce;

	if (aggref->agglevelsup == 0 && aggref->aggdistinct == NIL && aggref->aggorder == NIL)
		state = streamext_merge_find_state(context->query, (Node *) linitial_node(TargetEntry, aggref->args)->expr,
										   &context->column);
	if (merge_is_of_partials(context, aggref, state))
		return (Node *) aggref;
	/* the type that a second argument names has to be the column's */
	if (state != NULL && aggref->aggtype != context->column.view->aggs[context->column.number].aggref->aggtype)
		state = NULL;
	if (state == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("streamext.merge takes an aggregate column of a continuous view"),
			 errdetail(
				 "It is given something else, DISTINCT or ORDER BY, or there is DISTINCT, GROUP BY, UNION or WITH in between."),
			 errhint(
				 "Select from the continuous view, and give streamext.merge a column that is an aggregate and nothing else.")));
	result = copyObject(aggref);
	result->aggfnoid = context->states;
	result->aggargtypes = list_make4_oid(BYTEAOID, OIDOID, INT4OID, aggref->aggtype);
	result->aggtranstype = InvalidOid;
	result->args =
		list_make4(makeTargetEntry((Expr *) state, 1, NULL, false),
				   makeTargetEntry((Expr *) makeConst(OIDOID, -1, InvalidOid, sizeof(Oid),
													  ObjectIdGetDatum(context->column.view->relid), false, true),
								   2, NULL, false),
				   makeTargetEntry((Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32),
													  Int32GetDatum(context->column.number), false, true),
								   3, NULL, false),
				   makeTargetEntry((Expr *) makeNullConst(aggref->aggtype, -1, InvalidOid), 4, NULL, false));
	nothing = merge_of_nothing(context->column.view, context->column.number);
	if (nothing == NULL)
		return (Node *) result;
	coalesce = makeNode(CoalesceExpr);
	coalesce->coalescetype = aggref->aggtype;
	coalesce->coalescecollid = aggref->aggcollid;
	coalesce->args = list_make2(result, nothing);
	coalesce->location = -1;
	return (Node *) coalesce;
}

static Node *
merge_mutate(Node *node, MergeContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, Aggref) &&
		(((Aggref *) node)->aggfnoid == context->merge || ((Aggref *) node)->aggfnoid == context->merge_bytea))
		return merge_expand_call(context, (Aggref *) node);
	if (IsA(node, Query))
		return node; /* comes on its own */
	return expression_tree_mutator(node, merge_mutate, context);
}

static bool
merge_is_call(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && (((Aggref *) node)->aggfnoid == ((MergeContext *) context)->merge ||
							  ((Aggref *) node)->aggfnoid == ((MergeContext *) context)->merge_bytea))
		return true;
	return expression_tree_walker(node, merge_is_call, context);
}

static bool
merge_walk(Node *node, MergeContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;

		if (query->hasAggs &&
			(merge_is_call((Node *) query->targetList, context) || merge_is_call(query->havingQual, context)))
		{
			context->query = query;
			query->targetList = (List *) merge_mutate((Node *) query->targetList, context);
			query->havingQual = merge_mutate(query->havingQual, context);
		}
		return query_tree_walker(query, merge_walk, context, 0);
	}
	return expression_tree_walker(node, merge_walk, context);
}

/* Whether some query of the tree aggregates by a function that is not PostgreSQL's own. */
static bool
merge_has_foreign_aggregate(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && ((Aggref *) node)->aggfnoid >= FirstNormalObjectId)
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, merge_has_foreign_aggregate, context, 0);
	return expression_tree_walker(node, merge_has_foreign_aggregate, context);
}

void
streamext_merge_expand(Query *query)
{
	MergeContext context = { 0 };
	Oid			 argument = ANYELEMENTOID;
	Oid			 arguments[] = { BYTEAOID, OIDOID, INT4OID, ANYELEMENTOID };
	Oid			 typed[] = { BYTEAOID, ANYELEMENTOID };

	if (!merge_has_foreign_aggregate((Node *) query, NULL))
		return;
	context.merge = streamext_own_function("merge", &argument, 1);
	if (!OidIsValid(context.merge))
		return;
	context.merge_bytea = streamext_own_function("merge", typed, lengthof(typed));
	context.states = streamext_own_function("merge_states", arguments, lengthof(arguments));
	merge_walk((Node *) query, &context);
}
