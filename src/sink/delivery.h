/*
 * sink/delivery.h
 *		What waits in the outbox for a stream is sent by the stream's worker: of shard 0, in a thread, so that an outage holds nothing up.
 */
#ifndef STREAMEXT_DELIVERY_H
#define STREAMEXT_DELIVERY_H

#include "base/streamext.h"

#include "base/stream_def.h"
#include "shared/shmem.h"

/* A worker's part in it. */
typedef struct Sending
{
	const StreamConfig *config; /* NULL: none now, or rows are another process's to send */
	StreamSlot		   *slot;
	struct Delivery	   *delivery; /* NULL: none yet */
	TimestampTz			retry_at; /* it could not be made */
} Sending;

/* Takes up what has been sent and hands over what waits; no transaction is open. `send`: false leaves it waiting. */
extern void streamext_delivery_run(Sending *sending, TimestampTz now, bool send);
/* When run has something to do by itself; DT_NOEND: never. */
extern TimestampTz streamext_delivery_deadline(const Sending *sending, TimestampTz now);
/* Of another definition, or the end of the process: within about a second. What is under way is settled by the next one. */
extern void streamext_delivery_close(Sending *sending);

#endif /* STREAMEXT_DELIVERY_H */
