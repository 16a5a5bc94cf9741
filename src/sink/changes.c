/*-------------------------------------------------------------------------
 *
 * sink/changes.c
 *		What has changed in a continuous view: its rows are read as any SELECT reads them and compared with the feed's (shared/feed.h).
 *
 * Output expressions, HAVING, window functions, ORDER BY with LIMIT and time itself (sliding windows, retention) decide which rows there are,
 * and the state of groups alone does not say what becomes of them. So it is the answer that is compared, row by row, under the view's key
 * columns: whatever the cause of a change was, applying what is told gives the answer. Nobody asks: nothing is read, compared or kept.
 * Many ask: one reads for all of them to whom the view looks alike (changes_identity).
 *
 * A token is <incarnation of the feed>-<number of an entry>. Deletes come before upserts of the same look, since two texts may be one
 * key (1.0 and 1.00).
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
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/identity.h"
#include "shared/clock.h"
#include "shared/feed.h"
#include "read/changed.h"
#include "shared/shmem.h"
#include "sink/changes.h"
#include "view/compile.h"

#define CHANGES_FETCH 1000

struct ChangesReader
{
	Oid			  view;
	Oid			  stream;
	FeedIdentity  identity;
	List		 *keys;	  /* names of columns */
	char		 *query;  /* key and row, as texts of JSON */
	const Window *window; /* lives as the reader does */
	bool  grouped; /* which rows are others now is told by the groups that were published, by time and by retention */
	bool  steady;  /* the answer changes with the view's state alone: not with time, not with other tables */
	int64 emit_interval;
};

/* ---------------------------------------------------------------- the view */

/* The name of the output column that holds a key; NULL: none does. */
static char *
changes_key_column(const Query *query, Index ref)
{
	ListCell *lc;

	foreach (lc, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, lc);

		if (entry->ressortgroupref == ref && !entry->resjunk)
			return entry->resname;
	}
	return NULL;
}

/* The key's expressions, separated by commas, and the names of their columns; raises where rows are not told apart by them. */
static char *
changes_keys(const CompiledView *view, Relation rel, List **names)
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
		const char	*column = changes_key_column(view->query, ref);
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
changes_is_personal_function(Oid function, void *context)
{
	const char *const prefixes[] = { "current_",	  "session_",  "has_",		 "pg_",
									 "row_security",  "inet_",	   "to_reg",	 "txid_",
									 "getpgusername", "lastval",   "currval",	 "nextval",
									 "query_to_",	  "table_to_", "schema_to_", "database_to_" };
	char			 *name;

	if (func_volatile(function) == PROVOLATILE_IMMUTABLE)
		return false;
	if (function >= FirstNormalObjectId)
		return get_func_namespace(function) != get_namespace_oid("streamext", true);
	name = get_func_name(function);
	for (int i = 0; i < lengthof(prefixes); i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	return false;
}

static bool
changes_personal_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		return true; /* tables may have policies */
	if (IsA(node, SQLValueFunction) && castNode(SQLValueFunction, node)->op >= SVFOP_CURRENT_ROLE)
		return true;
	if (check_functions_in_node(node, changes_is_personal_function, context))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, changes_personal_walker, context, 0);
	return expression_tree_walker(node, changes_personal_walker, context);
}

/* Texts of these depend on search_path. */
static bool
changes_is_reg_type(Oid type)
{
	Oid element = get_base_element_type(type);

	type = getBaseType(OidIsValid(element) ? element : type);
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGCOLLATIONOID:
			return true;
		default:
			return false;
	}
}

static bool
changes_is_personal(const CompiledView *view, Relation rel)
{
	TupleDesc desc = RelationGetDescr(rel);

	for (int i = 0; i < desc->natts; i++)
	{
		Oid	 output;
		bool varlena;

		if (changes_is_reg_type(TupleDescAttr(desc, i)->atttypid))
			return true;
		getTypeOutputInfo(TupleDescAttr(desc, i)->atttypid, &output, &varlena);
		if (output >= FirstNormalObjectId && func_volatile(output) != PROVOLATILE_IMMUTABLE)
			return true;
	}
	return changes_personal_walker((Node *) view->query, NULL);
}

