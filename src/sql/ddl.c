/*-------------------------------------------------------------------------
 *
 * sql/ddl.c
 *		The hook through which DDL on streams, continuous views, their servers and databases is seen, and what is done of which statement.
 *
 * Commands that need a database without other sessions make its workers leave before.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "shared/database.h"
#include "view/reads.h"
#include "sql/commit.h"
#include "sql/ddl.h"
#include "sql/ddl_inner.h"
#include "base/hooks.h"
#include "export/plan.h"
#include "stream/definition.h"
#include "shared/shmem.h"

static ProcessUtility_hook_type ddl_next_utility = NULL;

/* ---- databases ---- */

static bool
ddl_owns_database(Oid dboid)
{
	return object_ownercheck(DatabaseRelationId, dboid, GetUserId());
}

/*
 * Runs a command that needs the database without other sessions; its workers leave for as long. `allowed` is whether PostgreSQL
 * will let the user do it: who may not must not be able to stop workers.
 */
static void
ddl_run_without_workers(DdlCall *call, Oid dboid, bool allowed)
{
	if (!allowed || !streamext_database_has_streams(dboid) || IsTransactionBlock())
	{
		streamext_ddl_standard(call);
		return;
	}
	PG_TRY();
	{
		streamext_database_leave(dboid);
		streamext_ddl_standard(call);
	}
	PG_FINALLY();
	{
		streamext_database_return(dboid);
	}
	PG_END_TRY();
}

/* As have_createdb_privilege, which not all minor releases of 15 export (15.18 does not). */
static bool
ddl_may_create_databases(void)
{
	HeapTuple tuple;
	bool	  may;

	if (superuser())
		return true;
	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	if (!HeapTupleIsValid(tuple))
		return false;
	may = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
	ReleaseSysCache(tuple);
	return may;
}

static bool
ddl_may_copy_database(Oid dboid)
{
	HeapTuple tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dboid));
	bool	  is_template;

	if (!HeapTupleIsValid(tuple))
		return false;
	is_template = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
	ReleaseSysCache(tuple);
	return ddl_may_create_databases() && (is_template || ddl_owns_database(dboid));
}

static void
ddl_create_database(DdlCall *call)
{
	CreatedbStmt *stmt = (CreatedbStmt *) call->pstmt->utilityStmt;
	const char *template = "template1";
	Oid		  source;
	Oid		  created;
	ListCell *cell;

	foreach (cell, stmt->options)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, "template") == 0 && def->arg != NULL)
			template = defGetString(def);
	}
	source = get_database_oid(template, true);
	ddl_run_without_workers(call, source, ddl_may_copy_database(source));
	CommandCounterIncrement();
	created = get_database_oid(stmt->dbname, true);
	if (OidIsValid(created) && streamext_database_has_streams(source))
		streamext_touch_database(created);
}

static void
ddl_change_database(DdlCall *call, const char *dbname)
{
	Oid dboid = get_database_oid(dbname, true);

	ddl_run_without_workers(call, dboid, OidIsValid(dboid) && ddl_owns_database(dboid));
}

static bool
ddl_moves_database(const AlterDatabaseStmt *stmt)
{
	ListCell *cell;

	foreach (cell, stmt->options)
		if (strcmp(lfirst_node(DefElem, cell)->defname, "tablespace") == 0)
			return true;
	return false;
}

/* ---- the hook ---- */

static void
ddl_refuse_on_view(RangeVar *relation, const char *what)
{
	if (streamext_ddl_is_continuous(RangeVarGetRelid(relation, NoLock, true)))
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("continuous views do not support %s", what),
						errhint("Name a table by streamext.into, and give that what shall happen with each row.")));
}

static bool
ddl_changes_owner(const AlterTableStmt *stmt)
{
	ListCell *cell;

	foreach (cell, stmt->cmds)
		if (lfirst_node(AlterTableCmd, cell)->subtype == AT_ChangeOwner)
			return OidIsValid(get_extension_oid("streamext", true));
	return false;
}

/*
 * Whether the rights of views' owners may be others afterwards. Which views that is for, their workers find out (streamext_worker_check_rights).
 * Roles are the same in all databases.
 */
