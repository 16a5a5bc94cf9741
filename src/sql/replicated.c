/*
 * sql/replicated.c
 *		Rows of the extension's tables that logical replication brings from another server are not taken.
 *
 * PostgreSQL publishes them with FOR ALL TABLES, as it does any table's. They are of the publisher's streams, by OIDs that mean
 * something else here. So each of these tables has a trigger of this function, ENABLE REPLICA: it runs where
 * session_replication_role is replica, and leaves alone what a session or a worker of this server writes under that setting.
 */
#include "base/streamext.h"

#include "commands/trigger.h"
#include "replication/logicalworker.h"

PG_FUNCTION_INFO_V1(streamext_refuse_replicated);

Datum
streamext_refuse_replicated(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED), errmsg("not called by a trigger")));
	if (IsLogicalWorker())
		PG_RETURN_POINTER(NULL);
	PG_RETURN_POINTER(TRIGGER_FIRED_BY_UPDATE(trigger->tg_event) ? trigger->tg_newtuple : trigger->tg_trigtuple);
}
