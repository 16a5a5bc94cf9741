/*
 * view/dependents.c
 *		Views whose answers come from a relation, by what pg_depend has of their rules.
 */
#include "base/streamext.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_rewrite.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "view/dependents.h"

static Oid
dependents_rule_relation(Relation rewrite, Oid ruleoid)
{
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			result = InvalidOid;

	ScanKeyInit(&key, Anum_pg_rewrite_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(ruleoid));
	scan = systable_beginscan(rewrite, RewriteOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		result = ((Form_pg_rewrite) GETSTRUCT(tuple))->ev_class;
	systable_endscan(scan);
	return result;
}

/* Adds those of one relation. */
static List *
dependents_add(Relation depend, Relation rewrite, Oid relid, List *found)
{
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend entry = (Form_pg_depend) GETSTRUCT(tuple);
		Oid			   relation;

		if (entry->classid != RewriteRelationId)
			continue;
		relation = dependents_rule_relation(rewrite, entry->objid);
		if (OidIsValid(relation) && relation != relid)
			found = list_append_unique_oid(found, relation);
	}
	systable_endscan(scan);
	return found;
}

List *
streamext_view_dependents(Oid relid)
{
	Relation depend = table_open(DependRelationId, AccessShareLock);
	Relation rewrite = table_open(RewriteRelationId, AccessShareLock);
	List	*found = dependents_add(depend, rewrite, relid, NIL);

	/* the list grows while it is walked */
	for (int i = 0; i < list_length(found); i++)
		found = dependents_add(depend, rewrite, list_nth_oid(found, i), found);
	table_close(rewrite, AccessShareLock);
	table_close(depend, AccessShareLock);
	return found;
}
