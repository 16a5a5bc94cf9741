/*
 * worker/view_prepare.c
 *		A view's part of the batch at hand: what may fail of it, before anything is published.
 *
 * It ends here in one of these ways: prepared; memory is full; the view has failed, has left to go on by itself, or an error is raised that may be over.
 */
#include "base/streamext.h"

#include "utils/lsyscache.h"

#include "base/clip.h"
#include "base/transaction.h"
#include "durable/checkpoint.h"
#include "worker/alone.h"
#include "worker/poison.h"
#include "worker/worker_private.h"

typedef struct PrepareStep
{
	WorkerView *v;
	Batch	   *batch;
	FoldResult	result;
} PrepareStep;

/* A StreamextStep. */
static void
view_prepare_step(void *arg)
{
	PrepareStep *step = arg;

	step->result = streamext_fold_prepare(step->v->fold, step->batch);
}

/*
 * An error that the fold does not lay to a row's charge, and that will not be over by itself, ends the view, not the stream. One that may be
 * is raised, with the view in w->trouble.culprit. False: memory is full.
 */
bool
streamext_worker_prepare_view(Worker *w, WorkerView *v)
{
	PrepareStep step = { v, w->reading.batch, FOLD_OK };
	ErrorData  *error;
	bool		over;

	if (v->behind)
		streamext_worker_view_watermark(w, v);
	w->reading.batch->watermark = v->behind ? v->watermark : w->shard.slot->counted.watermark;
	if (unlikely(streamext_alone_is_over_share(w, v)))
		return v->fold == NULL; /* it has left, or stops here */

	w->trouble.culprit = v;
	streamext_poison_view(w, v);
	streamext_alone_begin(w, v);
	error = streamext_try(view_prepare_step, &step);
	over = streamext_alone_end(w);
	if (error != NULL && !over && streamext_worker_error_is_passing(error))
		ReThrowError(error);
	w->trouble.culprit = NULL;
	if (error != NULL && over)
	{
		streamext_alone_overrun(w, v);
		return true;
	}
	if (error != NULL)
	{
		ereport(LOG, (errmsg("continuous view %s has failed: %s", v->label, streamext_error_text(error))));
		streamext_worker_fail_view(w, v, error->message);
		return true;
	}
	v->prepared = step.result == FOLD_OK;
	v->too_many_groups = step.result == FOLD_TOO_MANY_GROUPS;
	return v->prepared;
}

void
streamext_worker_abandon_views(Worker *w)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->prepared)
			streamext_fold_abandon(v->fold);
		v->prepared = false;
	}
}

/* Which view it is, and which limit: who reads it has one or the other to change. */
void
streamext_worker_note_full(Worker *w, const WorkerView *full)
{
	const char *name = get_rel_name(full->viewoid);

	if (full->over_share)
		streamext_clip_format(
			w->reading.full_reason, sizeof(w->reading.full_reason),
			"the views of the owner of continuous view \"%s\" have reached streamext.owner_memory_share, %d %% of "
			"streamext.memory_limit",
			name != NULL ? name : "?", streamext_owner_memory_share);
	else if (full->too_many_groups)
		streamext_clip_format(w->reading.full_reason, sizeof(w->reading.full_reason),
							  "continuous view \"%s\" has more groups than its streamext.max_groups, " INT64_FORMAT,
							  name != NULL ? name : "?", (int64) streamext_fold_view(full->fold)->options.max_groups);
	else
		streamext_clip_format(w->reading.full_reason, sizeof(w->reading.full_reason),
							  "streamext.memory_limit is reached, by continuous view \"%s\" or another one",
							  name != NULL ? name : "?");
}

/* What the prepared views are about to change is copied first, if a checkpoint is. */
void
streamext_worker_keep_groups(Worker *w)
{
	ListCell *lc;

	if (!streamext_checkpoint_is_copying(&w->shard))
		return;
	foreach (lc, w->shard.views)
	{
		const WorkerView  *v = lfirst(lc);
		GroupEntry *const *groups;
		Pane *const		  *panes;
		int				   n;

		if (!v->prepared)
			continue;
		n = streamext_fold_groups(v->fold, &groups, &panes);
		streamext_checkpoint_keep(&w->shard, v, groups, panes, n);
	}
}
