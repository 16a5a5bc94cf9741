/*
 * shared/gateway_slot.h
 *		A slot in shared memory for each server whose records come through a gateway process: who runs it, and what it says of itself.
 *
 * Identity, state, listen and last_error change under registry_lock exclusive; the counters are atomics of the gateway's alone.
 */
#ifndef STREAMEXT_GATEWAY_SLOT_H
#define STREAMEXT_GATEWAY_SLOT_H

#include "base/streamext.h"

#include "port/atomics.h"
#include "storage/latch.h"

#define STREAMEXT_MAX_GATEWAYS 32 /* of all databases */

typedef enum GatewayState
{
	GATEWAY_STARTING,
	GATEWAY_LISTENING,
	GATEWAY_ADDRESS_IN_USE,			/* tried again by itself */
	GATEWAY_CERTIFICATE_UNREADABLE, /* the same */
	GATEWAY_WAITING,				/* no worker slot */
	GATEWAY_FAILED					/* tried again by itself; last_error says why */
} GatewayState;

typedef struct GatewaySlot
{
	/* identity; registry_lock */
	bool in_use;
	Oid	 dboid;
	Oid	 serverid;

	pg_atomic_uint32
		   generation; /* bumped at commit by DDL on the server; 0: reserved by a transaction that has not committed */
	pid_t  pid;		   /* 0: none; written by the gateway itself at start and exit, under registry_lock */
	Latch *latch;	   /* valid while pid != 0 */

	GatewayState	 state;
	char			 listen[128]; /* the address; "" while there is none */
	char			 last_error[STREAMEXT_MAX_MESSAGE];
	pg_atomic_uint64 connections; /* open now */
	pg_atomic_uint64 requests;	  /* since the slot was made; flume: batches */
} GatewaySlot;

extern const char *streamext_gateway_state_name(GatewayState state);

/* From shared memory's start-up. */
extern void streamext_gateway_slots_init(GatewaySlot *slots);

/* Makes the slot if it is not there, with generation 0; its index, -1: there are STREAMEXT_MAX_GATEWAYS. */
extern int streamext_gateway_reserve(Oid dboid, Oid serverid);
/* Bumps its generation and wakes its process; makes it if `make`. -1: not there, or no room. Does not raise. */
extern int streamext_gateway_announce(Oid dboid, Oid serverid, bool make);
/* Frees it if its generation is still this one and no other process than this runs it. */
extern bool streamext_gateway_release(Oid dboid, Oid serverid, uint32 generation);
/* Wakes all of a database: streams, mappings or rights are not as before. */
extern void streamext_gateway_wake(Oid dboid);

/* By the gateway or the launcher. NULL leaves the text as it is. */
extern void streamext_gateway_set_state(GatewaySlot *slot, GatewayState state, const char *listen, const char *error);

#endif /* STREAMEXT_GATEWAY_SLOT_H */
