/*
 * decode/value_options.c
 *		Options of columns that say how their values are written. What the functions promise is in decode/value_options.h.
 */
#include "base/streamext.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "pgtime.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/formatting.h"
#include "utils/timestamp.h"

#include "decode/value_options.h"

#define TIME_FORMAT_WORDS "iso, unix, unix_ms, unix_us, unix_ns"

static const char *const words_bad_value[] = { "reject", "null", NULL };
static const char *const words_encoding[] = { "base64", "hex", NULL };
static const char *const words_time_format[] = { "iso", "unix", "unix_ms", "unix_us", "unix_ns", NULL };

static void value_check_time_format(const OptionSpec *spec, const char *value);
static void value_check_time_zone(const OptionSpec *spec, const char *value);

const OptionSpec streamext_value_options[] = {
	{ "time_format", PLACE_COLUMN, OPTION_TEXT, .check = value_check_time_format },
	{ "time_zone", PLACE_COLUMN, OPTION_TEXT, .check = value_check_time_zone },
	{ "on_bad_value", PLACE_COLUMN, OPTION_ENUM, words_bad_value },
	{ "encoding", PLACE_COLUMN, OPTION_ENUM, words_encoding },
	{ NULL },
};

/* ---- time_format ---- */

static TimeFormat
value_time_format(const char *value)
{
	for (int i = 0; value != NULL && words_time_format[i] != NULL; i++)
		if (strcmp(words_time_format[i], value) == 0)
			return (TimeFormat) i;
	return value == NULL ? TIME_FORMAT_ISO : TIME_FORMAT_PATTERN;
}

int
streamext_time_format_digits(TimeFormat format)
{
	switch (format)
	{
		case TIME_FORMAT_UNIX:
			return 0;
		case TIME_FORMAT_UNIX_MS:
			return 3;
		case TIME_FORMAT_UNIX_US:
			return 6;
		case TIME_FORMAT_UNIX_NS:
			return 9;
		case TIME_FORMAT_ISO:
		case TIME_FORMAT_PATTERN:
			break;
	}
	return -1;
}

static char *
value_formatted(text *pattern, int year, int month, int day)
{
	Timestamp moment = (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;

	return TextDatumGetCString(DirectFunctionCall2Coll(timestamp_to_char, DEFAULT_COLLATION_OID,
													   TimestampGetDatum(moment), PointerGetDatum(pattern)));
}

/* A pattern tells years (of two digits at least), months and days apart, else it is a word meant for another thing. */
static void
value_check_time_format(const OptionSpec *spec, const char *value)
{
	text *pattern = cstring_to_text(value);
	char *date;

	if (value_time_format(value) != TIME_FORMAT_PATTERN)
		return;
	date = value_formatted(pattern, 2001, 2, 3);
	if (strcmp(date, value_formatted(pattern, 2011, 2, 3)) == 0 ||
		strcmp(date, value_formatted(pattern, 2001, 4, 3)) == 0 ||
		strcmp(date, value_formatted(pattern, 2001, 2, 5)) == 0)
		streamext_option_invalid(
			spec, value,
			"Valid values are: " TIME_FORMAT_WORDS
			", and patterns of to_timestamp that hold year, month and day, as \"DD.MM.YYYY HH24:MI:SS\".");
	/* some fields can be written and not be read */
	(void) DirectFunctionCall2Coll(to_timestamp, DEFAULT_COLLATION_OID, PointerGetDatum(cstring_to_text(date)),
								   PointerGetDatum(pattern));
}

/* ---- time_zone ---- */

static pg_tz *
value_time_zone(const char *name)
{
	pg_tz *zone = name != NULL ? pg_tzset(name) : NULL;

	return zone != NULL && pg_tz_acceptable(zone) ? zone : NULL;
}

static void
value_check_time_zone(const OptionSpec *spec, const char *value)
{
	if (value_time_zone(value) == NULL)
		streamext_option_invalid(spec, value,
								 "The value must be a time zone that pg_timezone_names has, as \"Europe/Berlin\".");
}

/* ---- all of them ---- */

void
streamext_value_options_read(StreamColumn *column, List *options)
{
	const char *encoding = streamext_option(options, "encoding");
	const char *zone = streamext_option(options, "time_zone");
	const char *format = streamext_option(options, "time_format");

	column->time_format = value_time_format(format);
	column->time_format_given = format != NULL;
	column->time_pattern = column->time_format == TIME_FORMAT_PATTERN ? pstrdup(format) : NULL;
	column->time_zone = zone != NULL ? pstrdup(zone) : NULL;
	column->zone = value_time_zone(zone);
	column->bad_is_null = streamext_option_number(streamext_value_options, PLACE_COLUMN, options, "on_bad_value") != 0;
	column->encoding = encoding != NULL ? pstrdup(encoding) : NULL;
}

void
streamext_value_options_append(StringInfo s, const StreamColumn *column)
{
	appendStringInfo(s, "%d %d %d %s|%s|%s", column->time_format, column->time_format_given, column->bad_is_null,
					 column->time_pattern != NULL ? column->time_pattern : "",
					 column->time_zone != NULL ? column->time_zone : "",
					 column->encoding != NULL ? column->encoding : "");
}

static void
value_refuse_type(const StreamColumn *column, const char *option, const char *types)
{
	ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
					errmsg("option \"%s\" is not for column \"%s\" of type %s", option, column->name,
						   format_type_be(column->type)),
					errhint("The type must be %s.", types)));
}

void
streamext_value_options_check(const StreamColumn *column)
{
	bool timed = column->type == TIMESTAMPTZOID || column->type == TIMESTAMPOID || column->type == DATEOID;

	if (!timed && (column->time_format_given || column->time_zone != NULL))
		value_refuse_type(column, column->time_format_given ? "time_format" : "time_zone",
						  "timestamp with time zone, timestamp without time zone or date");
	if (column->encoding != NULL && column->type != BYTEAOID)
		value_refuse_type(column, "encoding", "bytea");
}
