/*
 * worker/worker.h
 *		Processes: the launcher that keeps one worker for each stream and shard, and what backends tell them at commit.
 */
#ifndef STREAMEXT_WORKER_H
#define STREAMEXT_WORKER_H

#include "base/streamext.h"

extern PGDLLEXPORT void streamext_launcher_main(Datum arg);
extern PGDLLEXPORT void streamext_worker_main(Datum arg);  /* arg: stream slot index */
extern PGDLLEXPORT void streamext_catchup_main(Datum arg); /* the same */
extern PGDLLEXPORT void
			streamext_probe_main(Datum arg); /* arg: database oid; registers what streams and views there are, exits */
extern void streamext_launcher_register(void); /* from _PG_init */

/*
 * Registry changes of this transaction, applied at commit and forgotten at abort (sql/commit.c): the named stream or view was
 * created, altered or dropped. Workers and launcher then look into the catalogue themselves, so naming one too many is harmless.
 */
extern void streamext_touch_stream(Oid relid);
extern void streamext_touch_view(Oid viewoid, Oid stream_relid);
extern void streamext_touch_database(Oid dboid); /* probe it (after CREATE DATABASE ... TEMPLATE) */
extern void streamext_touch_rights(void);		 /* of some role, in whatever database */
extern void streamext_registry_install_callbacks(void);

/* Whether the registry knows any. */
extern bool streamext_database_has_streams(Oid dboid);

/* Asks the database's workers to leave and waits up to 5 s until they have; until `streamext_database_return`. */
extern void streamext_database_leave(Oid dboid);
/* Within a transaction it takes effect at its end, which returns the database in any case. */
extern void streamext_database_return(Oid dboid);
/* True while some command wants the database empty. Needs registry_lock. */
extern bool streamext_database_leaving(Oid dboid);
/* Notes that the launcher shall probe the database, or that it need not any more. Needs registry_lock exclusive. */
extern void streamext_database_set_probe(Oid dboid, bool probe);

#endif /* STREAMEXT_WORKER_H */