/* Whether a function of the view looks names up where its caller does: one of a user's, in a language, without a search_path of its own. */
static bool
changes_follows_path(Oid function, void *context)
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
changes_path_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, changes_follows_path, context))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, changes_path_walker, context, 0);
	return expression_tree_walker(node, changes_path_walker, context);
}

/* Where such functions look: schemas that are not everybody's could have the others told what their owner likes. */
static uint64
changes_path(const CompiledView *view, uint64 hash)
{
	ListCell *lc;

	if (!changes_path_walker((Node *) view->query, NULL))
		return hash;
	foreach (lc, fetch_search_path(true))
		hash = hash_combine64(hash, hash_bytes_uint32_extended(lfirst_oid(lc), 0));
	return hash;
}

static uint64
changes_hash(uint64 hash, const char *text)
{
	return hash_bytes_extended((const unsigned char *) text, strlen(text) + 1, hash);
}

/* Hash of the settings that output functions and built-in ones follow, and of what the view's rows are. */
static uint64
changes_settings(const char *keys, Relation rel)
{
	static const char *const names[] = {
		"TimeZone",	   "DateStyle",	 "IntervalStyle", "extra_float_digits", "bytea_output",
		"lc_monetary", "lc_numeric", "lc_time",		  "xmlbinary",			"default_text_search_config"
	};
	uint64	  hash = changes_hash(0, keys);
	TupleDesc desc = RelationGetDescr(rel);

	for (int i = 0; i < lengthof(names); i++)
		hash = changes_hash(hash, GetConfigOption(names[i], false, false));
	for (int i = 0; i < desc->natts; i++)
		hash = changes_hash(hash, NameStr(TupleDescAttr(desc, i)->attname));
	return hash;
}

static FeedIdentity
changes_identity(const CompiledView *view, Relation rel, const char *keys)
{
	FeedIdentity identity;

	memset(&identity, 0, sizeof(identity));
	identity.dboid = MyDatabaseId;
	identity.view = view->relid;
	identity.settings = changes_path(view, changes_settings(keys, rel));
	if (changes_is_personal(view, rel))
	{
		identity.role = GetUserId();
		identity.pid = MyProcPid;
	}
	return identity;
}

/* What may be something else though the row's group is the same, or is not PostgreSQL's own and may read the view itself. */
static bool
changes_is_loose_function(Oid function, void *context)
{
	return function >= FirstNormalObjectId || func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

/* keys: expressions of which the group holds the value. */
static bool
changes_loose_walker(Node *node, void *keys)
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
	if (check_functions_in_node(node, changes_is_loose_function, NULL))
		return true;
	return expression_tree_walker(node, changes_loose_walker, keys);
}

/* Whether each row is a group's (and window's) own: what is above the groups adds, drops and arranges none by others. */
static bool
changes_is_grouped(const CompiledView *view, Relation rel)
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
		   !changes_loose_walker((Node *) query->targetList, keys) && !changes_loose_walker(query->havingQual, keys);
}

/* As SELECT from the view's name would: another may read it for him. */
static void
changes_check_rights(Relation rel)
{
	Oid		  schema = RelationGetNamespace(rel);
	AclResult allowed;

#if PG_VERSION_NUM >= 160000
	allowed = object_aclcheck(NamespaceRelationId, schema, GetUserId(), ACL_USAGE);
#else
	allowed = pg_namespace_aclcheck(schema, GetUserId(), ACL_USAGE);
#endif
	if (allowed != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_SCHEMA, get_namespace_name(schema));
	allowed = pg_class_aclcheck(RelationGetRelid(rel), GetUserId(), ACL_SELECT);
	if (allowed != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(RelationGetRelid(rel), GetUserId(), ACL_SELECT, ACLMASK_ALL) != ACLCHECK_OK)
		aclcheck_error(allowed, OBJECT_VIEW, RelationGetRelationName(rel));
}

