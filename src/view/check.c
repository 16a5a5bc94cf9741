/*
 * view/check.c
 *		What a continuous view's query may not contain: refused with 0A000, naming the construct.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "parser/parse_coerce.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "stream/definition.h"
#include "view/check.h"
#include "view/compile.h"

/* 0A000: continuous views do not support <construct>. */
void
streamext_view_refuse(const char *construct, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("continuous views do not support %s", construct),
					hint != NULL ? errhint("%s", hint) : 0));
}

/* ---- functions ---- */

/* Which of this extension's own window functions it is: by name, in schema streamext, written in C. */
static WindowFunction
check_own_function(Oid funcid)
{
	WindowFunction result = FUNCTION_OTHER;
	HeapTuple	   tuple;

	if (funcid < FirstNormalObjectId)
		return FUNCTION_OTHER;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		return FUNCTION_OTHER;
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId)
	{
		Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);
		char		*schema = get_namespace_name(proc->pronamespace);

		if (schema != NULL && strcmp(schema, "streamext") == 0)
		{
			if (strcmp(NameStr(proc->proname), "tumble") == 0)
				result = FUNCTION_TUMBLE;
			else if (strcmp(NameStr(proc->proname), "hop") == 0)
				result = FUNCTION_HOP;
			else if (strcmp(NameStr(proc->proname), "session") == 0)
				result = FUNCTION_SESSION;
		}
	}
	ReleaseSysCache(tuple);
	return result;
}

WindowFunction
streamext_view_window_function(const Node *node)
{
	Oid funcid;

	if (!IsA(node, FuncExpr))
		return FUNCTION_OTHER;
	funcid = ((const FuncExpr *) node)->funcid;
	if (funcid == F_DATE_BIN_INTERVAL_TIMESTAMPTZ_TIMESTAMPTZ)
		return FUNCTION_DATE_BIN;
	if (funcid == F_DATE_TRUNC_TEXT_TIMESTAMPTZ || funcid == F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT)
		return FUNCTION_DATE_TRUNC;
	return check_own_function(funcid);
}

