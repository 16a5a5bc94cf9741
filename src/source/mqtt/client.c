/*
 * source/mqtt/client.c
 *		The MQTT client of a stream: its threads, from the broker into the journal. What it promises is in source/mqtt/client.h.
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

#include "miscadmin.h"
#include "port/atomics.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/fault.h"
#include "base/thread.h"
#include "source/mqtt/client_private.h"
#include "source/mqtt/properties.h"
#include "source/mqtt/topic.h"

#define MQTT_STUCK_MS 30000		 /* an answer that takes longer than this is not coming */
#define MQTT_BRIEF_MS 10000		 /* a connection that does not last longer, */
#define MQTT_BRIEF_LIMIT 3		 /* so often in a row, looks as if two clients had the same id, */
#define MQTT_BRIEF_RETRY_MS 2000 /* which do each other less harm when they try less often */
#define MQTT_MARKER_MS 2000		 /* publish the marker again when it is not back by then */
#define MQTT_MARKER_DOUBT 2		 /* so many that do not come back: the subscription may not be there */
#define MQTT_DISCONNECT_MS 200
#define MQTT_CLOSE_MS 2500 /* paho's receive thread looks up once a second when it is to end */
#define MQTT_EPOCH_SHIFT ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY)

/* A client of this process could not be ended: its thread holds paho's lock. */
static bool mqtt_abandoned = false;

/* Where this process's last client was, NULL: there was none: its session may have to be ended by the next. */
static MqttAddress *mqtt_former = NULL;

/* ---- small things for all threads ---- */

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

/* The connection is gone or did not come about. */
static void
mqtt_lost(MqttClient *m, const char *what, const char *why)
{
	pthread_mutex_lock(&m->mutex);
	if (m->link != MQTT_IDLE)
	{
		streamext_mqtt_set_error(m, what, why);

		/* mosquitto 2.0.11 answers a forbidden message by ending the connection. */
		if (m->link == MQTT_READY && m->flush_published != m->flush_done && m->markers_back == 0 &&
			streamext_mqtt_ms() - m->flush_published_at < MQTT_RETRY_MIN_MS)
			streamext_mqtt_marker_refused(m);
		if (m->link == MQTT_READY)
			m->brief = streamext_mqtt_ms() - m->since < MQTT_BRIEF_MS ? m->brief + 1 : 0;
		if (m->link == MQTT_READY && m->brief >= MQTT_BRIEF_LIMIT)
		{
			streamext_clip_format(
				m->error, sizeof(m->error),
				"the connection is lost again and again, as if another server used the client id \"%s\": %s%s%s",
				m->at.client_id, what, why != NULL ? ": " : "", why != NULL ? why : "");
			m->retry_ms = MQTT_BRIEF_RETRY_MS;
		}
		streamext_mqtt_set_link(m, MQTT_IDLE, m->retry_ms);
		m->retry_ms = Min(m->retry_ms * 2, MQTT_RETRY_MAX_MS);
	}
	pthread_mutex_unlock(&m->mutex);
	streamext_mqtt_signal(m);
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
		streamext_mqtt_set_error(m, "could not write the journal",
								 err == JOURNAL_AT_LIMIT ? "it has reached streamext.journal_limit"
														 : strerror_r(err, reason, sizeof(reason)));
		pthread_mutex_unlock(&m->mutex);
		streamext_mqtt_signal(m);
		sleep(1);
	}
	pthread_mutex_unlock(&m->append_mutex);

	if (failed)
	{
		pthread_mutex_lock(&m->mutex);
		m->append_failing = false;
		pthread_mutex_unlock(&m->mutex);
	}
	streamext_mqtt_signal(m);
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
		m->marker_refused = false;
	}
	pthread_mutex_unlock(&m->mutex);
	streamext_mqtt_signal(m);
}

/* Not in silence: of an earlier subscription some may still have waited at the broker, else its filters mean something else than ours. */
static void
mqtt_unmatched(MqttClient *m, const char *topic)
{
	pthread_mutex_lock(&m->mutex);
	if (m->unmatched++ == 0)
		streamext_clip(m->unmatched_topic, topic, sizeof(m->unmatched_topic));
	pthread_mutex_unlock(&m->mutex);
	streamext_mqtt_signal(m);
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
	else if (!streamext_mqtt_subscription_matches(m->filter, topic))
		mqtt_unmatched(m, topic);
	else if (!(m->again && message->retained != 0) && !streamext_mqtt_seen_before(m->seen, topic, message))
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
	mqtt_lost(context, "the broker ended the connection", streamext_mqtt_reason(context, reason));
}

