/*-------------------------------------------------------------------------
 *
 * sql/catalog.c
 *		What the catalogue views are made of: copies of the slots of streams and views, and who may see them.
 *
 * Slots are copied under the locks and looked at afterwards. What no worker has restored since the server's start, or can
 * on a standby, is shown as the last checkpoint has it, which is also what readers of views see.
 *
 * Lock order: registry_lock, then a slot's lock, both shared and never across a wait.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/identity.h"
#include "base/transaction.h"
#include "sql/catalog.h"
#include "sql/lock.h"
#include "durable/checkpoint_read.h"
#include "durable/history.h"

#define CATALOG_PATIENCE_MS 500

/* ---- what others hold ---- */

/* Up to when this statement waits for other transactions; one that looks at very many relations waits no longer for all of them. */
static int
catalog_patience_ms(void)
{
	static TimestampTz statement = 0;
	static TimestampTz until = 0;
	TimestampTz		   now = GetCurrentTimestamp();
	int				   left;

	if (statement != GetCurrentStatementStartTimestamp())
	{
		statement = GetCurrentStatementStartTimestamp();
		until = TimestampTzPlusMilliseconds(now, CATALOG_PATIENCE_MS);
	}
	left = Max(TimestampDifferenceMilliseconds(now, until), 1);
	return LockTimeout > 0 ? Min(LockTimeout, left) : left;
}

