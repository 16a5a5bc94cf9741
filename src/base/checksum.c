/*
 * base/checksum.c
 *		PostgreSQL's CRC-32C of long runs of bytes, faster. What the function promises is in base/checksum.h.
 *
 * The processor's instruction waits for its last result for three times as long as it takes, so three lanes go side by side. A lane's
 * checksum is moved over the bytes of the next one by a table: that is linear, so the table is made of what PostgreSQL's function makes of
 * each bit and a lane of zeros. Where there is no such instruction, and for what is left at the end, PostgreSQL's function does it all.
 */
#include "postgres.h"

#include "base/checksum.h"

#define CHECKSUM_LANE 512 /* bytes */

#if defined(__x86_64__) && defined(__GNUC__)

typedef struct ChecksumShift
{
	bool   ready;
	uint32 of[4][256]; /* by byte of a checksum, from the low one */
} ChecksumShift;

static ChecksumShift checksum_shift;

static void
checksum_make_shift(void)
{
	static const char zeros[CHECKSUM_LANE];

	for (int byte = 0; byte < 4; byte++)
		for (int bit = 0; bit < 8; bit++)
		{
			pg_crc32c crc = (uint32) 1 << (8 * byte + bit);

			COMP_CRC32C(crc, zeros, CHECKSUM_LANE);
			for (int value = 0; value < 256; value++)
				if (value & (1 << bit))
					checksum_shift.of[byte][value] ^= crc;
		}
	checksum_shift.ready = true;
}

/* The checksum of what crc is of, with a lane of zeros behind it. */
static inline uint32
checksum_over_lane(uint32 crc)
{
	return checksum_shift.of[0][crc & 0xff] ^ checksum_shift.of[1][crc >> 8 & 0xff] ^
		   checksum_shift.of[2][crc >> 16 & 0xff] ^ checksum_shift.of[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32
checksum_three_lanes(uint32 crc, const char *at)
{
	uint64 lanes[3] = { crc, 0, 0 };

	for (int i = 0; i < CHECKSUM_LANE; i += sizeof(uint64))
	{
		uint64 words[3];

		memcpy(&words[0], at + i, sizeof(uint64));
		memcpy(&words[1], at + CHECKSUM_LANE + i, sizeof(uint64));
		memcpy(&words[2], at + 2 * CHECKSUM_LANE + i, sizeof(uint64));
		lanes[0] = __builtin_ia32_crc32di(lanes[0], words[0]);
		lanes[1] = __builtin_ia32_crc32di(lanes[1], words[1]);
		lanes[2] = __builtin_ia32_crc32di(lanes[2], words[2]);
	}
	return checksum_over_lane(checksum_over_lane((uint32) lanes[0]) ^ (uint32) lanes[1]) ^ (uint32) lanes[2];
}

/* Goes on over as many bytes as make whole lanes; how many. */
static Size
checksum_lanes(pg_crc32c *crc, const char *bytes, Size size)
{
	Size at = 0;

	if (size < 3 * CHECKSUM_LANE || !__builtin_cpu_supports("sse4.2"))
		return 0;
	if (!checksum_shift.ready)
		checksum_make_shift();
	for (; size - at >= 3 * CHECKSUM_LANE; at += 3 * CHECKSUM_LANE)
		*crc = checksum_three_lanes(*crc, bytes + at);
	return at;
}

#else

static Size
checksum_lanes(pg_crc32c *crc, const char *bytes, Size size)
{
	return 0;
}

#endif

pg_crc32c
streamext_checksum(const void *bytes, Size size)
{
	pg_crc32c crc;
	Size	  done;

	INIT_CRC32C(crc);
	done = checksum_lanes(&crc, bytes, size);
	COMP_CRC32C(crc, (const char *) bytes + done, size - done);
	FIN_CRC32C(crc);
	return crc;
}
