/*
 * source/feed/frames.c
 *		Framing websocket: the frames of RFC 6455 as a server sends them, each message a record.
 *
 * No extension is agreed upon, so reserved bits are faults; so are masked frames, and lengths and orders that the standard forbids.
 */
#include "base/streamext.h"

#include "source/feed/cutter.h"

#define FRAME_FINAL 0x80
#define FRAME_RESERVED 0x70
#define FRAME_OPCODE 0x0F
#define FRAME_MASKED 0x80
#define FRAME_LENGTH 0x7F

static uint8
frame_byte(const FeedCutter *cutter, int i)
{
	return (uint8) cutter->header[i];
}

static int
frame_opcode(const FeedCutter *cutter)
{
	return frame_byte(cutter, 0) & FRAME_OPCODE;
}

/* How long the header is, as far as its first two bytes tell. */
static int
frame_header_size(const FeedCutter *cutter)
{
	if (cutter->header_size < 2)
		return 2;
	switch (frame_byte(cutter, 1) & FRAME_LENGTH)
	{
		case 126:
			return 4;
		case 127:
			return 10;
	}
	return 2;
}

static uint64
frame_length(const FeedCutter *cutter, int header_size)
{
	uint64 length = 0;

	if (header_size == 2)
		return frame_byte(cutter, 1) & FRAME_LENGTH;
	for (int i = 2; i < header_size; i++)
		length = length << 8 | frame_byte(cutter, i);
	return length;
}

/* With the header whole: what it says, or that it must not. */
static bool
frame_begin(FeedCutter *cutter, int header_size)
{
	int	 opcode = frame_opcode(cutter);
	bool final = (frame_byte(cutter, 0) & FRAME_FINAL) != 0;

	cutter->left = frame_length(cutter, header_size);
	if ((frame_byte(cutter, 0) & FRAME_RESERVED) != 0)
		return streamext_feed_cut_fault(cutter, "a websocket frame has reserved bits set");
	if ((frame_byte(cutter, 1) & FRAME_MASKED) != 0)
		return streamext_feed_cut_fault(cutter, "a websocket frame of the server is masked");
	if (cutter->left > PG_INT64_MAX)
		return streamext_feed_cut_fault(cutter, "a websocket frame has a length that is not allowed");
	cutter->control_size = 0;
	switch (opcode)
	{
		case 0:
			if (!cutter->begun)
				return streamext_feed_cut_fault(cutter, "a websocket message goes on that has not begun");
			return true;
		case FEED_WS_TEXT:
		case FEED_WS_BINARY:
			if (cutter->begun)
				return streamext_feed_cut_fault(cutter, "a websocket message begins within another one");
			cutter->begun = true;
			return true;
		case FEED_WS_CLOSE:
		case FEED_WS_PING:
		case FEED_WS_PONG:
			if (!final || cutter->left > FEED_WS_CONTROL_MAX)
				return streamext_feed_cut_fault(cutter, "a websocket control frame is too long or in pieces");
			return true;
	}
	return streamext_feed_cut_fault(cutter, "a websocket frame has an unknown opcode");
}

/* An empty message is none. */
static bool
frame_record(FeedCutter *cutter, const char *data, size_t size)
{
	return size == 0 || streamext_feed_cut_emit(cutter, data, size);
}

/* The frame at hand ends with these bytes of data. */
static bool
frame_end(FeedCutter *cutter, const char *data, size_t size)
{
	cutter->header_size = 0;
	if (frame_opcode(cutter) >= FEED_WS_CLOSE)
	{
		cutter->control(cutter->context, frame_opcode(cutter), cutter->frame_control, cutter->control_size);
		return true;
	}
	if ((frame_byte(cutter, 0) & FRAME_FINAL) == 0)
		return streamext_feed_cut_some(cutter, data, size, frame_record);
	cutter->begun = false;
	return streamext_feed_cut_rest(cutter, data, size, frame_record);
}

/* Takes what of the frame's payload is there; *used is how much. */
static bool
frame_payload(FeedCutter *cutter, const char *data, size_t size, size_t *used)
{
	size_t some = Min((uint64) size, cutter->left);

	*used = some;
	cutter->left -= some;
	if (frame_opcode(cutter) >= FEED_WS_CLOSE)
	{
		memcpy(cutter->frame_control + cutter->control_size, data, some);
		cutter->control_size += some;
	}
	if (cutter->left == 0)
		return frame_end(cutter, data, some);
	if (frame_opcode(cutter) >= FEED_WS_CLOSE)
		return true;
	return streamext_feed_cut_some(cutter, data, some, frame_record);
}

bool
streamext_feed_cut_frames(FeedCutter *cutter, const char *data, size_t size)
{
	size_t used;

	while (size > 0)
	{
		int header_size = frame_header_size(cutter);

		if (cutter->header_size == header_size)
		{
			if (!frame_payload(cutter, data, size, &used))
				return false;
			data += used;
			size -= used;
			continue;
		}
		cutter->header[cutter->header_size++] = *data++;
		size--;
		header_size = frame_header_size(cutter);
		if (cutter->header_size < header_size)
			continue;
		if (!frame_begin(cutter, header_size))
			return false;
		if (cutter->left == 0 && !frame_end(cutter, data, 0))
			return false;
	}
	return true;
}
