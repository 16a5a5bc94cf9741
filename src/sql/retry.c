/*
 * sql/retry.c
 *		streamext.retry_dead_letters: asks a stream's workers to decode and fold rejected records again.
 *
 * Leaves rows for each shard in streamext_internal.retry_request, each for as many letters as one batch shall hold; the commit makes the workers look
 * (worker/retry.c).
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/own_table.h"
#include "durable/letters.h"
#include "view/reads.h"
#include "sql/commit.h"
#include "sql/control.h"
#include "stream/definition.h"
#include "sql/lock.h"
#include "view/compile.h"
#include "view/inner.h"
#include "view/union.h"

PG_FUNCTION_INFO_V1(streamext_retry_dead_letters);

/* Letters of stream $1, of view $2 (0: whatever), whose topic is as $4 says (NULL: whatever). */
#define RETRY_OF                                                                                                                \
	"d.stream OPERATOR(pg_catalog.=) $1 AND ($2 OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR d.view OPERATOR(pg_catalog.=) $2) " \
	"AND ($4 IS NULL OR d.topic OPERATOR(pg_catalog.~) $4) "
/* Those that can be tried again. */
#define RETRY_GOOD                                                                                                     \
	RETRY_OF "AND d.source OPERATOR(pg_catalog.=) 0 AND d.whole AND (d.view OPERATOR(pg_catalog.=) 0::pg_catalog.oid " \
			 "OR EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) d.view)) "

/* Requests of at most 512 letters and about 8 MB. $3: letters (NULL: all), $5 and $6: shards and their sources. */
static const char retry_insert_sql[] =
	"WITH l AS MATERIALIZED (SELECT d.id, pg_catalog.row_number() OVER (ORDER BY d.id) AS n, "
	"pg_catalog.sum(COALESCE(pg_catalog.octet_length(d.payload), 0)) OVER (ORDER BY d.id) AS bytes FROM streamext_internal.dead_letter AS d "
	"WHERE ($3 IS NULL OR d.id OPERATOR(pg_catalog.=) ANY ($3)) AND " RETRY_GOOD "), "
	"r AS (INSERT INTO streamext_internal.retry_request (stream, shard, source, letters) "
	"SELECT $1, s.shard, s.source, pg_catalog.array_agg(l.id ORDER BY l.id) "
	"FROM l, ROWS FROM (pg_catalog.unnest($5), pg_catalog.unnest($6)) AS s (shard, source) "
	"GROUP BY s.shard, s.source, (l.n OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) 512, "
	"l.bytes OPERATOR(pg_catalog./) 8388608 ORDER BY pg_catalog.min(l.id)) SELECT pg_catalog.count(*) FROM l";
/* One of the ids that is not to be retried, -1 for 0 and NULL; no row: all are. */
static const char retry_check_sql[] =
	"SELECT COALESCE(NULLIF(u.id, 0), -1) FROM pg_catalog.unnest($3) AS u (id) WHERE NOT EXISTS "
	"(SELECT FROM streamext_internal.dead_letter AS d WHERE d.id OPERATOR(pg_catalog.=) u.id AND " RETRY_GOOD
	") LIMIT 1";
/* 1: it is cut; 2: of a former source; 3: of a view that is no more. */
static const char retry_reason_sql[] =
	"SELECT (CASE WHEN d.source OPERATOR(pg_catalog.<>) 0 THEN 2 WHEN NOT d.whole THEN 1 ELSE 3 END)::pg_catalog.int8 "
	"FROM streamext_internal.dead_letter AS d WHERE d.id OPERATOR(pg_catalog.=) $3 AND " RETRY_OF;

/* Raises for the first of the ids that is not to be had. */
static void
retry_check_ids(const char *name, Oid *types, Datum *values, const char *nulls)
{
	int64 id = streamext_control_execute(retry_check_sql, 4, types, values, nulls, SPI_OK_SELECT);
	Oid	  id_types[4] = { OIDOID, OIDOID, INT8OID, TEXTOID };
	Datum id_values[4] = { values[0], values[1], Int64GetDatum(id), values[3] };
	int64 reason;

	if (id == 0)
		return;
	reason = streamext_control_execute(retry_reason_sql, 4, id_types, id_values, nulls, SPI_OK_SELECT);
	if (reason == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("stream \"%s\" has no such dead letter: " INT64_FORMAT, name, id),
						errhint("See streamext.dead_letters; a letter goes when its record is read again.")));
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("dead letter " INT64_FORMAT " cannot be tried again", id),
		 errdetail_internal("%s", reason == 1	? "Its record is larger than 1 MB and was not kept whole."
								  : reason == 2 ? "It is of a source that the stream has left behind by streamext.seek."
												: "Its view was dropped.")));
}

