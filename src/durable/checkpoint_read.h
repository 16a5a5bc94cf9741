/*
 * durable/checkpoint_read.h
 *		What the last complete checkpoint says, for who has no worker to ask: on a standby, and before a worker has restored a view.
 */
#ifndef STREAMEXT_CHECKPOINT_READ_H
#define STREAMEXT_CHECKPOINT_READ_H

#include "base/streamext.h"
#include "durable/checkpoint_log.h"
#include "state/pane.h"
#include "view/compile.h"

typedef struct CheckpointReader CheckpointReader;

/* A view on one shard, at the checkpoint's positions. */
typedef struct CheckpointedView
{
	const CheckpointPosition *position;
	const CheckpointView	 *view;
	const ViewState			 *state; /* private memory */
} CheckpointedView;

/* Nothing is read before something is asked for. In the current memory context; needs a transaction. */
extern CheckpointReader *streamext_checkpoint_reader(void);
extern void				 streamext_checkpoint_reader_end(CheckpointReader *reader);

/* How many shards the stream has, by its option workers; 0: it is gone. */
extern int streamext_checkpoint_shards(Oid stream);

/*
 * The position row; NULL: no checkpoint, or one of another source. What these return is good until the next call of either;
 * they raise XX001 if the log is damaged.
 */
extern const CheckpointPosition *streamext_checkpoint_read_stream(CheckpointReader *reader, Oid stream, int shard);
/* False: the checkpoint does not have the view, or for a definition whose content readers of this one cannot take (CompiledView.layout). */
extern bool streamext_checkpoint_read_view(CheckpointReader *reader, const CompiledView *view, int shard,
										   CheckpointedView *found);

/*
 * Of a journal: the least position that nobody can have counted yet, as far as the last checkpoint and views with streamext.into tell;
 * 0: no matter.
 */
extern int64 streamext_checkpoint_journal_floor(Oid stream, int shard);

/* What this process keeps of former calls goes. */
extern void streamext_checkpoint_read_forget(void);

#endif /* STREAMEXT_CHECKPOINT_READ_H */
