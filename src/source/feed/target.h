/*
 * source/feed/target.h
 *		Where a feed is asked for: the URL with the token in it, and redirects. Over libcurl's URL functions; results are malloc'd.
 */
#ifndef STREAMEXT_FEED_TARGET_H
#define STREAMEXT_FEED_TARGET_H

#include "base/streamext.h"

#include <curl/curl.h>

/* ws and wss as libcurl knows them. NULL: it is no URL, or memory is out. */
extern CURLU *streamext_feed_target_parse(const char *url);

/* Sets a parameter of the query; one of that name there already goes. */
extern bool streamext_feed_target_set_parameter(CURLU *url, const char *name, const char *value);

/*
 * The token set back by so many microseconds, if it is a time: seconds, milliseconds, microseconds or nanoseconds since 1970, told by its size, or an
 * ISO 8601 time in UTC. Else false, and *rewound is the token.
 */
extern bool streamext_feed_target_rewind(const char *token, size_t size, int64 rewind, char *rewound, size_t room);

/*
 * Where a redirect leads, which must be the same host and port over the same protocol, or over TLS instead of none. NULL: it must not be followed.
 */
extern char *streamext_feed_target_redirect(const char *from, const char *location);

#endif /* STREAMEXT_FEED_TARGET_H */
