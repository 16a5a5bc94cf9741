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
 * That is in sql/ddl_option.c. Values are checked where they are read, by streamext_view_options, once they are stored.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/relation.h"
#include "view/reads.h"
#include "sql/catalog.h"
#include "sql/commit.h"
#include "sink/alert.h"
#include "sink/emit.h"
#include "sink/changes.h"
#include "sink/sink.h"
#include "export/plan.h"
#include "stream/definition.h"
#include "sql/ddl.h"
#include "sql/ddl_inner.h"
#include "sql/ddl_option.h"
#include "view/chain.h"
#include "view/target.h"
#include "view/compile.h"
#include "view/dependents.h"
#include "view/inner.h"
#include "view/union.h"
#include "view/rights.h"

#define VIEW_DDL_MAX_LENGTH (16 * 1024 * 1024)

/* ---- targets ---- */

/* Keeps the table of streamext.into, or of an alert's streamext.to, by its full name, and from being dropped. */
static List *
view_ddl_keep_into(Oid relid, List *own)
{
	DefElem *into = streamext_ddl_option_find(own, DDL_OPTION_PREFIX "into");
	DefElem *to = streamext_ddl_option_find(own, DDL_OPTION_PREFIX "to");
	Oid		 target;

	if (into != NULL)
		into->arg = (Node *) makeString(streamext_into_resolve(defGetString(into)));
	target = into != NULL ? streamext_into_target(defGetString(into)) : InvalidOid;
	if (to != NULL)
	{
		target = streamext_alert_target(defGetString(to));
		if (OidIsValid(target))
			to->arg = (Node *) makeString(streamext_relation_name(target));
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

/* Whoever looks at continuous_views compiles it, and so does each process that reads it. */
static void
view_ddl_check_length(Query *query)
{
	size_t length = strlen(nodeToString(query));

	if (length > VIEW_DDL_MAX_LENGTH)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the query of a continuous view is too long"),
				 errdetail("As PostgreSQL keeps it, it has %zu bytes; at most it has %d.", length, VIEW_DDL_MAX_LENGTH),
				 errhint("Join with a table in the place of a long list of values.")));
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
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("a continuous view cannot be temporary"),
						errdetail("A worker keeps it, and no other process sees the temporary relations of a session."),
						errhint("Leave TEMPORARY out.")));
	view_ddl_check_length(query);
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

/* What a stream has had that no new view can read any more: a view that is made after the rows shows none of them. */
static void
view_ddl_doubt_past(Oid relid)
{
	const CompiledView *view = streamext_view_compile(relid);
	const ConnectorOps *kind = streamext_stream_kind(view->stream_relid);
	uint64				past = 0;
	ListCell		   *lc;

	if (OidIsValid(view->inner) || view->parts != NIL || kind == NULL || kind->replayable || streamext_shared == NULL)
		return;
	foreach (lc, streamext_catalog_copy_shards(view->stream_relid))
		past += ((ShardCopy *) lfirst(lc))->slot.counted.rows_in;
	if (past > 0)
		ereport(NOTICE,
				(errmsg("view \"%s\" counts what comes to stream \"%s\" from now on", get_rel_name(relid),
						get_rel_name(view->stream_relid)),
				 errdetail("Records that came before are not kept for new views."),
				 errhint("Make views before their records come. Over Kafka a new view reads what the topic holds.")));
}

/* The same of an alert. */
static void
view_ddl_check_alert(Oid relid)
{
	Relation rel = table_open(relid, NoLock);

	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("an alert cannot be a temporary view"),
				 errdetail("A worker evaluates it, and no other process sees the temporary relations of a session."),
				 errhint("Leave TEMPORARY out.")));
	table_close(rel, NoLock);
	streamext_alert_check(relid);
	streamext_touch_teller();
}

/* Continuous, or an alert. */
static bool
view_ddl_is_ours(Oid relid)
{
	ContinuousViewOptions options = streamext_view_options(relid);

	return options.continuous || options.alert;
}

/*
 * The view that CREATE OR REPLACE would replace, if it is there. Where it is ours or becomes so: locked, and the user's, as PostgreSQL will ask
 * too. Another one that reads temporary tables is made in another schema, for which nobody needs rights here.
 */
static Oid
view_ddl_replaced_view(const ViewStmt *stmt, bool wanted)
{
	RangeVar *name;
	Oid		  relid;

	if (!stmt->replace)
		return InvalidOid;
	name = copyObject(stmt->view);
	relid = get_relname_relid(name->relname, RangeVarGetCreationNamespace(name));
	if (wanted || (OidIsValid(relid) && view_ddl_is_ours(relid)))
		(void) RangeVarGetAndCheckCreationNamespace(copyObject(stmt->view), AccessExclusiveLock, &relid);
	return relid;
}

