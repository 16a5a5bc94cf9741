/*-------------------------------------------------------------------------
 *
 * worker/launcher.c
 *		The process that keeps one worker running for each stream slot, and a catch-up worker while views wait for it.
 *
 * The launcher is connected to no database. It sleeps until somebody sets its latch: a commit that announced a stream, a
 * worker that goes (by itself, and through the postmaster's notification), a database to be probed.
 *
 * At start it probes each connectable non-template database, one after the other; afterwards only those it is told. That a probe (worker/probe.c)
 * went well is seen by its having taken back the database's mark.
 *
 * What it knows of a slot's worker process (handle, when to try again) is its own memory; a launcher that restarts finds the
 * running workers by their worker_pid. A worker that is started twice sees that and exits.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "storage/sinval.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/label.h"
#include "shared/database.h"
#include "base/clip.h"
#include "gateway/gateway.h"
#include "source/journal/journal.h"
#include "shared/shmem.h"
#include "worker/alone.h"
#include "worker/worker.h"
#include "worker/worker_private.h"

#define LAUNCHER_RESTART_MS 100		/* after a worker was told to go */
#define LAUNCHER_RETRY_MS 1000		/* after one has failed, and while none can be had */
#define LAUNCHER_RETRY_MAX_MS 10000 /* the wait doubles up to this for one that goes again and again */
#define LAUNCHER_STEADY_MS 30000	/* one that ran so long did not go again and again */
#define LAUNCHER_PROBES 5			/* tries for a database */

/* What the launcher knows of a slot's process. */
typedef struct LauncherSlot
{
	ShardIdentity			identity;
	BackgroundWorkerHandle *handle; /* NULL: none started, or it is gone */
	TimestampTz				launched_at;
	TimestampTz				next_try;
	int						delay;		/* ms */
	uint32					generation; /* at the last try */
} LauncherSlot;

typedef struct LauncherDatabase
{
	Oid	 dboid;
	bool connectable;
	bool istemplate;
} LauncherDatabase;

typedef struct LauncherProbe
{
	Oid			dboid;
	int			tries;
	TimestampTz next_try;
} LauncherProbe;

static LauncherSlot *launcher_slots; /* [nstreams] workers, then as many catch-up workers */
/* What the launcher knows of a teller's process. */
typedef struct LauncherTeller
{
	Oid						dboid;
	BackgroundWorkerHandle *handle; /* NULL: none started, or it is gone */
	TimestampTz				next_try;
} LauncherTeller;

static LauncherTeller		   launcher_tellers[STREAMEXT_MAX_TELLERS];
static List					  *launcher_probes = NIL; /* of LauncherProbe, waiting */
static LauncherProbe		  *launcher_probe = NULL; /* running */
static BackgroundWorkerHandle *launcher_probe_handle = NULL;
static MemoryContext		   launcher_round; /* reset each round */

/* ---------------------------------------------------------------- databases */

/* All databases, in launcher_round. */
static List *
launcher_read_databases(void)
{
	List		 *databases = NIL;
	Relation	  rel;
	TableScanDesc scan;
	HeapTuple	  tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database  form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext	  old = MemoryContextSwitchTo(launcher_round);
		LauncherDatabase *database = palloc(sizeof(LauncherDatabase));

		database->dboid = form->oid;
		/* -2: what an interrupted DROP DATABASE left */
		database->connectable = form->datallowconn && form->datconnlimit != -2;
		database->istemplate = form->datistemplate;
		databases = lappend(databases, database);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(launcher_round);
	return databases;
}

static LauncherDatabase *
launcher_find_database(List *databases, Oid dboid)
{
	ListCell *lc;

	foreach (lc, databases)
		if (((LauncherDatabase *) lfirst(lc))->dboid == dboid)
			return lfirst(lc);
	return NULL;
}

/* ---------------------------------------------------------------- probes */

static void
launcher_queue_probe(Oid dboid)
{
	MemoryContext  old;
	LauncherProbe *probe;
	ListCell	  *lc;

	foreach (lc, launcher_probes)
		if (((LauncherProbe *) lfirst(lc))->dboid == dboid)
			return;
	old = MemoryContextSwitchTo(TopMemoryContext);
	probe = palloc0(sizeof(LauncherProbe));
	probe->dboid = dboid;
	launcher_probes = lappend(launcher_probes, probe);
	MemoryContextSwitchTo(old);
}

