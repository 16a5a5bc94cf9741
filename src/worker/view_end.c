/*
 * worker/view_end.c
 *		A view's fold ended: by an error for good, for a while, or because the view leaves its process.
 *
 * What is published stays as it is; the next fold goes on from there.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "durable/checkpoint.h"
#include "sink/windows.h"
#include "worker/worker_private.h"

#define VIEW_END_MS 1000 /* before a view that was set aside is started again; doubles */
#define VIEW_END_MAX_MS 60000

void
streamext_worker_end_fold(WorkerView *v)
{
	if (v->fold != NULL)
		streamext_fold_end(v->fold);
	v->fold = NULL;
	v->view = NULL;
}

void
streamext_worker_fail_view(Worker *w, WorkerView *v, const char *message)
{
	streamext_checkpoint_copy_rest(&w->shard);
	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_view_fail(v->slot, message);
	LWLockRelease(w->shard.slot->lock);
	v->prepared = v->behind = false;
	if (w->reading.pending)
		streamext_batch_withdraw(w->reading.batch, v->viewoid);
	streamext_worker_end_fold(v);
}

void
streamext_worker_set_aside(Worker *w, WorkerView *v, const ErrorData *error)
{
	int64 pause = Min(VIEW_END_MAX_MS, (int64) VIEW_END_MS << Min(v->slot->health.failures, 10));

	streamext_worker_fail_view(w, v, error->message);
	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_view_set_aside(v->slot, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), pause));
	LWLockRelease(w->shard.slot->lock);
	if (w->shard.catchup)
		streamext_wake_worker(w->shard.slot); /* which knows when */
}

/* What lower rooms have done: streamext_worker_shard_ops. */
static void
view_end_fail_view(Shard *shard, WorkerView *v, const char *message)
{
	streamext_worker_fail_view((Worker *) shard, v, message);
}

static void
view_end_forget_panes(WorkerView *v, Pane *const *panes, int npanes)
{
	streamext_fold_forget_panes(v->fold, panes, npanes);
}

const ShardOps streamext_worker_shard_ops = {
	.fail_view = view_end_fail_view,
	.forget_panes = view_end_forget_panes,
	.checkpointed = streamext_into_settled,
};
