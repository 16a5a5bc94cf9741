/*
 * source/kafka/kafka.c
 *		Kafka by librdkafka: neither lost nor counted twice.
 *
 * Partitions are assigned with explicit offsets, no group is joined; offsets are committed only for the usual lag tools.
 * auto.offset.reset is `error`, so that an offset which is not there is an event here, never a silent jump.
 *
 * Invariants:
 *	- A partition's position is the offset of the next record to deliver, -1 while it is at the beginning and nothing is known.
 *	  Records below it are dropped; a record above it is the next one only because nothing else can be in the queue:
 *	- a consumer lives for one sequence of positions. A seek, and any fault of a partition, makes a new consumer (tens of
 *	  milliseconds) instead of a seek within the old, whose queue may hold records from before: librdkafka 2.0.2 does not
 *	  filter those when records are taken in batches.
 *	- A partition with a fault is `broken` (partition.c): it delivers nothing until the new consumer.
 *
 * Everything runs in the main thread but librdkafka's own threads, which call nothing here except a log callback that does
 * nothing. Calls that ask the brokers have a timeout of a second at most and, once failed, are repeated a second later.
 */
#include "base/streamext.h"

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/timestamp.h"

#include "source/kafka/client.h"
#include "source/kafka/options.h"

#define KAFKA_COMMIT_INTERVAL USECS_PER_SEC
#define KAFKA_WATERMARK_INTERVAL (USECS_PER_SEC / 4)

static void
kafka_release(Connector *c)
{
	streamext_kafka_release((KafkaConnector *) c, false);
}

static void
kafka_end_consumer(KafkaConnector *k)
{
	k->ntaken = k->nmessages; /* what is behind them is read again */
	streamext_kafka_release(k, true);
	for (int i = 0; i < k->c.npartitions; i++)
		k->partitions[i].assigned = k->partitions[i].broken = false;
	k->mend = false;
	streamext_kafka_destroy(k);
}

/* ---- assignment ---- */

/* Where to begin: with the record before the position, if it is known, to see whether it is still the same. */
static int64
kafka_first_offset(const ConnectorPartition *partition)
{
	if (partition->position < 0)
		return RD_KAFKA_OFFSET_BEGINNING;
	if (partition->last.position >= 0 && partition->last.position < partition->position)
		return partition->last.position;
	return partition->position;
}

