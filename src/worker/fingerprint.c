/*
 * worker/fingerprint.c
 *		Of a stream's configuration, all on which connector and decoder depend, as a text to be compared.
 */
#include "base/streamext.h"

#include "lib/stringinfo.h"
#include "nodes/nodes.h"

#include "decode/value_options.h"
#include "worker/worker_private.h"

char *
streamext_worker_fingerprint(const StreamConfig *config)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "%u %d %d %d %d %d " INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT " ", config->serverid,
					 config->connector->number, config->event_time, config->source.journal, config->workers,
					 config->buffer_size, config->time.watermark_delay, config->time.idle_timeout,
					 config->time.max_ahead);
	appendStringInfo(&s, "%d %d %u " UINT64_FORMAT " ", config->tombstones_rejected, config->on_error,
					 config->from.inner, config->from.inner_number);
	appendStringInfo(&s, "%u ", config->from.origin);
	appendStringInfo(&s, "%s.%s ", config->schema, config->name);
	appendStringInfoString(&s, nodeToString(config->server_options));
	appendStringInfoString(&s, nodeToString(config->table_options));
	appendStringInfoString(&s, nodeToString(config->user_options));
	for (int i = 0; i < config->desc->natts; i++)
	{
		const StreamColumn *column = &config->columns[i];

		appendStringInfo(&s, " (%d %d %u %d %d %d %s %d %s %s)", column->attnum, column->dropped, column->type,
						 column->typmod, column->notnull, column->metadata,
						 column->metadata_spec ? column->metadata_spec->name : "", column->metadata_number,
						 column->name ? column->name : "", column->path ? column->path : "");
		streamext_value_options_append(&s, column);
	}
	return s.data;
}
