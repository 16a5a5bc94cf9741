/*
 * view/reads.h
 *		Which stream, or which continuous view's closed windows, a query reads.
 */
#ifndef STREAMEXT_VIEW_READS_H
#define STREAMEXT_VIEW_READS_H

#include "base/streamext.h"
#include "storage/lockdefs.h"

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
extern bool streamext_view_is_union_all(const Node *operations);

/* The same of an entry of the query's FROM; windows: only continuous views whose windows close are looked for, else only streams. */
extern Oid streamext_view_found_in_entry(const Query *query, const RangeTblEntry *rte, bool windows);

/* Whether the entry of a flattened query is a UNION ALL that reads streams. */
extern bool streamext_union_is(const RangeTblEntry *entry);

/* The continuous view that the rewriter has expanded to this entry; InvalidOid: none. */
extern Oid streamext_view_of_entry(const RangeTblEntry *rte);

/*
 * The stream or view that a view reads, by its rule alone; InvalidOid: none, `several` by UNION ALL, or the view is gone. It is locked meanwhile, and on
 * unless `back` is AccessShareLock.
 */
extern Oid streamext_view_reads(Oid relid, LOCKMODE back, bool *several);
/*
 * The stream that a continuous view reads, by its rule alone: no other checks; InvalidOid if it has none. One that reads another continuous
 * view has a stream of its own: the view itself.
 */
extern Oid streamext_view_stream(Oid relid);

#endif /* STREAMEXT_VIEW_READS_H */
