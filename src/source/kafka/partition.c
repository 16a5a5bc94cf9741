/*
 * source/kafka/partition.c
 *		Which partitions a Kafka stream has, what the brokers say of their offsets, and what becomes of one of which there is a fault.
 *
 * Partitions are only ever added; their indexes stay for the connector's life. Everything here asks the brokers, with a
 * timeout of a second at most, and is repeated a second later once it has failed.
 *
 * After a fault (a gap, a checksum, an offset out of range) a partition is `broken`: it delivers nothing until the new consumer, because librdkafka
 * itself would go on behind the fault.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "source/kafka/client.h"

#define KAFKA_METADATA_INTERVAL (10 * USECS_PER_SEC) /* look for new partitions */
#define KAFKA_STANDING_INTERVAL (10 * USECS_PER_SEC) /* look for those of which nothing comes */
#define KAFKA_BEYOND_TRIES 3 /* how often a position must be found beyond the end before that is believed */

int
streamext_kafka_index(KafkaConnector *k, const rd_kafka_message_t *message)
{
	if (message->rkt == NULL || message->partition < 0)
		return -1;
	for (int t = 0; t < k->ntopics; t++)
	{
		KafkaTopic *topic = &k->topics[t];

		if (topic->handle == message->rkt || strcmp(topic->name, rd_kafka_topic_name(message->rkt)) == 0)
			return message->partition < topic->nindex ? topic->index[message->partition] : -1;
	}
	return -1;
}

static void
kafka_add_partition(KafkaConnector *k, KafkaTopic *topic, int32 number)
{
	Connector	   *c = &k->c;
	KafkaPartition *partition;

	if (c->npartitions == STREAMEXT_MAX_PARTITIONS)
	{
		streamext_connector_report(c, "the stream has more than %d partitions", STREAMEXT_MAX_PARTITIONS);
		streamext_kafka_fail(k, false);
		return;
	}
	if (c->npartitions == k->capacity)
	{
		k->capacity *= 2;
		c->partitions = repalloc(c->partitions, k->capacity * sizeof(ConnectorPartition));
		k->partitions = repalloc(k->partitions, k->capacity * sizeof(KafkaPartition));
	}

	strlcpy(c->partitions[c->npartitions].topic, topic->name, sizeof(c->partitions[0].topic));
	c->partitions[c->npartitions].partition = number;
	c->partitions[c->npartitions].position = -1;
	c->partitions[c->npartitions].high_watermark = -1;
	c->partitions[c->npartitions].last.position = -1;

	partition = &k->partitions[c->npartitions];
	memset(partition, 0, sizeof(*partition));
	partition->topic = topic;
	partition->initial = !k->discovered;
	partition->start = partition->stood = partition->ended = -1;
	partition->start_known = c->config->source.start == START_EARLIEST;
	topic->index[number] = c->npartitions++;
}

/* Which worker takes a partition of the topic with number t: of the server's partitions its share; -1: none of this server. */
static int
kafka_shard(const StreamConfig *config, int shards, int number, int t)
{
	if (number % config->source.partition_step != config->source.partition_first)
		return -1;
	return (number / config->source.partition_step + t) % shards;
}

int
streamext_kafka_shard_of(const StreamConfig *config, const char *topic, int32 partition)
{
	ListCell *lc;

	foreach (lc, config->source.topics)
		if (strcmp(lfirst(lc), topic) == 0)
			return kafka_shard(config, Max(config->workers, 1), partition, foreach_current_index(lc));
	return -1;
}

/* Adds what is new, by partition number and then topic, so that the order depends little on when a partition came. */
static bool
kafka_add_partitions(KafkaConnector *k, const int *counts)
{
	int before = k->c.npartitions, most = 0;

	for (int t = 0; t < k->ntopics; t++)
		most = Max(most, counts[t]);
	for (int number = 0; number < most; number++)
		for (int t = 0; t < k->ntopics && !k->c.failed; t++)
		{
			KafkaTopic *topic = &k->topics[t];

			if (number >= counts[t] || number < topic->nindex)
				continue;
			if (topic->index == NULL)
				topic->index = MemoryContextAlloc(k->cxt, sizeof(int) * (number + 1));
			else
				topic->index = repalloc(topic->index, sizeof(int) * (number + 1));
			topic->nindex = number + 1;
			topic->index[number] = -1;
			if (kafka_shard(k->c.config, k->c.shards, number, t) == k->c.shard)
				kafka_add_partition(k, topic, number);
		}
	return k->c.npartitions > before;
}

