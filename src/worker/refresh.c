/*-------------------------------------------------------------------------
 *
 * worker/refresh.c
 *		From the catalogue to what the worker works with: configuration, connector, decoder, and a fold for each view.
 *
 * Done at start and whenever the slot's generation has moved, be it by this process itself because an owner's rights have changed. The commit that moved it may not have sent its invalidation messages yet,
 * so all caches are dropped first. Everything about views is made anew each time (their kept state is in shared
 * memory and stays as long as its definition is the same); connector and decoder only when their definition has changed.
 *
 * A stream that is gone takes its slot and its journal with it, unless the generation has moved again.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "durable/paused.h"
#include "durable/round.h"
#include "access/xact.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/nodes.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/lsyscache.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/chunk.h"
#include "base/content.h"
#include "base/transaction.h"
#include "decode/value_options.h"
#include "durable/checkpoint.h"
#include "durable/checkpoint_read.h"
#include "base/budget.h"
#include "base/fault.h"
#include "durable/history.h"
#include "durable/into_position.h"
#include "durable/journal_base.h"
#include "source/journal/journal.h"
#include "sink/windows.h"
#include "worker/alone.h"
#include "worker/flow.h"
#include "worker/retry.h"
#include "worker/seek.h"
#include "view/compile.h"
#include "view/dependents.h"
#include "worker/poison.h"
#include "worker/worker_private.h"
#include "stream/definition.h"

#define REFRESH_RETRY_MS 200

/* ---------------------------------------------------------------- configuration */

const char *
streamext_worker_view_label(const WorkerView *v)
{
	const char *name = get_rel_name(v->viewoid);

	return name != NULL ? psprintf("\"%s\"", name) : psprintf("with OID %u", v->viewoid);
}

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

/* What lower rooms have done: streamext_worker_shard_ops. */
static void
refresh_fail_view(Shard *shard, WorkerView *v, const char *message)
{
	streamext_worker_fail_view((Worker *) shard, v, message);
}

static void
refresh_forget_panes(WorkerView *v, Pane *const *panes, int npanes)
{
	streamext_fold_forget_panes(v->fold, panes, npanes);
}

const ShardOps streamext_worker_shard_ops = {
	.fail_view = refresh_fail_view,
	.forget_panes = refresh_forget_panes,
	.checkpointed = streamext_into_settled,
};

/* May be called outside a transaction. */
static void
refresh_end_views(Worker *w)
{
	ListCell *lc;

	streamext_checkpoint_copy_rest(&w->shard);
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		streamext_worker_end_fold(v);
	}
	w->shard.views = NIL;
	MemoryContextReset(w->views_cxt);
}

/* Closes connector and decoder and forgets the configuration; views have ended. */
static void
refresh_close(Worker *w)
{
	Connector *connector = w->shard.connector;

	streamext_worker_unwatch();
	w->shard.connector = NULL;
	if (connector != NULL)
		w->shard.ops->close(connector);
	streamext_delivery_close(&w->sending);
	w->sending.config = NULL;
	if (w->setup.decoder != NULL)
		streamext_decoder_free(w->setup.decoder);
	w->setup.decoder = NULL;
	w->reading.batch = NULL;
	w->shard.config = NULL;
	w->setup.fingerprint = NULL;
	w->shard.npartitions = w->map.nmapped = 0;
	w->shard.attached = w->reading.dropped = w->reading.paused = w->reading.pending = w->reading.full = w->flush.known =
		w->shard.confirmed = false;
	w->source.errors = 0;
	if (w->setup.cxt != NULL)
		MemoryContextDelete(w->setup.cxt);
	w->setup.cxt = NULL;
}

/* Positions of another source are void, and with them all that was counted. Views are found empty by their folds. */
static void
refresh_reset_stream(Worker *w, uint64 source)
{
	StreamSlot *slot = w->shard.slot;

	for (int i = 0; i < streamext_shared->nviews; i++)
		if (streamext_shared->views[i].id.in_use && streamext_shared->views[i].id.stream == w->shard.index)
			streamext_view_retire(&streamext_shared->views[i]);
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	streamext_stream_lock_exclusive(slot);
	streamext_view_slots_void(w->shard.index);
	streamext_stream_reset(slot, source);
	LWLockRelease(slot->lock);
	LWLockRelease(streamext_shared->registry_lock);
}

