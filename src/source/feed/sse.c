/*
 * source/feed/sse.c
 *		Framing sse: server-sent events, as the HTML standard has them.
 *
 * Lines end with LF, CR or CR LF. Fields data, event, id and retry; a comment (which begins with a colon) is a keep-alive; a blank line
 * ends an event. An event without data is none, but its id counts.
 */
#include "base/streamext.h"

#include "source/feed/cutter.h"

#define SSE_RETRY_MAX_MS 60000
#define SSE_LINE_MAX (FEED_CUT_MAX + FEED_CUT_NAME_MAX + 16) /* with the field's name */

static bool
sse_is(const char *name, size_t size, const char *what)
{
	return size == strlen(what) && memcmp(name, what, size) == 0;
}

/* A longer one than may be is passed over, rather than cut to another one; so is one with a NUL, which no text holds and which ends a name in the journal. */
static bool
sse_set(FeedCutter *cutter, FeedText *text, const char *value, size_t size)
{
	if (size > FEED_CUT_NAME_MAX || memchr(value, '\0', size) != NULL)
		return true;
	text->size = 0;
	return streamext_feed_cut_keep(cutter, text, value, size, FEED_CUT_NAME_MAX);
}

static void
sse_retry(FeedCutter *cutter, const char *value, size_t size)
{
	int ms = 0;

	if (size == 0)
		return;
	for (size_t i = 0; i < size; i++)
	{
		if (value[i] < '0' || value[i] > '9')
			return;
		ms = Min(ms * 10 + (value[i] - '0'), SSE_RETRY_MAX_MS);
	}
	cutter->retry_ms = ms;
}

static bool
sse_field(FeedCutter *cutter, const char *name, size_t name_size, const char *value, size_t size)
{
	if (sse_is(name, name_size, "data"))
	{
		if (cutter->has_data && !streamext_feed_cut_keep(cutter, &cutter->part, "\n", 1, FEED_CUT_MAX))
			return false;
		cutter->has_data = true;
		return streamext_feed_cut_keep(cutter, &cutter->part, value, size, FEED_CUT_MAX);
	}
	if (sse_is(name, name_size, "event"))
		return sse_set(cutter, &cutter->event, value, size);
	if (sse_is(name, name_size, "id"))
		return sse_set(cutter, &cutter->id, value, size);
	if (sse_is(name, name_size, "retry"))
		sse_retry(cutter, value, size);
	return true;
}

/* Without data it is no record, but the id is as good as another. */
static bool
sse_dispatch(FeedCutter *cutter)
{
	bool more = (cutter->part.size == 0 && cutter->id.size == 0) ||
				streamext_feed_cut_emit(cutter, cutter->part.data, cutter->part.size);

	cutter->part.size = cutter->event.size = 0;
	cutter->has_data = false;
	return more;
}

static bool
sse_line(FeedCutter *cutter, const char *line, size_t size)
{
	const char *colon, *value;

	if (!cutter->begun && size >= 3 && memcmp(line, "\xEF\xBB\xBF", 3) == 0)
		line += 3, size -= 3;
	cutter->begun = true;
	if (size == 0)
		return sse_dispatch(cutter);
	colon = memchr(line, ':', size);
	if (colon == line)
		return true;
	if (colon == NULL)
		return sse_field(cutter, line, size, line + size, 0);
	value = colon + 1;
	if (value < line + size && *value == ' ')
		value++;
	return sse_field(cutter, line, colon - line, value, line + size - value);
}

static bool
sse_whole_line(FeedCutter *cutter, const char *data, size_t size)
{
	bool more;

	if (cutter->line.size == 0)
		return sse_line(cutter, data, size);
	more = streamext_feed_cut_keep(cutter, &cutter->line, data, size, SSE_LINE_MAX) &&
		   sse_line(cutter, cutter->line.data, cutter->line.size);
	cutter->line.size = 0;
	return more;
}

static const char *
sse_line_end(const char *data, const char *end)
{
	const char *feed = memchr(data, '\n', end - data);
	const char *carriage = memchr(data, '\r', (feed != NULL ? feed : end) - data);

	return carriage != NULL ? carriage : feed;
}

bool
streamext_feed_cut_sse(FeedCutter *cutter, const char *data, size_t size)
{
	const char *end = data + size, *line_end;

	if (cutter->carriage && size > 0 && *data == '\n')
		data++;
	if (size > 0)
		cutter->carriage = false;
	while (data < end && (line_end = sse_line_end(data, end)) != NULL)
	{
		if (!sse_whole_line(cutter, data, line_end - data))
			return false;
		data = line_end + 1;
		if (*line_end == '\r' && data == end)
			cutter->carriage = true;
		else if (*line_end == '\r' && *data == '\n')
			data++;
	}
	return data == end || streamext_feed_cut_keep(cutter, &cutter->line, data, end - data, SSE_LINE_MAX);
}
