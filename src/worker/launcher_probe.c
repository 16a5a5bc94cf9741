/*
 * worker/launcher_probe.c
 *		Which databases are to be looked at for streams, and a probe (worker/probe.c) for one after the other.
 *
 * That a probe went well is seen by its having taken back the database's mark.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "base/background.h"
#include "base/label.h"
#include "shared/database.h"
#include "shared/shmem.h"
#include "worker/launcher_private.h"

#define LAUNCHER_PROBES 5 /* tries for a database */

typedef struct LauncherProbe
{
	Oid			dboid;
	int			tries;
	TimestampTz next_try;
} LauncherProbe;

static List					  *probe_waiting = NIL; /* of LauncherProbe */
static LauncherProbe		  *probe_running = NULL;
static BackgroundWorkerHandle *probe_handle = NULL;

static void
probe_queue(Oid dboid)
{
	MemoryContext  old;
	LauncherProbe *probe;
	ListCell	  *lc;

	foreach (lc, probe_waiting)
		if (((LauncherProbe *) lfirst(lc))->dboid == dboid)
			return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	probe = palloc0(sizeof(LauncherProbe));
	probe->dboid = dboid;
	probe_waiting = lappend(probe_waiting, probe);
	MemoryContextSwitchTo(old);
}

void
streamext_launcher_probe_all(void)
{
	ListCell *lc;

	foreach (lc, streamext_launcher_databases())
	{
		LauncherDatabase *database = lfirst(lc);

		if (database->connectable && !database->istemplate)
			probe_queue(database->dboid);
	}
}

/* Moves what backends have asked for to the launcher's own list; the running one keeps its mark. */
static void
probe_collect(void)
{
	Oid	 asked[STREAMEXT_MAX_DATABASES];
	int	 n = 0;
	bool all;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	all = streamext_shared->probe_all;
	streamext_shared->probe_all = false;
	for (int i = 0; i < STREAMEXT_MAX_DATABASES; i++)
	{
		struct DatabaseSlot *slot = &streamext_shared->databases[i];

		if (!OidIsValid(slot->dboid) || !slot->probe || (probe_running != NULL && probe_running->dboid == slot->dboid))
			continue;
		asked[n++] = slot->dboid;
	}
	for (int i = 0; i < n; i++)
		streamext_database_set_probe(asked[i], false);
	LWLockRelease(streamext_shared->registry_lock);

	for (int i = 0; i < n; i++)
		probe_queue(asked[i]);
	if (all)
		streamext_launcher_probe_all();
}

static void
probe_set_mark(Oid dboid, bool mark)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	streamext_database_set_probe(dboid, mark);
	LWLockRelease(streamext_shared->registry_lock);
}

static bool
probe_is_marked(Oid dboid)
{
	bool marked = false;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < STREAMEXT_MAX_DATABASES; i++)
		if (streamext_shared->databases[i].dboid == dboid)
			marked = streamext_shared->databases[i].probe;
	LWLockRelease(streamext_shared->registry_lock);
	return marked;
}

/* Whether the probe has announced all but what transactions hold, for as long as they like. */
static bool
probe_is_held(Oid dboid)
{
	bool held;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	held = streamext_database_is_held(dboid);
	LWLockRelease(streamext_shared->registry_lock);
	return held;
}

/* The probe that ran has gone; was it successful? */
static void
probe_finish(TimestampTz now)
{
	LauncherProbe *probe = probe_running;
	bool		   held;

	if (probe == NULL || !streamext_background_ended(&probe_handle))
		return;
	probe_running = NULL;
	if (!probe_is_marked(probe->dboid))
	{
		pfree(probe);
		return;
	}
	held = probe_is_held(probe->dboid);
	probe_set_mark(probe->dboid, false);
	probe->tries = Min(probe->tries + 1, LAUNCHER_PROBES);
	if (held || probe->tries < LAUNCHER_PROBES)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		probe->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS * probe->tries);
		probe_waiting = lappend(probe_waiting, probe);
		MemoryContextSwitchTo(old);
		return;
	}
	ereport(LOG, (errmsg("could not look for streams in database %s", streamext_database_label(probe->dboid))));
	pfree(probe);
}

/* Starts the next probe that is due if none runs. Returns when to look again at the latest. */
static TimestampTz
probe_start(TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	List	   *databases;
	ListCell   *lc;

	if (probe_running != NULL || probe_waiting == NIL)
		return DT_NOEND;
	databases = streamext_launcher_databases();
	foreach (lc, probe_waiting)
	{
		LauncherProbe	 *probe = lfirst(lc);
		LauncherDatabase *database = streamext_launcher_find(databases, probe->dboid);
		char			  name[BGW_MAXLEN];
		BackgroundStart	  start = { .name = name,
									.type = LAUNCHER_TYPE,
									.function = "streamext_probe_main",
									.arg = ObjectIdGetDatum(probe->dboid) };
		bool			  leaving;

		if (database == NULL || !database->connectable)
		{
			probe_waiting = foreach_delete_current (probe_waiting, lc);
			pfree(probe);
			continue;
		}
		LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
		leaving = streamext_database_leaving(probe->dboid);
		LWLockRelease(streamext_shared->registry_lock);
		if (leaving)
			continue; /* its return wakes the launcher */
		if (probe->next_try > now)
		{
			next = Min(next, probe->next_try);
			continue;
		}
		probe_set_mark(probe->dboid, true);
		if (!probe_is_marked(probe->dboid))
			return TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS); /* no room for the mark */
		snprintf(name, BGW_MAXLEN, "streamext probe of database %u", probe->dboid);
		if (!streamext_background_start(&start, &probe_handle))
		{
			probe_set_mark(probe->dboid, false);
			probe->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS);
			return probe->next_try;
		}
		probe_running = probe;
		probe_waiting = foreach_delete_current (probe_waiting, lc);
		return DT_NOEND;
	}
	return next;
}

TimestampTz
streamext_launcher_probes(TimestampTz now)
{
	probe_finish(now);
	probe_collect();
	return probe_start(now);
}
