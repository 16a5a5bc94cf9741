/*
 * aggregate/native_mode.c
 *		Native aggregates as a way of keeping them: a few bytes in the group's entry, folded in place.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/date.h"
#include "utils/timestamp.h"

#include "aggregate/portable.h"

static void
native_publish(AggRuntime *agg, const AggInput *in)
{
	agg->spec->native->fold(agg->spec->offset, in);
}

static void
native_load(AggReader *reader, AggPartial *partial, const char *state, const StateCopy *copy)
{
	partial->native = unconstify(char *, state);
}

static void
native_combine(AggReader *reader, AggPartial *into, const AggPartial *from)
{
	reader->spec->native->combine(into->native, from->native);
}

static Datum
native_final(AggReader *reader, AggPartial *partial, bool *isnull)
{
	return reader->spec->native->final(partial->native, isnull);
}

static void
native_give(AggReader *reader, const AggPartial *partial, StringInfo to)
{
	appendBinaryStringInfo(to, partial->native, reader->spec->native->state_size);
}

static void
native_take(AggReader *reader, AggPartial *partial, const char *bytes, Size size)
{
	if (size != reader->spec->native->state_size)
		streamext_aggregate_import_damaged(reader->spec);
	partial->native = memcpy(palloc(size), bytes, size);
}

/* Bytes of a native state mean a value of its type, or would be printed past the end of the type's buffers. */
static void
native_check(AggReader *reader, const AggPartial *partial)
{
	bool  isnull;
	bool  good = true;
	Datum value;

	switch (reader->spec->aggref->aggtype)
	{
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			break;
		default:
			return;
	}
	value = reader->spec->native->final(partial->native, &isnull);
	if (isnull)
		return;
	if (reader->spec->aggref->aggtype == DATEOID)
		good = DATE_NOT_FINITE(DatumGetDateADT(value)) || IS_VALID_DATE(DatumGetDateADT(value));
	else if (reader->spec->aggref->aggtype == TIMEOID)
		good = DatumGetTimeADT(value) >= 0 && DatumGetTimeADT(value) <= USECS_PER_DAY;
	else
		good = TIMESTAMP_NOT_FINITE(DatumGetTimestamp(value)) || IS_VALID_TIMESTAMP(DatumGetTimestamp(value));
	if (!good)
		streamext_portable_invalid("A time in it is out of range.");
}

static void
native_receive(AggReader *reader, AggPartial *partial, PortableCursor *from)
{
	if (from->left != reader->spec->native->state_size)
		streamext_portable_invalid("Its state has another size than the aggregate's.");
	partial->native = memcpy(palloc(from->left), from->at, from->left);
	native_check(reader, partial);
}

const AggModeOps streamext_native_mode = {
	.publish = native_publish,
	.load = native_load,
	.combine = native_combine,
	.final = native_final,
	.give = native_give,
	.take = native_take,
	.send = native_give,
	.receive = native_receive,
};
