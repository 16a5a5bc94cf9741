#include "postgres.h"

#include "utils/timestamp.h"

#include "decode/avro.h"
#include "gateway/flume_private.h"
#include "source/flume/flume.h"
#include "unit.h"

/* A message as it goes over the wire: Avro's in pieces of this size, with the serial 7; 0: a frame of Thrift's. */
static void
flume_wire(const char *message, Size size, Size piece, StringInfo wire)
{
	resetStringInfo(wire);
	if (piece == 0)
		flume_put32(wire, size);
	else
	{
		flume_put32(wire, 7);
		flume_put32(wire, (size + piece - 1) / piece);
	}
	for (Size at = 0; at<size; at += piece> 0 ? piece : size)
	{
		Size some = piece > 0 ? Min(piece, size - at) : size;

		if (piece > 0)
			flume_put32(wire, some);
		appendBinaryStringInfo(wire, message + at, some);
	}
}

/* What is in the wire's bytes when so many come at a time: each event as "name=value,…:body|", what is wrong, and ">" before the answer. */
static void
flume_read(const FlumeProtocolOps *protocol, const StringInfo wire, Size step, bool first, StringInfo found)
{
	StringInfoData head;
	FlumeFrame	   frame = { 0 };
	FlumeFraming   framing = FLUME_MORE;
	FlumeEvent	   event = { .head = &head };
	FlumeCall	   call;
	FlumeHeader	   header;
	char		  *copy = palloc(wire->len);
	const char	  *fault = NULL, *error;

	resetStringInfo(found);
	initStringInfo(&head);
	memcpy(copy, wire->data, wire->len);
	for (Size n = step; framing == FLUME_MORE && n < wire->len + step; n += step)
		framing = protocol->frame(&frame, copy, Min(n, wire->len), &fault);
	if (framing != FLUME_WHOLE)
	{
		appendStringInfoString(found, framing == FLUME_FAULT ? "fault" : "more");
		return;
	}
	CHECK(frame.used == wire->len);
	error = protocol->call(&call, &frame, first);
	fault = NULL;
	while (error == NULL && !call.none && protocol->next(&call, &event, &fault))
	{
		for (uint32 at = 0; streamext_flume_head_next(head.data, head.len, &at, &header);)
			appendStringInfo(found, "%.*s=%.*s,", (int) header.name_size, header.name, (int) header.value_size,
							 header.value);
		appendStringInfo(found, ":%.*s|", (int) event.body_size, event.body);
	}
	error = error != NULL ? error : fault;
	appendStringInfoString(found, error != NULL ? "!" : ">");
	protocol->answer(&call, error != NULL ? "no" : NULL, found);
}

static void
flume_is(const FlumeProtocolOps *protocol, const char *message, Size size, bool first, const char *expected,
		 Size expected_size, const char *where)
{
	StringInfoData wire, found;
	bool		   same = true;

	initStringInfo(&wire);
	initStringInfo(&found);
	for (Size piece = protocol == &streamext_flume_thrift ? 0 : 1; piece <= size && same; piece++)
	{
		flume_wire(message, size, piece, &wire);
		for (Size step = 1; step <= wire.len && same; step += 1 + step / 8)
		{
			flume_read(protocol, &wire, step, first, &found);
			same = found.len == (int) expected_size && memcmp(found.data, expected, expected_size) == 0;
		}
		if (piece == 0)
			break;
	}
	CHECK(same);
	if (!same)
		fprintf(stderr, "%s: %.*s\n", where, found.len, found.data);
}

