/*
 * base/transaction.h
 *		Steps that may fail: in a subtransaction, and whose the error is.
 */
#ifndef STREAMEXT_TRANSACTION_H
#define STREAMEXT_TRANSACTION_H

#include "base/streamext.h"

/* To whose charge an error is laid that was raised while a record or a view was at work. */
typedef enum ErrorBlame
{
	BLAME_ROW,		/* the data's, or the expressions' on them: it comes again with the same row, and with no other */
	BLAME_INTERNAL, /* "cannot happen" (XX000): a row's only if it comes again with that row while others go through */
	BLAME_GENERAL	/* nobody's: a cancel, a lock, memory, disk, the network. The same again later may go through */
} ErrorBlame;

/* The only place that decides it. What is not BLAME_ROW is never a reason to leave a row out, but raised. */
extern ErrorBlame streamext_error_blame(const ErrorData *error);

/* By its SQLSTATE: another transaction has a lock, or waits for one of ours. It ends, and the same again goes through. */
extern bool streamext_error_is_lock(int sqlerrcode);

/* Its message for the server's log and elsewhere: STREAMEXT_MAX_REASON bytes at most, in whole characters. Palloc'd. */
extern char *streamext_error_text(const ErrorData *error);

typedef void (*StreamextStep)(void *arg);

/*
 * Runs the step in a subtransaction, in the current memory context. NULL: it went through and its subtransaction is committed; else the
 * error, copied into the current context, and everything that the step did is undone. Memory context and resource owner are the caller's
 * again in either case.
 */
extern ErrorData *streamext_try(StreamextStep step, void *arg);

/*
 * In the catch block around a transaction of the worker's own, in no state in particular: back to none. The error, in cxt; one that asks
 * the process to end is raised again.
 */
extern ErrorData *streamext_worker_caught(MemoryContext cxt);

/* For what a transaction holds, in this transaction. */
extern void streamext_worker_short_lock_timeout(void);

#endif /* STREAMEXT_TRANSACTION_H */
