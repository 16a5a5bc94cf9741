/*
 * source/mqtt/topic.h
 *		MQTT's topics and filters: which match, and those that a stream's clients have for themselves. No PostgreSQL call in the
 *		functions for client threads.
 */
#ifndef STREAMEXT_MQTT_TOPIC_H
#define STREAMEXT_MQTT_TOPIC_H

#include "base/streamext.h"
#include "base/stream_def.h"

#define MQTT_MARKER_PREFIX "streamext/flush/"

/* Whether a topic matches a filter; a wildcard does not match a first level that begins with '$'. For client threads. */
extern bool streamext_mqtt_matches(const char *filter, const char *topic);

/*
 * The part of a filter that topics are matched with: `$share/group/filter` is shared with other clients, and some brokers have
 * `$queue/filter`, `$exclusive/filter` and `$q/filter`. Points into it.
 */
extern const char *streamext_mqtt_plain_filter(const char *filter);

/* Whether a message of the topic is one of the subscription's, whose prefix may be none to its broker. For client threads. */
extern bool streamext_mqtt_subscription_matches(const char *filter, const char *topic);

/* ---- of the client of one shard; palloc'd ---- */

extern char *streamext_mqtt_client_id(const StreamConfig *config, int shard);

/* What it subscribes to. Of several, the broker gives each message to one: they are one group. */
extern char *streamext_mqtt_subscription(const StreamConfig *config);

/* The topic that only this client uses, whatever characters its id has. */
extern char *streamext_mqtt_marker_topic(const char *client_id);

#endif /* STREAMEXT_MQTT_TOPIC_H */
