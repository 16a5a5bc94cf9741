/*
 * sink/sink.h
 *		Where the rows of closed windows go (streamext.into): one const ops struct for each kind of target.
 *
 * Call order: check at CREATE VIEW; in the worker of the stream's shard 0 open, then rows and settled in turn, close. All in the worker's
 * main thread. What a window is, which ones are due and that each is given once is sink/windows.c's; rows, and the range of time that
 * they are of, are committed together. A target outside of the database cannot be part of that transaction: its sink puts rows aside
 * in a table of the extension's by `rows`, and sends them when `settled` says that this is committed; what it has sent it takes away
 * there in a transaction of its own, so that after a crash it sends again rather than loses.
 */
#ifndef STREAMEXT_SINK_H
#define STREAMEXT_SINK_H

#include "base/streamext.h"

typedef struct Sink
{
	const struct SinkOps *ops;
	Oid					  view;
	Oid					  target;
	MemoryContext		  cxt; /* its own: goes with it */
	MemoryContextCallback callback;
} Sink;

typedef struct SinkOps
{
	const char
		*name; /* of the foreign data wrapper whose tables it takes (ConnectorOps.sink); "table": ordinary ones */

	/* Raises unless the target can take the view's rows; PostgreSQL's INSERT of them has been checked. May be NULL. */
	void (*check)(Oid view, Oid target);

	/* In a transaction, as the view's owner. sink is filled already; returns it, or a larger struct that begins with it, in sink->cxt. */
	Sink *(*open)(Sink *sink);

	/*
	 * Takes the rows of the query, whose output columns are `columns`, quoted and separated by commas. Within SPI, in the transaction that
	 * counts them as given, as the view's owner in a security-restricted operation. Raises what makes it impossible. How many rows.
	 */
	uint64 (*rows)(Sink *sink, const char *query, const char *columns);

	/*
	 * All windows that end by `until` have been given in committed transactions. Called when that is new, at the start, and when the
	 * deadline has come; outside of transactions; no longer than 1 s; raises only what fails the view. May be NULL.
	 */
	void (*settled)(Sink *sink, TimestampTz until);

	/* When settled wants to be called though nothing is new; DT_NOEND: never. May be NULL. */
	TimestampTz (*deadline)(const Sink *sink);

	/* The view ends, or the process. May be NULL. */
	void (*close)(Sink *sink);
} SinkOps;

#define SINK(kind) extern const SinkOps streamext_##kind##_sink;
#include "sink/kinds.h"
#undef SINK

/* In a transaction; raises if no sink takes the target's rows, or what the sink has to say. */
extern void streamext_sink_check(Oid view, Oid target);

/* In a transaction, as the view's owner. Lives as long as cxt, unless it is closed before. */
extern Sink *streamext_sink_open(Oid view, Oid target, MemoryContext cxt);
extern void	 streamext_sink_close(Sink *sink);

#endif /* STREAMEXT_SINK_H */
