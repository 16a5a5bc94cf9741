/*
 * source/feed/repeats.h
 *		Which records a feed has sent already: the hashes of the last FEED_REPEATS keys, in memory of a fixed size. Pure C, malloc'd.
 */
#ifndef STREAMEXT_FEED_REPEATS_H
#define STREAMEXT_FEED_REPEATS_H

#include "base/streamext.h"

#ifndef FEED_REPEATS /* the unit test has it smaller */
#define FEED_REPEATS 131072
#endif

typedef struct FeedRepeats FeedRepeats;

/* seed: of this process, so that nobody outside can make keys that are taken for one another. NULL: out of memory. */
extern FeedRepeats *streamext_feed_repeats_new(uint64 seed);
/* True if the key is among the last ones; else it is from now on. */
extern bool streamext_feed_repeats_seen(FeedRepeats *repeats, const char *key, size_t size);
extern void streamext_feed_repeats_free(FeedRepeats *repeats);

#endif /* STREAMEXT_FEED_REPEATS_H */
