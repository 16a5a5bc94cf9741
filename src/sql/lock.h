/*
 * sql/lock.h
 *		Relations that may be dropped while a call waits.
 */
#ifndef STREAMEXT_LOCK_H
#define STREAMEXT_LOCK_H

#include "base/streamext.h"
#include "storage/lockdefs.h"

/* Waits for the lock; what the relation is called now. Raises 42P01, with the name that it had, if it is gone by then. */
extern char *streamext_lock_relation(Oid relid, LOCKMODE mode);

/* Raises 42P01 if the relation is gone. Takes no lock. */
extern void streamext_lock_check_there(Oid relid, const char *name);

/*
 * The stream of a continuous view, both locked for reading to the end of the transaction, in the order of DROP ... CASCADE;
 * InvalidOid: the view is gone, or reads no stream.
 */
extern Oid streamext_lock_view(Oid viewoid);

#endif /* STREAMEXT_LOCK_H */
