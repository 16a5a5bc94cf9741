/*
 * sink/mqtt.c
 *		Rows to an MQTT broker, in order: at least once with qos 1 and 2, at most once with 0.
 *
 * A client of its own beside the stream's, without a session: what the broker has not acknowledged when a connection ends is sent again.
 *
 * The topic is the option publish_topic, in which {column} stands for the row's value, else the stream's own if it is no filter.
 *
 * What MQTT cannot carry is never sent: the broker would end the connection, and all that is behind it would wait for good.
 */
#include "base/streamext.h"

#include <MQTTAsync.h>

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/clip.h"
#include "sink/transport.h"
#include "source/mqtt/address.h"
#include "source/mqtt/options.h"

#define MQTT_SINK_SET 100
#define MQTT_SINK_UNDER_WAY \
	16 /* messages without an acknowledgement: beyond the broker's receive maximum the library waits a second each time */
#define MQTT_SINK_PATIENCE_MS 10000
#define MQTT_SINK_LOOK_US 250
#define MQTT_SINK_MAX_PACKET 268435455 /* bytes that a packet can say it has; the library keeps to no such bound */
#define MQTT_SINK_MAX_TEXT 65535	   /* bytes of a topic, or of a header's name or value */
#define MQTT_SINK_UNANSWERED -1
#define MQTT_SINK_FILTER "+#"
#define MQTT_SINK_NO_VALUE "+"	 /* in a topic, of a value that is NULL or empty */
#define MQTT_SINK_MAX_LEVELS 200 /* of a topic; more than mosquitto takes */

typedef struct MqttSink
{
	Transport	 transport;
	MqttAddress *address;
	MQTTAsync	 handle; /* NULL: none */
	char		*topic;	 /* where messages without one of their own go; or NULL */
	int			 qos;
	bool		 retained;
	bool		 chosen; /* rows choose their topics */

	/* written by a thread of the library's */
	volatile int under_way;				 /* messages that may be, lowered to what the broker says */
	volatile int largest;				 /* packet that the broker takes; 0: any */
	volatile int reasons[MQTT_SINK_SET]; /* what the broker has answered to a message of the set, of MQTT 5 */
} MqttSink;

/* ---------------------------------------------------------------- topics; in a session */

static const char *
mqtt_sink_template(const StreamConfig *config)
{
	const char *template = streamext_option(config->table_options, "publish_topic");
	const char *topic = linitial(config->source.topics);

	if (template != NULL)
		return template;
	return strpbrk(topic, MQTT_SINK_FILTER) == NULL && topic[0] != '$' ? topic : NULL;
}

/* The number of {column}; raises. */
static int
mqtt_sink_column(const StreamConfig *config, const char *name)
{
	for (int i = 0; i < config->desc->natts; i++)
		if (!config->columns[i].dropped && strcmp(config->columns[i].name, name) == 0)
			return i;
	ereport(ERROR, (errcode(ERRCODE_UNDEFINED_COLUMN),
					errmsg("option publish_topic names column \"%s\", which stream \"%s\" does not have", name,
						   config->name)));
	return -1; /* not reached */
}

/* The name behind the brace that *at points to, which goes behind it; NULL: there is none. */
static char *
mqtt_sink_name(const char **at)
{
	const char *begin = *at + 1;
	const char *end = **at == '{' ? strchr(begin, '}') : NULL;

	if (end == NULL)
		return NULL;
	*at = end + 1;
	return pnstrdup(begin, end - begin);
}

static void
mqtt_sink_check(const StreamConfig *config)
{
	const char *template = mqtt_sink_template(config);

	while (template != NULL && *template != '\0')
	{
		const char *name = mqtt_sink_name(&template);

		if (name != NULL)
			(void) mqtt_sink_column(config, name);
		else
			template ++;
	}
	if (template == NULL)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot insert into stream \"%s\", whose topic is a filter", config->name),
						errhint("Say with the option publish_topic where rows go, like 'plant/{site}/state'.")));
}

