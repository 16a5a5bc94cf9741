/*
 * aggregate/values_reader.c
 *		Partials of VALUES aggregates: lists of rows, and PostgreSQL's own aggregate over them.
 *
 * The reader plans "SELECT agg(...) FROM rows" over a tuplestore once and runs it for each group, so DISTINCT, ORDER BY and WITHIN GROUP need
 * no code here.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"

#include "aggregate/values.h"

/* "SELECT agg(c1, c2, ... ORDER BY ...) FROM rows" as the parser would make it. */
static Query *
values_query(AggReader *reader)
{
	const AggSpec *spec = reader->spec;
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	Aggref		  *aggref = copyObject(spec->aggref);
	int			   column = 0;
	ListCell	  *lc;

	rte->rtekind = RTE_NAMEDTUPLESTORE;
	rte->enrname = "rows";
	rte->enrtuples = 1000;
	rte->inFromCl = true;
	rte->eref = makeAlias("rows", NIL);
	for (int i = 0; i < reader->rowdesc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(reader->rowdesc, i);

		rte->coltypes = lappend_oid(rte->coltypes, att->atttypid);
		rte->coltypmods = lappend_int(rte->coltypmods, att->atttypmod);
		rte->colcollations = lappend_oid(rte->colcollations, att->attcollation);
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(NameStr(att->attname))));
	}
	foreach (lc, aggref->args)
	{
		TargetEntry		 *tle = lfirst_node(TargetEntry, lc);
		Form_pg_attribute att;

		if (!streamext_values_stored(tle))
			continue;
		att = TupleDescAttr(reader->rowdesc, column++);
		tle->expr = (Expr *) makeVar(1, att->attnum, att->atttypid, att->atttypmod, att->attcollation, 0);
	}
	aggref->aggfilter = NULL;
	aggref->aggno = aggref->aggtransno = -1;
	return streamext_aggregate_query(aggref, rte);
}

/* Registers the row type of a ROW(...) in this process. */
static int32
values_row_typmod(const RowExpr *row)
{
	TupleDesc desc = ExecTypeFromExprList(row->args);

	ExecTypeSetColNames(desc, row->colnames);
	return BlessTupleDesc(desc)->tdtypmod;
}

/*
 * Plans it and makes it ready to run. The executor is used below ExecutorStart: there is no snapshot or result relation to
 * look after, and everything it holds between runs is memory of reader->cxt, so it needs no end.
 */
void
streamext_values_reader(AggReader *reader)
{
	const AggSpec		  *spec = reader->spec;
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	PlannedStmt			  *plan;
	MemoryContext		   old;
	ListCell			  *lc;

	reader->ncolumns = list_length(spec->args);
	reader->columns = streamext_values_columns(spec);
	reader->values = palloc0(sizeof(Datum) * Max(reader->ncolumns, 1));
	reader->nulls = palloc0(sizeof(bool) * Max(reader->ncolumns, 1));

	/* A relation has at least one column. */
	reader->rowdesc = CreateTemplateTupleDesc(Max(reader->ncolumns, 1));
	TupleDescInitEntry(reader->rowdesc, 1, "c1", INT4OID, -1, 0);
	foreach (lc, spec->args)
	{
		Node	  *expr = lfirst(lc);
		AttrNumber number = foreach_current_index(lc) + 1;

		TupleDescInitEntry(reader->rowdesc, number, psprintf("c%d", number), exprType(expr), exprTypmod(expr), 0);
		TupleDescInitEntryCollation(reader->rowdesc, number, exprCollation(expr));
		if (exprType(expr) == RECORDOID)
			reader->columns[number - 1].row_typmod = values_row_typmod(castNode(RowExpr, expr));
	}

	reader->rows = tuplestore_begin_heap(false, false, work_mem);
	enr->md.name = "rows";
	enr->md.tupdesc = reader->rowdesc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = 1000;
	enr->reldata = reader->rows;

	plan = standard_planner(values_query(reader), "", 0, NULL);
	reader->estate = CreateExecutorState();
	old = MemoryContextSwitchTo(reader->estate->es_query_cxt);
	reader->estate->es_plannedstmt = plan;
	reader->estate->es_queryEnv = create_queryEnv();
	register_ENR(reader->estate->es_queryEnv, enr);
	reader->planstate = ExecInitNode(plan->planTree, reader->estate, 0);
	MemoryContextSwitchTo(old);
}

/* Goes through a segment's rows. */
typedef struct ValuesWalk
{
	const ValuesSegment *segment;
	const ValuesNode	*node;
	uint32				 used;
	uint64				 n;
} ValuesWalk;

