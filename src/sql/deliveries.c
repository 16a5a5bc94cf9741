/*
 * sql/deliveries.c
 *		streamext.retry_deliveries: rows that another system has not taken are sent once more.
 */
#include "base/streamext.h"

#include "sink/outbox.h"
#include "sql/control.h"
#include "stream/definition.h"

PG_FUNCTION_INFO_V1(streamext_retry_deliveries);

Datum
streamext_retry_deliveries(PG_FUNCTION_ARGS)
{
	Oid	  target = PG_GETARG_OID(0);
	char *name = streamext_control_stream(target, true);

	if (!streamext_stream_kind(target)->published)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("rows of \"%s\" are not sent anywhere", name)));
	PG_RETURN_INT64(streamext_outbox_retry(target));
}
