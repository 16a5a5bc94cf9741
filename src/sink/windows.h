/*
 * sink/windows.h
 *		The windows of views with streamext.into, for the worker's loop and checkpoints.
 */
#ifndef STREAMEXT_SINK_WINDOWS_H
#define STREAMEXT_SINK_WINDOWS_H

#include "base/streamext.h"
#include "shared/shard.h"


/* Who takes a view's closed windows: streamext.into, or a continuous view over it. */
typedef struct Outlet
{
	Oid			 target; /* flow: the outer view */
	bool		 flow;
	bool		 ready;	   /* flow: what the outer view wants is known, and these are the windows */
	uint32		 seen;	   /* flow: StreamSlot.generation_seen of its worker, when that was asked */
	uint64		 number;   /* flow: under which it counts them (durable/flow_position.h) */
	struct Sink *sink;	   /* NULL: not needed yet */
	TimestampTz	 written;  /* windows that end by then have been given, of sessions those whose last row is */
	TimestampTz	 first;	   /* flow, nothing given yet: the first window's start; DT_NOEND: none is known */
	TimestampTz	 open;	   /* sessions: the least start of those that are not closed */
	int64		 span;	   /* of the last range */
	uint64		 rows;	   /* in it */
	bool		 done;	   /* the last time */
	bool		 held;	   /* flow: not done, because its journal is full and its view paused or failed, */
	TimestampTz	 retry_at; /* and not tried again before this time */
	int			 failures; /* in a row, that are tried again */
} Outlet;

/* Finds the outlets of a view whose fold has started, and where they are. In a transaction with a snapshot. */
extern void streamext_outlets_start(WorkerView *v);

/* A checkpoint of the worker's views has been committed. */
extern void streamext_into_settled(Shard *shard);
/* Writes what is closed and not written; no transaction is open. Trouble ends the view, or is tried again. */
extern void streamext_into_windows(Shard *shard, TimestampTz now);
/* When there is something to do; DT_NOEND: never. */
extern TimestampTz streamext_into_deadline(const Shard *shard);

#endif /* STREAMEXT_SINK_WINDOWS_H */
