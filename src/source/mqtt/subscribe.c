/*
 * source/mqtt/subscribe.c
 *		From a new connection to one whose session at the broker holds this configuration's subscriptions and no other.
 *
 * The broker's session outlives connections, processes and configurations. What it may hold is known from source/mqtt/session.h; so what an
 * earlier configuration has left is ended, and what is there is not asked for again where that would bring the retained messages once more.
 *
 * The functions that begin with mqtt_on_ are callbacks of paho's receive thread, the others are the control thread's, unless said.
 */
#include "base/streamext.h"

#include "base/clip.h"
#include "source/mqtt/client_private.h"

/* ---- answers; both threads ---- */

/* With the mutex: it is as it shall be. */
static void
mqtt_ready(MqttClient *m)
{
	m->retry_ms = MQTT_RETRY_MIN_MS;
	m->refused = false;
	m->flush_published = m->flush_done; /* again, in this connection */
	streamext_mqtt_set_link(m, MQTT_READY, 0);
}

/* With the mutex. What is not noted is asked for once more after the next connect, which does no harm. */
static void
mqtt_note(MqttClient *m, bool done)
{
	char reason[128];

	if (!done)
		streamext_mqtt_set_error(m, "could not write what the broker holds", strerror_r(errno, reason, sizeof(reason)));
}

/* The broker's answers for the filter and the marker's topic: granted QoS, or a reason of 0x80 and above. */
static void
mqtt_subscribed(MqttClient *m, int filter, int marker)
{
	bool refused = marker >= MQTTREASONCODE_UNSPECIFIED_ERROR;

	pthread_mutex_lock(&m->mutex);
	if (m->link == MQTT_SUBSCRIBING)
	{
		if (filter >= MQTTREASONCODE_UNSPECIFIED_ERROR && !m->only_marker)
		{
			m->refused = true;
			streamext_mqtt_set_error(m, "the broker refused the subscription", streamext_mqtt_reason(m, filter));
			streamext_mqtt_set_link(m, MQTT_CONNECTED, MQTT_RETRY_MAX_MS);
		}
		else
		{
			if (refused)
				streamext_mqtt_marker_refused(m);
			else if (filter < m->qos && !m->only_marker)
				streamext_mqtt_set_error(m, "the broker granted a lower QoS than asked for", NULL);
			/* before the first retained message is in the journal */
			mqtt_note(m, m->only_marker || streamext_mqtt_session_confirm(m->session, m->filter, m->qos));
			mqtt_note(m, refused || streamext_mqtt_session_confirm(m->session, m->marker_topic, m->qos));
			m->presumed = m->doubted = false;
			mqtt_ready(m);
		}
	}
	pthread_mutex_unlock(&m->mutex);
	streamext_mqtt_signal(m);
}

/* The subscription `ending` is no more; else it is passed over in this connection, and told. */
static void
mqtt_unsubscribed(MqttClient *m, const char *why)
{
	pthread_mutex_lock(&m->mutex);
	if (m->link == MQTT_UNSUBSCRIBING)
	{
		if (why == NULL)
			mqtt_note(m, streamext_mqtt_session_remove(m->session, m->ending));
		else
			streamext_mqtt_set_error(m, "could not end an earlier subscription", why);
		streamext_mqtt_session_pass_over(m->session, m->ending);
		free(m->ending);
		m->ending = NULL;
		streamext_mqtt_set_link(m, MQTT_CONNECTED, 0);
	}
	pthread_mutex_unlock(&m->mutex);
	streamext_mqtt_signal(m);
}

static void
mqtt_on_unsubscribe(void *context, MQTTAsync_successData *data)
{
	mqtt_unsubscribed(context, NULL);
}

static void
mqtt_on_unsubscribe5(void *context, MQTTAsync_successData5 *data)
{
	mqtt_unsubscribed(context, (int) data->reasonCode >= MQTTREASONCODE_UNSPECIFIED_ERROR
								   ? streamext_mqtt_reason(context, data->reasonCode)
								   : NULL);
}

