/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		What the SQL views show of the registry, and view_positions.
 *
 * What exists is read from PostgreSQL's catalogue, how it does from the slots of the current database, so that a stream
 * without a slot is shown as well. Slots are copied under the locks and looked at afterwards. What no worker has restored since
 * the server's start, or can on a standby, is shown as the last checkpoint has it, which is also what readers of views see.
 *
 * The functions behind the views are executable by all and show a row only to who may SELECT from the stream or view or has the rights
 * of pg_read_all_stats (pg_monitor has them).
 *
 * Lock order: registry_lock, then a slot's lock, both shared and never across a wait.
 *
 *-------------------------------------------------------------------------
 */
#include "streamext.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "checkpoint_read.h"
#include "clock.h"
#include "history.h"
#include "into.h"
#include "journal.h"
#include "options.h"
#include "shmem.h"
#include "view_compile.h"
#include "window.h"
#include "worker_private.h"

PG_FUNCTION_INFO_V1(streamext_get_streams);
PG_FUNCTION_INFO_V1(streamext_get_stream_partitions);
PG_FUNCTION_INFO_V1(streamext_get_continuous_views);
PG_FUNCTION_INFO_V1(streamext_get_workers);
PG_FUNCTION_INFO_V1(streamext_view_positions);

/* One shard of a stream. */
typedef struct ShardCopy
{
	int			index;			/* of the slot */
	StreamSlot	slot;			/* pointers in it are not to be followed */
	PartitionSlot *partitions;	/* slot.npartitions */
} ShardCopy;

/* A view on one shard. */
typedef struct ViewCopy
{
	ViewStatus	status;
	char		last_error[STREAMEXT_MAX_MESSAGE];
	uint64		groups,
				panes,
				bytes,
				accepted,
				late,
				rejected,
				history_panes,
				history_bytes;
	TimestampTz sealed_until;
	int64	   *positions;
	int			npositions;
	int			stream;			/* index of the stream's slot */
	TimestampTz catchup_started;	/* 0: it is not behind */
	int64		catchup_rows,	/* read since then, */
				catchup_left;	/* and still to be read */
	TimestampTz	checkpoint_at;
	int			shard;
	bool		ready;			/* as ViewSlot.ready */
	const ShardCopy *checkpointed;	/* not ready: the partitions that positions are of; NULL: the slot's */
} ViewCopy;

/* ---- copies ---- */

/* With registry_lock held. */
static void
catalog_copy_shard(int index, ShardCopy *copy)
{
	StreamSlot *slot = &streamext_shared->streams[index];

	streamext_stream_lock_shared(slot);
	copy->index = index;
	copy->slot = *slot;
	copy->partitions = NULL;
	if (slot->npartitions > 0)
	{
		copy->partitions = palloc(sizeof(PartitionSlot) * slot->npartitions);
		memcpy(copy->partitions, slot->partitions, sizeof(PartitionSlot) * slot->npartitions);
	}
	LWLockRelease(slot->lock);
}

/* A shard as the checkpoint has it; identity and state are the slot's, if there is one. */
static void
catalog_put_checkpoint(ShardCopy *copy, const CheckpointPosition *position)
{
	StreamSlot *slot = &copy->slot;
	int			n = position->head.npartitions;

	slot->watermark = position->head.watermark;
	slot->batches = position->head.batches;
	slot->rows_in = position->head.rows_in;
	slot->bytes_in = position->head.bytes_in;
	slot->rejected = position->head.rejected;
	slot->checkpoint_seq = position->seq;
	slot->checkpoint_at = position->head.taken_at;
	slot->npartitions = n;
	copy->partitions = palloc0(sizeof(PartitionSlot) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		const CheckpointPartition *from = &position->partitions[i];
		PartitionSlot *to = &copy->partitions[i];

		strlcpy(to->topic, from->topic, sizeof(to->topic));
		to->partition = from->partition;
		to->position = from->position;
		to->high_watermark = -1;
		to->max_event_time = from->max_event_time;
		to->rows = from->rows;
		to->missed = from->missed;
	}
}

