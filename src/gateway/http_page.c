/*
 * gateway/http_page.c
 *		What is answered to anybody, credentials or not: the live page at /, and /healthz.
 *
 * The page (gateway/live.html, of which the Makefile makes live_page.inc) is the same for all; what it shows it asks for with the token that
 * is typed into it, as any other client. Its policy allows its own script and style, by their digests, and requests to this gateway; nothing
 * else.
 */
#include "base/streamext.h"

#include <openssl/evp.h>

#include "common/base64.h"

#include "gateway/http_private.h"
#include "gateway/live_page.inc"

#define PAGE_POLICY 512

/* 'sha256-…' of what stands between the tags; false: there is no such thing. */
static bool
page_digest(const char *begin_tag, const char *end_tag, char *text, Size size)
{
	const char *page = (const char *) live_page;
	const char *begin = strstr(page, begin_tag);
	const char *end = begin != NULL ? strstr(begin, end_tag) : NULL;
	uint8		digest[EVP_MAX_MD_SIZE];
	unsigned	digest_size;
	char		coded[2 * EVP_MAX_MD_SIZE];
	int			n;

	if (end == NULL)
		return false;
	begin += strlen(begin_tag);
	if (EVP_Digest(begin, end - begin, digest, &digest_size, EVP_sha256(), NULL) != 1)
		return false;
#if PG_VERSION_NUM >= 180000
	n = pg_b64_encode(digest, digest_size, coded, sizeof(coded) - 1);
#else
	n = pg_b64_encode((char *) digest, digest_size, coded, sizeof(coded) - 1);
#endif
	if (n < 0)
		return false;
	coded[n] = '\0';
	snprintf(text, size, "'sha256-%s'", coded);
	return true;
}

/* NULL: it could not be made, and the page is not given. */
static const char *
page_policy(void)
{
	static char policy[PAGE_POLICY] = "";
	char		script[80], style[80];

	if (policy[0] == '\0')
	{
		if (!page_digest("<script>", "</script>", script, sizeof(script)) ||
			!page_digest("<style>", "</style>", style, sizeof(style)))
			return NULL;
		snprintf(
			policy, sizeof(policy),
			"default-src 'none'; script-src %s; style-src %s; connect-src 'self'; base-uri 'none'; form-action 'none'; "
			"frame-ancestors 'none'",
			script, style);
	}
	return policy;
}

static enum MHD_Result
page_answer(HttpRequest *request)
{
	const char			*policy = page_policy();
	struct MHD_Response *response;

	if (policy == NULL)
		return streamext_http_refuse(request, MHD_HTTP_INTERNAL_SERVER_ERROR, true, -1, "the page could not be made",
									 "Views are read by GET /views/SCHEMA.NAME.");
	response = MHD_create_response_from_buffer(sizeof(live_page) - 1, (void *) live_page, MHD_RESPMEM_PERSISTENT);
	if (response != NULL)
	{
		(void) MHD_add_response_header(response, "Content-Type", "text/html; charset=utf-8");
		(void) MHD_add_response_header(response, "Content-Security-Policy", policy);
		(void) MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
		(void) MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
		(void) MHD_add_response_header(response, "Cache-Control", "no-cache");
	}
	return streamext_http_queue(request, MHD_HTTP_OK, response);
}

static enum MHD_Result
page_health(HttpRequest *request)
{
	static char			 healthy[] = "ok\n";
	struct MHD_Response *response =
		MHD_create_response_from_buffer(sizeof(healthy) - 1, healthy, MHD_RESPMEM_PERSISTENT);

	if (response != NULL)
	{
		(void) MHD_add_response_header(response, "Content-Type", "text/plain; charset=utf-8");
		(void) MHD_add_response_header(response, "Cache-Control", "no-store");
	}
	return streamext_http_queue(request, MHD_HTTP_OK, response);
}

bool
streamext_http_page(HttpRequest *request, enum MHD_Result *result)
{
	if (strcmp(request->path, "/") == 0)
		*result = page_answer(request);
	else if (strcmp(request->path, "/healthz") == 0)
		*result = page_health(request);
	else
		return false;
	return true;
}
