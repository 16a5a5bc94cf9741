/*
 * aggregate/portable.c
 *		Portable partials (aggregate/portable.h): which aggregate they are of, and their states by the types' own binary functions.
 */
#include "base/compat.h"

#include "catalog/pg_aggregate.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "catalog/dependency.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"
#include "utils/timestamp.h"

#include "base/identity.h"
#include "aggregate/portable.h"

/* ---- which aggregate ---- */

int
streamext_portable_pin(void)
{
	static const char *const pinned[][2] = {
		{ "search_path", "pg_catalog" },
		{ "datestyle", "ISO, MDY" },
		{ "intervalstyle", "postgres" },
		{ "timezone", "UTC" },
		{ "extra_float_digits", "1" },
		{ "quote_all_identifiers", "off" },
		{ "standard_conforming_strings", "on" },
		{ "bytea_output", "hex" },
		{ "xmlbinary", "base64" },
	};
	int level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(pinned); i++)
		streamext_identity_set(pinned[i][0], pinned[i][1]);
	return level;
}

/* "SELECT NULL::type AS c1, ...": what the aggregate's columns are of. */
static Query *
portable_rows(List *columns)
{
	Query	 *rows = makeNode(Query);
	ListCell *lc;

	rows->commandType = CMD_SELECT;
	rows->canSetTag = true;
	rows->jointree = makeFromExpr(NIL, NULL);
	foreach (lc, columns)
	{
		Var	  *column = lfirst_node(Var, lc);
		Const *null = makeNullConst(column->vartype, column->vartypmod, column->varcollid);

		rows->targetList =
			lappend(rows->targetList, makeTargetEntry((Expr *) null, foreach_current_index(lc) + 1,
													  psprintf("c%d", foreach_current_index(lc) + 1), false));
	}
	return rows;
}

/* The aggregate over columns of one entry, as which the arguments were kept; *columns are they. */
static Aggref *
portable_aggref(const AggSpec *spec, List **columns)
{
	Aggref	 *aggref = copyObject(spec->aggref);
	ListCell *lc;

	*columns = NIL;
	aggref->aggfilter = NULL;
	aggref->agglevelsup = 0;
	aggref->aggno = aggref->aggtransno = -1;
	aggref->aggdirectargs = (List *) eval_const_expressions(NULL, (Node *) aggref->aggdirectargs);
	foreach (lc, aggref->args)
	{
		TargetEntry *tle = lfirst_node(TargetEntry, lc);
		Node		*expr = (Node *) tle->expr;
		Var			*column;

		if (IsA(expr, Const))
			continue;
		if (exprType(expr) == RECORDOID || exprType(expr) == RECORDARRAYOID)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a partial of %s over anonymous records is not supported", get_func_name(aggref->aggfnoid)),
					 errhint("Use a named composite type.")));
		column = makeVar(1, list_length(*columns) + 1, exprType(expr), exprTypmod(expr), exprCollation(expr), 0);
		*columns = lappend(*columns, column);
		tle->expr = (Expr *) column;
	}
	return aggref;
}

char *
streamext_portable_definition(const AggSpec *spec)
{
	Query		  *query;
	RangeTblEntry *rte = makeNode(RangeTblEntry);
	List		  *columns;
	Aggref		  *aggref = portable_aggref(spec, &columns);
	char		  *text;
	int			   level;

	rte->rtekind = RTE_SUBQUERY;
	rte->subquery = portable_rows(columns);
	rte->alias = makeAlias("r", NIL);
	rte->eref = makeAlias("r", NIL);
	rte->inFromCl = true;
	for (int i = 0; i < list_length(columns); i++)
		rte->eref->colnames = lappend(rte->eref->colnames, makeString(psprintf("c%d", i + 1)));
	query = streamext_aggregate_query(aggref, rte);
	level = streamext_portable_pin();
	text = pg_get_querydef(query, false);
	AtEOXact_GUC(false, level);
	while (*text == ' ')
		text++;
	return text;
}

