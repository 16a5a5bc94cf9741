/*
 * sql/shard_view.c
 *		streamext.shard_view: one view over the continuous views of several servers, merged where it is read.
 *
 * For a view v it makes, as the caller and in v's schema:
 *
 *		v_shard_all		a partitioned table of all shards' rows, by shard; its partitions v_shard_1, ... are foreign tables of postgres_fdw
 *		v_shard_state	the same of what the shards say of themselves (streamext.shard_state): v_shard_state_1, ...
 *		v_shards		the view: groups merged, then the continuous view's own SELECT; this is what is returned
 *		v_shards_state	who the shards are, their watermarks and lags
 *
 * So PostgreSQL's own planner sends keys and ranges to the servers, and reads them at one time. With away => 'name' v_shards leaves out
 * servers that cannot be reached, by pruning their partitions before the executor starts, and names them in a further column; what is
 * asked for that, streamext.shard_up, is asked once a statement.
 *
 * Called again it makes the tables anew; the view stays, with its OID, grants and dependants, if its columns allow that.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "parser/parser.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

#include "base/identity.h"
#include "base/relation.h"
#include "base/transaction.h"
#include "aggregate/portable.h"
#include "read/shard_rows.h"

#include "sql/shard.h"

PG_FUNCTION_INFO_V1(streamext_shard_view);
PG_FUNCTION_INFO_V1(streamext_shard_up);
PG_FUNCTION_INFO_V1(streamext_shards_away);

#define SHARD_MAX_SERVERS 1000

/* What one server has told. */
typedef struct ShardAnswer
{
	char *server;
	char *relation;
	char *columns;
	char *query;
	char *same;
	char *id;
	char *partitions; /* or NULL */
} ShardAnswer;

typedef struct ShardView
{
	char		*schema;
	char		*name;
	char		*columns; /* of rows */
	char		*query;	  /* over SHARD_ROWS_TOKEN */
	bool		 name_away;
	int			 n;
	ShardAnswer *shards;
} ShardView;

/* ---- names and statements ---- */

/* Qualified and quoted. */
static char *
shard_name(const ShardView *view, const char *suffix)
{
	return quote_qualified_identifier(view->schema, streamext_shard_object(view->name, suffix));
}

/* One statement, whatever texts of other servers are in it. */
static int
shard_run(const char *sql, int expected)
{
	if (list_length(raw_parser(sql, RAW_PARSE_DEFAULT)) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR), errmsg("a server's answer to streamext.shard_view is not understood")));
	if (SPI_execute(sql, false, 0) != expected)
		elog(ERROR, "could not run: %s", sql);
	return (int) SPI_processed;
}

/* ---- asking the servers ---- */

static void
shard_check_server(const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, false);

	if (strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, "postgres_fdw") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("server \"%s\" is none of postgres_fdw", name),
				 errhint("CREATE EXTENSION postgres_fdw; CREATE SERVER ... FOREIGN DATA WRAPPER postgres_fdw OPTIONS "
						 "(host ..., dbname ...); CREATE USER MAPPING FOR CURRENT_USER SERVER ...")));
}

static char *
shard_column(int column)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
}

static void
shard_ask(const ShardView *view, ShardAnswer *shard)
{
	char *table = shard_name(view, "_shard_request");

	shard_check_server(shard->server);
	shard_run(
		psprintf("CREATE FOREIGN TABLE %s (view text, relation text, columns text, query text, same text, id text, "
				 "partitions text) SERVER %s OPTIONS (schema_name 'streamext', table_name 'shard_request')",
				 table, quote_identifier(shard->server)),
		SPI_OK_UTILITY);
	if (shard_run(psprintf("INSERT INTO %s (view) VALUES (%s) RETURNING relation, columns, query, same, id, partitions",
						   table, quote_literal_cstr(quote_qualified_identifier(view->schema, view->name))),
				  SPI_OK_INSERT_RETURNING) != 1)
		elog(ERROR, "server \"%s\" has told nothing", shard->server);
	shard->relation = shard_column(1);
	shard->columns = shard_column(2);
	shard->query = shard_column(3);
	shard->same = shard_column(4);
	shard->id = shard_column(5);
	shard->partitions = shard_column(6);
	if (shard->relation == NULL || shard->columns == NULL || shard->query == NULL || shard->same == NULL ||
		shard->id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("the answer of server \"%s\" to streamext.shard_view is not understood", shard->server)));
	shard_run(psprintf("DROP FOREIGN TABLE %s", table), SPI_OK_UTILITY);
}

