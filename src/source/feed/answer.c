/*
 * source/feed/answer.c
 *		The head of an HTTP answer (source/feed/answer.h).
 */
#include "base/streamext.h"

#include <curl/curl.h>

#include "source/feed/answer.h"

#define ANSWER_WAIT_MAX_MS INT64CONST(86400000)

void
streamext_feed_answer_begin(FeedAnswer *answer)
{
	memset(answer, 0, sizeof(*answer));
	answer->wait_ms = -1;
}

/* "HTTP/1.1 200 OK" */
static bool
answer_status(FeedAnswer *answer, const char *line, size_t size)
{
	const char *blank = memchr(line, ' ', size);
	int			status = 0;

	if (size < 5 || memcmp(line, "HTTP/", 5) != 0 || blank == NULL || line + size - blank < 4)
		return false;
	for (int i = 1; i <= 3; i++)
	{
		if (blank[i] < '0' || blank[i] > '9')
			return false;
		status = status * 10 + (blank[i] - '0');
	}
	streamext_feed_answer_begin(answer);
	answer->status = status;
	return status >= 100;
}

static bool
answer_is(const char *name, size_t size, const char *what)
{
	return size == strlen(what) && pg_strncasecmp(name, what, size) == 0;
}

/* The value of a field of seconds; -1: it is none. */
static int64
answer_seconds(const char *value)
{
	char *end;
	long  seconds;

	errno = 0;
	seconds = strtol(value, &end, 10);
	return errno != 0 || end == value || *end != '\0' || seconds < 0 ? -1 : seconds;
}

static void
answer_wait(FeedAnswer *answer, int64 seconds)
{
	if (seconds > ANSWER_WAIT_MAX_MS / 1000)
		seconds = ANSWER_WAIT_MAX_MS / 1000;
	answer->wait_ms = Max(answer->wait_ms, Max(seconds, 0) * 1000);
}

/* A body may be packed once. */
static void
answer_coding(FeedAnswer *answer, const char *value)
{
	if (value[0] == '\0' || pg_strcasecmp(value, "identity") == 0)
		return;
	if (answer->packed || (pg_strcasecmp(value, "gzip") != 0 && pg_strcasecmp(value, "x-gzip") != 0 &&
						   pg_strcasecmp(value, "deflate") != 0))
		answer->strange = true;
	answer->packed = true;
}

static void
answer_field(FeedAnswer *answer, const char *name, size_t name_size, const char *value, int64 now)
{
	int64 seconds;

	if (answer_is(name, name_size, "location"))
		strlcpy(answer->location, value, sizeof(answer->location));
	else if (answer_is(name, name_size, "sec-websocket-accept"))
		strlcpy(answer->accept, value, sizeof(answer->accept));
	else if (answer_is(name, name_size, "content-encoding"))
		answer_coding(answer, value);
	else if (answer_is(name, name_size, "transfer-encoding"))
		answer->strange = answer->strange || pg_strcasecmp(value, "chunked") != 0;
	else if (answer_is(name, name_size, "retry-after"))
	{
		time_t date = (seconds = answer_seconds(value)) < 0 ? curl_getdate(value, NULL) : -1;

		if (seconds >= 0)
			answer_wait(answer, seconds);
		else if (date >= 0)
			answer_wait(answer, date - now);
	}
	else if (answer_is(name, name_size, "x-rate-limit-reset") && (seconds = answer_seconds(value)) > 0)
		answer_wait(answer, seconds - now);
}

bool
streamext_feed_answer_line(FeedAnswer *answer, const char *line, size_t size, int64 now)
{
	char		value[FEED_LOCATION_MAX];
	const char *colon;
	size_t		length;

	while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
		size--;
	if (answer->status == 0 || (answer->ended && answer->status < 200 && answer->status != 101))
		return answer_status(answer, line, size);
	if (answer->ended)
		return true; /* trailers */
	if (size == 0)
	{
		answer->ended = true;
		return true;
	}
	colon = memchr(line, ':', size);
	if (colon == NULL || colon == line)
		return false;
	length = line + size - colon - 1;
	for (colon++; length > 0 && (*colon == ' ' || *colon == '\t'); length--)
		colon++;
	while (length > 0 && (colon[length - 1] == ' ' || colon[length - 1] == '\t'))
		length--;
	if (length >= sizeof(value))
		return true; /* none that is wanted is as long */
	memcpy(value, colon, length);
	value[length] = '\0';
	answer_field(answer, line, (const char *) memchr(line, ':', size) - line, value, now);
	return true;
}
