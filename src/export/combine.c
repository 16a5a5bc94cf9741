/*
 * export/combine.c
 *		How partials of one group become one, as SQL: those of a batch's rows, those of the table's, and both together.
 *
 * In each case what comes out does not depend on the order: of first and last the time decides, and between equal times the position, which
 * stands there for that alone. A sketch is made here of the values that an engine has sent, by the functions that a continuous view uses, so no
 * engine need know how.
 */
#include "base/streamext.h"

#include "export/plan.h"

/* Functions of many and of two; two: one of letters is a function, any other an operator. NULL: see below. */
typedef struct Combining
{
	const char *many, *two;
} Combining;

static const Combining combinings[] = {
	[EXPORT_COUNT] = { "sum", "+" },
	[EXPORT_SUM] = { "sum", "+" },
	[EXPORT_SUM_NUMERIC] = { "sum", "+" },
	[EXPORT_SQUARES] = { "sum", "+" },
	[EXPORT_MIN] = { "min", "least" },
	[EXPORT_MAX] = { "max", "greatest" },
	[EXPORT_BOOL_AND] = { "bool_and", "least" },
	[EXPORT_BOOL_OR] = { "bool_or", "greatest" },
	[EXPORT_BIT_AND] = { "bit_and", "&" },
	[EXPORT_BIT_OR] = { "bit_or", "|" },
	[EXPORT_BIT_XOR] = { "bit_xor", "#" },
	[EXPORT_COUNT_PAIRS] = { "sum", "+" },
	[EXPORT_MOMENTS] = { "streamext.export_moments", "float8_combine" },
	[EXPORT_REGRESSION] = { "streamext.export_regression", "float8_regr_combine" },
	[EXPORT_FIRST] = { "streamext.first", NULL },
	[EXPORT_LAST] = { "streamext.last", NULL },
	[EXPORT_FIRST_AT] = { "min", "least" },
	[EXPORT_LAST_AT] = { "max", "greatest" },
	[EXPORT_FIRST_POSITION] = { "streamext.first", NULL },
	[EXPORT_LAST_POSITION] = { "streamext.last", NULL },
	[EXPORT_SET] = { "streamext.export_set", "streamext_internal.export_set_merge" },
	[EXPORT_DISTINCT] = { "streamext.merge", "streamext_internal.distinct_sketch_merge" },
	[EXPORT_PERCENTILE] = { "streamext.merge", "streamext_internal.percentile_sketch_merge" },
};

char *
streamext_export_combine_many(const ExportPartial *p, const char *prefix)
{
	const char *call = combinings[p->kind].many;

	if (p->position != NULL)
		return psprintf("%s(%s%s, %s%s ORDER BY %s%s)::%s", call, prefix, p->name, prefix, p->at, prefix, p->position,
						p->cast);
	return psprintf("%s(%s%s)::%s", call, prefix, p->name, p->cast);
}

char *
streamext_export_combine_stage(const ExportPartial *p)
{
	if (p->kind == EXPORT_DISTINCT)
		return psprintf("streamext_internal.export_distinct(%s)", p->name);
	if (p->kind == EXPORT_PERCENTILE)
		return psprintf("streamext_internal.export_percentile(%s)", p->name);
	return streamext_export_combine_many(p, "");
}

/* Of first and last: s's if it is earlier or later, or as early and was before. */
static char *
combine_by_time(const ExportPartial *p)
{
	bool last = p->kind == EXPORT_LAST || p->kind == EXPORT_LAST_POSITION;

	return psprintf("CASE WHEN t.%s IS NULL OR s.%s %s t.%s OR (s.%s = t.%s AND s.%s < t.%s) THEN s.%s ELSE t.%s END",
					p->at, p->at, last ? ">" : "<", p->at, p->at, p->at, p->position, p->position, p->name, p->name);
}

char *
streamext_export_combine_two(const ExportPartial *p)
{
	const char *word = combinings[p->kind].two;

	if (word == NULL)
		return combine_by_time(p);
	if (word[0] >= 'a' && word[0] <= 'z')
		return psprintf("%s(t.%s, s.%s)", word, p->name, p->name);
	return psprintf("coalesce(t.%s %s s.%s, t.%s, s.%s)", p->name, word, p->name, p->name, p->name);
}
