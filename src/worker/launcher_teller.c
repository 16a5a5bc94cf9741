/*
 * worker/launcher_teller.c
 *		A teller (worker/teller.c) for each database that wants one.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "shared/database.h"
#include "shared/shmem.h"
#include "worker/launcher_private.h"

/* What the launcher knows of a teller's process. */
typedef struct LauncherTeller
{
	Oid						dboid;
	BackgroundWorkerHandle *handle; /* NULL: none started, or it is gone */
	TimestampTz				next_try;
} LauncherTeller;

static LauncherTeller teller_known[STREAMEXT_MAX_TELLERS];

/* Databases that want a teller and have none. Returns how many. */
static int
teller_idle(int idle[STREAMEXT_MAX_TELLERS], Oid databases[STREAMEXT_MAX_TELLERS])
{
	int n = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < STREAMEXT_MAX_TELLERS; i++)
	{
		const TellerSlot *slot = &streamext_shared->tellers[i];

		if (!OidIsValid(slot->dboid) || slot->pid != 0 || streamext_database_leaving(slot->dboid))
			continue;
		idle[n] = i;
		databases[n++] = slot->dboid;
	}
	LWLockRelease(streamext_shared->registry_lock);
	return n;
}

/* True if the last process is gone and another may be tried now; else *next may come down to when to look again. */
static bool
teller_is_due(LauncherTeller *mine, Oid dboid, TimestampTz now, TimestampTz *next)
{
	if (mine->handle != NULL)
	{
		if (!streamext_background_ended(&mine->handle))
			return false; /* its end will be notified */
		if (mine->dboid == dboid)
			mine->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS);
	}
	if (mine->dboid != dboid)
		mine->next_try = 0;
	mine->dboid = dboid;
	if (mine->next_try <= now)
		return true;
	*next = Min(*next, mine->next_try);
	return false;
}

/* Nobody tells of a database that is gone. */
static void
teller_forget(int index, Oid dboid)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	if (streamext_shared->tellers[index].dboid == dboid && streamext_shared->tellers[index].pid == 0)
		streamext_shared->tellers[index].dboid = InvalidOid;
	LWLockRelease(streamext_shared->registry_lock);
}

TimestampTz
streamext_launcher_tellers(TimestampTz now)
{
	int			idle[STREAMEXT_MAX_TELLERS];
	Oid			dboids[STREAMEXT_MAX_TELLERS];
	int			n = teller_idle(idle, dboids);
	List	   *databases = n > 0 ? streamext_launcher_databases() : NIL;
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < n; i++)
	{
		LauncherTeller	 *mine = &teller_known[idle[i]];
		LauncherDatabase *database = streamext_launcher_find(databases, dboids[i]);
		char			  name[BGW_MAXLEN];
		BackgroundStart	  start = {
			  .name = name, .type = LAUNCHER_TYPE, .function = "streamext_teller_main", .arg = ObjectIdGetDatum(dboids[i])
		};

		if (!teller_is_due(mine, dboids[i], now, &next))
			continue;
		if (database == NULL)
		{
			teller_forget(idle[i], dboids[i]);
			continue;
		}
		snprintf(name, BGW_MAXLEN, "streamext teller of database %u", dboids[i]);
		if (database->connectable && streamext_background_start(&start, &mine->handle))
			continue;
		mine->handle = NULL;
		mine->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS);
		next = Min(next, mine->next_try);
	}
	return next;
}
