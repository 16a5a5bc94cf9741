/*
 * gateway/flume_private.h
 *		What the files of the Flume gateway share: gateway/flume.c (the rounds, deadlines), gateway/flume_connection.c (a socket and its bytes),
 *		gateway/flume_batch.c (a batch from its call to its answer), gateway/flume_taken.c (batches that may come again). What is
 *		spoken is in gateway/flume_call.h.
 */
#ifndef STREAMEXT_FLUME_PRIVATE_H
#define STREAMEXT_FLUME_PRIVATE_H

#include <sys/socket.h>

#include "lib/ilist.h"

#include "gateway/flume_call.h"
#include "gateway/gateway.h"

#define FLUME_TAKEN_STREAMS 32 /* of one batch that are remembered; in more it is counted again */
#define FLUME_TAKEN_BATCHES 1024
#define FLUME_TAKEN_SECONDS 300

/* Which batch, of whom: of the same address the same bytes. */
typedef struct FlumeBatchId
{
	uint8 address[16];
	uint8 digest[32];
} FlumeBatchId;

/* Behind the name in what a batch's blocks share (source/journal/block.h), so that a later process knows which batches came last. */
typedef struct FlumeMark
{
	uint64		 connection; /* drawn by chance */
	TimestampTz	 at;
	FlumeBatchId id;
} FlumeMark;

/* Streams whose journals hold a batch. */
typedef struct FlumeTaken
{
	FlumeMark mark;
	int		  nstreams; /* 0: none, nothing to remember */
	Oid		  streams[FLUME_TAKEN_STREAMS];
} FlumeTaken;

/* The last ones of connections that have ended: their senders may not know that they were taken. */
typedef struct FlumeTakenRing
{
	FlumeTaken batches[FLUME_TAKEN_BATCHES];
	int		   next;	 /* overwritten next */
	List	  *recalled; /* OIDs of streams whose journals have been read */
} FlumeTakenRing;

typedef struct FlumeServer
{
	Gateway				   *gateway;
	const FlumeProtocolOps *protocol;
	int						kind;
	int						epoll_fd;
	dlist_head				connections; /* of FlumeConnection, who has been silent for longest first */
	int						nconnections;
	int64					bytes; /* of all buffers */
	bool					again; /* connections may go on at once */
	TimestampTz				next_look;
	FlumeTakenRing		   *taken;
} FlumeServer;

typedef struct FlumeConnection
{
	dlist_node	 node;
	FlumeServer *server;
	int			 fd;
	uint8		 address[16];
	char		*in; /* malloc'd: `size` bytes from `from` have come and are not a call yet */
	Size		 from, size, capacity;
	FlumeFrame	 frame;
	char		*out; /* malloc'd: what is to be sent; NULL: nothing */
	Size		 out_size, sent;
	TimestampTz	 since;	  /* when a call began that is not whole, or an answer that is not sent; 0: neither */
	uint64		 number;  /* drawn by chance */
	bool		 spoke;	  /* has had a call */
	bool		 busy;	  /* its call is submitted, in this round */
	bool		 ended;	  /* sends nothing more */
	bool		 doomed;  /* ends when `out` is sent */
	FlumeTaken	 last;	  /* its last batch */
	bool		 refused; /* that was not acknowledged */
} FlumeConnection;

/* ---- gateway/flume_connection.c ---- */

/* Who has connected; closed if there is no memory. */
extern void streamext_flume_adopt(FlumeServer *server, int fd, const struct sockaddr_storage *from);
/* It is not busy. */
extern void streamext_flume_close(FlumeConnection *connection);

/* Reads what there is, so far as it may hold it; sets ended and doomed. */
extern void streamext_flume_read(FlumeConnection *connection);
/* Its call is done with: what has come begins behind it. */
extern void streamext_flume_consume(FlumeConnection *connection);

/* Sends on what it has not taken. False: the connection is broken. */
extern bool streamext_flume_flush(FlumeConnection *connection);
/* Sends it, now or when the connection takes it. A connection for which there is no memory is doomed. */
extern void streamext_flume_send(FlumeConnection *connection, const char *bytes, Size size);

/* Whether its sender has ended it, or has not got all that was sent. */
extern bool streamext_flume_is_lost(const FlumeConnection *connection);

/* ---- gateway/flume_batch.c ---- */

/* The call in the connection's frame: submits its events and makes the connection busy, or answers. */
extern void streamext_flume_batch(FlumeConnection *connection);

/* ---- gateway/flume_taken.c ---- */

extern bool streamext_flume_taken_holds(const FlumeTaken *taken, Oid relid);
extern void streamext_flume_taken_add(FlumeTaken *taken, Oid relid);

/* Of a connection that has ended. */
extern void streamext_flume_taken_keep(FlumeTakenRing *ring, const FlumeTaken *taken);
/* The streams that the batch is in by these, if it is not too long ago; they are forgotten. False: none. */
extern bool streamext_flume_taken_again(FlumeTakenRing *ring, const FlumeBatchId *id, TimestampTz now,
										FlumeTaken *taken);
/* A mark that stood in the stream's journal, in their order. */
extern void streamext_flume_taken_note(FlumeTakenRing *ring, const FlumeMark *mark, Oid relid);

/* ---- gateway/flume_recall.c ---- */

/* What came last before this process, from the stream's journal; once for each stream, before anything is submitted to it. */
extern void streamext_flume_recall(FlumeTakenRing *ring, GatewayStream *stream);

#endif /* STREAMEXT_FLUME_PRIVATE_H */
