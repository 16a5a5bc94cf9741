/*
 * decode/format.c
 *		The one table of formats, and what their options mean together.
 */
#include "base/streamext.h"

#include "decode/format.h"
#include "base/path.h"

const FormatOps *const streamext_formats[] = {
	&streamext_json_format, &streamext_csv_format,	 &streamext_text_format,
	&streamext_raw_format,	&streamext_flume_format, NULL,
};

static const FormatOps *
format_find(const char *name)
{
	for (const FormatOps *const *format = streamext_formats; *format != NULL; format++)
		if (strcmp((*format)->name, name) == 0)
			return *format;
	return NULL;
}

static void
format_check_name(const OptionSpec *spec, const char *value)
{
	List *names = NIL;

	if (format_find(value) != NULL)
		return;
	for (const FormatOps *const *format = streamext_formats; *format != NULL; format++)
		names = lappend(names, unconstify(char *, (*format)->name));
	streamext_option_not_of(spec, value, names);
}

/* The option of a column is checked before its table's format is known; FormatOps.check_path looks again. */
static void
format_check_path(const OptionSpec *spec, const char *value)
{
	char	  *key = palloc(strlen(value) + 1);
	PathReader reader;
	PathStep   step;

	streamext_path_begin(&reader, value);
	while ((step = streamext_path_next(&reader, key)) < PATH_END)
		;
	if (step == PATH_FAULT)
		streamext_option_invalid(spec, value, "%s " STREAMEXT_PATH_HINT, reader.fault);
	pfree(key);
}

/* By DateOrder's numbers. */
const char *const streamext_datestyles[] = { "ISO, YMD", "ISO, DMY", "ISO, MDY", NULL };

static const char *const words_fields[] = { "exact", "nocase", NULL };
static const char *const words_trim[] = { "none", "payload", NULL };

const OptionSpec streamext_format_options[] = {
	{ "format", PLACE_TABLE, OPTION_TEXT, .check = format_check_name },
	{ "fields", PLACE_TABLE, OPTION_ENUM, words_fields },
	{ "trim", PLACE_TABLE, OPTION_ENUM, words_trim },
	{ "datestyle", PLACE_TABLE, OPTION_ENUM, streamext_datestyles },
	{ "path", PLACE_COLUMN, OPTION_TEXT, .check = format_check_path },
	{ NULL },
};

static const FormatOps *
format_named(List *options, const char *option)
{
	const char		*name = streamext_option(options, option);
	const FormatOps *format = name == NULL ? streamext_formats[0] : format_find(name);

	if (format == NULL)
		elog(ERROR, "unknown format \"%s\"", name);
	return format;
}

const FormatOps *
streamext_format(const ConnectorOps *connector, List *options)
{
	const FormatOps *format = format_named(options, connector->bodies ? "body_format" : "format");

	return format->around != NULL ? format->around(options) : format;
}

/* Whether the option is the format's, or the body's in it. */
static bool
format_has(const FormatOps *format, const OptionSpec *spec)
{
	return streamext_option_find(format->options, spec->place, spec->name) != NULL ||
		   (format->body != NULL && format_has(format->body, spec));
}

/* Options of other formats that this one does not have too. */
static void
format_check_others(const FormatOps *chosen, bool bodies, List *options)
{
	for (const FormatOps *const *format = streamext_formats; *format != NULL; format++)
		for (const OptionSpec *spec = (*format)->options; spec != NULL && spec->name != NULL; spec++)
			if (streamext_option(options, spec->name) != NULL && !format_has(chosen, spec) &&
				!(bodies && (*format)->around != NULL))
				ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
								errmsg("option \"%s\" needs %s %s", spec->name, bodies ? "body_format" : "format",
									   (*format)->name)));
}

void
streamext_format_check_options(const ConnectorOps *connector, List *options)
{
	const FormatOps *format = streamext_format(connector, options);

	if (connector->bodies && streamext_option(options, "format") != NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						errmsg("streams of %s have no option \"format\"", connector->name),
						errhint("Say by the option body_format what the events' bodies are.")));
	format_check_others(format, connector->bodies, options);
	if (streamext_option(options, "fields") != NULL && !format->names_fields)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("option \"fields\" needs format json")));
	for (; format != NULL; format = format->body)
		if (format->check_options != NULL)
			format->check_options(options);
}
