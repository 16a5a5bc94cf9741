/*
 * durable/into_position.c
 *		How far a view with streamext.into is. What the functions promise is in durable/into_position.h.
 */
#include "base/streamext.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/own_table.h"
#include "durable/into_position.h"
#include "stream/definition.h"

/* ---------------------------------------------------------------- views without windows */

/* So the greatest position in a stream's journal is found by the stream, parts of UNION ALL included. */
static Oid
into_stream(const StreamConfig *config)
{
	return OidIsValid(config->from.origin) ? config->from.origin : config->relid;
}

/* Makes the stored topic the source's own one; false: it is another part's. */
static bool
into_untag(const StreamConfig *config, char *topic)
{
	Size size = strlen(topic);
	Size tag = config->from.tag == NULL ? 0 : strlen(config->from.tag);

	if (size < tag || (tag > 0 && strcmp(topic + size - tag, config->from.tag) != 0))
		return false;
	topic[size - tag] = '\0';
	return true;
}

List *
streamext_into_load(Oid viewoid, const StreamConfig *config)
{
	IdentityScope own;
	MemoryContext cxt = CurrentMemoryContext;
	Oid			  types[] = { OIDOID, OIDOID };
	Datum		  args[] = { ObjectIdGetDatum(viewoid), ObjectIdGetDatum(into_stream(config)) };
	List		 *result = NIL;

	own = streamext_own_begin();
	/* Views that are no more leave their rows to whoever comes next. */
	if (SPI_execute(
			streamext_own_sql("DELETE FROM streamext_internal.into_position AS p WHERE NOT EXISTS "
							  "(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) p.view)"),
			false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not tidy streamext_internal.into_position");
	if (SPI_execute_with_args(
			streamext_own_sql("SELECT topic, partition, \"position\" FROM streamext_internal.into_position "
							  "WHERE view OPERATOR(pg_catalog.=) $1 AND stream OPERATOR(pg_catalog.=) $2"),
			2, types, args, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext_internal.into_position");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	  tuple = SPI_tuptable->vals[i];
		TupleDesc	  desc = SPI_tuptable->tupdesc;
		char		 *topic = SPI_getvalue(tuple, desc, 1);
		MemoryContext old;
		IntoPosition *position;
		bool		  isnull;

		if (!into_untag(config, topic))
			continue;
		old = MemoryContextSwitchTo(cxt);
		position = palloc(sizeof(IntoPosition));
		position->topic = pstrdup(topic);
		position->partition = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
		position->position = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		result = lappend(result, position);
		MemoryContextSwitchTo(old);
	}
	streamext_own_end(own);
	return result;
}

enum
{
	INTO_VIEW = 1,
	INTO_STREAM,
	INTO_TOPIC,
	INTO_PARTITION,
	INTO_POSITION,
	INTO_ACCEPTED,
	INTO_REJECTED
};

typedef struct IntoTotals
{
	int64 highest; /* position; 0: none */
	int64 accepted, rejected;
} IntoTotals;

/* Of all partitions, as committed now. Without SPI: the user, whose COMMIT this may be, has no rights on the table. */
static void
into_scan(Oid stream, Oid view, IntoTotals *totals)
{
	Oid				relid = streamext_control_table("into_position");
	Relation		rel;
	Snapshot		snapshot;
	TableScanDesc	scan;
	TupleTableSlot *slot;

	memset(totals, 0, sizeof(*totals));
	if (!OidIsValid(relid))
		return;
	rel = table_open(relid, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		slot_getsomeattrs(slot, INTO_REJECTED);
		if ((DatumGetObjectId(slot->tts_values[INTO_STREAM - 1]) != stream && stream != view) ||
			(OidIsValid(view) && DatumGetObjectId(slot->tts_values[INTO_VIEW - 1]) != view))
			continue;
		totals->highest = Max(totals->highest, DatumGetInt64(slot->tts_values[INTO_POSITION - 1]));
		totals->accepted += DatumGetInt64(slot->tts_values[INTO_ACCEPTED - 1]);
		totals->rejected += DatumGetInt64(slot->tts_values[INTO_REJECTED - 1]);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

int64
streamext_into_highest(Oid stream)
{
	IntoTotals totals;

	into_scan(stream, InvalidOid, &totals);
	return totals.highest;
}

void
streamext_into_counts(Oid stream, Oid viewoid, uint64 *accepted, uint64 *rejected)
{
	IntoTotals totals;

	into_scan(stream, viewoid, &totals);
	*accepted = totals.accepted;
	*rejected = totals.rejected;
}

void
streamext_into_recount(Oid viewoid, const StreamConfig *config, const char *topic, int partition, int64 n)
{
	Oid	  types[] = { OIDOID, OIDOID, TEXTOID, INT4OID, INT8OID };
	Datum values[] = { ObjectIdGetDatum(viewoid), ObjectIdGetDatum(into_stream(config)),
					   CStringGetTextDatum(streamext_stream_topic(config, topic)), Int32GetDatum(partition),
					   Int64GetDatum(n) };

	if (SPI_execute_with_args(
			streamext_own_sql(
				"UPDATE streamext_internal.into_position SET accepted = accepted OPERATOR(pg_catalog.+) $5, "
				"rejected = rejected OPERATOR(pg_catalog.-) $5 WHERE view OPERATOR(pg_catalog.=) $1 "
				"AND stream OPERATOR(pg_catalog.=) $2 AND topic OPERATOR(pg_catalog.=) $3 "
				"AND partition OPERATOR(pg_catalog.=) $4"),
			5, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write streamext_internal.into_position");
}

static SPIPlanPtr
into_save_plan(void)
{
	Oid types[] = {
		OIDOID, OIDOID, TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID
	};
	static OwnPlan kept;

	return streamext_own_plan(
		&kept,
		"INSERT INTO streamext_internal.into_position AS p (view, stream, topic, partition, \"position\", accepted, rejected) "
		"SELECT $1, $2, u.topic, u.partition, u.next, u.accepted, u.rejected "
		"FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), "
		"pg_catalog.unnest($7), pg_catalog.unnest($8)) "
		"AS u (topic, partition, next, accepted, rejected) "
		"ON CONFLICT (view, stream, topic, partition) DO UPDATE SET \"position\" = EXCLUDED.\"position\", "
		"accepted = p.accepted OPERATOR(pg_catalog.+) EXCLUDED.accepted, "
		"rejected = p.rejected OPERATOR(pg_catalog.+) EXCLUDED.rejected "
		"WHERE p.\"position\" OPERATOR(pg_catalog.<=) $6[(SELECT n.i FROM pg_catalog.generate_subscripts($3, 1) AS n (i) "
		"WHERE $3[n.i] OPERATOR(pg_catalog.=) p.topic AND $4[n.i] OPERATOR(pg_catalog.=) p.partition)]",
		8, types);
}

static Datum
into_int8_array(Datum *values, int n)
{
	return PointerGetDatum(construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Records of the batch that are new to the view, which stood at `former`, by partition. A view without windows has no late ones. */
static void
into_count(Oid viewoid, const Batch *batch, const int64 *former, int64 *accepted, int64 *rejected)
{
	ListCell *lc;

	for (int i = 0; i < batch->nrecords; i++)
		if (batch->records[i].position >= former[batch->records[i].partition_index])
			accepted[batch->records[i].partition_index]++;
	foreach (lc, batch->rejected)
	{
		const RejectedRecord *reject = lfirst(lc);
		const StreamRecord	 *record = &batch->records[reject->record];

		if ((reject->view != viewoid && OidIsValid(reject->view)) || record->position < former[record->partition_index])
			continue;
		accepted[record->partition_index]--;
		rejected[record->partition_index]++;
	}
}

void
streamext_into_save(ViewSlot *slot, Batch *batch)
{
	IdentityScope  own;
	StreamSlot	  *stream = &streamext_shared->streams[slot->id.stream];
	int			   most = Max(batch->npartitions, 1);
	PartitionSlot *partitions = palloc(sizeof(PartitionSlot) * most);
	Datum		  *topics = palloc(sizeof(Datum) * most);
	Datum		  *numbers = palloc(sizeof(Datum) * most);
	Datum		  *next = palloc(sizeof(Datum) * most);
	Datum		  *former = palloc(sizeof(Datum) * most);
	Datum		  *accepted = palloc(sizeof(Datum) * most);
	Datum		  *rejected = palloc(sizeof(Datum) * most);
	int			  *index = palloc(sizeof(int) * most);
	int64		  *stood = palloc(sizeof(int64) * most);
	int64		  *counts = palloc0(sizeof(int64) * most * 2);
	Datum		   args[8];
	int			   n = 0;

	/* By the slot's order, as the batch's positions are; a catch-up worker's slot may be rearranged at any time. */
	streamext_stream_lock_shared(stream);
	for (int i = 0; i < batch->npartitions; i++)
	{
		stood[i] = i < slot->counted.npositions ? slot->counted.positions[i] : -1;
		if (i >= stream->counted.npartitions || batch->positions[i] < 0 || batch->positions[i] <= stood[i])
			continue;
		partitions[n] = stream->counted.partitions[i];
		next[n] = Int64GetDatum(batch->positions[i]);
		former[n] = Int64GetDatum(stood[i]);
		index[n++] = i;
	}
	LWLockRelease(stream->lock);
	if (n == 0)
		return;
	into_count(slot->id.viewoid, batch, stood, counts, counts + most);
	for (int i = 0; i < n; i++)
	{
		accepted[i] = Int64GetDatum(counts[index[i]]);
		rejected[i] = Int64GetDatum(counts[most + index[i]]);
		topics[i] = CStringGetTextDatum(streamext_stream_topic(batch->config, partitions[i].topic));
		numbers[i] = Int32GetDatum(partitions[i].partition);
	}
	/* What a source is told to forget must be in the table for good. */
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	args[0] = ObjectIdGetDatum(slot->id.viewoid);
	args[1] = ObjectIdGetDatum(into_stream(batch->config));
	args[2] = PointerGetDatum(construct_array(topics, n, TEXTOID, -1, false, TYPALIGN_INT));
	args[3] = PointerGetDatum(construct_array(numbers, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	args[4] = into_int8_array(next, n);
	args[5] = into_int8_array(former, n);
	args[6] = into_int8_array(accepted, n);
	args[7] = into_int8_array(rejected, n);
	own = streamext_own_begin();
	if (SPI_execute_plan(into_save_plan(), args, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write streamext_internal.into_position");
	if (SPI_processed != (uint64) n)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("rows of the batch are already in the table of continuous view \"%s\"",
							   get_rel_name(slot->id.viewoid))));
	streamext_own_end(own);
}

/* ---------------------------------------------------------------- views with windows */

TimestampTz
streamext_into_load_window(Oid viewoid)
{
	IdentityScope own;
	Oid			  types[] = { OIDOID };
	Datum		  args[] = { ObjectIdGetDatum(viewoid) };
	TimestampTz	  written = DT_NOBEGIN;

	own = streamext_own_begin();
	/* Views that are no more leave their rows to whoever comes next. */
	if (SPI_execute(
			streamext_own_sql("DELETE FROM streamext_internal.into_window AS p WHERE NOT EXISTS "
							  "(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) p.view)"),
			false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not tidy streamext_internal.into_window");
	if (SPI_execute_with_args(
			streamext_own_sql(
				"SELECT written_until FROM streamext_internal.into_window WHERE view OPERATOR(pg_catalog.=) $1"),
			1, types, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext_internal.into_window");
	if (SPI_processed > 0)
	{
		bool isnull;

		written = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	}
	streamext_own_end(own);
	return written;
}

void
streamext_into_save_window(Oid viewoid, TimestampTz from, TimestampTz until)
{
	IdentityScope own;
	Oid			  types[] = { OIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID };
	Datum		  args[] = { ObjectIdGetDatum(viewoid), TimestampTzGetDatum(from), TimestampTzGetDatum(until) };

	/* Clients are told of it: it must be there for good. */
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	own = streamext_own_begin();
	if (SPI_execute_with_args(
			streamext_own_sql("INSERT INTO streamext_internal.into_window AS p (view, written_until) VALUES ($1, $3) "
							  "ON CONFLICT (view) DO UPDATE SET written_until = EXCLUDED.written_until "
							  "WHERE p.written_until OPERATOR(pg_catalog.<=) $2"),
			3, types, args, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write streamext_internal.into_window");
	if (SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("windows of continuous view \"%s\" have been written by another process",
							   get_rel_name(viewoid))));
	streamext_own_end(own);
}
