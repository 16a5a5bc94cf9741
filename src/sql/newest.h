/*
 * sql/newest.h
 *		The records that a stream's buffer holds.
 */
#ifndef STREAMEXT_NEWEST_H
#define STREAMEXT_NEWEST_H

#include "base/streamext.h"

#include "nodes/execnodes.h"

#include "base/record.h"

/* A private copy of one shard's buffer, oldest record first; 0: nothing there. */
extern int streamext_newest_copy(Oid relid, int shard, StreamRecord **records);

/* A row as streamext.peek and streamext.sample return it; without `keys` the record's is none. payload: or NULL. */
extern void streamext_newest_put(ReturnSetInfo *rsinfo, const StreamRecord *record, bool keys, bytea *payload);

#endif /* STREAMEXT_NEWEST_H */
