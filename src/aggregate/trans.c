/*
 * aggregate/trans.c
 *		Aggregates kept by PostgreSQL's own transition, combine and serialise functions.
 *
 * Invariants. What stands in a group's entry and its blob is the truth; the worker's transition values are a cache of it,
 * dropped whole panes at a time. Between prepare and publish the writer touches, without the lock, only what no reader
 * looks at: TransState.spare. So dropping a batch needs nothing undone.
 *
 * This repeats what nodeAgg.c does around a transition function: strictness, the first value as the state, copying of
 * by-reference values, and an AggState as the call's context. A published state is a partial aggregate as a parallel
 * worker would hand it to its leader, and readers combine them as the leader would.
 *
 * Takes no locks; streamext_state_blob may take the stream's for a moment.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_aggregate.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
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
#include "aggregate/portable.h"

#define TRANS_CACHE_BYTES ((Size) 64 * 1024 * 1024) /* of a worker's transition values, for each aggregate */

/* ---- what stands in a group's entry ---- */

#define TRANS_PRESENT 1 /* a transition function has run; else the state is the initial one */
#define TRANS_NULL 2	/* the state is NULL */
#define TRANS_EMPTY 4	/* nodeAgg's noTransValue: the next input becomes the state */

/* Written under the lock, the spare by the writer alone. Blob bytes are a whole varlena, or the fixed-length value. */
typedef struct TransState
{
	union
	{
		Datum value; /* by-value types */
		char *blob;	 /* others */
	} u;
	uint32 length; /* of the blob's content */
	uint32 capacity;
	uint32 flags;
	uint32 spare_capacity;
	char  *spare; /* a larger blob that takes over at a publish, or the one that it replaced */
} TransState;

/* ---- calling an aggregate's functions ---- */

typedef struct AggCall
{
	FmgrInfo		 flinfo;
	FunctionCallInfo fcinfo; /* NULL: there is no such function */
} AggCall;

typedef struct AggCalls
{
	const AggSpec *spec;
	AggState	  *aggstate; /* just enough of one for AggCheckCallContext, AggGetAggref and the like */
	MemoryContext  temp;	 /* functions run in it; the user of AggCalls resets it */
	AggCall		   trans, combine, serial, deserial, final;
} AggCalls;

/* ---- what the worker has of its own ---- */

typedef struct TransPane TransPane;

typedef struct TransGroup
{
	GroupEntry *entry;
	TransPane  *pane;
	TransValue	value;
	bool		touched;
	bool		to_spare; /* the staged bytes go to the spare blob */
	uint32		length;
	char	   *staged; /* in AggRuntime.staging */
} TransGroup;

typedef struct TransSlot
{
	const GroupEntry *entry;
	TransGroup		 *group;
	char			  status;
} TransSlot;

#define SH_PREFIX transgroups
#define SH_ELEMENT_TYPE TransSlot
#define SH_KEY_TYPE const GroupEntry *
#define SH_KEY entry
#define SH_HASH_KEY(tb, key) AGG_HASH_ENTRY(key)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

struct TransPane
{
	Pane			 *pane; /* hash key */
	int64			  id;
	MemoryContext	  cxt;		  /* holds all of this but the struct itself */
	ExprContext		 *aggcontext; /* its per-tuple memory holds the transition values */
	transgroups_hash *groups;
	bool			  doomed;
};

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

/* The functions of a TRANS aggregate, in the current memory context. Needs a transaction. */
static AggCalls *
calls_create(const AggSpec *spec, MemoryContext temp)
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

/* The calls that follow keep what they keep in this aggregate context. */
static inline void
calls_enter(AggCalls *calls, ExprContext *aggcontext)
{
	calls->aggstate->curaggcontext = calls->aggstate->aggcontexts[0] = aggcontext;
}

/* A copy in the aggregate context; expanded objects that already live there stay as they are. */
static Datum
trans_keep(AggCalls *calls, Datum value)
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

static TransValue
trans_initial(AggCalls *calls)
{
	const AggSpec *spec = calls->spec;
	TransValue	   state;

	state.value = spec->initnull ? (Datum) 0 : trans_keep(calls, spec->initval);
	state.isnull = spec->initnull;
	state.empty = spec->initnull;
	return state;
}