static void
mqtt_on_unsubscribe_failure(void *context, MQTTAsync_failureData *data)
{
	mqtt_unsubscribed(context, streamext_mqtt_reason(context, data->code));
}

static void
mqtt_on_unsubscribe_failure5(void *context, MQTTAsync_failureData5 *data)
{
	mqtt_unsubscribed(context,
					  streamext_mqtt_reason(context, data->reasonCode != MQTTREASONCODE_SUCCESS ? (int) data->reasonCode
																								: data->code));
}

static void
mqtt_subscribe_failed(MqttClient *m, const char *why)
{
	pthread_mutex_lock(&m->mutex);
	if (m->link == MQTT_SUBSCRIBING)
	{
		streamext_mqtt_set_error(m, "could not subscribe", why);
		streamext_mqtt_set_link(m, MQTT_CONNECTED, MQTT_RETRY_MAX_MS);
	}
	pthread_mutex_unlock(&m->mutex);
	streamext_mqtt_signal(m);
}

/*
 * A broker may answer with another number of codes than there are topics. The library gives them on as they came: two or more as an
 * array, one as an int in the array's place, what is beside it uninitialised. Only MQTT 5 has the number beside them; with 3.1.1 the
 * int is told from an address by its being a byte: an address whose lower half is so small costs a second try.
 */
static void
mqtt_on_subscribe(void *context, MQTTAsync_successData *data)
{
	if ((unsigned) data->alt.qos > PG_UINT8_MAX)
		mqtt_subscribed(context, data->alt.qosList[0], data->alt.qosList[1]);
	else
		mqtt_subscribe_failed(context, "the broker answered for one of two topics");
}

static void
mqtt_on_subscribe5(void *context, MQTTAsync_successData5 *data)
{
	if (data->alt.sub.reasonCodeCount >= 2 && data->alt.sub.reasonCodes != NULL)
		mqtt_subscribed(context, data->alt.sub.reasonCodes[0], data->alt.sub.reasonCodes[1]);
	else
		mqtt_subscribe_failed(context, "the broker answered for one of two topics");
}

static void
mqtt_on_subscribe_failure(void *context, MQTTAsync_failureData *data)
{
	mqtt_subscribe_failed(context, streamext_mqtt_reason(context, data->code));
}

static void
mqtt_on_subscribe_failure5(void *context, MQTTAsync_failureData5 *data)
{
	int code = data->reasonCode != MQTTREASONCODE_SUCCESS ? (int) data->reasonCode : data->code;

	mqtt_subscribe_failed(context, streamext_mqtt_reason(context, code));
}

/* ---- asking ---- */

static int
mqtt_subscribe(MqttClient *m)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
	MQTTSubscribe_options	  each = MQTTSubscribe_options_initializer;
	MQTTSubscribe_options	  list[2];
	char					 *topics[2];
	int						  qos[2];

	topics[0] = m->only_marker ? m->marker_topic : m->filter;
	topics[1] = m->marker_topic;
	qos[0] = m->only_marker ? Max(1, m->qos) : m->qos;
	qos[1] = Max(1, m->qos);
	options.context = m;
	if (m->at.version == MQTTVERSION_5)
	{
		/* Retained messages only with a new subscription, not at each reconnection. */
		each.retainHandling = 1;
		list[0] = list[1] = each;
		options.subscribeOptionsList = list;
		options.subscribeOptionsCount = 2;
		options.onSuccess5 = mqtt_on_subscribe5;
		options.onFailure5 = mqtt_on_subscribe_failure5;
	}
	else
	{
		options.onSuccess = mqtt_on_subscribe;
		options.onFailure = mqtt_on_subscribe_failure;
	}
	return MQTTAsync_subscribeMany(m->handle, 2, topics, qos, &options);
}