static bool
check_starts(const char *name, const char *prefix)
{
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

/*
 * PostgreSQL's own functions that are STABLE, so that contain_volatile_functions lets them pass, but whose value depends on
 * the moment, the session, the role or the contents of tables.
 */
static bool
check_function_depends(const char *name, int nargs)
{
	static const char *const prefixes[] = {
		"current_",
		"session_user",
		"system_user",
		"version",
		"getpgusername",
		"has_",
		"txid_",
		"inet_client_",
		"inet_server_",
		"to_reg",
		"query_to_xml",
		"table_to_xml",
		"schema_to_xml",
		"database_to_xml",
		"cursor_to_xml",
		"row_security_active",
		"obj_description",
		"col_description",
		"shobj_description",
		"now",
		"transaction_timestamp",
		"statement_timestamp",
		"get_current_ts_config",
		"mxid_age",
		"reg",
		"aclitem",
		"format_type",
		"oidvectortypes",
		"enum_first",
		"enum_last",
		"enum_range", /* names and values of the catalogue */
		"ts_match_t",
		"ts_headline",
		"json_to_tsvector",
		"jsonb_to_tsvector" /* default_text_search_config */
	};
	static const char *const one_argument[] = {
		"age", "to_tsvector", "to_tsquery", "plainto_tsquery", "phraseto_tsquery", "websearch_to_tsquery"
	};
	static const char *const harmless[] = { "pg_typeof", "pg_collation_for", "pg_client_encoding" };

	for (int i = 0; i < lengthof(prefixes); i++)
		if (check_starts(name, prefixes[i]))
			return true;
	if (nargs == 1)
		for (int i = 0; i < lengthof(one_argument); i++)
			if (strcmp(name, one_argument[i]) == 0)
				return true;
	if (!check_starts(name, "pg_"))
		return false;
	for (int i = 0; i < lengthof(harmless); i++)
		if (strcmp(name, harmless[i]) == 0)
			return false;
	return true;
}

/* Of the extension's own functions those that the planner replaces where a continuous view's aggregate is read, which is nowhere in a worker. */
static void
check_takes_column(Oid funcid)
{
	char *schema = get_namespace_name(get_func_namespace(funcid));
	char *name = get_func_name(funcid);
	Oid	 *types;
	int	  count;

	if (schema == NULL || name == NULL || strcmp(schema, "streamext") != 0 ||
		(strcmp(name, "merge") != 0 && strcmp(name, "partial") != 0))
		return;
	(void) get_func_signature(funcid, &types, &count);
	if (count == 1 && types[0] == ANYELEMENTOID) /* others are of sketches and of partials, which are values */
		streamext_view_refuse(
			psprintf("streamext.%s() of a column", name),
			"It takes a column of a continuous view where that is read: call it in a query or ordinary view over that. "
			"Sketches, as of streamext.sketch_distinct, can be merged in continuous views.");
}

void
streamext_view_check_function(Oid funcid, const char *place, bool may_read_tables)
{
	HeapTuple	 tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	Form_pg_proc proc;
	const char	*what = NULL;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", funcid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	if (proc->provolatile == PROVOLATILE_VOLATILE)
		what = "volatile function";
	else if (proc->pronamespace == PG_CATALOG_NAMESPACE && proc->provolatile == PROVOLATILE_STABLE &&
			 check_function_depends(NameStr(proc->proname), proc->pronargs))
		what = "function";
	else if (!may_read_tables && funcid >= FirstNormalObjectId && proc->provolatile == PROVOLATILE_STABLE &&
			 proc->prolang != INTERNALlanguageId && proc->prolang != ClanguageId)
		what = "STABLE function"; /* may read tables */
	if (what != NULL)
		streamext_view_refuse(
			psprintf("%s %s() in %s", what, NameStr(proc->proname), place),
			funcid >= FirstNormalObjectId
				? "Below the aggregation a row must mean the same whenever and by whomever it is evaluated. If the function's "
				  "answer follows from its arguments alone, say so: ALTER FUNCTION ... IMMUTABLE. If it reads a table, join "
				  "with that."
				: "Below the aggregation a row must mean the same whenever and by whomever it is evaluated; now() may only "
				  "stand in a predicate like event_time > now() - interval '1 minute'.");
	ReleaseSysCache(tuple);
	check_takes_column(funcid);
	if (check_own_function(funcid) != FUNCTION_OTHER)
		streamext_view_refuse(
			psprintf("a window function in %s", place),
			"streamext.tumble, streamext.hop and streamext.session can only be a GROUP BY expression of their own, over the stream's event time.");
}

/* A check_function_callback: raises for a function that may not stand below the aggregation. */
static bool
check_check_function(Oid funcid, void *arg)
{
	streamext_view_check_function(funcid, arg, false);
	return false;
}

/* A cast by way of text whose function says nothing of it: arrays of what reads the catalogue, and words for the moment. */
static void
check_cast(const CoerceViaIO *cast, const char *place)
{
	Oid			 types[] = { cast->resulttype, exprType((Node *) cast->arg) };
	const Const *arg = (const Const *) cast->arg;

	for (int i = 0; i < lengthof(types); i++)
	{
		Oid element = get_base_element_type(types[i]);
		Oid input;
		Oid ioparam;

		if (!OidIsValid(element))
			continue;
		getTypeInputInfo(getBaseType(element), &input, &ioparam);
		streamext_view_check_function(input, place, false);
	}
	if (IsA(arg, Const) && !arg->constisnull && arg->consttype == TEXTOID &&
		TypeCategory(getBaseType(cast->resulttype)) == TYPCATEGORY_DATETIME)
	{
		static const char *const words[] = { "now", "today", "tomorrow", "yesterday" };
		char					*value = TextDatumGetCString(arg->constvalue);
		char					*lower = str_tolower(value, strlen(value), C_COLLATION_OID);

		for (int i = 0; i < lengthof(words); i++)
			if (strstr(lower, words[i]) != NULL)
				streamext_view_refuse(
					psprintf("'%s' in %s", value, place),
					"now() may only stand in a predicate like event_time > now() - interval '1 minute'.");
	}
}

const char *
streamext_view_value_function_name(SQLValueFunctionOp op)
{
	switch (op)
	{
		case SVFOP_CURRENT_DATE:
			return "CURRENT_DATE";
		case SVFOP_CURRENT_TIME:
		case SVFOP_CURRENT_TIME_N:
			return "CURRENT_TIME";
		case SVFOP_CURRENT_TIMESTAMP:
		case SVFOP_CURRENT_TIMESTAMP_N:
			return "CURRENT_TIMESTAMP";
		case SVFOP_LOCALTIME:
		case SVFOP_LOCALTIME_N:
			return "LOCALTIME";
		case SVFOP_LOCALTIMESTAMP:
		case SVFOP_LOCALTIMESTAMP_N:
			return "LOCALTIMESTAMP";
		case SVFOP_CURRENT_ROLE:
			return "CURRENT_ROLE";
		case SVFOP_CURRENT_USER:
			return "CURRENT_USER";
		case SVFOP_USER:
			return "USER";
		case SVFOP_SESSION_USER:
			return "SESSION_USER";
		case SVFOP_CURRENT_CATALOG:
			return "CURRENT_CATALOG";
		case SVFOP_CURRENT_SCHEMA:
			return "CURRENT_SCHEMA";
	}
	return "an SQL value function";
}

void
streamext_view_check_var(const Var *var, const char *place)
{
	if (var->varattno == 0)
		streamext_view_refuse(psprintf("whole-row references in %s", place), "Name the columns.");
	if (var->varattno < 0)
		streamext_view_refuse(psprintf("system columns in %s", place),
							  "Declare a column with option metadata for what the source says about a record.");
}

void
streamext_view_check_zone(Datum zone)
{
	DirectFunctionCall3(timestamptz_trunc_zone, CStringGetTextDatum("day"), TimestampTzGetDatum(0), zone);
}

void
streamext_view_check_aggregate(const Aggref *aggref)
{
	char *schema = get_namespace_name(get_func_namespace(aggref->aggfnoid));
	char *name = get_func_name(aggref->aggfnoid);
	Oid	  type;

	check_takes_column(aggref->aggfnoid);
	if (schema == NULL || name == NULL || strcmp(schema, "streamext") != 0 ||
		(strcmp(name, "approx_count_distinct") != 0 && strcmp(name, "sketch_distinct") != 0))
		return;
	type = linitial_oid(aggref->aggargtypes);
	if (!OidIsValid(lookup_type_cache(type, TYPECACHE_HASH_PROC)->hash_proc))
		streamext_view_refuse(psprintf("%s() on type %s", name, format_type_be(type)), "The type cannot be hashed.");
}

typedef struct CheckBelow
{
	const char	 *place;
	CheckSubquery subquery; /* NULL: there may be none */
	void		 *arg;
} CheckBelow;

static void
check_sublink(const SubLink *sublink, const CheckBelow *below)
{
	if (below->subquery == NULL)
		streamext_view_refuse(psprintf("subqueries in %s", below->place),
							  "Put the subquery into FROM, with LATERAL if it refers to the stream.");
	below->subquery((Query *) sublink->subselect, below->arg);
}

/* Raises for whatever may not be evaluated row by row in the worker. */
static bool
check_below_walker(Node *node, void *context)
{
	const CheckBelow *below = context;
	const char		 *place = below->place;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
	{
		check_sublink((SubLink *) node, below);
		return check_below_walker(((SubLink *) node)->testexpr, context);
	}
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_SUBLINK)
		return false; /* what the subquery returns */
	if (IsA(node, Param))
		streamext_view_refuse(psprintf("parameters in %s", place),
							  "Write the constant itself, or join with a table that holds it.");
	if (IsA(node, SQLValueFunction))
		streamext_view_refuse(
			psprintf("%s in %s", streamext_view_value_function_name(((SQLValueFunction *) node)->op), place),
			"now() may only stand in a predicate like event_time > now() - interval '1 minute'.");
	if (IsA(node, NextValueExpr))
		streamext_view_refuse(psprintf("sequences in %s", place), "Name a table with such a column by streamext.into.");
	if (IsA(node, Var))
		streamext_view_check_var((Var *) node, place);
	/* Below streamext.hop, which is a key of its own and never comes here, a row is one row. */
	if ((IsA(node, FuncExpr) && ((FuncExpr *) node)->funcretset &&
		 check_own_function(((FuncExpr *) node)->funcid) == FUNCTION_OTHER) ||
		(IsA(node, OpExpr) && ((OpExpr *) node)->opretset))
		streamext_view_refuse(psprintf("set-returning functions in %s", place),
							  "Put the function into FROM, with LATERAL if it refers to the stream.");
	check_functions_in_node(node, check_check_function, unconstify(char *, place));
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == F_DATE_TRUNC_TEXT_TIMESTAMPTZ_TEXT)
	{
		Const *zone = lthird(((FuncExpr *) node)->args);

		if (IsA(zone, Const) && !zone->constisnull)
			streamext_view_check_zone(zone->constvalue);
	}
	if (IsA(node, CoerceViaIO))
		check_cast((CoerceViaIO *) node, place);
	return expression_tree_walker(node, check_below_walker, context);
}

