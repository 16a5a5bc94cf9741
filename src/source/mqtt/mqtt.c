/*
 * source/mqtt/mqtt.c
 *		MQTT: records are read from the journal that the client (source/mqtt/client.c) fills.
 *
 * One partition, whose positions are the journal's. With several workers each has a client and a journal of its own, and the
 * clients' subscriptions are one shared one: the broker gives each message to one of them. A message is in the journal before it is
 * acknowledged; the journal is trimmed by commit, with journal 'none' behind what was delivered.
 */
#include "base/streamext.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "libpq/pqsignal.h"
#include "utils/timestamp.h"

#include "source/connector.h"
#include "source/journal/inbox.h"
#include "source/mqtt/client.h"
#include "source/mqtt/options.h"
#include "source/mqtt/properties.h"

#define MQTT_COMMIT_TRIM (1024 * 1024)
#define MQTT_UNMATCHED_INTERVAL (60 * USECS_PER_SEC)
#define MQTT_KEEP \
	(16 * 1024 * 1024) /* bytes counted that stay: by the last messages the client knows those sent again */

typedef struct MqttConnector
{
	JournalInbox inbox; /* its journal is the client's */
	bool		 closed;
	MqttClient	*client;
	TimestampTz	 next_start; /* of the client, after a failure */
	uint64		 errors_seen;
	TimestampTz	 next_unmatched; /* tell of messages that match no filter, not before this */
} MqttConnector;

/* Starts the client; false: reported, try again later. */
static bool
mqtt_start(MqttConnector *k)
{
	char *password, *problem;
	int	  err;

	k->next_start = GetCurrentTimestamp() + USECS_PER_SEC;
	password = streamext_connector_secret(k->inbox.c.config, "password", "password_file", &problem);
	if (problem != NULL)
	{
		streamext_connector_report(&k->inbox.c, "%s", problem);
		return false;
	}
	err = streamext_mqtt_client_start(k->client, password);
	if (password != NULL)
		explicit_bzero(password, strlen(password));
	if (err != 0)
		streamext_connector_report(&k->inbox.c, "could not start a thread: %s", strerror(err));
	return err == 0;
}

static Connector *
mqtt_open(const ConnectorOpen *args)
{
	MqttConnector *k = MemoryContextAllocZero(args->cxt, sizeof(MqttConnector));
	Connector	  *c = &k->inbox.c;

	if (streamext_mqtt_client_abandoned())
		ereport(FATAL, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("an earlier MQTT client of this process could not be ended"),
						errdetail("The worker is started anew.")));
	streamext_inbox_init(&k->inbox, &streamext_mqtt_ops, args, linitial(args->config->source.topics));
	k->inbox.keep = MQTT_KEEP;
	k->inbox.step = MQTT_COMMIT_TRIM;
	c->stalled = true;
	c->npartitions = 1;

	/* OpenSSL writes to sockets that may be gone; bgworkers start with the default, which kills. */
	pqsignal(SIGPIPE, SIG_IGN);
	c->wait_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (c->wait_fd < 0)
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("could not create an event descriptor: %m")));
	streamext_connector_guard(c, args->cxt);

	streamext_mqtt_client_new(&k->client, args, c->wait_fd);
	k->inbox.journal = streamext_mqtt_client_journal(k->client);
	c->partitions[0].position = k->inbox.trimmed = streamext_journal_base(k->inbox.journal);
	c->partitions[0].high_watermark = streamext_journal_end(k->inbox.journal);
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
	k->inbox.journal = NULL;
	if (k->client != NULL && !streamext_mqtt_client_end(k->client, c->gone))
		return; /* its threads may still write wait_fd */
	k->client = NULL;
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
	base = streamext_journal_base(k->inbox.journal);
	end = streamext_journal_end(k->inbox.journal);
	if (position > end)
	{
		streamext_connector_report(
			c, "the journal ends at " INT64_FORMAT ", but it was read up to " INT64_FORMAT " before", end, position);
		position = end;
	}
	else if (position >= 0 && position < base)
		streamext_connector_report(c, "gap in the journal: positions " INT64_FORMAT " to " INT64_FORMAT " are gone",
								   position, base - 1);
	c->partitions[0].position = streamext_journal_align(k->inbox.journal, Max(position, base));
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

	if (streamext_mqtt_client_look(k->client, &k->inbox.c.stalled, &k->inbox.c.refused, &k->errors_seen, error,
								   sizeof(error)))
		streamext_connector_report(&k->inbox.c, "%s", error);
	k->inbox.c.partitions[0].high_watermark = streamext_journal_end(k->inbox.journal);
}

