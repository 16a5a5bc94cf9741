/*-------------------------------------------------------------------------
 *
 * worker/seek.c
 *		streamext.seek: a stream goes on at another position.
 *
 * Only the worker can ask the source where `latest` or a time is. So the functions leave a row for each shard in
 * streamext.seek_request, and the commit makes the workers look. A worker does the requests above StreamSlot.counted.seek in their
 * order, before it reads anything, and the checkpoint that holds the positions holds that number too: what a crash undoes is
 * done again. What the source has said is kept in the row first, so that it is done again the same way.
 *
 * A crash also undoes what was read before the request, which must not be skipped then. So the row holds the positions of that
 * moment, and a worker that stands before them reads up to there first.
 *
 * What a request does to a partition that stands at P, when it shall be at T:
 *	forward (T > P)		the stream goes to T, and with it the views that stand where it stands. Views that are behind, and
 *						those made later, count what was skipped;
 *	back (T <= P)		nothing: all of that is counted, and nothing is counted twice;
 *	accepted			the stream was `diverged` when it was asked: what is at the source now is another one. Stream and views go to T,
 *						whichever way, and keep what they have counted; event time begins anew;
 *	rebuild				besides, T is from now on where counting begins (PartitionSlot.begin), for new views too, and the views
 *						that there are have been begun anew by streamext.round (sql/rebuild.c). The stream's own position and
 *						counts only go forward.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "sql/commit.h"
#include "durable/paused.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/own_table.h"
#include "durable/checkpoint.h"
#include "durable/checkpoint_state.h"
#include "sql/control.h"
#include "sql/lock.h"
#include "worker/letters_reread.h"
#include "worker/seek.h"
#include "view/compile.h"
#include "sql/rebuild.h"
#include "stream/definition.h"

PG_FUNCTION_INFO_V1(streamext_seek);
PG_FUNCTION_INFO_V1(streamext_seek_time);
PG_FUNCTION_INFO_V1(streamext_seek_offset);

/* Positions of partitions, as three arrays in a row. */
typedef struct SeekPositions
{
	int	   n;
	Datum *topics;
	Datum *numbers;
	Datum *positions;
} SeekPositions;

typedef struct SeekRequest
{
	int64		id;
	SeekKind	kind;
	TimestampTz time;
	char	   *topic; /* SEEK_OFFSET */
	int32		partition;
	int64		offset;
	bool		rebuild;
	bool		accept;

	SeekPositions former; /* where the shard's partitions were when it was asked */
	bool		  resolved;
	SeekPositions targets; /* where they shall be, once the source has said so */
} SeekRequest;

/* ---------------------------------------------------------------- the table */

static const char seek_insert_sql[] =
	"INSERT INTO streamext.seek_request (stream, shard, source, kind, \"time\", topic, partition, \"offset\", rebuild, accept, "
	"topics, partitions, positions) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
static const char seek_select_sql[] =
	"SELECT id, kind, \"time\", topic, partition, \"offset\", rebuild, accept, topics, partitions, positions, target_topics, target_partitions, "
	"targets FROM streamext.seek_request "
	"WHERE stream OPERATOR(pg_catalog.=) $1 AND shard OPERATOR(pg_catalog.=) $2 AND id OPERATOR(pg_catalog.>) $3 "
	"AND source OPERATOR(pg_catalog.=) $4 ORDER BY id";
static const char seek_resolve_sql[] =
	"UPDATE streamext.seek_request SET target_topics = $2, target_partitions = $3, targets = $4 WHERE id OPERATOR(pg_catalog.=) $1";
static const char seek_delete_sql[] =
	"DELETE FROM streamext.seek_request AS r WHERE r.stream OPERATOR(pg_catalog.=) $1 AND r.shard OPERATOR(pg_catalog.=) $2 "
	"AND (r.id OPERATOR(pg_catalog.<=) $3 OR r.source OPERATOR(pg_catalog.<>) $4) OR NOT EXISTS "
	"(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) r.stream)";

