/*
 * source/feed/answer.h
 *		The head of an HTTP answer, line by line, as far as a feed wants it. Pure C.
 */
#ifndef STREAMEXT_FEED_ANSWER_H
#define STREAMEXT_FEED_ANSWER_H

#include "base/streamext.h"

#define FEED_LOCATION_MAX 2048

typedef struct FeedAnswer
{
	int	  status;					   /* 0: nothing came yet */
	bool  ended;					   /* the head has; of an interim answer (1xx but 101) it begins anew */
	char  location[FEED_LOCATION_MAX]; /* "" none */
	int64 wait_ms;					   /* by Retry-After or x-rate-limit-reset from `now` on; -1: it does not say */
	char  accept[64];				   /* Sec-WebSocket-Accept */
	bool  packed;					   /* its body is, by gzip or zlib */
	bool  strange;					   /* its body is coded in another way, or more than once */
} FeedAnswer;

extern void streamext_feed_answer_begin(FeedAnswer *answer);
/* One line, with or without its end. now: seconds since 1970. False: it is none of an HTTP answer's. */
extern bool streamext_feed_answer_line(FeedAnswer *answer, const char *line, size_t size, int64 now);

#endif /* STREAMEXT_FEED_ANSWER_H */
