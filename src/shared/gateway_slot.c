/*
 * shared/gateway_slot.c
 *		The slots of gateways. What the functions promise is in shared/gateway_slot.h.
 */
#include "base/streamext.h"

#include "miscadmin.h"

#include "base/clip.h"
#include "shared/shmem.h"

const char *
streamext_gateway_state_name(GatewayState state)
{
	static const char *const names[] = {
		[GATEWAY_STARTING] = "starting",
		[GATEWAY_LISTENING] = "listening",
		[GATEWAY_ADDRESS_IN_USE] = "address_in_use",
		[GATEWAY_CERTIFICATE_UNREADABLE] = "certificate_unreadable",
		[GATEWAY_WAITING] = "waiting",
		[GATEWAY_FAILED] = "failed",
	};

	return names[state];
}

void
streamext_gateway_slots_init(GatewaySlot *slots)
{
	for (int i = 0; i < STREAMEXT_MAX_GATEWAYS; i++)
	{
		pg_atomic_init_u32(&slots[i].generation, 0);
		pg_atomic_init_u64(&slots[i].connections, 0);
		pg_atomic_init_u64(&slots[i].requests, 0);
	}
}

/* Needs registry_lock. */
static int
gateway_lookup(Oid dboid, Oid serverid)
{
	Assert(LWLockHeldByMe(streamext_shared->registry_lock));
	for (int i = 0; i < STREAMEXT_MAX_GATEWAYS; i++)
	{
		const GatewaySlot *slot = &streamext_shared->gateways[i];

		if (slot->in_use && slot->serverid == serverid && slot->dboid == dboid)
			return i;
	}
	return -1;
}

/* Needs registry_lock exclusive. */
static int
gateway_make(Oid dboid, Oid serverid)
{
	int index = gateway_lookup(dboid, serverid);

	for (int i = 0; index < 0 && i < STREAMEXT_MAX_GATEWAYS; i++)
	{
		GatewaySlot *slot = &streamext_shared->gateways[i];

		if (slot->in_use)
			continue;
		pg_atomic_write_u32(&slot->generation, 0);
		pg_atomic_write_u64(&slot->connections, 0);
		pg_atomic_write_u64(&slot->requests, 0);
		slot->pid = 0;
		slot->latch = NULL;
		slot->state = GATEWAY_STARTING;
		slot->listen[0] = slot->last_error[0] = '\0';
		slot->dboid = dboid;
		slot->serverid = serverid;
		slot->in_use = true;
		index = i;
	}
	return index;
}

int
streamext_gateway_reserve(Oid dboid, Oid serverid)
{
	int index;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = gateway_make(dboid, serverid);
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

/* Needs registry_lock. */
static void
gateway_wake_one(GatewaySlot *slot)
{
	if (slot->pid != 0 && slot->latch != NULL)
		SetLatch(slot->latch);
}

int
streamext_gateway_announce(Oid dboid, Oid serverid, bool make)
{
	int index;

	LWLockAcquire(streamext_shared->registry_lock, make ? LW_EXCLUSIVE : LW_SHARED);
	index = make ? gateway_make(dboid, serverid) : gateway_lookup(dboid, serverid);
	if (index >= 0)
	{
		GatewaySlot *slot = &streamext_shared->gateways[index];

		/* 0 means reserved */
		if (pg_atomic_add_fetch_u32(&slot->generation, 1) == 0)
			pg_atomic_add_fetch_u32(&slot->generation, 1);
		gateway_wake_one(slot);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return index;
}

bool
streamext_gateway_release(Oid dboid, Oid serverid, uint32 generation)
{
	int	 index;
	bool released = false;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	index = gateway_lookup(dboid, serverid);
	if (index >= 0)
	{
		GatewaySlot *slot = &streamext_shared->gateways[index];

		released = pg_atomic_read_u32(&slot->generation) == generation && (slot->pid == 0 || slot->pid == MyProcPid);
		if (released)
			slot->in_use = false;
	}
	LWLockRelease(streamext_shared->registry_lock);
	return released;
}

void
streamext_gateway_wake(Oid dboid)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < STREAMEXT_MAX_GATEWAYS; i++)
		if (streamext_shared->gateways[i].in_use && streamext_shared->gateways[i].dboid == dboid)
			gateway_wake_one(&streamext_shared->gateways[i]);
	LWLockRelease(streamext_shared->registry_lock);
}

void
streamext_gateway_set_state(GatewaySlot *slot, GatewayState state, const char *listen, const char *error)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	slot->state = state;
	if (listen != NULL)
		strlcpy(slot->listen, listen, sizeof(slot->listen));
	if (error != NULL)
		streamext_clip(slot->last_error, error, sizeof(slot->last_error));
	LWLockRelease(streamext_shared->registry_lock);
}
