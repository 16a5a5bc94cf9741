/*
 * source/mqtt/seen.c
 *		Which messages an MQTT stream has received already (see source/mqtt/seen.h).
 */
#include "base/streamext.h"

#include "port/pg_crc32c.h"

#include "source/mqtt/seen.h"

#define SEEN_IDS 65536
#define SEEN_READ 64
#define SEEN_DUP 0x08 /* in a packet's first byte */

/* The last message with a packet id. */
typedef struct SeenMessage
{
	uint32	  number; /* 0: none came */
	pg_crc32c crc;
} SeenMessage;

struct MqttSeen
{
	MQTTClient_persistence persistence;
	bool				   again; /* how the last message of QoS 2 was marked */
	uint32				   unacknowledged;
	uint32				   number; /* of messages so far */
	SeenMessage			   last[SEEN_IDS];
};

static pg_crc32c
seen_crc(const char *topic, const void *payload, size_t payload_size)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, topic, strlen(topic) + 1);
	COMP_CRC32C(crc, payload, payload_size);
	FIN_CRC32C(crc);
	return crc;
}

static void
seen_remember(MqttSeen *seen, uint16 packet_id, pg_crc32c crc)
{
	seen->last[packet_id].number = ++seen->number;
	seen->last[packet_id].crc = crc;
}

/* The journal's last two files, of which the first is kept for this (source/mqtt/mqtt.c). */
static void
seen_load(MqttSeen *seen, Journal *journal)
{
	JournalRecord records[SEEN_READ];
	int64		  position = streamext_journal_recent(journal);
	bool		  corrupt;
	int			  n;

	while (position >= 0 && (n = streamext_journal_read(journal, &position, records, SEEN_READ, &corrupt)) > 0)
		for (int i = 0; i < n; i++)
			if (records[i].packet_id != 0)
				seen_remember(seen, records[i].packet_id,
							  seen_crc(records[i].topic, records[i].payload, records[i].payload_size));
}

/* ---- the persistence: called with what paho would keep; keys of received messages begin with r, of commands with c ---- */

static int
seen_put(void *handle, char *key, int nbuffers, char **buffers, int *sizes)
{
	MqttSeen *seen = handle;

	if (key[0] == 'r' && nbuffers > 0 && sizes[0] > 0)
		seen->again = (buffers[0][0] & SEEN_DUP) != 0;

	/* A command that is kept is read back; one that could not be kept stays in memory. */
	return key[0] == 'c' ? MQTTCLIENT_PERSISTENCE_ERROR : 0;
}

static int
seen_open(void **handle, const char *client_id, const char *uri, void *context)
{
	*handle = context;
	return 0;
}

static int
seen_close(void *handle)
{
	return 0;
}

static int
seen_get(void *handle, char *key, char **buffer, int *size)
{
	return MQTTCLIENT_PERSISTENCE_ERROR;
}

static int
seen_remove(void *handle, char *key)
{
	return 0;
}

static int
seen_keys(void *handle, char ***keys, int *nkeys)
{
	*keys = NULL;
	*nkeys = 0;
	return 0;
}

static int
seen_contains(void *handle, char *key)
{
	return MQTTCLIENT_PERSISTENCE_ERROR;
}

static void
seen_make_persistence(MqttSeen *seen)
{
	MQTTClient_persistence *p = &seen->persistence;

	p->context = seen;
	p->popen = seen_open;
	p->pclose = seen_close;
	p->pput = seen_put;
	p->pget = seen_get;
	p->premove = seen_remove;
	p->pkeys = seen_keys;
	p->pclear = seen_close;
	p->pcontainskey = seen_contains;
}

/* ---- messages ---- */

MqttSeen *
streamext_mqtt_seen_new(Journal *journal, uint32 unacknowledged)
{
	MqttSeen *seen = calloc(1, sizeof(MqttSeen));

	if (seen == NULL)
		return NULL;
	seen->unacknowledged = unacknowledged;
	seen_make_persistence(seen);
	seen_load(seen, journal);
	return seen;
}

void
streamext_mqtt_seen_forget(MqttSeen *seen)
{
	memset(seen->last, 0, sizeof(seen->last));
}

MQTTClient_persistence *
streamext_mqtt_seen_persistence(MqttSeen *seen)
{
	return &seen->persistence;
}

bool
streamext_mqtt_seen_before(MqttSeen *seen, const char *topic, const MQTTAsync_message *message)
{
	uint16			   packet_id = (uint16) message->msgid;
	const SeenMessage *last = &seen->last[packet_id];
	bool			   again = message->qos == 2 ? seen->again : message->dup != 0;
	pg_crc32c		   crc;
	bool			   before;

	if (message->qos == 0)
		return false; /* has no packet id and is never sent again */
	crc = seen_crc(topic, message->payload, message->payloadlen);
	before =
		again && last->number != 0 && seen->number - last->number < seen->unacknowledged && EQ_CRC32C(crc, last->crc);
	if (!before)
		seen_remember(seen, packet_id, crc);
	return before;
}
