/*-------------------------------------------------------------------------
 *
 * durable/events.c
 *		What happened to streams' sources, in the table streamext_internal.stream_event: gaps, outages, a source that is another one.
 *
 * Events are few. Each look of the worker at its connector writes those noted since, and when a stream has many the oldest go.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "pgstat.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/own_table.h"
#include "durable/events.h"

#define STREAM_EVENT_ROWS 1000

static const char event_insert_sql[] =
	"INSERT INTO streamext_internal.stream_event (stream, kind, topic, partition, missed, detail) VALUES ($1, $2, $3, $4, $5, $6)";

static const char event_prune_sql[] =
	"DELETE FROM streamext_internal.stream_event WHERE stream OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.<=) "
	"(SELECT e.id FROM streamext_internal.stream_event AS e WHERE e.stream OPERATOR(pg_catalog.=) $1 ORDER BY e.id DESC LIMIT 1 OFFSET $2)";

/* What the stream had read before a view read it again is not missed by the stream. */
void
streamext_stream_events_count(Shard *shard)
{
	for (int i = 0; i < shard->connector->nevents; i++)
	{
		ConnectorEvent *event = &shard->connector->events[i];
		PartitionSlot  *partition;
		int64			end;

		if (event->missed <= 0 || event->counted || event->index < 0 || event->index >= shard->npartitions)
			continue;
		partition = &shard->slot->counted.partitions[event->index];
		end = shard->connector->partitions[event->index].position;
		streamext_stream_lock_exclusive(shard->slot);
		partition->missed += Max(0, end - Max(partition->position, end - event->missed));
		LWLockRelease(shard->slot->lock);
		event->counted = true;
	}
}

static void
event_insert(Shard *shard, const ConnectorEvent *event)
{
	static Oid				  types[6] = { OIDOID, TEXTOID, TEXTOID, INT4OID, INT8OID, TEXTOID };
	const ConnectorPartition *partition = event->index >= 0 ? &shard->connector->partitions[event->index] : NULL;
	Datum					  values[6];
	char					  nulls[7] = "      ";

	values[0] = ObjectIdGetDatum(shard->identity.relid);
	values[1] = CStringGetTextDatum(event->kind);
	values[2] = partition != NULL ? CStringGetTextDatum(partition->topic) : (Datum) 0;
	values[3] = partition != NULL ? Int32GetDatum(partition->partition) : (Datum) 0;
	values[4] = Int64GetDatum(event->missed);
	values[5] = CStringGetTextDatum(event->detail);
	if (partition == NULL)
		nulls[2] = nulls[3] = 'n';
	if (SPI_execute_with_args(streamext_own_sql(event_insert_sql), 6, types, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert into streamext_internal.stream_event");
}

static void
event_prune(Oid stream)
{
	Oid	  types[2] = { OIDOID, INT8OID };
	Datum values[2] = { ObjectIdGetDatum(stream), Int64GetDatum(STREAM_EVENT_ROWS) };

	if (SPI_execute_with_args(streamext_own_sql(event_prune_sql), 2, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete from streamext_internal.stream_event");
}

void
streamext_stream_events_write(Shard *shard)
{
	IdentityScope own;
	MemoryContext old = CurrentMemoryContext;
	Connector	 *c = shard->connector;

	if (c == NULL || c->nevents == 0)
		return;
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	own = streamext_own_begin();
	for (int i = 0; i < c->nevents; i++)
		event_insert(shard, &c->events[i]);
	event_prune(shard->identity.relid);
	streamext_own_end(own);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	c->nevents = 0;
	pgstat_report_stat(true);
}
