/*
 * sql/ddl_inner.c
 *		Continuous views made of queries in FROM. What the functions promise is in sql/ddl_inner.h.
 *
 * The view's stored query names its inner views, so that everything that is true of views over views is true of these, and pg_dump
 * writes two statements that restore as they are. DEPENDENCY_EXTENSION is DEPENDENCY_INTERNAL where something is dropped; of it pg_dump
 * alone sees nothing, to which a view that needs what needs it would be a circle.
 *
 * All that is done to an inner view is a statement, run as the user who has given the one for the outer view. It passes the hook in
 * sql/ddl.c itself, and so reaches the inner views of inner views.
 */
#include "base/streamext.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "commands/defrem.h"
#include "common/int.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/analyze.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/relation.h"
#include "sql/ddl.h"
#include "sql/ddl_inner.h"
#include "sql/ddl_option.h"
#include "view/check.h"
#include "view/compile.h"
#include "view/dependents.h"
#include "view/inner.h"
#include "view/nest.h"
#include "view/settings.h"

/* ---- statements ---- */

static void
inner_run(const char *sql)
{
	PlannedStmt *statement = makeNode(PlannedStmt);

	statement->commandType = CMD_UTILITY;
	statement->utilityStmt = linitial_node(RawStmt, pg_parse_query(sql))->stmt;
	statement->stmt_len = strlen(sql);
	PushActiveSnapshot(GetTransactionSnapshot());
	ProcessUtility(statement, sql, false, PROCESS_UTILITY_QUERY, NULL, NULL, None_Receiver, NULL);
	PopActiveSnapshot();
	CommandCounterIncrement();
}

/* ---- which belong to which ---- */

/* The views that live with this one. */
static List *
inner_bound(Oid outer)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	List	   *found = NIL;
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(outer));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend row = (Form_pg_depend) GETSTRUCT(tuple);

		if (row->classid == RelationRelationId && row->deptype == DEPENDENCY_EXTENSION)
			found = lappend_oid(found, row->objid);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return found;
}

/* With those that live with these, the innermost first. */
static List *
inner_bound_all(Oid outer)
{
	List	 *all = NIL;
	ListCell *lc;

	check_stack_depth();
	foreach (lc, inner_bound(outer))
		all = list_concat(all, lappend_oid(inner_bound_all(lfirst_oid(lc)), lfirst_oid(lc)));
	return all;
}

static bool
inner_is_bound(Oid inner)
{
	Relation	depend = table_open(DependRelationId, AccessShareLock);
	bool		found = false;
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], Anum_pg_depend_classid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_objid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(inner));
	scan = systable_beginscan(depend, DependDependerIndexId, true, NULL, 2, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend row = (Form_pg_depend) GETSTRUCT(tuple);

		found = found || (row->refclassid == RelationRelationId && row->deptype == DEPENDENCY_EXTENSION);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return found;
}

/*
 * Whether the outer view, and so what lives with it, would live with itself: it may still live with one that names it, in however an expression, and
 * reads something else by now. Nothing could drop these.
 */
static bool
inner_is_circle(Oid inner, Oid outer)
{
	return inner == outer || list_member_oid(inner_bound_all(inner), outer);
}

bool
streamext_ddl_inner_has(Oid relid)
{
	return inner_bound(relid) != NIL;
}

static void
inner_unbind(Oid inner)
{
	(void) deleteDependencyRecordsForClass(RelationRelationId, inner, RelationRelationId, DEPENDENCY_EXTENSION);
	CommandCounterIncrement();
}

void
streamext_ddl_inner_bind(Oid relid)
{
	Oid			  inner = streamext_view_inner(relid);
	ObjectAddress outer_address;
	ObjectAddress inner_address;

	if (!OidIsValid(inner) || !streamext_view_options(inner).inner ||
		streamext_relation_owner(inner, false) != streamext_relation_owner(relid, false) || inner_is_bound(inner) ||
		inner_is_circle(inner, relid))
		return;
	ObjectAddressSet(outer_address, RelationRelationId, relid);
	ObjectAddressSet(inner_address, RelationRelationId, inner);
	recordDependencyOn(&inner_address, &outer_address, DEPENDENCY_EXTENSION);
	CommandCounterIncrement();
}

void
streamext_ddl_inner_tidy(Oid relid)
{
	ListCell *lc;

	foreach (lc, inner_bound(relid))
	{
		if (list_member_oid(streamext_view_dependents(lfirst_oid(lc)), relid))
			continue;
		inner_unbind(lfirst_oid(lc));
		inner_run(psprintf("DROP VIEW %s", streamext_relation_name(lfirst_oid(lc))));
	}
}

/* ---- making them ---- */

