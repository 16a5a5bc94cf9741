/*
 * base/option.c
 *		Options: looked up in a table, parsed, refused. What the functions promise is in base/option.h.
 */
#include "base/streamext.h"

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "common/int.h"
#include "miscadmin.h"
#include "port.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "base/moment.h"
#include "base/option.h"

const char *
streamext_option(List *options, const char *name)
{
	ListCell *cell;

	foreach (cell, options)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return NULL;
}

const OptionSpec *
streamext_option_find(const OptionSpec *table, OptionPlace place, const char *name)
{
	for (const OptionSpec *spec = table; spec != NULL && spec->name != NULL; spec++)
	{
		Size size = strlen(spec->name);

		if (spec->place != place || strncmp(spec->name, name, size) != 0)
			continue;
		if (spec->named ? name[size] == ' ' && name[size + 1] != '\0' : name[size] == '\0')
			return spec;
	}
	return NULL;
}

/* ---- refusals ---- */

void
streamext_option_invalid(const OptionSpec *spec, const char *value, const char *hint, ...)
{
	char	text[1024];
	va_list args;

	va_start(args, hint);
	vsnprintf(text, sizeof(text), hint, args);
	va_end(args);
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
					spec->secret ? errmsg("invalid value for option \"%s\"", spec->name)
								 : errmsg("invalid value for option \"%s\": \"%s\"", spec->name, value),
					errhint("%s", text)));
}

void
streamext_option_not_of(const OptionSpec *spec, const char *value, List *names)
{
	StringInfoData valid;
	ListCell	  *lc;

	initStringInfo(&valid);
	foreach (lc, names)
		appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "", (const char *) lfirst(lc));
	streamext_option_invalid(spec, value, "Valid values are: %s.", valid.data);
}

void
streamext_option_missing(const char *name, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED), errmsg("option \"%s\" is required", name),
					hint != NULL ? errhint("%s", hint) : 0));
}

void
streamext_option_conflict(List *options, const char *one, const char *other)
{
	if (streamext_option(options, one) != NULL && streamext_option(options, other) != NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						errmsg("options \"%s\" and \"%s\" cannot be given together", one, other)));
}

/* ---- values ---- */

static int
option_parse_enum(const OptionSpec *spec, const char *value)
{
	List *names = NIL;

	for (int i = 0; spec->words[i] != NULL; i++)
		if ((spec->nocase ? pg_strcasecmp(spec->words[i], value) : strcmp(spec->words[i], value)) == 0)
			return i;
	for (int i = 0; spec->words[i] != NULL; i++)
		names = lappend(names, unconstify(char *, spec->words[i]));
	streamext_option_not_of(spec, value, names);
}

static int64
option_parse_int(const OptionSpec *spec, const char *value)
{
	char *end;
	long  number;

	errno = 0;
	number = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || number < spec->min || number > spec->max)
		streamext_option_invalid(spec, value,
								 "The value must be a whole number from " INT64_FORMAT " to " INT64_FORMAT ".",
								 spec->min, spec->max);
	return number;
}

/* PostgreSQL's message has the value alone. */
static void
option_interval_hint(void *name)
{
	errhint("The option %s takes an interval, such as 30 s or 1 day.", (const char *) name);
}

Interval *
streamext_option_interval(const char *name, const char *value)
{
	ErrorContextCallback context = { error_context_stack, option_interval_hint, unconstify(char *, name) };
	Interval			*interval;

	error_context_stack = &context;
	interval = DatumGetIntervalP(
		DirectFunctionCall3(interval_in, CStringGetDatum(value), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	error_context_stack = context.previous;
	return interval;
}

/* Microseconds; a day is 24 h. */
static int64
option_parse_interval(const OptionSpec *spec, const char *value)
{
	Interval *interval = streamext_option_interval(spec->name, value);
	int64	  usecs;

	if (interval->month != 0)
		streamext_option_invalid(spec, value, "Months and years have no fixed length; use days.");
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &usecs) ||
		pg_add_s64_overflow(usecs, interval->time, &usecs) || usecs < spec->min || usecs > spec->max)
		streamext_option_invalid(spec, value, "The value must be an interval from %g s to %d days.",
								 spec->min / 1000000.0, (int) (spec->max / USECS_PER_DAY));
	return usecs;
}

