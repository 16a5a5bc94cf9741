/*
 * durable/flow_position.h
 *		How far the closed windows of a continuous view have gone into the streams of the views over it: the table streamext_internal.flow, a row for
 *		each outer view.
 *
 * The outer view's worker says from where on and under which number it counts them (settle); the inner view's worker writes how far it has
 * given them (save), together with their rows, and only under that number. So what was given to a view that was begun anew since
 * is void, and neither waits for the other.
 */
#ifndef STREAMEXT_FLOW_POSITION_H
#define STREAMEXT_FLOW_POSITION_H

#include "base/streamext.h"

typedef struct FlowPosition
{
	uint64		number;	 /* of what the outer view counts; 0: it has no row */
	uint64		inner;	 /* streamext_inner_number of the windows that it wants */
	int64		begins;	 /* in its journal */
	TimestampTz written; /* windows that end by then are there, of sessions those whose last row is; DT_NOBEGIN: none */
} FlowPosition;

/* Of the outer view. Needs a transaction with a snapshot. */
extern FlowPosition streamext_flow_load(Oid outer);

/* The view counts from its journal's position `begins` on, and wants windows from the first on; keep: from where it was. */
extern void streamext_flow_begin(Oid outer, uint64 number, uint64 inner, int64 begins, bool keep);

/* In the transaction that gives the rows of windows in (from, until]; 40001: another process has, or the view has been begun anew. */
extern void streamext_flow_save(Oid outer, uint64 number, TimestampTz from, TimestampTz until);

/* Rows of views that are no more, or that are over no other view any more, go. In a transaction with a snapshot. */
extern void streamext_flow_forget_former(void);

#endif /* STREAMEXT_FLOW_POSITION_H */
