/*
 * sink/emit.c
 *		Changes of views into topics that keep the newest message of each key. What the functions promise is in sink/emit.h.
 *
 * What has changed comes from the view's feed (sink/changes.h), as to any reader of changes; it is part of the transaction that puts it into
 * the outbox. The feed is not there after a restart: then the whole view is sent again, and what had left it meanwhile is found by the keys that
 * are out there, which the same transaction keeps in streamext_internal.emitted. Each transaction has a number, which rises for ever and goes
 * with its messages as the header `version`; a key is in it at most once.
 *
 * While something of the view has not arrived yet nothing more is taken: the feed has the newest row of each key, so an outage's length costs no
 * room, and what has happened meanwhile goes out as one set of changes. A row that the other system has refused goes when a newer one of its key
 * comes: sent again (streamext.retry_deliveries) it would stand there as the newest.
 *
 * Times are written in UTC and the ISO style, whatever the server's settings are: a key is the same text for ever.
 */
#include "base/streamext.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "rewrite/rewriteHandler.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "base/giving.h"
#include "base/identity.h"
#include "base/own_table.h"
#include "base/relation.h"
#include "sink/changes.h"
#include "sink/emit.h"
#include "sink/transport.h"
#include "view/compile.h"
#include "view/target.h"

typedef struct EmitTexts
{
	Datum *texts;
	int	   n, capacity;
} EmitTexts;

typedef struct Emit
{
	Oid			view;
	Oid			target;
	Oid			owner;
	List	   *names;			  /* of the key's columns */
	const char *window;			  /* the one that is the window; or NULL */
	List	   *columns;		  /* names of the view's */
	bool		reset;			  /* what comes is the whole view */
	EmitTexts	keys, rows, gone; /* of upserts, in step; keys of deletes */
	Datum	   *tombstones;		  /* objects of key columns */
	int			ntombstones;
	int64		version;
	bool		refused; /* rows of the view are dead */
} Emit;

/* ---------------------------------------------------------------- what is to be sent */

static void
emit_append(EmitTexts *texts, const char *text, uint32 size)
{
	if (texts->n == texts->capacity)
	{
		texts->capacity = Max(texts->capacity * 2, 64);
		texts->texts = texts->texts != NULL ? repalloc_huge(texts->texts, sizeof(Datum) * texts->capacity)
											: palloc(sizeof(Datum) * texts->capacity);
	}
	texts->texts[texts->n++] = PointerGetDatum(cstring_to_text_with_len(text, size));
}

/* The feed is held. */
static void
emit_take(void *arg, const Change *change)
{
	Emit *emit = arg;

	switch (change->op)
	{
		case STREAMEXT_CHANGE_RESET:
			emit->reset = true;
			break;
		case STREAMEXT_CHANGE_DELETE:
			emit_append(&emit->gone, change->key, change->key_size);
			break;
		default:
			emit_append(&emit->keys, change->key, change->key_size);
			emit_append(&emit->rows, change->row, change->row_size);
	}
}

static List *
emit_columns(Oid view)
{
	Relation  rel = table_open(view, AccessShareLock);
	TupleDesc desc = RelationGetDescr(rel);
	List	 *columns = NIL;

	for (int i = 0; i < desc->natts; i++)
		columns = lappend(columns, pstrdup(NameStr(TupleDescAttr(desc, i)->attname)));
	table_close(rel, NoLock);
	return columns;
}

static const char *
emit_window(Oid viewoid)
{
	const CompiledView *view = streamext_view_cached(viewoid, CurrentMemoryContext);

	for (int k = 0; k < view->nkeys; k++)
		if (view->keys[k].is_window)
			return view->keys[k].name;
	return NULL;
}

/* As the owner. Where the view stands. */
static char *
emit_read(Emit *emit, const char *token)
{
	ChangesQuestion question = { .after = token, .fresh = GetCurrentTimestamp(), .idle = true };
	IdentityScope	scope = streamext_identity_enter(emit->owner);
	ChangesReader  *reader = streamext_changes_open(emit->view);
	char		   *newest;

	emit->names = streamext_changes_keys(reader);
	emit->window = emit_window(emit->view);
	emit->columns = emit_columns(emit->view);
	(void) streamext_changes_read(reader, &question, emit_take, emit, &newest);
	streamext_identity_leave(scope);
	return newest;
}

/* ---------------------------------------------------------------- what is on its way */

#define EMIT_WAITS 1
#define EMIT_REFUSED 2

/* Rows are sent in the order of their numbers, so the view's own are met soon where the other system is away. */
static int
emit_under_way(const Emit *emit)
{
	Oid	  types[] = { OIDOID, OIDOID };
	Datum values[] = { ObjectIdGetDatum(emit->target), ObjectIdGetDatum(emit->view) };

	return streamext_control_execute(
		"SELECT (EXISTS (SELECT FROM streamext_internal.outbox WHERE target = $1 AND view = $2 AND reason IS NULL)::int "
		"+ 2 * EXISTS (SELECT FROM streamext_internal.outbox WHERE target = $1 AND view = $2 AND reason IS NOT NULL)::int)::bigint",
		2, types, values, NULL, SPI_OK_SELECT);
}

