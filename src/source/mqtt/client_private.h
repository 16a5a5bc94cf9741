/*
 * source/mqtt/client_private.h
 *		What the files of an MQTT client share.
 *
 *	source/mqtt/client.c		the threads, arrival, the connection, flush
 *	source/mqtt/subscribe.c		from a new connection to the right subscriptions
 */
#ifndef STREAMEXT_MQTT_CLIENT_PRIVATE_H
#define STREAMEXT_MQTT_CLIENT_PRIVATE_H

#include "base/streamext.h"

#include <pthread.h>

#include <MQTTAsync.h>

#include "port/atomics.h"

#include "source/mqtt/address.h"
#include "source/mqtt/client.h"
#include "source/mqtt/seen.h"
#include "source/mqtt/session.h"

#define MQTT_RETRY_MIN_MS 250
#define MQTT_RETRY_MAX_MS 5000
#define MQTT_FORGET_MS \
	1200 /* for a DISCONNECT that ends the session; the one that destroying the client sends does not */
#define MQTT_END_MS \
	3000 /* for a connection that ends another session; paho's receive thread sees a second socket after a second */

typedef enum MqttLink
{
	MQTT_IDLE, /* not connected; connect at `due` */
	MQTT_CONNECTING,
	MQTT_CONNECTED, /* what the broker remembers is made right at `due` */
	MQTT_UNSUBSCRIBING,
	MQTT_SUBSCRIBING,
	MQTT_READY
} MqttLink;

struct MqttClient
{
	/* set before the threads start */
	MqttAddress at;
	char	   *filter, *marker_topic;
	int			qos;
	char		nonce[64]; /* tells this client's markers from an earlier one's */
	Journal	   *journal;
	int			wait_fd;
	pthread_t	control;
	bool		started; /* the control thread, main thread */
	bool		forget;	 /* with stop: the broker need not keep the session */

	pg_atomic_uint32 signalled; /* wait_fd was written since the last poll */

	MQTTAsync	 handle; /* control thread */
	MqttAddress *former; /* control thread: whose session is to be ended if this is another one; NULL: none */

	MqttSeen *seen; /* receive thread */

	pthread_mutex_t append_mutex;
	bool			abandoned; /* append_mutex: nothing may be appended any more */

	pthread_mutex_t mutex;
	pthread_cond_t	wake; /* the control thread */
	bool			stop;
	MqttLink		link;
	int64			since; /* ms: the link is in its state since */
	int64			due;   /* ms */
	int				retry_ms;
	int				brief; /* connections in a row */

	/* what the broker remembers */
	MqttSession *session;
	bool		 present;	  /* the broker had the session at this connect */
	bool		 presumed;	  /* it was not asked to subscribe again, */
	bool		 doubted;	  /* and shall be */
	bool		 only_marker; /* the SUBSCRIBE under way is for the marker's topic */
	bool		 again;		  /* retained messages of this connection are those that came before */
	char		*ending;	  /* the subscription that is being ended; NULL: none */
	int			 unanswered;  /* markers of this flush */

	bool   append_failing;
	uint64 unmatched;			 /* messages that match no filter, since the main thread has looked, */
	char   unmatched_topic[128]; /* and the topic of the first */
	bool   refused;				 /* by the broker: login or subscription; until it is not, */
	bool   marker_refused;		 /* or the flush markers, until one comes back */
	char   error[STREAMEXT_MAX_MESSAGE];
	uint64 errors;
	char   tls_error[128]; /* of this attempt to connect; "" none */
	uint64 flush_wanted,   /* tickets; 0: none */
		flush_published, flush_done;
	int64 flush_published_at, /* ms */
		flush_due;			  /* ms: publish the marker no sooner */
	int64  flush_position;
	uint64 markers_back; /* how many came back, ever */
};

/* ---- source/mqtt/link.c; with the mutex, but for _ms, _signal and _reason ---- */

/* By the monotonic clock. */
extern int64 streamext_mqtt_ms(void);
extern void	 streamext_mqtt_set_link(MqttClient *m, MqttLink link, int delay_ms);
extern void	 streamext_mqtt_set_error(MqttClient *m, const char *what, const char *why);
/* A flush cannot work, which must not keep the stream from its records. */
extern void streamext_mqtt_marker_refused(MqttClient *m);
/* What a code of CONNACK, SUBACK or the library means. */
extern const char *streamext_mqtt_reason(const MqttClient *m, int code);
/* Makes wait_fd readable; one system call for all messages between two polls. */
extern void streamext_mqtt_signal(MqttClient *m);

/* ---- source/mqtt/subscribe.c ---- */

/*
 * The next step from a new connection to one whose session holds this configuration's subscriptions and no other. Of the control thread, with
 * the mutex, which is released around calls.
 */
extern void streamext_mqtt_prepare(MqttClient *m);

#endif /* STREAMEXT_MQTT_CLIENT_PRIVATE_H */
