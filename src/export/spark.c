/*
 * export/spark.c
 *		The dialect of Apache Spark SQL 3.5: contrib/spark/streamext_spark.py puts its texts together to a query.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "export/spark.h"

#define SPARK_SQUARED 13						   /* digits of numbers whose squares can be summed in 38 */
#define SPARK_EPOCH_US INT64CONST(946684800000000) /* 2000-01-01 after 1970-01-01 */

/* ---- aggregates ---- */

static char *
spark_input(ExportPlan *plan, const ExportPartial *p, int i)
{
	const ExportInput *input = &plan->inputs[p->input[i]];
	char			  *text;

	(void) streamext_spark_type_or_refuse(plan, exprType((Node *) input->expr), exprTypmod((Node *) input->expr));
	text = streamext_spark_expression(plan, input->expr);
	return input->filter == NULL
			   ? text
			   : psprintf("CASE WHEN %s THEN %s END", streamext_spark_expression(plan, input->filter), text);
}

/* {n, sum, sum of squared deviations} */
static char *
spark_moments(const char *x)
{
	return psprintf("array(CAST(count(%s) AS DOUBLE), coalesce(sum(%s), 0D), coalesce(var_pop(%s) * count(%s), 0D))", x,
					x, x, x);
}

/* {n, sum x, deviations x, sum y, deviations y, of both}, of rows that have both */
static char *
spark_regression(const char *y, const char *x)
{
	char *xx = psprintf("CASE WHEN %s IS NOT NULL THEN %s END", y, x);
	char *yy = psprintf("CASE WHEN %s IS NOT NULL THEN %s END", x, y);

	return psprintf(
		"array(CAST(count(%s) AS DOUBLE), coalesce(sum(%s), 0D), coalesce(var_pop(%s) * count(%s), 0D), coalesce(sum(%s), 0D), "
		"coalesce(var_pop(%s) * count(%s), 0D), coalesce(covar_pop(%s, %s) * count(%s), 0D))",
		xx, xx, xx, xx, yy, yy, yy, yy, xx, xx);
}

/* Of a number whose squares may have more digits than there are: such a record is PostgreSQL's. */
static char *
spark_square(ExportPlan *plan, const ExportPartial *p, const char *x)
{
	int scale = p->argtype == INT8OID ? 0 : streamext_spark_scale(exprTypmod((Node *) plan->inputs[p->input[0]].expr));
	char *narrow = psprintf("CAST(%s AS DECIMAL(%d,%d))", x, SPARK_SQUARED, scale);

	if (scale >= SPARK_SQUARED)
		streamext_export_refuse(plan, psprintf("squares of %s in Spark", format_type_be(p->argtype)), NULL);
	plan->raises = lappend(plan->raises, psprintf("%s IS NULL AND %s IS NOT NULL", narrow, x));
	return psprintf("%s * %s", narrow, narrow);
}

/* An exact number as a decimal whose sums do not overflow. */
static char *
spark_exact(ExportPlan *plan, const ExportPartial *p, bool squared)
{
	char *x = spark_input(plan, p, 0);
	int	  precision = streamext_spark_precision(exprTypmod((Node *) plan->inputs[p->input[0]].expr));

	if (p->argtype == FLOAT8OID)
		streamext_export_refuse(plan, "a cast of double precision to numeric in Spark", NULL);
	if (squared && (p->argtype == INT8OID || precision > SPARK_SQUARED))
		return spark_square(plan, p, x);
	if (streamext_spark_is_int(p->argtype))
		x = psprintf("CAST(%s AS DECIMAL(%d,0))", x, p->argtype == INT8OID ? 19 : 10);
	return squared ? psprintf("%s * %s", x, x) : x;
}

/* Of so many days that sums of a batch stay in range: a longer one is PostgreSQL's. */
static char *
spark_sum_intervals(ExportPlan *plan, const char *x)
{
	plan->raises = lappend(plan->raises, psprintf("abs((%s).m) > 1200 OR abs((%s).d) > 3660 OR abs((%s).us) > %lldL", x,
												  x, x, (long long) (87840 * USECS_PER_HOUR)));
	return psprintf(
		"CASE WHEN count(%s) > 0 THEN named_struct('m', sum((%s).m), 'd', sum((%s).d), 'us', sum((%s).us)) END", x, x,
		x, x);
}

static char *
spark_sum(ExportPlan *plan, const ExportPartial *p)
{
	if (p->argtype == INT2OID || p->argtype == INT4OID)
		return psprintf("sum(CAST(%s AS BIGINT))", spark_input(plan, p, 0));
	if (p->argtype == FLOAT8OID)
		return psprintf("sum(%s)", spark_input(plan, p, 0));
	if (p->argtype == INTERVALOID)
		return spark_sum_intervals(plan, spark_input(plan, p, 0));
	return psprintf("sum(%s)", spark_exact(plan, p, false));
}

static char *
spark_extreme_interval(ExportPartialKind kind, const char *x)
{
	return psprintf("%s(%s, %s)", kind == EXPORT_MIN ? "min_by" : "max_by", x, streamext_spark_length(x));
}

/* By the time in input i, and between equal times by the position in the partition. Of a row without a time there is nothing to go by. */
static char *
spark_by_time(ExportPlan *plan, const ExportPartial *p, const char *what, int i)
{
	bool  last = p->kind == EXPORT_LAST || p->kind == EXPORT_LAST_POSITION;
	char *time = spark_input(plan, p, i);

	return psprintf("%s(%s, CASE WHEN %s IS NOT NULL THEN struct(%s, %s__offset) END)", last ? "max_by" : "min_by",
					what, time, time, last ? "-" : "");
}

