/*
 * source/kafka/sample.c
 *		A look at topics by a session: brokers, login, topics, the newest records (source/sample.h).
 *
 * A consumer of its own without a group's offsets. Everything runs in the session's thread, in calls of SAMPLE_CALL_MS at most, between
 * which it looks for a cancel.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "source/kafka/client.h"
#include "source/sample.h"

#define SAMPLE_CALL_MS 200
#define SAMPLE_PARTITIONS 256 /* of a topic, of which records are read */

typedef struct KafkaSample
{
	const StreamConfig *config;
	SourceSample	   *sample;
	rd_kafka_t		   *rk;
	char				reason[STREAMEXT_MAX_MESSAGE]; /* what was last said of a connection */
	bool				down;						   /* all brokers are away */
	bool				refused;					   /* by the login */

	rd_kafka_topic_partition_list_t *from; /* what is read: of each partition, from here */
	int64							*ends; /* to there */
} KafkaSample;

static void
sample_on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

/* Called from within rd_kafka_poll and rd_kafka_consumer_poll. */
static void
sample_on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	KafkaSample *k = opaque;

	if (err == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN)
	{
		k->down = true;
		return;
	}
	k->refused |= err == RD_KAFKA_RESP_ERR__AUTHENTICATION;
	if (!k->refused || err == RD_KAFKA_RESP_ERR__AUTHENTICATION)
		streamext_clip(k->reason, reason, sizeof(k->reason));
}

/* False: found why not. */
static bool
sample_start(KafkaSample *k)
{
	static const char *const properties[][2] = {
		{ "group.id", "streamext_sample" },		   { "enable.auto.commit", "false" },
		{ "enable.auto.offset.store", "false" },   { "auto.offset.reset", "error" },
		{ "enable.partition.eof", "true" },		   { "isolation.level", "read_committed" },
		{ "allow.auto.create.topics", "false" },   { "fetch.wait.max.ms", "100" },
		{ "queued.max.messages.kbytes", "65536" }, { "reconnect.backoff.ms", "100" },
		{ "reconnect.backoff.max.ms", "1000" },	   { NULL, NULL }
	};
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	const char		*group = streamext_option(k->config->server_options, "group_id");
	char			 problem[STREAMEXT_MAX_MESSAGE];

	for (int i = 0; properties[i][0] != NULL; i++)
		(void) rd_kafka_conf_set(conf, properties[i][0], properties[i][1], NULL, 0);
	/* brokers may let the server's group be used and no other */
	if (group != NULL)
		(void) rd_kafka_conf_set(conf, "group.id", group, NULL, 0);
	rd_kafka_conf_set_log_cb(conf, sample_on_log);
	rd_kafka_conf_set_error_cb(conf, sample_on_error);
	rd_kafka_conf_set_opaque(conf, k);
	if (!streamext_kafka_set_login(conf, k->config, problem))
		rd_kafka_conf_destroy(conf);
	else
		k->rk = streamext_kafka_start(conf, problem);
	if (k->rk == NULL)
		streamext_sample_find(k->sample, "broker", false, "See the options of the server and of the user mapping.",
							  "%s", problem);
	return k->rk != NULL;
}

/* What is wrong with the connection, once nothing has come of it. */
static void
sample_not_reached(KafkaSample *k, const char *why)
{
	const char *brokers = streamext_option(k->config->server_options, "brokers");
	const char *what = k->reason[0] != '\0' ? k->reason : why;

	if (!k->refused)
	{
		streamext_sample_find(k->sample, "broker", false, NULL, "%s: %s", brokers, what);
		return;
	}
	streamext_sample_find(k->sample, "broker", true, NULL, "%s", brokers);
	streamext_sample_find(k->sample, "login", false, NULL, "%s", what);
}

