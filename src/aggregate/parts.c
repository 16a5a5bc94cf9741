/*
 * aggregate/parts.c
 *		States taken apart (aggregate/parts.h): native ones as aggregate/native.c has them, others as PostgreSQL's serialise functions write them.
 *
 * Serialised sums of numeric and bigint are, in network order, the number of finite values (int64), their sum and, of variances, the sum of their
 * squares, each as numericvar_serialize writes it, and of numeric behind these the largest scale (int32) with its count (int64) and how many
 * values were NaN, Infinity and -Infinity (int64 each). So since PostgreSQL 14; aggregate/portable_serial.c reads the same.
 */
#include "base/compat.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "libpq/pqformat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "aggregate/mode.h"
#include "aggregate/native_state.h"
#include "aggregate/parts.h"
#include "aggregate/values.h"

/* What all states of which parts are taken have in common. */
typedef struct Parts
{
	int64 count;
	Datum sum, squares; /* of count 0: meaningless */
} Parts;

/* ---- serialised ---- */

typedef struct SerialNumeric
{
	Parts parts;
	int64 nan, plus, minus; /* infinities */
} SerialNumeric;

/* The number at the cursor of a serialised state. numeric_recv has narrower fields, and raises for what does not fit. */
static Datum
parts_read_number(StringInfo from)
{
	StringInfoData number;
	int			   digits = pq_getmsgint(from, 4);

	pq_begintypsend(&number);
	resetStringInfo(&number);
	pq_sendint16(&number, digits);
	for (int i = 0; i < 3; i++) /* weight, sign, scale */
		pq_sendint16(&number, (uint16) pq_getmsgint(from, 4));
	for (int i = 0; i < digits; i++)
		pq_sendint16(&number, (uint16) pq_getmsgint(from, 2));
	return DirectFunctionCall3(numeric_recv, PointerGetDatum(&number), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/* NaN and infinities among the values make the sum one. */
static Datum
parts_special(const SerialNumeric *serial, bool squared, Datum sum)
{
	const char *special = NULL;

	if (serial->nan > 0 || (!squared && serial->plus > 0 && serial->minus > 0))
		special = "NaN";
	else if (serial->plus > 0 || (squared && serial->minus > 0))
		special = "Infinity";
	else if (serial->minus > 0)
		special = "-Infinity";
	if (special == NULL)
		return sum;
	return DirectFunctionCall3(numeric_in, CStringGetDatum(special), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

static Parts
parts_of_numeric(const bytea *state, bool squares, bool specials)
{
	SerialNumeric  serial = { 0 };
	StringInfoData from;

	initStringInfo(&from);
	appendBinaryStringInfo(&from, VARDATA(state), VARSIZE(state) - VARHDRSZ);
	serial.parts.count = pq_getmsgint64(&from);
	serial.parts.sum = parts_read_number(&from);
	if (squares)
		serial.parts.squares = parts_read_number(&from);
	if (specials)
	{
		(void) pq_getmsgint(&from, 4);
		(void) pq_getmsgint64(&from);
		serial.nan = pq_getmsgint64(&from);
		serial.plus = pq_getmsgint64(&from);
		serial.minus = pq_getmsgint64(&from);
	}
	pq_getmsgend(&from);
	serial.parts.sum = parts_special(&serial, false, serial.parts.sum);
	if (squares)
		serial.parts.squares = parts_special(&serial, true, serial.parts.squares);
	serial.parts.count += serial.nan + serial.plus + serial.minus;
	return serial.parts;
}

#if PG_VERSION_NUM >= 170000
/* interval_avg_serialize: count, the sum's time, days and months, how many were infinite. */
static Parts
parts_of_interval(const AggSpec *spec, Datum datum)
{
	const bytea	  *state = (const bytea *) DatumGetPointer(datum);
	Parts		   parts = { 0 };
	Interval	  *sum = palloc0(sizeof(Interval));
	int64		   plus, minus;
	StringInfoData from;

	if (spec->serialfn != F_INTERVAL_AVG_SERIALIZE)
		elog(ERROR, "a state of type %u is not taken apart", spec->transtype);
	initStringInfo(&from);
	appendBinaryStringInfo(&from, VARDATA(state), VARSIZE(state) - VARHDRSZ);
	parts.count = pq_getmsgint64(&from);
	sum->time = pq_getmsgint64(&from);
	sum->day = pq_getmsgint(&from, 4);
	sum->month = pq_getmsgint(&from, 4);
	plus = pq_getmsgint64(&from);
	minus = pq_getmsgint64(&from);
	pq_getmsgend(&from);
	if (plus > 0 && minus > 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("interval out of range")));
	if (plus > 0)
		INTERVAL_NOEND(sum);
	else if (minus > 0)
		INTERVAL_NOBEGIN(sum);
	parts.count += plus + minus;
	parts.sum = IntervalPGetDatum(sum);
	return parts;
}
#else
/* interval_accum: an array of two, the sum and the count as its time. */
static Parts
parts_of_interval(const AggSpec *spec, Datum state)
{
	Parts  parts = { 0 };
	Datum *two;
	int	   n;

	if (spec->transtype != INTERVALARRAYOID)
		elog(ERROR, "a state of type %u is not taken apart", spec->transtype);
	deconstruct_array(DatumGetArrayTypeP(state), INTERVALOID, sizeof(Interval), false, TYPALIGN_DOUBLE, &two, NULL, &n);
	Assert(n == 2);
	parts.sum = two[0];
	parts.count = DatumGetIntervalP(two[1])->time;
	return parts;
}
#endif

/* ---- native ---- */

static Parts
parts_of_native(const char *state, Size size, Oid argtype)
{
	bool  exact = argtype == INT2OID || argtype == INT4OID;
	Parts parts = { 0 };

	if (size == sizeof(IntVarState) && exact)
	{
		const IntVarState *s = (const IntVarState *) state;

		parts.count = s->count;
		parts.sum = streamext_numeric_of_int128(s->sum);
		parts.squares = streamext_numeric_of_int128(s->squares);
	}
	else if (size == sizeof(IntSumState) && exact)
	{
		parts.count = ((const IntSumState *) state)->count;
		parts.sum = Int64GetDatum(((const IntSumState *) state)->sum);
	}
	else if (size == sizeof(WideSumState) && argtype == INT8OID)
	{
		parts.count = ((const WideSumState *) state)->count;
		parts.sum = streamext_numeric_of_int128(((const WideSumState *) state)->sum);
	}
	else if (size == sizeof(Float8SumState) && (argtype == FLOAT4OID || argtype == FLOAT8OID))
	{
		const Float8SumState *s = (const Float8SumState *) state;

		if (!isfinite(s->sum) && !s->infinite)
			float_overflow_error();
		parts.count = s->count;
		parts.sum = Float8GetDatum(s->sum);
	}
	else
		elog(ERROR, "a state of %zu bytes over type %u is not taken apart", size, argtype);
	return parts;
}

static Datum
parts_of_moments(const FloatVarState *s)
{
	Datum floats[] = { Float8GetDatum(s->n), Float8GetDatum(s->sum), Float8GetDatum(s->squares) };

	if (s->overflow)
		float_overflow_error();
	return PointerGetDatum(
		construct_array(floats, lengthof(floats), FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* ---- any ---- */

/* A state that is not NULL, as PostgreSQL's functions have it or serialise it. */
static Parts
parts_of_trans(const AggSpec *spec, Datum state)
{
	switch (spec->serialfn)
	{
		case F_NUMERIC_SERIALIZE:
			return parts_of_numeric((const bytea *) DatumGetPointer(state), true, true);
		case F_NUMERIC_AVG_SERIALIZE:
			return parts_of_numeric((const bytea *) DatumGetPointer(state), false, true);
		case F_NUMERIC_POLY_SERIALIZE:
			return parts_of_numeric((const bytea *) DatumGetPointer(state), true, false);
		case F_INT8_AVG_SERIALIZE:
			return parts_of_numeric((const bytea *) DatumGetPointer(state), false, false);
		default:
			return parts_of_interval(spec, state);
	}
}

static Datum
parts_give(const Parts *parts, AggPart part, bool *isnull)
{
	*isnull = part != AGG_PART_COUNT && parts->count == 0;
	if (part == AGG_PART_COUNT)
		return Int64GetDatum(parts->count);
	return part == AGG_PART_SUM ? parts->sum : parts->squares;
}

Datum
streamext_aggregate_part(AggReader *reader, const AggPartial *partial, AggPart part, Oid argtype, bool *isnull)
{
	const AggSpec *spec = reader->spec;
	StringInfoData state;
	Parts		   parts = { 0 };
	uint64		   null;

	if (spec->mode == AGG_VALUES && part == AGG_PART_VALUES)
		return streamext_values_array(reader, partial, isnull);
	if (spec->mode == AGG_VALUES)
		elog(ERROR, "kept values are not taken apart");
	initStringInfo(&state);
	streamext_partial_give(reader, partial, &state);
	*isnull = false;
	if (spec->mode == AGG_NATIVE)
	{
		if (part == AGG_PART_STATE)
			return parts_of_moments((const FloatVarState *) state.data);
		parts = parts_of_native(state.data, state.len, argtype);
		return parts_give(&parts, part, isnull);
	}
	/* a number that says whether it is NULL, and the state's bytes (aggregate/trans_reader.c) */
	memcpy(&null, state.data, sizeof(null));
	if (null == 0 && part == AGG_PART_STATE)
		return PointerGetDatum(state.data + sizeof(null));
	if (null == 0 && part == AGG_PART_TIME)
		return TimestampTzGetDatum(streamext_first_last_time((const bytea *) (state.data + sizeof(null))));
	if (null == 0)
		parts = parts_of_trans(spec, PointerGetDatum(state.data + sizeof(null)));
	else
		*isnull = part == AGG_PART_STATE || part == AGG_PART_TIME;
	return *isnull ? (Datum) 0 : parts_give(&parts, part, isnull);
}
