/*
 * source/mqtt/sample.c
 *		A look at a broker by a session: connection, login, subscription, flush markers, and what comes meanwhile (source/sample.h).
 *
 * A client of its own, whose session ends with the connection. Of a topic a broker holds the retained message and no other, so more than
 * these are there only while somebody sends. paho's threads run the callbacks: they make no PostgreSQL call, and share MqttSample, which is
 * malloc'd, under its mutex. The session's thread makes all calls and waits between them.
 */
#include "base/streamext.h"

#include <pthread.h>
#include <signal.h>

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "source/connector.h"
#include "source/mqtt/address.h"
#include "source/mqtt/options.h"
#include "source/mqtt/properties.h"
#include "source/mqtt/topic.h"
#include "source/sample.h"

#define SAMPLE_POLL_MS 5
#define SAMPLE_CONNECT_MS 5000 /* at most of the time there is, for each step */
#define SAMPLE_ANSWER_MS 2000
#define SAMPLE_REFUSED 0x80

typedef enum SampleAnswer
{
	ANSWER_NONE,
	ANSWER_YES,
	ANSWER_NO
} SampleAnswer;

/* A message that has come, malloc'd in one piece with its texts. */
typedef struct SampleMessage
{
	struct SampleMessage *next;
	StreamRecord		  record;
	char				 *packed; /* topic with user properties (source/mqtt/properties.h), or NULL */
	uint32				  packed_size;
	char				  texts[FLEXIBLE_ARRAY_MEMBER];
} SampleMessage;

typedef struct MqttSample
{
	MqttAddress at;
	MQTTAsync	handle;
	char	   *filter, *marker; /* marker NULL: not asked for */
	char		nonce[64];
	int			most; /* messages */

	pthread_mutex_t mutex;
	SampleAnswer	connected, subscribed, marker_subscribed;
	bool			reached; /* the broker has answered, if only to refuse */
	bool			marker_back, lost;
	int				granted;
	char			why[STREAMEXT_MAX_MESSAGE]; /* of the last no */
	char			tls_error[128];
	int				n;
	Size			bytes;
	SampleMessage  *messages; /* newest first */
} MqttSample;

/* ---- callbacks; paho's threads ---- */

static void
sample_no(MqttSample *m, SampleAnswer *answer, const char *why)
{
	pthread_mutex_lock(&m->mutex);
	if (*answer == ANSWER_NONE)
	{
		*answer = ANSWER_NO;
		streamext_clip(m->why, why, sizeof(m->why));
	}
	pthread_mutex_unlock(&m->mutex);
}

static void
sample_yes(MqttSample *m, SampleAnswer *answer, int granted)
{
	if (granted >= SAMPLE_REFUSED)
	{
		sample_no(m, answer, streamext_mqtt_address_reason(&m->at, granted));
		return;
	}
	pthread_mutex_lock(&m->mutex);
	*answer = ANSWER_YES;
	if (answer == &m->subscribed)
		m->granted = granted;
	pthread_mutex_unlock(&m->mutex);
}

static void
sample_connect_failed(MqttSample *m, int code, const char *message)
{
	const char *why = code > 0 || message == NULL ? streamext_mqtt_address_reason(&m->at, code) : message;

	pthread_mutex_lock(&m->mutex);
	m->reached = code > 0;
	pthread_mutex_unlock(&m->mutex);
	sample_no(m, &m->connected, code <= 0 && m->tls_error[0] != '\0' ? m->tls_error : why);
}

static void
sample_on_connect(void *context, MQTTAsync_successData *data)
{
	sample_yes(context, &((MqttSample *) context)->connected, 0);
}

static void
sample_on_connect5(void *context, MQTTAsync_successData5 *data)
{
	sample_yes(context, &((MqttSample *) context)->connected, 0);
}

static void
sample_on_connect_failure(void *context, MQTTAsync_failureData *data)
{
	sample_connect_failed(context, data->code, data->message);
}

