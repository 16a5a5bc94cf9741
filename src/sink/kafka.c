/*
 * sink/kafka.c
 *		Rows into a Kafka topic, each once for readers that read what is committed.
 *
 * A set of messages is one transaction of Kafka's, and with it the number of the set, as the offset of a group of the sink's own
 * (streamext_sink_<system>_<database>_<target>). A new client first ends what its predecessor has left (init_transactions, which fences that
 * one too), then reads that number: the set that bears it has arrived. So no commit in two phases is needed, and no message is read back.
 *
 * The thread's calls are bounded to KAFKA_SINK_CALL_MS each, between which it looks whether it shall stop. A step that takes longer than a few of them is
 * given up; each time that happens in a row the next try has more, so that brokers that are merely slow get there. rd_kafka_send_offsets_to_transaction
 * does not keep to its time while no connection to the coordinator is there (2.0.2): sink/delivery.c then lets another client take over.
 *
 * A broker refuses a batch as a whole, for one message or because all are too much together. So nobody is charged with that: another client sends the set
 * once more with each message in a batch of its own, whose refusal is the message's.
 */
#include "base/streamext.h"

#include <librdkafka/rdkafka.h>

#include "access/xlog.h"
#include "miscadmin.h"

#include "base/clip.h"
#include "base/fault.h"
#include "sink/transport.h"
#include "source/kafka/client.h"

#define KAFKA_SINK_CALL_MS 500
#define KAFKA_SINK_PATIENCE 10 /* calls, of one step */
#define KAFKA_SINK_PATIENCE_MOST 40
#define KAFKA_SINK_SET 1000
#define KAFKA_SINK_SINGLY 100 /* sets, after a batch was refused */

typedef struct KafkaSink
{
	Transport		 transport;
	rd_kafka_conf_t *conf; /* where the brokers are */
	char			 topic[256];
	char			 name[128];						/* transactional.id and group.id */
	rd_kafka_t		*rk;							/* NULL: none now */
	int64			 arrived;						/* number of the last set that did; 0: none */
	char			 reason[STREAMEXT_MAX_MESSAGE]; /* what librdkafka last said of a connection */
	int				 refused;						/* as Shipment.refused, of the set under way, or one of its batch */
	int				 singly;						/* sets that have each message in a batch of its own */
	int				 patience;						/* calls */
} KafkaSink;

static void
kafka_sink_on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
}

static void
kafka_sink_on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	KafkaSink *k = opaque;

	strlcpy(k->reason, reason, sizeof(k->reason));
}

/* Which message it was is in its own pointer, counted from 1. */
static void
kafka_sink_on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
	KafkaSink *k = opaque;
	int		   number = (int) (intptr_t) m->_private - 1;

	if ((m->err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE || m->err == RD_KAFKA_RESP_ERR_INVALID_RECORD ||
		 m->err == RD_KAFKA_RESP_ERR_INVALID_MSG) &&
		(k->refused < 0 || number < k->refused))
		k->refused = number;
	if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR && m->err != RD_KAFKA_RESP_ERR__PURGE_QUEUE)
		strlcpy(k->reason, rd_kafka_err2str(m->err), sizeof(k->reason));
}

