/*
 * sql/catalog_stream.c
 *		The functions behind streamext.streams, streamext.stream_partitions and streamext.workers.
 *
 * Which streams there are is read from PostgreSQL's catalogue, how they do from copies of their slots, so that a stream
 * without a slot is shown as well. Everybody may call the functions; they show a row only to who may see the stream.
 */
#include "base/streamext.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_table.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "sql/catalog.h"
#include "sql/lock.h"
#include "shared/clock.h"
#include "source/journal/journal.h"
#include "decode/format.h"
#include "stream/definition.h"
#include "view/compile.h"
#include "view/union.h"

PG_FUNCTION_INFO_V1(streamext_get_streams);
PG_FUNCTION_INFO_V1(streamext_get_stream_partitions);
PG_FUNCTION_INFO_V1(streamext_get_workers);

/* ---- streamext.streams ---- */

/* Records between the position and the source's end, -1: not known. Positions of journals count bytes, so there only zero is known. */
static int64
catalog_partition_lag(const PartitionSlot *partition, const ConnectorOps *connector)
{
	if (partition->high_watermark < 0 || partition->position < 0)
		return -1;
	if (partition->position >= partition->high_watermark)
		return 0;
	return connector->journaled ? -1 : partition->high_watermark - partition->position;
}

typedef struct StreamSums
{
	uint64			 rows, bytes, rejected;
	double			 rate;
	TimestampTz		 watermark; /* the lowest of the shards, one that is idle and has none left out; infinite: none */
	TimestampTz		 newest;	/* event time, or else arrival; DT_NOBEGIN: none */
	int64			 lag;		/* -1: not known of any partition */
	const ShardCopy *failed;	/* with the last error, or NULL */
} StreamSums;

static void
catalog_sum_partitions(StreamSums *sums, const ShardCopy *shard, const ConnectorOps *connector)
{
	for (int i = 0; i < shard->slot.counted.npartitions; i++)
	{
		const PartitionSlot *partition = &shard->partitions[i];
		int64				 lag = catalog_partition_lag(partition, connector);

		if (lag >= 0)
			sums->lag = Max(sums->lag, 0) + lag;
		if (!TIMESTAMP_NOT_FINITE(partition->max_event_time))
			sums->newest = Max(sums->newest, partition->max_event_time);
		else if (partition->last_arrival != 0)
			sums->newest = Max(sums->newest, partition->last_arrival);
	}
}

static void
catalog_sum_shards(StreamSums *sums, List *shards, const ConnectorOps *connector)
{
	ListCell *cell;

	memset(sums, 0, sizeof(*sums));
	sums->watermark = DT_NOEND;
	sums->newest = DT_NOBEGIN;
	sums->lag = -1;
	foreach (cell, shards)
	{
		const ShardCopy *shard = lfirst(cell);

		sums->rows += shard->slot.counted.rows_in;
		sums->bytes += shard->slot.counted.bytes_in;
		sums->rejected += shard->slot.counted.rejected;
		sums->rate += shard->slot.status.rate;
		if (!shard->slot.quiet.idle || !TIMESTAMP_IS_NOBEGIN(shard->slot.counted.watermark))
			sums->watermark = Min(sums->watermark, shard->slot.counted.watermark);
		if (shard->slot.status.last_error[0] != '\0' &&
			(sums->failed == NULL || shard->slot.status.last_error_at > sums->failed->slot.status.last_error_at))
			sums->failed = shard;
		catalog_sum_partitions(sums, shard, connector);
	}
}

