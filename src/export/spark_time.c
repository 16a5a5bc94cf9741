/*
 * export/spark_time.c
 *		Intervals, fields of times and lower case in Spark SQL: what is the same in two programs only within bounds, and which.
 *
 * Times are in UTC in both, where a day is always 24 hours; a view with another time zone is refused what depends on it. What Spark decodes
 * itself lies within 1900 to 2099 (contrib/spark), and its intervals have at most six digits in each part, so that nothing here overflows.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "export/spark.h"

/* Of constants: as many as lengths in microseconds have room for beside those of columns. */
#define SPARK_MOST_MONTHS 1000000
#define SPARK_MOST_DAYS 1000000
#define SPARK_MOST_HOURS 1000000

/* ---- intervals ---- */

char *
streamext_spark_interval(const ExportPlan *plan, const Const *con)
{
	const Interval *interval = DatumGetIntervalP(con->constvalue);

	if (abs(interval->month) > SPARK_MOST_MONTHS || abs(interval->day) > SPARK_MOST_DAYS ||
		interval->time > SPARK_MOST_HOURS * USECS_PER_HOUR || interval->time < -SPARK_MOST_HOURS * USECS_PER_HOUR)
		streamext_export_refuse(plan, "an interval of more than a million months, days or hours in Spark", NULL);
	return psprintf("named_struct('m', CAST('%d' AS INT), 'd', CAST('%d' AS INT), 'us', CAST('" INT64_FORMAT
					"' AS BIGINT))",
					interval->month, interval->day, interval->time);
}

char *
streamext_spark_length(const char *interval)
{
	return psprintf("((%s).m * " INT64_FORMAT "L + (%s).d * " INT64_FORMAT "L + (%s).us)", interval,
					DAYS_PER_MONTH * USECS_PER_DAY, interval, USECS_PER_DAY, interval);
}

/* A constant without months: how long these are depends on the time. In microseconds. */
static int64
spark_constant_length(const ExportPlan *plan, Node *node)
{
	const Interval *interval;

	if (!IsA(node, Const) || ((Const *) node)->constisnull)
		streamext_export_refuse(plan, "a time and an interval that is no constant in Spark", NULL);
	interval = DatumGetIntervalP(((Const *) node)->constvalue);
	if (interval->month != 0 || abs(interval->day) > 36525 || interval->time > 876600 * USECS_PER_HOUR ||
		interval->time < -876600 * USECS_PER_HOUR)
		streamext_export_refuse(plan, "a time and an interval of months or of more than a hundred years in Spark",
								NULL);
	if (interval->day != 0)
		streamext_spark_check_zone(plan, "a time and an interval of days");
	return interval->day * USECS_PER_DAY + interval->time;
}

char *
streamext_spark_shift(const ExportPlan *plan, const char *time, const char *sign, Node *interval)
{
	return psprintf("timestamp_micros(unix_micros(%s) %s CAST('" INT64_FORMAT "' AS BIGINT))", time, sign,
					spark_constant_length(plan, interval));
}

/* As interval_justify_hours leaves it: days and what is left of one, of the same sign. */
char *
streamext_spark_between(const char *later, const char *earlier)
{
	char *us = psprintf("(unix_micros(%s) - unix_micros(%s))", later, earlier);

	return psprintf("CASE WHEN %s IS NOT NULL THEN named_struct('m', 0, 'd', CAST(%s DIV " INT64_FORMAT
					"L AS INT), 'us', %s %% " INT64_FORMAT "L) END",
					us, us, USECS_PER_DAY, us, USECS_PER_DAY);
}

/* ---- times ---- */

bool
streamext_spark_is_utc(const char *zone)
{
	return pg_strcasecmp(zone, "UTC") == 0 || pg_strcasecmp(zone, "Etc/UTC") == 0 || pg_strcasecmp(zone, "GMT") == 0;
}

void
streamext_spark_check_zone(const ExportPlan *plan, const char *what)
{
	if (!streamext_spark_is_utc(plan->view->options.timezone))
		streamext_export_refuse(
			plan, psprintf("%s in time zone %s in Spark", what, plan->view->options.timezone),
			"Views that are made with timezone = 'UTC' can be exported: two programs' calendars need not agree.");
}

char *
streamext_spark_field(const ExportPlan *plan, Node *field, const char *time)
{
	static const struct
	{
		const char *name;
		const char *call;
		int			more;
	} fields[] = {
		{ "year", "year", 0 },		{ "quarter", "quarter", 0 }, { "month", "month", 0 },
		{ "day", "day", 0 },		{ "hour", "hour", 0 },		 { "minute", "minute", 0 },
		{ "dow", "dayofweek", -1 }, { "isodow", "weekday", 1 },	 { "doy", "dayofyear", 0 },
	};
	const char *name =
		IsA(field, Const) && !((Const *) field)->constisnull ? TextDatumGetCString(((Const *) field)->constvalue) : "";

	streamext_spark_check_zone(plan, "a field of a time");
	for (int i = 0; i < lengthof(fields); i++)
		if (pg_strcasecmp(name, fields[i].name) == 0)
			return i == 0
					   ? psprintf("(year(%s) - CASE WHEN year(%s) <= 0 THEN 1 ELSE 0 END)", time, time) /* no year 0 */
					   : psprintf("(%s(%s) + %d)", fields[i].call, time, fields[i].more);
	streamext_export_refuse(plan, psprintf("the field '%s' of a time in Spark", name), NULL);
}

/* ---- letters ---- */

void
streamext_spark_check_letters(const ExportPlan *plan, Oid collation)
{
	for (int c = 1; c < 128; c++)
	{
		char  letter = (char) c;
		char *lower = str_tolower(&letter, 1, collation), *upper = str_toupper(&letter, 1, collation);

		if (lower[0] != pg_ascii_tolower(c) || upper[0] != pg_ascii_toupper(c) || strlen(lower) != 1 ||
			strlen(upper) != 1)
			streamext_export_refuse(
				plan, psprintf("upper and lower case under collation \"%s\" in Spark", get_collation_name(collation)),
				NULL);
	}
}
