/*
 * worker/seek.h
 *		streamext.seek: requests of backends, carried out by the stream's worker.
 */
#ifndef STREAMEXT_SEEK_H
#define STREAMEXT_SEEK_H

#include "base/streamext.h"
#include "worker/worker_private.h"

/*
 * Reads what is still to be done into w->seeks, and deletes what a committed checkpoint holds. In a transaction with a snapshot,
 * when the stream's positions are restored.
 */
extern void streamext_seeks_load(Worker *w);

/* Whether views begin anew by one of them. */
extern bool streamext_seeks_rebuild(const Worker *w);

/* Whether the stream stands where it stood when the first of them was asked, or further. */
extern bool streamext_seeks_due(const Worker *w);

/* Until then: takes out of a batch with its positions what lies behind that. */
extern void streamext_seeks_bound(const Worker *w, Batch *batch);

/* Does what is due, with partitions known and before the views' positions are settled. False: the source has not said yet where. */
extern bool streamext_seeks_apply(Worker *w);

#endif /* STREAMEXT_SEEK_H */