/*
 * The row's value of {column}. A view's rows are made of what publishers send: what makes no topic is then none that is published to, so that it
 * is the row's trouble and neither the view's nor the alert's.
 */
static char *
mqtt_sink_value(const StreamConfig *config, const char *name, const Datum *values, const bool *nulls, bool strict)
{
	int	  i = mqtt_sink_column(config, name);
	Oid	  output;
	bool  is_varlena;
	char *text;

	if (nulls[i] && !strict)
		return pstrdup(MQTT_SINK_NO_VALUE);
	if (nulls[i])
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("column \"%s\" is NULL, which makes no topic", name)));
	getTypeOutputInfo(config->columns[i].type, &output, &is_varlena);
	text = OidOutputFunctionCall(output, values[i]);
	if (text[0] == '\0' && !strict)
		return pstrdup(MQTT_SINK_NO_VALUE);
	if (strict && (text[0] == '\0' || strpbrk(text, MQTT_SINK_FILTER) != NULL))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the value of column \"%s\" cannot be part of a topic", name),
						errdetail("It is empty or holds + or #, which are of filters.")));
	return text;
}

static char *
mqtt_sink_topic(const StreamConfig *config, const Datum *values, const bool *nulls, bool strict)
{
	const char *template = mqtt_sink_template(config);
	StringInfoData topic;

	initStringInfo(&topic);
	while (*template != '\0')
	{
		const char *name = mqtt_sink_name(&template);

		if (name != NULL)
			appendStringInfoString(&topic, mqtt_sink_value(config, name, values, nulls, strict));
		else
			appendStringInfoChar(&topic, *template ++);
	}
	if (strict && topic.len > MQTT_SINK_MAX_TEXT)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the topic is too long")));
	return topic.data;
}

/* ---------------------------------------------------------------- the client */

static int
mqtt_sink_on_arrival(void *context, char *topic, int topic_length, MQTTAsync_message *message)
{
	MQTTAsync_freeMessage(&message);
	MQTTAsync_free(topic);
	return 1;
}

static void
mqtt_sink_on_connect5(void *context, MQTTAsync_successData5 *data)
{
	MqttSink *m = context;
	int		  most = MQTTProperties_getNumericValue(&data->properties, MQTTPROPERTY_CODE_RECEIVE_MAXIMUM);

	if (most > 0 && most < m->under_way)
		m->under_way = most;
	m->largest = Max(MQTTProperties_getNumericValue(&data->properties, MQTTPROPERTY_CODE_MAXIMUM_PACKET_SIZE), 0);
}

static void
mqtt_sink_on_success5(void *context, MQTTAsync_successData5 *data)
{
	*(volatile int *) context = MQTTREASONCODE_SUCCESS;
}

/* Also of a connection that ends, which is no answer. */
static void
mqtt_sink_on_failure5(void *context, MQTTAsync_failureData5 *data)
{
	if (data->reasonCode >= MQTTREASONCODE_UNSPECIFIED_ERROR)
		*(volatile int *) context = data->reasonCode;
}

static void
mqtt_sink_drop(MqttSink *m)
{
	MQTTAsync_disconnectOptions disconnect;

	if (m->handle == NULL)
		return;
	if (MQTTAsync_isConnected(m->handle))
	{
		streamext_mqtt_address_disconnect(m->address, true, &disconnect);
		disconnect.timeout = 1;
		(void) MQTTAsync_disconnect(m->handle, &disconnect);
		MQTTProperties_free(&disconnect.properties);
		for (int i = 0; i < 50 && MQTTAsync_isConnected(m->handle); i++)
			pg_usleep(10000);
	}
	MQTTAsync_destroy(&m->handle);
	m->handle = NULL;
}

