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
	"SELECT pg_catalog.count(*) FROM streamext_internal.paused WHERE relation OPERATOR(pg_catalog.=) $1";
static const char pause_tidy_sql[] =
	"DELETE FROM streamext_internal.paused AS p WHERE NOT EXISTS "
	"(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) p.relation)";
static const char pause_list_sql[] = "SELECT relation FROM streamext_internal.paused";

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
	List *relids;

	if (!OidIsValid(streamext_control_table("paused")))
		return NIL;
	relids = streamext_control_oids(pause_list_sql);
	/* a relation made later may get the number of a dropped one */
	if (relids != NIL)
		(void) streamext_control_execute(pause_tidy_sql, 0, NULL, NULL, NULL, SPI_OK_DELETE);
	return relids;
}

void
streamext_pause_settle(StreamSlot *slot, uint32 seen)
{
	bool listed = streamext_is_paused(slot->id.relid);

	STREAMEXT_FAULT("pause-read");
	(void) pg_atomic_compare_exchange_u32(&slot->ask.pause, &seen, streamext_pause_next(seen, listed));
}
