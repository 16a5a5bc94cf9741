/*
 * gateway/http_post.c
 *		What is POSTed to a stream: may it come, is it whole, who has signed it; then unpacked, cut into records and submitted, all of them or none.
 */
#include "base/streamext.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <time.h>

#include "decode/format.h"
#include "utils/timestamp.h"

#include "base/option.h"
#include "gateway/cut.h"
#include "gateway/http_private.h"
#include "gateway/unpack.h"
#include "source/http/http.h"

#define HTTP_KEY_MAX 255
#define HTTP_SIGNATURE_TOLERANCE 300 /* s */

/* ---- before the body ---- */

static bool
http_is_type(const char *type, const char *wanted)
{
	Size size = strlen(wanted);

	return pg_strncasecmp(type, wanted, size) == 0 && (type[size] == '\0' || type[size] == ';' || type[size] == ' ');
}

/* How the body is cut. False: the stream has no use for its type. */
static bool
http_cut_kind(HttpRequest *request, const GatewayStream *stream, CutKind *kind)
{
	const char *type = streamext_http_header(request, "Content-Type");
	const char *charset = type != NULL ? strcasestr(type, "charset=") : NULL;
	bool		lines = stream->config->format->lines;

	*kind = CUT_RAW;
	if (charset != NULL)
	{
		charset += strlen("charset=");
		charset += *charset == '"';
		if (pg_strncasecmp(charset, "utf-8", 5) != 0 && pg_strncasecmp(charset, "utf8", 4) != 0 &&
			pg_strncasecmp(charset, "us-ascii", 8) != 0)
			return false;
	}
	if (type == NULL)
		return true;
	if (http_is_type(type, "application/json"))
		*kind = CUT_JSON;
	else if (http_is_type(type, "application/x-ndjson") || http_is_type(type, "application/ndjson"))
		*kind = CUT_LINES;
	else if (http_is_type(type, "text/csv"))
	{
		*kind = CUT_CSV;
		return lines;
	}
	return *kind == CUT_RAW || !lines;
}

typedef enum HttpPacking
{
	HTTP_PLAIN,
	HTTP_GZIP,
	HTTP_ZSTD,
	HTTP_UNKNOWN
} HttpPacking;

static HttpPacking
http_packing(HttpRequest *request)
{
	const char *encoding = streamext_http_header(request, "Content-Encoding");

	if (encoding == NULL || pg_strcasecmp(encoding, "identity") == 0)
		return HTTP_PLAIN;
	if (pg_strcasecmp(encoding, "gzip") == 0 || pg_strcasecmp(encoding, "x-gzip") == 0)
		return HTTP_GZIP;
	return pg_strcasecmp(encoding, "zstd") == 0 ? HTTP_ZSTD : HTTP_UNKNOWN;
}

static enum MHD_Result
http_refuse_large(HttpRequest *request)
{
	return streamext_http_refuse(request, MHD_HTTP_CONTENT_TOO_LARGE, true, -1, "the body is too large",
								 "The server's option max_body allows " INT64_FORMAT " bytes, packed and unpacked.",
								 request->server->max_body);
}

static enum MHD_Result
http_refuse_full(HttpRequest *request)
{
	return streamext_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, true, -1,
								 "the gateway has no room for the body", "Send it again later.");
}

enum MHD_Result
streamext_http_post_begin(HttpRequest *request)
{
	const GatewayStream *stream = streamext_gateway_stream(request->server->gateway, request->relid);
	const char			*length = streamext_http_header(request, "Content-Length");
	const char			*wait = streamext_http_argument(request, "wait");
	const char			*key = streamext_http_header(request, "Idempotency-Key");
	CutKind				 kind;

	if (key != NULL && (key[0] == '\0' || strlen(key) > HTTP_KEY_MAX))
		return streamext_http_refuse(request, MHD_HTTP_BAD_REQUEST, true, -1,
									 "the Idempotency-Key is empty or too long", "It may have %d bytes.", HTTP_KEY_MAX);
	if (length != NULL && strtoll(length, NULL, 10) > request->server->max_body)
		return http_refuse_large(request);
	if (!http_cut_kind(request, stream, &kind))
		return streamext_http_refuse(
			request, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, true, -1, "the stream does not take this Content-Type",
			"application/json and application/x-ndjson, or with format csv text/csv; in UTF-8.");
	if (http_packing(request) == HTTP_UNKNOWN)
		return streamext_http_refuse(request, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, true, -1,
									 "the Content-Encoding is not known", "gzip and zstd are.");
	if (wait != NULL && strcmp(wait, "visible") != 0)
		return streamext_http_refuse(request, MHD_HTTP_BAD_REQUEST, true, -1, "wait is none of its values",
									 "wait=visible is answered when views show the records.");
	request->visible.wanted = wait != NULL;
	if (request->server->bodies > HTTP_BODIES)
		return http_refuse_full(request);
	return MHD_YES;
}