/* Says what is wrong with a topic, or sets how many partitions it has. False: the brokers do not know at the moment. */
static bool
kafka_judge_topic(KafkaConnector *k, KafkaTopic *topic, const rd_kafka_metadata_topic_t *found, int *count)
{
	switch (found->err)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			if (topic->missing && topic->nindex > 0)
			{
				/* back again, or another one of that name: a new consumer compares */
				k->renew = true;
				k->renew_at = 0;
			}
			topic->missing = topic->refused = false;
			*count = found->partition_cnt;
			if (*count < topic->nindex)
			{
				streamext_connector_report(&k->c, "diverged: topic \"%s\" has %d partitions, but had %d before",
										   topic->name, *count, topic->nindex);
				streamext_connector_event(&k->c, "diverged", -1, 0, "topic \"%s\" has %d partitions, but had %d before",
										  topic->name, *count, topic->nindex);
				streamext_kafka_fail(k, true);
			}
			break;
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
			topic->missing = topic->refused = true;
			streamext_connector_report(&k->c, "topic \"%s\" does not exist", topic->name);
			break;
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
			topic->missing = topic->refused = true;
			streamext_connector_report(&k->c, "not authorised to read topic \"%s\"", topic->name);
			break;
		default:
			topic->missing = true;
			streamext_connector_report(&k->c, "topic \"%s\": %s", topic->name, rd_kafka_err2str(found->err));
			return false;
	}
	return true;
}

bool
streamext_kafka_refresh(KafkaConnector *k)
{
	rd_kafka_t *asker = streamext_kafka_asker(k);
	TimestampTz deadline = GetCurrentTimestamp() + k->patience * 1000;
	int		   *counts = palloc0(sizeof(int) * k->ntopics);
	bool		missing = false, grown = false, settled = true;
	int			t;

	for (t = 0; t < k->ntopics; t++)
	{
		const struct rd_kafka_metadata *metadata;
		rd_kafka_topic_t			   *topic = rd_kafka_topic_new(asker, k->topics[t].name, NULL);
		int								left = Max((int) ((deadline - GetCurrentTimestamp()) / 1000), 10);
		rd_kafka_resp_err_t				err = rd_kafka_metadata(asker, 0, topic, &metadata, left);

		rd_kafka_topic_destroy(topic);
		if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			streamext_kafka_down(k, "brokers do not answer", rd_kafka_err2str(err));
			break;
		}
		if (metadata->topic_cnt == 1)
			settled &= kafka_judge_topic(k, &k->topics[t], &metadata->topics[0], &counts[t]);
		missing |= k->topics[t].missing;
		rd_kafka_metadata_destroy(metadata);
	}

	if (t == k->ntopics)
	{
		streamext_kafka_up(k);
		k->patience = KAFKA_CALL_MS;
		grown = kafka_add_partitions(k, counts);
		k->discovered = true;
		k->flush_fresh = settled; /* what a topic holds must be known to be flushed */
		k->next_metadata = GetCurrentTimestamp() + (missing ? KAFKA_RETRY : KAFKA_METADATA_INTERVAL);
	}
	else
	{
		k->patience = Min(k->patience * 2, KAFKA_CALL_MS);
		k->next_metadata = GetCurrentTimestamp() + KAFKA_RETRY;
	}
	streamext_kafka_update_stalled(k);
	pfree(counts);
	return grown;
}

