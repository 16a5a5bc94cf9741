/*
 * worker/alone.h
 *		Views that would hold up the others: they go on by themselves, in the stream's catch-up worker.
 */
#ifndef STREAMEXT_ALONE_H
#define STREAMEXT_ALONE_H

#include "base/streamext.h"
#include "worker/worker_private.h"


/* The stream's owner has as many workers as one may, that were there before this one's. The stream says so. */
extern bool streamext_alone_has_no_worker(int stream);

/* Around a step of the view's that runs user code; end says whether it ran over. */
extern void streamext_alone_begin(Worker *w, WorkerView *v);
extern bool streamext_alone_end(Worker *w);

/* The view's part of the batch ran over: nothing of it counts, and the view is not this batch's any more. */
extern void streamext_alone_overrun(Worker *w, WorkerView *v);

/* The owner of the view has as much memory as one may: the view goes on by itself, or stops there. True if so. */
extern bool streamext_alone_is_over_share(Worker *w, WorkerView *v);

/* It is to be taken out of what the others wait for. Needs the stream's lock, or to be the view's process. */
static inline bool
streamext_alone_is(const ViewSlot *view)
{
	return view->owner.alone_until != 0;
}

/* The catch-up worker's: how many records it reads at once; whether another view's turn has come; whether it rests. */
extern int	streamext_alone_most(const Worker *w);
extern void streamext_alone_succeeded(Worker *w);
extern bool streamext_alone_turn_is_over(Worker *w);
extern void streamext_alone_begin_turn(Worker *w);

/* True if the process ends in the midst of a step that has caught its cancellation: the view goes on by itself. With the registry lock. */
extern bool streamext_alone_at_exit(Worker *w);

#endif /* STREAMEXT_ALONE_H */
