/*
 * shared/times.c
 *		Histograms of a stream's batches. What the functions promise is in shared/times.h.
 */
#include "base/streamext.h"

#include "shared/times.h"

/* From a batch of a few records to a stream that is an hour behind: one list for all, so that their quotients mean something. */
const TimeBound streamext_time_bounds[STREAMEXT_TIME_BOUNDS] = {
	{ 100, "0.0001" },	  { 300, "0.0003" },	{ 1000, "0.001" },		{ 3000, "0.003" },		 { 10000, "0.01" },
	{ 30000, "0.03" },	  { 100000, "0.1" },	{ 300000, "0.3" },		{ 1000000, "1.0" },		 { 3000000, "3.0" },
	{ 10000000, "10.0" }, { 60000000, "60.0" }, { 600000000, "600.0" }, { 3600000000, "3600.0" }
};

const char *const streamext_time_names[BATCH_TIMES] = { [TIME_BATCH] = "batch",
														[TIME_DECODE] = "decode",
														[TIME_FOLD] = "fold",
														[TIME_EVENT_LAG] = "event_lag" };

void
streamext_times_init(BatchTimes *times)
{
	for (int i = 0; i < BATCH_TIMES; i++)
	{
		pg_atomic_init_u64(&times->sums[i], 0);
		for (int j = 0; j <= STREAMEXT_TIME_BOUNDS; j++)
			pg_atomic_init_u64(&times->counts[i][j], 0);
	}
}

void
streamext_times_clear(BatchTimes *times)
{
	for (int i = 0; i < BATCH_TIMES; i++)
	{
		pg_atomic_write_u64(&times->sums[i], 0);
		for (int j = 0; j <= STREAMEXT_TIME_BOUNDS; j++)
			pg_atomic_write_u64(&times->counts[i][j], 0);
	}
}

/* The only writer: no need to add under a lock. */
static void
times_add(pg_atomic_uint64 *to, uint64 n)
{
	pg_atomic_write_u64(to, pg_atomic_read_u64(to) + n);
}

void
streamext_times_count(BatchTimes *times, BatchTime which, int64 us)
{
	int bound = 0;

	us = Max(us, 0);
	while (bound < STREAMEXT_TIME_BOUNDS && us > streamext_time_bounds[bound].us)
		bound++;
	times_add(&times->counts[which][bound], 1);
	times_add(&times->sums[which], us);
}
