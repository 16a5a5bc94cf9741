/*-------------------------------------------------------------------------
 *
 * worker/launcher.c
 *		The process that keeps one worker running for each stream slot, and a catch-up worker while views wait for it.
 *
 * The launcher is connected to no database. It sleeps until somebody sets its latch: a commit that announced a stream, a
 * worker that goes (by itself, and through the postmaster's notification), a database to be probed.
 *
 * At start it probes each connectable non-template database (worker/launcher_probe.c), one after the other; afterwards only those it is told.
 *
 * What it knows of a slot's worker process (handle, when to try again) is its own memory; a launcher that restarts finds the
 * running workers by their worker_pid. A worker that is started twice sees that and exits.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/background.h"
#include "base/label.h"
#include "shared/database.h"
#include "base/clip.h"
#include "gateway/gateway.h"
#include "source/journal/journal.h"
#include "shared/shmem.h"
#include "worker/alone.h"
#include "worker/launcher_private.h"
#include "worker/worker.h"
#include "worker/worker_private.h"

#define LAUNCHER_RESTART_MS 100		/* after a worker was told to go */
#define LAUNCHER_RETRY_MAX_MS 10000 /* the wait doubles up to this for one that goes again and again */
#define LAUNCHER_STEADY_MS 30000	/* one that ran so long did not go again and again */

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

static LauncherSlot *launcher_slots; /* [nstreams] workers, then as many catch-up workers */
static MemoryContext launcher_round; /* reset each round */

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
	bool failed = launcher_is_catchup(idle) ? slot->catchup.failed : STREAMEXT_STATE_FAILED(slot->status.state);

	if (mine->handle != NULL)
	{
		if (!streamext_background_ended(&mine->handle))
			return false; /* its end will be notified */
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

static bool
launcher_start(LauncherSlot *mine, const char *name, const char *function, int index)
{
	BackgroundStart start = { .name = name,
							  .type = LAUNCHER_TYPE,
							  .function = function,
							  .arg = Int32GetDatum(index),
							  .extra = &mine->identity,
							  .extra_size = sizeof(ShardIdentity) };

	return streamext_background_start(&start, &mine->handle);
}

static void
launcher_start_catchup(const LauncherIdle *idle, TimestampTz now)
{
	LauncherSlot *mine = &launcher_slots[idle->process];
	char		  name[BGW_MAXLEN];

	snprintf(name, BGW_MAXLEN, "streamext catch-up of stream %u shard %d", mine->identity.relid, mine->identity.shard);
	mine->launched_at = now;
	if (launcher_start(mine, name, "streamext_catchup_main", idle->index))
		return;
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
	if (launcher_start(mine, name, "streamext_worker_main", index))
		return;
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
			databases = streamext_launcher_databases();
		database = streamext_launcher_find(databases, idle->identity.dboid);
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
	(void) streamext_background_interrupts();
}

static bool
launcher_database_exists(Oid dboid)
{
	return streamext_launcher_find(streamext_launcher_databases(), dboid) != NULL;
}

/* One look at everything; ms to sleep at most, -1: until woken. */
static long
launcher_look(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz next;

	MemoryContextReset(launcher_round);
	MemoryContextSwitchTo(launcher_round);
	next = streamext_launcher_probes(now);
	next = Min(next, launcher_start_workers(now));
	next = Min(next, streamext_gateways_launch(now, launcher_database_exists));
	next = Min(next, streamext_launcher_tellers(now));
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
	streamext_launcher_remove_orphans();
	streamext_launcher_probe_all();

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