static void
launcher_queue_all_probes(void)
{
	ListCell *lc;

	foreach (lc, launcher_read_databases())
	{
		LauncherDatabase *database = lfirst(lc);

		if (database->connectable && !database->istemplate)
			launcher_queue_probe(database->dboid);
	}
}

/* Moves what backends have asked for to the launcher's own list; the running one keeps its mark. */
static void
launcher_collect_probes(void)
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

		if (!OidIsValid(slot->dboid) || !slot->probe ||
			(launcher_probe != NULL && launcher_probe->dboid == slot->dboid))
			continue;
		asked[n++] = slot->dboid;
	}
	for (int i = 0; i < n; i++)
		streamext_database_set_probe(asked[i], false);
	LWLockRelease(streamext_shared->registry_lock);

	for (int i = 0; i < n; i++)
		launcher_queue_probe(asked[i]);
	if (all)
		launcher_queue_all_probes();
}

static bool
launcher_register_worker(const char *name, const char *function, Datum arg, const void *extra, Size extra_size,
						 BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;
	MemoryContext	 old;
	bool			 registered;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = arg;
	if (extra_size > 0)
		memcpy(worker.bgw_extra, extra, extra_size);
	strlcpy(worker.bgw_library_name, "streamext", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, name, BGW_MAXLEN);
	strlcpy(worker.bgw_type, "streamext worker", BGW_MAXLEN);

	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);
	return registered;
}

static void
launcher_set_probe_mark(Oid dboid, bool mark)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	streamext_database_set_probe(dboid, mark);
	LWLockRelease(streamext_shared->registry_lock);
}

static bool
launcher_probe_marked(Oid dboid)
{
	bool marked = false;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < STREAMEXT_MAX_DATABASES; i++)
		if (streamext_shared->databases[i].dboid == dboid)
			marked = streamext_shared->databases[i].probe;
	LWLockRelease(streamext_shared->registry_lock);
	return marked;
}

/* The probe that ran has gone; was it successful? */
static void
launcher_finish_probe(TimestampTz now)
{
	LauncherProbe *probe = launcher_probe;
	pid_t		   pid;

	if (probe == NULL || GetBackgroundWorkerPid(launcher_probe_handle, &pid) != BGWH_STOPPED)
		return;
	pfree(launcher_probe_handle);
	launcher_probe_handle = NULL;
	launcher_probe = NULL;
	if (!launcher_probe_marked(probe->dboid))
	{
		pfree(probe);
		return;
	}
	launcher_set_probe_mark(probe->dboid, false);
	if (++probe->tries < LAUNCHER_PROBES)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		probe->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS * probe->tries);
		launcher_probes = lappend(launcher_probes, probe);
		MemoryContextSwitchTo(old);
		return;
	}
	ereport(LOG, (errmsg("could not look for streams in database %s", streamext_database_label(probe->dboid))));
	pfree(probe);
}

/* Starts the next probe that is due if none runs. Returns when to look again at the latest. */
static TimestampTz
launcher_start_probe(TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	List	   *databases;
	ListCell   *lc;

	if (launcher_probe != NULL || launcher_probes == NIL)
		return DT_NOEND;
	databases = launcher_read_databases();
	foreach (lc, launcher_probes)
	{
		LauncherProbe	 *probe = lfirst(lc);
		LauncherDatabase *database = launcher_find_database(databases, probe->dboid);
		char			  name[BGW_MAXLEN];
		bool			  leaving;

		if (database == NULL || !database->connectable)
		{
			launcher_probes = foreach_delete_current (launcher_probes, lc);
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
		launcher_set_probe_mark(probe->dboid, true);
		if (!launcher_probe_marked(probe->dboid))
			return TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS); /* no room for the mark */
		snprintf(name, BGW_MAXLEN, "streamext probe of database %u", probe->dboid);
		if (!launcher_register_worker(name, "streamext_probe_main", ObjectIdGetDatum(probe->dboid), NULL, 0,
									  &launcher_probe_handle))
		{
			launcher_set_probe_mark(probe->dboid, false);
			probe->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS);
			return probe->next_try;
		}
		launcher_probe = probe;
		launcher_probes = foreach_delete_current (launcher_probes, lc);
		return DT_NOEND;
	}
	return next;
}

/* ---------------------------------------------------------------- workers */

