/*
 * read/shard_rows.c
 *		The rows that a shard gives of a continuous view: its groups as they are kept, keys and partials, for streamext.shard_view.
 *
 * They stand in an ordinary view that streamext.shard_request makes (sql/shard_prepare.c): SELECT streamext.shard_rows_of(fingerprint),
 * streamext.shard_key(1, NULL::type), ..., streamext.shard_partial(1), ... FROM the continuous view. The planner hook lets the view's scan give
 * just that, before HAVING, output expressions, DISTINCT, ORDER BY and LIMIT: these are for all shards' rows together. So whoever the view of
 * rows belongs to needs the rights that streamext.partial asks for. The fingerprint is that of the continuous view's query when the view of
 * rows was made; rows of another query would be merged by the wrong one, and are refused.
 */
#include "base/streamext.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "access/relation.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/pg_locale.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "mb/pg_wchar.h"

#include "base/own_schema.h"
#include "aggregate/portable.h"
#include "read/scan.h"
#include "read/shard_rows.h"
#include "shared/shmem.h"
#include "shared/view_slot.h"

PG_FUNCTION_INFO_V1(streamext_shard_id);
PG_FUNCTION_INFO_V1(streamext_shard_refuse);

/* This database among all there are. */
char *
streamext_shard_name(void)
{
	return psprintf(UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
}

Datum
streamext_shard_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(streamext_shard_name()));
}

Datum
streamext_shard_refuse(PG_FUNCTION_ARGS)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("this function stands in views that streamext.shard_view makes and nowhere else"),
					errhint("Call streamext.shard_view.")));
	PG_RETURN_NULL();
}

char *
streamext_shard_query_text(Oid viewoid)
{
	Relation rel = relation_open(viewoid, AccessShareLock);
	Query	*query = copyObject(get_view_query(rel));
	int		 level = streamext_portable_pin();
	char	*text = pg_get_querydef(query, false);

	AtEOXact_GUC(false, level);
	relation_close(rel, NoLock);
	return text;
}

char *
streamext_shard_fingerprint(Oid viewoid)
{
	char *text = streamext_shard_query_text(viewoid);

	return psprintf("%016llx", (unsigned long long) hash_bytes_extended((unsigned char *) text, strlen(text), 0));
}

/* ---- what a shard must have whole ---- */

/* Windows and sessions that ended by then are gone from here, or in part; DT_NOBEGIN: none. */
static TimestampTz
shard_gone_until(const CompiledView *view)
{
	TimestampTz until = DT_NOBEGIN;

	if (!streamext_window_has_ends(&view->window) && view->window.kind != WINDOW_SESSION)
		return until;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *slot = &streamext_shared->views[i];
		const ViewSlot *content;

		if (!slot->id.in_use || slot->id.retained || slot->id.dboid != MyDatabaseId || slot->id.viewoid != view->relid)
			continue;
		streamext_stream_lock_shared(&streamext_shared->streams[slot->id.stream]);
		content = streamext_view_content(slot, view);
		if (content != NULL)
			until = Max(until, Max(content->history.floor, content->counted.state.horizon));
		LWLockRelease(streamext_shared->streams[slot->id.stream].lock);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return until;
}

void
streamext_shard_check_whole(const CompiledView *view)
{
	TimestampTz gone;

	if (view->options.retention > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("continuous view \"%s\" cannot be merged from several servers: with streamext.retention a window "
					"may be gone from one server and not from another",
					get_rel_name(view->relid)),
			 errhint(
				 "ALTER VIEW ... RESET (streamext.retention) on each server, and restrict the window where the answer is "
				 "read, which is sent to the servers. Closed windows are kept on disk.")));
	gone = shard_gone_until(view);
	if (gone != DT_NOBEGIN)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" cannot be merged from several servers: it had streamext.retention",
						get_rel_name(view->relid)),
				 errdetail("Windows that ended by %s are gone here, and others may be gone elsewhere.",
						   timestamptz_to_str(gone)),
				 errhint("SELECT streamext.rebuild on each server counts it anew from what the topic still holds.")));
}

/* ---- texts ---- */

char *
streamext_shard_outputs_text(const CompiledView *view, int *order)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	char		  *text;
	int			   level;

	rte->rtekind = RTE_CTE;
	rte->ctename = SHARD_GROUPS_TOKEN;
	rte->alias = makeAlias("m", NIL);
	rte->eref = makeAlias("m", NIL);
	rte->inFromCl = true;
	for (int k = 0; k < view->nkeys; k++)
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(psprintf("k%d", k + 1)));
	for (int a = 0; a < view->naggs; a++)
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(psprintf("a%d", a + 1)));
	level = streamext_portable_pin();
	text = pg_get_querydef(streamext_shard_outputs(view, rte, order), false);
	AtEOXact_GUC(false, level);
	return text;
}