/* Whether a name as it is written is looked for where no ordinary role makes anything. */
static bool
portable_name_own(const List *name)
{
	const char *schema = list_length(name) > 1 ? strVal(list_nth(name, list_length(name) - 2)) : "pg_catalog";

	return strcmp(schema, "pg_catalog") == 0 || strcmp(schema, "information_schema") == 0 ||
		   strcmp(schema, "streamext") == 0;
}

/*
 * Does the parse tree name functions, operators or types of a user? To analyse it is enough to run these: constants are evaluated, with the checks of
 * domains.
 */
static bool
portable_raw_foreign(Node *node, void *context)
{
	const List *name = NIL;

	if (node == NULL)
		return false;
	if (IsA(node, TypeName))
		name = ((TypeName *) node)->names;
	else if (IsA(node, FuncCall))
		name = ((FuncCall *) node)->funcname;
	else if (IsA(node, A_Expr))
		name = ((A_Expr *) node)->name;
	else if (IsA(node, SortBy))
		name = ((SortBy *) node)->useOp;
	return !portable_name_own(name) || raw_expression_tree_walker(node, portable_raw_foreign, context);
}

/* Does the parse tree ask for anything beside expressions? */
static bool
portable_raw_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink) || IsA(node, RangeVar) || IsA(node, RangeFunction) || IsA(node, WithClause) ||
		IsA(node, IntoClause) || IsA(node, LockingClause) || IsA(node, RangeTableFunc) || IsA(node, RangeTableSample))
		return true;
#if PG_VERSION_NUM >= 170000
	if (IsA(node, JsonTable))
		return true;
#endif
	return raw_expression_tree_walker(node, portable_raw_walker, context);
}

/* A SELECT of one thing over a subquery without FROM; nothing else is looked up in the catalogue. */
static bool
portable_raw_good(List *parsed)
{
	SelectStmt *select;
	Node	   *from;

	if (list_length(parsed) != 1 || !IsA(linitial_node(RawStmt, parsed)->stmt, SelectStmt))
		return false;
	select = (SelectStmt *) linitial_node(RawStmt, parsed)->stmt;
	if (select->op != SETOP_NONE || list_length(select->targetList) != 1 || list_length(select->fromClause) != 1 ||
		select->whereClause != NULL || select->groupClause != NIL || select->havingClause != NULL)
		return false;
	from = linitial(select->fromClause);
	return IsA(from, RangeSubselect) && !portable_raw_walker((Node *) select, NULL);
}

static bool
portable_own(Oid class, Oid object)
{
	Oid extension = object < FirstNormalObjectId ? InvalidOid : get_extension_oid("streamext", true);

	return object < FirstNormalObjectId || (OidIsValid(extension) && getExtensionOfObject(class, object) == extension);
}

/* Everything that the aggregate is made of is PostgreSQL's or ours. */
static bool
portable_aggref_own(const Aggref *aggref)
{
	ListCell *lc;

	if (!portable_own(ProcedureRelationId, aggref->aggfnoid))
		return false;
	foreach (lc, aggref->args)
		if (!portable_own(TypeRelationId, exprType((Node *) lfirst_node(TargetEntry, lc)->expr)))
			return false;
	foreach (lc, aggref->aggdirectargs)
		if (!IsA(lfirst(lc), Const))
			return false;
	foreach (lc, list_concat_copy(aggref->aggorder, aggref->aggdistinct))
	{
		SortGroupClause *clause = lfirst_node(SortGroupClause, lc);

		if (clause->sortop >= FirstNormalObjectId || clause->eqop >= FirstNormalObjectId)
			return false;
	}
	return true;
}

/* An aggregate over plain columns and constants. */
static bool
portable_aggref_good(const Query *query)
{
	Aggref	 *aggref = (Aggref *) linitial_node(TargetEntry, query->targetList)->expr;
	ListCell *lc;

	if (query->commandType != CMD_SELECT || !IsA(aggref, Aggref) || aggref->aggfilter != NULL ||
		aggref->agglevelsup != 0 || query->hasSubLinks)
		return false;
	foreach (lc, aggref->args)
	{
		Node *expr = (Node *) lfirst_node(TargetEntry, lc)->expr;

		if (!IsA(expr, Const) && !(IsA(expr, Var) && ((Var *) expr)->varattno > 0))
			return false;
	}
	return true;
}

