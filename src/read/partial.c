/*
 * read/partial.c
 *		streamext.partial(column): an aggregate's state as bytes that another server's streamext.merge finishes.
 *
 * streamext.partial itself only refuses. The planner hook puts streamext_internal.partial_state in its place, over the state that the scan gives
 * as a further column (read/merge.c), which makes a portable partial of it (aggregate/portable.h). A state tells more than the
 * aggregate's value does, of kept values all of them, so a partial is for who has the rights of the view's owner or may read all that the
 * view reads himself.
 *
 * streamext.merge over partials knows no view: it takes the aggregate from the partial, or from its own third argument, and runs it as the
 * reader. A partial is somebody's bytes: all of it is checked.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"

#include "base/identity.h"
#include "base/own_schema.h"
#include "aggregate/portable.h"
#include "read/scan.h"
#include "view/rights.h"

PG_FUNCTION_INFO_V1(streamext_partial_refuse);
PG_FUNCTION_INFO_V1(streamext_partial_state);
PG_FUNCTION_INFO_V1(streamext_merge_partial_step);
PG_FUNCTION_INFO_V1(streamext_merge_partial_final);

/* ---- giving ---- */

Datum
streamext_partial_refuse(PG_FUNCTION_ARGS)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("streamext.partial takes an aggregate column of a continuous view"),
		 errhint(
			 "Select from the continuous view, and give streamext.partial a column that is an aggregate and nothing "
			 "else.")));
	PG_RETURN_NULL();
}

/* Of a call in a query. */
typedef struct PartialCall
{
	Oid					viewoid;
	int					number;
	const CompiledView *view;
	AggReader		   *reader;
	PortableHead		head;
} PartialCall;

void
streamext_partial_check_rights(Oid viewoid, Oid user)
{
	IdentityScope scope;
	bool		  other = OidIsValid(user) && user != GetUserId();
	bool		  may;

	if (other)
		scope = streamext_identity_enter_lightly(user);
	may = streamext_view_explains(viewoid);
	if (other)
		streamext_identity_leave(scope);
	if (!may)
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
			 errmsg("permission denied for partials of continuous view \"%s\"", get_rel_name(viewoid)),
			 errdetail("A state tells more than the column's value. Partials are for who has the rights of the view's "
					   "owner, or may read all that the view reads.")));
}

static PartialCall *
partial_call(FunctionCallInfo fcinfo)
{
	PartialCall	 *call = fcinfo->flinfo->fn_extra;
	MemoryContext cxt = fcinfo->flinfo->fn_mcxt, old;
	IdentityScope scope;
	char		 *definition;
	bool		  entered;

	if (call != NULL && call->viewoid == PG_GETARG_OID(1) && call->number == PG_GETARG_INT32(2))
		return call;
	streamext_partial_check_rights(PG_GETARG_OID(1), PG_GETARG_OID(3));
	call = MemoryContextAllocZero(cxt, sizeof(PartialCall));
	call->viewoid = PG_GETARG_OID(1);
	call->number = PG_GETARG_INT32(2);
	call->view = streamext_view_cached(call->viewoid, cxt);
	if (call->number < 0 || call->number >= call->view->naggs)
		streamext_partial_refuse(fcinfo);
	entered = streamext_read_enter(call->view, &scope);
	call->reader = streamext_aggregate_reader(&call->view->aggs[call->number], cxt);
	old = MemoryContextSwitchTo(cxt);
	definition = streamext_portable_definition(&call->view->aggs[call->number]);
	MemoryContextSwitchTo(old);
	streamext_read_leave(entered, &scope);
	call->head.definition_size = strlen(definition);
	if (call->head.definition_size > PORTABLE_MAX_DEFINITION)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("an aggregate's definition is too long for a partial")));
	call->head.fingerprint = streamext_portable_fingerprint(definition, call->head.definition_size);
	call->head.definition = PG_GETARG_BOOL(4) ? definition : NULL;
	fcinfo->flinfo->fn_extra = call;
	return call;
}

/* partial_state(state bytea, view oid, number int4, reader oid, named bool) → bytea */
Datum
streamext_partial_state(PG_FUNCTION_ARGS)
{
	PartialCall	 *call = partial_call(fcinfo);
	const char	 *state;
	Size		  size;
	IdentityScope scope;
	bool		  entered;
	bytea		 *result;

	streamext_merge_open(call->view, call->number, PG_GETARG_BYTEA_PP(0), &state, &size);
	entered = streamext_read_enter(call->view, &scope);
	result = streamext_portable_give(call->reader, streamext_partial_take(call->reader, state, size), &call->head);
	streamext_read_leave(entered, &scope);
	PG_RETURN_BYTEA_P(result);
}

