/*
 * sink/ledger.h
 *		What the teller keeps in the extension's tables of alerts and of views with streamext.emit, by the column `view`.
 *
 * All within a transaction with a snapshot.
 */
#ifndef STREAMEXT_LEDGER_H
#define STREAMEXT_LEDGER_H

#include "base/streamext.h"

typedef enum LedgerTable
{
	LEDGER_ALERTS, /* alert_view */
	LEDGER_EMITTED /* emitted_view */
} LedgerTable;

/* The view's last error, in a table with last_error and last_error_at; NULL: there is none any more. */
extern void streamext_ledger_note_error(LedgerTable table, Oid view, const char *message);

/* Nothing is kept of views but these (OIDs); of alerts' events, what is of views that exist. */
extern void streamext_ledger_forget_others(LedgerTable table, List *views);

#endif /* STREAMEXT_LEDGER_H */
