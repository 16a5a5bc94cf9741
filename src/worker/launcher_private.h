/*
 * worker/launcher_private.h
 *		What the files of the launcher share.
 *
 *	worker/launcher.c			the process; workers and catch-up workers of streams
 *	worker/launcher_database.c	which databases there are
 *	worker/launcher_probe.c		a probe of each database that is to be looked at
 *	worker/launcher_teller.c	tellers
 */
#ifndef STREAMEXT_LAUNCHER_PRIVATE_H
#define STREAMEXT_LAUNCHER_PRIVATE_H

#include "base/background.h"
#include "base/streamext.h"
#include "nodes/pg_list.h"

#define LAUNCHER_TYPE "streamext worker"
#define LAUNCHER_RETRY_MS 1000 /* after a process has failed, and while none can be had */

typedef struct LauncherDatabase
{
	Oid	 dboid;
	bool connectable;
	bool istemplate;
} LauncherDatabase;

/* All databases, of LauncherDatabase, in the current context; in no transaction. */
extern List *streamext_launcher_databases(void);
/* NULL: it is gone. */
extern LauncherDatabase *streamext_launcher_find(List *databases, Oid dboid);

/* Journals of databases that were dropped while nobody could see to them. */
extern void streamext_launcher_remove_orphans(void);

/* Looks after probes, and after tellers. Returns when to look again at the latest. */
extern TimestampTz streamext_launcher_probes(TimestampTz now);
extern TimestampTz streamext_launcher_tellers(TimestampTz now);
/* All databases that take connections are to be looked at. */
extern void streamext_launcher_probe_all(void);

#endif /* STREAMEXT_LAUNCHER_PRIVATE_H */
