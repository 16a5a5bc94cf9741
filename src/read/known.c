/*
 * read/known.c
 *		What is known of a scan's look-up and bounds before its statement runs.
 *
 * All copies of a statement are of one moment, its start, and small where it is known by then which group is wanted. But the
 * scan may be in a branch that never runs, where PostgreSQL would evaluate nothing: so an error is not raised here. The value is
 * then unknown, as one that comes from a join is: the scan evaluates it when its first row is asked for.
 */
#include "base/streamext.h"

#include "access/transam.h"
#include "access/xact.h"
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

static bool
known_unknown_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Const:
		case T_RelabelType:
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
