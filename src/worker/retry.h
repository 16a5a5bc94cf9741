/*
 * worker/retry.h
 *		streamext.retry_dead_letters: requests of backends, carried out by the stream's worker.
 */
#ifndef STREAMEXT_RETRY_H
#define STREAMEXT_RETRY_H

#include "base/streamext.h"
#include "worker/worker_private.h"

/* Reads into w->retries what is still to be done, and deletes what is void. In a transaction with a snapshot. */
extern void streamext_retries_load(Worker *w);

/* Whether there is a request to be folded now. */
extern bool streamext_retries_due(const Worker *w);

/*
 * Folds the letters of the request that is due. No transaction is open. False: memory is full, nothing has changed. After an error that is no row's the
 * request comes again (streamext_worker_try).
 */
extern bool streamext_retries_run(Worker *w);

/* When a checkpoint holds what was folded: the letters go, and the request. No transaction is open. */
extern void streamext_retries_settle(Worker *w);

#endif /* STREAMEXT_RETRY_H */
