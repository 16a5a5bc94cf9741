/*
 * gateway/http_own.c
 *		What libmicrohttpd refuses by itself, before there is a request to refuse: answered as all that is refused, {"error", "hint", "record"}.
 *
 * The library has no option for that. It calls its own public functions through the dynamic linker, though, which looks into this module first, so two
 * of them stand here and hand on to the library's (dlsym). Where a library is built otherwise nobody calls them, and its answers stay pages of HTML.
 * In a process that is no gateway they only hand on.
 *
 * - MHD_create_response_from_buffer makes the pages.
 * - MHD_lookup_connection_value_n is how the library looks at Host and Content-Length. It refuses what is wrong with them in a way that sends the head of
 *   its answer twice; so these two look right to it, and streamext_http_unclear refuses them when the head is there.
 */
#include "base/streamext.h"

#include <dlfcn.h>

#include "gateway/http_private.h"

typedef struct MHD_Response *(*HttpCreate)(size_t size, void *buffer, enum MHD_ResponseMemoryMode mode);
typedef enum MHD_Result (*HttpLookup)(struct MHD_Connection *mhd, enum MHD_ValueKind kind, const char *name,
									  size_t name_size, const char **value, size_t *value_size);

static HttpCreate http_create;
static HttpLookup http_lookup;
static bool		  http_serves = false;

/* By what its pages say. */
static const struct
{
	const char *page, *error, *hint;
} http_own_refusals[] = {
	{ "Request too big", "the head of the request is too large",
	  "The head has room for " CppAsString2(HTTP_CONNECTION_MEMORY) " bytes at most." },
	{ "chunk size", "a chunk of the body is too large", "Send smaller chunks." },
	{ "chunked encoding", "the chunks of the body are malformed", "A chunk is its size in hex, CRLF, data, CRLF." },
	{ "HTTP version", "the HTTP version is not supported", "HTTP/1.1 and HTTP/1.0 are." },
	{ "Request malformed", "the head of the request is malformed",
	  "A request line and headers as in HTTP/1.1, each ended by CRLF." },
	{ "", "the request cannot be answered", "Send it again." },
};

void
streamext_http_own_begin(void)
{
	http_serves = true;
}

/* The answer instead of the library's page. */
static void
http_own_json(StringInfo json, const char *page, Size size)
{
	char *text = pnstrdup(page, size);
	int	  i = 0;

	while (strstr(text, http_own_refusals[i].page) == NULL)
		i++;
	pfree(text);
	streamext_http_error_json(json, http_own_refusals[i].error, http_own_refusals[i].hint, -1);
}

static struct MHD_Response *
http_create_json(const char *page, Size size)
{
	StringInfoData		 json;
	struct MHD_Response *response;

	initStringInfo(&json);
	http_own_json(&json, page, size);
	response = http_create(json.len, json.data, MHD_RESPMEM_MUST_COPY);
	if (response != NULL)
		(void) MHD_add_response_header(response, "Content-Type", "application/json");
	pfree(json.data);
	return response;
}

PGDLLEXPORT struct MHD_Response *
MHD_create_response_from_buffer(size_t size, void *buffer, enum MHD_ResponseMemoryMode mode)
{
	static const char page[] = "<html>";

	if (http_create == NULL)
		http_create = (HttpCreate) dlsym(RTLD_NEXT, "MHD_create_response_from_buffer");
	if (http_serves && mode == MHD_RESPMEM_PERSISTENT && size > strlen(page) && memcmp(buffer, page, strlen(page)) == 0)
		return http_create_json(buffer, size);
	return http_create(size, buffer, mode);
}

PGDLLEXPORT enum MHD_Result
MHD_lookup_connection_value_n(struct MHD_Connection *mhd, enum MHD_ValueKind kind, const char *name, size_t name_size,
							  const char **value, size_t *value_size)
{
	enum MHD_Result found;
	const char	   *text = NULL;
	size_t			size = 0;

	if (http_lookup == NULL)
		http_lookup = (HttpLookup) dlsym(RTLD_NEXT, "MHD_lookup_connection_value_n");
	found = http_lookup(mhd, kind, name, name_size, &text, &size);
	if (http_serves && kind == MHD_HEADER_KIND)
	{
		if (name_size == strlen("Host") && pg_strcasecmp(name, "Host") == 0)
			found = MHD_YES;
		else if (found == MHD_YES && name_size == strlen("Content-Length") &&
				 pg_strcasecmp(name, "Content-Length") == 0 &&
				 (size == 0 || size > HTTP_LENGTH_DIGITS || strspn(text, "0123456789") != size))
			found = MHD_NO;
	}
	if (value != NULL && found == MHD_YES)
		*value = text;
	if (value_size != NULL && found == MHD_YES)
		*value_size = size;
	return found;
}
