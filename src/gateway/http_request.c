/*
 * gateway/http_request.c
 *		A request, from its headers to its answer: what is no clear request is refused at once, who asks is found out, and what is asked for.
 */
#include "base/streamext.h"

#include "common/base64.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "gateway/http_private.h"

/* Paths that are read: the gateway's own. */
static bool
http_is_read(const char *path)
{
	return strncmp(path, "/views/", 7) == 0 || strcmp(path, "/metrics") == 0 || strcmp(path, "/healthz") == 0 ||
		   strcmp(path, "/") == 0;
}

/* ---- answers ---- */

enum MHD_Result
streamext_http_queue(HttpRequest *request, unsigned status, struct MHD_Response *response)
{
	enum MHD_Result result;

	if (response == NULL)
		return MHD_NO;
	if (status == MHD_HTTP_UNAUTHORIZED)
		(void) MHD_add_response_header(response, "WWW-Authenticate",
									   "Bearer realm=\"streamext\", Basic realm=\"streamext\"");
	if (status == MHD_HTTP_TOO_MANY_REQUESTS || status == MHD_HTTP_SERVICE_UNAVAILABLE)
		(void) MHD_add_response_header(response, "Retry-After", status == MHD_HTTP_SERVICE_UNAVAILABLE ? "5" : "1");

	/* this library takes chunks whose lines end in LF alone: what follows them may be another's idea of a request */
	if (request->body.chunked)
		(void) MHD_add_response_header(response, "Connection", "close");
	result = MHD_queue_response(request->mhd, status, response);
	MHD_destroy_response(response);
	request->phase = HTTP_ANSWERED;
	request->connection->deadline =
		GetCurrentTimestamp() + request->server->header_timeout * HTTP_SLOW_BODIES; /* for who does not read it */
	return result;
}

void
streamext_http_error_json(StringInfo json, const char *error, const char *hint, int64 record)
{
	appendStringInfoString(json, "{\"error\":");
	escape_json(json, error);
	appendStringInfoString(json, ",\"hint\":");
	escape_json(json, hint);
	if (record >= 0)
		appendStringInfo(json, ",\"record\":" INT64_FORMAT, record);
	else
		appendStringInfoString(json, ",\"record\":null");
	appendStringInfoString(json, "}\n");
}

/* Whether a body follows that is better received before it is refused. */
static bool
http_is_unwanted(HttpRequest *request)
{
	const char *length = request->begins ? streamext_http_header(request, "Content-Length") : NULL;

	return length != NULL && !request->body.chunked && streamext_http_header(request, "Expect") == NULL &&
		   strlen(length) <= HTTP_LENGTH_DIGITS && strtoll(length, NULL, 10) > 0 &&
		   strtoll(length, NULL, 10) <= HTTP_UNWANTED;
}

enum MHD_Result
streamext_http_refuse(HttpRequest *request, unsigned status, bool close, int64 record, const char *error,
					  const char *hint, ...)
{
	StringInfoData		 json;
	struct MHD_Response *response;
	char				 text[512];
	va_list				 args;

	va_start(args, hint);
	vsnprintf(text, sizeof(text), hint, args);
	va_end(args);
	initStringInfo(&json);
	streamext_http_error_json(&json, error, text, record);
	response = MHD_create_response_from_buffer(json.len, json.data, MHD_RESPMEM_MUST_COPY);
	if (response != NULL)
	{
		(void) MHD_add_response_header(response, "Content-Type", "application/json");
		if (close)
			(void) MHD_add_response_header(response, "Connection", "close");
		if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
			(void) MHD_add_response_header(response, "Allow", http_is_read(request->path) ? "GET" : "POST");
	}
	if (response == NULL || !http_is_unwanted(request))
		return streamext_http_queue(request, status, response);
	request->refusal.response = response;
	request->refusal.status = status;
	request->phase = HTTP_REFUSED;
	return MHD_YES;
}