static void
sample_on_connect_failure5(void *context, MQTTAsync_failureData5 *data)
{
	sample_connect_failed(context, data->reasonCode != MQTTREASONCODE_SUCCESS ? (int) data->reasonCode : data->code,
						  data->message);
}

static int
sample_on_tls_error(const char *text, size_t length, void *context)
{
	MqttSample *m = context;

	if (m->tls_error[0] == '\0')
		streamext_clip_format(m->tls_error, sizeof(m->tls_error), "%.*s", (int) length, text);
	return 1;
}

static void
sample_on_subscribe(void *context, MQTTAsync_successData *data)
{
	sample_yes(context, &((MqttSample *) context)->subscribed, data->alt.qos);
}

static void
sample_on_subscribe5(void *context, MQTTAsync_successData5 *data)
{
	sample_yes(context, &((MqttSample *) context)->subscribed, data->reasonCode);
}

static void
sample_on_subscribe_failure(void *context, MQTTAsync_failureData *data)
{
	MqttSample *m = context;

	sample_no(m, &m->subscribed,
			  data->code == SAMPLE_REFUSED ? "refused" : streamext_mqtt_address_reason(&m->at, data->code));
}

static void
sample_on_subscribe_failure5(void *context, MQTTAsync_failureData5 *data)
{
	MqttSample *m = context;

	sample_no(m, &m->subscribed,
			  streamext_mqtt_address_reason(&m->at, data->reasonCode != MQTTREASONCODE_SUCCESS ? (int) data->reasonCode
																							   : data->code));
}

static void
sample_on_marker(void *context, MQTTAsync_successData *data)
{
	sample_yes(context, &((MqttSample *) context)->marker_subscribed, data->alt.qos);
}

static void
sample_on_marker5(void *context, MQTTAsync_successData5 *data)
{
	sample_yes(context, &((MqttSample *) context)->marker_subscribed, data->reasonCode);
}

static void
sample_on_marker_failure(void *context, MQTTAsync_failureData *data)
{
	sample_no(context, &((MqttSample *) context)->marker_subscribed, "refused");
}

static void
sample_on_marker_failure5(void *context, MQTTAsync_failureData5 *data)
{
	sample_no(context, &((MqttSample *) context)->marker_subscribed, "refused");
}

static void
sample_on_lost(void *context, char *cause)
{
	MqttSample *m = context;

	pthread_mutex_lock(&m->mutex);
	m->lost = true;
	pthread_mutex_unlock(&m->mutex);
}

/* NULL: out of memory. */
static SampleMessage *
sample_copy(const char *topic, const MQTTAsync_message *message)
{
	size_t			topic_size = strlen(topic) + 1;
	SampleMessage  *copy = calloc(1, offsetof(SampleMessage, texts) + topic_size + message->payloadlen);
	struct timespec now;

	if (copy == NULL)
		return NULL;
	clock_gettime(CLOCK_REALTIME, &now);
	memcpy(copy->texts, topic, topic_size);
	memcpy(copy->texts + topic_size, message->payload, message->payloadlen);
	copy->record.topic = copy->texts;
	copy->record.payload = copy->texts + topic_size;
	copy->record.payload_size = message->payloadlen;
	copy->record.timestamp =
		((TimestampTz) now.tv_sec - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY) * USECS_PER_SEC +
		now.tv_nsec / 1000;
	copy->record.qos = message->qos;
	copy->record.retained = message->retained != 0;
	copy->packed_size = topic_size - 1;
	copy->packed = streamext_mqtt_properties_pack(topic, &message->properties, &copy->packed_size);
	return copy;
}

