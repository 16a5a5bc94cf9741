/*
 * base/own_table.h
 *		Statements on the extension's own tables, through SPI.
 *
 * Between begin and end the process is the extension (base/identity.h): names in such statements are looked up in pg_catalog, what is in
 * the schema streamext is written with it. No user's expression, type or table is in them.
 */
#ifndef STREAMEXT_OWN_TABLE_H
#define STREAMEXT_OWN_TABLE_H

#include "base/identity.h"

/* Needs a transaction and a snapshot. What is allocated until the end is freed by it, as by SPI. */
extern IdentityScope streamext_own_begin(void);
extern void			 streamext_own_end(IdentityScope scope);

#endif /* STREAMEXT_OWN_TABLE_H */