static void
refresh_make_buffer(Worker *w)
{
	StreamSlot	 *slot = w->shard.slot;
	StreamBuffer *old = slot->buffer;
	StreamBuffer *buffer;

	if (old != NULL && slot->buffer_size == w->shard.config->buffer_size)
		return;
	buffer = w->shard.config->buffer_size == 0 ? NULL : streamext_buffer_create(w->shard.config->buffer_size);
	streamext_stream_lock_exclusive(slot);
	LWLockAcquire(slot->buffer_lock, LW_EXCLUSIVE);
	streamext_stream_set_buffer(slot, buffer, w->shard.config->buffer_size);
	if (old != NULL)
		streamext_buffer_destroy(old);
	LWLockRelease(slot->buffer_lock);
	LWLockRelease(slot->lock);
}

/* Nothing has been found by the definition at hand; without memory nothing is counted. */
static void
refresh_make_columns(Worker *w)
{
	int			  n = w->shard.config->desc->natts;
	ColumnCounts *columns = n > 0 ? streamext_chunk_alloc(sizeof(ColumnCounts) * n, NULL) : NULL;
	ColumnCounts *old;

	if (columns != NULL)
		memset(columns, 0, sizeof(ColumnCounts) * n);
	streamext_stream_lock_exclusive(w->shard.slot);
	old = w->shard.slot->columns;
	streamext_stream_set_columns(w->shard.slot, columns, n);
	LWLockRelease(w->shard.slot->lock);
	if (old != NULL)
		streamext_chunk_free(old);
}

/* Takes over a configuration that was read into its own context. In a transaction. */
static void
refresh_install(Worker *w, MemoryContext cxt, StreamConfig *config, char *fingerprint)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	uint64		  source = streamext_worker_source(config);

	w->setup.cxt = cxt;
	w->shard.config = config;
	w->setup.fingerprint = fingerprint;
	w->shard.ops = w->shard.catchup && config->connector->again != NULL ? config->connector->again : config->connector;
	w->setup.journal_floor = 0;
	if (!w->shard.ops->replayable && pg_atomic_read_u64(&w->shard.slot->journal_end) == (uint64) -1)
		w->setup.journal_floor =
			streamext_checkpoint_is_known(&w->shard)
				? streamext_checkpoint_journal_floor(w->shard.identity.relid, w->shard.identity.shard)
				: streamext_into_highest(w->shard.identity.relid);
	streamext_checkpoint_read_forget();
	if (!w->shard.catchup)
	{
		if (w->shard.slot->counted.source == 0)
			streamext_pause_settle(w->shard.slot, 0); /* it may be paused since before a restart of the server */
		if (w->shard.slot->counted.source != source)
		{
			refresh_reset_stream(w, source);
			streamext_checkpoint_restore_stream(&w->shard);
		}
		refresh_make_buffer(w);
		refresh_make_columns(w);
	}
	w->setup.decoder = streamext_decoder_create(config, cxt);
	MemoryContextSwitchTo(old);
}

/* The same unless it is the one at hand. */
static void
refresh_take_config(Worker *w, MemoryContext cxt, StreamConfig *config)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	char		 *fingerprint = streamext_worker_fingerprint(config);

	MemoryContextSwitchTo(old);
	if (w->setup.fingerprint != NULL && strcmp(w->setup.fingerprint, fingerprint) == 0)
	{
		w->shard.config->owner = config->owner; /* as whom the next batch is decoded */
		MemoryContextDelete(cxt);
		return;
	}
	refresh_close(w);
	refresh_install(w, cxt, config, fingerprint);
}

/* Outside transactions: it may take a second. */
static void
refresh_open(Worker *w)
{
	char		  activity[2 * NAMEDATALEN + 32];
	ConnectorOpen args;

	snprintf(activity, sizeof(activity), "%sstream %s.%s shard %d", w->shard.catchup ? "catch-up of " : "",
			 w->shard.config->schema, w->shard.config->name, w->shard.identity.shard);
	pgstat_report_activity(STATE_RUNNING, activity);
	args.config = w->shard.config;
	args.shard = w->shard.identity.shard;
	args.shards = w->shard.config->workers;
	args.cxt = w->setup.cxt;
	args.journal = (JournalPlace){
		MyDatabaseId,			w->shard.identity.relid,	 w->shard.identity.shard,	 w->shard.config->journal,
		w->setup.journal_floor, &w->shard.slot->journal_end, w->shard.slot->journal_lock
	};
	args.mark = streamext_checkpoint_mark(&w->shard, &args.mark_size);
	w->shard.connector = w->shard.ops->open(&args);
	for (int i = 0; i < w->shard.slot->counted.npartitions; i++)
		w->shard.connector->known =
			w->shard.connector->known || w->shard.slot->counted.partitions[i].start_position >= 0;
	w->reading.batch = streamext_batch_create(w->shard.config, w->shard.connector, w->setup.cxt);
	MemoryContextSwitchTo(w->shard.cxt);
}

