/*
 * export/plan.c
 *		From a compiled view to a plan: what is computed of each batch outside, and how its aggregates are finished here.
 *
 * The aggregates that can be exported stand in one table, by OID: those whose partials are plain values which PostgreSQL's own functions
 * merge. What it does not name is refused. Finished values are PostgreSQL's own to the last digit where its state is exact (integers,
 * numeric): sums and counts are kept, and the arithmetic that its final functions do is written out.
 */
#include "base/streamext.h"

#include "access/transam.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/ruleutils.h"

#include "base/own_schema.h"
#include "export/dialect.h"
#include "export/plan.h"
#include "source/connector.h"
#include "stream/definition.h"
#include "view/inner.h"

/* What becomes of an aggregate's partials. */
typedef enum FinalKind
{
	FINAL_COUNT,
	FINAL_SUM,
	FINAL_AVG,
	FINAL_SAME, /* the partial's own aggregate once more */
	FINAL_COUNT_PAIRS,
	FINAL_VARIANCE, /* exact, of integers and numeric; word: pop or samp */
	FINAL_STDDEV,
	FINAL_MOMENTS, /* word: PostgreSQL's final function */
	FINAL_REGRESSION,
	/* the extension's own */
	FINAL_FIRST, /* or last: partial */
	FINAL_DISTINCT,
	FINAL_PERCENTILE,
	FINAL_SKETCH /* partial */
} FinalKind;

typedef struct ExportAggregate
{
	Oid				  function;
	FinalKind		  final;
	ExportPartialKind partial; /* FINAL_SAME */
	const char		 *word;
} ExportAggregate;

#define SAME(fn, kind, word)       \
	{                              \
		fn, FINAL_SAME, kind, word \
	}
