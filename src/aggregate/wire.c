/*
 * aggregate/wire.c
 *		What comes as bytes, from a checkpoint or another server: values by their types' binary functions, and what is said of bytes that are wrong.
 */
#include "postgres.h"

#include "utils/lsyscache.h"
#include "utils/regproc.h"

#include "aggregate/portable.h"

void
streamext_portable_invalid(const char *why)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), errmsg("this is no partial of an aggregate"),
					errdetail("%s", why), errhint("Partials are made by streamext.partial and taken as they are.")));
}

void
streamext_aggregate_import_damaged(const AggSpec *spec)
{
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("the checkpointed state of aggregate %s contradicts itself",
															format_procedure(spec->aggref->aggfnoid))));
}

AggWire *
streamext_wires(const Oid *types, int n)
{
	AggWire *wires = palloc0(sizeof(AggWire) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		Oid	 function, ioparam;
		bool varlena;

		get_typlenbyval(types[i], &wires[i].len, &wires[i].byval);
		getTypeBinaryOutputInfo(types[i], &function, &varlena);
		fmgr_info(function, &wires[i].send);
		getTypeBinaryInputInfo(types[i], &function, &ioparam);
		fmgr_info(function, &wires[i].receive);
		wires[i].ioparam = ioparam;
	}
	return wires;
}

void
streamext_wire_put(AggWire *wire, StringInfo to, Datum value, bool isnull)
{
	int32  size = -1;
	bytea *bytes = NULL;

	if (!isnull)
	{
		bytes = SendFunctionCall(&wire->send, value);
		size = VARSIZE(bytes) - VARHDRSZ;
	}
	appendBinaryStringInfo(to, (char *) &size, sizeof(size));
	if (size > 0)
		appendBinaryStringInfo(to, VARDATA(bytes), size);
}

Datum
streamext_wire_get(AggWire *wire, PortableCursor *cursor, bool *isnull)
{
	StringInfoData buf;
	const char	  *bytes;
	int32		   size;
	Datum		   value;

	if (!streamext_portable_value(cursor, &bytes, &size))
		streamext_portable_invalid("Its state ends too early.");
	*isnull = size < 0;
	if (*isnull)
		return (Datum) 0;
	initStringInfo(&buf); /* receive functions may count on a terminated buffer */
	appendBinaryStringInfo(&buf, bytes, size);
	value = ReceiveFunctionCall(&wire->receive, &buf, wire->ioparam, -1);
	if (buf.cursor != buf.len)
		streamext_portable_invalid("One of its values is longer than its type takes.");
	return wire->len == -1 ? PointerGetDatum(PG_DETOAST_DATUM(value)) : value;
}
