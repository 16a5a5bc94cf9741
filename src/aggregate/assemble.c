/*
 * aggregate/assemble.c
 *		States put together out of parts (aggregate/parts.h): the way back of aggregate/parts.c, which says what is in them.
 *
 * The parts may come from whoever may merge: what is of no state is refused, and nothing is taken for something else.
 */
#include "base/compat.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "libpq/pqformat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "aggregate/mode.h"
#include "aggregate/native_state.h"
#include "aggregate/parts.h"
#include "aggregate/sketch.h"
#include "aggregate/trans.h"
#include "aggregate/values.h"

pg_noreturn static void
assemble_refuse(const AggSpec *spec)
{
	ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					errmsg("merged partials of aggregate %s are of no state that it has",
						   get_func_name(spec->aggref->aggfnoid)),
					errhint(IMPORT_REFUSED_HINT)));
}

/* How many values there were; a sum that stands alone tells no more than that there were some. */
static int64
assemble_count(const AggSpec *spec, const AggParts *parts)
{
	int64 count = parts->has_count ? parts->count : (parts->has_sum && !parts->sum_null);

	if (count < 0 || (parts->has_sum && (count == 0) != parts->sum_null) ||
		(parts->has_squares && (count == 0) != parts->squares_null))
		assemble_refuse(spec);
	return count;
}

/* ---- native ---- */

static int128
assemble_int128(const AggSpec *spec, Datum number)
{
	const char *digits = DatumGetCString(DirectFunctionCall1(numeric_out, number));
	bool		negative = *digits == '-';
	int128		value = 0;

	for (digits += negative; *digits != '\0'; digits++)
		if (*digits < '0' || *digits > '9' || __builtin_mul_overflow(value, (int128) 10, &value) ||
			__builtin_sub_overflow(value, (int128) (*digits - '0'), &value))
			assemble_refuse(spec);
	if (!negative && __builtin_sub_overflow((int128) 0, value, &value))
		assemble_refuse(spec);
	return value;
}

/* One row of the value, as if it had come. */
static void
assemble_fold(const AggSpec *spec, GroupEntry *entry, Datum value, bool isnull)
{
	int			row = 0;
	Pane	   *pane = NULL;
	Datum	   *args = &value;
	bool	   *nulls = &isnull;
	GroupEntry *groups = entry;
	AggInput	in = { .n = 1, .rows = &row, .groups = &groups, .panes = &pane, .args = &args, .nulls = &nulls };

	if (!isnull)
		spec->native->fold(spec->offset, &in);
}

static const float8 *
assemble_floats(const AggSpec *spec, const AggParts *parts)
{
	ArrayType *array = DatumGetArrayTypeP(parts->floats);

	if (ARR_NDIM(array) != 1 || ARR_DIMS(array)[0] != parts->nfloats || ARR_HASNULL(array) ||
		ARR_ELEMTYPE(array) != FLOAT8OID || !(((float8 *) ARR_DATA_PTR(array))[0] >= 0))
		assemble_refuse(spec);
	return (const float8 *) ARR_DATA_PTR(array);
}

static void
assemble_moments(const AggSpec *spec, const AggParts *parts, FloatVarState *s)
{
	const float8 *floats;

	if (parts->floats_null)
		return;
	floats = assemble_floats(spec, parts);
	s->n = floats[0];
	s->sum = floats[1];
	s->squares = floats[2];
}

/* sum and avg; a sum of floats without its count is one value as good as many. */
static void
assemble_native_sum(const AggSpec *spec, Oid argtype, const AggParts *parts, GroupEntry *entry)
{
	char  *state = entry->data + spec->offset;
	uint32 size = spec->native->state_size;
	int64  count = assemble_count(spec, parts);

	if (argtype == FLOAT4OID && !parts->has_count)
		assemble_fold(spec, entry, parts->sum_null ? (Datum) 0 : DirectFunctionCall1(dtof, parts->sum),
					  parts->sum_null);
	else if (size == sizeof(IntSumState) && (argtype == INT2OID || argtype == INT4OID))
		*(IntSumState *) state =
			(IntSumState){ .sum = parts->sum_null ? 0 : DatumGetInt64(parts->sum), .count = count };
	else if (size == sizeof(WideSumState) && argtype == INT8OID)
		*(WideSumState *) state =
			(WideSumState){ .sum = parts->sum_null ? 0 : assemble_int128(spec, parts->sum), .count = count };
	else if (size == sizeof(Float8SumState) && (argtype == FLOAT4OID || argtype == FLOAT8OID))
	{
		float8 sum = parts->sum_null ? 0 : DatumGetFloat8(parts->sum);

		*(Float8SumState *) state = (Float8SumState){ .sum = sum, .count = count, .infinite = !isfinite(sum) };
	}
	else
		elog(ERROR, "a state of %u bytes over type %u is not put together", size, argtype);
}

