/*
 * aggregate/trans_reader.c
 *		Partials of TRANS aggregates: loaded, combined, finished, and as bytes for this process or other servers.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/nodeAgg.h"
#include "utils/datum.h"
#include "utils/expandeddatum.h"

#include "aggregate/trans.h"

void
streamext_trans_reader(AggReader *reader)
{
	MemoryContext temp = AllocSetContextCreate(reader->cxt, "streamext aggregate call", ALLOCSET_DEFAULT_SIZES);

	reader->calls = streamext_calls_create(reader->spec, temp);
	reader->aggcontext = makeNode(ExprContext);
	reader->aggcontext->ecxt_per_query_memory = reader->cxt;
}

static void
trans_enter_partial(AggReader *reader, const AggPartial *partial)
{
	reader->aggcontext->ecxt_per_tuple_memory = partial->cxt;
	streamext_calls_enter(reader->calls, reader->aggcontext);
}

void
streamext_trans_empty(AggReader *reader, AggPartial *partial)
{
	trans_enter_partial(reader, partial);
	partial->trans = streamext_trans_initial(reader->calls);
}

void
streamext_trans_load(AggReader *reader, AggPartial *partial, const char *state, const StateCopy *copy)
{
	const TransState *published = (const TransState *) state;
	const char		 *bytes;

	trans_enter_partial(reader, partial);
	if (!(published->flags & TRANS_PRESENT))
	{
		partial->trans = streamext_trans_initial(reader->calls);
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
	partial->trans.value = OidIsValid(reader->spec->deserialfn) ? streamext_trans_deserialize(reader->calls, bytes)
																: PointerGetDatum(bytes);
}

void
streamext_trans_combine(AggReader *reader, AggPartial *into, const AggPartial *from)
{
	trans_enter_partial(reader, into);
	streamext_trans_merge(reader->calls, &into->trans, from->trans.value, from->trans.isnull);
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
	bytes = streamext_trans_serialize(reader->calls, partial->trans.value, &length);
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
		OidIsValid(spec->deserialfn) ? streamext_trans_deserialize(reader->calls, copy) : PointerGetDatum(copy);
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
	bytes = streamext_trans_serialize(reader->calls, partial->trans.value, &length);
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
	return streamext_trans_deserialize(reader->calls, (char *) serial);
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