/* ---- signatures ---- */

static bool
http_hex_is(const char *text, const uint8 digest[32])
{
	char hex[65];

	for (int i = 0; i < 32; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
	return strlen(text) == 64 && streamext_gateway_same(text, hex, 64);
}

/* t=<seconds>,v1=<hex>, of which there may be several while a secret is changed. */
static bool
http_verify_timestamped(const char *value, const char *secret, const char *body, Size size)
{
	char	   *copy = pstrdup(value);
	const char *t = NULL;
	char	   *next = copy, *part;
	const char *parts[3];
	Size		sizes[3];
	uint8		digest[32];
	int64		seconds, now = (int64) time(NULL);
	bool		good = false;

	while ((part = strsep(&next, ",")) != NULL)
		if (strncmp(part, "t=", 2) == 0 && t == NULL)
			t = part + 2;
	if (t == NULL || t[0] == '\0' || strlen(t) > 12 || strspn(t, "0123456789") != strlen(t))
		return false;
	seconds = strtoll(t, NULL, 10);
	if (seconds < now - HTTP_SIGNATURE_TOLERANCE || seconds > now + HTTP_SIGNATURE_TOLERANCE)
		return false;
	parts[0] = t;
	sizes[0] = strlen(t);
	parts[1] = ".";
	sizes[1] = 1;
	parts[2] = body;
	sizes[2] = size;
	if (!streamext_gateway_hmac(secret, strlen(secret), parts, sizes, 3, digest))
		return false;
	next = pstrdup(value);
	while ((part = strsep(&next, ",")) != NULL)
		if (strncmp(part, "v1=", 3) == 0 && http_hex_is(part + 3, digest))
			good = true;
	return good;
}

static bool
http_verify(const char *value, HttpSignature scheme, const char *secret, const char *body, Size size)
{
	uint8 digest[32];

	if (scheme == HTTP_SIGNATURE_TIMESTAMPED)
		return http_verify_timestamped(value, secret, body, size);
	return strncmp(value, "sha256=", 7) == 0 &&
		   streamext_gateway_hmac(secret, strlen(secret), &body, &size, 1, digest) && http_hex_is(value + 7, digest);
}

/* The signature is of the body as it was sent. */
static bool
http_is_signed(HttpRequest *request, const GatewayStream *stream)
{
	List		 *options = stream->config->table_options;
	const char	 *name = streamext_option(options, "signature_header");
	const char	 *value;
	char		 *secret, *problem;
	HttpSignature scheme;
	bool		  good;

	if (name == NULL)
		return true;
	value = streamext_http_header(request, name);
	scheme = streamext_option_number(streamext_http_options, PLACE_TABLE, options, "signature_scheme");
	secret = streamext_gateway_secret_file(streamext_option(options, "signature_secret_file"), &problem);
	if (secret == NULL || secret[0] == '\0')
	{
		streamext_gateway_error(request->server->gateway, "signature of stream \"%s\": %s", stream->config->name,
								problem != NULL ? problem : "the file is empty");
		return false;
	}
	good = value != NULL && http_verify(value, scheme, secret, request->body.bytes != NULL ? request->body.bytes : "",
										request->body.size);
	explicit_bzero(secret, strlen(secret));
	return good;
}

/* ---- what the records share ---- */

/* Of all header lines, those of one name joined. */
typedef struct HttpHeaders
{
	const char *name; /* in lower case */
	StringInfo	value;
	bool		found;
} HttpHeaders;

static enum MHD_Result
http_join_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	HttpHeaders *headers = cls;

	if (pg_strcasecmp(name, headers->name) != 0)
		return MHD_YES;
	if (headers->found)
		appendStringInfoString(headers->value, ", ");
	appendStringInfoString(headers->value, value != NULL ? value : "");
	headers->found = true;
	return MHD_YES;
}