/* What is asked for. */
typedef struct RetryRequest
{
	Oid	  stream; /* whose letters they are: a view's, where it has a stream of its own */
	Oid	  view;	  /* InvalidOid: whatever */
	char *part;	  /* pattern of topics, or NULL */
	char *name;	  /* of the stream */
} RetryRequest;

/* Whether the continuous view has a stream of its own, whose letters are its letters (view/inner.h, view/union.h). */
static bool
retry_has_stream(Oid relid)
{
	return OidIsValid(relid) && streamext_view_options(relid).continuous && streamext_view_stream(relid) == relid;
}

/* Of a view with a stream of its own, and of what it reads if that is named. The view stays locked against other requests and DDL. */
static void
retry_lock_view(RetryRequest *request, Oid viewoid, Oid stream)
{
	StreamSlot *slots[STREAMEXT_MAX_SHARDS];

	streamext_require_preload();
	(void) streamext_control_view(viewoid);
	request->name = get_rel_name(viewoid);
	(void) streamext_control_slots(viewoid, request->name, slots);
	request->name = streamext_lock_relation(viewoid, ShareUpdateExclusiveLock);
	(void) streamext_control_view(viewoid);
	request->stream = viewoid;
	if (stream == viewoid)
		return;
	if (list_member_oid(streamext_union_streams(viewoid), stream))
		request->part = psprintf(" of %u(\\.[0-9]+)?$", stream);
	else if (streamext_view_root(viewoid) != stream)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view of stream \"%s\"", request->name,
							   get_rel_name(stream) != NULL ? get_rel_name(stream) : psprintf("%u", stream))));
}

static void
retry_lock_stream(RetryRequest *request, Oid stream, Oid viewoid)
{
	StreamSlot *slots[STREAMEXT_MAX_SHARDS];

	(void) streamext_control_lock_slots(stream, &request->name, slots);
	request->stream = stream;
	request->view = viewoid;
	if (OidIsValid(viewoid) &&
		(!streamext_view_options(viewoid).continuous || streamext_view_stream(viewoid) != stream))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view of stream \"%s\"",
							   get_rel_name(viewoid) != NULL ? get_rel_name(viewoid) : psprintf("%u", viewoid),
							   request->name)));
}

static void
retry_lock(RetryRequest *request, Oid stream, Oid viewoid)
{
	char *former = get_rel_name(stream);
	bool  own = retry_has_stream(OidIsValid(viewoid) ? viewoid : stream); /* which may wait */

	streamext_lock_check_there(stream, former);
	memset(request, 0, sizeof(*request));
	if (own)
		retry_lock_view(request, OidIsValid(viewoid) ? viewoid : stream, stream);
	else
		retry_lock_stream(request, stream, viewoid);
}

/* The stream's shards and their sources as the workers will find them: they may be starting, and have none yet. */
static void
retry_shards(const RetryRequest *request, Datum *shards, Datum *sources)
{
	StreamConfig *config = streamext_stream_config(request->stream);
	Datum		  numbers[STREAMEXT_MAX_SHARDS];
	Datum		  hashes[STREAMEXT_MAX_SHARDS];

	if (config == NULL) /* the view has got another query while the lock was waited for */
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE), errmsg("\"%s\" was changed meanwhile", request->name)));
	for (int i = 0; i < config->workers; i++)
	{
		numbers[i] = Int32GetDatum(i);
		hashes[i] = Int64GetDatum((int64) streamext_worker_source(streamext_stream_part(config, i)));
	}
	*shards = streamext_dead_letter_array(numbers, NULL, config->workers, INT4OID);
	*sources = streamext_dead_letter_array(hashes, NULL, config->workers, INT8OID);
}

Datum
streamext_retry_dead_letters(PG_FUNCTION_ARGS)
{
	Oid			 types[6] = { OIDOID, OIDOID, INT8ARRAYOID, TEXTOID, INT4ARRAYOID, INT8ARRAYOID };
	Datum		 values[6] = { 0 };
	char		 nulls[7] = "      ";
	RetryRequest request;
	int64		 count;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the stream must not be null")));
	retry_lock(&request, PG_GETARG_OID(0), PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1));
	values[0] = ObjectIdGetDatum(request.stream);
	values[1] = ObjectIdGetDatum(request.view);
	values[2] = PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2);
	nulls[2] = PG_ARGISNULL(2) ? 'n' : ' ';
	values[3] = request.part != NULL ? CStringGetTextDatum(request.part) : (Datum) 0;
	nulls[3] = request.part != NULL ? ' ' : 'n';
	retry_shards(&request, &values[4], &values[5]);
	if (!PG_ARGISNULL(2))
		retry_check_ids(request.name, types, values, nulls);
	count = streamext_control_execute(retry_insert_sql, 6, types, values, nulls, SPI_OK_SELECT);
	if (count > 0)
		streamext_touch_stream(request.stream);
	PG_RETURN_INT64(count);
}
