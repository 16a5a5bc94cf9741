/*
 * stream/definition.h
 *		A stream's definition (base/stream_def.h) as read from the catalogue, and the options that it may have.
 */
#ifndef STREAMEXT_DEFINITION_H
#define STREAMEXT_DEFINITION_H

#include "base/streamext.h"

#include "base/option.h"
#include "base/stream_def.h"
#include "source/connector.h"

/* The connector of a relation; NULL if it is not a stream of this extension. Needs a transaction. */
extern const ConnectorOps *streamext_stream_kind(Oid relid);

/* The kind of a server of ours, else NULL. */
extern const ConnectorOps *streamext_server_kind(Oid serverid);

/* NULL if the relation is not a stream (any more), nor a view that has one of its own. Raises on options that DDL would have refused. */
extern StreamConfig *streamext_stream_config(Oid relid);

/* What the worker of the shard goes by: the definition itself, or that of its part. */
static inline StreamConfig *
streamext_stream_part(StreamConfig *config, int shard)
{
	return shard < list_length(config->from.parts) ? list_nth(config->from.parts, shard) : config;
}

/* The topic under which tables keep what is known by view, topic and position: parts of UNION ALL have the same ones each of its own. */
extern const char *streamext_stream_topic(const StreamConfig *config, const char *topic);

/* What streamext_stream_config returns of a view; set by the room that knows views. */
extern StreamConfig *(*streamext_view_config)(Oid relid);

/*
 * What a stream of the server with these options would be that the role owned, without a name and columns of its own; raises as CREATE FOREIGN
 * TABLE does for options, and 42809 for a server that is not of ours.
 */
extern StreamConfig *streamext_topic_config(Oid serverid, Oid role, List *table_options);

/*
 * StreamSlot.counted.source: a hash of what makes positions mean something. With another one everything kept is void; of some connectors they keep
 * their meaning when there are more workers (ConnectorOps.shards_keep_source).
 */
extern uint64 streamext_worker_source(const StreamConfig *config);

/* The tables of all options that streams of the connector have, its servers and columns too; NULL ends them. */
#define STREAMEXT_OPTION_TABLES 20
extern void streamext_stream_tables(const ConnectorOps *connector, const OptionSpec *tables[STREAMEXT_OPTION_TABLES]);

/* Checks what options and columns mean together (called by the DDL hook after CREATE / ALTER FOREIGN TABLE); raises. */
extern void streamext_stream_check(Oid relid);

/* Raises: a stream has neither parent nor child. */
pg_noreturn extern void streamext_stream_refuse_inheritance(const char *name);

#endif /* STREAMEXT_DEFINITION_H */
