/*-------------------------------------------------------------------------
 *
 * stream/definition.c
 *		The options of servers, user mappings, streams and columns: one table, checked at DDL time; and a stream's
 *		definition as read from the catalogue.
 *
 * option_table is the only place that knows an option's name, where it may stand, its type and its range. The validators,
 * streamext_stream_config and all messages are driven by it; values are parsed by the same functions at DDL time and by
 * workers, so that what DDL has let through, a worker understands. What options and columns mean together is checked
 * once the relation is there (stream/check.c).
 *
 * Values of secret options are in no message.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "port.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "decode/decoder.h"
#include "decode/json.h"
#include "decode/value.h"
#include "stream/definition.h"

PG_FUNCTION_INFO_V1(streamext_kafka_validator);
PG_FUNCTION_INFO_V1(streamext_mqtt_validator);
PG_FUNCTION_INFO_V1(streamext_local_validator);

#define OPTION_MAX_TOPIC 255 /* bytes; PartitionSlot.topic and ConnectorPartition.topic hold a NUL more */
#define OPTION_MAX_LEVELS 64 /* N of metadata 'topic_level N' */
#define OPTION_MAX_INTERVAL (INT64CONST(36525) * USECS_PER_DAY)
#define OPTION_MAX_BUFFER 1000000

typedef enum OptionPlace
{
	PLACE_WRAPPER,
	PLACE_SERVER,
	PLACE_MAPPING,
	PLACE_TABLE,
	PLACE_COLUMN
} OptionPlace;

typedef enum OptionType
{
	OPTION_TEXT,		/* not empty */
	OPTION_FILE,		/* a file of the server, see option_check_file */
	OPTION_SECRET_FILE, /* the same, below the data directory */
	OPTION_INT,
	OPTION_ENUM,
	OPTION_INTERVAL, /* microseconds */
	OPTION_START,	 /* a word or a timestamp */
	OPTION_TOPIC,	 /* kafka: one topic */
	OPTION_TOPICS,	 /* kafka: topics, separated by commas */
	OPTION_FILTER,	 /* mqtt: a topic filter */
	OPTION_URI,
	OPTION_BYTE, /* one ASCII character */
	OPTION_NULL, /* csv: may be empty */
	OPTION_PATH,
	OPTION_METADATA
} OptionType;

#define KAFKA (1 << CONNECTOR_KAFKA)
#define MQTT (1 << CONNECTOR_MQTT)
#define LOCAL (1 << CONNECTOR_LOCAL)

typedef struct OptionSpec
{
	const char		  *name;
	int				   connectors;
	OptionPlace		   place;
	OptionType		   type;
	const char *const *words;	 /* OPTION_ENUM: NULL-terminated; an enum's value is the word's number */
	int64			   min, max; /* OPTION_INT, OPTION_INTERVAL */
	int64			   preset;	 /* OPTION_INT, OPTION_INTERVAL, OPTION_ENUM: when not given */
	bool			   secret;
	bool			   required;
} OptionSpec;

static const char *const words_protocol[] = { "plaintext", "ssl", "sasl_plaintext", "sasl_ssl", NULL };
static const char *const words_sasl[] = { "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", NULL };
static const char *const words_identification[] = { "https", "none", NULL };
static const char *const words_format[] = { "json", "csv", "text", "raw", NULL };
static const char *const words_on_error[] = { "dead_letter", "skip", "stop", NULL };
static const char *const words_journal[] = { "none", "os", "fsync", NULL };
static const char *const words_journal_local[] = { "os", "fsync", NULL };
static const char *const words_mqtt_protocol[] = { "5", "3.1.1", NULL };

/* Words of the column option metadata, in the order of MetadataKind. */
static const char *const words_metadata[] = { "",		 "topic", "partition", "offset",	  "key", "timestamp",
											  "headers", "qos",	  "retained",  "topic_level", NULL };

