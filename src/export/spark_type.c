/*
 * export/spark_type.c
 *		Types and constants in Spark SQL.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/float.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "export/spark.h"

#define SPARK_EPOCH_US INT64CONST(946684800000000) /* 2000-01-01 after 1970-01-01 */
#define SPARK_EPOCH_DAYS 10957
/* Sums of decimals get ten digits more, and there are 38. */
#define SPARK_PRECISION 28

/* ---- types ---- */

bool
streamext_spark_is_int(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

int
streamext_spark_precision(int32 typmod)
{
	return typmod < (int32) VARHDRSZ ? 0 : ((typmod - VARHDRSZ) >> 16) & 0xffff;
}

int
streamext_spark_scale(int32 typmod)
{
	int scale = (typmod - VARHDRSZ) & 0x7ff;

	return scale & 0x400 ? scale - 0x800 : scale;
}

/* NULL for a type there is no like of. */
char *
streamext_spark_type(const ExportPlan *plan, Oid type, int32 typmod)
{
	if (type == NUMERICOID)
	{
		int precision = streamext_spark_precision(typmod);

		if (precision == 0 || precision > SPARK_PRECISION || streamext_spark_scale(typmod) < 0 ||
			streamext_spark_scale(typmod) > Min(precision, 17))
			return NULL;
		return psprintf("DECIMAL(%d,%d)", precision, streamext_spark_scale(typmod));
	}
	if (typmod >= 0)
		return NULL;
	switch (type)
	{
		case TEXTOID:
		case VARCHAROID:
			return pstrdup("STRING");
		case BOOLOID:
			return pstrdup("BOOLEAN");
		case INT2OID:
			return pstrdup("SMALLINT");
		case INT4OID:
			return pstrdup("INT");
		case INT8OID:
			return pstrdup("BIGINT");
		case FLOAT8OID:
			return pstrdup("DOUBLE");
		case TIMESTAMPTZOID:
			return pstrdup("TIMESTAMP");
		case DATEOID:
			return pstrdup("DATE");
		case INTERVALOID:
			return pstrdup(SPARK_INTERVAL);
		default:
			return NULL;
	}
}

char *
streamext_spark_type_or_refuse(const ExportPlan *plan, Oid type, int32 typmod)
{
	char *name = streamext_spark_type(plan, type, typmod);

	if (name == NULL)
		streamext_export_refuse(
			plan, psprintf("type %s in Spark", format_type_with_typemod(type, typmod)),
			type == NUMERICOID ? "A numeric needs a precision, of at most 28 digits with at most 17 behind the point."
							   : NULL);
	return name;
}

char *
streamext_spark_name(const char *name)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '`');
	for (const char *c = name; *c != '\0'; c++)
		appendStringInfo(&buf, *c == '`' ? "``" : "%c", *c);
	appendStringInfoChar(&buf, '`');
	return buf.data;
}

/* ---- constants ---- */

static char *
spark_text(const char *text)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '\'');
	for (const char *c = text; *c != '\0'; c++)
	{
		if (*c == '\\' || *c == '\'')
			appendStringInfoChar(&buf, '\\');
		appendStringInfoChar(&buf, *c);
	}
	appendStringInfoChar(&buf, '\'');
	return buf.data;
}

char *
streamext_spark_output(const Const *con)
{
	switch (con->consttype)
	{
		case INT2OID:
			return psprintf("%d", DatumGetInt16(con->constvalue));
		case INT4OID:
			return psprintf("%d", DatumGetInt32(con->constvalue));
		case INT8OID:
			return psprintf(INT64_FORMAT, DatumGetInt64(con->constvalue));
		case FLOAT8OID:
			return float8out_internal(DatumGetFloat8(con->constvalue));
		case NUMERICOID:
			return DatumGetCString(DirectFunctionCall1(numeric_out, con->constvalue));
		default:
			return TextDatumGetCString(con->constvalue);
	}
}

static char *
spark_numeric(const ExportPlan *plan, const Const *con)
{
	char	   *text = streamext_spark_output(con);
	const char *point = strchr(text, '.');
	int digits = strspn(text, "-0123456789.") == strlen(text) ? strlen(text) - (point != NULL) - (text[0] == '-') : 0;
	int scale = point == NULL ? 0 : strlen(point + 1);

	if (digits == 0 || digits > SPARK_PRECISION)
		streamext_export_refuse(plan, psprintf("the constant %s in Spark", text), NULL);
	return psprintf("CAST('%s' AS DECIMAL(%d,%d))", text, Max(digits, scale), scale);
}

char *
streamext_spark_const(const ExportPlan *plan, const Const *con)
{
	if (con->constisnull)
		return psprintf("CAST(NULL AS %s)", streamext_spark_type_or_refuse(plan, con->consttype, con->consttypmod));
	switch (con->consttype)
	{
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT8OID:
			return psprintf("CAST('%s' AS %s)", streamext_spark_output(con),
							streamext_spark_type(plan, con->consttype, -1));
		case BOOLOID:
			return pstrdup(DatumGetBool(con->constvalue) ? "true" : "false");
		case TEXTOID:
		case VARCHAROID:
			return spark_text(streamext_spark_output(con));
		case NUMERICOID:
			return spark_numeric(plan, con);
		case TIMESTAMPTZOID:
			if (!TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(con->constvalue)))
				return psprintf("timestamp_micros(" INT64_FORMAT "L)",
								DatumGetTimestampTz(con->constvalue) + SPARK_EPOCH_US);
			break;
		case INTERVALOID:
			return streamext_spark_interval(plan, con);
		case DATEOID:
			if (!DATE_NOT_FINITE(DatumGetDateADT(con->constvalue)))
				return psprintf("date_from_unix_date(%d)", DatumGetDateADT(con->constvalue) + SPARK_EPOCH_DAYS);
			break;
	}
	streamext_export_refuse(plan,
							psprintf("the constant %s in Spark", streamext_export_postgres.expression(
																	 unconstify(ExportPlan *, plan), (Expr *) con)),
							NULL);
}
