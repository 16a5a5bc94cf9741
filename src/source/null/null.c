/*
 * source/null/null.c
 *		A source without a source, for tests and for benchmarks without a broker: the same payload `records` times, or every second time another
 *		one, whose positions count from 0. What is not in the SQL script: tests make its wrapper.
 *
 * The smallest connector that can be replayed. Record i comes i milliseconds after 2000-01-01, so that what is read again is the same.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "source/connector.h"

typedef struct NullConnector
{
	Connector		   c;
	ConnectorPartition partition;
	const char		  *payload;
	uint32			   payload_size;
	const char		  *other; /* of the records with odd positions */
	uint32			   other_size;
	bool			   paused;
} NullConnector;

static const OptionSpec null_options[] = {
	{ "other", PLACE_TABLE, OPTION_TEXT },
	{ "records", PLACE_TABLE, OPTION_INT, NULL, 0, PG_INT64_MAX, 0 },
	{ "payload", PLACE_TABLE, OPTION_TEXT },
	{ NULL },
};

static const MetadataSpec null_metadata[] = {
	{ "offset", METADATA_OFFSET },
	{ "timestamp", METADATA_TIMESTAMP },
	{ NULL },
};

static Connector *
null_open(const ConnectorOpen *args)
{
	NullConnector *null = MemoryContextAllocZero(args->cxt, sizeof(NullConnector));
	Connector	  *c = &null->c;
	const char	  *payload = streamext_option(args->config->table_options, "payload");
	const char	  *other;

	c->ops = &streamext_null_ops;
	c->config = args->config;
	c->shard = args->shard;
	c->shards = args->shards;
	c->wait_fd = -1;
	c->npartitions = 1;
	c->partitions = &null->partition;
	strlcpy(null->partition.topic, "null", sizeof(null->partition.topic));
	null->partition.last.position = -1;
	null->partition.high_watermark =
		streamext_option_number(null_options, PLACE_TABLE, args->config->table_options, "records");
	null->payload = MemoryContextStrdup(args->cxt, payload != NULL ? payload : "{}");
	null->payload_size = strlen(null->payload);
	other = streamext_option(args->config->table_options, "other");
	null->other = other != NULL ? MemoryContextStrdup(args->cxt, other) : null->payload;
	null->other_size = strlen(null->other);
	return c;
}

static void
null_seek(Connector *c, int index, int64 position)
{
	c->partitions[0].position = Max(position, 0);
}

static int
null_poll(Connector *c, StreamRecord *records, int max)
{
	NullConnector *null = (NullConnector *) c;
	int			   n = Min(max, Max(null->partition.high_watermark - null->partition.position, 0));

	if (null->paused)
		return 0;
	memset(records, 0, sizeof(StreamRecord) * n);
	for (int i = 0; i < n; i++)
	{
		StreamRecord *record = &records[i];

		bool odd = null->partition.position % 2 == 1;

		record->payload = odd ? null->other : null->payload;
		record->payload_size = odd ? null->other_size : null->payload_size;
		record->topic = null->partition.topic;
		record->position = null->partition.position++;
		record->next_position = null->partition.position;
		record->timestamp = record->position * 1000;
	}
	return n;
}

static void
null_release(Connector *c)
{
}

static bool
null_flush_target(Connector *c, uint64 ticket, int64 *targets)
{
	targets[0] = c->partitions[0].high_watermark;
	return true;
}

static bool
null_find(Connector *c, SeekKind kind, TimestampTz time, int64 *positions)
{
	positions[0] = kind == SEEK_EARLIEST ? 0 : c->partitions[0].high_watermark;
	return true;
}

static void
null_pause(Connector *c, bool paused)
{
	((NullConnector *) c)->paused = paused;
}

static void
null_close(Connector *c)
{
}

const ConnectorOps streamext_null_ops = {
	.name = "null",
	.number = 1000,
	.replayable = true,
	.payloads = true,
	.options = null_options,
	.metadata = null_metadata,
	.open = null_open,
	.seek = null_seek,
	.poll = null_poll,
	.release = null_release,
	.flush_target = null_flush_target,
	.find = null_find,
	.pause = null_pause,
	.close = null_close,
};
