/*
 * source/kafka/client.c
 *		The Kafka client itself: its properties, its life, what it says about connections, and the descriptors to wait for.
 *
 * librdkafka's threads call nothing here except a log callback that does nothing; they are made with all signals masked. Its
 * error callback runs in the main thread, from within rd_kafka_consume_batch_queue.
 *
 * wait_fd is an epoll descriptor over an eventfd, which the consumer's queue writes when it gets something, and a timer for what
 * is to be done without that: looking for new partitions, trying again, committing.
 *
 * Properties come from a closed list. librdkafka's default for sasl.mechanism runs a shell command, so it is always set.
 */
#include "base/streamext.h"

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/thread.h"
#include "source/kafka/client.h"

#define KAFKA_TIMER_SLACK 1500000 /* nanoseconds; see streamext_kafka_start */
#define KAFKA_HOLD_SIZE 1024	  /* bytes; larger messages are freed at once */
#define KAFKA_SAMPLE 64			  /* of so many records one is looked at for their size */

/* Every client property that is not an option. */
static const char *const kafka_properties[][2] = { { "enable.auto.commit", "false" },
												   { "enable.auto.offset.store", "false" },
												   { "auto.offset.reset", "error" },
												   { "enable.partition.eof", "true" },
												   { "check.crcs", "true" },
												   { "isolation.level", "read_committed" },
												   { "allow.auto.create.topics", "false" },
												   { "statistics.interval.ms", "0" },
												   { "topic.metadata.refresh.interval.ms", "10000" },
												   { "max.poll.interval.ms", "86400000" },

												   /* see streamext_kafka_refill */
												   { "queued.min.messages", CppAsString2(KAFKA_AHEAD_RECORDS) },
												   { "queued.max.messages.kbytes", CppAsString2(KAFKA_AHEAD_KB) },

												   /*
	 * Of answers, and of what a batch of zstd unpacks to: the client tries sizes that triple, so it gives up beyond a third of this at
	 * the latest. The default made a batch of 50 MB look damaged. Other compressions have no limit.
	 */
												   { "receive.message.max.bytes", CppAsString2(KAFKA_UNPACKED_MAX) },

												   /*
	 * A fetch is answered as soon as there is a byte. What waits longest is a partition added meanwhile, and the news that only
	 * control records are left before the end.
	 */
												   { "fetch.min.bytes", "1" },
												   { "fetch.wait.max.ms", "300" },
												   { "fetch.error.backoff.ms", "100" },

												   { "reconnect.backoff.ms", "100" },
												   { "reconnect.backoff.max.ms", "1000" },
												   { "socket.keepalive.enable", "true" },
												   { "socket.timeout.ms", "10000" },
												   { "socket.connection.setup.timeout.ms", "10000" },
												   { NULL, NULL } };

typedef struct KafkaOption
{
	const char *option;
	const char *property;
	bool		user; /* of the user mapping, else of the server */
} KafkaOption;

/* Options that are handed on as they are; sasl_password is not among them (streamext_connector_secret). */
static const KafkaOption kafka_options[] = { { "brokers", "bootstrap.servers", false },
											 { "security_protocol", "security.protocol", false },
											 { "sasl_mechanism", "sasl.mechanism", false },
											 { "ssl_ca_location", "ssl.ca.location", false },
											 { "ssl_certificate_location", "ssl.certificate.location", false },
											 { "ssl_key_location", "ssl.key.location", false },
											 { "ssl_endpoint_identification_algorithm",
											   "ssl.endpoint.identification.algorithm", false },
											 { "sasl_username", "sasl.username", true },
											 { "ssl_key_password", "ssl.key.password", true },
											 { NULL, NULL, false } };

/* ---- state ---- */

void
streamext_kafka_wake(KafkaConnector *k)
{
	uint64 one = 1;

	if (k->event_fd >= 0 && write(k->event_fd, &one, sizeof(one)) < 0)
		return; /* full: it is readable */
}

void
streamext_kafka_drain(KafkaConnector *k)
{
	uint64 count;

	/* EAGAIN: nothing there */
	if (read(k->event_fd, &count, sizeof(count)) < 0)
		count = 0;
	if (read(k->timer_fd, &count, sizeof(count)) < 0)
		count = 0;
}

/* Makes wait_fd readable when something is due. */
void
streamext_kafka_arm(KafkaConnector *k, TimestampTz now)
{
	struct itimerspec timer = { 0 };
	TimestampTz		  next = k->next_metadata;

	if (k->paused)
		next = k->next_offsets;
	else if (k->rk == NULL)
		next = k->next_client;
	else if (k->renew)
		next = k->renew_at;
	if (k->mend)
		next = Min(next, k->next_mend);
	if (k->unresolved)
		next = Min(next, k->next_offsets);
	if (k->standing)
		next = Min(next, k->next_standing);
	if (k->ncommit > 0)
		next = Min(next, k->next_commit);
	next = Max(next - now, 1000);
	timer.it_value.tv_sec = next / USECS_PER_SEC;
	timer.it_value.tv_nsec = next % USECS_PER_SEC * 1000;
	(void) timerfd_settime(k->timer_fd, 0, &timer, NULL);
}

