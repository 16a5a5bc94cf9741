/*-------------------------------------------------------------------------
 *
 * worker/probe.c
 *		The process that finds out what streams a database has: it connects, announces them, and exits.
 *
 * Their workers find the views. Taking back the database's probe mark tells the launcher that it went well. What cannot be looked at is left out: what a
 * transaction holds until another probe, which the launcher is told to start, and what raises for good. Neither may keep others' streams from being started.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_table.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/fd.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/label.h"
#include "base/transaction.h"
#include "shared/database.h"
#include "durable/history.h"
#include "source/journal/journal.h"
#include "stream/definition.h"
#include "shared/shmem.h"
#include "view/compile.h"
#include "view/inner.h"
#include "view/union.h"
#include "worker/worker.h"
#include "worker/worker_private.h"

typedef struct ProbeItem
{
	Oid dboid;
	Oid relid;
} ProbeItem;

static bool probe_held =
	false; /* something was left out for now: a transaction holds it, or there was no room for its locks */

/* As one of its owner's: a worker that finds that out may have to wait. */
static void
probe_count(const StreamConfig *config, int index)
{
	bool shared = OidIsValid(config->from.inner) || config->from.parts != NIL;

	if (shared)
		(void) streamext_stream_charge(index, superuser_arg(config->owner) ? InvalidOid : config->owner,
									   streamext_max_streams);
	(void) streamext_stream_own(index, config->owner, 0);
}

/* A StreamextStep: announces a foreign table of our wrappers, whose worker finds the views, or a view with a stream of its own. */
static void
probe_stream_step(void *arg)
{
	ProbeItem	 *item = arg;
	StreamConfig *config = streamext_stream_config(item->relid);

	for (int shard = 0; config != NULL && shard < config->workers; shard++)
	{
		int index = streamext_announce_stream(item->dboid, config->relid, shard, true);

		if (index >= 0)
			probe_count(config, index);
		else
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no slot is free for stream \"%s.%s\"", config->schema, config->name),
					 errhint("Raise streamext.max_streams (now %d) and restart the server.", streamext_max_streams)));
	}
}

/* Each may be somebody else's. */
static void
probe_look(StreamextStep step, Oid dboid, Oid relid)
{
	ProbeItem  item = { dboid, relid };
	ErrorData *error;

	if (!ConditionalLockRelationOid(relid, AccessShareLock))
	{
		probe_held = true;
		return;
	}
	error = streamext_try(step, &item);
	if (error == NULL)
		return;
	if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	if (streamext_error_blame(error) == BLAME_GENERAL)
		probe_held = true;
	else
		ereport(LOG,
				(errmsg("could not look at %s: %s", streamext_relation_label(relid), streamext_error_text(error))));
}

/* The first column, an OID, of all rows of a catalogue. */
static List *
probe_list(Oid catalog)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	List	   *oids = NIL;
	HeapTuple	tuple;
	bool		isnull;

	while ((tuple = systable_getnext(scan)) != NULL)
		oids = lappend_oid(oids, DatumGetObjectId(heap_getattr(tuple, 1, RelationGetDescr(rel), &isnull)));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return oids;
}

StaticAssertDecl(Anum_pg_foreign_table_ftrelid == 1 && Anum_pg_foreign_server_oid == 1, "what probe_list takes");

static void
probe_announce_streams(Oid dboid)
{
	ListCell *lc;

	foreach (lc, probe_list(ForeignTableRelationId))
		if (streamext_stream_kind(lfirst_oid(lc)) != NULL)
			probe_look(probe_stream_step, dboid, lfirst_oid(lc));
	streamext_wake_launcher();
}

/* And each server whose records come through a gateway. */
static void
probe_announce_gateways(Oid dboid)
{
	ListCell *lc;

	foreach (lc, probe_list(ForeignServerRelationId))
	{
		const ConnectorOps *kind = streamext_server_kind(lfirst_oid(lc));

		if (kind != NULL && kind->gateway && streamext_gateway_announce(dboid, lfirst_oid(lc), true) < 0)
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("no slot is free for the gateway of server %s", streamext_server_label(lfirst_oid(lc))),
					 errdetail("The limit is %d for all databases together.", STREAMEXT_MAX_GATEWAYS)));
	}
}

/* Views over continuous views have streams of their own. *told: somebody is to be told of a view. */
static List *
probe_find_views(bool *told)
{
	List	 *views = NIL;
	ListCell *lc;

	foreach (lc, streamext_views_with_options())
	{
		ContinuousViewOptions options = streamext_view_options(lfirst_oid(lc));

		*told = *told || options.alert || (options.continuous && (options.notify || options.emit_changes));
		if (options.continuous)
			views = lappend_oid(views, lfirst_oid(lc));
	}
	return views;
}

/* A StreamextStep. */
static void
probe_view_step(void *arg)
{
	const ProbeItem *item = arg;

	if (OidIsValid(streamext_view_inner(item->relid)) || streamext_union_streams(item->relid) != NIL)
		probe_stream_step(arg);
}

static void
probe_announce_views(Oid dboid)
{
	bool	  told = false;
	List	 *views;
	ListCell *lc;

	views = probe_find_views(&told);
	if (told)
		streamext_teller_announce(dboid);
	foreach (lc, views)
		probe_look(probe_view_step, dboid, lfirst_oid(lc));
}

/*
 * Journals of streams that were dropped, or whose creation was rolled back, while nobody could see to them. A transaction
 * that creates a stream reserves its slot before it writes a journal, so one without slot and relation is nobody's.
 */
static void
probe_remove_orphans(Oid dboid)
{
	char		   path[MAXPGPATH];
	DIR			  *dir;
	List		  *found = NIL;
	struct dirent *entry;
	ListCell	  *lc;

	snprintf(path, sizeof(path), "streamext/%u", dboid);
	dir = AllocateDir(path);
	if (dir == NULL)
		return;
	while ((entry = ReadDirExtended(dir, path, LOG)) != NULL)
	{
		char *end;
		Oid	  relid = (Oid) strtoul(entry->d_name, &end, 10);

		if (*end == '.' && OidIsValid(relid))
			found = list_append_unique_oid(found, relid);
	}
	FreeDir(dir);
	foreach (lc, found)
	{
		bool registered = false;

		for (int shard = 0; shard < STREAMEXT_MAX_SHARDS; shard++)
			registered = registered || streamext_find_stream(dboid, lfirst_oid(lc), shard) >= 0;
		if (!registered && !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(lfirst_oid(lc))))
			streamext_journal_remove(dboid, lfirst_oid(lc));
	}
}

void
streamext_probe_main(Datum arg)
{
	Oid dboid = DatumGetObjectId(arg);

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(dboid, InvalidOid, 0);
	streamext_worker_session();

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	streamext_worker_short_lock_timeout();
	if (OidIsValid(get_extension_oid("streamext", true)))
	{
		probe_announce_streams(dboid);
		probe_announce_gateways(dboid);
		probe_announce_views(dboid);
		streamext_history_forget_dropped();
	}
	probe_remove_orphans(dboid);
	PopActiveSnapshot();
	CommitTransactionCommand();

	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	if (probe_held)
		streamext_database_note_held(dboid);
	else
		streamext_database_set_probe(dboid, false);
	LWLockRelease(streamext_shared->registry_lock);
	streamext_wake_launcher();
}