/* A slot that wants a worker, or a catch-up worker, and has none, as it was under the lock. */
typedef struct LauncherIdle
{
	int			  index;   /* of the stream's slot */
	int			  process; /* into launcher_slots */
	ShardIdentity identity;
	uint32		  generation;
} LauncherIdle;

static bool
launcher_is_catchup(const LauncherIdle *idle)
{
	return idle->process >= streamext_shared->nstreams;
}

/* By stream: whether views wait for a catch-up worker. In launcher_round. */
static bool *
launcher_wanted_catchups(void)
{
	bool *wanted = palloc0(sizeof(bool) * streamext_shared->nstreams);

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
		if (streamext_shared->views[i].id.in_use && streamext_shared->views[i].owner.catchup == CATCHUP_WANTED)
			wanted[streamext_shared->views[i].id.stream] = true;
	LWLockRelease(streamext_shared->registry_lock);
	return wanted;
}

static void
launcher_add_idle(LauncherIdle *idle, int index, bool catchup, uint32 generation)
{
	const StreamSlot *slot = &streamext_shared->streams[index];

	idle->index = index;
	idle->process = index + (catchup ? streamext_shared->nstreams : 0);
	idle->identity.dboid = slot->id.dboid;
	idle->identity.relid = slot->id.relid;
	idle->identity.shard = slot->id.shard;
	idle->generation = generation;
}

/* All of them, in launcher_round. */
static List *
launcher_idle_slots(void)
{
	LauncherIdle *found = palloc(sizeof(LauncherIdle) * streamext_shared->nstreams * 2);
	bool		 *wanted = launcher_wanted_catchups();
	List		 *idle = NIL;
	int			  n = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];
		uint32		generation = pg_atomic_read_u32(&slot->ask.generation);

		if (!slot->id.in_use || generation == 0 || streamext_database_leaving(slot->id.dboid))
			continue;
		if (slot->worker.pid == 0)
			launcher_add_idle(&found[n++], i, false, generation);
		if (slot->catchup.pid == 0 && wanted[i])
			launcher_add_idle(&found[n++], i, true, generation);
	}
	LWLockRelease(streamext_shared->registry_lock);
	for (int i = 0; i < n; i++)
		idle = lappend(idle, &found[i]);
	return idle;
}

/* True if the slot's last process is gone and it may be tried now; else *next may come down to when to look again. */
static bool
launcher_slot_due(const LauncherIdle *idle, TimestampTz now, TimestampTz *next)
{
	LauncherSlot *mine = &launcher_slots[idle->process];
	StreamSlot	 *slot = &streamext_shared->streams[idle->index];
	bool  failed = launcher_is_catchup(idle) ? slot->catchup.failed : STREAMEXT_STATE_FAILED(slot->status.state);
	pid_t pid;

	if (mine->handle != NULL)
	{
		if (GetBackgroundWorkerPid(mine->handle, &pid) != BGWH_STOPPED)
			return false; /* its end will be notified */
		pfree(mine->handle);
		mine->handle = NULL;
		if (TimestampDifferenceExceeds(mine->launched_at, now, LAUNCHER_STEADY_MS))
			mine->delay = 0;
		if (!failed)
			mine->delay = LAUNCHER_RESTART_MS;
		else
			mine->delay =
				mine->delay < LAUNCHER_RETRY_MS ? LAUNCHER_RETRY_MS : Min(mine->delay * 2, LAUNCHER_RETRY_MAX_MS);
		mine->next_try = TimestampTzPlusMilliseconds(now, mine->delay);
	}
	if (memcmp(&idle->identity, &mine->identity, sizeof(ShardIdentity)) != 0)
	{
		mine->identity = idle->identity;
		mine->delay = 0;
		mine->next_try = 0;
	}
	else if (mine->generation != idle->generation)
	{
		/* something was altered: that may have helped */
		mine->delay = 0;
		mine->next_try = Min(mine->next_try, TimestampTzPlusMilliseconds(mine->launched_at, LAUNCHER_RETRY_MS));
	}
	mine->generation = idle->generation;
	if (mine->next_try <= now)
		return true;
	*next = Min(*next, mine->next_try);
	return false;
}

/* No process is to be had for the views that wait. */
static void
launcher_note_waiting(int index)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	LWLockAcquire(streamext_shared->streams[index].lock, LW_EXCLUSIVE);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (!view->id.in_use || view->id.stream != index || view->owner.catchup != CATCHUP_WANTED)
			continue;
		streamext_view_set_status(view, VIEW_WAITING,
								  "no free background worker slot to catch up in; raise max_worker_processes");
	}
	LWLockRelease(streamext_shared->streams[index].lock);
	LWLockRelease(streamext_shared->registry_lock);
}