static void
mqtt_connected(MqttClient *m, int session_present)
{
	/* Packet ids begin anew with a session. Nothing arrives before this callback returns. */
	if (!session_present)
		streamext_mqtt_seen_forget(m->seen);
	m->again = false;
	pthread_mutex_lock(&m->mutex);
	m->present = session_present;
	m->presumed = m->doubted = false;
	m->unanswered = 0;
	streamext_mqtt_set_link(m, MQTT_CONNECTED, 0);
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
		streamext_clip_format(m->tls_error, sizeof(m->tls_error), "%.*s", (int) length, text);
	pthread_mutex_unlock(&m->mutex);
	return 1;
}

/* With the address, which may be what is wrong: for a name that is not known the library says no more than that it failed. */
static void
mqtt_not_connected(MqttClient *m, const char *why)
{
	char what[512];

	streamext_clip_format(what, sizeof(what), "could not connect to the broker %s", m->at.uri);
	mqtt_lost(m, what, why);
}

static void
mqtt_connect_failed(MqttClient *m, int code, const char *message)
{
	char reason[sizeof(m->tls_error)];

	pthread_mutex_lock(&m->mutex);
	streamext_clip(reason, m->tls_error, sizeof(reason));
	m->refused = code > 0;
	pthread_mutex_unlock(&m->mutex);
	if (code > 0 || (reason[0] == '\0' && message == NULL))
		streamext_clip(reason, streamext_mqtt_reason(m, code), sizeof(reason));
	else if (reason[0] == '\0')
		streamext_clip(reason, message, sizeof(reason));
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

static void
mqtt_on_marker_failure5(void *context, MQTTAsync_failureData5 *data)
{
	MqttClient *m = context;

	pthread_mutex_lock(&m->mutex);
	/* an earlier handle's marker with this id may lie unreleased at the broker: the next one has another */
	if (data->reasonCode >= MQTTREASONCODE_UNSPECIFIED_ERROR &&
		data->reasonCode != MQTTREASONCODE_PACKET_IDENTIFIER_IN_USE)
		streamext_mqtt_marker_refused(m);
	pthread_mutex_unlock(&m->mutex);
	streamext_mqtt_signal(m);
}

/* ---- the control thread ---- */

static int
mqtt_connect(MqttClient *m)
{
	MqttConnect connect;
	int			rc;

	streamext_mqtt_address_connect(&m->at, false, &connect);
	if (m->at.version == MQTTVERSION_5)
	{
		connect.options.onSuccess5 = mqtt_on_connect5;
		connect.options.onFailure5 = mqtt_on_connect_failure5;
	}
	else
	{
		connect.options.onSuccess = mqtt_on_connect;
		connect.options.onFailure = mqtt_on_connect_failure;
	}
	connect.options.context = m;
	if (m->at.tls)
	{
		connect.ssl.ssl_error_cb = mqtt_on_tls_error;
		connect.ssl.ssl_error_context = m;
	}
	rc = MQTTAsync_connect(m->handle, &connect.options);
	MQTTProperties_free(&connect.properties);
	return rc;
}

static void
mqtt_publish_marker(MqttClient *m, uint64 ticket)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
	char					  payload[128];
	int						  length = snprintf(payload, sizeof(payload), "%s " UINT64_FORMAT, m->nonce, ticket);

	options.context = m;
	if (m->at.version == MQTTVERSION_5)
		options.onFailure5 = mqtt_on_marker_failure5;

	/* If it fails the marker does not come back, and is published again. */
	(void) MQTTAsync_send(m->handle, m->marker_topic, length, payload, Max(1, m->qos), 0, &options);
}

static int
mqtt_create(MqttClient *m)
{
	MQTTAsync_createOptions options = MQTTAsync_createOptions_initializer;
	int						rc;

	options.MQTTVersion = m->at.version;
	rc = MQTTAsync_createWithOptions(&m->handle, m->at.uri, m->at.client_id, MQTTCLIENT_PERSISTENCE_USER,
									 streamext_mqtt_seen_persistence(m->seen), &options);
	if (rc != MQTTASYNC_SUCCESS)
	{
		m->handle = NULL;
		return rc;
	}
	MQTTAsync_setCallbacks(m->handle, m, mqtt_on_connection_lost, mqtt_on_arrival, NULL);
	if (m->at.version == MQTTVERSION_5)
		MQTTAsync_setDisconnected(m->handle, m, mqtt_on_disconnected);
	return rc;
}

