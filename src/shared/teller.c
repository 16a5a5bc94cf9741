/*
 * shared/teller.c
 *		Slots of tellers. What the functions promise is in shared/teller.h.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/label.h"
#include "shared/shmem.h"
#include "shared/teller.h"

#define TELLER_TICK_MS 100
#define TELLER_START_MS 15000 /* the launcher may have other things to do first */

void
streamext_teller_init(TellerSlot *tellers)
{
	for (int i = 0; i < STREAMEXT_MAX_TELLERS; i++)
	{
		pg_atomic_init_u32(&tellers[i].generation, 0);
		pg_atomic_init_u64(&tellers[i].requested, 0);
		pg_atomic_init_u64(&tellers[i].done, 0);
		ConditionVariableInit(&tellers[i].progress);
	}
}

/* Needs registry_lock, exclusive with `make`. NULL: none, or no room. */
static TellerSlot *
teller_find(Oid dboid, bool make)
{
	TellerSlot *empty = NULL;

	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	for (int i = 0; i < STREAMEXT_MAX_TELLERS; i++)
	{
		TellerSlot *slot = &streamext_shared->tellers[i];

		if (slot->dboid == dboid)
			return slot;
		if (!OidIsValid(slot->dboid) && empty == NULL)
			empty = slot;
	}
	if (!make || empty == NULL)
		return NULL;
	empty->dboid = dboid;
	memset(empty->aside, 0, sizeof(empty->aside));
	empty->last = InvalidOid;
	return empty;
}

static void
teller_tell(Oid dboid, bool make)
{
	TellerSlot *slot;

	if (streamext_shared == NULL)
		return;
	LWLockAcquire(streamext_shared->registry_lock, make ? LW_EXCLUSIVE : LW_SHARED);
	slot = teller_find(dboid, make);
	if (slot != NULL)
	{
		if (make)
			pg_atomic_add_fetch_u32(&slot->generation, 1);
		if (slot->pid != 0)
			SetLatch(slot->latch);
	}
	LWLockRelease(streamext_shared->registry_lock);
	if (make)
		streamext_wake_launcher();
	if (make && slot == NULL)
		ereport(LOG,
				(errmsg("alerts and notifications of database %s are not at work", streamext_database_label(dboid)),
				 errdetail("At most %d databases can have them.", STREAMEXT_MAX_TELLERS)));
}

void
streamext_teller_announce(Oid dboid)
{
	teller_tell(dboid, true);
}

/* The same, only if there is a teller already; never raises. */
static void
teller_wake(Oid dboid)
{
	teller_tell(dboid, false);
}

TellerSlot *
streamext_teller_claim(Oid dboid)
{
	TellerSlot *slot;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	slot = teller_find(dboid, false);
	if (slot != NULL && slot->pid == 0)
	{
		slot->latch = MyLatch;
		slot->pid = MyProcPid;
	}
	else
		slot = NULL;
	LWLockRelease(streamext_shared->registry_lock);
	return slot;
}

static int
teller_aside_index(const TellerSlot *slot, Oid view, int task)
{
	for (int i = 0; i < STREAMEXT_TELLER_ASIDE; i++)
		if (slot->aside[i].view == view && slot->aside[i].task == task)
			return i;
	return -1;
}

/* Where there are too many the one that ended fewest processes is forgotten. */
void
streamext_teller_set_aside(TellerSlot *slot, Oid view, int task, TellerEnd how)
{
	int			index = teller_aside_index(slot, view, task);
	TellerAside aside = { view, task, 1, how };

	slot->last = view;
	if (index >= 0)
	{
		slot->aside[index].times++;
		slot->aside[index].how = how;
		return;
	}
	index = 0;
	for (int i = 1; i < STREAMEXT_TELLER_ASIDE; i++)
		if (slot->aside[i].times < slot->aside[index].times)
			index = i;
	slot->aside[index] = aside;
}

void
streamext_teller_forgive(TellerSlot *slot, Oid view, int task)
{
	int index = teller_aside_index(slot, view, task);

	if (index >= 0)
		memset(&slot->aside[index], 0, sizeof(TellerAside));
}

int
streamext_teller_ended(const TellerSlot *slot, Oid view, int task, TellerEnd *how)
{
	int index = teller_aside_index(slot, view, task);

	if (index < 0)
		return 0;
	*how = slot->aside[index].how;
	return slot->aside[index].times;
}

bool
streamext_teller_leave(TellerSlot *slot, bool free, uint32 generation)
{
	bool same;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	same = pg_atomic_read_u32(&slot->generation) == generation;
	if (slot->pid == MyProcPid && (same || !free))
	{
		slot->pid = 0;
		slot->latch = NULL;
	}
	if (same && free)
		slot->dboid = InvalidOid;
	LWLockRelease(streamext_shared->registry_lock);
	if (same && free)
		ConditionVariableBroadcast(&slot->progress);
	return same;
}

static bool
teller_is_deaf(const TellerSlot *slot)
{
	BudgetDeaf deaf = slot->deaf;

	if (slot->pid == 0 || deaf.since == 0)
		return false;
	ereport(
		WARNING,
		(errmsg("alerts are not evaluated: view %s takes longer than it may, in code that does not react to its cancel",
				streamext_relation_label(deaf.view)),
		 errhint(
			 "Drop the view, so that its code is not called again; all alerts of the database, and the DROP, wait until it returns.")));
	return true;
}

void
streamext_teller_wait(bool (*has_alerts)(void))
{
	TimestampTz alone_since = 0;
	TellerSlot *slot;
	uint64		ticket;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	slot = teller_find(MyDatabaseId, false);
	LWLockRelease(streamext_shared->registry_lock);
	if (slot == NULL)
		return;
	ticket = pg_atomic_add_fetch_u64(&slot->requested, 1);
	teller_wake(MyDatabaseId);
	ConditionVariablePrepareToSleep(&slot->progress);
	while (slot->dboid == MyDatabaseId && pg_atomic_read_u64(&slot->done) < ticket && !teller_is_deaf(slot))
	{
		if (slot->pid != 0)
			alone_since = 0;
		else if (alone_since == 0)
		{
			if (!has_alerts())
				break;
			alone_since = GetCurrentTimestamp();
		}
		else if (TimestampDifferenceExceeds(alone_since, GetCurrentTimestamp(), TELLER_START_MS))
			ereport(
				ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("alerts of this database are waiting for a worker"),
				 errhint(
					 "Raise max_worker_processes (now %d) and restart the server. If processes are free, their own one ends "
					 "each time: the server log says why.",
					 max_worker_processes)));
		(void) ConditionVariableTimedSleep(&slot->progress, TELLER_TICK_MS, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}
