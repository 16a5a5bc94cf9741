/*
 * export/spark.h
 *		The dialect of Apache Spark SQL 3.5, in three files: types and constants, expressions, and what is made of them.
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
/* A quoted name; a constant, and the text of one that is not NULL: a number, text. */
extern char *streamext_spark_name(const char *name);
extern char *streamext_spark_const(const ExportPlan *plan, const Const *con);
extern char *streamext_spark_output(const Const *con);

/* export/spark_expression.c */

extern char *streamext_spark_expression(ExportPlan *plan, Expr *expr);
/* Raises unless text is ordered by its bytes. */
extern void streamext_spark_check_order(const ExportPlan *plan, Oid collation);

#endif /* STREAMEXT_EXPORT_SPARK_H */
