/*
 * sources: gateway/cut gateway/unpack source/journal/block
 *
 * A body cut into records, in each way, and unpacked before. The block holds as many entries as are told, back to back, each of bytes of the body; an array
 * that is put together from its elements is cut into the same ones; nothing is unpacked beyond its bound.
 */
#include "fuzz.h"
#include "gateway/cut.h"
#include "gateway/unpack.h"
#include "lib/stringinfo.h"

#define FUZZ_UNPACKED 65536

/* The payload of the entry at *at, which moves behind it. */
static const char *
fuzz_entry(const StringInfo block, uint32 *at, uint32 *size)
{
	uint32 sizes[2];

	REQUIRE(*at + sizeof(sizes) <= (uint32) block->len);
	memcpy(sizes, block->data + *at, sizeof(sizes));
	REQUIRE(sizes[1] == 0 && sizes[0] > 0);
	*at += sizeof(sizes);
	REQUIRE(*at + sizes[0] <= (uint32) block->len);
	*size = sizes[0];
	*at += sizes[0];
	return block->data + *at - sizes[0];
}

static void
fuzz_cut(CutKind kind, const char *body, size_t size)
{
	StringInfoData block, array, again;
	CutResult	   result, second;
	uint32		   at = 0;
	int64		   n = 0;

	initStringInfo(&block);
	initStringInfo(&array);
	initStringInfo(&again);
	result = streamext_cut(kind, body, size, '"', &block);
	while (at < (uint32) block.len)
	{
		uint32		length;
		const char *payload = fuzz_entry(&block, &at, &length);

		REQUIRE(memmem(body, size, payload, length) != NULL);
		appendStringInfoString(&array, n++ == 0 ? "[" : " , ");
		appendBinaryStringInfo(&array, payload, length);
	}
	REQUIRE(n == result.records);
	if (kind != CUT_JSON || result.error != NULL || n == 0)
		return;
	appendStringInfoChar(&array, ']');
	second = streamext_cut(CUT_JSON, array.data, array.len, '"', &again);
	REQUIRE(second.error == NULL && second.records == n);
	REQUIRE(again.len == block.len && memcmp(again.data, block.data, block.len) == 0);
}

static void
fuzz_unpack(const char *body, size_t size)
{
	char *unpacked;
	Size  n;

	if (streamext_unpack_gzip(body, size, FUZZ_UNPACKED, &unpacked, &n) == UNPACK_DONE)
		REQUIRE(n <= FUZZ_UNPACKED);
	free(unpacked);
	if (streamext_unpack_zstd(body, size, FUZZ_UNPACKED, &unpacked, &n) == UNPACK_DONE)
		REQUIRE(n <= FUZZ_UNPACKED);
	free(unpacked);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput in = { data, size };
	uint32	  kind = fuzz_number(&in, 5);
	char	 *body;

	server_start();
	size = in.size;
	body = fuzz_copy(&in, size);
	if (kind > CUT_RAW)
		fuzz_unpack(body, size);
	else
		fuzz_cut((CutKind) kind, body, size);
	server_reset();
	return 0;
}