/* ---------------------------------------------------------------- which views there are */

typedef struct ViewStream
{
	Oid viewoid;
	Oid stream;
} ViewStream;

/* A StreamextStep. */
static void
refresh_view_stream_step(void *arg)
{
	ViewStream *found = arg;

	found->stream = streamext_view_stream(found->viewoid);
}

/* The stream that the view reads; false: a transaction holds the view. */
static bool
refresh_view_stream(Oid viewoid, Oid *stream)
{
	ViewStream found = { viewoid, InvalidOid };
	ErrorData *error = streamext_try(refresh_view_stream_step, &found);

	if (error != NULL && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	*stream = error == NULL ? found.stream : InvalidOid;
	return error == NULL;
}

/*
 * Continuous views over the stream, by what their rules depend on; of those that a transaction holds the ones that have a slot
 * on it (the end of the transaction makes us look again), where starting them will find it out. The oldest first, so that a view that joins a table finds in
 * it what an older one has written of the same batch.
 */
static List *
refresh_list_views(Worker *w, const List *slots)
{
	Oid		  relid = w->shard.identity.relid;
	List	 *views = NIL;
	ListCell *lc;

	if (OidIsValid(w->shard.config->inner))
		return list_make1_oid(relid);
	foreach (lc, streamext_view_dependents(relid))
	{
		Oid view = lfirst_oid(lc);
		Oid stream;

		if (!streamext_view_options(view).continuous)
			continue;
		if (refresh_view_stream(view, &stream) ? stream == relid : list_member_oid(slots, view))
			views = lappend_oid(views, view);
	}
	list_sort(views, list_oid_cmp);
	return views;
}

/* The stream that a view now reads is told to look. */
static void
refresh_hand_over(Oid viewoid)
{
	Oid stream = streamext_view_options(viewoid).continuous ? streamext_view_stream(viewoid) : InvalidOid;

	for (int shard = 0; OidIsValid(stream) && shard < STREAMEXT_MAX_SHARDS; shard++)
		streamext_announce_stream(MyDatabaseId, stream, shard, false);
}

/* The views that have a settled slot on this stream. Ask before the catalogue: a view committed later is not yet to be missed. */
static List *
refresh_list_slots(Worker *w)
{
	List *views = NIL;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (view->id.in_use && !view->id.reserved && !view->id.retained && view->id.stream == w->shard.index)
			views = lappend_oid(views, view->id.viewoid);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return views;
}

/* Frees the slots of views that are not on the stream any more. False: the catch-up worker has not let go of one yet. */
static bool
refresh_drop_views(Worker *w, List *slots, List *views)
{
	bool	  complete = true;
	bool	  gone = false;
	ListCell *lc;

	foreach (lc, list_difference_oid(slots, views))
	{
		int index = streamext_find_view(w->shard.identity.dboid, lfirst_oid(lc), w->shard.identity.shard);

		if (index < 0 || streamext_shared->views[index].id.stream != w->shard.index)
			continue;
		if (!streamext_remove_view(index))
		{
			complete = false;
			continue;
		}
		refresh_hand_over(lfirst_oid(lc));
		gone = true;
	}
	if (gone)
		streamext_history_forget_dropped();
	return complete;
}

/* The view's slot on this stream; -1: there is none to be had (*reason), or another stream's worker has not let it go yet (NULL). */
static int
refresh_view_slot(Worker *w, Oid viewoid, const char **reason)
{
	int		  index = streamext_add_view(w->shard.identity.dboid, viewoid, w->shard.index, -1);
	ViewSlot *slot;
	bool	  abandoned;

	*reason = NULL;
	if (index < 0)
	{
		*reason = "too many continuous views; raise streamext.max_views";
		return -1;
	}
	slot = &streamext_shared->views[index];
	if (slot->id.stream == w->shard.index)
		return index;

	/* without a worker there the state is nobody's */
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	abandoned = slot->id.in_use && streamext_shared->streams[slot->id.stream].worker.pid == 0;
	LWLockRelease(streamext_shared->registry_lock);
	if (!abandoned)
		return -1;
	if (!streamext_remove_view(index))
		return -1;
	index = streamext_add_view(w->shard.identity.dboid, viewoid, w->shard.index, -1);
	return index >= 0 && streamext_shared->views[index].id.stream == w->shard.index ? index : -1;
}

/* ---------------------------------------------------------------- folds */

/* Back to a slot without state, so that the next try finds it as this one did. */
static void
refresh_unstart_view(Worker *w, WorkerView *v)
{
	if (v->slot->counted.definition == 0)
		return;
	streamext_stream_lock_exclusive(w->shard.slot);
	streamext_view_slot_void(v->slot);
	LWLockRelease(w->shard.slot->lock);
}

/* Panes that went to history after the checkpoint was taken are in both. */
static void
refresh_drop_sealed(Worker *w, WorkerView *v)
{
	ViewState *state = &v->slot->counted.state;

	streamext_stream_lock_exclusive(w->shard.slot);
	while (state->npanes > 0 && state->panes[0]->id <= v->slot->history.sealed)
		streamext_state_drop_pane(state, state->panes[0]);
	LWLockRelease(w->shard.slot->lock);
}

/* Readers take its state from now on. */
static void
refresh_show_view(Worker *w, WorkerView *v)
{
	if (v->slot->counted.ready)
		return;
	streamext_stream_lock_exclusive(w->shard.slot);
	v->slot->counted.ready = true;
	LWLockRelease(w->shard.slot->lock);
}

typedef struct StartStep
{
	Worker	   *w;
	WorkerView *v;
	int64	   *round;
	bool		fresh;
} StartStep;

/* A StreamextStep. */
static void
refresh_start_step(void *arg)
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
		v->slot->counted.round = streamext_checkpoint_round(&w->shard, v->viewoid, compiled->definition, *step->round);
	if (step->fresh && !w->shard.ops->replayable && v->slot->counted.start_position < 0)
		v->slot->counted.start_position = streamext_checkpoint_start_position(&w->shard, v->viewoid);
	streamext_view_set_role(v->slot, compiled->owner);
	if (v->slot->counted.definition != compiled->definition)
		streamext_view_end_alone(v->slot); /* another one may well be quicker */
	if (OidIsValid(w->shard.config->inner) && !w->shard.catchup)
		streamext_flow_settle(w, v, compiled, *step->round);
	v->fold = streamext_fold_start(compiled, v->slot, w->shard.config, v->cxt);
	v->view = compiled;
	streamext_outlets_start(v);
	streamext_history_start(&w->shard, v);
	/* where a stateless view stands is kept with its rows, which may be newer than the checkpoint */
	if (step->fresh && !compiled->stateless)
	{
		streamext_checkpoint_restore_view(&w->shard, v);
		refresh_drop_sealed(w, v);
	}
	if (OidIsValid(w->shard.config->inner) && !w->shard.catchup)
		streamext_flow_started(w, v);
}

