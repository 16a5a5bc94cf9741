/*
 * gateway/flume_call.h
 *		What Flume's two protocols have in common: calls of a sender, each a batch of events, cut from what has come of a connection, read strictly,
 *		and answered. Pure: bytes in, bytes out; neither sockets nor slots. One const ops struct for each: gateway/flume_avro.c, gateway/flume_thrift.c.
 *
 * Order: frame until it is whole; call; next until there are no more events; answer.
 */
#ifndef STREAMEXT_FLUME_CALL_H
#define STREAMEXT_FLUME_CALL_H

#include "base/streamext.h"

#include "lib/stringinfo.h"
#include "port/pg_bswap.h"

#define FLUME_MAX_MESSAGE (64 * 1024 * 1024) /* bytes of a call, */
#define FLUME_MAX_HEAD (1024 * 1024)		 /* of the headers of an event, and */
#define FLUME_MAX_EVENTS 1000000			 /* its events: what is beyond holds up others */

/* How far a call has been looked at that is not whole; begin each with zeros. */
typedef struct FlumeFrame
{
	Size   at;	 /* of the first byte that was not looked at */
	uint32 left; /* avro: buffers to come */
	bool   begun;

	/* when it is whole */
	uint32		serial; /* avro */
	const char *message;
	Size		size;
	Size		used; /* bytes of the connection */
} FlumeFrame;

typedef enum FlumeFraming
{
	FLUME_MORE,	 /* not whole yet */
	FLUME_WHOLE, /* message and used are set */
	FLUME_FAULT	 /* what comes is no call: the connection cannot go on */
} FlumeFraming;

typedef struct FlumeCall
{
	const char *p, *end;   /* what is not read yet */
	const char *events;	   /* from here to `end` are the arguments: the same bytes are the same batch */
	int64		left;	   /* events to come, as far as known */
	const char *block_end; /* avro: where a block of them says that it ends, or NULL */
	bool		ended;
	bool		batch;	   /* several events, else one */
	bool		none;	   /* a call without events, to be answered */
	bool		handshake; /* avro: to be answered too */
	uint32		serial;
	const char *name; /* of the call, */
	uint32		name_size;
} FlumeCall;

/* Pointers into the message. */
typedef struct FlumeEvent
{
	StringInfo	head; /* the caller's; as source/flume/flume.h has it */
	const char *body;
	uint32		body_size;
} FlumeEvent;

typedef struct FlumeProtocolOps
{
	/* Looks at the size bytes that have come, from where it was; may move them together in place. FLUME_FAULT: *fault says why. */
	FlumeFraming (*frame)(FlumeFrame *frame, char *bytes, Size size, const char **fault);

	/* Reads up to the events. first: of the connection. NULL, or why it is none; call->serial is set as far as it is known. */
	const char *(*call)(FlumeCall *call, const FlumeFrame *frame, bool first);

	/* The next event; false: there are no more, or *fault says what is wrong. All of the message has been read at the end. */
	bool (*next)(FlumeCall *call, FlumeEvent *event, const char **fault);

	/* Appends the answer: error NULL: taken. */
	void (*answer)(const FlumeCall *call, const char *error, StringInfo to);
} FlumeProtocolOps;

extern const FlumeProtocolOps streamext_flume_avro;
extern const FlumeProtocolOps streamext_flume_thrift;

/* Whether the headers of an event may have one more. */
static inline bool
flume_head_takes(Size size, uint32 name_size, uint32 value_size)
{
	return (uint64) size + name_size + value_size <= FLUME_MAX_HEAD;
}

/* For both: big-endian, at p. */
static inline uint32
flume_get32(const char *p)
{
	uint32 n;

	memcpy(&n, p, sizeof(n));
	return pg_ntoh32(n);
}

static inline void
flume_put32(StringInfo to, uint32 n)
{
	n = pg_hton32(n);
	appendBinaryStringInfo(to, (char *) &n, sizeof(n));
}

#endif /* STREAMEXT_FLUME_CALL_H */