/* With security_invoker what the view reads is each reader's own. */
static bool
changes_is_invoker(Relation rel)
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
	changes_check_rights(rel);
	options = streamext_view_options(relid);
	if (!options.continuous)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view", RelationGetRelationName(rel))));
	view = streamext_view_cached(relid, CurrentMemoryContext);
	keys = changes_keys(view, rel, &reader->keys);
	name = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel));
	reader->view = relid;
	reader->stream = view->stream_relid;
	reader->identity = changes_identity(view, rel, keys);
	if (changes_is_invoker(rel))
		reader->identity.role = GetUserId();
	reader->query = psprintf(
		"SELECT pg_catalog.jsonb_build_array(%s)::pg_catalog.text, pg_catalog.to_jsonb(v.*)::pg_catalog.text FROM %s AS v",
		keys, name);
	reader->grouped = changes_is_grouped(view, rel);
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

List *
streamext_changes_keys(const ChangesReader *reader)
{
	return reader->keys;
}

/* ---------------------------------------------------------------- looking */

/* A number that is another one after the view's state has changed; 0: not known. */
static uint64
changes_version(const ChangesReader *reader)
{
	uint64 version = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];
		StreamSlot	   *stream;
		uint64			seen[16];

		if (!view->id.in_use || view->id.viewoid != reader->view || view->id.dboid != MyDatabaseId)
			continue;
		stream = &streamext_shared->streams[view->id.stream];
		streamext_stream_lock_shared(stream);
		seen[0] = (uint64) i << 32 | view->id.retained << 16 | view->counted.ready << 8 | (uint64) view->health.status;
		seen[1] = view->id.retained_slot;
		seen[2] = view->counted.definition;
		seen[3] = view->counted.round;
		seen[4] = view->counted.state.batches;
		seen[5] = view->counted.state.ngroups;
		seen[6] = view->counted.state.horizon;
		seen[7] = view->history.sealed;
		seen[8] = view->history.floor;
		seen[9] = view->history.written.panes;
		seen[10] = view->history.deleted.panes;
		seen[11] = view->counted.accepted;
		seen[12] = stream->counted.batches;
		seen[13] = stream->counted.watermark;
		seen[14] = view->history.number;
		seen[15] = view->history.sealed_until;
		LWLockRelease(stream->lock);
		version = hash_bytes_extended((const unsigned char *) seen, sizeof(seen), version);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return version;
}

/* A key's row as it was told and as it is. */
typedef struct ChangesRow
{
	const char *key; /* hash key: not terminated, of key_size */
	uint32		key_size;
	bool		seen;
	FeedEntry  *entry; /* NULL: new */
} ChangesRow;

typedef struct ChangesLook
{
	FeedSlot   *feed;
	ReadChanged changed;
	HTAB	   *rows;
	uint64		nread;
	FeedChange *changes; /* upserts */
	int			nchanges, capacity;
} ChangesLook;

static uint32
changes_key_hash(const void *key, Size size)
{
	const ChangesRow *row = key;

	return hash_bytes((const unsigned char *) row->key, row->key_size);
}

static int
changes_key_match(const void *a, const void *b, Size size)
{
	const ChangesRow *x = a, *y = b;

	return x->key_size == y->key_size && memcmp(x->key, y->key, x->key_size) == 0 ? 0 : 1;
}

static void
changes_take_told(ChangesLook *look, FeedEntry *entry)
{
	ChangesRow	probe = { .key = entry->data, .key_size = entry->key_size };
	ChangesRow *row = hash_search(look->rows, &probe, HASH_ENTER, NULL);

	row->seen = false;
	row->entry = entry;
}

