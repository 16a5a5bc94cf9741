/*
 * aggregate/sketch_percentile.c
 *		approx_percentile: DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch", VLDB 2019).
 *
 * A value x > 0 is counted in the bucket i = ceil(log_gamma(x)), gamma = (1 + ACCURACY) / (1 - ACCURACY), whose representative is within
 * ACCURACY (1 %) of all its values; negative values have buckets of their own. The answer is the representative of the bucket in which the
 * value that percentile_disc would return lies. A side has at most BUCKETS_MAX buckets, a factor of 10^35 between the largest and the smallest
 * magnitude; what is smaller still is counted in the smallest one. NaN counts as larger than infinity, as in PostgreSQL's order.
 */
#include "base/streamext.h"

#include <math.h>

#include "common/int.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/float.h"

#include "aggregate/sketch.h"

#define ACCURACY 0.01
#define BUCKETS_MAX 4096
#define BUCKETS_MARGIN 16 /* made at once beyond those needed */
#define INDEX_MAX 40000	  /* beyond what doubles can reach */

typedef struct Side
{
	int32 low; /* index of the first bucket */
	int32 n;   /* buckets */
} Side;

typedef struct PercentileSketch
{
	int32  vl_len_;
	int32  has_p; /* made by approx_percentile: p holds */
	double p;
	uint64 zeros;
	uint64 minus_infinity;
	uint64 plus_infinity;
	uint64 nans;
	Side   sides[2]; /* negative, positive: counts of the negative buckets come first */
	uint64 counts[FLEXIBLE_ARRAY_MEMBER];
} PercentileSketch;

#define SKETCH_SIZE(n) (offsetof(PercentileSketch, counts) + (n) * sizeof(uint64))

PG_FUNCTION_INFO_V1(streamext_percentile_in);
PG_FUNCTION_INFO_V1(streamext_percentile_recv);
PG_FUNCTION_INFO_V1(streamext_percentile_add);
PG_FUNCTION_INFO_V1(streamext_percentile_add_p);
PG_FUNCTION_INFO_V1(streamext_percentile_add_all);
PG_FUNCTION_INFO_V1(streamext_percentile_merge);
PG_FUNCTION_INFO_V1(streamext_percentile_final);
PG_FUNCTION_INFO_V1(streamext_percentile_of);

/* The number of values counted; false if it is beyond int64. */
static bool
percentile_total(const PercentileSketch *s, uint64 *total)
{
	const uint64 rest[] = { s->zeros, s->minus_infinity, s->plus_infinity, s->nans };
	bool		 overflow = false;

	*total = 0;
	for (int i = 0; i < lengthof(rest); i++)
		overflow |= pg_add_u64_overflow(*total, rest[i], total);
	for (int i = 0; i < s->sides[0].n + s->sides[1].n; i++)
		overflow |= pg_add_u64_overflow(*total, s->counts[i], total);
	return !overflow && *total <= PG_INT64_MAX;
}

/* Every bucket is one that percentile_count could have made: what is made of valid sketches is valid too. */
static bool
percentile_side_valid(const Side *side)
{
	return side->n >= 0 && side->n <= BUCKETS_MAX && side->low >= -INDEX_MAX && side->low <= INDEX_MAX &&
		   (int64) side->low + side->n - 1 <= INDEX_MAX;
}

static void
percentile_validate(const struct varlena *value)
{
	const PercentileSketch *s = (const PercentileSketch *) value;
	uint64					total;

	if (VARSIZE(s) < SKETCH_SIZE(0) || !percentile_side_valid(&s->sides[0]) || !percentile_side_valid(&s->sides[1]) ||
		VARSIZE(s) != SKETCH_SIZE((Size) s->sides[0].n + s->sides[1].n) || s->has_p < 0 || s->has_p > 1 ||
		!(s->p >= 0 && s->p <= 1) || !percentile_total(s, &total))
		streamext_sketch_invalid("percentile_sketch");
}

Datum
streamext_percentile_in(PG_FUNCTION_ARGS)
{
	return streamext_sketch_in(PG_GETARG_CSTRING(0), percentile_validate);
}

Datum
streamext_percentile_recv(PG_FUNCTION_ARGS)
{
	return streamext_sketch_recv((StringInfo) PG_GETARG_POINTER(0), percentile_validate);
}

static PercentileSketch *
percentile_make(void)
{
	PercentileSketch *s = palloc0(SKETCH_SIZE(0));

	SET_VARSIZE(s, SKETCH_SIZE(0));
	return s;
}

static inline uint64 *
percentile_side(PercentileSketch *s, int side)
{
	return s->counts + (side == 1 ? s->sides[0].n : 0);
}

