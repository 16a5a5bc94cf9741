/*
 * state/buffer.h
 *		The raw records a stream keeps for SELECT * FROM stream: a ring in shared memory, decoded by who reads it.
 */
#ifndef STREAMEXT_BUFFER_H
#define STREAMEXT_BUFFER_H

#include "base/streamext.h"
#include "source/connector.h"

typedef struct StreamBuffer StreamBuffer; /* in chunk memory; guarded by its own LWLock (StreamSlot.buffer_lock) */

/* For buffer_size records; bytes bounded too (average 512 bytes a record). NULL when memory is full: the stream then has no buffer. */
extern StreamBuffer *streamext_buffer_create(int buffer_size);
extern void			 streamext_buffer_destroy(StreamBuffer *buffer);

/* Keeps the last records of these; accepted[i] false ones are left out. Takes lock exclusively. Never raises. */
extern void streamext_buffer_append(StreamBuffer *buffer, LWLock *lock, const StreamRecord *records,
									const bool *accepted, int n);

/* Private copy of what is there, oldest first, palloc'd. Takes lock shared. Headers are not kept. */
extern int streamext_buffer_copy(StreamBuffer *buffer, LWLock *lock, StreamRecord **records);

#endif /* STREAMEXT_BUFFER_H */