/* What was told of all rows that are read, if they are there still: those that are not seen then are gone. */
static void
changes_told(const ChangesReader *reader, ChangesLook *look)
{
	const ReadChanged *changed = &look->changed;
	TimestampTz		   floor = changed->now.floor;
	HASHCTL			   control = { .keysize = offsetof(ChangesRow, seen),
								   .entrysize = sizeof(ChangesRow),
								   .hash = changes_key_hash,
								   .match = changes_key_match,
								   .hcxt = CurrentMemoryContext };
	FeedCursor		   cursor;
	FeedEntry		  *entry;

	look->rows = hash_create("streamext changes", changed->whole ? Max(look->feed->live_entries, 64) : 64, &control,
							 HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	cursor = changed->whole ? streamext_feed_after(look->feed, 0)
							: streamext_feed_between(look->feed, changed->from, changed->until);
	while ((entry = streamext_feed_next(&cursor)) != NULL)
		if (streamext_changed_has(changed, entry->hash, entry->start))
			changes_take_told(look, entry);
	if (changed->whole || floor <= changed->before.floor)
		return;
	cursor = streamext_feed_between(look->feed, PG_INT64_MIN, floor);
	while ((entry = streamext_feed_next(&cursor)) != NULL)
		if (streamext_window_end(reader->window, entry->start) <= floor)
			changes_take_told(look, entry);
}

static FeedChange *
changes_append(ChangesLook *look)
{
	if (look->nchanges == look->capacity)
	{
		look->capacity = Max(look->capacity * 2, 256);
		look->changes = look->changes == NULL ? palloc_extended(sizeof(FeedChange) * look->capacity, MCXT_ALLOC_HUGE)
											  : repalloc_huge(look->changes, sizeof(FeedChange) * look->capacity);
	}
	return &look->changes[look->nchanges++];
}

/* One row of the view. What is kept of it is copied into cxt. */
static void
changes_compare(const ChangesReader *reader, ChangesLook *look, MemoryContext cxt, text *key, text *value)
{
	ChangesRow	  probe = { .key = VARDATA_ANY(key), .key_size = VARSIZE_ANY_EXHDR(key) };
	uint32		  size = VARSIZE_ANY_EXHDR(value);
	bool		  found;
	ChangesRow	 *row = hash_search(look->rows, &probe, HASH_ENTER, &found);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	FeedChange	 *change;

	if (found && row->seen)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("changes of \"%s\" are not available", get_rel_name(reader->view)),
				 errdetail("It has several rows with the key %.*s.", (int) Min(probe.key_size, 200), probe.key)));
	if (!found)
	{
		row->key = memcpy(palloc(Max(probe.key_size, 1)), probe.key, probe.key_size);
		row->entry = NULL;
	}
	row->seen = true;
	if (!found || row->entry->gone || row->entry->row_size != size ||
		memcmp(row->entry->data + row->entry->key_size, VARDATA_ANY(value), size) != 0)
	{
		change = changes_append(look);
		memset(change, 0, sizeof(FeedChange));
		change->old = row->entry;
		change->key = row->key;
		change->key_size = row->key_size;
		change->row = memcpy(palloc(Max(size, 1)), VARDATA_ANY(value), size);
		change->row_size = size;
		if (reader->grouped && look->nread < look->changed.nrows)
		{
			change->hash = look->changed.rows[look->nread].hash;
			change->start = look->changed.rows[look->nread].start;
		}
	}
	look->nread++;
	MemoryContextSwitchTo(old);
}

/* What is read of the view is known then, and what was told of that. */
static Portal
changes_begin(const ChangesReader *reader, ChangesLook *look)
{
	SPIPlanPtr plan = SPI_prepare(reader->query, 0, NULL);
	Portal volatile portal = NULL;

	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\"", reader->query);
	streamext_read_changed(&look->changed);
	PG_TRY();
	{
		portal = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	}
	PG_FINALLY();
	{
		streamext_read_changed(NULL);
	}
	PG_END_TRY();
	look->changed.whole = look->changed.whole || !look->changed.begun;
	return portal;
}

