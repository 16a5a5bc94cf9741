/*
 * base/own_table.c
 *		Statements on the extension's own tables, through SPI.
 */
#include "postgres.h"

#include "executor/spi.h"

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