static void
assemble_native(const AggSpec *spec, Oid argtype, const AggParts *parts, GroupEntry *entry)
{
	char  *state = entry->data + spec->offset;
	uint32 size = spec->native->state_size;

	if (parts->has_value)
		assemble_fold(spec, entry, parts->value, parts->value_null);
	else if (parts->has_floats && size == sizeof(FloatVarState))
		assemble_moments(spec, parts, (FloatVarState *) state);
	else if (parts->has_squares && size == sizeof(IntVarState))
	{
		IntVarState *s = (IntVarState *) state;

		s->count = assemble_count(spec, parts);
		s->sum = s->count == 0 ? 0 : assemble_int128(spec, parts->sum);
		s->squares = s->count == 0 ? 0 : assemble_int128(spec, parts->squares);
	}
	else if (parts->has_sum)
		assemble_native_sum(spec, argtype, parts, entry);
	else if (parts->has_count && size == sizeof(CountState))
		((CountState *) state)->count = assemble_count(spec, parts);
	else
		elog(ERROR, "a state of %u bytes over type %u is not put together", size, argtype);
}

/* ---- serialised ---- */

/* As numericvar_serialize; of what is not finite nothing but that it was there is told, elsewhere. */
static void
assemble_number(StringInfo to, Datum number)
{
	bytea		  *sent;
	StringInfoData from;
	int			   digits;

	if (numeric_is_nan(DatumGetNumeric(number)) || numeric_is_inf(DatumGetNumeric(number)))
		number = NumericGetDatum(int64_to_numeric(0));
	sent = DatumGetByteaPP(DirectFunctionCall1(numeric_send, number));
	initStringInfo(&from);
	appendBinaryStringInfo(&from, VARDATA_ANY(sent), VARSIZE_ANY_EXHDR(sent));
	digits = pq_getmsgint(&from, 2);
	pq_sendint32(to, digits);
	for (int i = 0; i < 3; i++) /* weight, sign, scale */
		pq_sendint32(to, (int32) (int16) pq_getmsgint(&from, 2));
	for (int i = 0; i < digits; i++)
		pq_sendint16(to, pq_getmsgint(&from, 2));
}

/* The largest scale and how many values have it are only asked for when values are taken away again. */
static bytea *
assemble_numeric(const AggSpec *spec, const AggParts *parts, bool squares, bool specials)
{
	int64		   count = assemble_count(spec, parts);
	Numeric		   sum = DatumGetNumeric(parts->sum);
	bool		   nan = numeric_is_nan(sum), inf = numeric_is_inf(sum);
	StringInfoData to;

	if ((nan || inf) && !specials)
		assemble_refuse(spec);
	pq_begintypsend(&to);
	pq_sendint64(&to, count - (nan || inf));
	assemble_number(&to, parts->sum);
	if (squares)
		assemble_number(&to, parts->squares);
	if (specials)
	{
		bool negative =
			inf && DatumGetBool(DirectFunctionCall2(numeric_lt, parts->sum, NumericGetDatum(int64_to_numeric(0))));

		pq_sendint32(&to, 0);
		pq_sendint64(&to, 0);
		pq_sendint64(&to, nan);
		pq_sendint64(&to, inf && !negative);
		pq_sendint64(&to, negative);
	}
	return pq_endtypsend(&to);
}