bool
streamext_kafka_offsets(KafkaConnector *k, const int *indexes, int n, int64 time, int64 *offsets)
{
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t				 err;

	if (n == 0)
		return true;
	list = rd_kafka_topic_partition_list_new(n);
	for (int i = 0; i < n; i++)
	{
		ConnectorPartition *partition = &k->c.partitions[indexes[i]];

		rd_kafka_topic_partition_list_add(list, partition->topic, partition->partition)->offset = time;
	}

	/* The request's time field is what the protocol calls it, so it takes the logical offsets as well. */
	err = rd_kafka_offsets_for_times(streamext_kafka_asker(k), list, KAFKA_CALL_MS);
	for (int i = 0; i < n && err == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
	{
		err = list->elems[i].err;
		offsets[i] = list->elems[i].offset;
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR && time < 0 && offsets[i] < 0)
			err = RD_KAFKA_RESP_ERR_UNKNOWN;
	}
	rd_kafka_topic_partition_list_destroy(list);
	k->next_offsets = GetCurrentTimestamp() + (err == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : KAFKA_RETRY);
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		return true;
	streamext_connector_report(&k->c, "could not read offsets: %s", rd_kafka_err2str(err));
	return false;
}

/* The partitions that are where they were at the last look; how many. *broken: others wait to be mended. */
static int
kafka_unmoved(KafkaConnector *k, int *indexes, bool *broken)
{
	int n = 0;

	*broken = false;

	for (int i = 0; i < k->c.npartitions; i++)
	{
		KafkaPartition *partition = &k->partitions[i];

		if (!partition->assigned || partition->broken || partition->topic->missing ||
			partition->stood != k->c.partitions[i].position)
			partition->ended = -1;
		else
			indexes[n++] = i;
		*broken = *broken || partition->broken;
		partition->stood = k->c.partitions[i].position;
	}
	return n;
}

/* One that had more at the last look has stood since then; of one that is known to stand nothing has come yet. */
static bool
kafka_stands(KafkaConnector *k, int index, int64 end)
{
	ConnectorPartition *partition = &k->c.partitions[index];
	int64				ended = k->partitions[index].ended;

	k->partitions[index].ended = end;
	if (Max(partition->position, 0) >= end)
		return false;
	if (ended < 0 || k->standing)
		return k->standing;
	streamext_connector_report(&k->c,
							   "nothing comes from topic \"%s\" partition %d at offset " INT64_FORMAT
							   ", which ends at " INT64_FORMAT
							   ": the broker's answers are late, empty, or none that the Kafka client can read",
							   partition->topic, partition->partition, Max(partition->position, 0), end);
	return true;
}

void
streamext_kafka_look_for_standing(KafkaConnector *k, TimestampTz now)
{
	int	  *indexes;
	int64 *ends;
	bool   standing;
	int	   n;

	if (!k->up)
		k->next_standing = now + KAFKA_STANDING_INTERVAL;
	/* what is at hand moves positions in the polls to come */
	if (now < k->next_standing || now < k->next_offsets || k->nmessages > 0 || rd_kafka_queue_length(k->queue) > 0)
		return;
	indexes = palloc(sizeof(int) * (k->c.npartitions + 1));
	ends = palloc(sizeof(int64) * (k->c.npartitions + 1));
	n = kafka_unmoved(k, indexes, &standing);
	if (streamext_kafka_offsets(k, indexes, n, RD_KAFKA_OFFSET_END, ends))
	{
		for (int i = 0; i < n; i++)
			standing |= kafka_stands(k, indexes[i], ends[i]);
		k->standing = standing;
		k->next_standing = now + (standing ? KAFKA_RETRY : KAFKA_STANDING_INTERVAL);
		streamext_kafka_update_stalled(k);
	}
	pfree(indexes);
	pfree(ends);
}

/* Where n partitions begin that were there when the stream was new. */
static bool
kafka_find_start(KafkaConnector *k, const int *indexes, int n, int64 *offsets)
{
	StreamConfig *config = k->c.config;
	int64		 *ends = palloc(sizeof(int64) * (n + 1));
	bool		  ok = streamext_kafka_offsets(k, indexes, n, RD_KAFKA_OFFSET_END, ends);

	if (ok && config->source.start == START_TIMESTAMP)
		ok = streamext_kafka_offsets(k, indexes, n, KAFKA_MILLISECOND(config->source.start_time), offsets);
	for (int i = 0; i < n && ok; i++)
		if (config->source.start == START_LATEST || offsets[i] < 0)
			offsets[i] = ends[i];
	pfree(ends);
	return ok;
}