static bool
ddl_changes_rights(const Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_CreateRoleStmt:
		case T_AlterRoleStmt:
		case T_DropRoleStmt:
		case T_GrantRoleStmt:
			return true;
		case T_AlterTableStmt:
			return ddl_changes_owner((const AlterTableStmt *) stmt);
		case T_TransactionStmt: /* what was prepared may have */
			return ((const TransactionStmt *) stmt)->kind == TRANS_STMT_COMMIT_PREPARED;
		case T_GrantStmt:
		case T_DropOwnedStmt:
		case T_ReassignOwnedStmt:
			return OidIsValid(get_extension_oid("streamext", true));
		default:
			return false;
	}
}

/* Statements about databases are for all databases, the others for those that have the extension. */
static bool
ddl_dispatch_database(DdlCall *call)
{
	Node *stmt = call->pstmt->utilityStmt;

	switch (nodeTag(stmt))
	{
		case T_CreatedbStmt:
			ddl_create_database(call);
			return true;
		case T_DropdbStmt:
			ddl_change_database(call, ((DropdbStmt *) stmt)->dbname);
			return true;
		case T_AlterDatabaseStmt:
			if (!ddl_moves_database((AlterDatabaseStmt *) stmt))
				return false;
			ddl_change_database(call, ((AlterDatabaseStmt *) stmt)->dbname);
			return true;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType != OBJECT_DATABASE)
				return false;
			ddl_change_database(call, ((RenameStmt *) stmt)->subname);
			return true;
		default:
			return false;
	}
}

static bool
ddl_is_of_interest(const Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_ViewStmt:
		case T_AlterTableStmt:
		case T_RenameStmt:
		case T_CreateForeignTableStmt:
		case T_AlterForeignServerStmt:
		case T_CreateUserMappingStmt:
		case T_AlterUserMappingStmt:
		case T_DropUserMappingStmt:
		case T_RuleStmt:
		case T_CreateTrigStmt:
		case T_CreateSchemaStmt:
		case T_CreateTableAsStmt:
		case T_AlterObjectSchemaStmt:
			return true;
		default:
			return false;
	}
}

/*
 * The schema that an extension is made in is not part of it for PostgreSQL: every dump begins by creating it, and would fail
 * where the extension is. So there it is as with IF NOT EXISTS.
 */
static void
ddl_create_schema(DdlCall *call)
{
	CreateSchemaStmt *stmt = (CreateSchemaStmt *) call->pstmt->utilityStmt;

	if (stmt->schemaname != NULL && strcmp(stmt->schemaname, "streamext") == 0 && stmt->schemaElts == NIL)
		((CreateSchemaStmt *) streamext_ddl_copy_statement(call))->if_not_exists = true;
	streamext_ddl_standard(call);
}

/* A materialized view keeps what a stream's buffer held at one moment. */
static void
ddl_create_table_as(DdlCall *call)
{
	CreateTableAsStmt *stmt = (CreateTableAsStmt *) call->pstmt->utilityStmt;
	bool			   tells = stmt->objtype == OBJECT_MATVIEW && IsA(stmt->query, Query);
	char			  *name = pstrdup(stmt->into->rel->relname);
	Query			  *query = tells ? copyObject((Query *) stmt->query) : NULL;
	ListCell		  *cell;

	foreach (cell, stmt->into->options)
		if (lfirst_node(DefElem, cell)->defnamespace != NULL &&
			strcmp(lfirst_node(DefElem, cell)->defnamespace, "streamext") == 0)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("options of streamext are neither for tables nor for materialized views"),
							errhint("Write CREATE VIEW ... WITH (streamext.continuous): it needs no REFRESH.")));
	streamext_ddl_standard(call);
	if (tells)
		streamext_ddl_tell_ordinary("materialized view", name, query);
}

/* user: whose it will be; NULL: it is dropped. */
static void
ddl_change_mapping(DdlCall *call, const RoleSpec *user, const char *servername)
{
	if (user != NULL)
		streamext_ddl_check_mapping(user, servername);
	streamext_ddl_standard(call);
	streamext_ddl_touch_server(servername);
}