enum MHD_Result
streamext_http_answer(HttpRequest *request, unsigned status)
{
	return streamext_http_queue(request, status, MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT));
}

/* ---- headers ---- */

const char *
streamext_http_header(HttpRequest *request, const char *name)
{
	return MHD_lookup_connection_value(request->mhd, MHD_HEADER_KIND, name);
}

const char *
streamext_http_argument(HttpRequest *request, const char *name)
{
	return MHD_lookup_connection_value(request->mhd, MHD_GET_ARGUMENT_KIND, name);
}

/* ---- who asks ---- */

/* Basic credentials: name and secret. False: they are none. */
static bool
http_basic(const char *coded, char **name, char **secret)
{
	int	  size = strlen(coded);
	char *plain = palloc(pg_b64_dec_len(size) + 1);
	char *colon;
#if PG_VERSION_NUM >= 180000
	int n = pg_b64_decode(coded, size, (uint8 *) plain, pg_b64_dec_len(size));
#else
	int n = pg_b64_decode(coded, size, plain, pg_b64_dec_len(size));
#endif

	if (n < 0)
		return false;
	plain[n] = '\0';
	colon = strchr(plain, ':');
	if (colon == NULL)
		return false;
	*colon = '\0';
	*name = plain;
	*secret = colon + 1;
	return true;
}

static Oid
http_authenticate(HttpRequest *request, const char *header)
{
	Gateway *gateway = request->server->gateway;
	char	*name, *secret;
	Oid		 role = InvalidOid;

	if (pg_strncasecmp(header, "Bearer ", 7) == 0)
		return streamext_gateway_authenticate(gateway, NULL, header + 7, strlen(header + 7), request->digest);
	if (pg_strncasecmp(header, "Basic ", 6) == 0 && http_basic(header + 6, &name, &secret))
	{
		role = streamext_gateway_authenticate(gateway, name, secret, strlen(secret), request->digest);
		explicit_bzero(secret, strlen(secret));
	}
	return role;
}

/* A role may have as many requests at once as it may have in a second. */
static bool
http_within_rate(HttpServer *server, Oid role)
{
	TimestampTz now = GetCurrentTimestamp();
	HttpRate   *rate = NULL;

	if (server->rate_limit == 0)
		return true;
	for (int i = 0; i < server->nrates && rate == NULL; i++)
		if (server->rates[i].role == role)
			rate = &server->rates[i];
	if (rate == NULL)
	{
		HttpRate *larger = realloc(server->rates, sizeof(HttpRate) * (server->nrates + 1));

		if (larger == NULL)
			return false;
		server->rates = larger;
		rate = &larger[server->nrates++];
		*rate = (HttpRate){ role, server->rate_limit, now };
	}
	rate->tokens += (double) Max(now - rate->at, 0) / USECS_PER_SEC * server->rate_limit;
	rate->tokens = Min(rate->tokens, server->rate_limit);
	rate->at = now;
	if (rate->tokens < 1)
		return false;
	rate->tokens -= 1;
	return true;
}

void
streamext_http_forget(HttpConnection *connection)
{
	if (connection->shown != NULL)
		explicit_bzero(connection->shown, connection->shown_size);
	free(connection->shown);
	connection->shown = NULL;
}

static void
http_remember(HttpRequest *request, const char *header, Oid role)
{
	HttpConnection *connection = request->connection;

	streamext_http_forget(connection);
	connection->shown = strdup(header);
	connection->shown_size = strlen(header);
	connection->version = request->server->gateway->version;
	connection->role = role;
	memcpy(connection->digest, request->digest, sizeof(connection->digest));
}

/* Senders show the same on a connection again and again. */
static Oid
http_known(HttpRequest *request, const char *header)
{
	const HttpConnection *connection = request->connection;

	if (connection->shown == NULL || connection->version != request->server->gateway->version ||
		connection->shown_size != strlen(header) ||
		!streamext_gateway_same(connection->shown, header, connection->shown_size))
		return InvalidOid;
	memcpy(request->digest, connection->digest, sizeof(request->digest));
	return connection->role;
}

