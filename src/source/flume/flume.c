/*
 * source/flume/flume.c
 *		The source of what Flume's sinks send to a server's gateway (gateway/flume.c): an inbox of blocks, a block for a batch's events of one
 *		stream.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "source/flume/flume.h"
#include "source/journal/block.h"

#define FLUME_KEEP (1024 * 1024) /* of the journal, for a gateway that must know what came last */
#define FLUME_TIME_DIGITS 15	 /* of milliseconds: some 31,000 years */

/* The header timestamp, milliseconds since 1970. False: it is none. */
static bool
flume_time(const FlumeHeader *header, TimestampTz *time)
{
	int64 ms = 0;

	if (header->value_size == 0 || header->value_size > FLUME_TIME_DIGITS)
		return false;
	for (uint32 i = 0; i < header->value_size; i++)
	{
		if (header->value[i] < '0' || header->value[i] > '9')
			return false;
		ms = ms * 10 + (header->value[i] - '0');
	}
	*time = ms * 1000 - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	return IS_VALID_TIMESTAMP(*time);
}

static int
flume_poll(Connector *c, StreamRecord *records, int max)
{
	int n = streamext_block_poll(c, records, max);

	for (int i = 0; i < n; i++)
	{
		FlumeHeader header;

		if (records[i].key != NULL &&
			streamext_flume_head_find(records[i].key, records[i].key_size, "timestamp", &header))
			(void) flume_time(&header, &records[i].timestamp);
	}
	return n;
}

static char *
flume_headers(Connector *c, const StreamRecord *record)
{
	uint32		   at = 0;
	FlumeHeader	   header;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	while (record->key != NULL && streamext_flume_head_next(record->key, record->key_size, &at, &header))
	{
		appendStringInfoString(&json, json.len > 1 ? ", " : "");
		streamext_connector_header_text(&json, header.name, header.name_size);
		appendStringInfoString(&json, ": ");
		streamext_connector_header_text(&json, header.value, header.value_size);
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

static bool
flume_own_metadata(const StreamRecord *record, const StreamColumn *column, const char **value, Size *size)
{
	FlumeHeader header;

	if (record->key == NULL ||
		!streamext_flume_head_find(record->key, record->key_size, column->metadata_name, &header))
		return false;
	*value = header.value;
	*size = header.value_size;
	return true;
}

static const MetadataSpec flume_metadata[] = {
	{ "timestamp", METADATA_TIMESTAMP },
	{ "headers", METADATA_HEADERS },
	{ "header", METADATA_OWN, .named = true },
	{ NULL },
};

static Connector *
flume_open(const ConnectorOpen *args)
{
	Connector *c = streamext_block_open(&streamext_flume_ops, args, "flume", 0);

	((JournalInbox *) c)->keep = FLUME_KEEP;
	return c;
}

const ConnectorOps streamext_flume_ops = {
	.name = "flume",
	.number = 8,
	.journaled = true,
	.pushed = true,
	.gateway = true,
	.blocks = true,
	.payloads = true,
	.bodies = true,
	.sets_latch = true,
	.options = streamext_flume_options,
	.metadata = flume_metadata,
	.configure = streamext_flume_configure,
	.check = streamext_flume_check,
	.own_metadata = flume_own_metadata,
	.open = flume_open,
	.poll = flume_poll,
	.commit = streamext_inbox_commit,
	.headers = flume_headers,
	STREAMEXT_BLOCK_OPS,
};