static bool
inner_is_wanted(const ViewStmt *stmt)
{
	ListCell *lc;

	/* Readers of security_invoker views would need rights on what they have not heard of. */
	foreach (lc, stmt->options)
		if (strcmp(lfirst_node(DefElem, lc)->defname, "security_invoker") == 0 && defGetBoolean(lfirst(lc)))
			return false;
	return stmt->view->relpersistence != RELPERSISTENCE_TEMP;
}

/* As it looks once it is a view. */
static char *
inner_normal(const char *definition)
{
	RawStmt *raw = linitial_node(RawStmt, pg_parse_query(definition));

	return streamext_view_text(parse_analyze_fixedparams(raw, definition, NULL, 0, NULL));
}

/*
 * A view's text as it looks when its query stands by itself: its rule may have more in its range table, and so longer names. What somebody else
 * has written is not parsed again: that evaluates constants, by the checks of his domains, and as the user who replaces the view.
 */
static char *
inner_stored(Relation view)
{
	Query *query = copyObject(get_view_query(view));

#if PG_VERSION_NUM < 160000
	/* the view itself, as OLD and NEW */
	query->rtable = list_copy_tail(query->rtable, PRS2_NEW_VARNO);
	OffsetVarNodes((Node *) query, -PRS2_NEW_VARNO, 0);
#endif
	return streamext_view_text(query);
}

/* Those that are still there: what one has read that is another one now is gone. */
static List *
inner_there(List *views)
{
	List	 *there = NIL;
	ListCell *lc;

	foreach (lc, views)
		if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_VIEW)
			there = lappend_oid(there, lfirst_oid(lc));
	return there;
}

