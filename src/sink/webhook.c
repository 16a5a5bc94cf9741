/*
 * sink/webhook.c
 *		Rows to a URL, each by a POST of its own, in order.
 *
 * 2xx is an arrival. 408, 425, 429 and 5xx are tried again, not before Retry-After says and at most `attempts` times in a row; what is left then, and any
 * other answer, is a row that is not taken. Without an answer it is tried for ever. The Idempotency-Key stays the same in each try. An answer is a head that is
 * whole: nobody reads what is behind it, so that may be cut, wrong or endless.
 *
 * Redirects are not followed and no proxy of the environment is used: rows go to the URL and nowhere else.
 */
#include "base/streamext.h"

#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "access/xlog.h"
#include "miscadmin.h"

#include "base/clip.h"
#include "decode/format.h"
#include "sink/transport.h"
#include "source/webhook/options.h"

#define WEBHOOK_SET 20
#define WEBHOOK_WAIT_MS 3600000 /* the longest Retry-After that is heeded */
#define WEBHOOK_PREFIX "X-Streamext-"
#define WEBHOOK_SIGNATURE WEBHOOK_PREFIX "Signature"
#define WEBHOOK_LINE 4096
#define WEBHOOK_BODY (1024 * 1024) /* of an answer, before the connection ends */
#define WEBHOOK_TOKEN 4000		   /* "Authorization: Bearer " and it make a line */

typedef struct Webhook
{
	Transport	   transport;
	CURL		  *curl;
	char		  *url;
	char		  *ca;	   /* or NULL */
	char		  *bearer; /* or NULL */
	char		  *secret; /* or NULL */
	char		  *signature_header;
	char		  *content_type;
	char		   prefix[64]; /* of Idempotency-Keys */
	long		   timeout_ms;
	int			   attempts;
	int64		   tried;	 /* id of the row that was not taken last, */
	int			   tries;	 /* so many times */
	bool		   answered; /* the head of an answer is whole */
	size_t		   body;	 /* bytes of it that have come */
	volatile bool *stop;
} Webhook;

static size_t
webhook_discard(char *data, size_t size, size_t n, void *arg)
{
	Webhook *h = arg;

	h->body += size * n;
	return h->body > WEBHOOK_BODY ? 0 : size * n;
}

/* A line of a head; that of 100 Continue is no answer. */
static size_t
webhook_line(char *data, size_t size, size_t n, void *arg)
{
	Webhook *h = arg;
	long	 status = 0;

	if (size * n > 0 && (data[0] == '\r' || data[0] == '\n') &&
		curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK && status >= 200)
		h->answered = true;
	return size * n;
}

static int
webhook_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	return *((Webhook *) arg)->stop ? 1 : 0;
}

/* ---------------------------------------------------------------- headers */

/* name and value make a line, and nothing in them ends it. */
static struct curl_slist *
webhook_add(struct curl_slist *headers, const char *name, const char *value)
{
	char line[WEBHOOK_LINE];

	/* curl takes a header without a value for one that is not to be sent */
	snprintf(line, sizeof(line), value[0] == '\0' ? "%s;" : "%s: %s", name, value);
	return curl_slist_append(headers, line);
}

/* Why the message is not to be sent, ever; NULL: it is. Whoever makes rows chooses headers: none of them is cut, ends its line or looks like the signature. */
static const char *
webhook_problem(const Webhook *h, const Message *m)
{
	for (int i = 0; i < m->nheaders; i++)
	{
		const char *name = m->header_names[i], *value = m->header_values[i];
		char		sent[WEBHOOK_LINE];

		if (strlen(name) + strlen(value) + strlen(WEBHOOK_PREFIX) + 3 > WEBHOOK_LINE)
			return "a header is too long";
		if (name[0] == '\0' || !streamext_webhook_is_name(name))
			return "the name of a header has other characters than letters, digits, hyphens and underscores";
		for (const unsigned char *c = (const unsigned char *) value; *c != '\0'; c++)
			if ((*c < ' ' && *c != '\t') || *c == 0x7F)
				return "a header has a line break or another control character";
		snprintf(sent, sizeof(sent), WEBHOOK_PREFIX "%s", name);
		if (pg_strcasecmp(sent, h->signature_header) == 0)
			return "a header has the signature's name";
	}
	return NULL;
}

