/*
 * sources: aggregate/portable_format
 *
 * Portable partials, checksums right: what is opened lies within the bytes and is written the same again; values lie within the body and end where
 * it ends.
 */
#include "fuzz.h"

#include "aggregate/portable.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput	   in = { data, size };
	StringInfoData forged, again;
	PortableHead   head;
	PortableCursor cursor;
	uint32		   magic = STREAMEXT_PORTABLE_MAGIC;
	const char	  *bytes;
	int32		   length;

	server_start();
	initStringInfo(&forged);
	appendBinaryStringInfo(&forged, (const char *) in.data, in.size);
	if (size >= 8)
	{
		memcpy(forged.data, &magic, sizeof(magic));
		streamext_portable_end(&forged);
	}
	if (size >= PORTABLE_HEADER)
	{
		/* no fuzzer guesses a fingerprint */
		uint32 named;

		memcpy(&named, forged.data + 12, sizeof(named));
		if (named > 0 && named <= size - PORTABLE_HEADER)
		{
			uint64 fingerprint = streamext_portable_fingerprint(forged.data + PORTABLE_HEADER, named);

			memcpy(forged.data + 16, &fingerprint, sizeof(fingerprint));
			streamext_portable_end(&forged);
		}
	}
	/* in memory of its own size */
	bytes = memcpy(palloc(Max(forged.len, 1)), forged.data, forged.len);
	if (streamext_portable_open(bytes, forged.len, &head))
	{
		REQUIRE(head.body + head.body_size == bytes + forged.len);
		initStringInfo(&again);
		streamext_portable_begin(&again, &head);
		appendBinaryStringInfo(&again, head.body, head.body_size);
		streamext_portable_end(&again);
		REQUIRE(again.len == forged.len && memcmp(again.data, forged.data, again.len) == 0);
		cursor = (PortableCursor){ head.body, head.body_size };
		while (streamext_portable_value(&cursor, &bytes, &length))
		{
			REQUIRE(length >= -1 && cursor.at + cursor.left == head.body + head.body_size);
			REQUIRE(length <= 0 || fuzz_copy(&(FuzzInput){ (const uint8_t *) bytes, length }, length) != NULL);
		}
	}
	server_reset();
	return 0;
}