static Oid
http_shown(HttpRequest *request, const char *header)
{
	Oid role = http_known(request, header);

	if (OidIsValid(role))
		return role;
	role = http_authenticate(request, header);
	if (OidIsValid(role))
		http_remember(request, header, role);
	return role;
}

Oid
streamext_http_role(HttpRequest *request, enum MHD_Result *result)
{
	const char *header = streamext_http_header(request, "Authorization");
	Oid			role = header != NULL ? http_shown(request, header) : request->server->gateway->anonymous;

	if (!OidIsValid(role))
		*result = streamext_http_refuse(request, MHD_HTTP_UNAUTHORIZED, true, -1,
										header != NULL ? "the credentials are not those of any role"
													   : "credentials are required",
										"Send Authorization: Bearer and the token of a user mapping of the server.");
	return role;
}

/* ---- a request ---- */

static HttpRequest *
http_new_request(HttpServer *server, struct MHD_Connection *mhd, const char *url)
{
	HttpRequest					   *request = calloc(1, sizeof(HttpRequest));
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	if (request == NULL || info == NULL || info->socket_context == NULL || (request->path = strdup(url)) == NULL)
	{
		free(request);
		return NULL;
	}
	request->server = server;
	request->mhd = mhd;
	request->connection = info->socket_context;
	request->connection->request = request;
	request->connection->fresh = false;
	request->began = GetCurrentTimestamp();
	request->connection->deadline = request->began + server->header_timeout;
	return request;
}

static enum MHD_Result
http_refuse_stopping(HttpRequest *request)
{
	return streamext_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, true, -1, "the gateway is being restarted",
								 "Send the request again.");
}

static enum MHD_Result
http_begin(HttpRequest *request, const char *method, const char *version)
{
	Gateway		   *gateway = request->server->gateway;
	GatewayStream  *stream;
	const char	   *unclear = streamext_http_unclear(request, method, version);
	enum MHD_Result result = MHD_YES;
	bool			get;

	if (unclear != NULL)
		request->begins = false; /* how long the body is nobody can say */
	if (unclear != NULL)
		return streamext_http_refuse(
			request, MHD_HTTP_BAD_REQUEST, true, -1, unclear,
			"HTTP/1.1 with one Host, and one of Content-Length and Transfer-Encoding: chunked.");
	get = strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
	if (get && streamext_http_page(request, &result))
		return result;
	request->role = streamext_http_role(request, &result);
	if (!OidIsValid(request->role))
		return result;
	if (request->server->stops)
		return http_refuse_stopping(request);
	if (!http_within_rate(request->server, request->role))
		return streamext_http_refuse(request, MHD_HTTP_TOO_MANY_REQUESTS, true, -1, "too many requests",
									 "The server's option rate_limit allows a role %d in a second.",
									 request->server->rate_limit);
	if (http_is_read(request->path))
	{
		if (get)
			return strcmp(request->path, "/metrics") == 0 ? streamext_http_metrics_begin(request)
														  : streamext_http_get_begin(request);
		return streamext_http_refuse(request, MHD_HTTP_METHOD_NOT_ALLOWED, true, -1, "this path takes GET alone",
									 "Records are POSTed to the path of a stream.");
	}
	stream = streamext_gateway_stream_named(gateway, request->path);
	if (stream == NULL)
		return streamext_http_refuse(request, MHD_HTTP_NOT_FOUND, true, -1, "there is no stream at this path",
									 "A stream's path is its option path, else / and its name with the schema.");
	if (strcmp(method, MHD_HTTP_METHOD_POST) != 0)
		return streamext_http_refuse(request, MHD_HTTP_METHOD_NOT_ALLOWED, true, -1, "a stream takes POST alone",
									 "Read views by GET /views/SCHEMA.NAME.");
	request->relid = stream->config->relid;
	if (!streamext_gateway_allows(gateway, request->role, request->relid, ACL_INSERT))
		return streamext_http_refuse(request, MHD_HTTP_FORBIDDEN, true, -1, "permission denied for the stream",
									 "The role needs INSERT on the foreign table.");
	request->version = gateway->version;
	return streamext_http_post_begin(request);
}

