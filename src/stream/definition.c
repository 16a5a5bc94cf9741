/*-------------------------------------------------------------------------
 *
 * stream/definition.c
 *		The options of servers, user mappings, streams and columns, checked at DDL time; and a stream's
 *		definition as read from the catalogue.
 *
 * Tables of OptionSpec (base/option.h) say all of an option: the connector's, that of formats, and here that of every stream. The
 * validators, streamext_stream_config and all messages are driven by them. What options and columns mean together is checked
 * once the relation is there (stream/check.c).
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "foreign/foreign.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#include "base/content.h"
#include "decode/format.h"
#include "decode/value_options.h"
#include "stream/definition.h"

#define DEFINITION_MAX_BUFFER 1000000

static const char *const words_on_error[] = { "dead_letter", "skip", "stop", NULL };
static const char *const words_tombstones[] = { "ignore", "reject", NULL };

/* Of streams whose records are payloads. */
static const OptionSpec payload_options[] = {
	{ "tombstones", PLACE_TABLE, OPTION_ENUM, words_tombstones },
	{ NULL },
};

static const OptionSpec stream_options[] = {
	{ "event_time", PLACE_TABLE, OPTION_TEXT, .fixed = true },
	{ "watermark_delay", PLACE_TABLE, OPTION_INTERVAL, NULL, 0, STREAMEXT_OPTION_INTERVAL_MAX, 0 },
	{ "idle_timeout", PLACE_TABLE, OPTION_INTERVAL, NULL, 1000, STREAMEXT_OPTION_INTERVAL_MAX, 30 * USECS_PER_SEC },
	{ "close_idle", PLACE_TABLE, OPTION_INTERVAL, NULL, 1000, STREAMEXT_OPTION_INTERVAL_MAX, 0 },
	{ "max_ahead", PLACE_TABLE, OPTION_INTERVAL, NULL, 0, STREAMEXT_OPTION_INTERVAL_MAX, USECS_PER_HOUR },
	{ "buffer_size", PLACE_TABLE, OPTION_INT, NULL, 0, DEFINITION_MAX_BUFFER, 1000 },
	{ "on_error", PLACE_TABLE, OPTION_ENUM, words_on_error, .preset = ON_ERROR_DEAD_LETTER },
	{ NULL },
};

/* Its values are the connector's, see definition_metadata. */
static const OptionSpec metadata_option[] = {
	{ "metadata", PLACE_COLUMN, OPTION_TEXT },
	{ NULL },
};

/* ---- which options there are ---- */

void
streamext_stream_tables(const ConnectorOps *connector, const OptionSpec *tables[STREAMEXT_OPTION_TABLES])
{
	int n = 0;

	if (connector->options != NULL)
		tables[n++] = connector->options;
	if (connector->payloads)
	{
		tables[n++] = streamext_format_options;
		tables[n++] = payload_options;
		tables[n++] = streamext_value_options;
		for (const FormatOps *const *format = streamext_formats; *format != NULL; format++)
			if ((*format)->options != NULL)
				tables[n++] = (*format)->options;
	}
	tables[n++] = stream_options;
	if (connector->metadata != NULL)
		tables[n++] = metadata_option;
	tables[n] = NULL;
	Assert(n < STREAMEXT_OPTION_TABLES);
}

static const OptionSpec *
definition_find(const OptionSpec *const *tables, OptionPlace place, const char *name)
{
	const OptionSpec *spec = NULL;

	for (int i = 0; tables[i] != NULL && spec == NULL; i++)
		spec = streamext_option_find(tables[i], place, name);
	return spec;
}

/* Where the connector has an option of the name, as a sentence; empty: nowhere. */
static char *
definition_elsewhere(const OptionSpec *const *tables, const char *name)
{
	static const char *const statements[] = {
		[PLACE_SERVER] = "CREATE SERVER",
		[PLACE_MAPPING] = "CREATE USER MAPPING",
		[PLACE_TABLE] = "CREATE FOREIGN TABLE, behind the columns",
		[PLACE_COLUMN] = "a column",
	};

	for (int place = PLACE_SERVER; place <= PLACE_COLUMN; place++)
		if (definition_find(tables, place, name) != NULL)
			return psprintf("\"%s\" is an option of %s. ", name, statements[place]);
	return "";
}

static void
definition_unknown(const OptionSpec *const *tables, OptionPlace place, const char *name)
{
	StringInfoData valid;
	char		  *elsewhere = definition_elsewhere(tables, name);

	initStringInfo(&valid);
	for (int i = 0; tables[i] != NULL; i++)
		for (const OptionSpec *spec = tables[i]; spec->name != NULL; spec++)
			if (spec->place == place)
				appendStringInfo(&valid, "%s%s%s", valid.len > 0 ? ", " : "", spec->name, spec->named ? " NAME" : "");
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", name),
					valid.len > 0 ? errhint("%sValid options in this context are: %s.", elsewhere, valid.data)
								  : errhint("%sThere are no valid options in this context.", elsewhere)));
}