#define IS(protocol, message, first, expected) \
	flume_is(&protocol, message, sizeof(message) - 1, first, expected, sizeof(expected) - 1, #message)

#define HASH "0123456789abcdef"
#define BATCH \
	"\0\x16"  \
	"appendBatch"
#define FRAME "\0\0\0\7\0\0\0\1\0\0\0"
#define OK ">" FRAME "\3\0\0\0"
#define NO "!" FRAME "\6\0\1\0\4no"

static void
flume_avro(void)
{
	IS(streamext_flume_avro, BATCH "\4\4\2a\2b\2c\0\0\6xyz\0\2w\0", false, "a=b,c=,:xyz|:w|" OK);
	IS(streamext_flume_avro,
	   "\0\x0c"
	   "append\0\2w",
	   false, ":w|" OK);
	IS(streamext_flume_avro, BATCH "\0", false, OK);
	/* blocks with their sizes, several of them, metadata */
	IS(streamext_flume_avro,
	   "\2\2k\2v\0\x16"
	   "appendBatch\1\6\0\2w\2\1\x08\2a\2b\0\0\0",
	   false, ":w|a=b,:|" OK);
	IS(streamext_flume_avro, BATCH "\1\4\0\2w\0", false, ":w|" NO);
	/* handshakes: without and with a protocol and metadata; of the handshake alone */
	IS(streamext_flume_avro, HASH "\0" HASH "\0" BATCH "\2\0\2w\0", true, ":w|>" FRAME "\7\0\0\0\0\0\0\0");
	IS(streamext_flume_avro, HASH "\2\4{}" HASH "\2\2\2k\2v\0" BATCH "\0", true, ">" FRAME "\7\0\0\0\0\0\0\0");
	IS(streamext_flume_avro, HASH "\0" HASH "\0\0\0", true, ">" FRAME "\7\0\0\0\0\0\0\0");
	IS(streamext_flume_avro, HASH "\4" HASH "\0" BATCH "\0", true, NO);
	IS(streamext_flume_avro, "short", true, NO);
	/* not whole, too much, numbers that cannot be */
	IS(streamext_flume_avro, BATCH "\2\0\2w", false, ":w|" NO);
	IS(streamext_flume_avro, BATCH "\2\0\6w\0", false, NO);
	IS(streamext_flume_avro, BATCH "\2\0\2w\0x", false, ":w|" NO);
	IS(streamext_flume_avro, BATCH "\2\0\1w\0", false, NO);
	IS(streamext_flume_avro, BATCH "\xfe\xff\xff\xff\x0f\0\2w\0", false, NO);
	IS(streamext_flume_avro, BATCH "\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\0", false, NO);
	IS(streamext_flume_avro, BATCH "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\0", false, NO);
	IS(streamext_flume_avro,
	   "\0\x0c"
	   "remove\0\2w",
	   false, NO);
	IS(streamext_flume_avro, "\0\0", false, OK);
}

#define CALL(number, name) "\x82\x21" number name
#define MANY \
	"\x0b"   \
	"appendBatch"
#define EVENT "\x1b\1\x88\1a\1b\x18\1w\0"
#define REPLY(kind, number) kind number MANY

static void
flume_thrift(void)
{
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\x2c" EVENT "\x1b\0\x18\0\0\0", false,
	   "a=b,:w|:|>\0\0\0\x13\x82" REPLY("\x41", "\7") "\5\0\0\0");
	IS(streamext_flume_thrift, CALL("\xac\2", "\6append") "\x1c" EVENT "\0", false,
	   "a=b,:w|>\0\0\0\x0f\x82\x41\xac\2\6append\5\0\0\0");
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\x0c\0", false, ">\0\0\0\x13\x82" REPLY("\x41", "\7") "\5\0\0\0");
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\xfc\1" EVENT "\0", false,
	   "a=b,:w|>\0\0\0\x13\x82" REPLY("\x41", "\7") "\5\0\0\0");
#define REFUSED "!\0\0\0\x16\x82" REPLY("\x61", "\7") "\x18\2no\x15\x0c\0"
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\x1c" EVENT, false, "a=b,:w|" REFUSED);
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\x1c" EVENT "\0\0", false, "a=b,:w|" REFUSED);
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\x2c" EVENT "\0", false, "a=b,:w|" REFUSED);
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\xfc\xff\xff\xff\xff\x0f" EVENT "\0", false, REFUSED);
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\x1c\x1b\xff\xff\xff\xff\x0f\x88\1a\1b\x18\1w\0\0", false,
	   REFUSED);
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\x1c\x1b\1\x88\1a\1b\x18\x7fw\0\0", false, REFUSED);
	IS(streamext_flume_thrift, CALL("\7", MANY) "\x19\x18\1w\0", false, REFUSED);
	IS(streamext_flume_thrift, "\x80\1\0\1\0\0\0\6append", false, "!\0\0\0\x0b\x82\x61\0\0\x18\2no\x15\x0c\0");
}

