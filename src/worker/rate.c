/*
 * worker/rate.c
 *		How many records arrive a second, over the last ten.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "worker/worker_private.h"

/* With the exclusive lock. n records have arrived now. */
void
streamext_worker_count_rate(Worker *w, uint64 n)
{
	int64  second = GetCurrentTimestamp() / USECS_PER_SEC;
	uint64 sum = 0;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	if (second - w->rate.second >= WORKER_RATE_SECONDS || second < w->rate.second)
		memset(w->rate.counts, 0, sizeof(w->rate.counts));
	else
		for (int64 s = w->rate.second + 1; s <= second; s++)
			w->rate.counts[s % WORKER_RATE_SECONDS] = 0;
	w->rate.second = second;
	w->rate.counts[second % WORKER_RATE_SECONDS] += n;
	for (int i = 0; i < WORKER_RATE_SECONDS; i++)
		sum += w->rate.counts[i];
	streamext_stream_set_rate(w->shard.slot, (double) sum / WORKER_RATE_SECONDS);
}

void
streamext_worker_rest_rate(Worker *w, TimestampTz now)
{
	if (w->shard.slot->status.rate <= 0 || now / USECS_PER_SEC <= w->rate.second)
		return;
	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_worker_count_rate(w, 0);
	LWLockRelease(w->shard.slot->lock);
}
