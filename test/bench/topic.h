/*
 * topic.h
 *		A topic read from its beginning by librdkafka, as the benchmark's hand-written consumers read it.
 *
 * What decides how fast librdkafka fetches is set as streamext sets it (src/source/kafka/client.c): checksums are verified, and a fetcher that
 * has stopped because enough is queued is woken before the queue is empty. Any failure ends the program: a benchmark has nothing to recover.
 */
#ifndef BENCH_TOPIC_H
#define BENCH_TOPIC_H

#include <librdkafka/rdkafka.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

[[noreturn]] inline void
die(const char *what, const char *why = "")
{
	fprintf(stderr, "bench: %s%s%s\n", what, *why ? ": " : "", why);
	exit(1);
}

/* An open client; `settings` are pairs. */
inline rd_kafka_t *
open_client(rd_kafka_type_t type, std::vector<std::pair<const char *, const char *>> settings,
			void (*delivered)(rd_kafka_t *, const rd_kafka_message_t *, void *) = nullptr)
{
	char			 error[512];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();

	for (auto &[name, value] : settings)
		if (rd_kafka_conf_set(conf, name, value, error, sizeof error) != RD_KAFKA_CONF_OK)
			die(name, error);
	if (delivered)
		rd_kafka_conf_set_dr_msg_cb(conf, delivered);

	rd_kafka_t *client = rd_kafka_new(type, conf, error, sizeof error);

	if (client == nullptr)
		die("cannot make a client", error);
	return client;
}

class Topic
{
public:
	/* Looks the partitions up; nothing is fetched before read(). */
	Topic(const char *brokers, const char *name)
	{
		client = open_client(RD_KAFKA_CONSUMER, {{"bootstrap.servers", brokers},
												 {"group.id", "bench"},
												 {"enable.auto.commit", "false"},
												 {"check.crcs", "true"},
												 {"queued.min.messages", "100000"},
												 {"queued.max.messages.kbytes", "262144"},
												 {"fetch.wait.max.ms", "300"},
												 {"fetch.error.backoff.ms", "100"}});
		rd_kafka_poll_set_consumer(client);

		const rd_kafka_metadata_t *metadata;
		rd_kafka_topic_t		  *topic = rd_kafka_topic_new(client, name, nullptr);

		if (rd_kafka_metadata(client, 0, topic, &metadata, 10000) || metadata->topic_cnt != 1)
			die("no metadata of", name);
		partitions = rd_kafka_topic_partition_list_new(metadata->topics[0].partition_cnt);
		for (int i = 0; i < metadata->topics[0].partition_cnt; i++)
			rd_kafka_topic_partition_list_add(partitions, name, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
		rd_kafka_metadata_destroy(metadata);
		rd_kafka_topic_destroy(topic);
	}

	~Topic()
	{
		if (followed)
			rd_kafka_queue_destroy(followed);
		rd_kafka_consumer_close(client);
		rd_kafka_topic_partition_list_destroy(partitions);
		rd_kafka_destroy(client);
	}

	/* Calls each(payload, length) for `wanted` records; the payload is valid during the call. */
	template <typename Each>
	void
	read(long wanted, Each each)
	{
		std::vector<rd_kafka_message_t *> messages(4096);
		long							  done = 0;

		rd_kafka_assign(client, partitions);

		rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(client);

		for (bool ahead = false; done < wanted;)
		{
			/* It waits for the batch to be full: never for more than there is. */
			size_t	most = std::min(messages.size(), static_cast<size_t>(wanted - done));
			ssize_t n = rd_kafka_consume_batch_queue(queue, 1000, messages.data(), most);

			if (n < 0)
				die("consume");
			for (ssize_t i = 0; i < n; i++)
			{
				rd_kafka_message_t *message = messages[i];

				if (message->err && message->err != RD_KAFKA_RESP_ERR__PARTITION_EOF)
					die("consume", rd_kafka_message_errstr(message));
				if (!message->err)
				{
					done++;
					each(static_cast<const char *>(message->payload), message->len);
				}
				rd_kafka_message_destroy(message);
			}

			/* As streamext_kafka_refill() does. */
			size_t queued = rd_kafka_queue_length(queue);

			if (queued > 90000)
				ahead = true;
			else if (ahead && queued < 40000)
			{
				ahead = false;
				(void) rd_kafka_offsets_for_times(client, partitions, 0);
			}
		}
		rd_kafka_queue_destroy(queue);
	}

	/* From the end on; the descriptor is written when something has arrived. */
	void
	follow(int event)
	{
		static uint64_t one = 1;

		for (int i = 0; i < partitions->cnt; i++)
			partitions->elems[i].offset = RD_KAFKA_OFFSET_END;
		rd_kafka_assign(client, partitions);
		followed = rd_kafka_queue_get_consumer(client);
		rd_kafka_queue_io_event_enable(followed, event, &one, sizeof one);
	}

	/* Calls each(payload, length) for what has arrived, at most a batch; false: nothing. After follow(). */
	template <typename Each>
	bool
	take(Each each)
	{
		rd_kafka_message_t *messages[4096];
		ssize_t				n = rd_kafka_consume_batch_queue(followed, 0, messages, 4096);

		for (ssize_t i = 0; i < n; i++)
		{
			if (!messages[i]->err)
				each(static_cast<const char *>(messages[i]->payload), messages[i]->len);
			rd_kafka_message_destroy(messages[i]);
		}
		return n > 0;
	}

private:
	rd_kafka_t						*client;
	rd_kafka_topic_partition_list_t *partitions;
	rd_kafka_queue_t				*followed = nullptr;
};

class Stopwatch
{
	std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();

public:
	double
	seconds() const
	{
		return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
	}
};

#endif
