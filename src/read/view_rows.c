/*
 * read/view_rows.c
 *		The function streamext_internal.view_rows: what stands in a query where a continuous view is read, and how it is known again. What the functions promise
 *		is in read/scan.h.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/own_schema.h"
#include "read/scan.h"

PG_FUNCTION_INFO_V1(streamext_view_rows);

/* streamext_internal.view_rows(oid): a place in plans that only the custom scan fills. */
Datum
streamext_view_rows(PG_FUNCTION_ARGS)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("streamext_internal.view_rows cannot be called"),
					errhint("Select from the continuous view.")));
	PG_RETURN_NULL();
}

bool
streamext_is_view_rows(Oid funcid)
{
	HeapTuple tuple;
	bool	  result = false;

	if (funcid < FirstNormalObjectId)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		return false;
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId &&
		strcmp(NameStr(((Form_pg_proc) GETSTRUCT(tuple))->proname), "view_rows") == 0)
		result = streamext_own_schema(((Form_pg_proc) GETSTRUCT(tuple))->pronamespace);
	ReleaseSysCache(tuple);
	return result;
}

Oid
streamext_view_rows_view(const RangeTblEntry *rte)
{
	FuncExpr *call;

	if (rte->rtekind != RTE_FUNCTION || list_length(rte->functions) != 1)
		return InvalidOid;
	call = (FuncExpr *) linitial_node(RangeTblFunction, rte->functions)->funcexpr;
	if (call == NULL || !IsA(call, FuncExpr) || list_length(call->args) != 1 || !IsA(linitial(call->args), Const) ||
		!streamext_is_view_rows(call->funcid))
		return InvalidOid;
	return DatumGetObjectId(linitial_node(Const, call->args)->constvalue);
}

/* Past the rights on its schema: who may read the view needs none there. */
static Oid
view_rows_function(void)
{
	Oid argtypes[] = { OIDOID };
	Oid function = streamext_own_function("view_rows", argtypes, lengthof(argtypes));

	if (!OidIsValid(function))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_FUNCTION),
						errmsg("function streamext_internal.view_rows(oid) does not exist")));
	return function;
}

static void
view_rows_add_column(RangeTblEntry *rte, RangeTblFunction *function, const char *name, Oid type, int32 typmod,
					 Oid collation)
{
	function->funccolcount++;
	function->funccolnames = lappend(function->funccolnames, makeString(pstrdup(name)));
	function->funccoltypes = lappend_oid(function->funccoltypes, type);
	function->funccoltypmods = lappend_int(function->funccoltypmods, typmod);
	function->funccolcollations = lappend_oid(function->funccolcollations, collation);
	rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(name)));
}

RangeTblEntry *
streamext_view_rows_entry(const CompiledView *view)
{
	RangeTblEntry	 *rte = makeNode(RangeTblEntry);
	RangeTblFunction *function = makeNode(RangeTblFunction);
	Const			 *arg = makeConst(OIDOID, -1, InvalidOid, sizeof(Oid), ObjectIdGetDatum(view->relid), false, true);
	FuncExpr		 *call =
		makeFuncExpr(view_rows_function(), RECORDOID, list_make1(arg), InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL);
	char	 *name = get_rel_name(view->relid);
	ListCell *lc;

	call->funcretset = true;
	function->funcexpr = (Node *) call;
	rte->rtekind = RTE_FUNCTION;
	rte->functions = list_make1(function);
	rte->eref = makeAlias(name != NULL ? name : "view", NIL);
	rte->inFromCl = true;
	foreach (lc, view->outputs)
		view_rows_add_column(rte, function, "column", exprType(lfirst(lc)), exprTypmod(lfirst(lc)),
							 exprCollation(lfirst(lc)));
	for (int k = 0; k < view->nkeys; k++)
		view_rows_add_column(rte, function, view->keys[k].name, view->keys[k].type, view->keys[k].typmod,
							 view->keys[k].collation);
	for (int a = 0; a < view->naggs; a++)
	{
		Aggref *aggref = view->aggs[a].aggref;
		char   *function_name = get_func_name(aggref->aggfnoid);

		view_rows_add_column(rte, function, function_name != NULL ? function_name : "agg", aggref->aggtype, -1,
							 aggref->aggcollid);
	}
	return rte;
}