static bool
mqtt_sink_connect(MqttSink *m, Shipment *s)
{
	MQTTAsync_createOptions create = MQTTAsync_createOptions_initializer;
	MqttConnect				connect;

	create.MQTTVersion = m->address->version;
	create.maxBufferedMessages = MQTT_SINK_SET;
	if (MQTTAsync_createWithOptions(&m->handle, m->address->uri, m->address->client_id, MQTTCLIENT_PERSISTENCE_NONE,
									NULL, &create) != MQTTASYNC_SUCCESS)
	{
		m->handle = NULL;
		snprintf(s->error, sizeof(s->error), "could not make an MQTT client");
		return false;
	}
	(void) MQTTAsync_setCallbacks(m->handle, NULL, NULL, mqtt_sink_on_arrival, NULL);
	streamext_mqtt_address_connect(m->address, true, &connect);
	m->under_way = MQTT_SINK_UNDER_WAY;
	m->largest = 0;
	if (m->address->version == MQTTVERSION_5)
		connect.options.onSuccess5 = mqtt_sink_on_connect5;
	connect.options.context = m;
	if (MQTTAsync_connect(m->handle, &connect.options) == MQTTASYNC_SUCCESS)
		for (int waited = 0; !MQTTAsync_isConnected(m->handle) && waited < MQTT_SINK_PATIENCE_MS && !*s->stop;
			 waited += 10)
			pg_usleep(10000);
	MQTTProperties_free(&connect.properties);
	if (MQTTAsync_isConnected(m->handle))
		return true;
	snprintf(s->error, sizeof(s->error), "the broker does not take the connection");
	mqtt_sink_drop(m);
	return false;
}

/* ---------------------------------------------------------------- messages */

/* Whether it can be a string of MQTT's: UTF-8 without control and other characters for which brokers end the connection. */
static bool
mqtt_sink_is_string(const char *text)
{
	const unsigned char *c = (const unsigned char *) text;
	size_t				 left = strlen(text);

	if (left > MQTT_SINK_MAX_TEXT)
		return false;
	while (left > 0)
	{
		size_t	 length = pg_utf_mblen(c);
		pg_wchar code;

		if (length > left || !pg_utf8_islegal(c, (int) length))
			return false;
		code = utf8_to_unicode(c);
		if (code < 0x20 || (code >= 0x7F && code <= 0x9F) || (code >= 0xFDD0 && code <= 0xFDEF) ||
			(code & 0xFFFE) == 0xFFFE)
			return false;
		c += length;
		left -= length;
	}
	return true;
}

static const char *
mqtt_sink_topic_problem(const char *topic)
{
	int levels = 1;

	if (topic[0] == '$')
		return "its topic begins with $, as only the broker's own do";
	if (strpbrk(topic, MQTT_SINK_FILTER) != NULL)
		return "its topic has + or #, which are of filters, or is made of a value that is NULL or empty";
	if (!mqtt_sink_is_string(topic))
		return "its topic is too long, or has control characters or such as MQTT has not";
	for (const char *c = topic; *c != '\0'; c++)
		levels += *c == '/';
	return levels > MQTT_SINK_MAX_LEVELS ? "its topic has more than 200 levels" : NULL;
}

/* Why the message is not to be sent, ever; NULL: it is. */
static const char *
mqtt_sink_problem(const MqttSink *m, const Message *message)
{
	const char *topic = message->topic != NULL ? message->topic : m->topic;
	const char *problem = mqtt_sink_topic_problem(topic);
	size_t		size = strlen(topic) + message->payload_size + 16;

	for (int i = 0; i < message->nheaders && m->address->version == MQTTVERSION_5 && problem == NULL; i++)
	{
		size += strlen(message->header_names[i]) + strlen(message->header_values[i]) + 5;
		if (!mqtt_sink_is_string(message->header_names[i]) || !mqtt_sink_is_string(message->header_values[i]))
			problem = "a header is too long, or has control characters or such as MQTT has not";
	}
	if (problem == NULL && size > MQTT_SINK_MAX_PACKET)
		problem = "it is larger than MQTT allows";
	else if (problem == NULL && m->largest > 0 && size > (size_t) m->largest)
		problem = "it is larger than the broker takes";
	return problem;
}

