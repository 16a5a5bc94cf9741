/*
 * worker/view_start.c
 *		A view's fold begun, from what shared memory has of the view, or the last checkpoint.
 *
 * An error makes the one view fail. What streamext.rebuild wants counted anew is emptied here.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "base/label.h"
#include "base/budget.h"
#include "base/transaction.h"
#include "durable/checkpoint.h"
#include "durable/history.h"
#include "worker/flow.h"
#include "durable/round.h"
#include "durable/journal_base.h"
#include "sink/windows.h"
#include "view/compile.h"
#include "view/union.h"
#include "worker/poison.h"
#include "worker/seek.h"
#include "worker/worker_private.h"

/* Back to a slot without state, so that the next try finds it as this one did. */
static void
view_start_unstart_view(Worker *w, WorkerView *v)
{
	if (v->slot->counted.definition == 0)
		return;
	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_view_slot_void(v->slot);
	LWLockRelease(w->shard.slot->lock);
}

/* Panes that went to history after the checkpoint was taken are in both. */
static void
view_start_drop_sealed(Worker *w, WorkerView *v)
{
	ViewState *state = &v->slot->counted.state;

	streamext_stream_lock_exclusive(w->shard.slot);
	while (state->npanes > 0 && state->panes[0]->id <= v->slot->history.sealed)
		streamext_state_drop_pane(state, state->panes[0]);
	LWLockRelease(w->shard.slot->lock);
}

typedef struct StartStep
{
	Worker			   *w;
	WorkerView		   *v;
	int64			   *round;
	bool				fresh;
	CheckpointPosition *seed; /* of a view that was counted elsewhere */
} StartStep;

/* At which round a view without state begins: that of what it begins with. */
static void
view_start_find_round(StartStep *step, const CompiledView *compiled)
{
	Worker	   *w = step->w;
	WorkerView *v = step->v;

	step->seed = streamext_checkpoint_seed(&w->shard, v->viewoid, compiled->definition, *step->round);
	streamext_view_set_round(
		v->slot, step->seed != NULL
					 ? *step->round
					 : streamext_checkpoint_round(&w->shard, v->viewoid, compiled->definition, *step->round));
}

/* What it begins with. Where a stateless view stands is kept with its rows, which may be newer than the checkpoint. */
static void
view_start_restore(StartStep *step)
{
	Worker	   *w = step->w;
	WorkerView *v = step->v;

	if (v->view->stateless)
		return;
	if (step->seed == NULL)
		streamext_checkpoint_restore_view(&w->shard, v);
	else if (streamext_worker_expect(w, step->seed))
		streamext_checkpoint_restore_seed(&w->shard, v, step->seed);
	else
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("no memory for the stream's partitions"),
						errhint("Raise streamext.memory_limit and restart the server.")));
	view_start_drop_sealed(w, v);
}

/* A StreamextStep. */
static void
view_start_start_step(void *arg)
{
	StartStep	 *step = arg;
	Worker		 *w = step->w;
	WorkerView	 *v = step->v;
	CompiledView *compiled;

	streamext_budget_begin(streamext_view_time_limit_ms); /* functions of constants are evaluated */
	compiled = streamext_view_compile(v->viewoid);
	(void) streamext_budget_end();
	(void) streamext_view_has_rights(compiled, true);
	*step->round = streamext_view_round(v->viewoid);
	if (step->fresh)
		view_start_find_round(step, compiled);
	if (step->fresh && !w->shard.ops->replayable && v->slot->counted.start_position < 0)
		streamext_view_set_start(v->slot, streamext_checkpoint_start_position(&w->shard, v->viewoid));
	streamext_view_set_role(v->slot, compiled->owner);
	if (v->slot->counted.definition != compiled->definition)
		streamext_view_end_alone(v->slot); /* another one may well be quicker */
	if (OidIsValid(w->shard.config->from.inner) && !w->shard.catchup)
		streamext_flow_settle(w, v, compiled, *step->round);
	if (OidIsValid(w->shard.config->from.origin))
		streamext_view_take_part(compiled, w->shard.identity.shard);
	v->fold = streamext_fold_start(compiled, v->slot, w->shard.config, v->cxt);
	v->view = compiled;
	streamext_outlets_start(v);
	streamext_history_start(&w->shard, v);
	if (step->fresh)
		view_start_restore(step);
	if (OidIsValid(w->shard.config->from.inner) && !w->shard.catchup)
		streamext_flow_started(w, v);
}

