/*
 * view/target.c
 *		streamext.into: the target table and the INSERT.
 *
 * The option keeps the target's qualified name; a dependency keeps it from being dropped and makes pg_dump put it first.
 * PostgreSQL's own INSERT does the rest: assignment casts, defaults, generated columns, constraints, triggers, partitions.
 */
#include "base/streamext.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"
#include "utils/regproc.h"
#include "utils/rel.h"

#include "base/own_table.h"
#include "base/relation.h"
#include "stream/definition.h"
#include "view/target.h"
#include "view/check.h"
#include "view/rights.h"

#define INTO_ROWS "streamext_rows"

/* ---------------------------------------------------------------- the target */

Oid
streamext_into_target(const char *name)
{
	List *names = compat_name_list(name);
	Oid	  relid = RangeVarGetRelid(makeRangeVarFromNameList(names), AccessShareLock, false);
	char  relkind = get_rel_relkind(relid);

	if (relkind == RELKIND_FOREIGN_TABLE)
	{
		const ConnectorOps *connector = streamext_stream_kind(relid);

		if (connector != NULL && (connector->sink || connector->writable))
			return relid;
	}
	if ((relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE) ||
		get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("view option \"streamext.into\" must name an ordinary table, or a stream that takes rows"),
				 errdetail("\"%s\" is neither, or a temporary table.", get_rel_name(relid)),
				 errhint("Streams of the wrappers %s take rows.", streamext_connector_writable())));
	return relid;
}

char *
streamext_into_resolve(const char *name)
{
	Oid relid = streamext_into_target(name);

	return streamext_relation_name(relid);
}

void
streamext_into_depend(Oid viewoid, Oid target)
{
	ObjectAddress view;
	ObjectAddress table;

	(void) deleteDependencyRecordsForClass(RelationRelationId, viewoid, RelationRelationId, DEPENDENCY_NORMAL);
	if (!OidIsValid(target))
		return;
	ObjectAddressSet(view, RelationRelationId, viewoid);
	ObjectAddressSet(table, RelationRelationId, target);
	recordDependencyOn(&view, &table, DEPENDENCY_NORMAL);
}

Oid
streamext_into_depended(Oid viewoid)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			target = InvalidOid;

	ScanKeyInit(&keys[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(viewoid));
	scan = systable_beginscan(depend, DependDependerIndexId, true, NULL, 2, keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);

		if (form->refclassid == RelationRelationId && form->deptype == DEPENDENCY_NORMAL &&
			get_rel_relkind(form->refobjid) != RELKIND_VIEW)
			target = form->refobjid;
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return target;
}

/* ---------------------------------------------------------------- the INSERT */

static char *
into_statement(Oid target, TupleDesc desc)
{
	StringInfoData sql;
	StringInfoData columns;

	initStringInfo(&columns);
	for (int i = 0; i < desc->natts; i++)
		appendStringInfo(&columns, "%s%s", i == 0 ? "" : ", ",
						 quote_identifier(NameStr(TupleDescAttr(desc, i)->attname)));
	initStringInfo(&sql);
	appendStringInfo(&sql, "INSERT INTO %s (%s) SELECT %s FROM " INTO_ROWS, streamext_relation_name(target),
					 columns.data, columns.data);
	return sql.data;
}

/* Puts the query in the place of the relation that the statement was analysed with. */
static void
into_replace_rows(Query *insert, Query *rows)
{
	ListCell *lc;

	foreach (lc, insert->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		RangeTblEntry *source;
		RangeTblEntry *subquery;

		if (rte->rtekind != RTE_SUBQUERY)
			continue;
		source = linitial_node(RangeTblEntry, rte->subquery->rtable);
		Assert(source->rtekind == RTE_NAMEDTUPLESTORE);
		subquery = makeNode(RangeTblEntry);
		subquery->rtekind = RTE_SUBQUERY;
		subquery->subquery = rows;
		subquery->eref = source->eref;
		subquery->inFromCl = true;
		linitial(rte->subquery->rtable) = subquery;
		return;
	}
	elog(ERROR, "no subquery in an INSERT");
}

Query *
streamext_into_query(Oid target, List *targetList, Query *rows)
{
	TupleDesc			   desc = ExecCleanTypeFromTL(targetList);
	char				  *sql = into_statement(target, desc);
	QueryEnvironment	  *environment = create_queryEnv();
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));
	Query				  *insert;

	relation->md.name = pstrdup(INTO_ROWS);
	relation->md.tupdesc = desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	register_ENR(environment, relation);
	insert = parse_analyze_fixedparams(linitial_node(RawStmt, pg_parse_query(sql)), sql, NULL, 0, environment);
	if (rows != NULL)
		into_replace_rows(insert, rows);
	insert->stmt_location = -1;
	insert->stmt_len = 0;
	return insert;
}

Query *
streamext_into_rewrite(Query *insert)
{
	List *queries = QueryRewrite(insert);

	if (list_length(queries) != 1 || linitial_node(Query, queries)->commandType != CMD_INSERT)
		streamext_view_refuse("streamext.into a table with rules", "Use a trigger on the table.");
	return linitial_node(Query, queries);
}

/* At commit nobody could say which row it was, and a security-restricted operation may not leave anything to be done later. */
void
streamext_into_check_at_once(void)
{
	ConstraintsSetStmt *immediate = makeNode(ConstraintsSetStmt);

	AfterTriggerSetState(immediate);
}

void
streamext_into_check(Oid target, List *targetList)
{
	Query *insert = streamext_into_query(target, targetList, NULL);

	(void) streamext_rights_check(insert, true);
	AcquireRewriteLocks(insert, true, false);
	(void) streamext_into_rewrite(insert);
}
