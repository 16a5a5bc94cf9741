/*
 * sql/seek.c
 *		streamext.seek: asks a stream's workers to go on at another position.
 *
 * Only the worker can ask the source where `latest` or a time is. So the functions leave a row for each shard (durable/seek_request.h), and the
 * commit makes the workers look (worker/seek.c).
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "durable/seek_request.h"
#include "shared/shmem.h"
#include "sql/commit.h"
#include "sql/control.h"
#include "sql/lock.h"
#include "sql/rebuild.h"
#include "stream/definition.h"
#include "view/compile.h"

PG_FUNCTION_INFO_V1(streamext_seek);
PG_FUNCTION_INFO_V1(streamext_seek_time);
PG_FUNCTION_INFO_V1(streamext_seek_offset);

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
	streamext_seek_make_positions(positions, slot->counted.source == source ? slot->counted.npartitions : 0);
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
	char	   *name;
	StreamSlot *slots[STREAMEXT_MAX_SHARDS];
	int			n = streamext_control_lock_slots(relid, &name, slots);
	uint64		source = streamext_worker_source(streamext_stream_config(relid));
	ListCell   *lc;

	request->accept = seek_is_diverged(slots, n);
	seek_check(request, name, relid);
	seek_check_partition(request, name, slots, n);
	if (request->rebuild)
		foreach (lc, seek_views(relid))
			if (streamext_view_options(lfirst_oid(lc)).into == NULL)
				streamext_view_next_round(lfirst_oid(lc), relid);
	for (int i = 0; i < n; i++)
	{
		seek_take_positions(&request->former, slots[i], source);
		streamext_seek_request_insert(relid, slots[i]->id.shard, source, request);
	}
	streamext_touch_stream(relid);
}

/* Called for an error while a position is read as a time. */
static void
seek_tell_words(void *arg)
{
	errhint("A position is 'earliest', 'latest' or a time.");
}

static TimestampTz
seek_read_time(const char *position)
{
	ErrorContextCallback callback = { .previous = error_context_stack, .callback = seek_tell_words };
	TimestampTz			 result;

	error_context_stack = &callback;
	result = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(position),
													 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	error_context_stack = callback.previous;
	return result;
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
		request.time = seek_read_time(position);
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