/* A copy in which that side has the buckets low .. low + n - 1; what lies below them is counted in the first. */
static PercentileSketch *
percentile_resize(PercentileSketch *s, int side, int32 low, int32 n)
{
	Side			  sides[2] = { s->sides[0], s->sides[1] };
	PercentileSketch *t;

	sides[side].low = low;
	sides[side].n = n;
	t = palloc0(SKETCH_SIZE(sides[0].n + sides[1].n));
	memcpy(t, s, SKETCH_SIZE(0));
	SET_VARSIZE(t, SKETCH_SIZE(sides[0].n + sides[1].n));
	memcpy(t->sides, sides, sizeof(sides));
	for (int i = 0; i < 2; i++)
	{
		uint64 *from = percentile_side(s, i);
		uint64 *to = percentile_side(t, i);

		for (int b = 0; b < s->sides[i].n; b++)
			if (from[b] != 0)
				to[Max(s->sides[i].low + b - sides[i].low, 0)] += from[b];
	}
	return t;
}

/* n more in a bucket; s itself or a larger copy. */
static PercentileSketch *
percentile_count(PercentileSketch *s, int side, int32 index, uint64 n)
{
	Side *buckets = &s->sides[side];
	int32 low = buckets->low;
	int32 high = buckets->low + buckets->n - 1;

	Assert(index >= -INDEX_MAX && index <= INDEX_MAX);
	if (buckets->n == 0)
	{
		low = Max(index - BUCKETS_MARGIN / 2, -INDEX_MAX);
		high = Min(low + BUCKETS_MARGIN - 1, INDEX_MAX);
		s = percentile_resize(s, side, low, high - low + 1);
	}
	else if (index > high)
	{
		high = Min(index + BUCKETS_MARGIN, INDEX_MAX);
		low = Max(low, high - BUCKETS_MAX + 1);
		s = percentile_resize(s, side, low, high - low + 1);
	}
	else if (index < low && buckets->n < BUCKETS_MAX)
	{
		low = Max(Max(index - BUCKETS_MARGIN, -INDEX_MAX), high - BUCKETS_MAX + 1);
		s = percentile_resize(s, side, low, high - low + 1);
	}
	percentile_side(s, side)[Max(index - s->sides[side].low, 0)] += n;
	return s;
}

pg_noreturn static void
percentile_overflow(void)
{
	ereport(ERROR, (errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
					errmsg("a percentile_sketch can count at most " INT64_FORMAT " values", PG_INT64_MAX)));
}

static double
percentile_log_gamma(void)
{
	return log1p(2 * ACCURACY / (1 - ACCURACY));
}

static PercentileSketch *
percentile_add_value(PercentileSketch *s, double x)
{
	if (isnan(x))
		s->nans++;
	else if (isinf(x))
		*(x > 0 ? &s->plus_infinity : &s->minus_infinity) += 1;
	else if (x == 0)
		s->zeros++;
	else
		s = percentile_count(s, x > 0, (int32) ceil(log(fabs(x)) / percentile_log_gamma()), 1);
	return s;
}

static double
percentile_representative(int32 index)
{
	double value = 2 * exp(index * percentile_log_gamma() - log1p((1 + ACCURACY) / (1 - ACCURACY)));

	return isinf(value) ? get_float8_infinity() : value;
}

/* The value at fraction p in ascending order; false if there is none. */
static bool
percentile_find(PercentileSketch *s, double p, double *result)
{
	uint64 *negative = percentile_side(s, 0);
	uint64 *positive = percentile_side(s, 1);
	uint64	total;
	uint64	rank;

	if (!percentile_total(s, &total))
		percentile_overflow();
	if (total == 0)
		return false;

	/* as percentile_disc: the first whose fraction is at least p */
	rank = (uint64) Max(ceil(p * total), 1);
	rank = Min(rank, total);
	*result = -get_float8_infinity();
	if (rank <= s->minus_infinity)
		return true;
	rank -= s->minus_infinity;
	for (int i = s->sides[0].n - 1; i >= 0; i--)
	{
		*result = -percentile_representative(s->sides[0].low + i);
		if (rank <= negative[i])
			return true;
		rank -= negative[i];
	}
	*result = 0;
	if (rank <= s->zeros)
		return true;
	rank -= s->zeros;
	for (int i = 0; i < s->sides[1].n; i++)
	{
		*result = percentile_representative(s->sides[1].low + i);
		if (rank <= positive[i])
			return true;
		rank -= positive[i];
	}
	*result = rank <= s->plus_infinity ? get_float8_infinity() : get_float8_nan();
	return true;
}

static void
percentile_check_p(double p)
{
	if (!(p >= 0 && p <= 1))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE), errmsg("percentile value %g is not between 0 and 1", p)));
}

/* The percentile that the sketch remembers; 22023 if it remembers another. */
static void
percentile_set_p(PercentileSketch *s, double p)
{
	if (!s->has_p)
	{
		percentile_check_p(p);
		s->has_p = 1;
		s->p = p;
	}
	else if (s->p != p)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("approx_percentile needs one percentile for all rows of a group"),
						errdetail("There are %g and %g.", s->p, p)));
}

