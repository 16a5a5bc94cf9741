/*
 * sink/ledger.c
 *		What is kept by view of alerts and emitted changes. What the functions promise is in sink/ledger.h.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "base/own_table.h"
#include "sink/ledger.h"

static const char *const ledger_names[] = { [LEDGER_ALERTS] = "alert_view", [LEDGER_EMITTED] = "emitted_view" };

/* Emptied of other views; each ends with NULL. */
static const char *const ledger_others[][4] = {
	[LEDGER_ALERTS] = { "alert_state WHERE view <> ALL ($1)", "alert_view WHERE view <> ALL ($1)",
						"alert_event WHERE view <> ALL ($1) AND NOT EXISTS (SELECT 1 FROM pg_class WHERE oid = view)" },
	[LEDGER_EMITTED] = { "emitted WHERE view <> ALL ($1)", "emitted_view WHERE view <> ALL ($1)" }
};

void
streamext_ledger_note_error(LedgerTable table, Oid view, const char *message)
{
	Oid	  types[] = { OIDOID, TEXTOID };
	Datum values[] = { ObjectIdGetDatum(view), message == NULL ? (Datum) 0 : CStringGetTextDatum(message) };

	if (message != NULL)
		(void) streamext_control_execute(
			psprintf(
				"INSERT INTO streamext_internal.%s (view, last_error, last_error_at) VALUES ($1, $2, clock_timestamp())"
				" ON CONFLICT (view) DO UPDATE SET last_error = excluded.last_error, last_error_at = excluded.last_error_at",
				ledger_names[table]),
			2, types, values, NULL, SPI_OK_INSERT);
	else
		(void) streamext_control_execute(
			psprintf(
				"UPDATE streamext_internal.%s SET last_error = NULL, last_error_at = NULL WHERE view = $1 AND last_error IS NOT NULL",
				ledger_names[table]),
			1, types, values, NULL, SPI_OK_UPDATE);
}

void
streamext_ledger_forget_others(LedgerTable table, List *views)
{
	Oid		  types[] = { OIDARRAYOID };
	Datum	 *oids = palloc(sizeof(Datum) * (list_length(views) + 1));
	Datum	  values[1];
	ListCell *lc;

	foreach (lc, views)
		oids[foreach_current_index(lc)] = ObjectIdGetDatum(lfirst_oid(lc));
	values[0] = PointerGetDatum(construct_array(oids, list_length(views), OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	for (int i = 0; ledger_others[table][i] != NULL; i++)
		(void) streamext_control_execute(psprintf("DELETE FROM streamext_internal.%s", ledger_others[table][i]), 1,
										 types, values, NULL, SPI_OK_DELETE);
}
