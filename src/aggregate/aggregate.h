/*
 * aggregate/aggregate.h
 *		How the partial state of one aggregate is kept, combined and finished.
 *
 * Three ways, chosen once for a view by streamext_aggregate_compile:
 *	NATIVE	fixed-size state in the group's entry; folded by a loop over vectors under the lock; cannot raise or allocate.
 *	TRANS	PostgreSQL's own transition function, run in worker memory; after a batch the changed states are serialised
 *			(serialfn for internal, the datum's bytes otherwise) and copied under the lock into blobs of the pane. The
 *			worker's states are only a cache of what is published: after an error or restart they are dropped and read back.
 *			Needs a combine function (and for internal the serialise pair).
 *	VALUES	the argument rows themselves are kept, in arrival order, in blobs of the pane, and PostgreSQL's own aggregate
 *			is run over them by the reader (DISTINCT, ORDER BY, WITHIN GROUP, no combine function). Memory grows with rows.
 *
 * All states are position independent but for pointers to blobs, which readers pass through streamext_state_copied.
 */
#ifndef STREAMEXT_AGGREGATE_H
#define STREAMEXT_AGGREGATE_H

#include "base/streamext.h"
#include "lib/stringinfo.h"
#include "nodes/primnodes.h"
#include "state/pane.h"

typedef enum AggMode
{
	AGG_NATIVE,
	AGG_TRANS,
	AGG_VALUES
} AggMode;

/* The rows of a batch that an aggregate takes: after WHERE, lateness and its own FILTER. */
typedef struct AggInput
{
	int				   n;
	const int		  *rows;   /* n row numbers, into the argument vectors */
	GroupEntry *const *groups; /* n */
	Pane *const		  *panes;  /* n */
	Datum			 **args;   /* nargs vectors by row number */
	bool			 **nulls;
} AggInput;

typedef struct NativeAggregate
{
	Oid	   aggfnoid;
	uint32 state_size;								 /* multiple of 8; the empty state is all zero */
	void (*fold)(uint32 offset, const AggInput *in); /* offset: of the state within GroupEntry.data */
	void (*combine)(void *into, const void *from); /* also in threads: nothing of PostgreSQL that allocates or raises */
	Datum (*final)(const void *state, bool *isnull); /* may raise (as PostgreSQL's would) */
} NativeAggregate;

typedef struct AggSpec
{
	Aggref				  *aggref; /* as in the view's query */
	AggMode				   mode;
	const NativeAggregate *native;
	List  *args;	   /* of Expr: direct, aggregated and ordering arguments that are evaluated for each row */
	Expr  *filter;	   /* or NULL */
	uint32 offset;	   /* of its state in GroupEntry.data, set by view_compile */
	uint32 state_size; /* multiple of 8 */

	/* TRANS and VALUES */
	Oid	  transfn, finalfn, combinefn, serialfn, deserialfn;
	Oid	  transtype; /* resolved, never polymorphic */
	int16 translen;
	bool  transbyval;
	bool  finalextra;
	Datum initval;
	bool  initnull;
} AggSpec;

/*
 * Decides how to keep an aggregate. Raises 0A000 naming the construct where it cannot be kept right
 * (e.g. volatile arguments are view_compile's business, hypothetical-set aggregates are this one's).
 */
extern void streamext_aggregate_compile(Aggref *aggref, AggSpec *spec);

/* ---- worker ---- */

typedef struct AggRuntime AggRuntime;

extern AggRuntime *streamext_aggregate_start(const AggSpec *spec, ViewState *state, MemoryContext cxt);
/* Nothing of a batch is prepared. */
extern void streamext_aggregate_end(AggRuntime *agg);

/*
 * Before publication, unlocked: everything that may raise or allocate. *row is the row number being worked on, for the
 * caller's error handling. Returns false when memory is full. After a raise or a false the caller calls forget.
 */