/* What the options of CREATE VIEW ask for; raises where they contradict each other or what is there. */
static bool
view_ddl_wants_continuous(const ViewStmt *stmt, List *own, Oid replaced)
{
	DefElem *option = streamext_ddl_option_find(own, DDL_OPTION_PREFIX "continuous");
	bool	 continuous = option != NULL && defGetBoolean(option);

	streamext_ddl_option_check_kind(own, continuous);
	if (option == NULL && streamext_ddl_is_continuous(replaced))
		ereport(
			ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is a continuous view", stmt->view->relname),
			 errhint(
				 "Repeat WITH (streamext.continuous) to keep it one, or say WITH (streamext.continuous = false) to make it an ordinary view.")));
	if (!continuous && !streamext_ddl_option_alert(own) && list_length(own) > (option != NULL ? 1 : 0))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("view option \"%s\" is for continuous views",
							   ((DefElem *) (linitial(own) == option ? lsecond(own) : linitial(own)))->defname),
						errhint("Add streamext.continuous.")));
	return continuous;
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
	List	 *own = streamext_ddl_option_take(&stmt->options, true);
	Oid		  replaced = view_ddl_replaced_view(stmt, own != NIL);
	bool	  was_continuous = streamext_ddl_is_continuous(replaced);
	bool	  continuous = view_ddl_wants_continuous(stmt, own, replaced);
	List	 *former = was_continuous ? streamext_ddl_option_stored(replaced) : NIL;
	List	 *inside;
	List	 *made = NIL;
	bool	  nested;
	List	 *relids;
	Oid		  relid = InvalidOid;
	ListCell *cell;

	streamext_ddl_option_check_prefix(stmt->options);
	if (was_continuous)
	{
		streamext_touch_view(replaced, streamext_view_stream(replaced));
		streamext_ddl_touch_inner(replaced);
	}
	if (OidIsValid(replaced) && streamext_view_options(replaced).alert)
		streamext_touch_teller();
	inside = streamext_ddl_inner_former(replaced);
	nested = continuous && streamext_ddl_inner_make(stmt, own, call->query_string, replaced, &made);
	relids = streamext_ddl_run_hinted(call, continuous ? stmt->query : NULL);
	if (!continuous && was_continuous)
		streamext_into_depend(replaced, InvalidOid);
	if (OidIsValid(replaced))
		streamext_ddl_inner_tidy(replaced);
	view_ddl_touch_dependents(replaced);
	if (!continuous)
	{
		streamext_export_replaced(replaced);
		view_ddl_tell_ordinary_view(relids, stmt->view->relname);
	}
	if (!continuous && !streamext_ddl_option_alert(own))
		return;
	foreach (cell, relids)
		if (!OidIsValid(relid) && get_rel_relkind(lfirst_oid(cell)) == RELKIND_VIEW)
			relid = lfirst_oid(cell);
	if (!OidIsValid(relid))
		elog(ERROR, "the new view \"%s\" was not found", stmt->view->relname);
	if (!continuous)
	{
		streamext_ddl_option_store(relid, view_ddl_keep_into(relid, own));
		view_ddl_check_alert(relid);
		return;
	}
	if (nested || !streamext_ddl_inner_has(relid))
		former = list_concat(former, inside);
	own = streamext_ddl_option_keep_former(own, former);
	streamext_ddl_option_store(relid, view_ddl_keep_into(relid, streamext_ddl_option_keep_settings(own)));
	view_ddl_check_view(relid);
	streamext_ddl_inner_tell(relid, made);
	if (!was_continuous)
		view_ddl_doubt_past(relid);
	streamext_ddl_inner_bind(relid);
	if (nested)
		streamext_ddl_inner_pass(relid, own, false);
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
				if (streamext_ddl_option_is_own(lfirst(option)))
					return true;
	}
	return false;
}

/* As in CREATE VIEW, which makes no view of a query in FROM then. */
static void
view_ddl_check_invoker(Oid relid, const List *options)
{
	ListCell *lc;

	foreach (lc, options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "security_invoker") == 0 && defGetBoolean(lfirst(lc)) &&
			streamext_ddl_inner_has(relid))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("security_invoker is not supported in continuous view \"%s\", which has a query in "
							"FROM that became a view",
							get_rel_name(relid)),
					 errdetail("Its readers would need rights on that view."),
					 errhint("Write the query in FROM as a continuous view of your own and grant SELECT on it.")));
}

/* ALTER VIEW SET or RESET on a continuous view or an alert, which the caller has locked. */
static void
view_ddl_alter_continuous(DdlCall *call, Oid relid)
{
	AlterTableStmt *stmt = (AlterTableStmt *) streamext_ddl_copy_statement(call);
	List		   *options = streamext_ddl_option_stored(relid);
	List		   *changes[2] = { NIL, NIL }; /* set, reset */
	ListCell	   *cell;

	foreach (cell, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, cell);
		bool		   reset = cmd->subtype == AT_ResetRelOptions;
		List		  *others;
		List		  *taken;

		if (cmd->subtype != AT_SetRelOptions && !reset)
			continue;
		others = (List *) cmd->def;
		taken = streamext_ddl_option_take(&others, !reset);
		changes[reset] = list_concat(changes[reset], taken);
		options = streamext_ddl_option_change(options, taken, reset);
		streamext_ddl_option_check_prefix(others);
		if (!reset)
			view_ddl_check_invoker(relid, others);
		cmd->def = (Node *) others;
	}
	streamext_ddl_option_store(relid, NIL);
	(void) streamext_ddl_run(call);
	if (streamext_ddl_option_alert(options))
		options = view_ddl_keep_into(relid, options);
	streamext_ddl_option_store(relid, options);
	if (streamext_ddl_option_alert(options))
		view_ddl_check_alert(relid);
	else
		view_ddl_check_view(relid);
	streamext_ddl_inner_pass(relid, changes[false], false);
	streamext_ddl_inner_pass(relid, changes[true], true);
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
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is neither a continuous view nor an alert", stmt->relation->relname),
						errhint("Use CREATE OR REPLACE VIEW with streamext.continuous, or with streamext.alert.")));
	view_ddl_alter_continuous(call, relid);
	return true;
}
