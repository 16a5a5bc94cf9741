/*
 * gateway/http_request.c
 *		A request: its path and headers, its body as it comes in, its waiting and its end. What the functions promise is in gateway/http_private.h.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "gateway/http_private.h"

bool
streamext_http_is_read(const char *path)
{
	return strncmp(path, "/views/", 7) == 0 || strcmp(path, "/metrics") == 0 || strcmp(path, "/healthz") == 0 ||
		   strcmp(path, "/") == 0;
}

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

HttpRequest *
streamext_http_new(HttpServer *server, struct MHD_Connection *mhd, const char *url)
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

void
streamext_http_receive(HttpRequest *request, const char *data, size_t size)
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

void
streamext_http_drop_body(HttpRequest *request)
{
	request->server->bodies -= request->body.capacity;
	free(request->body.bytes);
	request->body.bytes = NULL;
	request->body.size = request->body.capacity = 0;
}

void
streamext_http_drop_block(HttpRequest *request)
{
	request->server->bodies -= request->body.held;
	request->body.held = 0;
	free(request->block);
	free(request->common);
	request->block = request->common = NULL;
}

void
streamext_http_free(HttpRequest *request)
{
	if (request->refusal.response != NULL)
		MHD_destroy_response(request->refusal.response);
	request->server->bodies -= request->answer;
	streamext_http_drop_body(request);
	streamext_http_drop_block(request);
	free(request->path);
	free(request);
}

void
streamext_http_suspend(HttpRequest *request)
{
	request->suspended = true;
	MHD_suspend_connection(request->mhd);
}

void
streamext_http_resume(HttpRequest *request)
{
	request->server->done = true;
	if (request->suspended)
		MHD_resume_connection(request->mhd);
	request->suspended = false;
}
