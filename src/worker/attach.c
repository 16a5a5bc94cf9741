/*
 * worker/attach.c
 *		Where the connector is sent after a refresh, with new partitions, or when records were thrown away.
 *
 * Views' positions are settled first, then views that are far behind are given to the catch-up worker: the connector reads from the least position of
 * those that stay.
 */
#include "base/streamext.h"

#include "durable/checkpoint.h"
#include "worker/seek.h"
#include "worker/worker_private.h"

/* A view that knows where it starts says so, for the fold skips by what stands in the vector. */
static void
attach_settle_view(Worker *w, WorkerView *v)
{
	streamext_stream_lock_exclusive(w->shard.slot);
	for (int i = 0; i < w->shard.npartitions; i++)
		streamext_view_set_position(v->slot, i, streamext_worker_view_position(w, v, i));
	streamext_worker_check_behind(w, v);
	streamext_view_set_status(v->slot, v->paused ? VIEW_PAUSED : v->behind ? VIEW_CATCHING_UP : VIEW_RUNNING, "");
	streamext_view_note_behind(v->slot, v->behind);
	LWLockRelease(w->shard.slot->lock);
}

/*
 * After a refresh, new partitions, or a dropped batch: positions settled, the connector at the right place. False: memory is full. It
 * is not attached after it as long as the source does not say where a seek leads.
 */
bool
streamext_worker_attach(Worker *w)
{
	int		  known = w->shard.npartitions;
	ListCell *lc;

	if (!streamext_worker_adopt(w))
		return false;
	if (streamext_seeks_due(w) && !streamext_seeks_apply(w))
		return true;
	foreach (lc, w->shard.views)
		if (((WorkerView *) lfirst(lc))->fold != NULL)
			attach_settle_view(w, lfirst(lc));
	streamext_handover_request(w);
	for (int i = 0; i < w->shard.npartitions; i++)
	{
		int64 target = streamext_worker_target(w, i);
		int64 position = w->shard.connector->partitions[i].position;

		if (target >= 0 ? position == target : position < 0)
			continue;
		if (target < 0 && i >= known && !w->reading.dropped)
			continue; /* just opened: it is there */
		streamext_connector_seek(w->shard.connector, i, target);
	}
	w->reading.dropped = false;
	w->shard.attached = true;
	if (!w->shard.ops->replayable && !w->shard.confirmed)
		streamext_checkpoint_note(&w->shard);
	return true;
}
