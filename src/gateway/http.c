/*
 * gateway/http.c
 *		The protocol http: libmicrohttpd's daemon in the gateway's loop, its connections and their deadlines, TLS.
 *
 * The library runs with its own epoll descriptor, which the gateway waits for; all its calls back come from MHD_run. A request that is submitted has its
 * outcome at the end of the round, so the library, which asks again in each run, is answered in the next one; suspending would cost two system calls more a
 * request. The library's time-out starts anew with every byte, so senders that
 * dribble are found by deadlines of our own, looked at a few times a second while there are connections.
 */
#include "base/streamext.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/timestamp.h"

#include "base/label.h"
#include "base/option.h"
#include "gateway/http_private.h"
#include "source/http/http.h"

#define HTTP_LOOK_MS 250
#define HTTP_FILE_MAX (1024 * 1024)

static char *
http_key(const StreamConfig *config)
{
	return streamext_http_path(config->table_options, config->schema, config->name);
}

/* ---- connections ---- */

/* An answer outside of the library, to a connection that is ended with it: as much of it as can be sent at once. */
static void
http_say(HttpConnection *connection, const char *status, const char *error, const char *hint)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	const union MHD_ConnectionInfo *tls = MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	StringInfoData					json, answer;

	if (info == NULL)
		return;
	initStringInfo(&json);
	initStringInfo(&answer);
	streamext_http_error_json(&json, error, hint, -1);
	appendStringInfo(
		&answer, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		status, json.len, json.data);
	if (tls != NULL)
	{
		(void) gnutls_record_send(tls->tls_session, answer.data, answer.len);
		(void) gnutls_bye(tls->tls_session, GNUTLS_SHUT_WR);
	}
	else
		(void) send(info->connect_fd, answer.data, answer.len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Tells who is too slow, and ends the connection; the library sees its end in the next run. */
static void
http_expire(HttpConnection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);

	if (connection->fresh || (connection->request != NULL && connection->request->phase != HTTP_ANSWERED))
		http_say(connection, "408 Request Timeout", "the request took too long",
				 "The server's option header_timeout says how long the head may take, and each piece of the body.");
	if (info != NULL)
		(void) shutdown(info->connect_fd, SHUT_RDWR);
	connection->deadline = DT_NOEND;
}

/*
 * A first line that is none makes the library hang up without a word: something was received, nothing sent. What a TLS session can still say nobody
 * knows.
 */
static void
http_hung_up(const HttpServer *server, HttpConnection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct tcp_info					tcp = { 0 };
	socklen_t						size = sizeof(tcp);

	if (!connection->fresh || connection->deadline == DT_NOEND || server->stops || server->certificate != NULL ||
		info == NULL || getsockopt(info->connect_fd, IPPROTO_TCP, TCP_INFO, &tcp, &size) != 0)
		return;
	if (tcp.tcpi_bytes_received > 0 && tcp.tcpi_data_segs_out == 0)
		http_say(connection, "400 Bad Request", "the first line is not that of an HTTP request",
				 "It is like POST /path HTTP/1.1.");
}

static void
http_connection(void *cls, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode code)
{
	HttpServer	   *server = cls;
	HttpConnection *connection = *context;

	if (code == MHD_CONNECTION_NOTIFY_STARTED)
	{
		connection = calloc(1, sizeof(HttpConnection));
		*context = connection;
		if (connection == NULL)
			return;
		connection->mhd = mhd;
		connection->fresh = true;
		connection->deadline = GetCurrentTimestamp() + server->header_timeout;
		dlist_push_tail(&server->connections, &connection->node);
		server->nconnections++;
	}
	else if (connection != NULL)
	{
		http_hung_up(server, connection);
		dlist_delete(&connection->node);
		server->nconnections--;
		streamext_http_forget(connection);
		free(connection);
		*context = NULL;
	}
	pg_atomic_write_u64(&server->gateway->slot->connections, server->nconnections);
}

static bool
http_is_late(const HttpServer *server, const HttpConnection *connection, TimestampTz now)
{
	const HttpRequest *request = connection->request;

	if (request != NULL && request->phase == HTTP_ANSWERED)
		return request->listener == NULL && now > connection->deadline;
	if (request != NULL && request->phase != HTTP_BODY && request->phase != HTTP_REFUSED)
		return false;
	if (request != NULL && now > request->began + server->header_timeout * HTTP_SLOW_BODIES)
		return true;
	return now > connection->deadline;
}

static void
http_look(HttpServer *server, TimestampTz now)
{
	dlist_iter iter;

	if (now < server->next_look)
		return;
	server->next_look = now + HTTP_LOOK_MS * 1000;
	dlist_foreach (iter, &server->connections)
	{
		HttpConnection *connection = dlist_container(HttpConnection, node, iter.cur);

		if (http_is_late(server, connection, now))
			http_expire(connection);
	}
}

/* ---- the daemon ---- */