/*
 * A handle for a new connection. paho drops, and acknowledges, a message of QoS 2 with the id of one that was not released, across
 * connections; a broker that has died comes back as it was at its last save and gives the id to another message. So nothing that paho
 * remembers outlives a connection: what is sent again is known by its contents too (source/mqtt/seen.h). With 3.1.1 paho hands a message over
 * at its release, remembers what the broker does not send again, and takes the newest of an id.
 */
static int
mqtt_renew(MqttClient *m)
{
	MQTTAsync former = m->handle;
	int		  rc;

	if (former != NULL && m->at.version != MQTTVERSION_5)
		return MQTTASYNC_SUCCESS;
	rc = mqtt_create(m); /* before the former one goes: with the last one paho's threads end, which takes a second */
	if (former != NULL)
		MQTTAsync_destroy(&former);
	return rc;
}

/*
 * The next thing to do for the link, if it is time; true if something was done. With the mutex held, which is released
 * around calls.
 */
static bool
mqtt_step(MqttClient *m)
{
	int64  now = streamext_mqtt_ms();
	int	   rc = MQTTASYNC_SUCCESS;
	uint64 ticket;

	switch (m->link)
	{
		case MQTT_IDLE:
			if (now < m->due)
				return false;
			streamext_mqtt_set_link(m, MQTT_CONNECTING, 0);
			m->tls_error[0] = '\0';
			m->flush_published = 0; /* may be lost with the connection */
			pthread_mutex_unlock(&m->mutex);
			rc = mqtt_renew(m);
			if (rc == MQTTASYNC_SUCCESS)
				rc = mqtt_connect(m);
			if (rc != MQTTASYNC_SUCCESS)
				mqtt_not_connected(m, streamext_mqtt_reason(m, rc));
			pthread_mutex_lock(&m->mutex);
			break;

		case MQTT_CONNECTED:
			if (now < m->due)
				return false;
			streamext_mqtt_prepare(m);
			break;

		case MQTT_CONNECTING:
		case MQTT_UNSUBSCRIBING:
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
			m->unanswered = ticket == m->flush_published ? m->unanswered + 1 : 0;
			if (m->presumed && m->unanswered >= MQTT_MARKER_DOUBT)
			{
				/* a broker that has crashed may have kept the session and lost what it held */
				m->doubted = true;
				streamext_mqtt_set_link(m, MQTT_CONNECTED, 0);
				break;
			}
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
	bool		forgotten;

	pthread_mutex_lock(&m->mutex);
	while (!m->stop)
	{
		struct timespec until;
		int64			wait_ms = 1000;

		if (mqtt_step(m))
			continue;
		if (m->link == MQTT_IDLE || m->link == MQTT_CONNECTED)
			wait_ms = Max(1, Min(wait_ms, m->due - streamext_mqtt_ms()));
		mqtt_after(CLOCK_MONOTONIC, wait_ms, &until);
		pthread_cond_timedwait(&m->wake, &m->mutex, &until);
	}
	pthread_mutex_unlock(&m->mutex);

	forgotten = m->forget && m->at.version == MQTTVERSION_5 && m->handle != NULL && MQTTAsync_isConnected(m->handle);
	if (m->handle != NULL)
	{
		MQTTAsync_disconnectOptions options;

		streamext_mqtt_address_disconnect(&m->at, m->forget, &options);
		options.timeout = MQTT_DISCONNECT_MS;
		(void) MQTTAsync_disconnect(m->handle, &options);
		MQTTProperties_free(&options.properties);
		for (int waited = 0;
			 MQTTAsync_isConnected(m->handle) && waited < (m->forget ? MQTT_FORGET_MS : 2 * MQTT_DISCONNECT_MS);
			 waited += 5)
			pg_usleep(5000);
		MQTTAsync_destroy(&m->handle);
	}
	/* with 3.1.1, or not connected, there is no other way */
	if (m->forget && !forgotten)
		(void) streamext_mqtt_address_end_session(&m->at, MQTT_END_MS);
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
mqtt_free(MqttClient *m)
{
	streamext_journal_close(m->journal);
	streamext_mqtt_session_close(m->session);
	streamext_mqtt_address_clear(&m->at);
	if (m->former != NULL)
		streamext_mqtt_address_clear(m->former);
	free(m->former);
	free(m->ending);
	free(m->filter);
	free(m->marker_topic);
	free(m->seen);
	free(m);
}

static void
mqtt_set_options(MqttClient *m, const StreamConfig *config, int shard)
{
	streamext_mqtt_address_set(&m->at, config, shard);
	m->filter = mqtt_strdup(streamext_mqtt_subscription(config));
	m->marker_topic = mqtt_strdup(streamext_mqtt_marker_topic(m->at.client_id));
	m->qos = config->source.qos;
	snprintf(m->nonce, sizeof(m->nonce), "%d." INT64_FORMAT, MyProcPid, GetCurrentTimestamp());
}

/*
 * The session that an earlier configuration has left: of this process's last client, whose password is known, else of the one that the file
 * names. For the control thread, which sees whether it is another one.
 */
static void
mqtt_set_former(MqttClient *m)
{
	const char *client_id = streamext_mqtt_session_client(m->session);

	m->former = mqtt_former;
	mqtt_former = NULL;
	if (m->former != NULL || client_id == NULL || strcmp(client_id, m->at.client_id) == 0 ||
		strcmp(streamext_mqtt_session_uri(m->session), m->at.uri) != 0)
		return;
	m->former = streamext_mqtt_address_copy(&m->at);
	if (m->former == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	free(m->former->client_id);
	m->former->client_id = mqtt_strdup(client_id);
}

/* What the broker holds, as it was noted last. */
static void
mqtt_open_session(MqttClient *m, const StreamConfig *config, int shard)
{
	char directory[MAXPGPATH];

	streamext_journal_directory(MyDatabaseId, config->relid, shard, directory);
	m->session = streamext_mqtt_session_open(directory);
	if (m->session == NULL)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not read what the broker of stream \"%s\" holds: %m", config->name)));
	mqtt_set_former(m);
}

