/*
 * read/gather.h
 *		Groups gathered over panes and shards, each with its slices; and the windows that hop over a group's slices (read/hop.c).
 */
#ifndef STREAMEXT_GATHER_H
#define STREAMEXT_GATHER_H

#include "read/scan.h"

/* What one group's row in one pane and shard holds. */
typedef struct Slice
{
	int64			  pane;
	TimestampTz		  from; /* its rows count in windows that start then or later; DT_NOBEGIN: in all */
	const GroupEntry *entry;
	const StateCopy	 *copy;
} Slice;

typedef struct ScanGroup
{
	uint32			  hash;
	uint32			  key_size;
	int				  nslices;
	int				  nlate;  /* behind those: slices with a `from`, ascending by it */
	Slice			 *slices; /* ascending by pane */
	const GroupEntry *entry;  /* one that holds the key */
} ScanGroup;

/* begin fills it; `done` is for its user, who gathers when the first row is asked for. */
typedef struct Gathered
{
	const CompiledView *view;
	KeyMatcher		   *matcher;
	MemoryContext		cxt;
	bool				done;
	int					ngroups;
	ScanGroup		   *groups;
	int				   *index; /* group + 1 by hash; 0: free */
	uint32				index_mask;
} Gathered;

/* Builds groups, each with its slices in order, of all that was copied; in gathered->cxt. */
extern void streamext_gather(Gathered *gathered, const CopyArray *copies);
/* NULL: there is none. */
extern ScanGroup *streamext_gather_find(const Gathered *gathered, const ScanProbe *probe);

/* An aggregate's partial of a slice, which the reader keeps. */
static inline AggPartial *
streamext_slice_load(AggReader *reader, const Slice *slice)
{
	return streamext_partial_load(reader, slice->entry, slice->copy);
}

/* The hopping windows of a group in the order of their starts. */
typedef struct HopWindows
{
	const CompiledView *view;
	AggReader		  **readers; /* by aggregate; NULL: not wanted */
	MemoryContext		cxt;	 /* partials of the queue are in it */
	const ScanGroup	   *group;

	TimestampTz start;		  /* of the window at hand */
	TimestampTz next_start;	  /* the earliest that may come */
	bool		starts_ended; /* it is beyond the range of int64 */

	/* Slices of the window at hand: [head, middle) with what follows combined, [middle, tail) combined as it came. */
	int			  head, middle, tail;
	AggPartial ***suffixes; /* by slice from 0: of each aggregate, slice to middle - 1 combined */
	AggPartial	**back;		/* of each aggregate, [middle, tail) combined */
	int			  late;		/* of the group's late slices, the first that may still count */
	int			  nlate;	/* that count in the window at hand */
	const Slice **late_slices;
} HopWindows;

/* Before the first window of a group; allocates in hop->cxt, which whoever calls resets between groups. */
extern void streamext_hop_begin(HopWindows *hop, const ScanGroup *group);
/* The next window that holds a slice; false: there is none. */
extern bool streamext_hop_next(HopWindows *hop);
/* Of the window at hand an aggregate's partial that may be changed; in the current memory context. */
extern AggPartial *streamext_hop_partial(const HopWindows *hop, int a);

#endif /* STREAMEXT_GATHER_H */