/* ---- taking ---- */

/* Of a call of streamext.merge. */
typedef struct TakeCall
{
	uint64	   fingerprint;
	char	  *definition;
	AggSpec	  *spec;
	AggReader *reader;
	/* whose scope the aggregate's functions run in, the reader's own; of a view there is no more */
	CompiledView as;
} TakeCall;

typedef struct TakeState
{
	TakeCall   *call;
	AggPartial *partial;
} TakeState;

/*
 * A state of type internal is made by a function that trusts its bytes to be its own. PostgreSQL's are given none that were not looked at
 * (aggregate/portable_serial.c); an extension's would be given anybody's.
 */
static void
take_check_internal(const TakeCall *call)
{
	if (call->as.builtin || call->spec->mode != AGG_TRANS || call->spec->transtype != INTERNALOID || superuser())
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
		 errmsg("permission denied to merge partials of aggregate %s", format_procedure(call->spec->aggref->aggfnoid)),
		 errdetail(
			 "Its state is of type internal, and the function that makes it of a partial's bytes is not PostgreSQL's."),
		 errhint("A superuser may.")));
}

/* The definition that the call names, or else its first partial. */
static TakeCall *
take_begin(FunctionCallInfo fcinfo, const PortableHead *head)
{
	MemoryContext old = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
	TakeCall	 *call = palloc0(sizeof(TakeCall));
	bool		  given = PG_NARGS() > 3;
	IdentityScope scope = streamext_identity_enter(GetUserId());

	if (given && PG_ARGISNULL(3))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the definition of what is merged is NULL")));
	if (!given && head->definition == NULL)
		streamext_portable_invalid(
			"It does not say of which aggregate it is; it was made for a view of streamext.shard_view.");
	call->definition =
		given ? text_to_cstring(PG_GETARG_TEXT_PP(3)) : pnstrdup(head->definition, head->definition_size);
	if (!given)
		(void) pg_verifymbstr(call->definition, head->definition_size, false);
	call->spec = streamext_portable_compile(call->definition, given, &call->as.builtin);
	take_check_internal(call);
	call->as.owner = GetUserId();
	if (given)
		call->definition = streamext_portable_definition(call->spec); /* however it was written */
	call->fingerprint = streamext_portable_fingerprint(call->definition, strlen(call->definition));
	if (PG_NARGS() > 2 && get_fn_expr_argtype(fcinfo->flinfo, 2) != call->spec->aggref->aggtype)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the merged partials are of type %s, not %s", format_type_be(call->spec->aggref->aggtype),
						format_type_be(get_fn_expr_argtype(fcinfo->flinfo, 2))),
				 errhint("Give streamext.merge a NULL of that type.")));
	call->reader = streamext_aggregate_reader(call->spec, fcinfo->flinfo->fn_mcxt);
	streamext_identity_leave(scope);
	MemoryContextSwitchTo(old);
	return call;
}

static TakeCall *
take_call(FunctionCallInfo fcinfo, const PortableHead *head)
{
	if (fcinfo->flinfo->fn_extra == NULL)
		fcinfo->flinfo->fn_extra = take_begin(fcinfo, head);
	return fcinfo->flinfo->fn_extra;
}

static void
take_check_same(const TakeCall *call, const PortableHead *head)
{
	if (call->fingerprint == head->fingerprint)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("partials of different aggregates cannot be merged"),
			 head->definition != NULL ? errdetail("One is of: %s, another of: %.*s", call->definition,
												  (int) head->definition_size, head->definition)
									  : errdetail("One is not of: %s", call->definition),
			 errhint("A view of streamext.shard_view whose view has changed is made anew by streamext.shard_view.")));
}

/* merge_partial_step(internal, bytea [, anyelement [, text]]) */
Datum
streamext_merge_partial_step(PG_FUNCTION_ARGS)
{
	TakeState	 *state = PG_ARGISNULL(0) ? NULL : (TakeState *) PG_GETARG_POINTER(0);
	MemoryContext aggregate, old;
	PortableHead  head;
	bytea		 *bytes;
	TakeCall	 *call;
	IdentityScope scope;
	bool		  entered;

	if (!AggCheckCallContext(fcinfo, &aggregate))
		elog(ERROR, "merge_partial_step called in non-aggregate context");
	if (PG_ARGISNULL(1))
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(state);
	}
	bytes = PG_GETARG_BYTEA_PP(1);
	if (!streamext_portable_open(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), &head))
		streamext_portable_invalid("Its header or checksum is wrong.");
	call = take_call(fcinfo, &head);
	take_check_same(call, &head);
	old = MemoryContextSwitchTo(aggregate);
	entered = streamext_read_enter(&call->as, &scope);
	if (state == NULL)
	{
		state = palloc(sizeof(TakeState));
		state->call = call;
		state->partial = streamext_partial_empty(call->reader);
	}
	/* kept rows stay where they are until the end, all else is combined away */
	if (call->spec->mode != AGG_VALUES)
		MemoryContextSwitchTo(old);
	streamext_partial_combine(call->reader, state->partial, streamext_portable_take(call->reader, &head));
	streamext_read_leave(entered, &scope);
	MemoryContextSwitchTo(old);
	PG_RETURN_POINTER(state);
}

