/*
 * shared/times.h
 *		How long a stream's batches take, as histograms: what streamext.metrics shows of them.
 *
 * One process writes them, the slot's worker, once a batch and without a lock; who reads may see a batch in one of them and not yet in the next, but
 * never half a number. They are counted since the slot was made, and are in no checkpoint.
 */
#ifndef STREAMEXT_TIMES_H
#define STREAMEXT_TIMES_H

#include "base/streamext.h"

#include "port/atomics.h"

typedef enum BatchTime
{
	TIME_BATCH,		/* of the worker, from the batch at hand to its commit */
	TIME_DECODE,	/* of that, from records to rows */
	TIME_FOLD,		/* of that, from rows to the views' states */
	TIME_EVENT_LAG, /* from the stream's newest event time to the commit; 0 if that is ahead */
	BATCH_TIMES
} BatchTime;

#define STREAMEXT_TIME_BOUNDS 14

typedef struct BatchTimes
{
	pg_atomic_uint64 counts[BATCH_TIMES]
						   [STREAMEXT_TIME_BOUNDS + 1]; /* up to each bound, and beyond the last; not cumulative */
	pg_atomic_uint64 sums[BATCH_TIMES];					/* microseconds */
} BatchTimes;

typedef struct TimeBound
{
	int64		us;
	const char *text; /* in seconds, as OpenMetrics writes it */
} TimeBound;

extern const TimeBound	 streamext_time_bounds[STREAMEXT_TIME_BOUNDS]; /* ascending */
extern const char *const streamext_time_names[BATCH_TIMES];

extern void streamext_times_init(BatchTimes *times);
extern void streamext_times_clear(BatchTimes *times);
/* @process worker: nobody else writes */
extern void streamext_times_count(BatchTimes *times, BatchTime which, int64 us);

#endif /* STREAMEXT_TIMES_H */