static char *
http_lower(const char *name)
{
	char *lower = pstrdup(name);

	for (char *p = lower; *p != '\0'; p++)
		*p = pg_ascii_tolower((unsigned char) *p);
	return lower;
}

static void
http_put_header(HttpRequest *request, StringInfo common, const char *name)
{
	StringInfoData value;
	char		  *lower = http_lower(name);
	HttpHeaders	   headers = { lower, &value, false };

	if (strcmp(lower, "authorization") == 0 || strcmp(lower, "cookie") == 0 ||
		streamext_http_find(common->data + strlen(common->data) + 1, common->len - strlen(common->data) - 1,
							HTTP_PART_HEADER, lower) != NULL)
		return;
	initStringInfo(&value);
	(void) MHD_get_connection_values(request->mhd, MHD_HEADER_KIND, http_join_header, &headers);
	if (headers.found)
		streamext_http_put(common, HTTP_PART_HEADER, lower, value.data, value.len);
}

typedef struct HttpAll
{
	HttpRequest *request;
	StringInfo	 common;
} HttpAll;

static enum MHD_Result
http_put_each(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	HttpAll *all = cls;

	http_put_header(all->request, all->common, name);
	return MHD_YES;
}

static void
http_put_address(HttpRequest *request, StringInfo common)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(request->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr		   *address = info != NULL ? info->client_addr : NULL;
	char							text[INET6_ADDRSTRLEN] = "";

	if (address != NULL && address->sa_family == AF_INET)
		(void) inet_ntop(AF_INET, &((const struct sockaddr_in *) address)->sin_addr, text, sizeof(text));
	else if (address != NULL && address->sa_family == AF_INET6)
		(void) inet_ntop(AF_INET6, &((const struct sockaddr_in6 *) address)->sin6_addr, text, sizeof(text));
	if (text[0] != '\0')
		streamext_http_put(common, HTTP_PART_ADDRESS, "", text, strlen(text));
}

/* Only what a column takes. False: it is too much. */
static bool
http_put_common(HttpRequest *request, const GatewayStream *stream, StringInfo common)
{
	const StreamConfig *config = stream->config;

	appendBinaryStringInfo(common, stream->key, strlen(stream->key) + 1);
	for (int i = 0; i < config->desc->natts; i++)
	{
		const StreamColumn *column = &config->columns[i];
		const char		   *value;

		if (column->dropped)
			continue;
		if (column->metadata == METADATA_HEADERS)
		{
			HttpAll all = { request, common };

			(void) MHD_get_connection_values(request->mhd, MHD_HEADER_KIND, http_put_each, &all);
		}
		else if (column->metadata != METADATA_OWN)
			continue;
		else if (column->metadata_name == NULL)
			http_put_address(request, common);
		else if (column->metadata_spec->name[0] == 'h')
			http_put_header(request, common, column->metadata_name);
		else if ((value = streamext_http_argument(request, column->metadata_name)) != NULL)
			streamext_http_put(common, HTTP_PART_QUERY, column->metadata_name, value, strlen(value));
	}
	return common->len <= PG_UINT16_MAX;
}

/* ---- the body ---- */

/* Replaces the body by what is packed in it. False: *result is the answer's. */
static bool
http_unpack(HttpRequest *request, enum MHD_Result *result)
{
	HttpServer	*server = request->server;
	HttpPacking	 packing = http_packing(request);
	UnpackResult unpacked;
	int64		 room = Max(HTTP_BODIES - server->bodies, 0), most = Min(server->max_body, room);
	char		*body;
	Size		 size;

	if (packing == HTTP_PLAIN || request->body.size == 0)
		return true;
	if (packing == HTTP_GZIP)
		unpacked = streamext_unpack_gzip(request->body.bytes, request->body.size, most, &body, &size);
	else
		unpacked = streamext_unpack_zstd(request->body.bytes, request->body.size, most, &body, &size);
	if (unpacked == UNPACK_LARGE && most == server->max_body)
		*result = http_refuse_large(request);
	else if (unpacked == UNPACK_LARGE || unpacked == UNPACK_MEMORY)
		*result = http_refuse_full(request);
	else if (unpacked == UNPACK_DAMAGED)
		*result =
			streamext_http_refuse(request, MHD_HTTP_BAD_REQUEST, false, -1,
								  "the body is not what its Content-Encoding says", "It is damaged, or not whole.");
	if (unpacked != UNPACK_DONE)
		return false;
	free(request->body.bytes);
	server->bodies += (int64) size - (int64) request->body.capacity;
	request->body.bytes = body;
	request->body.size = request->body.capacity = size;
	return true;
}

