/*
 * source/mqtt/client.c
 *		The MQTT client of a stream: its threads, from the broker into the journal. What it promises is in mqtt_client.h.
 *
 * Threads: the main thread never calls paho, whose calls take a lock that is held across name look-ups and callbacks. The
 * control thread makes all calls (connect, subscribe, publish, disconnect, destroy), by what the link's state and the main
 * thread's wishes ask for. paho's receive thread runs the callbacks. Control and callbacks make no PostgreSQL call; they share
 * MqttClient, which is malloc'd, under its mutex. All signals are masked in all of them.
 *
 * Lock order: paho's own lock (held in callbacks), append_mutex, mutex. The control thread holds none when it calls paho.
 *
 * Never acknowledged falsely: paho acknowledges after the arrival callback whatever it returns, so a callback that cannot
 * write the journal does not return. It tries again each second; the broker ends the connection meanwhile and sends again
 * what was not acknowledged. If the client is ended in that state, it is abandoned: the callback sleeps for ever, the process must
 * end soon, and a second client in it is refused.
 *
 * flush: a marker through the broker, published to and subscribed at a topic of the client's own, comes back after all that the
 * broker held for this session; the journal's end at that moment is the target.
 */
#include "base/streamext.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <MQTTAsync.h>

#include "miscadmin.h"
#include "port/atomics.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "source/mqtt/client.h"
#include "source/mqtt/properties.h"
#include "source/mqtt/seen.h"
#include "source/mqtt/topic.h"

#define MQTT_SESSION_EXPIRY (7 * SECS_PER_DAY) /* seconds the broker keeps the session of a client that is away */
#define MQTT_RECEIVE_MAXIMUM 16384			   /* unacknowledged messages; see source/mqtt/seen.h */
#define MQTT_KEEPALIVE 10					   /* seconds */
#define MQTT_CONNECT_TIMEOUT 5				   /* seconds */
#define MQTT_STUCK_MS 30000					   /* an answer that takes longer than this is not coming */
#define MQTT_RETRY_MIN_MS 250
#define MQTT_RETRY_MAX_MS 5000
#define MQTT_BRIEF_MS 10000			 /* a connection that does not last longer, */
#define MQTT_BRIEF_LIMIT 3			 /* so often in a row, looks as if two clients had the same id, */
#define MQTT_BRIEF_RETRY_MS 2000	 /* which do each other less harm when they try less often */
#define MQTT_MARKER_MS 2000			 /* publish the marker again when it is not back by then, */
#define MQTT_MARKER_REFUSED_MS 30000 /* or by then if the broker seems to refuse it */
#define MQTT_DISCONNECT_MS 200
#define MQTT_FORGET_MS \
	1200 /* for a DISCONNECT that ends the session; the one that destroying the client sends does not */
#define MQTT_CLOSE_MS 2500 /* paho's receive thread looks up once a second when it is to end */
#define MQTT_EPOCH_SHIFT ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

typedef enum MqttLink
{
	MQTT_IDLE, /* not connected; connect at `due` */
	MQTT_CONNECTING,
	MQTT_CONNECTED, /* subscribe at `due` */
	MQTT_SUBSCRIBING,
	MQTT_READY
} MqttLink;

struct MqttClient
{
	/* set before the threads start */
	char	   *uri, *client_id, *filter, *marker_topic, *username, *password, *ca, *certificate, *key, *key_password;
	const char *plain_filter; /* within filter: what topics are matched with */
	bool		tls, verify_host;
	int			version, /* MQTTVERSION_ */
		qos;
	char	  nonce[64]; /* tells this client's markers from an earlier one's */
	Journal	 *journal;
	int		  wait_fd;
	pthread_t control;
	bool	  started; /* the control thread, main thread */
	bool	  forget;  /* with stop: the broker need not keep the session */

	pg_atomic_uint32 signalled; /* wait_fd was written since the last poll */

	MQTTAsync handle; /* control thread */

	MqttSeen *seen; /* receive thread */

