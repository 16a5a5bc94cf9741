/*
 * decode/plain.c
 *		What may raise without a subtransaction around it (decode/plain.h).
 *
 * A subtransaction for each record that raises costs some ten microseconds, and records that raise are what anybody may send. json_populate_record copies
 * the descriptors of composite types; record_in holds them while it reads, so composites are plain in JSON only.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/execnodes.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "decode/plain.h"

/* ---- values ---- */

/* PostgreSQL's own types whose input functions, and whose immutable functions in C, need nothing but memory. */
static bool
plain_type(Oid type)
{
	switch (type)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case BYTEAOID:
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case UUIDOID:
		case INETOID:
		case JSONOID:
		case JSONBOID:
			return true;
		default:
			return false;
	}
}

static bool plain_conversion(Oid type, bool json, List **seen);

/* seen: composite types that have been looked at. Each once: the ways to one may double with each level. */
static bool
plain_members(Oid type, List **seen)
{
	TupleDesc desc;
	bool	  plain = true;

	if (list_member_oid(*seen, type))
		return true;
	*seen = lappend_oid(*seen, type);
	desc = lookup_rowtype_tupdesc(type, -1);
	for (int i = 0; i < desc->natts && plain; i++)
		plain = TupleDescAttr(desc, i)->attisdropped || plain_conversion(TupleDescAttr(desc, i)->atttypid, true, seen);
	ReleaseTupleDesc(desc);
	return plain;
}

/* Its checks, and those of the domains that it is made of. */
static bool
plain_checks(Oid domain)
{
	/* it lasts as long as the context, which lets go of it */
	DomainConstraintRef *checks = palloc(sizeof(DomainConstraintRef));
	ListCell			*lc;

	InitDomainConstraintRef(domain, checks, CurrentMemoryContext, false);
	foreach (lc, checks->constraints)
	{
		DomainConstraintState *check = lfirst(lc);

		if (check->constrainttype != DOM_CONSTRAINT_NOTNULL && !streamext_expr_is_plain((Node *) check->check_expr))
			return false;
	}
	return true;
}

static bool
plain_conversion(Oid type, bool json, List **seen)
{
	Oid element;

	check_stack_depth();
	if (plain_type(type))
		return true;
	element = get_element_type(type);
	if (OidIsValid(element))
		return plain_conversion(element, json, seen);
	switch (get_typtype(type))
	{
		case TYPTYPE_ENUM:
			return true;
		case TYPTYPE_DOMAIN:
			return plain_checks(type) && plain_conversion(getBaseType(type), json, seen);
		case TYPTYPE_COMPOSITE:
			return json && plain_members(type, seen);
		default:
			return false;
	}
}

bool
streamext_value_converts_plainly(Oid type, bool json)
{
	List *seen = NIL;
	bool  plain = plain_conversion(type, json, &seen);

	list_free(seen);
	return plain;
}

/* ---- expressions ---- */

static bool
costly_function(Oid function, void *context)
{
	HeapTuple	 tuple;
	Form_pg_proc form;
	bool		 plain;

	if (function >= FirstNormalObjectId)
		return true;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return true;
	form = (Form_pg_proc) GETSTRUCT(tuple);
	plain = form->prolang == INTERNALlanguageId && form->provolatile == PROVOLATILE_IMMUTABLE && !form->proretset;
	ReleaseSysCache(tuple);
	return !plain;
}

static bool
costly_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_List:
			return expression_tree_walker(node, costly_walker, context);
		case T_FuncExpr:
		case T_OpExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
			if (check_functions_in_node(node, costly_function, NULL))
				return true;
			break;
		case T_Var:
		case T_Const:
		case T_RelabelType:
		case T_CoerceViaIO: /* input and output of plain types, whatever they are declared as */
		case T_BoolExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_CaseExpr:
		case T_CaseTestExpr:
		case T_CoerceToDomainValue:
		case T_CoalesceExpr:
			break;
		case T_CaseWhen:
			return expression_tree_walker(node, costly_walker, context);
		default:
			return true;
	}
	return !plain_type(exprType(node)) || expression_tree_walker(node, costly_walker, context);
}

bool
streamext_expr_is_plain(Node *expr)
{
	return !costly_walker(expr, NULL);
}
