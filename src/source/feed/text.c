/*
 * source/feed/text.c
 *		Bytes that are collected from pieces (source/feed/text.h).
 */
#include "base/streamext.h"

#include "source/feed/text.h"

#define FEED_TEXT_FIRST 1024

bool
streamext_feed_text_add(FeedText *text, const char *data, size_t size, size_t limit)
{
	if (size > limit - Min(limit, text->size))
		size = limit - Min(limit, text->size);
	if (size == 0)
		return true;
	if (text->size + size > text->capacity)
	{
		size_t capacity = Max(Max(text->capacity * 2, text->size + size), FEED_TEXT_FIRST);
		char  *grown = realloc(text->data, capacity);

		if (grown == NULL)
			return false;
		text->data = grown;
		text->capacity = capacity;
	}
	memcpy(text->data + text->size, data, size);
	text->size += size;
	return true;
}

void
streamext_feed_text_free(FeedText *text)
{
	free(text->data);
	memset(text, 0, sizeof(*text));
}