/* ---- values ---- */

static void
definition_refuse_metadata(const MetadataSpec *table, const char *value)
{
	List *names = NIL;

	for (const MetadataSpec *spec = table; spec->name != NULL; spec++)
		names = lappend(names, spec->limit > 0 ? psprintf("%s N (N from 1 to %d)", spec->name, spec->limit)
							   : spec->named   ? psprintf("%s NAME", spec->name)
											   : pstrdup(spec->name));
	streamext_option_not_of(metadata_option, value, names);
}

/* A word of the connector's; `word N` sets *number, others set it 0; the name of `word NAME` is what follows. Raises for anything else. */
static const MetadataSpec *
definition_metadata(const MetadataSpec *table, const char *value, int *number)
{
	*number = 0;
	for (const MetadataSpec *spec = table; spec->name != NULL; spec++)
	{
		Size		size = strlen(spec->name);
		const char *digits = value + size + 1;

		if (spec->named && strncmp(value, spec->name, size) == 0 && value[size] == ' ' && value[size + 1] != '\0')
			return spec;
		if (spec->limit == 0 && !spec->named && strcmp(value, spec->name) == 0)
			return spec;
		if (spec->limit == 0 || strncmp(value, spec->name, size) != 0 || value[size] != ' ')
			continue;
		if (strlen(digits) >= 1 && strlen(digits) <= 3 && strspn(digits, "0123456789") == strlen(digits))
			*number = atoi(digits);
		if (*number >= 1 && *number <= spec->limit)
			return spec;
	}
	definition_refuse_metadata(table, value);
	return NULL; /* not reached */
}

/* ---- validators ---- */

/* What the options of one place mean together. */
static void
definition_check_together(const ConnectorOps *connector, const OptionSpec *const *tables, OptionPlace place,
						  List *options)
{
	for (int i = 0; tables[i] != NULL; i++)
		for (const OptionSpec *spec = tables[i]; spec->name != NULL; spec++)
			if (spec->required && spec->place == place && streamext_option(options, spec->name) == NULL)
				streamext_option_missing(spec->name, NULL);
	if (connector->check_options != NULL)
		connector->check_options(place, options);
	if (place == PLACE_TABLE && connector->payloads)
		streamext_format_check_options(connector, options);
	streamext_option_conflict(options, "path", "metadata");
	streamext_option_conflict(options, "time_format", "metadata");
	streamext_option_conflict(options, "time_zone", "metadata");
}

static OptionPlace
definition_place(Oid catalog)
{
	return catalog == ForeignServerRelationId  ? PLACE_SERVER
		   : catalog == UserMappingRelationId  ? PLACE_MAPPING
		   : catalog == ForeignTableRelationId ? PLACE_TABLE
		   : catalog == AttributeRelationId	   ? PLACE_COLUMN
											   : PLACE_WRAPPER;
}

static void
definition_check_options(const ConnectorOps *connector, OptionPlace place, List *options)
{
	const OptionSpec *tables[STREAMEXT_OPTION_TABLES];
	ListCell		 *cell;

	streamext_stream_tables(connector, tables);
	foreach (cell, options)
	{
		DefElem			 *def = lfirst_node(DefElem, cell);
		const OptionSpec *spec = definition_find(tables, place, def->defname);
		OptionSpec		  whole;
		int				  number;

		if (spec == NULL)
			definition_unknown(tables, place, def->defname);
		whole = *spec;
		whole.name = def->defname;
		streamext_option_check(&whole, defGetString(def));
		if (spec == metadata_option)
			(void) definition_metadata(connector->metadata, defGetString(def), &number);
	}
	definition_check_together(connector, tables, place, options);
}

static Datum
definition_validate(FunctionCallInfo fcinfo, const ConnectorOps *connector)
{
	definition_check_options(connector, definition_place(PG_GETARG_OID(1)), untransformRelOptions(PG_GETARG_DATUM(0)));
	PG_RETURN_VOID();
}

