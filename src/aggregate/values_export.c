/*
 * aggregate/values_export.c
 *		VALUES aggregates in checkpoints.
 */
#include "postgres.h"

#include "utils/array.h"

#include "aggregate/values.h"

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
streamext_values_assemble(const AggSpec *spec, Datum array, bool isnull, GroupEntry *entry, StringInfo extra)
{
	ValuesState	 *values = (ValuesState *) (entry->data + spec->offset);
	ValuesColumn *columns = streamext_values_columns(spec);
	ArrayIterator elements;
	Datum		  value;
	uint64		  from = 0;

	Assert(list_length(spec->args) == 1);
	appendBinaryStringInfo(extra, (char *) &from, sizeof(from));
	if (isnull)
		return;
	elements = array_create_iterator(DatumGetArrayTypeP(array), 0, NULL);
	while (array_iterate(elements, &value, &isnull))
	{
		uint32 size;

		if (isnull)
			continue;
		size = streamext_values_row_size(spec, columns, &value, &isnull);
		enlargeStringInfo(extra, size);
		streamext_values_write_row(spec, columns, extra->data + extra->len, size, &value, &isnull);
		extra->len += size;
		values->count++;
	}
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
