/*
 * aggregate/aggregate.c
 *		Which way an aggregate is kept, and the dispatch to the three ways (aggregate/aggregate.h).
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "parser/parse_agg.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"

#include "aggregate/mode.h"
#include "aggregate/native.h"

/* ---- compile ---- */

/* Raises 42501 as ExecInitAgg does. */
static void
aggregate_check_execute(Oid function, Oid user, ObjectType kind)
{
	AclResult result;

	result = object_aclcheck(ProcedureRelationId, function, user, ACL_EXECUTE);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, kind, get_func_name(function));
	InvokeFunctionExecuteHook(function);
}

/* The aggregate's owner must be allowed to call its parts. */
static void
aggregate_check_parts(const AggSpec *spec)
{
	Oid		  parts[] = { spec->transfn, spec->finalfn, spec->combinefn, spec->serialfn, spec->deserialfn };
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(spec->aggref->aggfnoid));
	Oid		  owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", spec->aggref->aggfnoid);
	owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
	ReleaseSysCache(tuple);

	for (int i = 0; i < lengthof(parts); i++)
	{
		if (OidIsValid(parts[i]))
			aggregate_check_execute(parts[i], owner, OBJECT_FUNCTION);
	}
}

/* Those whose state holds every input: publishing it anew for each batch would cost the square of it. */
static bool
aggregate_grows(Oid aggfnoid)
{
	return aggfnoid == F_ARRAY_AGG_ANYNONARRAY || aggfnoid == F_ARRAY_AGG_ANYARRAY ||
		   aggfnoid == F_STRING_AGG_TEXT_TEXT || aggfnoid == F_STRING_AGG_BYTEA_BYTEA;
}

/* Repeated inputs do not change the result; so neither does DISTINCT. */
static bool
aggregate_idempotent(Oid aggfnoid, Oid aggsortop)
{
	switch (aggfnoid)
	{
		case F_BOOL_AND:
		case F_BOOL_OR:
		case F_EVERY:
		case F_BIT_AND_INT2:
		case F_BIT_AND_INT4:
		case F_BIT_AND_INT8:
		case F_BIT_OR_INT2:
		case F_BIT_OR_INT4:
		case F_BIT_OR_INT8:
			return true;
		default:
			/* min, max, and what is declared to be like them */
			return OidIsValid(aggsortop);
	}
}

/* The arguments proper, without those that are there for ORDER BY only. */
static List *
aggregate_plain_args(const Aggref *aggref)
{
	List	 *args = NIL;
	ListCell *lc;

	foreach (lc, aggref->args)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!tle->resjunk)
			args = lappend(args, tle->expr);
	}
	return args;
}

/*
 * The number in an anonymous record means a row type in the process that made it and in no other, so no function's own state may
 * hold one; kept as arguments, what is in a ROW(...) is known from the query (values.c).
 */
static bool
aggregate_takes_record(const Oid *types, int ntypes)
{
	for (int i = 0; i < ntypes; i++)
		if (types[i] == RECORDOID || types[i] == RECORDARRAYOID)
			return true;
	return false;
}

