/*
 * sql/ddl.h
 *		What the files of DDL share: sql/ddl.c (what is done of which statement, databases), sql/ddl_frame.c (PostgreSQL's own
 *		part, and the relations that it touches), sql/ddl_view.c (continuous views), sql/ddl_stream.c (streams, servers).
 */
#ifndef STREAMEXT_DDL_H
#define STREAMEXT_DDL_H

#include "base/streamext.h"
#include "tcop/utility.h"

/* A call of ProcessUtility. */
typedef struct DdlCall
{
	PlannedStmt				*pstmt;
	const char				*query_string;
	bool					 read_only_tree;
	ProcessUtilityContext	 context;
	ParamListInfo			 params;
	QueryEnvironment		*query_env;
	DestReceiver			*dest;
	QueryCompletion			*completion;
	ProcessUtility_hook_type next; /* who had the hook before; NULL: nobody */
} DdlCall;

/* sql/ddl_frame.c: from now on the relations that statements touch are noted. */
extern void streamext_ddl_watch_relations(void);
/* PostgreSQL's own part. */
extern void streamext_ddl_standard(const DdlCall *call);
/* The same; returns the relations that it created or altered, and makes its work visible. Some may not exist any more. */
extern List *streamext_ddl_run(const DdlCall *call);
/* sql/ddl_hint.c: the same; that a function does not exist is told with the one that continuous views have, if `query` (raw) calls it so. */
extern List *streamext_ddl_run_hinted(const DdlCall *call, Node *query);
/* A query as the parser made it, and the text that its locations are of. */
typedef struct DdlHint
{
	Node	   *query;
	const char *text;
} DdlHint;

/* The same as an error context's callback of a DdlHint, around whatever else analyses the query. */
extern void streamext_ddl_hint(void *hint);
/* The call's statement, replaced by a copy that may be changed. */
extern Node *streamext_ddl_copy_statement(DdlCall *call);

extern bool streamext_ddl_is_continuous(Oid relid);
extern bool streamext_ddl_is_stream(Oid relid);
/* Tells the registry about a stream or continuous view; of anything else it does nothing. */
extern void streamext_ddl_touch_relation(Oid relid);
/* The worker of the view that this one reads, if it does, gives its windows to others than before. */
extern void streamext_ddl_touch_inner(Oid relid);

/* sql/ddl_view.c */
/* Says that what is no continuous view, of this name, reads a stream's buffer, if it does. */
extern void streamext_ddl_tell_ordinary(const char *kind, const char *name, Query *query);
extern void streamext_ddl_create_view(DdlCall *call);
/* ALTER VIEW or TABLE ... SET or RESET that concerns a continuous view: does it all and returns true. */
extern bool streamext_ddl_alter_view_options(DdlCall *call);

/* sql/ddl_rename.c */
/* Tables or schemas have been renamed or moved: views' options have the names that their targets have now. */
extern void streamext_ddl_follow_targets(void);
/* A view's column has been renamed, under AccessExclusiveLock: an alert's options have the new name. */
extern void streamext_ddl_follow_column(Oid relid, const char *from, const char *to);

/* sql/stream_doubts.c: NOTICEs of a new stream that is valid and cannot work, as far as it is known here. */
extern void streamext_ddl_doubt(Oid relid);
/* The same of a stream that has got a constraint. */
extern void streamext_ddl_doubt_checks(Oid relid);
/* The same of a stream that has got a column. */
extern void streamext_ddl_doubt_columns(Oid relid);
/* The same of a relation that has got a trigger. */
extern void streamext_ddl_doubt_trigger(Oid relid);

/* sql/ddl_stream.c */
extern void streamext_ddl_create_stream(DdlCall *call);
extern void streamext_ddl_alter_stream(DdlCall *call);
extern void streamext_ddl_alter_server(DdlCall *call);
extern void streamext_ddl_rename_column(DdlCall *call);
/* A statement has touched these: what is a stream must be a valid one. */
extern void streamext_ddl_check_streams(List *relids);
/* All streams of a server, or of this database if it is NULL. */
extern void streamext_ddl_touch_server(const char *servername);
/* Who shows the secret of a gateway's mapping acts as its role, so who makes the mapping must have that role's privileges. Raises. */
extern void streamext_ddl_check_mapping(const RoleSpec *user, const char *servername);

#endif /* STREAMEXT_DDL_H */