/* ALTER of a relation, which may be given to somebody else. */
static void
ddl_alter_relation(DdlCall *call)
{
	AlterTableStmt *stmt = (AlterTableStmt *) call->pstmt->utilityStmt;
	bool			changes_owner = ddl_changes_owner(stmt);
	Oid				relid = changes_owner ? RangeVarGetRelid(stmt->relation, NoLock, true) : InvalidOid;
	DdlInnerPlace	place = streamext_ddl_inner_place(relid);

	if (!streamext_ddl_alter_view_options(call))
		streamext_ddl_alter_stream(call);
	if (!changes_owner)
		return;
	streamext_export_owner_changed(RangeVarGetRelid(stmt->relation, NoLock, true));
	streamext_ddl_inner_follow(relid, place);
}

static void
ddl_move_relation(DdlCall *call)
{
	AlterObjectSchemaStmt *stmt = (AlterObjectSchemaStmt *) call->pstmt->utilityStmt;
	Oid					   relid = InvalidOid;
	DdlInnerPlace		   place;

	if (stmt->relation != NULL && (stmt->objectType == OBJECT_VIEW || stmt->objectType == OBJECT_TABLE))
		relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	place = streamext_ddl_inner_place(relid);
	streamext_ddl_standard(call);
	CommandCounterIncrement();
	streamext_ddl_inner_follow(relid, place);
	streamext_ddl_follow_targets();
}

static void
ddl_dispatch(DdlCall *call)
{
	Node *stmt = call->pstmt->utilityStmt;

	switch (nodeTag(stmt))
	{
		case T_ViewStmt:
			streamext_ddl_create_view(call);
			break;
		case T_AlterTableStmt:
			ddl_alter_relation(call);
			break;
		case T_AlterObjectSchemaStmt:
			ddl_move_relation(call);
			break;
		case T_CreateTableAsStmt:
			ddl_create_table_as(call);
			break;
		case T_CreateForeignTableStmt:
			streamext_ddl_create_stream(call);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_COLUMN)
				streamext_ddl_rename_column(call);
			else
			{
				streamext_ddl_check_streams(streamext_ddl_run(call));
				streamext_ddl_follow_targets();
			}
			break;
		case T_AlterForeignServerStmt:
			streamext_ddl_alter_server(call);
			break;
		case T_CreateUserMappingStmt:
			ddl_change_mapping(call, ((CreateUserMappingStmt *) stmt)->user,
							   ((CreateUserMappingStmt *) stmt)->servername);
			break;
		case T_AlterUserMappingStmt:
			ddl_change_mapping(call, ((AlterUserMappingStmt *) stmt)->user,
							   ((AlterUserMappingStmt *) stmt)->servername);
			break;
		case T_DropUserMappingStmt:
			ddl_change_mapping(call, NULL, ((DropUserMappingStmt *) stmt)->servername);
			break;
		case T_RuleStmt:
			ddl_refuse_on_view(((RuleStmt *) stmt)->relation, "rules");
			streamext_ddl_standard(call);
			break;
		case T_CreateTrigStmt:
			ddl_refuse_on_view(((CreateTrigStmt *) stmt)->relation, "triggers");
			streamext_ddl_standard(call);
			streamext_ddl_doubt_trigger(RangeVarGetRelid(((CreateTrigStmt *) stmt)->relation, NoLock, true));
			break;
		case T_CreateSchemaStmt:
			ddl_create_schema(call);
			break;
		default:
			streamext_ddl_standard(call);
			break;
	}
}

static void
ddl_process_utility(PlannedStmt *pstmt, const char *query_string, bool read_only_tree, ProcessUtilityContext context,
					ParamListInfo params, QueryEnvironment *query_env, DestReceiver *dest, QueryCompletion *completion)
{
	DdlCall call = {
		pstmt, query_string, read_only_tree, context, params, query_env, dest, completion, ddl_next_utility
	};
	bool rights;

	if (ddl_dispatch_database(&call))
		return;
	rights = ddl_changes_rights(pstmt->utilityStmt);
	if (ddl_is_of_interest(pstmt->utilityStmt) && OidIsValid(get_extension_oid("streamext", true)))
		ddl_dispatch(&call);
	else
		streamext_ddl_standard(&call);
	if (rights)
		streamext_touch_rights();
}

void
streamext_ddl_install_hooks(void)
{
	ddl_next_utility = ProcessUtility_hook;
	ProcessUtility_hook = ddl_process_utility;
	streamext_ddl_watch_relations();
}
