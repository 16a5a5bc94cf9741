/*
 * worker/retire.h
 *		The end of what views held before they were begun anew.
 */
#ifndef STREAMEXT_RETIRE_H
#define STREAMEXT_RETIRE_H

#include "base/streamext.h"
#include "worker/worker_private.h"

/* Retires what views that have caught up with the stream held before, between batches. */
extern void streamext_views_retire(Worker *w);

/* Deletes what history has of retired content, when no reader can want it any more. No transaction is open. */
extern void streamext_views_tidy(Worker *w, TimestampTz now);

/* When there is something to do; DT_NOEND: never. */
extern TimestampTz streamext_views_tidy_deadline(const Worker *w, TimestampTz now);

#endif /* STREAMEXT_RETIRE_H */