char *
streamext_shard_replace(const char *text, const char *token, const char *by)
{
	const char	  *at = strstr(text, token);
	StringInfoData buf;

	if (at == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR), errmsg("a server's answer to streamext.shard_view is not understood")));
	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, text, at - text);
	appendStringInfoString(&buf, by);
	appendStringInfoString(&buf, at + strlen(token));
	return buf.data;
}

/* ---- the query ---- */

typedef struct ShardContext
{
	Oid rows_of, key, partial, last; /* functions that stand in views of rows */
	Oid state;						 /* streamext_internal.partial_state */
	/* of the query at hand */
	const CompiledView *view;
	Index				varno; /* of the view's subquery */
	Oid					reader;
	int				   *order; /* of the aggregates on all shards: their numbers here */
} ShardContext;

static bool
shard_is_call(Node *node, Oid function)
{
	return node != NULL && IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == function;
}

static int
shard_number(FuncExpr *call)
{
	Const *number = call->args == NIL ? NULL : linitial(call->args);

	return number != NULL && IsA(number, Const) && !number->constisnull ? DatumGetInt32(number->constvalue) - 1 : -1;
}

static void
shard_changed(const ShardContext *context)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("continuous view \"%s\" is not as it was when streamext.shard_view was called",
						   get_rel_name(context->view->relid)),
					errhint("Call streamext.shard_view again.")));
}

static Expr *
shard_expr(ShardContext *context, Expr *expr)
{
	const CompiledView *view = context->view;
	MergeColumn			column = { view, 0, context->reader };
	FuncExpr		   *call = (FuncExpr *) expr;
	int					n = IsA(expr, FuncExpr) ? shard_number(call) : -1;

	if (shard_is_call((Node *) expr, context->rows_of))
	{
		Const *given = linitial(call->args);

		if (!IsA(given, Const) || given->constisnull ||
			strcmp(TextDatumGetCString(given->constvalue), streamext_shard_fingerprint(view->relid)) != 0)
			shard_changed(context);
		return (Expr *) makeConst(TEXTOID, -1, DEFAULT_COLLATION_OID, -1, CStringGetTextDatum(streamext_shard_name()),
								  false, false);
	}
	if (shard_is_call((Node *) expr, context->key))
	{
		if (n < 0 || n >= view->nkeys || call->funcresulttype != view->keys[n].type)
			shard_changed(context);
		return (Expr *) makeVar(context->varno, n + 1, view->keys[n].type, view->keys[n].typmod,
								view->keys[n].collation, 0);
	}
	if (shard_is_call((Node *) expr, context->last))
	{
		if (view->window.kind != WINDOW_SESSION)
			shard_changed(context);
		return (Expr *) makeVar(context->varno, view->nkeys + view->naggs + 1, TIMESTAMPTZOID, -1, InvalidOid, 0);
	}
	Assert(shard_is_call((Node *) expr, context->partial));
	if (n < 0 || n >= view->naggs)
		shard_changed(context);
	column.number = context->order[n];
	return (Expr *) streamext_partial_of_state(
		context->state, &column,
		(Expr *) makeVar(context->varno, view->nkeys + column.number + 1, BYTEAOID, -1, InvalidOid, 0), false);
}

/* The subquery of the continuous view gives keys and states of all its groups, and nothing else of it is left. */
static void
shard_strip(Query *query, Index varno, RangeTblEntry *rte, const CompiledView *view)
{
	List *names = NIL;

	streamext_merge_add_states(rt_fetch(varno, query->rtable), view);
	query->targetList = NIL;
	for (int k = 0; k < view->nkeys; k++)
	{
		const KeySpec *key = &view->keys[k];
		Var			  *var = makeVar(varno, k + 1, key->type, key->typmod, key->collation, 0);

		query->targetList = lappend(query->targetList, makeTargetEntry((Expr *) var, k + 1, pstrdup("key"), false));
		names = lappend(names, makeString(pstrdup("key")));
	}
	for (int a = 0; a < view->naggs; a++)
	{
		Var *var = makeVar(varno, view->nkeys + view->naggs + a + 1, BYTEAOID, -1, InvalidOid, 0);

		query->targetList =
			lappend(query->targetList, makeTargetEntry((Expr *) var, view->nkeys + a + 1, pstrdup("state"), false));
		names = lappend(names, makeString(pstrdup("state")));
	}
	if (view->window.kind == WINDOW_SESSION)
	{
		Var *var = makeVar(varno, streamext_merge_add_last(rt_fetch(varno, query->rtable), view), TIMESTAMPTZOID, -1,
						   InvalidOid, 0);

		query->targetList = lappend(
			query->targetList, makeTargetEntry((Expr *) var, view->nkeys + view->naggs + 1, pstrdup("last"), false));
		names = lappend(names, makeString(pstrdup("last")));
	}
	query->jointree->quals = NULL;
	query->distinctClause = query->sortClause = query->windowClause = query->cteList = NIL;
	query->limitCount = query->limitOffset = NULL;
	query->hasDistinctOn = query->hasWindowFuncs = query->hasSubLinks = query->hasTargetSRFs = false;
	rte->eref->colnames = names;
}

