/*
 * gateway/http_events.c
 *		GET /views/SCHEMA.NAME/changes: a view's changes as server-sent events, for a role with SELECT.
 *
 * A listener takes from its view's board (gateway/watch.h) what it lacks, when its socket has room; who has all is suspended until the
 * board has more, or a heartbeat is due. So a listener is a position, the library's connection and a socket's buffer, which is kept small: what waits in
 * it is out of date. Who does not read for EVENTS_STALLED_MS, heartbeats too, loses its connection; it finds out what it missed by Last-Event-ID.
 */
#include "base/streamext.h"

#include <sys/socket.h>

#include "utils/timestamp.h"

#include "gateway/http_private.h"

#define EVENTS_HEARTBEAT_MS 15000
#define EVENTS_STALLED_MS 60000
#define EVENTS_PIECE (16 * 1024) /* bytes at once */
#define EVENTS_SOCKET (32 * 1024)
#define EVENTS_BLOCK 1024 /* the library's, where it does not use the connection's memory */

static const char events_hello[] = ":\nretry: 2000\n\n";
static const char events_heartbeat[] = ":\n\n";

typedef struct HttpListener
{
	WatchListener base;
	HttpRequest	 *request;
	dlist_node	  node; /* in server->listeners */
	bool		  suspended;
	bool		  greeted;
	bool		  over;		/* it ends with what it is told next */
	TimestampTz	  taken_at; /* when it had room last */
} HttpListener;

static void
events_resume(HttpListener *listener)
{
	if (!listener->suspended)
		return;
	listener->suspended = false;
	streamext_http_resume(listener->request);
}

static void
events_wake(WatchListener *base)
{
	HttpListener *listener = (HttpListener *) base;
	HttpRequest	 *request = listener->request;

	if (request->phase == HTTP_JOINING)
		request->phase = HTTP_OUTCOME;
	events_resume(listener);
}

void
streamext_http_events_poll(void)
{
	streamext_watch_poll(events_wake);
}

/* ---- a request ---- */

static enum MHD_Result
events_count(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	(*(int *) cls)++;
	return MHD_YES;
}

enum MHD_Result
streamext_http_events_begin(HttpRequest *request, const char *schema, const char *name)
{
	int			  arguments = 0;
	HttpListener *listener;

	(void) MHD_get_connection_values(request->mhd, MHD_GET_ARGUMENT_KIND, events_count, &arguments);
	if (arguments > 0)
		return streamext_http_refuse(request, MHD_HTTP_BAD_REQUEST, true, -1, "changes take no arguments",
									 "All of the view's changes are told. Where to go on is the header Last-Event-ID.");
	if (strlen(schema) >= NAMEDATALEN || strlen(name) >= NAMEDATALEN)
		return streamext_http_refuse(request, MHD_HTTP_NOT_FOUND, true, -1, "there is no view at this path",
									 "A name has at most %d bytes.", NAMEDATALEN - 1);
	listener = calloc(1, sizeof(HttpListener));
	if (listener == NULL || !streamext_watch_join(&listener->base, request->role, schema, name))
	{
		free(listener);
		return streamext_http_refuse(
			request, MHD_HTTP_SERVICE_UNAVAILABLE, true, -1, "no process is free to read the view",
			"A server's gateway watches %d views and roles at once, by one of max_worker_processes.",
			STREAMEXT_WATCHES);
	}
	listener->request = request;
	listener->suspended = true;
	dlist_push_tail(&request->server->listeners, &listener->node);
	request->listener = listener;
	request->phase = HTTP_JOINING;
	streamext_http_suspend(request);
	if (listener->base.watch->status != 0)
		events_wake(&listener->base);
	return MHD_YES;
}

