/*
 * worker/poison.h
 *		Records and views that crash their worker: known by a mark that survives it.
 */
#ifndef STREAMEXT_POISON_H
#define STREAMEXT_POISON_H

#include "worker/worker_private.h"

/* What is said of them, in letters and as a view's error. */
#define STREAMEXT_POISON_REASON "crashed the worker"

/* In a process that has claimed its slot: finds the mark, judges the crash that it may tell of, and says how long to wait, in ms. */
extern long streamext_poison_start(Worker *w);

/* How many records to ask for, and how many of those that came are to be taken now: in the neighbourhood of a crash one by one. */
extern int streamext_poison_most(const Worker *w);
extern int streamext_poison_take(const Worker *w);

/* What is at work: a batch (its decoding), a view on it, or what is done for all of them; a view that is started. Plain stores. */
extern void streamext_poison_batch(Worker *w);
extern void streamext_poison_view(Worker *w, const WorkerView *v);
extern void streamext_poison_rest(Worker *w);
extern void streamext_poison_starts(Worker *w, Oid view);
/*
 * The batch of a request of streamext.retry_dead_letters (not 0). `doubts`: it has crashed the worker, so each letter is to be tried alone before.
 * `retried`: it is through.
 */
extern void streamext_poison_retry(Worker *w, int64 request);
extern bool streamext_poison_doubts_retry(int64 request);
extern void streamext_poison_retried(void);
/* Nothing is, any more; `published`: the batch is through. */
extern void streamext_poison_done(Worker *w, bool published);
/* The same from a signal handler. */
extern void streamext_poison_leave(void);
/* The process ends, or is ended, by no crash of its own. Also from a signal handler. */
extern void streamext_poison_end(void);

/* Worker after worker has crashed with nothing at work: why this one is not to read. NULL: it may, as when it is absolved. Palloc'd. */
extern const char *streamext_poison_stops(void);
extern void		   streamext_poison_absolve(void);

/* A view that has crashed the worker and was not changed since. In a transaction. */
extern bool streamext_poison_is_blamed(Worker *w, Oid view);

#endif /* STREAMEXT_POISON_H */
