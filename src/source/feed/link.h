/*
 * source/feed/link.h
 *		The connection of a feed: from its URL to cut records, over libcurl's multi interface, driven by the worker without waiting.
 *
 * One connection at a time. What ends it is told and noted, and it is tried again by itself. Callbacks of libcurl raise nothing.
 */
#ifndef STREAMEXT_FEED_LINK_H
#define STREAMEXT_FEED_LINK_H

#include "source/connector.h"
#include "source/feed/intake.h"
#include "source/feed/options.h"

typedef struct FeedLink FeedLink;

/* Palloc'd in the current context; raises if the system has no descriptor left. */
extern FeedLink *streamext_feed_link_new(Connector *c, const FeedOptions *options, FeedIntake *intake);
/* Readable when there is something to do for _drive. */
extern int	streamext_feed_link_fd(const FeedLink *link);
extern void streamext_feed_link_free(FeedLink *link);

/*
 * Does what there is to do without waiting, up to some megabytes; what came is in the intake. True: something was done, there may be more.
 */
extern bool streamext_feed_link_drive(FeedLink *link);
/* _drive was left out for a while, for reasons of our own: the server's silence has not been heard. */
extern void streamext_feed_link_excuse(FeedLink *link);
/* Makes the descriptor readable after so many ms. */
extern void streamext_feed_link_wake(FeedLink *link, int64 ms);
/* The feed is open: what comes next is records. */
extern bool streamext_feed_link_is_open(const FeedLink *link);

#endif /* STREAMEXT_FEED_LINK_H */