void
streamext_aggregate_compile(Aggref *aggref, AggSpec *spec)
{
	Oid				  types[FUNC_MAX_ARGS];
	int				  ntypes = get_aggregate_argtypes(aggref, types);
	HeapTuple		  tuple = SearchSysCache1(AGGFNOID, ObjectIdGetDatum(aggref->aggfnoid));
	Form_pg_aggregate form;
	bool			  order_free;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for aggregate %u", aggref->aggfnoid);
	form = (Form_pg_aggregate) GETSTRUCT(tuple);

	memset(spec, 0, sizeof(AggSpec));
	spec->aggref = aggref;
	spec->filter = aggref->aggfilter;
	aggregate_check_execute(aggref->aggfnoid, GetUserId(), OBJECT_AGGREGATE);

	/* A native aggregate depends on no order; of the others min and max are known not to. */
	spec->native = streamext_native_aggregate(aggref->aggfnoid);
	order_free = aggref->aggdistinct == NIL
					 ? aggref->aggorder == NIL || spec->native != NULL || OidIsValid(form->aggsortop)
					 : aggregate_idempotent(aggref->aggfnoid, form->aggsortop);

	if (spec->native != NULL && order_free)
	{
		spec->mode = AGG_NATIVE;
		spec->state_size = spec->native->state_size;
		spec->args = aggregate_plain_args(aggref);
		ReleaseSysCache(tuple);
		return;
	}
	spec->native = NULL;

	spec->transfn = form->aggtransfn;
	spec->finalfn = form->aggfinalfn;
	spec->finalextra = form->aggfinalextra;
	spec->combinefn = form->aggcombinefn;
	spec->transtype = resolve_aggregate_transtype(aggref->aggfnoid, form->aggtranstype, types, ntypes);
	get_typlenbyval(spec->transtype, &spec->translen, &spec->transbyval);
	if (spec->transtype == INTERNALOID)
	{
		spec->serialfn = form->aggserialfn;
		spec->deserialfn = form->aggdeserialfn;
	}
	aggregate_check_parts(spec);

	if (aggref->aggkind == AGGKIND_NORMAL && order_free && OidIsValid(spec->combinefn) &&
		!aggregate_grows(aggref->aggfnoid) && !aggregate_takes_record(types, ntypes) &&
		!aggregate_takes_record(&spec->transtype, 1) &&
		(spec->transtype != INTERNALOID ||
		 (OidIsValid(spec->serialfn) && OidIsValid(spec->deserialfn) && !func_strict(spec->combinefn))))
	{
		spec->args = aggregate_plain_args(aggref);
		streamext_trans_compile(spec, types, tuple);
	}
	else
		streamext_values_compile(spec);
	ReleaseSysCache(tuple);
}

/* ---- the worker's interface ---- */

