/*
 * view/nest.h
 *		Queries in FROM that group by a window: each is a continuous view of its own, whose closed windows are read in its place.
 */
#ifndef STREAMEXT_VIEW_NEST_H
#define STREAMEXT_VIEW_NEST_H

#include "base/streamext.h"
#include "nodes/parsenodes.h"

/*
 * The entry of such a query in one that has been analysed and not been rewritten, what is innermost first.
 * NULL: there is none (any more), or what else the query is is to be refused. WITH queries are put where they are named, and where that cannot be
 * 0A000 is raised.
 */
extern RangeTblEntry *streamext_nest_next(Query *query);

/* The entry's query; its columns have the names that they have outside, each once: a subquery may have two of one name, a view may not. */
extern Query *streamext_nest_query(const RangeTblEntry *entry);

/* Puts the view, which was made of the entry's query, into its place, and of all others that are the same query. */
extern void streamext_nest_replace(Query *query, const RangeTblEntry *entry, Oid view);

#endif /* STREAMEXT_VIEW_NEST_H */
