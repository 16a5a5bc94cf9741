/*
 * aggregate/portable_format.c
 *		The bytes of a portable partial (aggregate/portable.h), apart from what they mean. No catalogue, nothing is raised.
 */
#include "base/compat.h"

#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "port/pg_crc32c.h"

#include "aggregate/portable.h"

static uint32
format_checksum(const char *bytes, Size size)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, bytes + 2 * sizeof(uint32), size - 2 * sizeof(uint32));
	FIN_CRC32C(crc);
	return crc;
}

uint64
streamext_portable_fingerprint(const char *definition, Size size)
{
	return hash_bytes_extended((const unsigned char *) definition, (int) size, 0);
}

bool
streamext_portable_open(const char *bytes, Size size, PortableHead *head)
{
	uint32 numbers[2];
	uint8  small[4];

	if (size < PORTABLE_HEADER)
		return false;
	memcpy(numbers, bytes, sizeof(numbers));
	if (numbers[0] != STREAMEXT_PORTABLE_MAGIC || numbers[1] != format_checksum(bytes, size))
		return false;
	memcpy(small, bytes + 8, sizeof(small));
	memcpy(&head->definition_size, bytes + 12, sizeof(uint32));
	memcpy(&head->fingerprint, bytes + 16, sizeof(uint64));
	if (small[0] > AGG_VALUES || small[1] > PORTABLE_NAMED || small[2] >= _PG_LAST_ENCODING_ || small[3] != 0)
		return false;
	if ((small[1] == PORTABLE_NAMED) != (head->definition_size > 0) ||
		head->definition_size > PORTABLE_MAX_DEFINITION || head->definition_size > size - PORTABLE_HEADER)
		return false;
	head->mode = small[0];
	head->encoding = small[2];
	head->definition = small[1] == PORTABLE_NAMED ? bytes + PORTABLE_HEADER : NULL;
	head->body = bytes + PORTABLE_HEADER + head->definition_size;
	head->body_size = size - PORTABLE_HEADER - head->definition_size;
	return head->definition == NULL ||
		   (memchr(head->definition, '\0', head->definition_size) == NULL &&
			head->fingerprint == streamext_portable_fingerprint(head->definition, head->definition_size));
}

void
streamext_portable_begin(StringInfo to, const PortableHead *head)
{
	uint32 numbers[2] = { STREAMEXT_PORTABLE_MAGIC, 0 };
	uint8  small[4] = { head->mode, head->definition != NULL ? PORTABLE_NAMED : 0, head->encoding, 0 };
	uint32 size = head->definition != NULL ? head->definition_size : 0;

	appendBinaryStringInfo(to, (char *) numbers, sizeof(numbers));
	appendBinaryStringInfo(to, (char *) small, sizeof(small));
	appendBinaryStringInfo(to, (char *) &size, sizeof(size));
	appendBinaryStringInfo(to, (char *) &head->fingerprint, sizeof(head->fingerprint));
	if (size > 0)
		appendBinaryStringInfo(to, head->definition, size);
}

void
streamext_portable_end(StringInfo to)
{
	uint32 checksum = format_checksum(to->data, to->len);

	memcpy(to->data + sizeof(uint32), &checksum, sizeof(checksum));
}

bool
streamext_portable_value(PortableCursor *cursor, const char **bytes, int32 *size)
{
	if (cursor->left < sizeof(int32))
		return false;
	memcpy(size, cursor->at, sizeof(int32));
	if (*size < -1 || (*size > 0 && (Size) *size > cursor->left - sizeof(int32)))
		return false;
	*bytes = cursor->at + sizeof(int32);
	cursor->at += sizeof(int32) + Max(*size, 0);
	cursor->left -= sizeof(int32) + Max(*size, 0);
	return true;
}
