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
#include "utils/rel.h"

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

bool
streamext_view_has_rights(const CompiledView *view, bool raise)
{
	Query	 *query = copyObject(view->query);
	ListCell *cell;

#if PG_VERSION_NUM >= 160000
	foreach (cell, query->rteperminfos)
		lfirst_node(RTEPermissionInfo, cell)->checkAsUser = view->owner;
#else
	foreach (cell, query->rtable)
		lfirst_node(RangeTblEntry, cell)->checkAsUser = view->owner;
#endif
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
				 "Reset security_invoker and grant SELECT on the view to who may see all of it, or join in a query over a continuous view of the stream alone.")));
	relation_close(rel, NoLock);
}
