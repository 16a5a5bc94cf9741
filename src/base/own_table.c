/*
 * base/own_table.c
 *		Statements on the extension's own tables, through SPI.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "executor/spi.h"
#include "utils/lsyscache.h"

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
	Oid namespace = get_namespace_oid("streamext", true);

	return OidIsValid(namespace) ? get_relname_relid(name, namespace) : InvalidOid;
}

int64
streamext_control_execute(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls, int expected)
{
	IdentityScope scope = streamext_own_begin();
	int64		  result;
	bool		  isnull = true;

	if (SPI_execute_with_args(sql, nargs, types, values, nulls, false, 0) != expected)
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

	if (SPI_execute(sql, true, 0) != SPI_OK_SELECT)
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