void
streamext_view_check_below(Node *node, const char *place)
{
	streamext_view_check_below_but(node, place, NULL, NULL);
}

void
streamext_view_check_below_but(Node *node, const char *place, CheckSubquery subquery, void *arg)
{
	CheckBelow below = { place, subquery, arg };

	(void) check_below_walker(node, &below);
}

/* ---- the query's shape ---- */

bool
streamext_view_is_stateless(const Query *query)
{
	return query->groupClause == NIL && query->groupingSets == NIL && !query->hasAggs && query->havingQual == NULL;
}

bool
streamext_view_is_join(const Query *query)
{
	const List *from = query->jointree->fromlist;

	return list_length(from) > 1 || (from != NIL && !IsA(linitial(from), RangeTblRef)) ||
		   checkExprHasSubLink(query->jointree->quals);
}

/* Each row, or each window, on its own: nothing that looks at several. */
static void
check_each_row(const Query *query, const char *where)
{
	const char *hint = "Put it into a query or ordinary view over what the continuous view makes.";

	if (query->distinctClause != NIL)
		streamext_view_refuse(psprintf("DISTINCT%s %s", query->hasDistinctOn ? " ON" : "", where), hint);
	if (query->hasWindowFuncs)
		streamext_view_refuse(psprintf("window functions %s", where), hint);
	if (query->sortClause != NIL)
		streamext_view_refuse(psprintf("ORDER BY %s", where), hint);
	if (query->limitCount != NULL || query->limitOffset != NULL)
		streamext_view_refuse(psprintf("LIMIT %s", where), hint);
}

