/*
 * aggregate/first_last.c
 *		first(x, ts) and last(x, ts): the value at the earliest or latest time; among equal times the one that came first.
 *
 * The state is bytea: the time, whether the value is NULL, and the value's bytes as its type lays them out. Rows whose time is NULL
 * do not count.
 */
#include "base/streamext.h"

#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "aggregate/parts.h"

typedef struct FirstLast
{
	int32		vl_len_;
	int32		isnull;
	TimestampTz at;
	char		value[FLEXIBLE_ARRAY_MEMBER]; /* by value: the Datum; else its bytes */
} FirstLast;

typedef struct FirstLastType
{
	int16 typlen;
	bool  typbyval;
} FirstLastType;

PG_FUNCTION_INFO_V1(streamext_first_add);
PG_FUNCTION_INFO_V1(streamext_last_add);
PG_FUNCTION_INFO_V1(streamext_first_merge);
PG_FUNCTION_INFO_V1(streamext_last_merge);
PG_FUNCTION_INFO_V1(streamext_first_last_final);

pg_noreturn static void
first_last_invalid(void)
{
	ereport(ERROR, (errcode(ERRCODE_INVALID_BINARY_REPRESENTATION), errmsg("invalid state of first or last")));
}

/*
 * Argument n as a state. The type is bytea, and whoever may call these functions can hand in anything: what stands in the
 * header is checked here, the value where it becomes a Datum.
 */
static FirstLast *
first_last_arg(FunctionCallInfo fcinfo, int n)
{
	FirstLast *s = (FirstLast *) PG_GETARG_BYTEA_P(n);

	if (VARSIZE(s) < offsetof(FirstLast, value) || s->isnull < 0 || s->isnull > 1 ||
		(s->isnull && VARSIZE(s) != offsetof(FirstLast, value)))
		first_last_invalid();
	return s;
}

static FirstLastType *
first_last_type(FunctionCallInfo fcinfo, int arg)
{
	FirstLastType *type = fcinfo->flinfo->fn_extra;

	if (type == NULL)
	{
		Oid oid = get_fn_expr_argtype(fcinfo->flinfo, arg);

		if (!OidIsValid(oid))
			elog(ERROR, "could not determine the type of the argument");
		type = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt, sizeof(FirstLastType));
		get_typlenbyval(oid, &type->typlen, &type->typbyval);
		fcinfo->flinfo->fn_extra = type;
	}
	return type;
}

static FirstLast *
first_last_make(const FirstLastType *type, Datum value, bool isnull, TimestampTz at)
{
	Size	   size = 0;
	FirstLast *s;

	if (!isnull && type->typlen == -1)
		value = PointerGetDatum(PG_DETOAST_DATUM(value));
	if (!isnull)
		size = type->typbyval ? sizeof(Datum) : datumGetSize(value, false, type->typlen);
	s = palloc(offsetof(FirstLast, value) + size);
	SET_VARSIZE(s, offsetof(FirstLast, value) + size);
	s->isnull = isnull;
	s->at = at;
	if (!isnull)
		memcpy(s->value, type->typbyval ? (void *) &value : DatumGetPointer(value), size);
	return s;
}

TimestampTz
streamext_first_last_time(const bytea *state)
{
	return ((const FirstLast *) state)->at;
}

bytea *
streamext_first_last_state(Oid oid, Datum value, bool isnull, TimestampTz at)
{
	FirstLastType type;

	get_typlenbyval(oid, &type.typlen, &type.typbyval);
	return (bytea *) first_last_make(&type, value, isnull, at);
}

static Datum
first_last_add(FunctionCallInfo fcinfo, bool last)
{
	FirstLast  *s = PG_ARGISNULL(0) ? NULL : first_last_arg(fcinfo, 0);
	TimestampTz at;

	if (!PG_ARGISNULL(2))
	{
		at = PG_GETARG_TIMESTAMPTZ(2);
		if (s == NULL || (last ? at > s->at : at < s->at))
			PG_RETURN_POINTER(first_last_make(first_last_type(fcinfo, 1), PG_GETARG_DATUM(1), PG_ARGISNULL(1), at));
	}
	if (s == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(s);
}

/* (bytea, anyelement, timestamptz) -> bytea */
Datum
streamext_first_add(PG_FUNCTION_ARGS)
{
	return first_last_add(fcinfo, false);
}

Datum
streamext_last_add(PG_FUNCTION_ARGS)
{
	return first_last_add(fcinfo, true);
}

static Datum
first_last_merge(FunctionCallInfo fcinfo, bool last)
{
	FirstLast *a = first_last_arg(fcinfo, 0);
	FirstLast *b = first_last_arg(fcinfo, 1);

	PG_RETURN_POINTER((last ? b->at > a->at : b->at < a->at) ? b : a);
}

/* (bytea, bytea) -> bytea; strict */
Datum
streamext_first_merge(PG_FUNCTION_ARGS)
{
	return first_last_merge(fcinfo, false);
}

Datum
streamext_last_merge(PG_FUNCTION_ARGS)
{
	return first_last_merge(fcinfo, true);
}

/* Are these bytes one value of the type? */
static bool
first_last_fits(const FirstLastType *type, const char *value, Size size)
{
	if (type->typbyval)
		return size == sizeof(Datum);
	if (type->typlen > 0)
		return size == type->typlen;
	if (type->typlen == -2)
		return size > 0 && strnlen(value, size) == size - 1;
	return size >= VARHDRSZ && VARATT_IS_4B_U(value) && VARSIZE(value) == size;
}

/* (bytea, anyelement, timestamptz) -> anyelement; the last two are only there for their types */
Datum
streamext_first_last_final(PG_FUNCTION_ARGS)
{
	FirstLastType *type;
	FirstLast	  *s;
	Datum		   value;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	type = first_last_type(fcinfo, 1);
	s = first_last_arg(fcinfo, 0);
	if (s->isnull)
		PG_RETURN_NULL();
	if (!first_last_fits(type, s->value, VARSIZE(s) - offsetof(FirstLast, value)))
		first_last_invalid();
	if (!type->typbyval)
		PG_RETURN_DATUM(datumCopy(PointerGetDatum(s->value), false, type->typlen));
	memcpy(&value, s->value, sizeof(Datum));
	PG_RETURN_DATUM(value);
}
