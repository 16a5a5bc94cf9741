/*
 * aggregate/values.c
 *		Aggregates kept by their arguments: rows of values in blobs of the pane, and PostgreSQL's executor over them at read.
 *
 * Invariants. Only the rows that ValuesState counts are there; the writer appends behind them without the lock, and what a
 * dropped batch appended is overwritten. The reader plans "SELECT agg(...) FROM rows" over a tuplestore once and runs it
 * for each group, so DISTINCT, ORDER BY and WITHIN GROUP need no code here.
 *
 * Takes no locks; streamext_state_blob may take the stream's for a moment.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "optimizer/planner.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"

#include "aggregate/portable.h"

#define VALUES_NODE_MIN 256
#define VALUES_NODE_MAX (64 * 1024)

/* Rows back to back. */
typedef struct ValuesNode
{
	struct ValuesNode *next;	 /* means nothing to who has read `count` rows */
	uint32			   capacity; /* of data[] */
	uint32			   used;	 /* likewise */
	char			   data[FLEXIBLE_ARRAY_MEMBER];
} ValuesNode;

/* uint32 size (all, multiple of 8), null bits, then at multiples of 8 the values: a Datum, or the bytes by reference. */
#define VALUES_ROW_HEADER(ncolumns) MAXALIGN(sizeof(uint32) + ((ncolumns) + 7) / 8)

/* What stands in a group's entry. */
typedef struct ValuesState
{
	ValuesNode *head;	   /* set by the writer unlocked; good once count > 0 */
	ValuesNode *tail;	   /* published */
	uint64		count;	   /* published */
	uint64		tail_used; /* published */

	/* how far the rows are in checkpoints; the writer's alone */
	ValuesNode *mark;		 /* the node that holds the last such row */
	uint64		mark_count;	 /* rows up to there; while a checkpoint is loaded: that are missing yet */
	uint32		mark_used;	 /* of that node */
	uint32		mark_period; /* of the checkpoint, which may not have been committed */
} ValuesState;

typedef struct ValuesPending
{
	const GroupEntry *entry;
	ValuesState		 *state;
	ValuesNode		 *tail;
	uint64			  count;
	char			  status;
} ValuesPending;

#define SH_PREFIX valuespending
#define SH_ELEMENT_TYPE ValuesPending
#define SH_KEY_TYPE const GroupEntry *
#define SH_KEY entry
#define SH_HASH_KEY(tb, key) AGG_HASH_ENTRY(key)
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* ---- compile ---- */

/* Constants stay in the reader's aggregate call. */
static bool
values_stored(const TargetEntry *tle)
{
	return !IsA(tle->expr, Const);
}

/* Of values of such a type only the process that made them knows the row type. */
static bool
type_is_anonymous(Oid type)
{
	return type == RECORDOID || type == RECORDARRAYOID;
}

/* For ROW(...) the expression tells it. */
static bool
values_type_known(Node *expr)
{
	ListCell *lc;

	if (!type_is_anonymous(exprType(expr)))
		return true;
	if (!IsA(expr, RowExpr))
		return false;
	foreach (lc, ((RowExpr *) expr)->args)
	{
		if (type_is_anonymous(exprType(lfirst(lc))))
			return false;
	}
	return true;
}

void
streamext_values_compile(AggSpec *spec)
{
	Aggref	 *aggref = spec->aggref;
	ListCell *lc;

	spec->mode = AGG_VALUES;
	spec->state_size = sizeof(ValuesState);
	if (contain_var_clause((Node *) aggref->aggdirectargs) || contain_subplans((Node *) aggref->aggdirectargs))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("a direct argument of %s must be a constant in a continuous view",
							   get_func_name(aggref->aggfnoid)),
						errhint("Write the constant itself, or an aggregate for each of its values.")));
	foreach (lc, aggref->args)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (!values_stored(tle))
			continue;
		if (!values_type_known((Node *) tle->expr))
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("%s over type %s is not supported in a continuous view",
								   get_func_name(aggref->aggfnoid), format_type_be(exprType((Node *) tle->expr))),
							errhint("Use a named composite type.")));
		spec->args = lappend(spec->args, tle->expr);
	}
	/* The reader makes a tuple of each row. */
	if (list_length(spec->args) > MaxTupleAttributeNumber)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("%s can have at most %d arguments and ORDER BY expressions in a continuous view",
							   get_func_name(aggref->aggfnoid), MaxTupleAttributeNumber)));
}

