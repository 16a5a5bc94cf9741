/*
 * sql/stream_doubts.c
 *		What a new stream is told by CREATE FOREIGN TABLE: that it is valid and cannot work, or not as meant. No source is asked;
 *		streamext.check does that.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "miscadmin.h"
#include "nodes/primnodes.h"
#include "optimizer/optimizer.h"
#include "pgstat.h"
#include "utils/backend_status.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

#include "decode/format.h"
#include "shared/shmem.h"
#include "sql/ddl.h"
#include "stream/definition.h"

/* ---- columns ---- */

static void
doubt_no_columns(const StreamConfig *config)
{
	for (int i = 0; i < config->desc->natts; i++)
		if (!config->columns[i].dropped)
			return;
	ereport(NOTICE, (errmsg("stream \"%s\" has no columns", config->name),
					 errdetail("It counts records and shows nothing of them."),
					 errhint("Declare columns, or let IMPORT FOREIGN SCHEMA guess them.")));
}

/* Where the payload is one column's, it is the value of each that does not say where else its value is. */
static void
doubt_payload(const StreamConfig *config)
{
	int payloads = 0;

	for (int i = 0; i < config->desc->natts; i++)
		payloads += !config->columns[i].dropped && config->columns[i].metadata == METADATA_NONE;
	if (config->format->one_column && payloads > 1)
		ereport(NOTICE, (errmsg("stream \"%s\" has several columns for a payload of format %s", config->name,
								config->format->name),
						 errhint("All columns but one should have the option metadata.")));
}

void
streamext_ddl_doubt_columns(Oid relid)
{
	StreamConfig *config = streamext_ddl_is_stream(relid) ? streamext_stream_config(relid) : NULL;

	if (config != NULL)
		doubt_payload(config);
}

/* Whether the column is of type serial. */
static bool
doubt_is_serial(const StreamConfig *config, const StreamColumn *column)
{
	const TupleConstr *constr = config->desc->constr;

	for (int i = 0; constr != NULL && i < constr->num_defval; i++)
	{
		Node *node;

		if (constr->defval[i].adnum != column->attnum)
			continue;
		node = stringToNode(constr->defval[i].adbin);
		/* smallserial and serial are casts of it */
		while (IsA(node, FuncExpr) && castNode(FuncExpr, node)->funcid != F_NEXTVAL &&
			   list_length(castNode(FuncExpr, node)->args) == 1)
			node = linitial(castNode(FuncExpr, node)->args);
		return IsA(node, FuncExpr) && castNode(FuncExpr, node)->funcid == F_NEXTVAL;
	}
	return false;
}

/* A default is for INSERT: of what a source sends the column is NULL, and NOT NULL rejects that. */
static void
doubt_serial(const StreamConfig *config, const StreamColumn *column)
{
	if (column->dropped || column->metadata != METADATA_NONE || !column->notnull ||
		!(TupleDescAttr(config->desc, column->attnum - 1)->attidentity != '\0' || doubt_is_serial(config, column)))
		return;
	ereport(NOTICE,
			(errmsg("records without \"%s\" will be rejected by stream \"%s\"", column->name, config->name),
			 errdetail("No number is drawn for records of a source, and a serial or identity column is NOT NULL."),
			 errhint("Drop the column, or take the record's position: bigint OPTIONS (metadata 'offset').")));
}

/* PostgreSQL leaves constraints of foreign tables to the other side, which here is none. */
static void
doubt_checks(const StreamConfig *config)
{
	const TupleConstr *constr = config->desc->constr;

	if (constr == NULL || constr->num_check == 0)
		return;
	ereport(NOTICE,
			(errmsg("stream \"%s\" does not check its constraint \"%s\"", config->name, constr->check[0].ccname),
			 errdetail("Of constraints streams enforce NOT NULL, by rejecting records."),
			 errhint("A domain with the constraint as the column's type rejects records that break it; WHERE of a "
					 "view leaves them out.")));
}

void
streamext_ddl_doubt_checks(Oid relid)
{
	StreamConfig *config = streamext_ddl_is_stream(relid) ? streamext_stream_config(relid) : NULL;

	if (config != NULL)
		doubt_checks(config);
}

void
streamext_ddl_doubt_trigger(Oid relid)
{
	const ConnectorOps *kind = get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE ? streamext_stream_kind(relid) : NULL;

	if (kind == NULL || !kind->payloads)
		return;
	ereport(NOTICE, (errmsg("the trigger does not fire for records that stream \"%s\" reads", get_rel_name(relid)),
					 errdetail("They are not inserted by a statement."),
					 errhint("To act on what comes: streamext.into writes into a table, whose triggers fire; or "
							 "streamext.notify, or an alert.")));
}

/* ---- workers ---- */

/* Process numbers of the background workers at work, of this extension and of others. */
static List *
doubt_running(void)
{
	List *running = NIL;

	pgstat_clear_backend_activity_snapshot(); /* neither an old one, nor one that the transaction goes on with */
	for (int i = 1; i <= pgstat_fetch_stat_numbackends(); i++)
	{
#if PG_VERSION_NUM >= 160000
		const LocalPgBackendStatus *entry = pgstat_get_local_beentry_by_index(i);
#else
		const LocalPgBackendStatus *entry = pgstat_fetch_stat_local_beentry(i);
#endif

		if (entry != NULL && entry->backendStatus.st_backendType == B_BG_WORKER)
			running = lappend_int(running, entry->backendStatus.st_procpid);
	}
	pgstat_clear_backend_activity_snapshot();
	return running;
}

/* Shards of streams whose worker is not at work: they have none yet, or it is starting. */
static int
doubt_waiting(const List *running)
{
	int n = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
		n += streamext_shared->streams[i].id.in_use &&
			 !list_member_int(running, streamext_shared->streams[i].worker.pid);
	LWLockRelease(streamext_shared->registry_lock);
	return n;
}

static void
doubt_workers(const StreamConfig *config)
{
	List *running;
	int	  taken;

	if (streamext_shared == NULL)
		return;
	running = doubt_running();
	taken = list_length(running) + doubt_waiting(running);
	if (taken + config->workers <= max_worker_processes)
		return;
	ereport(
		NOTICE,
		(errmsg("there may be no worker for stream \"%s\"", config->name),
		 errdetail("It needs %d of max_worker_processes, %d of %d are taken.", config->workers, taken,
				   max_worker_processes),
		 errhint(
			 "Raise max_worker_processes and restart the server; until one is free the stream's state is waiting.")));
}

void
streamext_ddl_doubt(Oid relid)
{
	StreamConfig *config = streamext_ddl_is_stream(relid) ? streamext_stream_config(relid) : NULL;

	if (config == NULL)
		return;
	doubt_no_columns(config);
	doubt_payload(config);
	doubt_checks(config);
	if (config->connector->payloads)
		for (int i = 0; i < config->desc->natts; i++)
			doubt_serial(config, &config->columns[i]);
	if (config->connector->doubt != NULL)
		config->connector->doubt(config);
	doubt_workers(config);
}
