/*
 * aggregate/trans.h
 *		What the files of TRANS aggregates share.
 *
 *	aggregate/trans.c			an aggregate's functions, and transition values
 *	aggregate/trans_worker.c	transition values of a worker; checkpoints
 *	aggregate/trans_reader.c	partials, also as bytes for others
 */
#ifndef STREAMEXT_AGGREGATE_TRANS_H
#define STREAMEXT_AGGREGATE_TRANS_H

#include "aggregate/portable.h"

/* ---- what stands in a group's entry ---- */

#define TRANS_PRESENT 1 /* a transition function has run; else the state is the initial one */
#define TRANS_NULL 2	/* the state is NULL */
#define TRANS_EMPTY 4	/* nodeAgg's noTransValue: the next input becomes the state */

/* Written under the lock, the spare by the writer alone. Blob bytes are a whole varlena, or the fixed-length value. */
typedef struct TransState
{
	union
	{
		Datum value; /* by-value types */
		char *blob;	 /* others */
	} u;
	uint32 length; /* of the blob's content */
	uint32 capacity;
	uint32 flags;
	uint32 spare_capacity;
	char  *spare; /* a larger blob that takes over at a publish, or the one that it replaced */
} TransState;

/* ---- calling an aggregate's functions ---- */

typedef struct AggCall
{
	FmgrInfo		 flinfo;
	FunctionCallInfo fcinfo; /* NULL: there is no such function */
} AggCall;

typedef struct AggCalls
{
	const AggSpec *spec;
	AggState	  *aggstate; /* just enough of one for AggCheckCallContext, AggGetAggref and the like */
	MemoryContext  temp;	 /* functions run in it; the user of AggCalls resets it */
	AggCall		   trans, combine, serial, deserial, final;
} AggCalls;

/* The functions of a TRANS aggregate, in the current memory context. Needs a transaction. */
extern AggCalls *streamext_calls_create(const AggSpec *spec, MemoryContext temp);

/* The calls that follow keep what they keep in this aggregate context. */
static inline void
streamext_calls_enter(AggCalls *calls, ExprContext *aggcontext)
{
	calls->aggstate->curaggcontext = calls->aggstate->aggcontexts[0] = aggcontext;
}

/* ---- transition values ---- */

/* A copy in the aggregate context; expanded objects that already live there stay as they are. */
extern Datum	  streamext_trans_keep(AggCalls *calls, Datum value);
extern TransValue streamext_trans_initial(AggCalls *calls);
/* Runs the transition or combine function on state and the inputs in call's arguments 1 .. n. */
extern void streamext_trans_advance(AggCalls *calls, AggCall *call, TransValue *state);
/* into := into, then from. */
extern void streamext_trans_merge(AggCalls *calls, TransValue *into, Datum from, bool isnull);
/* A not-NULL state's bytes as they are published; *length of them. By-reference and internal types only. */
extern char *streamext_trans_serialize(AggCalls *calls, Datum value, uint32 *length);
/* The internal state that serialized bytes stand for, in the current memory context. */
extern Datum streamext_trans_deserialize(AggCalls *calls, const char *bytes);

/* Of the mode (aggregate/mode.h). */
extern bool	 streamext_trans_prepare(AggRuntime *agg, const AggInput *in, volatile int *row);
extern void	 streamext_trans_try_begin(AggRuntime *agg);
extern void	 streamext_trans_try_row(AggRuntime *agg, const AggInput *in, int row, Pane *pane, GroupEntry *entry);
extern void	 streamext_trans_try_end(AggRuntime *agg);
extern void	 streamext_trans_try_undo(AggRuntime *agg);
extern bool	 streamext_trans_try_finish(AggRuntime *agg);
extern void	 streamext_trans_publish(AggRuntime *agg, const AggInput *in);
extern void	 streamext_trans_forget(AggRuntime *agg);
extern void	 streamext_trans_forget_pane(AggRuntime *agg, Pane *pane);
extern void	 streamext_trans_start(AggRuntime *agg);
extern Size	 streamext_trans_export_size(const AggSpec *spec, const ViewState *state, const GroupEntry *entry,
										 bool whole);
extern void	 streamext_trans_export(const AggSpec *spec, const ViewState *state, GroupEntry *entry, bool whole,
									AggPut put, void *arg);
extern bool	 streamext_trans_import(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry, bool newest,
									const char *raw, const char *bytes, Size size);
extern void	 streamext_trans_reader(AggReader *reader);
extern void	 streamext_trans_empty(AggReader *reader, AggPartial *partial);
extern void	 streamext_trans_load(AggReader *reader, AggPartial *partial, const char *state, const StateCopy *copy);
extern void	 streamext_trans_combine(AggReader *reader, AggPartial *into, const AggPartial *from);
extern void	 streamext_trans_copy(AggReader *reader, AggPartial *copy, const AggPartial *partial);
extern void	 streamext_trans_give(AggReader *reader, const AggPartial *partial, StringInfo to);
extern void	 streamext_trans_take(AggReader *reader, AggPartial *partial, const char *bytes, Size size);
extern void	 streamext_trans_send(AggReader *reader, const AggPartial *partial, StringInfo to);
extern void	 streamext_trans_receive(AggReader *reader, AggPartial *partial, PortableCursor *from);
extern Datum streamext_trans_final(AggReader *reader, AggPartial *partial, bool *isnull);

#endif /* STREAMEXT_AGGREGATE_TRANS_H */