/* Begins to fetch the partitions that are not fetched yet. */
static void
kafka_assign(KafkaConnector *k)
{
	rd_kafka_topic_partition_list_t *list = NULL;
	rd_kafka_error_t				*error;

	for (int i = 0; i < k->c.npartitions; i++)
	{
		ConnectorPartition *partition = &k->c.partitions[i];

		if (k->partitions[i].assigned)
			continue;
		if (list == NULL)
			list = rd_kafka_topic_partition_list_new(k->c.npartitions);
		rd_kafka_topic_partition_list_add(list, partition->topic, partition->partition)->offset =
			kafka_first_offset(partition);
	}
	if (list == NULL)
		return;

	error = rd_kafka_incremental_assign(k->rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (error != NULL)
	{
		streamext_connector_report(&k->c, "could not assign partitions: %s", rd_kafka_error_string(error));
		rd_kafka_error_destroy(error);
		k->renew = true;
		k->renew_at = GetCurrentTimestamp() + KAFKA_RETRY;
		return;
	}
	for (int i = 0; i < k->c.npartitions; i++)
		k->partitions[i].assigned = true;
}

/* ---- ops ---- */

/* Topics may be named twice; each is read once. */
static void
kafka_set_topics(KafkaConnector *k, StreamConfig *config)
{
	ListCell *lc;

	k->topics = MemoryContextAllocZero(k->cxt, sizeof(KafkaTopic) * Max(list_length(config->source.topics), 1));
	foreach (lc, config->source.topics)
	{
		const char *name = lfirst(lc);
		int			t = 0;

		while (t < k->ntopics && strcmp(k->topics[t].name, name) != 0)
			t++;
		if (t == k->ntopics)
			k->topics[k->ntopics++].name = MemoryContextStrdup(k->cxt, name);
	}
}

static Connector *
kafka_open(const ConnectorOpen *args)
{
	MemoryContext	cxt = args->cxt;
	KafkaConnector *k = MemoryContextAllocZero(cxt, sizeof(KafkaConnector));
	Connector	   *c = &k->c;

	c->ops = &streamext_kafka_ops;
	c->config = args->config;
	c->shard = args->shard;
	c->shards = Max(args->shards, 1);
	c->stalled = true;
	c->wait_fd = -1;
	k->cxt = cxt;
	k->capacity = 16;
	k->patience = KAFKA_CALL_MS;
	c->partitions = MemoryContextAllocZero(cxt, sizeof(ConnectorPartition) * k->capacity);
	k->partitions = MemoryContextAllocZero(cxt, sizeof(KafkaPartition) * k->capacity);
	k->messages = k->held =
		MemoryContextAlloc(cxt, sizeof(rd_kafka_message_t *) * (KAFKA_HELD_RECORDS + STREAMEXT_BATCH_ROWS));
	k->commit = MemoryContextAlloc(cxt, sizeof(int64) * STREAMEXT_MAX_PARTITIONS);
	for (int i = 0; i < args->config->desc->natts; i++)
		k->headers |= !args->config->columns[i].dropped && args->config->columns[i].metadata == METADATA_HEADERS;
	kafka_set_topics(k, args->config);

	/* OpenSSL writes to sockets that may be gone; bgworkers start with the default, which kills. */
	pqsignal(SIGPIPE, SIG_IGN);
	if (!streamext_kafka_open_fds(k))
	{
		streamext_kafka_close_fds(k);
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_RESOURCES), errmsg("could not create an event descriptor: %m")));
	}
	streamext_connector_guard(c, cxt);

	if (streamext_kafka_create(k))
		streamext_kafka_refresh(k);
	streamext_kafka_wake(k); /* for the assignment */
	return c;
}

static void
kafka_close(Connector *c)
{
	KafkaConnector *k = (KafkaConnector *) c;

	if (k->closed)
		return;
	k->closed = true;
	kafka_end_consumer(k);
	streamext_kafka_destroy_asker(k);
	streamext_kafka_close_fds(k);
}

static void
kafka_seek(Connector *c, int index, int64 position)
{
	KafkaConnector *k = (KafkaConnector *) c;
	KafkaPartition *partition;

	if (index < 0 || index >= c->npartitions)
		return;
	partition = &k->partitions[index];
	if (position < 0 && partition->start_known)
		position = partition->start;
	if (position == c->partitions[index].position)
		return;
	c->partitions[index].position = Max(position, -1);
	if (partition->assigned)
	{
		k->renew = true;
		k->renew_at = 0;
	}
	streamext_kafka_wake(k);
}

static RecordMark
kafka_mark(const rd_kafka_message_t *message)
{
	RecordMark mark = { .position = message->offset };
	pg_crc32c  crc;

	/* not what stands in for a missing one */
	mark.timestamp = rd_kafka_message_timestamp(message, NULL);
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, message->key, message->key_len);
	COMP_CRC32C(crc, message->payload, message->len);
	FIN_CRC32C(crc);
	mark.crc = crc;
	return mark;
}

/* The record at the mark's offset, once more. False: it is another one, and so is the topic. */
static bool
kafka_check_mark(KafkaConnector *k, int index, const rd_kafka_message_t *message)
{
	ConnectorPartition *partition = &k->c.partitions[index];
	RecordMark			mark = kafka_mark(message);

	if (mark.timestamp == partition->last.timestamp && mark.crc == partition->last.crc)
		return true;
	streamext_connector_report(
		&k->c, "diverged: topic \"%s\" partition %d has another record at offset " INT64_FORMAT " than was read before",
		partition->topic, partition->partition, message->offset);
	streamext_connector_event(&k->c, "diverged", index, 0,
							  "another record at offset " INT64_FORMAT " than was read before", message->offset);
	streamext_kafka_fail(k, true);
	return false;
}

