/*
 * gateway/http_private.h
 *		What the files of the HTTP gateway share: gateway/http.c (the daemon, connections and their deadlines), gateway/http_handle.c (what it calls for
 *		a request), gateway/http_request.c, http_role.c and http_answer.c (what all requests have), gateway/http_post.c, http_get.c, http_events.c, http_page.c
 *		(what is asked for).
 */
#ifndef STREAMEXT_HTTP_PRIVATE_H
#define STREAMEXT_HTTP_PRIVATE_H

#include <microhttpd.h>

#include "lib/ilist.h"

#include "gateway/gateway.h"
#include "gateway/reader.h"
#include "gateway/watch.h"

#define HTTP_BODIES \
	(256 * INT64CONST(1024) * 1024) /* bytes of all bodies, their records and answers that are held at once */

#define HTTP_CONNECTION_MEMORY \
	16384 /* bytes of a connection: its head must fit; the library clears them for each request */

/*
 * Bodies of up to so many bytes are received although nobody wants them: a connection that ends with something unread is reset, and who is still sending
 * does not see why.
 */
#define HTTP_UNWANTED (64 * 1024 * 1024)

#define HTTP_SLOW_BODIES 30	  /* header_timeouts that a body may take, if it keeps coming, and an answer */
#define HTTP_LENGTH_DIGITS 18 /* of a Content-Length */

#define HTTP_FIXED (4 * MAXPGPATH)

typedef struct HttpRate
{
	Oid			role;
	double		tokens;
	TimestampTz at;
} HttpRate;

typedef struct HttpServer
{
	Gateway			  *gateway;
	struct MHD_Daemon *daemon;
	int				   epoll_fd;
	dlist_head		   connections; /* of HttpConnection */
	int				   nconnections;
	TimestampTz		   next_look; /* at the deadlines */
	int64			   bodies;	  /* bytes held */
	bool			   stops;
	bool			   done;			  /* something was told of in this round: answers wait to be sent */
	char			  *certificate, *key; /* or NULL */
	time_t			   certificate_end;	  /* 0: it is not looked for */
	dlist_head		   waiting;			  /* of HttpRequest: ?wait=visible */
	dlist_head		   reads;			  /* of HttpRequest: views that are being read */
	int				   nreads;
	dlist_head		   listeners;	/* of HttpListener */
	TimestampTz		   next_events; /* at the listeners */

	/* the options */
	char	  fixed[HTTP_FIXED]; /* those that the daemon was started with */
	int64	  max_body;
	int64	  header_timeout; /* us */
	int64	  wait_timeout;
	int		  rate_limit; /* 0: none */
	HttpRate *rates;
	int		  nrates;
} HttpServer;

typedef struct HttpConnection
{
	dlist_node			   node;
	struct MHD_Connection *mhd;
	struct HttpRequest	  *request;	 /* at work, or NULL */
	TimestampTz			   deadline; /* of what it is to send next */
	bool				   fresh;	 /* has sent no request yet */

	/* who showed himself last, that the next request need not be looked up: good for the roster of this version */
	char  *shown; /* the header Authorization, malloc'd, or NULL */
	Size   shown_size;
	uint64 version;
	Oid	   role;
	uint8  digest[32];
} HttpConnection;

/* Where a request is. */
typedef enum HttpPhase
{
	HTTP_BODY,		/* is being received */
	HTTP_REFUSED,	/* its body is received, thrown away, and answered by `refusal` */
	HTTP_SUBMITTED, /* its records will be in the journal at the end of the round; suspended if it waits for views then */
	HTTP_WAITING,	/* suspended until views show them */
	HTTP_READING,	/* suspended until a view is read */
	HTTP_JOINING,	/* suspended until a view's changes are there */
	HTTP_OUTCOME,	/* answer as `outcome` says */
	HTTP_ANSWERED
} HttpPhase;

/* What a request brings, as it comes in. */
typedef struct HttpBody
{
	char *bytes; /* malloc'd */
	Size  size, capacity;
	bool  large;   /* more came than may; it is thrown away */
	bool  full;	   /* there was no room for it */
	bool  chunked; /* it comes in chunks */
	int64 held;	   /* bytes of the block in its place */
} HttpBody;

/* The answer of a HTTP_REFUSED. */
typedef struct HttpRefusal
{
	struct MHD_Response *response; /* NULL: none, or it has been sent */
	unsigned			 status;
} HttpRefusal;

/* ?wait=visible */
typedef struct HttpVisible
{
	bool		wanted;
	uint64		ticket;
	TimestampTz until;
	bool		reached;
} HttpVisible;

typedef struct HttpRequest
{
	GatewayRequest		   base;
	HttpServer			  *server;
	HttpConnection		  *connection;
	struct MHD_Connection *mhd;
	HttpPhase			   phase;
	GatewayOutcome		   outcome;
	Oid					   role, relid;
	uint64				   version; /* of the roster that role and relid are of */
	char				  *path;	/* malloc'd */
	HttpBody			   body;
	Size				   answer; /* bytes of a view's rows that are being sent */
	bool				   begins; /* its head is being looked at */
	HttpRefusal			   refusal;
	bool				   suspended;
	bool				   abandoned;	   /* the connection ended while its records were on their way */
	char				  *block, *common; /* malloc'd; what base points to */
	HttpVisible			   visible;
	TimestampTz			   began;
	GatewayRead			  *read; /* of a GET, or NULL */
	ReadFormat			   format;
	struct HttpListener	  *listener;   /* of a GET of changes, or NULL */
	uint8				   digest[32]; /* of the secret that was shown; zero: none */
	dlist_node			   node;	   /* in server->waiting or reads */
} HttpRequest;

