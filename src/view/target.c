/*
 * view/target.c
 *		streamext.into: the target table, the INSERT, the positions.
 *
 * The option keeps the target's qualified name; a dependency keeps it from being dropped and makes pg_dump put it first.
 * PostgreSQL's own INSERT does the rest: assignment casts, defaults, generated columns, constraints, triggers, partitions.
 */
#include "base/streamext.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/analyze.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/own_table.h"
#include "sql/control.h"
#include "stream/definition.h"
#include "view/target.h"
#include "view/check.h"
#include "view/rights.h"

#define INTO_ROWS "streamext_rows"

/* ---------------------------------------------------------------- the target */

Oid
streamext_into_target(const char *name)
{
#if PG_VERSION_NUM >= 160000
	List *names = stringToQualifiedNameList(name, NULL);
#else
	List *names = stringToQualifiedNameList(name);
#endif
	Oid	 relid = RangeVarGetRelid(makeRangeVarFromNameList(names), AccessShareLock, false);
	char relkind = get_rel_relkind(relid);

	if (relkind == RELKIND_FOREIGN_TABLE)
	{
		const ConnectorOps *connector = streamext_stream_kind(relid);

		if (connector != NULL && connector->sink)
			return relid;
	}
	if ((relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE) ||
		get_rel_persistence(relid) == RELPERSISTENCE_TEMP)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("view option \"streamext.into\" must name an ordinary table"),
						errdetail("\"%s\" is none, or a temporary one.", get_rel_name(relid))));
	return relid;
}

