/*
 * source/feed/text.h
 *		Bytes that are collected from pieces, malloc'd: what cuts a feed's bytes runs inside of libcurl, where nothing may raise.
 */
#ifndef STREAMEXT_FEED_TEXT_H
#define STREAMEXT_FEED_TEXT_H

#include "base/streamext.h"

typedef struct FeedText
{
	char  *data; /* not NUL-terminated */
	size_t size, capacity;
} FeedText;

/*
 * Appends; beyond `limit` bytes in all the rest is passed over. False: out of memory, nothing was appended.
 */
extern bool streamext_feed_text_add(FeedText *text, const char *data, size_t size, size_t limit);
extern void streamext_feed_text_free(FeedText *text);

#endif /* STREAMEXT_FEED_TEXT_H */