/* ---- VALUES in the worker ---- */

static ValuesColumn *
values_columns(const AggSpec *spec)
{
	ValuesColumn *columns = palloc0(sizeof(ValuesColumn) * Max(list_length(spec->args), 1));
	ListCell	 *lc;

	foreach (lc, spec->args)
	{
		ValuesColumn *column = &columns[foreach_current_index(lc)];

		get_typlenbyval(exprType(lfirst(lc)), &column->len, &column->byval);
		column->row_typmod = -1;
	}
	return columns;
}

void
streamext_values_start(AggRuntime *agg)
{
	const AggSpec *spec = agg->spec;
	ListCell	  *lc;

	agg->columns = values_columns(spec);
	agg->values = palloc(sizeof(Datum) * Max(agg->nargs, 1));
	agg->nulls = palloc(sizeof(bool) * Max(agg->nargs, 1));
	agg->pending = valuespending_create(agg->cxt, 256, NULL);

	/* A strict transition function ignores such rows, also before DISTINCT and ORDER BY. */
	if (!func_strict(spec->transfn))
		return;
	foreach (lc, spec->aggref->args)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (values_stored(tle) && !tle->resjunk)
			agg->nstrict++;
	}
}

/* Room for one row of this size at the end of the chain; NULL when memory is full. */
static char *
values_room(AggRuntime *agg, Pane *pane, ValuesPending *pending, uint32 size)
{
	ValuesNode *tail = pending->tail;
	ValuesNode *node = tail;
	Size		capacity;

	while (node == NULL || node->capacity - node->used < size)
	{
		/* A node left over from a batch that was dropped may follow. */
		ValuesNode *next = tail == NULL ? pending->state->head : tail->next;

		if (next == NULL)
		{
			capacity = tail == NULL ? VALUES_NODE_MIN : Min(tail->capacity * 2, VALUES_NODE_MAX);
			capacity = MAXALIGN(Max(capacity, size));
			next = streamext_state_blob(agg->state, pane, offsetof(ValuesNode, data) + capacity);
			if (next == NULL)
				return NULL;
			next->next = NULL;
			next->capacity = capacity;
			next->used = 0;
			if (tail == NULL)
				pending->state->head = next;
			else
				tail->next = next;
		}
		next->used = 0;
		node = tail = next;
	}
	pending->tail = node;
	return node->data + node->used;
}

/* Bytes of a row; by-reference values are replaced by flat ones with a four-byte header. */
static uint32
values_row_size(const AggSpec *spec, const ValuesColumn *columns, Datum *values, const bool *nulls)
{
	int	 n = list_length(spec->args);
	Size size = VALUES_ROW_HEADER(n);

	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			continue;
		if (columns[i].len == -1)
			values[i] = PointerGetDatum(PG_DETOAST_DATUM(values[i]));
		size += columns[i].byval ? sizeof(Datum) : MAXALIGN(datumGetSize(values[i], false, columns[i].len));
	}
	if (size > MaxAllocSize)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("arguments of %s are too large", get_func_name(spec->aggref->aggfnoid))));
	return size;
}

static void
values_write_row(const AggSpec *spec, const ValuesColumn *columns, char *at, uint32 size, const Datum *values,
				 const bool *nulls)
{
	int	   n = list_length(spec->args);
	uint8 *bits = (uint8 *) at + sizeof(uint32);

	*(uint32 *) at = size;
	memset(bits, 0, VALUES_ROW_HEADER(n) - sizeof(uint32));
	at += VALUES_ROW_HEADER(n);
	for (int i = 0; i < n; i++)
	{
		if (nulls[i])
			bits[i / 8] |= 1 << (i % 8);
		else if (columns[i].byval)
		{
			*(Datum *) at = values[i];
			at += sizeof(Datum);
		}
		else
		{
			Size length = datumGetSize(values[i], false, columns[i].len);

			memcpy(at, DatumGetPointer(values[i]), length);
			at += MAXALIGN(length);
		}
	}
}

