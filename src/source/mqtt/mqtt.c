/*
 * source/mqtt/mqtt.c
 *		MQTT: records are read from the journal that the client (source/mqtt/client.c) fills.
 *
 * One partition, whose positions are the journal's. With several workers each has a client and a journal of its own, and the
 * clients' subscriptions are one shared one: the broker gives each message to one of them. A message is in the journal before it is acknowledged; the journal is
 * trimmed by commit, with journal 'none' behind what was delivered.
 */
#include "base/streamext.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "libpq/pqsignal.h"
#include "utils/timestamp.h"

#include "source/connector.h"
#include "source/journal/journal.h"
#include "source/mqtt/client.h"
#include "source/mqtt/properties.h"

#define MQTT_NONE_TRIM (16 * 1024 * 1024) /* journal 'none': bytes delivered between trims */
#define MQTT_COMMIT_TRIM (1024 * 1024)
#define MQTT_KEEP \
	(16 * 1024 * 1024) /* bytes counted that stay: by the last messages the client knows those sent again */

typedef struct MqttConnector
{
	Connector	   c;
	bool		   closed;
	bool		   paused;
	MqttClient	  *client;
	Journal		  *journal;	   /* the client's */
	TimestampTz	   next_start; /* of the client, after a failure */
	uint64		   errors_seen;
	int64		   trimmed; /* the journal, below here */
	JournalRecord *records; /* [STREAMEXT_BATCH_ROWS] */
} MqttConnector;

/* Starts the client; false: reported, try again later. */
static bool
mqtt_start(MqttConnector *k)
{
	char *password, *problem;
	int	  err;

	k->next_start = GetCurrentTimestamp() + USECS_PER_SEC;
	password = streamext_connector_secret(k->c.config, "password", "password_file", &problem);
	if (problem != NULL)
	{
		streamext_connector_report(&k->c, "%s", problem);
		return false;
	}
	err = streamext_mqtt_client_start(k->client, password);
	if (password != NULL)
		explicit_bzero(password, strlen(password));
	if (err != 0)
		streamext_connector_report(&k->c, "could not start a thread: %s", strerror(err));
	return err == 0;
}

static Connector *
mqtt_open(StreamConfig *config, int shard, int shards, MemoryContext cxt)
{
	MqttConnector *k = MemoryContextAllocZero(cxt, sizeof(MqttConnector));
	Connector	  *c = &k->c;

	if (streamext_mqtt_client_abandoned())
		ereport(FATAL, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("an earlier MQTT client of this process could not be ended"),
						errdetail("The worker is started anew.")));
	c->ops = &streamext_mqtt_ops;
	c->config = config;
	c->shard = shard;
	c->shards = Max(shards, 1);
	c->stalled = true;
	c->npartitions = 1;
	c->partitions = MemoryContextAllocZero(cxt, sizeof(ConnectorPartition));
	c->partitions[0].partition = shard;
	strlcpy(c->partitions[0].topic, linitial(config->topics), sizeof(c->partitions[0].topic));
	k->records = MemoryContextAlloc(cxt, sizeof(JournalRecord) * STREAMEXT_BATCH_ROWS);

	/* OpenSSL writes to sockets that may be gone; bgworkers start with the default, which kills. */
	pqsignal(SIGPIPE, SIG_IGN);
	c->wait_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (c->wait_fd < 0)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("could not create an event descriptor: %m")));
	streamext_connector_guard(c, cxt);

	streamext_mqtt_client_new(&k->client, config, shard, c->wait_fd);
	k->journal = streamext_mqtt_client_journal(k->client);
	c->partitions[0].position = k->trimmed = streamext_journal_base(k->journal);
	c->partitions[0].high_watermark = streamext_journal_end(k->journal);
	mqtt_start(k);
	streamext_mqtt_client_wake_reader(k->client); /* the journal may hold something */
	return c;
}

static void
mqtt_close(Connector *c)
{
	MqttConnector *k = (MqttConnector *) c;

	if (k->closed)
		return;
	k->closed = true;
	if (k->client != NULL && !streamext_mqtt_client_end(k->client, c->gone))
		return; /* its threads may still write wait_fd */
	k->client = NULL;
	k->journal = NULL;
	close(c->wait_fd);
	c->wait_fd = -1;
}

static void
mqtt_seek(Connector *c, int index, int64 position)
{
	MqttConnector *k = (MqttConnector *) c;
	int64		   base, end;

	if (k->closed || index != 0)
		return;
	base = streamext_journal_base(k->journal);
	end = streamext_journal_end(k->journal);
	if (position > end)
	{
		streamext_connector_report(
			c, "the journal ends at " INT64_FORMAT ", but it was read up to " INT64_FORMAT " before", end, position);
		position = end;
	}
	else if (position >= 0 && position < base)
		streamext_connector_report(c, "gap in the journal: positions " INT64_FORMAT " to " INT64_FORMAT " are gone",
								   position, base - 1);
	c->partitions[0].position = streamext_journal_align(k->journal, Max(position, base));
	if (position >= 0 && c->partitions[0].position > position)
		streamext_connector_event(c, "gap", 0, 0,
								  "the journal goes on at position " INT64_FORMAT " instead of " INT64_FORMAT,
								  c->partitions[0].position, position);
	streamext_mqtt_client_wake_reader(k->client);
}

