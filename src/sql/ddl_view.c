/*-------------------------------------------------------------------------
 *
 * sql/ddl_view.c
 *		CREATE and ALTER VIEW for continuous views.
 *
 * A continuous view is an ordinary view with streamext.* in pg_class.reloptions. PostgreSQL would refuse these names, so they
 * are taken out of a copy of the statement, PostgreSQL does its work, and they are written into pg_class after it:
 * behind all others, values as given, with the settings that expressions will run under. ALTER VIEW SET of an
 * ordinary option validates all that is stored, so then ours are taken out of pg_class for the duration.
 *
 * Values are checked where they are read, by streamext_view_options, once they are stored.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "view/reads.h"
#include "sql/commit.h"
#include "sink/alert.h"
#include "sink/emit.h"
#include "sink/changes.h"
#include "sink/sink.h"
#include "export/plan.h"
#include "sql/ddl.h"
#include "view/chain.h"
#include "view/target.h"
#include "view/compile.h"
#include "view/dependents.h"
#include "view/inner.h"
#include "view/union.h"
#include "view/rights.h"
#include "view/settings.h"

#define VIEW_DDL_PREFIX "streamext."

/* Settings that a view's expressions run under, in the order of pg_class. */
static const char *const view_ddl_kept_settings[] = { "timezone", "datestyle", "intervalstyle" };

/* ---- options ---- */

static bool
view_ddl_is_own_option(const DefElem *def)
{
	if (def->defnamespace != NULL)
		return strcmp(def->defnamespace, "streamext") == 0;
	return strncmp(def->defname, VIEW_DDL_PREFIX, strlen(VIEW_DDL_PREFIX)) == 0;
}

static DefElem *
view_ddl_find_option(List *options, const char *name)
{
	ListCell *cell;

	foreach (cell, options)
		if (strcmp(lfirst_node(DefElem, cell)->defname, name) == 0)
			return lfirst(cell);
	return NULL;
}

static const char *const view_ddl_names[] = { "continuous",	   "retention", "lateness",	 "keep_late",	  "step",
											  "max_groups",	   "timezone",	"datestyle", "intervalstyle", "into",
											  "emit_interval", "notify",	"emit",		 "alert",		  "key",
											  "clear",		   "to",		"hold",		 "repeat",		  "absent",
											  "every" };

/* Of views that are alerts, and of no others. */
static const char *const view_ddl_alert_names[] = {
	"alert", "key", "clear", "to", "hold", "repeat", "absent", "every"
};

static bool
view_ddl_is_name(const char *name)
{
	for (int i = 0; i < lengthof(view_ddl_names); i++)
		if (strcmp(name, view_ddl_names[i]) == 0)
			return true;
	return streamext_view_is_setting(name);
}

/* Raises for a name that is none of ours. */
static void
view_ddl_check_name(const char *name)
{
	if (!view_ddl_is_name(name + strlen(VIEW_DDL_PREFIX)))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unrecognized view option \"%s\"", name),
			 errhint(
				 "Valid options are streamext.continuous, streamext.retention, streamext.lateness, streamext.keep_late, streamext.step, streamext.max_groups, streamext.into, streamext.emit, streamext.emit_interval and streamext.notify; of alerts streamext.alert, streamext.key, streamext.hold, streamext.clear, streamext.repeat, streamext.absent, streamext.every and streamext.to.")));
}

/* One of ours without its prefix, which PostgreSQL is about to refuse without a hint. */
static void
view_ddl_check_prefix(List *options)
{
	ListCell *cell;

	foreach (cell, options)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (def->defnamespace == NULL && view_ddl_is_name(def->defname))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("unrecognized parameter \"%s\"", def->defname),
					 errhint("Write streamext.%s.", def->defname)));
	}
}

/*
 * Takes ours out of *options and returns them with their full names; with_values: as they are stored (RESET has none). Values
 * are checked by streamext_view_options, once they are in the catalogue.
 */