/*
 * Compiles the view and starts its fold, with what the last checkpoint holds if shared memory has nothing. An error makes this view
 * fail only. False: it is locked, try again. *round: what streamext.rebuild wants.
 */
static bool
refresh_start_view(Worker *w, WorkerView *v, int64 *round)
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
	error = streamext_try(refresh_start_step, &step);
	streamext_poison_leave();
	over = streamext_budget_end();
	MemoryContextSwitchTo(old);
	if (error == NULL)
	{
		refresh_show_view(w, v);
		return true;
	}
	v->fold = NULL;
	v->view = NULL;
	if (step.fresh)
		refresh_unstart_view(w, v);
	if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
		return false;
	CHECK_FOR_INTERRUPTS();
	if (over)
		error->message = "compiling the view took longer than streamext.view_time_limit";
	ereport(LOG,
			(errmsg("continuous view with OID %u could not be started: %s", v->viewoid, streamext_error_text(error))));
	if (streamext_worker_error_is_passing(error))
		streamext_worker_set_aside(w, v, error);
	else
		streamext_worker_fail_view(w, v, error->message);
	return true;
}

/* The same; begins the view anew if streamext.rebuild was called since its state was begun. */
bool
streamext_worker_start_view(Worker *w, WorkerView *v)
{
	int64 round = 0;
	bool  available = refresh_start_view(w, v, &round);

	if (v->fold == NULL || v->slot->counted.round >= round)
		return available;
	if (w->shard.catchup && !w->shard.ops->replayable)
		return available; /* the journal is the stream's worker's, when it has the view back */
	if (!w->shard.ops->replayable && !streamext_seeks_rebuild(w) && !streamext_view_is_held(v->slot, w->shard.config))
	{
		v->slot->counted.round = round;
		ereport(
			LOG,
			(errmsg(
				"the journal does not hold any more what the continuous view with OID %u has counted; it is not counted anew",
				v->viewoid)));
		return available;
	}
	streamext_worker_end_fold(v);
	v->max_event_time = NULL;
	if (!w->shard.ops->replayable)
		streamext_checkpoint_confirm_nothing(&w->shard);
	streamext_view_begin_anew(v->slot);
	v->slot->counted.round = round;
	return refresh_start_view(w, v, &round);
}

