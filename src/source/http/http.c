/*
 * source/http/http.c
 *		The source of what is POSTed to a server's gateway (gateway/http.c): an inbox of blocks, a block for each request.
 */
#include "base/streamext.h"

#include "source/http/http.h"
#include "source/journal/block.h"

void
streamext_http_put(StringInfo common, HttpPart part, const char *name, const char *value, Size size)
{
	appendStringInfoChar(common, (char) part);
	appendBinaryStringInfo(common, name, strlen(name) + 1);
	appendBinaryStringInfo(common, value, size);
	appendStringInfoChar(common, '\0');
}

/* The value of the pair at p, the next pair; NULL: there are no more. */
static const char *
http_pair(const char *p, const char *end, const char **value)
{
	if (p >= end)
		return NULL;
	*value = p + strlen(p) + 1;
	return *value <= end ? *value + strlen(*value) + 1 : NULL;
}

const char *
streamext_http_find(const char *pairs, uint32 size, HttpPart part, const char *name)
{
	const char *p = pairs;
	const char *value, *next;

	while ((next = http_pair(p, pairs + size, &value)) != NULL)
	{
		if (p[0] == (char) part && strcmp(p + 1, name) == 0)
			return value;
		p = next;
	}
	return NULL;
}

static char *
http_headers(Connector *c, const StreamRecord *record)
{
	const char	  *p = record->key;
	const char	  *value, *next;
	StringInfoData json;

	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	while ((next = http_pair(p, record->key + record->key_size, &value)) != NULL)
	{
		if (p[0] == HTTP_PART_HEADER)
		{
			appendStringInfoString(&json, json.len > 1 ? ", " : "");
			streamext_connector_header_text(&json, p + 1, strlen(p + 1));
			appendStringInfoString(&json, ": ");
			streamext_connector_header_text(&json, value, strlen(value));
		}
		p = next;
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

static bool
http_own_metadata(const StreamRecord *record, const StreamColumn *column, const char **value, Size *size)
{
	HttpPart	part = column->metadata_name == NULL		   ? HTTP_PART_ADDRESS
					   : column->metadata_spec->name[0] == 'q' ? HTTP_PART_QUERY
															   : HTTP_PART_HEADER;
	const char *name = column->metadata_name != NULL ? column->metadata_name : "";

	*value = record->key == NULL ? NULL : streamext_http_find(record->key, record->key_size, part, name);
	if (*value == NULL)
		return false;
	*size = strlen(*value);
	return true;
}

static const MetadataSpec http_metadata[] = {
	{ "path", METADATA_TOPIC },
	{ "timestamp", METADATA_TIMESTAMP },
	{ "headers", METADATA_HEADERS },
	{ "header", METADATA_OWN, .named = true },
	{ "query", METADATA_OWN, .named = true },
	{ "remote_address", METADATA_OWN },
	{ NULL },
};

static Connector *
http_open(const ConnectorOpen *args)
{
	return streamext_block_open(&streamext_http_ops, args, "http", 0);
}

const ConnectorOps streamext_http_ops = {
	.name = "http",
	.number = 4,
	.journaled = true,
	.pushed = true,
	.gateway = true,
	.blocks = true,
	.payloads = true,
	.sets_latch = true,
	.options = streamext_http_options,
	.metadata = http_metadata,
	.check_options = streamext_http_check_options,
	.configure = streamext_http_configure,
	.check = streamext_http_check,
	.own_metadata = http_own_metadata,
	.open = http_open,
	.poll = streamext_block_poll,
	.commit = streamext_inbox_commit,
	.headers = http_headers,
	STREAMEXT_BLOCK_OPS,
};