/* Three columns from `column` on; false: NULL. */
static bool
seek_get_positions(HeapTuple tuple, TupleDesc desc, int column, SeekPositions *positions)
{
	bool  isnull;
	Datum topics = SPI_getbinval(tuple, desc, column, &isnull);
	Datum numbers;
	Datum values;

	if (isnull)
		return false;
	numbers = SPI_getbinval(tuple, desc, column + 1, &isnull);
	values = SPI_getbinval(tuple, desc, column + 2, &isnull);
	deconstruct_array(DatumGetArrayTypePCopy(topics), TEXTOID, -1, false, TYPALIGN_INT, &positions->topics, NULL,
					  &positions->n);
	deconstruct_array(DatumGetArrayTypePCopy(numbers), INT4OID, sizeof(int32), true, TYPALIGN_INT, &positions->numbers,
					  NULL, &positions->n);
	deconstruct_array(DatumGetArrayTypePCopy(values), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &positions->positions, NULL, &positions->n);
	return true;
}

static void
seek_put_positions(Datum *values, const SeekPositions *positions)
{
	values[0] = PointerGetDatum(construct_array(positions->topics, positions->n, TEXTOID, -1, false, TYPALIGN_INT));
	values[1] =
		PointerGetDatum(construct_array(positions->numbers, positions->n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	values[2] = PointerGetDatum(
		construct_array(positions->positions, positions->n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

static void
seek_make_positions(SeekPositions *positions, int n)
{
	positions->n = n;
	positions->topics = palloc(sizeof(Datum) * Max(n, 1));
	positions->numbers = palloc(sizeof(Datum) * Max(n, 1));
	positions->positions = palloc(sizeof(Datum) * Max(n, 1));
}

/* -1: not among them. */
static int64
seek_look_up(const SeekPositions *positions, const char *topic, int32 partition)
{
	for (int i = 0; i < positions->n; i++)
		if (DatumGetInt32(positions->numbers[i]) == partition &&
			strcmp(TextDatumGetCString(positions->topics[i]), topic) == 0)
			return DatumGetInt64(positions->positions[i]);
	return -1;
}

static SeekRequest *
seek_from_row(HeapTuple tuple, TupleDesc desc)
{
	SeekRequest *request = palloc0(sizeof(SeekRequest));
	bool		 isnull;
	bool		 no_topic;
	Datum		 topic = SPI_getbinval(tuple, desc, 4, &no_topic);

	request->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	request->kind = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
	request->time = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 3, &isnull));
	request->topic = no_topic ? NULL : TextDatumGetCString(topic);
	request->partition = DatumGetInt32(SPI_getbinval(tuple, desc, 5, &isnull));
	request->offset = DatumGetInt64(SPI_getbinval(tuple, desc, 6, &isnull));
	request->rebuild = DatumGetBool(SPI_getbinval(tuple, desc, 7, &isnull));
	request->accept = DatumGetBool(SPI_getbinval(tuple, desc, 8, &isnull));
	(void) seek_get_positions(tuple, desc, 9, &request->former);
	request->resolved = seek_get_positions(tuple, desc, 12, &request->targets);
	return request;
}

void
streamext_seeks_load(Worker *w)
{
	IdentityScope			  own;
	const CheckpointPosition *last = w->shard.checkpoint != NULL ? w->shard.checkpoint->last : NULL;
	Oid						  types[4] = { OIDOID, INT4OID, INT8OID, INT8OID };
	Datum					  values[4];

	w->requests.seeks = NIL;
	if (w->requests.seeks_cxt == NULL)
		w->requests.seeks_cxt = AllocSetContextCreate(w->shard.cxt, "streamext seeks", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(w->requests.seeks_cxt);
	if (!OidIsValid(streamext_control_table("seek_request")))
		return;
	values[0] = ObjectIdGetDatum(w->shard.identity.relid);
	values[1] = Int32GetDatum(w->shard.identity.shard);
	values[2] = Int64GetDatum(w->shard.slot->counted.seek);
	values[3] = Int64GetDatum((int64) w->shard.slot->counted.source);
	own = streamext_own_begin();
	if (SPI_execute_with_args(seek_select_sql, 4, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext.seek_request");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(w->requests.seeks_cxt);

		w->requests.seeks = lappend(w->requests.seeks, seek_from_row(SPI_tuptable->vals[i], SPI_tuptable->tupdesc));
		MemoryContextSwitchTo(old);
	}
	values[2] = Int64GetDatum(last != NULL ? last->head.seek : 0);
	if (SPI_execute_with_args(seek_delete_sql, 4, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not tidy streamext.seek_request");
	streamext_own_end(own);

	/* what has stopped the stream may be what is left behind */
	if (w->requests.seeks != NIL && w->reading.stopped)
	{
		w->reading.stopped = false;
		streamext_pause_settle(w->shard.slot, w->setup.pause_seen);
		streamext_stream_set_state(w->shard.slot, STREAM_STARTING, NULL);
	}
}

bool
streamext_seeks_rebuild(const Worker *w)
{
	ListCell *lc;

	foreach (lc, w->requests.seeks)
		if (((const SeekRequest *) lfirst(lc))->rebuild)
			return true;
	return false;
}

/* ---------------------------------------------------------------- one request */

/* Keeps what the source has said, for good. */
static void
seek_save(Worker *w, const SeekRequest *request, const int64 *targets)
{
	Oid			  types[4] = { INT8OID, TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID };
	Datum		  values[4] = { Int64GetDatum(request->id) };
	MemoryContext old = CurrentMemoryContext;
	SeekPositions positions;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	seek_make_positions(&positions, w->shard.npartitions);
	for (int i = 0; i < w->shard.npartitions; i++)
	{
		positions.topics[i] = CStringGetTextDatum(w->shard.connector->partitions[i].topic);
		positions.numbers[i] = Int32GetDatum(w->shard.connector->partitions[i].partition);
		positions.positions[i] = Int64GetDatum(targets[i]);
	}
	seek_put_positions(&values[1], &positions);
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	(void) streamext_control_execute(seek_resolve_sql, 4, types, values, NULL, SPI_OK_UPDATE);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

/* Where the partitions shall be; -1: not addressed. False: not known yet. */
static bool
seek_resolve(Worker *w, const SeekRequest *request, int64 *targets)
{
	if (request->kind != SEEK_OFFSET && !request->resolved)
	{
		if (!w->shard.ops->find(w->shard.connector, request->kind, request->time, targets))
			return false;
		seek_save(w, request, targets);
		return true;
	}
	for (int i = 0; i < w->shard.npartitions && request->resolved; i++)
		targets[i] = seek_look_up(&request->targets, w->shard.connector->partitions[i].topic,
								  w->shard.connector->partitions[i].partition);
	if (request->resolved)
		return true;
	for (int i = 0; i < w->shard.npartitions; i++)
	{
		const ConnectorPartition *partition = &w->shard.connector->partitions[i];

		targets[i] = partition->partition == request->partition && strcmp(partition->topic, request->topic) == 0
						 ? request->offset
						 : -1;
	}
	return true;
}

/* With the lock: views that stand where the stream stands, or all of them. */
static void
seek_move_views(Worker *w, int index, int64 former, int64 target, bool all)
{
	ListCell *lc;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	foreach (lc, w->shard.views)
	{
		ViewSlot *view = ((WorkerView *) lfirst(lc))->slot;

		if (index < view->counted.npositions && (all || view->counted.positions[index] >= former))
			view->counted.positions[index] = target;
	}
}

/* With the lock. Partitions that another source does not have would never be reached. */
static void
seek_forget_partitions(Worker *w)
{
	ListCell *lc;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	w->shard.slot->counted.npartitions = w->shard.npartitions;
	foreach (lc, w->shard.views)
	{
		ViewSlot *view = ((WorkerView *) lfirst(lc))->slot;

		view->counted.npositions = Min(view->counted.npositions, w->shard.npartitions);
	}
}

/* Views that do not run are in the next checkpoint as in the last one, which is of the former source. */
static void
seek_move_carried(Worker *w, const int64 *targets)
{
	CheckpointPosition *last = w->shard.checkpoint != NULL ? w->shard.checkpoint->last : NULL;

	for (int j = 0; last != NULL && j < last->head.npartitions; j++)
		for (int i = 0; i < w->shard.npartitions; i++)
		{
			if (targets[i] < 0 || last->partitions[j].partition != w->shard.connector->partitions[i].partition ||
				strcmp(last->partitions[j].topic, w->shard.connector->partitions[i].topic) != 0)
				continue;
			for (int v = 0; v < last->head.nviews; v++)
				last->views[v].positions[j] = targets[i];
		}
}

typedef struct SeekSums
{
	int64 skipped; /* records, or bytes of a journal */
	int	  moved;   /* partitions */
	int	  kept;	   /* that stay, because what is from there on is counted */
} SeekSums;

static void
seek_move(Worker *w, const SeekRequest *request, const int64 *targets, SeekSums *sums)
{
	StreamSlot *slot = w->shard.slot;

	if (request->accept)
		seek_move_carried(w, targets);
	streamext_stream_lock_exclusive(slot);
	if (request->accept && request->kind != SEEK_OFFSET)
	{
		seek_forget_partitions(w);
		slot->counted.watermark = DT_NOBEGIN;
	}
	for (int i = 0; i < w->shard.npartitions; i++)
	{
		PartitionSlot *partition = &slot->counted.partitions[i];
		int64		   former = partition->position;
		int64		   target = targets[i];

		if (target < 0)
			continue;
		if (request->rebuild)
			partition->begin = target;
		if (!request->accept && former >= 0 && target <= former)
		{
			sums->kept += target < former;
			continue;
		}
		if (!request->accept && former >= 0)
			sums->skipped += target - former;
		sums->moved++;
		if (request->accept)
			partition->max_event_time = DT_NOBEGIN;
		seek_move_views(w, i, former, target, request->accept && !request->rebuild);
		partition->position = target;
		if (partition->start_position < 0)
			partition->start_position = target;
		partition->last.position = -1;
		w->shard.connector->partitions[i].last.position = -1;
	}
	slot->counted.seek = request->id;
	slot->counted.layout++; /* a catch-up worker looks where it stands */
	LWLockRelease(slot->lock);
}

static void
seek_report(Worker *w, const SeekRequest *request, const SeekSums *sums)
{
	Connector  *c = w->shard.connector;
	const char *unit = w->shard.ops->replayable ? "records" : "bytes of the journal";
	char		where[MAXDATELEN + 64];
	int			n = c->nevents;

	switch (request->kind)
	{
		case SEEK_EARLIEST:
			strlcpy(where, "earliest", sizeof(where));
			break;
		case SEEK_LATEST:
			strlcpy(where, "latest", sizeof(where));
			break;
		case SEEK_TIME:
			snprintf(where, sizeof(where), "%s", timestamptz_to_str(request->time));
			break;
		case SEEK_OFFSET:
			snprintf(where, sizeof(where), "offset " INT64_FORMAT " of partition %d", request->offset,
					 request->partition);
			break;
	}
	streamext_connector_event(
		c, "seek", -1, sums->skipped,
		"to %s%s%s: " INT64_FORMAT " %s skipped; %d partitions moved, %d not, because all from there on is counted",
		where, request->accept ? ", another source" : "", request->rebuild ? ", views begun anew" : "", sums->skipped,
		unit, sums->moved, request->rebuild ? 0 : sums->kept);
	if (c->nevents > n)
		c->events[n].counted = true; /* not the source's loss */
}

/* Where a partition of the slot was when it was asked; -1: not known, or of no importance. */
static int64
seek_former(const SeekRequest *request, const PartitionSlot *partition)
{
	return request->accept ? -1 : seek_look_up(&request->former, partition->topic, partition->partition);
}

bool
streamext_seeks_due(const Worker *w)
{
	if (w->requests.seeks == NIL)
		return false;
	for (int i = 0; i < w->shard.npartitions; i++)
		if (w->shard.slot->counted.partitions[i].position <
			seek_former(linitial(w->requests.seeks), &w->shard.slot->counted.partitions[i]))
			return false;
	return true;
}

void
streamext_seeks_bound(const Worker *w, Batch *batch)
{
	static int64 bounds[STREAMEXT_MAX_PARTITIONS];
	int			 n = 0;

	for (int i = 0; i < w->shard.npartitions; i++)
	{
		int64 former = seek_former(linitial(w->requests.seeks), &w->shard.slot->counted.partitions[i]);

		bounds[i] = former < 0 ? PG_INT64_MAX : Max(former, w->shard.slot->counted.partitions[i].position);
	}
	for (int i = 0; i < batch->nrecords; i++)
		if (batch->records[i].position < bounds[batch->records[i].partition_index])
			batch->records[n++] = batch->records[i];
	batch->nrecords = n;
	for (int i = 0; i < w->shard.npartitions; i++)
		batch->positions[i] = Min(batch->positions[i], bounds[i]);
}

/* Until the source says where: nothing of it counts, whichever it is. */
static void
seek_wait(Worker *w)
{
	Connector *c = w->shard.connector;

	for (int i = 0; i < c->npartitions; i++)
		c->partitions[i].last.position = -1;
	if (streamext_connector_poll(c, w->reading.batch->records, STREAMEXT_BATCH_ROWS) > 0)
		w->reading.dropped = true;
	streamext_connector_release(c);
}

bool
streamext_seeks_apply(Worker *w)
{
	static int64 targets[STREAMEXT_MAX_PARTITIONS];

	while (streamext_seeks_due(w))
	{
		SeekRequest *request = linitial(w->requests.seeks);
		SeekSums	 sums = { 0 };

		if (w->shard.npartitions == 0 && w->shard.ops->pushed)
			return true; /* a shard without a journal */
		if (w->shard.npartitions == 0 || !seek_resolve(w, request, targets))
		{
			seek_wait(w);
			return false;
		}
		if (request->accept)
			streamext_letters_leave(w, request->id);
		seek_move(w, request, targets, &sums);
		seek_report(w, request, &sums);
		streamext_checkpoint_confirm_nothing(&w->shard);
		streamext_checkpoint_note(&w->shard);
		w->flush.known = false;
		w->requests.seeks = list_delete_first(w->requests.seeks);
	}
	/* a new comparison with what was read last, where the stream goes on as it was */
	for (int i = 0; i < w->shard.npartitions; i++)
		w->shard.connector->partitions[i].last = w->shard.slot->counted.partitions[i].last;
	return true;
}

/* ---------------------------------------------------------------- the functions */

/* Continuous views of the stream, one mention each. */
static List *
seek_views(Oid relid)
{
	List *views = NIL;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];

		if (view->id.in_use && !view->id.retained && view->id.dboid == MyDatabaseId &&
			streamext_shared->streams[view->id.stream].id.relid == relid)
			views = list_append_unique_oid(views, view->id.viewoid);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return views;
}

/* Whether one of the stream's workers has found another source than it read before. */
static bool
seek_is_diverged(StreamSlot **slots, int n)
{
	bool diverged = false;

	for (int i = 0; i < n; i++)
		diverged = diverged || slots[i]->status.state == STREAM_DIVERGED;
	return diverged;
}

/* Raises for what the stream cannot do. */
static void
seek_check(const SeekRequest *request, const char *name, Oid relid)
{
	const ConnectorOps *connector = streamext_stream_kind(relid);
	ListCell		   *lc;

	if (!connector->seeks && (request->kind == SEEK_TIME || request->kind == SEEK_OFFSET))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("stream \"%s\" cannot seek a time or an offset", name),
				 errdetail("Its journal is read from one record to the next."),
				 errhint("Seek 'earliest', what the journal still holds, or 'latest'.")));
	if (request->kind == SEEK_OFFSET && request->offset < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("an offset cannot be negative")));
	if (!request->accept)
		return;
	foreach (lc, seek_views(relid))
		if (streamext_view_options(lfirst_oid(lc)).into != NULL)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("the continuous view \"%s\" stands at a position of the former source",
								   streamext_lock_relation(lfirst_oid(lc), AccessShareLock)),
							errdetail("It writes into a table, and where it stands is kept with its rows."),
							errhint("Drop it, and create it again after streamext.seek.")));
}

/* The partition must be one that the stream has seen, and hold the offset: behind the end it would be another source. */
static void
seek_check_partition(const SeekRequest *request, const char *name, StreamSlot **slots, int n)
{
	bool  found = false;
	int64 end = -1;

	if (request->kind != SEEK_OFFSET)
		return;
	for (int s = 0; s < n; s++)
	{
		streamext_stream_lock_shared(slots[s]);
		for (int i = 0; i < slots[s]->counted.npartitions; i++)
		{
			const PartitionSlot *partition = &slots[s]->counted.partitions[i];

			if (partition->partition != request->partition || strcmp(partition->topic, request->topic) != 0)
				continue;
			found = true;
			end = Max(partition->high_watermark, partition->position);
		}
		LWLockRelease(slots[s]->lock);
	}
	if (found && !request->accept && request->offset > end)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("partition %d of topic \"%s\" ends at offset " INT64_FORMAT, request->partition,
							   request->topic, end),
						errhint("Seek 'latest', or an offset up to that.")));
	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("stream \"%s\" has no partition %d of topic \"%s\"", name, request->partition, request->topic),
				 errhint("See streamext.stream_partitions.")));
}

