/*
 * durable/checkpoint.h
 *		What a worker keeps in the database so that after any crash its views go on exactly where they were.
 *
 * A checkpoint is the groups that have changed since the one before and, last, the position row: how far the stream and each
 * view have counted. It is cut between two batches, copied and written in slices between the batches that follow, and holds from the
 * commit of its position row on.
 */
#ifndef STREAMEXT_CHECKPOINT_H
#define STREAMEXT_CHECKPOINT_H

#include "base/streamext.h"
#include "shared/shard.h"
#include "shared/shmem.h"

typedef struct Checkpoint Checkpoint;

/* Settings (module.c). */

/*
 * In each transaction that looks into the catalogue, before the stream's configuration is installed; the first time it finds
 * the last checkpoint. Raises if the log is locked, or another process still works for this stream and shard.
 */
extern void streamext_checkpoint_open(Shard *shard);

/* Whether there was one, and it could be read. */
extern bool streamext_checkpoint_is_known(const Shard *shard);

/*
 * Gives a stream that shared memory knows nothing of what the last checkpoint says, if that is of the same source. In a
 * transaction, after slot->source is set; raises when memory is full, then source is 0.
 */
extern void streamext_checkpoint_restore_stream(Shard *shard);

/* These are the stream's views; what was kept of others is void. */
extern void streamext_checkpoint_keep_views(Shard *shard, List *oids);

/*
 * The same for a view whose slot had no state (definition 0) before its fold was started. In a transaction; raises when memory
 * is full. A damaged checkpoint is reported and not used: the view is empty, at its start.
 */
extern void streamext_checkpoint_restore_view(Shard *shard, WorkerView *v);

/*
 * What the view begins with at this round if it was counted elsewhere (durable/checkpoint_seed.h), unless the last checkpoint has it already; else NULL.
 * In the current memory context. In a transaction; raises XX001 if it is damaged. restore_seed: in the place of restore_view, when the
 * stream has its partitions; raises when memory is full.
 */
extern struct CheckpointPosition *streamext_checkpoint_seed(Shard *shard, Oid viewoid, uint64 definition, int64 round);
extern void streamext_checkpoint_restore_seed(Shard *shard, WorkerView *v, const struct CheckpointPosition *seed);

/* The round of the view's state in the last checkpoint; `otherwise` if there is none of this definition. */
extern int64 streamext_checkpoint_round(const Shard *shard, Oid viewoid, uint64 definition, int64 otherwise);

/* Whatever is being written or on its way to the disk, the connector is told nothing of it. */
extern void streamext_checkpoint_confirm_nothing(Shard *shard);

/* What the connector has given the last checkpoint for its next open; good until the next one is taken. *size 0: nothing. */
extern const char *streamext_checkpoint_mark(const Shard *shard, uint32 *size);

/* Where a view began on a source that cannot be replayed, as its CREATE VIEW noted; -1: not known. In a transaction. */
extern int64 streamext_checkpoint_start_position(Shard *shard, Oid viewoid);

/* Something that a checkpoint holds may have changed. */
extern void streamext_checkpoint_note(Shard *shard);

/* The same, and somebody waits for the next one: it is taken at once. */
extern void streamext_checkpoint_want(Shard *shard);

/* Whether one that was begun after the last call of want is committed. */
extern bool streamext_checkpoint_is_through(const Shard *shard);

/*
 * While a checkpoint is being copied, before the prepared batch is published: these groups of the view, each in the pane of the same index, are
 * about to change, and are copied first if the cut wants them as they are.
 */
extern void streamext_checkpoint_keep(Shard *shard, const WorkerView *v, GroupEntry *const *groups, Pane *const *panes,
									  int n);

/* While this is true no pane may be dropped and no fold end, */
extern bool streamext_checkpoint_is_copying(const Shard *shard);
/* unless this was called: it copies all there is left. */
extern void streamext_checkpoint_copy_rest(Shard *shard);

/* Does what is due, for some ms at most; no transaction is open. Never raises for what the table does. */
extern void streamext_checkpoint_run(Shard *shard, TimestampTz now);

/* Takes one now that is on disk when this returns. No transaction is open. False: the log does not let us, try again. */
extern bool streamext_checkpoint_now(Shard *shard);

/* When there is something to do; DT_NOEND: never. */
extern TimestampTz streamext_checkpoint_deadline(Shard *shard, TimestampTz now);

/* The worker ends: a last checkpoint, durable when this returns. No transaction is open, interrupts are held. */
extern void streamext_checkpoint_finish(Shard *shard);

/* ---- any backend ---- */

/* Notes in this transaction where a new view on a source that cannot be replayed begins. */
extern void streamext_checkpoint_note_start(Oid stream, int shard, Oid viewoid, int64 position);

#endif /* STREAMEXT_CHECKPOINT_H */
