/*
 * export/spark_expression.c
 *		Expressions in Spark SQL, by closed tables of functions, and of operators by their functions.
 *
 * Spark runs without ANSI mode, where nothing raises: an expression that can raise in PostgreSQL comes with a predicate in plan->raises,
 * true for at least the rows on which it does. Such rows go to PostgreSQL as raw records, where they are judged, so that a predicate may
 * be true too often.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/pg_locale.h"
#include "utils/regproc.h"

#include "export/spark.h"

/* ---- functions and operators ---- */

typedef enum SparkForm
{
	SPARK_COMPARE,	/* a word b; word '=' and '<>' of text under any deterministic collation */
	SPARK_ORDER,	/* of text: bytes */
	SPARK_INTEGERS, /* word(a, b), which gives NULL on overflow */
	SPARK_QUOTIENT,
	SPARK_REST,
	SPARK_FLOATS, /* a word b */
	SPARK_SIGN,	  /* word(a), raises for nothing */
	SPARK_WIDEN,  /* to the function's type */
	SPARK_NARROW,
	SPARK_EXACT, /* to a decimal */
	SPARK_CALL,
	SPARK_LIKE,
	SPARK_SPANS,   /* of intervals: by their length */
	SPARK_LETTERS, /* word(a): lower, upper */
	SPARK_FIELD,   /* date_part, extract */
	SPARK_SHIFT,   /* a time and an interval; word: its sign */
	SPARK_BETWEEN, /* times as an interval */
	SPARK_DAY	   /* of a time */
} SparkForm;

typedef struct SparkFunction
{
	Oid			function;
	SparkForm	form;
	const char *word;
} SparkFunction;