/* ---- do they make one whole? ---- */

static void
shard_check_same(const ShardAnswer *a, const ShardAnswer *b, const ShardView *view)
{
	if (strcmp(a->id, b->id) == 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("servers \"%s\" and \"%s\" are the same database", a->server, b->server),
						errdetail("Its rows would be counted twice.")));
	if (strcmp(a->same, b->same) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("view \"%s\" is not the same on servers \"%s\" and \"%s\"", view->name, a->server, b->server),
				 errdetail("One has: %s\nThe other has: %s", a->same, b->same)));
	if ((a->partitions == NULL) != (b->partitions == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("of servers \"%s\" and \"%s\" one reads all partitions and one a part", a->server, b->server),
				 errhint("Give the stream the option partitions on each.")));
}

/* With partitions 'i/n' each i has to be there once. */
static void
shard_check_partitions(const ShardView *view)
{
	bool *there = palloc0(view->n * sizeof(bool));

	for (int i = 0; i < view->n; i++)
	{
		int part, of;

		if (view->shards[i].partitions == NULL)
			return;
		if (sscanf(view->shards[i].partitions, "%d/%d", &part, &of) != 2 || of != view->n || part < 0 || part >= of ||
			there[part])
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("the servers' shares of the partitions do not make one whole"),
							errdetail("Server \"%s\" has partitions '%s'; there are %d servers.",
									  view->shards[i].server, view->shards[i].partitions, view->n),
							errhint("With n servers they are '0/n' to 'n-1/n', each once.")));
		there[part] = true;
	}
}

static void
shard_ask_all(ShardView *view)
{
	for (int i = 0; i < view->n; i++)
	{
		shard_ask(view, &view->shards[i]);
		for (int other = 0; other < i; other++)
			shard_check_same(&view->shards[other], &view->shards[i], view);
	}
	shard_check_partitions(view);
}

/* From the view at hand if there is one: then no other server's text is run here. */
static void
shard_define(ShardView *view)
{
	Oid local = streamext_shard_find_view(quote_qualified_identifier(view->schema, view->name), true);

	view->columns = view->shards[0].columns;
	view->query = view->shards[0].query;
	if (!OidIsValid(local))
		return;
	view->columns = streamext_shard_columns(streamext_view_cached(local, CurrentMemoryContext));
	view->query = streamext_shard_query(streamext_view_cached(local, CurrentMemoryContext));
	if (strcmp(view->shards[0].same, streamext_shard_same(streamext_view_cached(local, CurrentMemoryContext))) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("view \"%s\" is not the same here and on server \"%s\"", view->name, view->shards[0].server),
				 errdetail("There it is: %s", view->shards[0].same)));
}

/* ---- making it ---- */

#define SHARD_STATE_COLUMNS                                                                                          \
	"view text, partitions text, state text, watermark timestamptz, lag_rows bigint, lag_seconds double precision, " \
	"accepted bigint, late bigint, rejected bigint, sealed_until timestamptz"

static Oid
shard_relid(const ShardView *view, const char *suffix)
{
	return get_relname_relid(streamext_shard_object(view->name, suffix), get_namespace_oid(view->schema, false));
}

static bool
shard_exists(const ShardView *view, const char *suffix)
{
	return OidIsValid(shard_relid(view, suffix));
}

/*
 * What stands where something is to be made is somebody's own unless the query finds it to be this function's, made as this user: a view that
 * is replaced stays its owner's, who may put what he likes into it later, and does not read tables that are another one's.
 */
static void
shard_check_own(const ShardView *view, const char *suffix, const char *query)
{
	bool own;

	if (!shard_exists(view, suffix))
		return;
	own = SPI_execute(query, true, 1) == SPI_OK_SELECT && SPI_processed == 1 &&
		  streamext_relation_owner(shard_relid(view, suffix), false) == GetUserId();
	if (!own)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists", streamext_shard_object(view->name, suffix)),
				 errdetail("streamext.shard_view makes something of this name, and has not made that as this role."),
				 errhint("Rename it, or drop it if it is of no use.")));
}

