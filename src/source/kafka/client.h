/*
 * source/kafka/client.h
 *		What one Kafka consumer is made of, shared by its files.
 *
 *	source/kafka/kafka.c	records, faults
 *	source/kafka/partition.c	which partitions there are, and their offsets
 *	source/kafka/client.c		the client itself: properties, life, errors, descriptors
 */
#ifndef STREAMEXT_KAFKA_CLIENT_H
#define STREAMEXT_KAFKA_CLIENT_H

#include "base/streamext.h"

#include <librdkafka/rdkafka.h>

#include "utils/timestamp.h"

#include "source/connector.h"

#define KAFKA_CALL_MS 1000	   /* a call that asks the brokers, at most */
#define KAFKA_CALL_AWAY_MS 125 /* the same after all were found away; doubles up to the above */
#define KAFKA_RETRY USECS_PER_SEC

#define KAFKA_EPOCH_SHIFT ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)
/* The first millisecond that is not before the time, as Kafka counts them. */
#define KAFKA_MILLISECOND(time) Max((time) / 1000 + ((time) % 1000 > 0) + KAFKA_EPOCH_SHIFT / 1000, 0)

/*
 * librdkafka stops fetching when so many records or bytes are queued. Few enough that the allocator hands out again what was just freed: a million
 * cost a fifth more CPU and three times the memory.
 */
#define KAFKA_AHEAD_RECORDS 100000
#define KAFKA_AHEAD_KB 262144
#define KAFKA_UNPACKED_MAX 2147483647 /* the client's own maximum */
#define KAFKA_HELD_RECORDS 100000	  /* see streamext_kafka_release */
#define KAFKA_POLL_BYTES (64 << 20)	  /* of payloads, keys and headers a poll; rows are some times as large */

typedef struct KafkaTopic
{
	char			 *name;
	rd_kafka_topic_t *handle; /* of the present consumer; its records carry the same pointer */
	int				 *index;  /* partition number -> index, -1: another shard's */
	int				  nindex;
	bool			  missing; /* not there or not allowed, at the last look; */
	bool			  refused; /* by the brokers' own word */
} KafkaTopic;

typedef struct KafkaPartition
{
	KafkaTopic *topic;
	bool
		initial; /* was there at the first look: `start` applies unless c.known; later ones are read from the beginning */
	bool  assigned;
	bool  broken;
	int64 start; /* offset of the stream's `start`, -1: the beginning */
	bool  start_known;
	int	  beyond; /* how often found beyond the end */
	int64 stood;  /* its position at the last look for standing partitions, */
	int64 ended;  /* and its end then; -1: it moved */
} KafkaPartition;

typedef struct KafkaConnector
{
	Connector		  c;
	MemoryContext	  cxt;
	bool			  closed;
	bool			  paused;
	int				  event_fd, timer_fd;
	rd_kafka_t		 *rk;	 /* the consumer; NULL: none now */
	rd_kafka_t		 *asker; /* see streamext_kafka_asker; NULL: not needed yet */
	rd_kafka_queue_t *queue;
	bool			  ahead;	/* so much is queued that the fetcher may have stopped */
	bool			  full;		/* the last poll got all that fits into a batch */
	int				  patience; /* ms that the next look at the metadata may take */

	int				ntopics;
	KafkaTopic	   *topics;
	KafkaPartition *partitions; /* parallel to c.partitions */
	int				capacity;

	rd_kafka_message_t **messages; /* that the client has handed out, in `held` behind those */
	int					 nmessages;
	int					 ntaken;  /* of these: the last poll's */
	bool				 headers; /* a column takes them */
	rd_kafka_message_t **held;	  /* released but not freed; [KAFKA_HELD_RECORDS + STREAMEXT_BATCH_ROWS] */
	int					 nheld;
	bool				 hold; /* keep those of the last poll too */

	bool		discovered;					   /* all topics were looked up once */
	bool		up;							   /* brokers answered last */
	bool		renew;						   /* make a new consumer, */
	TimestampTz renew_at;					   /* not before this */
	bool		mend;						   /* some partition is broken */
	bool		standing;					   /* nothing comes of a partition that has more */
	bool		unresolved;					   /* it is not known at which offsets `start` is */
	char		reason[STREAMEXT_MAX_MESSAGE]; /* what librdkafka last said about a connection */
	TimestampTz next_client,				   /* not before: make a client, ask for metadata, for offsets, mend, */
		next_metadata, next_offsets, next_mend, next_commit, /* commit, look at the cached watermarks */
		next_watermarks, next_standing;

	uint64 flush_ticket; /* 0: none */
	bool   flush_fresh;	 /* metadata was read since the ticket came */

	int64 *commit;	/* [STREAMEXT_MAX_PARTITIONS] */
	int	   ncommit; /* 0: nothing to commit */
} KafkaConnector;

/* ---- source/kafka/sample.c ---- */

/* ConnectorOps.sample. */
extern void streamext_kafka_sample(const StreamConfig *config, struct SourceSample *sample);

/* ---- source/kafka/client.c ---- */