/* Behind the newer rows, which wait. */
static void
emit_forget_refused(const Emit *emit)
{
	Oid	  types[] = { OIDOID, OIDOID };
	Datum values[] = { ObjectIdGetDatum(emit->target), ObjectIdGetDatum(emit->view) };

	(void) streamext_control_execute(
		"DELETE FROM streamext_internal.outbox AS o USING "
		"(SELECT DISTINCT key FROM streamext_internal.outbox WHERE target = $1 AND view = $2 AND reason IS NULL) AS newer "
		"WHERE o.target = $1 AND o.view = $2 AND o.reason IS NOT NULL AND o.key = newer.key",
		2, types, values, NULL, SPI_OK_DELETE);
}

/* ---------------------------------------------------------------- what is out there */

static Datum
emit_array(Datum *texts, int n)
{
	return PointerGetDatum(construct_array(texts, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static Datum
emit_names(const Emit *emit)
{
	Datum	 *names = palloc(sizeof(Datum) * (list_length(emit->names) + 1));
	ListCell *lc;

	foreach (lc, emit->names)
		names[foreach_current_index(lc)] = CStringGetTextDatum(lfirst(lc));
	return emit_array(names, list_length(emit->names));
}

static void
emit_run(const char *sql, int nargs, Datum *values, int expected)
{
	static Oid types[] = { OIDOID, TEXTARRAYOID, TEXTARRAYOID };

	if (SPI_execute_with_args(streamext_own_sql(sql), nargs, types, values, NULL, false, 0) != expected)
		elog(ERROR, "could not keep what has been emitted");
}

/* Takes the deleted keys' objects out of SPI's memory. */
static void
emit_take_tombstones(Emit *emit, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);

	emit->tombstones = palloc_extended(sizeof(Datum) * (SPI_processed + 1), MCXT_ALLOC_HUGE);
	emit->ntombstones = SPI_processed;
	for (uint64 i = 0; i < SPI_processed; i++)
		emit->tombstones[i] = CStringGetTextDatum(SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	MemoryContextSwitchTo(old);
}

/* Keys that are gone leave the table, and are tombstones; new ones come into it; the version rises. */
static void
emit_keep(Emit *emit)
{
	MemoryContext cxt = CurrentMemoryContext;
	IdentityScope scope = streamext_own_begin();
	Datum		  values[3] = { ObjectIdGetDatum(emit->view) };
	bool		  isnull;

	emit_run("INSERT INTO streamext_internal.emitted_view AS v (view, version) VALUES ($1, 1) "
			 "ON CONFLICT (view) DO UPDATE SET version = v.version + 1 RETURNING v.version",
			 1, values, SPI_OK_INSERT_RETURNING);
	emit->version = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	values[1] = emit->reset ? emit_array(emit->keys.texts, emit->keys.n) : emit_array(emit->gone.texts, emit->gone.n);
	if (emit->reset)
		emit_run("WITH now AS MATERIALIZED (SELECT sha256(convert_to(u.k, 'UTF8')) AS digest FROM unnest($2) AS u(k)) "
				 "DELETE FROM streamext_internal.emitted AS e WHERE e.view = $1 AND NOT EXISTS "
				 "(SELECT FROM now WHERE now.digest = e.digest) RETURNING e.key::text",
				 2, values, SPI_OK_DELETE_RETURNING);
	else
		emit_run("DELETE FROM streamext_internal.emitted AS e USING unnest($2) AS u(k) "
				 "WHERE e.view = $1 AND e.digest = sha256(convert_to(u.k, 'UTF8')) RETURNING e.key::text",
				 2, values, SPI_OK_DELETE_RETURNING);
	emit_take_tombstones(emit, cxt);
	values[1] = emit_array(emit->keys.texts, emit->keys.n);
	values[2] = emit_names(emit);
	emit_run("INSERT INTO streamext_internal.emitted (view, digest, key) "
			 "SELECT $1, sha256(convert_to(u.k, 'UTF8')), "
			 "(SELECT coalesce(jsonb_object_agg(x.name, x.value), '{}') "
			 "FROM ROWS FROM (unnest($3), jsonb_array_elements(u.k::jsonb)) AS x(name, value)) "
			 "FROM unnest($2) AS u(k) ON CONFLICT (view, digest) DO NOTHING",
			 3, values, SPI_OK_INSERT);
	streamext_own_end(scope);
}

/* ---------------------------------------------------------------- sending */

static char *
emit_list(List *columns, const char *prefix)
{
	StringInfoData list;
	ListCell	  *lc;

	initStringInfo(&list);
	foreach (lc, columns)
		appendStringInfo(&list, "%s%s%s", list.len > 0 ? ", " : "", prefix, quote_identifier(lfirst(lc)));
	return list.data;
}

/* As the owner, into the foreign table: its own INSERT. Without columns, as of a view without keys, rows of NULLs. */
static void
emit_insert(const Emit *emit, List *columns, Datum *objects, int n)
{
	char *target = streamext_relation_name(emit->target);
	Oid	  types[] = { TEXTARRAYOID };
	Datum values[] = { emit_array(objects, n) };
	char *list = columns != NIL ? psprintf(" (%s)", emit_list(columns, "")) : "";
	int	  rc;

	if (n == 0)
		return;
	rc = SPI_execute_with_args(
		psprintf(
			"INSERT INTO %s%s SELECT %s FROM pg_catalog.unnest($1) WITH ORDINALITY AS u(r, n) "
			"CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(NULL::%s, u.r::pg_catalog.jsonb) AS p ORDER BY u.n",
			target, list, columns != NIL ? emit_list(columns, "p.") : "p.*", target),
		1, types, values, NULL, false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "could not insert changes: %s", SPI_result_code_string(rc));
}

/* Tombstones first: two texts may be one key. */
static void
emit_send(const Emit *emit)
{
	Giving giving = { .view = emit->view, .keys = emit->names, .window = emit->window, .version = emit->version };
	IdentityScope scope = streamext_identity_enter(emit->owner);

	streamext_identity_set("TimeZone", "UTC");
	streamext_identity_set("DateStyle", "ISO, YMD");
	streamext_identity_set("IntervalStyle", "postgres");
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	PG_TRY();
	{
		giving.gone = true;
		streamext_giving_begin(&giving);
		emit_insert(emit, emit->names, emit->tombstones, emit->ntombstones);
		giving.gone = false;
		streamext_giving_begin(&giving);
		emit_insert(emit, emit->columns, emit->rows.texts, emit->rows.n);
	}
	PG_FINALLY();
	{
		streamext_giving_end();
	}
	PG_END_TRY();
	SPI_finish();
	streamext_identity_leave(scope);
}

char *
streamext_emit_changes(Oid view, const char *token, bool *under_way)
{
	ContinuousViewOptions options = streamext_view_options(view);
	Emit				  emit = { .view = view, .owner = streamext_relation_owner(view, true) };
	char				 *newest;

	if (!OidIsValid(emit.owner) || !options.continuous || options.changes_into == NULL)
		return NULL;
	emit.target = streamext_into_target(options.changes_into);
	if (*under_way)
	{
		int found = emit_under_way(&emit);

		if (found & EMIT_WAITS)
			return NULL;
		emit.refused = (found & EMIT_REFUSED) != 0;
		*under_way = emit.refused;
	}
	newest = emit_read(&emit, token);
	if (!emit.reset && emit.rows.n == 0 && emit.gone.n == 0)
		return newest;
	*under_way = true;
	emit_keep(&emit);
	if (emit.ntombstones > 0 || emit.rows.n > 0)
		emit_send(&emit);
	if (emit.refused)
		emit_forget_refused(&emit);
	return newest;
}

/* ---------------------------------------------------------------- CREATE VIEW */

/* A column that is the messages' key says which row is replaced: it must be what the view groups by. */
static void
emit_check_key(const StreamConfig *config, List *names)
{
	for (int i = 0; i < config->desc->natts; i++)
	{
		const StreamColumn *column = &config->columns[i];

		if (column->dropped || column->metadata != METADATA_KEY)
			continue;
		if (list_length(names) != 1 || strcmp(linitial(names), column->name) != 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("column \"%s\" of \"%s\" cannot be the key of the view's changes", column->name, config->name),
				 errdetail(
					 "The view does not group by this column alone, so messages of other rows would have the same key."),
				 errhint("Leave it out: the key is then a JSON object of all that the view groups by.")));
	}
}

void
streamext_emit_check(Oid view, Oid target)
{
	StreamConfig *config = get_rel_relkind(target) == RELKIND_FOREIGN_TABLE ? streamext_stream_config(target) : NULL;
	Relation	  rel;
	Query		 *query;
	const ChangesReader *reader;

	if (config == NULL || !config->connector->published || !streamext_transport(config->connector)->keyed)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("changes cannot be emitted to \"%s\"", get_rel_name(target)),
						errdetail("Its rows have no key by which a newer one takes the place of an older one."),
						errhint("Name a foreign table of a topic of Kafka, or leave streamext.emit out.")));
	reader = streamext_changes_open(view);
	emit_check_key(config, streamext_changes_keys(reader));
	rel = table_open(view, AccessShareLock);
	query = copyObject(get_view_query(rel));
	streamext_into_check(target, streamext_view_named_outputs(view, query->targetList));
	table_close(rel, NoLock);
}
