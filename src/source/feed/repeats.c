/*
 * source/feed/repeats.c
 *		Which records a feed has sent already (source/feed/repeats.h).
 *
 * A ring of the hashes in the order they came, and a table of buckets over it, each a chain of places in the ring: the oldest leaves the
 * chain that its hash names.
 */
#include "base/streamext.h"

#include "common/hashfn.h"

#include "source/feed/repeats.h"

#define REPEATS_NONE (-1)

struct FeedRepeats
{
	uint64 seed;
	int64  count; /* that came */
	uint64 hash[FEED_REPEATS];
	int32  next[FEED_REPEATS];
	int32  bucket[FEED_REPEATS];
};

FeedRepeats *
streamext_feed_repeats_new(uint64 seed)
{
	FeedRepeats *repeats = malloc(sizeof(FeedRepeats));

	if (repeats == NULL)
		return NULL;
	repeats->seed = seed;
	repeats->count = 0;
	for (int i = 0; i < FEED_REPEATS; i++)
		repeats->bucket[i] = REPEATS_NONE;
	return repeats;
}

static void
repeats_forget(FeedRepeats *repeats, int32 place)
{
	int32 *link = &repeats->bucket[repeats->hash[place] % FEED_REPEATS];

	while (*link != place)
		link = &repeats->next[*link];
	*link = repeats->next[place];
}

bool
streamext_feed_repeats_seen(FeedRepeats *repeats, const char *key, size_t size)
{
	uint64 hash = hash_bytes_extended((const unsigned char *) key, (int) size, repeats->seed);
	int32 *bucket = &repeats->bucket[hash % FEED_REPEATS];
	int32  place = repeats->count % FEED_REPEATS;

	for (int32 i = *bucket; i != REPEATS_NONE; i = repeats->next[i])
		if (repeats->hash[i] == hash)
			return true;
	if (repeats->count >= FEED_REPEATS)
		repeats_forget(repeats, place);
	repeats->count++;
	repeats->hash[place] = hash;
	repeats->next[place] = *bucket;
	*bucket = place;
	return false;
}

void
streamext_feed_repeats_free(FeedRepeats *repeats)
{
	free(repeats);
}
