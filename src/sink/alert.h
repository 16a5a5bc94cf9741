/*
 * sink/alert.h
 *		Alerts: views whose rows, once they have been there for a while, are events (streamext.alert).
 */
#ifndef STREAMEXT_ALERT_H
#define STREAMEXT_ALERT_H

#include "base/streamext.h"

#define STREAMEXT_ALERT_EVERY INT64CONST(1000000) /* us, when an alert does not say */

/* Raises for options that do not go together or with the view. In a transaction, as who creates or alters it. */
extern void streamext_alert_check(Oid view);

/* The foreign table that streamext.to names; InvalidOid: it is a channel. */
extern Oid streamext_alert_target(const char *to);

/*
 * One evaluation, as of the clock: what is pending and firing, the events, and who is told of them, in the current transaction. As its
 * owner the view is read, as the extension the tables are written. Raises what reading the view does.
 */
extern void streamext_alert_evaluate(Oid view, TimestampTz now);

#endif /* STREAMEXT_ALERT_H */