/* Ends `ending`. */
static int
mqtt_unsubscribe(MqttClient *m)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;

	options.context = m;
	if (m->at.version == MQTTVERSION_5)
	{
		options.onSuccess5 = mqtt_on_unsubscribe5;
		options.onFailure5 = mqtt_on_unsubscribe_failure5;
	}
	else
	{
		options.onSuccess = mqtt_on_unsubscribe;
		options.onFailure = mqtt_on_unsubscribe_failure;
	}
	return MQTTAsync_unsubscribe(m->handle, m->ending, &options);
}

/*
 * What an earlier configuration has left at a broker: the session of another client id, and that at another broker. A broker that knows our
 * session by another address is the same one. With the mutex, which is released meanwhile.
 */
static void
mqtt_end_former(MqttClient *m)
{
	MqttAddress *former = m->former;
	bool		 other = strcmp(former->client_id, m->at.client_id) != 0;

	m->former = NULL;
	other = other || (strcmp(former->uri, m->at.uri) != 0 && !m->present);
	pthread_mutex_unlock(&m->mutex);
	other = other && !streamext_mqtt_address_end_session(former, MQTT_END_MS);
	pthread_mutex_lock(&m->mutex);
	if (other)
	{
		char what[256];

		streamext_clip_format(what, sizeof(what), "could not end the session of client id \"%s\" at the broker %s",
							  former->client_id, former->uri);
		streamext_mqtt_set_error(m, what, NULL);
	}
	streamext_mqtt_address_clear(former);
	free(former);
}

/*
 * The next step from a new connection to one whose session holds this configuration's subscriptions and no other. MQTT 5 can ask for what
 * is there without being sent the retained messages once more; with 3.1.1 it is not asked for again. With the mutex, which is released around calls.
 */
void
streamext_mqtt_prepare(MqttClient *m)
{
	int			granted, rc;
	const char *other;

	if (m->former != NULL)
	{
		mqtt_end_former(m);
		return; /* the connection may be gone */
	}
	if (!streamext_mqtt_session_begin(m->session, m->at.uri, m->at.client_id, !m->present) ||
		!streamext_mqtt_session_ask(m->session, m->filter) || !streamext_mqtt_session_ask(m->session, m->marker_topic))
	{
		mqtt_note(m, false);
		streamext_mqtt_set_link(m, MQTT_CONNECTED, MQTT_RETRY_MAX_MS);
		return;
	}
	granted = streamext_mqtt_session_qos(m->session, m->filter);
	other = streamext_mqtt_session_other(m->session, m->filter, m->marker_topic);
	if (other != NULL && (m->ending = strdup(other)) != NULL)
	{
		streamext_mqtt_set_link(m, MQTT_UNSUBSCRIBING, 0);
		pthread_mutex_unlock(&m->mutex);
		rc = mqtt_unsubscribe(m);
		if (rc != MQTTASYNC_SUCCESS)
			mqtt_unsubscribed(m, streamext_mqtt_reason(m, rc));
		pthread_mutex_lock(&m->mutex);
		return;
	}
	m->presumed = m->at.version != MQTTVERSION_5 && granted == m->qos && !m->doubted;
	m->only_marker = m->presumed;
	if (m->presumed && streamext_mqtt_session_qos(m->session, m->marker_topic) == m->qos)
	{
		mqtt_ready(m);
		streamext_mqtt_signal(m);
		return;
	}
	m->again = m->at.version != MQTTVERSION_5 && granted >= 0 && granted != m->qos;
	streamext_mqtt_set_link(m, MQTT_SUBSCRIBING, 0);
	pthread_mutex_unlock(&m->mutex);
	rc = mqtt_subscribe(m);
	if (rc != MQTTASYNC_SUCCESS)
		mqtt_subscribe_failed(m, streamext_mqtt_reason(m, rc));
	pthread_mutex_lock(&m->mutex);
}
