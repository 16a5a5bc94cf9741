/*
 * fuzz/flume.h
 *		What the targets flume_avro and flume_thrift have in common.
 */
#ifndef STREAMEXT_FUZZ_FLUME_H
#define STREAMEXT_FUZZ_FLUME_H

#include "fuzz.h"

#include "gateway/flume_call.h"
#include "source/flume/flume.h"

/* What is found in the bytes, as bytes: headers and bodies with their sizes, what was wrong, and the answers. */
static Size
flume_read(const FlumeProtocolOps *protocol, const uint8_t *data, size_t size, size_t piece, bool first,
		   StringInfo found)
{
	char		  *bytes = palloc(size + 1);
	FlumeFrame	   frame = { 0 };
	FlumeFraming   framing = FLUME_MORE;
	const char	  *fault = NULL, *error;
	size_t		   n = 0;
	FlumeCall	   call;
	StringInfoData head;
	FlumeEvent	   event = { .head = &head };

	memcpy(bytes, data, size);
	do
	{
		n = Min(n + piece, size);
		framing = protocol->frame(&frame, bytes, n, &fault);
	} while (framing == FLUME_MORE && n < size);
	if (framing != FLUME_WHOLE)
	{
		appendStringInfoString(found, framing == FLUME_FAULT ? "fault" : "more");
		REQUIRE(framing == FLUME_MORE || fault != NULL);
		return 0;
	}
	REQUIRE(frame.used <= n && frame.message >= bytes && frame.message + frame.size <= bytes + frame.used);
	initStringInfo(&head);
	error = protocol->call(&call, &frame, first);
	fault = NULL;
	while (error == NULL && !call.none && protocol->next(&call, &event, &fault))
	{
		FlumeHeader header;
		uint32		at = 0;

		REQUIRE(event.body >= frame.message && event.body + event.body_size <= frame.message + frame.size);
		while (streamext_flume_head_next(head.data, head.len, &at, &header))
			REQUIRE(header.value + header.value_size <= head.data + head.len);
		REQUIRE(at == (uint32) head.len || (at == 0 && head.len == 1) || at == 1);
		appendBinaryStringInfo(found, (char *) &head.len, sizeof(head.len));
		appendBinaryStringInfo(found, head.data, head.len);
		appendBinaryStringInfo(found, (char *) &event.body_size, sizeof(event.body_size));
		appendBinaryStringInfo(found, event.body, event.body_size);
	}
	appendStringInfoString(found, error != NULL ? error : fault != NULL ? fault : "taken");
	protocol->answer(&call, error != NULL ? error : fault, found);
	if (error == NULL && fault == NULL)
		REQUIRE(call.p == call.end);
	return frame.used;
}

/* In pieces as whole. */
static void
flume_fuzz(const FlumeProtocolOps *protocol, const uint8_t *data, size_t size)
{
	FuzzInput	   in = { data, size };
	bool		   first = fuzz_number(&in, 2) == 0;
	size_t		   piece = 1 + fuzz_number(&in, 64);
	StringInfoData whole, pieces;
	Size		   used;

	initStringInfo(&whole);
	initStringInfo(&pieces);
	used = flume_read(protocol, in.data, in.size, in.size + 1, first, &whole);
	REQUIRE(used == flume_read(protocol, in.data, in.size, piece, first, &pieces));
	REQUIRE(whole.len == pieces.len && memcmp(whole.data, pieces.data, whole.len) == 0);
}

#endif /* STREAMEXT_FUZZ_FLUME_H */