static ShardCopy *
catalog_find_shard(List *shards, int shard)
{
	ListCell   *cell;

	foreach(cell, shards)
		if (((ShardCopy *) lfirst(cell))->slot.shard == shard)
			return lfirst(cell);
	return NULL;
}

static ShardCopy *
catalog_make_shard(Oid relid, int shard)
{
	ShardCopy  *copy = palloc0(sizeof(ShardCopy));

	copy->index = -1;
	copy->slot.dboid = MyDatabaseId;
	copy->slot.relid = relid;
	copy->slot.shard = shard;
	copy->slot.watermark = DT_NOBEGIN;
	copy->slot.state = STREAM_STARTING;
	pg_atomic_init_u64(&copy->slot.journal_end, PG_UINT64_MAX);
	return copy;
}

/* Adds to those that no worker has set up yet what their last checkpoints say. */
static List *
catalog_add_checkpoints(List *shards, Oid relid)
{
	CheckpointReader *reader = NULL;
	int			n = streamext_checkpoint_shards(relid);

	for (int i = 0; i < n; i++)
	{
		ShardCopy  *copy = catalog_find_shard(shards, i);
		const CheckpointPosition *position;

		if (copy != NULL && copy->slot.source != 0)
			continue;
		if (reader == NULL)
			reader = streamext_checkpoint_reader();
		position = streamext_checkpoint_read_stream(reader, relid, i);
		if (position == NULL)
			continue;
		if (copy == NULL)
			shards = lappend(shards, copy = catalog_make_shard(relid, i));
		catalog_put_checkpoint(copy, position);
	}
	if (reader != NULL)
		streamext_checkpoint_reader_end(reader);
	return shards;
}

/* All shards of a stream that have a slot, in the order of their numbers, or a checkpoint. */
static List *
catalog_copy_shards(Oid relid)
{
	List	   *shards = NIL;

	if (streamext_shared == NULL)
		return NIL;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int shard = 0; shard < STREAMEXT_MAX_SHARDS; shard++)
		for (int i = 0; i < streamext_shared->nstreams; i++)
		{
			StreamSlot *slot = &streamext_shared->streams[i];
			ShardCopy  *copy;

			if (!slot->in_use || slot->dboid != MyDatabaseId || slot->shard != shard || slot->relid != relid)
				continue;
			copy = palloc(sizeof(ShardCopy));
			catalog_copy_shard(i, copy);
			shards = lappend(shards, copy);
		}
	LWLockRelease(streamext_shared->registry_lock);
	return catalog_add_checkpoints(shards, relid);
}

/* The slots of a view, one a shard. */
static List *
catalog_copy_slots(Oid viewoid)
{
	List	   *views = NIL;

	if (streamext_shared == NULL)
		return NIL;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot   *slot = &streamext_shared->views[i];
		LWLock	   *lock;
		ViewCopy   *copy;

		if (!slot->in_use || slot->dboid != MyDatabaseId || slot->viewoid != viewoid)
			continue;
		copy = palloc0(sizeof(ViewCopy));
		if (slot->retained)
		{
			/* takes memory, and that is all to be said of it */
			copy->status = VIEW_RUNNING;
			copy->bytes = slot->state.bytes;
			copy->sealed_until = copy->checkpoint_at = DT_NOEND;
			copy->shard = -1;
			copy->ready = true;
			copy->stream = slot->stream;
			copy->catchup_left = -1;
			views = lappend(views, copy);
			continue;
		}
		lock = streamext_shared->streams[slot->stream].lock;
		streamext_stream_lock_shared(&streamext_shared->streams[slot->stream]);
		copy->status = slot->status;
		strlcpy(copy->last_error, slot->last_error, sizeof(copy->last_error));
		copy->groups = slot->state.ngroups;
		copy->panes = slot->state.npanes;
		copy->bytes = slot->state.bytes;
		copy->accepted = slot->accepted;
		copy->late = slot->late;
		copy->rejected = slot->rejected;
		copy->history_panes = slot->history_written.panes - slot->history_deleted.panes;
		copy->history_bytes = slot->history_written.bytes - slot->history_deleted.bytes;
		copy->sealed_until = slot->definition == 0 ? DT_NOBEGIN : slot->sealed_until;
		copy->stream = slot->stream;
		copy->catchup_started = slot->catchup_started;
		copy->catchup_rows = slot->catchup_rows;
		if (slot->catchup != CATCHUP_NONE || slot->status == VIEW_CATCHING_UP)
			copy->catchup_left = streamext_handover_backlog(&streamext_shared->streams[slot->stream], slot);
		else
			copy->catchup_left = -1;
		copy->checkpoint_at = slot->checkpoint_at;
		copy->shard = slot->shard;
		copy->ready = slot->ready;
		if (slot->positions != NULL && slot->npositions > 0)
		{
			copy->npositions = slot->npositions;
			copy->positions = palloc(sizeof(int64) * slot->npositions);
			memcpy(copy->positions, slot->positions, sizeof(int64) * slot->npositions);
		}
		LWLockRelease(lock);
		views = lappend(views, copy);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return views;
}

