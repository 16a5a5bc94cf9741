/*
 * source/flume/head.c
 *		An event's headers as its entry in the journal has them. The format and what the functions promise are in source/flume/flume.h.
 */
#include "base/streamext.h"

#include "source/flume/flume.h"

#define HEAD_VERSION 1
#define HEAD_SIZES (2 * sizeof(uint32))

void
streamext_flume_head_begin(StringInfo head)
{
	resetStringInfo(head);
	appendStringInfoChar(head, HEAD_VERSION);
}

void
streamext_flume_head_add(StringInfo head, const FlumeHeader *header)
{
	uint32 sizes[2] = { header->name_size, header->value_size };

	appendBinaryStringInfo(head, (char *) sizes, sizeof(sizes));
	appendBinaryStringInfo(head, header->name, header->name_size);
	appendBinaryStringInfo(head, header->value, header->value_size);
}

bool
streamext_flume_head_next(const char *head, uint32 size, uint32 *at, FlumeHeader *header)
{
	uint32 sizes[2];
	uint64 end;

	if (*at == 0)
	{
		if (size == 0 || head[0] != HEAD_VERSION)
			return false;
		*at = 1;
	}
	end = (uint64) *at + HEAD_SIZES;
	if (end > size)
		return false;
	memcpy(sizes, head + *at, sizeof(sizes));
	if (end + sizes[0] + sizes[1] > size)
		return false;
	header->name = head + end;
	header->name_size = sizes[0];
	header->value = header->name + sizes[0];
	header->value_size = sizes[1];
	*at = (uint32) (end + sizes[0] + sizes[1]);
	return true;
}

bool
streamext_flume_head_find(const char *head, uint32 size, const char *name, FlumeHeader *header)
{
	Size		wanted = strlen(name);
	uint32		at = 0;
	bool		found = false;
	FlumeHeader one;

	while (streamext_flume_head_next(head, size, &at, &one))
		if (one.name_size == wanted && memcmp(one.name, name, wanted) == 0)
		{
			*header = one;
			found = true;
		}
	return found;
}