/* NULL if there is a filter that lets nothing through; otherwise an array, without NULLs. */
static char *
spark_values(ExportPlan *plan, const ExportPartial *p)
{
	char *values =
		psprintf("%s(%s)", p->kind == EXPORT_PERCENTILE ? "collect_list" : "collect_set", spark_input(plan, p, 0));

	if (p->ninputs == 1)
		return values;
	return psprintf("CASE WHEN count(%s) > 0 THEN %s END", spark_input(plan, p, 1), values);
}

static char *
spark_partial(ExportPlan *plan, const ExportPartial *p)
{
	static const char *const calls[] = {
		[EXPORT_COUNT] = "count",		[EXPORT_MIN] = "min",		  [EXPORT_MAX] = "max",
		[EXPORT_BOOL_AND] = "bool_and", [EXPORT_BOOL_OR] = "bool_or", [EXPORT_BIT_AND] = "bit_and",
		[EXPORT_BIT_OR] = "bit_or",		[EXPORT_BIT_XOR] = "bit_xor", [EXPORT_FIRST_AT] = "min",
		[EXPORT_LAST_AT] = "max",
	};

	if (p->ninputs == 0)
		return pstrdup("count(1)");
	switch (p->kind)
	{
		case EXPORT_SUM:
			return spark_sum(plan, p);
		case EXPORT_SUM_NUMERIC:
			return psprintf("sum(%s)", spark_exact(plan, p, false));
		case EXPORT_SQUARES:
			return psprintf("sum(%s)", spark_exact(plan, p, true));
		case EXPORT_FIRST:
		case EXPORT_LAST:
			return spark_by_time(plan, p, spark_input(plan, p, 0), 1);
		case EXPORT_FIRST_POSITION:
		case EXPORT_LAST_POSITION:
			return spark_by_time(plan, p, "__offset", 0);
		case EXPORT_SET:
		case EXPORT_DISTINCT:
		case EXPORT_PERCENTILE:
			return spark_values(plan, p);
		case EXPORT_MOMENTS:
			return spark_moments(spark_input(plan, p, 0));
		case EXPORT_REGRESSION:
			return spark_regression(spark_input(plan, p, 0), spark_input(plan, p, 1));
		case EXPORT_COUNT_PAIRS:
			return psprintf("count(%s, %s)", spark_input(plan, p, 0), spark_input(plan, p, 1));
		case EXPORT_MIN:
		case EXPORT_MAX:
			if (p->argtype == INTERVALOID)
				return spark_extreme_interval(p->kind, spark_input(plan, p, 0));
			if (p->argtype == TEXTOID)
				streamext_spark_check_order(plan, exprCollation((Node *) plan->inputs[p->input[0]].expr));
			/* FALLTHROUGH */
		default:
			return psprintf("%s(%s)", calls[p->kind], spark_input(plan, p, 0));
	}
}

/* ---- the rest ---- */

static char *
spark_time(const ExportPlan *plan)
{
	return plan->config->event_time == 0
			   ? pstrdup("__timestamp")
			   : streamext_spark_name(plan->config->columns[plan->config->event_time - 1].name);
}

/*
 * A time's bucket by the calendar, of which the two know the same in UTC: buckets of equal width are of the epoch's day, weeks of a Monday.
 */
static char *
spark_trunc(const ExportPlan *plan, const char *time)
{
	static const char *const units[] = { "second", "minute", "hour", "day", "week", "month", "quarter", "year" };
	const Window			*window = &plan->view->window;
	const char				*zone = window->trunc_zone != NULL ? window->trunc_zone : plan->view->options.timezone;

	if (streamext_spark_is_utc(zone))
		for (int i = 0; i < lengthof(units); i++)
			if (strcmp(units[i], window->trunc_unit) == 0)
				return psprintf("date_trunc('%s', %s)", units[i], time);
	streamext_export_refuse(plan, psprintf("date_trunc('%s') in time zone %s", window->trunc_unit, zone),
							"Seconds to years in UTC can be exported: two programs' calendars need not agree.");
}

static char *
spark_at(ExportPlan *plan)
{
	const Window *window = &plan->view->window;
	int64		  width = window->pane;
	char		 *us = psprintf("unix_micros(%s)", spark_time(plan)), *rest;

	if (width == 0)
		return spark_trunc(plan, spark_time(plan));
	rest = psprintf("pmod(%s - " INT64_FORMAT "L, " INT64_FORMAT "L)", us, (window->origin % width + SPARK_EPOCH_US),
					width);
	if (window->edges)
		return psprintf("timestamp_micros(%s - %s + CASE WHEN %s = 0L THEN 0L ELSE 1L END)", us, rest, rest);
	return psprintf("timestamp_micros(%s - %s)", us, rest);
}

/* Records come back without their headers. */
static void
spark_check_metadata(const ExportPlan *plan, const StreamColumn *column)
{
	switch (column->dropped ? METADATA_NONE : column->metadata)
	{
		case METADATA_NONE:
		case METADATA_TOPIC:
		case METADATA_PARTITION:
		case METADATA_OFFSET:
		case METADATA_KEY:
		case METADATA_TIMESTAMP:
			return;
		default:
			streamext_export_refuse(plan, psprintf("a column with metadata %s in Spark", column->metadata_spec->name),
									NULL);
	}
}

static void
spark_check(const ExportPlan *plan)
{
	for (int i = 0; i < plan->config->desc->natts; i++)
		spark_check_metadata(plan, &plan->config->columns[i]);
}

const ExportDialect streamext_export_spark = {
	.name = "spark",
	.check = spark_check,
	.type = streamext_spark_type,
	.expression = streamext_spark_expression,
	.partial = spark_partial,
	.at = spark_at,
};
