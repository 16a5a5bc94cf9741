/*
 * sql/shard.h
 *		What the two sides of streamext.shard_view share: the server that merges (sql/shard_view.c) and the shards (sql/shard_prepare.c).
 */
#ifndef STREAMEXT_SQL_SHARD_H
#define STREAMEXT_SQL_SHARD_H

#include "view/compile.h"

/* In the texts of queries: in the place of all shards' rows. */
#define SHARD_ROWS_TOKEN "streamext_shard_rows_3f1b6c"

/* Columns of streamext.shard_request: view, relation, columns, query, same, id, partitions */
#define SHARD_REQUEST_COLUMNS 7

/* A name of at most NAMEDATALEN - 1 bytes that ends in this. */
extern char *streamext_shard_object(const char *name, const char *suffix);
/* The continuous view of that name; raises 42809 for another relation. */
extern Oid streamext_shard_find_view(const char *name, bool missing_ok);

/* Of a view at hand: its rows' columns, each behind a comma; the merging query over SHARD_ROWS_TOKEN; all that has to be the same on all shards. */
extern char *streamext_shard_columns(const CompiledView *view);
extern char *streamext_shard_query(const CompiledView *view);
extern char *streamext_shard_same(const CompiledView *view);

#endif /* STREAMEXT_SQL_SHARD_H */