static void
launcher_start_catchup(const LauncherIdle *idle, TimestampTz now)
{
	LauncherSlot *mine = &launcher_slots[idle->process];
	char		  name[BGW_MAXLEN];

	snprintf(name, BGW_MAXLEN, "streamext catch-up of stream %u shard %d", mine->identity.relid, mine->identity.shard);
	mine->launched_at = now;
	if (launcher_register_worker(name, "streamext_catchup_main", Int32GetDatum(idle->index), &mine->identity,
								 sizeof(ShardIdentity), &mine->handle))
		return;
	mine->handle = NULL;
	mine->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS);
	launcher_note_waiting(idle->index);
}

static void
launcher_start_worker(int index, TimestampTz now)
{
	LauncherSlot *mine = &launcher_slots[index];
	StreamSlot	 *slot = &streamext_shared->streams[index];
	char		  name[BGW_MAXLEN];

	snprintf(name, BGW_MAXLEN, "streamext worker of stream %u shard %d", mine->identity.relid, mine->identity.shard);
	mine->launched_at = now;
	if (streamext_alone_has_no_worker(index))
	{
		mine->handle = NULL;
		mine->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS);
		return;
	}
	if (launcher_register_worker(name, "streamext_worker_main", Int32GetDatum(index), &mine->identity,
								 sizeof(ShardIdentity), &mine->handle))
		return;
	mine->handle = NULL;
	mine->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS);
	if (slot->status.state != STREAM_WAITING)
	{
		streamext_stream_set_state(slot, STREAM_WAITING, "no free background worker slot; raise max_worker_processes");
		ereport(LOG, (errmsg("no background worker slot is free for a stream of database %s",
							 streamext_database_label(mine->identity.dboid)),
					  errdetail("The stream has the OID %u there.", mine->identity.relid),
					  errhint("Raise max_worker_processes and restart the server.")));
	}
}

/* The database was dropped: so were its streams. */
static void
launcher_forget_database(Oid dboid)
{
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];

		if (slot->id.in_use && slot->id.dboid == dboid && slot->worker.pid == 0)
			streamext_remove_stream(i);
	}
	streamext_journal_remove_database(dboid);
}

/* Returns when to look again at the latest. */
static TimestampTz
launcher_start_workers(TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	List	   *databases = NIL;
	ListCell   *lc;

	foreach (lc, launcher_idle_slots())
	{
		LauncherIdle	 *idle = lfirst(lc);
		LauncherDatabase *database;

		if (!launcher_slot_due(idle, now, &next))
			continue;
		if (databases == NIL)
			databases = launcher_read_databases();
		database = launcher_find_database(databases, idle->identity.dboid);
		if (database == NULL)
			launcher_forget_database(idle->identity.dboid);
		else if (!database->connectable)
		{
			launcher_slots[idle->process].next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MAX_MS);
			next = Min(next, launcher_slots[idle->process].next_try);
			if (!launcher_is_catchup(idle))
				streamext_stream_set_state(&streamext_shared->streams[idle->index], STREAM_WAITING,
										   "the database does not accept connections");
		}
		else
		{
			if (launcher_is_catchup(idle))
				launcher_start_catchup(idle, now);
			else
				launcher_start_worker(idle->index, now);
			if (launcher_slots[idle->process].handle == NULL)
				next = Min(next, launcher_slots[idle->process].next_try);
		}
	}
	return next;
}

