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

/* A copy of an expression, list or query with a subquery's outputs in the place of the columns of its entry, number varno. */
extern void *streamext_flatten_replace(void *node, int varno, RangeTblEntry *entry, List *outputs);

/*
 * Puts the WITH queries of the query itself where they are named. Raises 0A000 for those that cannot be, and 54001 when *entries, the range
 * tables' entries that copies have made so far, is beyond bounds.
 */
extern void streamext_flatten_ctes(Query *query, int *entries);

#define STREAMEXT_FLATTEN_HINT_SETS "Put the function into FROM, with LATERAL if it refers to the stream."

/* Moves set-returning functions of the output that stand below the aggregation into FROM. Raises 0A000 where that is not the same. */
extern void streamext_flatten_sets(Query *query);

/* Whether a flattened query groups by a window. */
extern bool streamext_flatten_has_window(const Query *query);

/* Raises 0A000 for what may not be between a stream and FROM. */
extern void streamext_flatten_check(const Query *subquery);

/* Makes target list and HAVING of a query that PostgreSQL 18 parsed refer to the group expressions themselves. */
extern void streamext_view_flatten_groups(Query *query);

#endif /* STREAMEXT_VIEW_FLATTEN_H */