static void
sample_arrived(MqttSample *m, const char *topic, const MQTTAsync_message *message)
{
	SampleMessage *copy;

	if (m->n >= m->most || m->bytes + message->payloadlen > STREAMEXT_SAMPLE_BYTES ||
		!streamext_mqtt_subscription_matches(m->filter, topic) || (copy = sample_copy(topic, message)) == NULL)
		return;
	copy->next = m->messages;
	copy->record.position = m->n++;
	m->bytes +=
		message->payloadlen + (copy->packed != NULL ? 2 : 1) * (Size) copy->packed_size; /* the topic's at most */
	m->messages = copy;
}

static int
sample_on_arrival(void *context, char *topic, int topic_length, MQTTAsync_message *message)
{
	MqttSample *m = context;

	pthread_mutex_lock(&m->mutex);
	if (strncmp(topic, MQTT_MARKER_PREFIX, strlen(MQTT_MARKER_PREFIX)) != 0)
		sample_arrived(m, topic, message);
	else if (m->marker != NULL && strcmp(topic, m->marker) == 0 && message->payloadlen == (int) strlen(m->nonce) &&
			 memcmp(message->payload, m->nonce, message->payloadlen) == 0)
		m->marker_back = true;
	pthread_mutex_unlock(&m->mutex);
	MQTTAsync_freeMessage(&message);
	MQTTAsync_free(topic);
	return 1;
}

/* ---- the session's thread ---- */

static char *
sample_strdup(const char *text)
{
	char *copy = strdup(text);

	if (copy == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return copy;
}

/* What the threads have written, for up to so many milliseconds; whether it became true. */
static bool
sample_await(MqttSample *m, const SourceSample *sample, int most_ms, bool (*is_there)(const MqttSample *))
{
	int	 left = streamext_sample_left(sample, most_ms);
	bool there = false;

	for (int waited = 0;; waited += SAMPLE_POLL_MS)
	{
		pthread_mutex_lock(&m->mutex);
		there = is_there(m);
		pthread_mutex_unlock(&m->mutex);
		if (there || m->lost || waited >= left)
			return there;
		streamext_sample_wait(SAMPLE_POLL_MS);
	}
}

static bool
sample_has_connected(const MqttSample *m)
{
	return m->connected != ANSWER_NONE;
}

static bool
sample_has_subscribed(const MqttSample *m)
{
	return m->subscribed != ANSWER_NONE;
}

static bool
sample_has_marker(const MqttSample *m)
{
	return m->marker_back || m->marker_subscribed == ANSWER_NO;
}

static bool
sample_has_all(const MqttSample *m)
{
	return m->n >= m->most;
}

/* The library starts its threads with the first connection. */
static int
sample_start(MqttSample *m)
{
	MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer;
	MqttConnect				connect;
	sigset_t				all, saved;
	int						rc;

	create.MQTTVersion = m->at.version;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	rc =
		MQTTAsync_createWithOptions(&m->handle, m->at.uri, m->at.client_id, MQTTCLIENT_PERSISTENCE_NONE, NULL, &create);
	if (rc == MQTTASYNC_SUCCESS)
	{
		(void) MQTTAsync_setCallbacks(m->handle, m, sample_on_lost, sample_on_arrival, NULL);
		streamext_mqtt_address_connect(&m->at, true, &connect);
		if (m->at.version == MQTTVERSION_5)
		{
			connect.options.onSuccess5 = sample_on_connect5;
			connect.options.onFailure5 = sample_on_connect_failure5;
		}
		else
		{
			connect.options.onSuccess = sample_on_connect;
			connect.options.onFailure = sample_on_connect_failure;
		}
		connect.options.context = m;
		connect.ssl.ssl_error_cb = sample_on_tls_error;
		connect.ssl.ssl_error_context = m;
		rc = MQTTAsync_connect(m->handle, &connect.options);
		MQTTProperties_free(&connect.properties);
	}
	else
		m->handle = NULL;
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	return rc;
}

/* False: found why not. */
static bool
sample_connect(MqttSample *m, SourceSample *sample)
{
	int rc = sample_start(m);

	if (rc != MQTTASYNC_SUCCESS)
		sample_no(m, &m->connected, streamext_mqtt_address_reason(&m->at, rc));
	else if (!sample_await(m, sample, SAMPLE_CONNECT_MS, sample_has_connected))
		sample_no(m, &m->connected, "the broker does not answer");
	if (m->connected == ANSWER_NO && !m->reached)
	{
		streamext_sample_find(
			sample, "broker", false,
			strstr(m->why, "no connection") == NULL && strstr(m->why, "does not answer") == NULL
				? NULL
				: "See the server's option uri: its host, its port, and ssl:// where the broker speaks TLS.",
			"%s: %s", m->at.uri, m->why);
		return false;
	}
	streamext_sample_find(sample, "broker", true, NULL, "%s", m->at.uri);
	if (m->connected == ANSWER_NO)
		streamext_sample_find(sample, "login", false,
							  "See the user name and password of the user mapping: of the stream's owner, or PUBLIC's.",
							  "%s", m->why);
	else if (m->at.username == NULL)
		streamext_sample_find(sample, "login", true, NULL, "without a user name");
	else
		streamext_sample_find(sample, "login", true, NULL, "as \"%s\"", m->at.username);
	return m->connected == ANSWER_YES;
}

static int
sample_ask(MqttSample *m, const char *topic, int qos, MQTTAsync_onSuccess *yes, MQTTAsync_onSuccess5 *yes5,
		   MQTTAsync_onFailure *no, MQTTAsync_onFailure5 *no5)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;

	options.context = m;
	if (m->at.version == MQTTVERSION_5)
	{
		options.onSuccess5 = yes5;
		options.onFailure5 = no5;
	}
	else
	{
		options.onSuccess = yes;
		options.onFailure = no;
	}
	return MQTTAsync_subscribe(m->handle, topic, qos, &options);
}

