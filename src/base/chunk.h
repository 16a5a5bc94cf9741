/*
 * base/chunk.h
 *		The allocator of view state: a buddy system over one area of main shared memory.
 *
 * The area is reserved at server start (streamext.memory_limit) and has the same address in every process, so plain
 * pointers into it may be stored in it. Sizes are powers of two from STREAMEXT_CHUNK_MIN. The allocator has one lock,
 * taken last: it may be asked while a stream's lock is held.
 */
#ifndef STREAMEXT_CHUNK_H
#define STREAMEXT_CHUNK_H

#include "base/streamext.h"

#define STREAMEXT_CHUNK_MIN 1024
#define STREAMEXT_CHUNK_MAX (256 * 1024) /* what state grows by; a single larger request is served too */

extern Size streamext_chunk_shmem_size(void);
extern void streamext_chunk_shmem_init(LWLock *lock);

/* At least size bytes, not zeroed; *actual (may be NULL) gets the true size. NULL when the area is full; never raises. */
extern void *streamext_chunk_alloc(Size size, Size *actual);
extern void	 streamext_chunk_free(void *chunk);

/* Bytes that there are, handed out or not. */
extern Size streamext_chunk_total(void);

/* A place in the area as a 32-bit number of 8-byte units, and back; 0 is never a valid reference. */
extern char *streamext_chunk_base;
#define STREAMEXT_REF(ptr) ((uint32) (((char *) (ptr) -streamext_chunk_base) >> 3))
#define STREAMEXT_PTR(ref) ((void *) (streamext_chunk_base + ((Size) (ref) << 3)))

#endif /* STREAMEXT_CHUNK_H */