static const OptionSpec option_table[] = {
	{ "brokers", KAFKA, PLACE_SERVER, OPTION_TEXT, .required = true },
	{ "group_id", KAFKA, PLACE_SERVER, OPTION_TEXT },
	{ "security_protocol", KAFKA, PLACE_SERVER, OPTION_ENUM, words_protocol },
	{ "sasl_mechanism", KAFKA, PLACE_SERVER, OPTION_ENUM, words_sasl },
	{ "uri", MQTT, PLACE_SERVER, OPTION_URI, .required = true },
	{ "ssl_ca_location", KAFKA | MQTT, PLACE_SERVER, OPTION_FILE },
	{ "ssl_certificate_location", KAFKA | MQTT, PLACE_SERVER, OPTION_FILE },
	{ "ssl_key_location", KAFKA | MQTT, PLACE_SERVER, OPTION_FILE },
	{ "ssl_endpoint_identification_algorithm", KAFKA | MQTT, PLACE_SERVER, OPTION_ENUM, words_identification },

	{ "sasl_username", KAFKA, PLACE_MAPPING, OPTION_TEXT },
	{ "sasl_password", KAFKA, PLACE_MAPPING, OPTION_TEXT, .secret = true },
	{ "sasl_password_file", KAFKA, PLACE_MAPPING, OPTION_SECRET_FILE },
	{ "username", MQTT, PLACE_MAPPING, OPTION_TEXT },
	{ "password", MQTT, PLACE_MAPPING, OPTION_TEXT, .secret = true },
	{ "password_file", MQTT, PLACE_MAPPING, OPTION_SECRET_FILE },
	{ "ssl_key_password", KAFKA | MQTT, PLACE_MAPPING, OPTION_TEXT, .secret = true },

	{ "topic", KAFKA, PLACE_TABLE, OPTION_TOPIC },
	{ "topics", KAFKA, PLACE_TABLE, OPTION_TOPICS },
	{ "topic", MQTT, PLACE_TABLE, OPTION_FILTER, .required = true },
	{ "format", KAFKA | MQTT, PLACE_TABLE, OPTION_ENUM, words_format, .preset = FORMAT_JSON },
	{ "delimiter", KAFKA | MQTT, PLACE_TABLE, OPTION_BYTE },
	{ "quote", KAFKA | MQTT, PLACE_TABLE, OPTION_BYTE },
	{ "escape", KAFKA | MQTT, PLACE_TABLE, OPTION_BYTE },
	{ "null", KAFKA | MQTT, PLACE_TABLE, OPTION_NULL },
	{ "event_time", KAFKA | MQTT | LOCAL, PLACE_TABLE, OPTION_TEXT },
	{ "watermark_delay", KAFKA | MQTT | LOCAL, PLACE_TABLE, OPTION_INTERVAL, NULL, 0, OPTION_MAX_INTERVAL, 0 },
	{ "idle_timeout", KAFKA | MQTT | LOCAL, PLACE_TABLE, OPTION_INTERVAL, NULL, 1000, OPTION_MAX_INTERVAL,
	  30 * USECS_PER_SEC },
	{ "max_ahead", KAFKA | MQTT | LOCAL, PLACE_TABLE, OPTION_INTERVAL, NULL, 0, OPTION_MAX_INTERVAL, USECS_PER_HOUR },
	{ "start", KAFKA, PLACE_TABLE, OPTION_START },
	{ "buffer_size", KAFKA | MQTT | LOCAL, PLACE_TABLE, OPTION_INT, NULL, 0, OPTION_MAX_BUFFER, 1000 },
	{ "on_error", KAFKA | MQTT | LOCAL, PLACE_TABLE, OPTION_ENUM, words_on_error, .preset = ON_ERROR_DEAD_LETTER },
	{ "workers", KAFKA | MQTT, PLACE_TABLE, OPTION_INT, NULL, 1, STREAMEXT_MAX_SHARDS, 1 },
	{ "journal", MQTT, PLACE_TABLE, OPTION_ENUM, words_journal, .preset = JOURNAL_OS },
	{ "journal", LOCAL, PLACE_TABLE, OPTION_ENUM, words_journal_local, .preset = JOURNAL_OS - JOURNAL_OS },
	{ "qos", MQTT, PLACE_TABLE, OPTION_INT, NULL, 0, 2, 1 },
	{ "protocol", MQTT, PLACE_TABLE, OPTION_ENUM, words_mqtt_protocol, .preset = 0 },
	{ "client_id", MQTT, PLACE_TABLE, OPTION_TEXT },

	{ "path", KAFKA | MQTT, PLACE_COLUMN, OPTION_PATH },
	{ "metadata", KAFKA | MQTT, PLACE_COLUMN, OPTION_METADATA },
};