/* t=<seconds>,v1=<hex of HMAC-SHA256 of "<seconds>.<body>"> */
static struct curl_slist *
webhook_sign(Webhook *h, struct curl_slist *headers, const Message *m)
{
	unsigned char hash[EVP_MAX_MD_SIZE];
	unsigned int  size = 0;
	char		  value[2 * EVP_MAX_MD_SIZE + 64];
	char		  seconds[32];
	size_t		  used = snprintf(seconds, sizeof(seconds), "%lld.", (long long) time(NULL));
	char		 *signed_text = malloc(used + m->payload_size + 1);
	int			  at;

	if (signed_text == NULL)
		return headers;
	memcpy(signed_text, seconds, used);
	if (m->payload_size > 0)
		memcpy(signed_text + used, m->payload, m->payload_size);
	(void) HMAC(EVP_sha256(), h->secret, (int) strlen(h->secret), (unsigned char *) signed_text, used + m->payload_size,
				hash, &size);
	free(signed_text);
	at = snprintf(value, sizeof(value), "t=%.*s,v1=", (int) used - 1, seconds);
	for (unsigned int i = 0; i < size; i++)
		at += snprintf(value + at, sizeof(value) - at, "%02x", hash[i]);
	return webhook_add(headers, h->signature_header, value);
}

static struct curl_slist *
webhook_headers(Webhook *h, const Message *m)
{
	struct curl_slist *headers = webhook_add(NULL, "Content-Type", h->content_type);
	char			   text[WEBHOOK_LINE];

	snprintf(text, sizeof(text), "%s-%lld", h->prefix, (long long) m->id);
	headers = webhook_add(headers, "Idempotency-Key", text);
	headers = curl_slist_append(headers, "Expect:");
	for (int i = 0; i < m->nheaders; i++)
	{
		snprintf(text, sizeof(text), WEBHOOK_PREFIX "%s", m->header_names[i]);
		headers = webhook_add(headers, text, m->header_values[i]);
	}
	if (h->bearer != NULL)
	{
		snprintf(text, sizeof(text), "Bearer %s", h->bearer);
		headers = webhook_add(headers, "Authorization", text);
	}
	return h->secret != NULL ? webhook_sign(h, headers, m) : headers;
}