/* False and errno on failure; what was opened is closed by kafka_close_fds. */
bool
streamext_kafka_open_fds(KafkaConnector *k)
{
	struct epoll_event event = { .events = EPOLLIN };

	k->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	k->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	k->c.wait_fd = epoll_create1(EPOLL_CLOEXEC);
	return k->event_fd >= 0 && k->timer_fd >= 0 && k->c.wait_fd >= 0 &&
		   epoll_ctl(k->c.wait_fd, EPOLL_CTL_ADD, k->event_fd, &event) == 0 &&
		   epoll_ctl(k->c.wait_fd, EPOLL_CTL_ADD, k->timer_fd, &event) == 0;
}

void
streamext_kafka_close_fds(KafkaConnector *k)
{
	int saved = errno;

	if (k->event_fd >= 0)
		close(k->event_fd);
	if (k->timer_fd >= 0)
		close(k->timer_fd);
	if (k->c.wait_fd >= 0)
		close(k->c.wait_fd);
	k->event_fd = k->timer_fd = k->c.wait_fd = -1;
	errno = saved;
}

void
streamext_kafka_update_stalled(KafkaConnector *k)
{
	bool stalled = !k->up || k->mend || k->standing || k->unresolved;

	k->c.refused = false;
	for (int t = 0; t < k->ntopics; t++)
	{
		stalled |= k->topics[t].missing;
		k->c.refused |= k->topics[t].refused;
	}
	k->c.stalled = stalled;
}

void
streamext_kafka_fail(KafkaConnector *k, bool diverged)
{
	k->c.failed = true;
	k->c.diverged = diverged;
}

void
streamext_kafka_down(KafkaConnector *k, const char *what, const char *why)
{
	k->up = false;
	streamext_kafka_update_stalled(k);
	streamext_connector_report(&k->c, "%s: %s", what, k->reason[0] != '\0' ? k->reason : why);
}

void
streamext_kafka_up(KafkaConnector *k)
{
	if (k->up)
		return;
	k->up = true;
	k->reason[0] = '\0';
	streamext_kafka_update_stalled(k);
}

/* ---- the client ---- */

/* librdkafka reports through kafka_on_error too; its threads must not write to stderr. */
static void
kafka_on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

/* Called from within rd_kafka_consume_batch_queue. */
static void
kafka_on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	KafkaConnector *k = opaque;

	switch (err)
	{
		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
			streamext_kafka_down(k, "brokers are unreachable", reason);
			k->patience = KAFKA_CALL_AWAY_MS;
			k->next_metadata = Min(k->next_metadata, GetCurrentTimestamp() + KAFKA_RETRY);
			break;
		case RD_KAFKA_RESP_ERR__TRANSPORT:
		case RD_KAFKA_RESP_ERR__RESOLVE:
		case RD_KAFKA_RESP_ERR__SSL:
		case RD_KAFKA_RESP_ERR__AUTHENTICATION:
			/* One broker; the others may be there. */
			streamext_clip(k->reason, reason, sizeof(k->reason));
			if (!k->up || err == RD_KAFKA_RESP_ERR__AUTHENTICATION || err == RD_KAFKA_RESP_ERR__SSL)
				streamext_connector_report(&k->c, "%s", reason);
			break;
		case RD_KAFKA_RESP_ERR__FATAL:
			streamext_connector_report(&k->c, "%s", reason);
			k->renew = true;
			k->renew_at = GetCurrentTimestamp() + KAFKA_RETRY;
			break;
		default:
			break; /* groups and the like */
	}
}

static bool
kafka_set(rd_kafka_conf_t *conf, const char *property, const char *value, char *problem)
{
	char error[64]; /* not shown: it may quote the value */

	if (rd_kafka_conf_set(conf, property, value, error, sizeof(error)) == RD_KAFKA_CONF_OK)
		return true;
	streamext_clip_format(problem, STREAMEXT_MAX_MESSAGE, "the Kafka client does not take the value of its property %s",
						  property);
	return false;
}