static void
http_done(GatewayRequest *base, GatewayOutcome outcome)
{
	HttpRequest *request = (HttpRequest *) base;

	request->outcome = outcome;
	streamext_http_drop_block(request);
	if (request->abandoned)
	{
		streamext_http_free(request);
		return;
	}
	if (request->visible.wanted && outcome == GATEWAY_TAKEN)
	{
		request->phase = HTTP_WAITING;
		request->visible.until = GetCurrentTimestamp() + request->server->wait_timeout;
		dlist_push_tail(&request->server->waiting, &request->node);
		request->server->done = true; /* look at once */
		return;
	}
	request->phase = HTTP_OUTCOME;
	streamext_http_resume(request);
}

/* malloc'd, because it outlives the round's memory where a group is full. */
static char *
http_copy(const StringInfo text)
{
	char *copy = malloc(text->len + 1);

	if (copy != NULL)
		memcpy(copy, text->data, text->len + 1);
	return copy;
}

/* False: no memory. */
static bool
http_put_key(HttpRequest *request)
{
	const char *key = streamext_http_header(request, "Idempotency-Key");
	const char *body = request->body.bytes != NULL ? request->body.bytes : "";
	Size		key_size;
	uint8		digest[32];

	request->base.keyed = key != NULL;
	if (key == NULL)
		return true;
	request->base.role = request->role;
	key_size = strlen(key);
	if (!streamext_gateway_hmac("key", 3, &key, &key_size, 1, digest))
		return false;
	memcpy(&request->base.key, digest, sizeof(KeyHash));
	if (!streamext_gateway_hmac("body", 4, &body, &request->body.size, 1, digest))
		return false;
	memcpy(&request->base.body, digest, sizeof(KeyHash));
	return true;
}

/*
 * The records in the body's place, which is needed no more. They may take many times as much: of [1,1,1] nine bytes for two, and a round has as many
 * requests as there are connections. False: there is no room.
 */
static bool
http_hold_block(HttpRequest *request, StringInfo block, StringInfo common)
{
	streamext_http_drop_body(request);
	if (request->server->bodies + block->len <= HTTP_BODIES)
	{
		request->block = http_copy(block);
		request->common = http_copy(common);
	}
	pfree(block->data);
	if (request->block == NULL || request->common == NULL)
		return false;
	request->body.held = block->len;
	request->server->bodies += request->body.held;
	return true;
}

static enum MHD_Result
http_submit(HttpRequest *request, StringInfo block, StringInfo common)
{
	GatewayRequest *base = &request->base;

	if (block->len > HTTP_BODIES)
		return streamext_http_refuse(request, MHD_HTTP_CONTENT_TOO_LARGE, false, -1, "the body has too many records",
									 "Send them in several requests.");
	if (!http_put_key(request) || !http_hold_block(request, block, common))
		return http_refuse_full(request);
	base->relid = request->relid;
	base->block = request->block;
	base->block_size = block->len;
	base->common = request->common;
	base->common_size = common->len;
	base->done = http_done;
	request->phase = HTTP_SUBMITTED;
	if (request->visible.wanted)
		streamext_http_suspend(request);
	streamext_gateway_submit(request->server->gateway, base);
	return MHD_YES;
}

/* Rights may have been taken away since the headers came. */
static GatewayStream *
http_stream_again(HttpRequest *request, enum MHD_Result *result)
{
	Gateway		  *gateway = request->server->gateway;
	GatewayStream *stream = streamext_gateway_stream_named(gateway, request->path);

	if (request->version == gateway->version)
		return stream;
	request->role = streamext_http_role(request, result);
	if (!OidIsValid(request->role))
		return NULL;
	if (stream == NULL || !streamext_gateway_allows(gateway, request->role, stream->config->relid, ACL_INSERT))
	{
		*result = streamext_http_refuse(request, stream == NULL ? MHD_HTTP_NOT_FOUND : MHD_HTTP_FORBIDDEN, false, -1,
										"the stream has been changed meanwhile", "Send the request again.");
		return NULL;
	}
	request->relid = stream->config->relid;
	return stream;
}

