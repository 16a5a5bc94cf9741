/*
 * gateway/slot.c
 *		The gateway's slot: claimed at the process's start, what it shows in streamext.gateways, left at the end. What the functions promise is in
 *		gateway/gateway.h.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

#include "gateway/gateway.h"

bool
streamext_gateway_claim(Gateway *gateway, int index, const Oid identity[2])
{
	GatewaySlot *slot = &streamext_shared->gateways[index];
	bool		 mine;

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	mine = slot->in_use && slot->pid == 0 && slot->dboid == identity[0] && slot->serverid == identity[1];
	if (mine)
	{
		slot->pid = MyProcPid;
		slot->latch = MyLatch;
		slot->state = GATEWAY_STARTING;
	}
	LWLockRelease(streamext_shared->registry_lock);
	gateway->slot = slot;
	gateway->serverid = identity[1];
	gateway->listen_fd = -1;
	return mine;
}

void
streamext_gateway_error(Gateway *gateway, const char *format, ...)
{
	char	text[STREAMEXT_MAX_MESSAGE * 2];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	streamext_gateway_set_state(gateway->slot, gateway->slot->state, NULL, text);
}

void
streamext_gateway_leave(Gateway *gateway)
{
	LWLockReleaseAll();
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	if (gateway->slot->pid == MyProcPid)
	{
		gateway->slot->pid = 0;
		gateway->slot->latch = NULL;
		pg_atomic_write_u64(&gateway->slot->connections, 0);
		if (gateway->slot->state == GATEWAY_LISTENING)
			gateway->slot->state = GATEWAY_STARTING;
		gateway->slot->listen[0] = '\0';
	}
	LWLockRelease(streamext_shared->registry_lock);
	streamext_wake_launcher();
}