/* A query of shard_* calls over a continuous view that has become a scan; its parts, or false. */
static bool
shard_find(ShardContext *context, Query *query, RangeTblEntry **entry, Index *rows)
{
	RangeTblRef *ref = query->jointree == NULL || list_length(query->jointree->fromlist) != 1
						   ? NULL
						   : linitial(query->jointree->fromlist);
	Query		*sub;

	if (ref == NULL || !IsA(ref, RangeTblRef))
		return false;
	*entry = rt_fetch(ref->rtindex, query->rtable);
	sub = (*entry)->rtekind == RTE_SUBQUERY ? (*entry)->subquery : NULL;
	if (sub == NULL || sub->jointree == NULL || list_length(sub->jointree->fromlist) != 1 ||
		!IsA(linitial(sub->jointree->fromlist), RangeTblRef))
		return false;
	*rows = ((RangeTblRef *) linitial(sub->jointree->fromlist))->rtindex;
	if (rt_fetch(*rows, sub->rtable)->rtekind != RTE_FUNCTION ||
		!OidIsValid(streamext_view_rows_view(rt_fetch(*rows, sub->rtable))))
		return false;
	context->view = streamext_view_cached(streamext_view_rows_view(rt_fetch(*rows, sub->rtable)), CurrentMemoryContext);
	context->varno = ref->rtindex;
	context->reader = streamext_merge_reader_of(query, *entry);
	return true;
}

/*
 * Nothing but calls over the view: the numbers of the view's columns change, and no expression may show a state as it is, so there is no
 * other to refer to them.
 */
static bool
shard_is_plain(const ShardContext *context, const Query *query)
{
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		if (!shard_is_call(expr, context->rows_of) && !shard_is_call(expr, context->key) &&
			!shard_is_call(expr, context->partial) && !shard_is_call(expr, context->last))
			return false;
	}
	return query->commandType == CMD_SELECT && query->jointree->quals == NULL && query->setOperations == NULL &&
		   query->groupClause == NIL && query->groupingSets == NIL && query->havingQual == NULL &&
		   query->windowClause == NIL && query->distinctClause == NIL && query->sortClause == NIL &&
		   query->limitCount == NULL && query->limitOffset == NULL && query->rowMarks == NIL && query->cteList == NIL &&
		   query->returningList == NIL && !query->hasAggs && !query->hasSubLinks;
}

static void
shard_expand_query(ShardContext *context, Query *query)
{
	RangeTblEntry *entry;
	Index		   rows;
	bool		   wanted = false;
	ListCell	  *lc;

	foreach (lc, query->targetList)
		wanted |= shard_is_call((Node *) lfirst_node(TargetEntry, lc)->expr, context->rows_of);
	/* if not, the functions themselves say so */
	if (!wanted || !shard_is_plain(context, query) || !shard_find(context, query, &entry, &rows))
		return;
	streamext_partial_check_rights(context->view->relid, context->reader);
	streamext_shard_check_whole(context->view);
	context->order = palloc(sizeof(int) * Max(context->view->naggs, 1));
	(void) streamext_shard_outputs(context->view, makeNode(RangeTblEntry), context->order);
	shard_strip(entry->subquery, rows, entry, context->view);
	foreach (lc, query->targetList)
		lfirst_node(TargetEntry, lc)->expr = shard_expr(context, lfirst_node(TargetEntry, lc)->expr);
}

static bool
shard_walk(Node *node, ShardContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		shard_expand_query(context, (Query *) node);
		return query_tree_walker((Query *) node, shard_walk, context, 0);
	}
	return expression_tree_walker(node, shard_walk, context);
}

void
streamext_shard_expand(Query *query, Oid state)
{
	ShardContext context = { .state = state };
	Oid			 text = TEXTOID, number = INT4OID;
	Oid			 key[] = { INT4OID, ANYELEMENTOID };

	context.rows_of = streamext_own_function("shard_rows_of", &text, 1);
	context.key = streamext_own_function("shard_key", key, lengthof(key));
	context.partial = streamext_own_function("shard_partial", &number, 1);
	context.last = streamext_own_function("shard_last", NULL, 0);
	if (OidIsValid(context.rows_of))
		shard_walk((Node *) query, &context);
}