/* Makes wait_fd readable; makes it unreadable; makes it readable when something is due. */
extern void streamext_kafka_wake(KafkaConnector *k);
extern void streamext_kafka_drain(KafkaConnector *k);
extern void streamext_kafka_arm(KafkaConnector *k, TimestampTz now);

/* False and errno on failure; what was opened is closed by close_fds, which keeps errno. */
extern bool streamext_kafka_open_fds(KafkaConnector *k);
extern void streamext_kafka_close_fds(KafkaConnector *k);

/* Brokers answer or do not; c.stalled follows from this and from what is wrong with topics and partitions. */
extern void streamext_kafka_up(KafkaConnector *k);
extern void streamext_kafka_down(KafkaConnector *k, const char *what, const char *why);
extern void streamext_kafka_update_stalled(KafkaConnector *k);
/* The stream must not go on; what is wrong has been reported. */
extern void streamext_kafka_fail(KafkaConnector *k, bool diverged);

/* Where the brokers are and as whom to speak to them; false: *problem says why not. For all clients. */
extern bool streamext_kafka_set_login(rd_kafka_conf_t *conf, const StreamConfig *config,
									  char problem[STREAMEXT_MAX_MESSAGE]);

/* Makes a client that connects in the background; false: reported, try again later. */
extern bool streamext_kafka_create(KafkaConnector *k);
/* A consumer made with all signals masked in its threads, NULL: *error says why; conf is the library's or ended. */
extern rd_kafka_t *streamext_kafka_start(rd_kafka_conf_t *conf, char error[STREAMEXT_MAX_MESSAGE]);
/* Within about a second; a client that hangs in a name look-up is left to itself. Its messages and queues are destroyed before. */
extern void streamext_kafka_end(rd_kafka_t *rk);

/* Ends it within about a second. All its messages are destroyed before. */
extern void streamext_kafka_destroy(KafkaConnector *k);

/* The last poll's messages are not needed any more; `all`: they and those held are freed now. Those behind them stay. */
extern void streamext_kafka_release(KafkaConnector *k, bool all);

/* Has more fetched if librdkafka has stopped and what it has queued is running out. After each poll, with its messages at hand. */
extern void streamext_kafka_refill(KafkaConnector *k);

/*
 * Whom to ask for metadata and offsets while the consumer fetches: a second client, because a broker answers a connection's requests
 * in their order, and a fetch waits there for records. It lives as long as the connector. A consumer that does not fetch yet is asked
 * itself: it needs to know the leaders.
 */
extern rd_kafka_t *streamext_kafka_asker(KafkaConnector *k);
extern void		   streamext_kafka_destroy_asker(KafkaConnector *k);

/* ---- source/kafka/partition.c ---- */

/* Asks for the topics' partitions. True if there are new ones. */
extern bool streamext_kafka_refresh(KafkaConnector *k);
/* ConnectorOps.shard_of. */
extern int streamext_kafka_shard_of(const StreamConfig *config, const char *topic, int32 partition);

/*
 * Asks for n partitions' offsets at a time in milliseconds, or RD_KAFKA_OFFSET_BEGINNING or _END; -1: no record that late.
 * False: no answer within a second, reported.
 */
extern bool streamext_kafka_offsets(KafkaConnector *k, const int *indexes, int n, int64 time, int64 *offsets);

/* Index of a message's or event's partition, -1 if it is none of ours. */
extern int streamext_kafka_index(KafkaConnector *k, const rd_kafka_message_t *message);

/* What the queue holds besides records. */
extern void streamext_kafka_event(KafkaConnector *k, const rd_kafka_message_t *message);
/* Looks what is wrong with the broken partitions, and makes a new consumer. */
extern void streamext_kafka_mend(KafkaConnector *k);

/* source/kafka/headers.c: of ConnectorOps, and the bytes of names and values. */
extern char		  *streamext_kafka_headers(Connector *c, const StreamRecord *record);
extern const char *streamext_kafka_headers_refused(const StreamRecord *record, int *sqlstate);
extern uint64	   streamext_kafka_headers_bytes(const rd_kafka_message_t *message);

/*
 * Looks, when it is due, whether something of every partition that has more has come since the last look. For a client that cannot read a broker's
 * answers, or gets empty ones, says nothing and asks again.
 */
extern void streamext_kafka_look_for_standing(KafkaConnector *k, TimestampTz now);

/* Finds out at which offsets `start` is; true when all are known. */
extern bool streamext_kafka_resolve_starts(KafkaConnector *k);

/* The broker's time of a record. */
static inline TimestampTz
kafka_timestamp(const rd_kafka_message_t *message)
{
	rd_kafka_timestamp_type_t type;
	int64					  ms = rd_kafka_message_timestamp(message, &type);

	if (ms < 0 || type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
		return GetCurrentTimestamp();
	/* Producers may send any number; one that is no time is rejected as infinite. */
	if (ms >= END_TIMESTAMP / 1000)
		return DT_NOEND;
	return ms * 1000 - KAFKA_EPOCH_SHIFT;
}

#endif /* STREAMEXT_KAFKA_CLIENT_H */
