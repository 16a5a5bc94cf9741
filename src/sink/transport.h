/*
 * sink/transport.h
 *		How rows get to another system: one const ops struct for each kind of stream that is `published` (source/connector.h).
 *
 * open, send and close in this order. open is called in the worker's main thread; send and close in a thread of the delivery's
 * (sink/delivery.c), where nothing of PostgreSQL may be called: no palloc, no ereport, no elog; all signals are masked. What a transport
 * keeps it allocates with malloc.
 */
#ifndef STREAMEXT_TRANSPORT_H
#define STREAMEXT_TRANSPORT_H

#include "base/streamext.h"

#include "stream/definition.h"

typedef struct Message
{
	int64		 id;	/* rises within a target */
	const char	*topic; /* NULL: the target's own */
	const char	*key;
	size_t		 key_size;
	const char	*payload; /* NULL: none */
	size_t		 payload_size;
	int			 nheaders;
	const char **header_names;
	const char **header_values;
} Message;

/* What send is given, and how it has ended. */
typedef struct Shipment
{
	int64		   batch; /* names this set of messages, over restarts and crashes */
	Message		  *messages;
	int			   n;
	volatile bool *stop; /* set: return soon */

	int	 done;		/* the first so many have arrived */
	int	 refused;	/* this one is not taken, however often it is sent; -1: none */
	bool reachable; /* the other system has answered */
	int	 wait_ms;	/* it has asked not to be sent anything sooner; 0: it has not */
	char error[STREAMEXT_MAX_MESSAGE];
} Shipment;

typedef struct Transport
{
	const struct TransportOps *ops;
} Transport;

typedef struct TransportOps
{
	const ConnectorOps *connector;
	bool				at_once; /* a set arrives as a whole, once: send knows a batch that has arrived before */
	bool keyed; /* a newer message takes the place of an older one with its key; without payload it deletes it */
	int	 most;	/* messages in a set */

	/* Whether rows can be written there, beyond the connector's own checks; raises. May be NULL. */
	void (*check)(const StreamConfig *config);
	/*
	 * A row's topic, palloc'd. If `strict` it raises where the row's values make none, else that is a topic that send refuses. May be NULL: all
	 * rows go where the target says.
	 */
	char *(*topic)(const StreamConfig *config, const Datum *values, const bool *nulls, bool strict);

	/* In no transaction; malloc'd. NULL: *error says why. */
	Transport *(*open)(const StreamConfig *config, char error[STREAMEXT_MAX_MESSAGE]);
	/* May take long, but not after *stop is set. */
	void (*send)(Transport *transport, Shipment *shipment);
	void (*close)(Transport *transport);
} TransportOps;

#define TRANSPORT(kind) extern const TransportOps streamext_##kind##_transport;
#include "sink/transports.h"
#undef TRANSPORT

/* Of a published connector. */
extern const TransportOps *streamext_transport(const ConnectorOps *connector);

#endif /* STREAMEXT_TRANSPORT_H */