StaticAssertDecl((int) JOURNAL_OS == 1 && (int) JOURNAL_FSYNC == 2,
				 "words_journal and words_journal_local follow JournalMode");

const char *
streamext_connector_name(ConnectorKind kind)
{
	switch (kind)
	{
		case CONNECTOR_KAFKA:
			return "kafka";
		case CONNECTOR_MQTT:
			return "mqtt";
		case CONNECTOR_LOCAL:
			return "local";
		case CONNECTOR_NONE:
			break;
	}
	return "none";
}

const char *
streamext_format_name(StreamFormat format)
{
	return format == FORMAT_ROW ? "row" : words_format[format];
}

const char *
streamext_metadata_name(MetadataKind metadata)
{
	return words_metadata[metadata];
}

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

/* NULL if there is no such option in that place. */
static const OptionSpec *
option_find(ConnectorKind kind, OptionPlace place, const char *name)
{
	for (int i = 0; i < lengthof(option_table); i++)
		if (option_table[i].place == place && (option_table[i].connectors & (1 << kind)) != 0 &&
			strcmp(option_table[i].name, name) == 0)
			return &option_table[i];
	return NULL;
}

static void
option_unknown(ConnectorKind kind, OptionPlace place, const char *name)
{
	StringInfoData valid;

	initStringInfo(&valid);
	for (int i = 0; i < lengthof(option_table); i++)
		if (option_table[i].place == place && (option_table[i].connectors & (1 << kind)) != 0)
			appendStringInfo(&valid, "%s%s", valid.len > 0 ? ", " : "", option_table[i].name);
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", name),
					valid.len > 0 ? errhint("Valid options in this context are: %s.", valid.data)
								  : errhint("There are no valid options in this context.")));
}

/* Raises HV024; the hint says what would do. The value is left out for secrets. */
pg_noreturn static void pg_attribute_printf(3, 4)
	option_invalid(const OptionSpec *spec, const char *value, const char *hint, ...)
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

/* ---- values ---- */

static int
option_parse_enum(const OptionSpec *spec, const char *value)
{
	StringInfoData valid;

	for (int i = 0; spec->words[i] != NULL; i++)
		if (strcmp(spec->words[i], value) == 0)
			return i;
	initStringInfo(&valid);
	for (int i = 0; spec->words[i] != NULL; i++)
		appendStringInfo(&valid, "%s%s", i > 0 ? ", " : "", spec->words[i]);
	option_invalid(spec, value, "Valid values are: %s.", valid.data);
}

static int64
option_parse_int(const OptionSpec *spec, const char *value)
{
	char *end;
	long  number;

	errno = 0;
	number = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || number < spec->min || number > spec->max)
		option_invalid(spec, value, "The value must be a whole number from " INT64_FORMAT " to " INT64_FORMAT ".",
					   spec->min, spec->max);
	return number;
}

/* Microseconds; a day is 24 h. */
static int64
option_parse_interval(const OptionSpec *spec, const char *value)
{
	Interval *interval;
	int64	  usecs;

	interval = DatumGetIntervalP(
		DirectFunctionCall3(interval_in, CStringGetDatum(value), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	if (interval->month != 0)
		option_invalid(spec, value, "Months and years have no fixed length; use days.");
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &usecs) ||
		pg_add_s64_overflow(usecs, interval->time, &usecs) || usecs < spec->min || usecs > spec->max)
		option_invalid(spec, value, "The value must be an interval from %g s to %d days.", spec->min / 1000000.0,
					   (int) (spec->max / USECS_PER_DAY));
	return usecs;
}