/* As the view's owner, with nothing to gain: constants of the query may be evaluated. */
static CompiledView *
catalog_compile_as_owner(Oid viewoid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(viewoid));
	CompiledView *compiled;
	Oid			userid;
	Oid			owner;
	int			context;
	int			level;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", viewoid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);

	GetUserIdAndSecContext(&userid, &context);
	SetUserIdAndSecContext(owner, context | SECURITY_RESTRICTED_OPERATION);
	level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	compiled = streamext_view_compile(viewoid);
	AtEOXact_GUC(false, level);
	SetUserIdAndSecContext(userid, context);
	return compiled;
}

/* NULL, with *error set, if the view cannot be compiled any more: one bad view does not hide the others. */
static CompiledView *
catalog_try_compile(Oid viewoid, char **error)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	CompiledView *volatile compiled = NULL;

	*error = NULL;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		compiled = catalog_compile_as_owner(viewoid);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED || edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN)
		{
			MemoryContextSwitchTo(cxt);
			CurrentResourceOwner = owner;
			ReThrowError(edata);
		}
		*error = edata->message;
		compiled = NULL;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return compiled;
}

static ViewCopy *
catalog_find_view(List *views, int shard)
{
	ListCell   *cell;

	foreach(cell, views)
		if (((ViewCopy *) lfirst(cell))->shard == shard)
			return lfirst(cell);
	return NULL;
}