/* ---- gateway/http_request.c ---- */

/* NULL: no memory. */
extern HttpRequest *streamext_http_new(HttpServer *server, struct MHD_Connection *mhd, const char *url);
/* What comes of the body. */
extern void streamext_http_receive(HttpRequest *request, const char *data, size_t size);
/* Ends a request that no callback knows any more. */
extern void streamext_http_free(HttpRequest *request);
/* The bytes that were sent, and the records made of them, make room for others'. */
extern void streamext_http_drop_body(HttpRequest *request);
extern void streamext_http_drop_block(HttpRequest *request);

/* Its handler is not called until streamext_http_resume, and the server does not stop before that. */
extern void streamext_http_suspend(HttpRequest *request);
/* Its handler is called in the next run. */
extern void streamext_http_resume(HttpRequest *request);

/* NULL: the request has none. */
extern const char *streamext_http_header(HttpRequest *request, const char *name);
extern const char *streamext_http_argument(HttpRequest *request, const char *name);
/* Paths that are read: the gateway's own. */
extern bool streamext_http_is_read(const char *path);

/* ---- gateway/http_answer.c ---- */

/* An error's answer: {"error", "hint", "record"}; record < 0: none. `close`: the connection ends with it. */
extern enum MHD_Result streamext_http_refuse(HttpRequest *request, unsigned status, bool close, int64 record,
											 const char *error, const char *hint, ...) pg_attribute_printf(6, 7);
/* The body of such an answer. */
extern void streamext_http_error_json(StringInfo json, const char *error, const char *hint, int64 record);
/* An answer without a body. */
extern enum MHD_Result streamext_http_answer(HttpRequest *request, unsigned status);
extern enum MHD_Result streamext_http_queue(HttpRequest *request, unsigned status, struct MHD_Response *response);

/* ---- gateway/http_role.c ---- */

/* Who asks. InvalidOid: refused, *result is the answer's. */
extern Oid streamext_http_role(HttpRequest *request, enum MHD_Result *result);
/* Ends what is known of a connection's role. */
extern void streamext_http_forget(HttpConnection *connection);
/* A role may have as many requests at once as it may have in a second. */
extern bool streamext_http_within_rate(HttpServer *server, Oid role);

/* ---- gateway/http_handle.c: MHD's callbacks ---- */

extern enum MHD_Result streamext_http_handle(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
											 const char *version, const char *data, size_t *size, void **con_cls);
extern void			   streamext_http_completed(void *cls, struct MHD_Connection *mhd, void **con_cls,
												enum MHD_RequestTerminationCode code);

/* ---- gateway/http_clear.c ---- */

/* Why the head could be read in several ways; NULL: it cannot. */
extern const char *streamext_http_unclear(HttpRequest *request, const char *method, const char *version);
/* MHD's callback. */
extern size_t streamext_http_unescape(void *cls, struct MHD_Connection *mhd, char *text);

/* ---- gateway/http_own.c ---- */

/* From now on this process is a gateway. */
extern void streamext_http_own_begin(void);

/* ---- gateway/http_get.c ---- */

extern enum MHD_Result streamext_http_get_begin(HttpRequest *request);
extern enum MHD_Result streamext_http_metrics_begin(HttpRequest *request);
/* Looks whether processes that read views have come to an end. */
extern void streamext_http_get_look(HttpServer *server);
/* The request is not in server->reads any more. */
extern void			   streamext_http_get_end(HttpRequest *request);
extern enum MHD_Result streamext_http_get_answer(HttpRequest *request);

/* ---- gateway/http_page.c ---- */

/* What is answered to anybody: the live page and /healthz. False: it is none of these. */
extern bool streamext_http_page(HttpRequest *request, enum MHD_Result *result);

/* ---- gateway/http_events.c ---- */

/* GET of a view's changes; schema and name of the view. */
extern enum MHD_Result streamext_http_events_begin(HttpRequest *request, const char *schema, const char *name);
extern enum MHD_Result streamext_http_events_answer(HttpRequest *request);
/* The request is over. */
extern void streamext_http_events_end(HttpRequest *request);
/* Wakes who has something to be told, and who has not been told anything for long; ends who does not read. */
extern void streamext_http_events_look(HttpServer *server, TimestampTz now);
/* Takes what has come of views. */
extern void streamext_http_events_poll(void);
/* The roster was read: who has no right to be here any more goes. */
extern void streamext_http_events_check(HttpServer *server);
/* All go: they are resumed, and end at the next run. */
extern void streamext_http_events_stop(HttpServer *server);

/* ---- gateway/http_post.c ---- */

/* Before the body: whether it may come. */
extern enum MHD_Result streamext_http_post_begin(HttpRequest *request);
/* The body is there: cuts and submits it, or answers. */
extern enum MHD_Result streamext_http_post_end(HttpRequest *request);
/* The answer to what was submitted. */
extern enum MHD_Result streamext_http_post_answer(HttpRequest *request);
/* Looks whether views show what requests wait for. */
extern void streamext_http_post_look(HttpServer *server, TimestampTz now);

#endif /* STREAMEXT_HTTP_PRIVATE_H */
