/*
 * gateway/unpack.c
 *		gzip by zlib, zstd by libzstd. What the functions promise is in gateway/unpack.h.
 */
#include "base/streamext.h"

#include <zlib.h>
#include <zstd.h>

#include "gateway/unpack.h"

#define UNPACK_FIRST 16384
#define UNPACK_WINDOW_LOG 24 /* of zstd: what a frame may ask for is 16 MB */

/* Room for more behind `used`, up to one byte more than max, which then tells that it is too much. */
static bool
unpack_grow(char **body, Size used, Size *capacity, Size max)
{
	Size  wanted;
	char *larger;

	if (used < *capacity)
		return true;
	wanted = Min(Max(*capacity * 2, UNPACK_FIRST), max + 1);
	larger = realloc(*body, wanted);
	if (larger == NULL)
		return false;
	*body = larger;
	*capacity = wanted;
	return true;
}

static UnpackResult
unpack_end(UnpackResult result, char **body, Size used, Size *body_size)
{
	if (result != UNPACK_DONE)
	{
		free(*body);
		*body = NULL;
		used = 0;
	}
	*body_size = used;
	return result;
}

UnpackResult
streamext_unpack_gzip(const char *packed, Size size, Size max, char **body, Size *body_size)
{
	z_stream	 z = { .next_in = (Bytef *) packed, .avail_in = (uInt) size };
	Size		 used = 0, capacity = 0;
	UnpackResult result = UNPACK_DAMAGED;
	int			 code = Z_OK;

	*body = NULL;
	if (inflateInit2(&z, 15 + 16) != Z_OK)
		return unpack_end(UNPACK_MEMORY, body, 0, body_size);
	for (;;)
	{
		if (!unpack_grow(body, used, &capacity, max))
		{
			result = UNPACK_MEMORY;
			break;
		}
		z.next_out = (Bytef *) *body + used;
		z.avail_out = (uInt) (capacity - used);
		code = inflate(&z, Z_NO_FLUSH);
		used = (char *) z.next_out - *body;
		if (used > max)
		{
			result = UNPACK_LARGE;
			break;
		}
		if (code == Z_STREAM_END && z.avail_in == 0)
		{
			result = UNPACK_DONE;
			break;
		}
		if (code == Z_STREAM_END && inflateReset(&z) == Z_OK)
			continue;
		if (code != Z_OK || (z.avail_in == 0 && z.avail_out > 0))
			break; /* not gzip, or not whole */
	}
	inflateEnd(&z);
	return unpack_end(result, body, used, body_size);
}

UnpackResult
streamext_unpack_zstd(const char *packed, Size size, Size max, char **body, Size *body_size)
{
	ZSTD_DCtx	 *zstd = ZSTD_createDCtx();
	ZSTD_inBuffer in = { packed, size, 0 };
	Size		  used = 0, capacity = 0;
	UnpackResult  result = UNPACK_DAMAGED;

	*body = NULL;
	if (zstd == NULL || ZSTD_isError(ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, UNPACK_WINDOW_LOG)))
		result = UNPACK_MEMORY;
	else
		for (;;)
		{
			ZSTD_outBuffer out;
			size_t		   code;

			if (!unpack_grow(body, used, &capacity, max))
			{
				result = UNPACK_MEMORY;
				break;
			}
			out = (ZSTD_outBuffer){ *body, capacity, used };
			code = ZSTD_decompressStream(zstd, &out, &in);
			if (ZSTD_isError(code))
				break;
			used = out.pos;
			if (used > max)
			{
				result = UNPACK_LARGE;
				break;
			}
			if (code == 0 && in.pos == in.size)
			{
				result = UNPACK_DONE;
				break;
			}
			if (in.pos == in.size && out.pos < out.size)
				break; /* not whole */
		}
	ZSTD_freeDCtx(zstd);
	return unpack_end(result, body, used, body_size);
}
