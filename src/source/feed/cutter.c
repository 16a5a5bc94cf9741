/*
 * source/feed/cutter.c
 *		From a feed's bytes to its records: what the framings have in common (source/feed/cutter.h).
 */
#include "base/streamext.h"

#include "source/feed/cutter.h"

void
streamext_feed_cut_begin(FeedCutter *cutter, const char *id, size_t id_size)
{
	cutter->fault = NULL;
	cutter->retry_ms = -1;
	cutter->part.size = cutter->line.size = cutter->event.size = 0;
	cutter->carriage = cutter->begun = cutter->has_data = false;
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

bool
streamext_feed_cut_emit(FeedCutter *cutter, const char *data, size_t size)
{
	FeedRecord record = {
		data, Min(size, FEED_CUT_MAX), cutter->event.data, cutter->event.size, cutter->id.data, cutter->id.size
	};

	return cutter->emit(cutter->context, &record);
}

bool
streamext_feed_cut_fault(FeedCutter *cutter, const char *fault)
{
	cutter->fault = fault;
	return false;
}

bool
streamext_feed_cut_keep(FeedCutter *cutter, FeedText *text, const char *data, size_t size, size_t limit)
{
	return streamext_feed_text_add(text, data, size, limit) || streamext_feed_cut_fault(cutter, "out of memory");
}
