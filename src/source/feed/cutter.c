/*
 * source/feed/cutter.c
 *		From a feed's bytes to its records (source/feed/cutter.h): begun, handed to the framing, ended.
 */
#include "base/streamext.h"

#include "source/feed/cutter.h"

void
streamext_feed_cut_begin(FeedCutter *cutter, const char *id, size_t id_size)
{
	cutter->fault = NULL;
	cutter->retry_ms = -1;
	cutter->part.size = cutter->line.size = cutter->event.size = 0;
	cutter->told = cutter->carriage = cutter->begun = cutter->has_data = false;
	cutter->state = cutter->depth = 0;
	cutter->string = cutter->escaped = false;
	cutter->header_size = cutter->control_size = 0;
	cutter->left = 0;
	cutter->id.size = 0;
	(void) streamext_feed_text_add(&cutter->id, id, id_size, FEED_CUT_NAME_MAX);
}

bool
streamext_feed_cut(FeedCutter *cutter, const char *data, size_t size)
{
	cutter->fault = NULL;
	switch (cutter->framing)
	{
		case FEED_NDJSON:
			return streamext_feed_cut_lines(cutter, data, size);
		case FEED_SSE:
			return streamext_feed_cut_sse(cutter, data, size);
		case FEED_WEBSOCKET:
			return streamext_feed_cut_frames(cutter, data, size);
		case FEED_ARRAY:
			return streamext_feed_cut_array(cutter, data, size);
	}
	return false;
}

/* Only of a line that has not ended something can be said; an SSE event without its blank line is none, by the standard. */
bool
streamext_feed_cut_end(FeedCutter *cutter)
{
	cutter->fault = NULL;
	return cutter->framing == FEED_NDJSON ? streamext_feed_cut_lines_end(cutter) : true;
}

void
streamext_feed_cut_free(FeedCutter *cutter)
{
	streamext_feed_text_free(&cutter->part);
	streamext_feed_text_free(&cutter->line);
	streamext_feed_text_free(&cutter->id);
	streamext_feed_text_free(&cutter->event);
}
