/*
 * export/definition.c
 *		What an exported view was before it became an ordinary one, compiled again; and who may do what with it.
 *
 * streamext.exported keeps the query's text, with all names qualified, and the options. Nothing else of the continuous view is needed: the
 * text is compiled as any view's query is.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

#include "base/own_table.h"
#include "aggregate/portable.h"
#include "base/relation.h"
#include "export/plan.h"
#include "view/settings.h"

typedef struct FormerView
{
	char *query;
	char *engine;
	Datum options;
} FormerView;

/* In the current memory context. */
static bool
definition_read(Oid viewoid, FormerView *former)
{
	static const char sql[] =
		"SELECT query, engine, options FROM streamext.exported WHERE view OPERATOR(pg_catalog.=) $1";
	MemoryContext cxt = CurrentMemoryContext;
	Oid			  types[] = { OIDOID };
	Datum		  values[] = { ObjectIdGetDatum(viewoid) };
	IdentityScope own = streamext_own_begin();
	bool		  found, isnull;

	if (SPI_execute_with_args(sql, 1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext.exported");
	found = SPI_processed > 0;
	if (found)
	{
		HeapTuple	  row = SPI_tuptable->vals[0];
		MemoryContext old = MemoryContextSwitchTo(cxt);

		former->query = TextDatumGetCString(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		former->engine = TextDatumGetCString(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
		former->options =
			PointerGetDatum(DatumGetArrayTypePCopy(SPI_getbinval(row, SPI_tuptable->tupdesc, 3, &isnull)));
		MemoryContextSwitchTo(old);
	}
	streamext_own_end(own);
	return found;
}

Oid
streamext_export_owner(Oid viewoid)
{
	Oid owner = streamext_relation_owner(viewoid, true);

	if (!OidIsValid(owner))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("there is no such view any more")));
	return owner;
}

/* Reading the text makes values of its constants, by the types' input functions: the owner is at work. */
static Query *
definition_parse(Oid viewoid, const FormerView *former)
{
	IdentityScope scope = streamext_identity_enter(streamext_export_owner(viewoid));
	int			  level = streamext_portable_pin();
	List		 *parsed = raw_parser(former->query, RAW_PARSE_DEFAULT);
	Query		 *query;

	streamext_identity_set("search_path", "pg_catalog, pg_temp");
	query = parse_analyze_fixedparams(linitial_node(RawStmt, parsed), former->query, NULL, 0, NULL);
	AtEOXact_GUC(false, level);
	streamext_identity_leave(scope);
	return query;
}

Query *
streamext_export_former_query(Oid viewoid)
{
	FormerView former;

	return definition_read(viewoid, &former) ? definition_parse(viewoid, &former) : NULL;
}

static CompiledView *
definition_compile_former(Oid viewoid, const FormerView *former)
{
	ContinuousViewOptions options = streamext_view_options_of(former->options);

	return streamext_view_compile_former(viewoid, definition_parse(viewoid, former), &options);
}

static void
definition_prepare_window(CompiledView *view)
{
	IdentityScope scope = streamext_identity_enter(view->owner);

	streamext_view_enter_settings(&view->options);
	streamext_window_prepare(&view->window, CurrentMemoryContext);
	streamext_identity_leave(scope);
}

static void
definition_check_kind(Oid viewoid)
{
	char *name = get_rel_name(viewoid);

	if (name == NULL)
		(void) streamext_export_owner(viewoid);
	if (get_rel_relkind(viewoid) != RELKIND_VIEW)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a view", name)));
}

const CompiledView *
streamext_export_compile(Oid viewoid, char **engine)
{
	FormerView	  former = { 0 };
	CompiledView *view;

	definition_check_kind(viewoid);
	if (definition_read(viewoid, &former))
		view = definition_compile_former(viewoid, &former);
	else if (streamext_view_options(viewoid).continuous)
		view = streamext_view_compile(viewoid);
	else
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a continuous view", get_rel_name(viewoid))));
	definition_prepare_window(view);
	if (engine != NULL)
		*engine = former.engine;
	return view;
}

Oid
streamext_export_partials(Oid viewoid)
{
	Oid	  types[] = { OIDOID };
	Datum values[] = { ObjectIdGetDatum(viewoid) };

	return (Oid) streamext_control_execute(
		"SELECT partials::pg_catalog.oid::pg_catalog.int8 FROM streamext.exported WHERE view OPERATOR(pg_catalog.=) $1",
		1, types, values, NULL, SPI_OK_SELECT);
}

static void
definition_check_insert(Oid viewoid)
{
	AclResult result;

	definition_check_kind(viewoid);
	result = pg_class_aclcheck(viewoid, GetUserId(), ACL_INSERT);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_VIEW, get_rel_name(viewoid));
}

/* The lock comes before that of the view's row, as DROP VIEW and import() have it; who has no rights does not get as far as to wait. */
void
streamext_export_check_rights(Oid viewoid)
{
	definition_check_insert(viewoid);
	LockRelationOid(viewoid, AccessShareLock);
	definition_check_insert(viewoid);
}
