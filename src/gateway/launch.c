/*
 * gateway/launch.c
 *		What the launcher does for gateways: a process for each slot that has none.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/background.h"
#include "gateway/gateway.h"
#include "shared/database.h"

#define LAUNCH_RESTART_MS 100
#define LAUNCH_RETRY_MS 1000

typedef struct LaunchSlot
{
	Oid						identity[2]; /* database, server */
	BackgroundWorkerHandle *handle;		 /* NULL: none started, or it is gone */
	TimestampTz				launched_at, next_try;
} LaunchSlot;

static LaunchSlot launch_slots[STREAMEXT_MAX_GATEWAYS];

/* Whether the slot wants a process and has none; its identity. */
static bool
launch_wanted(int index, Oid identity[2])
{
	const GatewaySlot *slot = &streamext_shared->gateways[index];
	bool			   wanted;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	wanted = slot->in_use && slot->pid == 0 && pg_atomic_read_u32((pg_atomic_uint32 *) &slot->generation) != 0 &&
			 !streamext_database_leaving(slot->dboid);
	identity[0] = slot->dboid;
	identity[1] = slot->serverid;
	LWLockRelease(streamext_shared->registry_lock);
	return wanted;
}

/* True if the last process is gone and it may be tried now. */
static bool
launch_due(LaunchSlot *mine, const Oid identity[2], TimestampTz now)
{
	if (mine->handle != NULL)
	{
		if (!streamext_background_ended(&mine->handle))
			return false; /* its end will be notified */
		mine->next_try = Max(TimestampTzPlusMilliseconds(now, LAUNCH_RESTART_MS),
							 TimestampTzPlusMilliseconds(mine->launched_at, LAUNCH_RETRY_MS));
	}
	if (memcmp(mine->identity, identity, sizeof(mine->identity)) != 0)
		mine->next_try = 0;
	memcpy(mine->identity, identity, sizeof(mine->identity));
	return mine->next_try <= now;
}

static bool
launch_start(int index, LaunchSlot *mine)
{
	char			name[BGW_MAXLEN];
	BackgroundStart start = { .name = name,
							  .type = "streamext gateway",
							  .function = "streamext_gateway_main",
							  .arg = Int32GetDatum(index),
							  .extra = mine->identity,
							  .extra_size = sizeof(mine->identity) };

	snprintf(name, BGW_MAXLEN, "streamext gateway of server %u", mine->identity[1]);
	return streamext_background_start(&start, &mine->handle);
}

static void
launch_forget(int index)
{
	GatewaySlot *slot = &streamext_shared->gateways[index];

	(void) streamext_gateway_release(slot->dboid, slot->serverid, pg_atomic_read_u32(&slot->generation));
}

TimestampTz
streamext_gateways_launch(TimestampTz now, bool (*exists)(Oid dboid))
{
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < STREAMEXT_MAX_GATEWAYS; i++)
	{
		LaunchSlot *mine = &launch_slots[i];
		Oid			identity[2];

		if (!launch_wanted(i, identity))
			continue;
		if (launch_due(mine, identity, now))
		{
			mine->launched_at = now;
			if (!exists(identity[0]))
			{
				launch_forget(i);
				continue;
			}
			if (!launch_start(i, mine))
			{
				mine->next_try = TimestampTzPlusMilliseconds(now, LAUNCH_RETRY_MS);
				streamext_gateway_set_state(&streamext_shared->gateways[i], GATEWAY_WAITING, "",
											"no free background worker slot; raise max_worker_processes");
			}
		}
		if (mine->handle == NULL)
			next = Min(next, mine->next_try);
	}
	return next;
}