/* Appends behind what is published and pending. False: memory is full. */
static bool
values_append(AggRuntime *agg, Pane *pane, GroupEntry *entry, Datum *values, const bool *nulls)
{
	uint32		   size = values_row_size(agg->spec, agg->columns, values, nulls);
	bool		   found;
	ValuesPending *pending = valuespending_insert(agg->pending, entry, &found);
	char		  *at;

	if (!found)
	{
		pending->state = (ValuesState *) (entry->data + agg->spec->offset);
		pending->tail = pending->state->tail;
		pending->count = pending->state->count;
		if (pending->tail != NULL)
			pending->tail->used = pending->state->tail_used;
	}
	at = values_room(agg, pane, pending, size);
	if (at == NULL)
		return false;
	values_write_row(agg->spec, agg->columns, at, size, values, nulls);
	pending->tail->used += size;
	pending->count++;
	return true;
}

bool
streamext_values_prepare(AggRuntime *agg, const AggInput *in, volatile int *row)
{
	MemoryContext old = MemoryContextSwitchTo(agg->temp);
	bool		  room = true;

	for (int i = 0; i < in->n && room; i++)
	{
		int	 r = *row = in->rows[i];
		bool taken = true;

		for (int arg = 0; arg < agg->nargs; arg++)
		{
			agg->values[arg] = in->args[arg][r];
			agg->nulls[arg] = in->nulls[arg][r];
			taken &= arg >= agg->nstrict || !agg->nulls[arg];
		}
		if (!taken)
			continue;
		room = values_append(agg, in->panes[i], in->groups[i], agg->values, agg->nulls);
		MemoryContextReset(agg->temp);
	}
	MemoryContextSwitchTo(old);
	return room;
}

void
streamext_values_publish(AggRuntime *agg)
{
	valuespending_iterator scan;
	ValuesPending		  *pending;

	valuespending_start_iterate(agg->pending, &scan);
	while ((pending = valuespending_iterate(agg->pending, &scan)) != NULL)
	{
		pending->state->tail = pending->tail;
		pending->state->tail_used = pending->tail == NULL ? 0 : pending->tail->used;
		pending->state->count = pending->count;
	}
	valuespending_reset(agg->pending);
}

void
streamext_values_forget(AggRuntime *agg)
{
	valuespending_reset(agg->pending);
}

/* ---- VALUES in checkpoints ---- */

/*
 * An export is the number of the first row in it (uint64), then rows as they stand in the nodes. Rows only come to the end,
 * so a checkpoint takes those behind the mark, if the mark's checkpoint was committed.
 */
typedef struct ValuesRange
{
	uint64			  from; /* rows before it */
	const ValuesNode *node;
	uint32			  used; /* of that node, before it */
} ValuesRange;

static ValuesRange
values_range(const ValuesState *values, const ViewState *state, bool whole)
{
	ValuesRange range = { 0, values->head, 0 };

	if (!whole && values->mark != NULL && values->mark_period <= state->saved)
	{
		range.from = values->mark_count;
		range.node = values->mark;
		range.used = values->mark_used;
	}
	return range;
}

/* Bytes of rows; to `put` unless NULL. */
static Size
values_walk(const ValuesState *values, ValuesRange range, AggPut put, void *arg)
{
	Size size = 0;

	if (values->count == 0)
		return 0;
	for (const ValuesNode *node = range.node;; node = node->next)
	{
		uint32 end = node == values->tail ? values->tail_used : node->used;
		uint32 begin = node == range.node ? range.used : 0;

		if (put != NULL && end > begin)
			put(arg, node->data + begin, end - begin);
		size += end - begin;
		if (node == values->tail)
			break;
	}
	return size;
}

Size
streamext_values_export_size(const AggSpec *spec, const ViewState *state, const GroupEntry *entry, bool whole)
{
	const ValuesState *values = (const ValuesState *) (entry->data + spec->offset);

	return sizeof(uint64) + values_walk(values, values_range(values, state, whole), NULL, NULL);
}

void
streamext_values_export(const AggSpec *spec, const ViewState *state, GroupEntry *entry, bool whole, AggPut put,
						void *arg)
{
	ValuesState *values = (ValuesState *) (entry->data + spec->offset);
	ValuesRange	 range = values_range(values, state, whole);

	put(arg, &range.from, sizeof(uint64));
	values_walk(values, range, put, arg);
	values->mark = values->count == 0 ? NULL : values->tail;
	values->mark_count = values->count;
	values->mark_used = values->tail_used;
	values->mark_period = state->period - 1;
}

