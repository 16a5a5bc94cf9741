/*
 * sql/fill.c
 *		streamext.fill(NULL::view, from, to, mode): the view's windows from one time to another, with those that have no row, for each of
 *		the keys that the view has.
 *
 * A statement over the view itself: its rows, and the whole grid of keys and windows beside them, of which those places stay that no row
 * has. It runs as the caller, who needs no more than SELECT on the view.
 */
#include "base/streamext.h"

#include "access/relation.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "base/identity.h"
#include "base/relation.h"
#include "view/compile.h"

#define FILL_MAX_WINDOWS 1000000

PG_FUNCTION_INFO_V1(streamext_fill);

typedef enum FillMode
{
	FILL_NULL,
	FILL_LAST,
	FILL_INTERPOLATE
} FillMode;

typedef struct Fill
{
	const CompiledView *view;
	FillMode			mode;
	char			   *relation; /* qualified and quoted */
	char			   *window;	  /* column, quoted */
	char			   *keys;	  /* quoted, each with a comma before it */
	TupleDesc			desc;
	bool			   *is_key; /* by column; the window too */
} Fill;

static FillMode
fill_mode(const char *mode)
{
	static const char *const words[] = { "null", "last", "interpolate" };

	for (int i = 0; i < lengthof(words); i++)
		if (strcmp(mode, words[i]) == 0)
			return (FillMode) i;
	ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid mode \"%s\"", mode),
					errhint("Valid modes are null, last, interpolate.")));
	return FILL_NULL; /* keep the compiler quiet */
}

/* ---- windows ---- */

/* The start that follows, or is, a time. */
static TimestampTz
fill_first_start(const Window *window, TimestampTz from)
{
	TimestampTz start;
	int64		offset;

	if (window->kind == WINDOW_TRUNC)
	{
		start = streamext_window_pane(window, from);
		return start < from ? streamext_window_end(window, start) : start;
	}
	offset = (from % window->slide - window->origin % window->slide) % window->slide;
	if (offset < 0)
		offset += window->slide;
	return offset == 0 ? from : from + (window->slide - offset);
}

/* Starts in [from, to). */
static Datum
fill_starts(const Window *window, TimestampTz from, TimestampTz to)
{
	int			capacity = 64, n = 0;
	Datum	   *starts = palloc(sizeof(Datum) * capacity);
	TimestampTz start = fill_first_start(window, from);

	while (start < to)
	{
		if (n == FILL_MAX_WINDOWS)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("there are more than %d windows between the two times", FILL_MAX_WINDOWS)));
		if (n == capacity)
		{
			capacity *= 2;
			starts = repalloc(starts, sizeof(Datum) * capacity);
		}
		starts[n++] = TimestampTzGetDatum(start);
		start = window->kind == WINDOW_TRUNC ? streamext_window_end(window, start) : start + window->slide;
	}
	return PointerGetDatum(
		construct_array(starts, n, TIMESTAMPTZOID, sizeof(TimestampTz), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* ---- the view's columns ---- */

static void
fill_refuse(const Fill *fill, const char *detail)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("streamext.fill does not support continuous view \"%s\"", get_rel_name(fill->view->relid)),
		 errdetail_internal("%s", detail),
		 errhint(
			 "It takes views that group by tumble, hop, date_bin or date_trunc, without grouping sets, and output the window and all keys.")));
}

/* Finds the columns that are the window and the keys. */
static void
fill_find_columns(Fill *fill)
{
	const CompiledView *view = fill->view;
	StringInfoData		keys;

	if (view->nsets > 0 || !streamext_window_has_ends(&view->window))
		fill_refuse(fill, view->nsets > 0 ? "It has grouping sets." : "Its windows have no fixed ends.");
	initStringInfo(&keys);
	for (int k = 0; k < view->nkeys; k++)
	{
		char	 *name = NULL;
		ListCell *lc;

		foreach (lc, view->query->targetList)
		{
			const TargetEntry *tle = lfirst_node(TargetEntry, lc);

			if (tle->resjunk || tle->resno > fill->desc->natts || !equal(tle->expr, view->keys[k].expr))
				continue;
			if (name == NULL)
				name = pstrdup(quote_identifier(NameStr(TupleDescAttr(fill->desc, tle->resno - 1)->attname)));
			fill->is_key[tle->resno - 1] = true;
		}
		if (name == NULL)
			fill_refuse(fill, "It does not output its window and all of its keys.");
		if (view->keys[k].is_window)
			fill->window = name;
		else
			appendStringInfo(&keys, ", %s", name);
	}
	fill->keys = keys.data;
}

/* ---- the statement ---- */

static bool
fill_is_number(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID || type == NUMERICOID || type == FLOAT4OID ||
		   type == FLOAT8OID;
}

