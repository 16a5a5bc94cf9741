/*
 * gateway/http_answer.c
 *		A request's answer: what is refused and why, and what all answers have. What the functions promise is in gateway/http_private.h.
 */
#include "base/streamext.h"

#include "utils/json.h"
#include "utils/timestamp.h"

#include "gateway/http_private.h"

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
			(void) MHD_add_response_header(response, "Allow", streamext_http_is_read(request->path) ? "GET" : "POST");
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
