/*
 * sources: source/feed/cutter source/feed/emit source/feed/lines source/feed/sse source/feed/array source/feed/frames source/feed/text source/feed/answer
 * flags: -DFEED_CUT_MAX=64
 *
 * A feed's bytes in each framing: cut in pieces of any sizes they give the records that they give in one; none is longer than it may be. An answer's head.
 */
#include "fuzz.h"

#include "source/feed/answer.h"
#include "source/feed/cutter.h"

#define FOUND_MAX 65536

static char	  found[2][FOUND_MAX];
static size_t found_size;
static int	  found_now;

static void
found_add(const void *data, size_t size)
{
	REQUIRE(size < FOUND_MAX - found_size);
	if (size > 0)
		memcpy(found[found_now] + found_size, data, size);
	found_size += size;
}

static bool
feed_emit(void *context, const FeedRecord *record)
{
	size_t sizes[3] = { record->size, record->event_size, record->id_size };

	REQUIRE(record->size <= FEED_CUT_MAX && record->event_size <= FEED_CUT_NAME_MAX &&
			record->id_size <= FEED_CUT_NAME_MAX);
	if (found_size + sizeof(sizes) + sizes[0] + sizes[1] + sizes[2] >= FOUND_MAX)
		return false;
	found_add(sizes, sizeof(sizes));
	found_add(record->data, record->size);
	found_add(record->event, record->event_size);
	found_add(record->id, record->id_size);
	return true;
}

static void
feed_control(void *context, int opcode, const char *data, size_t size)
{
	REQUIRE(size <= FEED_WS_CONTROL_MAX);
	if (found_size + size + 1 >= FOUND_MAX)
		return;
	found_add(&opcode, 1);
	found_add(data, size);
}

/* Cuts all bytes; pieces: of sizes that the bytes themselves say. */
static size_t
feed_cut(FeedFraming framing, const uint8_t *data, size_t size, bool pieces, bool *good, const char **fault)
{
	FeedCutter cutter = { .framing = framing, .emit = feed_emit, .control = feed_control };

	found_size = 0;
	streamext_feed_cut_begin(&cutter, "id", 2);
	*good = true;
	for (size_t at = 0; at < size && *good;)
	{
		size_t	  some = pieces ? Min(size - at, 1 + (data[at] * 7 + at) % 19) : size;
		FuzzInput in = { data + at, some };

		*good = streamext_feed_cut(&cutter, fuzz_copy(&in, some), some);
		at += some;
	}
	if (*good)
		*good = streamext_feed_cut_end(&cutter);
	*fault = cutter.fault;
	streamext_feed_cut_free(&cutter);
	return found_size;
}

static void
feed_head(const uint8_t *data, size_t size)
{
	FeedAnswer answer;

	streamext_feed_answer_begin(&answer);
	while (size > 0)
	{
		const uint8_t *newline = memchr(data, '\n', size);
		size_t		   some = newline != NULL ? newline - data + 1 : size;
		FuzzInput	   in = { data, some };

		if (!streamext_feed_answer_line(&answer, fuzz_copy(&in, some), some, 1700000000))
			break;
		data += some;
		size -= some;
	}
	REQUIRE(answer.wait_ms >= -1 && answer.status < 1000);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool		good[2];
	const char *fault[2];
	size_t		sizes[2];
	int			framing;

	if (size < 1)
		return 0;
	server_start();
	framing = data[0] % 5;
	data++, size--;
	if (framing == 4)
		feed_head(data, size);
	for (found_now = 0; found_now < 2 && framing < 4; found_now++)
		sizes[found_now] =
			feed_cut((FeedFraming) framing, data, size, found_now == 1, &good[found_now], &fault[found_now]);
	if (framing < 4)
		REQUIRE(good[0] == good[1] && fault[0] == fault[1] && sizes[0] == sizes[1] &&
				memcmp(found[0], found[1], sizes[0]) == 0);
	server_reset();
	return 0;
}

time_t
curl_getdate(const char *text, const time_t *unused)
{
	return strlen(text) % 3 == 0 ? -1 : (time_t) (unsigned char) text[0] << 24;
}
