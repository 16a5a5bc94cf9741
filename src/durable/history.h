/*
 * durable/history.h
 *		Sealed panes in the table streamext_internal.history: written once by the worker, read by statements.
 *
 * A pane is sealed when no row can come into it any more: watermark >= the end of the last window that holds it + lateness.
 * durable/history_write.c moves such panes out of shared memory (durable/history_slice.c: as what; durable/history_kept.c: which stay there),
 * durable/history_read.c gives them to readers as copies of the kind that state/pane.h makes of memory.
 */
#ifndef STREAMEXT_HISTORY_H
#define STREAMEXT_HISTORY_H

#include "base/streamext.h"
#include "base/checksum.h"
#include "shared/shard.h"
#include "shared/shmem.h"
#include "state/pane.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"
#include "view/compile.h"

/* Columns of streamext_internal.history; its primary key is the first five. */
enum HistoryColumn
{
	HISTORY_VIEW = 1,
	HISTORY_SHARD,
	HISTORY_PANE,
	HISTORY_BUCKET,
	HISTORY_PART,
	HISTORY_DEFINITION,
	HISTORY_NROWS,
	HISTORY_DATA,
	HISTORY_COLUMNS = HISTORY_DATA
};

/*
 * A slice is a checksum of what follows, this header, nblocks SliceBlocks, the visible entries of a bucket of the pane as they stood
 * in shared memory, but for their hash, and the bytes of the pane's blobs. It is cut into parts, a row each. Buckets: a view whose aggregates
 * are all native has n of them (a power of two, by size), bucket n + (hash & (n - 1)) each; all others have one, number 1. The
 * hash, here and in the entries, is streamext_key_bucket's; readers' copies have memory's.
 *
 * Behind the checksum the header and all that follows are aligned in a decompressed bytea, and can be read where they are.
 */
#define HISTORY_FORMAT 3
#define HISTORY_PAD (MAXIMUM_ALIGNOF - VARHDRSZ)

StaticAssertDecl(HISTORY_PAD == sizeof(pg_crc32c), "a slice begins with its checksum");

/*
 * The column shard: two sets of numbers, so that a view that is begun anew writes beside what it held before, which is read until it
 * has caught up (sql/rebuild.c).
 */
#define HISTORY_SETS 2
#define HISTORY_SHARD_OF(shard, set) ((shard) + (set) *STREAMEXT_MAX_SHARDS)

typedef struct SliceHeader
{
	uint32		  format;
	uint32		  state_size;
	uint32		  nentries;
	uint32		  nblocks;
	uint64		  entries_size;
	uint64		  blobs_size;
	uint64		  nrows; /* of the pane */
	TimestampTz	  floor; /* ViewSlot.history.floor when it was written */
	HistoryTotals pane;	 /* of the pane, in all buckets */
	HistoryTotals total; /* of the view and shard since it began, through this pane */
} SliceHeader;

typedef struct SliceBlock
{
	uint64 shared; /* where its bytes stood: what pointers in entries and blobs refer to */
	uint64 size;
} SliceBlock;

/* Of a whole slice; size is at least HISTORY_PAD. */
static inline pg_crc32c
streamext_slice_checksum(const char *slice, Size size)
{
	return streamext_checksum(slice + HISTORY_PAD, size - HISTORY_PAD);
}

/* ---- the worker ---- */

/*
 * When a fold has been started, in its transaction: finds out what history holds of the view and shard, deletes what is
 * of another definition or source, and drops panes that are in history from memory.
 */
extern void streamext_history_start(Shard *shard_of, WorkerView *v);

/* Deletes the slices of content that was retained before. In a transaction with a snapshot. */
extern void streamext_history_tidy(const ViewSlot *slot);

/* What history has of a view's shard when its fold starts. */
typedef struct HistoryKept
{
	uint64		  key;	 /* of its definition and source */
	int			  shard; /* the set that its slices are in, or are to go to */
	bool		  found; /* there are some; else the rest is nothing */
	int64		  pane;	 /* of the last one; PG_INT64_MIN: none */
	SliceHeader	  last;
	HistoryTotals deleted; /* by retention */
} HistoryKept;

