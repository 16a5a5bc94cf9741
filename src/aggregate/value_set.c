/*
 * aggregate/value_set.c
 *		Sets of distinct values as arrays: what an engine outside keeps of count(DISTINCT) and its like (export/).
 *
 * A set is an array of one dimension without NULLs whose elements ascend in their type's order, so no two are equal in it. What comes in may be
 * any array: it is somebody's value, and nothing is taken for granted of it.
 */
#include "base/streamext.h"

#include "lib/qunique.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/sortsupport.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(streamext_set_add);
PG_FUNCTION_INFO_V1(streamext_set_final);
PG_FUNCTION_INFO_V1(streamext_set_merge);

typedef struct ValueSet
{
	MemoryContext	cxt;
	TypeCacheEntry *type; /* of an element */
	SortSupportData order;
	int				n, capacity;
	Datum		   *values;
} ValueSet;

/* As PostgreSQL itself sorts for DISTINCT: these functions run where the executor runs, as who reads or merges. */
static int
set_compare(const void *a, const void *b, void *arg)
{
	return ApplySortComparator(*(const Datum *) a, false, *(const Datum *) b, false, arg);
}

static ValueSet *
set_make(Oid type, Oid collation, MemoryContext cxt)
{
	ValueSet *set = MemoryContextAllocZero(cxt, sizeof(ValueSet));

	set->cxt = cxt;
	set->type = lookup_type_cache(type, TYPECACHE_LT_OPR);
	if (!OidIsValid(set->type->lt_opr))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("could not identify an ordering operator for type %s", format_type_be(type))));
	set->order.ssup_cxt = cxt;
	set->order.ssup_collation = collation;
	PrepareSortSupportFromOrderingOp(set->type->lt_opr, &set->order);
	return set;
}

/* All elements but NULLs, which point into the array; `copy`: that goes away. */
static void
set_put(ValueSet *set, ArrayType *array, bool copy)
{
	MemoryContext old = MemoryContextSwitchTo(set->cxt);
	Datum		 *values;
	bool		 *nulls;
	int			  n;

	/* of columns that are anyarray themselves, as statistics are, each row has its own */
	if (ARR_ELEMTYPE(array) != set->type->type_id)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("arrays of different types make no set"),
						errdetail("There are %s and %s.", format_type_be(set->type->type_id),
								  format_type_be(ARR_ELEMTYPE(array)))));
	deconstruct_array(copy ? DatumGetArrayTypePCopy(PointerGetDatum(array)) : array, ARR_ELEMTYPE(array),
					  set->type->typlen, set->type->typbyval, set->type->typalign, &values, &nulls, &n);
	if (set->n + n > set->capacity)
	{
		set->capacity = Max(set->capacity * 2, set->n + n);
		set->values = set->values == NULL ? palloc(sizeof(Datum) * set->capacity)
										  : repalloc_huge(set->values, sizeof(Datum) * set->capacity);
	}
	for (int i = 0; i < n; i++)
		if (!nulls[i])
			set->values[set->n++] = values[i];
	pfree(values);
	pfree(nulls);
	MemoryContextSwitchTo(old);
}

static Datum
set_finish(ValueSet *set)
{
	if (set->n > 1)
	{
		qsort_arg(set->values, set->n, sizeof(Datum), set_compare, &set->order);
		set->n = qunique_arg(set->values, set->n, sizeof(Datum), set_compare, &set->order);
	}
	return PointerGetDatum(construct_array(set->values, set->n, set->type->type_id, set->type->typlen,
										   set->type->typbyval, set->type->typalign));
}

/* (internal, anyarray) -> internal */
Datum
streamext_set_add(PG_FUNCTION_ARGS)
{
	ValueSet	 *set = PG_ARGISNULL(0) ? NULL : (ValueSet *) PG_GETARG_POINTER(0);
	MemoryContext cxt;

	if (!AggCheckCallContext(fcinfo, &cxt))
		elog(ERROR, "streamext_set_add called outside of an aggregate");
	if (!PG_ARGISNULL(1))
	{
		ArrayType *array = PG_GETARG_ARRAYTYPE_P(1);

		if (set == NULL)
			set = set_make(ARR_ELEMTYPE(array), PG_GET_COLLATION(), cxt);
		set_put(set, array, true);
	}
	if (set == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(set);
}

/* (internal, anyarray) -> anyarray; the last is only there for its type */
Datum
streamext_set_final(PG_FUNCTION_ARGS)
{
	if (!AggCheckCallContext(fcinfo, NULL))
		elog(ERROR, "streamext_set_final called outside of an aggregate");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(set_finish((ValueSet *) PG_GETARG_POINTER(0)));
}

/* (anyarray, anyarray) -> anyarray. NULL is no set, and changes nothing. */
Datum
streamext_set_merge(PG_FUNCTION_ARGS)
{
	ValueSet *set = NULL;

	for (int i = 0; i < 2; i++)
	{
		ArrayType *array = PG_ARGISNULL(i) ? NULL : PG_GETARG_ARRAYTYPE_P(i);

		if (array == NULL)
			continue;
		if (set == NULL)
			set = set_make(ARR_ELEMTYPE(array), PG_GET_COLLATION(), CurrentMemoryContext);
		set_put(set, array, false);
	}
	if (set == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(set_finish(set));
}