CatalogLook
streamext_catalog_look(StreamextStep step, void *arg)
{
	char ms[12];
	int	 level = NewGUCNestLevel();
	bool glances = streamext_identity_glances(); /* a look may be part of another one */
	ErrorData *volatile error = NULL;

	snprintf(ms, sizeof(ms), "%d", catalog_patience_ms());
	(void) set_config_option("lock_timeout", ms, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	PG_TRY();
	{
		streamext_identity_glance(true);
		error = streamext_try(step, arg);
	}
	PG_FINALLY();
	{
		streamext_identity_glance(glances);
	}
	PG_END_TRY();
	AtEOXact_GUC(true, level);
	if (error == NULL)
		return CATALOG_SEEN;
	if (error->sqlerrcode == STREAMEXT_ERRCODE_GLANCE)
		return CATALOG_REFUSED;
	if (!streamext_error_is_lock(error->sqlerrcode))
		ReThrowError(error);
	return CATALOG_HELD;
}

/* ---- copies ---- */

/*
 * A stream whose worker has been in one view for longer than it may, and cannot be got out of it, does not run, whatever its worker has said before.
 */
static void
catalog_note_deaf(ShardCopy *copy)
{
	const BudgetDeaf *deaf = &copy->slot.worker.deaf;
	const char		 *view;

	if (deaf->since == 0 || copy->slot.worker.pid == 0)
		return;
	view = get_rel_name(deaf->view);
	copy->slot.status.state = STREAM_STALLED;
	copy->slot.status.since = copy->slot.status.last_error_at = deaf->since;
	streamext_clip_format(
		copy->slot.status.last_error, sizeof(copy->slot.status.last_error),
		"%s has taken longer than streamext.view_time_limit and does not react to its cancel: the stream waits for it",
		view != NULL ? psprintf("continuous view \"%s\"", view) : "a continuous view that is dropped");
}

/* With registry_lock held. */
static void
catalog_copy_shard(int index, ShardCopy *copy)
{
	StreamSlot *slot = &streamext_shared->streams[index];

	streamext_stream_lock_shared(slot);
	copy->index = index;
	copy->slot = *slot;
	copy->partitions = NULL;
	if (slot->counted.npartitions > 0)
	{
		copy->partitions = palloc(sizeof(PartitionSlot) * slot->counted.npartitions);
		memcpy(copy->partitions, slot->counted.partitions, sizeof(PartitionSlot) * slot->counted.npartitions);
	}
	LWLockRelease(slot->lock);
}

/* A shard as the checkpoint has it; identity and state are the slot's, if there is one. */
static void
catalog_put_checkpoint(ShardCopy *copy, const CheckpointPosition *position)
{
	StreamSlot *slot = &copy->slot;
	int			n = position->head.npartitions;

	streamext_checkpoint_give_counts(position, &slot->counted);
	slot->checkpoint.seq = position->seq;
	slot->checkpoint.at = position->head.taken_at;
	copy->partitions = palloc0(sizeof(PartitionSlot) * Max(n, 1));
	for (int i = 0; i < n; i++)
		streamext_checkpoint_give_partition(&position->partitions[i], &copy->partitions[i]);
}

static ShardCopy *
catalog_find_shard(List *shards, int shard)
{
	ListCell *cell;

	foreach (cell, shards)
		if (((ShardCopy *) lfirst(cell))->slot.id.shard == shard)
			return lfirst(cell);
	return NULL;
}

static ShardCopy *
catalog_make_shard(Oid relid, int shard)
{
	ShardCopy *copy = palloc0(sizeof(ShardCopy));

	copy->index = -1;
	copy->slot.id.dboid = MyDatabaseId;
	copy->slot.id.relid = relid;
	copy->slot.id.shard = shard;
	copy->slot.counted.watermark = DT_NOBEGIN;
	copy->slot.status.state = STREAM_STARTING;
	pg_atomic_init_u64(&copy->slot.journal_end, PG_UINT64_MAX);
	return copy;
}

typedef struct ShardsStep
{
	Oid	  relid;
	List *shards;
} ShardsStep;

/* A StreamextStep: adds to those that no worker has set up yet what their last checkpoints say. */
static void
catalog_add_checkpoints(void *arg)
{
	ShardsStep		 *step = arg;
	CheckpointReader *reader = NULL;
	int				  n = streamext_checkpoint_shards(step->relid);

	for (int i = 0; i < n; i++)
	{
		ShardCopy				 *copy = catalog_find_shard(step->shards, i);
		const CheckpointPosition *position;

		if (copy != NULL && copy->slot.counted.source != 0)
			continue;
		if (reader == NULL)
			reader = streamext_checkpoint_reader();
		position = streamext_checkpoint_read_stream(reader, step->relid, i);
		if (position == NULL)
			continue;
		if (copy == NULL)
			step->shards = lappend(step->shards, copy = catalog_make_shard(step->relid, i));
		catalog_put_checkpoint(copy, position);
	}
	if (reader != NULL)
		streamext_checkpoint_reader_end(reader);
}

List *
streamext_catalog_copy_shards(Oid relid)
{
	ShardsStep step = { relid, NIL };
	ListCell  *lc;

	if (streamext_shared == NULL)
		return NIL;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int shard = 0; shard < STREAMEXT_MAX_SHARDS; shard++)
		for (int i = 0; i < streamext_shared->nstreams; i++)
		{
			StreamSlot *slot = &streamext_shared->streams[i];
			ShardCopy  *copy;

			if (!slot->id.in_use || slot->id.dboid != MyDatabaseId || slot->id.shard != shard ||
				slot->id.relid != relid)
				continue;
			copy = palloc(sizeof(ShardCopy));
			catalog_copy_shard(i, copy);
			step.shards = lappend(step.shards, copy);
		}
	LWLockRelease(streamext_shared->registry_lock);
	foreach (lc, step.shards)
		catalog_note_deaf(lfirst(lc));
	(void) streamext_catalog_look(catalog_add_checkpoints, &step);
	return step.shards;
}

/* A slot whose view has ended takes memory, and that is all to be said of it. */
static void
catalog_copy_retained(const ViewSlot *slot, ViewCopy *copy)
{
	copy->status = VIEW_RUNNING;
	copy->bytes = slot->counted.state.bytes;
	copy->sealed_until = copy->checkpoint_at = DT_NOEND;
	copy->watermark = DT_NOBEGIN;
	copy->shard = -1;
	copy->ready = true;
	copy->stream = slot->id.stream;
	copy->catchup_left = -1;
}

static void
catalog_copy_positions(const ViewSlot *slot, ViewCopy *copy)
{
	if (slot->counted.positions == NULL || slot->counted.npositions <= 0)
		return;
	copy->npositions = slot->counted.npositions;
	copy->positions = palloc(sizeof(int64) * slot->counted.npositions);
	memcpy(copy->positions, slot->counted.positions, sizeof(int64) * slot->counted.npositions);
}

static void
catalog_copy_history(const ViewSlot *slot, ViewCopy *copy)
{
	copy->history_panes = slot->history.written.panes - slot->history.deleted.panes;
	copy->history_bytes = slot->history.written.bytes - slot->history.deleted.bytes;
	copy->sealed_until = slot->counted.definition == 0 ? DT_NOBEGIN : slot->history.sealed_until;
}