void
streamext_mqtt_client_new(MqttClient **client, const ConnectorOpen *args, int wait_fd)
{
	MqttClient *m = calloc(1, sizeof(MqttClient));

	*client = m;
	if (m == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	pthread_mutex_init(&m->append_mutex, NULL);
	pthread_mutex_init(&m->mutex, NULL);
	streamext_thread_cond_init(&m->wake);
	pg_atomic_init_u32(&m->signalled, 0);
	m->retry_ms = MQTT_RETRY_MIN_MS;
	m->wait_fd = wait_fd;
	mqtt_set_options(m, args->config, args->shard);

	m->journal = streamext_journal_open(&args->journal, true);
	if (m->journal == NULL)
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not open the journal of stream \"%s\": %m", args->config->name)));
	mqtt_open_session(m, args->config, args->shard);
	m->seen = streamext_mqtt_seen_new(m->journal, MQTT_RECEIVE_MAXIMUM);
	if (m->seen == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

int
streamext_mqtt_client_start(MqttClient *m, const char *password)
{
	int err;

	m->at.password = mqtt_strdup(password);
	if (m->former != NULL && m->former->password == NULL && strcmp(m->former->uri, m->at.uri) == 0)
		m->former->password = mqtt_strdup(password);
	err = streamext_thread_start(&m->control, mqtt_control, m);
	m->started = err == 0;
	if (err != 0)
	{
		explicit_bzero(m->at.password, password == NULL ? 0 : strlen(password));
		free(m->at.password);
		m->at.password = NULL;
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

	mqtt_after(CLOCK_REALTIME, MQTT_CLOSE_MS + (forget ? MQTT_END_MS : 0), &until);
	if (pthread_timedjoin_np(m->control, NULL, &until) == 0)
	{
		if (!forget)
			mqtt_former = streamext_mqtt_address_copy(&m->at);
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
	streamext_mqtt_signal(m);
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
streamext_mqtt_client_look(MqttClient *m, bool *stalled, bool *refused, uint64 *errors_seen, char *error, size_t size)
{
	bool fresh;

	pthread_mutex_lock(&m->mutex);
	*stalled = m->link != MQTT_READY || m->append_failing;
	*refused = m->refused || m->marker_refused;
	fresh = m->errors != *errors_seen;
	*errors_seen = m->errors;
	streamext_clip(error, m->error, size);
	pthread_mutex_unlock(&m->mutex);
	return fresh;
}

uint64
streamext_mqtt_client_unmatched(MqttClient *m, char *topic, size_t size)
{
	uint64 n;

	pthread_mutex_lock(&m->mutex);
	n = m->unmatched;
	m->unmatched = 0;
	streamext_clip(topic, m->unmatched_topic, size);
	pthread_mutex_unlock(&m->mutex);
	return n;
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
