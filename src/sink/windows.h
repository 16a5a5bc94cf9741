/*
 * sink/windows.h
 *		The windows of views with streamext.into, for the worker's loop and checkpoints.
 */
#ifndef STREAMEXT_SINK_WINDOWS_H
#define STREAMEXT_SINK_WINDOWS_H

#include "base/streamext.h"
#include "shared/shard.h"

/* A checkpoint of the worker's views has been committed. */
extern void streamext_into_settled(Shard *shard);
/* Writes what is closed and not written; no transaction is open. Trouble ends the view, or is tried again. */
extern void streamext_into_windows(Shard *shard, TimestampTz now);
/* When there is something to do; DT_NOEND: never. */
extern TimestampTz streamext_into_deadline(const Shard *shard);

#endif /* STREAMEXT_SINK_WINDOWS_H */
