/*
 * source/mqtt/topic.c
 *		MQTT's topics and filters. What the functions promise is in source/mqtt/topic.h.
 *
 * Names of clients and of their group hold system identifier, database and stream, so that two servers or streams never take each
 * other's messages. The group's does not hold the number of workers: when there are more, the new ones join the old ones' group, and
 * the broker loses and doubles nothing.
 */
#include "base/streamext.h"

#include "access/xlog.h"
#include "miscadmin.h"

#include "source/mqtt/topic.h"

bool
streamext_mqtt_matches(const char *filter, const char *topic)
{
	if (topic[0] == '$' && (filter[0] == '+' || filter[0] == '#'))
		return false;
	for (;;)
	{
		if (filter[0] == '#')
			return true;
		if (filter[0] == '+')
		{
			filter++;
			topic += strcspn(topic, "/");
		}
		while (*filter != '\0' && *filter != '/' && *filter == *topic)
			filter++, topic++;
		if (*filter == '\0')
			return *topic == '\0';
		if (*topic == '\0')
			return strcmp(filter, "/#") == 0;
		if (*filter != '/' || *topic != '/')
			return false;
		filter++, topic++;
	}
}

const char *
streamext_mqtt_plain_filter(const char *filter)
{
	/* of EMQX and others: what they deliver has the topic without it */
	static const char *const prefixes[] = { "$queue/", "$exclusive/", "$q/" };
	const char				*rest;

	for (int i = 0; i < lengthof(prefixes); i++)
		if (strncmp(filter, prefixes[i], strlen(prefixes[i])) == 0 && filter[strlen(prefixes[i])] != '\0')
			return filter + strlen(prefixes[i]);
	if (strncmp(filter, "$share/", 7) != 0 || (rest = strchr(filter + 7, '/')) == NULL)
		return filter;
	return rest + 1;
}

bool
streamext_mqtt_subscription_matches(const char *filter, const char *topic)
{
	const char *plain = streamext_mqtt_plain_filter(filter);

	return streamext_mqtt_matches(plain, topic) || (plain != filter && streamext_mqtt_matches(filter, topic));
}

static char *
mqtt_stream_name(const StreamConfig *config)
{
	return psprintf("streamext-" UINT64_FORMAT "-%u-%u", GetSystemIdentifier(), MyDatabaseId, config->relid);
}

char *
streamext_mqtt_client_id(const StreamConfig *config, int shard)
{
	if (config->source.client_id != NULL && config->workers == 1)
		return pstrdup(config->source.client_id);
	return psprintf("%s-%d", config->source.client_id != NULL ? config->source.client_id : mqtt_stream_name(config),
					shard);
}

char *
streamext_mqtt_subscription(const StreamConfig *config)
{
	const char *filter = linitial(config->source.topics);

	if (config->workers == 1 || streamext_mqtt_plain_filter(filter) != filter)
		return pstrdup(filter);
	return psprintf("$share/%s/%s", mqtt_stream_name(config), filter);
}

char *
streamext_mqtt_marker_topic(const char *client_id)
{
	char *topic = psprintf("%s%s", MQTT_MARKER_PREFIX, client_id);

	for (char *p = topic + strlen(MQTT_MARKER_PREFIX); *p != '\0'; p++)
		if (strchr("+#/", *p) != NULL)
			*p = '_';
	return topic;
}