/* Takes over what the client's threads found out. */
static void
mqtt_look(MqttConnector *k)
{
	char error[STREAMEXT_MAX_MESSAGE];

	if (streamext_mqtt_client_look(k->client, &k->c.stalled, &k->errors_seen, error, sizeof(error)))
		streamext_connector_report(&k->c, "%s", error);
	k->c.partitions[0].high_watermark = streamext_journal_end(k->journal);
}

static int
mqtt_read(MqttConnector *k, StreamRecord *records, int max)
{
	Connector *c = &k->c;
	int64	   position = c->partitions[0].position;
	bool	   corrupt;
	int		   n = streamext_journal_read(k->journal, &position, k->records, Min(max, STREAMEXT_BATCH_ROWS), &corrupt);

	if (corrupt)
	{
		c->failed = errno == EBADMSG;
		c->stalled = true;
		streamext_connector_report(c, "could not read the journal at " INT64_FORMAT ": %s", position,
								   c->failed ? "it is damaged" : strerror(errno));
		return 0;
	}
	for (int i = 0; i < n; i++)
	{
		JournalRecord *from = &k->records[i];
		StreamRecord  *to = &records[i];

		memset(to, 0, sizeof(*to));
		to->payload = from->payload;
		to->payload_size = from->payload_size;
		to->topic = from->topic;
		to->partition = c->shard;
		to->position = from->position;
		to->next_position = from->next_position;
		to->timestamp = from->timestamp;
		to->qos = from->qos;
		to->retained = from->retained;
		to->message = from;
	}
	c->partitions[0].position = position;
	return n;
}

static int
mqtt_poll(Connector *c, StreamRecord *records, int max)
{
	MqttConnector *k = (MqttConnector *) c;
	int64		   before;
	int			   n;

	if (k->closed || c->failed)
		return 0;
	if (!streamext_mqtt_client_started(k->client) && (GetCurrentTimestamp() < k->next_start || !mqtt_start(k)))
		return 0;

	streamext_mqtt_client_drain(k->client);
	mqtt_look(k);
	if (k->paused)
		return 0; /* arrivals go on into the journal */

	if (c->config->journal == JOURNAL_NONE && c->partitions[0].position - k->trimmed >= MQTT_NONE_TRIM)
	{
		k->trimmed = c->partitions[0].position;
		streamext_journal_trim(k->journal, k->trimmed - MQTT_KEEP);
	}
	before = c->partitions[0].position;
	n = mqtt_read(k, records, max);
	if (c->partitions[0].position > before && c->partitions[0].position < c->partitions[0].high_watermark)
		streamext_mqtt_client_wake_reader(k->client);
	return n;
}

static char *
mqtt_headers(Connector *c, const StreamRecord *record)
{
	const JournalRecord *from = record->message;

	return streamext_mqtt_properties_json(from->topic, from->topic_size);
}

static void
mqtt_release(Connector *c)
{
	/* The journal's buffer is its own until the next read. */
}

static bool
mqtt_flush_target(Connector *c, uint64 ticket, int64 *targets)
{
	MqttConnector *k = (MqttConnector *) c;

	return !k->closed && !c->failed && streamext_mqtt_client_flush(k->client, ticket, &targets[0]);
}

static bool
mqtt_find(Connector *c, SeekKind kind, TimestampTz time, int64 *positions)
{
	MqttConnector *k = (MqttConnector *) c;

	if (k->closed)
		return false;
	positions[0] = kind == SEEK_EARLIEST ? streamext_journal_base(k->journal) : streamext_journal_end(k->journal);
	return true;
}

static void
mqtt_commit(Connector *c, const int64 *positions, int n)
{
	MqttConnector *k = (MqttConnector *) c;

	if (k->closed || n < 1 || positions[0] - k->trimmed < MQTT_COMMIT_TRIM)
		return;
	k->trimmed = positions[0];
	streamext_journal_trim(k->journal, k->trimmed - MQTT_KEEP);
}

/* Arrivals go on: the journal holds them, the broker's queue is short. */
static void
mqtt_pause(Connector *c, bool paused)
{
	MqttConnector *k = (MqttConnector *) c;

	if (!k->closed && k->paused && !paused)
		streamext_mqtt_client_wake_reader(k->client);
	k->paused = paused;
}

const ConnectorOps streamext_mqtt_ops = {
	.name = "mqtt",
	.replayable = false,
	.open = mqtt_open,
	.seek = mqtt_seek,
	.poll = mqtt_poll,
	.release = mqtt_release,
	.flush_target = mqtt_flush_target,
	.find = mqtt_find,
	.commit = mqtt_commit,
	.headers = mqtt_headers,
	.pause = mqtt_pause,
	.close = mqtt_close,
};