	pthread_mutex_t append_mutex;
	bool			abandoned; /* append_mutex: nothing may be appended any more */

	pthread_mutex_t mutex;
	pthread_cond_t	wake; /* the control thread */
	bool			stop;
	MqttLink		link;
	int64			since; /* ms: the link is in its state since */
	int64			due;   /* ms */
	int				retry_ms;
	int				brief; /* connections in a row */
	bool			append_failing;
	char			error[STREAMEXT_MAX_MESSAGE];
	uint64			errors;
	char			tls_error[128]; /* of this attempt to connect; "" none */
	uint64			flush_wanted,	/* tickets; 0: none */
		flush_published, flush_done;
	int64 flush_published_at, /* ms */
		flush_due;			  /* ms: publish the marker no sooner */
	int64  flush_position;
	uint64 markers_back; /* how many came back, ever */
};

/* A client of this process could not be ended: its thread holds paho's lock. */
static bool mqtt_abandoned = false;

/* ---- small things for all threads ---- */

static int64
mqtt_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void
mqtt_after(clockid_t clock, int64 ms, struct timespec *until)
{
	clock_gettime(clock, until);
	ms += until->tv_nsec / 1000000;
	until->tv_sec += ms / 1000;
	until->tv_nsec = ms % 1000 * 1000000 + until->tv_nsec % 1000000;
}

static TimestampTz
mqtt_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return ((TimestampTz) now.tv_sec - MQTT_EPOCH_SHIFT) * USECS_PER_SEC + now.tv_nsec / 1000;
}

/* Makes wait_fd readable; one system call for all messages between two polls. */
static void
mqtt_signal(MqttClient *m)
{
	uint64 one = 1;

	if (pg_atomic_exchange_u32(&m->signalled, 1) == 0 && write(m->wait_fd, &one, sizeof(one)) < 0)
		return; /* full: it is readable */
}

static void
mqtt_set_link(MqttClient *m, MqttLink link, int delay_ms)
{
	m->link = link;
	m->since = mqtt_ms();
	m->due = m->since + delay_ms;
	pthread_cond_signal(&m->wake);
}

static void
mqtt_set_error(MqttClient *m, const char *what, const char *why)
{
	snprintf(m->error, sizeof(m->error), why != NULL && why[0] != '\0' ? "%s: %s" : "%s", what, why);
	m->errors++;
}

/* A flush cannot work, which must not keep the stream from its records. */
static void
mqtt_marker_refused(MqttClient *m)
{
	mqtt_set_error(m, "the broker must allow this client to publish flush markers and to read them", m->marker_topic);
	m->flush_due = mqtt_ms() + MQTT_MARKER_REFUSED_MS;
}

/* The connection is gone or did not come about. */
static void
mqtt_lost(MqttClient *m, const char *what, const char *why)
{
	pthread_mutex_lock(&m->mutex);
	if (m->link != MQTT_IDLE)
	{
		mqtt_set_error(m, what, why);

		/* mosquitto 2.0.11 answers a forbidden message by ending the connection. */
		if (m->link == MQTT_READY && m->flush_published != m->flush_done && m->markers_back == 0 &&
			mqtt_ms() - m->flush_published_at < MQTT_RETRY_MIN_MS)
			mqtt_marker_refused(m);
		if (m->link == MQTT_READY)
			m->brief = mqtt_ms() - m->since < MQTT_BRIEF_MS ? m->brief + 1 : 0;
		if (m->link == MQTT_READY && m->brief >= MQTT_BRIEF_LIMIT)
		{
			snprintf(m->error, sizeof(m->error),
					 "the connection is lost again and again, as if another server used the client id \"%s\": %s",
					 m->client_id, what);
			m->retry_ms = MQTT_BRIEF_RETRY_MS;
		}
		mqtt_set_link(m, MQTT_IDLE, m->retry_ms);
		m->retry_ms = Min(m->retry_ms * 2, MQTT_RETRY_MAX_MS);
	}
	pthread_mutex_unlock(&m->mutex);
	mqtt_signal(m);
}

