/*
 * source/mqtt/options.c
 *		The options of MQTT servers, user mappings and streams.
 */
#include "base/streamext.h"

#include "utils/builtins.h"

#include "source/connector.h"
#include "source/journal/journal.h"
#include "source/mqtt/options.h"

#define MQTT_MAX_FILTER 255 /* bytes; PartitionSlot.topic and ConnectorPartition.topic hold a NUL more */
#define MQTT_MAX_LEVELS 64	/* N of metadata 'topic_level N' */

static const char *const words_protocol[] = { "5", "3.1.1", NULL };

/* An MQTT topic filter: "+" alone between slashes, "#" alone at the end. */
static void
mqtt_check_filter(const OptionSpec *spec, const char *value)
{
	bool		good = value[0] != '\0' && strlen(value) <= MQTT_MAX_FILTER;
	const char *share = "$share/";

	static const char *const prefixes[] = { "$queue/", "$exclusive/", "$q/" };

	if (strncmp(value, share, strlen(share)) == 0)
	{
		Size		group = strcspn(value + strlen(share), "/+#");
		const char *rest = value + strlen(share) + group;

		if (group == 0 || rest[0] != '/' || rest[1] == '\0')
			streamext_option_invalid(spec, value, "A shared subscription is written $share/group/filter.");
	}
	for (int i = 0; i < lengthof(prefixes); i++)
		if (strcmp(value, prefixes[i]) == 0)
			streamext_option_invalid(spec, value, "A topic filter follows behind %s.", prefixes[i]);
	for (const char *p = value; good && *p != '\0'; p++)
	{
		bool alone = (p == value || p[-1] == '/') && (p[1] == '\0' || p[1] == '/');

		if (*p == '+')
			good = alone;
		else if (*p == '#')
			good = alone && p[1] == '\0';
	}
	if (!good)
		streamext_option_invalid(
			spec, value,
			"A topic filter has 1 to %d bytes; \"+\" stands for a whole level and \"#\" for all levels at the end.",
			MQTT_MAX_FILTER);
}

static void
mqtt_check_uri(const OptionSpec *spec, const char *value)
{
	static const char *const schemes[] = { "tcp://", "ssl://", "mqtt://", "mqtts://" };

	for (int i = 0; i < lengthof(schemes); i++)
		if (strncmp(value, schemes[i], strlen(schemes[i])) == 0 && value[strlen(schemes[i])] != '\0' &&
			strchr(value, '@') == NULL && strchr(value, ' ') == NULL)
			return;
	streamext_option_invalid(
		spec, value,
		"The value must be like tcp://host:1883 or ssl://host:8883 (mqtt:// and mqtts:// mean the same); "
		"credentials belong in a user mapping.");
}

/* Of what rows are sent to; {column} stands for a value of the row. */
static void
mqtt_check_publish_topic(const OptionSpec *spec, const char *value)
{
	if (strpbrk(value, "+#") != NULL || value[0] == '$')
		streamext_option_invalid(spec, value,
								 "A topic to publish to is no filter: it holds no + or # and does not begin with $.");
}

static const char *const words_retained[] = { "false", "true", NULL };

const OptionSpec streamext_mqtt_options[] = {
	{ "uri", PLACE_SERVER, OPTION_TEXT, .required = true, .check = mqtt_check_uri },
	{ "ssl_ca_location", PLACE_SERVER, OPTION_FILE },
	{ "ssl_certificate_location", PLACE_SERVER, OPTION_FILE },
	{ "ssl_key_location", PLACE_SERVER, OPTION_FILE },
	{ "ssl_endpoint_identification_algorithm", PLACE_SERVER, OPTION_ENUM, streamext_words_identification },

	{ "username", PLACE_MAPPING, OPTION_TEXT },
	{ "password", PLACE_MAPPING, OPTION_TEXT, .secret = true },
	{ "password_file", PLACE_MAPPING, OPTION_SECRET_FILE },
	{ "ssl_key_password", PLACE_MAPPING, OPTION_TEXT, .secret = true },

	{ "topic", PLACE_TABLE, OPTION_TEXT, .required = true, .fixed = true, .check = mqtt_check_filter },
	{ "workers", PLACE_TABLE, OPTION_INT, NULL, 1, STREAMEXT_MAX_SHARDS, 1 },
	{ "journal", PLACE_TABLE, OPTION_ENUM, streamext_words_journal, .preset = JOURNAL_OS },
	{ "qos", PLACE_TABLE, OPTION_INT, NULL, 0, 2, 1 },
	{ "protocol", PLACE_TABLE, OPTION_ENUM, words_protocol, .preset = 0 },
	{ "client_id", PLACE_TABLE, OPTION_TEXT },
	{ "publish_topic", PLACE_TABLE, OPTION_TEXT, .check = mqtt_check_publish_topic },
	{ "retained", PLACE_TABLE, OPTION_ENUM, words_retained, .preset = 0 },
	{ NULL },
};