/* Of the partitions whose start is not known those that are new to the source, or the others; how many. */
static int
kafka_unresolved(const KafkaConnector *k, bool added, int *indexes)
{
	int n = 0;

	for (int i = 0; i < k->c.npartitions; i++)
		if (!k->partitions[i].start_known && k->c.partitions[i].position < 0 &&
			(k->c.known || !k->partitions[i].initial) == added)
			indexes[n++] = i;
	return n;
}

bool
streamext_kafka_resolve_starts(KafkaConnector *k)
{
	bool ok = true;

	if (k->c.config->source.start == START_EARLIEST)
		return true;
	for (int added = 0; added <= 1 && ok; added++)
	{
		int	  *indexes = palloc(sizeof(int) * (k->c.npartitions + 1));
		int64 *offsets = palloc(sizeof(int64) * (k->c.npartitions + 1));
		int	   n = kafka_unresolved(k, added, indexes);

		if (n > 0)
			ok = GetCurrentTimestamp() >= k->next_offsets &&
				 (added ? streamext_kafka_offsets(k, indexes, n, RD_KAFKA_OFFSET_BEGINNING, offsets)
						: kafka_find_start(k, indexes, n, offsets));
		for (int i = 0; i < n && ok; i++)
		{
			k->partitions[indexes[i]].start = k->c.partitions[indexes[i]].position = offsets[i];
			k->partitions[indexes[i]].start_known = true;
		}
		pfree(indexes);
		pfree(offsets);
	}
	return ok;
}

/* ---- faults ---- */

/* The client would ask for it again and again, without a pause. Not for longer than the consumer lives. */
static void
kafka_hold(KafkaConnector *k, int index)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);

	rd_kafka_topic_partition_list_add(list, k->c.partitions[index].topic, k->c.partitions[index].partition);
	(void) rd_kafka_pause_partitions(k->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
}

static void
kafka_break(KafkaConnector *k, int index)
{
	if (!k->partitions[index].broken)
		kafka_hold(k, index);
	k->partitions[index].broken = true;
	if (!k->mend)
		k->next_mend = GetCurrentTimestamp() + (k->partitions[index].beyond > 0 ? KAFKA_RETRY : 0);
	k->mend = true;
	streamext_kafka_update_stalled(k);
}

/* A partition whose position the broker does not have: behind the low watermark is a gap, beyond the end another topic. */
static void
kafka_mend_partition(KafkaConnector *k, int index, int64 low, int64 high)
{
	ConnectorPartition *partition = &k->c.partitions[index];

	/* the record before the position is gone, as it may: nothing to compare with any more */
	if (partition->last.position < low)
		partition->last.position = -1;
	if (partition->position >= 0 && partition->position < low)
	{
		streamext_connector_event(&k->c, "gap", index, low - partition->position,
								  "offsets " INT64_FORMAT " to " INT64_FORMAT " are gone", partition->position,
								  low - 1);
		streamext_connector_report(
			&k->c, "gap in topic \"%s\" partition %d: offsets " INT64_FORMAT " to " INT64_FORMAT " are gone",
			partition->topic, partition->partition, partition->position, low - 1);
		partition->position = low;
		k->partitions[index].beyond = 0;
	}
	else if (partition->position > high)
	{
		/* A new leader may not know its end yet. */
		streamext_connector_report(&k->c,
								   "diverged: topic \"%s\" partition %d ends at offset " INT64_FORMAT
								   ", but it was read up to " INT64_FORMAT " before",
								   partition->topic, partition->partition, high, partition->position);
		if (++k->partitions[index].beyond >= KAFKA_BEYOND_TRIES)
		{
			streamext_connector_event(&k->c, "diverged", index, 0,
									  "ends at offset " INT64_FORMAT ", but was read up to " INT64_FORMAT " before",
									  high, partition->position);
			streamext_kafka_fail(k, true);
		}
	}
	else
		k->partitions[index].beyond = 0;
	partition->high_watermark = high;
}