static bool
sample_subscribe(MqttSample *m, SourceSample *sample, int qos)
{
	int rc = sample_ask(m, m->filter, qos, sample_on_subscribe, sample_on_subscribe5, sample_on_subscribe_failure,
						sample_on_subscribe_failure5);

	if (rc != MQTTASYNC_SUCCESS)
		sample_no(m, &m->subscribed, streamext_mqtt_address_reason(&m->at, rc));
	else if (!sample_await(m, sample, SAMPLE_ANSWER_MS, sample_has_subscribed))
		sample_no(m, &m->subscribed, m->lost ? "the broker has ended the connection" : "the broker does not answer");
	if (m->subscribed == ANSWER_YES)
		streamext_sample_find(sample, "topic", true, NULL, "the broker has taken the subscription to \"%s\" at QoS %d",
							  m->filter, m->granted);
	else
		streamext_sample_find(sample, "topic", false, "The broker must allow this user to subscribe to the topic.",
							  "the broker has refused the subscription to \"%s\": %s", m->filter, m->why);
	return m->subscribed == ANSWER_YES;
}

/* Brokers refuse in many ways, some in silence: only a marker that is back shows that flush works. */
static void
sample_marker(MqttSample *m, SourceSample *sample)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
	bool					  back;

	if (sample_ask(m, m->marker, 1, sample_on_marker, sample_on_marker5, sample_on_marker_failure,
				   sample_on_marker_failure5) == MQTTASYNC_SUCCESS)
		(void) MQTTAsync_send(m->handle, m->marker, strlen(m->nonce), m->nonce, 1, 0, &options);
	(void) sample_await(m, sample, SAMPLE_ANSWER_MS, sample_has_marker);
	pthread_mutex_lock(&m->mutex);
	back = m->marker_back;
	pthread_mutex_unlock(&m->mutex);
	streamext_sample_find(
		sample, "marker", back,
		"streamext.flush needs it: the broker must allow the user to publish and to read below streamext/flush/.",
		back ? "flush markers of \"%s\" come back" : "a flush marker of \"%s\" has not come back", m->marker);
}

