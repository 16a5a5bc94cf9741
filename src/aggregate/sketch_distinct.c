/*
 * aggregate/sketch_distinct.c
 *		approx_count_distinct: HyperLogLog, by PostgreSQL's own lib/hyperloglog.
 *
 * A state starts as a set of hash values, which is exact but for colliding 32-bit hashes, and becomes a HyperLogLog of 4,096 registers when the set
 * outgrows SPARSE_MAX: the standard error is then 1.04 / sqrt(4096) = 1.6 %.
 */
#include "base/streamext.h"

#include <math.h>

#include "lib/hyperloglog.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "aggregate/sketch.h"

#define WIDTH 12
#define REGISTERS (1 << WIDTH)
#define SPARSE_MAX 256
#define SPARSE_START 8
#define REGISTER_MAX (32 - WIDTH + 1)

typedef struct DistinctSketch
{
	int32  vl_len_;
	uint16 dense;						/* 1: registers; 0: a set of hashes */
	uint16 count;						/* hashes in the set */
	uint32 data[FLEXIBLE_ARRAY_MEMBER]; /* hashes, with room to the end of the varlena; or registers, a byte each */
} DistinctSketch;

#define HEADER offsetof(DistinctSketch, data)
#define SKETCH_REGISTERS(s) ((uint8 *) (s)->data)
#define SPARSE_ROOM(s) ((VARSIZE(s) - HEADER) / sizeof(uint32))

PG_FUNCTION_INFO_V1(streamext_distinct_in);
PG_FUNCTION_INFO_V1(streamext_distinct_recv);
PG_FUNCTION_INFO_V1(streamext_distinct_add);
PG_FUNCTION_INFO_V1(streamext_distinct_add_all);
PG_FUNCTION_INFO_V1(streamext_distinct_merge);
PG_FUNCTION_INFO_V1(streamext_distinct_estimate);

static bool
distinct_sparse_valid(const DistinctSketch *s)
{
	if (SPARSE_ROOM(s) > SPARSE_MAX || VARSIZE(s) != HEADER + SPARSE_ROOM(s) * sizeof(uint32) ||
		s->count > SPARSE_ROOM(s))
		return false;
	for (int i = 0; i < s->count; i++)
		for (int j = 0; j < i; j++)
			if (s->data[i] == s->data[j])
				return false;
	return true;
}

static bool
distinct_dense_valid(const DistinctSketch *s)
{
	if (VARSIZE(s) != HEADER + REGISTERS || s->count != 0)
		return false;
	for (int i = 0; i < REGISTERS; i++)
		if (SKETCH_REGISTERS(s)[i] > REGISTER_MAX)
			return false;
	return true;
}

static void
distinct_validate(const struct varlena *value)
{
	const DistinctSketch *s = (const DistinctSketch *) value;

	if (VARSIZE(s) < HEADER || s->dense > 1 || !(s->dense ? distinct_dense_valid(s) : distinct_sparse_valid(s)))
		streamext_sketch_invalid("distinct_sketch");
}

Datum
streamext_distinct_in(PG_FUNCTION_ARGS)
{
	return streamext_sketch_in(PG_GETARG_CSTRING(0), distinct_validate);
}

Datum
streamext_distinct_recv(PG_FUNCTION_ARGS)
{
	return streamext_sketch_recv((StringInfo) PG_GETARG_POINTER(0), distinct_validate);
}

static DistinctSketch *
distinct_sparse(int room)
{
	DistinctSketch *s = palloc0(HEADER + room * sizeof(uint32));

	SET_VARSIZE(s, HEADER + room * sizeof(uint32));
	return s;
}

/* PostgreSQL's functions over our registers. */
static void
distinct_open(DistinctSketch *s, hyperLogLogState *hll)
{
	initHyperLogLog(hll, WIDTH);
	pfree(hll->hashesArr);
	hll->hashesArr = SKETCH_REGISTERS(s);
}

static DistinctSketch *
distinct_densify(const DistinctSketch *sparse)
{
	DistinctSketch	*s = palloc0(HEADER + REGISTERS);
	hyperLogLogState hll;

	SET_VARSIZE(s, HEADER + REGISTERS);
	s->dense = 1;
	distinct_open(s, &hll);
	for (int i = 0; i < sparse->count; i++)
		addHyperLogLog(&hll, sparse->data[i]);
	return s;
}

/* s itself, changed, or a larger copy of it. */
static DistinctSketch *
distinct_add_hash(DistinctSketch *s, uint32 hash, hyperLogLogState *hll)
{
	if (s->dense)
	{
		hll->hashesArr = SKETCH_REGISTERS(s);
		addHyperLogLog(hll, hash);
		return s;
	}
	for (int i = 0; i < s->count; i++)
		if (s->data[i] == hash)
			return s;
	if (s->count == SPARSE_MAX)
	{
		s = distinct_densify(s);
		hll->hashesArr = SKETCH_REGISTERS(s);
		addHyperLogLog(hll, hash);
		return s;
	}
	if (s->count == SPARSE_ROOM(s))
	{
		DistinctSketch *larger = distinct_sparse(Min(Max(s->count * 2, SPARSE_START), SPARSE_MAX));

		memcpy(larger->data, s->data, s->count * sizeof(uint32));
		larger->count = s->count;
		s = larger;
	}
	s->data[s->count++] = hash;
	return s;
}

