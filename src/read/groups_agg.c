/*
 * read/groups_agg.c
 *		Aggregates of a GROUP BY that is done in the scan of a view: the state of a group, how rows are added, what comes of it. What the functions
 *		promise is in read/groups.h.
 */
#include "postgres.h"

#include "utils/memutils.h"
#include "utils/numeric.h"

#include "read/groups.h"

static void
groups_init_agg(GroupsAggs *aggs, GroupsAgg *agg, AggReader **readers, MemoryContext cxt)
{
	const AggSpec *spec;

	agg->at = aggs->size;
	aggs->size += sizeof(int64);
	if (agg->kind == GROUPS_ROWS)
		return;
	spec = &aggs->view->aggs[agg->number];
	aggs->native = aggs->native && spec->mode == AGG_NATIVE;
	if (readers[agg->number] == NULL)
		readers[agg->number] = streamext_aggregate_reader(spec, cxt);
	agg->reader = readers[agg->number];
	if (spec->mode != AGG_NATIVE)
		return;
	agg->native = spec->native;
	agg->offset = spec->offset;
	aggs->size += spec->native->state_size - sizeof(int64);
}

AggReader **
streamext_groups_aggs(GroupsAggs *aggs, const CompiledView *view, const GroupsPlan *plan, MemoryContext cxt)
{
	AggReader	**readers = palloc0(sizeof(AggReader *) * Max(view->naggs, 1));
	IdentityScope scope;
	bool		  entered = streamext_read_enter(view, &scope);

	aggs->view = view;
	aggs->size = 0;
	aggs->native = true;
	aggs->n = list_length(plan->kinds);
	aggs->aggs = palloc0(sizeof(GroupsAgg) * Max(aggs->n, 1));
	for (int i = 0; i < aggs->n; i++)
	{
		aggs->aggs[i].kind = list_nth_int(plan->kinds, i);
		aggs->aggs[i].number = list_nth_int(plan->numbers, i);
		groups_init_agg(aggs, &aggs->aggs[i], readers, cxt);
	}
	streamext_read_leave(entered, &scope);
	return readers;
}

void
streamext_groups_agg_combine(const GroupsAggs *aggs, const GroupsAgg *agg, const RowReader *rows, char *group,
							 MemoryContext cxt)
{
	AggPartial	  *from = streamext_rows_partial(rows, agg->number);
	AggPartial	 **into = (AggPartial **) (group + agg->at);
	bool		   values = aggs->view->aggs[agg->number].mode == AGG_VALUES;
	StringInfoData bytes;
	MemoryContext  old;

	if (agg->native != NULL || values)
	{
		initStringInfo(&bytes);
		streamext_partial_give(agg->reader, from, &bytes);
	}
	if (agg->native != NULL)
	{
		agg->native->combine(group + agg->at, bytes.data);
		return;
	}
	old = MemoryContextSwitchTo(cxt);
	if (*into == NULL)
		*into = streamext_partial_empty(agg->reader);
	if (values) /* the rows stay where they are, and are to outlive the pane */
		from = streamext_partial_take(agg->reader, bytes.data, bytes.len);
	else
		MemoryContextSwitchTo(old);
	streamext_partial_combine(agg->reader, *into, from);
	MemoryContextSwitchTo(old);
}

static Datum
groups_agg_value(const GroupsAgg *agg, char *group, bool *isnull)
{
	Datum value;

	*isnull = false;
	if (agg->kind == GROUPS_ROWS)
		return Int64GetDatum(*(int64 *) (group + agg->at));
	if (agg->native == NULL)
		return streamext_partial_final(agg->reader, *(AggPartial **) (group + agg->at), isnull);
	value = agg->native->final(group + agg->at, isnull);
	return agg->kind == GROUPS_SUM ? NumericGetDatum(int64_to_numeric(DatumGetInt64(value))) : value;
}

void
streamext_groups_agg_values(const GroupsAggs *aggs, char *group, Datum *values, bool *nulls)
{
	IdentityScope scope;
	bool		  entered = streamext_read_enter(aggs->view, &scope);

	for (int i = 0; i < aggs->n; i++)
		values[i] = groups_agg_value(&aggs->aggs[i], group, &nulls[i]);
	streamext_read_leave(entered, &scope);
}

void
streamext_groups_agg_nothing(const GroupsAggs *aggs, Datum *values, bool *nulls)
{
	for (int i = 0; i < aggs->n; i++)
		if (aggs->aggs[i].kind == GROUPS_ROWS)
		{
			values[i] = Int64GetDatum(0);
			nulls[i] = false;
		}
}