/* A timestamp without a time zone is UTC, whatever the session's settings: a worker must read the same in it. */
static StreamStart
option_parse_start(const OptionSpec *spec, const char *value, TimestampTz *time)
{
	int level;

	*time = 0;
	if (strcmp(value, "earliest") == 0)
		return START_EARLIEST;
	if (strcmp(value, "latest") == 0)
		return START_LATEST;
	if (!isdigit((unsigned char) value[0]))
		option_invalid(
			spec, value,
			"Valid values are: earliest, latest, or a timestamp like 2024-05-01 12:00:00 (UTC, unless it names a time zone).");
	streamext_value_check_moment(value);
	level = NewGUCNestLevel();
	streamext_decoder_settings();
	*time = DatumGetTimestampTz(
		DirectFunctionCall3(timestamptz_in, CStringGetDatum(value), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	AtEOXact_GUC(true, level);
	return START_TIMESTAMP;
}

static char *
option_parse_topic(const OptionSpec *spec, const char *value)
{
	if (value[0] == '\0' || strlen(value) > 249 || strcmp(value, ".") == 0 || strcmp(value, "..") == 0 ||
		strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != strlen(value))
		option_invalid(spec, value, "A topic's name has 1 to 249 letters, digits, dots, underscores and hyphens.");
	return pstrdup(value);
}

/* Topics separated by commas, each once. */
static List *
option_parse_topics(const OptionSpec *spec, const char *value)
{
	List *topics = NIL;
	char *rest = pstrdup(value);

	while (rest != NULL)
	{
		char	 *topic = rest;
		char	 *comma = strchr(rest, ',');
		ListCell *cell;

		rest = comma == NULL ? NULL : comma + 1;
		if (comma != NULL)
			*comma = '\0';
		while (*topic == ' ')
			topic++;
		for (char *end = topic + strlen(topic); end > topic && end[-1] == ' '; end--)
			end[-1] = '\0';
		topic = option_parse_topic(spec, topic);
		foreach (cell, topics)
			if (strcmp(lfirst(cell), topic) == 0)
				option_invalid(spec, value, "Each topic can be named once only.");
		topics = lappend(topics, topic);
	}
	return topics;
}

/* An MQTT topic filter: "+" alone between slashes, "#" alone at the end. */
static void
option_check_filter(const OptionSpec *spec, const char *value)
{
	bool		good = value[0] != '\0' && strlen(value) <= OPTION_MAX_TOPIC;
	const char *share = "$share/";

	if (strncmp(value, share, strlen(share)) == 0)
	{
		Size		group = strcspn(value + strlen(share), "/+#");
		const char *rest = value + strlen(share) + group;

		if (group == 0 || rest[0] != '/' || rest[1] == '\0')
			option_invalid(spec, value, "A shared subscription is written $share/group/filter.");
	}
	for (const char *p = value; good && *p != '\0'; p++)
	{
		bool alone = (p == value || p[-1] == '/') && (p[1] == '\0' || p[1] == '/');

		if (*p == '+')
			good = alone;
		else if (*p == '#')
			good = alone && p[1] == '\0';
	}
	if (!good)
		option_invalid(
			spec, value,
			"A topic filter has 1 to %d bytes; \"+\" stands for a whole level and \"#\" for all levels at the end.",
			OPTION_MAX_TOPIC);
}

static void
option_check_uri(const OptionSpec *spec, const char *value)
{
	static const char *const schemes[] = { "tcp://", "ssl://", "mqtt://", "mqtts://" };

	for (int i = 0; i < lengthof(schemes); i++)
		if (strncmp(value, schemes[i], strlen(schemes[i])) == 0 && value[strlen(schemes[i])] != '\0' &&
			strchr(value, '@') == NULL && strchr(value, ' ') == NULL)
			return;
	option_invalid(spec, value,
				   "The value must be like tcp://host:1883 or ssl://host:8883 (mqtt:// and mqtts:// mean the same); "
				   "credentials belong in a user mapping.");
}

static void
option_check_byte(const OptionSpec *spec, const char *value)
{
	if (strlen(value) != 1 || value[0] == '\n' || value[0] == '\r')
		option_invalid(spec, value,
					   "The value must be a single one-byte character other than newline and carriage return.");
}

static void
option_check_path(const OptionSpec *spec, const char *value)
{
	JsonParser *parser = streamext_json_create(STREAMEXT_MAX_DEPTH);
	int			number;

	if (parser == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	number = streamext_json_want(parser, NULL, value, JSON_WANT_TEXT);
	streamext_json_destroy(parser);
	if (number < 0)
		option_invalid(spec, value, "A path is like a.b[0].c, optionally behind \"$.\"; \"$\" is the whole payload.");
}

/* `topic_level N` sets *level, N from 1; others set it 0. */
static MetadataKind
option_parse_metadata(const OptionSpec *spec, ConnectorKind kind, const char *value, int *level)
{
	const char *word = words_metadata[METADATA_TOPIC_LEVEL];
	int			last = kind == CONNECTOR_MQTT ? METADATA_RETAINED : METADATA_HEADERS;

	*level = 0;
	for (int i = METADATA_TOPIC; i <= last; i++)
		if (strcmp(words_metadata[i], value) == 0)
			return i;
	if (kind == CONNECTOR_MQTT && strncmp(value, word, strlen(word)) == 0 && value[strlen(word)] == ' ')
	{
		const char *digits = value + strlen(word) + 1;

		if (strlen(digits) >= 1 && strlen(digits) <= 3 && strspn(digits, "0123456789") == strlen(digits))
			*level = atoi(digits);
		if (*level >= 1 && *level <= OPTION_MAX_LEVELS)
			return METADATA_TOPIC_LEVEL;
	}
	if (kind == CONNECTOR_MQTT)
		option_invalid(
			spec, value,
			"Valid values are: topic, partition, offset, key, timestamp, headers, qos, retained, topic_level N (N from 1 to %d).",
			OPTION_MAX_LEVELS);
	option_invalid(spec, value, "Valid values are: topic, partition, offset, key, timestamp, headers.");
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
		option_invalid(spec, value,
					   "The value must be the relative name, without \"..\", of a file below the data directory.");
}

static void
option_check_value(const OptionSpec *spec, ConnectorKind kind, const char *value)
{
	TimestampTz time;
	int			level;

	if (spec->type == OPTION_BYTE)
	{
		option_check_byte(spec, value);
		return;
	}
	if (value[0] == '\0' && spec->type != OPTION_NULL)
		option_invalid(spec, value, "The value must not be empty.");
	for (const char *p = value; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			option_invalid(spec, value, "The value must not contain control characters.");
	switch (spec->type)
	{
		case OPTION_TEXT:
		case OPTION_BYTE:
		case OPTION_NULL:
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
			break;
		case OPTION_START:
			(void) option_parse_start(spec, value, &time);
			break;
		case OPTION_TOPIC:
			(void) option_parse_topic(spec, value);
			break;
		case OPTION_TOPICS:
			(void) option_parse_topics(spec, value);
			break;
		case OPTION_FILTER:
			option_check_filter(spec, value);
			break;
		case OPTION_URI:
			option_check_uri(spec, value);
			break;
		case OPTION_PATH:
			option_check_path(spec, value);
			break;
		case OPTION_METADATA:
			(void) option_parse_metadata(spec, kind, value, &level);
			break;
	}
}

/* ---- validators ---- */

pg_noreturn static void
option_missing(const char *name, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FDW_DYNAMIC_PARAMETER_VALUE_NEEDED), errmsg("option \"%s\" is required", name),
					hint != NULL ? errhint("%s", hint) : 0));
}

static void
option_check_conflict(List *options, const char *one, const char *other)
{
	if (streamext_option(options, one) != NULL && streamext_option(options, other) != NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						errmsg("options \"%s\" and \"%s\" cannot be given together", one, other)));
}

