/*
 * decode/avro.c
 *		Avro's binary encoding. What the functions promise is in decode/avro.h.
 */
#include "base/streamext.h"

#include "decode/avro.h"

/* Seven bits a byte, the lowest first; the sign is in the lowest bit of all. */
bool
streamext_avro_long(AvroReader *reader, int64 *value)
{
	uint64 bits = 0;

	for (int shift = 0; shift < 64 && reader->p < reader->end; shift += 7)
	{
		uint8 byte = (uint8) *reader->p++;

		if (shift == 63 && byte > 1)
			return false;
		bits |= (uint64) (byte & 0x7f) << shift;
		if ((byte & 0x80) == 0)
		{
			*value = (int64) ((bits >> 1) ^ (~(bits & 1) + 1));
			return true;
		}
	}
	return false;
}

int
streamext_avro_put_long(char to[AVRO_LONG_SIZE], int64 value)
{
	uint64 bits = ((uint64) value << 1) ^ (uint64) (value >> 63);
	int	   n = 0;

	while (bits > 0x7f)
	{
		to[n++] = (char) ((bits & 0x7f) | 0x80);
		bits >>= 7;
	}
	to[n++] = (char) bits;
	return n;
}

bool
streamext_avro_bytes(AvroReader *reader, const char **bytes, uint32 *size)
{
	int64 length;

	if (!streamext_avro_long(reader, &length) || length < 0 || length > reader->end - reader->p)
		return false;
	*bytes = reader->p;
	*size = (uint32) length;
	reader->p += length;
	return true;
}

/* A negative number has the block's bytes behind it, which must be right. Items take a byte at least. */
bool
streamext_avro_item(AvroReader *reader, AvroItems *items, bool *more)
{
	*more = false;
	if (items->ended)
		return true;
	if (items->left == 0)
	{
		int64 count, bytes;

		if (items->block_end != NULL && items->block_end != reader->p)
			return false;
		items->block_end = NULL;
		if (!streamext_avro_long(reader, &count) || count < -PG_INT32_MAX)
			return false;
		if (count < 0)
		{
			if (!streamext_avro_long(reader, &bytes) || bytes < 0 || bytes > reader->end - reader->p)
				return false;
			items->block_end = reader->p + bytes;
		}
		items->left = count < 0 ? -count : count;
		items->ended = count == 0;
		if (items->left > reader->end - reader->p)
			return false;
	}
	*more = !items->ended;
	items->left -= *more;
	return true;
}

bool
streamext_avro_skip_map(AvroReader *reader)
{
	AvroItems	items = { 0 };
	const char *bytes;
	uint32		size;
	bool		more;

	while (streamext_avro_item(reader, &items, &more))
	{
		if (!more)
			return true;
		if (!streamext_avro_bytes(reader, &bytes, &size) || !streamext_avro_bytes(reader, &bytes, &size))
			return false;
	}
	return false;
}

bool
streamext_avro_event(AvroReader *reader, AvroEvent *event)
{
	event->headers.p = reader->p;
	if (!streamext_avro_skip_map(reader))
		return false;
	event->headers.end = reader->p;
	return streamext_avro_bytes(reader, &event->body, &event->body_size);
}