/* Nothing that may raise is done with the mutex. */
static void
sample_keep_all(MqttSample *m, SourceSample *sample)
{
	SampleMessage *messages;

	pthread_mutex_lock(&m->mutex);
	messages = m->messages;
	m->most = 0;
	pthread_mutex_unlock(&m->mutex);
	for (SampleMessage *message = messages; message != NULL; message = message->next)
		streamext_sample_keep(
			sample, &message->record,
			message->packed == NULL ? NULL : streamext_mqtt_properties_json(message->packed, message->packed_size));
}

/* Also where the session ends: no client's threads run on in the process's exit. */
static void
sample_end(int code, Datum arg)
{
	MqttSample				   *m = (MqttSample *) DatumGetPointer(arg);
	MQTTAsync_disconnectOptions disconnect;

	if (m->handle != NULL && MQTTAsync_isConnected(m->handle))
	{
		streamext_mqtt_address_disconnect(&m->at, true, &disconnect);
		disconnect.timeout = 1;
		(void) MQTTAsync_disconnect(m->handle, &disconnect);
		MQTTProperties_free(&disconnect.properties);
		for (int i = 0; i < 100 && MQTTAsync_isConnected(m->handle); i++)
			pg_usleep(SAMPLE_POLL_MS * 1000);
	}
	if (m->handle != NULL)
		MQTTAsync_destroy(&m->handle);
	for (SampleMessage *message = m->messages, *next; message != NULL; message = next)
	{
		next = message->next;
		free(message->packed);
		free(message);
	}
	streamext_mqtt_address_clear(&m->at);
	free(m->filter);
	free(m->marker);
	pthread_mutex_destroy(&m->mutex);
	free(m);
}

static void
sample_set(MqttSample *m, const StreamConfig *config, const SourceSample *sample)
{
	char *password, *problem;

	streamext_mqtt_address_set(&m->at, config, 0);
	if (sample->stream)
		m->marker = sample_strdup(streamext_mqtt_marker_topic(m->at.client_id));
	free(m->at.client_id);
	m->at.client_id = NULL;
	snprintf(m->nonce, sizeof(m->nonce), "sample.%d." INT64_FORMAT, MyProcPid, GetCurrentTimestamp());
	m->at.client_id = sample_strdup(psprintf("streamext_%s", m->nonce));
	/* not one of a group, whose messages others would miss */
	m->filter = sample_strdup(streamext_mqtt_plain_filter(linitial(config->source.topics)));
	m->most = sample->wanted;
	password = streamext_connector_secret(config, "password", "password_file", &problem);
	if (password != NULL)
		m->at.password = sample_strdup(password);
	if (problem != NULL)
		streamext_clip(m->why, problem, sizeof(m->why));
}

static void
sample_look(MqttSample *m, const StreamConfig *config, SourceSample *sample)
{
	sample_set(m, config, sample);
	if (m->why[0] != '\0')
		streamext_sample_find(sample, "login", false, "The file must be below the data directory.", "%s", m->why);
	else if (sample_connect(m, sample) && sample_subscribe(m, sample, config->source.qos))
	{
		if (m->marker != NULL)
			sample_marker(m, sample);
		if (m->most > 0)
			(void) sample_await(m, sample, sample->linger, sample_has_all);
		sample_keep_all(m, sample);
	}
}

void
streamext_mqtt_sample(const StreamConfig *config, SourceSample *sample)
{
	MqttSample *m = calloc(1, sizeof(MqttSample));

	if (m == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	pthread_mutex_init(&m->mutex, NULL);
	PG_ENSURE_ERROR_CLEANUP(sample_end, PointerGetDatum(m));
	{
		sample_look(m, config, sample);
	}
	PG_END_ENSURE_ERROR_CLEANUP(sample_end, PointerGetDatum(m));
	sample_end(0, PointerGetDatum(m));
}
