/*
 * durable/checkpoint_log.h
 *		The table streamext_internal.checkpoint_log: rows, checksums, the position row, compaction.
 *
 * Rows are only ever inserted, at the table's end. A row belongs to a stream and shard; `seq` numbers its checkpoints from 1,
 * `part` the rows of one. Kinds:
 *	'E'	a piece of the changed groups of one pane of one view (durable/checkpoint_write.c knows what is in it)
 *	'P'	a piece of the position row, last in its checkpoint
 *	'S'	seq 0: where a new view begins on a source that cannot be replayed (StartRow)
 *	'I'	negative seq, with 'E' of the same: what a view begins with (durable/checkpoint_seed.h)
 *	'H'	no stream's: the file's first row after a compaction, how many bytes were alive then (int64)
 * A checkpoint (seq above 0) is complete if its position row is there; each row's data begins with a checksum of the whole row.
 *
 * From the last position row follows what is alive: of each of its views the 'E' rows from the view's base on. The rest dies with
 * the next compaction, which writes the live rows into a new file of the table and commits that.
 */
#ifndef STREAMEXT_CHECKPOINT_LOG_H
#define STREAMEXT_CHECKPOINT_LOG_H

#include "base/streamext.h"
#include "source/connector.h"
#include "lib/stringinfo.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

#define CHECKPOINT_ROW_BYTES 4000 /* of data a row at most: two rows fill a page */

#define CHECKPOINT_MARK_BYTES 65536

#define CHECKPOINT_ENTRIES 'E'
#define CHECKPOINT_POSITION 'P'
#define CHECKPOINT_START 'S'
#define CHECKPOINT_HEADER 'H'
#define CHECKPOINT_SEED 'I'

/* A row that is to be written or was read. */
typedef struct CheckpointRow
{
	int64 seq;
	int64 pane;
	Oid	  stream;
	Oid	  view;
	int32 shard;
	int32 part;
	char  kind;
	int32 size; /* of data */
	char *data;
} CheckpointRow;

/* Where a row is. */
typedef struct CheckpointRef
{
	int64			seq;
	int32			part;
	int32			shard;
	Oid				stream;
	Oid				view;
	ItemPointerData tid;
	char			kind;
} CheckpointRef;

typedef struct CheckpointIndex
{
	int			   n;
	int			   capacity;
	CheckpointRef *refs; /* ascending by stream, shard, seq, part */
} CheckpointIndex;

/* ---- the position row: durable/checkpoint_position.c ---- */

typedef struct CheckpointPartition
{
	char		topic[256];
	int32		partition;
	int32		unused;
	int64		position;
	int64		start_position;
	int64		begin;
	TimestampTz max_event_time;
	uint64		rows;
	uint64		missed;
	RecordMark	last; /* of the last record read: whether the source is the same is seen by it */
} CheckpointPartition;

typedef struct CheckpointViewHead
{
	uint64		definition;
	int64		base;		/* checkpoint that holds all of the view's groups */
	int64		first_pane; /* earlier ones had been dropped */
	int64		round;		/* ViewSlot.counted.round */
	int64		retry;		/* ViewSlot.counted.retry */
	int64		start_position;
	uint64		accepted;
	uint64		late;
	uint64		rejected;
	uint64		rows;	   /* in the log from base on */
	uint64		bytes;	   /* of these, about */
	TimestampTz watermark; /* of a view that was behind */
	TimestampTz horizon;   /* ViewState.horizon */
	uint64		layout;	   /* ViewSlot.counted.layout */
	uint64 history; /* what was in history then, as in ViewSlot: panes up to `sealed`, which are not among the groups */
	int64  sealed;
	TimestampTz sealed_until;
	int64		history_shard;
	uint64		groups; /* in memory, and their panes; for the catalogue */
	uint64		panes;
	Oid			viewoid;
	int32		behind;
} CheckpointViewHead;

typedef struct CheckpointView
{
	CheckpointViewHead head;
	int64			  *positions;	   /* by partition */
	TimestampTz		  *max_event_time; /* only if behind */
} CheckpointView;