static void
webhook_prepare(Webhook *h, const Message *m, struct curl_slist *headers)
{
	curl_easy_reset(h->curl); /* connections stay */
	curl_easy_setopt(h->curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(h->curl, CURLOPT_URL, h->url);
	curl_easy_setopt(h->curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(h->curl, CURLOPT_PROXY, "");
	curl_easy_setopt(h->curl, CURLOPT_TIMEOUT_MS, h->timeout_ms);
	curl_easy_setopt(h->curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(h->curl, CURLOPT_XFERINFOFUNCTION, webhook_progress);
	curl_easy_setopt(h->curl, CURLOPT_XFERINFODATA, h);
	curl_easy_setopt(h->curl, CURLOPT_WRITEFUNCTION, webhook_discard);
	curl_easy_setopt(h->curl, CURLOPT_WRITEDATA, h);
	curl_easy_setopt(h->curl, CURLOPT_HEADERFUNCTION, webhook_line);
	curl_easy_setopt(h->curl, CURLOPT_HEADERDATA, h);
	curl_easy_setopt(h->curl, CURLOPT_POST, 1L);
	curl_easy_setopt(h->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t) m->payload_size);
	curl_easy_setopt(h->curl, CURLOPT_POSTFIELDS, m->payload != NULL ? m->payload : "");
	curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, headers);
	if (h->ca != NULL)
		curl_easy_setopt(h->curl, CURLOPT_CAINFO, h->ca);
}

/* 0: no answer, *s says why. */
static long
webhook_post(Webhook *h, const Message *m, Shipment *s)
{
	struct curl_slist *headers = webhook_headers(h, m);
	CURLcode		   code;
	long			   status = 0;
	curl_off_t		   wait = 0;

	webhook_prepare(h, m, headers);
	h->answered = false;
	h->body = 0;
	code = curl_easy_perform(h->curl);
	if (h->answered)
	{
		curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
		curl_easy_getinfo(h->curl, CURLINFO_RETRY_AFTER, &wait);
		s->wait_ms = (int) Min(Max(wait, 0), WEBHOOK_WAIT_MS / 1000) * 1000;
		snprintf(s->error, sizeof(s->error), "the answer is HTTP status %ld", status);
	}
	else
		snprintf(s->error, sizeof(s->error), "%s",
				 code == CURLE_OK ? "the answer ended within its head" : curl_easy_strerror(code));
	curl_slist_free_all(headers);
	return status;
}

static bool
webhook_is_passing(long status)
{
	return status == 408 || status == 425 || status == 429 || status >= 500;
}

static void
webhook_send(Transport *transport, Shipment *s)
{
	Webhook *h = (Webhook *) transport;

	h->stop = s->stop;
	for (s->done = 0; s->done < s->n && !*s->stop; s->done++)
	{
		const Message *m = &s->messages[s->done];
		const char	  *problem = webhook_problem(h, m);
		long		   status;

		if (problem != NULL)
		{
			s->refused = s->done;
			snprintf(s->error, sizeof(s->error), "the message cannot be sent: %s", problem);
			return;
		}
		status = webhook_post(h, m, s);
		s->reachable = status != 0;
		if (status >= 200 && status < 300)
		{
			s->error[0] = '\0';
			s->wait_ms = 0;
			continue;
		}
		if (status == 0)
			return;
		h->tries = h->tried == m->id ? h->tries + 1 : 1;
		h->tried = m->id;
		if (webhook_is_passing(status) && h->tries < h->attempts)
			return;
		s->refused = s->done;
		s->wait_ms = 0;
		h->tried = 0;
		return;
	}
}

/* ---------------------------------------------------------------- its life */

static void
webhook_close(Transport *transport)
{
	Webhook *h = (Webhook *) transport;

	if (h->curl != NULL)
		curl_easy_cleanup(h->curl);
	if (h->secret != NULL)
		explicit_bzero(h->secret, strlen(h->secret));
	if (h->bearer != NULL)
		explicit_bzero(h->bearer, strlen(h->bearer));
	free(h->url);
	free(h->ca);
	free(h->bearer);
	free(h->secret);
	free(h->signature_header);
	free(h->content_type);
	free(h);
}

static char *
webhook_keep(const char *text)
{
	return text == NULL ? NULL : strdup(text);
}

/* False: *error says why. */
static bool
webhook_read_secrets(Webhook *h, const StreamConfig *config, char *error)
{
	char *problem;
	char *bearer = streamext_connector_secret(config, "bearer_token", "bearer_token_file", &problem);
	char *secret = problem == NULL
					   ? streamext_connector_secret_file(config->table_options, "signature_secret_file", &problem)
					   : NULL;

	if (problem != NULL)
	{
		streamext_clip(error, problem, STREAMEXT_MAX_MESSAGE);
		return false;
	}
	if (bearer != NULL && (strlen(bearer) > WEBHOOK_TOKEN || strpbrk(bearer, "\r\n") != NULL))
	{
		snprintf(error, STREAMEXT_MAX_MESSAGE, "bearer_token is longer than %d bytes or has a line break",
				 WEBHOOK_TOKEN);
		return false;
	}
	h->bearer = webhook_keep(bearer);
	h->secret = webhook_keep(secret);
	return true;
}

static Transport *
webhook_open(const StreamConfig *config, char error[STREAMEXT_MAX_MESSAGE])
{
	Webhook	   *h = calloc(1, sizeof(Webhook));
	const char *header = streamext_option(config->table_options, "signature_header");

	if (h == NULL)
		return NULL;
	h->transport.ops = &streamext_webhook_transport;
	h->url = webhook_keep(streamext_option(config->server_options, "url"));
	h->ca = webhook_keep(streamext_option(config->server_options, "ssl_ca_location"));
	h->signature_header = webhook_keep(header != NULL ? header : WEBHOOK_SIGNATURE);
	h->content_type = webhook_keep(config->format->json						 ? "application/json"
								   : OidIsValid(config->format->column_type) ? "application/octet-stream"
																			 : "text/plain; charset=utf-8");
	h->timeout_ms =
		(long) (streamext_option_number(streamext_webhook_options, PLACE_TABLE, config->table_options, "timeout") /
				1000);
	h->attempts =
		(int) streamext_option_number(streamext_webhook_options, PLACE_TABLE, config->table_options, "attempts");
	snprintf(h->prefix, sizeof(h->prefix), UINT64_FORMAT "-%u", GetSystemIdentifier(), MyDatabaseId);
	h->curl = webhook_read_secrets(h, config, error) ? curl_easy_init() : NULL;
	if (h->curl != NULL)
		return &h->transport;
	if (error[0] == '\0')
		streamext_clip(error, "could not make an HTTP client", STREAMEXT_MAX_MESSAGE);
	webhook_close(&h->transport);
	return NULL;
}

const TransportOps streamext_webhook_transport = {
	.connector = &streamext_webhook_ops,
	.most = WEBHOOK_SET,
	.open = webhook_open,
	.send = webhook_send,
	.close = webhook_close,
};
