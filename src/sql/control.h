/*
 * sql/control.h
 *		What the control functions (sql/flush.c, sql/pause.c) share: who may do what to which stream, and its slots.
 */
#ifndef STREAMEXT_CONTROL_H
#define STREAMEXT_CONTROL_H

#include "base/streamext.h"
#include "shared/shmem.h"

/* The name of a stream that the user owns, or may SELECT from; raises. */
extern char *streamext_control_stream(Oid relid, bool owner);

/* The stream of a continuous view that the user owns; InvalidOid: it is no continuous view. Raises if it is somebody else's. */
extern Oid streamext_control_view(Oid relid);

/* The stream's slots that a worker would take; how many. */
extern int streamext_control_find_slots(Oid relid, StreamSlot *slots[STREAMEXT_MAX_SHARDS]);

/* The same; raises if there are none. After a start of the server they come when the launcher has looked into the database. */
extern int streamext_control_slots(Oid relid, const char *name, StreamSlot *slots[STREAMEXT_MAX_SHARDS]);

/*
 * For requests, which must commit in the order of their numbers, since a worker that has done one looks for greater numbers only:
 * holds the stream, which the user must own, against other requests and DDL to the end of the transaction.
 */
extern int streamext_control_lock_slots(Oid relid, char **name, StreamSlot *slots[STREAMEXT_MAX_SHARDS]);

#endif /* STREAMEXT_CONTROL_H */