/* Text that the type's input function reads back without loss. */
static Datum
take_text(Oid type, Datum value)
{
	Oid	  function;
	bool  varlena;
	int	  level = NewGUCNestLevel();
	char *text;

	if (extra_float_digits < 1)
		streamext_identity_set("extra_float_digits", "1");
	getTypeOutputInfo(type, &function, &varlena);
	text = OidOutputFunctionCall(function, value);
	AtEOXact_GUC(false, level);
	return CStringGetTextDatum(text);
}

Datum
streamext_merge_partial_final(PG_FUNCTION_ARGS)
{
	TakeState	 *state = PG_ARGISNULL(0) ? NULL : (TakeState *) PG_GETARG_POINTER(0);
	IdentityScope scope;
	Datum		  value;
	bool		  entered, isnull;

	if (state == NULL)
		PG_RETURN_NULL();
	entered = streamext_read_enter(&state->call->as, &scope);
	value = streamext_partial_final(state->call->reader, streamext_partial_copy(state->call->reader, state->partial),
									&isnull);
	if (!isnull && PG_NARGS() == 2)
		value = take_text(state->call->spec->aggref->aggtype, value);
	streamext_read_leave(entered, &scope);
	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(value);
}

/* ---- the query ---- */

typedef struct PartialContext
{
	Query *query;
	Oid	   partial; /* streamext.partial(anyelement) */
	Oid	   state;	/* streamext_internal.partial_state */
} PartialContext;

static Const *
partial_oid(Oid value)
{
	return makeConst(OIDOID, -1, InvalidOid, sizeof(Oid), ObjectIdGetDatum(value), false, true);
}

Node *
streamext_partial_of_state(Oid function, const MergeColumn *column, Expr *state, bool named)
{
	Const *number = makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(column->number), false, true);

	return (Node *) makeFuncExpr(function, BYTEAOID,
								 list_make5(state, partial_oid(column->view->relid), number,
											partial_oid(column->reader), makeBoolConst(named, false)),
								 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
}

static Node *
partial_mutate(Node *node, PartialContext *context)
{
	if (node == NULL)
		return NULL;
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == context->partial)
	{
		MergeColumn column = { 0 };
		Node	   *argument = linitial(((FuncExpr *) node)->args);
		Var		   *state = streamext_merge_find_state(context->query, argument, &column);

		/* if not, the function itself says so */
		return state == NULL ? node : streamext_partial_of_state(context->state, &column, (Expr *) state, true);
	}
	if (IsA(node, Query))
		return node; /* comes on its own */
	return expression_tree_mutator(node, partial_mutate, context);
}

static bool
partial_walk(Node *node, PartialContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query *query = (Query *) node;

		context->query = query;
		query->targetList = (List *) partial_mutate((Node *) query->targetList, context);
		return query_tree_walker(query, partial_walk, context, 0);
	}
	return expression_tree_walker(node, partial_walk, context);
}

/* Whether some expression calls a function that is not PostgreSQL's own. */
static bool
partial_has_foreign_call(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid >= FirstNormalObjectId)
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, partial_has_foreign_call, context, 0);
	return expression_tree_walker(node, partial_has_foreign_call, context);
}

Oid
streamext_partial_expand(Query *query)
{
	PartialContext context = { 0 };
	Oid			   argument = ANYELEMENTOID;
	Oid			   arguments[] = { BYTEAOID, OIDOID, INT4OID, OIDOID, BOOLOID };

	if (!partial_has_foreign_call((Node *) query, NULL))
		return InvalidOid;
	context.partial = streamext_own_function("partial", &argument, 1);
	if (!OidIsValid(context.partial))
		return InvalidOid;
	context.state = streamext_own_function("partial_state", arguments, lengthof(arguments));
	partial_walk((Node *) query, &context);
	return context.state;
}
