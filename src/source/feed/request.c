/*
 * source/feed/request.c
 *		What a feed is asked for: URL with the token, headers with the mapping's secrets, libcurl's options; and what comes back.
 *
 * Secrets are read anew for each connection, so a file may be replaced. libcurl is kept from the environment (proxies, .netrc), from
 * protocols other than HTTP, and from following redirects by itself.
 */
#include "base/streamext.h"

#include <fcntl.h>

#include "source/feed/link_private.h"
#include "source/feed/target.h"

#define REQUEST_CONNECT_S 15
#define REQUEST_BUFFER (256 * 1024)
#define REQUEST_AGENT "streamext/1.1 (PostgreSQL extension)"
#define REQUEST_HEADER "header "
#define REQUEST_BODY_MAX 160 /* bytes of an answer that is not the feed */

static const char *const request_accept[] = {
	"Accept: application/x-ndjson, application/json;q=0.9, */*;q=0.1",
	"Accept: text/event-stream",
	NULL,
	"Accept: application/json, */*;q=0.1",
};

static bool
request_add(FeedLink *link, const char *line)
{
	struct curl_slist *longer = curl_slist_append(link->headers, line);

	if (longer == NULL)
		return false;
	link->headers = longer;
	return true;
}

/* A secret's file may hold anything. */
static bool
request_is_line(const char *text)
{
	for (const char *p = text; *p != '\0'; p++)
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			return false;
	return true;
}

static bool
request_add_bearer(FeedLink *link)
{
	char *problem;
	char *token = streamext_connector_secret(link->c->config, "bearer_token", "bearer_token_file", &problem);
	bool  done;
	char *line;

	if (token == NULL && problem == NULL)
		return true;
	if (problem == NULL && !request_is_line(token))
		problem = "the file of option bearer_token_file holds more than a line";
	if (problem != NULL)
	{
		streamext_connector_report(link->c, "%s", problem);
		return false;
	}
	line = psprintf("Authorization: Bearer %s", token);
	done = request_add(link, line);
	explicit_bzero(line, strlen(line));
	explicit_bzero(token, strlen(token));
	return done;
}

/* Those of the user mapping take the place of our own. */
static bool
request_has(FeedLink *link, const char *name)
{
	ListCell *cell;

	foreach (cell, link->c->config->user_options)
	{
		const char *option = lfirst_node(DefElem, cell)->defname;

		if (strncmp(option, REQUEST_HEADER, strlen(REQUEST_HEADER)) == 0 &&
			pg_strcasecmp(option + strlen(REQUEST_HEADER), name) == 0)
			return true;
	}
	return false;
}

static bool
request_add_mapping(FeedLink *link)
{
	ListCell *cell;

	foreach (cell, link->c->config->user_options)
	{
		DefElem *def = lfirst_node(DefElem, cell);

		if (strncmp(def->defname, REQUEST_HEADER, strlen(REQUEST_HEADER)) == 0 &&
			!request_add(link, psprintf("%s: %s", def->defname + strlen(REQUEST_HEADER), strVal(def->arg))))
			return false;
	}
	return true;
}

static bool
request_add_token(FeedLink *link)
{
	const FeedText *token = streamext_feed_intake_token(link->intake);

	if (link->options->resume != FEED_RESUME_LAST_EVENT_ID || token->size == 0)
		return true;
	return request_add(link, psprintf("Last-Event-ID: %.*s", (int) token->size, token->data));
}

static bool
request_headers(FeedLink *link)
{
	const char *accept = request_accept[link->options->framing];

	curl_slist_free_all(link->headers);
	link->headers = NULL;
	return (accept == NULL || request_has(link, "Accept") || request_add(link, accept)) &&
		   (request_has(link, "User-Agent") || request_add(link, "User-Agent: " REQUEST_AGENT)) &&
		   (link->options->framing == FEED_WEBSOCKET || request_add(link, "Accept-Encoding: gzip")) &&
		   (link->options->framing != FEED_SSE || request_add(link, "Cache-Control: no-cache")) &&
		   request_add_bearer(link) && request_add_mapping(link) && request_add_token(link);
}

static bool
request_url(FeedLink *link)
{
	CURLU		   *url = streamext_feed_target_parse(link->redirected != NULL ? link->redirected : link->options->url);
	const FeedText *token = streamext_feed_intake_token(link->intake);
	char			value[FEED_CUT_NAME_MAX + 1], *text = NULL;
	bool			done = url != NULL;

	if (done && link->options->resume == FEED_RESUME_QUERY && token->size > 0)
	{
		if (!streamext_feed_target_rewind(token->data, token->size, link->options->rewind, value, sizeof(value)) &&
			!link->rewinds)
		{
			link->rewinds = true;
			streamext_connector_event(link->c, "live", 0, 0, "option rewind has no effect: \"%.64s\" is not a time",
									  value);
		}
		done = streamext_feed_target_set_parameter(url, link->options->resume_parameter, value);
	}
	done = done && curl_url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK;
	free(link->url);
	link->url = done ? strdup(text) : NULL;
	curl_free(text);
	curl_url_cleanup(url);
	return link->url != NULL;
}

/* ---- what comes back ---- */

/* Records that were sent before this moment and after the last connection are lost unless there is a token. */
static void
request_tell_live(FeedLink *link)
{
	if (streamext_feed_intake_token(link->intake)->size > 0)
		return;
	streamext_connector_event(
		link->c, "live", 0, 0,
		link->options->resume == FEED_RESUME_NONE
			? "the feed cannot be resumed (option resume is none): records sent before this moment may be missing"
			: "the feed begins live, no record to resume from is known: records sent before this moment may be missing");
}

