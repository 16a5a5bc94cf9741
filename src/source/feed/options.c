/*
 * source/feed/options.c
 *		The options of feeds: servers, user mappings, streams; and what the profiles preset.
 *
 * A profile is nothing but defaults of other options. Where a feed is stands in the server's options, so only who may create servers says
 * whom this server connects to.
 */
#include "base/streamext.h"

#include <curl/curl.h>

#include "nodes/makefuncs.h"

#include "base/path.h"
#include "source/feed/options.h"
#include "source/journal/journal.h"

typedef struct FeedPreset
{
	const char *name, *value;
} FeedPreset;

#define FEED_PRESETS 10

static const char *const words_framing[] = { "ndjson", "sse", "websocket", "array", NULL };
static const char *const words_resume[] = { "none", "last_event_id", "query", NULL };
static const char *const words_profile[] = { "x", "mastodon", "bluesky", "wikimedia", NULL };

/* In the order of words_profile. */
static const FeedPreset profile_presets[][FEED_PRESETS] = {
	{ { "framing", "ndjson" }, { "idle_timeout", "21 s" }, { "dedupe_path", "data.id" }, { "error_path", "errors" } },
	{ { "framing", "sse" }, { "idle_timeout", "60 s" }, { "events", "update,status.update" } },
	{ { "framing", "websocket" },
	  { "idle_timeout", "60 s" },
	  { "resume", "query" },
	  { "resume_parameter", "cursor" },
	  { "resume_path", "time_us" },
	  { "rewind", "5 s" },
	  { "dedupe_path", "$" } },
	{ { "framing", "sse" },
	  { "idle_timeout", "60 s" },
	  { "resume", "last_event_id" },
	  { "skip_path", "meta.domain" },
	  { "skip_value", "canary" } },
};

/* ---- single values ---- */

/* Whether the URL's scheme is of websockets, of TLS. */
static bool
feed_url_is_websocket(const char *url)
{
	return pg_strncasecmp(url, "ws://", 5) == 0 || pg_strncasecmp(url, "wss://", 6) == 0;
}

static void
feed_check_url(const OptionSpec *spec, const char *value)
{
	static const char *const schemes[] = { "http://", "https://", "ws://", "wss://" };
	bool					 good = false;

	for (int i = 0; i < lengthof(schemes); i++)
		good = good || pg_strncasecmp(value, schemes[i], strlen(schemes[i])) == 0;
	if (good)
	{
		/* libcurl of Debian 12 knows no ws */
		char  *http = psprintf("http%s", strchr(value, ':'));
		CURLU *url = curl_url();
		char  *user = NULL;

		good = url != NULL && strpbrk(value, " #") == NULL && curl_url_set(url, CURLUPART_URL, http, 0) == CURLUE_OK &&
			   curl_url_get(url, CURLUPART_USER, &user, 0) != CURLUE_OK;
		curl_free(user);
		curl_url_cleanup(url);
	}
	if (!good)
		streamext_option_invalid(spec, value,
								 "The value must be like https://host/stream, with http, https, ws or wss; "
								 "credentials belong in a user mapping.");
}

static void
feed_check_path(const OptionSpec *spec, const char *value)
{
	PathReader reader;
	PathStep   step;
	char	  *key = palloc(strlen(value) + 1);

	streamext_path_begin(&reader, value);
	while ((step = streamext_path_next(&reader, key)) != PATH_END)
		if (step == PATH_FAULT)
			streamext_option_invalid(spec, value, "%s %s", reader.fault, STREAMEXT_PATH_HINT);
	pfree(key);
}

/* What the connection itself needs is not the user's. */
static void
feed_check_header(const OptionSpec *spec, const char *value)
{
	/* spec->name is the whole name of the option */
	static const char *const own[] = { "host",
									   "connection",
									   "content-length",
									   "transfer-encoding",
									   "upgrade",
									   "accept-encoding",
									   "last-event-id",
									   "sec-websocket-key",
									   "sec-websocket-version",
									   "sec-websocket-extensions",
									   "te",
									   "trailer" };
	const char				*name = spec->name + strlen("header ");

	if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.!#$%&'*+^`|~") != strlen(name))
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", spec->name),
						errhint("Behind \"header\" and a blank comes a header's name, like X-Api-Key.")));
	for (int i = 0; i < lengthof(own); i++)
		if (pg_strcasecmp(name, own[i]) == 0)
			ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("invalid option \"%s\"", spec->name),
							errdetail("The connection sets this header itself.")));
}

const OptionSpec streamext_feed_options[] = {
	{ "url", PLACE_SERVER, OPTION_TEXT, .required = true, .check = feed_check_url },
	{ "profile", PLACE_SERVER, OPTION_ENUM, words_profile },
	{ "framing", PLACE_SERVER, OPTION_ENUM, words_framing },
	{ "idle_timeout", PLACE_SERVER, OPTION_INTERVAL, NULL, 1000, USECS_PER_DAY, 0 },
	{ "resume", PLACE_SERVER, OPTION_ENUM, words_resume },
	{ "resume_parameter", PLACE_SERVER, OPTION_TEXT },
	{ "resume_path", PLACE_SERVER, OPTION_TEXT, .check = feed_check_path },
	{ "rewind", PLACE_SERVER, OPTION_INTERVAL, NULL, 0, 365 * USECS_PER_DAY, 0 },
	{ "dedupe_path", PLACE_SERVER, OPTION_TEXT, .check = feed_check_path },
	{ "skip_path", PLACE_SERVER, OPTION_TEXT, .check = feed_check_path },
	{ "skip_value", PLACE_SERVER, OPTION_ANY },
	{ "error_path", PLACE_SERVER, OPTION_TEXT, .check = feed_check_path },
	{ "hello", PLACE_SERVER, OPTION_TEXT },
	{ "events", PLACE_SERVER, OPTION_TEXT },
	{ "ssl_ca_location", PLACE_SERVER, OPTION_FILE },

	{ "bearer_token", PLACE_MAPPING, OPTION_TEXT, .secret = true },
	{ "bearer_token_file", PLACE_MAPPING, OPTION_SECRET_FILE },
	{ "header", PLACE_MAPPING, OPTION_TEXT, .secret = true, .named = true, .check = feed_check_header },

	{ "journal", PLACE_TABLE, OPTION_ENUM, streamext_words_journal, .preset = JOURNAL_OS },
	{ NULL },
};