static List *
view_ddl_take_own_options(List **options, bool with_values)
{
	List	 *own = NIL;
	ListCell *cell;

	foreach (cell, *options)
	{
		DefElem *def = lfirst_node(DefElem, cell);
		char	*name;
		char	*value;

		if (!view_ddl_is_own_option(def))
			continue;
		*options = foreach_delete_current (*options, cell);
		name = def->defnamespace != NULL ? psprintf(VIEW_DDL_PREFIX "%s", def->defname) : pstrdup(def->defname);
		view_ddl_check_name(name);
		if (view_ddl_find_option(own, name) != NULL)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("view option \"%s\" is given more than once", name)));
		if (!with_values)
			value = pstrdup("");
		else if (strcmp(name, VIEW_DDL_PREFIX "continuous") == 0 || strcmp(name, VIEW_DDL_PREFIX "keep_late") == 0 ||
				 strcmp(name, VIEW_DDL_PREFIX "notify") == 0 || strcmp(name, VIEW_DDL_PREFIX "alert") == 0)
			value = pstrdup(defGetBoolean(def) ? "true" : "false");
		else
			value = pstrdup(defGetString(def));
		own = lappend(own, makeDefElem(name, (Node *) makeString(value), -1));
	}
	return own;
}

/* What pg_class has of ours. */
static List *
view_ddl_stored_options(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	List	 *stored = NIL;
	bool	  isnull;
	Datum	  datum;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	datum = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	if (!isnull)
		stored = untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return view_ddl_take_own_options(&stored, true);
}

/* Replaces ours in pg_class. The caller holds the relation's AccessExclusiveLock. */
static void
view_ddl_store_options(Oid relid, List *own)
{
	Relation  pg_class = table_open(RelationRelationId, RowExclusiveLock);
	HeapTuple tuple = SearchSysCacheCopy1(RELOID, ObjectIdGetDatum(relid));
	Datum	  values[Natts_pg_class] = { 0 };
	bool	  nulls[Natts_pg_class] = { 0 };
	bool	  replaces[Natts_pg_class] = { 0 };
	int		  i = Anum_pg_class_reloptions - 1;
	List	 *options = NIL;
	bool	  isnull;
	Datum	  datum;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	datum = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);
	if (!isnull)
		options = untransformRelOptions(datum);
	(void) view_ddl_take_own_options(&options, true);
	values[i] = transformRelOptions((Datum) 0, list_concat(options, own), NULL, NULL, false, false);
	nulls[i] = values[i] == (Datum) 0;
	replaces[i] = true;
	tuple = heap_modify_tuple(tuple, RelationGetDescr(pg_class), values, nulls, replaces);
	CatalogTupleUpdate(pg_class, &tuple->t_self, tuple);
	table_close(pg_class, RowExclusiveLock);
	CommandCounterIncrement();
}

/* Raises for a value that no worker could set; changes nothing. */
static void
view_ddl_try_setting(const char *setting, const char *value)
{
	(void) set_config_option(setting, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, false, ERROR, false);
}

/*
 * The other settings that are not as every server has them. Where those above are all given it is a dump that is restored, and
 * what it does not give was not stored.
 */
static List *
view_ddl_keep_unusual(List *own, bool restored)
{
	const char *setting;
	const char *value;

	for (int i = 0; (setting = streamext_view_setting(i, &value)) != NULL; i++)
	{
		char	*name = psprintf(VIEW_DDL_PREFIX "%s", setting);
		DefElem *def = view_ddl_find_option(own, name);

		if (def != NULL)
			view_ddl_try_setting(setting, defGetString(def));
		else if (value != NULL && !restored)
			own = lappend(own, makeDefElem(name, (Node *) makeString(pstrdup(value)), -1));
	}
	return own;
}

/* Adds the session's settings where none are given; raises 22023 for those that are not valid. */
static List *
view_ddl_keep_settings(List *own)
{
	bool restored = true;

	for (int i = 0; i < lengthof(view_ddl_kept_settings); i++)
	{
		const char *setting = view_ddl_kept_settings[i];
		char	   *name = psprintf(VIEW_DDL_PREFIX "%s", setting);
		DefElem	   *def = view_ddl_find_option(own, name);

		restored = restored && def != NULL;
		if (def == NULL)
			own = lappend(own,
						  makeDefElem(name, (Node *) makeString(pstrdup(GetConfigOption(setting, false, false))), -1));
		else
			view_ddl_try_setting(setting, defGetString(def));
	}
	return view_ddl_keep_unusual(own, restored);
}