/* Runs the transition or combine function on state and the inputs in call's arguments 1 .. n. */
static void
trans_advance(AggCalls *calls, AggCall *call, TransValue *state)
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
			state->value = trans_keep(calls, fcinfo->args[1].value);
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
		next.value = next.isnull ? (Datum) 0 : trans_keep(calls, next.value);
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

/* into := into, then from. */
static void
trans_combine(AggCalls *calls, TransValue *into, Datum from, bool isnull)
{
	FunctionCallInfo fcinfo = calls->combine.fcinfo;

	fcinfo->args[1].value = isnull ? (Datum) 0 : MakeExpandedObjectReadOnly(from, false, calls->spec->translen);
	fcinfo->args[1].isnull = isnull;
	trans_advance(calls, &calls->combine, into);
}

/* A not-NULL state's bytes as they are published; *length of them. By-reference and internal types only. */
static char *
trans_serialize(AggCalls *calls, Datum value, uint32 *length)
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

/* The internal state that serialized bytes stand for, in the current memory context. */
static Datum
trans_deserialize(AggCalls *calls, const char *bytes)
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

/* ---- TRANS in the worker ---- */

static void
trans_free_pane(AggRuntime *agg, TransPane *pane)
{
	MemoryContext cxt = pane->cxt;
	ExprContext	 *aggcontext = pane->aggcontext;

	agg->last_pane = NULL;
	hash_search(agg->panes, &pane->pane, HASH_REMOVE, NULL);
	FreeExprContext(aggcontext, true);
	MemoryContextDelete(cxt);
}

/* Frees the panes marked doomed, or all. */
static void
trans_free_panes(AggRuntime *agg, bool all)
{
	HASH_SEQ_STATUS scan;
	TransPane	   *pane;

	hash_seq_init(&scan, agg->panes);
	while ((pane = hash_seq_search(&scan)) != NULL)
	{
		if (all || pane->doomed)
			trans_free_pane(agg, pane);
	}
}

static TransPane *
trans_pane(AggRuntime *agg, Pane *pane)
{
	TransPane		 *found;
	MemoryContext	  cxt;
	MemoryContext	  old;
	ExprContext		 *aggcontext;
	transgroups_hash *groups;

	if (agg->last_pane != NULL && agg->last_pane->pane == pane && agg->last_pane->id == pane->id)
		return agg->last_pane;
	found = hash_search(agg->panes, &pane, HASH_FIND, NULL);
	if (found != NULL && found->id != pane->id)
	{
		trans_free_pane(agg, found);
		found = NULL;
	}
	if (found == NULL)
	{
		/* Everything that may raise comes before the table's entry. */
		cxt = AllocSetContextCreate(agg->cxt, "streamext aggregate pane", ALLOCSET_SMALL_SIZES);
		old = MemoryContextSwitchTo(cxt);
		aggcontext = CreateStandaloneExprContext();
		groups = transgroups_create(cxt, 64, NULL);
		MemoryContextSwitchTo(old);
		found = hash_search(agg->panes, &pane, HASH_ENTER, NULL);
		found->id = pane->id;
		found->cxt = cxt;
		found->aggcontext = aggcontext;
		found->groups = groups;
		found->doomed = false;
	}
	agg->last_pane = found;
	return found;
}

/* The transition value that is published in the entry, to go on from. */
static TransValue
trans_load(AggRuntime *agg, const TransState *published)
{
	AggCalls  *calls = agg->calls;
	TransValue value = trans_initial(calls);

	if (!(published->flags & TRANS_PRESENT))
		return value;
	if (!(published->flags & TRANS_NULL) && OidIsValid(agg->spec->deserialfn))
	{
		MemoryContext old = MemoryContextSwitchTo(calls->temp);
		Datum		  partial = trans_deserialize(calls, published->u.blob);

		MemoryContextSwitchTo(old);
		trans_combine(calls, &value, partial, false);
	}
	else
	{
		value.isnull = (published->flags & TRANS_NULL) != 0;
		value.value = value.isnull			  ? (Datum) 0
					  : agg->spec->transbyval ? published->u.value
											  : trans_keep(calls, PointerGetDatum(published->u.blob));
	}
	value.empty = (published->flags & TRANS_EMPTY) != 0;
	return value;
}