/* The view among these that is the query already. */
static Oid
inner_same(List *views, const char *definition)
{
	const char *normal = inner_normal(definition);
	ListCell   *lc;

	foreach (lc, views)
	{
		Relation	rel = table_open(lfirst_oid(lc), AccessShareLock);
		const char *stored = inner_stored(rel);

		table_close(rel, NoLock);
		if (strcmp(stored, normal) == 0)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

static bool
inner_has_columns(TupleDesc desc, TupleDesc wanted)
{
	for (int i = 0; i < desc->natts && desc->natts == wanted->natts; i++)
	{
		const FormData_pg_attribute *a = TupleDescAttr(desc, i);
		const FormData_pg_attribute *b = TupleDescAttr(wanted, i);

		if (strcmp(NameStr(a->attname), NameStr(b->attname)) != 0 || a->atttypid != b->atttypid ||
			a->atttypmod != b->atttypmod || a->attcollation != b->attcollation)
			return false;
	}
	return desc->natts == wanted->natts;
}

/* The first that has the query's columns, so that it can be replaced, and goes on where it stands. */
static Oid
inner_alike(List *views, const Query *query)
{
	TupleDesc desc = ExecCleanTypeFromTL(query->targetList);
	ListCell *lc;

	foreach (lc, views)
	{
		Relation rel = table_open(lfirst_oid(lc), AccessShareLock);
		bool	 same = inner_has_columns(RelationGetDescr(rel), desc);

		table_close(rel, NoLock);
		if (same)
			return lfirst_oid(lc);
	}
	return InvalidOid;
}

/* With the settings that the statement gives. */
static char *
inner_options(List *own)
{
	StringInfoData buf;
	ListCell	  *lc;

	initStringInfo(&buf);
	appendStringInfoString(&buf, DDL_OPTION_PREFIX "continuous, " DDL_OPTION_PREFIX "inner");
	foreach (lc, own)
	{
		DefElem	   *def = lfirst_node(DefElem, lc);
		const char *name = def->defname + strlen(DDL_OPTION_PREFIX);

		if (strcmp(name, "timezone") == 0 || strcmp(name, "datestyle") == 0 || strcmp(name, "intervalstyle") == 0 ||
			streamext_view_is_setting(name))
			appendStringInfo(&buf, ", " DDL_OPTION_PREFIX "%s = %s", quote_identifier(name),
							 quote_literal_cstr(defGetString(def)));
	}
	return buf.data;
}

void
streamext_ddl_inner_tell(Oid relid, List *made)
{
	ListCell *lc;

	foreach (lc, made)
	{
		const char *name = lfirst_node(DefElem, lc)->defname;

		ereport(
			NOTICE,
			(errmsg("a query in FROM became continuous view \"%s\"", name),
			 errdetail("Its closed windows are read in the query's place. It is dropped with view \"%s\".",
					   get_rel_name(relid)),
			 defGetBoolean(lfirst(lc))
				 ? errhint(
					   "Without GROUP BY and aggregates \"%s\" shows its newest rows; an ordinary view over \"%s\" would show all that there is.",
					   get_rel_name(relid), name)
				 : 0));
	}
}

/* *former: the views of the one that is replaced, less the one that this is. */
static Oid
inner_make(const ViewStmt *stmt, List *own, const RangeTblEntry *entry, List **former, bool stateless, List **made)
{
	Query *query = streamext_nest_query(entry);
	char  *definition = streamext_view_text(copyObject(query));
	Oid	   schema = RangeVarGetCreationNamespace(stmt->view);
	Oid	   relid;
	char  *name;

	*former = inner_there(*former);
	relid = inner_same(*former, definition);
	if (!OidIsValid(relid))
		relid = inner_alike(*former, query);
	if (OidIsValid(relid))
	{
		*former = list_delete_oid(*former, relid);
		inner_unbind(relid);
		inner_run(psprintf("CREATE OR REPLACE VIEW %s WITH (%s) AS %s", streamext_relation_name(relid),
						   inner_options(own), definition));
		return relid;
	}
	name = ChooseRelationName(stmt->view->relname, NULL, "inner", schema, false);
	inner_run(psprintf("CREATE VIEW %s WITH (%s) AS %s", quote_qualified_identifier(get_namespace_name(schema), name),
					   inner_options(own), definition));
	*made = lappend(*made, makeDefElem(name, (Node *) makeBoolean(stateless), -1));
	return get_relname_relid(name, schema);
}

static Query *
inner_analyze(const ViewStmt *stmt, const char *text)
{
	RawStmt				*raw = makeNode(RawStmt);
	DdlHint				 hint = { stmt->query, text };
	ErrorContextCallback callback = { error_context_stack, streamext_ddl_hint, &hint };
	Query				*query;

	raw->stmt = copyObject(stmt->query);
	raw->stmt_location = -1;
	error_context_stack = &callback;
	query = parse_analyze_fixedparams(raw, text, NULL, 0, NULL);
	error_context_stack = callback.previous;
	return query;
}

/* The view has another owner than who replaces it. */
static void
inner_give(Oid relid, Oid replaced)
{
	Oid owner = OidIsValid(replaced) ? streamext_relation_owner(replaced, false) : GetUserId();

	if (streamext_relation_owner(relid, false) != owner)
		inner_run(psprintf("ALTER VIEW %s OWNER TO %s", streamext_relation_name(relid),
						   quote_identifier(GetUserNameFromId(owner, false))));
}

/* DISTINCT groups; what goes into a table is in no view. */
static bool
inner_shows_newest(const Query *query, List *own)
{
	return streamext_view_is_stateless(query) && query->distinctClause == NIL &&
		   streamext_ddl_option_find(own, DDL_OPTION_PREFIX "into") == NULL;
}

bool
streamext_ddl_inner_make(ViewStmt *stmt, List *own, const char *text, Oid replaced, List **made)
{
	List		  *former = OidIsValid(replaced) ? inner_bound_all(replaced) : NIL;
	bool		   any = false;
	RangeTblEntry *entry;
	Query		  *query;

	if (!inner_is_wanted(stmt))
		return false;
	query = inner_analyze(stmt, text);
	while ((entry = streamext_nest_next(query)) != NULL)
	{
		bool rows = inner_shows_newest(query, own);
		Oid	 relid = inner_make(stmt, own, entry, &former, rows, made);

		inner_give(relid, replaced);
		streamext_nest_replace(query, entry, relid);
		any = true;
	}
	if (any)
		stmt->query = linitial_node(RawStmt, pg_parse_query(streamext_view_text(query)))->stmt;
	return any;
}

/* ---- options ---- */

/* Options that are for records of the stream, and so for the inner views alone; for both. */
static const char *const inner_moved[] = { DDL_OPTION_PREFIX "lateness", DDL_OPTION_PREFIX "keep_late" };
static const char *const inner_copied[] = { DDL_OPTION_PREFIX "retention", DDL_OPTION_PREFIX "max_groups" };

List *
streamext_ddl_inner_former(Oid replaced)
{
	List	 *former = NIL;
	ListCell *lc;

	if (!OidIsValid(replaced))
		return NIL;
	foreach (lc, inner_bound_all(replaced))
	{
		List *stored = streamext_ddl_option_stored(lfirst_oid(lc));

		for (int i = 0; i < lengthof(inner_moved); i++)
		{
			DefElem *def = streamext_ddl_option_find(stored, inner_moved[i]);

			if (def != NULL && streamext_ddl_option_find(former, inner_moved[i]) == NULL)
				former = lappend(former, def);
		}
	}
	return former;
}

/* How far apart the first and the last window may be that are of one window of the view; months and days by the longest. */
static int64
inner_span(Oid relid)
{
	CompiledView *view = streamext_view_compile(relid);
	TimestampTz	  july = 196 * USECS_PER_DAY; /* in 2000, a leap year, and in its longest quarter */
	TimestampTz	  start;

	switch (view->window.kind)
	{
		case WINDOW_TUMBLE:
		case WINDOW_HOP:
			return view->window.size;
		case WINDOW_SESSION:
			return 2 * view->window.size;
		case WINDOW_TRUNC:
			streamext_view_prepare_window(view);
			start = streamext_window_pane(&view->window, july);
			return streamext_window_end(&view->window, start) - start + USECS_PER_DAY;
		default:
			return view->window.sliding ? view->window.length : 0;
	}
}

/* All that the view may have to count anew. */
static char *
inner_retention(Oid relid)
{
	int64 retention = streamext_view_options(relid).retention;

	if (pg_add_s64_overflow(retention, inner_span(relid) + USECS_PER_SEC, &retention))
		retention = PG_INT64_MAX;
	return psprintf(INT64_FORMAT " s", retention / USECS_PER_SEC);
}

static List *
inner_passed(Oid relid, List *changes, bool reset)
{
	List *passed = NIL;

	for (int i = 0; i < lengthof(inner_moved); i++)
		if (streamext_ddl_option_find(changes, inner_moved[i]) != NULL)
			passed = lappend(passed, streamext_ddl_option_find(changes, inner_moved[i]));
	for (int i = 0; i < lengthof(inner_copied); i++)
	{
		DefElem *def = streamext_ddl_option_find(changes, inner_copied[i]);

		if (def == NULL)
			continue;
		if (i == 0 && !reset)
			def = makeDefElem(def->defname, (Node *) makeString(inner_retention(relid)), -1);
		passed = lappend(passed, def);
	}
	return passed;
}

static void
inner_take(Oid relid)
{
	List *stored = streamext_ddl_option_stored(relid);
	List *kept = list_copy(stored);

	for (int i = 0; i < lengthof(inner_moved); i++)
		kept = list_delete_ptr(kept, streamext_ddl_option_find(stored, inner_moved[i]));
	if (list_length(kept) < list_length(stored))
		streamext_ddl_option_store(relid, kept);
}

void
streamext_ddl_inner_pass(Oid relid, List *changes, bool reset)
{
	List		  *inner = inner_bound(relid);
	List		  *passed = inner != NIL ? inner_passed(relid, changes, reset) : NIL;
	StringInfoData buf;
	ListCell	  *lc;

	if (passed == NIL)
		return;
	inner_take(relid);
	initStringInfo(&buf);
	foreach (lc, passed)
	{
		DefElem *def = lfirst_node(DefElem, lc);

		appendStringInfo(&buf, "%s%s", buf.len > 0 ? ", " : "", def->defname);
		if (!reset)
			appendStringInfo(&buf, " = %s", quote_literal_cstr(defGetString(def)));
	}
	foreach (lc, inner)
		inner_run(psprintf("ALTER VIEW %s %s (%s)", streamext_relation_name(lfirst_oid(lc)), reset ? "RESET" : "SET",
						   buf.data));
}

/* ---- owner and schema ---- */

DdlInnerPlace
streamext_ddl_inner_place(Oid relid)
{
	DdlInnerPlace place = { InvalidOid, InvalidOid };

	if (OidIsValid(get_rel_namespace(relid)))
	{
		place.owner = streamext_relation_owner(relid, false);
		place.schema = get_rel_namespace(relid);
	}
	return place;
}

void
streamext_ddl_inner_follow(Oid relid, DdlInnerPlace before)
{
	DdlInnerPlace now;
	ListCell	 *lc;

	CommandCounterIncrement();
	now = streamext_ddl_inner_place(relid);
	if (!OidIsValid(now.owner))
		return;
	foreach (lc, inner_bound(relid))
	{
		DdlInnerPlace inner = streamext_ddl_inner_place(lfirst_oid(lc));

		/* Somebody else's, which a superuser's view reads, is not given to whom that is given. */
		if (inner.owner == before.owner && now.owner != before.owner)
			inner_run(psprintf("ALTER VIEW %s OWNER TO %s", streamext_relation_name(lfirst_oid(lc)),
							   quote_identifier(GetUserNameFromId(now.owner, false))));
		if (inner.schema == before.schema && now.schema != before.schema)
			inner_run(psprintf("ALTER VIEW %s SET SCHEMA %s", streamext_relation_name(lfirst_oid(lc)),
							   quote_identifier(get_namespace_name(now.schema))));
	}
	if (now.owner != before.owner && streamext_ddl_is_continuous(relid))
		streamext_ddl_inner_bind(relid);
}
