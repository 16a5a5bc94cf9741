/*
 * read/groups_table.c
 *		Values of GROUP BY to a pointer: PostgreSQL's hash table of tuples. What the functions promise is in read/groups.h.
 */
#include "postgres.h"

#include "executor/executor.h"

#include "read/groups.h"

void
streamext_groups_table_init(GroupsTable *table, EState *estate, TupleDesc desc)
{
	table->n = desc->natts;
	table->slot = ExecInitExtraTupleSlot(estate, desc, &TTSOpsVirtual);
	table->in_hash = ExecInitExtraTupleSlot(estate, desc, &TTSOpsMinimalTuple);
}

void
streamext_groups_table_start(GroupsTable *table, PlanState *node, const List *operators, const List *collations,
							 MemoryContext cxt)
{
	int			n = table->n;
	AttrNumber *columns = palloc(sizeof(AttrNumber) * Max(n, 1));
	Oid		   *ops = palloc(sizeof(Oid) * Max(n, 1));
	Oid		   *colls = palloc(sizeof(Oid) * Max(n, 1));
	Oid		   *equal;
	FmgrInfo   *hash;

	table->hash = NULL;
	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
	{
		columns[i] = i + 1;
		ops[i] = list_nth_oid(operators, i);
		colls[i] = list_nth_oid(collations, i);
	}
	execTuplesHashPrepare(n, ops, &equal, &hash);
#if PG_VERSION_NUM >= 180000
	table->hash =
		BuildTupleHashTable(node, table->slot->tts_tupleDescriptor, &TTSOpsVirtual, n, columns, equal, hash, colls, 256,
							sizeof(void *), cxt, cxt, node->ps_ExprContext->ecxt_per_tuple_memory, false);
#else
	table->hash = BuildTupleHashTable(node, table->slot->tts_tupleDescriptor, n, columns, equal, hash, colls, 256, 0,
									  cxt, node->ps_ExprContext->ecxt_per_tuple_memory, false);
#endif
}

void **
streamext_groups_table_find(GroupsTable *table, MinimalTuple *values, bool *isnew)
{
	TupleHashEntry entry = LookupTupleHashEntry(table->hash, table->slot, isnew, NULL);

	*values = entry->firstTuple;
#if PG_VERSION_NUM >= 180000
	return (void **) TupleHashEntryGetAdditional(table->hash, entry);
#else
	return &entry->additional;
#endif
}

void
streamext_groups_table_give(GroupsTable *table, MinimalTuple values, const List *columns, TupleTableSlot *to)
{
	ListCell *lc;

	if (table->n == 0)
		return;
	ExecForceStoreMinimalTuple(values, table->in_hash, false);
	slot_getallattrs(table->in_hash);
	foreach (lc, columns)
	{
		to->tts_values[lfirst_int(lc)] = table->in_hash->tts_values[foreach_current_index(lc)];
		to->tts_isnull[lfirst_int(lc)] = table->in_hash->tts_isnull[foreach_current_index(lc)];
	}
}
