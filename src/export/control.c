/*
 * export/control.c
 *		streamext.export and streamext.import: a continuous view becomes an ordinary one over merged partials, and back.
 *
 * Both are DDL as the view's owner could write it: a table beside the view, CREATE OR REPLACE VIEW, and a row in streamext.exported. So name,
 * OID, grants, comments and what depends on the view stay, pg_dump carries all of it, and it happens at commit or not at all.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "access/reloptions.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "base/fault.h"
#include "base/identity.h"
#include "base/own_table.h"
#include "aggregate/portable.h"
#include "base/relation.h"
#include "export/dialect.h"
#include "read/shard_rows.h"
#include "view/dependents.h"

PG_FUNCTION_INFO_V1(streamext_export_view);
PG_FUNCTION_INFO_V1(streamext_import_view);

static Oid
control_owner(Oid viewoid)
{
	Oid owner = streamext_export_owner(viewoid);

	if (!has_privs_of_role(GetUserId(), owner))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, get_rel_name(viewoid));
	return owner;
}

/* Locks the view, of which the caller has the rights of its owner: nobody else gets as far as to wait, and to have all others wait behind. */
static Oid
control_lock(Oid viewoid)
{
	(void) control_owner(viewoid);
	LockRelationOid(viewoid, AccessExclusiveLock);
	return control_owner(viewoid);
}

/* As the view's owner. */
static void
control_run_as(Oid owner, const char *sql)
{
	IdentityScope scope = streamext_identity_enter_lightly(owner);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute(sql, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not run: %s", sql);
	SPI_finish();
	streamext_identity_leave(scope);
}

/* pg_class.reloptions, in the current memory context. */
static Datum
control_options(Oid viewoid)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(viewoid));
	bool	  isnull;
	Datum	  options = SysCacheGetAttr(RELOID, tuple, Anum_pg_class_reloptions, &isnull);

	if (isnull)
		elog(ERROR, "view %u has no options", viewoid);
	options = PointerGetDatum(DatumGetArrayTypePCopy(options));
	ReleaseSysCache(tuple);
	return options;
}

/* Where the merged partials are, whatever view and table will be called. */
static void
control_note_table(Oid viewoid)
{
	Oid	  types[] = { OIDOID, TEXTOID };
	Datum values[] = { ObjectIdGetDatum(viewoid), CStringGetTextDatum(streamext_export_table(viewoid)) };

	(void) streamext_control_execute(
		"UPDATE streamext.exported SET partials = pg_catalog.to_regclass($2) WHERE view OPERATOR(pg_catalog.=) $1",
		lengthof(types), types, values, NULL, SPI_OK_UPDATE);
}

static void
control_note(Oid viewoid, const char *engine, const char *query, Datum options)
{
	Oid	  types[] = { OIDOID, TEXTOID, TEXTOID, TEXTARRAYOID };
	Datum values[] = { ObjectIdGetDatum(viewoid), CStringGetTextDatum(engine), CStringGetTextDatum(query), options };

	/* a dropped view's row, whose OID may have come again; one that an engine of another role's holds waits for nobody */
	(void) streamext_control_execute(
		"DELETE FROM streamext.exported WHERE view OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT e.view FROM streamext.exported AS e "
		"WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) e.view) FOR UPDATE SKIP LOCKED))",
		0, NULL, NULL, NULL, SPI_OK_DELETE);
	(void) streamext_control_execute(
		"INSERT INTO streamext.exported (view, engine, query, options) VALUES ($1, $2, $3, $4)", lengthof(types), types,
		values, NULL, SPI_OK_INSERT);
}

/* What takes the view's changes or closed windows would hear nothing of it any more. */
static void
control_check_dependents(const ExportPlan *plan)
{
	ListCell *lc;

	foreach (lc, streamext_view_dependents(plan->view->relid))
	{
		ContinuousViewOptions options = streamext_view_options(lfirst_oid(lc));

		if (options.continuous || options.alert)
			streamext_export_refuse(plan, psprintf("\"%s\" is over it", get_rel_name(lfirst_oid(lc))),
									"Drop the continuous views and alerts over it, or export those alone.");
	}
}

/* There is no table to hand over; who did not expect that can still roll back. */
static void
control_tell_anew(const CompiledView *view)
{
	ereport(
		NOTICE,
		(errmsg("view \"%s\" is counted anew from the start of stream \"%s\"", get_rel_name(view->relid),
				get_rel_name(view->stream_relid)),
		 errdetail("What it has counted so far is not handed over."),
		 errhint(
			 "The source has to hold all that the view shall have; the stream's option start says where it begins.")));
}