/* What a code of CONNACK, SUBACK or the library means. */
static const char *
mqtt_reason(const MqttClient *m, int code)
{
	static const char *const connack[] = { "unacceptable protocol version", "client id rejected", "server unavailable",
										   "not authorised (bad user name or password)", "not authorised" };
	const char				*text;

	if (code == MQTTASYNC_FAILURE)
		text = "no connection";
	else if (code < 0)
		text = MQTTAsync_strerror(code);
	else if (code == MQTTREASONCODE_BAD_USER_NAME_OR_PASSWORD)
		text = "not authorised (bad user name or password)";
	else if (code == MQTTREASONCODE_NOT_AUTHORIZED)
		text = "not authorised";
	else if (m->version == MQTTVERSION_5)
		text = MQTTReasonCode_toString(code);
	else
		text = code >= 1 && code <= 5 ? connack[code - 1] : NULL;
	return text != NULL ? text : "unknown reason";
}

/* ---- arrival (paho's receive thread) ---- */

/* Returns when the record is in the journal, and never else. */
static void
mqtt_append(MqttClient *m, const JournalRecord *record)
{
	bool failed = false;

	for (;;)
	{
		char reason[128];
		int	 err;

		pthread_mutex_lock(&m->append_mutex);
		if (!m->abandoned && streamext_journal_append(m->journal, record, 1))
			break;
		err = errno;
		if (m->abandoned)
		{
			pthread_mutex_unlock(&m->append_mutex);
			for (;;)
				pause();
		}
		pthread_mutex_unlock(&m->append_mutex);

		pthread_mutex_lock(&m->mutex);
		m->append_failing = failed = true;
		mqtt_set_error(m, "could not write the journal",
					   err == JOURNAL_AT_LIMIT ? "it has reached streamext.journal_limit"
											   : strerror_r(err, reason, sizeof(reason)));
		pthread_mutex_unlock(&m->mutex);
		mqtt_signal(m);
		sleep(1);
	}
	pthread_mutex_unlock(&m->append_mutex);

	if (failed)
	{
		pthread_mutex_lock(&m->mutex);
		m->append_failing = false;
		pthread_mutex_unlock(&m->mutex);
	}
	mqtt_signal(m);
}

/* A marker is back: all that came before it is in the journal. */
static void
mqtt_marker(MqttClient *m, const MQTTAsync_message *message)
{
	char   text[128];
	size_t nonce = strlen(m->nonce);
	uint64 ticket;

	if (message->payloadlen >= (int) sizeof(text))
		return;
	memcpy(text, message->payload, message->payloadlen);
	text[message->payloadlen] = '\0';
	if (strncmp(text, m->nonce, nonce) != 0 || text[nonce] != ' ')
		return;
	ticket = strtoull(text + nonce + 1, NULL, 10);

	pthread_mutex_lock(&m->mutex);
	if (ticket == m->flush_wanted && m->flush_done != ticket)
	{
		m->flush_done = ticket;
		m->flush_position = streamext_journal_end(m->journal);
		m->markers_back++;
	}
	pthread_mutex_unlock(&m->mutex);
	mqtt_signal(m);
}

static int
mqtt_on_arrival(void *context, char *topic, int topic_length, MQTTAsync_message *message)
{
	MqttClient	 *m = context;
	JournalRecord record = { 0 };
	char		 *packed = NULL;

	if (strncmp(topic, MQTT_MARKER_PREFIX, strlen(MQTT_MARKER_PREFIX)) == 0)
	{
		if (strcmp(topic, m->marker_topic) == 0)
			mqtt_marker(m, message);
	}
	else if (streamext_mqtt_matches(m->plain_filter, topic) && /* the session may hold an older subscription */
			 !streamext_mqtt_seen_before(m->seen, topic, message))
	{
		STREAMEXT_FAULT_THREAD("mqtt-before-append");
		record.timestamp = mqtt_now();
		record.qos = message->qos;
		record.retained = message->retained != 0;
		record.packet_id = message->qos > 0 ? message->msgid : 0;
		record.topic = topic;
		record.topic_size = strlen(topic);
		packed = streamext_mqtt_properties_pack(topic, &message->properties, &record.topic_size);
		if (packed != NULL)
			record.topic = packed;
		record.payload = message->payload;
		record.payload_size = message->payloadlen;
		mqtt_append(m, &record);
		STREAMEXT_FAULT_THREAD("mqtt-after-append");
	}
	free(packed);
	MQTTAsync_freeMessage(&message);
	MQTTAsync_free(topic);
	return 1;
}

