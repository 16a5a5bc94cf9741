/*
 * base/checksum.h
 *		PostgreSQL's CRC-32C of long runs of bytes, faster.
 */
#ifndef STREAMEXT_CHECKSUM_H
#define STREAMEXT_CHECKSUM_H

#include "port/pg_crc32c.h"

/* What INIT_CRC32C, COMP_CRC32C and FIN_CRC32C give. The first call is the main thread's. */
extern pg_crc32c streamext_checksum(const void *bytes, Size size);

#endif /* STREAMEXT_CHECKSUM_H */
