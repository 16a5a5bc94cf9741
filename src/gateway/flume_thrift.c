/*
 * gateway/flume_thrift.c
 *		Thrift's compact protocol in frames, as Flume's Thrift sink speaks it. What the functions promise is in gateway/flume_call.h.
 *
 * On the wire: a frame's length (32 bits, the highest byte first) and its bytes. A message is the protocol's byte, version and kind, a number
 * that the answer repeats, the call's name, and a struct of arguments. In a struct each field has a byte with its type and how much its number
 * is above the last one's, and a byte 0 ends it. Numbers have seven bits a byte, the lowest first.
 *
 *	append:      1: struct event                event: 1: map of texts headers, 2: bytes body
 *	appendBatch: 1: list of struct event        the answer: 0: i32, of the enum 0 is OK
 */
#include "base/streamext.h"

#include "gateway/flume_call.h"
#include "source/flume/flume.h"

#define THRIFT_PROTOCOL 0x82
#define THRIFT_VERSION 1
#define THRIFT_CALL 1
#define THRIFT_REPLY 2
#define THRIFT_EXCEPTION 3
#define THRIFT_INTERNAL_ERROR 6

/* Bytes of a name that is not known, in the answer: who does not take that would hold it here. */
#define THRIFT_REPEATED 64

/* types of fields */
#define THRIFT_I32 5
#define THRIFT_BINARY 8
#define THRIFT_LIST 9
#define THRIFT_MAP 11
#define THRIFT_STRUCT 12

#define THRIFT_FIELD(above, type) ((above) << 4 | (type))

static FlumeFraming
thrift_frame(FlumeFrame *frame, char *bytes, Size size, const char **fault)
{
	uint32 length;

	if (size < 4)
		return FLUME_MORE;
	length = flume_get32(bytes);
	*fault = "what comes is not a Thrift frame, or it is larger than 64 MB";
	if (length > FLUME_MAX_MESSAGE)
		return FLUME_FAULT;
	if (size - 4 < length)
		return FLUME_MORE;
	frame->message = bytes + 4;
	frame->size = length;
	frame->used = 4 + (Size) length;
	return FLUME_WHOLE;
}

/* ---- reading ---- */

static bool
thrift_byte(FlumeCall *call, uint8 *byte)
{
	if (call->p >= call->end)
		return false;
	*byte = (uint8) *call->p++;
	return true;
}

static bool
thrift_number(FlumeCall *call, uint32 *number)
{
	uint8 byte;

	*number = 0;
	for (int shift = 0; shift < 35; shift += 7)
	{
		if (!thrift_byte(call, &byte) || (shift == 28 && byte > 0x0f))
			return false;
		*number |= (uint32) (byte & 0x7f) << shift;
		if ((byte & 0x80) == 0)
			return true;
	}
	return false;
}

/* *bytes and *size are set together. */
static bool
thrift_bytes(FlumeCall *call, const char **bytes, uint32 *size)
{
	uint32 length;

	if (!thrift_number(call, &length) || length > call->end - call->p)
		return false;
	*bytes = call->p;
	*size = length;
	call->p += length;
	return true;
}

static bool
thrift_expect(FlumeCall *call, uint8 expected)
{
	uint8 byte = 0;

	return thrift_byte(call, &byte) && byte == expected;
}

/* A list of structs: up to 14 in the byte itself. */
static bool
thrift_list(FlumeCall *call, int64 *count)
{
	uint8  byte;
	uint32 number;

	if (!thrift_byte(call, &byte) || (byte & 0x0f) != THRIFT_STRUCT)
		return false;
	*count = byte >> 4;
	if (*count == 15)
	{
		if (!thrift_number(call, &number))
			return false;
		*count = number;
	}
	return *count <= call->end - call->p;
}

static bool
thrift_is(const FlumeCall *call, const char *name)
{
	return call->name_size == strlen(name) && memcmp(call->name, name, call->name_size) == 0;
}

