/*
 * base/own_table.c
 *		Statements on the extension's own tables, through SPI.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"

#include "base/own_schema.h"
#include "base/own_table.h"

IdentityScope
streamext_own_begin(void)
{
	IdentityScope scope = streamext_identity_enter_extension();

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	return scope;
}

void
streamext_own_end(IdentityScope scope)
{
	SPI_finish();
	streamext_identity_leave(scope);
}

Oid
streamext_control_table(const char *name)
{
	return streamext_own_relation(name);
}

/*
 * Whether the tables are where version 1.1 has them. While they are not, the lock holds ALTER EXTENSION UPDATE up at its first table, so that
 * no statement is half before and half behind it; who had to wait for it looks again.
 */
static bool
own_tables_have_moved(void)
{
	Oid locked = InvalidOid;

	for (;;)
	{
		Oid table = streamext_own_relation("checkpoint_log");

		if (!OidIsValid(table) || get_rel_namespace(table) != get_namespace_oid(STREAMEXT_SCHEMA, true))
			return true;
		if (table == locked)
			return false;
		LockRelationOid(table, AccessShareLock);
		locked = table;
	}
}

static const char *
own_sql(const char *sql, bool moved)
{
	StringInfoData text;

	if (moved)
		return sql;
	initStringInfo(&text);
	for (const char *at; (at = strstr(sql, STREAMEXT_INTERNAL_SCHEMA ".")) != NULL;
		 sql = at + strlen(STREAMEXT_INTERNAL_SCHEMA))
	{
		appendBinaryStringInfo(&text, sql, at - sql);
		appendStringInfoString(&text, STREAMEXT_SCHEMA);
	}
	appendStringInfoString(&text, sql);
	return text.data;
}

const char *
streamext_own_sql(const char *sql)
{
	return own_sql(sql, own_tables_have_moved());
}

SPIPlanPtr
streamext_own_plan(OwnPlan *kept, const char *sql, int nargs, Oid *types)
{
	bool	   moved = own_tables_have_moved();
	SPIPlanPtr former = kept->plan;
	SPIPlanPtr plan;

	if (former != NULL && kept->moved == moved)
		return former;
	plan = SPI_prepare(own_sql(sql, moved), nargs, types);
	if (plan == NULL)
		elog(ERROR, "could not prepare a statement on the extension's tables: %s", SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	*kept = (OwnPlan){ .plan = plan, .moved = moved };
	if (former != NULL)
		SPI_freeplan(former);
	return plan;
}

int64
streamext_control_execute(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	IdentityScope scope = streamext_own_begin();
	int64		  result;
	bool		  isnull = true;

	if (SPI_execute_with_args(streamext_own_sql(sql), nargs, types, values, nulls, false, 0) != expected)
		elog(ERROR, "could not run a statement on the extension's tables");
	result = (int64) SPI_processed;
	if (expected == SPI_OK_SELECT)
	{
		Datum value = result == 0 ? (Datum) 0 : SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		result = isnull ? 0 : DatumGetInt64(value);
	}
	streamext_own_end(scope);
	return result;
}

List *
streamext_control_oids(const char *sql)
{
	MemoryContext cxt = CurrentMemoryContext;
	IdentityScope scope = streamext_own_begin();
	List		 *oids = NIL;

	if (SPI_execute(streamext_own_sql(sql), true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not run a statement on the extension's tables");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(cxt);
		bool		  isnull;

		oids = lappend_oid(oids,
						   DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
		MemoryContextSwitchTo(old);
	}
	streamext_own_end(scope);
	return oids;
}
