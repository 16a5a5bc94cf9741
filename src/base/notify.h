/*
 * base/notify.h
 *		To clients that LISTEN to a view's channel.
 */
#ifndef STREAMEXT_NOTIFY_H
#define STREAMEXT_NOTIFY_H

#include "base/streamext.h"

/* When the transaction commits. The channel is the view's name with its schema, cut as LISTEN cuts it. */
extern void streamext_into_notify(Oid viewoid, const char *payload);

#endif /* STREAMEXT_NOTIFY_H */