#define INTS(op, form, word)                                                                                           \
	{ F_INT2##op, form, word }, { F_INT24##op, form, word }, { F_INT28##op, form, word }, { F_INT42##op, form, word }, \
		{ F_INT4##op, form, word }, { F_INT48##op, form, word }, { F_INT82##op, form, word },                          \
		{ F_INT84##op, form, word },                                                                                   \
	{                                                                                                                  \
		F_INT8##op, form, word                                                                                         \
	}
#define COMPARISONS(type)                                                                                              \
	{ F_##type##EQ, SPARK_COMPARE, "=" }, { F_##type##NE, SPARK_COMPARE, "<>" }, { F_##type##LT, SPARK_COMPARE, "<" }, \
		{ F_##type##GT, SPARK_COMPARE, ">" }, { F_##type##LE, SPARK_COMPARE, "<=" },                                   \
	{                                                                                                                  \
		F_##type##GE, SPARK_COMPARE, ">="                                                                              \
	}

static const SparkFunction spark_functions[] = {
	INTS(EQ, SPARK_COMPARE, "="),
	INTS(NE, SPARK_COMPARE, "<>"),
	INTS(LT, SPARK_COMPARE, "<"),
	INTS(GT, SPARK_COMPARE, ">"),
	INTS(LE, SPARK_COMPARE, "<="),
	INTS(GE, SPARK_COMPARE, ">="),
	COMPARISONS(FLOAT8),
	COMPARISONS(BOOL),
	COMPARISONS(NUMERIC_),
	COMPARISONS(DATE_),
	COMPARISONS(TIMESTAMPTZ_),
	{ F_TEXTEQ, SPARK_COMPARE, "=" },
	{ F_TEXTNE, SPARK_COMPARE, "<>" },
	{ F_TEXT_LT, SPARK_ORDER, "<" },
	{ F_TEXT_GT, SPARK_ORDER, ">" },
	{ F_TEXT_LE, SPARK_ORDER, "<=" },
	{ F_TEXT_GE, SPARK_ORDER, ">=" },
	INTS(PL, SPARK_INTEGERS, "try_add"),
	INTS(MI, SPARK_INTEGERS, "try_subtract"),
	INTS(MUL, SPARK_INTEGERS, "try_multiply"),
	INTS(DIV, SPARK_QUOTIENT, NULL),
	{ F_INT2MOD, SPARK_REST, NULL },
	{ F_INT4MOD, SPARK_REST, NULL },
	{ F_INT8MOD, SPARK_REST, NULL },
	{ F_FLOAT8PL, SPARK_FLOATS, "+" },
	{ F_FLOAT8MI, SPARK_FLOATS, "-" },
	{ F_FLOAT8MUL, SPARK_FLOATS, "*" },
	{ F_FLOAT8DIV, SPARK_FLOATS, "/" },
	{ F_FLOAT8UM, SPARK_SIGN, "-" },
	{ F_FLOAT8ABS, SPARK_SIGN, "abs" },
	{ F_ABS_FLOAT8, SPARK_SIGN, "abs" },
	{ F_INT4_INT2, SPARK_WIDEN, NULL },
	{ F_INT8_INT2, SPARK_WIDEN, NULL },
	{ F_INT8_INT4, SPARK_WIDEN, NULL },
	{ F_FLOAT8_INT2, SPARK_WIDEN, NULL },
	{ F_FLOAT8_INT4, SPARK_WIDEN, NULL },
	{ F_FLOAT8_INT8, SPARK_WIDEN, NULL },
	{ F_INT2_INT4, SPARK_NARROW, NULL },
	{ F_INT2_INT8, SPARK_NARROW, NULL },
	{ F_INT4_INT8, SPARK_NARROW, NULL },
	{ F_NUMERIC_INT2, SPARK_EXACT, "5" },
	{ F_NUMERIC_INT4, SPARK_EXACT, "10" },
	{ F_NUMERIC_INT8, SPARK_EXACT, "19" },
	{ F_LENGTH_TEXT, SPARK_CALL, "char_length" },
	{ F_CHAR_LENGTH_TEXT, SPARK_CALL, "char_length" },
	{ F_CHARACTER_LENGTH_TEXT, SPARK_CALL, "char_length" },
	{ F_TEXTLEN, SPARK_CALL, "char_length" },
	{ F_TEXTCAT, SPARK_CALL, "concat" },
	{ F_TEXTLIKE, SPARK_LIKE, "LIKE" },
	{ F_LIKE_TEXT_TEXT, SPARK_LIKE, "LIKE" },
	{ F_TEXTNLIKE, SPARK_LIKE, "NOT LIKE" },
	{ F_NOTLIKE_TEXT_TEXT, SPARK_LIKE, "NOT LIKE" },
	{ F_INTERVAL_EQ, SPARK_SPANS, "=" },
	{ F_INTERVAL_NE, SPARK_SPANS, "<>" },
	{ F_INTERVAL_LT, SPARK_SPANS, "<" },
	{ F_INTERVAL_GT, SPARK_SPANS, ">" },
	{ F_INTERVAL_LE, SPARK_SPANS, "<=" },
	{ F_INTERVAL_GE, SPARK_SPANS, ">=" },
	{ F_LOWER_TEXT, SPARK_LETTERS, "lower" },
	{ F_UPPER_TEXT, SPARK_LETTERS, "upper" },
	{ F_DATE_PART_TEXT_TIMESTAMPTZ, SPARK_FIELD, "DOUBLE" },
	{ F_EXTRACT_TEXT_TIMESTAMPTZ, SPARK_FIELD, "DECIMAL(10,0)" },
	{ F_EXTRACT_TEXT_DATE, SPARK_FIELD, "DECIMAL(10,0)" },
	{ F_TIMESTAMPTZ_PL_INTERVAL, SPARK_SHIFT, "+" },
	{ F_TIMESTAMPTZ_MI_INTERVAL, SPARK_SHIFT, "-" },
	{ F_TIMESTAMPTZ_MI, SPARK_BETWEEN, NULL },
	{ F_DATE_TIMESTAMPTZ, SPARK_DAY, NULL },
};

static const SparkFunction *
spark_find(Oid function)
{
	for (int i = 0; i < lengthof(spark_functions); i++)
		if (spark_functions[i].function == function)
			return &spark_functions[i];
	return NULL;
}

static void
spark_raises(ExportPlan *plan, char *predicate)
{
	plan->raises = lappend(plan->raises, predicate);
}

/* x, a BIGINT or INT, as a value of the type; out of its range is raised for. */
static char *
spark_in_range(ExportPlan *plan, char *x, Oid type)
{
	if (type == INT2OID)
		spark_raises(plan, psprintf("%s NOT BETWEEN -32768 AND 32767", x));
	else if (type == INT4OID)
		spark_raises(plan, psprintf("%s NOT BETWEEN -2147483648 AND 2147483647", x));
	return psprintf("CAST(%s AS %s)", x, streamext_spark_type(plan, type, -1));
}

static char *
spark_integers(ExportPlan *plan, const char *word, const char *a, const char *b, Oid type)
{
	char *x = psprintf("%s(CAST(%s AS BIGINT), CAST(%s AS BIGINT))", word, a, b);

	if (type == INT8OID)
		spark_raises(plan, psprintf("%s IS NULL AND %s IS NOT NULL AND %s IS NOT NULL", x, a, b));
	return spark_in_range(plan, x, type);
}

static char *
spark_quotient(ExportPlan *plan, bool rest, const char *a, const char *b, Oid type)
{
	char *x =
		psprintf("CASE WHEN %s <> 0 THEN CAST(%s AS BIGINT) %s CAST(%s AS BIGINT) END", b, a, rest ? "%" : "DIV", b);

	spark_raises(plan, psprintf("%s = 0", b));
	if (!rest && type == INT8OID)
		spark_raises(plan, psprintf("%s = -1 AND %s = CAST('-9223372036854775808' AS BIGINT)", b, a));
	return rest ? psprintf("CAST(%s AS %s)", x, streamext_spark_type(plan, type, -1))
				: spark_in_range(plan, psprintf("(%s)", x), type);
}

/* PostgreSQL raises for a result that is infinite or zero where the operands are not. */
static char *
spark_floats(ExportPlan *plan, const char *word, const char *a, const char *b)
{
	char *x = psprintf("(%s %s %s)", a, word, b);

	if (*word == '/')
		spark_raises(plan, psprintf("%s = 0", b));
	if (*word == '/' || *word == '*')
		spark_raises(plan, psprintf("%s = 0 AND %s <> 0", x, a));
	spark_raises(plan, psprintf("abs(%s) = double('Infinity')", x));
	return x;
}

static bool
spark_orders_bytes(Oid collation)
{
#if PG_VERSION_NUM >= 180000
	return pg_newlocale_from_collation(collation)->collate_is_c;
#else
	return lc_collate_is_c(collation);
#endif
}

static void
spark_check_equality(const ExportPlan *plan, Oid collation)
{
	if (OidIsValid(collation) && !get_collation_isdeterministic(collation))
		streamext_export_refuse(plan, "a collation that is not deterministic", NULL);
}

void
streamext_spark_check_order(const ExportPlan *plan, Oid collation)
{
	if (!spark_orders_bytes(collation))
		streamext_export_refuse(plan,
								psprintf("the order of text under collation \"%s\"", get_collation_name(collation)),
								"Spark compares bytes: write COLLATE \"C\".");
}

/* Both have a backslash for escapes; what is before another character they see differently. */
static char *
spark_like(const ExportPlan *plan, const char *word, const char *a, Node *pattern)
{
	Const *con = IsA(pattern, Const) ? (Const *) pattern : NULL;

	if (con == NULL || con->constisnull || strchr(streamext_spark_output(con), '\\') != NULL)
		streamext_export_refuse(plan, "LIKE with a pattern that is no constant or has a backslash", NULL);
	return psprintf("(%s %s %s)", a, word, streamext_spark_const(plan, con));
}

static char *
spark_list(ExportPlan *plan, List *exprs)
{
	StringInfoData buf;
	ListCell	  *lc;

	initStringInfo(&buf);
	foreach (lc, exprs)
		appendStringInfo(&buf, "%s%s", foreach_current_index(lc) > 0 ? ", " : "",
						 streamext_spark_expression(plan, lfirst(lc)));
	return buf.data;
}

static char *
spark_apply(ExportPlan *plan, const SparkFunction *f, List *args, Oid collation, Oid type)
{
	bool  constant = f->form == SPARK_LIKE || f->form == SPARK_SHIFT;
	char *a = f->form == SPARK_FIELD ? NULL : streamext_spark_expression(plan, linitial(args));
	char *b = list_length(args) > 1 && !constant ? streamext_spark_expression(plan, lsecond(args)) : NULL;

	switch (f->form)
	{
		case SPARK_ORDER:
			streamext_spark_check_order(plan, collation);
			/* FALLTHROUGH */
		case SPARK_COMPARE:
			spark_check_equality(plan, collation);
			return psprintf("(%s %s %s)", a, f->word, b);
		case SPARK_INTEGERS:
			return spark_integers(plan, f->word, a, b, type);
		case SPARK_QUOTIENT:
		case SPARK_REST:
			return spark_quotient(plan, f->form == SPARK_REST, a, b, type);
		case SPARK_FLOATS:
			return spark_floats(plan, f->word, a, b);
		case SPARK_SIGN:
			return psprintf("%s(%s)", f->word, a);
		case SPARK_WIDEN:
			return psprintf("CAST(%s AS %s)", a, streamext_spark_type(plan, type, -1));
		case SPARK_NARROW:
			return spark_in_range(plan, a, type);
		case SPARK_EXACT:
			return psprintf("CAST(%s AS DECIMAL(%s,0))", a, f->word);
		case SPARK_CALL:
			return b == NULL ? psprintf("%s(%s)", f->word, a) : psprintf("%s(%s, %s)", f->word, a, b);
		case SPARK_LIKE:
			return spark_like(plan, f->word, a, lsecond(args));
		case SPARK_SPANS:
			return psprintf("(%s %s %s)", streamext_spark_length(a), f->word, streamext_spark_length(b));
		case SPARK_LETTERS:
			streamext_spark_check_letters(plan, collation);
			spark_raises(plan, psprintf("%s RLIKE '[^\\\\x00-\\\\x7F]'", a));
			return psprintf("%s(%s)", f->word, a);
		case SPARK_FIELD:
			return psprintf("CAST(%s AS %s)", streamext_spark_field(plan, linitial(args), b), f->word);
		case SPARK_SHIFT:
			return streamext_spark_shift(plan, a, f->word, lsecond(args));
		case SPARK_BETWEEN:
			return streamext_spark_between(a, b);
		case SPARK_DAY:
			streamext_spark_check_zone(plan, "a date of a time");
			return psprintf("CAST(%s AS DATE)", a);
	}
	return NULL; /* keep the compiler quiet */
}

/* A constant that PostgreSQL would cast when it plans. */
static char *
spark_function(ExportPlan *plan, FuncExpr *func)
{
	const SparkFunction *f = spark_find(func->funcid);

	if (func->funcid == F_FLOAT8_NUMERIC && IsA(linitial(func->args), Const) &&
		!linitial_node(Const, func->args)->constisnull)
		return psprintf("CAST('%s' AS DOUBLE)", streamext_spark_output(linitial(func->args)));
	if (f == NULL)
		streamext_export_refuse(plan, psprintf("function %s in Spark", format_procedure(func->funcid)), NULL);
	return spark_apply(plan, f, func->args, func->inputcollid, func->funcresulttype);
}

static char *
spark_operator(ExportPlan *plan, OpExpr *op)
{
	const SparkFunction *f = spark_find(get_opcode(op->opno));

	if (f == NULL)
		streamext_export_refuse(plan, psprintf("operator %s in Spark", format_operator(op->opno)), NULL);
	return spark_apply(plan, f, op->args, op->inputcollid, op->opresulttype);
}

/* IS DISTINCT FROM, NULLIF: the operator is an equality. */
static void
spark_check_equal_operator(ExportPlan *plan, OpExpr *op)
{
	const SparkFunction *f = spark_find(get_opcode(op->opno));

	if (f == NULL || f->form != SPARK_COMPARE || strcmp(f->word, "=") != 0)
		streamext_export_refuse(plan, psprintf("operator %s in Spark", format_operator(op->opno)), NULL);
	spark_check_equality(plan, op->inputcollid);
}

/* x IN (list), x NOT IN (list) */
static char *
spark_in(ExportPlan *plan, ScalarArrayOpExpr *op)
{
	const SparkFunction *f = spark_find(get_opcode(op->opno));
	const char			*word = op->useOr ? "=" : "<>";
	Node				*list = lsecond(op->args);
	StringInfoData		 buf;

	if (f == NULL || f->form != SPARK_COMPARE || strcmp(f->word, word) != 0)
		streamext_export_refuse(plan, psprintf("operator %s with ANY or ALL in Spark", format_operator(op->opno)),
								NULL);
	spark_check_equality(plan, op->inputcollid);
	initStringInfo(&buf);
	appendStringInfo(&buf, "(%s %s (", streamext_spark_expression(plan, linitial(op->args)),
					 op->useOr ? "IN" : "NOT IN");
	if (IsA(list, ArrayExpr) && !((ArrayExpr *) list)->multidims && ((ArrayExpr *) list)->elements != NIL)
		appendStringInfoString(&buf, spark_list(plan, ((ArrayExpr *) list)->elements));
	else if (IsA(list, Const) && !((Const *) list)->constisnull)
	{
		ArrayType *array = DatumGetArrayTypeP(((Const *) list)->constvalue);
		Oid		   type = ARR_ELEMTYPE(array);
		int16	   len;
		bool	   byval, *nulls;
		char	   align;
		Datum	  *values;
		int		   n;

		get_typlenbyvalalign(type, &len, &byval, &align);
		deconstruct_array(array, type, len, byval, align, &values, &nulls, &n);
		for (int i = 0; i < n; i++)
			appendStringInfo(
				&buf, "%s%s", i > 0 ? ", " : "",
				streamext_spark_const(plan, makeConst(type, -1, op->inputcollid, len, values[i], nulls[i], byval)));
		if (n == 0)
			streamext_export_refuse(plan, "ANY or ALL of an empty array in Spark", NULL);
	}
	else
		streamext_export_refuse(plan, "ANY or ALL of an array that is no list in Spark", NULL);
	appendStringInfoString(&buf, "))");
	return buf.data;
}

/* ---- expressions ---- */

static char *
spark_column(ExportPlan *plan, Var *var)
{
	const StreamColumn *column;

	if (var->varno != plan->view->stream_varno || var->varlevelsup != 0 || var->varattno <= 0)
		streamext_export_refuse(plan, "a reference to a whole row or another table in Spark", NULL);
	column = &plan->config->columns[var->varattno - 1];
	(void) streamext_spark_type_or_refuse(plan, column->type, column->typmod);
	return streamext_spark_name(column->name);
}

static char *
spark_bool(ExportPlan *plan, BoolExpr *expr)
{
	StringInfoData buf;
	ListCell	  *lc;

	initStringInfo(&buf);
	appendStringInfoString(&buf, expr->boolop == NOT_EXPR ? "(NOT " : "(");
	foreach (lc, expr->args)
		appendStringInfo(&buf, "%s%s",
						 foreach_current_index(lc) == 0 ? ""
						 : expr->boolop == AND_EXPR		? " AND "
														: " OR ",
						 streamext_spark_expression(plan, lfirst(lc)));
	appendStringInfoChar(&buf, ')');
	return buf.data;
}

static char *
spark_case(ExportPlan *plan, CaseExpr *expr)
{
	StringInfoData buf;
	ListCell	  *lc;

	if (expr->arg != NULL)
		streamext_export_refuse(plan, "CASE with an operand in Spark", "Write CASE WHEN x = … THEN.");
	initStringInfo(&buf);
	appendStringInfoString(&buf, "CASE");
	foreach (lc, expr->args)
	{
		CaseWhen *when = lfirst_node(CaseWhen, lc);

		appendStringInfo(&buf, " WHEN %s THEN %s", streamext_spark_expression(plan, when->expr),
						 streamext_spark_expression(plan, when->result));
	}
	appendStringInfo(&buf, " ELSE %s END", streamext_spark_expression(plan, expr->defresult));
	return psprintf("(%s)", buf.data);
}

/* The operand's text, if the cast says nothing in Spark. */
static char *
spark_relabel(ExportPlan *plan, RelabelType *expr)
{
	if (expr->resulttype != TEXTOID && expr->resulttype != VARCHAROID)
		streamext_export_refuse(plan, psprintf("a cast to %s in Spark", format_type_be(expr->resulttype)), NULL);
	(void) streamext_spark_type_or_refuse(plan, expr->resulttype, expr->resulttypmod);
	return streamext_spark_expression(plan, expr->arg);
}

static char *
spark_io(ExportPlan *plan, CoerceViaIO *expr)
{
	Oid from = exprType((Node *) expr->arg);

	if (expr->resulttype != TEXTOID || !streamext_spark_is_int(from))
		streamext_export_refuse(
			plan, psprintf("a cast of %s to %s in Spark", format_type_be(from), format_type_be(expr->resulttype)),
			NULL);
	return psprintf("CAST(%s AS STRING)", streamext_spark_expression(plan, expr->arg));
}

static char *
spark_boolean_test(ExportPlan *plan, BooleanTest *expr)
{
	static const char *const words[] = {
		[IS_TRUE] = "TRUE",			  [IS_NOT_TRUE] = "NOT TRUE", [IS_FALSE] = "FALSE",
		[IS_NOT_FALSE] = "NOT FALSE", [IS_UNKNOWN] = "NULL",	  [IS_NOT_UNKNOWN] = "NOT NULL",
	};

	return psprintf("(%s IS %s)", streamext_spark_expression(plan, expr->arg), words[expr->booltesttype]);
}

char *
streamext_spark_expression(ExportPlan *plan, Expr *expr)
{
	switch (nodeTag(expr))
	{
		case T_Var:
			return spark_column(plan, (Var *) expr);
		case T_Const:
			return streamext_spark_const(plan, (Const *) expr);
		case T_BoolExpr:
			return spark_bool(plan, (BoolExpr *) expr);
		case T_OpExpr:
			return spark_operator(plan, (OpExpr *) expr);
		case T_FuncExpr:
			return spark_function(plan, (FuncExpr *) expr);
		case T_DistinctExpr:
			spark_check_equal_operator(plan, (OpExpr *) expr);
			return psprintf("(NOT (%s <=> %s))", streamext_spark_expression(plan, linitial(((OpExpr *) expr)->args)),
							streamext_spark_expression(plan, lsecond(((OpExpr *) expr)->args)));
		case T_NullIfExpr:
			spark_check_equal_operator(plan, (OpExpr *) expr);
			return psprintf("nullif(%s)", spark_list(plan, ((OpExpr *) expr)->args));
		case T_ScalarArrayOpExpr:
			return spark_in(plan, (ScalarArrayOpExpr *) expr);
		case T_NullTest:
			if (!((NullTest *) expr)->argisrow)
				return psprintf("(%s IS %sNULL)", streamext_spark_expression(plan, ((NullTest *) expr)->arg),
								((NullTest *) expr)->nulltesttype == IS_NULL ? "" : "NOT ");
			break;
		case T_BooleanTest:
			return spark_boolean_test(plan, (BooleanTest *) expr);
		case T_CoalesceExpr:
			return psprintf("coalesce(%s)", spark_list(plan, ((CoalesceExpr *) expr)->args));
		case T_CaseExpr:
			return spark_case(plan, (CaseExpr *) expr);
		case T_RelabelType:
			return spark_relabel(plan, (RelabelType *) expr);
		case T_CollateExpr: /* who compares asks for the collation */
			return streamext_spark_expression(plan, ((CollateExpr *) expr)->arg);
		case T_CoerceViaIO:
			return spark_io(plan, (CoerceViaIO *) expr);
		default:
			break;
	}
	streamext_export_refuse(plan, psprintf("%s in Spark", streamext_export_postgres.expression(plan, expr)), NULL);
}