static void
changes_read_view(const ChangesReader *reader, ChangesLook *look)
{
	MemoryContext cxt = CurrentMemoryContext;
	MemoryContext per_fetch;
	Portal		  portal;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	portal = changes_begin(reader, look);
	MemoryContextSwitchTo(cxt);
	changes_told(reader, look);
	per_fetch = AllocSetContextCreate(CurrentMemoryContext, "streamext changes rows", ALLOCSET_DEFAULT_SIZES);
	do
	{
		SPI_cursor_fetch(portal, true, CHANGES_FETCH);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(per_fetch);
			bool		  isnull;
			text		 *key = DatumGetTextPP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
			text		 *row = DatumGetTextPP(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2, &isnull));

			MemoryContextSwitchTo(old);
			changes_compare(reader, look, cxt, key, row);
		}
		MemoryContextReset(per_fetch);
		SPI_freetuptable(SPI_tuptable);
	} while (SPI_processed > 0);
	SPI_cursor_close(portal);
	SPI_finish();
}

/* Deletes, then the upserts. */
static FeedChange *
changes_collect(ChangesLook *look, int *n)
{
	HASH_SEQ_STATUS scan;
	ChangesRow	   *row;
	FeedChange	   *all;
	int				deletes = 0;

	hash_seq_init(&scan, look->rows);
	while ((row = hash_seq_search(&scan)) != NULL)
		deletes += !row->seen && !row->entry->gone;
	all = palloc_extended(sizeof(FeedChange) * (deletes + look->nchanges + 1), MCXT_ALLOC_HUGE);
	*n = 0;
	hash_seq_init(&scan, look->rows);
	while ((row = hash_seq_search(&scan)) != NULL)
	{
		FeedEntry *entry = row->entry;

		if (row->seen || entry->gone)
			continue;
		all[*n].old = entry;
		all[*n].key = entry->data;
		all[*n].key_size = entry->key_size;
		all[*n].row = entry->data + entry->key_size;
		all[*n].row_size = entry->row_size;
		all[*n].gone = true;
		all[*n].hash = entry->hash;
		all[*n].start = entry->start;
		(*n)++;
	}
	memcpy(all + *n, look->changes, sizeof(FeedChange) * look->nchanges);
	*n += look->nchanges;
	return all;
}

/* Reads the view and takes what has changed into the feed, which is held. */
static void
changes_look(const ChangesReader *reader, FeedSlot *feed)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext changes", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	TimestampTz	  now = GetCurrentTimestamp();
	uint64		  version = reader->steady ? changes_version(reader) : 0;
	ChangesLook	  look = { .feed = feed };
	FeedChange	 *changes;
	int			  n;

	look.changed.view = reader->view;
	look.changed.cxt = cxt;
	if (feed->incarnation != 0)
		look.changed.before = feed->look;
	changes_read_view(reader, &look);
	changes = changes_collect(&look, &n);
	while (feed->incarnation == 0)
		if (!pg_strong_random(&feed->incarnation, sizeof(feed->incarnation)))
			elog(ERROR, "could not generate a random number");
	if (!streamext_feed_add(feed, changes, n, GetCurrentTimestamp()))
	{
		streamext_feed_reset(feed);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY),
						errmsg("there is no memory for the changes of \"%s\"", get_rel_name(reader->view)),
						errhint("Raise streamext.memory_limit and restart the server.")));
	}
	feed->looked_at = now;
	feed->version = version;
	feed->look = look.changed.now;
	feed->grouped = reader->grouped && look.nread == look.changed.nrows;
	if (!feed->grouped)
		feed->look.nmarks = 0;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* ---------------------------------------------------------------- telling */

