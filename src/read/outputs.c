/*
 * read/outputs.c
 *		What a view's query has above the aggregation, over columns of its groups: those of view_rows, or all shards' merged. What the functions promise
 *		is in read/scan.h and read/shard_rows.h.
 */
#include "postgres.h"

#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteManip.h"

#include "read/scan.h"
#include "read/shard_rows.h"

/* Replaces what stands below the aggregation by columns of a range table entry. */
typedef struct OutputsMutator
{
	const CompiledView *view;
	Index				varno; /* of the entry */
	int					sublevels;
	int *
		ranks; /* of the aggregates in the order of their columns, filled in as they are met, else -1; NULL: as they are numbered */
	int nranks;
} OutputsMutator;

static Var *
outputs_key_var(const OutputsMutator *mutator, int k)
{
	const KeySpec *key = &mutator->view->keys[k];

	return makeVar(mutator->varno, k + 1, key->type, key->typmod, key->collation, mutator->sublevels);
}

/* The group key that the expression is, or -1. Below the top level PostgreSQL accepts only plain columns as such. */
static int
outputs_find_key(const OutputsMutator *mutator, Node *node)
{
	const CompiledView *view = mutator->view;

	if (mutator->sublevels == 0)
	{
		for (int k = 0; k < view->nkeys; k++)
			if (equal(node, view->keys[k].expr))
				return k;
	}
	else if (IsA(node, Var) && ((Var *) node)->varlevelsup == mutator->sublevels)
	{
		for (int k = 0; k < view->nkeys; k++)
		{
			Var *key = (Var *) view->keys[k].expr;

			if (key != NULL && IsA(key, Var) && key->varno == ((Var *) node)->varno &&
				key->varattno == ((Var *) node)->varattno)
				return k;
		}
	}
	return -1;
}

static Node *
outputs_aggregate_var(OutputsMutator *mutator, Aggref *aggref)
{
	const CompiledView *view = mutator->view;
	Aggref			   *wanted = aggref;

	if (mutator->sublevels > 0)
	{
		wanted = copyObject(aggref);
		IncrementVarSublevelsUp((Node *) wanted, -mutator->sublevels, mutator->sublevels);
	}
	for (int a = 0; a < view->naggs; a++)
		if (equal(wanted, view->aggs[a].aggref))
		{
			if (mutator->ranks != NULL && mutator->ranks[a] < 0)
				mutator->ranks[a] = mutator->nranks++;
			return (Node *) makeVar(mutator->varno, view->nkeys + (mutator->ranks != NULL ? mutator->ranks[a] : a) + 1,
									aggref->aggtype, -1, aggref->aggcollid, mutator->sublevels);
		}
	elog(ERROR, "aggregate not found in the compiled view");
	return NULL; /* keep the compiler quiet */
}

/* GROUPING(): a bit for each argument, set where the row's grouping set has it not. */
static Node *
outputs_grouping(const OutputsMutator *mutator, const GroupingFunc *grouping)
{
	const CompiledView *view = mutator->view;
	CaseExpr		   *result = makeNode(CaseExpr);

	if (view->nsets == 0)
		return (Node *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(0), false, true);
	result->casetype = INT4OID;
	result->location = -1;
	for (int s = 0; s < view->nsets; s++)
	{
		CaseWhen *when = makeNode(CaseWhen);
		int32	  bits = 0;
		ListCell *lc;

		foreach (lc, grouping->refs)
		{
			int		  k = 0;
			ListCell *group;

			foreach (group, view->query->groupClause)
			{
				if (lfirst_node(SortGroupClause, group)->tleSortGroupRef == lfirst_int(lc))
					break;
				k++;
			}
			bits = (bits << 1) | ((view->sets[s] & ((uint32) 1 << k)) == 0);
		}
		when->expr =
			make_opclause(Int4EqualOperator, BOOLOID, false, (Expr *) outputs_key_var(mutator, view->set_key),
						  (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(s), false, true),
						  InvalidOid, InvalidOid);
		when->result = (Expr *) makeConst(INT4OID, -1, InvalidOid, sizeof(int32), Int32GetDatum(bits), false, true);
		when->location = -1;
		result->args = lappend(result->args, when);
	}
	result->defresult = (Expr *) makeNullConst(INT4OID, -1, InvalidOid);
	return (Node *) result;
}

static Node *
outputs_mutate(Node *node, OutputsMutator *mutator)
{
	int k;

	if (node == NULL)
		return NULL;
	k = outputs_find_key(mutator, node);
	if (k >= 0)
		return (Node *) outputs_key_var(mutator, k);
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == mutator->sublevels)
		return outputs_aggregate_var(mutator, (Aggref *) node);
	if (IsA(node, GroupingFunc) && ((GroupingFunc *) node)->agglevelsup == mutator->sublevels)
		return outputs_grouping(mutator, (GroupingFunc *) node);
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == mutator->sublevels)
		elog(ERROR, "a column of the stream is left above the aggregation");
	if (IsA(node, Query))
	{
		Node *result;

		mutator->sublevels++;
		result = (Node *) query_tree_mutator((Query *) node, outputs_mutate, mutator, 0);
		mutator->sublevels--;
		return result;
	}
	return expression_tree_mutator(node, outputs_mutate, mutator);
}

Node *
streamext_outputs_over(const CompiledView *view, Node *node, Index varno)
{
	OutputsMutator mutator = { .view = view, .varno = varno };

	return outputs_mutate(node, &mutator);
}

Query *
streamext_shard_outputs(const CompiledView *view, RangeTblEntry *entry, int *order)
{
	OutputsMutator mutator = { .view = view, .varno = 1, .ranks = palloc(sizeof(int) * Max(view->naggs, 1)) };
	Query		  *query = copyObject(view->query);
	RangeTblRef	  *ref = makeNode(RangeTblRef);

	for (int a = 0; a < view->naggs; a++)
		mutator.ranks[a] = -1;
	ref->rtindex = 1;
	query->targetList = (List *) outputs_mutate((Node *) query->targetList, &mutator);
	query->jointree = makeFromExpr(list_make1(ref), outputs_mutate(query->havingQual, &mutator));
	query->havingQual = NULL;
	query->rtable = list_make1(entry);
#if PG_VERSION_NUM >= 160000
	query->rteperminfos = NIL;
#endif
	query->groupClause = NIL;
	query->groupingSets = NIL;
	query->groupDistinct = query->hasAggs = false;
	if (mutator.nranks != view->naggs)
		elog(ERROR, "an aggregate of the view is nowhere in its query");
	for (int a = 0; a < view->naggs; a++)
		order[mutator.ranks[a]] = a;
	return query;
}