/* A value column of a window without a row. */
static void
fill_value(const Fill *fill, StringInfo sql, Form_pg_attribute att)
{
	const char *name = quote_identifier(NameStr(att->attname));
	const char *type = format_type_with_typemod(att->atttypid, att->atttypmod);
	const char *exact =
		att->atttypid == FLOAT4OID || att->atttypid == FLOAT8OID ? "pg_catalog.float8" : "pg_catalog.numeric";

	if (fill->mode == FILL_LAST)
		appendStringInfo(sql, "pg_catalog.first_value(%s) OVER \"streamext before\"", name);
	else if (fill->mode == FILL_INTERPOLATE && fill_is_number(att->atttypid))
		appendStringInfo(
			sql,
			"CASE WHEN \"streamext row\" THEN %s ELSE (pg_catalog.first_value(%s) OVER \"streamext before\" "
			"+ (pg_catalog.first_value(%s::%s) OVER \"streamext after\" - pg_catalog.first_value(%s::%s) OVER \"streamext before\") "
			"* (extract(epoch FROM %s - pg_catalog.first_value(%s) OVER \"streamext before\") "
			"/ nullif(extract(epoch FROM pg_catalog.first_value(%s) OVER \"streamext after\" - "
			"pg_catalog.first_value(%s) OVER \"streamext before\"), 0))::%s)::%s END",
			name, name, name, exact, name, exact, fill->window, fill->window, fill->window, fill->window, exact, type);
	else
		appendStringInfoString(sql, name);
}

/*
 * $1: the windows' starts; $2, $3: from and to. Rows before and behind are of use for the values that are carried over; where there
 * is none before (no row yet) or behind, the first of the part is the place itself, which is NULL.
 */
static char *
fill_statement(const Fill *fill)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "WITH a AS (SELECT *, true AS \"streamext row\" FROM ");
	appendStringInfo(&sql, "%s", fill->relation);
	if (fill->mode != FILL_INTERPOLATE)
		appendStringInfo(&sql, " WHERE %s < $3", fill->window);
	if (fill->mode == FILL_NULL)
		appendStringInfo(&sql, " AND %s >= $2", fill->window);
	appendStringInfoString(&sql, " UNION ALL SELECT ");
	for (int i = 0; i < fill->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(fill->desc, i);

		if (fill->is_key[i])
			appendStringInfo(&sql, "%s, ", quote_identifier(NameStr(att->attname)));
		else
			appendStringInfo(&sql, "NULL::%s, ", format_type_with_typemod(att->atttypid, att->atttypmod));
	}
	appendStringInfo(
		&sql, "false FROM (SELECT DISTINCT true AS \"streamext any\"%s FROM %s) k, pg_catalog.unnest($1) g(%s)),\n",
		fill->keys, fill->relation, fill->window);
	appendStringInfo(
		&sql,
		"b AS (SELECT *, pg_catalog.bool_or(\"streamext row\") OVER (PARTITION BY %s%s) AS \"streamext has\" FROM a),\n",
		fill->window, fill->keys);
	appendStringInfo(
		&sql,
		"c AS (SELECT *, pg_catalog.count(*) FILTER (WHERE \"streamext row\") OVER (PARTITION BY true%s ORDER BY %s) AS \"streamext n\", "
		"pg_catalog.count(*) FILTER (WHERE \"streamext row\") OVER (PARTITION BY true%s ORDER BY %s DESC) AS \"streamext m\" "
		"FROM b WHERE \"streamext row\" OR NOT \"streamext has\"),\nd AS (SELECT ",
		fill->keys, fill->window, fill->keys, fill->window);
	for (int i = 0; i < fill->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(fill->desc, i);

		if (fill->is_key[i])
			appendStringInfoString(&sql, quote_identifier(NameStr(att->attname)));
		else
			fill_value(fill, &sql, att);
		appendStringInfo(&sql, " AS %s%s", quote_identifier(NameStr(att->attname)),
						 i < fill->desc->natts - 1 ? ", " : "");
	}
	appendStringInfo(&sql,
					 " FROM c WINDOW \"streamext before\" AS (PARTITION BY \"streamext n\"%s ORDER BY %s), "
					 "\"streamext after\" AS (PARTITION BY \"streamext m\"%s ORDER BY %s DESC))\n"
					 "SELECT * FROM d WHERE %s >= $2 AND %s < $3 ORDER BY %s%s",
					 fill->keys, fill->window, fill->keys, fill->window, fill->window, fill->window, fill->window,
					 fill->keys);
	return sql.data;
}

static void
fill_run(const Fill *fill, Datum from, Datum to, ReturnSetInfo *rsinfo)
{
	Oid	  types[] = { TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, TIMESTAMPTZOID };
	Datum values[] = { fill_starts(&fill->view->window, DatumGetTimestampTz(from), DatumGetTimestampTz(to)), from, to };
	char *sql = fill_statement(fill);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute_with_args(sql, lengthof(types), types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not fill a continuous view");
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
	SPI_finish();
}

Datum
streamext_fill(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid			   type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid			   relid = OidIsValid(type) ? get_typ_typrelid(type) : InvalidOid;
	Fill		   fill = { 0 };

	if (!OidIsValid(relid) || !streamext_view_options(relid).continuous)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("streamext.fill takes the row type of a continuous view"),
				 errhint("Write streamext.fill(NULL::view, from, to).")));
	if (PG_ARGISNULL(1) || PG_ARGISNULL(2) || PG_ARGISNULL(3) || TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(1)) ||
		TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(2)))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("streamext.fill needs two finite times and a mode")));
	fill.mode = fill_mode(text_to_cstring(PG_GETARG_TEXT_PP(3)));
	fill.view = streamext_view_cached(relid, CurrentMemoryContext);
	InitMaterializedSRF(fcinfo, 0);
	fill.desc = rsinfo->setDesc;
	fill.is_key = palloc0(sizeof(bool) * fill.desc->natts);
	fill.relation = streamext_relation_name(relid);
	fill_find_columns(&fill);
	fill_run(&fill, PG_GETARG_DATUM(1), PG_GETARG_DATUM(2), rsinfo);
	return (Datum) 0;
}
