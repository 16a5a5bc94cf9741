/*
 * source/feed/target.c
 *		Where a feed is asked for (source/feed/target.h).
 */
#include "base/streamext.h"

#include <time.h>

#include "source/feed/target.h"

CURLU *
streamext_feed_target_parse(const char *url)
{
	const char *colon = strchr(url, ':');
	bool		websocket = pg_strncasecmp(url, "ws", 2) == 0;
	bool		tls = colon != NULL && pg_tolower((unsigned char) colon[-1]) == 's' && colon - url > 2;
	CURLU	   *parsed;
	char	   *http;

	if (colon == NULL || colon == url)
		return NULL;
	http = malloc(strlen(url) + sizeof("https"));
	parsed = curl_url();
	if (http != NULL)
		sprintf(http, "%s%s", websocket ? (tls ? "https" : "http") : "", websocket ? colon : url);
	if (http == NULL || parsed == NULL || curl_url_set(parsed, CURLUPART_URL, http, 0) != CURLUE_OK)
	{
		curl_url_cleanup(parsed);
		parsed = NULL;
	}
	free(http);
	return parsed;
}

/* The query without the parameter; in place. */
static void
target_drop_parameter(char *query, const char *name)
{
	size_t size = strlen(name);
	char  *to = query;

	for (char *part = query; *part != '\0';)
	{
		size_t length = strcspn(part, "&");
		bool   last = part[length] == '\0';

		if (strncmp(part, name, size) != 0 || (part[size] != '=' && size != length))
		{
			if (to != query)
				*to++ = '&';
			memmove(to, part, length);
			to += length;
		}
		part += length + (last ? 0 : 1);
	}
	*to = '\0';
}

bool
streamext_feed_target_set_parameter(CURLU *url, const char *name, const char *value)
{
	char *query = NULL, *set;
	bool  done = true;

	if (curl_url_get(url, CURLUPART_QUERY, &query, 0) == CURLUE_OK && query != NULL)
	{
		target_drop_parameter(query, name);
		done = curl_url_set(url, CURLUPART_QUERY, query[0] != '\0' ? query : NULL, 0) == CURLUE_OK;
	}
	curl_free(query);
	set = malloc(strlen(name) + strlen(value) + 2);
	if (set == NULL)
		return false;
	sprintf(set, "%s=%s", name, value);
	done = done && curl_url_set(url, CURLUPART_QUERY, set, CURLU_APPENDQUERY | CURLU_URLENCODE) == CURLUE_OK;
	free(set);
	return done;
}

/* Microseconds of a unit of a time since 1970 of so many digits: the years 2001 to 2286. 0: of none. */
static int64
target_unit(size_t digits)
{
	switch (digits)
	{
		case 10:
			return USECS_PER_SEC;
		case 13:
			return 1000;
		case 16:
			return 1;
	}
	return 0;
}

static bool
target_rewind_iso(const char *token, int64 rewind, char *rewound, size_t room)
{
	struct tm at = { 0 };
	char	 *rest = strptime(token, "%Y-%m-%dT%H:%M:%S", &at);
	time_t	  seconds;

	if (rest == NULL)
		return false;
	if (*rest == '.')
		rest += 1 + strspn(rest + 1, "0123456789");
	if (strcmp(rest, "Z") != 0 && strcmp(rest, "+00:00") != 0)
		return false;
	seconds = timegm(&at) - (rewind + USECS_PER_SEC - 1) / USECS_PER_SEC; /* and the fraction */
	return gmtime_r(&seconds, &at) != NULL && strftime(rewound, room, "%Y-%m-%dT%H:%M:%SZ", &at) > 0;
}

bool
streamext_feed_target_rewind(const char *token, size_t size, int64 rewind, char *rewound, size_t room)
{
	size_t digits;
	int64  unit;

	size = Min(size, room - 1);
	memcpy(rewound, token, size);
	rewound[size] = '\0';
	if (rewind == 0)
		return true;
	digits = strspn(rewound, "0123456789");
	if (digits != size)
	{
		char text[64];

		strlcpy(text, rewound, sizeof(text));
		return size < sizeof(text) && target_rewind_iso(text, rewind, rewound, room);
	}
	unit = target_unit(digits);
	if (digits == 19)
		snprintf(rewound, room, INT64_FORMAT, (int64) strtoll(rewound, NULL, 10) - rewind * 1000);
	else if (unit > 0)
		snprintf(rewound, room, INT64_FORMAT, (int64) strtoll(rewound, NULL, 10) - (rewind + unit - 1) / unit);
	return unit > 0 || digits == 19;
}

static bool
target_same(CURLU *one, CURLU *other, CURLUPart part, bool *same)
{
	char *a = NULL, *b = NULL;
	bool  good = curl_url_get(one, part, &a, CURLU_DEFAULT_PORT) == CURLUE_OK &&
				curl_url_get(other, part, &b, CURLU_DEFAULT_PORT) == CURLUE_OK;

	*same = good && pg_strcasecmp(a, b) == 0;
	curl_free(a);
	curl_free(b);
	return good;
}

static bool
target_is(CURLU *url, CURLUPart part, const char *what)
{
	char *value = NULL;
	bool  is = curl_url_get(url, part, &value, CURLU_DEFAULT_PORT) == CURLUE_OK && strcmp(value, what) == 0;

	curl_free(value);
	return is;
}

static bool
target_is_allowed(CURLU *from, CURLU *to)
{
	bool  scheme, host, port;
	char *user = NULL;
	bool  named = curl_url_get(to, CURLUPART_USER, &user, 0) == CURLUE_OK;

	curl_free(user);
	if (named || !target_same(from, to, CURLUPART_SCHEME, &scheme) || !target_same(from, to, CURLUPART_HOST, &host) ||
		!target_same(from, to, CURLUPART_PORT, &port) || !host)
		return false;
	if (scheme)
		return port;
	return target_is(from, CURLUPART_SCHEME, "http") && target_is(to, CURLUPART_SCHEME, "https") &&
		   target_is(from, CURLUPART_PORT, "80") && target_is(to, CURLUPART_PORT, "443");
}

char *
streamext_feed_target_redirect(const char *from, const char *location)
{
	CURLU *before = streamext_feed_target_parse(from);
	CURLU *after = before != NULL ? curl_url_dup(before) : NULL;
	char  *url = NULL, *copy = NULL;
	size_t scheme = strcspn(location, ":/?#");

	/* ws and wss by their other names */
	if (location[scheme] == ':' && pg_strncasecmp(location, "ws", 2) == 0)
	{
		curl_url_cleanup(after);
		after = streamext_feed_target_parse(location);
	}
	else if (after != NULL && curl_url_set(after, CURLUPART_URL, location, 0) != CURLUE_OK)
	{
		curl_url_cleanup(after);
		after = NULL;
	}
	if (after != NULL && target_is_allowed(before, after) && curl_url_get(after, CURLUPART_URL, &url, 0) == CURLUE_OK)
		copy = strdup(url);
	curl_free(url);
	curl_url_cleanup(before);
	curl_url_cleanup(after);
	return copy;
}
