/*
 * read/shard_rows.h
 *		What sql/shard_prepare.c needs to know of the rows that a shard gives (read/shard_rows.c).
 */
#ifndef STREAMEXT_SHARD_ROWS_H
#define STREAMEXT_SHARD_ROWS_H

#include "view/compile.h"

/* This database among all there are: system identifier and OID. */
extern char *streamext_shard_name(void);

/* A continuous view's query as PostgreSQL writes it, all names qualified, and a hash of that. */
extern char *streamext_shard_query_text(Oid viewoid);
extern char *streamext_shard_fingerprint(Oid viewoid);

/* Raises where windows leave by streamext.retention (0A000), or have left (55000): those of a window have to be on all servers or on none. */
extern void streamext_shard_check_whole(const CompiledView *view);

/*
 * The view's own SELECT, with HAVING as WHERE, over `entry`, whose columns are the view's keys and then its aggregates' values in the order in which they
 * stand in the SELECT; order[]: their numbers, which are this server's own.
 */
extern Query *streamext_shard_outputs(const CompiledView *view, RangeTblEntry *entry, int *order);

/* The same as text, over the name SHARD_GROUPS_TOKEN, which stands for the merged groups; columns k1, ..., a1, ... */
#define SHARD_GROUPS_TOKEN "streamext_shard_groups_3f1b6c"
extern char *streamext_shard_outputs_text(const CompiledView *view, int *order);
/* `text` with the first `token` replaced; raises HV000 if there is none. */
extern char *streamext_shard_replace(const char *text, const char *token, const char *by);

#endif /* STREAMEXT_SHARD_ROWS_H */
