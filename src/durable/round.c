/*
 * durable/round.c
 *		How often views have been begun anew by streamext.rebuild.
 */
#include "base/streamext.h"

#include "catalog/pg_type_d.h"
#include "executor/spi.h"

#include "base/own_table.h"
#include "durable/round.h"

static const char round_read_sql[] = "SELECT number FROM streamext.round WHERE view OPERATOR(pg_catalog.=) $1";

int64
streamext_view_round(Oid viewoid)
{
	Oid	  types[1] = { OIDOID };
	Datum values[1] = { ObjectIdGetDatum(viewoid) };

	return OidIsValid(streamext_control_table("round"))
			   ? streamext_control_execute(round_read_sql, 1, types, values, NULL, SPI_OK_SELECT)
			   : 0;
}