/*
 * Compiles the view and starts its fold, with what the last checkpoint holds if shared memory has nothing. An error makes this view
 * fail only. False: it is locked, try again. *round: what streamext.rebuild wants.
 */
static bool
view_start_start_view(Worker *w, WorkerView *v, int64 *round)
{
	StartStep	  step = { w, v, round, v->slot->counted.definition == 0 };
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	ErrorData	 *error;
	bool		  over;

	if (streamext_poison_is_blamed(w, v->viewoid))
	{
		MemoryContextSwitchTo(old);
		streamext_worker_fail_view(w, v, STREAMEXT_POISON_REASON);
		return true;
	}
	streamext_poison_starts(w, v->viewoid);
	error = streamext_try(view_start_start_step, &step);
	streamext_poison_leave();
	over = streamext_budget_end();
	MemoryContextSwitchTo(old);
	if (error == NULL)
	{
		streamext_view_show(v->slot);
		return true;
	}
	v->fold = NULL;
	v->view = NULL;
	if (step.fresh)
		view_start_unstart_view(w, v);
	if (streamext_error_is_lock(error->sqlerrcode))
		return false;
	CHECK_FOR_INTERRUPTS();
	if (over)
		error->message = "compiling the view took longer than streamext.view_time_limit";
	ereport(LOG, (errmsg("continuous view %s could not be started: %s", v->label, streamext_error_text(error))));
	if (streamext_worker_error_is_passing(error))
		streamext_worker_set_aside(w, v, error);
	else
		streamext_worker_fail_view(w, v, error->message);
	return true;
}

/* What it holds is of before it was counted elsewhere, unnoticed: nobody wants that any more. */
static bool
view_start_is_superseded(Worker *w, const WorkerView *v, int64 round)
{
	return streamext_checkpoint_seed(&w->shard, v->viewoid, v->view->definition, round) != NULL;
}

/* The same; begins the view anew if streamext.rebuild was called since its state was begun. */
bool
streamext_worker_start_view(Worker *w, WorkerView *v)
{
	int64 round = 0;
	bool  available = view_start_start_view(w, v, &round);

	if (v->fold == NULL || v->slot->counted.round >= round)
		return available;
	if (view_start_is_superseded(w, v, round))
	{
		streamext_worker_end_fold(v);
		v->max_event_time = NULL;
		streamext_view_retire(v->slot);
		view_start_unstart_view(w, v);
		return view_start_start_view(w, v, &round);
	}
	if (w->shard.catchup && !w->shard.ops->replayable)
		return available; /* the journal is the stream's worker's, when it has the view back */
	if (!w->shard.ops->replayable && !streamext_seeks_rebuild(w) && !streamext_view_is_held(v->slot, w->shard.config))
	{
		streamext_view_set_round(v->slot, round);
		ereport(
			LOG,
			(errmsg(
				"the journal does not hold any more what the continuous view %s has counted; it is not counted anew",
				v->label)));
		return available;
	}
	streamext_worker_end_fold(v);
	v->max_event_time = NULL;
	if (!w->shard.ops->replayable)
		streamext_checkpoint_confirm_nothing(&w->shard);
	streamext_view_begin_anew(v->slot);
	streamext_view_set_round(v->slot, round);
	return view_start_start_view(w, v, &round);
}

static void
view_start_label(WorkerView *v)
{
	strlcpy(v->label, streamext_relation_label(v->viewoid), sizeof(v->label));
}

WorkerView *
streamext_worker_add_view(Worker *w, Oid viewoid, ViewSlot *slot, bool paused)
{
	MemoryContext old = MemoryContextSwitchTo(w->views_cxt);
	WorkerView	 *v = palloc0(sizeof(WorkerView));

	v->viewoid = viewoid;
	view_start_label(v);
	v->slot = slot;
	v->paused = paused;
	v->cxt = AllocSetContextCreate(w->views_cxt, "streamext view", ALLOCSET_DEFAULT_SIZES);
	w->shard.views = lappend(w->shard.views, v);
	MemoryContextSwitchTo(old);
	return v;
}