bool
streamext_kafka_set_login(rd_kafka_conf_t *conf, const StreamConfig *config, char problem[STREAMEXT_MAX_MESSAGE])
{
	char *password, *trouble;
	bool  ok = true;

	/* librdkafka's default is GSSAPI, which runs a shell command. */
	if (!kafka_set(conf, "sasl.mechanism", "PLAIN", problem))
		return false;
	for (const KafkaOption *o = kafka_options; o->option != NULL; o++)
	{
		const char *value = streamext_option(o->user ? config->user_options : config->server_options, o->option);

		if (value != NULL && !kafka_set(conf, o->property, value, problem))
			return false;
	}
	password = streamext_connector_secret(config, "sasl_password", "sasl_password_file", &trouble);
	if (trouble != NULL)
	{
		streamext_clip(problem, trouble, STREAMEXT_MAX_MESSAGE);
		return false;
	}
	if (password != NULL)
	{
		ok = kafka_set(conf, "sasl.password", password, problem);
		explicit_bzero(password, strlen(password));
	}
	return ok;
}

static bool
kafka_set_options(KafkaConnector *k, rd_kafka_conf_t *conf)
{
	StreamConfig *config = k->c.config;
	const char	 *group = streamext_option(config->server_options, "group_id");
	char		  problem[STREAMEXT_MAX_MESSAGE];
	char		  name[128];
	bool		  ok = true;

	for (int i = 0; ok && kafka_properties[i][0] != NULL; i++)
		ok = kafka_set(conf, kafka_properties[i][0], kafka_properties[i][1], problem);
	/* not known before 2.2 */
	(void) rd_kafka_conf_set(conf, "fetch.queue.backoff.ms", "10", NULL, 0);
	snprintf(name, sizeof(name), "streamext_" UINT64_FORMAT "_%u_%u", GetSystemIdentifier(), MyDatabaseId,
			 config->relid);
	ok = ok && streamext_kafka_set_login(conf, config, problem) && kafka_set(conf, "client.id", name, problem) &&
		 kafka_set(conf, "group.id", group != NULL ? group : name, problem);
	if (!ok)
		streamext_connector_report(&k->c, "%s", problem);
	return ok;
}

/*
 * librdkafka's main thread waits in whole milliseconds for a timer of a second, and spins through what is left: a tenth of a percent of a core. The client's
 * threads inherit a slack by which their waits may be late, so that the timer is due when they wake; what they wait for besides wakes them at once.
 */
rd_kafka_t *
streamext_kafka_start(rd_kafka_conf_t *conf, char error[STREAMEXT_MAX_MESSAGE])
{
	rd_kafka_t *rk;
	sigset_t	all, saved;
	int			slack = prctl(PR_GET_TIMERSLACK);

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &saved);
	(void) prctl(PR_SET_TIMERSLACK, KAFKA_TIMER_SLACK);
	rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, STREAMEXT_MAX_MESSAGE);
	(void) prctl(PR_SET_TIMERSLACK, Max(slack, 1));
	pthread_sigmask(SIG_SETMASK, &saved, NULL);
	if (rk == NULL)
		rd_kafka_conf_destroy(conf);
	return rk;
}

/* A client that connects in the background; NULL: reported. What befalls its connections is told to `on_error`. */
static rd_kafka_t *
kafka_new(KafkaConnector *k, void (*on_error)(rd_kafka_t *, int, const char *, void *))
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t		*rk;
	char			 error[STREAMEXT_MAX_MESSAGE];

	rd_kafka_conf_set_log_cb(conf, kafka_on_log);
	rd_kafka_conf_set_error_cb(conf, on_error);
	rd_kafka_conf_set_opaque(conf, k);
	if (!kafka_set_options(k, conf))
	{
		rd_kafka_conf_destroy(conf);
		streamext_kafka_update_stalled(k);
		return NULL;
	}
	rk = streamext_kafka_start(conf, error);
	if (rk == NULL)
		streamext_kafka_down(k, "could not make a Kafka client", error);
	return rk;
}

/* Makes a consumer that connects in the background; false: reported, try again later. */
bool
streamext_kafka_create(KafkaConnector *k)
{
	uint64 event = 1;

	k->next_client = GetCurrentTimestamp() + KAFKA_RETRY;
	k->rk = kafka_new(k, kafka_on_error);
	if (k->rk == NULL)
		return false;

	rd_kafka_poll_set_consumer(k->rk);
	k->queue = rd_kafka_queue_get_consumer(k->rk);
	rd_kafka_queue_io_event_enable(k->queue, k->event_fd, &event, sizeof(event));
	for (int t = 0; t < k->ntopics; t++)
		k->topics[t].handle = rd_kafka_topic_new(k->rk, k->topics[t].name, NULL);
	k->renew = false;
	k->next_metadata = 0; /* without its leaders at hand the client takes half a second longer to fetch */
	return true;
}

static void *
kafka_destroy_thread(void *rk)
{
	rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	return NULL;
}