/* Frames that are too large, from what is known first. */
static void
flume_bounds(void)
{
	static const char *const large[] = { "\0\0\0\1\x7f\0\0\0", "\0\0\0\1\0\0\0\1\4\0\0\1", "GET / HTTP/1.1\r\n" };
	StringInfoData			 wire, found;

	initStringInfo(&wire);
	initStringInfo(&found);
	for (int i = 0; i < lengthof(large); i++)
	{
		resetStringInfo(&wire);
		appendBinaryStringInfo(&wire, large[i], i == 2 ? 16 : i == 1 ? 12 : 8);
		flume_read(&streamext_flume_avro, &wire, 1, true, &found);
		CHECK(strcmp(found.data, "fault") == 0);
	}
	flume_read(&streamext_flume_thrift, &wire, 1, true, &found);
	CHECK(strcmp(found.data, "fault") == 0);
}

static void
flume_numbers(void)
{
	static const int64 numbers[] = { 0, -1, 1, 63, 64, -64, -65, PG_INT32_MAX, PG_INT64_MAX, PG_INT64_MIN };

	for (int i = 0; i < lengthof(numbers); i++)
	{
		char	   bytes[AVRO_LONG_SIZE];
		AvroReader reader = { bytes, bytes + streamext_avro_put_long(bytes, numbers[i]) };
		int64	   number;

		CHECK(streamext_avro_long(&reader, &number) && number == numbers[i] && reader.p == reader.end);
	}
}

static FlumeTaken
flume_batch(char who, char what, TimestampTz at)
{
	FlumeTaken taken = { .mark.at = at, .mark.connection = who, .nstreams = 1, .streams = { 7 } };

	taken.mark.id.address[0] = who;
	taken.mark.id.digest[0] = what;
	return taken;
}

static void
flume_again(void)
{
	static FlumeTakenRing ring;
	FlumeTaken			  one = flume_batch(1, 1, 0), other = flume_batch(2, 1, 0), got;

	streamext_flume_taken_keep(&ring, &one);
	CHECK(!streamext_flume_taken_again(&ring, &other.mark.id, 1, &got));
	CHECK(!streamext_flume_taken_again(&ring, &one.mark.id, (FLUME_TAKEN_SECONDS + 1) * USECS_PER_SEC, &got));
	CHECK(streamext_flume_taken_again(&ring, &one.mark.id, 1, &got) && streamext_flume_taken_holds(&got, 7));
	CHECK(!streamext_flume_taken_again(&ring, &one.mark.id, 1, &got));
	for (int i = 0; i <= FLUME_TAKEN_BATCHES; i++)
		streamext_flume_taken_keep(&ring, i == 0 ? &one : &other);
	CHECK(!streamext_flume_taken_again(&ring, &one.mark.id, 1, &got));
	for (Oid relid = 1; relid < 2 * FLUME_TAKEN_STREAMS; relid++)
		streamext_flume_taken_add(&got, relid);
	CHECK(got.nstreams == FLUME_TAKEN_STREAMS);

	/* in parts over two connections */
	memset(&ring, 0, sizeof(ring));
	one = flume_batch(6, 1, 0);
	other = flume_batch(6, 1, 0);
	other.mark.connection = 7;
	other.streams[0] = 8;
	streamext_flume_taken_keep(&ring, &one);
	streamext_flume_taken_keep(&ring, &other);
	CHECK(streamext_flume_taken_again(&ring, &one.mark.id, 1, &got) && got.nstreams == 2);
	CHECK(!streamext_flume_taken_again(&ring, &one.mark.id, 1, &got));

	/* from the journals of streams 8 and 9: of a connection the last one counts */
	memset(&ring, 0, sizeof(ring));
	for (int i = 1; i <= 3; i++)
	{
		FlumeTaken marked = flume_batch(5, i, i);

		streamext_flume_taken_note(&ring, &marked.mark, 8);
		if (i == 2)
			other = marked;
		one = marked;
	}
	streamext_flume_taken_note(&ring, &other.mark, 9);
	streamext_flume_taken_note(&ring, &one.mark, 9);
	CHECK(!streamext_flume_taken_again(&ring, &other.mark.id, 9, &got));
	CHECK(streamext_flume_taken_again(&ring, &one.mark.id, 9, &got) && got.nstreams == 2);
}

void
test_flume(void)
{
	flume_avro();
	flume_thrift();
	flume_bounds();
	flume_numbers();
	flume_again();
}