/* ---- other callbacks ---- */

static void
mqtt_on_connection_lost(void *context, char *cause)
{
	mqtt_lost(context, "connection to the broker lost", cause);
}

static void
mqtt_on_disconnected(void *context, MQTTProperties *properties, enum MQTTReasonCodes reason)
{
	mqtt_lost(context, "the broker ended the connection", mqtt_reason(context, reason));
}

static void
mqtt_connected(MqttClient *m, int session_present)
{
	/* Packet ids begin anew with a session. Nothing arrives before this callback returns. */
	if (!session_present)
		streamext_mqtt_seen_forget(m->seen);
	pthread_mutex_lock(&m->mutex);
	mqtt_set_link(m, MQTT_CONNECTED, 0);
	pthread_mutex_unlock(&m->mutex);
}

static void
mqtt_on_connect(void *context, MQTTAsync_successData *data)
{
	mqtt_connected(context, data->alt.connect.sessionPresent);
}

static void
mqtt_on_connect5(void *context, MQTTAsync_successData5 *data)
{
	mqtt_connected(context, data->alt.connect.sessionPresent);
}

/* A line of OpenSSL's error queue; the first one says what is wrong. */
static int
mqtt_on_tls_error(const char *text, size_t length, void *context)
{
	MqttClient *m = context;

	pthread_mutex_lock(&m->mutex);
	if (m->tls_error[0] == '\0')
		snprintf(m->tls_error, sizeof(m->tls_error), "%.*s", (int) length, text);
	pthread_mutex_unlock(&m->mutex);
	return 1;
}

/* With the address, which may be what is wrong: for a name that is not known the library says no more than that it failed. */
static void
mqtt_not_connected(MqttClient *m, const char *why)
{
	char what[512];

	snprintf(what, sizeof(what), "could not connect to the broker %s", m->uri);
	mqtt_lost(m, what, why);
}

static void
mqtt_connect_failed(MqttClient *m, int code, const char *message)
{
	char reason[sizeof(m->tls_error)];

	pthread_mutex_lock(&m->mutex);
	strlcpy(reason, m->tls_error, sizeof(reason));
	pthread_mutex_unlock(&m->mutex);
	if (code > 0 || (reason[0] == '\0' && message == NULL))
		strlcpy(reason, mqtt_reason(m, code), sizeof(reason));
	else if (reason[0] == '\0')
		strlcpy(reason, message, sizeof(reason));
	mqtt_not_connected(m, reason);
}

static void
mqtt_on_connect_failure(void *context, MQTTAsync_failureData *data)
{
	mqtt_connect_failed(context, data->code, data->message);
}

static void
mqtt_on_connect_failure5(void *context, MQTTAsync_failureData5 *data)
{
	mqtt_connect_failed(context, data->code, data->message);
}

/* The broker's answers for the filter and the marker's topic: granted QoS, or a reason of 0x80 and above. */
static void
mqtt_subscribed(MqttClient *m, int filter, int marker)
{
	pthread_mutex_lock(&m->mutex);
	if (m->link == MQTT_SUBSCRIBING)
	{
		if (filter >= MQTTREASONCODE_UNSPECIFIED_ERROR)
		{
			mqtt_set_error(m, "the broker refused the subscription", mqtt_reason(m, filter));
			mqtt_set_link(m, MQTT_CONNECTED, MQTT_RETRY_MAX_MS);
		}
		else
		{
			if (marker >= MQTTREASONCODE_UNSPECIFIED_ERROR)
				mqtt_marker_refused(m);
			else if (filter < m->qos)
				mqtt_set_error(m, "the broker granted a lower QoS than asked for", NULL);
			m->retry_ms = MQTT_RETRY_MIN_MS;
			m->flush_published = m->flush_done; /* again, in this connection */
			mqtt_set_link(m, MQTT_READY, 0);
		}
	}
	pthread_mutex_unlock(&m->mutex);
	mqtt_signal(m);
}

