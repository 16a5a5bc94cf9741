/*
 * gateway/flume_avro.c
 *		Avro's remote calls over Netty's framing, as Flume's Avro sink makes them. What the functions promise is in gateway/flume_call.h.
 *
 * On the wire: a serial number, a number of buffers, and each buffer's length and bytes (32 bits each, the highest byte first); the buffers
 * together are the message. It is: in a connection's first call a handshake; metadata, a map; the call's name; its arguments. The answer has the
 * same framing and serial: where there was a handshake its answer, metadata, whether it is an error, and a value of the enum or the error's text.
 *
 * The handshake names protocols by their hashes and asks whether we speak them. Each version of Flume has the same one, so the answer is yes
 * whatever the hash: what is not of it is found when it is read.
 */
#include "base/streamext.h"

#include "decode/avro.h"
#include "gateway/flume_call.h"
#include "source/flume/flume.h"

#define AVRO_HASH 16
#define AVRO_HEAD 8 /* serial, number of buffers */

/* ---- frames ---- */

/* Moves the buffers together: each length before them goes. */
static void
avro_join(FlumeFrame *frame, char *bytes)
{
	Size from = AVRO_HEAD, to = AVRO_HEAD;

	while (from < frame->at)
	{
		uint32 size = flume_get32(bytes + from);

		memmove(bytes + to, bytes + from + 4, size);
		from += 4 + (Size) size;
		to += size;
	}
	frame->message = bytes + AVRO_HEAD;
	frame->size = to - AVRO_HEAD;
	frame->used = frame->at;
}

static FlumeFraming
avro_frame(FlumeFrame *frame, char *bytes, Size size, const char **fault)
{
	if (!frame->begun)
	{
		if (size < AVRO_HEAD)
			return FLUME_MORE;
		frame->serial = flume_get32(bytes);
		frame->left = flume_get32(bytes + 4);
		frame->at = AVRO_HEAD;
		frame->begun = true;
	}
	*fault = "what comes is not Avro's remote call, or it is larger than 64 MB";
	if (frame->left > FLUME_MAX_MESSAGE / 4)
		return FLUME_FAULT;
	while (frame->left > 0 && frame->at <= size && size - frame->at >= 4)
	{
		uint32 length = flume_get32(bytes + frame->at);

		if (length > FLUME_MAX_MESSAGE || frame->at + 4 + length > FLUME_MAX_MESSAGE)
			return FLUME_FAULT;
		frame->at += 4 + (Size) length;
		frame->left--;
	}
	if (frame->left > 0 || frame->at > size)
		return FLUME_MORE;
	avro_join(frame, bytes);
	return FLUME_WHOLE;
}

/* ---- calls ---- */

/* A union of null and something else: *there. */
static bool
avro_optional(AvroReader *reader, bool *there)
{
	int64 branch;

	*there = false;
	if (!streamext_avro_long(reader, &branch) || branch < 0 || branch > 1)
		return false;
	*there = branch == 1;
	return true;
}

/* The client's hash, its protocol or null, the hash that it thinks is ours, metadata or null. */
static bool
avro_handshake(AvroReader *reader)
{
	const char *bytes;
	uint32		size;
	bool		there;

	if (reader->end - reader->p < AVRO_HASH)
		return false;
	reader->p += AVRO_HASH;
	if (!avro_optional(reader, &there) || (there && !streamext_avro_bytes(reader, &bytes, &size)))
		return false;
	if (reader->end - reader->p < AVRO_HASH)
		return false;
	reader->p += AVRO_HASH;
	return avro_optional(reader, &there) && (!there || streamext_avro_skip_map(reader));
}

static bool
avro_is(const FlumeCall *call, const char *name)
{
	return call->name_size == strlen(name) && memcmp(call->name, name, call->name_size) == 0;
}

static const char *
avro_call(FlumeCall *call, const FlumeFrame *frame, bool first)
{
	AvroReader reader = { frame->message, frame->message + frame->size };

	memset(call, 0, sizeof(*call));
	call->serial = frame->serial;
	if (first && !avro_handshake(&reader))
		return "the first call of the connection has no handshake";
	call->handshake = first;
	if (!streamext_avro_skip_map(&reader) || !streamext_avro_bytes(&reader, &call->name, &call->name_size))
		return "the call is not whole";
	call->p = call->events = reader.p;
	call->end = reader.end;
	if (call->name_size == 0 && reader.p == reader.end)
		call->none = true; /* only the handshake was wanted */
	else if (avro_is(call, "appendBatch"))
		call->batch = true;
	else if (!avro_is(call, "append"))
		return "the call is none of append and appendBatch";
	call->left = call->batch || call->none ? 0 : 1;
	call->ended = call->none;
	return NULL;
}

static bool
avro_head(const AvroEvent *event, StringInfo head)
{
	AvroReader	reader = event->headers;
	AvroItems	items = { 0 };
	FlumeHeader header;
	bool		more;

	streamext_flume_head_begin(head);
	while (streamext_avro_item(&reader, &items, &more))
	{
		if (!more)
			return true;
		if (!streamext_avro_bytes(&reader, &header.name, &header.name_size) ||
			!streamext_avro_bytes(&reader, &header.value, &header.value_size) ||
			!flume_head_takes(head->len, header.name_size, header.value_size))
			return false;
		streamext_flume_head_add(head, &header);
	}
	return false;
}

static bool
avro_next(FlumeCall *call, FlumeEvent *event, const char **fault)
{
	AvroReader reader = { call->p, call->end };
	AvroItems  items = { call->left, call->block_end, call->ended };
	AvroEvent  read;
	bool	   more = items.left > 0;

	*fault = NULL;
	if (call->batch && !streamext_avro_item(&reader, &items, &more))
	{
		*fault = "the list of events is not whole";
		return false;
	}
	call->left = call->batch ? items.left : 0;
	call->block_end = items.block_end;
	call->ended = items.ended;
	if (more && (!streamext_avro_event(&reader, &read) || !avro_head(&read, event->head)))
	{
		*fault = "an event is not whole, or its headers are too large";
		return false;
	}
	call->p = reader.p;
	if (!more && reader.p != reader.end)
		*fault = "there is more behind the events";
	event->body = more ? read.body : NULL;
	event->body_size = more ? read.body_size : 0;
	return more;
}

/* ---- answers ---- */

/* To the handshake: we are one (the enum's BOTH), and three nulls. */
static const char avro_both[4] = { 0, 0, 0, 0 };

static void
avro_answer(const FlumeCall *call, const char *error, StringInfo to)
{
	char		   length[AVRO_LONG_SIZE];
	StringInfoData message;

	initStringInfo(&message);
	if (call->handshake)
		appendBinaryStringInfo(&message, avro_both, sizeof(avro_both));
	appendStringInfoChar(&message, 0); /* no metadata */
	appendStringInfoChar(&message, error != NULL);
	appendStringInfoChar(&message, 0); /* OK, or the error's branch that is a text */
	if (error != NULL)
	{
		appendBinaryStringInfo(&message, length, streamext_avro_put_long(length, strlen(error)));
		appendStringInfoString(&message, error);
	}
	flume_put32(to, call->serial);
	flume_put32(to, 1);
	flume_put32(to, message.len);
	appendBinaryStringInfo(to, message.data, message.len);
	pfree(message.data);
}

const FlumeProtocolOps streamext_flume_avro = {
	.frame = avro_frame,
	.call = avro_call,
	.next = avro_next,
	.answer = avro_answer,
};
