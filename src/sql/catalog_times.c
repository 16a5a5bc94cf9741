/*
 * sql/catalog_times.c
 *		streamext_internal.get_times: the histograms of shared/times.h, the shards of a stream as one, with what is below each bound.
 */
#include "base/streamext.h"

#include "funcapi.h"
#include "utils/builtins.h"

#include "shared/times.h"
#include "sql/catalog.h"

PG_FUNCTION_INFO_V1(streamext_get_times);

/* One histogram: a row for each bound, the last one without. */
static void
times_put_histogram(ReturnSetInfo *rsinfo, Oid relid, List *shards, BatchTime which)
{
	uint64 below = 0;

	for (int bound = 0; bound <= STREAMEXT_TIME_BOUNDS; bound++)
	{
		Datum	  values[5] = { 0 };
		bool	  nulls[5] = { 0 };
		uint64	  us = 0;
		ListCell *cell;

		foreach (cell, shards)
		{
			BatchTimes *times = &((ShardCopy *) lfirst(cell))->slot.times;

			below += pg_atomic_read_u64(&times->counts[which][bound]);
			us += pg_atomic_read_u64(&times->sums[which]);
		}
		values[0] = ObjectIdGetDatum(relid);
		values[1] = CStringGetTextDatum(streamext_time_names[which]);
		values[2] = CStringGetTextDatum(bound < STREAMEXT_TIME_BOUNDS ? streamext_time_bounds[bound].text : "+Inf");
		values[3] = Int64GetDatum(below);
		values[4] = Float8GetDatum(us / 1000000.0);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

static void
times_put_stream(ReturnSetInfo *rsinfo, Oid relid, const ConnectorOps *connector, List *options)
{
	List *shards = streamext_catalog_copy_shards(relid);

	for (int which = 0; which < BATCH_TIMES; which++)
		times_put_histogram(rsinfo, relid, shards, which);
}

Datum
streamext_get_times(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	streamext_catalog_scan_streams((ReturnSetInfo *) fcinfo->resultinfo, times_put_stream);
	PG_RETURN_VOID();
}
