/*
 * gateway/http_get.c
 *		GET /views/SCHEMA.NAME: rows of a view for a role with SELECT, and GET /metrics: what a role may see of streamext.metrics; read by a
 *		process of its own (gateway/reader.c).
 */
#include "base/streamext.h"

#include "mb/pg_wchar.h"

#include "gateway/http_private.h"

typedef struct HttpMediaType
{
	const char *name;
	ReadFormat	format;
} HttpMediaType;

/* The weight of one element of Accept, whose media type it leaves in `element`. */
static double
http_weight(char *element)
{
	char  *parameter = strchr(element, ';');
	double weight = 1;

	element[strcspn(element, "; \t")] = '\0';
	while (parameter != NULL)
	{
		parameter += 1 + strspn(parameter + 1, " \t");
		if (pg_strncasecmp(parameter, "q=", 2) == 0)
			weight = strtod(parameter + 2, NULL);
		parameter = strchr(parameter, ';');
	}
	return weight;
}

/* The format of the media type that the request likes best, of several as good the one that it names first; that of types[0] if it names none. */
static ReadFormat
http_choose(HttpRequest *request, const HttpMediaType *types, int ntypes)
{
	const char *accept = streamext_http_header(request, "Accept");
	char	   *copy = pstrdup(accept != NULL ? accept : "");
	char	   *rest = NULL;
	double		best = 0;
	ReadFormat	format = types[0].format;

	for (char *element = strtok_r(copy, ",", &rest); element != NULL; element = strtok_r(NULL, ",", &rest))
	{
		double weight;

		element += strspn(element, " \t");
		weight = http_weight(element);
		for (int i = 0; i < ntypes && weight > best; i++)
			if (pg_strcasecmp(element, types[i].name) == 0)
			{
				best = weight;
				format = types[i].format;
			}
	}
	pfree(copy);
	return format;
}

static ReadFormat
http_format(HttpRequest *request)
{
	static const HttpMediaType types[] = {
		{ "application/json", READ_JSON },		 { "application/*", READ_JSON },		{ "*/*", READ_JSON },
		{ "application/x-ndjson", READ_NDJSON }, { "application/ndjson", READ_NDJSON }, { "text/csv", READ_CSV }
	};

	return http_choose(request, types, lengthof(types));
}

typedef struct HttpFilters
{
	StringInfo names;
	int64	   limit;
	bool	   bad; /* the limit is no number */
	bool	   garbled;
} HttpFilters;

static bool
http_is_utf8(const char *text)
{
	return pg_encoding_verifymbstr(PG_UTF8, text, strlen(text)) == (int) strlen(text);
}

static enum MHD_Result
http_filter(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	HttpFilters *filters = cls;

	if (value == NULL)
		value = "";
	filters->garbled |= !http_is_utf8(name) || !http_is_utf8(value);
	if (strcmp(name, "limit") == 0)
	{
		filters->bad = value[0] == '\0' || strlen(value) > 18 || strspn(value, "0123456789") != strlen(value);
		filters->limit = filters->bad ? -1 : strtoll(value, NULL, 10);
		return MHD_YES;
	}
	appendBinaryStringInfo(filters->names, name, strlen(name) + 1);
	appendBinaryStringInfo(filters->names, value, strlen(value) + 1);
	return MHD_YES;
}

/* A role that reads already leaves the last place to others: a view that it has locked, or made slow, must not keep monitoring from being answered. */
static bool
http_get_has_room(HttpServer *server, Oid role)
{
	bool	   reads = false;
	dlist_iter iter;

	dlist_foreach (iter, &server->reads)
		reads = reads || dlist_container(HttpRequest, node, iter.cur)->role == role;
	return server->nreads < STREAMEXT_READERS - (reads ? 1 : 0);
}

/* A process reads for the request, which waits. */
static enum MHD_Result
http_get_start(HttpRequest *request, ReadFormat format, int64 limit, const char *names, Size size)
{
	HttpServer *server = request->server;

	request->format = format;
	if (http_get_has_room(server, request->role))
		request->read = streamext_gateway_read(request->role, format, limit, names, size);
	if (request->read == NULL)
		return streamext_http_refuse(
			request, MHD_HTTP_SERVICE_UNAVAILABLE, true, -1, "no process is free to read the view",
			"A server's gateway reads %d at once, and of one role %d; each is one of max_worker_processes.",
			STREAMEXT_READERS, STREAMEXT_READERS - 1);
	server->nreads++;
	dlist_push_tail(&server->reads, &request->node);
	request->phase = HTTP_READING;
	streamext_http_suspend(request);
	return MHD_YES;
}