/* Its tables have foreign tables below them and no other. */
static void
shard_check_own_table(const ShardView *view, const char *suffix)
{
	shard_check_own(
		view, suffix,
		psprintf(
			"SELECT 1 FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass(%s) AND c.relkind = 'p' AND NOT EXISTS "
			"(SELECT 1 FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid "
			"WHERE i.inhparent = c.oid AND p.relkind <> 'f')",
			quote_literal_cstr(shard_name(view, suffix))));
}

/* Its views are over its tables. */
static void
shard_check_own_view(const ShardView *view, const char *suffix, const char *table)
{
	shard_check_own(
		view, suffix,
		psprintf("SELECT 1 FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_depend d ON d.classid = "
				 "'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid "
				 "WHERE r.ev_class = pg_catalog.to_regclass(%s) AND d.refobjid = pg_catalog.to_regclass(%s)",
				 quote_literal_cstr(shard_name(view, suffix)), quote_literal_cstr(shard_name(view, table))));
}

/* A view without anything below it, so that what is below can be made anew while others depend on the view. */
static void
shard_hollow(const ShardView *view, const char *suffix)
{
	char		  *name = shard_name(view, suffix);
	StringInfoData buf;

	if (!shard_exists(view, suffix))
		return;
	initStringInfo(&buf);
	SPI_execute(
		psprintf(
			"SELECT pg_catalog.format('NULL::%%s AS %%I', pg_catalog.format_type(a.atttypid, a.atttypmod) || "
			"COALESCE((SELECT pg_catalog.format(' COLLATE %%I.%%I', n.nspname, c.collname) FROM pg_catalog.pg_collation c "
			"JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = a.attcollation), ''), a.attname) "
			"FROM pg_catalog.pg_attribute a WHERE a.attrelid = %s::pg_catalog.regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
			quote_literal_cstr(name)),
		true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
		appendStringInfo(&buf, "%s%s", i > 0 ? ", " : "",
						 SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	shard_run(psprintf("CREATE OR REPLACE VIEW %s AS SELECT %s", name, buf.data), SPI_OK_UTILITY);
}

/* A partitioned table and a foreign table for each server. */
static void
shard_make_tables(const ShardView *view, const char *suffix, const char *key, const char *columns, bool rows)
{
	if (shard_exists(view, suffix))
		shard_run(psprintf("DROP TABLE %s", shard_name(view, suffix)), SPI_OK_UTILITY);
	shard_run(
		psprintf("CREATE TABLE %s (%s text%s) PARTITION BY LIST (%s)", shard_name(view, suffix), key, columns, key),
		SPI_OK_UTILITY);
	for (int i = 0; i < view->n; i++)
		shard_run(
			psprintf("CREATE FOREIGN TABLE %s PARTITION OF %s FOR VALUES IN (%s) SERVER %s OPTIONS (schema_name %s, "
					 "table_name %s, async_capable 'true', fetch_size '10000')",
					 shard_name(view, psprintf("%s_%d", rows ? "_shard" : "_shard_state", i + 1)),
					 shard_name(view, suffix), quote_literal_cstr(view->shards[i].id),
					 quote_identifier(view->shards[i].server), rows ? quote_literal_cstr(view->schema) : "'streamext'",
					 rows ? quote_literal_cstr(view->shards[i].relation) : "'shard_state'"),
			SPI_OK_UTILITY);
}

/* ARRAY[...] of something for each shard. */
static char *
shard_array(const ShardView *view, bool up)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < view->n; i++)
	{
		char *table = quote_literal_cstr(shard_name(view, psprintf("_shard_state_%d", i + 1)));

		appendStringInfoString(&buf, i > 0 ? ", " : "ARRAY[");
		if (up)
			appendStringInfo(&buf, "streamext.shard_up(%s::pg_catalog.regclass, %s)", table,
							 quote_literal_cstr(view->shards[i].id));
		else
			appendStringInfo(&buf, "%s::pg_catalog.regclass", table);
	}
	appendStringInfoChar(&buf, ']');
	return buf.data;
}

static char *
shard_up_clause(const ShardView *view, const char *key)
{
	return view->name_away ? psprintf(" WHERE %s = ANY (%s)", key, shard_array(view, true)) : "";
}

static void
shard_make_view(const ShardView *view)
{
	char *rows = psprintf("(SELECT * FROM %s%s)", shard_name(view, "_shard_all"), shard_up_clause(view, "shard"));
	char *query = streamext_shard_replace(view->query, SHARD_ROWS_TOKEN, rows);

	if (view->name_away)
		query = psprintf("SELECT q.*, streamext.shards_away(%s) AS away FROM (%s) q", shard_array(view, false), query);
	shard_run(psprintf("CREATE OR REPLACE VIEW %s AS %s", shard_name(view, "_shards"), query), SPI_OK_UTILITY);
}

