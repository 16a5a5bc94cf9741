/*
 * source/mqtt/client.h
 *		The MQTT client of a stream: connects, subscribes, and puts what arrives into the stream's journal before it is acknowledged.
 *
 * All functions are for the main thread and return at once, but for _end. Two phases, because a password may come later: new,
 * then start; between them the journal can be read.
 */
#ifndef STREAMEXT_MQTT_CLIENT_H
#define STREAMEXT_MQTT_CLIENT_H

#include "base/streamext.h"
#include "source/connector.h"
#include "source/journal/journal.h"

typedef struct MqttClient MqttClient;

/*
 * Opens the journal. wait_fd is an eventfd that becomes readable when something has arrived or changed. Raises; *client may be set
 * then, and wants to be ended.
 */
extern void streamext_mqtt_client_new(MqttClient **client, const ConnectorOpen *args, int wait_fd);
/* Starts to connect, and goes on trying; 0 or an errno. */
extern int	streamext_mqtt_client_start(MqttClient *m, const char *password);
extern bool streamext_mqtt_client_started(const MqttClient *m);

/*
 * Disconnects, the session stays at the broker unless it is to `forget` it; frees the client and its
 * journal. A session that stays is ended by this process's next client if that is another one's. False: it hangs and is abandoned after
 * some seconds; wait_fd must stay open and the process end soon.
 */
extern bool streamext_mqtt_client_end(MqttClient *m, bool forget);
/* True when that has happened in this process: no client can be made any more. */
extern bool streamext_mqtt_client_abandoned(void);

extern Journal *streamext_mqtt_client_journal(MqttClient *m);

/* Makes wait_fd readable; makes it unreadable: what arrives from then on makes it readable again. */
extern void streamext_mqtt_client_wake_reader(MqttClient *m);
extern void streamext_mqtt_client_drain(MqttClient *m);

/* How it stands. True when there is an error beyond *errors_seen: the last one's text. */
extern bool streamext_mqtt_client_look(MqttClient *m, bool *stalled, bool *refused, uint64 *errors_seen, char *error,
									   size_t size);

/* How many messages matched no filter of ours since the last call, and the topic of the first. */
extern uint64 streamext_mqtt_client_unmatched(MqttClient *m, char *topic, size_t size);

/* Sends a marker through the broker unless done; true when it is back: *position is the journal's end at that moment. */
extern bool streamext_mqtt_client_flush(MqttClient *m, uint64 ticket, int64 *position);

#endif /* STREAMEXT_MQTT_CLIENT_H */
