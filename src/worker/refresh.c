/*-------------------------------------------------------------------------
 *
 * worker/refresh.c
 *		From the catalogue to what the worker works with: configuration, connector, decoder, and a fold for each view.
 *
 * Done at start and whenever the slot's generation has moved, be it by this process itself because an owner's rights have changed. The
 * commit that moved it may not have sent its invalidation messages yet, so all caches are dropped first. Everything about views is made
 * anew each time (their kept state is in shared memory and stays as long as its definition is the same); connector and decoder only when
 * their definition has changed.
 *
 * A stream that is gone takes its slot and its journal with it, unless the generation has moved again.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "durable/paused.h"
#include "durable/round.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
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
#include "view/union.h"
#include "worker/poison.h"
#include "worker/worker_private.h"
#include "stream/definition.h"

#define REFRESH_RETRY_MS 200

/* ---------------------------------------------------------------- configuration */

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

/* Where the view begins in another stream's journal was noted when its definition was replaced (sql/commit.c). */
static void
refresh_reset_starts(Worker *w)
{
	for (int i = 0; i < streamext_shared->nviews; i++)
		if (streamext_shared->views[i].id.in_use && streamext_shared->views[i].id.stream == w->shard.index)
			streamext_view_set_start(&streamext_shared->views[i], -1);
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
	w->shard.ops = (w->shard.catchup || OidIsValid(config->from.origin)) && config->connector->again != NULL
					   ? config->connector->again
					   : config->connector;
	w->setup.journal_floor = 0;
	if (!w->shard.ops->replayable && !OidIsValid(config->from.origin) &&
		pg_atomic_read_u64(&w->shard.slot->journal_end) == (uint64) -1)
		w->setup.journal_floor =
			streamext_checkpoint_is_known(&w->shard)
				? streamext_checkpoint_journal_floor(w->shard.identity.relid, w->shard.identity.shard)
				: streamext_into_highest(w->shard.identity.relid);
	streamext_checkpoint_read_forget();
	if (!w->shard.catchup)
	{
		if (w->shard.slot->counted.source == 0 && get_rel_relkind(config->relid) != RELKIND_VIEW)
			streamext_pause_settle(w->shard.slot, 0); /* it may be paused since before a restart of the server */
		if (w->shard.slot->counted.source != source)
		{
			refresh_reset_stream(w, source);
			if (OidIsValid(config->from.origin))
				refresh_reset_starts(w);
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

/* The journal of the stream that the part reads beside its own worker, which opens it first. */
static JournalPlace
refresh_origin_journal(const StreamConfig *config)
{
	int			index = streamext_find_stream(MyDatabaseId, config->from.origin, 0);
	StreamSlot *slot;

	if (index < 0)
		elog(ERROR, "stream %u has no slot yet", config->from.origin);
	slot = &streamext_shared->streams[index];
	return (JournalPlace){ MyDatabaseId,	   config->from.origin, 0, config->source.journal, 0, &slot->journal_end,
						   slot->journal_lock, .follows = true };
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
	if (OidIsValid(w->shard.config->from.origin))
		args.shard = 0, args.shards = 1;
	args.journal = (JournalPlace){ MyDatabaseId,
								   w->shard.identity.relid,
								   w->shard.identity.shard,
								   w->shard.config->source.journal,
								   w->setup.journal_floor,
								   &w->shard.slot->journal_end,
								   w->shard.slot->journal_lock };
	if (OidIsValid(w->shard.config->from.origin) && w->shard.config->connector->journaled)
		args.journal = refresh_origin_journal(w->shard.config);
	args.mark = streamext_checkpoint_mark(&w->shard, &args.mark_size);
	w->shard.connector = w->shard.ops->open(&args);
	for (int i = 0; i < w->shard.slot->counted.npartitions; i++)
		w->shard.connector->known =
			w->shard.connector->known || w->shard.slot->counted.partitions[i].start_position >= 0;
	w->reading.batch = streamext_batch_create(w->shard.config, w->shard.connector, w->setup.cxt);
	MemoryContextSwitchTo(w->shard.cxt);
}

/* ---------------------------------------------------------------- folds */

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

/* Who reads the journal beside this worker; and this one, if it reads that of another stream. */
static void
refresh_followers(Worker *w)
{
	MemoryContext old = MemoryContextSwitchTo(w->shard.cxt);

	list_free(w->shard.followers);
	w->shard.followers = NIL;
	if (OidIsValid(w->shard.config->from.origin))
		(void) streamext_stream_follow(w->shard.index,
									   w->shard.ops->journaled ? w->shard.config->from.origin : InvalidOid);
	else if (w->shard.ops->journaled && get_rel_relkind(w->shard.identity.relid) != RELKIND_VIEW)
		w->shard.followers = streamext_union_views(w->shard.identity.relid);
	MemoryContextSwitchTo(old);
}

/* All views there are, with a fold where it is for this worker to have one. False: look again soon. In a transaction; the former folds have ended. */
static bool
refresh_start_views(Worker *w)
{
	List	 *slots = streamext_worker_list_slots(w);
	List	 *paused;
	List	 *oids;
	bool	  complete;
	ListCell *lc;

	InvalidateCatalogSnapshot(); /* one from before would not show the newest of these slots' views */
	oids = streamext_worker_list_views(w, slots);
	paused = streamext_paused_list();
	complete = streamext_worker_drop_views(w, slots, oids);
	streamext_checkpoint_keep_views(&w->shard, oids);
	foreach (lc, oids)
	{
		const char *reason;
		int			index = streamext_worker_view_slot(w, lfirst_oid(lc), &reason);

		if (index >= 0)
			streamext_worker_add_view(w, lfirst_oid(lc), &streamext_shared->views[index],
									  list_member_oid(paused, lfirst_oid(lc)) ||
										  list_member_oid(paused, w->shard.config->from.origin));
		else if (reason != NULL)
			streamext_stream_set_state(w->shard.slot, w->shard.slot->status.state, reason);
	}
	return refresh_start_folds(w) && complete;
}

/* What is paused, and what is not any more, shows as such by the time at which the generation is seen; the rest shows when it is attached. */
static void
refresh_tell_pauses(Worker *w)
{
	ListCell *lc;

	streamext_stream_lock_exclusive(w->shard.slot);
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold != NULL && v->paused != (v->slot->health.status == VIEW_PAUSED))
			streamext_view_set_status(v->slot, v->paused ? VIEW_PAUSED : VIEW_CATCHING_UP, "");
	}
	LWLockRelease(w->shard.slot->lock);
}

/* ---------------------------------------------------------------- all of it */

/* The stream (or this shard of it) is no more. False if the slot went with it; then the heirs look for its views. */
static bool
refresh_leave(Worker *w, uint32 generation, bool dropped, const List *heirs)
{
	ListCell *lc;

	if (w->shard.connector != NULL)
		w->shard.connector->gone = dropped;
	refresh_close(w);
	if (!streamext_remove_stream_at(w->shard.index, generation))
		return true; /* something happened since: look again */
	w->shard.slot = NULL;
	foreach (lc, heirs)
		streamext_worker_hand_over(lfirst_oid(lc));
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
	if (config != NULL)
		config = streamext_stream_part(config, w->shard.identity.shard);
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
		if (!streamext_error_is_lock(geterrcode()))
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

/* This worker has nothing to read any more. */
static bool
refresh_is_over(const Worker *w, const StreamConfig *config)
{
	return config == NULL || w->shard.identity.shard >= config->workers;
}

/* Whether somebody else has to let go first: the catch-up worker, for the same reason that we are here, or who takes a dropped stream's views. */
static bool
refresh_must_wait(Worker *w, const StreamConfig *config, List **heirs)
{
	if (streamext_handover_is_busy(w->shard.index) &&
		(refresh_is_over(w, config) || streamext_worker_source(config) != w->shard.slot->counted.source))
		return true;
	return config == NULL && !streamext_worker_heirs(w, heirs);
}

/* Ends the transaction that read the configuration, of which nothing was taken. */
static void
refresh_give_up(Worker *w, MemoryContext cxt)
{
	refresh_end(w);
	MemoryContextDelete(cxt);
}

bool
streamext_worker_refresh(Worker *w)
{
	uint32		  generation = pg_atomic_read_u32(&w->shard.slot->ask.generation);
	MemoryContext cxt = AllocSetContextCreate(w->shard.cxt, "streamext configuration", ALLOCSET_DEFAULT_SIZES);
	StreamConfig *config;
	List		 *heirs = NIL;
	bool		  complete;

	streamext_worker_drop_batch(w);
	if (!refresh_try_begin(w, cxt, &config))
	{
		MemoryContextDelete(cxt);
		refresh_later(w);
		return true; /* go on with what there is */
	}
	if (refresh_must_wait(w, config, &heirs))
	{
		refresh_give_up(w, cxt);
		refresh_later(w);
		return true;
	}
	refresh_end_views(w);
	if (refresh_is_over(w, config))
	{
		streamext_history_forget_dropped();
		refresh_give_up(w, cxt);
		return refresh_leave(w, generation, config == NULL, heirs);
	}

	w->shard.slot->owner = config->owner;
	if (OidIsValid(config->from.inner) || OidIsValid(config->from.origin))
		(void) streamext_stream_charge(w->shard.index, superuser_arg(config->owner) ? InvalidOid : config->owner,
									   streamext_max_streams);
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
	refresh_followers(w);
	complete = refresh_start_views(w);
	refresh_end(w);

	if (w->shard.connector == NULL)
		refresh_open(w);
	w->shard.attached = w->letters.behind = false;
	w->setup.refresh_at = 0;
	streamext_checkpoint_note(&w->shard);
	refresh_tell_pauses(w);
	if (complete)
		pg_atomic_write_u32(&w->shard.slot->ask.generation_seen, generation);
	else
		refresh_later(w);
	if (OidIsValid(w->shard.config->from.inner))
		streamext_flow_ask(w);
	ConditionVariableBroadcast(&w->shard.slot->progress);
	return true;
}

/* ---------------------------------------------------------------- the catch-up worker's */

/* Folds on the views that are to be caught up next. False: one was locked. In a transaction. */
static bool
refresh_take_views(Worker *w)
{
	List *waiting =
		list_difference_oid(streamext_worker_list_views(w, streamext_worker_list_slots(w)), streamext_paused_list());
	List	 *chosen = streamext_handover_choose(w, waiting);
	bool	  complete = true;
	ListCell *lc;

	foreach (lc, chosen)
	{
		ViewSlot   *slot = streamext_handover_take(w, lfirst_oid(lc));
		WorkerView *v;

		if (slot == NULL)
			continue;
		v = streamext_worker_add_view(w, lfirst_oid(lc), slot, false);
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