static void
mqtt_subscribe_failed(MqttClient *m, const char *why)
{
	pthread_mutex_lock(&m->mutex);
	if (m->link == MQTT_SUBSCRIBING)
	{
		mqtt_set_error(m, "could not subscribe", why);
		mqtt_set_link(m, MQTT_CONNECTED, MQTT_RETRY_MAX_MS);
	}
	pthread_mutex_unlock(&m->mutex);
	mqtt_signal(m);
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
	mqtt_subscribe_failed(context, mqtt_reason(context, data->code));
}

static void
mqtt_on_subscribe_failure5(void *context, MQTTAsync_failureData5 *data)
{
	int code = data->reasonCode != MQTTREASONCODE_SUCCESS ? (int) data->reasonCode : data->code;

	mqtt_subscribe_failed(context, mqtt_reason(context, code));
}

static void
mqtt_on_marker_failure5(void *context, MQTTAsync_failureData5 *data)
{
	MqttClient *m = context;

	pthread_mutex_lock(&m->mutex);
	if (data->reasonCode >= MQTTREASONCODE_UNSPECIFIED_ERROR)
		mqtt_marker_refused(m);
	pthread_mutex_unlock(&m->mutex);
	mqtt_signal(m);
}

/* ---- the control thread ---- */

static void
mqtt_add_property(MQTTProperties *properties, enum MQTTPropertyCodes code, uint32 value)
{
	MQTTProperty property = { 0 };

	property.identifier = code;
	if (code == MQTTPROPERTY_CODE_RECEIVE_MAXIMUM)
		property.value.integer2 = (unsigned short) value;
	else
		property.value.integer4 = value;
	MQTTProperties_add(properties, &property);
}

static int
mqtt_connect(MqttClient *m)
{
	MQTTAsync_connectOptions options = MQTTAsync_connectOptions_initializer;
	MQTTAsync_connectOptions options5 = MQTTAsync_connectOptions_initializer5;
	MQTTAsync_SSLOptions	 ssl = MQTTAsync_SSLOptions_initializer;
	MQTTProperties			 properties = MQTTProperties_initializer;
	int						 rc;

	if (m->version == MQTTVERSION_5)
	{
		options = options5;
		options.cleanstart = 0;
		options.onSuccess5 = mqtt_on_connect5;
		options.onFailure5 = mqtt_on_connect_failure5;
		mqtt_add_property(&properties, MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, MQTT_SESSION_EXPIRY);
		mqtt_add_property(&properties, MQTTPROPERTY_CODE_RECEIVE_MAXIMUM, MQTT_RECEIVE_MAXIMUM);
		options.connectProperties = &properties;
	}
	else
	{
		options.MQTTVersion = MQTTVERSION_3_1_1;
		options.cleansession = 0;
		options.onSuccess = mqtt_on_connect;
		options.onFailure = mqtt_on_connect_failure;
	}
	options.keepAliveInterval = MQTT_KEEPALIVE;
	options.connectTimeout = MQTT_CONNECT_TIMEOUT;
	options.username = m->username;
	options.password = m->password;
	options.context = m;
	if (m->tls)
	{
		ssl.trustStore = m->ca;
		ssl.keyStore = m->certificate;
		ssl.privateKey = m->key;
		ssl.privateKeyPassword = m->key_password;
		ssl.enableServerCertAuth = 1;
		ssl.verify = m->verify_host;
		ssl.ssl_error_cb = mqtt_on_tls_error;
		ssl.ssl_error_context = m;
		options.ssl = &ssl;
	}
	rc = MQTTAsync_connect(m->handle, &options);
	MQTTProperties_free(&properties);
	return rc;
}