extern bool streamext_aggregate_prepare(AggRuntime *agg, const AggInput *in, volatile int *row);
/*
 * The same row by row, for aggregates whose functions raise on some: begin, try for what belongs together, end; and once all have been tried,
 * finish (in: of those that went through) in the place of prepare. Whatever of these raised, undo brings the state back to what it was at the last begin.
 */
extern void streamext_aggregate_try_begin(AggRuntime *agg);
extern void streamext_aggregate_try_row(AggRuntime *agg, const AggInput *in, int row, Pane *pane, GroupEntry *entry);
extern void streamext_aggregate_try_end(AggRuntime *agg);
extern void streamext_aggregate_try_undo(AggRuntime *agg);
extern bool streamext_aggregate_try_finish(AggRuntime *agg, const AggInput *in, volatile int *row);
/* With the exclusive lock: folds (NATIVE) or copies what prepare made. Cannot raise. */
extern void streamext_aggregate_publish(AggRuntime *agg, const AggInput *in);
/* Drops what prepare made since the last publish. */
extern void streamext_aggregate_forget(AggRuntime *agg);
/* The pane is about to be dropped. */
extern void streamext_aggregate_forget_pane(AggRuntime *agg, Pane *pane);

/* ---- checkpoints: what of a state stands outside of the entry, or is not to be copied as it is ---- */

/* Takes the next bytes of an export. */
typedef void (*AggPut)(void *arg, const void *bytes, Size size);

/* Does the mode's state need export and import beside its plain bytes? */
#define streamext_aggregate_is_plain(spec) ((spec)->mode == AGG_NATIVE)

/*
 * The published state's further bytes: of VALUES the rows behind those that a committed checkpoint has, which are noted in
 * the state as belonging to the cut, of period state->period - 1; whole: all rows. Between batches, by the writer.
 */
extern Size streamext_aggregate_export_size(const AggSpec *spec, const ViewState *state, const GroupEntry *entry,
											bool whole);
extern void streamext_aggregate_export(const AggSpec *spec, const ViewState *state, GroupEntry *entry, bool whole,
									   AggPut put, void *arg);

/*
 * Gives a state back. Exports of one entry are offered newest first. `raw`: the state's own bytes in this export; of the
 * newest they stand in the entry already. False: memory is full; raises XX001 for what cannot be.
 */
extern bool streamext_aggregate_import(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry,
									   bool newest, const char *raw, const char *bytes, Size size);
/* After the last one. Raises if something is missing. */
extern void streamext_aggregate_import_end(const AggSpec *spec, const ViewState *state, GroupEntry *entry);

/* ---- reader ---- */

typedef struct AggReader  AggReader;
typedef struct AggPartial AggPartial;

/* collation and types come from the spec's aggref. Run it in the reader's own session. */
extern AggReader *streamext_aggregate_reader(const AggSpec *spec, MemoryContext cxt);

/* The empty partial, in the current memory context. */
extern AggPartial *streamext_partial_empty(AggReader *reader);
/* The partial that an entry holds; entry and copy must outlive it. */
extern AggPartial *streamext_partial_load(AggReader *reader, const GroupEntry *entry, const StateCopy *copy);
extern AggPartial *streamext_partial_copy(AggReader *reader, const AggPartial *partial);
/* into := into, then from. `into` must come from empty or copy (not load). */
extern void streamext_partial_combine(AggReader *reader, AggPartial *into, const AggPartial *from);
/*
 * The partial as bytes, for streamext_partial_take of a reader of the same aggregate in this process. Take: a partial in the current memory context
 * that needs the bytes no more; to be combined from, not into. Raises XX001 for bytes that are not of the aggregate's size.
 */
extern void		   streamext_partial_give(AggReader *reader, const AggPartial *partial, StringInfo to);
extern AggPartial *streamext_partial_take(AggReader *reader, const char *bytes, Size size);
/* The aggregate's value in the current memory context; may change the partial's contents (give it a copy if it is needed again). */
extern Datum streamext_partial_final(AggReader *reader, AggPartial *partial, bool *isnull);

#endif /* STREAMEXT_AGGREGATE_H */