/* As COPY has them. */
static CsvDialect
option_csv(List *options)
{
	const char *delimiter = streamext_option(options, "delimiter");
	const char *quote = streamext_option(options, "quote");
	const char *escape = streamext_option(options, "escape");
	const char *null = streamext_option(options, "null");
	CsvDialect	csv;

	csv.delimiter = delimiter != NULL ? delimiter[0] : ',';
	csv.quote = quote != NULL ? quote[0] : '"';
	csv.escape = escape != NULL ? escape[0] : csv.quote;
	csv.null = pstrdup(null != NULL ? null : "");
	return csv;
}

static void
option_check_csv(List *options)
{
	static const char *const names[] = { "delimiter", "quote", "escape", "null" };
	const char				*format = streamext_option(options, "format");
	CsvDialect				 csv;

	for (int i = 0; i < lengthof(names); i++)
		if (streamext_option(options, names[i]) != NULL && (format == NULL || strcmp(format, "csv") != 0))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("option \"%s\" needs format csv", names[i])));
	csv = option_csv(options);
	if (csv.delimiter == csv.quote)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("options \"delimiter\" and \"quote\" must be different")));
	if (strchr(csv.null, csv.delimiter) != NULL || strchr(csv.null, csv.quote) != NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("option \"null\" must not contain the delimiter or the quote character")));
}

