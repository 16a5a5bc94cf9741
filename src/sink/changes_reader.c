/*-------------------------------------------------------------------------
 *
 * sink/changes_reader.c
 *		A view as the current user sees it, for whom its changes are told: rights, key columns, and who is told the same.
 *
 * Many ask: one reads for all of them to whom the view looks alike (reader_identity). What the output depends on besides the view's state is
 * in the identity, or makes it one's own.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_language.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/layout.h"
#include "base/own_schema.h"
#include "shared/shmem.h"
#include "sink/changes_private.h"

/* The name of the output column that holds a key, palloc'd; NULL: none does. */
static char *
reader_key_column(const CompiledView *view, Index ref)
{
	ListCell *lc;

	foreach (lc, view->query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);

		if (entry->ressortgroupref == ref && !entry->resjunk)
			return streamext_view_column_name(view->relid, entry);
	}
	return NULL;
}

/* The key's expressions, separated by commas, and the names of their columns; raises where rows are not told apart by them. */
static char *
reader_keys(const CompiledView *view, Relation rel, List **names)
{
	StringInfoData keys;
	ListCell	  *lc;
	const char	  *name = RelationGetRelationName(rel);

	initStringInfo(&keys);
	if (view->stateless)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("changes of \"%s\" are not available", name),
						errdetail("Its rows go into a table and are not kept."), errhint("Read the table.")));
	if (view->derived)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("changes of \"%s\" are not available", name),
						errdetail("It is without aggregates: its rows come, and none changes."),
						errhint("Name a table for its rows with streamext.into.")));
	if (view->nsets > 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("changes of \"%s\" are not available", name),
						errdetail("Rows of several grouping sets are not told apart by the view's keys."),
						errhint("Make a view for each of the grouping sets.")));
	foreach (lc, view->query->groupClause)
	{
		Index		 ref = lfirst_node(SortGroupClause, lc)->tleSortGroupRef;
		const char	*column = reader_key_column(view, ref);
		TargetEntry *entry;

		if (column == NULL)
		{
			entry = get_sortgroupref_tle(ref, view->query->targetList);
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("changes of \"%s\" are not available", name),
				 errdetail(
					 "The view does not output all that it groups by%s%s, and its rows are not told apart by the others.",
					 entry->resname != NULL ? ": " : "", entry->resname != NULL ? entry->resname : ""),
				 errhint("Add the expressions of GROUP BY to the output.")));
		}
		appendStringInfo(&keys, "%sv.%s", keys.len > 0 ? ", " : "", quote_identifier(column));
		*names = lappend(*names, pstrdup(column));
	}
	return keys.data;
}

/* Whether what a function gives may depend on who calls it and where. */
static bool
reader_is_personal_function(Oid function, void *context)
{
	const char *const prefixes[] = { "current_",	  "session_",  "has_",		 "pg_",
									 "row_security",  "inet_",	   "to_reg",	 "txid_",
									 "getpgusername", "lastval",   "currval",	 "nextval",
									 "query_to_",	  "table_to_", "schema_to_", "database_to_" };
	char			 *name;

	if (func_volatile(function) == PROVOLATILE_IMMUTABLE)
		return false;
	if (function >= FirstNormalObjectId)
		return !streamext_own_schema(get_func_namespace(function));
	name = get_func_name(function);
	for (int i = 0; i < lengthof(prefixes); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

static bool
reader_personal_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		return true; /* tables may have policies */
	if (IsA(node, SQLValueFunction) && castNode(SQLValueFunction, node)->op >= SVFOP_CURRENT_ROLE)
		return true;
	if (check_functions_in_node(node, reader_is_personal_function, context))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reader_personal_walker, context, 0);
	return expression_tree_walker(node, reader_personal_walker, context);
}

/* Texts of these depend on search_path. */
static bool
reader_is_reg_type(Oid type)
{
	Oid element = get_base_element_type(type);

	return streamext_type_names_object(getBaseType(OidIsValid(element) ? element : type));
}

static bool
reader_is_personal(const CompiledView *view, Relation rel)
{
	TupleDesc desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Oid	 output;
		bool varlena;

		if (reader_is_reg_type(TupleDescAttr(desc, i)->atttypid))
			return true;
		getTypeOutputInfo(TupleDescAttr(desc, i)->atttypid, &output, &varlena);
		if (output >= FirstNormalObjectId && func_volatile(output) != PROVOLATILE_IMMUTABLE)
			return true;
	}
	return reader_personal_walker((Node *) view->query, NULL);
}

/* Whether a function of the view looks names up where its caller does: one of a user's, in a language, without a search_path of its own. */
static bool
reader_follows_path(Oid function, void *context)
{
	HeapTuple tuple;
	Oid		  language;
	bool	  set;

	if (function < FirstNormalObjectId)
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	if (!HeapTupleIsValid(tuple))
		return true;
	language = ((Form_pg_proc) GETSTRUCT(tuple))->prolang;
	set = !heap_attisnull(tuple, Anum_pg_proc_proconfig, NULL);
	ReleaseSysCache(tuple);
	return language != INTERNALlanguageId && language != ClanguageId && !set;
}

static bool
reader_path_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, reader_follows_path, context))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, reader_path_walker, context, 0);
	return expression_tree_walker(node, reader_path_walker, context);
}

/* Where such functions look: schemas that are not everybody's could have the others told what their owner likes. */
static uint64
reader_path(const CompiledView *view, uint64 hash)
{
	ListCell *lc;

	if (!reader_path_walker((Node *) view->query, NULL))
		return hash;
	foreach (lc, fetch_search_path(true))
		hash = hash_combine64(hash, hash_bytes_uint32_extended(lfirst_oid(lc), 0));
	return hash;
}

