/*
 * durable/history_slice.h
 *		Writing panes into the table of history (durable/history.h has what a slice is).
 */
#ifndef STREAMEXT_HISTORY_SLICE_H
#define STREAMEXT_HISTORY_SLICE_H

#include "catalog/indexing.h"
#include "durable/history.h"

/* The table of history, open for writing. */
typedef struct HistoryWriter
{
	Relation		  table;
	CatalogIndexState indexes;
	MemoryContext	  cxt; /* of a pane */
} HistoryWriter;

/* The pane's slices, as rows; *written, the view's totals, are then those through this pane. In memory of the current context. */
extern void streamext_slices_write(HistoryWriter *writer, const CompiledView *view, const ViewSlot *slot,
								   const Pane *pane, HistoryTotals *written);

#endif /* STREAMEXT_HISTORY_SLICE_H */