static void
portable_refuse_foreign(const char *definition)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
		 errmsg("streamext.merge runs no aggregate of a user that only the partial itself names"),
		 errdetail("It is of: %s", definition),
		 errhint(
			 "Name it in the query: streamext.merge(partial, NULL::type, 'definition'), as streamext.shard_view does.")));
}

AggSpec *
streamext_portable_compile(const char *definition, bool trusted, bool *own)
{
	AggSpec *spec = palloc0(sizeof(AggSpec));
	int		 level = streamext_portable_pin();
	List	*parsed = raw_parser(definition, RAW_PARSE_DEFAULT);
	Query	*query;

	if (!portable_raw_good(parsed))
		streamext_portable_invalid("Its definition is none of an aggregate.");
	if (!trusted && portable_raw_foreign(linitial_node(RawStmt, parsed)->stmt, NULL))
		portable_refuse_foreign(definition);
	query = parse_analyze_fixedparams(linitial_node(RawStmt, parsed), definition, NULL, 0, NULL);
	AtEOXact_GUC(false, level);
	if (!portable_aggref_good(query))
		streamext_portable_invalid("Its definition is none of an aggregate.");
	*own = portable_aggref_own((Aggref *) linitial_node(TargetEntry, query->targetList)->expr);
	if (!trusted && !*own)
		portable_refuse_foreign(definition);
	streamext_aggregate_compile((Aggref *) linitial_node(TargetEntry, query->targetList)->expr, spec);
	return spec;
}

/* ---- states ---- */

/* Binary functions of texts convert from and to the client's encoding; what goes into a partial is in the server's. */
static int
portable_enter_encoding(void)
{
	int encoding = pg_get_client_encoding();

	if (encoding != GetDatabaseEncoding())
		(void) SetClientEncoding(GetDatabaseEncoding());
	return encoding;
}

static void
portable_leave_encoding(int encoding)
{
	if (encoding != pg_get_client_encoding() && SetClientEncoding(encoding) < 0)
		elog(ERROR, "could not go back to client encoding %d", encoding);
}

bytea *
streamext_portable_give(AggReader *reader, const AggPartial *partial, const PortableHead *head)
{
	PortableHead   own = *head;
	StringInfoData buf;
	bytea		  *result;
	int			   encoding;

	own.mode = reader->spec->mode;
	own.encoding = GetDatabaseEncoding();
	initStringInfo(&buf);
	streamext_portable_begin(&buf, &own);
	encoding = portable_enter_encoding();
	PG_TRY();
	{
		streamext_mode(reader->spec)->send(reader, partial, &buf);
	}
	PG_FINALLY();
	{
		portable_leave_encoding(encoding);
	}
	PG_END_TRY();
	streamext_portable_end(&buf);
	result = palloc(VARHDRSZ + buf.len);
	SET_VARSIZE(result, VARHDRSZ + buf.len);
	memcpy(VARDATA(result), buf.data, buf.len);
	pfree(buf.data);
	return result;
}

AggPartial *
streamext_portable_take(AggReader *reader, const PortableHead *head)
{
	AggPartial	  *partial = palloc0(sizeof(AggPartial));
	PortableCursor cursor = { head->body, head->body_size };
	int			   encoding;

	if (head->mode != reader->spec->mode)
		streamext_portable_invalid("Its state is kept in another way than the aggregate's.");
	if (head->encoding != GetDatabaseEncoding())
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("a partial from a database with encoding %s cannot be merged in one with encoding %s",
							   pg_encoding_to_char(head->encoding), GetDatabaseEncodingName())));
	partial->cxt = CurrentMemoryContext;
	encoding = portable_enter_encoding();
	PG_TRY();
	{
		streamext_mode(reader->spec)->receive(reader, partial, &cursor);
	}
	PG_FINALLY();
	{
		portable_leave_encoding(encoding);
	}
	PG_END_TRY();
	return partial;
}