const MetadataSpec streamext_feed_metadata[] = {
	{ "id", METADATA_KEY },
	{ "event", METADATA_OWN, .text = true },
	{ "timestamp", METADATA_TIMESTAMP },
	{ NULL },
};

/* ---- together ---- */

/* The server's own options, and behind them what its profile presets. */
static List *
feed_with_profile(List *options)
{
	const char *profile = streamext_option(options, "profile");
	List	   *all = list_copy(options);

	for (int i = 0; profile != NULL && words_profile[i] != NULL; i++)
		for (const FeedPreset *preset = profile_presets[i];
			 strcmp(words_profile[i], profile) == 0 && preset->name != NULL; preset++)
			if (streamext_option(options, preset->name) == NULL)
				all = lappend(all, makeDefElem(pstrdup(preset->name), (Node *) makeString(pstrdup(preset->value)), -1));
	return all;
}

static const char *
feed_text(List *options, const char *name)
{
	const char *value = streamext_option(options, name);

	return value != NULL ? pstrdup(value) : NULL;
}

static int64
feed_number(List *options, const char *name)
{
	return streamext_option_number(streamext_feed_options, PLACE_SERVER, options, name);
}

void
streamext_feed_read_options(FeedOptions *options, List *server_options)
{
	List *all = feed_with_profile(server_options);

	memset(options, 0, sizeof(*options));
	options->url = feed_text(all, "url");
	options->framing = (FeedFraming) feed_number(all, "framing");
	if (streamext_option(all, "framing") == NULL && feed_url_is_websocket(options->url))
		options->framing = FEED_WEBSOCKET;
	options->idle_timeout = feed_number(all, "idle_timeout");
	options->resume = (FeedResume) feed_number(all, "resume");
	options->resume_parameter = feed_text(all, "resume_parameter");
	options->resume_path = feed_text(all, "resume_path");
	options->rewind = feed_number(all, "rewind");
	options->dedupe_path = feed_text(all, "dedupe_path");
	options->skip_path = feed_text(all, "skip_path");
	options->skip_value = feed_text(all, "skip_value");
	options->error_path = feed_text(all, "error_path");
	options->hello = feed_text(all, "hello");
	options->events = feed_text(all, "events");
	options->ssl_ca_location = feed_text(all, "ssl_ca_location");
}

static void
feed_refuse(const char *name, const char *needs, const char *hint)
{
	ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_OPTION_NAME), errmsg("option \"%s\" needs %s", name, needs),
					errhint("%s", hint)));
}

static void
feed_check_server(List *given)
{
	FeedOptions options;

	streamext_feed_read_options(&options, given);
	if (options.framing != FEED_WEBSOCKET && feed_url_is_websocket(options.url))
		feed_refuse("url", "framing websocket", "Give an http or https URL, or set framing to websocket.");
	if (options.framing != FEED_WEBSOCKET && options.hello != NULL)
		feed_refuse("hello", "framing websocket", "Only a websocket takes a message from us.");
	if (options.framing != FEED_SSE && options.events != NULL)
		feed_refuse("events", "framing sse", "Only server-sent events have names.");
	if (options.framing != FEED_SSE && options.resume == FEED_RESUME_LAST_EVENT_ID)
		feed_refuse("resume", "framing sse", "Only server-sent events have ids: set resume to query or none.");
	if (options.resume == FEED_RESUME_QUERY && options.resume_parameter == NULL)
		streamext_option_missing("resume_parameter", "Resuming by query needs the name of the URL's parameter.");
	if (options.resume == FEED_RESUME_QUERY && options.resume_path == NULL && options.framing != FEED_SSE)
		streamext_option_missing("resume_path", "It says where in a record the parameter's value is.");
	if (options.resume != FEED_RESUME_QUERY &&
		(options.resume_parameter != NULL || options.resume_path != NULL || options.rewind != 0))
		feed_refuse(options.resume_parameter != NULL ? "resume_parameter"
					: options.resume_path != NULL	 ? "resume_path"
													 : "rewind",
					"resume query", "Set resume to query, or drop the option.");
	if (options.skip_value != NULL && options.skip_path == NULL)
		streamext_option_missing("skip_path", "It says where in a record skip_value is looked for.");
}

void
streamext_feed_check_options(OptionPlace place, List *options)
{
	if (place == PLACE_SERVER)
		feed_check_server(options);
	streamext_option_conflict(options, "bearer_token", "bearer_token_file");
}

void
streamext_feed_configure(StreamConfig *config)
{
	config->source.journal =
		(JournalMode) streamext_option_number(streamext_feed_options, PLACE_TABLE, config->table_options, "journal");
}
