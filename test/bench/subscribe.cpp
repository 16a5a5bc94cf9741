/*
 * subscribe.cpp
 *		What the MQTT client library that streamext uses takes by itself: paho's MQTTAsync with a callback that counts.
 *
 * subscribe PORT FILTER QOS RECORDS
 *
 * Connects with streamext's protocol and limits (src/source/mqtt/client.c) and ends when so many messages have arrived.
 */
#include <MQTTAsync.h>

#include <condition_variable>
#include <mutex>
#include <string>

#include "topic.h"

static std::mutex			   mutex;
static std::condition_variable changed;
static long					   wanted, arrived;
static bool					   finished;

static int
on_arrival(void *, char *topic, int, MQTTAsync_message *message)
{
	if (++arrived == wanted)
	{
		std::lock_guard<std::mutex> guard(mutex);

		finished = true;
		changed.notify_one();
	}
	MQTTAsync_freeMessage(&message);
	MQTTAsync_free(topic);
	return 1;
}

static void
on_failure(void *, MQTTAsync_failureData5 *)
{
	die("cannot connect or subscribe");
}

static const char *filter;
static int		   qos;

static void
on_connect(void *handle, MQTTAsync_successData5 *)
{
	MQTTAsync_responseOptions options = MQTTAsync_responseOptions_initializer;

	options.onFailure5 = on_failure;
	if (MQTTAsync_subscribe(handle, filter, qos, &options) != MQTTASYNC_SUCCESS)
		die("cannot subscribe");
}

int
main(int argc, char **argv)
{
	if (argc != 5)
		die("usage: subscribe PORT FILTER QOS RECORDS");
	filter = argv[2];
	qos = atoi(argv[3]);
	wanted = atol(argv[4]);

	MQTTAsync				 handle;
	MQTTAsync_createOptions	 create = MQTTAsync_createOptions_initializer5;
	MQTTAsync_connectOptions connect = MQTTAsync_connectOptions_initializer5;
	MQTTProperties			 properties = MQTTProperties_initializer;
	MQTTProperty			 receive_maximum = {};
	std::string				 uri = std::string("tcp://127.0.0.1:") + argv[1];

	if (MQTTAsync_createWithOptions(&handle, uri.c_str(), "subscribe", MQTTCLIENT_PERSISTENCE_NONE, nullptr, &create) != MQTTASYNC_SUCCESS)
		die("cannot make a client");
	MQTTAsync_setCallbacks(handle, nullptr, nullptr, on_arrival, nullptr);
	receive_maximum.identifier = MQTTPROPERTY_CODE_RECEIVE_MAXIMUM;
	receive_maximum.value.integer2 = 16384;
	MQTTProperties_add(&properties, &receive_maximum);
	connect.connectProperties = &properties;
	connect.context = handle;
	connect.onSuccess5 = on_connect;
	connect.onFailure5 = on_failure;
	if (MQTTAsync_connect(handle, &connect) != MQTTASYNC_SUCCESS)
		die("cannot connect");

	std::unique_lock<std::mutex> lock(mutex);

	changed.wait(lock, [] { return finished; });
	return 0;
}