enum MHD_Result
streamext_http_metrics_begin(HttpRequest *request)
{
	static const HttpMediaType types[] = { { "text/plain", READ_METRICS },
										   { "text/*", READ_METRICS },
										   { "*/*", READ_METRICS },
										   { "application/openmetrics-text", READ_OPENMETRICS } };

	return http_get_start(request, http_choose(request, types, lengthof(types)), -1, "", 1);
}

static enum MHD_Result
http_refuse_garbled(HttpRequest *request)
{
	return streamext_http_refuse(request, MHD_HTTP_BAD_REQUEST, true, -1, "the path or an argument is not valid UTF-8",
								 "Names and values are UTF-8, its bytes as %%XX.");
}

enum MHD_Result
streamext_http_get_begin(HttpRequest *request)
{
	const char	  *schema = request->path + strlen("/views/");
	const char	  *dot = strchr(schema, '.');
	StringInfoData names;
	const char	  *slash = dot != NULL ? strrchr(dot, '/') : NULL;
	HttpFilters	   filters = { &names, -1, false, false };

	if (!http_is_utf8(request->path))
		return http_refuse_garbled(request);
	if (slash != NULL && strcmp(slash, "/changes") == 0 && slash > dot + 1 && dot > schema)
		return streamext_http_events_begin(request, pnstrdup(schema, dot - schema), pnstrdup(dot + 1, slash - dot - 1));
	if (dot == NULL || dot == schema || dot[1] == '\0')
		return streamext_http_refuse(request, MHD_HTTP_NOT_FOUND, true, -1, "there is no view at this path",
									 "A view's path is /views/SCHEMA.NAME.");
	initStringInfo(&names);
	appendBinaryStringInfo(&names, schema, dot - schema);
	appendStringInfoChar(&names, '\0');
	appendBinaryStringInfo(&names, dot + 1, strlen(dot + 1) + 1);
	(void) MHD_get_connection_values(request->mhd, MHD_GET_ARGUMENT_KIND, http_filter, &filters);
	if (filters.garbled)
		return http_refuse_garbled(request);
	if (filters.bad)
		return streamext_http_refuse(request, MHD_HTTP_BAD_REQUEST, true, -1, "limit is no whole number",
									 "It counts rows.");
	return http_get_start(request, http_format(request), filters.limit, names.data, names.len);
}

void
streamext_http_get_look(HttpServer *server)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &server->reads)
	{
		HttpRequest *request = dlist_container(HttpRequest, node, iter.cur);

		if (!streamext_gateway_read_poll(request->read))
			continue;
		streamext_http_get_end(request);
		streamext_http_resume(request);
	}
}

void
streamext_http_get_end(HttpRequest *request)
{
	dlist_delete(&request->node);
	request->server->nreads--;
	request->phase = HTTP_OUTCOME;
}

enum MHD_Result
streamext_http_get_answer(HttpRequest *request)
{
	static const char *const types[] = {
		[READ_JSON] = "application/json",
		[READ_NDJSON] = "application/x-ndjson",
		[READ_CSV] = "text/csv; charset=utf-8; header=present",
		[READ_METRICS] = "text/plain; version=0.0.4; charset=utf-8",
		[READ_OPENMETRICS] = "application/openmetrics-text; version=1.0.0; charset=utf-8",
	};
	GatewayRead			*read = request->read;
	struct MHD_Response *response;

	if (read->status != MHD_HTTP_OK)
		return streamext_http_refuse(request, read->status != 0 ? read->status : MHD_HTTP_SERVICE_UNAVAILABLE, false,
									 -1, read->status != 0 ? read->body.data : "the gateway is being restarted",
									 "GET /views/SCHEMA.NAME?column=value&limit=n, by a role with SELECT on the view.");
	if (request->server->bodies + read->body.len > HTTP_BODIES)
		return streamext_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, false, -1,
									 "the gateway has no room for the answer", "Ask again later, or for fewer rows.");
	response = MHD_create_response_from_buffer(read->body.len, read->body.data, MHD_RESPMEM_MUST_COPY);
	if (response != NULL)
		(void) MHD_add_response_header(response, "Content-Type", types[request->format]);
	request->answer = read->body.len;
	request->server->bodies += request->answer;
	streamext_gateway_read_end(read);
	request->read = NULL;
	return streamext_http_queue(request, MHD_HTTP_OK, response);
}