void
streamext_feed_link_open(FeedLink *link)
{
	const FeedText *token = streamext_feed_intake_token(link->intake);

	streamext_feed_cut_begin(&link->cutter, token->data,
							 link->options->resume == FEED_RESUME_LAST_EVENT_ID ? token->size : 0);
	link->stage = FEED_OPEN;
	link->heard = streamext_feed_ms();
	link->redirects = 0;
	link->retry.times[FEED_TROUBLE_HTTP] = link->retry.times[FEED_TROUBLE_RATE] = 0;
	request_tell_live(link);
}

bool
streamext_feed_link_is_full(const FeedLink *link)
{
	return link->taken >= FEED_MUCH || streamext_feed_intake_waiting(link->intake) >= FEED_MUCH;
}

/* Ends the connection with a fault of the server's. */
static bool
request_fault(FeedLink *link, const char *fault)
{
	link->refused = true;
	return streamext_feed_cut_fault(&link->cutter, fault);
}

bool
streamext_feed_link_head(FeedLink *link, size_t size)
{
	link->heads += size;
	return link->heads <= FEED_HEAD_MAX ||
		   request_fault(link, "the head of the server's answer is longer than " CppAsString2(FEED_HEAD_MAX) " bytes");
}

bool
streamext_feed_link_bytes(FeedLink *link, const char *data, size_t size)
{
	link->taken += size;
	link->heard = streamext_feed_ms();
	streamext_feed_intake_arrival(link->intake);
	if (streamext_feed_cut(&link->cutter, data, size))
		return !link->closed || link->options->framing != FEED_WEBSOCKET;
	link->refused = true;
	return false;
}

bool
streamext_feed_link_body(FeedLink *link, const char *data, size_t size)
{
	return streamext_feed_text_add(&link->body, data, size, REQUEST_BODY_MAX) && link->body.size < REQUEST_BODY_MAX;
}

/* ---- libcurl's calls ---- */

static size_t
request_on_head(char *data, size_t size, size_t n, void *context)
{
	FeedLink *link = context;

	if (!streamext_feed_link_head(link, size * n) ||
		!streamext_feed_answer_line(&link->answer, data, size * n, (int64) time(NULL)))
		return 0;
	if (!link->answer.ended || link->answer.status < 200 || link->stage != FEED_CONNECTING)
		return size * n;
	if (link->answer.strange)
		return request_fault(link, "the server codes its answer in another way than by gzip") ? size * n : 0;
	if (!streamext_feed_unpack_begin(&link->unpack, link->answer.packed))
		return request_fault(link, "out of memory") ? size * n : 0;
	if (link->answer.status == 200)
		streamext_feed_link_open(link);
	return size * n;
}

/*
 * Of bytes that libcurl brings while enough was taken in it is told to wait, and brings them again: `consumed` says how far they were taken before.
 */
static size_t
request_on_body(char *data, size_t size, size_t n, void *context)
{
	FeedLink   *link = context;
	size_t		all = size * n, skip = Min(link->consumed, all), left = all - skip, piece_size;
	const char *rest = data + skip, *piece;

	for (;;)
	{
		if (streamext_feed_link_is_full(link))
		{
			link->consumed = Max(link->consumed, all - left);
			link->full = true;
			return CURL_WRITEFUNC_PAUSE;
		}
		if (!streamext_feed_unpack(&link->unpack, &rest, &left, &piece, &piece_size))
			return request_fault(link, "the bytes that the server has packed are damaged") ? all : 0;
		if (piece_size == 0)
			break;
		if (!(link->stage == FEED_OPEN ? streamext_feed_link_bytes(link, piece, piece_size)
									   : streamext_feed_link_body(link, piece, piece_size)))
			return 0;
	}
	link->consumed -= skip;
	return all;
}

static int
request_on_socket(void *context, curl_socket_t fd, curlsocktype purpose)
{
	(void) fcntl(fd, F_SETFD, FD_CLOEXEC);
	return CURL_SOCKOPT_OK;
}

static void
request_options(FeedLink *link)
{
	CURL *easy = link->easy;

	curl_easy_setopt(easy, CURLOPT_URL, link->url);
	curl_easy_setopt(easy, CURLOPT_PRIVATE, link);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, (long) REQUEST_CONNECT_S);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, 60L);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, 15L);
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, link->reason);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, request_on_socket);
	if (link->options->ssl_ca_location != NULL)
		curl_easy_setopt(easy, CURLOPT_CAINFO, link->options->ssl_ca_location);
	if (link->options->framing == FEED_WEBSOCKET)
	{
		curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
		curl_easy_setopt(easy, CURLOPT_SSL_ENABLE_ALPN, 0L);
		return;
	}
	curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L); /* a websocket's would be closed as soon as it is there */
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long) REQUEST_BUFFER);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, link->headers);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, request_on_head);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, link);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, request_on_body);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, link);
}

bool
streamext_feed_request(FeedLink *link)
{
	MemoryContext old = MemoryContextSwitchTo(link->cxt);
	uint64		  errors = link->c->errors;
	bool		  done;

	link->reason[0] = '\0';
	done = request_headers(link) && request_url(link) && (link->easy = curl_easy_init()) != NULL;
	if (done)
	{
		request_options(link);
		done = curl_multi_add_handle(link->multi, link->easy) == CURLM_OK;
		if (!done)
		{
			curl_easy_cleanup(link->easy);
			link->easy = NULL;
		}
	}
	if (!done && link->c->errors == errors)
		streamext_connector_report(link->c, "could not make the request: out of memory");
	MemoryContextSwitchTo(old);
	MemoryContextReset(link->cxt);
	return done;
}