/* Palloc'd by the library; NULL: found why not. */
static const struct rd_kafka_metadata *
sample_metadata(KafkaSample *k, const char *name)
{
	const struct rd_kafka_metadata *metadata = NULL;
	rd_kafka_topic_t			   *topic = rd_kafka_topic_new(k->rk, name, NULL);
	rd_kafka_resp_err_t				err = RD_KAFKA_RESP_ERR__TIMED_OUT;
	int								left = SAMPLE_CALL_MS;

	while (err != RD_KAFKA_RESP_ERR_NO_ERROR && !k->down && !k->refused && left > 0)
	{
		err = rd_kafka_metadata(k->rk, 0, topic, &metadata, left);
		(void) rd_kafka_poll(k->rk, 0);
		if (err != RD_KAFKA_RESP_ERR_NO_ERROR && InterruptPending)
			break;
		if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
			left = streamext_sample_left(k->sample, SAMPLE_CALL_MS);
	}
	rd_kafka_topic_destroy(topic);
	CHECK_FOR_INTERRUPTS();
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		return metadata;
	sample_not_reached(k, rd_kafka_err2str(err));
	return NULL;
}

static void
sample_reached(KafkaSample *k)
{
	const char *user = streamext_option(k->config->user_options, "sasl_username");
	ListCell   *cell;

	foreach (cell, k->sample->findings)
		if (strcmp(((SourceFinding *) lfirst(cell))->what, "broker") == 0)
			return;
	streamext_sample_find(k->sample, "broker", true, NULL, "%s",
						  streamext_option(k->config->server_options, "brokers"));
	if (streamext_option(k->config->server_options, "sasl_mechanism") == NULL)
		streamext_sample_find(k->sample, "login", true, NULL, "none is asked for");
	else
		streamext_sample_find(k->sample, "login", true, NULL, "as \"%s\"", user != NULL ? user : "");
}