/* Messages that are acknowledged and not counted. The first ones at once, then those of a minute together. */
static void
mqtt_look_unmatched(MqttConnector *k)
{
	TimestampTz now = GetCurrentTimestamp();
	char		topic[128];
	uint64		n;

	if (now < k->next_unmatched || (n = streamext_mqtt_client_unmatched(k->client, topic, sizeof(topic))) == 0)
		return;
	k->next_unmatched = now + MQTT_UNMATCHED_INTERVAL;
	streamext_connector_event(
		&k->inbox.c, "unmatched", 0, 0,
		UINT64_FORMAT " message(s) whose topic does not match \"%s\" were not counted, the first of topic \"%s\"", n,
		(char *) linitial(k->inbox.c.config->source.topics), topic);
}

static int
mqtt_read(MqttConnector *k, StreamRecord *records, int max)
{
	Connector *c = &k->inbox.c;
	int64	   before = c->partitions[0].position;
	int		   n = streamext_inbox_read(&k->inbox, records, max);

	if (n < 0)
	{
		c->failed = errno == EBADMSG;
		c->stalled = true;
		streamext_connector_report(c, "could not read the journal at " INT64_FORMAT ": %s", c->partitions[0].position,
								   c->failed ? "it is damaged" : strerror(errno));
		c->partitions[0].position = before;
		return 0;
	}
	for (int i = 0; i < n; i++)
		records[i].topic = ((const JournalRecord *) records[i].message)->topic; /* an empty one is no missing one */
	return n;
}

static int
mqtt_poll(Connector *c, StreamRecord *records, int max)
{
	MqttConnector *k = (MqttConnector *) c;
	int64		   before;
	int			   n;

	if (k->closed)
		return 0;
	streamext_mqtt_client_drain(k->client); /* whatever comes of it: a descriptor that stays readable is no wait */
	if (c->failed)
		return 0;
	if (!streamext_mqtt_client_started(k->client) && (GetCurrentTimestamp() < k->next_start || !mqtt_start(k)))
		return 0;

	mqtt_look(k);
	mqtt_look_unmatched(k);
	if (k->inbox.paused)
		return 0; /* arrivals go on into the journal */

	streamext_inbox_forget(&k->inbox);
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

static bool
mqtt_flush_target(Connector *c, uint64 ticket, int64 *targets)
{
	MqttConnector *k = (MqttConnector *) c;

	return !k->closed && !c->failed && streamext_mqtt_client_flush(k->client, ticket, &targets[0]);
}

static bool
mqtt_find(Connector *c, SeekKind kind, TimestampTz time, int64 *positions)
{
	return !((MqttConnector *) c)->closed && streamext_inbox_find(c, kind, time, positions);
}

/* What the broker still has for us is not known; that it has the connection is. */
static bool
mqtt_ends(Connector *c, const int *indexes, int n)
{
	MqttConnector *k = (MqttConnector *) c;

	if (k->closed || c->failed)
		return false;
	mqtt_look(k);
	return !c->stalled;
}

/* Arrivals go on: the journal holds them, the broker's queue is short. */
static void
mqtt_pause(Connector *c, bool paused)
{
	MqttConnector *k = (MqttConnector *) c;

	if (!k->closed && k->inbox.paused && !paused)
		streamext_mqtt_client_wake_reader(k->client);
	k->inbox.paused = paused;
}

/* The worker's client fills the journal; what another process is to read is in there. */
static const ConnectorOps mqtt_again_ops;

static Connector *
mqtt_open_again(const ConnectorOpen *args)
{
	JournalInbox *inbox = MemoryContextAllocZero(args->cxt, sizeof(JournalInbox));

	streamext_inbox_init(inbox, &mqtt_again_ops, args, linitial(args->config->source.topics));
	inbox->c.npartitions = 1;
	streamext_connector_guard(&inbox->c, args->cxt);
	return &inbox->c;
}

#define MQTT_DEFINITION                                                                                        \
	.name = "mqtt", .number = 2, .journaled = true, .payloads = true, .shards_keep_source = true,              \
	.options = streamext_mqtt_options, .metadata = streamext_mqtt_metadata,                                    \
	.check_options = streamext_mqtt_check_options, .configure = streamext_mqtt_configure,                      \
	.check = streamext_mqtt_check, .doubt = streamext_mqtt_doubt, .check_change = streamext_mqtt_check_change, \
	.own_metadata = streamext_mqtt_own_metadata, .headers = mqtt_headers

static const ConnectorOps mqtt_again_ops = {
	MQTT_DEFINITION,
	.open = mqtt_open_again,
	.poll = streamext_inbox_poll,
	STREAMEXT_INBOX_OPS,
};

const ConnectorOps streamext_mqtt_ops = {
	MQTT_DEFINITION,
	.writable = true,
	.published = true,
	.again = &mqtt_again_ops,
	.open = mqtt_open,
	.seek = mqtt_seek,
	.poll = mqtt_poll,
	.release = streamext_inbox_release,
	.flush_target = mqtt_flush_target,
	.find = mqtt_find,
	.ends = mqtt_ends,
	.commit = streamext_inbox_commit,
	.pause = mqtt_pause,
	.close = mqtt_close,
	.sample = streamext_mqtt_sample,
};