static char *
changes_token(const FeedSlot *feed, uint64 number)
{
	return psprintf("%016llx-%llu", (unsigned long long) feed->incarnation, (unsigned long long) number);
}

/* What the token says its holder has; false: all that can be known is that he has to begin anew. */
static bool
changes_parse_token(const FeedSlot *feed, const char *token, uint64 *number)
{
	unsigned long long incarnation, value;
	int				   length = 0;

	if (token == NULL || sscanf(token, "%16llx-%llu%n", &incarnation, &value, &length) != 2 || token[length] != '\0' ||
		incarnation != feed->incarnation || value < feed->floor || value > feed->number)
		return false;
	*number = value;
	return true;
}

/* The next entry that is of interest: who begins anew has no use for what is gone. */
static FeedEntry *
changes_next(FeedCursor *cursor, bool anew)
{
	FeedEntry *entry = streamext_feed_next(cursor);

	while (entry != NULL && anew && entry->gone)
		entry = streamext_feed_next(cursor);
	return entry;
}

static void
changes_emit_reset(FeedSlot *feed, uint64 number, ChangesEmit emit, void *arg)
{
	Change change = { .op = STREAMEXT_CHANGE_RESET,
					  .incarnation = feed->incarnation,
					  .number = number,
					  .token = changes_token(feed, number),
					  .at = feed->looked_at };

	emit(arg, &change);
}

static void
changes_emit_entry(FeedSlot *feed, const FeedEntry *entry, uint64 number, ChangesEmit emit, void *arg)
{
	Change change = { .op = entry->gone ? STREAMEXT_CHANGE_DELETE : STREAMEXT_CHANGE_UPSERT,
					  .incarnation = feed->incarnation,
					  .number = number,
					  .token = changes_token(feed, number),
					  .at = entry->at,
					  .key = entry->data,
					  .row = entry->data + entry->key_size,
					  .key_size = entry->key_size,
					  .row_size = entry->row_size };

	emit(arg, &change);
}

/*
 * The last one's token is of all there is. While one begins anew, earlier ones' may be out of reach, for who has no more than these; he
 * would begin anew once more.
 */
static uint64
changes_tell(FeedSlot *feed, const ChangesQuestion *question, ChangesEmit emit, void *arg)
{
	uint64	   number = 0;
	uint64	   told = 0;
	bool	   anew = !changes_parse_token(feed, question->after, &number);
	bool	   skip = anew && !question->gone;
	FeedCursor cursor = streamext_feed_after(feed, number);
	FeedEntry *entry = changes_next(&cursor, skip);

	if (anew && question->gone)
		changes_emit_reset(feed, feed->floor, emit, arg);
	else if (anew)
		changes_emit_reset(feed, entry != NULL ? entry->number - 1 : feed->number, emit, arg);
	while (entry != NULL)
	{
		FeedEntry *next = changes_next(&cursor, skip);

		changes_emit_entry(feed, entry, next != NULL ? entry->number : feed->number, emit, arg);
		told++;
		entry = next;
	}
	return told;
}

uint64
streamext_changes_read(ChangesReader *reader, const ChangesQuestion *question, ChangesEmit emit, void *arg,
					   char **newest)
{
	FeedSlot *feed;
	uint64	  told;

	streamext_identity_check_columns(reader->view);
	feed = streamext_feed_open(&reader->identity);
	if (reader->grouped && !feed->grouped)
		streamext_feed_reset(feed); /* the view was another one, whose rows were of no groups */
	if (feed->incarnation == 0 ||
		(feed->looked_at < question->fresh &&
		 !(question->idle && reader->steady && feed->version != 0 && feed->version == changes_version(reader))))
		changes_look(reader, feed);
	told = changes_tell(feed, question, emit, arg);
	if (newest != NULL)
		*newest = changes_token(feed, feed->number);
	streamext_feed_close(feed);
	return told;
}
