/*
 * source/feed/unpack.c
 *		A feed's packed bytes by zlib (source/feed/unpack.h). libcurl would unpack all that it has read before anybody may say that it is enough.
 */
#include "base/streamext.h"

#include "source/feed/unpack.h"

#define UNPACK_ANY_WINDOW (15 + 32) /* gzip's head or zlib's */

bool
streamext_feed_unpack_begin(FeedUnpack *unpack, bool packed)
{
	streamext_feed_unpack_end(unpack);
	memset(&unpack->z, 0, sizeof(unpack->z));
	unpack->ended = false;
	unpack->packed = packed && inflateInit2(&unpack->z, UNPACK_ANY_WINDOW) == Z_OK;
	return unpack->packed == packed;
}

void
streamext_feed_unpack_end(FeedUnpack *unpack)
{
	if (unpack->packed)
		(void) inflateEnd(&unpack->z);
	unpack->packed = false;
}

bool
streamext_feed_unpack_is_cut(const FeedUnpack *unpack)
{
	return unpack->packed && !unpack->ended && unpack->z.total_in > 0;
}

/* Bytes as they are. */
static bool
unpack_plain(const char **data, size_t *size, const char **piece, size_t *piece_size)
{
	*piece = *data;
	*piece_size = Min(*size, FEED_UNPACK_PIECE);
	*data += *piece_size;
	*size -= *piece_size;
	return true;
}

bool
streamext_feed_unpack(FeedUnpack *unpack, const char **data, size_t *size, const char **piece, size_t *piece_size)
{
	z_stream *z = &unpack->z;

	if (!unpack->packed)
		return unpack_plain(data, size, piece, piece_size);
	*piece = unpack->piece;
	*piece_size = 0;
	do
	{
		uInt some = (uInt) Min(*size, FEED_UNPACK_PIECE);
		int	 code;

		if (unpack->ended && some > 0)
		{
			(void) inflateReset(z);
			unpack->ended = false;
		}
		z->next_in = (Bytef *) *data;
		z->avail_in = some;
		z->next_out = (Bytef *) unpack->piece;
		z->avail_out = FEED_UNPACK_PIECE;
		code = unpack->ended ? Z_BUF_ERROR : inflate(z, Z_NO_FLUSH);
		*data += some - z->avail_in;
		*size -= some - z->avail_in;
		*piece_size = FEED_UNPACK_PIECE - z->avail_out;
		unpack->ended = unpack->ended || code == Z_STREAM_END;
		if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
			return false;
	} while (*piece_size == 0 && *size > 0);
	return true;
}