/* The library's question for more; suspends who has all. */
static ssize_t
events_read(void *cls, uint64_t position, char *buffer, size_t size)
{
	HttpListener *listener = cls;
	Watch		 *watch = listener->base.watch;
	TimestampTz	  now = GetCurrentTimestamp();
	Size		  n;

	if (listener->over || watch == NULL || watch->status != MHD_HTTP_OK)
		return MHD_CONTENT_READER_END_OF_STREAM;
	if (!listener->greeted)
	{
		listener->greeted = true;
		listener->taken_at = now;
		memcpy(buffer, events_hello, sizeof(events_hello) - 1);
		return sizeof(events_hello) - 1;
	}
	n = streamext_board_read(watch->board, &listener->base.position, buffer, Min(size, EVENTS_PIECE));
	if (n == 0 && TimestampDifferenceExceeds(listener->taken_at, now, EVENTS_HEARTBEAT_MS))
	{
		n = sizeof(events_heartbeat) - 1;
		memcpy(buffer, events_heartbeat, n);
	}
	if (n > 0)
	{
		listener->taken_at = now;
		return n;
	}
	listener->suspended = true;
	streamext_http_suspend(listener->request);
	return 0;
}

enum MHD_Result
streamext_http_events_answer(HttpRequest *request)
{
	HttpListener				   *listener = request->listener;
	const Watch					   *watch = listener->base.watch;
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(request->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	int								room = EVENTS_SOCKET;
	struct MHD_Response			   *response;

	if (watch == NULL || watch->status != MHD_HTTP_OK)
		return streamext_http_refuse(
			request, watch != NULL && watch->status != 0 ? watch->status : MHD_HTTP_SERVICE_UNAVAILABLE, true, -1,
			watch != NULL && watch->status != 0 ? watch->error : "the gateway is being restarted",
			"GET /views/SCHEMA.NAME/changes, by a role with SELECT on the continuous view, which outputs all that it groups by.");
	streamext_board_begin(watch->board, &listener->base.position, streamext_http_header(request, "Last-Event-ID"));
	if (info != NULL)
		(void) setsockopt(info->connect_fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, EVENTS_BLOCK, events_read, listener, NULL);
	if (response != NULL)
	{
		(void) MHD_add_response_header(response, "Content-Type", "text/event-stream");
		(void) MHD_add_response_header(response, "Cache-Control", "no-store");
		(void) MHD_add_response_header(response, "X-Accel-Buffering", "no");
		(void) MHD_add_response_header(response, "Key-Columns", watch->keys);
	}
	listener->taken_at = GetCurrentTimestamp();
	return streamext_http_queue(request, MHD_HTTP_OK, response);
}

void
streamext_http_events_end(HttpRequest *request)
{
	HttpListener *listener = request->listener;

	streamext_watch_leave(&listener->base);
	dlist_delete(&listener->node);
	request->listener = NULL;
	free(listener);
}

/* ---- all of them ---- */

void
streamext_http_events_look(HttpServer *server, TimestampTz now)
{
	dlist_iter iter;

	if (now < server->next_events)
		return;
	server->next_events = now + USECS_PER_SEC;
	dlist_foreach (iter, &server->listeners)
	{
		HttpListener				   *listener = dlist_container(HttpListener, node, iter.cur);
		const union MHD_ConnectionInfo *info;

		if (listener->request->phase != HTTP_ANSWERED)
			continue;
		if (listener->suspended && TimestampDifferenceExceeds(listener->taken_at, now, EVENTS_HEARTBEAT_MS))
			events_resume(listener);
		else if (!listener->suspended && TimestampDifferenceExceeds(listener->taken_at, now, EVENTS_STALLED_MS))
		{
			info = MHD_get_connection_info(listener->request->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
			if (info != NULL)
				(void) shutdown(info->connect_fd, SHUT_RDWR);
		}
	}
}

static void
events_finish(HttpListener *listener)
{
	listener->over = true;
	if (listener->request->phase == HTTP_JOINING)
		listener->request->phase = HTTP_OUTCOME;
	events_resume(listener);
}

void
streamext_http_events_check(HttpServer *server)
{
	dlist_iter iter;

	dlist_foreach (iter, &server->listeners)
	{
		HttpListener *listener = dlist_container(HttpListener, node, iter.cur);

		if (!streamext_gateway_still(server->gateway, listener->request->role, listener->request->digest))
			events_finish(listener);
	}
}

void
streamext_http_events_stop(HttpServer *server)
{
	dlist_iter iter;

	dlist_foreach (iter, &server->listeners)
		events_finish(dlist_container(HttpListener, node, iter.cur));
}
