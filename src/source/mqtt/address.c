/*
 * source/mqtt/address.c
 *		Where an MQTT client connects, as whom, and with which session of the broker's. What the functions promise is in
 *		source/mqtt/address.h.
 */
#include "base/streamext.h"

#include "source/mqtt/address.h"
#include "base/option.h"
#include "source/mqtt/topic.h"

#define MQTT_SESSION_EXPIRY (7 * SECS_PER_DAY) /* seconds the broker keeps the session of a client that is away */
#define MQTT_KEEPALIVE 10					   /* seconds */
#define MQTT_CONNECT_TIMEOUT 5				   /* seconds */
#define MQTT_POLL_US 5000

static char *
address_strdup(const char *text)
{
	char *copy = text == NULL ? NULL : strdup(text);

	if (text != NULL && copy == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return copy;
}

static void
address_free_secret(char *secret)
{
	if (secret != NULL)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

void
streamext_mqtt_address_set(MqttAddress *address, const StreamConfig *config, int shard)
{
	const char *identification = streamext_option(config->server_options, "ssl_endpoint_identification_algorithm");

	address->uri = address_strdup(streamext_option(config->server_options, "uri"));
	address->client_id = address_strdup(streamext_mqtt_client_id(config, shard));
	address->username = address_strdup(streamext_option(config->user_options, "username"));
	address->ca = address_strdup(streamext_option(config->server_options, "ssl_ca_location"));
	address->certificate = address_strdup(streamext_option(config->server_options, "ssl_certificate_location"));
	address->key = address_strdup(streamext_option(config->server_options, "ssl_key_location"));
	address->key_password = address_strdup(streamext_option(config->user_options, "ssl_key_password"));
	address->tls = strncmp(address->uri, "ssl://", 6) == 0 || strncmp(address->uri, "mqtts://", 8) == 0;
	address->verify_host = identification == NULL || strcmp(identification, "none") != 0;
	address->version = config->source.mqtt_protocol == 5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
}

/* False: out of memory. */
static bool
address_copy_text(char **to, const char *from)
{
	*to = from == NULL ? NULL : strdup(from);
	return (from == NULL) == (*to == NULL);
}

MqttAddress *
streamext_mqtt_address_copy(const MqttAddress *address)
{
	MqttAddress *copy = calloc(1, sizeof(MqttAddress));

	if (copy == NULL)
		return NULL;
	copy->tls = address->tls;
	copy->verify_host = address->verify_host;
	copy->version = address->version;
	if (address_copy_text(&copy->uri, address->uri) && address_copy_text(&copy->client_id, address->client_id) &&
		address_copy_text(&copy->username, address->username) &&
		address_copy_text(&copy->password, address->password) && address_copy_text(&copy->ca, address->ca) &&
		address_copy_text(&copy->certificate, address->certificate) && address_copy_text(&copy->key, address->key) &&
		address_copy_text(&copy->key_password, address->key_password))
		return copy;
	streamext_mqtt_address_clear(copy);
	free(copy);
	return NULL;
}

void
streamext_mqtt_address_clear(MqttAddress *address)
{
	free(address->uri);
	free(address->client_id);
	free(address->username);
	address_free_secret(address->password);
	free(address->ca);
	free(address->certificate);
	free(address->key);
	address_free_secret(address->key_password);
	memset(address, 0, sizeof(*address));
}

/* ---- connecting ---- */

static void
address_add_property(MQTTProperties *properties, enum MQTTPropertyCodes code, uint32 value)
{
	MQTTProperty property = { 0 };

	property.identifier = code;
	if (code == MQTTPROPERTY_CODE_RECEIVE_MAXIMUM)
		property.value.integer2 = (unsigned short) value;
	else
		property.value.integer4 = value;
	MQTTProperties_add(properties, &property);
}

void
streamext_mqtt_address_connect(const MqttAddress *address, bool end, MqttConnect *connect)
{
	MQTTAsync_connectOptions options = MQTTAsync_connectOptions_initializer;
	MQTTAsync_connectOptions options5 = MQTTAsync_connectOptions_initializer5;
	MQTTAsync_SSLOptions	 ssl = MQTTAsync_SSLOptions_initializer;
	MQTTProperties			 properties = MQTTProperties_initializer;

	connect->ssl = ssl;
	connect->properties = properties;
	if (address->version == MQTTVERSION_5)
	{
		connect->options = options5;
		connect->options.cleanstart = end;
		address_add_property(&connect->properties, MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL,
							 end ? 0 : MQTT_SESSION_EXPIRY);
		address_add_property(&connect->properties, MQTTPROPERTY_CODE_RECEIVE_MAXIMUM, MQTT_RECEIVE_MAXIMUM);
		address_add_property(&connect->properties, MQTTPROPERTY_CODE_MAXIMUM_PACKET_SIZE, MQTT_PACKET_MAXIMUM);
		connect->options.connectProperties = &connect->properties;
	}
	else
	{
		connect->options = options;
		connect->options.MQTTVersion = MQTTVERSION_3_1_1;
		connect->options.cleansession = end;
	}
	connect->options.keepAliveInterval = MQTT_KEEPALIVE;
	connect->options.connectTimeout = MQTT_CONNECT_TIMEOUT;
	connect->options.username = address->username;
	connect->options.password = address->password;
	if (!address->tls)
		return;
	connect->ssl.trustStore = address->ca;
	connect->ssl.keyStore = address->certificate;
	connect->ssl.privateKey = address->key;
	connect->ssl.privateKeyPassword = address->key_password;
	connect->ssl.enableServerCertAuth = 1;
	connect->ssl.verify = address->verify_host;
	connect->options.ssl = &connect->ssl;
}

void
streamext_mqtt_address_disconnect(const MqttAddress *address, bool end, MQTTAsync_disconnectOptions *options)
{
	MQTTAsync_disconnectOptions initial = MQTTAsync_disconnectOptions_initializer;
	MQTTAsync_disconnectOptions initial5 = MQTTAsync_disconnectOptions_initializer5;

	*options = address->version == MQTTVERSION_5 ? initial5 : initial;
	if (address->version == MQTTVERSION_5 && end)
		address_add_property(&options->properties, MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL, 0);
}

/* Nothing comes with a new session. */
static int
address_on_arrival(void *context, char *topic, int topic_length, MQTTAsync_message *message)
{
	MQTTAsync_freeMessage(&message);
	MQTTAsync_free(topic);
	return 1;
}

bool
streamext_mqtt_address_end_session(const MqttAddress *address, int ms)
{
	MQTTAsync_createOptions		create = MQTTAsync_createOptions_initializer;
	MQTTAsync_disconnectOptions disconnect;
	MqttConnect					connect;
	MQTTAsync					handle;
	bool						connected = false;
	int							waited = 0;

	create.MQTTVersion = address->version;
	if (MQTTAsync_createWithOptions(&handle, address->uri, address->client_id, MQTTCLIENT_PERSISTENCE_NONE, NULL,
									&create) != MQTTASYNC_SUCCESS)
		return false;
	(void) MQTTAsync_setCallbacks(handle, NULL, NULL, address_on_arrival, NULL);
	streamext_mqtt_address_connect(address, true, &connect);
	if (MQTTAsync_connect(handle, &connect.options) == MQTTASYNC_SUCCESS)
		for (; !connected && waited < ms; waited += MQTT_POLL_US / 1000)
		{
			pg_usleep(MQTT_POLL_US);
			connected = MQTTAsync_isConnected(handle);
		}
	MQTTProperties_free(&connect.properties);
	if (connected)
	{
		streamext_mqtt_address_disconnect(address, true, &disconnect);
		disconnect.timeout = 1;
		(void) MQTTAsync_disconnect(handle, &disconnect);
		MQTTProperties_free(&disconnect.properties);
		for (; MQTTAsync_isConnected(handle) && waited < ms; waited += MQTT_POLL_US / 1000)
			pg_usleep(MQTT_POLL_US);
	}
	MQTTAsync_destroy(&handle);
	return connected;
}

const char *
streamext_mqtt_address_reason(const MqttAddress *address, int code)
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
	else if (address->version == MQTTVERSION_5)
		text = MQTTReasonCode_toString(code);
	else
		text = code >= 1 && code <= 5 ? connack[code - 1] : NULL;
	return text != NULL ? text : "unknown reason";
}