static WorkerView *
refresh_add_view(Worker *w, Oid viewoid, ViewSlot *slot, bool paused)
{
	MemoryContext old = MemoryContextSwitchTo(w->views_cxt);
	WorkerView	 *v = palloc0(sizeof(WorkerView));

	v->viewoid = viewoid;
	v->slot = slot;
	v->paused = paused;
	v->cxt = AllocSetContextCreate(w->views_cxt, "streamext view", ALLOCSET_DEFAULT_SIZES);
	w->shard.views = lappend(w->shard.views, v);
	MemoryContextSwitchTo(old);
	return v;
}

/* Folds for those views that are this worker's, or become it. False: one was locked. */
static bool
refresh_start_folds(Worker *w)
{
	bool	  complete = true;
	int		  running = 0;
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		/* one that is being caught up comes back when the other worker has seen that it is paused */
		if (!streamext_handover_reclaim(w->shard.slot, v->slot, v->paused))
		{
			complete = complete && !v->paused;
			continue;
		}
		complete = streamext_worker_start_view(w, v) && complete;
		running += v->fold != NULL && !v->paused;
	}
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (running > 0 || v->slot->owner.catchup == CATCHUP_NONE ||
			v->slot->owner.alone_until > GetCurrentTimestamp() ||
			!streamext_handover_reclaim(w->shard.slot, v->slot, true))
			continue;
		complete = streamext_worker_start_view(w, v) && complete;
	}
	return complete;
}

/* All views there are, with a fold where it is for this worker to have one. False: look again soon. In a transaction; the former folds have ended. */
static bool
refresh_start_views(Worker *w)
{
	List	 *slots = refresh_list_slots(w);
	List	 *paused;
	List	 *oids;
	bool	  complete;
	ListCell *lc;

	InvalidateCatalogSnapshot(); /* one from before would not show the newest of these slots' views */
	oids = refresh_list_views(w, slots);
	paused = streamext_paused_list();
	complete = refresh_drop_views(w, slots, oids);
	streamext_checkpoint_keep_views(&w->shard, oids);
	foreach (lc, oids)
	{
		const char *reason;
		int			index = refresh_view_slot(w, lfirst_oid(lc), &reason);

		if (index >= 0)
			refresh_add_view(w, lfirst_oid(lc), &streamext_shared->views[index],
							 list_member_oid(paused, lfirst_oid(lc)));
		else if (reason != NULL)
			streamext_stream_set_state(w->shard.slot, w->shard.slot->status.state, reason);
	}
	return refresh_start_folds(w) && complete;
}

/* ---------------------------------------------------------------- all of it */

/* The stream (or this shard of it) is no more. False if the slot went with it. */
static bool
refresh_leave(Worker *w, uint32 generation, bool dropped)
{
	if (w->shard.connector != NULL)
		w->shard.connector->gone = dropped;
	refresh_close(w);
	if (!streamext_remove_stream_at(w->shard.index, generation))
		return true; /* something happened since: look again */
	w->shard.slot = NULL;
	if (dropped)
		streamext_journal_remove(w->shard.identity.dboid, w->shard.identity.relid);
	return false;
}

