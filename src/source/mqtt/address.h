/*
 * source/mqtt/address.h
 *		Where an MQTT client connects, as whom, and with which session of the broker's.
 *
 * malloc only, no PostgreSQL call: for the client's threads, but for _set.
 */
#ifndef STREAMEXT_MQTT_ADDRESS_H
#define STREAMEXT_MQTT_ADDRESS_H

#include "base/streamext.h"

#include <MQTTAsync.h>

#include "base/stream_def.h"

/*
 * Of a message, more than which a broker does not send with MQTT 5: twice what a record may have, so that somewhat larger ones are still told of.
 * paho takes a hundred times as much for a message of nothing but user properties.
 */
#define MQTT_PACKET_MAXIMUM (2 * STREAMEXT_MAX_RECORD)
#define MQTT_RECEIVE_MAXIMUM 16384 /* unacknowledged messages; see source/mqtt/seen.h */

typedef struct MqttAddress
{
	char *uri, *client_id, *username, *password, *ca, *certificate, *key, *key_password;
	bool  tls, verify_host;
	int	  version; /* MQTTVERSION_ */
} MqttAddress;

/* What an MQTTAsync_connect is given; the options point into the rest. */
typedef struct MqttConnect
{
	MQTTAsync_connectOptions options;
	MQTTAsync_SSLOptions	 ssl;
	MQTTProperties			 properties; /* to be freed by who has called _connect */
} MqttConnect;

/* Of one shard's client; without the password. Raises; main thread only. */
extern void streamext_mqtt_address_set(MqttAddress *address, const StreamConfig *config, int shard);

/* A copy, NULL: out of memory; frees what is in one, secrets overwritten. */
extern MqttAddress *streamext_mqtt_address_copy(const MqttAddress *address);
extern void			streamext_mqtt_address_clear(MqttAddress *address);

/* Options for a session that lasts; if `end`, for one that takes its place and ends with the connection. */
extern void streamext_mqtt_address_connect(const MqttAddress *address, bool end, MqttConnect *connect);

/* For leaving; if `end` the session goes too, which only MQTT 5 can do. The options' properties are to be freed. */
extern void streamext_mqtt_address_disconnect(const MqttAddress *address, bool end,
											  MQTTAsync_disconnectOptions *options);

/* Ends the session that the broker keeps for the client id, by connecting for it. False: it did not come about in so many ms. */
extern bool streamext_mqtt_address_end_session(const MqttAddress *address, int ms);

/* What a code of CONNACK, SUBACK or the library means. */
extern const char *streamext_mqtt_address_reason(const MqttAddress *address, int code);

#endif /* STREAMEXT_MQTT_ADDRESS_H */