/* With the lock of its stream. */
static void
catalog_copy_slot(ViewSlot *slot, StreamSlot *stream, ViewCopy *copy)
{
	Assert(LWLockHeldByMe(stream->lock));
	copy->status = slot->health.status;
	strlcpy(copy->last_error, slot->health.last_error, sizeof(copy->last_error));
	if ((stream->worker.deaf.since != 0 && stream->worker.deaf.view == slot->id.viewoid) ||
		(stream->catchup.deaf.since != 0 && stream->catchup.deaf.view == slot->id.viewoid))
		strlcpy(copy->last_error, "it has taken longer than streamext.view_time_limit and does not react to its cancel",
				sizeof(copy->last_error));
	copy->groups = slot->counted.state.ngroups;
	copy->panes = slot->counted.state.npanes;
	copy->bytes = slot->counted.state.bytes;
	copy->accepted = slot->counted.accepted;
	copy->late = slot->counted.late;
	copy->rejected = slot->counted.rejected;
	catalog_copy_history(slot, copy);
	copy->watermark = stream->counted.watermark;
	copy->first_pane = slot->counted.state.npanes > 0 ? slot->counted.state.panes[0]->id : 0;
	copy->stream = slot->id.stream;
	copy->catchup_started = slot->owner.started;
	copy->catchup_rows = slot->owner.rows;
	if (slot->owner.catchup != CATCHUP_NONE || slot->health.status == VIEW_CATCHING_UP)
		copy->catchup_left = streamext_handover_backlog(stream, slot);
	else
		copy->catchup_left = -1;
	copy->checkpoint_at = slot->checkpoint_at;
	copy->shard = slot->id.shard;
	copy->stream_relid = stream->id.relid;
	copy->ready = slot->counted.ready;
	catalog_copy_positions(slot, copy);
}

List *
streamext_catalog_copy_view_slots(Oid viewoid)
{
	List *views = NIL;

	if (streamext_shared == NULL)
		return NIL;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *slot = &streamext_shared->views[i];
		ViewCopy *copy;

		if (!slot->id.in_use || slot->id.dboid != MyDatabaseId || slot->id.viewoid != viewoid)
			continue;
		copy = palloc0(sizeof(ViewCopy));
		if (slot->id.retained)
			catalog_copy_retained(slot, copy);
		else
		{
			StreamSlot *stream = &streamext_shared->streams[slot->id.stream];

			streamext_stream_lock_shared(stream);
			catalog_copy_slot(slot, stream, copy);
			LWLockRelease(stream->lock);
		}
		views = lappend(views, copy);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return views;
}

typedef struct CompileStep
{
	Oid			  viewoid;
	CompiledView *compiled;
} CompileStep;

/* A StreamextStep. */
static void
catalog_compile_step(void *arg)
{
	CompileStep *step = arg;

	step->compiled = streamext_view_compile(step->viewoid);
}

CompiledView *
streamext_catalog_try_compile(Oid viewoid, char **error)
{
	CompileStep step = { viewoid, NULL };
	ErrorData  *edata = streamext_try(catalog_compile_step, &step);

	if (edata != NULL && (streamext_error_is_lock(edata->sqlerrcode) || edata->sqlerrcode == STREAMEXT_ERRCODE_GLANCE ||
						  ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION ||
						  ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_INSUFFICIENT_RESOURCES))
		ReThrowError(edata);
	*error = edata != NULL ? edata->message : NULL;
	return edata != NULL ? NULL : step.compiled;
}

static ViewCopy *
catalog_find_view(List *views, int shard)
{
	ListCell *cell;

	foreach (cell, views)
		if (((ViewCopy *) lfirst(cell))->shard == shard)
			return lfirst(cell);
	return NULL;
}

/* A view's shard as the checkpoint has it; status and error are the slot's, if there is one. */
static void
catalog_put_checkpointed(ViewCopy *copy, Oid relid, const CompiledView *compiled, const CheckpointPosition *position,
						 const CheckpointView *view)
{
	ShardCopy	 *shard = catalog_make_shard(relid, copy->shard);
	HistoryTotals kept = streamext_history_kept(compiled->relid, view->head.history_shard, view->head.history);

	catalog_put_checkpoint(shard, position);
	copy->checkpointed = shard;
	copy->groups = view->head.groups;
	copy->panes = view->head.panes;
	copy->accepted = view->head.accepted;
	copy->late = view->head.late;
	copy->rejected = view->head.rejected;
	copy->history_panes = kept.panes;
	copy->history_bytes = kept.bytes;
	copy->sealed_until = view->head.sealed_until;
	copy->checkpoint_at = position->head.taken_at;
	copy->npositions = position->head.npartitions;
	copy->positions = palloc(sizeof(int64) * Max(copy->npositions, 1));
	memcpy(copy->positions, view->positions, sizeof(int64) * copy->npositions);
}

