/*
 * source/feed/retry.h
 *		When a feed is tried again: three kinds of trouble, each with its own pace. Pure C.
 */
#ifndef STREAMEXT_FEED_RETRY_H
#define STREAMEXT_FEED_RETRY_H

#include "base/streamext.h"

typedef enum FeedTrouble
{
	FEED_TROUBLE_NETWORK, /* the connection did not come about, or ended: at once, then 250 ms more each time up to 16 s */
	FEED_TROUBLE_HTTP,	  /* an answer other than the feed: 5 s, doubling up to 320 s */
	FEED_TROUBLE_RATE	  /* 429 and 420: one minute, doubling up to 15, or what the answer says */
} FeedTrouble;

#define FEED_TROUBLES 3

/* Zeroed: there was no trouble. */
typedef struct FeedRetry
{
	int times[FEED_TROUBLES]; /* in a row */
} FeedRetry;

/* ms to wait. asked: what the server asks for, -1: nothing. */
extern int64	   streamext_feed_retry_wait(FeedRetry *retry, FeedTrouble trouble, int64 asked);
extern FeedTrouble streamext_feed_retry_kind(int status);

#endif /* STREAMEXT_FEED_RETRY_H */
