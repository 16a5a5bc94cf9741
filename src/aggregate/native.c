/*
 * aggregate/native.c
 *		Aggregates whose partial state has a fixed size: fold loops over vectors, combine, final.
 *
 * Invariants: the empty state is all zero bytes, so a new group needs no initialisation. Fold runs under the stream's
 * exclusive lock, so it neither raises nor allocates: what PostgreSQL would raise while it accumulates (22003) is noted
 * in the state and raised by final. States are 8-aligned only; int128 is declared so by c.h. Integers wrap (-fwrapv), as
 * in PostgreSQL, where they can wrap at all.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "aggregate/native.h"
#include "aggregate/native_state.h"

#ifndef HAVE_INT128
#error "streamext needs a compiler with 128-bit integers"
#endif

/* The rows of `in` whose first argument is not NULL: runs body with `s`, the group's state, and `row`. */
#define FOLD_NOT_NULL(State, body)                               \
	do                                                           \
	{                                                            \
		const bool *nulls = in->nulls[0];                        \
		for (int i = 0; i < in->n; i++)                          \
		{                                                        \
			int	   row = in->rows[i];                            \
			State *s = (State *) (in->groups[i]->data + offset); \
			if (nulls[row])                                      \
				continue;                                        \
			body                                                 \
		}                                                        \
	} while (0)

/* ---- count ---- */

static void
count_star_fold(uint32 offset, const AggInput *in)
{
	for (int i = 0; i < in->n; i++)
		((CountState *) (in->groups[i]->data + offset))->count++;
}

static void
count_fold(uint32 offset, const AggInput *in)
{
	const bool *nulls = in->nulls[0];

	for (int i = 0; i < in->n; i++)
		((CountState *) (in->groups[i]->data + offset))->count += !nulls[in->rows[i]];
}

static void
count_combine(void *into, const void *from)
{
	((CountState *) into)->count += ((const CountState *) from)->count;
}

static Datum
count_final(const void *state, bool *isnull)
{
	*isnull = false;
	return Int64GetDatum(((const CountState *) state)->count);
}

/* ---- sum and avg of integers ---- */

#define INT_SUM_FOLD(name, State, GET)                  \
	static void name(uint32 offset, const AggInput *in) \
	{                                                   \
		const Datum *values = in->args[0];              \
		FOLD_NOT_NULL(State, {                          \
			s->sum += GET(values[row]);                 \
			s->count++;                                 \
		});                                             \
	}

INT_SUM_FOLD(int2_sum_fold, IntSumState, DatumGetInt16)
INT_SUM_FOLD(int4_sum_fold, IntSumState, DatumGetInt32)
INT_SUM_FOLD(int8_sum_fold, WideSumState, DatumGetInt64)

static void
int_sum_combine(void *into, const void *from)
{
	IntSumState		  *a = into;
	const IntSumState *b = from;

	a->sum += b->sum;
	a->count += b->count;
}

static void
wide_sum_combine(void *into, const void *from)
{
	WideSumState	   *a = into;
	const WideSumState *b = from;

	a->sum += b->sum;
	a->count += b->count;
}

static Datum
int_sum_final(const void *state, bool *isnull)
{
	const IntSumState *s = state;

	*isnull = s->count == 0;
	return Int64GetDatum(s->sum);
}

