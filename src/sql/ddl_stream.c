/*-------------------------------------------------------------------------
 *
 * sql/ddl_stream.c
 *		DDL on streams and their servers, beside PostgreSQL's own part: what a stream must be after each statement, what may not
 *		change under continuous views, and what a renamed column means.
 *
 * Locks: what PostgreSQL's own command takes, taken before it where something is read that the command changes.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_rewrite.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "view/reads.h"
#include "sql/ddl.h"
#include "decode/format.h"
#include "base/path.h"
#include "stream/definition.h"
#include "view/compile.h"
#include "view/dependents.h"
#include "view/union.h"

/* ---- views of a stream ---- */

/* Names of the continuous views that read the stream, as for a message; NULL if there are none. own: not those that read it by workers of theirs. */
static char *
stream_ddl_views_of_stream(Oid stream, bool own)
{
	StringInfoData names;
	ListCell	  *cell;

	initStringInfo(&names);
	foreach (cell, streamext_view_dependents(stream))
	{
		Oid	  view = lfirst_oid(cell);
		List *parts;

		if (!streamext_ddl_is_continuous(view))
			continue;
		parts = streamext_union_streams(view);
		if (own ? parts == NIL && streamext_view_stream(view) == stream
				: streamext_view_stream(view) == stream || list_member_oid(parts, stream))
			appendStringInfo(&names, "%s%s", names.len > 0 ? ", " : "", get_rel_name(view));
	}
	return names.len > 0 ? names.data : NULL;
}

/* ---- streams ---- */

void
streamext_ddl_check_streams(List *relids)
{
	ListCell *cell;

	foreach (cell, relids)
	{
		streamext_ddl_touch_relation(lfirst_oid(cell));
		if (streamext_ddl_is_stream(lfirst_oid(cell)))
			streamext_stream_check(lfirst_oid(cell));
	}
}

static bool
stream_ddl_same_option(List *before, List *after, const char *name)
{
	const char *old = streamext_option(before, name);
	const char *new = streamext_option(after, name);

	return old == NULL || new == NULL ? old == new : strcmp(old, new) == 0;
}

/* Of an option that says what the stream's positions and rows are. */
static void
stream_ddl_refuse_change(Oid relid, const char *option)
{
	char *views = stream_ddl_views_of_stream(relid, false);

	if (views != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot change option \"%s\" of stream \"%s\" because continuous views read it", option,
						get_rel_name(relid)),
				 errdetail("Continuous views: %s.", views), errhint("Drop them first, or make another stream.")));
}

/* Where positions are of one number of workers only, another one begins the views anew: that is said while it can be rolled back. */
static void
stream_ddl_tell_anew(Oid relid, const OptionSpec *table, List *before, List *after)
{
	char *views;

	if (streamext_stream_kind(relid)->shards_keep_source ||
		streamext_option_number(table, PLACE_TABLE, before, "workers") ==
			streamext_option_number(table, PLACE_TABLE, after, "workers"))
		return;
	views = stream_ddl_views_of_stream(relid, true);
	if (views != NULL)
		ereport(NOTICE,
				(errmsg("continuous views are counted anew, because stream \"%s\" has another number of workers",
						get_rel_name(relid)),
				 errdetail("From the stream's start on: %s.", views),
				 errhint("To keep what they have counted roll this back, and hand each view over meanwhile: "
						 "streamext.export(view, 'postgres'), ALTER FOREIGN TABLE, streamext.import(view).")));
}

static void
stream_ddl_check_changes(Oid relid, List *before)
{
	List			   *after = GetForeignTable(relid)->options;
	const ConnectorOps *connector = streamext_stream_kind(relid);
	const OptionSpec   *tables[STREAMEXT_OPTION_TABLES];
	ListCell		   *lc;

	streamext_stream_tables(connector, tables);
	for (int i = 0; tables[i] != NULL; i++)
		for (const OptionSpec *spec = tables[i]; spec->name != NULL; spec++)
		{
			if (spec->place == PLACE_TABLE && spec->fixed && !stream_ddl_same_option(before, after, spec->name))
				stream_ddl_refuse_change(relid, spec->name);
			if (spec->place == PLACE_TABLE && strcmp(spec->name, "workers") == 0)
				stream_ddl_tell_anew(relid, tables[i], before, after);
		}
	if (connector->check_change != NULL)
		connector->check_change(get_rel_name(relid), before, after);
	foreach (lc, streamext_union_views(relid))
		(void) streamext_stream_config(lfirst_oid(lc)); /* raises if it could not go on */
}

static bool
stream_ddl_has_command(const AlterTableStmt *stmt, AlterTableType subtype)
{
	ListCell *cell;

	foreach (cell, stmt->cmds)
		if (lfirst_node(AlterTableCmd, cell)->subtype == subtype)
			return true;
	return false;
}