static PercentileSketch *
percentile_arg(FunctionCallInfo fcinfo, int n)
{
	return (PercentileSketch *) (streamext_sketch_in_place(fcinfo) ? PG_DETOAST_DATUM(PG_GETARG_DATUM(n))
																   : PG_DETOAST_DATUM_COPY(PG_GETARG_DATUM(n)));
}

/* Argument 0 as a sketch that a value is added to. What an aggregate has added up itself is not looked through each time. */
static PercentileSketch *
percentile_state(FunctionCallInfo fcinfo)
{
	PercentileSketch *s;
	uint64			  total;

	if (PG_ARGISNULL(0))
		return percentile_make();
	s = percentile_arg(fcinfo, 0);
	if (!streamext_sketch_in_place(fcinfo) && (!percentile_total(s, &total) || total == PG_INT64_MAX))
		percentile_overflow();
	return s;
}

/* (percentile_sketch, float8) -> percentile_sketch. NULL values do not count. */
Datum
streamext_percentile_add(PG_FUNCTION_ARGS)
{
	PercentileSketch *s = percentile_state(fcinfo);

	if (!PG_ARGISNULL(1))
		s = percentile_add_value(s, PG_GETARG_FLOAT8(1));
	PG_RETURN_POINTER(s);
}

/* (percentile_sketch, float8[]) -> percentile_sketch. A NULL array changes nothing. */
Datum
streamext_percentile_add_all(PG_FUNCTION_ARGS)
{
	PercentileSketch *s;
	ArrayIterator	  values;
	Datum			  value;
	bool			  isnull;

	if (PG_ARGISNULL(1) && PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (PG_ARGISNULL(1))
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	s = percentile_state(fcinfo);
	values = array_create_iterator(PG_GETARG_ARRAYTYPE_P(1), 0, NULL);
	while (array_iterate(values, &value, &isnull))
		if (!isnull)
			s = percentile_add_value(s, DatumGetFloat8(value));
	PG_RETURN_POINTER(s);
}

/* (percentile_sketch, p float8, x float8) -> percentile_sketch, which remembers p */
Datum
streamext_percentile_add_p(PG_FUNCTION_ARGS)
{
	PercentileSketch *s = percentile_state(fcinfo);

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_POINTER(s);
	percentile_set_p(s, PG_GETARG_FLOAT8(1));
	PG_RETURN_POINTER(percentile_add_value(s, PG_GETARG_FLOAT8(2)));
}

/* (percentile_sketch, percentile_sketch) -> percentile_sketch */
Datum
streamext_percentile_merge(PG_FUNCTION_ARGS)
{
	PercentileSketch *into;
	PercentileSketch *from;
	uint64			  counted, more;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
	{
		if (PG_ARGISNULL(0) && PG_ARGISNULL(1))
			PG_RETURN_NULL();
		PG_RETURN_DATUM(PG_GETARG_DATUM(PG_ARGISNULL(0) ? 1 : 0));
	}
	into = percentile_arg(fcinfo, 0);
	from = (PercentileSketch *) PG_DETOAST_DATUM(PG_GETARG_DATUM(1));
	if (!percentile_total(into, &counted) || !percentile_total(from, &more) || counted > PG_INT64_MAX - more)
		percentile_overflow();
	if (from->has_p)
		percentile_set_p(into, from->p);
	into->zeros += from->zeros;
	into->minus_infinity += from->minus_infinity;
	into->plus_infinity += from->plus_infinity;
	into->nans += from->nans;
	for (int side = 0; side < 2; side++)
	{
		uint64 *counts = percentile_side(from, side);

		/* from the largest down, so that the room for them is made once */
		for (int i = from->sides[side].n - 1; i >= 0; i--)
			if (counts[i] != 0)
				into = percentile_count(into, side, from->sides[side].low + i, counts[i]);
	}
	PG_RETURN_POINTER(into);
}

Datum
streamext_percentile_ask(Datum sketch, double fraction)
{
	PercentileSketch *s = (PercentileSketch *) PG_DETOAST_DATUM_COPY(sketch);

	s->has_p = 1;
	s->p = fraction;
	return PointerGetDatum(s);
}

/* percentile_sketch -> float8 at the p it remembers */
Datum
streamext_percentile_final(PG_FUNCTION_ARGS)
{
	PercentileSketch *s;
	double			  result;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	s = (PercentileSketch *) PG_DETOAST_DATUM(PG_GETARG_DATUM(0));
	if (!s->has_p || !percentile_find(s, s->p, &result))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(result);
}

/* (percentile_sketch, p float8) -> float8; NULL over nothing */
Datum
streamext_percentile_of(PG_FUNCTION_ARGS)
{
	PercentileSketch *s = (PercentileSketch *) PG_DETOAST_DATUM(PG_GETARG_DATUM(0));
	double			  p = PG_GETARG_FLOAT8(1);
	double			  result;

	percentile_check_p(p);
	if (!percentile_find(s, p, &result))
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(result);
}