/* Keeps the table of streamext.into, or of an alert's streamext.to, by its full name, and from being dropped. */
static List *
view_ddl_keep_into(Oid relid, List *own)
{
	DefElem *into = view_ddl_find_option(own, VIEW_DDL_PREFIX "into");
	DefElem *to = view_ddl_find_option(own, VIEW_DDL_PREFIX "to");
	Oid		 target;

	if (into != NULL)
		into->arg = (Node *) makeString(streamext_into_resolve(defGetString(into)));
	target = into != NULL ? streamext_into_target(defGetString(into)) : InvalidOid;
	if (to != NULL)
	{
		target = streamext_alert_target(defGetString(to));
		if (OidIsValid(target))
			to->arg = (Node *) makeString(
				quote_qualified_identifier(get_namespace_name(get_rel_namespace(target)), get_rel_name(target)));
	}
	streamext_into_depend(relid, target);
	if (OidIsValid(target) && into != NULL)
		streamext_sink_check(relid, target);
	return own;
}

/* ---- CREATE ---- */

static void
view_ddl_check_emit(Oid relid, Oid stream, const char *into)
{
	Oid target;

	if (into == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("view option \"streamext.emit\" needs a target for the changes"),
						errhint("Name a foreign table by streamext.into.")));
	target = streamext_into_target(into);
	streamext_emit_check(relid, target);
	streamext_chain_check(relid, stream, target);
}

static void
view_ddl_check_chain(const CompiledView *view)
{
	Oid		  target = view->options.into != NULL ? streamext_into_target(view->options.into) : InvalidOid;
	ListCell *lc;

	if (view->parts == NIL)
		streamext_chain_check(view->relid, view->stream_relid, target);
	foreach (lc, view->parts)
		streamext_chain_check(view->relid, ((const UnionPart *) lfirst(lc))->stream, target);
}

/* The options are stored: checks them and the query, and tells the registry. */
static void
view_ddl_check_view(Oid relid)
{
	Relation			  rel = table_open(relid, NoLock);
	ContinuousViewOptions options = streamext_view_options(relid);
	Query				 *query = copyObject(get_view_query(rel));
	CompiledView		 *compiled;

	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("a continuous view cannot be temporary"),
				 errdetail("A worker keeps it, and no other process sees the temporary relations of a session.")));
	streamext_inner_check_circle(relid);
	/* As its workers will, so that what they could not do is refused now. */
	compiled = streamext_view_compile_query(relid, query, &options);
	streamext_rights_check_all(query);
	(void) streamext_view_has_rights(compiled, true);
	view_ddl_check_chain(compiled);
	streamext_touch_view(relid, compiled->stream_relid);
	streamext_ddl_touch_inner(relid);
	streamext_touch_teller();
	if (options.notify)
		(void) streamext_changes_open(relid);
	if (options.emit_changes)
		view_ddl_check_emit(relid, compiled->stream_relid, options.changes_into);
	table_close(rel, NoLock);
}

/* The same of an alert. */
static void
view_ddl_check_alert(Oid relid)
{
	Relation rel = table_open(relid, NoLock);

	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("an alert cannot be a temporary view"),
				 errdetail("A worker evaluates it, and no other process sees the temporary relations of a session.")));
	table_close(rel, NoLock);
	streamext_alert_check(relid);
	streamext_touch_teller();
}

/* The view that CREATE OR REPLACE would replace, if it is there. */
static Oid
view_ddl_replaced_view(const ViewStmt *stmt)
{
	RangeVar *name;

	if (!stmt->replace)
		return InvalidOid;
	name = copyObject(stmt->view);
	return get_relname_relid(name->relname, RangeVarGetCreationNamespace(name));
}

static bool
view_ddl_is_alert(List *own)
{
	DefElem *option = view_ddl_find_option(own, VIEW_DDL_PREFIX "alert");

	return option != NULL && defGetBoolean(option);
}