/* Begins a transaction in which nothing waits long for a lock, and reads the stream's definition. NULL: it is gone. */
static StreamConfig *
refresh_begin(Worker *w, MemoryContext cxt)
{
	MemoryContext old;
	StreamConfig *config;

	STREAMEXT_FAULT("refresh-begin");
	w->setup.pause_seen = pg_atomic_read_u32(&w->shard.slot->ask.pause);
	StartTransactionCommand();
	InvalidateSystemCaches();
	PushActiveSnapshot(GetTransactionSnapshot());
	streamext_worker_short_lock_timeout();
	old = MemoryContextSwitchTo(cxt);
	config = streamext_stream_config(w->shard.identity.relid);
	MemoryContextSwitchTo(old);
	if (config != NULL && w->shard.identity.shard < config->workers && !w->shard.catchup)
		streamext_checkpoint_open(&w->shard);
	if (config != NULL)
		streamext_identity_rest(config->owner);
	return config;
}

/* The same; false: a transaction holds the stream, and ours is over. */
static bool
refresh_try_begin(Worker *w, MemoryContext cxt, StreamConfig **config)
{
	volatile bool available = true;

	PG_TRY();
	{
		*config = refresh_begin(w, cxt);
	}
	PG_CATCH();
	{
		if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
			PG_RE_THROW();
		FlushErrorState();
		AbortCurrentTransaction();
		available = false;
	}
	PG_END_TRY();
	return available;
}

static void
refresh_end(Worker *w)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
	streamext_identity_rise();
	MemoryContextSwitchTo(w->shard.cxt);
}

static void
refresh_later(Worker *w)
{
	w->setup.refresh_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), REFRESH_RETRY_MS);
}

/* A connector that failed is worth another try after any DDL on the stream, a stop by on_error is not over by itself. */
static void
refresh_revive(Worker *w)
{
	if (w->shard.connector == NULL || !w->shard.connector->failed)
		return;
	if (w->reading.stopped)
	{
		streamext_pause_settle(w->shard.slot, w->setup.pause_seen);
		streamext_stream_set_state(w->shard.slot, STREAM_STARTING, NULL); /* before a flush sees that we have looked */
	}
	w->reading.stopped = false;
	refresh_close(w);
}

bool
streamext_worker_refresh(Worker *w)
{
	uint32		  generation = pg_atomic_read_u32(&w->shard.slot->ask.generation);
	MemoryContext cxt = AllocSetContextCreate(w->shard.cxt, "streamext configuration", ALLOCSET_DEFAULT_SIZES);
	StreamConfig *config;
	bool		  complete;

	streamext_worker_drop_batch(w);
	if (!refresh_try_begin(w, cxt, &config))
	{
		MemoryContextDelete(cxt);
		refresh_later(w);
		return true; /* go on with what there is */
	}
	if (streamext_handover_is_busy(w->shard.index) &&
		(config == NULL || w->shard.identity.shard >= config->workers ||
		 streamext_worker_source(config) != w->shard.slot->counted.source))
	{
		refresh_end(w);
		MemoryContextDelete(cxt);
		refresh_later(w); /* the catch-up worker lets go, for the same reason that we are here */
		return true;
	}
	refresh_end_views(w);
	if (config == NULL || w->shard.identity.shard >= config->workers)
	{
		streamext_history_forget_dropped();
		refresh_end(w);
		MemoryContextDelete(cxt);
		return refresh_leave(w, generation, config == NULL);
	}

	w->shard.slot->owner = config->owner;
	if (w->shard.connector == NULL && streamext_alone_has_no_worker(w->shard.index))
	{
		refresh_end(w);
		proc_exit(0);
	}
	refresh_revive(w);
	w->expiry.due = true; /* the retention may be another */
	refresh_take_config(w, cxt, config);
	streamext_seeks_load(w);
	streamext_retries_load(w);
	complete = refresh_start_views(w);
	refresh_end(w);

	if (w->shard.connector == NULL)
		refresh_open(w);
	w->shard.attached = w->letters.behind = false;
	w->setup.refresh_at = 0;
	streamext_checkpoint_note(&w->shard);
	if (complete)
		pg_atomic_write_u32(&w->shard.slot->ask.generation_seen, generation);
	else
		refresh_later(w);
	if (OidIsValid(w->shard.config->inner))
		streamext_flow_ask(w);
	ConditionVariableBroadcast(&w->shard.slot->progress);
	return true;
}

