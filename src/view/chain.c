/*
 * view/chain.c
 *		Streams that views put rows into. What the functions promise is in view/chain.h.
 */
#include "base/streamext.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_rewrite.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"

#include "base/own_table.h"
#include "stream/definition.h"
#include "view/chain.h"
#include "view/compile.h"

/* The view or table that the rule is of; InvalidOid: none any more. */
static Oid
chain_rule_relation(Oid rule)
{
	Relation	rewrite = table_open(RewriteRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			relid = InvalidOid;

	ScanKeyInit(&key, Anum_pg_rewrite_oid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(rule));
	scan = systable_beginscan(rewrite, RewriteOidIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		relid = ((Form_pg_rewrite) GETSTRUCT(tuple))->ev_class;
	systable_endscan(scan);
	table_close(rewrite, AccessShareLock);
	return relid;
}

/* The relations with rules that name the stream. */
static List *
chain_dependants(Oid stream)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	List	   *result = NIL;

	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(stream));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);
		Oid			   relation = form->classid == RewriteRelationId ? chain_rule_relation(form->objid) : InvalidOid;

		if (OidIsValid(relation) && relation != stream)
			result = list_append_unique_oid(result, relation);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return result;
}

/* InvalidOid: the table has another name, or is no more. */
static Oid
chain_find_target(const char *name)
{
#if PG_VERSION_NUM >= 160000
	List *names = stringToQualifiedNameList(name, NULL);
#else
	List *names = stringToQualifiedNameList(name);
#endif

	return RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);
}

static bool
chain_reads(Oid view, Oid stream)
{
	bool reads = streamext_view_stream(view) == stream;

	UnlockRelationOid(view, AccessShareLock);
	return reads;
}

List *
streamext_chain_targets(Oid stream, bool *any)
{
	List	 *targets = NIL;
	ListCell *lc;

	*any = false;
	foreach (lc, chain_dependants(stream))
	{
		ContinuousViewOptions options = streamext_view_options(lfirst_oid(lc));
		Oid					  target;

		if (!options.continuous || options.into == NULL || !chain_reads(lfirst_oid(lc), stream))
			continue;
		*any = true;
		target = chain_find_target(options.into);
		if (get_rel_relkind(target) == RELKIND_FOREIGN_TABLE && streamext_stream_kind(target) != NULL)
			targets = list_append_unique_oid(targets, target);
	}
	return targets;
}

void
streamext_chain_check(Oid view, Oid stream, Oid target)
{
	List	 *reached = list_make1_oid(target);
	ListCell *lc;
	bool	  any;

	if (get_rel_relkind(target) != RELKIND_FOREIGN_TABLE)
		return;
	/* Else two could close a circle together, neither of which sees the other's view. */
	LockRelationOid(streamext_control_table("into_position"), ShareUpdateExclusiveLock);
	foreach (lc, reached) /* grows */
	{
		if (lfirst_oid(lc) == stream)
			ereport(
				ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("streamext.into of view \"%s\" closes a circle", get_rel_name(view)),
				 target == stream ? errdetail("The view reads stream \"%s\" itself.", get_rel_name(stream))
								  : errdetail("Rows of stream \"%s\" flow on into stream \"%s\", which the view reads.",
											  get_rel_name(target), get_rel_name(stream)),
				 errhint(
					 "Its own rows would come back to it for ever. Name a stream from which no view leads to \"%s\".",
					 get_rel_name(stream))));
		reached = list_concat_unique_oid(reached, streamext_chain_targets(lfirst_oid(lc), &any));
	}
}
