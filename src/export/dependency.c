/*
 * export/dependency.c
 *		What an exported view needs and what goes with it, in pg_depend; and its row in streamext.exported, which goes with it too.
 *
 * The table of merged partials depends on the view as a sequence does on its column: DROP VIEW takes it along, what others have over it
 * refuses that without CASCADE. The view's rule depends on all that its query as a continuous view names (stream, columns, functions,
 * types), as that view's rule did; whoever replaces the rule takes these away, so import() has nothing to undo.
 *
 * A dump has neither. A restored table's is noted as its row comes (a trigger), the rest as the dump makes the view of its dummy, and what is
 * not there then, as after pg_upgrade or where the owner's rights came later, by export_begin.
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
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "rewrite/rewriteSupport.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/own_table.h"
#include "base/transaction.h"
#include "export/plan.h"

PG_FUNCTION_INFO_V1(streamext_export_restored);

/* The relations that an object depends on in this way. */
static List *
dependency_relations(Oid classid, Oid objid, char type)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *found = NIL;

	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(classid));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(objid));
	scan = systable_beginscan(depend, DependDependerIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend entry = (Form_pg_depend) GETSTRUCT(tuple);

		if (entry->refclassid == RelationRelationId && entry->deptype == type)
			found = list_append_unique_oid(found, entry->refobjid);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return found;
}

static void
dependency_of_table(Oid viewoid, Oid partials)
{
	ObjectAddress view, table;

	if (get_rel_relkind(viewoid) != RELKIND_VIEW || get_rel_relkind(partials) != RELKIND_RELATION ||
		list_member_oid(dependency_relations(RelationRelationId, partials, DEPENDENCY_AUTO), viewoid))
		return;
	ObjectAddressSet(view, RelationRelationId, viewoid);
	ObjectAddressSet(table, RelationRelationId, partials);
	recordDependencyOn(&table, &view, DEPENDENCY_AUTO);
}

static Oid
dependency_rule(Oid viewoid)
{
	return get_rewrite_oid(viewoid, ViewSelectRuleName, false);
}

static void
dependency_of_rule(Oid viewoid)
{
	ObjectAddress rule;

	ObjectAddressSet(rule, RewriteRelationId, dependency_rule(viewoid));
	recordDependencyOnExpr(&rule, (Node *) streamext_export_former_query(viewoid), NIL, DEPENDENCY_NORMAL);
}

void
streamext_export_depend(Oid viewoid)
{
	dependency_of_table(viewoid, streamext_export_partials(viewoid));
	dependency_of_rule(viewoid);
	CommandCounterIncrement();
}

void
streamext_export_renew(const CompiledView *view)
{
	Oid	  partials = streamext_export_partials(view->relid);
	List *needed = dependency_relations(RewriteRelationId, dependency_rule(view->relid), DEPENDENCY_NORMAL);

	dependency_of_table(view->relid, partials);
	/* a rule depends on its own view, too */
	if (list_delete_oid(list_delete_oid(needed, view->relid), partials) == NIL)
		dependency_of_rule(view->relid);
	CommandCounterIncrement();
}

static void
dependency_step(void *viewoid)
{
	streamext_export_depend(*(Oid *) viewoid);
}

void
streamext_export_replaced(Oid viewoid)
{
	ErrorData *error;

	/* not yet known while export() itself replaces it */
	if (!OidIsValid(viewoid) || !OidIsValid(streamext_control_table("exported")) ||
		!OidIsValid(streamext_export_partials(viewoid)))
		return;
	error = streamext_try(dependency_step, &viewoid);
	if (error != NULL && streamext_error_blame(error) == BLAME_GENERAL)
		ReThrowError(error);
}

void
streamext_export_owner_changed(Oid relid)
{
	Oid partials;

	if (!OidIsValid(relid) || get_rel_relkind(relid) != RELKIND_VIEW ||
		!OidIsValid(streamext_control_table("exported")))
		return;
	CommandCounterIncrement();
	partials = streamext_export_partials(relid);
	if (get_rel_relkind(partials) == RELKIND_RELATION)
		ATExecChangeOwner(partials, streamext_export_owner(relid), false, AccessExclusiveLock);
}

/* From the object access hook. Merges lock the view before the row, so who has it to himself finds the row free. */
void
streamext_export_dropped(Oid relid)
{
	Oid	  types[] = { OIDOID };
	Datum values[] = { ObjectIdGetDatum(relid) };

	if (get_rel_relkind(relid) != RELKIND_VIEW || get_rel_persistence(relid) == RELPERSISTENCE_TEMP ||
		!OidIsValid(streamext_control_table("exported")))
		return;
	(void) streamext_control_execute("DELETE FROM streamext.exported WHERE view OPERATOR(pg_catalog.=) $1",
									 lengthof(types), types, values, NULL, SPI_OK_DELETE);
}

/* A row of streamext.exported that is made with its table is one that a dump brings. */
Datum
streamext_export_restored(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	 desc;
	bool		 no_view, no_table;
	Datum		 view, table;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) || trigger->tg_relation->rd_id != streamext_control_table("exported"))
		ereport(ERROR, (errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
						errmsg("not called by the trigger of streamext.exported")));
	desc = RelationGetDescr(trigger->tg_relation);
	view = heap_getattr(trigger->tg_trigtuple, SPI_fnumber(desc, "view"), desc, &no_view);
	table = heap_getattr(trigger->tg_trigtuple, SPI_fnumber(desc, "partials"), desc, &no_table);
	if (!no_view && !no_table)
		dependency_of_table(DatumGetObjectId(view), DatumGetObjectId(table));
	PG_RETURN_POINTER(NULL);
}
