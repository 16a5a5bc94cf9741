/*
 * source/mqtt/properties.h
 *		User properties of MQTT 5 messages: kept in the journal behind the topic, shown as Kafka's headers are.
 */
#ifndef STREAMEXT_MQTT_PROPERTIES_H
#define STREAMEXT_MQTT_PROPERTIES_H

#include <MQTTAsync.h>

/*
 * The topic, and behind its NUL each name and value with a NUL of its own: what the journal keeps as the topic. malloc'd, *size without
 * the last NUL; NULL if there are no user properties, or no memory, or more than MQTT_PROPERTIES_MAX bytes. For client threads.
 */
extern char *streamext_mqtt_properties_pack(const char *topic, const MQTTProperties *properties, uint32 *size);

/* As a JSON object, palloc'd; NULL if there are none. */
extern char *streamext_mqtt_properties_json(const char *topic, uint32 size);

#endif /* STREAMEXT_MQTT_PROPERTIES_H */