static int
mqtt_subscribe(MqttClient *m)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
	MQTTSubscribe_options	  each = MQTTSubscribe_options_initializer;
	MQTTSubscribe_options	  list[2];
	char					 *topics[2];
	int						  qos[2];

	topics[0] = m->filter;
	topics[1] = m->marker_topic;
	qos[0] = m->qos;
	qos[1] = Max(1, m->qos);
	options.context = m;
	if (m->version == MQTTVERSION_5)
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

static void
mqtt_publish_marker(MqttClient *m, uint64 ticket)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
	char					  payload[128];
	int						  length = snprintf(payload, sizeof(payload), "%s " UINT64_FORMAT, m->nonce, ticket);

	options.context = m;
	if (m->version == MQTTVERSION_5)
		options.onFailure5 = mqtt_on_marker_failure5;

	/* If it fails the marker does not come back, and is published again. */
	(void) MQTTAsync_send(m->handle, m->marker_topic, length, payload, Max(1, m->qos), 0, &options);
}

static int
mqtt_create(MqttClient *m)
{
	MQTTAsync_createOptions options = MQTTAsync_createOptions_initializer;
	int						rc;

	options.MQTTVersion = m->version;
	rc = MQTTAsync_createWithOptions(&m->handle, m->uri, m->client_id, MQTTCLIENT_PERSISTENCE_USER,
									 streamext_mqtt_seen_persistence(m->seen), &options);
	if (rc != MQTTASYNC_SUCCESS)
	{
		m->handle = NULL;
		return rc;
	}
	MQTTAsync_setCallbacks(m->handle, m, mqtt_on_connection_lost, mqtt_on_arrival, NULL);
	if (m->version == MQTTVERSION_5)
		MQTTAsync_setDisconnected(m->handle, m, mqtt_on_disconnected);
	return rc;
}

/*
 * The next thing to do for the link, if it is time; true if something was done. With the mutex held, which is released
 * around calls.
 */
static bool
mqtt_step(MqttClient *m)
{
	int64  now = mqtt_ms();
	int	   rc = MQTTASYNC_SUCCESS;
	uint64 ticket;

	switch (m->link)
	{
		case MQTT_IDLE:
			if (now < m->due)
				return false;
			mqtt_set_link(m, MQTT_CONNECTING, 0);
			m->tls_error[0] = '\0';
			pthread_mutex_unlock(&m->mutex);
			if (m->handle == NULL)
				rc = mqtt_create(m);
			if (rc == MQTTASYNC_SUCCESS)
				rc = mqtt_connect(m);
			if (rc != MQTTASYNC_SUCCESS)
				mqtt_not_connected(m, mqtt_reason(m, rc));
			pthread_mutex_lock(&m->mutex);
			break;

		case MQTT_CONNECTED:
			if (now < m->due)
				return false;
			mqtt_set_link(m, MQTT_SUBSCRIBING, 0);
			pthread_mutex_unlock(&m->mutex);
			rc = mqtt_subscribe(m);
			if (rc != MQTTASYNC_SUCCESS)
				mqtt_subscribe_failed(m, mqtt_reason(m, rc));
			pthread_mutex_lock(&m->mutex);
			break;

		case MQTT_CONNECTING:
		case MQTT_SUBSCRIBING:
			if (now - m->since < MQTT_STUCK_MS || m->append_failing)
				return false;
			pthread_mutex_unlock(&m->mutex);
			MQTTAsync_destroy(&m->handle);
			m->handle = NULL;
			mqtt_lost(m, "the broker does not answer", NULL);
			pthread_mutex_lock(&m->mutex);
			break;

		case MQTT_READY:
			ticket = m->flush_wanted;
			if (ticket == m->flush_done || now < m->flush_due ||
				(ticket == m->flush_published && now - m->flush_published_at < MQTT_MARKER_MS))
				return false;
			m->flush_published = ticket;
			m->flush_published_at = now;
			pthread_mutex_unlock(&m->mutex);
			mqtt_publish_marker(m, ticket);
			pthread_mutex_lock(&m->mutex);
			break;
	}
	return true;
}

