/*
 * aggregate/trans.c
 *		Aggregates kept by PostgreSQL's own transition, combine and serialise functions.
 *
 * This repeats what nodeAgg.c does around a transition function: strictness, the first value as the state, copying of
 * by-reference values, and an AggState as the call's context. A published state is a partial aggregate as a parallel
 * worker would hand it to its leader, and readers combine them as the leader would.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/nodeAgg.h"
#include "nodes/makefuncs.h"
#include "parser/parse_agg.h"
#include "parser/parse_coerce.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "base/identity.h"
#include "aggregate/trans.h"

/* ---- compile ---- */

/*
 * Sets what a TRANS aggregate needs; spec->args and the functions are set already. As ExecInitAgg, raises 42P13 for a
 * strict transition function that cannot take its first input as the state.
 */
void
streamext_trans_compile(AggSpec *spec, const Oid *types, HeapTuple tuple)
{
	Datum initval;

	spec->mode = AGG_TRANS;
	spec->state_size = sizeof(TransState);

	initval = SysCacheGetAttr(AGGFNOID, tuple, Anum_pg_aggregate_agginitval, &spec->initnull);
	if (!spec->initnull)
	{
		Oid input, param;

		if (streamext_identity_mistrusts_type(spec->transtype))
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg(
					 "aggregates whose first state is of an ordinary role's type are not supported in a superuser's view"),
				 errdetail("The state, of type %s, is made when the view is.", format_type_be(spec->transtype)),
				 errhint("Make the view as the role that shall own it.")));
		getTypeInputInfo(spec->transtype, &input, &param);
		spec->initval = OidInputFunctionCall(input, TextDatumGetCString(initval), param, -1);
	}
	else if (func_strict(spec->transfn) && (spec->args == NIL || !IsBinaryCoercible(types[0], spec->transtype)))
		ereport(ERROR, (errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
						errmsg("aggregate %s needs to have compatible input type and transition type",
							   format_procedure(spec->aggref->aggfnoid))));
}

/* ---- transition values ---- */

static void
calls_add(AggCalls *calls, AggCall *call, Oid function, int nargs, Expr *expr)
{
	fmgr_info(function, &call->flinfo);
	fmgr_info_set_expr((Node *) expr, &call->flinfo);
	call->fcinfo = palloc0(SizeForFunctionCallInfo(nargs));
	InitFunctionCallInfoData(*call->fcinfo, &call->flinfo, nargs, calls->spec->aggref->inputcollid,
							 (Node *) calls->aggstate, NULL);
}

AggCalls *
streamext_calls_create(const AggSpec *spec, MemoryContext temp)
{
	AggCalls *calls = palloc0(sizeof(AggCalls));
	Aggref	 *aggref = spec->aggref;
	AggState *aggstate = makeNode(AggState);
	Oid		  types[FUNC_MAX_ARGS];
	Oid		  combine_type = spec->transtype;
	int		  ntypes = get_aggregate_argtypes(aggref, types);
	int		  nfinal = spec->finalextra ? ntypes + 1 : 1;
	Expr	 *expr;

	calls->spec = spec;
	calls->temp = temp;
	calls->aggstate = aggstate;
	aggstate->numaggs = aggstate->numtrans = 1;
	aggstate->peragg = palloc0(sizeof(AggStatePerAggData));
	aggstate->pertrans = palloc0(sizeof(AggStatePerTransData));
	aggstate->peragg->aggref = aggstate->pertrans->aggref = aggref;
	aggstate->pertrans->aggtranstype = spec->transtype;
	aggstate->curpertrans = aggstate->pertrans;
	aggstate->aggcontexts = palloc0(sizeof(ExprContext *));
	aggstate->tmpcontext = makeNode(ExprContext);
	aggstate->tmpcontext->ecxt_per_query_memory = CurrentMemoryContext;
	aggstate->tmpcontext->ecxt_per_tuple_memory = temp;

	build_aggregate_transfn_expr(types, ntypes, 0, aggref->aggvariadic, spec->transtype, aggref->inputcollid,
								 spec->transfn, InvalidOid, &expr, NULL);
	calls_add(calls, &calls->trans, spec->transfn, list_length(spec->args) + 1, expr);
	build_aggregate_transfn_expr(&combine_type, 1, 0, false, spec->transtype, aggref->inputcollid, spec->combinefn,
								 InvalidOid, &expr, NULL);
	calls_add(calls, &calls->combine, spec->combinefn, 2, expr);
	if (OidIsValid(spec->serialfn))
	{
		build_aggregate_serialfn_expr(spec->serialfn, &expr);
		calls_add(calls, &calls->serial, spec->serialfn, 1, expr);
		build_aggregate_deserialfn_expr(spec->deserialfn, &expr);
		calls_add(calls, &calls->deserial, spec->deserialfn, 2, expr);
	}
	if (OidIsValid(spec->finalfn))
	{
		build_aggregate_finalfn_expr(types, nfinal, spec->transtype, aggref->aggtype, aggref->inputcollid,
									 spec->finalfn, &expr);
		calls_add(calls, &calls->final, spec->finalfn, nfinal, expr);
	}
	return calls;
}

