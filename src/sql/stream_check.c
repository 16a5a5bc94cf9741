/*
 * sql/stream_check.c
 *		streamext.check: what a stream needs to work, one row for each, and what to do where it has not got it.
 *
 * What the stream's workers know, and, for who has the rights of its owner, as whom that is done, what a look at the source finds now
 * (source/sample.h): with a client of its own, bounded by CHECK_SECONDS, beside the workers.
 */
#include "base/streamext.h"

#include <math.h>

#include "funcapi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "decode/decoder.h"
#include "decode/format.h"
#include "shared/clock.h"
#include "shared/gate.h"
#include "shared/shmem.h"
#include "shared/view_slot.h"
#include "source/sample.h"
#include "view/reads.h"
#include "sql/catalog.h"
#include "sql/columns.h"
#include "sql/control.h"
#include "stream/definition.h"
#include "view/dependents.h"
#include "view/union.h"

PG_FUNCTION_INFO_V1(streamext_check);

/* Event times that are so far ahead of the clock are a clock's fault. */
#define CHECK_AHEAD (60 * USECS_PER_SEC)
#define CHECK_SECONDS 5
#define CHECK_LINGER_MS 500 /* for a message, where none has come before */

typedef struct StreamCheck
{
	ReturnSetInfo *rsinfo;
	StreamConfig  *config;
	List		  *shards; /* of ShardCopy */
	StreamState	   state;
	int64		   rows, rejected;
	TimestampTz	   newest; /* event time; DT_NOBEGIN: none */
	int			   npartitions;
	const char	  *error; /* the newest, or NULL */
	TimestampTz	   error_at;
} StreamCheck;

/* detail, hint: or NULL. A hint is given only where something is not well. */
static void
check_put(StreamCheck *check, const char *what, bool ok, const char *detail, const char *hint)
{
	Datum values[4] = { 0 };
	bool  nulls[4] = { 0 };

	values[0] = CStringGetTextDatum(what);
	values[1] = BoolGetDatum(ok);
	streamext_catalog_put_text(values, nulls, 2, detail);
	streamext_catalog_put_text(values, nulls, 3, ok ? NULL : hint);
	tuplestore_putvalues(check->rsinfo->setResult, check->rsinfo->setDesc, values, nulls);
}

static void
check_sum(StreamCheck *check)
{
	ListCell *cell;

	check->shards = streamext_catalog_copy_shards(check->config->relid);
	check->state = streamext_catalog_stream_state(check->shards);
	check->newest = DT_NOBEGIN;
	foreach (cell, check->shards)
	{
		const ShardCopy *shard = lfirst(cell);

		check->rows += shard->slot.counted.rows_in;
		check->rejected += shard->slot.counted.rejected;
		check->npartitions += shard->slot.counted.npartitions;
		for (int i = 0; i < shard->slot.counted.npartitions; i++)
			check->newest = Max(check->newest, shard->partitions[i].max_event_time);
		if (shard->slot.status.last_error[0] != '\0' && shard->slot.status.last_error_at >= check->error_at)
		{
			check->error = shard->slot.status.last_error;
			check->error_at = shard->slot.status.last_error_at;
		}
	}
}

/* ---- rows ---- */

static void
check_worker(StreamCheck *check)
{
	int		  workers = 0;
	ListCell *cell;

	foreach (cell, check->shards)
		workers += ((ShardCopy *) lfirst(cell))->slot.worker.pid != 0;
	check_put(check, "worker", workers == check->config->workers,
			  psprintf("%d of %d at work", workers, check->config->workers),
			  psprintf("Raise max_worker_processes (now %d) and restart the server; streamext.max_streams and the "
					   "server's log may say more.",
					   max_worker_processes));
}

static void
check_state(StreamCheck *check)
{
	const char *hint = NULL;

	switch (check->state)
	{
		case STREAM_PAUSED:
			hint = "Call streamext.resume.";
			break;
		case STREAM_FAILED:
			hint = "When the cause is mended, call streamext.resume.";
			break;
		case STREAM_DIVERGED:
			hint = "streamext.seek takes the source as it is now; streamext.resume looks at it again.";
			break;
		case STREAM_FULL:
			hint = "Raise streamext.memory_limit and restart the server, give views a retention, or raise "
				   "streamext.max_groups by ALTER VIEW.";
			break;
		case STREAM_STALLED:
			hint = "The stream goes on by itself once the source can be reached.";
			break;
		default:
			hint = "The stream waits for a worker.";
			break;
	}
	check_put(check, "state", check->state == STREAM_RUNNING || check->state == STREAM_CATCHING_UP,
			  streamext_stream_state_name(check->state), hint);
}

