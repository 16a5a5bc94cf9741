/*
 * durable/paused.c
 *		Which streams and continuous views are paused. What the functions promise is in durable/paused.h.
 */
#include "base/streamext.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"

#include "base/fault.h"
#include "base/own_table.h"
#include "durable/paused.h"

static const char pause_count_sql[] =
	"SELECT pg_catalog.count(*) FROM streamext.paused WHERE relation OPERATOR(pg_catalog.=) $1";
static const char pause_tidy_sql[] =
	"DELETE FROM streamext.paused AS p WHERE NOT EXISTS "
	"(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) p.relation)";
static const char pause_list_sql[] = "SELECT relation FROM streamext.paused";

bool
streamext_is_paused(Oid relid)
{
	Oid	  types[1] = { OIDOID };
	Datum values[1] = { ObjectIdGetDatum(relid) };

	return OidIsValid(streamext_control_table("paused")) &&
		   streamext_control_execute(pause_count_sql, 1, types, values, NULL, SPI_OK_SELECT) > 0;
}

List *
streamext_paused_list(void)
{
	IdentityScope own;
	MemoryContext cxt = CurrentMemoryContext;
	List		 *relids = NIL;

	if (!OidIsValid(streamext_control_table("paused")))
		return NIL;
	own = streamext_own_begin();
	if (SPI_execute(pause_list_sql, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext.paused");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		bool		  isnull;

		relids = lappend_oid(relids,
							 DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
		MemoryContextSwitchTo(old);
	}
	/* a relation made later may get the number of a dropped one */
	if (SPI_processed > 0 && SPI_execute(pause_tidy_sql, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not tidy streamext.paused");
	streamext_own_end(own);
	return relids;
}

void
streamext_pause_settle(StreamSlot *slot, uint32 seen)
{
	bool listed = streamext_is_paused(slot->id.relid);

	STREAMEXT_FAULT("pause-read");
	(void) pg_atomic_compare_exchange_u32(&slot->ask.pause, &seen, streamext_pause_next(seen, listed));
}