static void
catalog_put_stream(ReturnSetInfo *rsinfo, Oid relid, const ConnectorOps *connector, List *options)
{
	Datum		values[14] = { 0 };
	bool		nulls[14] = { 0 };
	List	   *shards = streamext_catalog_copy_shards(relid);
	const char *format = connector->payloads ? streamext_format(connector, options)->name : streamext_row_format.name;
	StreamSums	sums;

	catalog_sum_shards(&sums, shards, connector);
	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(connector->name);
	values[2] = CStringGetTextDatum(format);
	values[3] = CStringGetTextDatum(streamext_stream_state_name(streamext_catalog_stream_state(shards)));
	values[4] = Int32GetDatum(list_length(shards));
	values[5] = Int64GetDatum(sums.rows);
	values[6] = Int64GetDatum(sums.bytes);
	values[7] = Float8GetDatum(sums.rate);
	streamext_catalog_put_time(values, nulls, 8, sums.watermark);
	values[9] = Int64GetDatum(sums.lag);
	nulls[9] = sums.lag < 0;
	nulls[10] = TIMESTAMP_NOT_FINITE(sums.newest);
	if (!nulls[10])
		values[10] = Float8GetDatum((streamext_clock_now() - sums.newest) / 1000000.0);
	values[11] = Int64GetDatum(sums.rejected);
	nulls[12] = nulls[13] = true;
	if (sums.failed != NULL)
	{
		streamext_catalog_put_text(values, nulls, 12, sums.failed->slot.status.last_error);
		streamext_catalog_put_time(values, nulls, 13, sums.failed->slot.status.last_error_at);
	}
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

void
streamext_catalog_scan_streams(ReturnSetInfo *rsinfo, void (*put)(ReturnSetInfo *, Oid, const ConnectorOps *, List *))
{
	Relation	tables = table_open(ForeignTableRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(tables, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid					relid = ((Form_pg_foreign_table) GETSTRUCT(tuple))->ftrelid;
		const ConnectorOps *connector = streamext_stream_kind(relid);
		bool				isnull;
		Datum				options;

		if (connector == NULL || !streamext_catalog_may_see(relid))
			continue;
		options = heap_getattr(tuple, Anum_pg_foreign_table_ftoptions, RelationGetDescr(tables), &isnull);
		put(rsinfo, relid, connector, isnull ? NIL : untransformRelOptions(options));
	}
	systable_endscan(scan);
	table_close(tables, AccessShareLock);
}

Datum
streamext_get_streams(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	streamext_catalog_scan_streams((ReturnSetInfo *) fcinfo->resultinfo, catalog_put_stream);
	PG_RETURN_VOID();
}

/* part: the stream that a part of UNION ALL reads, beside whose journal it has none; InvalidOid: it is none */
static void
catalog_put_partition(ReturnSetInfo *rsinfo, ShardCopy *shard, const PartitionSlot *partition,
					  const ConnectorOps *connector, Oid part)
{
	int64		  lag = catalog_partition_lag(partition, connector);
	JournalExtent journal = { 0 };
	Datum		  values[14] = { 0 };
	bool		  nulls[14] = { 0 };

	values[0] = ObjectIdGetDatum(shard->slot.id.relid);
	streamext_catalog_put_text(values, nulls, 1, streamext_catalog_topic(part, partition->topic));
	values[2] = Int32GetDatum(partition->partition);
	values[3] = Int32GetDatum(shard->slot.id.shard);
	values[4] = Int64GetDatum(partition->position);
	nulls[4] = partition->position < 0;
	values[5] = Int64GetDatum(partition->high_watermark);
	nulls[5] = partition->high_watermark < 0;
	values[6] = Int64GetDatum(lag);
	nulls[6] = lag < 0;
	values[7] = Int64GetDatum(partition->rows);
	values[8] = Int64GetDatum(partition->missed);
	streamext_catalog_put_time(values, nulls, 9, partition->max_event_time);
	streamext_catalog_put_time(values, nulls, 10, partition->rows > 0 ? partition->last_arrival : 0);
	nulls[11] = nulls[12] = nulls[13] =
		!connector->journaled || OidIsValid(part) ||
		!streamext_journal_extent(MyDatabaseId, shard->slot.id.relid, shard->slot.id.shard,
								  pg_atomic_read_u64(&shard->slot.journal_end), &journal);
	values[11] = Int64GetDatum(journal.begin);
	values[12] = Int64GetDatum(journal.end);
	values[13] = Int64GetDatum(journal.bytes);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

static void
catalog_put_partitions(ReturnSetInfo *rsinfo, Oid relid, const ConnectorOps *connector, List *options)
{
	ListCell *cell;

	foreach (cell, streamext_catalog_copy_shards(relid))
	{
		ShardCopy *shard = lfirst(cell);

		for (int i = 0; i < shard->slot.counted.npartitions; i++)
			catalog_put_partition(rsinfo, shard, &shard->partitions[i], connector, InvalidOid);
	}
}

/* Of a view with a stream of its own. */
static void
catalog_put_view_partitions(ReturnSetInfo *rsinfo, Oid viewoid)
{
	char		 *error;
	CompiledView *view = streamext_catalog_try_compile(viewoid, &error);
	ListCell	 *cell;

	if (view == NULL)
		return; /* continuous_views says why */
	foreach (cell, streamext_catalog_copy_shards(viewoid))
	{
		ShardCopy		   *shard = lfirst(cell);
		const ConnectorOps *connector = &streamext_view_ops;
		Oid					part = InvalidOid;

		if (view->parts != NIL && shard->slot.id.shard >= list_length(view->parts))
			continue; /* of a part that it had before */
		if (view->parts != NIL)
		{
			part = ((const UnionPart *) list_nth(view->parts, shard->slot.id.shard))->stream;
			connector = streamext_stream_kind(part);
		}
		for (int i = 0; connector != NULL && i < shard->slot.counted.npartitions; i++)
			catalog_put_partition(rsinfo, shard, &shard->partitions[i], connector, part);
	}
}

typedef struct PartitionsStep
{
	ReturnSetInfo *rsinfo;
	Oid			   view;
} PartitionsStep;

/* A StreamextStep. */
static void
catalog_view_partitions_step(void *arg)
{
	PartitionsStep *step = arg;

	if (streamext_lock_view(step->view) == step->view)
		catalog_put_view_partitions(step->rsinfo, step->view);
}

Datum
streamext_get_stream_partitions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell	  *cell;

	InitMaterializedSRF(fcinfo, 0);
	streamext_catalog_scan_streams(rsinfo, catalog_put_partitions);
	foreach (cell, streamext_views_with_options())
	{
		PartitionsStep step = { rsinfo, lfirst_oid(cell) };

		if (streamext_view_options(step.view).continuous && streamext_catalog_may_see(step.view))
			(void) streamext_catalog_look(catalog_view_partitions_step, &step);
	}
	PG_RETURN_VOID();
}

static void
catalog_put_workers(ReturnSetInfo *rsinfo, Oid relid, const ConnectorOps *connector, List *options)
{
	ListCell *cell;

	foreach (cell, streamext_catalog_copy_shards(relid))
	{
		const StreamSlot *slot = &((ShardCopy *) lfirst(cell))->slot;
		Datum			  values[12] = { 0 };
		bool			  nulls[12] = { 0 };

		values[0] = Int32GetDatum(slot->worker.pid);
		nulls[0] = slot->worker.pid == 0;
		values[1] = ObjectIdGetDatum(slot->id.relid);
		values[2] = Int32GetDatum(slot->id.shard);
		values[3] = CStringGetTextDatum(streamext_stream_state_name(streamext_catalog_shard_state(slot)));
		streamext_catalog_put_time(values, nulls, 4, slot->worker.pid == 0 ? 0 : slot->worker.started_at);
		values[5] = Int64GetDatum(slot->worker.restarts);
		values[6] = CStringGetTextDatum("stream");
		values[7] = Int64GetDatum(slot->checkpoint.seq);
		streamext_catalog_put_time(values, nulls, 8, slot->checkpoint.at);
		values[9] = Int64GetDatum(slot->checkpoint.bytes);
		values[10] = Float8GetDatum(slot->checkpoint.ms);
		values[11] = BoolGetDatum(slot->checkpoint.pending);
		nulls[7] = slot->checkpoint.seq == 0;
		nulls[9] = nulls[10] = slot->checkpoint.bytes == 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		if (slot->catchup.pid == 0)
			continue;
		values[0] = Int32GetDatum(slot->catchup.pid);
		nulls[0] = false;
		values[3] = CStringGetTextDatum(streamext_stream_state_name(STREAM_CATCHING_UP));
		streamext_catalog_put_time(values, nulls, 4, slot->catchup.started_at);
		nulls[5] = nulls[7] = nulls[8] = nulls[9] = nulls[10] = nulls[11] = true;
		values[6] = CStringGetTextDatum("catch_up");
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/* Relations that have a slot and no foreign table: views over other views (view/inner.h), or what is being dropped. */
static List *
catalog_views_with_streams(void)
{
	List	 *relids = NIL;
	List	 *views = NIL;
	ListCell *cell;

	if (streamext_shared == NULL)
		return NIL;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
		if (streamext_shared->streams[i].id.in_use && streamext_shared->streams[i].id.dboid == MyDatabaseId)
			relids = list_append_unique_oid(relids, streamext_shared->streams[i].id.relid);
	LWLockRelease(streamext_shared->registry_lock);
	foreach (cell, relids)
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_VIEW)
			views = lappend_oid(views, lfirst_oid(cell));
	return views;
}

Datum
streamext_get_workers(PG_FUNCTION_ARGS)
{
	ListCell *cell;

	InitMaterializedSRF(fcinfo, 0);
	streamext_catalog_scan_streams((ReturnSetInfo *) fcinfo->resultinfo, catalog_put_workers);
	foreach (cell, catalog_views_with_streams())
		if (streamext_catalog_may_see(lfirst_oid(cell)))
			catalog_put_workers((ReturnSetInfo *) fcinfo->resultinfo, lfirst_oid(cell), &streamext_view_ops, NIL);
	PG_RETURN_VOID();
}

/* ---- streamext_internal.get_tombstones ---- */

PG_FUNCTION_INFO_V1(streamext_get_tombstones);

/* NULL: nothing is known, or not for this user. */
Datum
streamext_get_tombstones(PG_FUNCTION_ARGS)
{
	Oid		  relid = PG_GETARG_OID(0);
	int64	  n = 0;
	ListCell *cell;

	if (!streamext_catalog_may_see(relid))
		PG_RETURN_NULL();
	foreach (cell, streamext_catalog_copy_shards(relid))
		n += ((ShardCopy *) lfirst(cell))->slot.counted.tombstones;
	PG_RETURN_INT64(n);
}

/* ---- streamext_internal.get_state_since ---- */

PG_FUNCTION_INFO_V1(streamext_get_state_since);

/* Of the shard whose state the stream's is; NULL: nothing is known, or not for this user. */
Datum
streamext_get_state_since(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	TimestampTz since = 0;
	StreamState state;
	List	   *shards;
	ListCell   *cell;

	if (!streamext_catalog_may_see(relid))
		PG_RETURN_NULL();
	shards = streamext_catalog_copy_shards(relid);
	state = streamext_catalog_stream_state(shards);
	foreach (cell, shards)
		if (streamext_catalog_shard_state(&((ShardCopy *) lfirst(cell))->slot) == state)
			since = Max(since, ((ShardCopy *) lfirst(cell))->slot.status.since);
	if (since == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(since);
}

/* ---- streamext.gateways ---- */

PG_FUNCTION_INFO_V1(streamext_get_gateways);

Datum
streamext_get_gateways(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; streamext_shared != NULL && i < STREAMEXT_MAX_GATEWAYS; i++)
	{
		Datum		values[6] = { 0 };
		bool		nulls[6] = { 0 };
		GatewaySlot copy;

		LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
		copy = streamext_shared->gateways[i];
		LWLockRelease(streamext_shared->registry_lock);
		if (!copy.in_use || copy.dboid != MyDatabaseId || pg_atomic_read_u32(&copy.generation) == 0)
			continue;
		values[0] = ObjectIdGetDatum(copy.serverid);
		values[1] = CStringGetTextDatum(copy.listen);
		nulls[1] = copy.listen[0] == '\0';
		values[2] = CStringGetTextDatum(streamext_gateway_state_name(copy.state));
		values[3] = Int64GetDatum(pg_atomic_read_u64(&copy.connections));
		values[4] = Int64GetDatum(pg_atomic_read_u64(&copy.requests));
		values[5] = CStringGetTextDatum(copy.last_error);
		nulls[5] = copy.last_error[0] == '\0';
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	PG_RETURN_VOID();
}