const MetadataSpec streamext_mqtt_metadata[] = {
	{ "topic", METADATA_TOPIC },
	{ "partition", METADATA_PARTITION },
	{ "offset", METADATA_OFFSET },
	{ "key", METADATA_KEY },
	{ "timestamp", METADATA_TIMESTAMP },
	{ "headers", METADATA_HEADERS },
	{ "qos", METADATA_QOS },
	{ "retained", METADATA_RETAINED },
	{ "topic_level", METADATA_OWN, .text = true, .limit = MQTT_MAX_LEVELS },
	{ NULL },
};

void
streamext_mqtt_check_options(OptionPlace place, List *options)
{
	streamext_option_conflict(options, "password", "password_file");
}

void
streamext_mqtt_configure(StreamConfig *config)
{
	List	   *options = config->table_options;
	const char *topic = streamext_option(options, "topic");
	const char *client_id = streamext_option(options, "client_id");

	if (topic != NULL)
		config->source.topics = list_make1(pstrdup(topic));
	config->source.client_id = client_id == NULL ? NULL : pstrdup(client_id);
	config->source.journal =
		(JournalMode) streamext_option_number(streamext_mqtt_options, PLACE_TABLE, options, "journal");
	config->source.qos = streamext_option_number(streamext_mqtt_options, PLACE_TABLE, options, "qos");
	config->source.mqtt_protocol =
		streamext_option_number(streamext_mqtt_options, PLACE_TABLE, options, "protocol") == 0 ? 5 : 3;
}

/* Of a level that no topic which the filter takes has. */
static void
mqtt_doubt_levels(const StreamConfig *config, const char *topic)
{
	int levels = 1;

	for (const char *p = topic; *p != '\0'; p++)
		levels += *p == '/';
	if (topic[0] == '$' || strchr(topic, '#') != NULL)
		return;
	for (int i = 0; i < config->desc->natts; i++)
	{
		const StreamColumn *column = &config->columns[i];

		if (!column->dropped && column->metadata == METADATA_OWN && column->metadata_number > levels)
			ereport(NOTICE, (errmsg("column \"%s\" of stream \"%s\" will always be NULL", column->name, config->name),
							 errdetail("Topics that the filter \"%s\" takes have %d levels.", topic, levels),
							 errhint("Levels are counted from 1.")));
	}
}

void
streamext_mqtt_doubt(const StreamConfig *config)
{
	const char *topic = linitial(config->source.topics);

	streamext_connector_doubt_addresses(config, "uri", true);
	if (strchr(topic, '*') != NULL)
		ereport(NOTICE, (errmsg("stream \"%s\" takes messages of topics with a * in their names only", config->name),
						 errdetail("In the filter \"%s\" * stands for itself.", topic),
						 errhint("\"+\" stands for one level and \"#\" for all levels at the end.")));
	if (topic[0] == '/' && topic[1] != '\0')
		ereport(NOTICE,
				(errmsg("stream \"%s\" takes messages of topics that begin with / only", config->name),
				 errdetail("In front of it is a level of its own, which is empty: \"%s\" is another topic.", topic + 1),
				 errhint("If senders do not write it, leave it out.")));
	mqtt_doubt_levels(config, topic);
}

/* Several clients need a subscription that they share, which MQTT 3.1.1 does not know: brokers would take it for an ordinary topic. */
void
streamext_mqtt_check(const StreamConfig *config)
{
	if (config->workers > 1 && config->source.mqtt_protocol != 5)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("option \"workers\" above 1 needs protocol 5"),
						errdetail("Shared subscriptions are of MQTT 5.")));
	if (config->workers > 1 && strncmp(linitial(config->source.topics), "$exclusive/", strlen("$exclusive/")) == 0)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
						errmsg("option \"workers\" above 1 goes together with no exclusive subscription"),
						errdetail("The broker lets one client have $exclusive/filter."),
						errhint("Name the filter without $exclusive/, or set workers to 1.")));
}

/*
 * Sessions at the broker hold what the clients have subscribed to: a client that is no more would go on getting its share, and one
 * that goes from a subscription of its own to a shared one would miss messages or get them twice.
 */
void
streamext_mqtt_check_change(const char *name, List *before, List *after)
{
	int old = streamext_option_number(streamext_mqtt_options, PLACE_TABLE, before, "workers");
	int new = streamext_option_number(streamext_mqtt_options, PLACE_TABLE, after, "workers");

	if (old == new || (old > 1 && new > old))
		return;
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					errmsg("cannot change option \"workers\" of stream \"%s\" from %d to %d", name, old, new),
					errdetail("Over MQTT it can only be raised, and not from 1."), errhint("Make another stream.")));
}

/* Level N (from 1) of the topic; false if there are fewer. */
bool
streamext_mqtt_own_metadata(const StreamRecord *record, const StreamColumn *column, const char **value, Size *size)
{
	const char *topic = record->topic;

	for (int level = 1; level < column->metadata_number; level++)
	{
		topic = strchr(topic, '/');
		if (topic == NULL)
			return false;
		topic++;
	}
	*value = topic;
	*size = strcspn(topic, "/");
	return true;
}
