/*
 * stream/check.c
 *		What options and columns of a stream mean together: checked by the DDL hook once the relation is there.
 *
 * pg_dump makes a foreign table first and gives its columns their options afterwards, by one ALTER each, so what is between
 * must pass: a check here may not ask for options of several columns at once.
 */
#include "base/streamext.h"

#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "decode/format.h"
#include "decode/value_options.h"
#include "stream/definition.h"

void
streamext_stream_refuse_inheritance(const char *name)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("stream \"%s\" cannot be a partition or take part in inheritance", name)));
}

static void
stream_check_relation(const StreamConfig *config)
{
	if (GetDatabaseEncoding() != PG_UTF8)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("streams need a database with encoding UTF8"),
						errdetail("The encoding of this database is %s.", GetDatabaseEncodingName())));
	if (has_superclass(config->relid) || find_inheritance_children(config->relid, NoLock) != NIL)
		streamext_stream_refuse_inheritance(config->name);
}

/* Where the payload is one column's. */
static void
stream_check_payload(const StreamConfig *config)
{
	Oid	 type = config->format->column_type;
	int	 payloads = 0;
	bool typed = true;

	if (!config->format->one_column)
		return;
	/* several pass: pg_dump makes the table first and says afterwards, by one ALTER each, which columns are metadata */
	for (int i = 0; i < config->desc->natts; i++)
		if (!config->columns[i].dropped && config->columns[i].metadata == METADATA_NONE)
		{
			payloads++;
			typed = !OidIsValid(type) || config->columns[i].type == type;
		}
	if (payloads == 0 || (payloads == 1 && !typed))
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
			 errmsg("a stream with format %s must have one %s%scolumn without the option metadata",
					config->format->name, OidIsValid(type) ? format_type_be(type) : "", OidIsValid(type) ? " " : ""),
			 errdetail("That column takes the payload."),
			 errhint("Of JSON payloads format json takes the whole into a column with the option path '$'.")));
}

static void
stream_check_event_time(const StreamConfig *config)
{
	const char		   *name = streamext_option(config->table_options, "event_time");
	const StreamColumn *column;

	if (name == NULL)
		return;
	if (config->event_time == 0)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
						errmsg("column \"%s\" of option \"event_time\" does not exist", name),
						errhint("Name a column of the stream with the option, or drop the option.")));
	column = &config->columns[config->event_time - 1];
	if (column->type != TIMESTAMPTZOID)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of option \"event_time\" has type %s", name, format_type_be(column->type)),
				 errhint("The event time must be of type timestamp with time zone.")));
	if (column->metadata != METADATA_NONE && column->metadata != METADATA_TIMESTAMP)
		ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
						errmsg("column \"%s\" of option \"event_time\" is metadata other than timestamp", name)));
}

/* The valid types of the column's metadata, for the message; *good tells about its own. */
static const char *
stream_metadata_types(const StreamColumn *column, bool *good)
{
	Oid type = column->type;

	switch (column->metadata)
	{
		case METADATA_OWN:
			if (!column->metadata_spec->text)
				break;
			/* FALLTHROUGH */
		case METADATA_TOPIC:
			*good = type == TEXTOID;
			return format_type_be(TEXTOID);
		case METADATA_PARTITION:
			*good = type == INT4OID || type == INT8OID;
			return "integer or bigint";
		case METADATA_OFFSET:
			*good = type == INT8OID;
			return "bigint";
		case METADATA_KEY:
			*good = type == TEXTOID || type == BYTEAOID;
			return "text or bytea";
		case METADATA_TIMESTAMP:
			*good = type == TIMESTAMPTZOID;
			return "timestamp with time zone";
		case METADATA_HEADERS:
			*good = type == JSONBOID || type == JSONOID || type == TEXTOID;
			return "jsonb, json or text";
		case METADATA_QOS:
			*good = type == INT4OID || type == INT2OID;
			return "integer or smallint";
		case METADATA_RETAINED:
			*good = type == BOOLOID;
			return "boolean";
		case METADATA_HEADER:
		case METADATA_NONE:
			break;
	}
	*good = true;
	return "";
}

/* Their names, for the message. */
static const char *
stream_formats_with_paths(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (const FormatOps *const *format = streamext_formats; *format != NULL; format++)
		if ((*format)->paths)
			appendStringInfo(&names, "%s%s", names.len > 0 ? " or " : "", (*format)->name);
	return names.data;
}

static const char *
stream_envelopes(void)
{
	StringInfoData names;

	initStringInfo(&names);
	for (const FormatOps *const *format = streamext_formats; *format != NULL; format++)
		if ((*format)->header != NULL)
			appendStringInfo(&names, "%s%s", names.len > 0 ? " or " : "", (*format)->name);
	return names.data;
}

static void
stream_check_column(const StreamConfig *config, const StreamColumn *column)
{
	bool		good;
	const char *types;

	if (TupleDescAttr(config->desc, column->attnum - 1)->attgenerated != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("generated columns are not supported in streams"),
				 errdetail("Column \"%s\" of stream \"%s\" is generated.", column->name, config->name),
				 errhint("Compute the value in a view.")));
	types = stream_metadata_types(column, &good);
	if (!good)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("column \"%s\" with metadata %s has type %s", column->name, column->metadata_spec->name,
							   format_type_be(column->type)),
						errhint("The type must be %s.", types)));
	if (column->metadata == METADATA_HEADER && config->format->header == NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						errmsg("metadata %s %s of column \"%s\" needs a format with headers",
							   column->metadata_spec->name, column->metadata_name, column->name),
						errhint("Set the option format to %s, or take metadata headers.", stream_envelopes())));
	streamext_value_options_check(column);
	if (column->path == NULL)
		return;
	if (!config->format->paths)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("option \"path\" of column \"%s\" needs format %s",
																  column->name, stream_formats_with_paths())));
	if (config->format->check_path != NULL)
		config->format->check_path(column);
}

void
streamext_stream_check(Oid relid)
{
	StreamConfig *config = streamext_stream_config(relid);

	if (config == NULL)
		return;
	stream_check_relation(config);
	stream_check_payload(config);
	if (config->connector->check != NULL)
		config->connector->check(config);
	stream_check_event_time(config);
	for (int i = 0; i < config->desc->natts; i++)
		if (!config->columns[i].dropped)
			stream_check_column(config, &config->columns[i]);
}
