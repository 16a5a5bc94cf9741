/*
 * durable/events.h
 *		What happened to streams' sources, in the table streamext_internal.stream_event.
 */
#ifndef STREAMEXT_STREAM_EVENT_H
#define STREAMEXT_STREAM_EVENT_H

#include "base/streamext.h"
#include "shared/shard.h"
#include "shared/shmem.h"

/*
 * Writes the connector's events, in a transaction of its own (so outside of any). The newest STREAM_EVENT_ROWS of
 * each stream are kept. With no events at hand it costs nothing.
 */
extern void streamext_stream_events_write(Shard *shard);

/* Right after the poll that noted them, before positions move: counts what the stream itself has missed. */
extern void streamext_stream_events_count(Shard *shard);

#endif /* STREAMEXT_STREAM_EVENT_H */
