/*
 * sql/retry.c
 *		streamext.retry_dead_letters: asks a stream's workers to decode and fold rejected records again.
 *
 * Leaves rows for each shard in streamext.retry_request, each for as many letters as one batch shall hold; the commit makes the workers look
 * (worker/retry.c).
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/lsyscache.h"

#include "base/own_table.h"
#include "durable/letters.h"
#include "sql/commit.h"
#include "sql/control.h"
#include "stream/definition.h"
#include "view/compile.h"
#include "view/union.h"

PG_FUNCTION_INFO_V1(streamext_retry_dead_letters);

/* Requests of at most 512 letters and about 8 MB. $3: letters (NULL: all), $4 and $5: shards and their sources. */
static const char retry_insert_sql[] =
	"WITH l AS MATERIALIZED (SELECT d.id, pg_catalog.row_number() OVER (ORDER BY d.id) AS n, "
	"pg_catalog.sum(COALESCE(pg_catalog.octet_length(d.payload), 0)) OVER (ORDER BY d.id) AS bytes FROM streamext.dead_letter AS d "
	"WHERE d.stream OPERATOR(pg_catalog.=) $1 AND d.source OPERATOR(pg_catalog.=) 0 AND d.whole "
	"AND ($2 OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR d.view OPERATOR(pg_catalog.=) $2) "
	"AND ($3 IS NULL OR d.id OPERATOR(pg_catalog.=) ANY ($3)) AND (d.view OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR EXISTS "
	"(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) d.view))), "
	"r AS (INSERT INTO streamext.retry_request (stream, shard, source, letters) "
	"SELECT $1, s.shard, s.source, pg_catalog.array_agg(l.id ORDER BY l.id) "
	"FROM l, ROWS FROM (pg_catalog.unnest($4), pg_catalog.unnest($5)) AS s (shard, source) "
	"GROUP BY s.shard, s.source, (l.n OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog./) 512, "
	"l.bytes OPERATOR(pg_catalog./) 8388608 ORDER BY pg_catalog.min(l.id)) SELECT pg_catalog.count(*) FROM l";
/* One of the ids that is not to be retried, -1 for 0 and NULL; no row: all are. */
static const char retry_check_sql[] =
	"SELECT COALESCE(NULLIF(u.id, 0), -1) FROM pg_catalog.unnest($3) AS u (id) WHERE NOT EXISTS (SELECT FROM streamext.dead_letter AS d "
	"WHERE d.id OPERATOR(pg_catalog.=) u.id AND d.stream OPERATOR(pg_catalog.=) $1 "
	"AND ($2 OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR d.view OPERATOR(pg_catalog.=) $2) "
	"AND d.source OPERATOR(pg_catalog.=) 0 AND d.whole AND (d.view OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR EXISTS "
	"(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) d.view))) LIMIT 1";
/* 1: it is cut; 2: of a former source; 3: of a view that is no more. */
static const char retry_reason_sql[] =
	"SELECT (CASE WHEN d.source OPERATOR(pg_catalog.<>) 0 THEN 2 WHEN NOT d.whole THEN 1 ELSE 3 END)::pg_catalog.int8 "
	"FROM streamext.dead_letter AS d WHERE d.id OPERATOR(pg_catalog.=) $3 AND d.stream OPERATOR(pg_catalog.=) $1 "
	"AND ($2 OPERATOR(pg_catalog.=) 0::pg_catalog.oid OR d.view OPERATOR(pg_catalog.=) $2)";

/* Raises for the first of the ids that is not to be had. */
static void
retry_check_ids(const char *name, Oid *types, Datum *values, const char *nulls)
{
	int64 id = streamext_control_execute(retry_check_sql, 3, types, values, nulls, SPI_OK_SELECT);
	Oid	  id_types[3] = { OIDOID, OIDOID, INT8OID };
	Datum id_values[3] = { values[0], values[1], Int64GetDatum(id) };
	int64 reason;

	if (id == 0)
		return;
	reason = streamext_control_execute(retry_reason_sql, 3, id_types, id_values, NULL, SPI_OK_SELECT);
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

/* Each part has positions and records of its own, which its letters do not tell. */
static void
retry_check_union(Oid viewoid)
{
	if (streamext_union_streams(viewoid) != NIL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("dead letters of continuous view \"%s\", which reads UNION ALL, cannot be tried again",
							   get_rel_name(viewoid)),
						errhint("streamext.rebuild begins the view anew with all that its sources still hold.")));
}

Datum
streamext_retry_dead_letters(PG_FUNCTION_ARGS)
{
	Oid			  types[5] = { OIDOID, OIDOID, INT8ARRAYOID, INT4ARRAYOID, INT8ARRAYOID };
	Datum		  values[5];
	char		  nulls[6] = "     ";
	StreamConfig *config;
	StreamSlot	 *slots[STREAMEXT_MAX_SHARDS];
	Datum		  shards[STREAMEXT_MAX_SHARDS];
	Datum		  sources[STREAMEXT_MAX_SHARDS];
	Oid			  relid;
	Oid			  viewoid = PG_ARGISNULL(1) ? InvalidOid : PG_GETARG_OID(1);
	char		 *name;
	int64		  count;

	if (PG_ARGISNULL(0))
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("the stream must not be null")));
	relid = PG_GETARG_OID(0);
	retry_check_union(relid);
	(void) streamext_control_lock_slots(relid, &name, slots);
	retry_check_union(viewoid);
	if (OidIsValid(viewoid) && (!streamext_view_options(viewoid).continuous || streamext_view_stream(viewoid) != relid))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view of stream \"%s\"",
							   get_rel_name(viewoid) != NULL ? get_rel_name(viewoid) : psprintf("%u", viewoid), name)));
	/* as the workers will find it: they may be starting, and have no source yet */
	config = streamext_stream_config(relid);
	for (int i = 0; i < config->workers; i++)
	{
		shards[i] = Int32GetDatum(i);
		sources[i] = Int64GetDatum((int64) streamext_worker_source(config));
	}
	values[0] = ObjectIdGetDatum(relid);
	values[1] = ObjectIdGetDatum(viewoid);
	values[2] = PG_ARGISNULL(2) ? (Datum) 0 : PG_GETARG_DATUM(2);
	nulls[2] = PG_ARGISNULL(2) ? 'n' : ' ';
	values[3] = streamext_dead_letter_array(shards, NULL, config->workers, INT4OID);
	values[4] = streamext_dead_letter_array(sources, NULL, config->workers, INT8OID);
	if (!PG_ARGISNULL(2))
		retry_check_ids(name, types, values, nulls);
	count = streamext_control_execute(retry_insert_sql, 5, types, values, nulls, SPI_OK_SELECT);
	if (count > 0)
		streamext_touch_stream(relid);
	PG_RETURN_INT64(count);
}
