/*
 * durable/seek_request.c
 *		Rows of streamext_internal.seek_request. What the functions promise is in durable/seek_request.h.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/own_table.h"
#include "durable/seek_request.h"

static const char seek_insert_sql[] =
	"INSERT INTO streamext_internal.seek_request (stream, shard, source, kind, \"time\", topic, partition, \"offset\", rebuild, accept, "
	"topics, partitions, positions) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
static const char seek_select_sql[] =
	"SELECT id, kind, \"time\", topic, partition, \"offset\", rebuild, accept, topics, partitions, positions, target_topics, target_partitions, "
	"targets FROM streamext_internal.seek_request "
	"WHERE stream OPERATOR(pg_catalog.=) $1 AND shard OPERATOR(pg_catalog.=) $2 AND id OPERATOR(pg_catalog.>) $3 "
	"AND source OPERATOR(pg_catalog.=) $4 ORDER BY id";
static const char seek_resolve_sql[] =
	"UPDATE streamext_internal.seek_request SET target_topics = $2, target_partitions = $3, targets = $4 WHERE id OPERATOR(pg_catalog.=) $1";
static const char seek_delete_sql[] =
	"DELETE FROM streamext_internal.seek_request AS r WHERE r.stream OPERATOR(pg_catalog.=) $1 AND r.shard OPERATOR(pg_catalog.=) $2 "
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

void
streamext_seek_make_positions(SeekPositions *positions, int n)
{
	positions->n = n;
	positions->topics = palloc(sizeof(Datum) * Max(n, 1));
	positions->numbers = palloc(sizeof(Datum) * Max(n, 1));
	positions->positions = palloc(sizeof(Datum) * Max(n, 1));
}

int64
streamext_seek_position(const SeekPositions *positions, const char *topic, int32 partition)
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

List *
streamext_seek_requests_load(Oid stream, int shard, int64 after, uint64 source, int64 settled, MemoryContext cxt)
{
	IdentityScope own;
	Oid			  types[4] = { OIDOID, INT4OID, INT8OID, INT8OID };
	Datum		  values[4] = { ObjectIdGetDatum(stream), Int32GetDatum(shard), Int64GetDatum(after),
								Int64GetDatum((int64) source) };
	List		 *requests = NIL;

	if (!OidIsValid(streamext_control_table("seek_request")))
		return NIL;
	own = streamext_own_begin();
	if (SPI_execute_with_args(streamext_own_sql(seek_select_sql), 4, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext_internal.seek_request");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);

		requests = lappend(requests, seek_from_row(SPI_tuptable->vals[i], SPI_tuptable->tupdesc));
		MemoryContextSwitchTo(old);
	}
	values[2] = Int64GetDatum(settled);
	if (SPI_execute_with_args(streamext_own_sql(seek_delete_sql), 4, types, values, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not tidy streamext_internal.seek_request");
	streamext_own_end(own);
	return requests;
}

void
streamext_seek_request_resolve(int64 id, const SeekPositions *targets)
{
	Oid	  types[4] = { INT8OID, TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID };
	Datum values[4] = { Int64GetDatum(id) };

	seek_put_positions(&values[1], targets);
	(void) streamext_control_execute(seek_resolve_sql, 4, types, values, NULL, SPI_OK_UPDATE);
}

void
streamext_seek_request_insert(Oid stream, int shard, uint64 source, const SeekRequest *request)
{
	static Oid types[13] = { OIDOID,  INT4OID, INT8OID, INT4OID,	  TIMESTAMPTZOID, TEXTOID,	   INT4OID,
							 INT8OID, BOOLOID, BOOLOID, TEXTARRAYOID, INT4ARRAYOID,	  INT8ARRAYOID };
	Datum	   values[13] = { ObjectIdGetDatum(stream), Int32GetDatum(shard), Int64GetDatum((int64) source),
							  Int32GetDatum(request->kind), TimestampTzGetDatum(request->time) };
	char	   nulls[14] = "             ";

	values[5] = request->topic == NULL ? (Datum) 0 : CStringGetTextDatum(request->topic);
	nulls[5] = request->topic == NULL ? 'n' : ' ';
	values[6] = Int32GetDatum(request->partition);
	values[7] = Int64GetDatum(request->offset);
	values[8] = BoolGetDatum(request->rebuild);
	values[9] = BoolGetDatum(request->accept);
	seek_put_positions(&values[10], &request->former);
	(void) streamext_control_execute(seek_insert_sql, 13, types, values, nulls, SPI_OK_INSERT);
}