#define ORDERED(type) SAME(F_MIN_##type, EXPORT_MIN, "min"), SAME(F_MAX_##type, EXPORT_MAX, "max")
#define BITS(type)                                                                                     \
	SAME(F_BIT_AND_##type, EXPORT_BIT_AND, "bit_and"), SAME(F_BIT_OR_##type, EXPORT_BIT_OR, "bit_or"), \
		SAME(F_BIT_XOR_##type, EXPORT_BIT_XOR, "bit_xor")
#define EXACT(fn, kind, word)                                                                 \
	{ fn##_INT8, kind, 0, word }, { fn##_INT4, kind, 0, word }, { fn##_INT2, kind, 0, word }, \
	{                                                                                         \
		fn##_NUMERIC, kind, 0, word                                                           \
	}
#define FLOATS(fn, word)                     \
	{ fn##_FLOAT4, FINAL_MOMENTS, 0, word }, \
	{                                        \
		fn##_FLOAT8, FINAL_MOMENTS, 0, word  \
	}
#define SUMS(fn, kind)                                                                                            \
	{ fn##_INT8, kind }, { fn##_INT4, kind }, { fn##_INT2, kind }, { fn##_NUMERIC, kind }, { fn##_FLOAT4, kind }, \
		{ fn##_FLOAT8, kind },                                                                                    \
	{                                                                                                             \
		fn##_INTERVAL, kind                                                                                       \
	}

static const ExportAggregate export_aggregates[] = {
	{ F_COUNT_, FINAL_COUNT },
	{ F_COUNT_ANY, FINAL_COUNT },
	SUMS(F_SUM, FINAL_SUM),
	SUMS(F_AVG, FINAL_AVG),
	ORDERED(INT8),
	ORDERED(INT4),
	ORDERED(INT2),
	ORDERED(NUMERIC),
	ORDERED(FLOAT4),
	ORDERED(FLOAT8),
	ORDERED(DATE),
	ORDERED(TIME),
	ORDERED(TIMETZ),
	ORDERED(TIMESTAMP),
	ORDERED(TIMESTAMPTZ),
	ORDERED(INTERVAL),
	ORDERED(TEXT),
	ORDERED(BPCHAR),
	SAME(F_BOOL_AND, EXPORT_BOOL_AND, "bool_and"),
	SAME(F_EVERY, EXPORT_BOOL_AND, "bool_and"),
	SAME(F_BOOL_OR, EXPORT_BOOL_OR, "bool_or"),
	BITS(INT2),
	BITS(INT4),
	BITS(INT8),
	EXACT(F_VAR_POP, FINAL_VARIANCE, "pop"),
	EXACT(F_VAR_SAMP, FINAL_VARIANCE, "samp"),
	EXACT(F_VARIANCE, FINAL_VARIANCE, "samp"),
	EXACT(F_STDDEV_POP, FINAL_STDDEV, "pop"),
	EXACT(F_STDDEV_SAMP, FINAL_STDDEV, "samp"),
	EXACT(F_STDDEV, FINAL_STDDEV, "samp"),
	FLOATS(F_VAR_POP, "float8_var_pop"),
	FLOATS(F_VAR_SAMP, "float8_var_samp"),
	FLOATS(F_VARIANCE, "float8_var_samp"),
	FLOATS(F_STDDEV_POP, "float8_stddev_pop"),
	FLOATS(F_STDDEV_SAMP, "float8_stddev_samp"),
	FLOATS(F_STDDEV, "float8_stddev_samp"),
	{ F_REGR_COUNT, FINAL_COUNT_PAIRS },
	{ F_REGR_SXX, FINAL_REGRESSION, 0, "float8_regr_sxx" },
	{ F_REGR_SYY, FINAL_REGRESSION, 0, "float8_regr_syy" },
	{ F_REGR_SXY, FINAL_REGRESSION, 0, "float8_regr_sxy" },
	{ F_REGR_AVGX, FINAL_REGRESSION, 0, "float8_regr_avgx" },
	{ F_REGR_AVGY, FINAL_REGRESSION, 0, "float8_regr_avgy" },
	{ F_REGR_R2, FINAL_REGRESSION, 0, "float8_regr_r2" },
	{ F_REGR_SLOPE, FINAL_REGRESSION, 0, "float8_regr_slope" },
	{ F_REGR_INTERCEPT, FINAL_REGRESSION, 0, "float8_regr_intercept" },
	{ F_COVAR_POP, FINAL_REGRESSION, 0, "float8_covar_pop" },
	{ F_COVAR_SAMP, FINAL_REGRESSION, 0, "float8_covar_samp" },
	{ F_CORR, FINAL_REGRESSION, 0, "float8_corr" },
};

/* In the extension's schema, by name: their OIDs are others in each database. */
static const ExportAggregate export_own_aggregates[] = {
	{ .final = FINAL_FIRST, .partial = EXPORT_FIRST, .word = "first" },
	{ .final = FINAL_FIRST, .partial = EXPORT_LAST, .word = "last" },
	{ .final = FINAL_DISTINCT, .word = "approx_count_distinct" },
	{ .final = FINAL_PERCENTILE, .word = "approx_percentile" },
	{ .final = FINAL_SKETCH, .partial = EXPORT_DISTINCT, .word = "sketch_distinct" },
	{ .final = FINAL_SKETCH, .partial = EXPORT_PERCENTILE, .word = "sketch_percentile" },
};

void
streamext_export_refuse(const ExportPlan *plan, const char *what, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("continuous view \"%s\" cannot be exported: %s", get_rel_name(plan->view->relid), what),
					errhint("%s", hint != NULL ? hint : "What can be exported is listed in docs/scale.md.")));
	pg_unreachable();
}

/* ---- what a view must not have ---- */

static void
plan_check_source(const ExportPlan *plan)
{
	const ConnectorOps *source = plan->config->connector;

	if (!source->replayable || !source->partitioned || !source->payloads)
		streamext_export_refuse(
			plan, psprintf("streams of the wrapper %s", source->name),
			"An engine reads topics of Kafka: let streamext.into write there what comes by other channels.");
}

static void
plan_check_options(const ExportPlan *plan)
{
	const ContinuousViewOptions *o = &plan->view->options;
	const char					*with = NULL;

	if (o->retention > 0)
		with = "retention";
	else if (o->into != NULL || o->changes_into != NULL)
		with = "into";
	else if (o->max_groups > 0)
		with = "max_groups";
	else if (o->keep_late)
		with = "keep_late";
	else if (o->notify)
		with = "notify";
	if (with != NULL)
		streamext_export_refuse(plan, psprintf("streamext.%s", with), "Reset the option first.");
}

static void
plan_check_view(const ExportPlan *plan)
{
	const CompiledView *view = plan->view;

	if (view->stateless || view->derived)
		streamext_export_refuse(plan, "a view without aggregates or GROUP BY", NULL);
	if (OidIsValid(view->inner))
		streamext_export_refuse(plan, "a continuous view in FROM", "Export that view.");
	if (view->parts != NIL)
		streamext_export_refuse(plan, "UNION ALL", "Export a view of each part.");
	if (view->has_joins)
		streamext_export_refuse(plan, "joins, subqueries and set-returning functions", NULL);
	if (view->sliding_days != 0)
		streamext_export_refuse(plan, "a sliding window of calendar days", "Write it in hours.");
	plan_check_source(plan);
	plan_check_options(plan);
	for (int k = 0; k < view->nkeys; k++)
		if (view->keys[k].type >= FirstNormalObjectId)
			streamext_export_refuse(plan, psprintf("GROUP BY on type %s", format_type_be(view->keys[k].type)), NULL);
}

/* ---- inputs and partials ---- */

static int
plan_add_input(ExportPlan *plan, Expr *expr, Expr *filter)
{
	for (int i = 0; i < plan->ninputs; i++)
		if (equal(plan->inputs[i].expr, expr) && equal(plan->inputs[i].filter, filter))
			return i;
	plan->inputs[plan->ninputs].expr = expr;
	plan->inputs[plan->ninputs].filter = filter;
	return plan->ninputs++;
}

/* A type without a modifier: not "character", which would have one. */
static char *
plan_type(Oid type)
{
	return format_type_extended(type, -1, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

static char *
plan_column_type(Oid type, Oid collation)
{
	if (OidIsValid(collation) && collation != get_typcollation(type))
		return psprintf("%s COLLATE %s", plan_type(type), generate_collation_name(collation));
	return plan_type(type);
}

/* What a batch has of it. */
static Oid
plan_stage_type(ExportPartialKind kind, Oid argtype)
{
	switch (kind)
	{
		case EXPORT_COUNT:
		case EXPORT_COUNT_PAIRS:
		case EXPORT_FIRST_POSITION:
		case EXPORT_LAST_POSITION:
			return INT8OID;
		case EXPORT_SET:
		case EXPORT_DISTINCT:
		case EXPORT_PERCENTILE:
			return get_array_type(argtype);
		case EXPORT_SUM_NUMERIC:
		case EXPORT_SQUARES:
			return NUMERICOID;
		case EXPORT_MOMENTS:
		case EXPORT_REGRESSION:
			return FLOAT8ARRAYOID;
		case EXPORT_SUM:
			if (argtype == INT2OID || argtype == INT4OID)
				return INT8OID;
			if (argtype == INT8OID)
				return NUMERICOID;
			return argtype == FLOAT4OID ? FLOAT8OID : argtype;
		default:
			return argtype;
	}
}

static const ExportAggregate *
plan_find_aggregate(const ExportPlan *plan, const Aggref *aggref)
{
	const char *name = get_func_name(aggref->aggfnoid);
	bool		own = streamext_own_schema(get_func_namespace(aggref->aggfnoid));

	for (int i = 0; i < lengthof(export_aggregates); i++)
		if (export_aggregates[i].function == aggref->aggfnoid)
			return &export_aggregates[i];
	for (int i = 0; i < lengthof(export_own_aggregates) && own; i++)
		if (strcmp(export_own_aggregates[i].word, name) == 0)
			return &export_own_aggregates[i];
	streamext_export_refuse(plan, psprintf("aggregate %s", format_procedure_qualified(aggref->aggfnoid)),
							"What can be exported is listed in docs/scale.md.");
}

/* Whether what is kept of it is its value, so that it needs no state to be told. */
static bool
plan_is_value(const ExportAggregate *known)
{
	return known->final == FINAL_COUNT || known->final == FINAL_SUM || known->final == FINAL_SAME ||
		   known->final == FINAL_COUNT_PAIRS;
}

static bool
plan_is_sketch(ExportPartialKind kind)
{
	return kind == EXPORT_DISTINCT || kind == EXPORT_PERCENTILE;
}

/* The arguments that a partial is made of. */
static List *
plan_arguments(ExportPartialKind kind, const Aggref *aggref)
{
	List	 *args = NIL;
	ListCell *lc;

	foreach (lc, aggref->args)
		if (!lfirst_node(TargetEntry, lc)->resjunk)
			args = lappend(args, lfirst_node(TargetEntry, lc)->expr);
	switch (kind)
	{
		case EXPORT_FIRST_AT:
		case EXPORT_LAST_AT:
		case EXPORT_FIRST_POSITION:
		case EXPORT_LAST_POSITION:
			return list_make1(lsecond(args));
		case EXPORT_PERCENTILE:
			return list_make1(llast(args));
		default:
			return args;
	}
}

static void
plan_add_inputs(ExportPlan *plan, ExportPartial *p, const Aggref *aggref)
{
	ListCell *lc;

	foreach (lc, plan_arguments(p->kind, aggref))
	{
		Expr *expr = lfirst(lc);

		if (foreach_current_index(lc) == 0)
			p->argtype = exprType((Node *) expr);
		Assert(p->ninputs < lengthof(p->input));
		p->input[p->ninputs++] = plan_add_input(plan, expr, aggref->aggfilter);
	}
	/* count(*) FILTER: rows for which the filter is true; a sketch of no such row is NULL, not empty */
	if (aggref->aggfilter != NULL && (p->ninputs == 0 || plan_is_sketch(p->kind)))
		p->input[p->ninputs++] = plan_add_input(plan, aggref->aggfilter, aggref->aggfilter);
}

/* Types of the columns. */
static void
plan_type_partial(ExportPlan *plan, ExportPartial *p, const Aggref *aggref)
{
	bool of_values;

	p->stageoid = plan_stage_type(p->kind, p->argtype);
	if (!OidIsValid(p->stageoid) || get_typtype(p->stageoid) == TYPTYPE_PSEUDO)
		streamext_export_refuse(
			plan, psprintf("%s over type %s", get_func_name(aggref->aggfnoid), format_type_be(p->argtype)), NULL);
	p->typeoid = plan_is_sketch(p->kind) ? plan->view->aggs[plan->finishing].transtype : p->stageoid;
	of_values = p->stageoid == p->argtype || p->stageoid == get_array_type(p->argtype);
	p->collation = of_values && OidIsValid(get_typcollation(p->stageoid)) ? aggref->inputcollid : InvalidOid;
	p->cast = plan_type(p->typeoid);
	p->type = p->typeoid == p->stageoid ? plan_column_type(p->typeoid, p->collation) : p->cast;
	p->stage = plan_column_type(p->stageoid, p->collation);
}

/* The aggregate at hand is finished from this partial too. */
static const char *
plan_note_part(ExportPlan *plan, int partial)
{
	ExportParts *parts = &plan->parts[plan->finishing];

	Assert(parts->n < lengthof(parts->partial));
	parts->partial[parts->n++] = partial;
	return plan->partials[partial].name;
}

/* The name of the partial of the aggregate's arguments; equal ones are one. */
static const char *
plan_partial(ExportPlan *plan, ExportPartialKind kind, const Aggref *aggref)
{
	ExportPartial *p = &plan->partials[plan->npartials];

	memset(p, 0, sizeof(*p));
	p->kind = kind;
	plan_add_inputs(plan, p, aggref);
	for (int i = 0; i < plan->npartials; i++)
	{
		const ExportPartial *q = &plan->partials[i];

		if (q->kind == kind && q->ninputs == p->ninputs && memcmp(q->input, p->input, sizeof(p->input)) == 0)
			return plan_note_part(plan, i);
	}
	plan_type_partial(plan, p, aggref);
	p->aggregate = plan->finishing;
	p->finished = kind == EXPORT_FIRST || kind == EXPORT_LAST ||
				  (kind != EXPORT_SET && plan_is_value(plan_find_aggregate(plan, aggref)));
	p->name = psprintf("p%d", plan->npartials + 1);
	return plan_note_part(plan, plan->npartials++);
}

/* ---- finished ---- */

static char *
plan_final_avg(ExportPlan *plan, const Aggref *aggref)
{
	Oid			type = exprType((Node *) linitial_node(TargetEntry, aggref->args)->expr);
	const char *sum = plan_partial(plan, EXPORT_SUM, aggref);
	const char *count = plan_partial(plan, EXPORT_COUNT, aggref);

	if (type == FLOAT4OID || type == FLOAT8OID || type == INTERVALOID)
		return psprintf("sum(s.%s) / nullif(sum(s.%s), 0)::double precision", sum, count);
	return psprintf("sum(s.%s)::numeric / nullif(sum(s.%s), 0)", sum, count);
}

/* As numeric_stddev_internal: the same products in numeric, and as many digits. */
static char *
plan_final_spread(ExportPlan *plan, const Aggref *aggref, const char *word, bool root)
{
	const char *n = plan_partial(plan, EXPORT_COUNT, aggref);
	const char *x = plan_partial(plan, EXPORT_SUM_NUMERIC, aggref);
	const char *xx = plan_partial(plan, EXPORT_SQUARES, aggref);

	return psprintf("streamext.export_spread(sum(s.%s), sum(s.%s), sum(s.%s), %s, %s)", n, x, xx,
					strcmp(word, "samp") == 0 ? "true" : "false", root ? "true" : "false");
}

/* The distinct values are kept, and aggregated where they are read. */
static char *
plan_final_set(ExportPlan *plan, const Aggref *aggref)
{
	const Node *argument = (const Node *) linitial_node(TargetEntry, aggref->args)->expr;
	const char *name = get_func_name(aggref->aggfnoid);
	const char *set;

	if (list_length(aggref->args) != 1 || IsA(argument, Const))
		streamext_export_refuse(
			plan, psprintf("%s(DISTINCT) of %s", name, IsA(argument, Const) ? "a constant" : "several arguments"),
			NULL);
	set = plan_partial(plan, EXPORT_SET, aggref);
	if (aggref->aggfnoid == F_COUNT_ANY)
		return psprintf("coalesce(cardinality(streamext.export_set(s.%s)), 0)", set);
	return psprintf("(SELECT %s(u.u) FROM unnest(streamext.export_set(s.%s)) AS u(u))", name, set);
}

/* What the partial that was added last goes by. */
static const ExportPartial *
plan_by_time(ExportPlan *plan, const char *at, const char *position)
{
	const ExportParts *parts = &plan->parts[plan->finishing];
	ExportPartial	  *p = &plan->partials[parts->partial[parts->n - 1]];

	p->at = at;
	p->position = position;
	return p;
}

/* The value is the last of its partials: of its type the aggregate is. */
static char *
plan_final_first(ExportPlan *plan, const Aggref *aggref, ExportPartialKind kind)
{
	bool		last = kind == EXPORT_LAST;
	const char *at = plan_partial(plan, last ? EXPORT_LAST_AT : EXPORT_FIRST_AT, aggref);
	const char *position = plan_partial(plan, last ? EXPORT_LAST_POSITION : EXPORT_FIRST_POSITION, aggref);

	(void) plan_by_time(plan, at, position);
	(void) plan_partial(plan, kind, aggref);
	return streamext_export_combine_many(plan_by_time(plan, at, position), "s.");
}

/* A constant of double precision, or another number's that the parser has cast; no code of the view's owner runs for it. */
static bool
plan_constant(const Expr *expr, float8 *value)
{
	Oid cast = IsA(expr, FuncExpr) ? ((const FuncExpr *) expr)->funcid : InvalidOid;

	if (cast == F_FLOAT8_NUMERIC || cast == F_FLOAT8_INT4)
		expr = linitial(((const FuncExpr *) expr)->args);
	if (!IsA(expr, Const) || ((const Const *) expr)->constisnull)
		return false;
	if (cast == F_FLOAT8_NUMERIC)
		*value = DatumGetFloat8(DirectFunctionCall1(numeric_float8, ((const Const *) expr)->constvalue));
	else if (cast == F_FLOAT8_INT4)
		*value = DatumGetInt32(((const Const *) expr)->constvalue);
	else
		*value = DatumGetFloat8(((const Const *) expr)->constvalue);
	return true;
}

static char *
plan_fraction(ExportPlan *plan, const Aggref *aggref)
{
	ExportParts *parts = &plan->parts[plan->finishing];

	parts->has_fraction = plan_constant(linitial_node(TargetEntry, aggref->args)->expr, &parts->fraction);
	if (!parts->has_fraction)
		streamext_export_refuse(plan, "approx_percentile with a fraction that is no constant", NULL);
	if (!(parts->fraction >= 0 && parts->fraction <= 1))
		streamext_export_refuse(plan, "approx_percentile with a fraction that is not between 0 and 1", NULL);
	return psprintf("'%.17g'::double precision", parts->fraction);
}

static void
plan_check_aggregate(const ExportPlan *plan, const ExportAggregate *known, const Aggref *aggref)
{
	bool pairs = known->final == FINAL_REGRESSION || known->final == FINAL_COUNT_PAIRS;

	if (aggref->aggdistinct != NIL && (pairs || known->final >= FINAL_FIRST))
		streamext_export_refuse(plan, psprintf("%s(DISTINCT)", get_func_name(aggref->aggfnoid)), NULL);
	if (aggref->aggorder != NIL && plan->view->aggs[plan->finishing].mode == AGG_VALUES)
		streamext_export_refuse(plan, psprintf("%s with ORDER BY", get_func_name(aggref->aggfnoid)), NULL);
}

static char *
plan_final(ExportPlan *plan, const Aggref *aggref)
{
	const ExportAggregate *known = plan_find_aggregate(plan, aggref);

	plan_check_aggregate(plan, known, aggref);
	if (plan->view->aggs[plan->finishing].mode == AGG_VALUES)
		return plan_final_set(plan, aggref);
	switch (known->final)
	{
		case FINAL_COUNT:
			return psprintf("coalesce(sum(s.%s), 0)", plan_partial(plan, EXPORT_COUNT, aggref));
		case FINAL_COUNT_PAIRS:
			return psprintf("coalesce(sum(s.%s), 0)", plan_partial(plan, EXPORT_COUNT_PAIRS, aggref));
		case FINAL_SUM:
			return psprintf("sum(s.%s)", plan_partial(plan, EXPORT_SUM, aggref));
		case FINAL_AVG:
			return plan_final_avg(plan, aggref);
		case FINAL_SAME:
			return psprintf("%s(s.%s)", known->word, plan_partial(plan, known->partial, aggref));
		case FINAL_VARIANCE:
		case FINAL_STDDEV:
			return plan_final_spread(plan, aggref, known->word, known->final == FINAL_STDDEV);
		case FINAL_MOMENTS:
			return psprintf("%s(streamext.export_moments(s.%s))", known->word,
							plan_partial(plan, EXPORT_MOMENTS, aggref));
		case FINAL_REGRESSION:
			return psprintf("%s(streamext.export_regression(s.%s))", known->word,
							plan_partial(plan, EXPORT_REGRESSION, aggref));
		case FINAL_FIRST:
			return plan_final_first(plan, aggref, known->partial);
		case FINAL_DISTINCT:
			return psprintf("streamext.cardinality(streamext.merge(s.%s))",
							plan_partial(plan, EXPORT_DISTINCT, aggref));
		case FINAL_PERCENTILE:
			return psprintf("streamext.percentile(streamext.merge(s.%s), %s)",
							plan_partial(plan, EXPORT_PERCENTILE, aggref), plan_fraction(plan, aggref));
		case FINAL_SKETCH:
			return psprintf("streamext.merge(s.%s)", plan_partial(plan, known->partial, aggref));
	}
	return NULL; /* keep the compiler quiet */
}

static void
plan_aggregates(ExportPlan *plan)
{
	const CompiledView *view = plan->view;

	plan->inputs = palloc0(sizeof(ExportInput) * (view->naggs * 2 + 1));
	plan->partials = palloc0(sizeof(ExportPartial) * (view->naggs * 3 + 1));
	plan->parts = palloc0(sizeof(ExportParts) * Max(view->naggs, 1));
	plan->finals = palloc(sizeof(char *) * Max(view->naggs, 1));
	for (int a = 0; a < view->naggs; a++)
	{
		const Aggref *aggref = view->aggs[a].aggref;

		plan->finishing = a;
		plan->finals[a] = psprintf("(%s)::%s", plan_final(plan, aggref), plan_type(aggref->aggtype));
	}
}

static void
plan_keys(ExportPlan *plan)
{
	const CompiledView *view = plan->view;

	plan->keys = palloc(sizeof(int) * Max(view->nkeys, 1));
	for (int k = 0; k < view->nkeys; k++)
		if (!view->keys[k].is_window && k != view->set_key)
			plan->keys[plan->nkeys++] = k;
}

ExportPlan *
streamext_export_make(const CompiledView *view, const ExportDialect *dialect)
{
	ExportPlan *plan = palloc0(sizeof(ExportPlan));

	plan->view = view;
	plan->config = streamext_stream_config(view->stream_relid);
	plan->dialect = dialect;
	if (plan->config == NULL)
		elog(ERROR, "stream %u has gone", view->stream_relid);
	plan_check_view(plan);
	if (plan->dialect->check != NULL)
		plan->dialect->check(plan);
	plan->has_at = view->window.kind != WINDOW_NONE || view->window.sliding;
	plan_keys(plan);
	plan_aggregates(plan);
	return plan;
}