/* Where the shard stands in the source; nowhere yet if its worker has not looked what that is. */
static void
seek_take_positions(SeekPositions *positions, StreamSlot *slot, uint64 source)
{
	streamext_stream_lock_shared(slot);
	seek_make_positions(positions, slot->counted.source == source ? slot->counted.npartitions : 0);
	for (int i = 0; i < positions->n; i++)
	{
		positions->topics[i] = CStringGetTextDatum(slot->counted.partitions[i].topic);
		positions->numbers[i] = Int32GetDatum(slot->counted.partitions[i].partition);
		positions->positions[i] = Int64GetDatum(slot->counted.partitions[i].position);
	}
	LWLockRelease(slot->lock);
}

static void
seek_request(Oid relid, SeekRequest *request)
{
	static Oid	types[13] = { OIDOID,  INT4OID, INT8OID, INT4OID,	   TIMESTAMPTZOID, TEXTOID,		INT4OID,
							  INT8OID, BOOLOID, BOOLOID, TEXTARRAYOID, INT4ARRAYOID,   INT8ARRAYOID };
	char	   *name;
	StreamSlot *slots[STREAMEXT_MAX_SHARDS];
	int			n = streamext_control_lock_slots(relid, &name, slots);
	Datum		values[13];
	char		nulls[14] = "             ";
	uint64		source;
	ListCell   *lc;

	source = streamext_worker_source(streamext_stream_config(relid));
	request->accept = seek_is_diverged(slots, n);
	seek_check(request, name, relid);
	seek_check_partition(request, name, slots, n);
	if (request->rebuild)
		foreach (lc, seek_views(relid))
			if (streamext_view_options(lfirst_oid(lc)).into == NULL)
				streamext_view_next_round(lfirst_oid(lc), relid);
	values[0] = ObjectIdGetDatum(relid);
	values[3] = Int32GetDatum(request->kind);
	values[4] = TimestampTzGetDatum(request->time);
	values[5] = request->topic == NULL ? (Datum) 0 : CStringGetTextDatum(request->topic);
	nulls[5] = request->topic == NULL ? 'n' : ' ';
	values[6] = Int32GetDatum(request->partition);
	values[7] = Int64GetDatum(request->offset);
	values[8] = BoolGetDatum(request->rebuild);
	values[9] = BoolGetDatum(request->accept);
	for (int i = 0; i < n; i++)
	{
		values[1] = Int32GetDatum(slots[i]->id.shard);
		values[2] = Int64GetDatum((int64) source);
		seek_take_positions(&request->former, slots[i], source);
		seek_put_positions(&values[10], &request->former);
		(void) streamext_control_execute(seek_insert_sql, 13, types, values, nulls, SPI_OK_INSERT);
	}
	streamext_touch_stream(relid);
}

