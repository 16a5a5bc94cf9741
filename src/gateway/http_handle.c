/*
 * gateway/http_handle.c
 *		What libmicrohttpd calls for a request: what is no clear request is refused at once, who asks is found out, and what is asked for gets it.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "gateway/http_private.h"

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
	if (!streamext_http_within_rate(request->server, request->role))
		return streamext_http_refuse(request, MHD_HTTP_TOO_MANY_REQUESTS, true, -1, "too many requests",
									 "The server's option rate_limit allows a role %d in a second.",
									 request->server->rate_limit);
	if (streamext_http_is_read(request->path))
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

enum MHD_Result
streamext_http_handle(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
					  const char *data, size_t *size, void **con_cls)
{
	HttpRequest			*request = *con_cls;
	struct MHD_Response *response;

	if (request == NULL)
	{
		enum MHD_Result result = MHD_NO;

		request = *con_cls = streamext_http_new(cls, mhd, url);
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
			streamext_http_receive(request, data, *size);
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
