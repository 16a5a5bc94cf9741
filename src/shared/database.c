/*
 * shared/database.c
 *		Databases as the registry knows them: to be probed by the launcher, or to be empty of workers for a while. What the functions promise
 *		is in shared/database.h.
 *
 * A database that must be empty of workers is marked until the end of the transaction that asked for it, or of the process.
 */
#include "base/streamext.h"

#include <signal.h>

#include "access/xact.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "shared/database.h"
#include "shared/shmem.h"

#define LEAVE_TIMEOUT_MS 5000
#define LEAVE_POLL_MS 10

/* Databases that this process has asked workers to leave. */
#define DATABASE_MAX_LEFT 8
static Oid	database_left[DATABASE_MAX_LEFT];
static int	database_nleft = 0;
static bool database_exit_registered = false;

bool
streamext_database_has_streams(Oid dboid)
{
	bool found = false;

	if (!OidIsValid(dboid) || streamext_shared == NULL)
		return false;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams && !found; i++)
		found = streamext_shared->streams[i].id.in_use && streamext_shared->streams[i].id.dboid == dboid;
	for (int i = 0; i < STREAMEXT_MAX_GATEWAYS && !found; i++)
		found = streamext_shared->gateways[i].in_use && streamext_shared->gateways[i].dboid == dboid;
	for (int i = 0; i < STREAMEXT_MAX_TELLERS && !found; i++)
		found = streamext_shared->tellers[i].dboid == dboid;
	LWLockRelease(streamext_shared->registry_lock);
	return found;
}

/* Needs registry_lock exclusive. NULL: no room. */
static struct DatabaseSlot *
database_slot(Oid dboid, bool make)
{
	struct DatabaseSlot *free_slot = NULL;

	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	for (int i = 0; i < STREAMEXT_MAX_DATABASES; i++)
	{
		struct DatabaseSlot *slot = &streamext_shared->databases[i];

		if (slot->dboid == dboid)
			return slot;
		if (slot->dboid == InvalidOid && free_slot == NULL)
			free_slot = slot;
	}
	if (!make || free_slot == NULL)
		return NULL;
	free_slot->dboid = dboid;
	free_slot->probe = free_slot->held = false;
	free_slot->leave = 0;
	return free_slot;
}

static void
database_release(struct DatabaseSlot *slot)
{
	if (!slot->probe && slot->leave == 0)
		slot->dboid = InvalidOid;
}

void
streamext_database_set_probe(Oid dboid, bool probe)
{
	struct DatabaseSlot *slot = database_slot(dboid, probe);

	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	if (slot == NULL)
	{
		if (probe)
			streamext_shared->probe_all = true;
		return;
	}
	slot->probe = probe;
	slot->held = false;
	database_release(slot);
}

void
streamext_database_note_held(Oid dboid)
{
	struct DatabaseSlot *slot = database_slot(dboid, false);

	Assert(LWLockHeldByMeInMode(streamext_shared->registry_lock, LW_EXCLUSIVE));
	if (slot != NULL)
		slot->held = slot->probe;
}

bool
streamext_database_is_held(Oid dboid)
{
	struct DatabaseSlot *slot = database_slot(dboid, false);

	return slot != NULL && slot->held;
}

bool
streamext_database_leaving(Oid dboid)
{
	struct DatabaseSlot *slot = database_slot(dboid, false);

	return slot != NULL && slot->leave > 0;
}

/* Everything that this process has kept empty. */
void
streamext_database_return_all(void)
{
	if (database_nleft == 0)
		return;
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	while (database_nleft > 0)
	{
		struct DatabaseSlot *slot = database_slot(database_left[--database_nleft], false);

		if (slot != NULL && slot->leave > 0)
		{
			slot->leave--;
			database_release(slot);
		}
	}
	LWLockRelease(streamext_shared->registry_lock);
	streamext_wake_launcher();
}

static void
database_at_exit(int code, Datum arg)
{
	LWLockReleaseAll();
	streamext_database_return_all();
}

/* Tells the workers to go; true when there are none. */
static bool
database_dismiss_workers(Oid dboid)
{
	bool empty = true;

	/* who holds registry_lock knows that a worker_pid there is alive */
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];

		if (!slot->id.in_use || slot->id.dboid != dboid)
			continue;
		if (slot->worker.pid != 0)
			kill(slot->worker.pid, SIGTERM);
		if (slot->catchup.pid != 0)
			kill(slot->catchup.pid, SIGTERM);
		empty = empty && slot->worker.pid == 0 && slot->catchup.pid == 0;
	}
	for (int i = 0; i < STREAMEXT_MAX_GATEWAYS; i++)
	{
		const GatewaySlot *slot = &streamext_shared->gateways[i];

		if (!slot->in_use || slot->dboid != dboid || slot->pid == 0)
			continue;
		kill(slot->pid, SIGTERM);
		empty = false;
	}
	for (int i = 0; i < STREAMEXT_MAX_TELLERS; i++)
	{
		const TellerSlot *teller = &streamext_shared->tellers[i];

		if (teller->dboid != dboid || teller->pid == 0)
			continue;
		kill(teller->pid, SIGTERM);
		empty = false;
	}
	LWLockRelease(streamext_shared->registry_lock);
	return empty;
}

void
streamext_database_leave(Oid dboid)
{
	TimestampTz			 start = GetCurrentTimestamp();
	struct DatabaseSlot *slot;

	if (streamext_shared == NULL || !OidIsValid(dboid))
		return;
	if (!database_exit_registered)
		before_shmem_exit(database_at_exit, 0);
	database_exit_registered = true;
	if (database_nleft == DATABASE_MAX_LEFT)
		elog(ERROR, "too many databases to be left by streams");

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	slot = database_slot(dboid, true);
	if (slot != NULL)
	{
		slot->leave++;
		database_left[database_nleft++] = dboid;
	}
	LWLockRelease(streamext_shared->registry_lock);
	if (slot == NULL)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("too many databases are being changed at the same time"), errhint("Try again.")));

	while (!database_dismiss_workers(dboid) &&
		   !TimestampDifferenceExceeds(start, GetCurrentTimestamp(), LEAVE_TIMEOUT_MS))
	{
		CHECK_FOR_INTERRUPTS();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, LEAVE_POLL_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* Before the end of the transaction others would still see a dropped database, and a worker would run into it. */
void
streamext_database_return(Oid dboid)
{
	if (streamext_shared != NULL && !IsTransactionState())
		streamext_database_return_all();
}