void
streamext_kafka_mend(KafkaConnector *k)
{
	int	   n = 0;
	int	  *indexes = palloc(sizeof(int) * k->c.npartitions);
	int64 *lows = palloc(sizeof(int64) * k->c.npartitions), *highs = palloc(sizeof(int64) * k->c.npartitions);

	for (int i = 0; i < k->c.npartitions; i++)
		if (k->partitions[i].broken)
			indexes[n++] = i;
	k->next_mend = GetCurrentTimestamp() + KAFKA_RETRY;

	if (streamext_kafka_offsets(k, indexes, n, RD_KAFKA_OFFSET_BEGINNING, lows) &&
		streamext_kafka_offsets(k, indexes, n, RD_KAFKA_OFFSET_END, highs))
	{
		for (int i = 0; i < n; i++)
			kafka_mend_partition(k, indexes[i], lows[i], highs[i]);
		k->renew = true;
		k->renew_at = 0;
	}
	pfree(indexes);
	pfree(lows);
	pfree(highs);
}

/* A topic or partition is not there, or may not be read; of which partition, if it is told, else -1. */
static void
kafka_miss(KafkaConnector *k, int index, const rd_kafka_message_t *message)
{
	bool		forbidden = message->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
	TimestampTz soon = GetCurrentTimestamp() + KAFKA_RETRY;

	streamext_connector_report(&k->c, "%s", rd_kafka_message_errstr(message));
	k->next_metadata = Min(k->next_metadata, soon);
	/* it may be made anew before we look, and then nothing of it may be taken for a continuation */
	if (index >= 0 && !forbidden)
		k->partitions[index].topic->missing = true;
	if (index >= 0 && forbidden)
	{
		kafka_break(k, index);
		k->next_mend = Max(k->next_mend, soon);
	}
}

/* A damaged record set, an unknown compression, ...: librdkafka goes on behind it, the stream must not. */
static void
kafka_damaged(KafkaConnector *k, int index, const rd_kafka_message_t *message)
{
	const ConnectorPartition *partition = &k->c.partitions[index];

	streamext_connector_report(
		&k->c, "topic \"%s\" partition %d at offset " INT64_FORMAT ": %s%s", partition->topic, partition->partition,
		partition->position, rd_kafka_message_errstr(message),
		message->err == RD_KAFKA_RESP_ERR__BAD_COMPRESSION
			? "; it is damaged, or with zstd it unpacks to more than the Kafka client takes, 700 MB at least: see the producer's batch.size"
			: "");
	kafka_break(k, index);
	k->next_mend = Max(k->next_mend, GetCurrentTimestamp() + KAFKA_RETRY);
	k->standing = true; /* until something of it comes */
	k->next_standing = k->next_mend + KAFKA_RETRY;
}

void
streamext_kafka_event(KafkaConnector *k, const rd_kafka_message_t *message)
{
	int					index = streamext_kafka_index(k, message);
	ConnectorPartition *partition = index < 0 ? NULL : &k->c.partitions[index];

	switch (message->err)
	{
		case RD_KAFKA_RESP_ERR__PARTITION_EOF:
			/* Behind the last record there may be control records and aborted or compacted ones. An end before it is another topic's. */
			if (partition != NULL && !k->renew && message->offset < partition->position)
				kafka_break(k, index);
			else if (partition != NULL && !k->partitions[index].broken)
			{
				partition->position = Max(partition->position, message->offset);
				partition->high_watermark = Max(partition->high_watermark, message->offset);
			}
			streamext_kafka_up(k);
			break;

		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
			if (partition != NULL)
				kafka_break(k, index);
			break;

		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
		case RD_KAFKA_RESP_ERR__TRANSPORT:
			streamext_kafka_down(k, "brokers are unreachable", rd_kafka_message_errstr(message));
			break;

		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
		case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
			kafka_miss(k, index, message);
			break;

		default:
			if (partition != NULL)
				kafka_damaged(k, index, message);
			break;
	}
}