/* A numeric of scale 0. */
Datum
streamext_numeric_of_int128(int128 value)
{
	char			  digits[48];
	char			 *p = digits + sizeof(digits);
	bool			  negative = value < 0;
	unsigned __int128 rest;

	if (value >= PG_INT64_MIN && value <= PG_INT64_MAX)
		return NumericGetDatum(int64_to_numeric((int64) value));

	rest = negative ? -(unsigned __int128) value : (unsigned __int128) value;
	*--p = '\0';
	for (; rest > 0; rest /= 10)
		*--p = '0' + (int) (rest % 10);
	if (negative)
		*--p = '-';
	return DirectFunctionCall3(numeric_in, CStringGetDatum(p), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

static Datum
wide_sum_final(const void *state, bool *isnull)
{
	const WideSumState *s = state;

	*isnull = s->count == 0;
	return *isnull ? (Datum) 0 : streamext_numeric_of_int128(s->sum);
}

static Datum
int_avg_final(const void *state, bool *isnull)
{
	const IntSumState *s = state;

	*isnull = s->count == 0;
	if (*isnull)
		return (Datum) 0;
	return DirectFunctionCall2(numeric_div, NumericGetDatum(int64_to_numeric(s->sum)),
							   NumericGetDatum(int64_to_numeric(s->count)));
}

static Datum
wide_avg_final(const void *state, bool *isnull)
{
	const WideSumState *s = state;

	*isnull = s->count == 0;
	if (*isnull)
		return (Datum) 0;
	return DirectFunctionCall2(numeric_div, streamext_numeric_of_int128(s->sum),
							   NumericGetDatum(int64_to_numeric(s->count)));
}

/* ---- sum and avg of floats ---- */

/* The first value is taken as it is, so that a sum of -0 alone is -0. */
#define FLOAT_SUM_FOLD(name, State, GET, Value)         \
	static void name(uint32 offset, const AggInput *in) \
	{                                                   \
		const Datum *values = in->args[0];              \
		FOLD_NOT_NULL(State, {                          \
			Value v = GET(values[row]);                 \
			s->sum = s->count == 0 ? v : s->sum + v;    \
			s->infinite |= !isfinite(v);                \
			s->count++;                                 \
		});                                             \
	}

FLOAT_SUM_FOLD(float4_sum_fold, Float4SumState, DatumGetFloat4, float4)
FLOAT_SUM_FOLD(float4_avg_fold, Float8SumState, DatumGetFloat4, float8)
FLOAT_SUM_FOLD(float8_sum_fold, Float8SumState, DatumGetFloat8, float8)

#define FLOAT_SUM_COMBINE(name, State)                     \
	static void name(void *into, const void *from)         \
	{                                                      \
		State		*a = into;                             \
		const State *b = from;                             \
		if (b->count == 0)                                 \
			return;                                        \
		a->sum = a->count == 0 ? b->sum : a->sum + b->sum; \
		a->infinite |= b->infinite;                        \
		a->count += b->count;                              \
	}

FLOAT_SUM_COMBINE(float4_sum_combine, Float4SumState)
FLOAT_SUM_COMBINE(float8_sum_combine, Float8SumState)

static Datum
float4_sum_final(const void *state, bool *isnull)
{
	const Float4SumState *s = state;

	*isnull = s->count == 0;
	if (!isfinite(s->sum) && !s->infinite)
		float_overflow_error();
	return Float4GetDatum(s->sum);
}

static Datum
float8_sum_final(const void *state, bool *isnull)
{
	const Float8SumState *s = state;

	*isnull = s->count == 0;
	if (!isfinite(s->sum) && !s->infinite)
		float_overflow_error();
	return Float8GetDatum(s->sum);
}

static Datum
float_avg_final(const void *state, bool *isnull)
{
	const Float8SumState *s = state;
	Datum				  sum = float8_sum_final(state, isnull);

	return *isnull ? (Datum) 0 : Float8GetDatum(DatumGetFloat8(sum) / s->count);
}

/* ---- min and max ---- */

/* Every type's value fits into 8 bytes; `has` is 0 or 1. */
#define EXTREME_STATE(State, Value)        \
	typedef struct State                   \
	{                                      \
		Value value;                       \
		pg_attribute_aligned(8) int64 has; \
	} State;

EXTREME_STATE(Int16Extreme, int16)
EXTREME_STATE(Int32Extreme, int32)
EXTREME_STATE(Int64Extreme, int64)
EXTREME_STATE(OidExtreme, Oid)
EXTREME_STATE(Float4Extreme, float4)
EXTREME_STATE(Float8Extreme, float8)

#define INT_LT(a, b) ((a) < (b))
#define INT_GT(a, b) ((a) > (b))

/* KEEP(old, new): the old value stays; among equal ones (0 and -0) the newer wins, as in PostgreSQL. */
#define EXTREME(name, State, Value, GET, MAKE, KEEP)                 \
	static void name##_fold(uint32 offset, const AggInput *in)       \
	{                                                                \
		const Datum *values = in->args[0];                           \
		FOLD_NOT_NULL(State, {                                       \
			Value v = GET(values[row]);                              \
			s->value = (s->has && KEEP(s->value, v)) ? s->value : v; \
			s->has = 1;                                              \
		});                                                          \
	}                                                                \
	static void name##_combine(void *into, const void *from)         \
	{                                                                \
		State		*a = into;                                       \
		const State *b = from;                                       \
		if (b->has && !(a->has && KEEP(a->value, b->value)))         \
			*a = *b;                                                 \
	}                                                                \
	static Datum name##_final(const void *state, bool *isnull)       \
	{                                                                \
		const State *s = state;                                      \
		*isnull = !s->has;                                           \
		return MAKE(s->value);                                       \
	}

EXTREME(int2_min, Int16Extreme, int16, DatumGetInt16, Int16GetDatum, INT_LT)
EXTREME(int2_max, Int16Extreme, int16, DatumGetInt16, Int16GetDatum, INT_GT)
EXTREME(int4_min, Int32Extreme, int32, DatumGetInt32, Int32GetDatum, INT_LT)
EXTREME(int4_max, Int32Extreme, int32, DatumGetInt32, Int32GetDatum, INT_GT)
EXTREME(int8_min, Int64Extreme, int64, DatumGetInt64, Int64GetDatum, INT_LT)
EXTREME(int8_max, Int64Extreme, int64, DatumGetInt64, Int64GetDatum, INT_GT)
EXTREME(oid_min, OidExtreme, Oid, DatumGetObjectId, ObjectIdGetDatum, INT_LT)
EXTREME(oid_max, OidExtreme, Oid, DatumGetObjectId, ObjectIdGetDatum, INT_GT)
EXTREME(float4_min, Float4Extreme, float4, DatumGetFloat4, Float4GetDatum, float4_lt)
EXTREME(float4_max, Float4Extreme, float4, DatumGetFloat4, Float4GetDatum, float4_gt)
EXTREME(float8_min, Float8Extreme, float8, DatumGetFloat8, Float8GetDatum, float8_lt)
EXTREME(float8_max, Float8Extreme, float8, DatumGetFloat8, Float8GetDatum, float8_gt)

/* ---- variance of floats: Youngs-Cramer ---- */

static inline void
float_var_add(FloatVarState *s, float8 v)
{
	float8 before = s->n;
	float8 sum = s->sum + v;
	float8 distance;

	s->n = before + 1.0;
	if (before > 0.0)
	{
		distance = v * s->n - sum;
		s->squares += distance * distance / (s->n * before);
		if (unlikely(isinf(sum) || isinf(s->squares)))
		{
			s->overflow |= !isinf(s->sum) && !isinf(v);
			s->squares = get_float8_nan();
		}
	}
	else if (!isfinite(v))
		s->squares = get_float8_nan();
	s->sum = sum;
}

#define FLOAT_VAR_FOLD(name, GET)                                          \
	static void name(uint32 offset, const AggInput *in)                    \
	{                                                                      \
		const Datum *values = in->args[0];                                 \
		FOLD_NOT_NULL(FloatVarState, float_var_add(s, GET(values[row]));); \
	}

FLOAT_VAR_FOLD(float4_var_fold, DatumGetFloat4)
FLOAT_VAR_FOLD(float8_var_fold, DatumGetFloat8)

static void
float_var_combine(void *into, const void *from)
{
	FloatVarState		*a = into;
	const FloatVarState *b = from;
	float8				 n = a->n + b->n;
	float8				 sum = a->sum + b->sum;
	float8				 distance;
	float8				 squares;

	if (b->n == 0.0)
		return;
	if (a->n == 0.0)
	{
		*a = *b;
		return;
	}
	distance = a->sum / a->n - b->sum / b->n;
	squares = a->squares + b->squares + a->n * b->n * distance * distance / n;
	a->overflow |= b->overflow;
	a->overflow |= isinf(sum) && !isinf(a->sum) && !isinf(b->sum);
	a->overflow |= isinf(squares) && !isinf(a->squares) && !isinf(b->squares);
	a->n = n;
	a->sum = sum;
	a->squares = squares;
}

static Datum
float_var_finish(const FloatVarState *s, int least, PGFunction function, bool *isnull)
{
	Datum transition[3];

	*isnull = s->n < least;
	if (*isnull)
		return (Datum) 0;
	if (s->overflow)
		float_overflow_error();
	transition[0] = Float8GetDatum(s->n);
	transition[1] = Float8GetDatum(s->sum);
	transition[2] = Float8GetDatum(s->squares);
	return DirectFunctionCall1(function, PointerGetDatum(construct_array(transition, 3, FLOAT8OID, sizeof(float8),
																		 FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)));
}

#define FLOAT_VAR_FINAL(name, least, function)                   \
	static Datum name(const void *state, bool *isnull)           \
	{                                                            \
		return float_var_finish(state, least, function, isnull); \
	}

FLOAT_VAR_FINAL(float_var_pop_final, 1, float8_var_pop)
FLOAT_VAR_FINAL(float_var_samp_final, 2, float8_var_samp)
FLOAT_VAR_FINAL(float_stddev_pop_final, 1, float8_stddev_pop)
FLOAT_VAR_FINAL(float_stddev_samp_final, 2, float8_stddev_samp)

/* ---- variance of int2 and int4: exact sums, so the numeric has PostgreSQL's digits ---- */

#define INT_VAR_FOLD(name, GET)                         \
	static void name(uint32 offset, const AggInput *in) \
	{                                                   \
		const Datum *values = in->args[0];              \
		FOLD_NOT_NULL(IntVarState, {                    \
			int64 v = GET(values[row]);                 \
			s->sum += v;                                \
			s->squares += v * v;                        \
			s->count++;                                 \
		});                                             \
	}

INT_VAR_FOLD(int2_var_fold, DatumGetInt16)
INT_VAR_FOLD(int4_var_fold, DatumGetInt32)

static void
int_var_combine(void *into, const void *from)
{
	IntVarState		  *a = into;
	const IntVarState *b = from;

	a->squares += b->squares;
	a->sum += b->sum;
	a->count += b->count;
}

/*
 * The square root at the variance's own scale, as PostgreSQL's aggregate has it. numeric_sqrt works at a larger scale, so
 * rounding its result could round twice: the rounded root is set right by comparing squares.
 */
static Datum
numeric_root_same_scale(Datum variance)
{
	int32 scale = DatumGetInt32(DirectFunctionCall1(numeric_scale, variance));
	Datum root = DirectFunctionCall2(numeric_round, DirectFunctionCall1(numeric_sqrt, variance), Int32GetDatum(scale));
	Datum ulp = DirectFunctionCall3(numeric_in, CStringGetDatum(psprintf("1e-%d", scale)), ObjectIdGetDatum(InvalidOid),
									Int32GetDatum(-1));
	Datum half = DirectFunctionCall3(numeric_in, CStringGetDatum(psprintf("5e-%d", scale + 1)),
									 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	Datum bound;

	bound = DirectFunctionCall2(numeric_add, root, half);
	bound = DirectFunctionCall2(numeric_mul, bound, bound);
	if (DatumGetBool(DirectFunctionCall2(numeric_le, bound, variance)))
		return DirectFunctionCall2(numeric_add, root, ulp);
	bound = DirectFunctionCall2(numeric_sub, root, half);
	bound = DirectFunctionCall2(numeric_mul, bound, bound);
	if (DatumGetBool(DirectFunctionCall2(numeric_gt, bound, variance)))
		return DirectFunctionCall2(numeric_sub, root, ulp);
	return root;
}

/* (N * sum of squares - sum^2) / (N * N or N * (N - 1)), or its root. */
static Datum
int_var_finish(const IntVarState *s, bool sample, bool root, bool *isnull)
{
	Datum count = NumericGetDatum(int64_to_numeric(s->count));
	Datum other = sample ? NumericGetDatum(int64_to_numeric(s->count - 1)) : count;
	Datum sum = streamext_numeric_of_int128(s->sum);
	Datum numerator;
	Datum variance;

	*isnull = s->count < (sample ? 2 : 1);
	if (*isnull)
		return (Datum) 0;
	numerator = DirectFunctionCall2(numeric_sub,
									DirectFunctionCall2(numeric_mul, count, streamext_numeric_of_int128(s->squares)),
									DirectFunctionCall2(numeric_mul, sum, sum));
	if (DatumGetBool(DirectFunctionCall2(numeric_eq, numerator, NumericGetDatum(int64_to_numeric(0)))))
		return numerator;
	variance = DirectFunctionCall2(numeric_div, numerator, DirectFunctionCall2(numeric_mul, count, other));
	return root ? numeric_root_same_scale(variance) : variance;
}

#define INT_VAR_FINAL(name, sample, root)                   \
	static Datum name(const void *state, bool *isnull)      \
	{                                                       \
		return int_var_finish(state, sample, root, isnull); \
	}

INT_VAR_FINAL(int_var_pop_final, false, false)
INT_VAR_FINAL(int_var_samp_final, true, false)
INT_VAR_FINAL(int_stddev_pop_final, false, true)
INT_VAR_FINAL(int_stddev_samp_final, true, true)

/* ---- bool_and, bool_or, every ---- */

typedef struct BoolState
{
	int64 count;
	int64 count_true;
} BoolState;

static void
bool_fold(uint32 offset, const AggInput *in)
{
	const Datum *values = in->args[0];

	FOLD_NOT_NULL(BoolState, {
		s->count++;
		s->count_true += DatumGetBool(values[row]);
	});
}

static void
bool_combine(void *into, const void *from)
{
	BoolState		*a = into;
	const BoolState *b = from;

	a->count += b->count;
	a->count_true += b->count_true;
}

static Datum
bool_and_final(const void *state, bool *isnull)
{
	const BoolState *s = state;

	*isnull = s->count == 0;
	return BoolGetDatum(s->count_true == s->count);
}

static Datum
bool_or_final(const void *state, bool *isnull)
{
	const BoolState *s = state;

	*isnull = s->count == 0;
	return BoolGetDatum(s->count_true > 0);
}

/* ---- bit_and, bit_or, bit_xor ---- */

typedef struct BitState
{
	uint64 bits; /* bit_and: those that some input lacks */
	uint64 has;
} BitState;

#define BIT_FOLD(name, GET, STEP)                          \
	static void name(uint32 offset, const AggInput *in)    \
	{                                                      \
		const Datum *values = in->args[0];                 \
		FOLD_NOT_NULL(BitState, {                          \
			uint64	v = (uint64) (int64) GET(values[row]); \
			s->bits STEP;                                  \
			s->has = 1;                                    \
		});                                                \
	}

BIT_FOLD(int2_bit_and_fold, DatumGetInt16, |= ~v)
BIT_FOLD(int4_bit_and_fold, DatumGetInt32, |= ~v)
BIT_FOLD(int8_bit_and_fold, DatumGetInt64, |= ~v)
BIT_FOLD(int2_bit_or_fold, DatumGetInt16, |= v)
BIT_FOLD(int4_bit_or_fold, DatumGetInt32, |= v)
BIT_FOLD(int8_bit_or_fold, DatumGetInt64, |= v)
BIT_FOLD(int2_bit_xor_fold, DatumGetInt16, ^= v)
BIT_FOLD(int4_bit_xor_fold, DatumGetInt32, ^= v)
BIT_FOLD(int8_bit_xor_fold, DatumGetInt64, ^= v)

static void
bit_or_combine(void *into, const void *from)
{
	((BitState *) into)->bits |= ((const BitState *) from)->bits;
	((BitState *) into)->has |= ((const BitState *) from)->has;
}

static void
bit_xor_combine(void *into, const void *from)
{
	((BitState *) into)->bits ^= ((const BitState *) from)->bits;
	((BitState *) into)->has |= ((const BitState *) from)->has;
}

#define BIT_FINAL(name, Value, MAKE, INVERT)           \
	static Datum name(const void *state, bool *isnull) \
	{                                                  \
		const BitState *s = state;                     \
		*isnull = !s->has;                             \
		return MAKE((Value) (INVERT s->bits));         \
	}

BIT_FINAL(int2_bit_and_final, int16, Int16GetDatum, ~)
BIT_FINAL(int4_bit_and_final, int32, Int32GetDatum, ~)
BIT_FINAL(int8_bit_and_final, int64, Int64GetDatum, ~)
BIT_FINAL(int2_bit_final, int16, Int16GetDatum, +)
BIT_FINAL(int4_bit_final, int32, Int32GetDatum, +)
BIT_FINAL(int8_bit_final, int64, Int64GetDatum, +)

/* ---- the table ---- */

#define ENTRY(oid, State, fold, combine, final)  \
	{                                            \
		oid, sizeof(State), fold, combine, final \
	}
#define EXTREME_ENTRY(oid, State, name) ENTRY(oid, State, name##_fold, name##_combine, name##_final)
#define INT_VAR_ENTRY(oid, type, final) ENTRY(oid, IntVarState, type##_var_fold, int_var_combine, final)
#define FLOAT_VAR_ENTRY(oid, type, final) ENTRY(oid, FloatVarState, type##_var_fold, float_var_combine, final)

/* All variances of one type's suffix. */
#define VAR_ENTRIES(TYPE, type, ENTRY_OF, prefix)                         \
	ENTRY_OF(F_VAR_POP_##TYPE, type, prefix##_var_pop_final),             \
		ENTRY_OF(F_VAR_SAMP_##TYPE, type, prefix##_var_samp_final),       \
		ENTRY_OF(F_VARIANCE_##TYPE, type, prefix##_var_samp_final),       \
		ENTRY_OF(F_STDDEV_POP_##TYPE, type, prefix##_stddev_pop_final),   \
		ENTRY_OF(F_STDDEV_SAMP_##TYPE, type, prefix##_stddev_samp_final), \
		ENTRY_OF(F_STDDEV_##TYPE, type, prefix##_stddev_samp_final)

#define BIT_ENTRIES(TYPE, type)                                                                   \
	ENTRY(F_BIT_AND_##TYPE, BitState, type##_bit_and_fold, bit_or_combine, type##_bit_and_final), \
		ENTRY(F_BIT_OR_##TYPE, BitState, type##_bit_or_fold, bit_or_combine, type##_bit_final),   \
		ENTRY(F_BIT_XOR_##TYPE, BitState, type##_bit_xor_fold, bit_xor_combine, type##_bit_final)

static const NativeAggregate native_aggregates[] = {
	ENTRY(F_COUNT_, CountState, count_star_fold, count_combine, count_final),
	ENTRY(F_COUNT_ANY, CountState, count_fold, count_combine, count_final),

	ENTRY(F_SUM_INT2, IntSumState, int2_sum_fold, int_sum_combine, int_sum_final),
	ENTRY(F_SUM_INT4, IntSumState, int4_sum_fold, int_sum_combine, int_sum_final),
	ENTRY(F_SUM_INT8, WideSumState, int8_sum_fold, wide_sum_combine, wide_sum_final),
	ENTRY(F_SUM_FLOAT4, Float4SumState, float4_sum_fold, float4_sum_combine, float4_sum_final),
	ENTRY(F_SUM_FLOAT8, Float8SumState, float8_sum_fold, float8_sum_combine, float8_sum_final),
	ENTRY(F_AVG_INT2, IntSumState, int2_sum_fold, int_sum_combine, int_avg_final),
	ENTRY(F_AVG_INT4, IntSumState, int4_sum_fold, int_sum_combine, int_avg_final),
	ENTRY(F_AVG_INT8, WideSumState, int8_sum_fold, wide_sum_combine, wide_avg_final),
	ENTRY(F_AVG_FLOAT4, Float8SumState, float4_avg_fold, float8_sum_combine, float_avg_final),
	ENTRY(F_AVG_FLOAT8, Float8SumState, float8_sum_fold, float8_sum_combine, float_avg_final),

	EXTREME_ENTRY(F_MIN_INT2, Int16Extreme, int2_min),
	EXTREME_ENTRY(F_MAX_INT2, Int16Extreme, int2_max),
	EXTREME_ENTRY(F_MIN_INT4, Int32Extreme, int4_min),
	EXTREME_ENTRY(F_MAX_INT4, Int32Extreme, int4_max),
	EXTREME_ENTRY(F_MIN_INT8, Int64Extreme, int8_min),
	EXTREME_ENTRY(F_MAX_INT8, Int64Extreme, int8_max),
	EXTREME_ENTRY(F_MIN_OID, OidExtreme, oid_min),
	EXTREME_ENTRY(F_MAX_OID, OidExtreme, oid_max),
	EXTREME_ENTRY(F_MIN_FLOAT4, Float4Extreme, float4_min),
	EXTREME_ENTRY(F_MAX_FLOAT4, Float4Extreme, float4_max),
	EXTREME_ENTRY(F_MIN_FLOAT8, Float8Extreme, float8_min),
	EXTREME_ENTRY(F_MAX_FLOAT8, Float8Extreme, float8_max),
	EXTREME_ENTRY(F_MIN_DATE, Int32Extreme, int4_min),
	EXTREME_ENTRY(F_MAX_DATE, Int32Extreme, int4_max),
	EXTREME_ENTRY(F_MIN_TIME, Int64Extreme, int8_min),
	EXTREME_ENTRY(F_MAX_TIME, Int64Extreme, int8_max),
	EXTREME_ENTRY(F_MIN_TIMESTAMP, Int64Extreme, int8_min),
	EXTREME_ENTRY(F_MAX_TIMESTAMP, Int64Extreme, int8_max),
	EXTREME_ENTRY(F_MIN_TIMESTAMPTZ, Int64Extreme, int8_min),
	EXTREME_ENTRY(F_MAX_TIMESTAMPTZ, Int64Extreme, int8_max),
	EXTREME_ENTRY(F_MIN_MONEY, Int64Extreme, int8_min),
	EXTREME_ENTRY(F_MAX_MONEY, Int64Extreme, int8_max),

	VAR_ENTRIES(FLOAT4, float4, FLOAT_VAR_ENTRY, float),
	VAR_ENTRIES(FLOAT8, float8, FLOAT_VAR_ENTRY, float),
	VAR_ENTRIES(INT2, int2, INT_VAR_ENTRY, int),
	VAR_ENTRIES(INT4, int4, INT_VAR_ENTRY, int),

	ENTRY(F_BOOL_AND, BoolState, bool_fold, bool_combine, bool_and_final),
	ENTRY(F_EVERY, BoolState, bool_fold, bool_combine, bool_and_final),
	ENTRY(F_BOOL_OR, BoolState, bool_fold, bool_combine, bool_or_final),

	BIT_ENTRIES(INT2, int2),
	BIT_ENTRIES(INT4, int4),
	BIT_ENTRIES(INT8, int8),
};

const NativeAggregate *
streamext_native_aggregate(Oid aggfnoid)
{
	for (int i = 0; i < lengthof(native_aggregates); i++)
	{
		if (native_aggregates[i].aggfnoid == aggfnoid)
			return &native_aggregates[i];
	}
	return NULL;
}
