/*
 * view/builtin.c
 *		Whose code it takes to read a view's state.
 *
 * What has one of PostgreSQL's own OIDs is trusted as PostgreSQL is; who changed that was a superuser. So is what stands in the extension's
 * schema, in which nobody else may create anything.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/identity.h"
#include "base/own_schema.h"
#include "decode/value.h"
#include "view/builtin.h"

static bool
builtin_function(Oid function)
{
	return function < FirstNormalObjectId || streamext_own_schema(get_func_namespace(function));
}

/* Of an anonymous row nobody knows the columns. */
static bool
builtin_type(Oid type)
{
	HeapTuple tuple;
	Oid namespace;

	if (type < FirstNormalObjectId)
		return type != RECORDOID && type != RECORDARRAYOID;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	if (!HeapTupleIsValid(tuple))
		return false;
	namespace = ((Form_pg_type) GETSTRUCT(tuple))->typnamespace;
	ReleaseSysCache(tuple);
	return streamext_own_schema(namespace);
}

static bool
builtin_sort(const List *clauses)
{
	ListCell *lc;

	foreach (lc, clauses)
	{
		const SortGroupClause *clause = lfirst_node(SortGroupClause, lc);

		if (clause->eqop >= FirstNormalObjectId || clause->sortop >= FirstNormalObjectId)
			return false;
	}
	return true;
}

/* Its functions come with it. Arguments are evaluated when rows are folded. */
static bool
builtin_aggregate(const AggSpec *spec)
{
	const Aggref *aggref = spec->aggref;
	ListCell	 *lc;

	if (spec->mode == AGG_NATIVE)
		return true;
	if (!builtin_function(aggref->aggfnoid) || !builtin_type(aggref->aggtype) ||
		(OidIsValid(spec->transtype) && !builtin_type(spec->transtype)) || !builtin_sort(aggref->aggorder) ||
		!builtin_sort(aggref->aggdistinct))
		return false;
	foreach (lc, aggref->aggargtypes)
		if (!builtin_type(lfirst_oid(lc)))
			return false;
	foreach (lc, spec->args)
		if (!builtin_type(exprType(lfirst(lc))))
			return false;
	return true;
}

bool
streamext_view_is_builtin(const CompiledView *view)
{
	for (int k = 0; k < view->nkeys; k++)
	{
		const KeySpec *key = &view->keys[k];

		if (!key->is_window && !key->bytewise &&
			(!builtin_type(key->type) || key->eqfunc >= FirstNormalObjectId || key->hashfunc >= FirstNormalObjectId))
			return false;
	}
	for (int a = 0; a < view->naggs; a++)
		if (!builtin_aggregate(&view->aggs[a]))
			return false;
	return true;
}

static bool
c_function(Oid function)
{
	HeapTuple tuple;
	Oid		  language;

	if (function < FirstNormalObjectId)
		return true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return false;
	language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
	ReleaseSysCache(tuple);
	return language == ClanguageId || language == INTERNALlanguageId;
}

/* What is inside of others may have operators of its own. */
static bool
c_type(Oid type)
{
	char kind = get_typtype(type);

	if (builtin_type(type))
		return true;
	return kind == TYPTYPE_ENUM || (kind == TYPTYPE_BASE && !OidIsValid(get_element_type(type)));
}

static bool
c_aggregate(const AggSpec *spec)
{
	const Oid parts[] = { spec->transfn, spec->finalfn, spec->combinefn, spec->serialfn, spec->deserialfn };
	ListCell *lc;

	if (spec->mode == AGG_NATIVE)
		return true;
	for (int i = 0; i < lengthof(parts); i++)
		if (OidIsValid(parts[i]) && !c_function(parts[i]))
			return false;
	if (!c_type(spec->aggref->aggtype) || (OidIsValid(spec->transtype) && !c_type(spec->transtype)) ||
		!builtin_sort(spec->aggref->aggorder) || !builtin_sort(spec->aggref->aggdistinct))
		return false;
	foreach (lc, spec->aggref->aggargtypes)
		if (!c_type(lfirst_oid(lc)))
			return false;
	foreach (lc, spec->args)
		if (!c_type(exprType(lfirst(lc))))
			return false;
	return true;
}

bool
streamext_view_is_in_c(const CompiledView *view)
{
	for (int k = 0; k < view->nkeys; k++)
	{
		const KeySpec *key = &view->keys[k];

		if (!key->is_window && !key->bytewise &&
			(!c_type(key->type) || !c_function(key->eqfunc) || !c_function(key->hashfunc)))
			return false;
	}
	for (int a = 0; a < view->naggs; a++)
		if (!c_aggregate(&view->aggs[a]))
			return false;
	return true;
}

/* ---- a superuser's view ---- */

static bool trust_walker(Node *node, List **seen);

static bool
trust_function(Oid function, void *context)
{
	return streamext_identity_mistrusts_function(function);
}

/* A view below the query: its functions run as who reads it. `seen`: OIDs of those that were looked at. */
static bool
trust_view(Oid relid, List **seen)
{
	Relation rel = list_member_oid(*seen, relid) ? NULL : try_relation_open(relid, AccessShareLock);
	bool	 result = false;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (rel == NULL)
		return false;
	*seen = lappend_oid(*seen, relid);
	if (rel->rd_rel->relkind == RELKIND_VIEW && rel->rd_rel->relhasrules && rel->rd_rules != NULL)
		result = trust_walker((Node *) get_view_query(rel), seen);
	relation_close(rel, NoLock);
	return result;
}

static bool
trust_walker(Node *node, List **seen)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, trust_walker, seen, QTW_EXAMINE_RTES_BEFORE);
	if (IsA(node, RangeTblEntry))
	{
		const RangeTblEntry *rte = (RangeTblEntry *) node;

		/* not those that a view's rule has of itself, nor what was pulled up */
		return rte->rtekind == RTE_RELATION && rte->relkind == RELKIND_VIEW && rte->inFromCl &&
			   trust_view(rte->relid, seen);
	}
	if (check_functions_in_node(node, trust_function, NULL) ||
		(IsA(node, CoerceToDomain) && streamext_identity_mistrusts_type(((CoerceToDomain *) node)->resulttype)))
		return true;
	return expression_tree_walker(node, trust_walker, seen);
}

bool
streamext_query_mistrusts(Query *query)
{
	List *seen = NIL;

	return superuser() && trust_walker((Node *) query, &seen);
}

bool
streamext_view_mistrusts_rows(Oid view)
{
	List *seen = NIL;

	return superuser() && (trust_view(view, &seen) || streamext_identity_mistrusts_columns(view));
}

void
streamext_view_check_trust(const CompiledView *view)
{
	if (streamext_query_mistrusts(view->query))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("the view is a superuser's and calls functions of ordinary roles"),
						errhint("ALTER VIEW ... OWNER TO an ordinary role; it goes on by itself.")));
}
