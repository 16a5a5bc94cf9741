/*
 * source/feed/emit.c
 *		What a framing does with what it has found (source/feed/cutter.h): a record is delivered, a part of one kept, a fault told.
 */
#include "base/streamext.h"

#include "source/feed/cutter.h"

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

bool
streamext_feed_cut_some(FeedCutter *cutter, const char *data, size_t size, FeedDeliver deliver)
{
	if (!streamext_feed_cut_keep(cutter, &cutter->part, data, size, FEED_CUT_MAX))
		return false;
	if (cutter->told || cutter->part.size < FEED_CUT_MAX)
		return true;
	cutter->told = true;
	return deliver(cutter, cutter->part.data, cutter->part.size);
}

bool
streamext_feed_cut_rest(FeedCutter *cutter, const char *data, size_t size, FeedDeliver deliver)
{
	bool more;

	if (cutter->part.size == 0)
		return deliver(cutter, data, Min(size, FEED_CUT_MAX));
	more = streamext_feed_cut_some(cutter, data, size, deliver) &&
		   (cutter->told || deliver(cutter, cutter->part.data, cutter->part.size));
	cutter->part.size = 0;
	cutter->told = false;
	return more;
}
