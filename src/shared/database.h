/*
 * shared/database.h
 *		Databases as the registry knows them: to be probed by the launcher, or to be empty of workers for a while.
 */
#ifndef STREAMEXT_DATABASE_H
#define STREAMEXT_DATABASE_H

#include "base/streamext.h"

/* Whether the registry knows any, or gateways of its. */
extern bool streamext_database_has_streams(Oid dboid);

/* Asks the database's workers to leave and waits up to 5 s until they have; until `streamext_database_return`. */
extern void streamext_database_leave(Oid dboid);
/* Within a transaction it takes effect at its end, which returns the database in any case. */
extern void streamext_database_return(Oid dboid);
/* True while some command wants the database empty. Needs registry_lock. */
extern bool streamext_database_leaving(Oid dboid);
/* Notes that the launcher shall probe the database, or that it need not any more. Needs registry_lock exclusive. */
extern void streamext_database_set_probe(Oid dboid, bool probe);
/* By the probe in the place of taking back its mark: transactions hold what it has left out. Needs registry_lock exclusive. */
extern void streamext_database_note_held(Oid dboid);
/* Whether it was said. Needs registry_lock. */
extern bool streamext_database_is_held(Oid dboid);
/* Everything that this process has kept empty: at the end of a transaction. */
extern void streamext_database_return_all(void);

#endif /* STREAMEXT_DATABASE_H */
