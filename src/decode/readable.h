/*
 * decode/readable.h
 *		Bytes of a record as a person can read them.
 */
#ifndef STREAMEXT_DECODE_READABLE_H
#define STREAMEXT_DECODE_READABLE_H

#include "base/streamext.h"

/* Text as it is; bytes that are no UTF-8, and NULs, as \xNN. Palloc'd. */
extern text *streamext_readable(const char *bytes, Size size);

#endif /* STREAMEXT_DECODE_READABLE_H */
