/*
 * base/own_table.h
 *		Statements on the extension's own tables, through SPI.
 *
 * Between begin and end the process is the extension (base/identity.h): names in such statements are looked up in pg_catalog, what is in
 * the extension's schemas is written with them. No user's expression, type or table is in them. Tables are written where version 1.1 has
 * them, in streamext_internal; what runs a statement by SPI itself gives it through streamext_own_sql.
 */
#ifndef STREAMEXT_OWN_TABLE_H
#define STREAMEXT_OWN_TABLE_H

#include "executor/spi.h"
#include "nodes/pg_list.h"

#include "base/identity.h"

/* Needs a transaction and a snapshot. What is allocated until the end is freed by it, as by SPI. */
extern IdentityScope streamext_own_begin(void);
extern void			 streamext_own_end(IdentityScope scope);

/* One of the extension's own tables; InvalidOid while the extension is being dropped. */
extern Oid streamext_control_table(const char *name);

/*
 * The statement for the tables of this database: with the objects of version 1.0 they are in the schema streamext. Until the transaction
 * ends they stay where they are.
 */
extern const char *streamext_own_sql(const char *sql);

/* A statement that is prepared once in a process, and again when ALTER EXTENSION UPDATE has moved its tables. */
typedef struct OwnPlan
{
	SPIPlanPtr plan;
	bool	   moved; /* prepared for where version 1.1 has them */
} OwnPlan;

/* Within SPI. */
extern SPIPlanPtr streamext_own_plan(OwnPlan *kept, const char *sql, int nargs, Oid *types);

/*
 * Runs a statement on the extension's own tables, with the rights of their owner; the number of rows, or the one value of a query
 * (0: no row). `expected` as SPI_OK_*.
 */
extern int64 streamext_control_execute(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls,
									   int expected);

/* The OIDs that such a query gives, in the current memory context. */
extern List *streamext_control_oids(const char *sql);

#endif /* STREAMEXT_OWN_TABLE_H */
