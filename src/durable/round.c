/*
 * durable/round.c
 *		How often views have been begun anew.
 */
#include "base/streamext.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"

#include "base/own_table.h"
#include "durable/round.h"

static const char round_read_sql[] = "SELECT number FROM streamext_internal.round WHERE view OPERATOR(pg_catalog.=) $1";

static const char round_tidy_sql[] = "DELETE FROM streamext_internal.round AS r WHERE NOT EXISTS "
									 "(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) r.view)";
static const char round_next_sql[] = "INSERT INTO streamext_internal.round AS r (view, number) VALUES ($1, 1) "
									 "ON CONFLICT (view) DO UPDATE SET number = r.number OPERATOR(pg_catalog.+) 1";

int64
streamext_view_round(Oid viewoid)
{
	Oid	  types[1] = { OIDOID };
	Datum values[1] = { ObjectIdGetDatum(viewoid) };

	return OidIsValid(streamext_control_table("round"))
			   ? streamext_control_execute(round_read_sql, 1, types, values, NULL, SPI_OK_SELECT)
			   : 0;
}

int64
streamext_view_new_round(Oid viewoid)
{
	Oid	  types[1] = { OIDOID };
	Datum values[1] = { ObjectIdGetDatum(viewoid) };

	(void) streamext_control_execute(round_tidy_sql, 0, NULL, NULL, NULL, SPI_OK_DELETE);
	(void) streamext_control_execute(round_next_sql, 1, types, values, NULL, SPI_OK_INSERT);
	return streamext_view_round(viewoid);
}
