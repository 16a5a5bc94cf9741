/*
 * fold/fold.h
 *		One batch into one view: lateness, WHERE, keys, panes, groups, aggregates.
 *
 * prepare does everything that can fail, unlocked; publish runs under the stream's exclusive lock and cannot fail.
 * Rows on which the view's own expressions raise are rejected for this view only. Needs a transaction with an active snapshot.
 */
#ifndef STREAMEXT_FOLD_H
#define STREAMEXT_FOLD_H

#include "base/streamext.h"
#include "decode/batch.h"
#include "shared/shmem.h"
#include "view/compile.h"

typedef struct ViewFold ViewFold;

typedef enum FoldResult
{
	FOLD_OK,
	/* nothing was changed that readers see; the batch must be offered again: */
	FOLD_FULL,			 /* no memory */
	FOLD_TOO_MANY_GROUPS /* more than streamext.max_groups before this batch */
} FoldResult;

/* cxt outlives transactions; the view was compiled in it. Needs a transaction. */
extern ViewFold	 *streamext_fold_start(CompiledView *view, ViewSlot *slot, StreamConfig *config, MemoryContext cxt);
extern FoldResult streamext_fold_prepare(ViewFold *fold, Batch *batch);
extern void		  streamext_fold_publish(ViewFold *fold, Batch *batch);
/* The groups that publish will change, and their panes: so many, with repetitions. */
extern int streamext_fold_groups(const ViewFold *fold, GroupEntry *const **groups, Pane *const **panes);
/* After prepare said OK but another view of the stream did not. */
extern void streamext_fold_abandon(ViewFold *fold);
/* After prepare has raised: the batch goes on without the view, which will come to these records again. The fold is to be ended. */
extern void streamext_fold_withdraw(ViewFold *fold);
/* Drops panes beyond retention (takes the lock); now = the clock. */
extern void streamext_fold_expire(ViewFold *fold, TimestampTz watermark);
/* Of a view that writes into a table: where its table says it stands; -1: nowhere. */
extern int64 streamext_fold_stored_position(const ViewFold *fold, const char *topic, int partition);
/* These panes are about to go. */
extern void			 streamext_fold_forget_panes(ViewFold *fold, Pane *const *panes, int npanes);
extern void			 streamext_fold_end(ViewFold *fold);
extern CompiledView *streamext_fold_view(ViewFold *fold);

#endif /* STREAMEXT_FOLD_H */
