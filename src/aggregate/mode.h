/*
 * aggregate/mode.h
 *		The ways of keeping an aggregate behind one interface, and the objects that all of them fill.
 */
#ifndef STREAMEXT_AGGREGATE_MODES_H
#define STREAMEXT_AGGREGATE_MODES_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/execnodes.h"
#include "utils/hsearch.h"
#include "utils/tuplestore.h"

#include "aggregate/aggregate.h"

struct AggCalls;
struct AggWire;
struct PortableCursor;
struct TransGroup;
struct TransPane;
struct TransUndo;
struct valuespending_hash;

/* A transition value. */
typedef struct TransValue
{
	Datum value;
	bool  isnull;
	bool  empty; /* nodeAgg's noTransValue: the next input becomes the state */
} TransValue;

typedef struct ValuesColumn
{
	int16 len;
	bool  byval;
	int32 row_typmod; /* of ROW(...) in this process, set by the reader; else -1 */
} ValuesColumn;

/* One entry's rows. */
typedef struct ValuesSegment
{
	const struct ValuesState *state;
	const StateCopy			 *copy;
} ValuesSegment;

struct AggRuntime
{
	const AggSpec *spec;
	ViewState	  *state;
	MemoryContext  cxt;
	MemoryContext  temp;
	int			   nargs;

	/* TRANS */
	struct AggCalls	   *calls;
	HTAB			   *panes; /* of TransPane, by Pane * */
	struct TransPane   *last_pane;
	MemoryContext		staging;
	struct TransGroup **touched; /* since the last publish or forget */
	int					ntouched;
	int					touched_capacity;
	uint64				tries; /* rows tried one by one */
	struct TransUndo   *undo;  /* what the one at hand has touched, as it was */
	int					nundo;
	int					undo_capacity;
	MemoryContext		undo_cxt; /* of the copies in it; NULL: none was tried yet */

	/* VALUES */
	int						   nstrict; /* a row with a NULL among the first nstrict arguments is not taken */
	ValuesColumn			  *columns;
	Datum					  *values; /* nargs of the row being appended */
	bool					  *nulls;
	struct valuespending_hash *pending; /* since the last publish or forget */
};

struct AggPartial
{
	MemoryContext  cxt; /* it was made in; its state grows there */
	void		  *native;
	TransValue	   trans;
	bool		   loaded; /* trans is the worker's transition value, not yet combined; not ours to change */
	ValuesSegment *segments;
	int			   nsegments;
	int			   segments_capacity;
};

struct AggReader
{
	const AggSpec *spec;
	MemoryContext  cxt;
	int16		   resultlen;
	bool		   resultbyval;

	/* TRANS */
	struct AggCalls *calls;
	ExprContext		*aggcontext; /* its per-tuple memory is that of the partial being worked on */

	/* portable partials: of TRANS the state's type, of VALUES the columns'; made when needed */
	struct AggWire *wires;

	/* VALUES: a plan over a tuplestore, ready to be run; empty between calls */
	ValuesColumn	*columns;
	int				 ncolumns;
	TupleDesc		 rowdesc;
	Tuplestorestate *rows;
	EState			*estate;
	PlanState		*planstate;
	Datum			*values;
	bool			*nulls;
};

/*
 * One way of keeping an aggregate. Each does for it what the function of aggregate/aggregate.h or portable.h of like name promises; NULL: the way has
 * nothing to do there.
 */
typedef struct AggModeOps
{
	/* the worker; one without `start` has nothing to prepare and nothing to forget */
	void (*start)(AggRuntime *agg);
	bool (*prepare)(AggRuntime *agg, const AggInput *in, volatile int *row);
	void (*try_begin)(AggRuntime *agg);
	void (*try_row)(AggRuntime *agg, const AggInput *in, int row, Pane *pane, GroupEntry *entry);
	void (*try_end)(AggRuntime *agg);
	void (*try_undo)(AggRuntime *agg);
	bool (*try_finish)(AggRuntime *agg); /* NULL: prepare does it */
	void (*publish)(AggRuntime *agg, const AggInput *in);
	void (*forget)(AggRuntime *agg);
	void (*forget_pane)(AggRuntime *agg, Pane *pane);

	/* checkpoints */
	Size (*export_size)(const AggSpec *spec, const ViewState *state, const GroupEntry *entry, bool whole);
	void (*export)(const AggSpec *spec, const ViewState *state, GroupEntry *entry, bool whole, AggPut put, void *arg);
	bool (*import)(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry, bool newest, const char *raw,
				   const char *bytes, Size size);
	void (*import_end)(const AggSpec *spec, const ViewState *state, GroupEntry *entry);

	/* readers; the partial that is made is zeroed and in the current memory context */
	void (*reader)(AggReader *reader);
	void (*empty)(AggReader *reader, AggPartial *partial);
	void (*load)(AggReader *reader, AggPartial *partial, const char *state, const StateCopy *copy);
	void (*copy)(AggReader *reader, AggPartial *copy, const AggPartial *partial); /* NULL: the empty one, combined */
	void (*combine)(AggReader *reader, AggPartial *into, const AggPartial *from);
	Datum (*final)(AggReader *reader, AggPartial *partial, bool *isnull);
	void (*give)(AggReader *reader, const AggPartial *partial, StringInfo to);
	void (*take)(AggReader *reader, AggPartial *partial, const char *bytes, Size size);

	/* other servers (aggregate/portable.h) */
	void (*send)(AggReader *reader, const AggPartial *partial, StringInfo to);
	void (*receive)(AggReader *reader, AggPartial *partial, struct PortableCursor *from);
} AggModeOps;

extern const AggModeOps		   streamext_native_mode; /* aggregate/native_mode.c */
extern const AggModeOps *const streamext_modes[];	  /* by AggMode; aggregate/modes.c */

static inline const AggModeOps *
streamext_mode(const AggSpec *spec)
{
	return streamext_modes[spec->mode];
}

/* streamext_aggregate_compile has found that the aggregate is to be kept so. */
extern void streamext_trans_compile(AggSpec *spec, const Oid *types, HeapTuple tuple);
extern void streamext_values_compile(AggSpec *spec);

/* Of an export that contradicts itself. */
pg_noreturn extern void streamext_aggregate_import_damaged(const AggSpec *spec);

/* aggregate/query.c. SELECT aggref AS value FROM rte, whose columns the arguments name as variables of relation 1. */
extern Query *streamext_aggregate_query(Aggref *aggref, RangeTblEntry *rte);

#endif /* STREAMEXT_AGGREGATE_MODES_H */