/* The private group of an entry, marked touched, its pane's aggregate context entered. */
static TransGroup *
trans_touch(AggRuntime *agg, Pane *pane, GroupEntry *entry)
{
	TransPane  *owner = trans_pane(agg, pane);
	TransSlot  *slot = transgroups_lookup(owner->groups, entry);
	TransGroup *group;
	bool		found;

	calls_enter(agg->calls, owner->aggcontext);
	if (slot == NULL)
	{
		group = MemoryContextAllocZero(owner->cxt, sizeof(TransGroup));
		group->entry = entry;
		group->pane = owner;
		group->value = trans_load(agg, (TransState *) (entry->data + agg->spec->offset));
		slot = transgroups_insert(owner->groups, entry, &found);
		slot->group = group;
	}
	group = slot->group;
	if (!group->touched)
	{
		if (agg->ntouched == agg->touched_capacity)
		{
			agg->touched = repalloc(agg->touched, sizeof(TransGroup *) * agg->touched_capacity * 2);
			agg->touched_capacity *= 2;
		}
		agg->touched[agg->ntouched++] = group;
		group->touched = true;
	}
	return group;
}

/* Serialises a touched group and makes room for it. False: memory is full. */
static bool
trans_stage(AggRuntime *agg, TransGroup *group)
{
	TransState *published = (TransState *) (group->entry->data + agg->spec->offset);
	uint32		capacity;

	if (group->value.isnull || (agg->spec->transbyval && agg->spec->transtype != INTERNALOID))
		return true;
	calls_enter(agg->calls, group->pane->aggcontext);
	group->staged = trans_serialize(agg->calls, group->value.value, &group->length);

	group->to_spare = group->length > published->capacity;
	if (group->to_spare && group->length > published->spare_capacity)
	{
		/* Some slack, so that a growing state does not leave a blob behind each time. */
		capacity = published->capacity == 0 ? group->length : group->length + Min(group->length, 128 * 1024);
		capacity = MAXALIGN(Max(capacity, 16));
		published->spare_capacity = 0;
		published->spare = streamext_state_blob(agg->state, group->pane->pane, capacity);
		if (published->spare == NULL)
			return false;
		published->spare_capacity = capacity;
	}
	return true;
}

bool
streamext_trans_prepare(AggRuntime *agg, const AggInput *in, volatile int *row)
{
	FunctionCallInfo fcinfo = agg->calls->trans.fcinfo;
	MemoryContext	 old;
	bool			 room = true;

	if (agg->ntouched == 0 && MemoryContextMemAllocated(agg->cxt, true) > TRANS_CACHE_BYTES)
		trans_free_panes(agg, true);

	old = MemoryContextSwitchTo(agg->temp);
	for (int i = 0; i < in->n; i++)
	{
		int			r = *row = in->rows[i];
		TransGroup *group = trans_touch(agg, in->panes[i], in->groups[i]);

		for (int arg = 0; arg < agg->nargs; arg++)
		{
			fcinfo->args[arg + 1].value = in->args[arg][r];
			fcinfo->args[arg + 1].isnull = in->nulls[arg][r];
		}
		trans_advance(agg->calls, &agg->calls->trans, &group->value);
		MemoryContextReset(agg->temp);
	}

	MemoryContextReset(agg->staging);
	MemoryContextSwitchTo(agg->staging);
	for (int i = 0; i < agg->ntouched && room; i++)
		room = trans_stage(agg, agg->touched[i]);
	MemoryContextSwitchTo(old);
	return room;
}

void
streamext_trans_publish(AggRuntime *agg)
{
	bool byval = agg->spec->transbyval && agg->spec->transtype != INTERNALOID;

	for (int i = 0; i < agg->ntouched; i++)
	{
		TransGroup *group = agg->touched[i];
		TransState *published = (TransState *) (group->entry->data + agg->spec->offset);

		group->touched = false;
		published->flags =
			TRANS_PRESENT | (group->value.isnull ? TRANS_NULL : 0) | (group->value.empty ? TRANS_EMPTY : 0);
		if (group->value.isnull)
			continue;
		if (byval)
		{
			published->u.value = group->value.value;
			continue;
		}
		if (group->to_spare)
		{
			char  *outgrown = published->u.blob;
			uint32 capacity = published->capacity;

			published->u.blob = published->spare;
			published->capacity = published->spare_capacity;
			published->spare = outgrown;
			published->spare_capacity = capacity;
		}
		memcpy(published->u.blob, group->staged, group->length);
		published->length = group->length;
	}
	agg->ntouched = 0;
}

