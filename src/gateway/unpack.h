/*
 * gateway/unpack.h
 *		Bodies that are packed: gzip and zstd, never unpacked beyond a bound.
 */
#ifndef STREAMEXT_UNPACK_H
#define STREAMEXT_UNPACK_H

#include "base/streamext.h"

typedef enum UnpackResult
{
	UNPACK_DONE,
	UNPACK_LARGE,	/* more than max */
	UNPACK_DAMAGED, /* or not whole */
	UNPACK_MEMORY
} UnpackResult;

/* malloc'd. Several members or frames behind one another are one body. */
extern UnpackResult streamext_unpack_gzip(const char *packed, Size size, Size max, char **body, Size *body_size);
extern UnpackResult streamext_unpack_zstd(const char *packed, Size size, Size max, char **body, Size *body_size);

#endif /* STREAMEXT_UNPACK_H */
