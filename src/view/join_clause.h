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

/* The range table number of the stream in a FROM that joins; raises 0A000 or 42809 naming the construct. */
extern Index streamext_join_check(Query *query);

/* A condition of WHERE: as streamext_view_check_below, and of its subqueries what may not be joined either. */
extern void streamext_join_check_where(Query *query, Index stream, Node *qual);

/* What of FROM and WHERE the kept state depends on, for nodeToString. */
extern List *streamext_join_definition(const Query *query);
extern List *streamext_join_quals_definition(const List *quals);

#endif /* STREAMEXT_VIEW_JOIN_H */