void
streamext_kafka_end(rd_kafka_t *rk)
{
	struct timespec deadline;
	pthread_t		thread;

	if (streamext_thread_start(&thread, kafka_destroy_thread, rk) != 0)
	{
		kafka_destroy_thread(rk);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += KAFKA_CALL_MS / 1000;
	if (pthread_timedjoin_np(thread, NULL, &deadline) != 0)
		pthread_detach(thread);
}

void
streamext_kafka_destroy(KafkaConnector *k)
{
	if (k->rk == NULL)
		return;

	/* First, so that event_fd is never written again. */
	rd_kafka_queue_io_event_enable(k->queue, -1, NULL, 0);
	rd_kafka_queue_destroy(k->queue);
	for (int t = 0; t < k->ntopics; t++)
	{
		if (k->topics[t].handle != NULL)
			rd_kafka_topic_destroy(k->topics[t].handle);
		k->topics[t].handle = NULL;
	}
	streamext_kafka_end(k->rk);
	k->rk = NULL;
	k->queue = NULL;
}

/* ---- fetching ahead ---- */

/*
 * The fetcher allocates each message, and the allocator's lock is one for all that it allocates: freeing while it works made the two
 * threads wait for each other, 250,000 futex calls a million records, half as much CPU again. So messages are kept while it is filling the
 * queue, and freed when it has stopped or has nothing to do.
 */
void
streamext_kafka_release(KafkaConnector *k, bool all)
{
	k->nheld += k->ntaken;
	k->nmessages -= k->ntaken;
	k->ntaken = 0;
	if (all || !k->hold || k->nheld > KAFKA_HELD_RECORDS)
	{
		for (int i = 0; i < k->nheld; i++)
			rd_kafka_message_destroy(k->held[i]);
		memmove(k->held, k->held + k->nheld, sizeof(rd_kafka_message_t *) * k->nmessages);
		k->nheld = 0;
	}
	k->messages = k->held + k->nheld;
}

static double
kafka_mean_size(const KafkaConnector *k)
{
	size_t sum = 0, n = 0;

	for (int i = 0; i < k->nmessages; i += KAFKA_SAMPLE, n++)
		sum += k->messages[i]->len;
	return n == 0 ? 0 : (double) sum / n;
}

/*
 * A fetcher that has stopped because enough is queued looks again within a second, whatever has become of the queue: a worker that
 * takes what is there in a tenth of that would stand still for the rest. So it is woken when less than half is left, and, because
 * the bytes are estimated, when the queue has run dry. Any request to its broker does that; this asks for offsets, which takes no
 * right that reading does not take, and does not wait for the answer. From version 2.2 on librdkafka has a property for it
 * (kafka_set_options).
 */
void
streamext_kafka_refill(KafkaConnector *k)
{
	bool   full = k->nmessages == STREAMEXT_BATCH_ROWS, dry = k->full && !full;
	double queued = rd_kafka_queue_length(k->queue), size = kafka_mean_size(k);
	double records = queued / KAFKA_AHEAD_RECORDS, bytes = queued * size / (KAFKA_AHEAD_KB * 1024.0);
	rd_kafka_topic_partition_list_t *list;

	/* one batch has been taken since it was as long as the fetcher saw it */
	if (records > 0.9 || bytes > 0.6)
		k->ahead = true;
	k->full = full;
	k->hold = full && !k->ahead && size < KAFKA_HOLD_SIZE;
	if (!dry && (!k->ahead || records > 0.4 || bytes > 0.4))
		return;
	k->ahead = false;
	list = rd_kafka_topic_partition_list_new(k->c.npartitions);
	for (int i = 0; i < k->c.npartitions; i++)
		if (k->partitions[i].assigned && !k->partitions[i].topic->missing)
			rd_kafka_topic_partition_list_add(list, k->c.partitions[i].topic, k->c.partitions[i].partition)->offset =
				RD_KAFKA_OFFSET_END;
	(void) rd_kafka_offsets_for_times(k->rk, list, 0);
	rd_kafka_topic_partition_list_destroy(list);
}

/* ---- the client that asks ---- */

rd_kafka_t *
streamext_kafka_asker(KafkaConnector *k)
{
	bool fetching = false;

	for (int i = 0; i < k->c.npartitions && !fetching; i++)
		fetching = k->partitions[i].assigned;
	/* its errors are the consumer's as well, which reports them */
	if (fetching && k->asker == NULL)
		k->asker = kafka_new(k, NULL);
	return fetching && k->asker != NULL ? k->asker : k->rk;
}

void
streamext_kafka_destroy_asker(KafkaConnector *k)
{
	if (k->asker != NULL)
		streamext_kafka_end(k->asker);
	k->asker = NULL;
}
