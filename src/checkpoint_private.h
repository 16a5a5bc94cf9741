/*
 * checkpoint_private.h
 *		What checkpoint.c (taking) and checkpoint_load.c (restoring) share.
 *
 * The entries of a pane in one checkpoint are one stream of bytes, cut into rows anywhere: a PaneHead, then for each group an
 * EntryHead, the states as they are in memory (pointers in them mean nothing), the key, and for each aggregate that is
 * not plain (aggregate.h) a uint32 size and so many bytes.
 */
#ifndef STREAMEXT_CHECKPOINT_PRIVATE_H
#define STREAMEXT_CHECKPOINT_PRIVATE_H

#include "access/xlogdefs.h"

#include "checkpoint.h"
#include "checkpoint_log.h"

typedef struct PaneHead
{
	uint64 nrows;	 /* Pane.nrows */
	uint64 nentries; /* that follow */
} PaneHead;

typedef struct EntryHead
{
	uint32 size; /* of what follows */
	uint32 hash;
	uint32 key_size;
} EntryHead;

/* ---- checkpoint_view.c: a view's rows in the log as a state ---- */

typedef struct LoadPane
{
	Pane  *pane;
	uint64 nrows;
} LoadPane;

typedef struct ViewLoad
{
	const CompiledView	  *view;
	const CheckpointView  *from;
	int64				   seq;	  /* of the checkpoint */
	ViewState			  *state; /* just begun */
	Relation			   rel;
	Snapshot			   snapshot;
	const CheckpointIndex *index; /* of the stream and shard; other refs in it are passed over */

	/* the rest by the functions below, in the current memory context */
	bool		  plain; /* aggregates */
	MemoryContext row_cxt;
	LoadPane	 *panes; /* nrows of the newest checkpoint */
	int			  npanes;
	int			  panes_capacity;

	/* the pane of one checkpoint that is being read */
	int64	 pane_id;
	Pane	*pane;
	bool	 headed;
	PaneHead head;
	uint64	 entries; /* read */
	char	*bytes;	  /* not read yet */
	Size	 used;
	Size	 capacity;
} ViewLoad;

/* Raises XX001 for damage, 53400 when shared memory is full. Nothing is visible before show. */
extern void streamext_checkpoint_load_view(ViewLoad *load);
extern void streamext_checkpoint_load_show(const ViewLoad *load);
extern void streamext_checkpoint_load_full(void);

typedef struct CheckpointCut CheckpointCut;

/* A worker's. */
struct Checkpoint
{
	MemoryContext cxt;
	int64		  seq; /* the highest used */

	MemoryContext		last_cxt;
	CheckpointPosition *last;		  /* the last committed one; NULL: none that is of use */
	StringInfoData		last_encoded; /* without what differs anyway, to see whether there is anything new */
	bool				incomplete;	  /* rows of a checkpoint that was given up may be there: the next holds everything */

	/* valid in the transaction that made it */
	CheckpointIndex *index;
	LocalTransactionId index_made;

	bool		   noted;
	TimestampTz	   due_at;
	TimestampTz	   blocked_until; /* the table is locked, or writing failed */
	CheckpointCut *cut;			  /* being written; NULL: none */

	/* committed, but not yet known to be on disk */
	XLogRecPtr		 lsn; /* 0: none */
	const Connector *connector;
	int				 nconfirm;
	int64			*confirm; /* positions for the connector, [STREAMEXT_MAX_PARTITIONS] */
};

#endif							/* STREAMEXT_CHECKPOINT_PRIVATE_H */