/* Rows that are to be read by their own sizes: n of them, back to back, and nothing else. */
static bool
values_rows_good(const AggSpec *spec, const char *bytes, Size size, uint64 n)
{
	uint32 least = VALUES_ROW_HEADER(list_length(spec->args));

	for (; n > 0; n--)
	{
		uint32 row;

		if (size < least)
			return false;
		memcpy(&row, bytes, sizeof(row));
		if (row < least || row > size || row != MAXALIGN(row))
			return false;
		bytes += row;
		size -= row;
	}
	return size == 0;
}

/* Puts the rows before those that are there; the newest export founds the state. */
bool
streamext_values_import(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry, bool newest,
						const char *raw, const char *bytes, Size size)
{
	ValuesState *values = (ValuesState *) (entry->data + spec->offset);
	ValuesState	 exported;
	ValuesNode	*node;
	uint64		 from;

	memcpy(&exported, raw, sizeof(ValuesState));
	if (newest)
	{
		memset(values, 0, sizeof(ValuesState));
		values->count = values->mark_count = exported.count;
	}
	if (values->mark_count == 0)
		return true; /* complete: what is older was superseded */
	if (size < sizeof(uint64))
		streamext_aggregate_import_damaged(spec);
	memcpy(&from, bytes, sizeof(uint64));
	size -= sizeof(uint64);
	if (exported.count != values->mark_count || from > exported.count ||
		!values_rows_good(spec, bytes + sizeof(uint64), size, exported.count - from))
		streamext_aggregate_import_damaged(spec);
	values->mark_count = from;
	if (size == 0)
		return true;

	if (size > PG_UINT32_MAX / 2)
		streamext_aggregate_import_damaged(spec);
	node = streamext_state_blob(state, pane, offsetof(ValuesNode, data) + size);
	if (node == NULL)
		return false;
	node->next = values->head;
	node->capacity = node->used = size;
	memcpy(node->data, bytes + sizeof(uint64), size);
	if (values->head == NULL)
	{
		values->tail = node;
		values->tail_used = size;
	}
	values->head = node;
	return true;
}

void
streamext_values_import_end(const AggSpec *spec, const ViewState *state, GroupEntry *entry)
{
	ValuesState *values = (ValuesState *) (entry->data + spec->offset);

	if (values->mark_count != 0 || (values->count > 0) != (values->tail != NULL))
		streamext_aggregate_import_damaged(spec);
	values->mark = values->tail;
	values->mark_count = values->count;
	values->mark_used = values->tail_used;
	values->mark_period = state->saved;
}

/* ---- VALUES in the reader ---- */

/* "SELECT agg(c1, c2, ... ORDER BY ...) FROM rows" as the parser would make it. */
static Query *
values_query(AggReader *reader)
{
	const AggSpec *spec = reader->spec;
	Query		  *query = makeNode(Query);
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	RangeTblRef	  *ref = makeNode(RangeTblRef);
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

		if (!values_stored(tle))
			continue;
		att = TupleDescAttr(reader->rowdesc, column++);
		tle->expr = (Expr *) makeVar(1, att->attnum, att->atttypid, att->atttypmod, att->attcollation, 0);
	}
	aggref->aggfilter = NULL;
	aggref->aggno = aggref->aggtransno = -1;

	ref->rtindex = 1;
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->hasAggs = true;
	query->rtable = list_make1(rte);
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	query->targetList = list_make1(makeTargetEntry((Expr *) aggref, 1, "value", false));
	return query;
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
	reader->columns = values_columns(spec);
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
streamext_values_final(AggReader *reader, const AggPartial *partial, bool *isnull)
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

void
streamext_values_combine(AggPartial *into, const AggPartial *from)
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
streamext_values_give(const AggPartial *partial, StringInfo to)
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
		size = values_row_size(reader->spec, reader->columns, reader->values, reader->nulls);
		enlargeStringInfo(&rows, size);
		values_write_row(reader->spec, reader->columns, rows.data + rows.len, size, reader->values, reader->nulls);
		rows.len += size;
	}
	if (from->left != 0)
		streamext_portable_invalid("There is more behind its state.");
	streamext_values_take(reader, partial, rows.data, rows.len);
	pfree(rows.data);
}

void
streamext_values_load(AggPartial *partial, const char *state, const StateCopy *copy)
{
	partial->segments = palloc(sizeof(ValuesSegment));
	partial->segments->state = (const ValuesState *) state;
	partial->segments->copy = copy;
	partial->nsegments = partial->segments_capacity = 1;
}
