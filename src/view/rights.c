/*
 * view/rights.c
 *		Who may read and write what a query names.
 *
 * PostgreSQL's own check ends with ExecutorCheckPerms_hook, whose users count on what their other hooks have noted of the
 * statement: pgaudit follows a stack of statements, which has none when a worker looks whether its view's owner may still
 * read the stream. So here, where no statement starts, only PostgreSQL's rights are looked at. Who reads a view, or runs a
 * join or `into`, passes the hook as with any statement.
 */
#include "base/streamext.h"

#include "access/relation.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/acl.h"
#include "utils/rel.h"
#include "utils/rls.h"

#include "base/relation.h"
#include "view/reads.h"
#include "view/flatten.h"
#include "view/rights.h"

bool
streamext_rights_check(Query *query, bool raise)
{
	ExecutorCheckPerms_hook_type hook = ExecutorCheckPerms_hook;
	bool						 allowed;

	ExecutorCheckPerms_hook = NULL;
	PG_TRY();
	{
#if PG_VERSION_NUM >= 160000
		allowed = ExecCheckPermissions(query->rtable, query->rteperminfos, raise);
#else
		allowed = ExecCheckRTPerms(query->rtable, raise);
#endif
	}
	PG_FINALLY();
	{
		ExecutorCheckPerms_hook = hook;
	}
	PG_END_TRY();
	return allowed;
}

static bool
rights_check_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, rights_check_walker, context);
	(void) streamext_rights_check((Query *) node, true);
	return query_tree_walker((Query *) node, rights_check_walker, context, QTW_IGNORE_JOINALIASES);
}

void
streamext_rights_check_all(Query *query)
{
	(void) rights_check_walker((Node *) query, NULL);
}

/* The query's own entries are asked as whoever asks. */
static void
rights_ask_as_user(Query *query)
{
	ListCell *cell;

#if PG_VERSION_NUM >= 160000
	foreach (cell, query->rteperminfos)
		lfirst_node(RTEPermissionInfo, cell)->checkAsUser = InvalidOid;
#else
	foreach (cell, query->rtable)
		lfirst_node(RangeTblEntry, cell)->checkAsUser = InvalidOid;
#endif
}

/* Those that would be asked as whoever asks are asked as that user; what is below another view stays that one's owner's. */
static void
rights_ask_as_owner(Query *query, Oid owner)
{
	ListCell *cell;

#if PG_VERSION_NUM >= 160000
	foreach (cell, query->rteperminfos)
	{
		RTEPermissionInfo *entry = lfirst(cell);
#else
	foreach (cell, query->rtable)
	{
		RangeTblEntry *entry = lfirst(cell);
#endif
		if (!OidIsValid(entry->checkAsUser))
			entry->checkAsUser = owner;
	}
}

bool
streamext_view_has_rights(const CompiledView *view, bool raise)
{
	Query *query = copyObject(view->query);

	rights_ask_as_owner(query, view->owner);
	return streamext_rights_check(query, raise);
}

void
streamext_rights_check_invoker(const CompiledView *view)
{
	Relation rel;

	if (!view->has_joins)
		return;
	rel = relation_open(view->relid, AccessShareLock);
	if (RelationHasSecurityInvoker(rel))
		ereport(
			ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("security_invoker is not supported in continuous view \"%s\", which joins",
					RelationGetRelationName(rel)),
			 errdetail(
				 "Tables are joined once, as the view's owner, for all readers: row security could not hide rows from one of them."),
			 errhint(
				 "Reset security_invoker and grant SELECT on the view to who may see all of it, or join in a query over a "
				 "continuous view of the stream alone.")));
	relation_close(rel, NoLock);
}

/* ---- who may see what a view's errors say ---- */

/* Every query in it, by the rights of the user himself, who must not be shown less of a table than the view's owner is. */
static bool
rights_miss_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	 *query = (Query *) node;
		ListCell *cell;

		foreach (cell, query->rtable)
		{
			const RangeTblEntry *rte = lfirst_node(RangeTblEntry, cell);

			if (rte->rtekind == RTE_RELATION && rte->relkind != RELKIND_VIEW &&
				check_enable_rls(rte->relid, GetUserId(), true) == RLS_ENABLED)
				return true;
		}
		rights_ask_as_user(query);
		return !streamext_rights_check(query, false) ||
			   query_tree_walker(query, rights_miss_walker, context, QTW_IGNORE_JOINALIASES);
	}
	return expression_tree_walker(node, rights_miss_walker, context);
}

/* The same where the stream is not in the query itself but below a view, which may hide rows and columns of it. */
static bool
rights_miss_stream(const Query *query)
{
	List	 *parts = NIL;
	Oid		  stream = streamext_view_parts_of(query, &parts);
	ListCell *cell;

	if (parts == NIL)
		parts = list_make1_oid(stream);
	foreach (cell, query->rtable)
		parts = list_delete_oid(parts, lfirst_node(RangeTblEntry, cell)->relid);
	foreach (cell, parts)
		if (pg_class_aclcheck(lfirst_oid(cell), GetUserId(), ACL_SELECT) != ACLCHECK_OK)
			return true;
	return false;
}

bool
streamext_view_explains(Oid viewoid)
{
	Relation rel;
	Oid		 owner;
	bool	 result;

	if (superuser())
		return true;
	owner = streamext_relation_owner(viewoid, true);
	if (!OidIsValid(owner))
		return false;
	if (has_privs_of_role(GetUserId(), owner))
		return true;
	rel = try_relation_open(viewoid, AccessShareLock);
	if (rel == NULL)
		return false;
	result = rel->rd_rel->relkind == RELKIND_VIEW && rel->rd_rel->relhasrules && rel->rd_rules != NULL &&
			 !rights_miss_walker((Node *) copyObject(get_view_query(rel)), NULL) &&
			 !rights_miss_stream(get_view_query(rel));
	relation_close(rel, NoLock);
	return result;
}

PG_FUNCTION_INFO_V1(streamext_may_see_reasons);

Datum
streamext_may_see_reasons(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(streamext_view_explains(PG_GETARG_OID(0)));
}