/* The same shards that readers of the view take from checkpoints, as those have them. */
static List *
catalog_add_checkpointed(List *views, Oid viewoid, Oid relid)
{
	CheckpointReader *reader = NULL;
	CompiledView	 *compiled = NULL;
	int				  n = streamext_checkpoint_shards(relid);
	char			 *error;

	for (int i = 0; i < n; i++)
	{
		ViewCopy				 *copy = catalog_find_view(views, i);
		const CheckpointPosition *position;
		const CheckpointView	 *view;

		if (copy != NULL && copy->ready)
			continue;
		if (compiled == NULL && (compiled = streamext_catalog_try_compile(viewoid, &error)) == NULL)
			return views;
		if (reader == NULL)
			reader = streamext_checkpoint_reader();
		position = streamext_checkpoint_read_stream(reader, relid, i);
		view = position != NULL ? streamext_checkpoint_find_view(position, viewoid) : NULL;
		if (view == NULL || view->head.layout != compiled->layout)
			continue;
		if (copy == NULL)
		{
			views = lappend(views, copy = palloc0(sizeof(ViewCopy)));
			copy->shard = i;
			copy->status = VIEW_STARTING;
			copy->catchup_left = -1;
		}
		catalog_put_checkpointed(copy, relid, compiled, position, view);
	}
	if (reader != NULL)
		streamext_checkpoint_reader_end(reader);
	return views;
}

List *
streamext_catalog_copy_views(Oid viewoid)
{
	Oid	  stream = streamext_lock_view(viewoid);
	List *views = streamext_catalog_copy_view_slots(viewoid);

	return OidIsValid(stream) ? catalog_add_checkpointed(views, viewoid, stream) : views;
}

/* ---- rows ---- */

bool
streamext_catalog_may_see(Oid relid)
{
	bool missing = false;

	return pg_class_aclcheck_ext(relid, GetUserId(), ACL_SELECT, &missing) == ACLCHECK_OK ||
		   (!missing && has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS));
}

const char *
streamext_catalog_topic(Oid part, const char *topic)
{
	if (!OidIsValid(part))
		return topic;
	return psprintf("%s of %s", topic, DatumGetCString(DirectFunctionCall1(regclassout, ObjectIdGetDatum(part))));
}

void
streamext_catalog_put_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL || text[0] == '\0';
	if (!nulls[column])
		values[column] = CStringGetTextDatum(text);
}

void
streamext_catalog_put_time(Datum *values, bool *nulls, int column, TimestampTz time)
{
	nulls[column] = time == 0 || TIMESTAMP_NOT_FINITE(time);
	if (!nulls[column])
		values[column] = TimestampTzGetDatum(time);
}

StreamState
streamext_catalog_shard_state(const StreamSlot *slot)
{
	if (RecoveryInProgress())
		return STREAM_STANDBY;
	if (slot->worker.pid == 0 && (slot->status.state == STREAM_RUNNING || slot->status.state == STREAM_CATCHING_UP))
		return STREAM_WAITING;
	return slot->status.state;
}

StreamState
streamext_catalog_stream_state(List *shards)
{
	static const StreamState severity[] = { STREAM_FAILED,	STREAM_DIVERGED, STREAM_FULL,	STREAM_STALLED,
											STREAM_WAITING, STREAM_STARTING, STREAM_PAUSED, STREAM_CATCHING_UP };
	ListCell				*cell;

	if (RecoveryInProgress())
		return STREAM_STANDBY;
	if (shards == NIL)
		return STREAM_WAITING;
	for (int i = 0; i < lengthof(severity); i++)
		foreach (cell, shards)
			if (streamext_catalog_shard_state(&((ShardCopy *) lfirst(cell))->slot) == severity[i])
				return severity[i];
	return STREAM_RUNNING;
}
