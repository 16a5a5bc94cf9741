/*
 * export/spark.h
 *		The dialect of Apache Spark SQL 3.5, in four files: types and constants, expressions, what of these needs thought, and what is made of them.
 *
 * The relation has the stream's columns by their names, and __topic, __partition, __offset, __timestamp, __key of the record.
 */
#ifndef STREAMEXT_EXPORT_SPARK_H
#define STREAMEXT_EXPORT_SPARK_H

#include "export/dialect.h"

/* export/spark_type.c */

/* NULL for a type there is no like of; the other raises. */
extern char *streamext_spark_type(const ExportPlan *plan, Oid type, int32 typmod);
extern char *streamext_spark_type_or_refuse(const ExportPlan *plan, Oid type, int32 typmod);
extern bool	 streamext_spark_is_int(Oid type);
/* Of a numeric's typmod; 0: it has none. */
extern int streamext_spark_precision(int32 typmod);
extern int streamext_spark_scale(int32 typmod);
/* A quoted name; a constant, and the text of one that is not NULL: a number, text. */
extern char *streamext_spark_name(const char *name);
extern char *streamext_spark_const(const ExportPlan *plan, const Const *con);
extern char *streamext_spark_output(const Const *con);

/* export/spark_time.c: intervals, times and letters */

/* An interval is a struct of months, days and microseconds, as PostgreSQL has it. Of a constant; raises if it is too long. */
#define SPARK_INTERVAL "STRUCT<m: INT, d: INT, us: BIGINT>"
extern char *streamext_spark_interval(const ExportPlan *plan, const Const *con);
/* What intervals are compared by: microseconds, a month for 30 days and a day for 24 hours. */
extern char *streamext_spark_length(const char *interval);
extern char *streamext_spark_shift(const ExportPlan *plan, const char *time, const char *sign, Node *interval);
extern char *streamext_spark_between(const char *later, const char *earlier);
/* An integer: the named field, a constant, of a time. */
extern char *streamext_spark_field(const ExportPlan *plan, Node *field, const char *time);
/* Raises unless the view's times are in UTC. */
extern void streamext_spark_check_zone(const ExportPlan *plan, const char *what);
extern bool streamext_spark_is_utc(const char *zone);
/* Raises unless A to Z have their like in a to z, and nothing else in ASCII has one. */
extern void streamext_spark_check_letters(const ExportPlan *plan, Oid collation);

/* export/spark_expression.c */

extern char *streamext_spark_expression(ExportPlan *plan, Expr *expr);
/* Raises unless text is ordered by its bytes. */
extern void streamext_spark_check_order(const ExportPlan *plan, Oid collation);

#endif /* STREAMEXT_EXPORT_SPARK_H */