/* What comes of the body. */
static void
http_receive(HttpRequest *request, const char *data, size_t size)
{
	HttpServer *server = request->server;

	request->connection->deadline = GetCurrentTimestamp() + server->header_timeout;
	if (request->body.size + size > server->max_body)
		request->body.large = true;
	if (request->body.large || request->body.full)
		return;
	if (request->body.size + size > request->body.capacity)
	{
		Size  capacity = Max(request->body.size + size, Min(request->body.capacity * 2, server->max_body));
		char *larger;

		capacity = Max(capacity, 1024);
		larger = server->bodies + (int64) (capacity - request->body.capacity) > HTTP_BODIES
					 ? NULL
					 : realloc(request->body.bytes, capacity);
		if (larger == NULL)
		{
			request->body.full = true;
			return;
		}
		server->bodies += capacity - request->body.capacity;
		request->body.bytes = larger;
		request->body.capacity = capacity;
	}
	memcpy(request->body.bytes + request->body.size, data, size);
	request->body.size += size;
}

enum MHD_Result
streamext_http_handle(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
					  const char *data, size_t *size, void **con_cls)
{
	HttpRequest			*request = *con_cls;
	struct MHD_Response *response;

	if (request == NULL)
	{
		enum MHD_Result result = MHD_NO;

		request = *con_cls = http_new_request(cls, mhd, url);
		if (request == NULL)
			return MHD_NO;
		request->begins = true;
		result = http_begin(request, method, version);
		request->begins = false;
		return result;
	}
	if (*size > 0)
	{
		if (request->phase != HTTP_REFUSED)
			http_receive(request, data, *size);
		else
			request->connection->deadline = GetCurrentTimestamp() + request->server->header_timeout;
		*size = 0;
		return MHD_YES;
	}
	switch (request->phase)
	{
		case HTTP_BODY:
			return request->server->stops ? http_refuse_stopping(request) : streamext_http_post_end(request);
		case HTTP_REFUSED:
			response = request->refusal.response;
			request->refusal.response = NULL;
			return streamext_http_queue(request, request->refusal.status, response);
		case HTTP_OUTCOME:
			if (request->listener != NULL)
				return streamext_http_events_answer(request);
			return request->read != NULL ? streamext_http_get_answer(request) : streamext_http_post_answer(request);
		default:
			return MHD_YES;
	}
}

void
streamext_http_free(HttpRequest *request)
{
	if (request->refusal.response != NULL)
		MHD_destroy_response(request->refusal.response);
	request->server->bodies -= request->body.capacity + request->answer;
	free(request->body.bytes);
	free(request->block);
	free(request->common);
	free(request->path);
	free(request);
}

void
streamext_http_completed(void *cls, struct MHD_Connection *mhd, void **con_cls, enum MHD_RequestTerminationCode code)
{
	HttpServer	*server = cls;
	HttpRequest *request = *con_cls;

	if (request == NULL)
		return;
	*con_cls = NULL;
	if (request->phase == HTTP_WAITING)
		dlist_delete(&request->node);
	if (request->phase == HTTP_READING)
		streamext_http_get_end(request);
	if (request->read != NULL)
		streamext_gateway_read_end(request->read);
	if (request->listener != NULL)
		streamext_http_events_end(request);
	request->connection->request = NULL;
	request->connection->deadline = GetCurrentTimestamp() + Max(server->header_timeout, 60 * USECS_PER_SEC);
	if (request->phase == HTTP_SUBMITTED)
		request->abandoned = true;
	else
		streamext_http_free(request);
}
