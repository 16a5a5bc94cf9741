/*
 * aggregate/query.c
 *		The query of one aggregate, as the parser would make it.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"

#include "aggregate/mode.h"

Query *
streamext_aggregate_query(Aggref *aggref, RangeTblEntry *rte)
{
	Query		*query = makeNode(Query);
	RangeTblRef *ref = makeNode(RangeTblRef);

	ref->rtindex = 1;
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->hasAggs = true;
	query->rtable = list_make1(rte);
	query->jointree = makeFromExpr(list_make1(ref), NULL);
	query->targetList = list_make1(makeTargetEntry((Expr *) aggref, 1, "value", false));
	return query;
}
