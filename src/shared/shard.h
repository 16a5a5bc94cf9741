/*
 * shared/shard.h
 *		A worker's process as the rooms below worker/ see it: of which stream and shard it is, its source, its views.
 *
 * worker/ makes and writes it; what is here may be used by durable/ and sink/, which call back by ShardOps only.
 */
#ifndef STREAMEXT_SHARD_H
#define STREAMEXT_SHARD_H

#include "base/streamext.h"
#include "base/stream_def.h"
#include "shared/slots.h"
#include "source/connector.h"
#include "state/pane.h"
#include "view/compile.h"

/* Whose process it is, as the launcher meant it (bgw_extra). */
typedef struct ShardIdentity
{
	Oid dboid;
	Oid relid;
	int shard;
} ShardIdentity;

typedef struct WorkerView
{
	Oid					viewoid;
	char				label[2 * NAMEDATALEN + 8]; /* for messages: the name in quotes, as it was at the last look */
	ViewSlot		   *slot;
	MemoryContext		cxt;			 /* of the compiled view and the fold */
	struct ViewFold	   *fold;			 /* NULL: failed */
	const CompiledView *view;			 /* the fold's; NULL without one */
	bool				prepared;		 /* of the batch at hand */
	bool				too_many_groups; /* why it was not */
	bool				over_share;		 /* the same: its owner's views have too much memory */
	bool				paused;			 /* by streamext.pause: it has its fold, for checkpoints, but reads nothing */

	List *outlets; /* of Outlet (sink/windows.h): who takes its closed windows */

	TimestampTz retired_at; /* its former content; 0: nothing of that is left in history */

	/* behind: it reads what the stream has read before, by a watermark of its own */
	bool		 behind;
	TimestampTz *max_event_time; /* [STREAMEXT_MAX_PARTITIONS]; NULL until needed */
	TimestampTz	 watermark;
} WorkerView;

struct Shard;

/* What lower rooms have the worker do. */
typedef struct ShardOps
{
	/* Ends the view's fold; its state is VIEW_FAILED with the message. */
	void (*fail_view)(struct Shard *shard, WorkerView *v, const char *message);
	/* These panes are about to go. */
	void (*forget_panes)(WorkerView *v, Pane *const *panes, int npanes);
	/* A checkpoint was committed. */
	void (*checkpointed)(struct Shard *shard);
} ShardOps;

typedef struct Shard
{
	ShardIdentity	identity;
	const ShardOps *does;
	int				index; /* of the slot */
	StreamSlot	   *slot;
	bool			catchup; /* this is the catch-up worker: see worker/catchup.c */
	MemoryContext	cxt;	 /* as long as the process */

	/* one configuration */
	StreamConfig	   *config;
	const ConnectorOps *ops;
	Connector		   *connector;	 /* NULL: not open */
	int					npartitions; /* of the connector's, known to the slot */
	bool				attached;	 /* all positions are set and the connector reads from the right place */
	bool				confirmed;	 /* the connector was told of a checkpoint */

	List *followers; /* OIDs of views with UNION ALL whose workers read this stream's journal; as long as the process */
	List *views;	 /* of WorkerView; in the stream's worker those in other hands too, without a fold */
	struct Checkpoint *checkpoint;		   /* NULL: not looked for yet, or no extension any more */
	TimestampTz		   windows_retry_at;   /* windows could not be written into their tables */
	bool			   windows_held;	   /* the last time, and only those that nobody waits for (sink/windows.h) */
	TimestampTz		   windows_trouble_at; /* when the stream said that they wait for room; 0: they do not */
} Shard;

/* The view's own watermark begins; one that it has already is kept. */
extern void streamext_shard_view_begin_behind(WorkerView *v);

#endif /* STREAMEXT_SHARD_H */
