/*
 * durable/flow_position.c
 *		How far closed windows have gone into the streams of the views over them. What the functions promise is in durable/flow_position.h.
 */
#include "base/streamext.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/own_table.h"
#include "durable/flow_position.h"
#include "view/inner.h"

FlowPosition
streamext_flow_load(Oid outer)
{
	IdentityScope own;
	Oid			  types[] = { OIDOID };
	Datum		  args[] = { ObjectIdGetDatum(outer) };
	FlowPosition  position = { .written = DT_NOBEGIN };

	own = streamext_own_begin();
	if (SPI_execute_with_args(
			streamext_own_sql("SELECT number, inner_number, begins, written_until FROM streamext_internal.flow "
							  "WHERE view OPERATOR(pg_catalog.=) $1"),
			1, types, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext_internal.flow");
	if (SPI_processed > 0)
	{
		HeapTuple tuple = SPI_tuptable->vals[0];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool	  isnull;

		position.number = (uint64) DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
		position.inner = (uint64) DatumGetInt64(SPI_getbinval(tuple, desc, 2, &isnull));
		position.begins = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		position.written = DatumGetTimestampTz(SPI_getbinval(tuple, desc, 4, &isnull));
	}
	streamext_own_end(own);
	return position;
}

void
streamext_flow_begin(Oid outer, uint64 number, uint64 inner, int64 begins, bool keep)
{
	Oid	  types[] = { OIDOID, INT8OID, INT8OID, INT8OID, BOOLOID };
	Datum args[] = { ObjectIdGetDatum(outer), Int64GetDatum((int64) number), Int64GetDatum((int64) inner),
					 Int64GetDatum(begins), BoolGetDatum(keep) };

	(void) streamext_control_execute(
		"INSERT INTO streamext_internal.flow AS f (view, number, inner_number, begins, written_until) "
		"VALUES ($1, $2, $3, $4, '-infinity') ON CONFLICT (view) DO UPDATE SET number = EXCLUDED.number, "
		"inner_number = EXCLUDED.inner_number, begins = EXCLUDED.begins, "
		"written_until = CASE WHEN $5 THEN f.written_until ELSE EXCLUDED.written_until END",
		5, types, args, NULL, SPI_OK_INSERT);
}

static void
flow_forget(Oid outer)
{
	Oid	  types[] = { OIDOID };
	Datum args[] = { ObjectIdGetDatum(outer) };

	(void) streamext_control_execute("DELETE FROM streamext_internal.flow WHERE view OPERATOR(pg_catalog.=) $1", 1,
									 types, args, NULL, SPI_OK_DELETE);
}

/* The lock stays until the end: what the view becomes again after that makes a row of its own. One that is being altered is met next time. */
void
streamext_flow_forget_former(void)
{
	ListCell *lc;

	if (!OidIsValid(streamext_control_table("flow"))) /* the database has an older version */
		return;
	foreach (lc, streamext_control_oids("SELECT view FROM streamext_internal.flow"))
	{
		Oid outer = lfirst_oid(lc);

		if (ConditionalLockRelationOid(outer, AccessShareLock) && !OidIsValid(streamext_view_inner(outer)))
			flow_forget(outer);
	}
}

void
streamext_flow_save(Oid outer, uint64 number, TimestampTz from, TimestampTz until)
{
	Oid	  types[] = { OIDOID, INT8OID, TIMESTAMPTZOID, TIMESTAMPTZOID };
	Datum args[] = { ObjectIdGetDatum(outer), Int64GetDatum((int64) number), TimestampTzGetDatum(from),
					 TimestampTzGetDatum(until) };

	if (streamext_control_execute(
			"UPDATE streamext_internal.flow SET written_until = $4 WHERE view OPERATOR(pg_catalog.=) $1 "
			"AND number OPERATOR(pg_catalog.=) $2 AND written_until OPERATOR(pg_catalog.<=) $3",
			4, types, args, NULL, SPI_OK_UPDATE) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("windows of continuous view \"%s\" are taken from another place on", get_rel_name(outer))));
}