/* ---------------------------------------------------------------- rights */

bool
streamext_worker_rights_due(const Worker *w)
{
	return pg_atomic_read_u32(&streamext_shared->rights) != w->setup.rights_seen;
}

/* A view that has failed may be able to go on; one that runs must not, if its owner may not read what it reads any more. */
static bool
refresh_rights_have_changed(Worker *w)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->slot->health.status == VIEW_FAILED ||
			(v->fold != NULL && !streamext_view_has_rights(streamext_fold_view(v->fold), false)))
			return true;
	}
	return false;
}

/*
 * Looks whether it matters to this stream's views that some role's rights have changed; if so, the stream's processes look into the
 * catalogue. Outside transactions.
 */
void
streamext_worker_check_rights(Worker *w)
{
	MemoryContext cxt = CurrentMemoryContext;
	uint32		  rights = pg_atomic_read_u32(&streamext_shared->rights);
	volatile bool changed = true;

	PG_TRY();
	{
		StartTransactionCommand();
		InvalidateSystemCaches();
		changed = refresh_rights_have_changed(w);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		FreeErrorData(streamext_worker_caught(cxt)); /* something is being dropped */
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	if (changed)
	{
		streamext_announce_stream(w->shard.identity.dboid, w->shard.identity.relid, w->shard.identity.shard, false);
		streamext_wake_launcher();
	}
	w->setup.rights_seen = rights;
}

/* ---------------------------------------------------------------- the catch-up worker's */

/* Folds on the views that are to be caught up next. False: one was locked. In a transaction. */
static bool
refresh_take_views(Worker *w)
{
	List	 *waiting = list_difference_oid(refresh_list_views(w, refresh_list_slots(w)), streamext_paused_list());
	List	 *chosen = streamext_handover_choose(w, waiting);
	bool	  complete = true;
	ListCell *lc;

	foreach (lc, chosen)
	{
		ViewSlot   *slot = streamext_handover_take(w, lfirst_oid(lc));
		WorkerView *v;

		if (slot == NULL)
			continue;
		v = refresh_add_view(w, lfirst_oid(lc), slot, false);
		complete = streamext_worker_start_view(w, v) && complete;
		if (v->fold != NULL)
			continue;
		streamext_handover_release(w, slot);
		w->shard.views = list_delete_ptr(w->shard.views, v);
	}
	return complete;
}

/*
 * The same for a catch-up worker: lets all views go, and takes those whose turn it is. False if there is nothing to do: no view waits,
 * or the stream is gone or another one than its worker knows.
 */
bool
streamext_worker_refresh_catchup(Worker *w)
{
	MemoryContext cxt = AllocSetContextCreate(w->shard.cxt, "streamext configuration", ALLOCSET_DEFAULT_SIZES);
	StreamConfig *config;
	ListCell	 *lc;

	w->map.generation = pg_atomic_read_u32(&w->shard.slot->ask.generation);
	w->map.requests = pg_atomic_read_u32(&w->shard.slot->ask.catchup_requests);
	streamext_worker_drop_batch(w);
	foreach (lc, w->shard.views)
		streamext_handover_release(w, ((WorkerView *) lfirst(lc))->slot);
	refresh_end_views(w);
	streamext_wake_worker(w->shard.slot); /* it may have waited for that */
	if (!refresh_try_begin(w, cxt, &config))
	{
		MemoryContextDelete(cxt);
		refresh_later(w);
		return true;
	}
	if (config == NULL || w->shard.identity.shard >= config->workers ||
		streamext_worker_source(config) != w->shard.slot->counted.source)
	{
		refresh_end(w);
		MemoryContextDelete(cxt);
		return false;
	}

	refresh_take_config(w, cxt, config);
	w->setup.refresh_at = 0;
	if (!refresh_take_views(w))
		refresh_later(w);
	streamext_alone_begin_turn(w);
	refresh_end(w);
	w->shard.attached = false;
	if (w->shard.views == NIL)
		return w->setup.refresh_at != 0;
	if (w->shard.connector == NULL)
		refresh_open(w);
	return true;
}