/* The next row into reader->values and nulls; they point into the segment. */
static bool
values_walk_next(AggReader *reader, ValuesWalk *walk)
{
	const char	*row;
	const char	*at;
	const uint8 *bits;

	if (walk->n++ >= walk->segment->state->count)
		return false;
	while (walk->node == NULL || walk->used >= walk->node->used)
	{
		walk->node = streamext_state_copied(walk->segment->copy,
											walk->node == NULL ? walk->segment->state->head : walk->node->next);
		walk->used = 0;
	}
	row = walk->node->data + walk->used;
	walk->used += *(const uint32 *) row;
	bits = (const uint8 *) row + sizeof(uint32);
	at = row + VALUES_ROW_HEADER(reader->ncolumns);
	for (int i = 0; i < reader->ncolumns; i++)
	{
		reader->nulls[i] = (bits[i / 8] & (1 << (i % 8))) != 0;
		reader->values[i] = (Datum) 0;
		if (reader->nulls[i])
			continue;
		if (reader->columns[i].byval)
		{
			reader->values[i] = *(const Datum *) at;
			at += sizeof(Datum);
		}
		else
		{
			reader->values[i] = PointerGetDatum(at);
			/* The copy is this process's own. */
			if (reader->columns[i].row_typmod >= 0)
				HeapTupleHeaderSetTypMod((HeapTupleHeader) unconstify(char *, at), reader->columns[i].row_typmod);
			at += MAXALIGN(datumGetSize(reader->values[i], false, reader->columns[i].len));
		}
	}
	return true;
}

Datum
streamext_values_final(AggReader *reader, AggPartial *partial, bool *isnull)
{
	MemoryContext	caller = CurrentMemoryContext;
	TupleTableSlot *slot;
	Datum			value;

	for (int i = 0; i < partial->nsegments; i++)
	{
		ValuesWalk walk = { &partial->segments[i] };

		while (values_walk_next(reader, &walk))
			tuplestore_putvalues(reader->rows, reader->rowdesc, reader->values, reader->nulls);
	}

	MemoryContextSwitchTo(reader->estate->es_query_cxt);
	slot = ExecProcNode(reader->planstate);
	if (TupIsNull(slot))
		elog(ERROR, "aggregate %u returned no row", reader->spec->aggref->aggfnoid);
	value = slot_getattr(slot, 1, isnull);
	MemoryContextSwitchTo(caller);
	if (!*isnull)
		value = datumCopy(value, reader->resultbyval, reader->resultlen);

	/* Now, not before the next run: it ends sorts, which may have temporary files. */
	MemoryContextSwitchTo(reader->estate->es_query_cxt);
	tuplestore_clear(reader->rows);
	ExecReScan(reader->planstate);
	MemoryContextSwitchTo(caller);
	return value;
}

Datum
streamext_values_array(AggReader *reader, const AggPartial *partial, bool *isnull)
{
	Oid				 type = TupleDescAttr(reader->rowdesc, 0)->atttypid;
	ArrayBuildState *array = initArrayResult(type, CurrentMemoryContext, false);

	Assert(reader->ncolumns == 1);
	for (int i = 0; i < partial->nsegments; i++)
	{
		ValuesWalk walk = { &partial->segments[i] };

		while (values_walk_next(reader, &walk))
			if (!reader->nulls[0])
				array = accumArrayResult(array, reader->values[0], false, type, CurrentMemoryContext);
	}
	*isnull = false;
	return makeArrayResult(array, CurrentMemoryContext);
}

void
streamext_values_combine(AggReader *reader, AggPartial *into, const AggPartial *from)
{
	int total = into->nsegments + from->nsegments;

	if (total > into->segments_capacity)
	{
		int			   capacity = Max(total, into->segments_capacity * 2);
		ValuesSegment *segments = MemoryContextAlloc(into->cxt, sizeof(ValuesSegment) * capacity);

		if (into->nsegments > 0)
			memcpy(segments, into->segments, sizeof(ValuesSegment) * into->nsegments);
		into->segments = segments;
		into->segments_capacity = capacity;
	}
	if (from->nsegments > 0)
		memcpy(into->segments + into->nsegments, from->segments, sizeof(ValuesSegment) * from->nsegments);
	into->nsegments = total;
}

/* The rows, as they stand in the nodes. */
void
streamext_values_give(AggReader *reader, const AggPartial *partial, StringInfo to)
{
	for (int s = 0; s < partial->nsegments; s++)
	{
		const ValuesSegment *segment = &partial->segments[s];
		const ValuesNode	*node = NULL;
		uint32				 used = 0;

		for (uint64 n = 0; n < segment->state->count; n++)
		{
			const char *row;

			while (node == NULL || used >= node->used)
			{
				node = streamext_state_copied(segment->copy, node == NULL ? segment->state->head : node->next);
				used = 0;
			}
			row = node->data + used;
			appendBinaryStringInfo(to, row, *(const uint32 *) row);
			used += *(const uint32 *) row;
		}
	}
}