static uint64
reader_hash(uint64 hash, const char *text)
{
	return hash_bytes_extended((const unsigned char *) text, strlen(text) + 1, hash);
}

/* Hash of the settings that output functions and built-in ones follow, and of what the view's rows are. */
static uint64
reader_settings(const char *keys, Relation rel)
{
	static const char *const names[] = {
		"TimeZone",	   "DateStyle",	 "IntervalStyle", "extra_float_digits", "bytea_output",
		"lc_monetary", "lc_numeric", "lc_time",		  "xmlbinary",			"default_text_search_config"
	};
	uint64	  hash = reader_hash(0, keys);
	TupleDesc desc = RelationGetDescr(rel);

	for (int i = 0; i < lengthof(names); i++)
		hash = reader_hash(hash, GetConfigOption(names[i], false, false));
	for (int i = 0; i < desc->natts; i++)
		hash = reader_hash(hash, NameStr(TupleDescAttr(desc, i)->attname));
	return hash;
}

static FeedIdentity
reader_identity(const CompiledView *view, Relation rel, const char *keys)
{
	FeedIdentity identity;

	memset(&identity, 0, sizeof(identity));
	identity.dboid = MyDatabaseId;
	identity.view = view->relid;
	identity.settings = reader_path(view, reader_settings(keys, rel));
	if (reader_is_personal(view, rel))
	{
		identity.role = GetUserId();
		identity.pid = MyProcPid;
	}
	return identity;
}

/* What may be something else though the row's group is the same, or is not PostgreSQL's own and may read the view itself. */
static bool
reader_is_loose_function(Oid function, void *context)
{
	return function >= FirstNormalObjectId || func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

/* keys: expressions of which the group holds the value. */
static bool
reader_loose_walker(Node *node, void *keys)
{
	if (node == NULL || list_member(keys, node))
		return false;
	if (IsA(node, SubLink) || IsA(node, SQLValueFunction) || IsA(node, NextValueExpr))
		return true;
	if (IsA(node, Aggref))
		return false; /* of the state */
	if ((IsA(node, FuncExpr) && castNode(FuncExpr, node)->funcretset) ||
		(IsA(node, OpExpr) && castNode(OpExpr, node)->opretset))
		return true;
	if (check_functions_in_node(node, reader_is_loose_function, NULL))
		return true;
	return expression_tree_walker(node, reader_loose_walker, keys);
}

/* Whether each row is a group's (and window's) own: what is above the groups adds, drops and arranges none by others. */
static bool
reader_is_grouped(const CompiledView *view, Relation rel)
{
	Query	 *query = view->query;
	TupleDesc desc = RelationGetDescr(rel);
	List	 *keys = get_sortgrouplist_exprs(query->groupClause, query->targetList);

	for (int i = 0; i < desc->natts; i++)
		if (getBaseType(TupleDescAttr(desc, i)->atttypid) >= FirstNormalObjectId)
			return false;
	return view->builtin && query->groupClause != NIL && query->groupingSets == NIL && query->distinctClause == NIL &&
		   query->sortClause == NIL && query->limitCount == NULL && query->limitOffset == NULL &&
		   !query->hasWindowFuncs && query->setOperations == NULL &&
		   !reader_loose_walker((Node *) query->targetList, keys) && !reader_loose_walker(query->havingQual, keys);
}

/* As SELECT from the view's name would: another may read it for him. */
static void
reader_check_rights(Relation rel)
{
	Oid		  schema = RelationGetNamespace(rel);
	AclResult allowed;

	allowed = object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE);
	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_SCHEMA, get_namespace_name(schema));
	allowed = pg_class_aclcheck(RelationGetRelid(rel), GetUserId(), ACL_SELECT);
	if (allowed != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(RelationGetRelid(rel), GetUserId(), ACL_SELECT, ACLMASK_ALL) != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_VIEW, RelationGetRelationName(rel));
}

/* With security_invoker what the view reads is each reader's own. */
static bool
reader_is_invoker(Relation rel)
{
	return rel->rd_options != NULL && RelationHasSecurityInvoker(rel);
}

ChangesReader *
streamext_changes_open(Oid relid)
{
	ChangesReader		 *reader = palloc0(sizeof(ChangesReader));
	ContinuousViewOptions options;
	const CompiledView	 *view;
	Relation			  rel;
	char				 *keys;
	char				 *name;

	streamext_require_preload();
	rel = try_table_open(relid, AccessShareLock);
	if (rel == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("the view with OID %u does not exist", relid)));
	reader_check_rights(rel);
	options = streamext_view_options(relid);
	if (!options.continuous)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view", RelationGetRelationName(rel))));
	view = streamext_view_cached(relid, CurrentMemoryContext);
	keys = reader_keys(view, rel, &reader->keys);
	name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel));
	reader->view = relid;
	reader->identity = reader_identity(view, rel, keys);
	if (reader_is_invoker(rel))
		reader->identity.role = GetUserId();
	reader->query = psprintf("SELECT v.* FROM %s AS v", name);
	reader->grouped = reader_is_grouped(view, rel);
	reader->window = &view->window;
	reader->steady = !OidIsValid(reader->identity.role) && !contain_mutable_functions((Node *) view->query);
	reader->emit_interval = options.emit_interval > 0 ? options.emit_interval : STREAMEXT_EMIT_INTERVAL;
	table_close(rel, NoLock);
	return reader;
}

int64
streamext_changes_emit_interval(const ChangesReader *reader)
{
	return reader->emit_interval;
}

TimestampTz
streamext_changes_looked_at(const ChangesReader *reader)
{
	return reader->looked_at;
}

List *
streamext_changes_keys(const ChangesReader *reader)
{
	return reader->keys;
}