/* Whether it can be reached, lets us in and has what is asked for: one error says which of these it is. */
static void
check_source(StreamCheck *check)
{
	bool away = check->state == STREAM_STALLED || STREAMEXT_STATE_FAILED(check->state);

	if (!check->config->connector->payloads)
		check_put(check, "source", true, "rows come from INSERT and COPY", NULL);
	else
		check_put(check, "source", !away, away ? check->error : "reached, and lets the stream read",
				  "See the options of the server and of the owner's user mapping, and the topic's name.");
}

/* Why the stream would reject the record, NULL: it would not. */
static const char *
check_decode(StreamConfig *config, StreamRecord *record)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext check", ALLOCSET_DEFAULT_SIZES);
	Decoder		 *decoder = streamext_decoder_create(config, cxt);
	Batch		 *batch = streamext_batch_create(config, NULL, cxt);
	IdentityScope scope = streamext_decoder_enter(decoder);
	const char	 *reason = NULL;

	streamext_batch_reset(batch);
	batch->nrecords = 1;
	batch->again = true; /* it is tried once */
	batch->records[0] = *record;
	streamext_decoder_run(decoder, batch, streamext_clock_now());
	streamext_identity_leave(scope);
	if (batch->rejected != NIL)
		reason = pstrdup(((RejectedRecord *) linitial(batch->rejected))->reason);
	streamext_decoder_free(decoder);
	MemoryContextDelete(cxt);
	return reason;
}

static void
check_sample(StreamCheck *check, SourceSample *sample)
{
	const char *reason;

	if (sample->nrecords == 0)
		return;
	reason = check_decode(check->config, &sample->records[0]);
	check_put(check, "sample", reason == NULL,
			  reason == NULL ? "the newest record can be decoded"
							 : psprintf("the newest record is rejected: %s", reason),
			  "streamext.peek shows it; see the columns' types and options, and the option format.");
}

/* What the source says now. With the owner's login, so for who has his rights. */
static void
check_live(StreamCheck *check)
{
	SourceSample sample = { 0 };
	ListCell	*cell;

	if (check->config->connector->sample == NULL || !has_privs_of_role(GetUserId(), check->config->owner))
		return;
	sample.stream = true;
	sample.deadline = GetCurrentTimestamp() + CHECK_SECONDS * USECS_PER_SEC;
	/* a source that keeps no records is waited for only where the stream has seen none */
	sample.wanted = check->config->connector->replayable || check->rows == 0 ? 1 : 0;
	sample.linger = CHECK_LINGER_MS;
	streamext_sample_run(check->config, &sample);
	foreach (cell, sample.findings)
	{
		const SourceFinding *finding = lfirst(cell);

		check_put(check, finding->what, finding->ok, finding->detail, finding->hint);
	}
	check_sample(check, &sample);
}

static void
check_partitions(StreamCheck *check)
{
	check_put(check, "partitions", check->npartitions > 0, psprintf("%d", check->npartitions),
			  "The topic does not exist, has no partition, or its source has not been reached yet.");
}

static void
check_records(StreamCheck *check)
{
	check_put(check, "records", check->rows > 0, psprintf(INT64_FORMAT " delivered", check->rows),
			  check->config->source.start != START_EARLIEST
				  ? "Nothing has come since the stream's start: the option \"start\" leaves out what is older."
				  : "Nothing has come yet: does anybody send to this topic? A filter of mqtt has + and # for levels.");
}

static void
check_values(StreamCheck *check)
{
	check_put(check, "values", check->rejected == 0,
			  psprintf(INT64_FORMAT " of " INT64_FORMAT " records rejected", check->rejected, check->rows),
			  "Column reason of streamext.dead_letters says why, payload_text shows them.");
}

/* Columns that have never found a value. */
static void
check_columns(StreamCheck *check)
{
	StreamConfig  *config = check->config;
	ColumnCounts  *counts = palloc(sizeof(ColumnCounts) * Max(config->desc->natts, 1));
	StringInfoData names;
	const char	  *hint = NULL;

	streamext_columns_sum(config, counts);
	initStringInfo(&names);
	for (int i = 0; i < config->desc->natts; i++)
		if (!config->columns[i].dropped && config->columns[i].metadata == METADATA_NONE && counts[i].present == 0 &&
			counts[i].missing + counts[i].rejected > 0)
		{
			appendStringInfo(&names, "%s\"%s\"", names.len > 0 ? ", " : "", config->columns[i].name);
			if (hint == NULL)
				hint = streamext_column_hint(config, &config->columns[i], &counts[i]);
		}
	check_put(check, "columns", names.len == 0,
			  names.len == 0 ? "all have found values, or none has come" : psprintf("no value yet: %s", names.data),
			  hint != NULL ? psprintf("%s; see streamext.stream_columns", hint) : "See streamext.stream_columns.");
}