/* Its partitions are added to what is read. False: it is not there, or not for us. */
static bool
sample_topic(KafkaSample *k, const char *name)
{
	const struct rd_kafka_metadata	*metadata = sample_metadata(k, name);
	const rd_kafka_metadata_topic_t *found;
	bool							 ok;

	if (metadata == NULL)
		return false;
	sample_reached(k);
	found = metadata->topic_cnt == 1 ? &metadata->topics[0] : NULL;
	ok = found != NULL && found->err == RD_KAFKA_RESP_ERR_NO_ERROR;
	if (ok)
	{
		streamext_sample_find(k->sample, "topic", true, NULL, "\"%s\" has %d partitions", name, found->partition_cnt);
		for (int i = 0; i < Min(found->partition_cnt, SAMPLE_PARTITIONS); i++)
			rd_kafka_topic_partition_list_add(k->from, name, found->partitions[i].id);
	}
	else if (found == NULL || found->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
		streamext_sample_find(k->sample, "topic", false, "See the topic's name; letters' case counts.",
							  "topic \"%s\" does not exist", name);
	else if (found->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
		streamext_sample_find(k->sample, "topic", false,
							  "The broker's ACLs must allow the user to read and describe it.",
							  "not authorised to read topic \"%s\"", name);
	else
		streamext_sample_find(k->sample, "topic", false, NULL, "topic \"%s\": %s", name, rd_kafka_err2str(found->err));
	rd_kafka_metadata_destroy(metadata);
	return ok;
}

/* Sets the offsets in the list to the beginnings or ends. */
static bool
sample_offsets(KafkaSample *k, rd_kafka_topic_partition_list_t *list, int64 which)
{
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;
	int					left = SAMPLE_CALL_MS;

	while (err != RD_KAFKA_RESP_ERR_NO_ERROR && left > 0)
	{
		for (int i = 0; i < list->cnt; i++)
			list->elems[i].offset = which;
		err = rd_kafka_offsets_for_times(k->rk, list, left);
		for (int i = 0; i < list->cnt && err == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
			err = list->elems[i].err;
		if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
			left = streamext_sample_left(k->sample, SAMPLE_CALL_MS);
	}
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		streamext_sample_find(k->sample, "topic", false, NULL, "could not read offsets: %s", rd_kafka_err2str(err));
	return err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* So far back that the newest records are in it wherever they are. False: found why not. */
static bool
sample_set_range(KafkaSample *k)
{
	rd_kafka_topic_partition_list_t *from = k->from;

	k->ends = palloc(sizeof(int64) * Max(from->cnt, 1));
	if (!sample_offsets(k, from, RD_KAFKA_OFFSET_END))
		return false;
	for (int i = 0; i < from->cnt; i++)
		k->ends[i] = from->elems[i].offset;
	if (!sample_offsets(k, from, RD_KAFKA_OFFSET_BEGINNING))
		return false;
	for (int i = 0; i < from->cnt; i++)
		from->elems[i].offset = Max(from->elems[i].offset, k->ends[i] - k->sample->wanted);
	return true;
}

static void
sample_take(KafkaSample *k, const rd_kafka_message_t *message)
{
	StreamRecord record = { 0 };
	const char	*refused;
	int			 sqlstate;

	record.payload = message->payload;
	record.payload_size = message->len;
	record.key = message->key;
	record.key_size = message->key_len;
	record.topic = rd_kafka_topic_name(message->rkt);
	record.partition = message->partition;
	record.position = message->offset;
	record.next_position = message->offset + 1;
	record.timestamp = kafka_timestamp(message);
	record.message = unconstify(rd_kafka_message_t *, message);
	streamext_sample_keep(k->sample, &record,
						  streamext_connector_headers(k->config->connector, NULL, &record, &refused, &sqlstate));
}

/* A partition has nothing more for us. */
static bool
sample_is_over(KafkaSample *k, const rd_kafka_message_t *message, bool *over)
{
	for (int i = 0; i < k->from->cnt; i++)
		if (k->from->elems[i].partition == message->partition &&
			strcmp(k->from->elems[i].topic, rd_kafka_topic_name(message->rkt)) == 0)
		{
			bool before = over[i];

			over[i] |= message->err != RD_KAFKA_RESP_ERR_NO_ERROR || message->offset + 1 >= k->ends[i];
			return over[i] && !before;
		}
	return false;
}

static void
sample_read(KafkaSample *k)
{
	bool *over = palloc0(sizeof(bool) * Max(k->from->cnt, 1));
	int	  open = 0;
	int	  left;

	for (int i = k->from->cnt - 1; i >= 0; i--)
		if (k->from->elems[i].offset >= k->ends[i])
			over[i] = true;
		else
			open++;
	if (open == 0 || k->sample->wanted == 0 || rd_kafka_assign(k->rk, k->from) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return;
	while (open > 0 && (left = streamext_sample_left(k->sample, SAMPLE_CALL_MS)) > 0)
	{
		rd_kafka_message_t *message = rd_kafka_consumer_poll(k->rk, left);

		if (message == NULL)
			continue;
		if (message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			sample_take(k, message);
		else if (message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
			streamext_sample_find(k->sample, "records", false, NULL, "%s", rd_kafka_message_errstr(message));
		if (message->rkt != NULL && sample_is_over(k, message, over))
			open--;
		rd_kafka_message_destroy(message);
	}
	(void) rd_kafka_assign(k->rk, NULL);
}

/* Also where the session ends: no client's threads run on in the process's exit. */
static void
sample_end(int code, Datum arg)
{
	KafkaSample *k = (KafkaSample *) DatumGetPointer(arg);

	if (k->from != NULL)
		rd_kafka_topic_partition_list_destroy(k->from);
	if (k->rk != NULL)
		streamext_kafka_end(k->rk);
	k->from = NULL;
	k->rk = NULL;
}

static void
sample_look(KafkaSample *k)
{
	bool	  ok = sample_start(k);
	ListCell *cell;

	k->from = rd_kafka_topic_partition_list_new(16);
	foreach (cell, k->config->source.topics)
		ok = ok && sample_topic(k, lfirst(cell));
	if (ok && k->from->cnt > 0 && sample_set_range(k))
		sample_read(k);
}

void
streamext_kafka_sample(const StreamConfig *config, SourceSample *sample)
{
	KafkaSample *k = palloc0(sizeof(KafkaSample));

	k->config = config;
	k->sample = sample;
	PG_ENSURE_ERROR_CLEANUP(sample_end, PointerGetDatum(k));
	{
		sample_look(k);
	}
	PG_END_ENSURE_ERROR_CLEANUP(sample_end, PointerGetDatum(k));
	sample_end(0, PointerGetDatum(k));
}
