/*
 * source/feed/retry.c
 *		When a feed is tried again (source/feed/retry.h).
 */
#include "base/streamext.h"

#include "source/feed/retry.h"

#define RETRY_NETWORK_MS 250
#define RETRY_NETWORK_MAX_MS 16000
#define RETRY_HTTP_MS 5000
#define RETRY_HTTP_MAX_MS 320000
#define RETRY_RATE_MS 60000
#define RETRY_RATE_MAX_MS 900000

static int64
retry_doubled(int64 first, int64 most, int times)
{
	while (times-- > 0 && first < most)
		first *= 2;
	return Min(first, most);
}

FeedTrouble
streamext_feed_retry_kind(int status)
{
	return status == 429 || status == 420 ? FEED_TROUBLE_RATE : FEED_TROUBLE_HTTP;
}

int64
streamext_feed_retry_wait(FeedRetry *retry, FeedTrouble trouble, int64 asked)
{
	int	  times = retry->times[trouble];
	int64 wait = 0;

	if (times < 1000)
		retry->times[trouble]++;
	switch (trouble)
	{
		case FEED_TROUBLE_NETWORK:
			wait = Min((int64) times * RETRY_NETWORK_MS, RETRY_NETWORK_MAX_MS);
			return Max(wait, asked);
		case FEED_TROUBLE_HTTP:
			wait = retry_doubled(RETRY_HTTP_MS, RETRY_HTTP_MAX_MS, times);
			break;
		case FEED_TROUBLE_RATE:
			wait = retry_doubled(RETRY_RATE_MS, RETRY_RATE_MAX_MS, times);
			break;
	}
	return asked >= 0 ? asked : wait;
}