AggRuntime *
streamext_aggregate_start(const AggSpec *spec, ViewState *state, MemoryContext cxt)
{
	MemoryContext own = AllocSetContextCreate(cxt, "streamext aggregate", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	AggRuntime	 *agg = palloc0(sizeof(AggRuntime));

	agg->spec = spec;
	agg->state = state;
	agg->cxt = own;
	agg->nargs = list_length(spec->args);
	if (streamext_mode(spec)->start != NULL)
	{
		agg->temp = AllocSetContextCreate(own, "streamext aggregate row", ALLOCSET_DEFAULT_SIZES);
		streamext_mode(spec)->start(agg);
	}
	MemoryContextSwitchTo(old);
	return agg;
}

void
streamext_aggregate_end(AggRuntime *agg)
{
	MemoryContextDelete(agg->cxt);
}

bool
streamext_aggregate_prepare(AggRuntime *agg, const AggInput *in, volatile int *row)
{
	const AggModeOps *mode = streamext_mode(agg->spec);

	return mode->prepare == NULL || mode->prepare(agg, in, row);
}

void
streamext_aggregate_try_begin(AggRuntime *agg)
{
	if (streamext_mode(agg->spec)->try_begin != NULL)
		streamext_mode(agg->spec)->try_begin(agg);
}

void
streamext_aggregate_try_row(AggRuntime *agg, const AggInput *in, int row, Pane *pane, GroupEntry *entry)
{
	if (streamext_mode(agg->spec)->try_row != NULL)
		streamext_mode(agg->spec)->try_row(agg, in, row, pane, entry);
}

void
streamext_aggregate_try_end(AggRuntime *agg)
{
	if (streamext_mode(agg->spec)->try_end != NULL)
		streamext_mode(agg->spec)->try_end(agg);
}

void
streamext_aggregate_try_undo(AggRuntime *agg)
{
	if (streamext_mode(agg->spec)->try_undo != NULL)
		streamext_mode(agg->spec)->try_undo(agg);
}

bool
streamext_aggregate_try_finish(AggRuntime *agg, const AggInput *in, volatile int *row)
{
	const AggModeOps *mode = streamext_mode(agg->spec);

	return mode->try_finish != NULL ? mode->try_finish(agg) : streamext_aggregate_prepare(agg, in, row);
}

void
streamext_aggregate_publish(AggRuntime *agg, const AggInput *in)
{
	streamext_mode(agg->spec)->publish(agg, in);
}

void
streamext_aggregate_forget(AggRuntime *agg)
{
	const AggModeOps *mode = streamext_mode(agg->spec);

	if (mode->forget == NULL)
		return;
	mode->forget(agg);
	/* The call may have been left in the middle of a row. */
	MemoryContextReset(agg->temp);
}

void
streamext_aggregate_forget_pane(AggRuntime *agg, Pane *pane)
{
	if (streamext_mode(agg->spec)->forget_pane != NULL)
		streamext_mode(agg->spec)->forget_pane(agg, pane);
}

/* ---- checkpoints ---- */

Size
streamext_aggregate_export_size(const AggSpec *spec, const ViewState *state, const GroupEntry *entry, bool whole)
{
	const AggModeOps *mode = streamext_mode(spec);

	return mode->export_size == NULL ? 0 : mode->export_size(spec, state, entry, whole);
}

void
streamext_aggregate_export(const AggSpec *spec, const ViewState *state, GroupEntry *entry, bool whole, AggPut put,
						   void *arg)
{
	if (streamext_mode(spec)->export != NULL)
		streamext_mode(spec)->export(spec, state, entry, whole, put, arg);
}

bool
streamext_aggregate_import(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry, bool newest,
						   const char *raw, const char *bytes, Size size)
{
	const AggModeOps *mode = streamext_mode(spec);

	return mode->import == NULL || mode->import(spec, state, pane, entry, newest, raw, bytes, size);
}

void
streamext_aggregate_import_end(const AggSpec *spec, const ViewState *state, GroupEntry *entry)
{
	if (streamext_mode(spec)->import_end != NULL)
		streamext_mode(spec)->import_end(spec, state, entry);
}

/* ---- the reader's interface ---- */

AggReader *
streamext_aggregate_reader(const AggSpec *spec, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	AggReader	 *reader = palloc0(sizeof(AggReader));

	reader->spec = spec;
	reader->cxt = cxt;
	get_typlenbyval(spec->aggref->aggtype, &reader->resultlen, &reader->resultbyval);
	aggregate_check_execute(spec->aggref->aggfnoid, GetUserId(), OBJECT_AGGREGATE);
	if (streamext_mode(spec)->reader != NULL)
		streamext_mode(spec)->reader(reader);
	MemoryContextSwitchTo(old);
	return reader;
}

AggPartial *
streamext_partial_empty(AggReader *reader)
{
	const AggSpec *spec = reader->spec;
	Size		   native = spec->native != NULL ? spec->native->state_size : 0;
	AggPartial	  *partial = palloc0(MAXALIGN(sizeof(AggPartial)) + native);

	partial->cxt = CurrentMemoryContext;
	partial->native = (char *) partial + MAXALIGN(sizeof(AggPartial));
	if (streamext_mode(spec)->empty != NULL)
		streamext_mode(spec)->empty(reader, partial);
	return partial;
}

AggPartial *
streamext_partial_load(AggReader *reader, const GroupEntry *entry, const StateCopy *copy)
{
	AggPartial *partial = palloc0(sizeof(AggPartial));

	partial->cxt = CurrentMemoryContext;
	streamext_mode(reader->spec)->load(reader, partial, entry->data + reader->spec->offset, copy);
	return partial;
}

AggPartial *
streamext_partial_copy(AggReader *reader, const AggPartial *partial)
{
	const AggModeOps *mode = streamext_mode(reader->spec);
	AggPartial		 *copy = streamext_partial_empty(reader);

	if (mode->copy != NULL)
		mode->copy(reader, copy, partial);
	else
		mode->combine(reader, copy, partial);
	return copy;
}

void
streamext_partial_combine(AggReader *reader, AggPartial *into, const AggPartial *from)
{
	streamext_mode(reader->spec)->combine(reader, into, from);
}

void
streamext_partial_give(AggReader *reader, const AggPartial *partial, StringInfo to)
{
	streamext_mode(reader->spec)->give(reader, partial, to);
}

AggPartial *
streamext_partial_take(AggReader *reader, const char *bytes, Size size)
{
	AggPartial *partial = palloc0(sizeof(AggPartial));

	partial->cxt = CurrentMemoryContext;
	streamext_mode(reader->spec)->take(reader, partial, bytes, size);
	return partial;
}

Datum
streamext_partial_final(AggReader *reader, AggPartial *partial, bool *isnull)
{
	return streamext_mode(reader->spec)->final(reader, partial, isnull);
}