void
streamext_view_check_into_window(const Window *window)
{
	if (window->kind == WINDOW_NONE || window->sliding)
		streamext_view_refuse(
			psprintf("streamext.into for %s",
					 window->sliding ? "windows that slide over now()" : "queries that aggregate without a window"),
			"Rows are written when their window is closed: group by streamext.tumble, streamext.hop, streamext.session "
			"or date_trunc of the event time. Select from the view otherwise.");
}

void
streamext_view_check_shape(const Query *query, bool into)
{
	if (query->commandType != CMD_SELECT || query->utilityStmt != NULL)
		streamext_view_refuse("anything but SELECT", "Write SELECT ... FROM a stream.");
	if (query->setOperations != NULL)
		streamext_view_refuse("UNION, INTERSECT and EXCEPT", STREAMEXT_HINT_UNION);
	if (query->rowMarks != NIL)
		streamext_view_refuse("FOR UPDATE and FOR SHARE",
							  "Leave it out: rows are read as they come, and none is locked.");
	if (query->constraintDeps != NIL)
		streamext_view_refuse("output columns that depend on a primary key in GROUP BY", "Name them in GROUP BY.");
	if (into)
		check_each_row(query, "with streamext.into");
	else if (streamext_view_is_stateless(query))
		check_each_row(query, "without GROUP BY or an aggregate");
	if (list_length(query->groupClause) + (query->groupingSets != NIL ? 1 : 0) > STREAMEXT_MAX_KEYS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("continuous views can have at most %d GROUP BY expressions", STREAMEXT_MAX_KEYS),
						errhint("What follows from the others can be an aggregate, such as min(name).")));
}

void
streamext_view_check_from(const RangeTblEntry *rte)
{
	switch (rte->rtekind)
	{
		case RTE_RELATION:
			break;
		case RTE_SUBQUERY:
			streamext_view_refuse("subqueries without a stream in FROM",
								  "Name a stream in FROM, beside the subquery or in it.");
			break;
		case RTE_FUNCTION:
		case RTE_TABLEFUNC:
			streamext_view_refuse("functions alone in FROM", "Name a stream in FROM, beside the function.");
			break;
		case RTE_VALUES:
			streamext_view_refuse("VALUES alone in FROM", "Name a stream in FROM, beside VALUES.");
			break;
		default:
			streamext_view_refuse("joins", "Join with other tables in a query over the continuous view.");
	}
	if (rte->tablesample != NULL)
		streamext_view_refuse("TABLESAMPLE",
							  "Choose rows in WHERE by what is in them, such as hashtext(key) % 100 = 0.");
	if (streamext_view_options(rte->relid).continuous && rte->relkind == RELKIND_VIEW)
		return; /* its closed windows: view/inner.c */
	if (streamext_stream_kind(rte->relid) == NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a stream", get_rel_name(rte->relid)),
			 errdetail(
				 "A continuous view reads a stream: a foreign table of one of the wrappers kafka, mqtt, http, flume, feed and local."),
			 errhint("Name a stream in FROM; what reads tables alone can be an ordinary or a materialized view.")));
	if (rte->securityQuals != NIL)
		streamext_view_refuse("row security", "Put the condition into WHERE.");
}
