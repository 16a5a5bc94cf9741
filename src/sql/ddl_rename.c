/*
 * sql/ddl_rename.c
 *		What a view's options name by text follows renames, as what its query names does: the targets of streamext.into and streamext.to,
 *		and an alert's own columns in streamext.key and streamext.clear.
 */
#include "base/streamext.h"

#include "commands/defrem.h"
#include "nodes/nodeFuncs.h"
#include "parser/parser.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/relation.h"
#include "sink/alert.h"
#include "sql/ddl.h"
#include "sql/ddl_option.h"
#include "view/compile.h"
#include "view/target.h"

/* ---- targets ---- */

static DefElem *
rename_target_option(List *own)
{
	DefElem *into = streamext_ddl_option_find(own, DDL_OPTION_PREFIX "into");

	return into != NULL ? into : streamext_ddl_option_find(own, DDL_OPTION_PREFIX "to");
}

/* As names, and not as texts: how those are quoted is up to the session that has stored one, and to this one's. */
static bool
rename_names_target(const char *option, Oid target)
{
	List *names = compat_name_list(option);
	char *name = get_rel_name(target);
	char *schema = get_namespace_name(get_rel_namespace(target));

	return name != NULL && schema != NULL && list_length(names) == 2 && strcmp(strVal(linitial(names)), schema) == 0 &&
		   strcmp(strVal(lsecond(names)), name) == 0;
}

/* The option in *own, all of the view's; NULL: it has the name that the target has now, or the view is gone. */
static DefElem *
rename_target_stale(Oid view, Oid target, List **own)
{
	DefElem *option;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(view)))
		return NULL;
	*own = streamext_ddl_option_stored(view);
	option = rename_target_option(*own);
	return option != NULL && !rename_names_target(defGetString(option), target) ? option : NULL;
}

void
streamext_ddl_follow_targets(void)
{
	ListCell *cell;

	foreach (cell, streamext_views_with_options())
	{
		Oid		 view = lfirst_oid(cell);
		Oid		 target = streamext_into_depended(view);
		List	*own;
		DefElem *option;

		/* others' views with other targets may be held for long */
		if (!OidIsValid(target) || rename_target_stale(view, target, &own) == NULL)
			continue;
		LockRelationOid(view, ShareUpdateExclusiveLock); /* against ALTER VIEW; who reads it goes on */
		option = rename_target_stale(view, target, &own);
		if (option == NULL)
			continue;
		option->arg = (Node *) makeString(streamext_relation_name(target));
		streamext_ddl_option_store(view, own);
		streamext_ddl_touch_relation(view);
	}
}

/* ---- an alert's columns ---- */

typedef struct RenamedColumn
{
	const char *from, *to;
	List	   *locations; /* in the condition, where it stands */
} RenamedColumn;

static bool
rename_walker(Node *node, void *context)
{
	RenamedColumn *column = context;

	if (node == NULL)
		return false;
	if (IsA(node, ColumnRef))
	{
		ColumnRef *ref = (ColumnRef *) node;

		if (list_length(ref->fields) == 1 && IsA(linitial(ref->fields), String) &&
			strcmp(strVal(linitial(ref->fields)), column->from) == 0)
			column->locations = lappend_int(column->locations, ref->location);
		return false;
	}
	/* in a query of its own the name is first of all a column of what that reads */
	if (IsA(node, SubLink))
		return rename_walker(((SubLink *) node)->testexpr, context);
	return raw_expression_tree_walker(node, rename_walker, context);
}

/* The first byte behind what is quoted from there on. */
static const char *
rename_quoted_end(const char *at, char quote)
{
	for (at++; *at != '\0'; at++)
		if (*at == quote && *++at != quote)
			break;
	return at;
}

/* The first byte behind the identifier that begins there. */
static const char *
rename_identifier_end(const char *at)
{
	const char *rest;

	if (*at == '"')
		return rename_quoted_end(at, '"');
	if (pg_strncasecmp(at, "U&\"", 3) != 0)
		return at + strcspn(at, " \t\n\r\f\v!\"#%&'()*+,-./:;<=>?@[\\]^`{|}~");
	at = rename_quoted_end(at + 2, '"');
	rest = at + strspn(at, " \t\n\r\f\v");
	if (pg_strncasecmp(rest, "UESCAPE", 7) != 0)
		return at;
	rest += 7;
	rest += strspn(rest, " \t\n\r\f\v");
	return *rest == '\'' ? rename_quoted_end(rest, '\'') : at;
}

static char *
rename_in_condition(const char *condition, RenamedColumn *column)
{
	StringInfoData text;
	const char	  *rest = condition;
	ListCell	  *cell;

	(void) rename_walker(linitial_node(RawStmt, raw_parser(condition, RAW_PARSE_PLPGSQL_EXPR))->stmt, column);
	list_sort(column->locations, list_int_cmp);
	initStringInfo(&text);
	foreach (cell, column->locations)
	{
		const char *at = condition + lfirst_int(cell);

		appendBinaryStringInfo(&text, rest, at - rest);
		appendStringInfoString(&text, quote_identifier(column->to));
		rest = rename_identifier_end(at);
	}
	appendStringInfoString(&text, rest);
	return text.data;
}

static char *
rename_in_key(const char *key, const RenamedColumn *column)
{
	StringInfoData text;
	List		  *names;
	ListCell	  *cell;

	if (!SplitIdentifierString(pstrdup(key), ',', &names))
		elog(ERROR, "stored streamext.key is not valid: %s", key);
	initStringInfo(&text);
	foreach (cell, names)
		appendStringInfo(&text, "%s%s", text.len > 0 ? ", " : "",
						 quote_identifier(strcmp(lfirst(cell), column->from) == 0 ? column->to : lfirst(cell)));
	return text.data;
}

void
streamext_ddl_follow_column(Oid relid, const char *from, const char *to)
{
	RenamedColumn column = { from, to, NIL };
	List		 *own = streamext_ddl_option_stored(relid);
	DefElem		 *key = streamext_ddl_option_find(own, DDL_OPTION_PREFIX "key");
	DefElem		 *clear = streamext_ddl_option_find(own, DDL_OPTION_PREFIX "clear");

	if (key == NULL && clear == NULL)
		return;
	if (key != NULL)
		key->arg = (Node *) makeString(rename_in_key(defGetString(key), &column));
	if (clear != NULL)
		clear->arg = (Node *) makeString(rename_in_condition(defGetString(clear), &column));
	streamext_ddl_option_store(relid, own);
	streamext_alert_check(relid);
}