/* What the options of one place mean together. */
static void
option_check_together(ConnectorKind kind, OptionPlace place, List *options)
{
	const char *protocol;

	for (int i = 0; i < lengthof(option_table); i++)
		if (option_table[i].required && option_table[i].place == place &&
			(option_table[i].connectors & (1 << kind)) != 0 && streamext_option(options, option_table[i].name) == NULL)
			option_missing(option_table[i].name, NULL);

	switch (place)
	{
		case PLACE_SERVER:
			protocol = streamext_option(options, "security_protocol");
			if (protocol != NULL && strncmp(protocol, "sasl_", 5) == 0 &&
				streamext_option(options, "sasl_mechanism") == NULL)
				option_missing("sasl_mechanism", "The option security_protocol asks for SASL.");
			if (streamext_option(options, "sasl_mechanism") != NULL &&
				(protocol == NULL || strncmp(protocol, "sasl_", 5) != 0))
				option_missing("security_protocol", "With sasl_mechanism it must be sasl_plaintext or sasl_ssl.");
			break;
		case PLACE_MAPPING:
			option_check_conflict(options, "sasl_password", "sasl_password_file");
			option_check_conflict(options, "password", "password_file");
			break;
		case PLACE_TABLE:
			option_check_conflict(options, "topic", "topics");
			option_check_csv(options);
			if (kind == CONNECTOR_KAFKA && streamext_option(options, "topic") == NULL &&
				streamext_option(options, "topics") == NULL)
				option_missing("topic", "Name one topic with the option topic or several with the option topics.");
			break;
		case PLACE_COLUMN:
			option_check_conflict(options, "path", "metadata");
			break;
		case PLACE_WRAPPER:
			break;
	}
}

static Datum
option_validate(FunctionCallInfo fcinfo, ConnectorKind kind)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	OptionPlace place;
	ListCell   *cell;

	if (catalog == ForeignServerRelationId)
		place = PLACE_SERVER;
	else if (catalog == UserMappingRelationId)
		place = PLACE_MAPPING;
	else if (catalog == ForeignTableRelationId)
		place = PLACE_TABLE;
	else if (catalog == AttributeRelationId)
		place = PLACE_COLUMN;
	else
		place = PLACE_WRAPPER;

	foreach (cell, options)
	{
		DefElem			 *def = lfirst_node(DefElem, cell);
		const OptionSpec *spec = option_find(kind, place, def->defname);

		if (spec == NULL)
			option_unknown(kind, place, def->defname);
		else
			option_check_value(spec, kind, defGetString(def));
	}
	option_check_together(kind, place, options);
	PG_RETURN_VOID();
}

Datum
streamext_kafka_validator(PG_FUNCTION_ARGS)
{
	return option_validate(fcinfo, CONNECTOR_KAFKA);
}

Datum
streamext_mqtt_validator(PG_FUNCTION_ARGS)
{
	return option_validate(fcinfo, CONNECTOR_MQTT);
}

Datum
streamext_local_validator(PG_FUNCTION_ARGS)
{
	return option_validate(fcinfo, CONNECTOR_LOCAL);
}

/* ---- a stream's definition ---- */

/* True if the function is this library's C function of that name, in whatever schema and under whatever SQL name. */
static bool
option_is_function(Oid funcid, const char *symbol)
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

static ConnectorKind
option_server_kind(Oid serverid)
{
	ForeignServer	   *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	ForeignDataWrapper *wrapper;

	if (server == NULL)
		return CONNECTOR_NONE;
	wrapper = GetForeignDataWrapperExtended(server->fdwid, FDW_MISSING_OK);
	if (wrapper == NULL || !option_is_function(wrapper->fdwhandler, "streamext_fdw_handler"))
		return CONNECTOR_NONE;
	if (option_is_function(wrapper->fdwvalidator, "streamext_kafka_validator"))
		return CONNECTOR_KAFKA;
	if (option_is_function(wrapper->fdwvalidator, "streamext_mqtt_validator"))
		return CONNECTOR_MQTT;
	if (option_is_function(wrapper->fdwvalidator, "streamext_local_validator"))
		return CONNECTOR_LOCAL;
	return CONNECTOR_NONE;
}