/* seek(stream, 'earliest' | 'latest' | a time, rebuild) */
Datum
streamext_seek(PG_FUNCTION_ARGS)
{
	SeekRequest request = { .rebuild = PG_GETARG_BOOL(2) };
	char	   *position = text_to_cstring(PG_GETARG_TEXT_PP(1));

	if (pg_strcasecmp(position, "earliest") == 0)
		request.kind = SEEK_EARLIEST;
	else if (pg_strcasecmp(position, "latest") == 0)
		request.kind = SEEK_LATEST;
	else
	{
		request.kind = SEEK_TIME;
		request.time = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(position),
															   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	}
	seek_request(PG_GETARG_OID(0), &request);
	PG_RETURN_VOID();
}

/* seek(stream, to, rebuild) */
Datum
streamext_seek_time(PG_FUNCTION_ARGS)
{
	SeekRequest request = { .kind = SEEK_TIME, .time = PG_GETARG_TIMESTAMPTZ(1), .rebuild = PG_GETARG_BOOL(2) };

	seek_request(PG_GETARG_OID(0), &request);
	PG_RETURN_VOID();
}

/* seek(stream, topic, partition, offset, rebuild) */
Datum
streamext_seek_offset(PG_FUNCTION_ARGS)
{
	SeekRequest request = { .kind = SEEK_OFFSET,
							.topic = text_to_cstring(PG_GETARG_TEXT_PP(1)),
							.partition = PG_GETARG_INT32(2),
							.offset = PG_GETARG_INT64(3),
							.rebuild = PG_GETARG_BOOL(4) };

	seek_request(PG_GETARG_OID(0), &request);
	PG_RETURN_VOID();
}