void
streamext_trans_forget(AggRuntime *agg)
{
	if (agg->ntouched == 0)
		return;
	for (int i = 0; i < agg->ntouched; i++)
		agg->touched[i]->pane->doomed = true;
	agg->ntouched = 0;
	trans_free_panes(agg, false);
}

void
streamext_trans_forget_pane(AggRuntime *agg, Pane *pane)
{
	TransPane *found = hash_search(agg->panes, &pane, HASH_FIND, NULL);

	if (found != NULL)
		trans_free_pane(agg, found);
}

void
streamext_trans_start(AggRuntime *agg)
{
	HASHCTL control = { 0 };

	agg->calls = calls_create(agg->spec, agg->temp);
	agg->staging = AllocSetContextCreate(agg->cxt, "streamext aggregate staging", ALLOCSET_DEFAULT_SIZES);
	agg->touched_capacity = 1024;
	agg->touched = palloc(sizeof(TransGroup *) * agg->touched_capacity);
	control.keysize = sizeof(Pane *);
	control.entrysize = sizeof(TransPane);
	control.hcxt = agg->cxt;
	agg->panes = hash_create("streamext aggregate panes", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* ---- TRANS in checkpoints ---- */

/* Beside the state's own bytes there is the blob that is published in it, if any. */
static const TransState *
trans_published(const AggSpec *spec, const GroupEntry *entry, Size *size)
{
	const TransState *published = (const TransState *) (entry->data + spec->offset);
	bool			  blob = (published->flags & TRANS_PRESENT) && !(published->flags & TRANS_NULL) &&
				(!spec->transbyval || spec->transtype == INTERNALOID);

	*size = blob ? published->length : 0;
	return published;
}

Size
streamext_trans_export_size(const AggSpec *spec, const GroupEntry *entry)
{
	Size size;

	trans_published(spec, entry, &size);
	return size;
}

void
streamext_trans_export(const AggSpec *spec, const GroupEntry *entry, AggPut put, void *arg)
{
	Size			  size;
	const TransState *published = trans_published(spec, entry, &size);

	if (size > 0)
		put(arg, published->u.blob, size);
}

/* The entry holds the exported state, with pointers and capacities of another time. */
bool
streamext_trans_import(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry, const char *bytes,
					   Size size)
{
	TransState *published = (TransState *) (entry->data + spec->offset);
	Size		expected;

	trans_published(spec, entry, &expected);
	published->spare = NULL;
	published->spare_capacity = published->capacity = 0;
	if (size != expected)
		streamext_aggregate_import_damaged(spec);
	if (!spec->transbyval || spec->transtype == INTERNALOID)
		published->u.blob = NULL;
	if (size == 0)
		return true;
	published->u.blob = streamext_state_blob(state, pane, MAXALIGN(size));
	if (published->u.blob == NULL)
		return false;
	published->capacity = MAXALIGN(size);
	memcpy(published->u.blob, bytes, size);
	return true;
}

/* ---- TRANS in the reader ---- */

void
streamext_trans_reader(AggReader *reader)
{
	MemoryContext temp = AllocSetContextCreate(reader->cxt, "streamext aggregate call", ALLOCSET_DEFAULT_SIZES);

	reader->calls = calls_create(reader->spec, temp);
	reader->aggcontext = makeNode(ExprContext);
	reader->aggcontext->ecxt_per_query_memory = reader->cxt;
}

static void
trans_enter_partial(AggReader *reader, const AggPartial *partial)
{
	reader->aggcontext->ecxt_per_tuple_memory = partial->cxt;
	calls_enter(reader->calls, reader->aggcontext);
}

void
streamext_trans_empty(AggReader *reader, AggPartial *partial)
{
	trans_enter_partial(reader, partial);
	partial->trans = trans_initial(reader->calls);
}

void
streamext_trans_load(AggReader *reader, AggPartial *partial, const char *state, const StateCopy *copy)
{
	const TransState *published = (const TransState *) state;
	const char		 *bytes;

	trans_enter_partial(reader, partial);
	if (!(published->flags & TRANS_PRESENT))
	{
		partial->trans = trans_initial(reader->calls);
		return;
	}
	partial->loaded = true;
	partial->trans.isnull = (published->flags & TRANS_NULL) != 0;
	partial->trans.empty = partial->trans.isnull;
	if (partial->trans.isnull)
		return;
	if (reader->spec->transbyval && reader->spec->transtype != INTERNALOID)
	{
		partial->trans.value = published->u.value;
		return;
	}
	bytes = streamext_state_copied(copy, published->u.blob);
	partial->trans.value =
		OidIsValid(reader->spec->deserialfn) ? trans_deserialize(reader->calls, bytes) : PointerGetDatum(bytes);
}

void
streamext_trans_combine(AggReader *reader, AggPartial *into, const AggPartial *from)
{
	trans_enter_partial(reader, into);
	trans_combine(reader->calls, &into->trans, from->trans.value, from->trans.isnull);
	MemoryContextReset(reader->calls->temp);
}

void
streamext_trans_copy(AggReader *reader, AggPartial *copy, const AggPartial *partial)
{
	const AggSpec *spec = reader->spec;

	/* What was combined is taken as it is, unless only its functions know how: combining anew could differ for NULLs. */
	if (partial->loaded || spec->transtype == INTERNALOID)
	{
		streamext_trans_combine(reader, copy, partial);
		return;
	}
	copy->trans = partial->trans;
	if (!copy->trans.isnull)
		copy->trans.value = datumCopy(partial->trans.value, spec->transbyval, spec->translen);
}

/* A byte for what the state is, and a not-NULL one's own bytes, aligned. */
void
streamext_trans_give(AggReader *reader, const AggPartial *partial, StringInfo to)
{
	const AggSpec *spec = reader->spec;
	AggPartial	   combined = { 0 };
	uint64		   flags = partial->trans.isnull ? TRANS_NULL : 0;
	uint32		   length;
	char		  *bytes;

	appendBinaryStringInfo(to, (char *) &flags, sizeof(flags));
	if (partial->trans.isnull)
		return;
	if (spec->transbyval && spec->transtype != INTERNALOID)
	{
		appendBinaryStringInfo(to, (char *) &partial->trans.value, sizeof(Datum));
		return;
	}
	if (partial->loaded && spec->transtype == INTERNALOID)
	{
		/* serialise functions are promised combined states too */
		combined.cxt = CurrentMemoryContext;
		streamext_trans_empty(reader, &combined);
		streamext_trans_combine(reader, &combined, partial);
		partial = &combined;
	}
	trans_enter_partial(reader, partial);
	bytes = trans_serialize(reader->calls, partial->trans.value, &length);
	appendBinaryStringInfo(to, bytes, length);
}

void
streamext_trans_take(AggReader *reader, AggPartial *partial, const char *bytes, Size size)
{
	const AggSpec *spec = reader->spec;
	uint64		   flags;
	char		  *copy;

	if (size < sizeof(flags))
		streamext_aggregate_import_damaged(spec);
	memcpy(&flags, bytes, sizeof(flags));
	bytes += sizeof(flags);
	size -= sizeof(flags);
	trans_enter_partial(reader, partial);
	partial->loaded = true;
	partial->trans.isnull = partial->trans.empty = (flags & TRANS_NULL) != 0;
	if (partial->trans.isnull)
		return;
	if (spec->transbyval && spec->transtype != INTERNALOID)
	{
		if (size != sizeof(Datum))
			streamext_aggregate_import_damaged(spec);
		memcpy(&partial->trans.value, bytes, sizeof(Datum));
		return;
	}
	copy = memcpy(palloc(Max(size, 1)), bytes, size);
	partial->trans.value =
		OidIsValid(spec->deserialfn) ? trans_deserialize(reader->calls, copy) : PointerGetDatum(copy);
}

/* ---- portable partials ---- */

static AggWire *
trans_wire(AggReader *reader)
{
	if (reader->wires == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(reader->cxt);

		reader->wires = streamext_wires(&reader->spec->transtype, 1);
		MemoryContextSwitchTo(old);
	}
	return reader->wires;
}

/* An internal state is what its serialise function makes of it, any other its type's binary form. */
void
streamext_trans_send(AggReader *reader, const AggPartial *partial, StringInfo to)
{
	AggPartial combined = { 0 };
	uint32	   length;
	char	  *bytes;
	int32	   size;

	appendStringInfoChar(to, partial->trans.isnull);
	if (partial->trans.isnull)
		return;
	if (reader->spec->transtype != INTERNALOID)
	{
		streamext_wire_put(trans_wire(reader), to, partial->trans.value, false);
		return;
	}
	if (partial->loaded)
	{
		combined.cxt = CurrentMemoryContext;
		streamext_trans_empty(reader, &combined);
		streamext_trans_combine(reader, &combined, partial);
		partial = &combined;
	}
	trans_enter_partial(reader, partial);
	bytes = trans_serialize(reader->calls, partial->trans.value, &length);
	size = VARSIZE(bytes) - VARHDRSZ;
	appendBinaryStringInfo(to, (char *) &size, sizeof(size));
	appendBinaryStringInfo(to, VARDATA(bytes), size);
}

static Datum
trans_receive_internal(AggReader *reader, PortableCursor *from)
{
	const char *bytes;
	int32		size;
	bytea	   *serial;

	if (!streamext_portable_value(from, &bytes, &size) || size < 0)
		streamext_portable_invalid("Its state ends too early.");
	streamext_portable_check_serial(reader->spec->deserialfn, bytes, size);
	serial = palloc(VARHDRSZ + size);
	SET_VARSIZE(serial, VARHDRSZ + size);
	memcpy(VARDATA(serial), bytes, size);
	return trans_deserialize(reader->calls, (char *) serial);
}

void
streamext_trans_receive(AggReader *reader, AggPartial *partial, PortableCursor *from)
{
	bool isnull;

	if (from->left < 1 || *from->at > 1 || *from->at < 0)
		streamext_portable_invalid("Its state ends too early.");
	trans_enter_partial(reader, partial);
	partial->loaded = true;
	isnull = *from->at == 1;
	from->at++;
	from->left--;
	if (!isnull)
		partial->trans.value = reader->spec->transtype == INTERNALOID
								   ? trans_receive_internal(reader, from)
								   : streamext_wire_get(trans_wire(reader), from, &isnull);
	partial->trans.isnull = partial->trans.empty = isnull;
	if (from->left != 0)
		streamext_portable_invalid("There is more behind its state.");
}

/* The final function upon a transition value. As finalize_aggregate in nodeAgg.c. */
static Datum
trans_finish(AggReader *reader, AggPartial *partial, bool *isnull)
{
	AggCalls		*calls = reader->calls;
	FunctionCallInfo fcinfo = calls->final.fcinfo;
	Datum			 value = partial->trans.value;

	*isnull = partial->trans.isnull;
	if (!*isnull)
		value = MakeExpandedObjectReadOnly(value, false, reader->spec->translen);
	if (fcinfo != NULL)
	{
		bool strict = fcinfo->flinfo->fn_strict;

		if (strict && (*isnull || fcinfo->nargs > 1))
		{
			*isnull = true;
			return (Datum) 0;
		}
		fcinfo->args[0].value = value;
		fcinfo->args[0].isnull = *isnull;
		for (int i = 1; i < fcinfo->nargs; i++)
		{
			fcinfo->args[i].value = (Datum) 0;
			fcinfo->args[i].isnull = true;
		}
		fcinfo->isnull = false;
		trans_enter_partial(reader, partial);
		calls->aggstate->curperagg = calls->aggstate->peragg;
		value = FunctionCallInvoke(fcinfo);
		calls->aggstate->curperagg = NULL;
		*isnull = fcinfo->isnull;
	}
	/* It may be, or point into, the state. */
	return *isnull ? (Datum) 0 : datumCopy(value, reader->resultbyval, reader->resultlen);
}

Datum
streamext_trans_final(AggReader *reader, AggPartial *partial, bool *isnull)
{
	AggPartial combined = { 0 };

	if (!partial->loaded || reader->spec->transtype != INTERNALOID)
		return trans_finish(reader, partial, isnull);

	/* Final functions are promised combined states, not deserialised ones. */
	combined.cxt = partial->cxt;
	streamext_trans_empty(reader, &combined);
	streamext_trans_combine(reader, &combined, partial);
	return trans_finish(reader, &combined, isnull);
}