static int
mqtt_sink_publish(MqttSink *m, const Message *message, volatile int *reason, MQTTAsync_token *token)
{
	MQTTAsync_message		  out = MQTTAsync_message_initializer;
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;
	MQTTProperties			  properties = MQTTProperties_initializer;
	int						  rc;

	out.payload = (void *) (message->payload != NULL ? message->payload : "");
	out.payloadlen = (int) message->payload_size;
	out.qos = m->qos;
	out.retained = m->retained;
	if (m->address->version == MQTTVERSION_5)
	{
		for (int i = 0; i < message->nheaders; i++)
		{
			MQTTProperty property = { 0 };

			property.identifier = MQTTPROPERTY_CODE_USER_PROPERTY;
			property.value.data.data = (char *) message->header_names[i];
			property.value.data.len = (int) strlen(message->header_names[i]);
			property.value.value.data = (char *) message->header_values[i];
			property.value.value.len = (int) strlen(message->header_values[i]);
			MQTTProperties_add(&properties, &property);
		}
		out.properties = properties;
		*reason = MQTT_SINK_UNANSWERED;
		options.onSuccess5 = mqtt_sink_on_success5;
		options.onFailure5 = mqtt_sink_on_failure5;
		options.context = (void *) reason;
	}
	rc = MQTTAsync_sendMessage(m->handle, message->topic != NULL ? message->topic : m->topic, &out, &options);
	MQTTProperties_free(&properties);
	*token = options.token;
	return rc;
}

/* Until the broker has answered it; what, m->reasons says. (MQTTAsync_waitForCompletion looks every 100 ms.) */
static bool
mqtt_sink_wait(MqttSink *m, Shipment *s, MQTTAsync_token token)
{
	bool tells = m->address->version == MQTTVERSION_5;

	for (int waited = 0; waited < MQTT_SINK_PATIENCE_MS * 1000 / MQTT_SINK_LOOK_US && !*s->stop; waited++)
	{
		bool connected = MQTTAsync_isConnected(m->handle);

		if (tells && m->reasons[s->done] != MQTT_SINK_UNANSWERED)
			return true; /* mosquitto ends the connection after it has said no */
		if (MQTTAsync_isComplete(m->handle, token))
			return connected;
		if (!connected)
			return false;
		pg_usleep(MQTT_SINK_LOOK_US);
	}
	return false;
}

static void
mqtt_sink_refuse(Shipment *s, const char *problem)
{
	s->refused = s->done;
	snprintf(s->error, sizeof(s->error), "the message cannot be sent: %s", problem);
}

/*
 * What the broker has answered to the first message that is not done: true, it has it. With MQTT 3.1.1 it cannot say no. What lies in the
 * message is for the message alone; a topic that the login may not publish to too, where rows choose theirs.
 */
static bool
mqtt_sink_taken(MqttSink *m, Shipment *s)
{
	int reason = m->address->version == MQTTVERSION_5 ? m->reasons[s->done] : MQTTREASONCODE_SUCCESS;

	if (reason < MQTTREASONCODE_UNSPECIFIED_ERROR)
		return true;
	if (reason == MQTTREASONCODE_TOPIC_NAME_INVALID || reason == MQTTREASONCODE_PACKET_TOO_LARGE ||
		reason == MQTTREASONCODE_PAYLOAD_FORMAT_INVALID || (reason == MQTTREASONCODE_NOT_AUTHORIZED && m->chosen))
		mqtt_sink_refuse(s, MQTTReasonCode_toString(reason));
	else
		snprintf(s->error, sizeof(s->error), "the broker refuses messages: %s", MQTTReasonCode_toString(reason));
	return false;
}

