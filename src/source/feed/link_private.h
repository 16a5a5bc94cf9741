/*
 * source/feed/link_private.h
 *		What the files of a feed's connection share.
 *
 *	source/feed/link.c			stages, timers, what ends a connection and when the next one is due
 *	source/feed/request.c		what is asked for: URL, headers, libcurl's options; what comes back
 *	source/feed/websocket.c		the handshake and the bytes of a websocket
 */
#ifndef STREAMEXT_FEED_LINK_PRIVATE_H
#define STREAMEXT_FEED_LINK_PRIVATE_H

#include <curl/curl.h>
#include <time.h>

#include "source/feed/answer.h"
#include "source/feed/link.h"
#include "source/feed/retry.h"
#include "source/feed/unpack.h"

#define FEED_HEAD_MAX 65536			/* bytes of the heads of a connection's answers, and of what is behind its pieces */
#define FEED_MUCH (4 * 1024 * 1024) /* bytes taken, or collected, in one go */

typedef enum FeedStage
{
	FEED_IDLE,		 /* until `due` */
	FEED_CONNECTING, /* websocket: until the handshake's head is sent; else until the answer's head is there */
	FEED_GREETING,	 /* websocket: the answer to the handshake is to come */
	FEED_OPEN
} FeedStage;

struct FeedLink
{
	Connector		  *c;
	const FeedOptions *options;
	FeedIntake		  *intake;
	MemoryContext	   cxt; /* of a request's making */
	FeedCutter		   cutter;
	FeedRetry		   retry;

	CURLM			  *multi;
	CURL			  *easy; /* NULL: idle */
	struct curl_slist *headers;
	int				   epoll, timer; /* the timer is in the epoll */
	int64			   armed;		 /* ms the timer is set to; -1: it is not */
	int64			   curl_due;	 /* ms; -1: libcurl waits for nothing */

	FeedStage stage;
	int64	  due, since, heard; /* ms: to connect; the connection's beginning; its last bytes */
	int64	  woken;			 /* ms, -1: somebody wants to be woken */
	uint64	  count;			 /* records at its beginning */
	bool	  before;			 /* there was an open one before */
	char	 *url;				 /* where it goes, malloc'd */
	char	 *redirected;		 /* where the next goes, malloc'd; NULL: the option */
	int		  redirects;
	bool	  refused; /* by the cutter, or by the intake */
	bool	  rewinds; /* it was told that the token cannot be set back */

	FeedAnswer answer;
	size_t	   heads; /* bytes of heads */
	FeedUnpack unpack;
	size_t	   taken;	 /* bytes of the feed, unpacked, since it is driven */
	size_t	   consumed; /* of what libcurl brings next: bytes that were taken before */
	bool	   full;	 /* libcurl is paused: enough was taken */
	FeedText   body;	 /* of an answer that is not the feed */
	char	   reason[CURL_ERROR_SIZE];

	/* websocket */
	int		 socket;
	FeedText out, head;
	size_t	 sent;
	char	 key[32];
	bool	 closed;
	char	 close_reason[160];
};

/* By the monotonic clock. */
static inline int64
streamext_feed_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- request.c ---- */

/* What an answer's head means for an open feed: true, or false and the body tells why not. */
extern void streamext_feed_link_open(FeedLink *link);
/* Whether no more is to be taken in just now. */
extern bool streamext_feed_link_is_full(const FeedLink *link);
/* So many bytes of a head. False: they end the connection. */
extern bool streamext_feed_link_head(FeedLink *link, size_t size);
/* Bytes of the feed. False: they end the connection. */
extern bool streamext_feed_link_bytes(FeedLink *link, const char *data, size_t size);
/* The bytes behind a head that is not the feed's. False: it is enough of them. */
extern bool streamext_feed_link_body(FeedLink *link, const char *data, size_t size);
/* Makes `easy` and adds it to `multi`. False: reported. */
extern bool streamext_feed_request(FeedLink *link);

/* ---- websocket.c ---- */

/* The connection is there. False: it is to end, with *result. */
extern bool streamext_feed_websocket_begin(FeedLink *link, CURLcode *result);
/* The socket is ready for something. */
typedef enum FeedWebsocketState
{
	FEED_WS_DRAINED, /* nothing more just now */
	FEED_WS_MORE,	 /* there may be, of which the socket says nothing: TLS may have taken the rest */
	FEED_WS_ENDED	 /* with *result */
} FeedWebsocketState;
extern FeedWebsocketState streamext_feed_websocket_ready(FeedLink *link, CURLcode *result);
/* A FeedControl. */
extern void streamext_feed_websocket_control(void *context, int opcode, const char *data, size_t size);
extern void streamext_feed_websocket_end(FeedLink *link);

#endif /* STREAMEXT_FEED_LINK_PRIVATE_H */
