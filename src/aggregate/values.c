/*
 * aggregate/values.c
 *		Aggregates kept by their arguments: rows of values in blobs of the pane, and PostgreSQL's executor over them at read.
 *
 * Invariants. Only the rows that ValuesState counts are there; the writer appends behind them without the lock, and what a
 * dropped batch appended is overwritten.
 *
 * Takes no locks; streamext_state_blob may take the stream's for a moment.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

#include "aggregate/values.h"

#define VALUES_NODE_MIN 256
#define VALUES_NODE_MAX (64 * 1024)

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
#include "aggregate/entry_table.h"

/* ---- compile ---- */

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

		if (!streamext_values_stored(tle))
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

/* ---- rows ---- */

ValuesColumn *
streamext_values_columns(const AggSpec *spec)
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

uint32
streamext_values_row_size(const AggSpec *spec, const ValuesColumn *columns, Datum *values, const bool *nulls)
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

void
streamext_values_write_row(const AggSpec *spec, const ValuesColumn *columns, char *at, uint32 size, const Datum *values,
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

/* ---- the worker ---- */

void
streamext_values_start(AggRuntime *agg)
{
	const AggSpec *spec = agg->spec;
	ListCell	  *lc;

	agg->columns = streamext_values_columns(spec);
	agg->values = palloc(sizeof(Datum) * Max(agg->nargs, 1));
	agg->nulls = palloc(sizeof(bool) * Max(agg->nargs, 1));
	agg->pending = valuespending_create(agg->cxt, 256, NULL);

	/* A strict transition function ignores such rows, also before DISTINCT and ORDER BY. */
	if (!func_strict(spec->transfn))
		return;
	foreach (lc, spec->aggref->args)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);

		if (streamext_values_stored(tle) && !tle->resjunk)
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

/* Appends behind what is published and pending. False: memory is full. */
static bool
values_append(AggRuntime *agg, Pane *pane, GroupEntry *entry, Datum *values, const bool *nulls)
{
	uint32		   size = streamext_values_row_size(agg->spec, agg->columns, values, nulls);
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
	streamext_values_write_row(agg->spec, agg->columns, at, size, values, nulls);
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
streamext_values_publish(AggRuntime *agg, const AggInput *in)
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
