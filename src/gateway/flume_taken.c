/*
 * gateway/flume_taken.c
 *		Batches whose senders may not know that they were taken. What the functions promise is in gateway/flume_private.h.
 *
 * Flume gives a batch no name. It sends it again, byte for byte, as the first of a new connection when the answer did not come, and then the
 * one before it has ended. So only the last batch of a connection that has ended is compared, only with the first of a later one from the
 * same address, and only for a while.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "gateway/flume_private.h"

bool
streamext_flume_taken_holds(const FlumeTaken *taken, Oid relid)
{
	for (int i = 0; i < taken->nstreams; i++)
		if (taken->streams[i] == relid)
			return true;
	return false;
}

void
streamext_flume_taken_add(FlumeTaken *taken, Oid relid)
{
	if (taken->nstreams < FLUME_TAKEN_STREAMS && !streamext_flume_taken_holds(taken, relid))
		taken->streams[taken->nstreams++] = relid;
}

void
streamext_flume_taken_keep(FlumeTakenRing *ring, const FlumeTaken *taken)
{
	if (taken->nstreams == 0)
		return;
	ring->batches[ring->next] = *taken;
	ring->next = (ring->next + 1) % FLUME_TAKEN_BATCHES;
}

/* A batch of several streams may have been taken in parts, over several connections. */
bool
streamext_flume_taken_again(FlumeTakenRing *ring, const FlumeBatchId *id, TimestampTz now, FlumeTaken *taken)
{
	memset(taken, 0, sizeof(*taken));
	for (int i = 0; i < FLUME_TAKEN_BATCHES; i++)
	{
		FlumeTaken *kept = &ring->batches[i];

		if (kept->nstreams == 0 || memcmp(&kept->mark.id, id, sizeof(*id)) != 0 ||
			now - kept->mark.at > FLUME_TAKEN_SECONDS * USECS_PER_SEC)
			continue;
		taken->mark = kept->mark;
		for (int j = 0; j < kept->nstreams; j++)
			streamext_flume_taken_add(taken, kept->streams[j]);
		kept->nstreams = 0;
	}
	return taken->nstreams > 0;
}

/* Of a connection the last batch counts, whichever of its streams is read first. */
void
streamext_flume_taken_note(FlumeTakenRing *ring, const FlumeMark *mark, Oid relid)
{
	FlumeTaken taken = { .mark = *mark };

	for (int i = 0; i < FLUME_TAKEN_BATCHES; i++)
	{
		FlumeTaken *kept = &ring->batches[i];

		if (kept->nstreams == 0 || kept->mark.connection != mark->connection)
			continue;
		if (memcmp(&kept->mark, mark, sizeof(*mark)) != 0)
		{
			if (kept->mark.at > mark->at)
				return;
			*kept = taken;
		}
		streamext_flume_taken_add(kept, relid);
		return;
	}
	streamext_flume_taken_add(&taken, relid);
	streamext_flume_taken_keep(ring, &taken);
}
