/*
 * worker/launcher_database.c
 *		The databases that the launcher starts processes for, how it starts one, and what dropped ones have left.
 */
#include "base/streamext.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/snapmgr.h"

#include "source/journal/journal.h"
#include "worker/launcher_private.h"

List *
streamext_launcher_databases(void)
{
	MemoryContext cxt = CurrentMemoryContext;
	List		 *databases = NIL;
	Relation	  rel;
	TableScanDesc scan;
	HeapTuple	  tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		Form_pg_database  form = (Form_pg_database) GETSTRUCT(tuple);
		MemoryContext	  old = MemoryContextSwitchTo(cxt);
		LauncherDatabase *database = palloc(sizeof(LauncherDatabase));

		database->dboid = form->oid;
		/* -2: what an interrupted DROP DATABASE left */
		database->connectable = form->datallowconn && form->datconnlimit != -2;
		database->istemplate = form->datistemplate;
		databases = lappend(databases, database);
		MemoryContextSwitchTo(old);
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(cxt);
	return databases;
}

LauncherDatabase *
streamext_launcher_find(List *databases, Oid dboid)
{
	ListCell *lc;

	foreach (lc, databases)
		if (((LauncherDatabase *) lfirst(lc))->dboid == dboid)
			return lfirst(lc);
	return NULL;
}

void
streamext_launcher_remove_orphans(void)
{
	DIR			  *dir = AllocateDir("streamext");
	List		  *found = NIL;
	List		  *databases;
	struct dirent *entry;
	ListCell	  *lc;

	if (dir == NULL)
		return; /* no stream has ever had one */
	while ((entry = ReadDirExtended(dir, "streamext", LOG)) != NULL)
	{
		char *end;
		Oid	  dboid = (Oid) strtoul(entry->d_name, &end, 10);

		if (*end == '\0' && OidIsValid(dboid))
			found = lappend_oid(found, dboid);
	}
	FreeDir(dir);
	/* read after the directory: what is there by then and not here is gone */
	databases = streamext_launcher_databases();
	foreach (lc, found)
		if (streamext_launcher_find(databases, lfirst_oid(lc)) == NULL)
			streamext_journal_remove_database(lfirst_oid(lc));
}
