/*
 * durable/checkpoint_state.h
 *		What the files of checkpoints share: durable/checkpoint_cut.c and durable/checkpoint_write.c (taking), durable/checkpoint_restore.c
 *		and durable/checkpoint_view.c
 *		(restoring).
 *
 * The entries of a pane in one checkpoint are one stream of bytes, cut into rows anywhere: a PaneHead, then for each group an
 * EntryHead, the states as they are in memory (pointers in them mean nothing), the key, and for each aggregate that is
 * not plain (aggregate/aggregate.h) a uint32 size and so many bytes.
 */
#ifndef STREAMEXT_CHECKPOINT_PRIVATE_H
#define STREAMEXT_CHECKPOINT_PRIVATE_H

#include "access/xlogdefs.h"
#include "portability/instr_time.h"

#include "durable/checkpoint.h"
#include "durable/checkpoint_log.h"
#include "view/compile.h"

typedef struct PaneHead
{
	uint64 nrows;	 /* Pane.nrows */
	uint64 nentries; /* that follow */
} PaneHead;

typedef struct EntryHead
{
	uint32 size; /* of what follows */
	uint32 hash; /* of the cluster that wrote it (view/key.c); who reads it takes his own from the key */
	uint32 key_size;
} EntryHead;

/* One group as it is now. plain: all aggregates are. */
static inline void
streamext_checkpoint_put_entry(const CompiledView *view, const ViewState *state, GroupEntry *entry, bool whole,
							   bool plain, AggPut put, void *arg)
{
	EntryHead head = { state->state_size + entry->key_size, entry->hash, entry->key_size };

	for (int a = 0; a < view->naggs && !plain; a++)
		if (!streamext_aggregate_is_plain(&view->aggs[a]))
			head.size += sizeof(uint32) + streamext_aggregate_export_size(&view->aggs[a], state, entry, whole);
	put(arg, &head, sizeof(head));
	put(arg, entry->data, state->state_size + entry->key_size);
	for (int a = 0; a < view->naggs && !plain; a++)
	{
		uint32 size;

		if (streamext_aggregate_is_plain(&view->aggs[a]))
			continue;
		size = streamext_aggregate_export_size(&view->aggs[a], state, entry, whole);
		put(arg, &size, sizeof(size));
		streamext_aggregate_export(&view->aggs[a], state, entry, whole, put, arg);
	}
}

/* ---- durable/checkpoint_view.c: a view's rows in the log as a state ---- */

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
	KeyMatcher	 *matcher;
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

/* ---- durable/checkpoint_cut.c: what is to be written ---- */

#define CHECKPOINT_SLICE_MS 5 /* of copying, or writing, between two batches */
#define CHECKPOINT_ROW_OVERHEAD 80

typedef struct CutBlock CutBlock;
typedef struct CutView	CutView;

typedef struct CutRow
{
	struct CutRow *next; /* of the same pane */
	int64		   size;
	char		   data[FLEXIBLE_ARRAY_MEMBER]; /* multiple of 8 from the row's beginning, for a PaneHead */
} CutRow;

typedef struct CutPane
{
	CutView	   *view;
	const Pane *pane; /* while copying */
	int64		id;
	uint64		nrows; /* at the cut */
	CutRow	   *first; /* NULL: not begun */
	CutRow	   *last;  /* open while copying */
} CutPane;

struct CutView
{
	Oid					viewoid;
	ViewSlot		   *slot;
	uint64				definition;
	const CompiledView *view; /* while copying */
	bool				whole;
	bool				plain;	/* aggregates */
	uint32				after;	/* groups with visible in (after, period] are to be copied, */
	uint32				period; /* and copied ones have visible = period + 1 */
	int					npanes;
	CutPane			   *panes; /* ascending by id */
	int32				nrows;
	uint64				bytes;
};

typedef struct CheckpointCut
{
	MemoryContext	   cxt; /* of all of it */
	uint64			   source;
	int64			   seq;
	CheckpointPosition position;
	CutView			  *views;
	int				   nviews;
	const Connector	  *connector; /* that `confirm` is for */
	int				   nconfirm;
	int64			  *confirm;
	TimestampTz		   begun_at;
	uint64			   cost_us;
	uint64			   bytes;
	int32			   nrows;
	CutBlock		  *block;	   /* where rows are added */
	StringInfoData	   comparable; /* the position row without what differs anyway, */
	StringInfoData	   encoded;	   /* and as it is; both once everything is copied */

	/* where copying, then writing, stands */
	bool			  copying;
	int				  view;
	int				  pane;
	const StateBlock *entries; /* copying: of the pane; NULL: at its beginning */
	uint32			  offset;
	CutRow			 *row;		 /* writing: of the pane; NULL: at its beginning */
	int32			  written;	 /* rows, committed or about to be */
	bool			  committed; /* some slice was */
	bool			  wanted;	 /* somebody waits for it */
} CheckpointCut;

/* A worker's. */
struct Checkpoint
{
	MemoryContext cxt;
	int64		  seq; /* the highest used */

	MemoryContext		last_cxt;
	CheckpointPosition *last;		  /* the last committed one; NULL: none that is of use */
	StringInfoData		last_encoded; /* without what differs anyway, to see whether there is anything new */
	bool				incomplete; /* rows of a checkpoint that was given up may be there: the next holds everything */

	/* valid in the transaction that made it */
	CheckpointIndex	  *index;
	LocalTransactionId index_made;

	bool		   noted;
	bool		   wanted; /* without waiting for due_at */
	TimestampTz	   due_at;
	TimestampTz	   blocked_until; /* the table is locked, or writing failed */
	TimestampTz	   trouble_at;	  /* when the latter was noted; 0: it is over */
	CheckpointCut *cut;			  /* being copied, then written; NULL: none */

	/* committed, but not yet known to be on disk */
	XLogRecPtr		 lsn; /* 0: none */
	const Connector *connector;
	int				 nconfirm;
	int64			*confirm; /* positions for the connector, [STREAMEXT_MAX_PARTITIONS] */
	int64			 limited; /* of a journal that others read too: up to where it was given last */
};

/* Between two batches; if something has changed, c->cut is that, to be copied. */
extern void streamext_checkpoint_cut(Shard *shard, TimestampTz now);
/* Some of it, or all; true when everything is copied. */
extern bool streamext_checkpoint_copy(Shard *shard, bool all);
/* If there is one. It may have been given up at any point. */
extern void streamext_checkpoint_cut_free(Checkpoint *c);

static inline uint64
streamext_checkpoint_elapsed_us(instr_time since)
{
	instr_time now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, since);
	return INSTR_TIME_GET_MICROSEC(now);
}

#endif /* STREAMEXT_CHECKPOINT_PRIVATE_H */