static void *
mqtt_control(void *arg)
{
	MqttClient *m = arg;

	pthread_mutex_lock(&m->mutex);
	while (!m->stop)
	{
		struct timespec until;
		int64			wait_ms = 1000;

		if (mqtt_step(m))
			continue;
		if (m->link == MQTT_IDLE || m->link == MQTT_CONNECTED)
			wait_ms = Max(1, Min(wait_ms, m->due - mqtt_ms()));
		mqtt_after(CLOCK_MONOTONIC, wait_ms, &until);
		pthread_cond_timedwait(&m->wake, &m->mutex, &until);
	}
	pthread_mutex_unlock(&m->mutex);

	if (m->handle != NULL)
	{
		MQTTAsync_disconnectOptions options = MQTTAsync_disconnectOptions_initializer;
		MQTTAsync_disconnectOptions options5 = MQTTAsync_disconnectOptions_initializer5;

		if (m->version == MQTTVERSION_5)
			options = options5;
		if (m->version == MQTTVERSION_5 && m->forget)
			mqtt_add_property(&options.properties, MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, 0);
		options.timeout = MQTT_DISCONNECT_MS;
		(void) MQTTAsync_disconnect(m->handle, &options);
		for (int waited = 0;
			 MQTTAsync_isConnected(m->handle) && waited < (m->forget ? MQTT_FORGET_MS : 2 * MQTT_DISCONNECT_MS);
			 waited += 5)
			pg_usleep(5000);
		MQTTAsync_destroy(&m->handle);
	}
	return NULL;
}

/* ---- starting and ending the client (main thread) ---- */

