/*
 * view/flatten.h
 *		One query of what is written with subqueries, WITH and views.
 */
#ifndef STREAMEXT_VIEW_FLATTEN_H
#define STREAMEXT_VIEW_FLATTEN_H

#include "base/streamext.h"

/*
 * A copy in which the stream stands in FROM itself: subqueries, WITH queries and ordinary views that it was in are pulled up, and
 * SELECT DISTINCT has become GROUP BY. The same comes of a view's rule and of what the rewriter has made of it, so that their
 * keys and aggregates stay equal(). Raises 0A000 where the meaning would not be the same. Takes AccessShareLock on the views.
 * *derived, unless NULL: OIDs of the derived streams among the views, if the query is not rewritten.
 */
extern Query *streamext_view_flatten(const Query *query, List **derived);

/* A continuous view of this query, without streamext.into, is a derived stream. */
extern bool streamext_view_is_derived(const Query *query);

/*
 * The stream that the query reads, at any depth and no matter what else is wrong with it; if there is none, the continuous view whose closed
 * windows it reads; InvalidOid: neither.
 */
extern Oid streamext_view_stream_of(const Query *query);

/* The same; *parts, unless NULL: gets what each part of a UNION ALL reads, where it is such. */
extern Oid streamext_view_parts_of(const Query *query, List **parts);

/* Whether Query.setOperations is UNION ALL and nothing else. */
extern bool streamext_flatten_is_union_all(const Node *operations);

/* Raises 0A000 for what may not be between a stream and FROM. */
extern void streamext_flatten_check(const Query *subquery);

/* The continuous view that the rewriter has expanded to this entry; InvalidOid: none. */
extern Oid streamext_view_of_entry(const RangeTblEntry *rte);

#endif /* STREAMEXT_VIEW_FLATTEN_H */