/* Of each connector streamext_<name>_validator, the validator of its foreign data wrapper. */
#define KIND(kind)                                                   \
	PG_FUNCTION_INFO_V1(streamext_##kind##_validator);               \
	Datum streamext_##kind##_validator(PG_FUNCTION_ARGS)             \
	{                                                                \
		return definition_validate(fcinfo, &streamext_##kind##_ops); \
	}
#include "source/kinds.h"
#undef KIND

/* ---- a stream's definition ---- */

/* True if the function is this library's C function of that name, in whatever schema and under whatever SQL name. */
static bool
definition_is_function(Oid funcid, const char *symbol)
{
	HeapTuple tuple;
	bool	  isnull;
	bool	  result = false;
	Datum	  datum;

	if (!OidIsValid(funcid))
		return false;
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(funcid));
	if (!HeapTupleIsValid(tuple))
		return false;
	if (((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId)
	{
		datum = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
		result = !isnull && strcmp(TextDatumGetCString(datum), symbol) == 0;
	}
	ReleaseSysCache(tuple);
	return result;
}

const ConnectorOps *
streamext_server_kind(Oid serverid)
{
	ForeignServer	   *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	ForeignDataWrapper *wrapper;

	if (server == NULL)
		return NULL;
	wrapper = GetForeignDataWrapperExtended(server->fdwid, FDW_MISSING_OK);
	if (wrapper == NULL || !definition_is_function(wrapper->fdwhandler, "streamext_fdw_handler"))
		return NULL;
	for (const ConnectorOps *const *ops = streamext_connectors; *ops != NULL; ops++)
	{
		char symbol[NAMEDATALEN];

		snprintf(symbol, sizeof(symbol), "streamext_%s_validator", (*ops)->name);
		if (definition_is_function(wrapper->fdwvalidator, symbol))
			return *ops;
	}
	return NULL;
}

/* InvalidOid if it is not a foreign table, or gone. */
static Oid
definition_table_server(Oid relid)
{
	HeapTuple tuple = SearchSysCache1(FOREIGNTABLEREL, ObjectIdGetDatum(relid));
	Oid		  serverid = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		serverid = ((Form_pg_foreign_table) GETSTRUCT(tuple))->ftserver;
		ReleaseSysCache(tuple);
	}
	return serverid;
}

const ConnectorOps *
streamext_stream_kind(Oid relid)
{
	Oid serverid = definition_table_server(relid);

	return OidIsValid(serverid) ? streamext_server_kind(serverid) : NULL;
}

/* Options of the owner's user mapping, else PUBLIC's, else none. */
static List *
definition_user_options(Oid owner, Oid serverid)
{
	HeapTuple tuple;
	List	 *options = NIL;
	bool	  isnull;
	Datum	  datum;

	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(owner), ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(serverid));
	if (!HeapTupleIsValid(tuple))
		return NIL;
	datum = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		options = untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return options;
}

/* The value of an int, interval or enum option of a stream, or its default; 0 where it has no such option. */
static int64
definition_number(const StreamConfig *config, const char *name)
{
	const OptionSpec *tables[STREAMEXT_OPTION_TABLES];
	int64			  number = 0;

	streamext_stream_tables(config->connector, tables);
	for (int i = 0; tables[i] != NULL && number == 0; i++)
		number = streamext_option_number(tables[i], PLACE_TABLE, config->table_options, name);
	return number;
}

static void
definition_read_column(StreamConfig *config, const char *live_name, Form_pg_attribute att)
{
	StreamColumn *column = &config->columns[att->attnum - 1];
	List		 *options;
	const char	 *metadata;
	const char	 *path;

	column->attnum = att->attnum;
	column->dropped = att->attisdropped;
	column->name = pstrdup(live_name);
	column->type = att->atttypid;
	column->typmod = att->atttypmod;
	column->notnull = att->attnotnull;
	column->metadata = METADATA_NONE;
	if (column->dropped)
		return;
	options = GetForeignColumnOptions(config->relid, att->attnum);
	metadata = streamext_option(options, "metadata");
	path = streamext_option(options, "path");
	if (metadata != NULL && config->connector->metadata != NULL)
	{
		column->metadata_spec = definition_metadata(config->connector->metadata, metadata, &column->metadata_number);
		column->metadata = column->metadata_spec->kind;
		if (column->metadata_spec->named)
			column->metadata_name = pstrdup(metadata + strlen(column->metadata_spec->name) + 1);
	}
	if (path != NULL)
		column->path = pstrdup(path);
	if (config->connector->payloads)
		streamext_value_options_read(column, options);
}

static void
definition_read_columns(StreamConfig *config, Relation rel)
{
	const char *event_time = streamext_option(config->table_options, "event_time");

	config->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	config->columns = palloc0(sizeof(StreamColumn) * Max(config->desc->natts, 1));
	for (int i = 0; i < config->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(config->desc, i);

		definition_read_column(config, NameStr(att->attname), att);
		if (att->attisdropped)
			continue;
		if (event_time != NULL && strcmp(NameStr(att->attname), event_time) == 0)
			config->event_time = att->attnum;
	}
}

/* What the stream's options say, besides its columns' and the connector's. */
static void
definition_read_options(StreamConfig *config)
{
	config->format = config->connector->payloads ? streamext_format(config->connector, config->table_options)
												 : &streamext_row_format;
	config->time.watermark_delay = definition_number(config, "watermark_delay");
	config->time.idle_timeout = definition_number(config, "idle_timeout");
	config->time.close_idle = definition_number(config, "close_idle");
	config->time.max_ahead = definition_number(config, "max_ahead");
	config->buffer_size = definition_number(config, "buffer_size");
	config->on_error = (OnError) definition_number(config, "on_error");
	config->tombstones_rejected = !config->connector->payloads || definition_number(config, "tombstones") != 0;
	config->fields_nocase = definition_number(config, "fields") != 0;
	config->trims = definition_number(config, "trim") != 0;
	config->header = config->format->is_header != NULL && definition_number(config, "header") != 0;
	config->datestyle = streamext_option(config->table_options, "datestyle");
	config->workers = Max(definition_number(config, "workers"), 1);
	config->source.start = START_EARLIEST;
}

StreamConfig *(*streamext_view_config)(Oid relid) = NULL;

StreamConfig *
streamext_stream_config(Oid relid)
{
	const ConnectorOps *kind;
	StreamConfig	   *config;
	ForeignTable	   *table;
	Relation			rel;

	if (get_rel_relkind(relid) == RELKIND_VIEW)
		return streamext_view_config(relid);
	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
		return NULL;
	kind = rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE ? streamext_stream_kind(relid) : NULL;
	if (kind == NULL)
	{
		relation_close(rel, AccessShareLock);
		return NULL;
	}
	table = GetForeignTable(relid);

	config = palloc0(sizeof(StreamConfig));
	config->relid = relid;
	config->owner = rel->rd_rel->relowner;
	config->serverid = table->serverid;
	config->schema = get_namespace_name(RelationGetNamespace(rel));
	config->name = pstrdup(RelationGetRelationName(rel));
	config->connector = kind;
	config->server_options = GetForeignServer(table->serverid)->options;
	config->table_options = table->options;
	config->user_options = definition_user_options(config->owner, table->serverid);

	definition_read_options(config);
	definition_read_columns(config, rel);
	if (kind->configure != NULL)
		kind->configure(config);

	/* kept to the end of the transaction: who looks at views next has locked in the order of DROP ... CASCADE */
	relation_close(rel, NoLock);
	return config;
}

StreamConfig *
streamext_topic_config(Oid serverid, Oid role, List *table_options)
{
	const ConnectorOps *kind = streamext_server_kind(serverid);
	StreamConfig	   *config;

	if (kind == NULL)
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("server \"%s\" has no streams", GetForeignServer(serverid)->servername),
						errdetail("Its wrapper is not one of streamext's.")));
	definition_check_options(kind, PLACE_TABLE, table_options);
	config = palloc0(sizeof(StreamConfig));
	config->owner = role;
	config->serverid = serverid;
	config->schema = config->name = "";
	config->connector = kind;
	config->server_options = GetForeignServer(serverid)->options;
	config->table_options = table_options;
	config->user_options = definition_user_options(role, serverid);
	definition_read_options(config);
	if (kind->configure != NULL)
		kind->configure(config);
	return config;
}