/* Finds that, and deletes what is of another definition or source. There is the table. */
extern void streamext_history_choose(const Shard *shard, const WorkerView *v, HistoryKept *kept);

/* Deletes the slot's slices of panes below `pane`; *deleted, if there were any: what has gone since the view began. */
extern void streamext_history_expire(const ViewSlot *slot, int64 pane, HistoryTotals *deleted);

/*
 * Moves panes that became sealed to history, in a transaction of its own; none may be open. True: there are more.
 * Trouble with the table is logged and tried again later; meanwhile panes stay in memory.
 */
extern bool streamext_history_seal(Shard *shard);
/* When that is due, whatever else happens; DT_NOEND: there was no trouble. */
extern TimestampTz streamext_history_retry_at(void);

/* Deletes what the extension's tables keep of views that are no more, or not continuous any more. In a transaction with a snapshot. */
extern void streamext_history_forget_dropped(void);

/* ---- readers ---- */

/* What a reader notes of a slot with its stream's lock held. */
typedef struct HistoryMark
{
	uint64 history;
	int64  sealed;
	int	   shard;
	bool   checkpointed; /* noted not of a slot but of a checkpoint */
} HistoryMark;

typedef struct HistoryStats
{
	int64 slices;
	int64 groups;
	int64 bytes;
} HistoryStats;

typedef struct CopyArray
{
	StateCopy **items;
	int			n;
	int			capacity;
} CopyArray;

extern void streamext_copy_array_add(CopyArray *array, StateCopy *copy, MemoryContext cxt);

typedef struct HistoryReader HistoryReader;

/*
 * With the snapshot of another reader, or the newest there is: slices that a mark speaks of are seen by it. What is open
 * belongs to the current resource owner.
 */
extern HistoryReader *streamext_history_open(HistoryReader *other);
extern void			  streamext_history_close(HistoryReader *reader);
/* What ViewSlot.history.floor was when the last slice that the reader sees was written: all windows whose slices are gone end by then. */
extern TimestampTz streamext_history_floor(HistoryReader *reader, Oid view, int shard);

/*
 * Slices one by one, ascending by pane: begin (ends what went before), next until NULL. A copy is all in the cxt given. matcher NULL: entries
 * need no hash of memory's.
 */
extern void		  streamext_history_begin(HistoryReader *reader, const CompiledView *view, KeyMatcher *matcher,
										  const HistoryMark *mark, int64 min, int64 max, const uint32 *bucket);
extern StateCopy *streamext_history_next(HistoryReader *reader, HistoryStats *stats, MemoryContext cxt);
/*
 * After begin without a bucket: a copy has one group for all of its slice, without key, with these native aggregates' states combined in order and no
 * others; and how many groups the last copy's one stands for.
 */
extern void	  streamext_history_sum(HistoryReader *reader, const AggSpec *const *aggs, int n);
extern uint32 streamext_history_summed(const HistoryReader *reader);
extern void	  streamext_history_end(HistoryReader *reader);

/*
 * Adds copies, each of one bucket of one pane, with min <= pane <= max and not above the mark; bucket not NULL: only
 * entries with this streamext_key_bucket.
 */
extern void streamext_history_read(HistoryReader *reader, const CompiledView *view, KeyMatcher *matcher,
								   const HistoryMark *mark, int64 min, int64 max, const uint32 *bucket, CopyArray *into,
								   HistoryStats *stats, MemoryContext cxt);

/* The table and its index; InvalidOid: there is none. */
extern Oid streamext_history_relation(void);
/* The first or last slice of a view and shard, header NULL: not looked into; false: there is none. Needs a transaction. */
extern bool streamext_history_edge(Oid view, int shard, bool last, SliceHeader *header, int64 *pane,
								   uint64 *definition);
/* Of the slices with this key, what retention has left; none if the last slice is of another. */
extern HistoryTotals streamext_history_kept(Oid view, int shard, uint64 key);
/* The least view above `after` that has slices; InvalidOid: none. */
extern Oid streamext_history_next_view(Oid after);

#endif /* STREAMEXT_HISTORY_H */
