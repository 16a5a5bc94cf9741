/*
 * source/feed/lines.c
 *		Framing ndjson: a record a line, which ends with LF or CR LF.
 */
#include "base/streamext.h"

#include "source/feed/cutter.h"

/* A line of blanks is a keep-alive. Of one that was cut the last byte is not its end. */
static bool
lines_record(FeedCutter *cutter, const char *data, size_t size)
{
	size_t blank = 0;

	if (size > 0 && size < FEED_CUT_MAX && data[size - 1] == '\r')
		size--;
	while (blank < size && (data[blank] == ' ' || data[blank] == '\t' || data[blank] == '\r'))
		blank++;
	return blank == size || streamext_feed_cut_emit(cutter, data, size);
}

bool
streamext_feed_cut_lines_end(FeedCutter *cutter)
{
	return streamext_feed_cut_rest(cutter, NULL, 0, lines_record);
}

bool
streamext_feed_cut_lines(FeedCutter *cutter, const char *data, size_t size)
{
	const char *end = data + size, *newline;

	while (data < end && (newline = memchr(data, '\n', end - data)) != NULL)
	{
		if (!streamext_feed_cut_rest(cutter, data, newline - data, lines_record))
			return false;
		data = newline + 1;
	}
	return data == end || streamext_feed_cut_some(cutter, data, end - data, lines_record);
}
