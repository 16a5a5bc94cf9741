/*
 * sources: gateway/flume_avro decode/avro source/flume/head
 *
 * Avro's remote calls: in pieces they are what they are whole, and what was found lies within. The datum alone, as Kafka has it: numbers and events that are
 * written anew are read alike.
 */
#include "flume.h"

#include "decode/avro.h"

static void
avro_put(StringInfo to, const char *bytes, uint32 size)
{
	char length[AVRO_LONG_SIZE];

	appendBinaryStringInfo(to, length, streamext_avro_put_long(length, size));
	appendBinaryStringInfo(to, bytes, size);
}

/* The event with its headers in blocks of one. */
static void
avro_write(const AvroEvent *event, StringInfo to)
{
	AvroReader	reader = event->headers;
	AvroItems	items = { 0 };
	const char *bytes;
	uint32		size;
	bool		more;

	while (true)
	{
		REQUIRE(streamext_avro_item(&reader, &items, &more));
		if (!more)
			break;
		appendStringInfoChar(to, 2);
		for (int i = 0; i < 2; i++)
		{
			REQUIRE(streamext_avro_bytes(&reader, &bytes, &size));
			avro_put(to, bytes, size);
		}
	}
	REQUIRE(reader.p == reader.end);
	appendStringInfoChar(to, 0);
	avro_put(to, event->body, event->body_size);
}

static void
avro_datum(const char *bytes, size_t size)
{
	AvroReader	   reader = { bytes, bytes + size };
	AvroEvent	   event, again;
	StringInfoData written, second;

	if (!streamext_avro_event(&reader, &event))
		return;
	REQUIRE(reader.p <= reader.end && event.body + event.body_size == reader.p);
	initStringInfo(&written);
	initStringInfo(&second);
	avro_write(&event, &written);
	reader.p = written.data;
	reader.end = written.data + written.len;
	REQUIRE(streamext_avro_event(&reader, &again) && reader.p == reader.end);
	avro_write(&again, &second);
	REQUIRE(second.len == written.len && memcmp(second.data, written.data, written.len) == 0);
}

static void
avro_number(const char *bytes, size_t size)
{
	AvroReader reader = { bytes, bytes + size }, again;
	char	   written[AVRO_LONG_SIZE];
	int64	   value, same;

	if (!streamext_avro_long(&reader, &value))
		return;
	again.p = written;
	again.end = written + streamext_avro_put_long(written, value);
	REQUIRE(streamext_avro_long(&again, &same) && same == value && again.p == again.end);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput in = { data, size };
	uint32	  what = fuzz_number(&in, 4);

	server_start();
	if (what >= 2)
		flume_fuzz(&streamext_flume_avro, in.data, in.size);
	else
	{
		size = in.size;
		if (what == 0)
			avro_datum(fuzz_copy(&in, size), size);
		else
			avro_number(fuzz_copy(&in, size), size);
	}
	server_reset();
	return 0;
}