static void
kafka_sink_drop(KafkaSink *k)
{
	if (k->rk == NULL)
		return;
	(void) rd_kafka_purge(k->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
	rd_kafka_destroy_flags(k->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	k->rk = NULL;
}

/* Ends the error. What a client says of itself is less than what it has last said of its connections. */
static void
kafka_sink_report(KafkaSink *k, Shipment *s, const char *what, rd_kafka_error_t *error)
{
	const char *why = error != NULL ? rd_kafka_error_string(error) : k->reason;

	if (error != NULL && k->reason[0] != '\0' && rd_kafka_error_code(error) == RD_KAFKA_RESP_ERR__TIMED_OUT)
		why = k->reason;
	snprintf(s->error, sizeof(s->error), "%s: %s", what, why);
	if (error != NULL)
		rd_kafka_error_destroy(error);
}

/* A step that says when it is to be called again. NULL: done. */
static rd_kafka_error_t *
kafka_sink_insist(KafkaSink *k, Shipment *s, rd_kafka_error_t *(*step)(rd_kafka_t *, int) )
{
	rd_kafka_error_t *error = NULL;

	for (int i = 0; i < k->patience && (i == 0 || !*s->stop); i++)
	{
		if (error != NULL)
			rd_kafka_error_destroy(error);
		error = step(k->rk, KAFKA_SINK_CALL_MS);
		if (error == NULL || !rd_kafka_error_is_retriable(error) || rd_kafka_error_txn_requires_abort(error))
			break;
		rd_kafka_poll(k->rk, 0);
	}
	return error;
}

static rd_kafka_t *
kafka_sink_new(KafkaSink *k, Shipment *s, rd_kafka_type_t type, const char *const properties[][2])
{
	rd_kafka_conf_t *conf = rd_kafka_conf_dup(k->conf);
	rd_kafka_t		*rk;

	rd_kafka_conf_set_log_cb(conf, kafka_sink_on_log);
	rd_kafka_conf_set_error_cb(conf, kafka_sink_on_error);
	rd_kafka_conf_set_opaque(conf, k);
	if (type == RD_KAFKA_PRODUCER)
		rd_kafka_conf_set_dr_msg_cb(conf, kafka_sink_on_delivery);
	(void) rd_kafka_conf_set(conf, type == RD_KAFKA_PRODUCER ? "transactional.id" : "group.id", k->name, NULL, 0);
	for (int i = 0; properties[i][0] != NULL; i++)
		(void) rd_kafka_conf_set(conf, properties[i][0], properties[i][1], NULL, 0);
	rk = rd_kafka_new(type, conf, s->error, sizeof(s->error));
	if (rk == NULL)
		rd_kafka_conf_destroy(conf);
	return rk;
}

/* The number that the last committed transaction has left. False: no answer. */
static bool
kafka_sink_read_number(KafkaSink *k, Shipment *s)
{
	static const char *const		 properties[][2] = { { "isolation.level", "read_committed" },
														 { "enable.auto.commit", "false" },
														 { NULL, NULL } };
	rd_kafka_t						*rk = kafka_sink_new(k, s, RD_KAFKA_CONSUMER, properties);
	rd_kafka_topic_partition_list_t *list;
	rd_kafka_resp_err_t				 err = RD_KAFKA_RESP_ERR__FAIL;
	bool							 known;

	if (rk == NULL)
		return false;
	list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_topic_partition_list_add(list, k->topic, 0);
	for (int i = 0; i < k->patience && err != RD_KAFKA_RESP_ERR_NO_ERROR && !*s->stop; i++)
		err = rd_kafka_committed(rk, list, KAFKA_SINK_CALL_MS);
	known = err == RD_KAFKA_RESP_ERR_NO_ERROR && list->elems[0].err == RD_KAFKA_RESP_ERR_NO_ERROR;
	if (known)
		k->arrived = list->elems[0].offset < 0 ? 0 : list->elems[0].offset;
	else
		snprintf(s->error, sizeof(s->error), "could not read what has arrived: %s",
				 rd_kafka_err2str(err != RD_KAFKA_RESP_ERR_NO_ERROR ? err : list->elems[0].err));
	rd_kafka_topic_partition_list_destroy(list);
	rd_kafka_destroy_flags(rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	return known;
}

static bool
kafka_sink_connect(KafkaSink *k, Shipment *s)
{
	const char *const properties[][2] = { { "linger.ms", "5" },
										  { "compression.type", "lz4" },
										  { "message.max.bytes", "100000000" },
										  { "transaction.timeout.ms", "60000" },
										  { "reconnect.backoff.max.ms", "1000" },
										  { k->singly > 0 ? "batch.num.messages" : NULL, "1" },
										  { NULL, NULL } };
	rd_kafka_error_t *error;

	k->rk = kafka_sink_new(k, s, RD_KAFKA_PRODUCER, properties);
	if (k->rk == NULL)
		return false;
	error = kafka_sink_insist(k, s, rd_kafka_init_transactions);
	if (error != NULL)
		kafka_sink_report(k, s, "brokers do not answer", error);
	else if (kafka_sink_read_number(k, s))
		return true;
	kafka_sink_drop(k);
	return false;
}

static rd_kafka_resp_err_t
kafka_sink_produce(KafkaSink *k, const Message *m, int number)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(m->nheaders);
	rd_kafka_resp_err_t err;

	for (int h = 0; h < m->nheaders; h++)
		(void) rd_kafka_header_add(headers, m->header_names[h], -1, m->header_values[h], -1);
	err = rd_kafka_producev(k->rk, RD_KAFKA_V_TOPIC(k->topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
							RD_KAFKA_V_KEY(m->key, m->key_size), RD_KAFKA_V_VALUE((void *) m->payload, m->payload_size),
							RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE((void *) (intptr_t) (number + 1)),
							RD_KAFKA_V_END);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		rd_kafka_headers_destroy(headers);
	return err;
}

static bool
kafka_sink_produce_all(KafkaSink *k, Shipment *s)
{
	for (int i = 0; i < s->n; i++)
	{
		rd_kafka_resp_err_t err = kafka_sink_produce(k, &s->messages[i], i);

		if (err == RD_KAFKA_RESP_ERR__QUEUE_FULL && !*s->stop)
		{
			rd_kafka_poll(k->rk, 50);
			i--;
			continue;
		}
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
			continue;
		if (err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
			k->refused = i;
		snprintf(s->error, sizeof(s->error), "%s", rd_kafka_err2str(err));
		return false;
	}
	return true;
}

/* The set's number goes with the transaction. */
static rd_kafka_error_t *
kafka_sink_send_number(KafkaSink *k, Shipment *s)
{
	rd_kafka_topic_partition_list_t	   *list = rd_kafka_topic_partition_list_new(1);
	rd_kafka_consumer_group_metadata_t *group = rd_kafka_consumer_group_metadata_new(k->name);
	rd_kafka_error_t				   *error = NULL;

	rd_kafka_topic_partition_list_add(list, k->topic, 0)->offset = s->batch;
	for (int i = 0; i < k->patience && (i == 0 || !*s->stop); i++)
	{
		if (error != NULL)
			rd_kafka_error_destroy(error);
		error = rd_kafka_send_offsets_to_transaction(k->rk, list, group, KAFKA_SINK_CALL_MS);
		if (error == NULL || !rd_kafka_error_is_retriable(error))
			break;
	}
	rd_kafka_consumer_group_metadata_destroy(group);
	rd_kafka_topic_partition_list_destroy(list);
	return error;
}

/* Nothing of the set has arrived, or nobody knows: then the next client asks. */
static void
kafka_sink_give_up(KafkaSink *k, Shipment *s, rd_kafka_error_t *error)
{
	bool			  mine = error == NULL || rd_kafka_error_txn_requires_abort(error);
	rd_kafka_error_t *trouble;

	if (s->error[0] == '\0' || error != NULL)
		kafka_sink_report(k, s, "could not send", error);
	trouble = mine ? kafka_sink_insist(k, s, rd_kafka_abort_transaction) : NULL;
	s->refused = k->refused;
	s->reachable = k->refused >= 0;
	if (mine && trouble == NULL && !*s->stop)
		return;
	if (trouble != NULL)
		rd_kafka_error_destroy(trouble);
	kafka_sink_drop(k);
}

static void
kafka_sink_try(KafkaSink *k, Shipment *s)
{
	rd_kafka_error_t *error;

	if (k->rk == NULL && !kafka_sink_connect(k, s))
		return;
	if (k->arrived == s->batch)
	{
		s->done = s->n;
		return;
	}
	STREAMEXT_FAULT_THREAD("delivery-before-begin");
	error = rd_kafka_begin_transaction(k->rk);
	if (error != NULL)
	{
		kafka_sink_report(k, s, "could not begin a transaction", error);
		kafka_sink_drop(k);
		return;
	}
	if (!kafka_sink_produce_all(k, s))
	{
		kafka_sink_give_up(k, s, NULL);
		return;
	}
	STREAMEXT_FAULT_THREAD("delivery-before-number");
	error = kafka_sink_send_number(k, s);
	STREAMEXT_FAULT_THREAD("delivery-before-commit");
	if (error != NULL || *s->stop || (error = kafka_sink_insist(k, s, rd_kafka_commit_transaction)) != NULL)
	{
		kafka_sink_give_up(k, s, error);
		return;
	}
	STREAMEXT_FAULT_THREAD("delivery-after-commit");
	k->arrived = s->batch;
	s->done = s->n;
	s->reachable = true;
}

/* As kafka_sink_try, of a set of which the broker has refused a batch. */
static void
kafka_sink_try_singly(KafkaSink *k, Shipment *s)
{
	kafka_sink_drop(k);
	k->singly = KAFKA_SINK_SINGLY;
	k->refused = s->refused = -1;
	k->reason[0] = s->error[0] = '\0';
	s->reachable = false;
	kafka_sink_try(k, s);
}

static void
kafka_sink_send(Transport *transport, Shipment *s)
{
	KafkaSink *k = (KafkaSink *) transport;

	k->refused = -1;
	k->reason[0] = '\0';
	if (k->singly > 0 && --k->singly == 0)
		kafka_sink_drop(k);
	kafka_sink_try(k, s);
	if (k->refused >= 0 && s->n > 1 && k->singly == 0)
		kafka_sink_try_singly(k, s);
	k->patience =
		s->done == s->n || s->reachable ? KAFKA_SINK_PATIENCE : Min(2 * k->patience, KAFKA_SINK_PATIENCE_MOST);
}

static Transport *
kafka_sink_open(const StreamConfig *config, char error[STREAMEXT_MAX_MESSAGE])
{
	KafkaSink *k = calloc(1, sizeof(KafkaSink));

	if (k == NULL)
		return NULL;
	k->transport.ops = &streamext_kafka_transport;
	k->patience = KAFKA_SINK_PATIENCE;
	k->conf = rd_kafka_conf_new();
	strlcpy(k->topic, linitial(config->source.topics), sizeof(k->topic));
	snprintf(k->name, sizeof(k->name), "streamext_sink_" UINT64_FORMAT "_%u_%u", GetSystemIdentifier(), MyDatabaseId,
			 config->relid);
	if (streamext_kafka_set_login(k->conf, config, error))
		return &k->transport;
	rd_kafka_conf_destroy(k->conf);
	free(k);
	return NULL;
}

static void
kafka_sink_close(Transport *transport)
{
	KafkaSink *k = (KafkaSink *) transport;

	kafka_sink_drop(k);
	rd_kafka_conf_destroy(k->conf);
	free(k);
}

static void
kafka_sink_check(const StreamConfig *config)
{
	if (list_length(config->source.topics) != 1)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot insert into stream \"%s\", which reads several topics", config->name),
						errhint("Make a foreign table with the option topic for the one to write to.")));
}

const TransportOps streamext_kafka_transport = {
	.connector = &streamext_kafka_ops,
	.at_once = true,
	.keyed = true,
	.most = KAFKA_SINK_SET,
	.check = kafka_sink_check,
	.open = kafka_sink_open,
	.send = kafka_sink_send,
	.close = kafka_sink_close,
};