/* The last record of each partition in the poll is what is looked for when the topic is met again. */
static void
kafka_remember(KafkaConnector *k, const StreamRecord *records, int n)
{
	for (int i = n - 1; i >= 0; i--)
	{
		RecordMark *last = &k->c.partitions[records[i].partition_index].last;

		/* the first one met from behind is the last: those before are below it */
		if (records[i].position > last->position)
			*last = kafka_mark(records[i].message);
	}
}

/* Turns messages into records, up to max, and up to what a poll shall hold; returns how many. */
static int
kafka_records(KafkaConnector *k, StreamRecord *records, int max)
{
	ConnectorPartition *partitions = k->c.partitions;
	const KafkaTopic   *topic = NULL;
	uint64				bytes = 0;
	int					n = 0;

	while (k->ntaken < k->nmessages && n < max && bytes < KAFKA_POLL_BYTES)
	{
		rd_kafka_message_t *message = k->messages[k->ntaken++];
		StreamRecord	   *record = &records[n];
		int					index;

		if (unlikely(message->err != RD_KAFKA_RESP_ERR_NO_ERROR))
		{
			streamext_kafka_event(k, message);
			continue;
		}
		if (unlikely(topic == NULL || topic->handle != message->rkt))
		{
			index = streamext_kafka_index(k, message);
			if (index < 0)
				continue;
			topic = k->partitions[index].topic;
		}
		else if (unlikely(message->partition >= topic->nindex) || (index = topic->index[message->partition]) < 0)
			continue;
		if (unlikely(topic->missing))
			continue; /* it comes again when the topic is back */
		if (unlikely(message->offset == partitions[index].last.position) && !k->partitions[index].broken &&
			!kafka_check_mark(k, index, message))
			return 0;
		if (unlikely(message->offset < partitions[index].position || k->partitions[index].broken))
			continue;
		if (unlikely(message->offset == PG_INT64_MAX))
			continue; /* there is no position behind it */

		record->payload = message->payload;
		record->payload_size = (uint32) message->len;
		record->key = message->key;
		record->key_size = (uint32) message->key_len;
		record->topic = topic->name;
		record->partition = message->partition;
		record->partition_index = index;
		record->position = message->offset;
		record->next_position = message->offset + 1;
		record->timestamp = kafka_timestamp(message);
		record->qos = 0;
		record->retained = false;
		record->row_type_hash = 0;
		record->layout = NULL;
		record->message = message;
		partitions[index].position = message->offset + 1;
		bytes += message->len + message->key_len + (unlikely(k->headers) ? streamext_kafka_headers_bytes(message) : 0);
		n++;
	}
	kafka_remember(k, records, n);
	if (n > 0)
		streamext_kafka_up(k);
	return n;
}

/* The ends as the fetches reported them. */
static void
kafka_look_at_watermarks(KafkaConnector *k)
{
	for (int i = 0; i < k->c.npartitions; i++)
	{
		ConnectorPartition *partition = &k->c.partitions[i];
		int64_t				low, high;

		if (k->partitions[i].assigned &&
			rd_kafka_get_watermark_offsets(k->rk, partition->topic, partition->partition, &low, &high) ==
				RD_KAFKA_RESP_ERR_NO_ERROR &&
			high >= 0)
			partition->high_watermark = Max(high, partition->position);
	}
}

static void
kafka_send_commit(KafkaConnector *k)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(k->ncommit);

	for (int i = 0; i < k->ncommit; i++)
		if (k->commit[i] >= 0)
			rd_kafka_topic_partition_list_add(list, k->c.partitions[i].topic, k->c.partitions[i].partition)->offset =
				k->commit[i];

	/* For lag tools only: whether it is allowed, and whether it arrives, does not matter. */
	if (list->cnt > 0)
		(void) rd_kafka_commit(k->rk, list, 1);
	rd_kafka_topic_partition_list_destroy(list);
	k->ncommit = 0;
}

