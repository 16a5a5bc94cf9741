/*
 * sql/compare.c
 *		What streamext.compare, written in PL/pgSQL, asks of C.
 */
#include "base/streamext.h"

#include "base/identity.h"

PG_FUNCTION_INFO_V1(streamext_check_columns);

/* Raises if who asks is a superuser and what the rows become as JSON is an ordinary role's to say. */
Datum
streamext_check_columns(PG_FUNCTION_ARGS)
{
	streamext_identity_check_columns(PG_GETARG_OID(0));
	PG_RETURN_VOID();
}