const char *
streamext_stream_topic(const StreamConfig *config, const char *topic)
{
	return config->from.tag == NULL ? topic : psprintf("%s%s", topic == NULL ? "" : topic, config->from.tag);
}

uint64
streamext_worker_source(const StreamConfig *config)
{
	StringInfoData s;
	uint64		   number;
	ListCell	  *lc;

	initStringInfo(&s);
	appendStringInfo(&s, "%u %d %d %d " INT64_FORMAT, config->serverid, config->connector->number,
					 config->connector->shards_keep_source ? 1 : config->workers, config->source.start,
					 config->source.start == START_TIMESTAMP ? config->source.start_time : 0);
	foreach (lc, config->source.topics)
		appendStringInfo(&s, " %s", (char *) lfirst(lc));
	if (OidIsValid(config->from.inner))
		appendStringInfo(&s, " view %u " UINT64_FORMAT, config->from.inner, config->from.inner_number);
	if (OidIsValid(config->from.origin))
		appendStringInfo(&s, " of %u", config->from.origin);
	if (config->source.partition_step > 1)
		appendStringInfo(&s, " %d/%d", config->source.partition_first, config->source.partition_step);
	number = streamext_content_number(config->relid, s.data, s.len, NULL,
									  hash_bytes_extended((unsigned char *) s.data, s.len, 0));
	pfree(s.data);
	return number;
}