/* Options of alerts are for alerts, others' for others; raises. */
static void
view_ddl_check_kind(List *own, bool continuous)
{
	bool	  alert = view_ddl_is_alert(own);
	ListCell *cell;

	if (alert && continuous)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("a continuous view cannot be an alert"),
						errhint("Make the alert a view over the continuous view.")));
	foreach (cell, own)
	{
		const char *name = lfirst_node(DefElem, cell)->defname;
		bool		of_alerts = false;

		for (int i = 0; i < lengthof(view_ddl_alert_names); i++)
			of_alerts = of_alerts || strcmp(name + strlen(VIEW_DDL_PREFIX), view_ddl_alert_names[i]) == 0;
		if (of_alerts == alert || strcmp(name, VIEW_DDL_PREFIX "continuous") == 0 ||
			strcmp(name, VIEW_DDL_PREFIX "alert") == 0)
			continue;
		if (of_alerts)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("view option \"%s\" is for alerts", name),
							errhint("Add streamext.alert.")));
		if (alert)
			ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
							errmsg("view option \"%s\" is for continuous views, not for alerts", name)));
	}
}

/* What the options of CREATE VIEW ask for; raises where they contradict each other or what is there. */
static bool
view_ddl_wants_continuous(const ViewStmt *stmt, List *own, Oid replaced)
{
	DefElem *option = view_ddl_find_option(own, VIEW_DDL_PREFIX "continuous");
	bool	 continuous = option != NULL && defGetBoolean(option);

	view_ddl_check_kind(own, continuous);
	if (option == NULL && streamext_ddl_is_continuous(replaced))
		ereport(
			ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is a continuous view", stmt->view->relname),
			 errhint(
				 "Repeat WITH (streamext.continuous) to keep it one, or say WITH (streamext.continuous = false) to make it an ordinary view.")));
	if (!continuous && !view_ddl_is_alert(own) && list_length(own) > (option != NULL ? 1 : 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("view option \"%s\" is for continuous views",
							   ((DefElem *) (linitial(own) == option ? lsecond(own) : linitial(own)))->defname),
						errhint("Add streamext.continuous.")));
	return continuous;
}

/* How a view is kept goes on being so where CREATE OR REPLACE does not say otherwise. */
static List *
view_ddl_keep_former(List *own, List *former)
{
	static const char *const names[] = { "retention", "lateness", "keep_late",	   "step",	"max_groups",
										 "into",	  "emit",	  "emit_interval", "notify" };

	for (int i = 0; i < lengthof(names); i++)
	{
		char	*name = psprintf(VIEW_DDL_PREFIX "%s", names[i]);
		DefElem *def = view_ddl_find_option(own, name) == NULL ? view_ddl_find_option(former, name) : NULL;

		if (def != NULL)
			own = lappend(own, makeDefElem(name, (Node *) makeString(pstrdup(defGetString(def))), -1));
	}
	return own;
}

/* Of a query that reads a stream itself. */
static bool
view_ddl_stream_walker(Node *node, Oid *stream)
{
	ListCell *lc;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, view_ddl_stream_walker, stream);
	foreach (lc, ((Query *) node)->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && streamext_ddl_is_stream(rte->relid))
		{
			*stream = rte->relid;
			return true;
		}
	}
	return query_tree_walker((Query *) node, view_ddl_stream_walker, stream, 0);
}

void
streamext_ddl_tell_ordinary(const char *kind, const char *name, Query *query)
{
	Oid stream = InvalidOid;

	if (view_ddl_stream_walker((Node *) query, &stream))
		ereport(NOTICE,
				(errmsg("%s \"%s\" shows what the buffer of stream \"%s\" holds when it is read", kind, name,
						get_rel_name(stream)),
				 errdetail("The buffer keeps the stream's newest records (option \"buffer_size\")."),
				 errhint("CREATE VIEW ... WITH (streamext.continuous) counts all records; it may read this view.")));
}

/* Continuous views over a view that is another one now. */
static void
view_ddl_touch_dependents(Oid replaced)
{
	ListCell *cell;

	if (!OidIsValid(replaced))
		return;
	foreach (cell, streamext_view_dependents(replaced))
		if (streamext_ddl_is_continuous(lfirst_oid(cell)))
			streamext_touch_view(lfirst_oid(cell), InvalidOid);
}