char *
streamext_into_resolve(const char *name)
{
	Oid relid = streamext_into_target(name);

	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
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
	appendStringInfo(&sql, "INSERT INTO %s (%s) SELECT %s FROM " INTO_ROWS,
					 quote_qualified_identifier(get_namespace_name(get_rel_namespace(target)), get_rel_name(target)),
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
		streamext_view_refuse("streamext.into a table with rules", NULL);
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

/* ---------------------------------------------------------------- positions */

List *
streamext_into_load(Oid viewoid, Oid stream)
{
	IdentityScope own;
	MemoryContext cxt = CurrentMemoryContext;
	Oid			  types[] = { OIDOID, OIDOID };
	Datum		  args[] = { ObjectIdGetDatum(viewoid), ObjectIdGetDatum(stream) };
	List		 *result = NIL;

	own = streamext_own_begin();
	/* Views that are no more leave their rows to whoever comes next. */
	if (SPI_execute("DELETE FROM streamext.into_position AS p WHERE NOT EXISTS "
					"(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) p.view)",
					false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not tidy streamext.into_position");
	if (SPI_execute_with_args("SELECT topic, partition, \"position\" FROM streamext.into_position "
							  "WHERE view OPERATOR(pg_catalog.=) $1 AND stream OPERATOR(pg_catalog.=) $2",
							  2, types, args, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext.into_position");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	  tuple = SPI_tuptable->vals[i];
		TupleDesc	  desc = SPI_tuptable->tupdesc;
		char		 *topic = SPI_getvalue(tuple, desc, 1);
		MemoryContext old = MemoryContextSwitchTo(cxt);
		IntoPosition *position = palloc(sizeof(IntoPosition));
		bool		  isnull;

		position->topic = pstrdup(topic);
		position->partition = DatumGetInt32(SPI_getbinval(tuple, desc, 2, &isnull));
		position->position = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		result = lappend(result, position);
		MemoryContextSwitchTo(old);
	}
	streamext_own_end(own);
	return result;
}

enum
{
	INTO_VIEW = 1,
	INTO_STREAM,
	INTO_TOPIC,
	INTO_PARTITION,
	INTO_POSITION,
	INTO_ACCEPTED,
	INTO_REJECTED
};

typedef struct IntoTotals
{
	int64 highest; /* position; 0: none */
	int64 accepted, rejected;
} IntoTotals;

/* Of all partitions, as committed now. Without SPI: the user, whose COMMIT this may be, has no rights on the table. */
static void
into_scan(Oid stream, Oid view, IntoTotals *totals)
{
	Oid				relid = streamext_control_table("into_position");
	Relation		rel;
	Snapshot		snapshot;
	TableScanDesc	scan;
	TupleTableSlot *slot;

	memset(totals, 0, sizeof(*totals));
	if (!OidIsValid(relid))
		return;
	rel = table_open(relid, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, snapshot, 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		slot_getsomeattrs(slot, INTO_REJECTED);
		if (DatumGetObjectId(slot->tts_values[INTO_STREAM - 1]) != stream ||
			(OidIsValid(view) && DatumGetObjectId(slot->tts_values[INTO_VIEW - 1]) != view))
			continue;
		totals->highest = Max(totals->highest, DatumGetInt64(slot->tts_values[INTO_POSITION - 1]));
		totals->accepted += DatumGetInt64(slot->tts_values[INTO_ACCEPTED - 1]);
		totals->rejected += DatumGetInt64(slot->tts_values[INTO_REJECTED - 1]);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

int64
streamext_into_highest(Oid stream)
{
	IntoTotals totals;

	into_scan(stream, InvalidOid, &totals);
	return totals.highest;
}

void
streamext_into_counts(Oid stream, Oid viewoid, uint64 *accepted, uint64 *rejected)
{
	IntoTotals totals;

	into_scan(stream, viewoid, &totals);
	*accepted = totals.accepted;
	*rejected = totals.rejected;
}

void
streamext_into_recount(Oid viewoid, Oid stream, const char *topic, int partition, int64 n)
{
	Oid	  types[] = { OIDOID, OIDOID, TEXTOID, INT4OID, INT8OID };
	Datum values[] = { ObjectIdGetDatum(viewoid), ObjectIdGetDatum(stream), CStringGetTextDatum(topic),
					   Int32GetDatum(partition), Int64GetDatum(n) };

	if (SPI_execute_with_args("UPDATE streamext.into_position SET accepted = accepted OPERATOR(pg_catalog.+) $5, "
							  "rejected = rejected OPERATOR(pg_catalog.-) $5 WHERE view OPERATOR(pg_catalog.=) $1 "
							  "AND stream OPERATOR(pg_catalog.=) $2 AND topic OPERATOR(pg_catalog.=) $3 "
							  "AND partition OPERATOR(pg_catalog.=) $4",
							  5, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not write streamext.into_position");
}

static SPIPlanPtr into_save_plan = NULL;

static void
into_prepare_save(void)
{
	Oid types[] = {
		OIDOID, OIDOID, TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID
	};

	if (into_save_plan != NULL)
		return;
	into_save_plan = SPI_prepare(
		"INSERT INTO streamext.into_position AS p (view, stream, topic, partition, \"position\", accepted, rejected) "
		"SELECT $1, $2, u.topic, u.partition, u.next, u.accepted, u.rejected "
		"FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), "
		"pg_catalog.unnest($7), pg_catalog.unnest($8)) "
		"AS u (topic, partition, next, accepted, rejected) "
		"ON CONFLICT (view, stream, topic, partition) DO UPDATE SET \"position\" = EXCLUDED.\"position\", "
		"accepted = p.accepted OPERATOR(pg_catalog.+) EXCLUDED.accepted, "
		"rejected = p.rejected OPERATOR(pg_catalog.+) EXCLUDED.rejected "
		"WHERE p.\"position\" OPERATOR(pg_catalog.<=) $6[(SELECT n.i FROM pg_catalog.generate_subscripts($3, 1) AS n (i) "
		"WHERE $3[n.i] OPERATOR(pg_catalog.=) p.topic AND $4[n.i] OPERATOR(pg_catalog.=) p.partition)]",
		8, types);
	if (into_save_plan == NULL)
		elog(ERROR, "could not prepare a statement on streamext.into_position: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(into_save_plan);
}

static Datum
into_int8_array(Datum *values, int n)
{
	return PointerGetDatum(construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Records of the batch that are new to the view, which stood at `former`, by partition. A view without windows has no late ones. */
static void
into_count(Oid viewoid, const Batch *batch, const int64 *former, int64 *accepted, int64 *rejected)
{
	ListCell *lc;

	for (int i = 0; i < batch->nrecords; i++)
		if (batch->records[i].position >= former[batch->records[i].partition_index])
			accepted[batch->records[i].partition_index]++;
	foreach (lc, batch->rejected)
	{
		const RejectedRecord *reject = lfirst(lc);
		const StreamRecord	 *record = &batch->records[reject->record];

		if ((reject->view != viewoid && OidIsValid(reject->view)) || record->position < former[record->partition_index])
			continue;
		accepted[record->partition_index]--;
		rejected[record->partition_index]++;
	}
}

void
streamext_into_save(ViewSlot *slot, Batch *batch)
{
	IdentityScope  own;
	StreamSlot	  *stream = &streamext_shared->streams[slot->stream];
	int			   most = Max(batch->npartitions, 1);
	PartitionSlot *partitions = palloc(sizeof(PartitionSlot) * most);
	Datum		  *topics = palloc(sizeof(Datum) * most);
	Datum		  *numbers = palloc(sizeof(Datum) * most);
	Datum		  *next = palloc(sizeof(Datum) * most);
	Datum		  *former = palloc(sizeof(Datum) * most);
	Datum		  *accepted = palloc(sizeof(Datum) * most);
	Datum		  *rejected = palloc(sizeof(Datum) * most);
	int			  *index = palloc(sizeof(int) * most);
	int64		  *stood = palloc(sizeof(int64) * most);
	int64		  *counts = palloc0(sizeof(int64) * most * 2);
	Datum		   args[8];
	int			   n = 0;

	/* By the slot's order, as the batch's positions are; a catch-up worker's slot may be rearranged at any time. */
	streamext_stream_lock_shared(stream);
	for (int i = 0; i < batch->npartitions; i++)
	{
		stood[i] = i < slot->npositions ? slot->positions[i] : -1;
		if (i >= stream->npartitions || batch->positions[i] < 0 || batch->positions[i] <= stood[i])
			continue;
		partitions[n] = stream->partitions[i];
		next[n] = Int64GetDatum(batch->positions[i]);
		former[n] = Int64GetDatum(stood[i]);
		index[n++] = i;
	}
	LWLockRelease(stream->lock);
	if (n == 0)
		return;
	into_count(slot->viewoid, batch, stood, counts, counts + most);
	for (int i = 0; i < n; i++)
	{
		accepted[i] = Int64GetDatum(counts[index[i]]);
		rejected[i] = Int64GetDatum(counts[most + index[i]]);
		topics[i] = CStringGetTextDatum(partitions[i].topic);
		numbers[i] = Int32GetDatum(partitions[i].partition);
	}
	/* What a source is told to forget must be in the table for good. */
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	args[0] = ObjectIdGetDatum(slot->viewoid);
	args[1] = ObjectIdGetDatum(batch->config->relid);
	args[2] = PointerGetDatum(construct_array(topics, n, TEXTOID, -1, false, TYPALIGN_INT));
	args[3] = PointerGetDatum(construct_array(numbers, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	args[4] = into_int8_array(next, n);
	args[5] = into_int8_array(former, n);
	args[6] = into_int8_array(accepted, n);
	args[7] = into_int8_array(rejected, n);
	own = streamext_own_begin();
	into_prepare_save();
	if (SPI_execute_plan(into_save_plan, args, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write streamext.into_position");
	if (SPI_processed != (uint64) n)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("rows of the batch are already in the table of continuous view \"%s\"",
							   get_rel_name(slot->viewoid))));
	streamext_own_end(own);
}