/* All that is due besides records. False: nothing can be delivered in this poll. */
static bool
kafka_housekeep(KafkaConnector *k, TimestampTz now)
{
	if (k->mend && now >= k->next_mend && k->rk != NULL)
		streamext_kafka_mend(k);
	if (k->c.failed)
		return false;
	if (k->renew && k->rk != NULL && now >= k->renew_at)
	{
		kafka_end_consumer(k);
		k->next_client = 0;
	}
	if (k->rk == NULL && (now < k->next_client || !streamext_kafka_create(k)))
		return false;

	if (now >= k->next_metadata && streamext_kafka_refresh(k))
	{
		streamext_kafka_wake(k);
		return false;
	}
	if (k->c.failed)
		return false;
	if (k->renew && k->renew_at <= now)
	{
		streamext_kafka_wake(k);
		return false;
	}
	k->unresolved = !streamext_kafka_resolve_starts(k);
	if (!k->unresolved)
		kafka_assign(k);

	if (k->ncommit > 0 && now >= k->next_commit)
	{
		kafka_send_commit(k);
		k->next_commit = now + KAFKA_COMMIT_INTERVAL;
	}
	if (now >= k->next_watermarks)
	{
		kafka_look_at_watermarks(k);
		k->next_watermarks = now + KAFKA_WATERMARK_INTERVAL;
	}
	streamext_kafka_look_for_standing(k, now);
	return true;
}

/* Nothing is taken, but how far behind the stream is stays known. */
static void
kafka_poll_paused(KafkaConnector *k, TimestampTz now)
{
	int	  *indexes;
	int64 *ends;
	int	   n = 0;

	if (k->rk == NULL || now < k->next_offsets)
		return;
	indexes = palloc(sizeof(int) * (k->c.npartitions + 1));
	ends = palloc(sizeof(int64) * (k->c.npartitions + 1));
	for (int i = 0; i < k->c.npartitions; i++)
		if (!k->partitions[i].topic->missing)
			indexes[n++] = i;
	if (streamext_kafka_offsets(k, indexes, n, RD_KAFKA_OFFSET_END, ends))
		for (int i = 0; i < n; i++)
			k->c.partitions[indexes[i]].high_watermark = ends[i];
	k->next_offsets = GetCurrentTimestamp() + KAFKA_RETRY;
	pfree(indexes);
	pfree(ends);
}

static int
kafka_poll(Connector *c, StreamRecord *records, int max)
{
	KafkaConnector *k = (KafkaConnector *) c;
	TimestampTz		now = GetCurrentTimestamp();
	ssize_t			got;
	int				n = 0;

	if (k->closed || c->failed)
		return 0;
	kafka_release(c);
	streamext_kafka_drain(k);
	if (k->paused)
		kafka_poll_paused(k, now);
	else if (kafka_housekeep(k, now))
	{
		max = Min(max, STREAMEXT_BATCH_ROWS);
		if (k->nmessages == 0)
		{
			got = rd_kafka_consume_batch_queue(k->queue, 0, k->messages, max);
			k->nmessages = Max(got, 0);
			streamext_kafka_refill(k);
		}
		n = kafka_records(k, records, max);
		if (k->nmessages == max || k->ntaken < k->nmessages)
			streamext_kafka_wake(k); /* there may be more */
		streamext_kafka_update_stalled(k);
	}
	if (n == 0)
	{
		streamext_kafka_release(k, true);
		streamext_kafka_arm(k, now);
	}
	return n;
}

static bool
kafka_flush_target(Connector *c, uint64 ticket, int64 *targets)
{
	KafkaConnector *k = (KafkaConnector *) c;
	int			   *indexes;
	int64		   *offsets;
	int				n = 0;
	bool			ok;

	if (k->closed || c->failed || k->paused || k->rk == NULL)
		return false;
	if (k->flush_ticket != ticket)
	{
		/* Partitions may have been added: the next poll looks. */
		k->flush_ticket = ticket;
		k->flush_fresh = false;
		k->next_metadata = 0;
		streamext_kafka_wake(k);
	}
	if (!k->flush_fresh || k->renew || GetCurrentTimestamp() < k->next_offsets)
		return false;

	indexes = palloc(sizeof(int) * (c->npartitions + 1));
	offsets = palloc(sizeof(int64) * (c->npartitions + 1));
	for (int i = 0; i < c->npartitions; i++)
	{
		/* away for a moment or for good: what it holds is not known */
		if (k->partitions[i].topic->missing)
			break;
		indexes[n++] = i;
	}
	ok = n == c->npartitions && streamext_kafka_offsets(k, indexes, n, RD_KAFKA_OFFSET_END, offsets);
	for (int i = 0; i < n && ok; i++)
	{
		targets[indexes[i]] = offsets[i];
		c->partitions[indexes[i]].high_watermark = offsets[i];
	}
	pfree(indexes);
	pfree(offsets);
	return ok;
}