/* malloc'd; NULL: *error says why. */
static char *
http_read_file(const char *path, char *error, Size size)
{
	FILE  *file = AllocateFile(path, PG_BINARY_R);
	char  *text = malloc(HTTP_FILE_MAX + 1);
	size_t n = 0;

	if (file != NULL && text != NULL)
		n = fread(text, 1, HTTP_FILE_MAX, file);
	if (file == NULL || text == NULL || ferror(file) || n == 0)
	{
		snprintf(error, size, "could not read \"%s\": %s", path,
				 n == 0 && errno == 0 ? "it is empty" : strerror(errno));
		free(text);
		text = NULL;
	}
	else
		text[n] = '\0';
	if (file != NULL)
		FreeFile(file);
	return text;
}

static bool
http_read_certificate(HttpServer *server, List *options, char *error, Size size)
{
	const char *certificate = streamext_option(options, "ssl_certificate_location");
	const char *key = streamext_option(options, "ssl_key_location");

	if (certificate == NULL || key == NULL)
		return true;
	errno = 0;
	server->certificate = http_read_file(certificate, error, size);
	if (server->certificate != NULL)
		server->key = http_read_file(key, error, size);
	return server->certificate != NULL && server->key != NULL;
}

/* When the certificate ends; 0: there is none, or it does not say. */
static time_t
http_certificate_end(const HttpServer *server)
{
	gnutls_datum_t	  text = { (unsigned char *) server->certificate, 0 };
	gnutls_x509_crt_t certificate;
	time_t			  end = 0;

	if (server->certificate == NULL || gnutls_x509_crt_init(&certificate) != GNUTLS_E_SUCCESS)
		return 0;
	text.size = strlen(server->certificate);
	if (gnutls_x509_crt_import(certificate, &text, GNUTLS_X509_FMT_PEM) == GNUTLS_E_SUCCESS)
		end = gnutls_x509_crt_get_expiration_time(certificate);
	gnutls_x509_crt_deinit(certificate);
	return end > 0 ? end : 0;
}

/* Clients refuse it, and the gateway sees no more of that than connections that end. */
static void
http_look_at_certificate(HttpServer *server)
{
	time_t end = server->certificate_end;
	char   at[32] = "";

	if (end == 0 || end > time(NULL))
		return;
	server->certificate_end = 0;
	(void) strftime(at, sizeof(at), "%Y-%m-%d %H:%M:%S UTC", gmtime(&end));
	streamext_gateway_error(server->gateway, "the certificate has expired at %s", at);
	ereport(LOG, (errmsg("gateway of server %s: the certificate has expired at %s",
						 streamext_server_label(server->gateway->serverid), at),
				  errhint("Replace the file of the option ssl_certificate_location and reload the server.")));
}

static void
http_free(HttpServer *server)
{
	if (server->key != NULL)
		explicit_bzero(server->key, strlen(server->key));
	free(server->certificate);
	free(server->key);
	free(server->rates);
	free(server);
}

static void
http_read_options(HttpServer *server, List *options)
{
	const OptionSpec *table = streamext_http_options;

	server->max_body = streamext_http_max_body(options);
	server->header_timeout = streamext_option_number(table, PLACE_SERVER, options, "header_timeout");
	server->wait_timeout = streamext_option_number(table, PLACE_SERVER, options, "wait_timeout");
	server->rate_limit = streamext_option_number(table, PLACE_SERVER, options, "rate_limit");
}

/* What the daemon was started with. */
static void
http_fixed_options(List *options, char text[HTTP_FIXED])
{
	static const char *const names[] = { "ssl_certificate_location", "ssl_key_location", "max_connections",
										 "max_connections_per_address" };

	text[0] = '\0';
	for (int i = 0; i < lengthof(names); i++)
	{
		const char *value = streamext_option(options, names[i]);

		snprintf(text + strlen(text), HTTP_FIXED - strlen(text), "%s\n", value != NULL ? value : "");
	}
}

static bool
http_options(Gateway *gateway)
{
	HttpServer *server = gateway->own;
	char		fixed[HTTP_FIXED];

	http_fixed_options(gateway->options, fixed);
	if (strcmp(fixed, server->fixed) != 0)
		return false;
	http_read_options(server, gateway->options);
	streamext_http_events_check(server);
	return true;
}

static struct MHD_Daemon *
http_daemon(HttpServer *server, List *options)
{
	const OptionSpec	 *table = streamext_http_options;
	bool				  tls = server->certificate != NULL;
	unsigned			  flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | (tls ? MHD_USE_TLS : MHD_USE_TURBO);
	struct MHD_OptionItem items[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, server->certificate },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, server->key },
		{ MHD_OPTION_END, 0, NULL },
	};

	if (!tls)
		items[0].option = MHD_OPTION_END;
	return MHD_start_daemon(
		flags, 0, NULL, NULL, streamext_http_handle, server, MHD_OPTION_LISTEN_SOCKET, server->gateway->listen_fd,
		MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) HTTP_CONNECTION_MEMORY,
		MHD_OPTION_CONNECTION_LIMIT,
		(unsigned) streamext_option_number(table, PLACE_SERVER, options, "max_connections"),
		MHD_OPTION_PER_IP_CONNECTION_LIMIT,
		(unsigned) streamext_option_number(table, PLACE_SERVER, options, "max_connections_per_address"),
		MHD_OPTION_UNESCAPE_CALLBACK, streamext_http_unescape, NULL, MHD_OPTION_NOTIFY_CONNECTION, http_connection,
		server, MHD_OPTION_NOTIFY_COMPLETED, streamext_http_completed, server, MHD_OPTION_ARRAY, items, MHD_OPTION_END);
}

