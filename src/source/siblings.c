/*
 * source/siblings.c
 *		The streams of a server, by name. What the functions promise is in source/siblings.h.
 */
#include "base/streamext.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_foreign_server.h"
#include "common/hashfn.h"
#include "catalog/pg_foreign_table.h"
#include "foreign/foreign.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"

#include "source/siblings.h"

List *
streamext_sibling_tables(Oid serverid)
{
	Relation	rel = table_open(ForeignTableRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	List	   *relids = NIL;
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_table form = (Form_pg_foreign_table) GETSTRUCT(tuple);

		if (form->ftserver == serverid)
			relids = lappend_oid(relids, form->ftrelid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	list_sort(relids, list_oid_cmp);
	return relids;
}

char *
streamext_sibling_named(const StreamConfig *config, const char *wanted, SiblingName name)
{
	ListCell *lc;

	/* of those who want the name: who wants another one does not wait for the end of somebody's transaction */
	LockDatabaseObject(ForeignServerRelationId, config->serverid,
					   1 + string_hash(wanted, strlen(wanted) + 1) % PG_UINT16_MAX, ShareUpdateExclusiveLock);
	foreach (lc, streamext_sibling_tables(config->serverid))
	{
		Oid	  relid = lfirst_oid(lc);
		char *table = relid != config->relid ? get_rel_name(relid) : NULL;
		char *schema = get_namespace_name(get_rel_namespace(relid));
		char *its = table != NULL && schema != NULL ? name(GetForeignTable(relid)->options, schema, table) : NULL;

		if (its != NULL && strcmp(its, wanted) == 0)
			return psprintf("%s.%s", schema, table);
	}
	return NULL;
}