/* InvalidOid if it is not a foreign table, or gone. */
static Oid
option_table_server(Oid relid)
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

ConnectorKind
streamext_stream_kind(Oid relid)
{
	Oid serverid = option_table_server(relid);

	return OidIsValid(serverid) ? option_server_kind(serverid) : CONNECTOR_NONE;
}

/* Options of the owner's user mapping, else PUBLIC's, else none. */
static List *
option_user_options(Oid owner, Oid serverid)
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

/* The value of an int, interval or enum option of a stream, or its default; 0 where the connector has no such option. */
static int64
option_number(const StreamConfig *config, const char *name)
{
	const OptionSpec *spec = option_find(config->connector, PLACE_TABLE, name);
	const char		 *value = streamext_option(config->table_options, name);

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

static void
option_read_column(StreamConfig *config, const char *live_name, Form_pg_attribute att)
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
	if (metadata != NULL)
		column->metadata = option_parse_metadata(option_find(config->connector, PLACE_COLUMN, "metadata"),
												 config->connector, metadata, &column->topic_level);
	if (path != NULL)
		column->path = pstrdup(path);
}

static void
option_read_columns(StreamConfig *config, Relation rel)
{
	const char *event_time = streamext_option(config->table_options, "event_time");

	config->desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	config->columns = palloc0(sizeof(StreamColumn) * Max(config->desc->natts, 1));
	config->row_type_hash = hash_bytes_uint32(0);
	for (int i = 0; i < config->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(config->desc, i);

		option_read_column(config, NameStr(att->attname), att);
		if (att->attisdropped)
			continue;
		if (event_time != NULL && strcmp(NameStr(att->attname), event_time) == 0)
			config->event_time = att->attnum;
		config->row_type_hash = hash_combine(config->row_type_hash, hash_bytes_uint32(att->attnum));
		config->row_type_hash = hash_combine(config->row_type_hash, hash_bytes_uint32(att->atttypid));
	}
}

static void
option_read_topics(StreamConfig *config)
{
	const char *topic = streamext_option(config->table_options, "topic");
	const char *topics = streamext_option(config->table_options, "topics");

	if (topic != NULL)
		config->topics = list_make1(pstrdup(topic));
	else if (topics != NULL)
		config->topics = option_parse_topics(option_find(config->connector, PLACE_TABLE, "topics"), topics);
}

StreamConfig *
streamext_stream_config(Oid relid)
{
	ConnectorKind kind;
	StreamConfig *config;
	ForeignTable *table;
	Relation	  rel;
	const char	 *start;
	const char	 *client_id;

	rel = try_relation_open(relid, AccessShareLock);
	if (rel == NULL)
		return NULL;
	kind = rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE ? streamext_stream_kind(relid) : CONNECTOR_NONE;
	if (kind == CONNECTOR_NONE)
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
	config->user_options = option_user_options(config->owner, table->serverid);

	config->format = kind == CONNECTOR_LOCAL ? FORMAT_ROW : (StreamFormat) option_number(config, "format");
	config->csv = option_csv(table->options);
	config->watermark_delay = option_number(config, "watermark_delay");
	config->idle_timeout = option_number(config, "idle_timeout");
	config->max_ahead = option_number(config, "max_ahead");
	config->buffer_size = option_number(config, "buffer_size");
	config->on_error = (OnError) option_number(config, "on_error");
	config->workers = Max(option_number(config, "workers"), 1);
	config->qos = option_number(config, "qos");
	config->mqtt_protocol = option_number(config, "protocol") == 0 ? 5 : 3;
	config->journal = (JournalMode) (option_number(config, "journal") + (kind == CONNECTOR_LOCAL ? JOURNAL_OS : 0));
	config->start = START_EARLIEST;
	start = streamext_option(table->options, "start");
	if (start != NULL)
		config->start = option_parse_start(option_find(kind, PLACE_TABLE, "start"), start, &config->start_time);
	client_id = streamext_option(table->options, "client_id");
	config->client_id = client_id == NULL ? NULL : pstrdup(client_id);
	option_read_topics(config);
	option_read_columns(config, rel);

	/* kept to the end of the transaction: who looks at views next has locked in the order of DROP ... CASCADE */
	relation_close(rel, NoLock);
	return config;
}