typedef struct CheckpointPositionHead
{
	uint32		magic;
	uint32		version; /* of the format and of PostgreSQL */
	uint64		source;	 /* as StreamSlot.counted.source */
	TimestampTz taken_at;
	TimestampTz watermark;
	uint64		batches;
	uint64		rows_in;
	uint64		bytes_in;
	uint64		rejected;
	int64		seek;  /* as StreamSlot.counted.seek */
	int64		retry; /* as StreamSlot.counted.retry */
	Oid			dboid;
	int32		npartitions;
	int32		nviews;
	int32		first_part; /* number of the row that begins the position row */
} CheckpointPositionHead;

typedef struct CheckpointPosition
{
	int64				   seq;
	CheckpointPositionHead head;
	CheckpointPartition	  *partitions;
	CheckpointView		  *views;
	char				  *mark; /* the connector's (ConnectorOps.mark), behind the views; mostly there is none */
	uint32				   mark_size;
	uint64				   tombstones; /* as StreamSlot.counted.tombstones; last in the row, if there were any */
} CheckpointPosition;

struct PartitionSlot;
struct StreamCounted;

/* What the stream has counted, and back, its array of partitions excepted: checkpoint_counts.c. Partitions are allocated in the current context. */
extern void streamext_checkpoint_take_counts(const struct StreamCounted *from, CheckpointPosition *to);
extern void streamext_checkpoint_give_counts(const CheckpointPosition *from, struct StreamCounted *to);
extern void streamext_checkpoint_give_partition(const CheckpointPartition *from, struct PartitionSlot *to);

extern void streamext_checkpoint_encode(StringInfo to, const CheckpointPosition *position);
/* In the current memory context; NULL if it makes no sense (to this version). */
extern CheckpointPosition *streamext_checkpoint_decode(const char *data, Size size);
/* The watermark by which the view, as it is in the checkpoint, has counted all that the stream had read; DT_NOBEGIN: it has not. */
extern TimestampTz	   streamext_checkpoint_settled(const CheckpointPosition *position, const CheckpointView *view);
extern CheckpointView *streamext_checkpoint_find_view(const CheckpointPosition *position, Oid viewoid);

typedef struct StartRow
{
	int64		position;
	TimestampTz at;
} StartRow;

/* ---- reading; in a transaction ---- */

/* The table with a lock of this mode, without waiting; NULL: not to be had, or there is none. */
extern Relation streamext_checkpoint_log_open(LOCKMODE lockmode);
/* The same, but waits. */
extern Relation streamext_checkpoint_log_wait(LOCKMODE lockmode);

/* All rows, or those of one stream and shard; in the current memory context. */
extern CheckpointIndex *streamext_checkpoint_log_index(Relation rel, Snapshot snapshot, Oid stream, int32 shard);

/* The row with data in the current memory context; raises XX001 if its checksum is wrong. */
extern void streamext_checkpoint_log_fetch(Relation rel, Snapshot snapshot, const CheckpointRef *ref,
										   CheckpointRow *row);

/*
 * The last complete checkpoint among refs[0 .. n) of one stream and shard; NULL: none. Raises XX001 if it is damaged. *seq
 * gets the highest number there is, of an incomplete one too.
 */
extern CheckpointPosition *streamext_checkpoint_log_last(Relation rel, Snapshot snapshot, const CheckpointRef *refs,
														 int n, int64 *seq);

/* ---- writing; in a transaction ---- */

typedef struct CheckpointWriter CheckpointWriter;

/* With RowExclusiveLock. */
extern CheckpointWriter *streamext_checkpoint_writer(Relation rel);
extern void				 streamext_checkpoint_write(CheckpointWriter *writer, const CheckpointRow *row);
/* Any number of bytes, as rows from row->part on, which is raised by as many. */
extern void streamext_checkpoint_write_bytes(CheckpointWriter *writer, CheckpointRow *row, char *bytes, int size);
/* Everything is in the table when this returns. */
extern void streamext_checkpoint_writer_end(CheckpointWriter *writer);

/*
 * Outside transactions: if the table is worth it, does the compaction. False: it would be, but is not possible now. `alive`: bytes that
 * the caller knows to be alive; that much again must be to gain.
 */
extern bool streamext_checkpoint_log_compact(int64 alive);

#endif /* STREAMEXT_CHECKPOINT_LOG_H */