/* Databases that want a teller and have none. Returns how many. */
static int
launcher_idle_tellers(int idle[STREAMEXT_MAX_TELLERS], Oid databases[STREAMEXT_MAX_TELLERS])
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
launcher_teller_due(LauncherTeller *mine, Oid dboid, TimestampTz now, TimestampTz *next)
{
	pid_t pid;

	if (mine->handle != NULL)
	{
		if (GetBackgroundWorkerPid(mine->handle, &pid) != BGWH_STOPPED)
			return false; /* its end will be notified */
		pfree(mine->handle);
		mine->handle = NULL;
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
launcher_forget_teller(int index, Oid dboid)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	if (streamext_shared->tellers[index].dboid == dboid && streamext_shared->tellers[index].pid == 0)
		streamext_shared->tellers[index].dboid = InvalidOid;
	LWLockRelease(streamext_shared->registry_lock);
}

/* Returns when to look again at the latest. */
static TimestampTz
launcher_start_tellers(TimestampTz now)
{
	int			idle[STREAMEXT_MAX_TELLERS];
	Oid			dboids[STREAMEXT_MAX_TELLERS];
	int			n = launcher_idle_tellers(idle, dboids);
	List	   *databases = n > 0 ? launcher_read_databases() : NIL;
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < n; i++)
	{
		LauncherTeller	 *mine = &launcher_tellers[idle[i]];
		LauncherDatabase *database = launcher_find_database(databases, dboids[i]);
		char			  name[BGW_MAXLEN];

		if (!launcher_teller_due(mine, dboids[i], now, &next))
			continue;
		if (database == NULL)
		{
			launcher_forget_teller(idle[i], dboids[i]);
			continue;
		}
		snprintf(name, BGW_MAXLEN, "streamext teller of database %u", dboids[i]);
		if (database->connectable && launcher_register_worker(name, "streamext_teller_main",
															  ObjectIdGetDatum(dboids[i]), NULL, 0, &mine->handle))
			continue;
		mine->handle = NULL;
		mine->next_try = TimestampTzPlusMilliseconds(now, LAUNCHER_RETRY_MS);
		next = Min(next, mine->next_try);
	}
	return next;
}

/* Journals of databases that were dropped while nobody could see to them. */
static void
launcher_remove_orphans(void)
{
	DIR			  *dir = AllocateDir("streamext");
	List		  *found = NIL;
	List		  *databases;
	struct dirent *entry;
	ListCell	  *lc;

	if (dir == NULL)
		return; /* no stream has ever had one */
	while ((entry = ReadDirExtended(dir, "streamext", LOG)) != NULL)
	{
		char *end;
		Oid	  dboid = (Oid) strtoul(entry->d_name, &end, 10);

		if (*end == '\0' && OidIsValid(dboid))
			found = lappend_oid(found, dboid);
	}
	FreeDir(dir);
	/* read after the directory: what is there by then and not here is gone */
	databases = launcher_read_databases();
	foreach (lc, found)
		if (launcher_find_database(databases, lfirst_oid(lc)) == NULL)
			streamext_journal_remove_database(lfirst_oid(lc));
}

/* ---------------------------------------------------------------- the process */

static void
launcher_at_exit(int code, Datum arg)
{
	if (streamext_shared->launcher_pid == MyProcPid)
	{
		streamext_shared->launcher_pid = 0;
		streamext_shared->launcher_latch = NULL;
	}
}

static void
launcher_interrupts(void)
{
	/* not 0: somebody other than the postmaster may have sent the signal, and then it shall come back */
	if (ShutdownRequestPending)
		proc_exit(1);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
}

static bool
launcher_database_exists(Oid dboid)
{
	return launcher_find_database(launcher_read_databases(), dboid) != NULL;
}

/* One look at everything; ms to sleep at most, -1: until woken. */
static long
launcher_look(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next;

	MemoryContextReset(launcher_round);
	MemoryContextSwitchTo(launcher_round);
	launcher_finish_probe(now);
	launcher_collect_probes();
	next = launcher_start_probe(now);
	next = Min(next, launcher_start_workers(now));
	next = Min(next, streamext_gateways_launch(now, launcher_database_exists));
	next = Min(next, launcher_start_tellers(now));
	return next == DT_NOEND ? -1 : Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next), 1);
}

void
streamext_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	before_shmem_exit(launcher_at_exit, 0);
	streamext_shared->launcher_latch = MyLatch;
	pg_memory_barrier();
	streamext_shared->launcher_pid = MyProcPid;

	launcher_slots = MemoryContextAllocZero(TopMemoryContext, sizeof(LauncherSlot) * streamext_shared->nstreams * 2);
	launcher_round = AllocSetContextCreate(TopMemoryContext, "streamext launcher", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(launcher_round);
	launcher_remove_orphans();
	launcher_queue_all_probes();

	for (;;)
	{
		long timeout;

		ResetLatch(MyLatch);
		launcher_interrupts();
		timeout = launcher_look();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout >= 0 ? WL_TIMEOUT : 0), timeout,
						 PG_WAIT_EXTENSION);
	}
}

void
streamext_launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	strlcpy(worker.bgw_library_name, "streamext", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "streamext_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "streamext launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "streamext launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}
