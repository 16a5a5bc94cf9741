/*
 * source/feed/options.h
 *		The options of feeds: servers, user mappings, streams; and what the profiles preset.
 */
#ifndef STREAMEXT_FEED_OPTIONS_H
#define STREAMEXT_FEED_OPTIONS_H

#include "source/connector.h"
#include "source/feed/cutter.h"

typedef enum FeedResume
{
	FEED_RESUME_NONE,
	FEED_RESUME_LAST_EVENT_ID,
	FEED_RESUME_QUERY
} FeedResume;

/* A server's options and its profile's, in the context current at the call. Texts not given are NULL. */
typedef struct FeedOptions
{
	const char *url;
	FeedFraming framing;
	int64		idle_timeout; /* 0: none */
	FeedResume	resume;
	const char *resume_parameter, *resume_path;
	int64		rewind;
	const char *dedupe_path;
	const char *skip_path, *skip_value;
	const char *error_path;
	const char *hello;
	const char *events;
	const char *ssl_ca_location;
} FeedOptions;

extern const OptionSpec	  streamext_feed_options[];
extern const MetadataSpec streamext_feed_metadata[];

extern void streamext_feed_read_options(FeedOptions *options, List *server_options);
extern void streamext_feed_check_options(OptionPlace place, List *options);
extern void streamext_feed_configure(StreamConfig *config);

#endif /* STREAMEXT_FEED_OPTIONS_H */
