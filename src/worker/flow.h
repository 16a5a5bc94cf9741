/*
 * worker/flow.h
 *		A continuous view over another one: from where on, and under which number, it counts the inner one's closed windows.
 */
#ifndef STREAMEXT_FLOW_H
#define STREAMEXT_FLOW_H

#include "worker/worker_private.h"

/*
 * Before the view's fold starts, which then begins anew if what it counts is not what it has counted: another definition of either view,
 * streamext.rebuild, or a server whose journal may not be what the catalogue says (another timeline). In a transaction with a snapshot.
 */
extern void streamext_flow_settle(Worker *w, WorkerView *v, const CompiledView *view, int64 round);

/* Behind it: where nothing is counted yet, windows come from the first on, and none is late. */
extern void streamext_flow_started(Worker *w, WorkerView *v);

/* When that is committed: the inner view's worker looks what is wanted. */
extern void streamext_flow_ask(const Worker *w);

#endif /* STREAMEXT_FLOW_H */