enum MHD_Result
streamext_http_post_end(HttpRequest *request)
{
	enum MHD_Result result = MHD_YES;
	GatewayStream  *stream = http_stream_again(request, &result);
	StringInfoData	block, common;
	CutKind			kind;
	CutResult		cut;
	const char	   *quote;

	if (stream == NULL)
		return result;
	if (request->body.large)
		return http_refuse_large(request);
	if (request->body.full)
		return http_refuse_full(request);
	if (!http_is_signed(request, stream))
		return streamext_http_refuse(
			request, MHD_HTTP_UNAUTHORIZED, false, -1, "the signature is not that of the body",
			"The stream's option signature_header names the header, signature_scheme how it is made.");
	if (!http_unpack(request, &result))
		return result;
	if (!http_cut_kind(request, stream, &kind))
		return streamext_http_refuse(request, MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, false, -1,
									 "the stream does not take this Content-Type", "Its format has been changed.");
	initStringInfo(&block);
	initStringInfo(&common);
	quote = streamext_option(stream->config->table_options, "quote");
	cut = streamext_cut(kind, request->body.bytes != NULL ? request->body.bytes : "", request->body.size,
						quote != NULL ? quote[0] : '"', &block);
	if (cut.error != NULL)
		return streamext_http_refuse(request, MHD_HTTP_BAD_REQUEST, false, cut.records + 1, cut.error,
									 "None of the request's records is taken.");
	if (cut.records == 0)
		return streamext_http_answer(request, MHD_HTTP_NO_CONTENT);
	if (!http_put_common(request, stream, &common))
		return streamext_http_refuse(request, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, false, -1,
									 "the headers and arguments that the stream keeps are too large",
									 "They may have %d bytes.", PG_UINT16_MAX);
	return http_submit(request, &block, &common);
}

/* ---- answers ---- */

enum MHD_Result
streamext_http_post_answer(HttpRequest *request)
{
	switch (request->outcome)
	{
		case GATEWAY_TAKEN:
			return streamext_http_answer(request, request->visible.wanted && !request->visible.reached
													  ? MHD_HTTP_ACCEPTED
													  : MHD_HTTP_NO_CONTENT);
		case GATEWAY_FULL:
			return streamext_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, false, -1,
										 "the stream's journal or the disk is full",
										 "None of the records is taken. Send them again later.");
		case GATEWAY_OTHER:
			return streamext_http_refuse(
				request, MHD_HTTP_UNPROCESSABLE_CONTENT, false, -1, "the Idempotency-Key was used with another body",
				"A key stands for one body, for a day or the role's next %d keys.", STREAMEXT_KEYS_KEPT);
		case GATEWAY_NO_STREAM:
			return streamext_http_refuse(request, MHD_HTTP_SERVICE_UNAVAILABLE, false, -1, "the stream is not ready",
										 "Send the request again.");
		case GATEWAY_REFUSED:
			break;
	}
	return streamext_http_refuse(request, MHD_HTTP_INTERNAL_SERVER_ERROR, false, -1,
								 "the stream's journal cannot be written", "None of the records is taken.");
}

/* A ticket as streamext.flush draws it, when the journal holds the records. */
static bool
http_is_visible(HttpRequest *request)
{
	GatewayStream *stream = streamext_gateway_stream(request->server->gateway, request->relid);
	StreamSlot	  *slot;

	if (stream == NULL || stream->slot < 0)
		return false;
	slot = &streamext_shared->streams[stream->slot];
	if (request->visible.ticket == 0)
	{
		request->visible.ticket = pg_atomic_add_fetch_u64(&slot->ask.flush_requested, 1);
		streamext_wake_worker(slot);
	}
	return pg_atomic_read_u64(&slot->ask.flush_done) >= request->visible.ticket;
}

void
streamext_http_post_look(HttpServer *server, TimestampTz now)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &server->waiting)
	{
		HttpRequest *request = dlist_container(HttpRequest, node, iter.cur);

		request->visible.reached = http_is_visible(request);
		if (!request->visible.reached && now < request->visible.until)
			continue;
		dlist_delete(&request->node);
		request->phase = HTTP_OUTCOME;
		streamext_http_resume(request);
	}
}