void
streamext_interval_doubt(const char *kind, const char *name, const char *value)
{
	const char *end = value + strlen(value);
	const char *at;
	Datum		interval;

	while (end > value && end[-1] == ' ')
		end--;
	for (at = end; at > value && strchr("0123456789.", at[-1]) != NULL; at--)
		;
	if (at == end || (at > value && at[-1] != ' ' && at[-1] != '+') || strspn(at, "0. ") == strlen(at))
		return;
	interval = IntervalPGetDatum(streamext_option_interval(name, value));
	ereport(NOTICE,
			(errmsg("%s \"%s\" is %s", kind, name, DatumGetCString(DirectFunctionCall1(interval_out, interval))),
			 errdetail("A number without a unit counts seconds."),
			 errhint("Write the unit: '%.*s s', '%.*s min', '%.*s days'.", (int) (end - value), value,
					 (int) (end - value), value, (int) (end - value), value)));
}

TimestampTz
streamext_option_moment(const char *value)
{
	TimestampTz time;
	int			level;

	streamext_value_check_moment(value);
	level = NewGUCNestLevel();
	streamext_decoder_settings();
	time = DatumGetTimestampTz(
		DirectFunctionCall3(timestamptz_in, CStringGetDatum(value), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	AtEOXact_GUC(true, level);
	return time;
}

static void
option_check_byte(const OptionSpec *spec, const char *value)
{
	if (strlen(value) != 1 || value[0] == '\n' || value[0] == '\r')
		streamext_option_invalid(
			spec, value, "The value must be a single one-byte character other than newline and carriage return.");
}

/*
 * The server reads the file with its own rights, so only who may read the server's files may name one. The file of a secret
 * is below the data directory, so that it can be kept from everyone else and moves with the server.
 */
static void
option_check_file(const OptionSpec *spec, const char *value)
{
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_SERVER_FILES))
		ereport(
			ERROR,
			(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("permission denied to set option \"%s\"", spec->name),
			 errdetail(
				 "Only superusers and roles with privileges of the role pg_read_server_files may name a file of the server.")));
	if (spec->type == OPTION_SECRET_FILE && !path_is_relative_and_below_cwd(value))
		streamext_option_invalid(
			spec, value, "The value must be the relative name, without \"..\", of a file below the data directory.");
}

static List *option_known = NIL;

void
streamext_option_known(List *options)
{
	option_known = options;
}

static bool
option_is_known(const char *name, const char *value)
{
	const char *known = streamext_option(option_known, name);

	return known != NULL && strcmp(known, value) == 0;
}

void
streamext_option_check(const OptionSpec *spec, const char *value)
{
	if (spec->type == OPTION_BYTE)
	{
		option_check_byte(spec, value);
		return;
	}
	if (value[0] == '\0' && spec->type != OPTION_ANY)
		streamext_option_invalid(spec, value, "The value must not be empty.");
	for (const char *p = value; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			streamext_option_invalid(spec, value, "The value must not contain control characters.");
	switch (spec->type)
	{
		case OPTION_TEXT:
		case OPTION_ANY:
		case OPTION_BYTE:
			break;
		case OPTION_FILE:
		case OPTION_SECRET_FILE:
			option_check_file(spec, value);
			break;
		case OPTION_INT:
			(void) option_parse_int(spec, value);
			break;
		case OPTION_ENUM:
			(void) option_parse_enum(spec, value);
			break;
		case OPTION_INTERVAL:
			(void) option_parse_interval(spec, value);
			if (!option_is_known(spec->name, value))
				streamext_interval_doubt("option", spec->name, value);
			break;
	}
	if (spec->check != NULL)
		spec->check(spec, value);
}

int64
streamext_option_number(const OptionSpec *table, OptionPlace place, List *options, const char *name)
{
	const OptionSpec *spec = streamext_option_find(table, place, name);
	const char		 *value = streamext_option(options, name);

	if (spec == NULL)
		return 0;
	if (value == NULL)
		return spec->preset;
	if (spec->type == OPTION_ENUM)
		return option_parse_enum(spec, value);
	if (spec->type == OPTION_INTERVAL)
		return option_parse_interval(spec, value);
	return option_parse_int(spec, value);
}
