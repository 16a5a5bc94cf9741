/*
 * view/join_clause.h
 *		FROM of a continuous view that joins its stream with other things: which is the stream, and what may not be there.
 *
 * Everything besides the stream is read as it is when the row arrives: tables, views over tables, subqueries, functions,
 * LATERAL. The stream's rows must all be kept by outer joins, for what never arrives cannot be extended with NULLs.
 */
#ifndef STREAMEXT_VIEW_JOIN_H
#define STREAMEXT_VIEW_JOIN_H

#include "base/streamext.h"

/* True unless FROM is one plain item. */
extern bool streamext_join_is_join(const Query *query);

/* The range table number of the stream in a FROM that joins; raises 0A000 or 42809 naming the construct. */
extern Index streamext_join_check(Query *query);

/* The stream that the query reads, no matter what else is wrong with it; InvalidOid: none. */
extern Oid streamext_join_stream_of(const Query *query);

/* What of FROM the kept state depends on, for nodeToString. */
extern List *streamext_join_definition(const Query *query);

#endif /* STREAMEXT_VIEW_JOIN_H */