/* Who they are and how far. */
static void
shard_make_state(const ShardView *view)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "CREATE OR REPLACE VIEW %s AS SELECT CASE s.id", shard_name(view, "_shards_state"));
	for (int i = 0; i < view->n; i++)
		appendStringInfo(&buf, " WHEN %s THEN %s::text", quote_literal_cstr(view->shards[i].id),
						 quote_literal_cstr(view->shards[i].server));
	appendStringInfo(
		&buf,
		" END AS server, s.partitions, s.state, s.watermark, s.lag_rows, s.lag_seconds, s.accepted, s.late, "
		"s.rejected, s.sealed_until FROM (SELECT * FROM %s%s) s WHERE s.view = %s",
		shard_name(view, "_shard_state"), shard_up_clause(view, "id"),
		quote_literal_cstr(quote_qualified_identifier(view->schema, view->name)));
	if (view->name_away)
		appendStringInfo(&buf,
						 " UNION ALL SELECT a, NULL, 'away', NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM "
						 "pg_catalog.unnest(streamext.shards_away(%s)) a",
						 shard_array(view, false));
	shard_run(buf.data, SPI_OK_UTILITY);
}

static void
shard_make(const ShardView *view)
{
	shard_check_own_table(view, "_shard_all");
	shard_check_own_table(view, "_shard_state");
	shard_check_own_view(view, "_shards", "_shard_all");
	shard_check_own_view(view, "_shards_state", "_shard_state");
	shard_hollow(view, "_shards");
	shard_hollow(view, "_shards_state");
	shard_make_tables(view, "_shard_all", "shard", view->columns, true);
	shard_make_tables(view, "_shard_state", "id", ", " SHARD_STATE_COLUMNS, false);
	shard_make_view(view);
	shard_make_state(view);
}

/* ---- the call ---- */

static void
shard_find(ShardView *view, const char *given)
{
	RangeVar *var = makeRangeVarFromNameList(textToQualifiedNameList(cstring_to_text(given)));
	Oid		  relid = RangeVarGetRelid(var, AccessShareLock, true);

	view->name = var->relname;
	view->schema = get_namespace_name(OidIsValid(relid) ? get_rel_namespace(relid) : RangeVarGetCreationNamespace(var));
}

static void
shard_servers(ShardView *view, ArrayType *servers)
{
	Datum *values;
	bool  *nulls;

	deconstruct_array(servers, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &view->n);
	if (view->n < 1 || view->n > SHARD_MAX_SERVERS || ARR_NDIM(servers) != 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("streamext.shard_view takes 1 to %d servers", SHARD_MAX_SERVERS),
						errhint("List the names of all servers that have a shard.")));
	view->shards = palloc0(view->n * sizeof(ShardAnswer));
	for (int i = 0; i < view->n; i++)
	{
		if (nulls[i])
			ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("a server's name is NULL")));
		view->shards[i].server = TextDatumGetCString(values[i]);
	}
}

/* streamext.shard_view(view text, servers text[], away text) → regclass */
Datum
streamext_shard_view(PG_FUNCTION_ARGS)
{
	ShardView	  view = { 0 };
	char		 *away = text_to_cstring(PG_GETARG_TEXT_PP(2));
	IdentityScope scope;
	int			  level;

	if (strcmp(away, "error") != 0 && strcmp(away, "name") != 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("invalid value for \"away\": %s", away),
			 errhint(
				 "Valid values are error (a server that is away is an error) and name (it is named in the column away).")));
	view.name_away = strcmp(away, "name") == 0;
	shard_find(&view, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	shard_servers(&view, PG_GETARG_ARRAYTYPE_P(1));
	level = streamext_portable_pin();
	scope = streamext_identity_enter_lightly(GetUserId());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	shard_ask_all(&view);
	shard_define(&view);
	shard_make(&view);
	SPI_finish();
	streamext_identity_leave(scope);
	AtEOXact_GUC(false, level);
	PG_RETURN_OID(
		get_relname_relid(streamext_shard_object(view.name, "_shards"), get_namespace_oid(view.schema, false)));
}

/* ---- who is away ---- */