/* streamext.export(view regclass, engine text) */
Datum
streamext_export_view(PG_FUNCTION_ARGS)
{
	Oid					viewoid = PG_GETARG_OID(0);
	char			   *engine = text_to_cstring(PG_GETARG_TEXT_PP(1)), *former, *query, *text;
	Oid					owner;
	const CompiledView *view;
	ExportPlan		   *plan;
	HandOver		   *counted;
	int					level;

	streamext_require_preload();
	(void) control_owner(viewoid);
	streamext_export_wait(viewoid);
	owner = control_lock(viewoid);
	view = streamext_export_compile(viewoid, &former);
	plan = streamext_export_make(view, streamext_export_dialect(engine));
	if (former != NULL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("view \"%s\" is exported already", get_rel_name(viewoid)),
						errhint("streamext.import takes it back.")));
	control_check_dependents(plan);
	(void) streamext_export_json(plan); /* what the dialect refuses */
	level = streamext_portable_pin();
	counted = streamext_export_take(plan);
	streamext_fault_value("export", 1);
	text = streamext_shard_query_text(viewoid);
	query = streamext_export_view_query(plan);
	control_note(viewoid, engine, text, control_options(viewoid));
	control_run_as(owner, streamext_export_create_table(plan));
	control_run_as(owner, psprintf("CREATE INDEX ON %s (h)", streamext_export_table(viewoid)));
	control_run_as(owner, psprintf("CREATE OR REPLACE VIEW %s WITH (streamext.continuous = false) AS %s",
								   streamext_relation_name(viewoid), query));
	control_note_table(viewoid);
	streamext_export_depend(viewoid);
	streamext_fault_value("export", 2);
	if (counted != NULL)
		streamext_export_give(counted);
	streamext_fault_value("export", 3);
	AtEOXact_GUC(false, level);
	PG_RETURN_VOID();
}

/* "WITH (name = 'value', ...)" */
static char *
control_with(Datum options)
{
	StringInfoData buf;
	ListCell	  *lc;

	initStringInfo(&buf);
	foreach (lc, untransformRelOptions(options))
	{
		DefElem *def = lfirst_node(DefElem, lc);

		appendStringInfo(&buf, "%s%s = %s", buf.len > 0 ? ", " : "WITH (", quote_identifier(def->defname),
						 quote_literal_cstr(defGetString(def)));
	}
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

/* The former view's statement; its row goes. */
static char *
control_forget(Oid viewoid)
{
	MemoryContext cxt = CurrentMemoryContext, old;
	Oid			  types[] = { OIDOID };
	Datum		  values[] = { ObjectIdGetDatum(viewoid) };
	IdentityScope own = streamext_own_begin();
	bool		  isnull;
	char		 *sql;

	if (SPI_execute_with_args(
			"DELETE FROM streamext.exported WHERE view OPERATOR(pg_catalog.=) $1 RETURNING query, options", 1, types,
			values, NULL, false, 0) != SPI_OK_DELETE_RETURNING)
		elog(ERROR, "could not write streamext.exported");
	if (SPI_processed != 1)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("view \"%s\" is not exported", get_rel_name(viewoid))));
	old = MemoryContextSwitchTo(cxt);
	sql = psprintf("CREATE OR REPLACE VIEW %s %s AS %s", streamext_relation_name(viewoid),
				   control_with(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &isnull)),
				   TextDatumGetCString(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull)));
	MemoryContextSwitchTo(old);
	streamext_own_end(own);
	return sql;
}

static void
control_tell_import(void *name)
{
	errcontext("query that view \"%s\" had before it was exported", (const char *) name);
}

/* What an engine has merged; what it can compute itself does not matter for that. */
static ComeBack *
control_take_back(Oid viewoid)
{
	ErrorContextCallback context = { error_context_stack, control_tell_import, get_rel_name(viewoid) };
	ComeBack			*back;

	error_context_stack = &context;
	back = streamext_export_take_back(
		streamext_export_make(streamext_export_compile(viewoid, NULL), &streamext_export_postgres));
	error_context_stack = context.previous;
	return back;
}

/* streamext.import(view regclass) */
Datum
streamext_import_view(PG_FUNCTION_ARGS)
{
	Oid					viewoid = PG_GETARG_OID(0), owner;
	int					level;
	bool				gone;
	char			   *table, *sql;
	ComeBack		   *back;
	const CompiledView *view;
	/* a name that is not there any more is raised by PostgreSQL */
	ErrorContextCallback context = { error_context_stack, control_tell_import, get_rel_name(viewoid) };

	streamext_require_preload();
	(void) control_owner(viewoid);
	streamext_export_wait_gone(viewoid);
	owner = control_lock(viewoid);
	level = streamext_portable_pin();
	gone = get_rel_relkind(streamext_export_partials(viewoid)) != RELKIND_RELATION;
	table = gone ? NULL : streamext_export_table(viewoid);
	back = gone ? NULL : control_take_back(viewoid);
	streamext_fault_value("import", 1);
	sql = control_forget(viewoid);
	error_context_stack = &context;
	control_run_as(owner, sql);
	view = streamext_export_compile(viewoid, NULL);
	error_context_stack = context.previous;
	streamext_fault_value("import", 2);
	if (!streamext_export_give_back(back, view))
		control_tell_anew(view);
	if (!gone)
		control_run_as(owner, psprintf("DROP TABLE %s", table));
	streamext_fault_value("import", 3);
	AtEOXact_GUC(false, level);
	PG_RETURN_VOID();
}
