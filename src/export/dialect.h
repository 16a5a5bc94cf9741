/*
 * export/dialect.h
 *		How an engine writes what it computes: one const struct for each, in the table of export/dialect.c.
 *
 * A dialect knows types, operators, functions and aggregates by their OIDs, in tables of its own; what these do not name it refuses by
 * streamext_export_refuse, so that nothing is computed by a guess.
 */
#ifndef STREAMEXT_EXPORT_DIALECT_H
#define STREAMEXT_EXPORT_DIALECT_H

#include "export/plan.h"

typedef struct ExportDialect
{
	const char *name;
	/* Refuses sources, formats and columns that the engine has not. Called first. */
	void (*check)(const ExportPlan *plan);
	/* The engine's type; NULL if it has none: such a column may be there, an expression that reads it is refused. */
	char *(*type)(const ExportPlan *plan, Oid type, int32 typmod);
	/* An expression over the stream's columns; may append to plan->raises predicates that are true for rows on which PostgreSQL would raise. */
	char *(*expression)(ExportPlan *plan, Expr *expr);
	/* One partial aggregate. */
	char *(*partial)(ExportPlan *plan, const ExportPartial *partial);
	/* The time that stands for a row's pane (plan->has_at). */
	char *(*at)(ExportPlan *plan);
	/* Statements or queries over the relation batch; NULL: the runner makes them of the rest. */
	char *(*fill)(ExportPlan *plan);
	char *(*fill_raw)(ExportPlan *plan);
	char *(*newest)(ExportPlan *plan);
	char *(*counts)(ExportPlan *plan);
} ExportDialect;

extern const ExportDialect streamext_export_postgres;
extern const ExportDialect streamext_export_spark;

/* Raises 22023 naming those that there are. */
extern const ExportDialect *streamext_export_dialect(const char *name);

#endif /* STREAMEXT_EXPORT_DIALECT_H */
