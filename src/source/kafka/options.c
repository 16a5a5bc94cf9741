/*
 * source/kafka/options.c
 *		The options of Kafka servers, user mappings and streams.
 */
#include "base/streamext.h"

#include <ctype.h>

#include "source/connector.h"
#include "source/kafka/options.h"

static const char *const words_protocol[] = { "plaintext", "ssl", "sasl_plaintext", "sasl_ssl", NULL };
static const char *const words_sasl[] = { "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", NULL };

static char *
kafka_parse_topic(const OptionSpec *spec, const char *value)
{
	if (value[0] == '\0' || strlen(value) > 249 || strcmp(value, ".") == 0 || strcmp(value, "..") == 0 ||
		strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != strlen(value))
		streamext_option_invalid(
			spec, value,
			"A topic's name has 1 to 249 letters, digits, dots, underscores and hyphens; the option "
			"topics takes several, separated by commas.");
	return pstrdup(value);
}

/* Topics separated by commas, each once. */
static List *
kafka_parse_topics(const OptionSpec *spec, const char *value)
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
		topic = kafka_parse_topic(spec, topic);
		foreach (cell, topics)
			if (strcmp(lfirst(cell), topic) == 0)
				streamext_option_invalid(spec, value, "Each topic can be named once only.");
		topics = lappend(topics, topic);
	}
	return topics;
}

static void
kafka_check_topic(const OptionSpec *spec, const char *value)
{
	(void) kafka_parse_topic(spec, value);
}

static void
kafka_check_topics(const OptionSpec *spec, const char *value)
{
	(void) kafka_parse_topics(spec, value);
}

/* A timestamp without a time zone is UTC, whatever the session's settings: a worker must read the same in it. */
static StreamStart
kafka_parse_start(const OptionSpec *spec, const char *value, TimestampTz *time)
{
	*time = 0;
	if (strcmp(value, "earliest") == 0)
		return START_EARLIEST;
	if (strcmp(value, "latest") == 0)
		return START_LATEST;
	if (!isdigit((unsigned char) value[0]))
		streamext_option_invalid(
			spec, value,
			"Valid values are: earliest, latest, or a timestamp like 2024-05-01 12:00:00 (UTC, unless it names a time zone).");
	*time = streamext_option_moment(value);
	return START_TIMESTAMP;
}

static void
kafka_check_start(const OptionSpec *spec, const char *value)
{
	TimestampTz time;

	(void) kafka_parse_start(spec, value, &time);
}

/* A whole number without a sign, and where it ends; -1: there is none, or it is too large. */
static int
kafka_parse_number(const char *text, const char **end)
{
	Size digits = strspn(text, "0123456789");

	*end = text + digits;
	return digits == 0 || digits > 6 ? -1 : atoi(text);
}

/* "i/n": the partitions p with p mod n = i. */
static void
kafka_parse_partitions(const OptionSpec *spec, const char *value, int *first, int *step)
{
	const char *end;

	*first = kafka_parse_number(value, &end);
	*step = *end == '/' ? kafka_parse_number(end + 1, &end) : -1;
	if (*first < 0 || *step < 1 || *first >= *step || *end != '\0')
		streamext_option_invalid(
			spec, value,
			"The value is i/n, like 0/3: of n servers this one, from 0 to n - 1, takes every n-th partition.");
}

static void
kafka_check_partitions(const OptionSpec *spec, const char *value)
{
	int first, step;

	kafka_parse_partitions(spec, value, &first, &step);
}

/* host:port, behind a security protocol of the client's if need be; what else stands there would be looked up as a host's name for ever. */
static void
kafka_check_broker(const OptionSpec *spec, const char *value, const char *broker)
{
	static const char *const schemes[] = { "plaintext", "ssl", "sasl_plaintext", "sasl_ssl" };
	const char				*host = strstr(broker, "://");
	bool					 good = host == NULL;

	for (int i = 0; i < lengthof(schemes) && !good; i++)
		good = strlen(schemes[i]) == host - broker && pg_strncasecmp(broker, schemes[i], host - broker) == 0;
	if (!good || strpbrk(host != NULL ? host + 3 : broker, " \t;/@") != NULL)
		streamext_option_invalid(spec, value,
								 "The value is like kafka1:9092,kafka2:9092; how to connect says the option "
								 "security_protocol, and as whom a user mapping.");
}

static void
kafka_check_brokers(const OptionSpec *spec, const char *value)
{
	char *rest = pstrdup(value);

	for (char *broker = strtok_r(rest, ",", &rest); broker != NULL; broker = strtok_r(NULL, ",", &rest))
	{
		broker += strspn(broker, " ");
		for (char *end = broker + strlen(broker); end > broker && end[-1] == ' '; end--)
			end[-1] = '\0';
		kafka_check_broker(spec, value, broker);
	}
}

