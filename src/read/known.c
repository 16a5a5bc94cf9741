/*
 * read/known.c
 *		What is known of a scan's look-up and bounds before its statement runs, and the group that a look-up is for.
 *
 * All copies of a statement are of one moment, its start, and small where it is known by then which group is wanted. But the
 * scan may be in a branch that never runs, where PostgreSQL would evaluate nothing: so an error is not raised here. The value is
 * then unknown, as one that comes from a join is: the scan evaluates it when its first row is asked for.
 */
#include "base/streamext.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"

#include "read/scan.h"

static bool
known_is_builtin(Oid function)
{
	return function < FirstNormalObjectId;
}

/* The types' own functions: of records and arrays of others' types they call others. */
static bool
known_is_builtin_cast(const CoerceViaIO *cast)
{
	Oid from = exprType((Node *) cast->arg);

	return from < FirstNormalObjectId && from != RECORDOID && from != RECORDARRAYOID &&
		   cast->resulttype < FirstNormalObjectId;
}

static bool
known_unknown_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Const:
		case T_RelabelType:
		case T_CoalesceExpr:
		case T_List:
			break;
		case T_Param:
			if (((Param *) node)->paramkind != PARAM_EXTERN)
				return true;
			break;
		case T_SQLValueFunction:
			break;
		case T_FuncExpr:
			if (!known_is_builtin(((FuncExpr *) node)->funcid))
				return true;
			break;
		case T_OpExpr:
			if (!known_is_builtin(get_opcode(((OpExpr *) node)->opno)))
				return true;
			break;
		case T_CoerceViaIO:
			if (!known_is_builtin_cast((CoerceViaIO *) node))
				return true;
			break;
		default:
			return true;
	}
	return expression_tree_walker(node, known_unknown_walker, context);
}

bool
streamext_read_is_known(Node *expr)
{
	return !known_unknown_walker(expr, NULL);
}

/* Constants and parameters raise nothing. */
static bool
known_is_plain(Node *expr)
{
	while (expr != NULL && IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	return expr == NULL || IsA(expr, Const) || IsA(expr, Param);
}

static void
known_evaluate(EState *estate, ExprContext *econtext, List *exprs, Datum *values, bool *nulls)
{
	ListCell *lc;
	int		  n = 0;

	foreach (lc, exprs)
	{
		ExprState *state = ExecInitExprWithParams(lfirst(lc), estate->es_param_list_info);

		values[n] = ExecEvalExprSwitchContext(state, econtext, &nulls[n]);
		n++;
	}
}

/* Errors that have nothing to do with the expression. */
static bool
known_is_general_error(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_INTERNAL_ERROR:
			return true;
		default:
			return false;
	}
}

/* In a subtransaction; false: it has raised. */
static bool
known_try(EState *estate, ExprContext *econtext, List *exprs, Datum *values, bool *nulls)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		known_evaluate(estate, econtext, exprs, values, nulls);
		ReleaseCurrentSubTransaction();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(cxt);
		CurrentResourceOwner = owner;
		if (known_is_general_error(error->sqlerrcode))
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return done;
}

bool
streamext_read_known(EState *estate, ExprContext *econtext, List *exprs, Datum *values, bool *nulls)
{
	bool	  plain = true;
	ListCell *lc;

	foreach (lc, exprs)
	{
		if (!streamext_read_is_known(lfirst(lc)))
			return false;
		plain = plain && known_is_plain(lfirst(lc));
	}
	if (!plain && !IsInParallelMode())
		return known_try(estate, econtext, exprs, values, nulls);
	if (plain)
		known_evaluate(estate, econtext, exprs, values, nulls);
	return plain;
}

/* ---- the group that is looked up ---- */

/* An integer value as one of the key's type; false if it is out of range. Other types are what the key's are. */
static bool
known_convert_value(const KeySpec *key, Oid type, Datum *value)
{
	int64 n;

	if (type == key->type)
		return true;
	switch (type)
	{
		case INT2OID:
			n = DatumGetInt16(*value);
			break;
		case INT4OID:
			n = DatumGetInt32(*value);
			break;
		case INT8OID:
			n = DatumGetInt64(*value);
			break;
		default:
			return true;
	}
	switch (key->type)
	{
		case INT2OID:
			*value = Int16GetDatum((int16) n);
			return n >= PG_INT16_MIN && n <= PG_INT16_MAX;
		case INT4OID:
			*value = Int32GetDatum((int32) n);
			return n >= PG_INT32_MIN && n <= PG_INT32_MAX;
		case INT8OID:
			*value = Int64GetDatum(n);
			return true;
		default:
			return true;
	}
}

ScanProbe
streamext_read_probe(const ScanRead *scan, const Datum *values, const bool *nulls)
{
	const ViewRead *read = scan->read;
	ScanProbe		probe = { 0 };
	Datum			key_values[STREAMEXT_MAX_KEYS];
	bool			key_nulls[STREAMEXT_MAX_KEYS];
	uint32			capacity = 0;
	IdentityScope	scope;
	bool			entered;

	for (int i = 0; i < list_length(scan->prune.keys); i++)
	{
		int k = list_nth_int(scan->prune.keys, i);

		key_values[k] = values[i];
		key_nulls[k] = nulls[i];
		if (nulls[i] || !known_convert_value(&read->view->keys[k], list_nth_oid(scan->prune.types, i), &key_values[k]))
			probe.none = true;
	}
	if (probe.none)
		return probe;
	probe.key_size = streamext_key_serialize(read->view, key_values, key_nulls, &probe.key, &capacity);
	entered = streamext_read_enter(read->view, &scope);
	probe.hash = streamext_key_hash(read->matcher, key_values, key_nulls, probe.key, probe.key_size);
	probe.bucket = streamext_key_bucket(read->matcher, probe.key, probe.key_size);
	streamext_read_leave(entered, &scope);
	return probe;
}