static void
view_ddl_tell_ordinary_view(List *relids, const char *name)
{
	ListCell *cell;

	foreach (cell, relids)
		if (get_rel_relkind(lfirst_oid(cell)) == RELKIND_VIEW)
		{
			Relation rel = table_open(lfirst_oid(cell), NoLock);

			streamext_ddl_tell_ordinary("view", name, get_view_query(rel));
			table_close(rel, NoLock);
			return;
		}
}

void
streamext_ddl_create_view(DdlCall *call)
{
	ViewStmt *stmt = (ViewStmt *) streamext_ddl_copy_statement(call);
	List	 *own = view_ddl_take_own_options(&stmt->options, true);
	Oid		  replaced = view_ddl_replaced_view(stmt);
	bool	  was_continuous = streamext_ddl_is_continuous(replaced);
	bool	  continuous = view_ddl_wants_continuous(stmt, own, replaced);
	List	 *former = was_continuous ? view_ddl_stored_options(replaced) : NIL;
	List	 *relids;
	Oid		  relid = InvalidOid;
	ListCell *cell;

	view_ddl_check_prefix(stmt->options);
	if (was_continuous)
	{
		streamext_touch_view(replaced, streamext_view_stream(replaced));
		streamext_ddl_touch_inner(replaced);
	}
	if (OidIsValid(replaced) && streamext_view_options(replaced).alert)
		streamext_touch_teller();
	relids = streamext_ddl_run(call);
	if (!continuous && was_continuous)
		streamext_into_depend(replaced, InvalidOid);
	view_ddl_touch_dependents(replaced);
	if (!continuous)
	{
		streamext_export_replaced(replaced);
		view_ddl_tell_ordinary_view(relids, stmt->view->relname);
	}
	if (!continuous && !view_ddl_is_alert(own))
		return;
	foreach (cell, relids)
		if (!OidIsValid(relid) && get_rel_relkind(lfirst_oid(cell)) == RELKIND_VIEW)
			relid = lfirst_oid(cell);
	if (!OidIsValid(relid))
		elog(ERROR, "the new view \"%s\" was not found", stmt->view->relname);
	if (!continuous)
	{
		view_ddl_store_options(relid, view_ddl_keep_into(relid, own));
		view_ddl_check_alert(relid);
		return;
	}
	view_ddl_store_options(relid, view_ddl_keep_into(relid, view_ddl_keep_settings(view_ddl_keep_former(own, former))));
	view_ddl_check_view(relid);
}

/* ---- ALTER ---- */

static bool
view_ddl_sets_options(const AlterTableStmt *stmt)
{
	ListCell *cell;

	foreach (cell, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

		if (cmd->subtype == AT_SetRelOptions || cmd->subtype == AT_ResetRelOptions)
			return true;
	}
	return false;
}

static bool
view_ddl_names_own_option(const AlterTableStmt *stmt)
{
	ListCell *cell;
	ListCell *option;

	foreach (cell, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);

		if (cmd->subtype == AT_SetRelOptions || cmd->subtype == AT_ResetRelOptions)
			foreach (option, (List *) cmd->def)
				if (view_ddl_is_own_option(lfirst(option)))
					return true;
	}
	return false;
}

/* What ALTER may not do, because the kept state would not be that of the view. */
static void
view_ddl_check_change(const DefElem *old, const DefElem *new, const char *name)
{
	static const char *const free_options[] = { "retention",  "lateness",	   "keep_late",
												"max_groups", "emit_interval", "notify" };

	for (int i = 0; i < lengthof(free_options); i++)
		if (strcmp(name + strlen(VIEW_DDL_PREFIX), free_options[i]) == 0)
			return;
	if (strcmp(name, VIEW_DDL_PREFIX "continuous") == 0)
	{
		if (new != NULL && defGetBoolean((DefElem *) new))
			return;
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("a continuous view cannot be made an ordinary view by ALTER"),
						errhint("Use CREATE OR REPLACE VIEW with streamext.continuous = false.")));
	}
	if (old != NULL && new != NULL && strcmp(defGetString((DefElem *) old), defGetString((DefElem *) new)) == 0)
		return;
	if (old == NULL && new == NULL)
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("view option \"%s\" cannot be changed by ALTER", name),
		 errhint(
			 "Use CREATE OR REPLACE VIEW, which builds the view anew; ALTER can change streamext.retention, streamext.lateness, streamext.keep_late, streamext.max_groups, streamext.emit_interval and streamext.notify.")));
}