const OptionSpec streamext_kafka_options[] = {
	{ "brokers", PLACE_SERVER, OPTION_TEXT, .required = true, .check = kafka_check_brokers },
	{ "group_id", PLACE_SERVER, OPTION_TEXT },
	{ "security_protocol", PLACE_SERVER, OPTION_ENUM, words_protocol, .nocase = true },
	{ "sasl_mechanism", PLACE_SERVER, OPTION_ENUM, words_sasl },
	{ "ssl_ca_location", PLACE_SERVER, OPTION_FILE },
	{ "ssl_certificate_location", PLACE_SERVER, OPTION_FILE },
	{ "ssl_key_location", PLACE_SERVER, OPTION_FILE },
	{ "ssl_endpoint_identification_algorithm", PLACE_SERVER, OPTION_ENUM, streamext_words_identification },

	{ "sasl_username", PLACE_MAPPING, OPTION_TEXT },
	{ "sasl_password", PLACE_MAPPING, OPTION_TEXT, .secret = true },
	{ "sasl_password_file", PLACE_MAPPING, OPTION_SECRET_FILE },
	{ "ssl_key_password", PLACE_MAPPING, OPTION_TEXT, .secret = true },

	{ "topic", PLACE_TABLE, OPTION_TEXT, .fixed = true, .check = kafka_check_topic },
	{ "topics", PLACE_TABLE, OPTION_TEXT, .fixed = true, .check = kafka_check_topics },
	{ "start", PLACE_TABLE, OPTION_TEXT, .fixed = true, .check = kafka_check_start },
	{ "partitions", PLACE_TABLE, OPTION_TEXT, .fixed = true, .check = kafka_check_partitions },
	{ "workers", PLACE_TABLE, OPTION_INT, NULL, 1, STREAMEXT_MAX_SHARDS, 1 },
	{ NULL },
};

const MetadataSpec streamext_kafka_metadata[] = {
	{ "topic", METADATA_TOPIC },
	{ "partition", METADATA_PARTITION },
	{ "offset", METADATA_OFFSET },
	{ "key", METADATA_KEY },
	{ "timestamp", METADATA_TIMESTAMP },
	{ "headers", METADATA_HEADERS },
	{ "header", METADATA_HEADER, .named = true },
	{ NULL },
};

static void
kafka_check_sasl(List *options)
{
	const char *protocol = streamext_option(options, "security_protocol");
	bool		sasl = protocol != NULL && pg_strncasecmp(protocol, "sasl_", 5) == 0;
	bool		mechanism = streamext_option(options, "sasl_mechanism") != NULL;

	if (sasl && !mechanism)
		streamext_option_missing("sasl_mechanism", "The option security_protocol asks for SASL.");
	if (mechanism && !sasl)
		streamext_option_missing("security_protocol", "With sasl_mechanism it must be sasl_plaintext or sasl_ssl.");
}

void
streamext_kafka_check_options(OptionPlace place, List *options)
{
	if (place == PLACE_SERVER)
		kafka_check_sasl(options);
	streamext_option_conflict(options, "sasl_password", "sasl_password_file");
	streamext_option_conflict(options, "topic", "topics");
	if (place == PLACE_TABLE && streamext_option(options, "topic") == NULL &&
		streamext_option(options, "topics") == NULL)
		streamext_option_missing("topic", "Name one topic with the option topic or several with the option topics.");
}

void
streamext_kafka_configure(StreamConfig *config)
{
	const char *topic = streamext_option(config->table_options, "topic");
	const char *topics = streamext_option(config->table_options, "topics");
	const char *start = streamext_option(config->table_options, "start");
	const char *partitions = streamext_option(config->table_options, "partitions");

	config->source.partition_step = 1;
	if (partitions != NULL)
		kafka_parse_partitions(streamext_option_find(streamext_kafka_options, PLACE_TABLE, "partitions"), partitions,
							   &config->source.partition_first, &config->source.partition_step);
	if (topic != NULL)
		config->source.topics = list_make1(pstrdup(topic));
	else if (topics != NULL)
		config->source.topics =
			kafka_parse_topics(streamext_option_find(streamext_kafka_options, PLACE_TABLE, "topics"), topics);
	if (start != NULL)
		config->source.start = kafka_parse_start(streamext_option_find(streamext_kafka_options, PLACE_TABLE, "start"),
												 start, &config->source.start_time);
}

void
streamext_kafka_doubt(const StreamConfig *config)
{
	streamext_connector_doubt_addresses(config, "brokers", false);
}
