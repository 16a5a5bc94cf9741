/*
 * source/mqtt/session.h
 *		What the broker remembers for a stream's client, as far as the stream has asked it to: of which broker and client id it
 *		is, and which subscriptions it holds. Kept in a file beside the journal, so that the next configuration, or the next
 *		process, can end what is not its own any more and need not ask for what is there.
 *
 * A subscription is noted before it is asked for and confirmed when it is granted, so that none is at the broker that is not
 * here. The file is written anew whole, to another name, synced and renamed: it is the old one or the new one.
 *
 * malloc only, no PostgreSQL call. The caller serialises all calls of a session.
 */
#ifndef STREAMEXT_MQTT_SESSION_H
#define STREAMEXT_MQTT_SESSION_H

#include "base/streamext.h"

typedef struct MqttSession MqttSession;

/* Reads the file in the journal's directory; without one nothing is known. NULL: out of memory, or it cannot be read (errno). */
extern MqttSession *streamext_mqtt_session_open(const char *directory);
extern void			streamext_mqtt_session_close(MqttSession *session);

/* Whose session it is; NULL: not known. */
extern const char *streamext_mqtt_session_uri(const MqttSession *session);
extern const char *streamext_mqtt_session_client(const MqttSession *session);

/* It is this client's from now on; `fresh`: the broker holds no subscription. False and errno: it could not be written. */
extern bool streamext_mqtt_session_begin(MqttSession *session, const char *uri, const char *client_id, bool fresh);

/* Notes that a subscription is about to be asked for, was granted, or is gone. False and errno: it could not be written. */
extern bool streamext_mqtt_session_ask(MqttSession *session, const char *filter);
extern bool streamext_mqtt_session_confirm(MqttSession *session, const char *filter, int qos);
extern bool streamext_mqtt_session_remove(MqttSession *session, const char *filter);

/* The QoS that was asked for and granted, -1: there is no such subscription for certain. */
extern int streamext_mqtt_session_qos(const MqttSession *session, const char *filter);

/* A subscription that is neither of these and was not passed over; NULL: none. Good until the next change. */
extern const char *streamext_mqtt_session_other(const MqttSession *session, const char *filter, const char *marker);
/* It cannot be ended at the moment: _other leaves it out until the session is begun again. */
extern void streamext_mqtt_session_pass_over(MqttSession *session, const char *filter);

#endif /* STREAMEXT_MQTT_SESSION_H */