/* What ALTER may not do to an alert. */
static void
view_ddl_check_alert_change(List *changes, bool reset)
{
	DefElem *alert = view_ddl_find_option(changes, VIEW_DDL_PREFIX "alert");
	DefElem *yes = makeDefElem(VIEW_DDL_PREFIX "alert", (Node *) makeString("true"), -1);

	if (alert != NULL && (reset || !defGetBoolean(alert)))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("an alert cannot be made an ordinary view by ALTER"),
				 errhint("Use CREATE OR REPLACE VIEW without streamext.alert.")));
	view_ddl_check_kind(lappend(list_copy(changes), yes), false);
}

/* The stored options after one SET or RESET. */
static List *
view_ddl_change_options(List *stored, List *changes, bool reset)
{
	bool	  alert = view_ddl_is_alert(stored);
	ListCell *cell;

	if (alert)
		view_ddl_check_alert_change(changes, reset);

	foreach (cell, changes)
	{
		DefElem *change = lfirst_node(DefElem, cell);
		DefElem *old = view_ddl_find_option(stored, change->defname);

		if (!alert)
			view_ddl_check_change(old, reset ? NULL : change, change->defname);
		if (old != NULL && reset)
			stored = list_delete_ptr(stored, old);
		else if (old != NULL)
			old->arg = change->arg;
		else if (!reset)
			stored = lappend(stored, change);
	}
	return stored;
}

/* ALTER VIEW SET or RESET on a continuous view, which the caller has locked. */
static void
view_ddl_alter_continuous(DdlCall *call, Oid relid)
{
	AlterTableStmt *stmt = (AlterTableStmt *) streamext_ddl_copy_statement(call);
	List		   *options = view_ddl_stored_options(relid);
	ListCell	   *cell;

	foreach (cell, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);
		bool		   reset = cmd->subtype == AT_ResetRelOptions;
		List		  *others;

		if (cmd->subtype != AT_SetRelOptions && !reset)
			continue;
		others = (List *) cmd->def;
		options = view_ddl_change_options(options, view_ddl_take_own_options(&others, !reset), reset);
		view_ddl_check_prefix(others);
		cmd->def = (Node *) others;
	}
	view_ddl_store_options(relid, NIL);
	(void) streamext_ddl_run(call);
	if (view_ddl_is_alert(options))
		options = view_ddl_keep_into(relid, options);
	view_ddl_store_options(relid, options);
	if (view_ddl_is_alert(options))
		view_ddl_check_alert(relid);
	else
		view_ddl_check_view(relid);
}

/* Continuous, or an alert. */
static bool
view_ddl_is_ours(Oid relid)
{
	ContinuousViewOptions options = streamext_view_options(relid);

	return options.continuous || options.alert;
}

bool
streamext_ddl_alter_view_options(DdlCall *call)
{
	AlterTableStmt *stmt = (AlterTableStmt *) call->pstmt->utilityStmt;
	Oid				relid;

	if (!view_ddl_sets_options(stmt))
		return false;
	relid = RangeVarGetRelid(stmt->relation, NoLock, true);
	if (get_rel_relkind(relid) != RELKIND_VIEW || (!view_ddl_is_ours(relid) && !view_ddl_names_own_option(stmt)))
		return false;
	relid = RangeVarGetRelidExtended(stmt->relation, AccessExclusiveLock, 0, RangeVarCallbackOwnsRelation, NULL);
	if (!view_ddl_is_ours(relid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a continuous view", stmt->relation->relname),
				 errhint("Use CREATE OR REPLACE VIEW with streamext.continuous.")));
	view_ddl_alter_continuous(call, relid);
	return true;
}
