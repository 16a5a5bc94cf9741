/*
 * worker/worker.h
 *		Processes: the launcher that keeps one worker for each stream and shard.
 */
#ifndef STREAMEXT_WORKER_H
#define STREAMEXT_WORKER_H

#include "base/streamext.h"

extern PGDLLEXPORT void streamext_launcher_main(Datum arg);
extern PGDLLEXPORT void streamext_worker_main(Datum arg);  /* arg: stream slot index */
extern PGDLLEXPORT void streamext_catchup_main(Datum arg); /* the same */
extern PGDLLEXPORT void
streamext_probe_main(Datum arg); /* arg: database oid; registers what streams and views there are, exits */
extern PGDLLEXPORT void streamext_teller_main(Datum arg);  /* arg: database oid */
extern void				streamext_launcher_register(void); /* from _PG_init */

#endif /* STREAMEXT_WORKER_H */