Datum
streamext_trans_keep(AggCalls *calls, Datum value)
{
	const AggSpec *spec = calls->spec;
	MemoryContext  kept = calls->aggstate->curaggcontext->ecxt_per_tuple_memory;
	MemoryContext  old;

	if (spec->transbyval)
		return value;
	if (DatumIsReadWriteExpandedObject(value, false, spec->translen) &&
		MemoryContextGetParent(DatumGetEOHP(value)->eoh_context) == kept)
		return value;
	old = MemoryContextSwitchTo(kept);
	value = datumCopy(value, false, spec->translen);
	MemoryContextSwitchTo(old);
	return value;
}

TransValue
streamext_trans_initial(AggCalls *calls)
{
	const AggSpec *spec = calls->spec;
	TransValue	   state;

	state.value = spec->initnull ? (Datum) 0 : streamext_trans_keep(calls, spec->initval);
	state.isnull = spec->initnull;
	state.empty = spec->initnull;
	return state;
}

void
streamext_trans_advance(AggCalls *calls, AggCall *call, TransValue *state)
{
	FunctionCallInfo fcinfo = call->fcinfo;
	TransValue		 next = { 0 };
	MemoryContext	 old;

	if (call->flinfo.fn_strict)
	{
		for (int i = 1; i < fcinfo->nargs; i++)
		{
			if (fcinfo->args[i].isnull)
				return;
		}
		if (state->empty)
		{
			state->value = streamext_trans_keep(calls, fcinfo->args[1].value);
			state->isnull = state->empty = false;
			return;
		}
		if (state->isnull)
			return;
	}

	fcinfo->args[0].value = state->value;
	fcinfo->args[0].isnull = state->isnull;
	fcinfo->isnull = false;
	old = MemoryContextSwitchTo(calls->temp);
	next.value = FunctionCallInvoke(fcinfo);
	MemoryContextSwitchTo(old);
	next.isnull = fcinfo->isnull;

	if (!calls->spec->transbyval && DatumGetPointer(next.value) != DatumGetPointer(state->value))
	{
		next.value = next.isnull ? (Datum) 0 : streamext_trans_keep(calls, next.value);
		if (!state->isnull)
		{
			if (DatumIsReadWriteExpandedObject(state->value, false, calls->spec->translen))
				DeleteExpandedObject(state->value);
			else
				pfree(DatumGetPointer(state->value));
		}
	}
	*state = next;
}

void
streamext_trans_merge(AggCalls *calls, TransValue *into, Datum from, bool isnull)
{
	FunctionCallInfo fcinfo = calls->combine.fcinfo;

	fcinfo->args[1].value = isnull ? (Datum) 0 : MakeExpandedObjectReadOnly(from, false, calls->spec->translen);
	fcinfo->args[1].isnull = isnull;
	streamext_trans_advance(calls, &calls->combine, into);
}

char *
streamext_trans_serialize(AggCalls *calls, Datum value, uint32 *length)
{
	const AggSpec *spec = calls->spec;
	int16		   translen = spec->translen;

	if (OidIsValid(spec->serialfn))
	{
		FunctionCallInfo fcinfo = calls->serial.fcinfo;

		fcinfo->args[0].value = value;
		fcinfo->args[0].isnull = false;
		fcinfo->isnull = false;
		value = FunctionCallInvoke(fcinfo);
		if (fcinfo->isnull)
			elog(ERROR, "function %u returned NULL", spec->serialfn);
		translen = -1;
	}
	if (translen == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM(value));
	*length = datumGetSize(value, false, translen);
	return DatumGetPointer(value);
}

Datum
streamext_trans_deserialize(AggCalls *calls, const char *bytes)
{
	FunctionCallInfo fcinfo = calls->deserial.fcinfo;
	Datum			 value;

	fcinfo->args[0].value = PointerGetDatum(bytes);
	fcinfo->args[0].isnull = false;
	fcinfo->args[1].value = (Datum) 0;
	fcinfo->args[1].isnull = false;
	fcinfo->isnull = false;
	value = FunctionCallInvoke(fcinfo);
	if (fcinfo->isnull)
		elog(ERROR, "function %u returned NULL", calls->spec->deserialfn);
	return value;
}