/* ALTER of a stream or server that has these options. */
static List *
stream_ddl_alter_options(DdlCall *call, List *before)
{
	List *volatile relids = NIL;

	streamext_option_known(before);
	PG_TRY();
	{
		relids = streamext_ddl_run(call);
	}
	PG_FINALLY();
	{
		streamext_option_known(NIL);
	}
	PG_END_TRY();
	return relids;
}

void
streamext_ddl_alter_server(DdlCall *call)
{
	AlterForeignServerStmt *stmt = (AlterForeignServerStmt *) call->pstmt->utilityStmt;
	ForeignServer		   *server = GetForeignServerByName(stmt->servername, true);

	(void) stream_ddl_alter_options(call, server == NULL ? NIL : server->options);
	streamext_ddl_touch_server(stmt->servername);
}

void
streamext_ddl_alter_stream(DdlCall *call)
{
	AlterTableStmt *stmt = (AlterTableStmt *) call->pstmt->utilityStmt;
	List		   *before = NIL;
	Oid				relid = InvalidOid;
	bool			options = false;
	bool			constraint = stream_ddl_has_command(stmt, AT_AddConstraint);

	if (stream_ddl_has_command(stmt, AT_GenericOptions))
		relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (OidIsValid(relid) && streamext_ddl_is_stream(relid))
	{
		options = true;
		/* what PostgreSQL takes for this command, so that nobody else changes the options in between */
		relid = RangeVarGetRelidExtended(stmt->relation, AccessExclusiveLock, 0, RangeVarCallbackOwnsRelation, NULL);
		before = GetForeignTable(relid)->options;
	}
	streamext_ddl_check_streams(stream_ddl_alter_options(call, before));
	if (options)
		stream_ddl_check_changes(relid, before);
	if (constraint)
		streamext_ddl_doubt_checks(RangeVarGetRelid(stmt->relation, NoLock, true));
	if (stream_ddl_has_command(stmt, AT_AddColumn))
		streamext_ddl_doubt_columns(RangeVarGetRelid(stmt->relation, NoLock, true));
}

/* Adds the option to the text[] `options` of the catalogue, or replaces it there. */
static Datum
stream_ddl_put_option(Oid catalog, Datum options, const char *name, const char *value, bool replace)
{
	DefElem *def = makeDefElemExtended(NULL, pstrdup(name), (Node *) makeString(pstrdup(value)),
									   replace ? DEFELEM_SET : DEFELEM_ADD, -1);

	return transformGenericOptions(catalog, options, list_make1(def), InvalidOid);
}

/* The path of the payload's field of this name. */
static char *
stream_ddl_path(const char *name)
{
	PathReader	   reader;
	StringInfoData quoted;
	char		  *key = palloc(strlen(name) + 1);

	streamext_path_begin(&reader, name);
	if (streamext_path_next(&reader, key) == PATH_KEY && reader.size == strlen(name))
		return pstrdup(name);
	initStringInfo(&quoted);
	escape_json(&quoted, name);
	return quoted.data;
}

