/*
 * sql/columns.h
 *		What a stream's columns have found in its payloads.
 */
#ifndef STREAMEXT_COLUMNS_H
#define STREAMEXT_COLUMNS_H

#include "base/streamext.h"

#include "base/stream_def.h"

/* Of all shards, by attribute number less 1: config->desc->natts. */
extern void streamext_columns_sum(const StreamConfig *config, ColumnCounts *counts);

/* What to do about a column that finds nothing; NULL: it does, or nobody knows. Names fields of records: for who may SELECT. */
extern char *streamext_column_hint(const StreamConfig *config, const StreamColumn *column, const ColumnCounts *counts);

#endif /* STREAMEXT_COLUMNS_H */