static char *
mqtt_strdup(const char *text)
{
	char *copy = text == NULL ? NULL : strdup(text);

	if (text != NULL && copy == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return copy;
}

static void
mqtt_free_secret(char *secret)
{
	if (secret != NULL)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

static void
mqtt_free(MqttClient *m)
{
	streamext_journal_close(m->journal);
	free(m->uri);
	free(m->client_id);
	free(m->filter);
	free(m->marker_topic);
	free(m->username);
	mqtt_free_secret(m->password);
	free(m->ca);
	free(m->certificate);
	free(m->key);
	mqtt_free_secret(m->key_password);
	free(m->seen);
	free(m);
}

static void
mqtt_set_options(MqttClient *m, const StreamConfig *config, int shard)
{
	const char *identification = streamext_option(config->server_options, "ssl_endpoint_identification_algorithm");
	char	   *client_id = streamext_mqtt_client_id(config, shard);

	m->uri = mqtt_strdup(streamext_option(config->server_options, "uri"));
	m->client_id = mqtt_strdup(client_id);
	m->filter = mqtt_strdup(streamext_mqtt_subscription(config));
	m->plain_filter = streamext_mqtt_plain_filter(m->filter);
	m->marker_topic = mqtt_strdup(streamext_mqtt_marker_topic(client_id));
	m->username = mqtt_strdup(streamext_option(config->user_options, "username"));
	m->ca = mqtt_strdup(streamext_option(config->server_options, "ssl_ca_location"));
	m->certificate = mqtt_strdup(streamext_option(config->server_options, "ssl_certificate_location"));
	m->key = mqtt_strdup(streamext_option(config->server_options, "ssl_key_location"));
	m->key_password = mqtt_strdup(streamext_option(config->user_options, "ssl_key_password"));
	m->tls = strncmp(m->uri, "ssl://", 6) == 0 || strncmp(m->uri, "mqtts://", 8) == 0;
	m->verify_host = identification == NULL || strcmp(identification, "none") != 0;
	m->version = config->mqtt_protocol == 5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
	m->qos = config->qos;
	snprintf(m->nonce, sizeof(m->nonce), "%d." INT64_FORMAT, MyProcPid, GetCurrentTimestamp());
}

void
streamext_mqtt_client_new(MqttClient **client, const ConnectorOpen *args, int wait_fd)
{
	MqttClient		  *m = calloc(1, sizeof(MqttClient));
	pthread_condattr_t attributes;

	*client = m;
	if (m == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	pthread_mutex_init(&m->append_mutex, NULL);
	pthread_mutex_init(&m->mutex, NULL);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&m->wake, &attributes);
	pthread_condattr_destroy(&attributes);
	pg_atomic_init_u32(&m->signalled, 0);
	m->retry_ms = MQTT_RETRY_MIN_MS;
	m->wait_fd = wait_fd;
	mqtt_set_options(m, args->config, args->shard);

	m->journal = streamext_journal_open(&args->journal, true);
	if (m->journal == NULL)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not open the journal of stream \"%s\": %m", args->config->name)));
	m->seen = streamext_mqtt_seen_new(m->journal, MQTT_RECEIVE_MAXIMUM);
	if (m->seen == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

int
streamext_mqtt_client_start(MqttClient *m, const char *password)
{
	sigset_t all, saved;
	int		 err;

	m->password = mqtt_strdup(password);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	err = pthread_create(&m->control, NULL, mqtt_control, m);
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	m->started = err == 0;
	if (err != 0)
	{
		mqtt_free_secret(m->password);
		m->password = NULL;
	}
	return err;
}

bool
streamext_mqtt_client_end(MqttClient *m, bool forget)
{
	struct timespec until;

	if (!m->started)
	{
		mqtt_free(m);
		return true;
	}
	pthread_mutex_lock(&m->mutex);
	m->stop = true;
	m->forget = forget;
	pthread_cond_signal(&m->wake);
	pthread_mutex_unlock(&m->mutex);

	mqtt_after(CLOCK_REALTIME, MQTT_CLOSE_MS, &until);
	if (pthread_timedjoin_np(m->control, NULL, &until) == 0)
	{
		mqtt_free(m);
		return true;
	}

	/* From here on its threads touch neither the journal nor shared memory. */
	pthread_mutex_lock(&m->append_mutex);
	m->abandoned = true;
	pthread_mutex_unlock(&m->append_mutex);
	pthread_detach(m->control);
	mqtt_abandoned = true;
	return false;
}

/* ---- what the main thread asks and learns ---- */

bool
streamext_mqtt_client_started(const MqttClient *m)
{
	return m->started;
}

Journal *
streamext_mqtt_client_journal(MqttClient *m)
{
	return m->journal;
}

void
streamext_mqtt_client_wake_reader(MqttClient *m)
{
	mqtt_signal(m);
}

void
streamext_mqtt_client_drain(MqttClient *m)
{
	uint64 count;

	/* In this order: what is appended from here on signals again. */
	(void) pg_atomic_exchange_u32(&m->signalled, 0);
	if (read(m->wait_fd, &count, sizeof(count)) < 0)
		count = 0; /* EAGAIN: nothing there */
}

bool
streamext_mqtt_client_look(MqttClient *m, bool *stalled, uint64 *errors_seen, char *error, size_t size)
{
	bool fresh;

	pthread_mutex_lock(&m->mutex);
	*stalled = m->link != MQTT_READY || m->append_failing;
	fresh = m->errors != *errors_seen;
	*errors_seen = m->errors;
	strlcpy(error, m->error, size);
	pthread_mutex_unlock(&m->mutex);
	return fresh;
}

bool
streamext_mqtt_client_flush(MqttClient *m, uint64 ticket, int64 *position)
{
	bool done;

	pthread_mutex_lock(&m->mutex);
	if (m->flush_wanted != ticket)
	{
		m->flush_wanted = ticket;
		pthread_cond_signal(&m->wake);
	}
	done = m->flush_done == ticket;
	*position = m->flush_position;
	pthread_mutex_unlock(&m->mutex);
	return done;
}

bool
streamext_mqtt_client_abandoned(void)
{
	return mqtt_abandoned;
}
