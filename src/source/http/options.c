/*
 * source/http/options.c
 *		The options of HTTP servers, user mappings and streams.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/formatting.h"
#include "utils/guc.h"

#include "source/http/http.h"
#include "source/journal/journal.h"
#include "source/listen.h"
#include "source/siblings.h"

#define HTTP_MAX_PATH 255 /* bytes; PartitionSlot.topic holds a NUL more */
#define HTTP_MAX_BODY (16 * 1024 * 1024)
#define HTTP_LARGEST_BODY (64 * 1024 * 1024)

static const char *const words_signature[] = { "hmac-sha256", "hmac-sha256-timestamp", NULL };

/* ---- sizes ---- */

static bool
http_parse_body(const char *value, int64 *bytes)
{
	int			number;
	const char *hint;

	if (!parse_int(value, &number, GUC_UNIT_BYTE, &hint) || number < 1 || number > HTTP_LARGEST_BODY)
		return false;
	*bytes = number;
	return true;
}

static void
http_check_body(const OptionSpec *spec, const char *value)
{
	int64 bytes;

	if (!http_parse_body(value, &bytes))
		streamext_option_invalid(spec, value, "The value must be a size from 1B to %dMB, such as 16MB.",
								 HTTP_LARGEST_BODY / 1024 / 1024);
}

int64
streamext_http_max_body(List *server_options)
{
	const char *value = streamext_option(server_options, "max_body");
	int64		bytes = HTTP_MAX_BODY;

	if (value != NULL)
		(void) http_parse_body(value, &bytes);
	return bytes;
}

/* ---- roles ---- */

/* Whoever sends acts as that role, so who names it must have its rights. */
static void
http_check_role(const OptionSpec *spec, const char *value)
{
	Oid role = get_role_oid(value, true);

	if (!OidIsValid(role))
		streamext_option_invalid(spec, value, "The value must be the name of a role.");
	if (!has_privs_of_role(GetUserId(), role))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must have privileges of role \"%s\"", value),
						errdetail("Whoever sends requests without a token will act as that role.")));
}

/* ---- paths ---- */

static void
http_check_path(const OptionSpec *spec, const char *value)
{
	if (value[0] != '/' || value[1] == '\0' || strlen(value) > HTTP_MAX_PATH || strpbrk(value, "?#% ") != NULL)
		streamext_option_invalid(
			spec, value,
			"The value must be a path of 2 to %d bytes that begins with \"/\", without \"?\", \"#\", \"%%\" and blanks.",
			HTTP_MAX_PATH);
	if (strncmp(value, "/views/", 7) == 0 || strcmp(value, "/views") == 0 || strcmp(value, "/healthz") == 0 ||
		strcmp(value, "/metrics") == 0)
		streamext_option_invalid(
			spec, value, "Paths that the gateway answers itself are not a stream's: /views, /healthz, /metrics.");
}

char *
streamext_http_path(List *table_options, const char *schema, const char *name)
{
	const char *path = streamext_option(table_options, "path");

	return path != NULL ? pstrdup(path) : psprintf("/%s.%s", schema, name);
}

/* ---- the table ---- */

const OptionSpec streamext_http_options[] = {
	{ "listen", PLACE_SERVER, OPTION_TEXT, .required = true, .check = streamext_listen_check },
	{ "ssl_certificate_location", PLACE_SERVER, OPTION_FILE },
	{ "ssl_key_location", PLACE_SERVER, OPTION_FILE },
	{ "anonymous_role", PLACE_SERVER, OPTION_TEXT, .check = http_check_role },
	{ "max_body", PLACE_SERVER, OPTION_TEXT, .check = http_check_body },
	{ "max_connections", PLACE_SERVER, OPTION_INT, NULL, 1, 65000, 1000 },
	{ "max_connections_per_address", PLACE_SERVER, OPTION_INT, NULL, 1, 65000, 65000 },
	{ "header_timeout", PLACE_SERVER, OPTION_INTERVAL, NULL, USECS_PER_SEC / 10, USECS_PER_HOUR, 10 * USECS_PER_SEC },
	{ "rate_limit", PLACE_SERVER, OPTION_INT, NULL, 0, INT_MAX, 0 },
	{ "wait_timeout", PLACE_SERVER, OPTION_INTERVAL, NULL, 0, USECS_PER_HOUR, 10 * USECS_PER_SEC },

	{ "token", PLACE_MAPPING, OPTION_TEXT, .secret = true },
	{ "token_file", PLACE_MAPPING, OPTION_SECRET_FILE },

	{ "path", PLACE_TABLE, OPTION_TEXT, .check = http_check_path },
	{ "journal", PLACE_TABLE, OPTION_ENUM, streamext_words_journal, .preset = JOURNAL_OS },
	{ "signature_header", PLACE_TABLE, OPTION_TEXT },
	{ "signature_scheme", PLACE_TABLE, OPTION_ENUM, words_signature, .preset = HTTP_SIGNATURE_SHA256 },
	{ "signature_secret_file", PLACE_TABLE, OPTION_SECRET_FILE },
	{ NULL },
};

/* ---- together ---- */

static void
http_check_both(List *options, const char *one, const char *other)
{
	if ((streamext_option(options, one) == NULL) != (streamext_option(options, other) == NULL))
		ereport(ERROR, (errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED),
						errmsg("options \"%s\" and \"%s\" must be given together", one, other)));
}

void
streamext_http_check_options(OptionPlace place, List *options)
{
	if (place == PLACE_SERVER)
		http_check_both(options, "ssl_certificate_location", "ssl_key_location");
	if (place == PLACE_MAPPING)
		streamext_option_conflict(options, "token", "token_file");
	if (place == PLACE_TABLE)
	{
		http_check_both(options, "signature_header", "signature_secret_file");
		if (streamext_option(options, "signature_scheme") != NULL &&
			streamext_option(options, "signature_header") == NULL)
			streamext_option_missing("signature_header", "Name the request's header that holds the signature.");
	}
}

void
streamext_http_configure(StreamConfig *config)
{
	for (int i = 0; i < config->desc->natts; i++)
	{
		StreamColumn *column = &config->columns[i];

		if (column->metadata_name != NULL && strcmp(column->metadata_spec->name, "header") == 0)
			column->metadata_name = asc_tolower(column->metadata_name, strlen(column->metadata_name));
	}
	config->source.journal =
		(JournalMode) streamext_option_number(streamext_http_options, PLACE_TABLE, config->table_options, "journal");
}

void
streamext_http_check(const StreamConfig *config)
{
	char *path = streamext_http_path(config->table_options, config->schema, config->name);
	char *other;

	if (strlen(path) > HTTP_MAX_PATH || strpbrk(path, "?#% ") != NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("\"%s\" cannot be the path of a stream", path), errhint("Set the option path.")));
	other = streamext_sibling_named(config, path, streamext_http_path);
	if (other != NULL)
		ereport(ERROR, (errcode(ERRCODE_DUPLICATE_OBJECT), errmsg("path \"%s\" of the server is taken", path),
						errdetail("Stream \"%s\" has it.", other), errhint("Set the option path to another one.")));
	if (config->source.journal == JOURNAL_NONE)
		ereport(
			NOTICE,
			(errmsg("with journal none a crash may lose records of stream \"%s\" that were answered 204", config->name),
			 errdetail("Its journal is not kept until a checkpoint holds what was counted."),
			 errhint(
				 "Set the option journal to os, which survives the crash of any process, or fsync, which survives the machine's.")));
}
