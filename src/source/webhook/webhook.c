/*
 * source/webhook/webhook.c
 *		Foreign tables that rows are put into and none come from: each is sent to a URL by POST (sink/webhook.c). As a source it has no
 *		partitions.
 */
#include "base/streamext.h"

#include "source/connector.h"
#include "source/webhook/options.h"

#define WEBHOOK_HEADER_NAME 100

static void
webhook_check_url(const OptionSpec *spec, const char *value)
{
	if (strncmp(value, "http://", 7) != 0 && strncmp(value, "https://", 8) != 0)
		streamext_option_invalid(spec, value, "It begins with http:// or https://.");
	/* everybody may read a server's options */
	value = strstr(value, "://") + 3;
	if (memchr(value, '@', strcspn(value, "/?#")) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE), errmsg("invalid value for option \"%s\"", spec->name),
				 errdetail("The URL holds a user or password, which all roles could read."),
				 errhint("Put a secret into the user mapping: bearer_token, or bearer_token_file.")));
}

bool
streamext_webhook_is_name(const char *header)
{
	return strspn(header, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == strlen(header);
}

/* Headers that say how the request is to be read, or whose it is. */
static const char *const webhook_reserved[] = { "Accept",
												"Authorization",
												"Connection",
												"Content-Encoding",
												"Content-Length",
												"Content-Type",
												"Cookie",
												"Expect",
												"Host",
												"Idempotency-Key",
												"Keep-Alive",
												"Range",
												"TE",
												"Transfer-Encoding",
												"Trailer",
												"Upgrade" };

static void
webhook_check_header(const OptionSpec *spec, const char *value)
{
	size_t length = strlen(value);

	if (length == 0 || length > WEBHOOK_HEADER_NAME)
		streamext_option_invalid(spec, value, "A header's name has 1 to 100 characters.");
	for (int i = 0; i < lengthof(webhook_reserved); i++)
		if (pg_strcasecmp(value, webhook_reserved[i]) == 0)
			streamext_option_invalid(spec, value, "The request has a header of that name already.");
	if (!streamext_webhook_is_name(value))
		streamext_option_invalid(spec, value, "A header's name has letters, digits, hyphens and underscores.");
}

const OptionSpec streamext_webhook_options[] = {
	{ "url", PLACE_SERVER, OPTION_TEXT, .required = true, .check = webhook_check_url },
	{ "ssl_ca_location", PLACE_SERVER, OPTION_FILE },
	{ "bearer_token", PLACE_MAPPING, OPTION_TEXT, .secret = true },
	{ "bearer_token_file", PLACE_MAPPING, OPTION_SECRET_FILE },
	{ "signature_header", PLACE_TABLE, OPTION_TEXT, .check = webhook_check_header },
	{ "signature_secret_file", PLACE_TABLE, OPTION_SECRET_FILE },
	{ "attempts", PLACE_TABLE, OPTION_INT, NULL, 1, 1000, 10 },
	{ "timeout", PLACE_TABLE, OPTION_INTERVAL, NULL, 100000, INT64CONST(600) * USECS_PER_SEC,
	  INT64CONST(10) * USECS_PER_SEC },
	{ NULL },
};

static void
webhook_check_options(OptionPlace place, List *options)
{
	streamext_option_conflict(options, "bearer_token", "bearer_token_file");
}

static Connector *
webhook_open(const ConnectorOpen *args)
{
	Connector *c = MemoryContextAllocZero(args->cxt, sizeof(Connector));

	c->ops = &streamext_webhook_ops;
	c->config = args->config;
	c->shard = args->shard;
	c->shards = args->shards;
	c->wait_fd = -1;
	return c;
}

static void
webhook_seek(Connector *c, int index, int64 position)
{
}

static int
webhook_poll(Connector *c, StreamRecord *records, int max)
{
	return 0;
}

static bool
webhook_flush_target(Connector *c, uint64 ticket, int64 *targets)
{
	return true;
}

static bool
webhook_find(Connector *c, SeekKind kind, TimestampTz time, int64 *positions)
{
	return true;
}

static void
webhook_pause(Connector *c, bool paused)
{
}

static void
webhook_nothing(Connector *c)
{
}

const ConnectorOps streamext_webhook_ops = {
	.name = "webhook",
	.number = 20,
	.replayable = true,
	.writable = true,
	.published = true,
	.silent = true,
	.sets_latch = true,
	.payloads = true,
	.options = streamext_webhook_options,
	.check_options = webhook_check_options,
	.open = webhook_open,
	.seek = webhook_seek,
	.poll = webhook_poll,
	.release = webhook_nothing,
	.flush_target = webhook_flush_target,
	.find = webhook_find,
	.pause = webhook_pause,
	.close = webhook_nothing,
};
