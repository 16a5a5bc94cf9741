/*
 * read/whole.h
 *		All of a view as it is kept, outside of any query: its groups pane by pane, and what they stand for, of one moment (export/handover.c).
 */
#ifndef STREAMEXT_WHOLE_H
#define STREAMEXT_WHOLE_H

#include "durable/checkpoint_read.h"
#include "read/gather.h"

/* How far a shard of a view has counted, in one partition. */
typedef struct WholePartition
{
	char		topic[256];
	int32		partition;
	int64		position; /* next to be counted; -1: from the stream's start */
	TimestampTz newest;	  /* event time; DT_NOBEGIN: none */
	TimestampTz arrival;  /* of the last record, by the clock */
} WholePartition;

typedef struct WholeRead
{
	ViewRead *read;
	Gathered  groups;

	/* over all shards */
	int				npartitions;
	int				capacity;
	WholePartition *partitions;
	bool			former;	   /* some shard has what another definition has counted: of which nothing is told */
	bool			behind;	   /* it has not counted yet all that its stream has read, or is being begun anew */
	TimestampTz		watermark; /* the least; DT_NOBEGIN: there is none yet */
	int				nshards;   /* that have counted anything or are there to count */
	uint64			accepted, late, rejected;
} WholeRead;

/*
 * Of a continuous view, as its shards are published now; where no worker has restored a shard, as its last checkpoint is. In the current memory
 * context, which must outlive it. Needs a transaction; raises as reading the view does.
 */
extern WholeRead *streamext_read_whole(Oid viewoid);

typedef enum WholeStanding
{
	WHOLE_LEVEL,  /* it has counted what its stream has read, or nothing yet */
	WHOLE_BEHIND, /* it is about to */
	WHOLE_STUCK /* it has not, and somebody has to do something: it or its stream is paused, has failed, has no room */
} WholeStanding;

/* How the view stands now, as shared memory has it. */
extern WholeStanding streamext_whole_standing(Oid viewoid);

/* Readers for the view's aggregates, by number, in the current memory context. */
extern AggReader **streamext_whole_readers(const WholeRead *whole);

/* read/statement.c: copies of the whole view to whole->read; what is noted with each shard's, under its stream's lock, is given to `whole`. */
extern void streamext_statement_whole(Oid viewoid, WholeRead *whole);

/* read/whole_counted.c, for read/statement.c: a shard, with its stream's lock held; the same of a checkpoint. */
extern void streamext_whole_note(WholeRead *whole, const StreamSlot *stream, const ViewSlot *slot,
								 const ViewSlot *content);
extern void streamext_whole_note_checkpoint(WholeRead *whole, const CheckpointPosition *position,
											const CheckpointView *view);

#endif /* STREAMEXT_WHOLE_H */
