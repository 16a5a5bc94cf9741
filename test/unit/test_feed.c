#include "postgres.h"

#include "source/feed/answer.h"
#include "source/feed/cutter.h"
#include "source/feed/repeats.h"
#include "source/feed/retry.h"
#include "source/feed/target.h"
#include "source/feed/unpack.h"
#include "unit.h"

static char feed_found[4096];

static bool
feed_emit(void *context, const FeedRecord *record)
{
	size_t used = strlen(feed_found);

	snprintf(feed_found + used, sizeof(feed_found) - used, "%.*s/%.*s/%.*s|", (int) record->event_size, record->event,
			 (int) record->id_size, record->id, (int) record->size, record->data);
	return true;
}

static void
feed_control(void *context, int opcode, const char *data, size_t size)
{
	size_t used = strlen(feed_found);

	snprintf(feed_found + used, sizeof(feed_found) - used, "%d:%.*s|", opcode, (int) size, data);
}

/* Whether these bytes, whole and in pieces of every size, are cut to that. */
static bool
feed_cuts(FeedFraming framing, const char *bytes, size_t size, const char *expected)
{
	bool same = true;

	for (size_t piece = 1; piece <= size && same; piece++)
	{
		FeedCutter cutter = { .framing = framing, .emit = feed_emit, .control = feed_control };
		bool	   good = true;

		feed_found[0] = '\0';
		streamext_feed_cut_begin(&cutter, "", 0);
		for (size_t at = 0; at < size && good; at += piece)
			good = streamext_feed_cut(&cutter, bytes + at, Min(piece, size - at));
		good = good && streamext_feed_cut_end(&cutter);
		if (!good)
			strcat(feed_found, "fault");
		same = strcmp(feed_found, expected) == 0;
		if (!same)
			fprintf(stderr, "pieces of %d: %s instead of %s\n", (int) piece, feed_found, expected);
		streamext_feed_cut_free(&cutter);
	}
	return same;
}

#define CUTS(framing, bytes, expected) CHECK(feed_cuts(framing, bytes, sizeof(bytes) - 1, expected))