/* A view's shard as the checkpoint has it; status and error are the slot's, if there is one. */
static void
catalog_put_checkpointed(ViewCopy *copy, Oid relid, const CompiledView *compiled, const CheckpointPosition *position,
						 const CheckpointView *view)
{
	ShardCopy  *shard = catalog_make_shard(relid, copy->shard);
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
	CompiledView *compiled = NULL;
	int			n = streamext_checkpoint_shards(relid);
	char	   *error;

	for (int i = 0; i < n; i++)
	{
		ViewCopy   *copy = catalog_find_view(views, i);
		const CheckpointPosition *position;
		const CheckpointView *view;

		if (copy != NULL && copy->ready)
			continue;
		if (compiled == NULL && (compiled = catalog_try_compile(viewoid, &error)) == NULL)
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

/* A view's shards that have a slot or a checkpoint. */
static List *
catalog_copy_views(Oid viewoid)
{
	Oid			stream = streamext_view_stream(viewoid);
	List	   *views = catalog_copy_slots(viewoid);

	return OidIsValid(stream) ? catalog_add_checkpointed(views, viewoid, stream) : views;
}

/* ---- rows ---- */

static bool
catalog_may_see(Oid relid)
{
	bool		missing = false;

	return pg_class_aclcheck_ext(relid, GetUserId(), ACL_SELECT, &missing) == ACLCHECK_OK ||
		(!missing && has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS));
}

static void
catalog_put_text(Datum *values, bool *nulls, int column, const char *text)
{
	nulls[column] = text == NULL || text[0] == '\0';
	if (!nulls[column])
		values[column] = CStringGetTextDatum(text);
}

/* Both infinities of this extension's own making mean that there is none. */
static void
catalog_put_time(Datum *values, bool *nulls, int column, TimestampTz time)
{
	nulls[column] = time == 0 || TIMESTAMP_NOT_FINITE(time);
	if (!nulls[column])
		values[column] = TimestampTzGetDatum(time);
}

/* The state of a shard; a slot whose worker has gone keeps the last one. */
static StreamState
catalog_shard_state(const StreamSlot *slot)
{
	if (RecoveryInProgress())
		return STREAM_STANDBY;
	if (slot->worker_pid == 0 && (slot->state == STREAM_RUNNING || slot->state == STREAM_CATCHING_UP))
		return STREAM_WAITING;
	return slot->state;
}

/* Of several shards the state that needs an operator most. */
static StreamState
catalog_stream_state(List *shards)
{
	static const StreamState severity[] = {STREAM_FAILED, STREAM_DIVERGED, STREAM_FULL, STREAM_STALLED, STREAM_WAITING,
	STREAM_STARTING, STREAM_PAUSED, STREAM_CATCHING_UP};
	ListCell   *cell;

	if (RecoveryInProgress())
		return STREAM_STANDBY;
	if (shards == NIL)
		return STREAM_WAITING;
	for (int i = 0; i < lengthof(severity); i++)
		foreach(cell, shards)
			if (catalog_shard_state(&((ShardCopy *) lfirst(cell))->slot) == severity[i])
				return severity[i];
	return STREAM_RUNNING;
}

/* Records between the position and the source's end, -1: not known. Positions of journals count bytes, so there only zero is known. */
static int64
catalog_partition_lag(const PartitionSlot *partition, ConnectorKind kind)
{
	if (partition->high_watermark < 0 || partition->position < 0)
		return -1;
	if (partition->position >= partition->high_watermark)
		return 0;
	return kind == CONNECTOR_KAFKA ? partition->high_watermark - partition->position : -1;
}

/* ---- streamext.streams, streamext.stream_partitions, streamext.workers ---- */

typedef struct StreamSums
{
	uint64		rows,
				bytes,
				rejected;
	double		rate;
	TimestampTz watermark;		/* the lowest of the shards; DT_NOEND: none */
	TimestampTz newest;			/* event time, or else arrival; DT_NOBEGIN: none */
	int64		lag;			/* -1: not known of any partition */
	const ShardCopy *failed;	/* with the last error, or NULL */
} StreamSums;

static void
catalog_sum_partitions(StreamSums *sums, const ShardCopy *shard, ConnectorKind kind)
{
	for (int i = 0; i < shard->slot.npartitions; i++)
	{
		const PartitionSlot *partition = &shard->partitions[i];
		int64		lag = catalog_partition_lag(partition, kind);

		if (lag >= 0)
			sums->lag = Max(sums->lag, 0) + lag;
		if (!TIMESTAMP_NOT_FINITE(partition->max_event_time))
			sums->newest = Max(sums->newest, partition->max_event_time);
		else if (partition->last_arrival != 0)
			sums->newest = Max(sums->newest, partition->last_arrival);
	}
}

static void
catalog_sum_shards(StreamSums *sums, List *shards, ConnectorKind kind)
{
	ListCell   *cell;

	memset(sums, 0, sizeof(*sums));
	sums->watermark = DT_NOEND;
	sums->newest = DT_NOBEGIN;
	sums->lag = -1;
	foreach(cell, shards)
	{
		const ShardCopy *shard = lfirst(cell);

		sums->rows += shard->slot.rows_in;
		sums->bytes += shard->slot.bytes_in;
		sums->rejected += shard->slot.rejected;
		sums->rate += shard->slot.rate;
		if (!TIMESTAMP_IS_NOBEGIN(shard->slot.watermark))
			sums->watermark = Min(sums->watermark, shard->slot.watermark);
		if (shard->slot.last_error[0] != '\0' &&
			(sums->failed == NULL || shard->slot.last_error_at > sums->failed->slot.last_error_at))
			sums->failed = shard;
		catalog_sum_partitions(sums, shard, kind);
	}
}

static void
catalog_put_stream(ReturnSetInfo *rsinfo, Oid relid, ConnectorKind kind, List *options)
{
	Datum		values[14] = {0};
	bool		nulls[14] = {0};
	List	   *shards = catalog_copy_shards(relid);
	const char *format = streamext_option(options, "format");
	StreamSums	sums;

	catalog_sum_shards(&sums, shards, kind);
	if (format == NULL)
		format = streamext_format_name(kind == CONNECTOR_LOCAL ? FORMAT_ROW : FORMAT_JSON);
	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(streamext_connector_name(kind));
	values[2] = CStringGetTextDatum(format);
	values[3] = CStringGetTextDatum(streamext_stream_state_name(catalog_stream_state(shards)));
	values[4] = Int32GetDatum(list_length(shards));
	values[5] = Int64GetDatum(sums.rows);
	values[6] = Int64GetDatum(sums.bytes);
	values[7] = Float8GetDatum(sums.rate);
	catalog_put_time(values, nulls, 8, sums.watermark);
	values[9] = Int64GetDatum(sums.lag);
	nulls[9] = sums.lag < 0;
	nulls[10] = TIMESTAMP_NOT_FINITE(sums.newest);
	if (!nulls[10])
		values[10] = Float8GetDatum((streamext_clock_now() - sums.newest) / 1000000.0);
	values[11] = Int64GetDatum(sums.rejected);
	nulls[12] = nulls[13] = true;
	if (sums.failed != NULL)
	{
		catalog_put_text(values, nulls, 12, sums.failed->slot.last_error);
		catalog_put_time(values, nulls, 13, sums.failed->slot.last_error_at);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* Calls `put` for each stream that the user may see. */
static void
catalog_scan_streams(ReturnSetInfo *rsinfo, void (*put) (ReturnSetInfo *, Oid, ConnectorKind, List *))
{
	Relation	tables = table_open(ForeignTableRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(tables, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			relid = ((Form_pg_foreign_table) GETSTRUCT(tuple))->ftrelid;
		ConnectorKind kind = streamext_stream_kind(relid);
		bool		isnull;
		Datum		options;

		if (kind == CONNECTOR_NONE || !catalog_may_see(relid))
			continue;
		options = heap_getattr(tuple, Anum_pg_foreign_table_ftoptions, RelationGetDescr(tables), &isnull);
		put(rsinfo, relid, kind, isnull ? NIL : untransformRelOptions(options));
	}
	systable_endscan(scan);
	table_close(tables, AccessShareLock);
}

Datum
streamext_get_streams(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	catalog_scan_streams((ReturnSetInfo *) fcinfo->resultinfo, catalog_put_stream);
	PG_RETURN_VOID();
}

static void
catalog_put_partitions(ReturnSetInfo *rsinfo, Oid relid, ConnectorKind kind, List *options)
{
	ListCell   *cell;

	foreach(cell, catalog_copy_shards(relid))
	{
		ShardCopy *shard = lfirst(cell);

		for (int i = 0; i < shard->slot.npartitions; i++)
		{
			const PartitionSlot *partition = &shard->partitions[i];
			int64		lag = catalog_partition_lag(partition, kind);
			JournalExtent journal = {0};
			Datum		values[14] = {0};
			bool		nulls[14] = {0};

			values[0] = ObjectIdGetDatum(relid);
			catalog_put_text(values, nulls, 1, partition->topic);
			values[2] = Int32GetDatum(partition->partition);
			values[3] = Int32GetDatum(shard->slot.shard);
			values[4] = Int64GetDatum(partition->position);
			nulls[4] = partition->position < 0;
			values[5] = Int64GetDatum(partition->high_watermark);
			nulls[5] = partition->high_watermark < 0;
			values[6] = Int64GetDatum(lag);
			nulls[6] = lag < 0;
			values[7] = Int64GetDatum(partition->rows);
			values[8] = Int64GetDatum(partition->missed);
			catalog_put_time(values, nulls, 9, partition->max_event_time);
			catalog_put_time(values, nulls, 10, partition->rows > 0 ? partition->last_arrival : 0);
			nulls[11] = nulls[12] = nulls[13] = kind == CONNECTOR_KAFKA ||
				!streamext_journal_extent(MyDatabaseId, relid, shard->slot.shard, pg_atomic_read_u64(&shard->slot.journal_end), &journal);
			values[11] = Int64GetDatum(journal.begin);
			values[12] = Int64GetDatum(journal.end);
			values[13] = Int64GetDatum(journal.bytes);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
}

Datum
streamext_get_stream_partitions(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	catalog_scan_streams((ReturnSetInfo *) fcinfo->resultinfo, catalog_put_partitions);
	PG_RETURN_VOID();
}

static void
catalog_put_workers(ReturnSetInfo *rsinfo, Oid relid, ConnectorKind kind, List *options)
{
	ListCell   *cell;

	foreach(cell, catalog_copy_shards(relid))
	{
		const StreamSlot *slot = &((ShardCopy *) lfirst(cell))->slot;
		Datum		values[12] = {0};
		bool		nulls[12] = {0};

		values[0] = Int32GetDatum(slot->worker_pid);
		nulls[0] = slot->worker_pid == 0;
		values[1] = ObjectIdGetDatum(slot->relid);
		values[2] = Int32GetDatum(slot->shard);
		values[3] = CStringGetTextDatum(streamext_stream_state_name(catalog_shard_state(slot)));
		catalog_put_time(values, nulls, 4, slot->worker_pid == 0 ? 0 : slot->started_at);
		values[5] = Int64GetDatum(slot->restarts);
		values[6] = CStringGetTextDatum("stream");
		values[7] = Int64GetDatum(slot->checkpoint_seq);
		catalog_put_time(values, nulls, 8, slot->checkpoint_at);
		values[9] = Int64GetDatum(slot->checkpoint_bytes);
		values[10] = Float8GetDatum(slot->checkpoint_ms);
		values[11] = BoolGetDatum(slot->checkpoint_pending);
		nulls[7] = slot->checkpoint_seq == 0;
		nulls[9] = nulls[10] = slot->checkpoint_bytes == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		if (slot->catchup_pid == 0)
			continue;
		values[0] = Int32GetDatum(slot->catchup_pid);
		nulls[0] = false;
		values[3] = CStringGetTextDatum(streamext_stream_state_name(STREAM_CATCHING_UP));
		catalog_put_time(values, nulls, 4, slot->catchup_started_at);
		nulls[5] = nulls[7] = nulls[8] = nulls[9] = nulls[10] = nulls[11] = true;
		values[6] = CStringGetTextDatum("catch_up");
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

Datum
streamext_get_workers(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	catalog_scan_streams((ReturnSetInfo *) fcinfo->resultinfo, catalog_put_workers);
	PG_RETURN_VOID();
}

/* ---- streamext.continuous_views ---- */

static char *
catalog_interval_text(int64 usecs)
{
	Interval	interval = {.time = usecs};

	return DatumGetCString(DirectFunctionCall1(interval_out, IntervalPGetDatum(&interval)));
}

/* Columns kind, size, slide, sliding. */
static void
catalog_put_window(Datum *values, bool *nulls, const Window *window)
{
	static const char *const kinds[] = {"none", "tumble", "hop", "trunc", "session"};

	catalog_put_text(values, nulls, 0, kinds[window->kind]);
	nulls[1] = nulls[2] = nulls[3] = true;
	if (window->kind == WINDOW_TRUNC)
		catalog_put_text(values, nulls, 1, window->trunc_unit);
	else if (window->kind != WINDOW_NONE)
		catalog_put_text(values, nulls, 1, catalog_interval_text(window->size));
	if (window->kind == WINDOW_HOP)
		catalog_put_text(values, nulls, 2, catalog_interval_text(window->slide));
	if (window->sliding)
		catalog_put_text(values, nulls, 3, catalog_interval_text(window->length));
}

/* A view does as its stream does, unless it does worse. */
static const char *
catalog_view_state(List *views, Oid stream)
{
	ViewStatus	worst = VIEW_RUNNING;
	StreamState state = catalog_stream_state(catalog_copy_shards(stream));
	ListCell   *cell;

	foreach(cell, views)
	{
		ViewStatus	status = ((ViewCopy *) lfirst(cell))->status;

		if (status == VIEW_STARTING)
			status = VIEW_CATCHING_UP;
		worst = Max(worst, status);
	}
	if (state == STREAM_STANDBY)
		return streamext_stream_state_name(state);
	if (views == NIL)
		return streamext_view_status_name(VIEW_STARTING);
	if (worst >= VIEW_PAUSED || state == STREAM_RUNNING)
		return streamext_view_status_name(worst);
	return streamext_stream_state_name(state);
}

/* The view's own options as name=value, without what CREATE VIEW kept by itself. */
static Datum
catalog_view_options(List *stored)
{
	Datum	   *items = palloc(sizeof(Datum) * (list_length(stored) + 1));
	int			n = 0;
	ListCell   *cell;

	foreach(cell, stored)
	{
		DefElem    *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, "streamext.retention") == 0 || strcmp(def->defname, "streamext.lateness") == 0 ||
			strcmp(def->defname, "streamext.keep_late") == 0 ||
			strcmp(def->defname, "streamext.step") == 0 || strcmp(def->defname, "streamext.max_groups") == 0 ||
			strcmp(def->defname, "streamext.into") == 0)
			items[n++] = CStringGetTextDatum(psprintf("%s=%s", def->defname, defGetString(def)));
	}
	return PointerGetDatum(construct_array(items, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Columns rows, total and estimated end; of several shards the latest end. */
static void
catalog_put_catchup(Datum *values, bool *nulls, List *views)
{
	int64		rows = 0,
				left = 0;
	TimestampTz now = GetCurrentTimestamp(),
				end = 0;
	bool		behind = false,
				known = true;
	ListCell   *cell;

	foreach(cell, views)
	{
		const ViewCopy *copy = lfirst(cell);

		if (copy->catchup_left < 0)
			continue;
		behind = true;
		rows += copy->catchup_rows;
		left += copy->catchup_left;
		if (copy->catchup_rows == 0 || copy->catchup_started == 0)
			known = false;
		else
			end = Max(end, now + (TimestampTz) ((double) (now - copy->catchup_started) / copy->catchup_rows * copy->catchup_left));
	}
	nulls[0] = nulls[1] = nulls[2] = true;
	if (!behind)
		return;
	nulls[0] = nulls[1] = false;
	values[0] = Int64GetDatum(rows);
	values[1] = Int64GetDatum(rows + left);
	if (known)
		catalog_put_time(values, nulls, 2, end);
}

static void
catalog_put_view(ReturnSetInfo *rsinfo, Oid viewoid, const ContinuousViewOptions *options, List *stored)
{
	Datum		values[25] = {0};
	bool		nulls[25] = {0};
	TimestampTz sealed_until = DT_NOEND;
	List	   *views = catalog_copy_views(viewoid);
	Oid			stream = streamext_view_stream(viewoid);
	ViewCopy	sums = {.checkpoint_at = DT_NOEND};
	char	   *error;
	CompiledView *compiled = catalog_try_compile(viewoid, &error);
	ListCell   *cell;

	foreach(cell, views)
	{
		const ViewCopy *copy = lfirst(cell);

		sums.groups += copy->groups;
		sums.panes = Max(sums.panes, copy->panes);
		sums.bytes += copy->bytes;
		sums.accepted += copy->accepted;
		sums.late += copy->late;
		sums.rejected += copy->rejected;
		sums.history_panes = Max(sums.history_panes, copy->history_panes);
		sums.history_bytes += copy->history_bytes;
		sealed_until = Min(sealed_until, copy->sealed_until);
		sums.checkpoint_at = Min(sums.checkpoint_at, copy->checkpoint_at);
		if (copy->last_error[0] != '\0')
			error = pstrdup(copy->last_error);
	}
	if (compiled != NULL && compiled->stateless)
		streamext_into_counts(stream, viewoid, &sums.accepted, &sums.rejected);
	values[0] = ObjectIdGetDatum(viewoid);
	values[1] = ObjectIdGetDatum(stream);
	nulls[1] = !OidIsValid(stream);
	nulls[2] = nulls[3] = nulls[4] = nulls[5] = true;
	if (compiled != NULL)
		catalog_put_window(values + 2, nulls + 2, &compiled->window);
	values[6] = CStringGetTextDatum(catalog_view_state(views, stream));
	values[7] = Int64GetDatum(sums.groups);
	values[8] = Int64GetDatum(sums.panes);
	values[9] = Int64GetDatum(sums.bytes);
	values[10] = Int64GetDatum(sums.accepted);
	values[11] = Int64GetDatum(sums.late);
	values[12] = Int64GetDatum(sums.rejected);
	catalog_put_text(values, nulls, 13, options->timezone);
	catalog_put_text(values, nulls, 14, options->datestyle);
	catalog_put_text(values, nulls, 15, options->intervalstyle);
	values[16] = catalog_view_options(stored);
	catalog_put_text(values, nulls, 17, error);
	catalog_put_time(values, nulls, 18, sums.checkpoint_at);
	catalog_put_catchup(values + 19, nulls + 19, views);
	values[22] = Int64GetDatum(sums.history_panes);
	values[23] = Int64GetDatum(sums.history_bytes);
	values[24] = TimestampTzGetDatum(sealed_until);
	nulls[24] = TIMESTAMP_NOT_FINITE(sealed_until);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

Datum
streamext_get_continuous_views(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Relation	classes;
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *views = NIL;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	classes = table_open(RelationRelationId, AccessShareLock);
	scan = systable_beginscan(classes, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_class class = (Form_pg_class) GETSTRUCT(tuple);

		if (class->relkind == RELKIND_VIEW && !heap_attisnull(tuple, Anum_pg_class_reloptions, NULL))
			views = lappend_oid(views, class->oid);
	}
	systable_endscan(scan);
	table_close(classes, AccessShareLock);

	foreach(cell, views)
	{
		Oid			viewoid = lfirst_oid(cell);
		ContinuousViewOptions options = streamext_view_options(viewoid);
		bool		isnull;
		Datum		stored;

		if (!options.continuous || !catalog_may_see(viewoid))
			continue;
		tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(viewoid));
		if (!HeapTupleIsValid(tuple))
			continue;
		stored = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
		catalog_put_view(rsinfo, viewoid, &options, isnull ? NIL : untransformRelOptions(stored));
		ReleaseSysCache(tuple);
	}
	PG_RETURN_VOID();
}

/* ---- streamext.view_positions ---- */

static void
catalog_put_positions(ReturnSetInfo *rsinfo, const ViewCopy *view, const ShardCopy *shard)
{
	for (int i = 0; i < view->npositions && i < shard->slot.npartitions; i++)
	{
		Datum		values[3] = {0};
		bool		nulls[3] = {0};

		if (view->positions[i] < 0)
			continue;
		values[0] = Int32GetDatum(shard->partitions[i].partition);
		values[1] = Int64GetDatum(view->positions[i]);
		catalog_put_text(values, nulls, 2, shard->partitions[i].topic);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

Datum
streamext_view_positions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			viewoid = PG_GETARG_OID(0);
	char	   *name = get_rel_name(viewoid);
	AclResult	allowed;
	List	   *shards;
	ListCell   *cell;
	ListCell   *other;

	if (name == NULL || !streamext_view_options(viewoid).continuous)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a continuous view", name != NULL ? name : psprintf("%u", viewoid))));
	allowed = pg_class_aclcheck(viewoid, GetUserId(), ACL_SELECT);
	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_VIEW, name);

	InitMaterializedSRF(fcinfo, 0);
	shards = catalog_copy_shards(streamext_view_stream(viewoid));
	foreach(cell, catalog_copy_views(viewoid))
	{
		const ViewCopy *view = lfirst(cell);

		if (view->checkpointed != NULL)
			catalog_put_positions(rsinfo, view, view->checkpointed);
		foreach(other, shards)
			if (view->checkpointed == NULL && ((ShardCopy *) lfirst(other))->index == view->stream)
				catalog_put_positions(rsinfo, view, lfirst(other));
	}
	PG_RETURN_VOID();
}