/* As far as there is room on the way; the first one that cannot be sent ends it. */
static int
mqtt_sink_publish_some(MqttSink *m, const Shipment *s, int sent, MQTTAsync_token *tokens)
{
	while (sent < s->n && sent - s->done < m->under_way && mqtt_sink_problem(m, &s->messages[sent]) == NULL &&
		   mqtt_sink_publish(m, &s->messages[sent], &m->reasons[sent], &tokens[sent]) == MQTTASYNC_SUCCESS)
		sent++;
	return sent;
}

static void
mqtt_sink_send(Transport *transport, Shipment *s)
{
	MqttSink	   *m = (MqttSink *) transport;
	MQTTAsync_token tokens[MQTT_SINK_SET];
	int				sent = 0;

	if (m->handle != NULL && !MQTTAsync_isConnected(m->handle))
		mqtt_sink_drop(m);
	if (m->handle == NULL && !mqtt_sink_connect(m, s))
		return;
	s->reachable = true;
	snprintf(s->error, sizeof(s->error), "the connection to the broker was lost");
	do
	{
		const char *problem = mqtt_sink_problem(m, &s->messages[s->done]);

		sent = mqtt_sink_publish_some(m, s, sent, tokens);
		if (s->done == sent && problem != NULL)
			mqtt_sink_refuse(s, problem);
		if (s->done == sent || !mqtt_sink_wait(m, s, tokens[s->done]) || !mqtt_sink_taken(m, s))
			break;
		s->done++;
	} while (s->done < s->n);
	if (s->done == s->n)
	{
		s->error[0] = '\0';
		return;
	}
	if (s->refused >= 0 && s->done == sent)
		return;
	s->reachable = s->refused >= 0;
	mqtt_sink_drop(m); /* what is under way behind it is sent again */
}

/* ---------------------------------------------------------------- its life */

static void
mqtt_sink_close(Transport *transport)
{
	MqttSink *m = (MqttSink *) transport;

	mqtt_sink_drop(m);
	if (m->address != NULL)
	{
		streamext_mqtt_address_clear(m->address);
		free(m->address);
	}
	free(m->topic);
	free(m);
}

static Transport *
mqtt_sink_open(const StreamConfig *config, char error[STREAMEXT_MAX_MESSAGE])
{
	MqttSink *m = calloc(1, sizeof(MqttSink));
	char	  client_id[256];
	char	 *problem;
	char	 *password = streamext_connector_secret(config, "password", "password_file", &problem);

	if (m == NULL || problem != NULL)
	{
		streamext_clip(error, problem != NULL ? problem : "out of memory", STREAMEXT_MAX_MESSAGE);
		free(m);
		return NULL;
	}
	m->transport.ops = &streamext_mqtt_transport;
	m->address = calloc(1, sizeof(MqttAddress));
	m->topic = strdup(linitial(config->source.topics));
	m->qos = config->source.qos;
	m->chosen = strchr(mqtt_sink_template(config) != NULL ? mqtt_sink_template(config) : "", '{') != NULL;
	m->retained = streamext_option_number(streamext_mqtt_options, PLACE_TABLE, config->table_options, "retained") == 1;
	if (m->address == NULL || m->topic == NULL)
	{
		mqtt_sink_close(&m->transport);
		return NULL;
	}
	streamext_mqtt_address_set(m->address, config, 0);
	snprintf(client_id, sizeof(client_id), "%s_sink", m->address->client_id);
	free(m->address->client_id);
	m->address->client_id = strdup(client_id);
	if (password != NULL)
	{
		m->address->password = strdup(password);
		explicit_bzero(password, strlen(password));
	}
	return &m->transport;
}

const TransportOps streamext_mqtt_transport = {
	.connector = &streamext_mqtt_ops,
	.most = MQTT_SINK_SET,
	.check = mqtt_sink_check,
	.topic = mqtt_sink_topic,
	.open = mqtt_sink_open,
	.send = mqtt_sink_send,
	.close = mqtt_sink_close,
};