/* The daemon takes a copy of the descriptor with it when it stops. */
static bool
http_start(Gateway *gateway, GatewayState *state, char *error, Size size)
{
	HttpServer				   *server = calloc(1, sizeof(HttpServer));
	const union MHD_DaemonInfo *info;

	if (server == NULL)
	{
		strlcpy(error, "out of memory", size);
		return false;
	}
	streamext_http_own_begin();
	server->gateway = gateway;
	dlist_init(&server->connections);
	dlist_init(&server->waiting);
	dlist_init(&server->reads);
	dlist_init(&server->listeners);
	http_read_options(server, gateway->options);
	http_fixed_options(gateway->options, server->fixed);
	*state = GATEWAY_CERTIFICATE_UNREADABLE;
	if (!http_read_certificate(server, gateway->options, error, size))
	{
		http_free(server);
		return false;
	}
	server->daemon = http_daemon(server, gateway->options);
	if (server->daemon == NULL)
	{
		*state = server->certificate != NULL ? GATEWAY_CERTIFICATE_UNREADABLE : GATEWAY_FAILED;
		strlcpy(error,
				server->certificate != NULL ? "the files of the certificate and its key are not what TLS can use"
											: "could not start the HTTP server",
				size);
		http_free(server);
		return false;
	}
	info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	server->epoll_fd = info->epoll_fd;
	server->certificate_end = http_certificate_end(server);
	gateway->own = server;
	return true;
}

static void
http_stop(Gateway *gateway)
{
	HttpServer *server = gateway->own;
	dlist_iter	iter;
	int			fd = dup(gateway->listen_fd);

	/* the library wants nobody suspended when it stops; what was submitted has been told of */
	streamext_http_events_stop(server);
	dlist_foreach (iter, &server->connections)
	{
		HttpConnection *connection = dlist_container(HttpConnection, node, iter.cur);

		HttpRequest *request = connection->request;

		if (request == NULL || (request->phase != HTTP_WAITING && request->phase != HTTP_READING))
			continue;
		if (request->phase == HTTP_READING)
			streamext_http_get_end(request);
		else
			dlist_delete(&request->node);
		request->phase = HTTP_OUTCOME;
		streamext_http_resume(request);
	}
	server->stops = true; /* and nobody may be suspended by what comes in this run */
	MHD_run(server->daemon);
	MHD_stop_daemon(server->daemon);
	http_free(server);
	gateway->listen_fd = fd; /* it has closed the other one */
}

static int
http_wait_fd(Gateway *gateway)
{
	return ((HttpServer *) gateway->own)->epoll_fd;
}

static long
http_timeout(Gateway *gateway)
{
	HttpServer			  *server = gateway->own;
	MHD_UNSIGNED_LONG_LONG library;
	long				   timeout = server->nconnections > 0 ? HTTP_LOOK_MS : -1;

	if (server->done)
		return 0;
	if (!dlist_is_empty(&server->waiting))
		timeout = 2;
	if (MHD_get_timeout(server->daemon, &library) == MHD_YES && (timeout < 0 || (long) library < timeout))
		timeout = (long) library;
	return timeout;
}

static void
http_run(Gateway *gateway)
{
	HttpServer *server = gateway->own;

	server->done = false;
	streamext_http_events_poll();
	(void) MHD_run(server->daemon);
	if (server->nconnections > 0)
	{
		TimestampTz now = GetCurrentTimestamp();

		http_look(server, now);
		http_look_at_certificate(server);
		if (!dlist_is_empty(&server->waiting))
			streamext_http_post_look(server, now);
		if (!dlist_is_empty(&server->reads))
			streamext_http_get_look(server);
		if (!dlist_is_empty(&server->listeners))
			streamext_http_events_look(server, now);
	}
}

/* Files of the certificate may be others. What is wrong with them leaves the present ones at work. */
static bool
http_reload(Gateway *gateway)
{
	HttpServer *server = gateway->own;
	HttpServer	files = { 0 };
	char		error[STREAMEXT_MAX_MESSAGE] = "";
	bool		changed;

	if (server->certificate == NULL)
		return false;
	if (!http_read_certificate(&files, gateway->options, error, sizeof(error)))
	{
		streamext_gateway_error(gateway, "%s", error);
		free(files.certificate);
		return false;
	}
	changed = strcmp(files.certificate, server->certificate) != 0 || strcmp(files.key, server->key) != 0;
	free(files.certificate);
	explicit_bzero(files.key, strlen(files.key));
	free(files.key);
	return changed;
}

const GatewayOps streamext_http_gateway = {
	.name = "http",
	.key = http_key,
	.start = http_start,
	.stop = http_stop,
	.wait_fd = http_wait_fd,
	.timeout = http_timeout,
	.run = http_run,
	.options = http_options,
	.reload = http_reload,
};
