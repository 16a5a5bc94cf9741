/*
 * view/union.h
 *		UNION ALL of streams as the one input of a continuous view.
 *
 * The view has a stream of its own, as one over another view has (view/inner.h): known by the view's OID, in no catalogue. Each part of the
 * UNION ALL is a shard of it, whose worker reads the part's stream at its source, with positions of its own. The view is compiled over the
 * columns of the UNION ALL; a shard's worker puts its part's expressions in their place. So state, checkpoints, history and answers are
 * those of any view on a stream with several workers.
 */
#ifndef STREAMEXT_UNION_H
#define STREAMEXT_UNION_H

#include "base/streamext.h"
#include "base/stream_def.h"
#include "view/compile.h"

/* One part: SELECT expressions FROM a stream WHERE ..., flattened. */
typedef struct UnionPart
{
	Oid		   stream;
	AttrNumber event_time; /* of the stream; 0: none of its columns */
	Query	  *query;	   /* its own; the stream is its entry `varno` */
	Index	   varno;
	List	  *outputs; /* TargetEntry of each column, of the column's type */
	Node	  *quals;	/* or NULL */
} UnionPart;

/* Its parts in their order, each checked (0A000); *derived: gets the derived streams that are in them. */
extern List *streamext_union_parts(const RangeTblEntry *entry, List **derived);

/* The streams that the continuous view reads by UNION ALL, by its rule alone; NIL: it does not. Takes AccessShareLock on it. */
extern List *streamext_union_streams(Oid viewoid);

/* The continuous views that read the stream by UNION ALL. Locks are left on no view; those that a transaction holds are among them if in doubt. */
extern List *streamext_union_views(Oid stream);

/* What streamext_stream_config returns of such a view, with the parts' definitions; NULL: it is none. */
extern StreamConfig *streamext_union_config(Oid relid);

/* What a part puts into the place of the columns of the UNION ALL, for streamext_view_take_part (view/compile.h). */
typedef struct UnionTake UnionTake;
extern UnionTake		*streamext_union_take(const CompiledView *view, int shard);
/* A copy of the expression, list or query over the part's stream. */
extern void *streamext_union_replace(const UnionTake *take, void *node);
/* The same of conditions, behind those of the part. */
extern List *streamext_union_quals(const UnionTake *take, List *quals);
/* The same of the view's query, whose FROM then has the part's stream. */
extern Query *streamext_union_query(const UnionTake *take, Query *query);

#endif /* STREAMEXT_UNION_H */