static bool
kafka_find(Connector *c, SeekKind kind, TimestampTz time, int64 *positions)
{
	KafkaConnector *k = (KafkaConnector *) c;
	int			   *indexes;
	int64		   *ends;
	bool			ok;

	if (k->closed || c->failed || k->rk == NULL || !k->discovered || GetCurrentTimestamp() < k->next_offsets)
		return false;
	indexes = palloc(sizeof(int) * (c->npartitions + 1));
	ends = palloc(sizeof(int64) * (c->npartitions + 1));
	for (int i = 0; i < c->npartitions; i++)
		indexes[i] = i;
	if (kind == SEEK_TIME)
		ok = streamext_kafka_offsets(k, indexes, c->npartitions, RD_KAFKA_OFFSET_END, ends) &&
			 streamext_kafka_offsets(k, indexes, c->npartitions, KAFKA_MILLISECOND(time), positions);
	else
		ok =
			streamext_kafka_offsets(k, indexes, c->npartitions,
									kind == SEEK_EARLIEST ? RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_END, positions);
	for (int i = 0; i < c->npartitions && ok && kind == SEEK_TIME; i++)
		if (positions[i] < 0)
			positions[i] = ends[i]; /* no record that late */
	pfree(indexes);
	pfree(ends);
	return ok;
}

static bool
kafka_ends(Connector *c, const int *indexes, int n)
{
	KafkaConnector *k = (KafkaConnector *) c;
	int64		   *offsets;
	bool			ok;

	if (k->closed || c->failed || c->stalled || k->paused || k->rk == NULL || !k->discovered || k->renew ||
		GetCurrentTimestamp() < k->next_offsets)
		return false;
	offsets = palloc(sizeof(int64) * (n + 1));
	ok = streamext_kafka_offsets(k, indexes, n, RD_KAFKA_OFFSET_END, offsets);
	for (int i = 0; i < n && ok; i++)
		c->partitions[indexes[i]].high_watermark = offsets[i];
	pfree(offsets);
	return ok;
}

static void
kafka_commit(Connector *c, const int64 *positions, int n)
{
	KafkaConnector *k = (KafkaConnector *) c;

	k->ncommit = Min(n, c->npartitions);
	memcpy(k->commit, positions, sizeof(int64) * k->ncommit);
	streamext_kafka_arm(k, GetCurrentTimestamp());
}

/* What was fetched ahead stays in the client's queue, which is bounded. */
static void
kafka_pause(Connector *c, bool paused)
{
	KafkaConnector *k = (KafkaConnector *) c;

	if (k->paused != paused)
		streamext_kafka_wake(k);
	k->paused = paused;
	k->next_offsets = 0;
}

const ConnectorOps streamext_kafka_ops = {
	.name = "kafka",
	.number = 1,
	.replayable = true,
	.writable = true,
	.published = true,
	.payloads = true,
	.seeks = true,
	.partitioned = true,
	.options = streamext_kafka_options,
	.metadata = streamext_kafka_metadata,
	.check_options = streamext_kafka_check_options,
	.configure = streamext_kafka_configure,
	.shard_of = streamext_kafka_shard_of,
	.doubt = streamext_kafka_doubt,
	.open = kafka_open,
	.seek = kafka_seek,
	.poll = kafka_poll,
	.release = kafka_release,
	.flush_target = kafka_flush_target,
	.find = kafka_find,
	.ends = kafka_ends,
	.commit = kafka_commit,
	.headers = streamext_kafka_headers,
	.headers_refused = streamext_kafka_headers_refused,
	.pause = kafka_pause,
	.close = kafka_close,
	.sample = streamext_kafka_sample,
};