/* The renamed column goes on taking its value from where it did: its old name in the payload. */
static void
stream_ddl_keep_path(Oid relid, AttrNumber attnum, const char *old_name)
{
	Relation  pg_attribute = table_open(AttributeRelationId, RowExclusiveLock);
	HeapTuple tuple = SearchSysCacheCopy2(ATTNUM, ObjectIdGetDatum(relid), Int16GetDatum(attnum));
	Datum	  values[Natts_pg_attribute] = { 0 };
	bool	  nulls[Natts_pg_attribute] = { 0 };
	bool	  replaces[Natts_pg_attribute] = { 0 };
	int		  i = Anum_pg_attribute_attfdwoptions - 1;
	bool	  isnull;
	Datum	  datum;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for attribute %d of relation %u", attnum, relid);
	datum = SysCacheGetAttr(ATTNUM, tuple, Anum_pg_attribute_attfdwoptions, &isnull);
	values[i] = stream_ddl_put_option(AttributeRelationId, isnull ? (Datum) 0 : datum, "path",
									  stream_ddl_path(old_name), false);
	replaces[i] = true;
	tuple = heap_modify_tuple(tuple, RelationGetDescr(pg_attribute), values, nulls, replaces);
	CatalogTupleUpdate(pg_attribute, &tuple->t_self, tuple);
	table_close(pg_attribute, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
}

static void
stream_ddl_set_option(Oid relid, const char *name, const char *value, bool replace)
{
	Relation  tables = table_open(ForeignTableRelationId, RowExclusiveLock);
	HeapTuple tuple = SearchSysCacheCopy1(FOREIGNTABLEREL, ObjectIdGetDatum(relid));
	Datum	  values[Natts_pg_foreign_table] = { 0 };
	bool	  nulls[Natts_pg_foreign_table] = { 0 };
	bool	  replaces[Natts_pg_foreign_table] = { 0 };
	int		  i = Anum_pg_foreign_table_ftoptions - 1;
	bool	  isnull;
	Datum	  datum;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for foreign table %u", relid);
	datum = SysCacheGetAttr(FOREIGNTABLEREL, tuple, Anum_pg_foreign_table_ftoptions, &isnull);
	values[i] = stream_ddl_put_option(ForeignTableRelationId, isnull ? (Datum) 0 : datum, name, value, replace);
	replaces[i] = true;
	tuple = heap_modify_tuple(tuple, RelationGetDescr(tables), values, nulls, replaces);
	CatalogTupleUpdate(tables, &tuple->t_self, tuple);
	table_close(tables, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
}

/*
 * Dates that are not ISO 8601 are read in the order of the session that makes the stream, whoever decodes them later. PostgreSQL's preset
 * goes without saying.
 */
static void
stream_ddl_keep_datestyle(Oid relid)
{
	const ConnectorOps *kind = streamext_stream_kind(relid);

	if (kind != NULL && kind->payloads && DateOrder != DATEORDER_MDY &&
		streamext_option(GetForeignTable(relid)->options, "datestyle") == NULL)
		stream_ddl_set_option(relid, "datestyle", streamext_datestyles[DateOrder], false);
}

void
streamext_ddl_create_stream(DdlCall *call)
{
	List	 *relids = streamext_ddl_run(call);
	ListCell *cell;

	foreach (cell, relids)
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_FOREIGN_TABLE)
			stream_ddl_keep_datestyle(lfirst_oid(cell));
	streamext_ddl_check_streams(relids);
	foreach (cell, relids)
		streamext_ddl_doubt(lfirst_oid(cell));
}

/* The topic that rows go to, with {column} by its new name. */
static char *
stream_ddl_topic(const char *topic, const RenameStmt *stmt)
{
	return TextDatumGetCString(DirectFunctionCall3Coll(replace_text, C_COLLATION_OID, CStringGetTextDatum(topic),
													   CStringGetTextDatum(psprintf("{%s}", stmt->subname)),
													   CStringGetTextDatum(psprintf("{%s}", stmt->newname))));
}

void
streamext_ddl_rename_column(DdlCall *call)
{
	RenameStmt *stmt = (RenameStmt *) call->pstmt->utilityStmt;
	List	   *relids = streamext_ddl_run(call);
	ListCell   *cell;

	foreach (cell, relids)
	{
		Oid			  relid = lfirst_oid(cell);
		AttrNumber	  attnum = streamext_ddl_is_stream(relid) ? get_attnum(relid, stmt->newname) : InvalidAttrNumber;
		const char	 *event_time;
		const char	 *topic;
		StreamConfig *config;

		if (get_rel_relkind(relid) == RELKIND_VIEW)
			streamext_ddl_follow_column(relid, stmt->subname, stmt->newname);
		if (attnum <= 0)
			continue;
		event_time = streamext_option(GetForeignTable(relid)->options, "event_time");
		if (event_time != NULL && strcmp(event_time, stmt->subname) == 0)
			stream_ddl_set_option(relid, "event_time", stmt->newname, true);
		topic = streamext_option(GetForeignTable(relid)->options, "publish_topic");
		if (topic != NULL)
			stream_ddl_set_option(relid, "publish_topic", stream_ddl_topic(topic, stmt), true);
		config = streamext_stream_config(relid);
		if (config->format->names_fields && config->columns[attnum - 1].metadata == METADATA_NONE &&
			config->columns[attnum - 1].path == NULL)
			stream_ddl_keep_path(relid, attnum, stmt->subname);
	}
	streamext_ddl_check_streams(relids);
}

/* ---- servers ---- */

void
streamext_ddl_touch_server(const char *servername)
{
	Oid			serverid = servername != NULL ? get_foreign_server_oid(servername, true) : InvalidOid;
	Relation	tables;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (servername != NULL && !OidIsValid(serverid))
		return;
	tables = table_open(ForeignTableRelationId, AccessShareLock);
	scan = systable_beginscan(tables, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_table table = (Form_pg_foreign_table) GETSTRUCT(tuple);

		if (servername == NULL || table->ftserver == serverid)
			streamext_ddl_touch_relation(table->ftrelid);
	}
	systable_endscan(scan);
	table_close(tables, AccessShareLock);
}

void
streamext_ddl_check_mapping(const RoleSpec *user, const char *servername)
{
	Oid					serverid = get_foreign_server_oid(servername, true);
	const ConnectorOps *kind = OidIsValid(serverid) ? streamext_server_kind(serverid) : NULL;
	Oid					role;

	if (kind == NULL || !kind->gateway)
		return;
	if (user->roletype == ROLESPEC_PUBLIC)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("server \"%s\" takes no user mapping of PUBLIC", servername),
						errdetail("A mapping's secret makes whoever shows it the mapping's role."),
						errhint("Map a role, or name one in the server's option anonymous_role.")));
	role = get_rolespec_oid(user, false);
	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("must have privileges of role \"%s\"", GetUserNameFromId(role, false)),
						errdetail("Whoever shows the mapping's secret will act as that role.")));
}
