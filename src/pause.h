/*
 * pause.h
 *		Which streams and continuous views are paused: the table streamext.paused.
 */
#ifndef STREAMEXT_PAUSE_H
#define STREAMEXT_PAUSE_H

#include "streamext.h"
#include "nodes/pg_list.h"

/* All of this database that are; what is no more is deleted on the way. In a transaction with a snapshot, by a worker. */
extern List *streamext_paused_list(void);

/* Whether this one is. The same, by anyone. */
extern bool streamext_is_paused(Oid relid);

#endif							/* STREAMEXT_PAUSE_H */