static void
feed_framings(void)
{
	CUTS(FEED_NDJSON, "{1}\r\n\r\n  \n {2} \n\n{3}", "//{1}|// {2} |//{3}|");
	CUTS(
		FEED_SSE,
		"\xEF\xBB\xBF:hello\r\ndata: a\r\rdata:b\ndata: c\n\nid: 7\nevent: x\r\ndata\ndata: d\r\n\r\nid\ndata: e\n\ndata: no",
		"//a|//b\nc|x/7/\nd|//e|");
	CUTS(FEED_SSE, "id: 1\n\ndata: a\n\n", "/1/|/1/a|");
	CUTS(FEED_SSE, "id: 1\0\ndata: a\nretry: 5\n\n", "//a|");
	CUTS(FEED_ARRAY, " [ {\"a\": [1, \"]\"]} ,\n2 , \"x,\\\"]\",[], null ] [3]",
		 "//{\"a\": [1, \"]\"]}|//2|//\"x,\\\"]\"|//[]|//null|//3|");
	CUTS(FEED_ARRAY, "[1,,2]", "//1|fault");
	CUTS(FEED_ARRAY, "[1,]", "//1|fault");
	CUTS(FEED_ARRAY, "{}", "fault");
	CUTS(FEED_ARRAY, "[{} {}]", "//{}|fault");
	CUTS(FEED_WEBSOCKET,
		 "\x81\x02hi\x01\x01"
		 "a\x89\x01p\x00\x01"
		 "b\x80\x00\x82\x01"
		 "c\x88\x02\x03\xe8",
		 "//hi|9:p|//ab|//c|8:\x03\xe8|");
	CUTS(FEED_WEBSOCKET, "\x81\x7e\x00\x03xyz\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x01w\x81\x00", "//xyz|//w|");
	CUTS(FEED_WEBSOCKET, "\x80\x01x", "fault");
	CUTS(FEED_WEBSOCKET, "\x81\x81xxxxx", "fault");
	CUTS(FEED_WEBSOCKET, "\xc1\x01x", "fault");
	CUTS(FEED_WEBSOCKET, "\x09\x00", "fault");
	CUTS(FEED_WEBSOCKET, "\x83\x00", "fault");
	CUTS(FEED_WEBSOCKET, "\x01\x01x\x81\x01y", "fault");
	CUTS(FEED_WEBSOCKET, "\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "fault");
}

static void
feed_answer(const char *head, int status, int64 wait_ms)
{
	FeedAnswer answer;
	bool	   good = true;

	streamext_feed_answer_begin(&answer);
	while (*head != '\0' && good)
	{
		size_t size = strcspn(head, "\n") + 1;

		good = streamext_feed_answer_line(&answer, head, size, 1000);
		head += size;
	}
	CHECK(good == (status != 0) && answer.wait_ms == (good ? wait_ms : answer.wait_ms));
	if (good)
		CHECK(answer.ended && answer.status == status);
}

static void
feed_answers(void)
{
	feed_answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\n", 200, -1);
	feed_answer("HTTP/1.0 429\nretry-after:  7 \n\n", 429, 7000);
	feed_answer("HTTP/1.1 429 x\r\nX-Rate-Limit-Reset: 1090\r\n\r\n", 429, 90000);
	feed_answer("HTTP/1.1 503 x\r\nRetry-After: Thu, 01 Jan 1970 00:17:40 GMT\r\n\r\n", 503, 60000);
	feed_answer("HTTP/1.1 503 x\r\nRetry-After: soon\r\n\r\n", 503, -1);
	feed_answer("HTTP/1.1 4x3 x\r\n\r\n", 0, -1);
	feed_answer("SSH-2.0\r\n", 0, -1);
	feed_answer("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", 0, -1);
}

static void
feed_waits(void)
{
	FeedRetry retry = { { 0 } };

	CHECK(streamext_feed_retry_wait(&retry, FEED_TROUBLE_NETWORK, -1) == 0);
	CHECK(streamext_feed_retry_wait(&retry, FEED_TROUBLE_NETWORK, -1) == 250);
	CHECK(streamext_feed_retry_wait(&retry, FEED_TROUBLE_NETWORK, 3000) == 3000);
	CHECK(streamext_feed_retry_wait(&retry, FEED_TROUBLE_HTTP, -1) == 5000);
	CHECK(streamext_feed_retry_wait(&retry, FEED_TROUBLE_HTTP, -1) == 10000);
	for (int i = 0; i < 100; i++)
		(void) streamext_feed_retry_wait(&retry, FEED_TROUBLE_HTTP, -1);
	CHECK(streamext_feed_retry_wait(&retry, FEED_TROUBLE_HTTP, -1) == 320000);
	CHECK(streamext_feed_retry_wait(&retry, FEED_TROUBLE_RATE, 1000) == 1000);
	CHECK(streamext_feed_retry_wait(&retry, FEED_TROUBLE_RATE, -1) == 120000);
	CHECK(streamext_feed_retry_kind(429) == FEED_TROUBLE_RATE && streamext_feed_retry_kind(500) == FEED_TROUBLE_HTTP);
}

static void
feed_redirect(const char *from, const char *location, const char *expected)
{
	char *to = streamext_feed_target_redirect(from, location);

	CHECK((to == NULL) == (expected == NULL) && (to == NULL || strcmp(to, expected) == 0));
	free(to);
}

static void
feed_rewind(const char *token, int64 rewind, const char *expected)
{
	char rewound[128];

	CHECK(streamext_feed_target_rewind(token, strlen(token), rewind, rewound, sizeof(rewound)) == (expected != NULL));
	CHECK(strcmp(rewound, expected != NULL ? expected : token) == 0);
}

static void
feed_targets(void)
{
	CURLU *url = streamext_feed_target_parse("wss://h/x?cursor=1&a=b&cursorx=2&cursor");
	char  *text = NULL;

	CHECK(url != NULL && streamext_feed_target_set_parameter(url, "cursor", "5 6") &&
		  curl_url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK &&
		  strcmp(text, "https://h/x?a=b&cursorx=2&cursor=5+6") == 0);
	curl_free(text);
	curl_url_cleanup(url);
	feed_redirect("http://h/a", "/b?c=d", "http://h/b?c=d");
	feed_redirect("http://h/a/b", "c", "http://h/a/c");
	feed_redirect("http://h/a", "http://H:80/b", "http://H:80/b");
	feed_redirect("http://h/a", "https://h/b", "https://h/b");
	feed_redirect("ws://h/a", "wss://h/b", "https://h/b");
	feed_redirect("https://h/a", "http://h/b", NULL);
	feed_redirect("http://h/a", "http://h:81/b", NULL);
	feed_redirect("http://h/a", "//other/b", NULL);
	feed_redirect("http://h/a", "http://h.other/b", NULL);
	feed_redirect("http://h/a", "http://u@h/b", NULL);
	feed_redirect("http://h/a", "file:///etc/passwd", NULL);
	feed_redirect("http://h/a", "ftp://h/b", NULL);
	feed_rewind("1700000000000000", 5000000, "1699999995000000");
	feed_rewind("1700000000000", 5000000, "1699999995000");
	feed_rewind("1700000000", 1, "1699999999");
	feed_rewind("1700000000000000000", 1, "1699999999999999000");
	feed_rewind("2024-01-01T00:00:00.5Z", 1000000, "2023-12-31T23:59:59Z");
	feed_rewind("12345", 1, NULL);
	feed_rewind("12345", 0, "12345");
	feed_rewind("abc", 1, NULL);
}

static void
feed_repeats(void)
{
	FeedRepeats *repeats = streamext_feed_repeats_new(1);
	int			 wrong = 0;

	for (int i = 0; i < FEED_REPEATS * 2; i++)
		wrong += streamext_feed_repeats_seen(repeats, (char *) &i, sizeof(i));
	for (int i = FEED_REPEATS; i < FEED_REPEATS * 2; i++)
		wrong += !streamext_feed_repeats_seen(repeats, (char *) &i, sizeof(i));
	CHECK(wrong == 0);
	for (int i = 0; i < FEED_REPEATS; i++)
		wrong += streamext_feed_repeats_seen(repeats, (char *) &i, sizeof(i));
	CHECK(wrong == 0);
	streamext_feed_repeats_free(repeats);
}

/* What a body of these bytes is unpacked to, brought `step` bytes at a time; -1: damaged. */
static long
feed_unpacked(FeedUnpack *unpack, const char *bytes, size_t size, size_t step, size_t *largest)
{
	long all = 0;

	*largest = 0;
	CHECK(streamext_feed_unpack_begin(unpack, true));
	for (size_t at = 0; at < size; at += step)
	{
		const char *data = bytes + at, *piece;
		size_t		left = Min(step, size - at), piece_size;

		do
		{
			if (!streamext_feed_unpack(unpack, &data, &left, &piece, &piece_size))
				return -1;
			for (size_t i = 0; i < piece_size; i++)
				CHECK(piece[i] == 'x');
			all += piece_size;
			*largest = Max(*largest, piece_size);
		} while (piece_size > 0);
		CHECK(left == 0);
	}
	return all;
}

/* A million bytes of a thousand, two members of it behind one another, and with a byte that is another. */
static void
feed_unpacks(void)
{
	static FeedUnpack unpack;
	static char		  plain[1000000], packed[20000];
	z_stream		  z = { 0 };
	size_t			  size, largest;

	memset(plain, 'x', sizeof(plain));
	CHECK(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
	z.next_in = (Bytef *) plain;
	z.avail_in = sizeof(plain);
	z.next_out = (Bytef *) packed;
	z.avail_out = sizeof(packed) / 2;
	CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
	size = z.total_out;
	deflateEnd(&z);
	memcpy(packed + size, packed, size);
	for (size_t step = 1; step <= size * 2; step = step * 3 + 1)
	{
		CHECK(feed_unpacked(&unpack, packed, size * 2, step, &largest) == sizeof(plain) * 2);
		CHECK(largest <= FEED_UNPACK_PIECE);
		CHECK(feed_unpacked(&unpack, packed, size - 9, step, &largest) > 0);
	}
	packed[size - 1] ^= 1;
	CHECK(feed_unpacked(&unpack, packed, size, size, &largest) == -1);
	CHECK(feed_unpacked(&unpack, plain, 10, 1, &largest) == -1);
	streamext_feed_unpack_end(&unpack);
}

void
test_feed(void)
{
	feed_unpacks();
	feed_framings();
	feed_answers();
	feed_waits();
	feed_targets();
	feed_repeats();
}