/* Argument n as a state that may be changed. */
static DistinctSketch *
distinct_arg(FunctionCallInfo fcinfo, int n)
{
	return (DistinctSketch *) (streamext_sketch_in_place(fcinfo) ? PG_DETOAST_DATUM(PG_GETARG_DATUM(n))
																 : PG_DETOAST_DATUM_COPY(PG_GETARG_DATUM(n)));
}

typedef struct DistinctCall
{
	TypeCacheEntry	*type;
	hyperLogLogState hll; /* its registers are set for each call */
} DistinctCall;

/* The call's, which is over values of `type`. */
static DistinctCall *
distinct_call(FunctionCallInfo fcinfo, Oid type)
{
	DistinctCall *call = fcinfo->flinfo->fn_extra;

	if (call != NULL)
		return call;
	call = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(DistinctCall));
	call->type = lookup_type_cache(type, TYPECACHE_HASH_PROC_FINFO);
	if (!OidIsValid(call->type->hash_proc))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("could not identify a hash function for type %s", format_type_be(type))));
	initHyperLogLog(&call->hll, WIDTH);
	pfree(call->hll.hashesArr);
	return fcinfo->flinfo->fn_extra = call;
}

static DistinctSketch *
distinct_add_value(DistinctSketch *s, DistinctCall *call, Oid collation, Datum value)
{
	return distinct_add_hash(s, DatumGetUInt32(FunctionCall1Coll(&call->type->hash_proc_finfo, collation, value)),
							 &call->hll);
}

/* (distinct_sketch, anyelement) -> distinct_sketch. NULL elements do not count. */
Datum
streamext_distinct_add(PG_FUNCTION_ARGS)
{
	DistinctCall   *call = fcinfo->flinfo->fn_extra;
	DistinctSketch *s = PG_ARGISNULL(0) ? distinct_sparse(SPARSE_START) : distinct_arg(fcinfo, 0);

	if (call == NULL)
		call = distinct_call(fcinfo, get_fn_expr_argtype(fcinfo->flinfo, 1));
	if (!PG_ARGISNULL(1))
		s = distinct_add_value(s, call, PG_GET_COLLATION(), PG_GETARG_DATUM(1));
	PG_RETURN_POINTER(s);
}

/* (distinct_sketch, anyarray) -> distinct_sketch, all elements of the array. A NULL array changes nothing. */
Datum
streamext_distinct_add_all(PG_FUNCTION_ARGS)
{
	ArrayType	   *array;
	DistinctCall   *call;
	DistinctSketch *s;
	ArrayIterator	values;
	Datum			value;
	bool			isnull;

	if (PG_ARGISNULL(1) && PG_ARGISNULL(0))
		PG_RETURN_NULL();
	if (PG_ARGISNULL(1))
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	array = PG_GETARG_ARRAYTYPE_P(1);
	call = distinct_call(fcinfo, ARR_ELEMTYPE(array));
	/* of columns that are anyarray themselves, as statistics are, each row has its own */
	if (ARR_ELEMTYPE(array) != call->type->type_id)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("arrays of different types make no distinct_sketch")));
	s = PG_ARGISNULL(0) ? distinct_sparse(SPARSE_START) : distinct_arg(fcinfo, 0);
	values = array_create_iterator(array, 0, NULL);
	while (array_iterate(values, &value, &isnull))
		if (!isnull)
			s = distinct_add_value(s, call, PG_GET_COLLATION(), value);
	PG_RETURN_POINTER(s);
}

/* (distinct_sketch, distinct_sketch) -> distinct_sketch */
Datum
streamext_distinct_merge(PG_FUNCTION_ARGS)
{
	DistinctSketch	*into;
	DistinctSketch	*from;
	hyperLogLogState hll;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
	{
		if (PG_ARGISNULL(0) && PG_ARGISNULL(1))
			PG_RETURN_NULL();
		PG_RETURN_DATUM(PG_GETARG_DATUM(PG_ARGISNULL(0) ? 1 : 0));
	}
	into = distinct_arg(fcinfo, 0);
	from = (DistinctSketch *) PG_DETOAST_DATUM(PG_GETARG_DATUM(1));
	if (from->dense)
	{
		if (!into->dense)
			into = distinct_densify(into);
		for (int i = 0; i < REGISTERS; i++)
			SKETCH_REGISTERS(into)[i] = Max(SKETCH_REGISTERS(into)[i], SKETCH_REGISTERS(from)[i]);
		PG_RETURN_POINTER(into);
	}
	initHyperLogLog(&hll, WIDTH);
	pfree(hll.hashesArr);
	for (int i = 0; i < from->count; i++)
		into = distinct_add_hash(into, from->data[i], &hll);
	PG_RETURN_POINTER(into);
}

/* distinct_sketch -> bigint; 0 for NULL */
Datum
streamext_distinct_estimate(PG_FUNCTION_ARGS)
{
	DistinctSketch	*s;
	hyperLogLogState hll;

	if (PG_ARGISNULL(0))
		PG_RETURN_INT64(0);
	s = (DistinctSketch *) PG_DETOAST_DATUM(PG_GETARG_DATUM(0));
	if (!s->dense)
		PG_RETURN_INT64(s->count);
	distinct_open(s, &hll);
	PG_RETURN_INT64((int64) rint(estimateHyperLogLog(&hll)));
}
