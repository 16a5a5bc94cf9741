#include "postgres.h"

#include "base/checksum.h"
#include "unit.h"

static pg_crc32c
checksum_plain(const char *bytes, Size size)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, bytes, size);
	FIN_CRC32C(crc);
	return crc;
}

void
test_checksum(void)
{
	static char bytes[16 * 1024];
	uint32		state = 7;

	CHECK(streamext_checksum("123456789", 9) == 0xe3069283);
	for (int i = 0; i < lengthof(bytes); i++)
	{
		state = state * 1664525 + 1013904223;
		bytes[i] = (char) (state >> 24);
	}
	for (int at = 0; at < 9; at++)
		for (int size = 0; size < lengthof(bytes) - at; size += size < 64 ? 1 : 61)
			CHECK(streamext_checksum(bytes + at, size) == checksum_plain(bytes + at, size));
	memset(bytes, 0, sizeof(bytes));
	CHECK(streamext_checksum(bytes, sizeof(bytes)) == checksum_plain(bytes, sizeof(bytes)));
	bytes[5000] = 1;
	CHECK(streamext_checksum(bytes, sizeof(bytes)) == checksum_plain(bytes, sizeof(bytes)));
}