static const char *
thrift_call(FlumeCall *call, const FlumeFrame *frame, bool first)
{
	uint8 version;

	memset(call, 0, sizeof(*call));
	call->p = frame->message;
	call->end = frame->message + frame->size;
	if (!thrift_expect(call, THRIFT_PROTOCOL) || !thrift_byte(call, &version) ||
		version != (THRIFT_CALL << 5 | THRIFT_VERSION))
		return "the message is not a call in Thrift's compact protocol";
	if (!thrift_number(call, &call->serial) || !thrift_bytes(call, &call->name, &call->name_size))
		return "the call is not whole";
	call->events = call->p;
	if (thrift_is(call, "appendBatch"))
	{
		call->batch = true;
		if (!thrift_expect(call, THRIFT_FIELD(1, THRIFT_LIST)) || !thrift_list(call, &call->left))
			return "the argument of appendBatch is not a list of events";
	}
	else if (thrift_is(call, "append"))
	{
		call->left = 1;
		if (!thrift_expect(call, THRIFT_FIELD(1, THRIFT_STRUCT)))
			return "the argument of append is not an event";
	}
	else
	{
		call->name_size = Min(call->name_size, THRIFT_REPEATED);
		return "the call is none of append and appendBatch";
	}
	return NULL;
}

static bool
thrift_headers(FlumeCall *call, StringInfo head)
{
	FlumeHeader header;
	uint32		count;

	streamext_flume_head_begin(head);
	if (!thrift_number(call, &count) || count > call->end - call->p)
		return false;
	if (count > 0 && !thrift_expect(call, THRIFT_BINARY << 4 | THRIFT_BINARY))
		return false;
	for (uint32 i = 0; i < count; i++)
	{
		if (!thrift_bytes(call, &header.name, &header.name_size) ||
			!thrift_bytes(call, &header.value, &header.value_size) ||
			!flume_head_takes(head->len, header.name_size, header.value_size))
			return false;
		streamext_flume_head_add(head, &header);
	}
	return true;
}

static bool
thrift_next(FlumeCall *call, FlumeEvent *event, const char **fault)
{
	*fault = NULL;
	if (call->left == 0)
	{
		if (!thrift_expect(call, 0) || call->p != call->end)
			*fault = "the arguments do not end behind the events";
		return false;
	}
	call->left--;
	if (thrift_expect(call, THRIFT_FIELD(1, THRIFT_MAP)) && thrift_headers(call, event->head) &&
		thrift_expect(call, THRIFT_FIELD(1, THRIFT_BINARY)) && thrift_bytes(call, &event->body, &event->body_size) &&
		thrift_expect(call, 0))
		return true;
	*fault = "an event is not one, or not whole, or its headers are too large";
	return false;
}

/* ---- answers ---- */

static void
thrift_put_number(StringInfo to, uint32 number)
{
	while (number > 0x7f)
	{
		appendStringInfoChar(to, (char) ((number & 0x7f) | 0x80));
		number >>= 7;
	}
	appendStringInfoChar(to, (char) number);
}

static void
thrift_put_bytes(StringInfo to, const char *bytes, Size size)
{
	thrift_put_number(to, size);
	appendBinaryStringInfo(to, bytes, size);
}

/* The field 0 is not above the last one, which is 0 too: then its number follows. An exception's fields are its text and its kind. */
static void
thrift_answer(const FlumeCall *call, const char *error, StringInfo to)
{
	StringInfoData message;

	initStringInfo(&message);
	appendStringInfoChar(&message, (char) THRIFT_PROTOCOL);
	appendStringInfoChar(&message, (char) ((error != NULL ? THRIFT_EXCEPTION : THRIFT_REPLY) << 5 | THRIFT_VERSION));
	thrift_put_number(&message, call->serial);
	thrift_put_bytes(&message, call->name != NULL ? call->name : "", call->name_size);
	if (error != NULL)
	{
		appendStringInfoChar(&message, THRIFT_FIELD(1, THRIFT_BINARY));
		thrift_put_bytes(&message, error, strlen(error));
		appendStringInfoChar(&message, THRIFT_FIELD(1, THRIFT_I32));
		thrift_put_number(&message, THRIFT_INTERNAL_ERROR * 2);
	}
	else
	{
		appendStringInfoChar(&message, THRIFT_FIELD(0, THRIFT_I32));
		thrift_put_number(&message, 0);
		thrift_put_number(&message, 0);
	}
	appendStringInfoChar(&message, 0);
	flume_put32(to, message.len);
	appendBinaryStringInfo(to, message.data, message.len);
	pfree(message.data);
}

const FlumeProtocolOps streamext_flume_thrift = {
	.frame = thrift_frame,
	.call = thrift_call,
	.next = thrift_next,
	.answer = thrift_answer,
};
