/*
 * sql/import.c
 *		IMPORT FOREIGN SCHEMA topic FROM SERVER … INTO …: a stream for a topic, its columns guessed from the newest records.
 *
 * What it says is what CREATE FOREIGN TABLE would: the statement's text goes to PostgreSQL, whose own checks and ours follow.
 */
#include "base/streamext.h"

#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "nodes/parsenodes.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "base/option.h"
#include "decode/format.h"
#include "sql/ask.h"
#include "sql/guess.h"

#define IMPORT_RECORDS 100 /* looked at, unless said otherwise */

static const OptionSpec import_options[] = {
	{ "table", PLACE_TABLE, OPTION_TEXT },
	{ "sample", PLACE_TABLE, OPTION_INT, NULL, 1, STREAMEXT_SAMPLE_MAX, IMPORT_RECORDS },
	{ "wait", PLACE_TABLE, OPTION_INTERVAL, NULL, 0, STREAMEXT_OPTION_INTERVAL_MAX, STREAMEXT_ASK_WAIT },
	{ NULL },
};

/* Ours; the others are the stream's, which CREATE FOREIGN TABLE looks at. */
static void
import_check_options(List *options)
{
	ListCell *cell;

	foreach (cell, options)
	{
		DefElem			 *def = lfirst_node(DefElem, cell);
		const OptionSpec *spec = streamext_option_find(import_options, PLACE_TABLE, def->defname);

		if (spec != NULL)
			streamext_option_check(spec, defGetString(def));
	}
}

/* The one that LIMIT TO or the option table names, else the topic's. */
static const char *
import_table(const ImportForeignSchemaStmt *stmt)
{
	const char *name = streamext_option(stmt->options, "table");

	if (name == NULL && stmt->list_type == FDW_IMPORT_SCHEMA_LIMIT_TO && list_length(stmt->table_list) == 1)
		name = linitial_node(RangeVar, stmt->table_list)->relname;
	if (name == NULL)
		name = stmt->remote_schema;
	if (strlen(name) >= NAMEDATALEN)
		ereport(ERROR, (errcode(ERRCODE_NAME_TOO_LONG), errmsg("the topic's name is too long for a table"),
						errhint("Give the table a name: LIMIT TO (name).")));
	return name;
}

static void
import_put_option(StringInfo options, const char *name, const char *value)
{
	appendStringInfo(options, "%s%s %s", options->len > 0 ? ", " : "", quote_identifier(name),
					 quote_literal_cstr(value));
}

static void
import_put_column(StringInfo sql, const GuessedColumn *column)
{
	StringInfoData options;

	initStringInfo(&options);
	if (column->path != NULL)
		import_put_option(&options, "path", column->path);
	if (column->time_format != NULL)
		import_put_option(&options, "time_format", column->time_format);
	appendStringInfo(sql, "%s %s", quote_identifier(column->name), format_type_be(column->type));
	if (options.len > 0)
		appendStringInfo(sql, " OPTIONS (%s)", options.data);
}

/* A filter's messages are of several topics. */
static void
import_put_topic(StringInfo sql, const Guess *guess, const StreamConfig *config)
{
	const char *name = "topic";
	ListCell   *cell;

	if (strpbrk(linitial(config->source.topics), "+#") == NULL)
		return;
	foreach (cell, guess->columns)
		if (strcmp(((GuessedColumn *) lfirst(cell))->name, name) == 0)
			name = "mqtt_topic";
	appendStringInfo(sql, ", %s text OPTIONS (metadata 'topic')", name);
}

static char *
import_statement(const ImportForeignSchemaStmt *stmt, const char *server, const Guess *guess,
				 const StreamConfig *config)
{
	StringInfoData sql, options;
	ListCell	  *cell;

	initStringInfo(&sql);
	initStringInfo(&options);
	appendStringInfo(&sql, "CREATE FOREIGN TABLE %s (", quote_identifier(import_table(stmt)));
	foreach (cell, guess->columns)
	{
		if (foreach_current_index(cell) > 0)
			appendStringInfoString(&sql, ", ");
		import_put_column(&sql, lfirst(cell));
	}
	import_put_topic(&sql, guess, config);
	import_put_option(&options, "topic", stmt->remote_schema);
	if (streamext_option(stmt->options, "format") == NULL)
		import_put_option(&options, "format", guess->format->name);
	if (guess->event_time != NULL && streamext_option(stmt->options, "event_time") == NULL)
		import_put_option(&options, "event_time", guess->event_time);
	foreach (cell, stmt->options)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (streamext_option_find(import_options, PLACE_TABLE, def->defname) == NULL)
			import_put_option(&options, def->defname, defGetString(def));
	}
	appendStringInfo(&sql, ") SERVER %s OPTIONS (%s)", quote_identifier(server), options.data);
	return sql.data;
}

static void
import_tell(const Guess *guess, const char *table)
{
	if (guess->strange > 0)
		ereport(NOTICE, (errmsg("%d of the %d records looked at for stream \"%s\" are no JSON objects", guess->strange,
								guess->records, table),
						 errhint("They will be rejected; streamext.peek shows them.")));
	if (guess->event_time == NULL)
		ereport(
			NOTICE,
			(errmsg("no column of stream \"%s\" is its event time", table),
			 errdetail("Windows will be by the broker's or arrival time."),
			 errhint(
				 "If a column says when it happened, name it: ALTER FOREIGN TABLE ... OPTIONS (ADD event_time '...').")));
}

static void
import_refuse(const char *topic, bool kept)
{
	const char *hint = "Send one, or say by CREATE FOREIGN TABLE what they will be.";

	if (!kept)
		hint = "None is retained, and none has come meanwhile: send one while it waits, wait longer by "
			   "OPTIONS (wait '1 min'), or say by CREATE FOREIGN TABLE what they will be.";
	ereport(ERROR, (errcode(ERRCODE_NO_DATA), errmsg("no record of topic \"%s\" to guess columns from", topic),
					errhint("%s", hint)));
}

List *
streamext_import(ImportForeignSchemaStmt *stmt, Oid serverid)
{
	const char	 *table = import_table(stmt);
	StreamConfig *config;
	SourceSample *sample;
	Guess		 *guess;

	import_check_options(stmt->options);
	sample = streamext_ask_topic(serverid, stmt->remote_schema,
								 streamext_option_number(import_options, PLACE_TABLE, stmt->options, "sample"),
								 streamext_option_number(import_options, PLACE_TABLE, stmt->options, "wait"), &config);
	guess = streamext_guess(sample->records, sample->nrecords);
	if (guess == NULL)
		import_refuse(stmt->remote_schema, config->connector->replayable);
	import_tell(guess, table);
	return list_make1(import_statement(stmt, GetForeignServer(serverid)->servername, guess, config));
}