#if PG_VERSION_NUM >= 170000
static bytea *
assemble_interval(const AggSpec *spec, const AggParts *parts)
{
	const Interval *sum = DatumGetIntervalP(parts->sum);
	bool			infinite = INTERVAL_NOT_FINITE(sum);
	StringInfoData	to;

	pq_begintypsend(&to);
	pq_sendint64(&to, assemble_count(spec, parts) - infinite);
	pq_sendint64(&to, infinite ? 0 : sum->time);
	pq_sendint32(&to, infinite ? 0 : sum->day);
	pq_sendint32(&to, infinite ? 0 : sum->month);
	pq_sendint64(&to, INTERVAL_IS_NOEND(sum));
	pq_sendint64(&to, INTERVAL_IS_NOBEGIN(sum));
	return pq_endtypsend(&to);
}
#endif

/* interval_accum's: the sum, and the count as a time. */
static Datum
assemble_intervals(const AggSpec *spec, const AggParts *parts)
{
	Interval count = { .time = assemble_count(spec, parts) };
	Datum	 two[] = { parts->sum, IntervalPGetDatum(&count) };

	return PointerGetDatum(construct_array(two, lengthof(two), INTERVALOID, sizeof(Interval), false, TYPALIGN_DOUBLE));
}

/* The state's bytes as they are published, or by value; not NULL. */
static Datum
assemble_transition(const AggSpec *spec, Oid argtype, const AggParts *parts)
{
	switch (spec->serialfn)
	{
		case F_NUMERIC_SERIALIZE:
			return PointerGetDatum(assemble_numeric(spec, parts, true, true));
		case F_NUMERIC_AVG_SERIALIZE:
			return PointerGetDatum(assemble_numeric(spec, parts, false, true));
		case F_NUMERIC_POLY_SERIALIZE:
			return PointerGetDatum(assemble_numeric(spec, parts, true, false));
		case F_INT8_AVG_SERIALIZE:
			return PointerGetDatum(assemble_numeric(spec, parts, false, false));
#if PG_VERSION_NUM >= 170000
		case F_INTERVAL_AVG_SERIALIZE:
			return PointerGetDatum(assemble_interval(spec, parts));
#endif
		case InvalidOid:
			break;
		default:
			elog(ERROR, "a state of type %u is not put together", spec->transtype);
	}
	if (parts->has_floats)
	{
		(void) assemble_floats(spec, parts);
		return parts->floats;
	}
	if (parts->has_time)
		return PointerGetDatum(streamext_first_last_state(argtype, parts->value, parts->value_null, parts->time));
	if (parts->has_state)
		return parts->has_fraction ? streamext_percentile_ask(parts->state, parts->fraction) : parts->state;
	if (parts->has_value)
		return parts->value;
	if (!parts->has_sum)
		return Int64GetDatum(parts->count);
	return spec->transtype == INTERVALARRAYOID ? assemble_intervals(spec, parts) : parts->sum;
}

/* Whether a transition function has made more of the initial state. */
static bool
assemble_is_initial(const AggSpec *spec, const AggParts *parts)
{
	if (parts->has_time)
		return parts->time_null;
	if (parts->has_value)
		return parts->value_null;
	if (parts->has_floats)
		return parts->floats_null;
	if (parts->has_state)
		return parts->state_null;
	return assemble_count(spec, parts) == 0;
}

static void
assemble_trans(const AggSpec *spec, Oid argtype, const AggParts *parts, GroupEntry *entry, StringInfo extra)
{
	TransState *state = (TransState *) (entry->data + spec->offset);
	int16		length = spec->transtype == INTERNALOID ? -1 : spec->translen;
	Datum		value;

	if (assemble_is_initial(spec, parts))
		return;
	value = assemble_transition(spec, argtype, parts);
	state->flags = TRANS_PRESENT;
	if (spec->transbyval && spec->transtype != INTERNALOID)
	{
		state->u.value = value;
		return;
	}
	if (length == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM(value));
	state->length = datumGetSize(value, false, length);
	appendBinaryStringInfo(extra, DatumGetPointer(value), state->length);
}

void
streamext_aggregate_assemble(const AggSpec *spec, Oid argtype, const AggParts *parts, GroupEntry *entry,
							 StringInfo extra)
{
	if (spec->mode == AGG_VALUES && !parts->has_state)
		elog(ERROR, "kept values are not put together");
	if (spec->mode == AGG_VALUES)
		streamext_values_assemble(spec, parts->state, parts->state_null, entry, extra);
	else if (spec->mode == AGG_NATIVE)
		assemble_native(spec, argtype, parts, entry);
	else
		assemble_trans(spec, argtype, parts, entry, extra);
}