static void
check_clock(StreamCheck *check)
{
	TimestampTz now = streamext_clock_now();

	if (TIMESTAMP_NOT_FINITE(check->newest))
		return;
	check_put(check, "clock", check->newest <= now + CHECK_AHEAD,
			  psprintf("the newest event time is %.3f s %s the clock", fabs((now - check->newest) / 1000000.0),
					   check->newest > now ? "ahead of" : "behind"),
			  "What is ahead makes others late: mend the sender's clock, or lower the option max_ahead.");
}

static void
check_memory(StreamCheck *check)
{
	check_put(check, "memory", check->state != STREAM_FULL,
			  check->state == STREAM_FULL ? check->error
										  : psprintf("streamext.memory_limit is %d MB", streamext_memory_limit_mb),
			  "Raise streamext.memory_limit and restart the server, or give views a retention.");
}

/* The state of a view that counts nothing, paused, failed or full by itself; NULL: it counts. */
static const char *
check_halted(Oid viewoid)
{
	const char *result = NULL;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews && result == NULL; i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];
		StreamSlot	   *stream;

		if (!view->id.in_use || view->id.retained || view->id.dboid != MyDatabaseId || view->id.viewoid != viewoid)
			continue;
		stream = &streamext_shared->streams[view->id.stream];
		streamext_stream_lock_shared(stream);
		if (view->health.status == VIEW_PAUSED || view->health.status == VIEW_FAILED ||
			view->health.status == VIEW_FULL)
			result = streamext_view_status_name(view->health.status);
		LWLockRelease(stream->lock);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return result;
}

static void
check_put_views(StreamCheck *check, const List *views, int nunions)
{
	StringInfoData detail;
	bool		   ok = true;
	ListCell	  *cell;

	initStringInfo(&detail);
	appendStringInfo(&detail, "%d continuous views read the stream", list_length(views));
	if (nunions > 0)
		appendStringInfo(&detail, ", %d of them by UNION ALL", nunions);
	foreach (cell, views)
	{
		const char *state = check_halted(lfirst_oid(cell));
		const char *name = state == NULL ? NULL : get_rel_name(lfirst_oid(cell));

		if (name == NULL)
			continue;
		appendStringInfo(&detail, "%s \"%s\" is %s", ok ? ":" : ",", name, state);
		ok = false;
	}
	check_put(
		check, "views", ok, detail.data,
		"Column last_error of streamext.continuous_views says why; one that is paused waits for streamext.resume.");
}

/* Who reads the stream. A view that another transaction holds is counted if in doubt. */
static void
check_views(StreamCheck *check)
{
	Oid		  relid = check->config->relid;
	List	 *unions = streamext_union_views(relid);
	List	 *views = list_copy(unions);
	ListCell *cell;

	foreach (cell, streamext_view_dependents(relid))
	{
		Oid	 view = lfirst_oid(cell);
		bool held;

		if (list_member_oid(unions, view) || !streamext_view_options(view).continuous)
			continue;
		held = !ConditionalLockRelationOid(view, AccessShareLock);
		if (held || streamext_view_stream(view) == relid)
			views = lappend_oid(views, view);
		if (!held)
			UnlockRelationOid(view, AccessShareLock);
	}
	check_put_views(check, views, list_length(unions));
}

/* An error that is over is told as such. */
static void
check_past(StreamCheck *check)
{
	if (check->error != NULL && (check->state == STREAM_RUNNING || check->state == STREAM_CATCHING_UP))
		check_put(check, "past error", true, psprintf("%s: %s", timestamptz_to_str(check->error_at), check->error),
				  NULL);
}

Datum
streamext_check(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	StreamCheck check = { 0 };

	(void) streamext_control_stream(relid, false);
	InitMaterializedSRF(fcinfo, 0);
	check.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	check.config = streamext_stream_config(relid);
	if (check.config == NULL)
		PG_RETURN_VOID();
	check_sum(&check);
	check_worker(&check);
	check_state(&check);
	check_source(&check);
	check_live(&check);
	check_partitions(&check);
	check_records(&check);
	check_values(&check);
	check_columns(&check);
	check_clock(&check);
	check_memory(&check);
	check_views(&check);
	check_past(&check);
	PG_RETURN_VOID();
}
