/*
 * sql/ddl_frame.c
 *		A statement run by PostgreSQL itself, the relations that it touches, and telling the registry of them. What the functions promise is in sql/ddl.h.
 *
 * Which relations a statement has touched is told by the object access hook (names may be resolved differently later, and
 * CASCADE or ATTACH PARTITION touch what the statement does not name). It notes them in the innermost frame, and
 * they are checked when the statement is done; it also tells the registry (sql/commit.h) by itself, because DROP SCHEMA,
 * REASSIGN OWNED and the like come along here without a frame.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_inherits.h"
#include "utils/lsyscache.h"

#include "export/plan.h"
#include "sql/commit.h"
#include "sql/ddl.h"
#include "stream/definition.h"
#include "view/compile.h"
#include "view/inner.h"
#include "view/reads.h"
#include "view/union.h"

/* The relations that the statement being run has created or altered. */
typedef struct DdlFrame
{
	struct DdlFrame *outer;
	MemoryContext	 cxt; /* of relids */
	List			*relids;
} DdlFrame;

static object_access_hook_type ddl_next_access = NULL;
static DdlFrame				  *ddl_frame = NULL;

/* ---- calling PostgreSQL ---- */

void
streamext_ddl_standard(const DdlCall *call)
{
	if (call->next)
		call->next(call->pstmt, call->query_string, call->read_only_tree, call->context, call->params, call->query_env,
				   call->dest, call->completion);
	else
		standard_ProcessUtility(call->pstmt, call->query_string, call->read_only_tree, call->context, call->params,
								call->query_env, call->dest, call->completion);
}

List *
streamext_ddl_run(const DdlCall *call)
{
	DdlFrame frame = { ddl_frame, CurrentMemoryContext, NIL };

	ddl_frame = &frame;
	PG_TRY();
	{
		streamext_ddl_standard(call);
	}
	PG_FINALLY();
	{
		ddl_frame = frame.outer;
	}
	PG_END_TRY();
	CommandCounterIncrement();
	return frame.relids;
}

Node *
streamext_ddl_copy_statement(DdlCall *call)
{
	call->pstmt = copyObject(call->pstmt);
	call->read_only_tree = false;
	return call->pstmt->utilityStmt;
}

/* ---- what exists ---- */

bool
streamext_ddl_is_continuous(Oid relid)
{
	return OidIsValid(relid) && streamext_view_options(relid).continuous;
}

bool
streamext_ddl_is_stream(Oid relid)
{
	return get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE && streamext_stream_kind(relid) != NULL;
}

/* ---- telling the registry ---- */

void
streamext_ddl_touch_inner(Oid relid)
{
	Oid		  inner = streamext_view_inner(relid);
	ListCell *lc;

	if (OidIsValid(inner))
		streamext_touch_stream(streamext_view_stream(inner));
	foreach (lc, streamext_union_streams(relid))
		streamext_touch_stream(lfirst_oid(lc));
}

void
streamext_ddl_touch_relation(Oid relid)
{
	switch (get_rel_relkind(relid))
	{
		case RELKIND_FOREIGN_TABLE:
			if (streamext_stream_kind(relid) != NULL)
				streamext_touch_stream(relid);
			break;
		case RELKIND_VIEW:
			if (streamext_ddl_is_continuous(relid))
				streamext_touch_view(relid, InvalidOid);
			streamext_ddl_touch_inner(relid);
			break;
		default:
			break;
	}
}

/* Streams and views are noted for the statement's end and, if they are in the catalogue already, for the transaction's. */
static void
ddl_object_access(ObjectAccessType access, Oid classid, Oid objectid, int subid, void *arg)
{
	if (ddl_next_access)
		ddl_next_access(access, classid, objectid, subid, arg);

	if (access != OAT_POST_CREATE && access != OAT_POST_ALTER && access != OAT_DROP)
		return;
	if (classid == ForeignServerRelationId)
		streamext_touch_server(objectid);
	/* of these the object is the relation, too */
	if (classid != RelationRelationId && classid != InheritsRelationId && classid != ForeignTableRelationId)
		return;
	/* a child of a stream; a stream that is a child itself is found at the statement's end */
	if (classid == InheritsRelationId && access == OAT_POST_ALTER &&
		streamext_ddl_is_stream(((ObjectAccessPostAlter *) arg)->auxiliary_id))
		streamext_stream_refuse_inheritance(get_rel_name(((ObjectAccessPostAlter *) arg)->auxiliary_id));
	if (ddl_frame != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(ddl_frame->cxt);

		ddl_frame->relids = list_append_unique_oid(ddl_frame->relids, objectid);
		MemoryContextSwitchTo(old);
	}
	streamext_ddl_touch_relation(objectid);
	if (access == OAT_DROP && classid == RelationRelationId && subid == 0)
		streamext_export_dropped(objectid);
}

void
streamext_ddl_watch_relations(void)
{
	ddl_next_access = object_access_hook;
	object_access_hook = ddl_object_access;
}
