/*
 * sql/newest.h
 *		The records that a stream's buffer holds.
 */
#ifndef STREAMEXT_NEWEST_H
#define STREAMEXT_NEWEST_H

#include "base/streamext.h"

#include "base/record.h"

/* A private copy of one shard's buffer, oldest record first; 0: nothing there. */
extern int streamext_newest_copy(Oid relid, int shard, StreamRecord **records);

#endif /* STREAMEXT_NEWEST_H */
