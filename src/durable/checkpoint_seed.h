/*
 * durable/checkpoint_seed.h
 *		What a view begins with that was counted elsewhere: rows of the checkpoint log that belong to no checkpoint.
 *
 * They are written by the transaction that makes the view continuous again, with a new round (durable/round.h), and are to that round what the
 * last checkpoint is to a view that has one: the worker begins with them, and who has no worker to ask reads them. From the first checkpoint on that
 * has the view at this round they mean nothing any more.
 */
#ifndef STREAMEXT_CHECKPOINT_SEED_H
#define STREAMEXT_CHECKPOINT_SEED_H

#include "durable/checkpoint_log.h"
#include "state/pane.h"
#include "view/compile.h"

/* Their seq: below those of checkpoints, and of rows 'S'. */
#define CHECKPOINT_SEED_SEQ(round) (-(round))

/*
 * Writes the seed of one shard. The position has one view, of which positions, newest event times, watermark and counts are the caller's to fill; its
 * partitions are those of the shard, with topic, number, position and newest event time. state: private, all of its entries visible; NULL: no
 * groups. In a transaction with a snapshot, which keeps a lock on the log.
 */
extern void streamext_checkpoint_seed_write(const CompiledView *view, int shard, int64 round,
											CheckpointPosition *position, const ViewState *state);

/*
 * The newest seed of the view of a round above `round` among the refs, which are of one stream and shard; NULL: there is none. In the current memory
 * context; its seq is for streamext_checkpoint_load_view. Raises XX001 if it is damaged.
 */
extern CheckpointPosition *streamext_checkpoint_seed_find(Relation rel, Snapshot snapshot, const CheckpointIndex *refs,
														  Oid viewoid, int64 round);

#endif /* STREAMEXT_CHECKPOINT_SEED_H */
