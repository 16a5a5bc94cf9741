/*
 * aggregate/values.h
 *		What the files of VALUES aggregates share.
 *
 *	aggregate/values.c			rows of arguments, and how a worker appends them
 *	aggregate/values_export.c	checkpoints
 *	aggregate/values_reader.c	partials, also as bytes for others
 */
#ifndef STREAMEXT_AGGREGATE_VALUES_H
#define STREAMEXT_AGGREGATE_VALUES_H

#include "aggregate/portable.h"

/* Rows back to back. */
typedef struct ValuesNode
{
	struct ValuesNode *next;	 /* means nothing to who has read `count` rows */
	uint32			   capacity; /* of data[] */
	uint32			   used;	 /* likewise */
	char			   data[FLEXIBLE_ARRAY_MEMBER];
} ValuesNode;

/* uint32 size (all, multiple of 8), null bits, then at multiples of 8 the values: a Datum, or the bytes by reference. */
#define VALUES_ROW_HEADER(ncolumns) MAXALIGN(sizeof(uint32) + ((ncolumns) + 7) / 8)

/* What stands in a group's entry. */
typedef struct ValuesState
{
	ValuesNode *head;	   /* set by the writer unlocked; good once count > 0 */
	ValuesNode *tail;	   /* published */
	uint64		count;	   /* published */
	uint64		tail_used; /* published */

	/* how far the rows are in checkpoints; the writer's alone */
	ValuesNode *mark;		 /* the node that holds the last such row */
	uint64		mark_count;	 /* rows up to there; while a checkpoint is loaded: that are missing yet */
	uint32		mark_used;	 /* of that node */
	uint32		mark_period; /* of the checkpoint, which may not have been committed */
} ValuesState;

/* Constants stay in the reader's aggregate call. */
static inline bool
streamext_values_stored(const TargetEntry *tle)
{
	return !IsA(tle->expr, Const);
}

extern ValuesColumn *streamext_values_columns(const AggSpec *spec);
/* Bytes of a row; by-reference values are replaced by flat ones with a four-byte header. */
extern uint32 streamext_values_row_size(const AggSpec *spec, const ValuesColumn *columns, Datum *values,
										const bool *nulls);
extern void	  streamext_values_write_row(const AggSpec *spec, const ValuesColumn *columns, char *at, uint32 size,
										 const Datum *values, const bool *nulls);

/* The values of the one argument, NULLs left out, as an array; and the states of which that is true (aggregate/parts.h). */
extern Datum streamext_values_array(AggReader *reader, const AggPartial *partial, bool *isnull);
extern void	 streamext_values_assemble(const AggSpec *spec, Datum array, bool isnull, GroupEntry *entry,
									   StringInfo extra);

/* Of the mode (aggregate/mode.h). */
extern void	 streamext_values_start(AggRuntime *agg);
extern bool	 streamext_values_prepare(AggRuntime *agg, const AggInput *in, volatile int *row);
extern void	 streamext_values_publish(AggRuntime *agg, const AggInput *in);
extern void	 streamext_values_forget(AggRuntime *agg);
extern Size	 streamext_values_export_size(const AggSpec *spec, const ViewState *state, const GroupEntry *entry,
										  bool whole);
extern void	 streamext_values_export(const AggSpec *spec, const ViewState *state, GroupEntry *entry, bool whole,
									 AggPut put, void *arg);
extern bool	 streamext_values_import(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry, bool newest,
									 const char *raw, const char *bytes, Size size);
extern void	 streamext_values_import_end(const AggSpec *spec, const ViewState *state, GroupEntry *entry);
extern void	 streamext_values_reader(AggReader *reader);
extern Datum streamext_values_final(AggReader *reader, AggPartial *partial, bool *isnull);
extern void	 streamext_values_combine(AggReader *reader, AggPartial *into, const AggPartial *from);
extern void	 streamext_values_give(AggReader *reader, const AggPartial *partial, StringInfo to);
extern void	 streamext_values_take(AggReader *reader, AggPartial *partial, const char *bytes, Size size);
extern void	 streamext_values_send(AggReader *reader, const AggPartial *partial, StringInfo to);
extern void	 streamext_values_receive(AggReader *reader, AggPartial *partial, PortableCursor *from);
extern void	 streamext_values_load(AggReader *reader, AggPartial *partial, const char *state, const StateCopy *copy);

#endif /* STREAMEXT_AGGREGATE_VALUES_H */
