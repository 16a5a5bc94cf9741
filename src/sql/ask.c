/*
 * sql/ask.c
 *		A server's source asked by a session: streamext.peek of a topic that no stream reads yet.
 */
#include "base/streamext.h"

#include "catalog/pg_foreign_server.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/option.h"
#include "sql/ask.h"
#include "sql/newest.h"
#include "stream/definition.h"

PG_FUNCTION_INFO_V1(streamext_get_sample);

#define ASK_MAX_WAIT (INT64CONST(10) * USECS_PER_MINUTE)

static void
ask_check_rights(Oid serverid, const char *name)
{
	AclResult allowed;

	allowed = object_aclcheck(ForeignServerRelationId, serverid, GetUserId(), ACL_USAGE);
	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_FOREIGN_SERVER, name);
}

static void
ask_check_kind(Oid serverid, const char *name)
{
	const ConnectorOps *kind = streamext_server_kind(serverid);

	if (kind != NULL && kind->sample == NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("server \"%s\" of wrapper %s cannot be asked for records", name, kind->name),
						errhint("Make a stream, then streamext.peek('stream') shows what it gets.")));
}

/* The first thing that is not well. */
static void
ask_refuse(const char *name, const SourceFinding *trouble)
{
	bool topic = strcmp(trouble->what, "topic") == 0;

	ereport(ERROR, (errcode(topic ? ERRCODE_FDW_TABLE_NOT_FOUND : ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
					topic ? errmsg("%s", trouble->detail)
						  : errmsg("could not read from server \"%s\": %s", name, trouble->detail),
					trouble->hint != NULL ? errhint("%s", trouble->hint) : 0));
}

SourceSample *
streamext_ask_topic(Oid serverid, const char *topic, int n, int64 wait, StreamConfig **config)
{
	SourceSample		*sample = palloc0(sizeof(SourceSample));
	char				*name = GetForeignServer(serverid)->servername;
	const SourceFinding *trouble;

	ask_check_rights(serverid, name);
	ask_check_kind(serverid, name);
	*config = streamext_topic_config(serverid, GetUserId(),
									 list_make1(makeDefElem("topic", (Node *) makeString(pstrdup(topic)), -1)));
	sample->wanted = Min(Max(n, 0), STREAMEXT_SAMPLE_MAX);
	sample->deadline = GetCurrentTimestamp() + Min(Max(wait, 0), ASK_MAX_WAIT);
	sample->linger = INT_MAX;
	streamext_sample_run(*config, sample);
	trouble = streamext_sample_trouble(sample);
	if (trouble != NULL && sample->nrecords == 0)
		ask_refuse(name, trouble);
	return sample;
}

Datum
streamext_get_sample(PG_FUNCTION_ARGS)
{
	char		 *server = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char		 *topic = text_to_cstring(PG_GETARG_TEXT_PP(1));
	int			  n = PG_GETARG_INT32(2);
	Interval	 *wait = PG_GETARG_INTERVAL_P(3);
	StreamConfig *config;
	SourceSample *sample;

	InitMaterializedSRF(fcinfo, 0);
	if (n <= 0)
		PG_RETURN_VOID();
	sample = streamext_ask_topic(get_foreign_server_oid(server, false), topic, n,
								 wait->time + wait->day * USECS_PER_DAY, &config);
	for (int i = 0; i < sample->nrecords; i++)
	{
		const StreamRecord *record = &sample->records[i];

		streamext_newest_put((ReturnSetInfo *) fcinfo->resultinfo, record, true,
							 record->payload == NULL ? NULL
													 : cstring_to_text_with_len(record->payload, record->payload_size));
	}
	PG_RETURN_VOID();
}
