/*
 * gateway/http_clear.c
 *		Whether a request's head can be read in one way only. What others on the way may read as two requests, or as another one, is refused.
 *
 * libmicrohttpd is lenient where RFC 9112 lets it be: lines that end in LF alone, headers that go on in the next line, NULs in values. It parses the
 * head in place and tells what is where, so a head whose parts do not lie next to each other as they must is seen by that.
 */
#include "base/streamext.h"

#include <ctype.h>

#include "gateway/http_private.h"

typedef struct HttpSeams
{
	const char *next; /* where the next header must begin */
	const char *why;  /* NULL: nothing is wrong so far */
	int			hosts, lengths, encodings, singles[4];
} HttpSeams;

/* Others that decide what a request is: one of each. */
static const char *const http_singles[] = { "Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key" };

/* A character of a header's name. */
static bool
http_is_token(unsigned char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		   (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool
http_is_name(const char *name, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (!http_is_token((unsigned char) name[i]))
			return false;
	return size > 0;
}

static bool
http_is_value(const char *value, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (((unsigned char) value[i] < ' ' && value[i] != '\t') || value[i] == 0x7f)
			return false;
	return true;
}

static bool
http_is(const char *name, size_t size, const char *what)
{
	return size == strlen(what) && pg_strncasecmp(name, what, size) == 0;
}

static const char *
http_look_at_framing(HttpSeams *seams, const char *name, size_t size, const char *value, size_t value_size)
{
	if (http_is(name, size, "Host") && seams->hosts++ > 0)
		return "the request has several Hosts";
	if (http_is(name, size, "Content-Length"))
	{
		if (seams->lengths++ > 0)
			return "the request has several Content-Lengths";
		if (value_size == 0 || value_size > HTTP_LENGTH_DIGITS || strspn(value, "0123456789") != value_size)
			return "the Content-Length is no number of bytes";
	}
	if (http_is(name, size, "Transfer-Encoding"))
	{
		if (seams->encodings++ > 0)
			return "the request has several Transfer-Encodings";
		if (!http_is(value, value_size, "chunked"))
			return "the Transfer-Encoding is another one than chunked";
	}
	for (int i = 0; i < lengthof(http_singles); i++)
		if (http_is(name, size, http_singles[i]) && seams->singles[i]++ > 0)
			return "a header that may be there once is there several times";
	return NULL;
}

static enum MHD_Result
http_look_at_header(void *cls, enum MHD_ValueKind kind, const char *name, size_t size, const char *value,
					size_t value_size)
{
	HttpSeams *seams = cls;

	if (value == NULL || name != seams->next)
		seams->why = "a line of the head does not end in CRLF, goes on in the next line, or holds a NUL";
	else if (!http_is_name(name, size) || !http_is_value(value, value_size))
		seams->why = "a header has characters that it must not have";
	else
		seams->why = http_look_at_framing(seams, name, size, value, value_size);
	seams->next = value + value_size + 2;
	return seams->why == NULL ? MHD_YES : MHD_NO;
}

static const char *
http_look_at_whole(HttpRequest *request, const HttpSeams *seams, const char *method, const char *version)
{
	const union MHD_ConnectionInfo *head =
		MHD_get_connection_info(request->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	bool old = strcmp(version, MHD_HTTP_VERSION_1_0) == 0;

	if (!old && strcmp(version, MHD_HTTP_VERSION_1_1) != 0)
		return "the version is neither HTTP/1.1 nor HTTP/1.0";
	if (seams->lengths > 0 && seams->encodings > 0)
		return "the request has both Content-Length and Transfer-Encoding";
	if (old ? seams->encodings > 0 : seams->hosts == 0)
		return old ? "HTTP/1.0 has no Transfer-Encoding" : "the request has no Host";
	if (head == NULL || method + head->header_size != seams->next + 2)
		return "the head holds a NUL, or a line of it is no header or does not end in CRLF";
	return NULL;
}

const char *
streamext_http_unclear(HttpRequest *request, const char *method, const char *version)
{
	HttpSeams seams = { version + strlen(version) + 2 };

	(void) MHD_get_connection_values_n(request->mhd, MHD_HEADER_KIND, http_look_at_header, &seams);
	request->body.chunked = seams.encodings > 0;
	return seams.why != NULL ? seams.why : http_look_at_whole(request, &seams, method, version);
}

/* "%00" stays what it is: texts here end with a NUL. In place, as the library's own. */
size_t
streamext_http_unescape(void *cls, struct MHD_Connection *mhd, char *text)
{
	char *to = text;

	for (const char *p = text; *p != '\0'; p++)
	{
		int byte = 0;

		if (*p == '%' && isxdigit((unsigned char) p[1]) && isxdigit((unsigned char) p[2]))
			byte = (int) strtol((char[3]){ p[1], p[2], '\0' }, NULL, 16);
		*to++ = byte > 0 ? (char) byte : *p;
		p += byte > 0 ? 2 : 0;
	}
	*to = '\0';
	return to - text;
}
