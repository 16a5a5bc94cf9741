/*
 * source/mqtt/seen.h
 *		Which messages an MQTT stream has received already, so that one which the broker sends again is not counted twice.
 *
 * The broker sends a message again, marked so, when the connection was lost before it had the acknowledgement. It is the same
 * message if its packet id last came with the same contents in this session of the broker's, and no longer ago than as many
 * messages as can be unacknowledged. Which process received it does not matter: the journal holds the packet ids.
 *
 * Brokers that number messages in a row, as mosquitto does, give an id out again only much later. One that gives the least free
 * id could send a new message with the id and contents of the last one, lose the connection and send it again: that one is
 * taken for a duplicate.
 *
 * paho keeps it from the application whether a message of QoS 2 was marked so; but it hands each one to its persistence before.
 * A persistence that keeps nothing looks there.
 *
 * malloc only, no PostgreSQL call: for paho's receive thread, but for _new.
 */
#ifndef STREAMEXT_MQTT_SEEN_H
#define STREAMEXT_MQTT_SEEN_H

#include "base/streamext.h"

#include <MQTTAsync.h>

#include "source/journal/journal.h"

typedef struct MqttSeen MqttSeen;

/*
 * What earlier processes put into the journal last; reads it, so main thread only. At most `unacknowledged` messages can be
 * sent again. NULL: out of memory.
 */
extern MqttSeen *streamext_mqtt_seen_new(Journal *journal, uint32 unacknowledged);

/* The broker has begun a new session: packet ids begin anew. */
extern void streamext_mqtt_seen_forget(MqttSeen *seen);

/* For MQTTAsync_create, as context of MQTTCLIENT_PERSISTENCE_USER. */
extern MQTTClient_persistence *streamext_mqtt_seen_persistence(MqttSeen *seen);

/* True for a message that is in the journal already; remembers it else. In the arrival callback. */
extern bool streamext_mqtt_seen_before(MqttSeen *seen, const char *topic, const MQTTAsync_message *message);

#endif /* STREAMEXT_MQTT_SEEN_H */
