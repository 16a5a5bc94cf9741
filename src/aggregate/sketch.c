/*
 * aggregate/sketch.c
 *		Input, output and binary functions of the sketch types.
 */
#include "base/streamext.h"

#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/varlena.h"

#include "aggregate/sketch.h"

PG_FUNCTION_INFO_V1(streamext_sketch_out);
PG_FUNCTION_INFO_V1(streamext_sketch_send);

void
streamext_sketch_invalid(const char *type)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), errmsg("invalid value for type streamext.%s", type),
					errhint("Values of this type are made by its aggregates only.")));
}

Datum
streamext_sketch_in(const char *text, SketchValidate validate)
{
	Datum bytes = DirectFunctionCall1(byteain, CStringGetDatum(text));

	validate((struct varlena *) DatumGetPointer(bytes));
	return bytes;
}

Datum
streamext_sketch_recv(StringInfo buf, SketchValidate validate)
{
	int	   size = buf->len - buf->cursor;
	bytea *bytes = palloc(VARHDRSZ + size);

	SET_VARSIZE(bytes, VARHDRSZ + size);
	pq_copymsgbytes(buf, VARDATA(bytes), size);
	validate(bytes);
	PG_RETURN_BYTEA_P(bytes);
}

/* Hex, whatever bytea_output says. */
Datum
streamext_sketch_out(PG_FUNCTION_ARGS)
{
	bytea *bytes = PG_GETARG_BYTEA_PP(0);
	Size   size = VARSIZE_ANY_EXHDR(bytes);
	char  *text = palloc(size * 2 + 3);

	text[0] = '\\';
	text[1] = 'x';
	text[2 + hex_encode(VARDATA_ANY(bytes), size, text + 2)] = '\0';
	PG_RETURN_CSTRING(text);
}

Datum
streamext_sketch_send(PG_FUNCTION_ARGS)
{
	PG_RETURN_BYTEA_P(PG_GETARG_BYTEA_P_COPY(0));
}

bool
streamext_sketch_in_place(FunctionCallInfo fcinfo)
{
	return AggCheckCallContext(fcinfo, NULL) != 0;
}