/* One node of all rows, which a copy says to stand where it stands. */
void
streamext_values_take(AggReader *reader, AggPartial *partial, const char *bytes, Size size)
{
	ValuesState *state = palloc0(sizeof(ValuesState));
	ValuesNode	*node = MemoryContextAllocHuge(CurrentMemoryContext, offsetof(ValuesNode, data) + size);
	StateCopy	*copy = palloc0(sizeof(StateCopy));
	Size		 at = 0;

	memcpy(node->data, bytes, size);
	node->next = NULL;
	node->capacity = node->used = size;
	while (size - at >= VALUES_ROW_HEADER(reader->ncolumns))
	{
		uint32 row = *(uint32 *) (node->data + at);

		if (row < VALUES_ROW_HEADER(reader->ncolumns) || row > size - at || row != MAXALIGN(row))
			break;
		state->count++;
		at += row;
	}
	if (at != size)
		streamext_aggregate_import_damaged(reader->spec);
	state->head = state->tail = node;
	state->tail_used = size;
	copy->nblocks = 1;
	copy->blocks = palloc(sizeof(StateCopyBlock));
	*copy->blocks = (StateCopyBlock){ (const char *) node, offsetof(ValuesNode, data) + size, (char *) node };
	partial->segments = palloc(sizeof(ValuesSegment));
	partial->segments->state = state;
	partial->segments->copy = copy;
	partial->nsegments = partial->segments_capacity = 1;
}

/* ---- portable partials ---- */

static AggWire *
values_wires(AggReader *reader)
{
	if (reader->wires == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(reader->cxt);
		Oid			 *types = palloc(sizeof(Oid) * Max(reader->ncolumns, 1));

		for (int i = 0; i < reader->ncolumns; i++)
			types[i] = TupleDescAttr(reader->rowdesc, i)->atttypid;
		reader->wires = streamext_wires(types, reader->ncolumns);
		MemoryContextSwitchTo(old);
	}
	return reader->wires;
}

void
streamext_values_send(AggReader *reader, const AggPartial *partial, StringInfo to)
{
	AggWire *wires = values_wires(reader);
	uint64	 count = 0;

	for (int s = 0; s < partial->nsegments; s++)
		count += partial->segments[s].state->count;
	appendBinaryStringInfo(to, (char *) &count, sizeof(count));
	for (int s = 0; s < partial->nsegments; s++)
	{
		ValuesWalk walk = { &partial->segments[s] };

		while (values_walk_next(reader, &walk))
			for (int i = 0; i < reader->ncolumns; i++)
				streamext_wire_put(&wires[i], to, reader->values[i], reader->nulls[i]);
	}
}

void
streamext_values_receive(AggReader *reader, AggPartial *partial, PortableCursor *from)
{
	AggWire		  *wires = values_wires(reader);
	StringInfoData rows;
	uint64		   count;

	if (from->left < sizeof(count))
		streamext_portable_invalid("Its state ends too early.");
	memcpy(&count, from->at, sizeof(count));
	from->at += sizeof(count);
	from->left -= sizeof(count);
	/* no value is shorter than its size; count(DISTINCT 1) has rows of nothing, and few of them */
	if (count > (reader->ncolumns > 0 ? from->left / sizeof(int32) / reader->ncolumns : MaxAllocSize / 64))
		streamext_portable_invalid("It has fewer rows than it tells.");
	initStringInfo(&rows);
	for (uint64 n = 0; n < count; n++)
	{
		uint32 size;

		for (int i = 0; i < reader->ncolumns; i++)
			reader->values[i] = streamext_wire_get(&wires[i], from, &reader->nulls[i]);
		size = streamext_values_row_size(reader->spec, reader->columns, reader->values, reader->nulls);
		enlargeStringInfo(&rows, size);
		streamext_values_write_row(reader->spec, reader->columns, rows.data + rows.len, size, reader->values,
								   reader->nulls);
		rows.len += size;
	}
	if (from->left != 0)
		streamext_portable_invalid("There is more behind its state.");
	streamext_values_take(reader, partial, rows.data, rows.len);
	pfree(rows.data);
}

void
streamext_values_load(AggReader *reader, AggPartial *partial, const char *state, const StateCopy *copy)
{
	partial->segments = palloc(sizeof(ValuesSegment));
	partial->segments->state = (const ValuesState *) state;
	partial->segments->copy = copy;
	partial->nsegments = partial->segments_capacity = 1;
}