typedef struct ShardPing
{
	Oid			table;
	TimestampTz statement; /* that it was asked for */
	bool		up;
	char		id[64];
} ShardPing;

static List *shard_pings = NIL; /* of this process */

/* Only tables that streamext.shard_view has made are asked, as their owner. */
static Oid
ping_owner(Oid table)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	bool	  state = false, schema = false;
	Oid		  owner;
	ListCell *lc;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("relation %u does not exist", table)));
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	if (((Form_pg_class) GETSTRUCT(tuple))->relkind == RELKIND_FOREIGN_TABLE)
		foreach (lc, GetForeignTable(table)->options)
		{
			DefElem *def = lfirst_node(DefElem, lc);

			state |= strcmp(def->defname, "table_name") == 0 && strcmp(defGetString(def), "shard_state") == 0;
			schema |= strcmp(def->defname, "schema_name") == 0 && strcmp(defGetString(def), "streamext") == 0;
		}
	ReleaseSysCache(tuple);
	if (!state || !schema)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is no foreign table of streamext.shard_view", get_rel_name(table))));
	return owner;
}

static void
ping_step(void *arg)
{
	ShardPing	 *ping = arg;
	IdentityScope scope = streamext_identity_enter(ping_owner(ping->table));
	char		 *name = streamext_relation_name(ping->table);
	char		 *id = NULL;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (SPI_execute(psprintf("SELECT id FROM %s LIMIT 1", name), true, 1) == SPI_OK_SELECT && SPI_processed == 1)
		id = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	strlcpy(ping->id, id != NULL ? id : "", sizeof(ping->id));
	SPI_finish();
	streamext_identity_leave(scope);
	ping->up = true;
}

static bool
ping_is_away(const ErrorData *error)
{
	return ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_CONNECTION_EXCEPTION ||
		   ERRCODE_TO_CATEGORY(error->sqlerrcode) == MAKE_SQLSTATE('5', '7', '0', '0', '0') ||
		   error->sqlerrcode == ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION;
}

/* What is known of it in this statement. */
static ShardPing *
ping(Oid table)
{
	ShardPing *found = NULL;
	ListCell  *lc;
	ErrorData *error;

	foreach (lc, shard_pings)
		if (((ShardPing *) lfirst(lc))->table == table)
			found = lfirst(lc);
	if (found == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

		found = palloc0(sizeof(ShardPing));
		shard_pings = lappend(shard_pings, found);
		MemoryContextSwitchTo(old);
		found->table = table;
	}
	if (found->statement == GetCurrentStatementStartTimestamp())
		return found;
	found->up = false;
	found->statement = 0;
	error = streamext_try(ping_step, found);
	if (error != NULL && (error->sqlerrcode == ERRCODE_QUERY_CANCELED || !ping_is_away(error)))
		ReThrowError(error);
	found->statement = GetCurrentStatementStartTimestamp();
	return found;
}

/* streamext.shard_up(state regclass, id text): the id, or NULL if the server cannot be reached. */
Datum
streamext_shard_up(PG_FUNCTION_ARGS)
{
	ShardPing *found = ping(PG_GETARG_OID(0));
	char	  *id = text_to_cstring(PG_GETARG_TEXT_PP(1));

	if (!found->up)
		PG_RETURN_NULL();
	if (strcmp(found->id, id) != 0)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("server \"%s\" is not the one that it was when streamext.shard_view was called",
							   GetForeignServer(GetForeignTable(PG_GETARG_OID(0))->serverid)->servername),
						errhint("Call streamext.shard_view again.")));
	PG_RETURN_DATUM(PG_GETARG_DATUM(1));
}

/* streamext.shards_away(states regclass[]): names of the servers that cannot be reached; NULL: none. */
Datum
streamext_shards_away(PG_FUNCTION_ARGS)
{
	ArrayBuildState *away = NULL;
	Datum			*tables;
	int				 n;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT, &tables, NULL, &n);
	for (int i = 0; i < n; i++)
		if (!ping(DatumGetObjectId(tables[i]))->up)
			away = accumArrayResult(
				away,
				CStringGetTextDatum(
					GetForeignServer(GetForeignTable(DatumGetObjectId(tables[i]))->serverid)->servername),
				false, TEXTOID, CurrentMemoryContext);
	if (away == NULL)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(makeArrayResult(away, CurrentMemoryContext));
}
