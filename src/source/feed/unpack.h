/*
 * source/feed/unpack.h
 *		The bytes of an answer's body, unpacked piece by piece: how much comes of a read is for who takes the pieces to bound, not for the server.
 */
#ifndef STREAMEXT_FEED_UNPACK_H
#define STREAMEXT_FEED_UNPACK_H

#include "base/streamext.h"

#include <zlib.h>

#define FEED_UNPACK_PIECE 65536

typedef struct FeedUnpack
{
	bool	 packed; /* gzip or zlib's; else the pieces are the bytes themselves */
	bool	 ended;	 /* between two members */
	z_stream z;
	char	 piece[FEED_UNPACK_PIECE];
} FeedUnpack;

/* For a new body. False: out of memory. */
extern bool streamext_feed_unpack_begin(FeedUnpack *unpack, bool packed);

/*
 * The next piece, of FEED_UNPACK_PIECE bytes at most, good until the next call; moves *data and *size past what it is of. Size 0: there is none
 * before more data. False: the bytes are damaged.
 */
extern bool streamext_feed_unpack(FeedUnpack *unpack, const char **data, size_t *size, const char **piece,
								  size_t *piece_size);

/* Whether the bytes that came end within what they are packed in: more was to come, whatever the server says. */
extern bool streamext_feed_unpack_is_cut(const FeedUnpack *unpack);

extern void streamext_feed_unpack_end(FeedUnpack *unpack);

#endif /* STREAMEXT_FEED_UNPACK_H */
