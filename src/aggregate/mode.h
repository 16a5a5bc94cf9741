/*
 * aggregate/mode.h
 *		What aggregate/aggregate.c shares with the two general ways of keeping an aggregate: aggregate/trans.c, aggregate_values.c.
 *
 * Functions here do for one mode what the function of aggregate/aggregate.h of like name promises.
 */
#ifndef STREAMEXT_AGGREGATE_MODES_H
#define STREAMEXT_AGGREGATE_MODES_H

#include "access/htup.h"
#include "access/tupdesc.h"
#include "nodes/execnodes.h"
#include "utils/hsearch.h"
#include "utils/tuplestore.h"

#include "aggregate/aggregate.h"

/* Of a hash table by group's entry. */
#define AGG_HASH_ENTRY(key) murmurhash32((uint32) ((uintptr_t) (key) >> 3))

struct AggCalls;
struct AggWire;
struct PortableCursor;
struct TransGroup;
struct TransPane;
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

extern void	 streamext_trans_compile(AggSpec *spec, const Oid *types, HeapTuple tuple);
extern void	 streamext_trans_start(AggRuntime *agg);
extern bool	 streamext_trans_prepare(AggRuntime *agg, const AggInput *in, volatile int *row);
extern void	 streamext_trans_publish(AggRuntime *agg);
extern void	 streamext_trans_forget(AggRuntime *agg);
extern void	 streamext_trans_forget_pane(AggRuntime *agg, Pane *pane);
extern void	 streamext_trans_reader(AggReader *reader);
extern void	 streamext_trans_empty(AggReader *reader, AggPartial *partial);
extern void	 streamext_trans_load(AggReader *reader, AggPartial *partial, const char *state, const StateCopy *copy);
extern void	 streamext_trans_copy(AggReader *reader, AggPartial *copy, const AggPartial *partial);
extern void	 streamext_trans_combine(AggReader *reader, AggPartial *into, const AggPartial *from);
extern Datum streamext_trans_final(AggReader *reader, AggPartial *partial, bool *isnull);

extern void streamext_trans_give(AggReader *reader, const AggPartial *partial, StringInfo to);
extern void streamext_trans_take(AggReader *reader, AggPartial *partial, const char *bytes, Size size);

/* The same for other servers (aggregate/portable.h). */
extern void streamext_trans_send(AggReader *reader, const AggPartial *partial, StringInfo to);
extern void streamext_trans_receive(AggReader *reader, AggPartial *partial, struct PortableCursor *from);

extern Size streamext_trans_export_size(const AggSpec *spec, const GroupEntry *entry);
extern void streamext_trans_export(const AggSpec *spec, const GroupEntry *entry, AggPut put, void *arg);
extern bool streamext_trans_import(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry,
								   const char *bytes, Size size);

extern void	 streamext_values_compile(AggSpec *spec);
extern void	 streamext_values_start(AggRuntime *agg);
extern bool	 streamext_values_prepare(AggRuntime *agg, const AggInput *in, volatile int *row);
extern void	 streamext_values_publish(AggRuntime *agg);
extern void	 streamext_values_forget(AggRuntime *agg);
extern void	 streamext_values_reader(AggReader *reader);
extern void	 streamext_values_load(AggPartial *partial, const char *state, const StateCopy *copy);
extern void	 streamext_values_combine(AggPartial *into, const AggPartial *from);
extern Datum streamext_values_final(AggReader *reader, const AggPartial *partial, bool *isnull);
extern void	 streamext_values_give(const AggPartial *partial, StringInfo to);
extern void	 streamext_values_take(AggReader *reader, AggPartial *partial, const char *bytes, Size size);
extern void	 streamext_values_send(AggReader *reader, const AggPartial *partial, StringInfo to);
extern void	 streamext_values_receive(AggReader *reader, AggPartial *partial, struct PortableCursor *from);
extern Size	 streamext_values_export_size(const AggSpec *spec, const ViewState *state, const GroupEntry *entry,
										  bool whole);
extern void	 streamext_values_export(const AggSpec *spec, const ViewState *state, GroupEntry *entry, bool whole,
									 AggPut put, void *arg);
extern bool	 streamext_values_import(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry, bool newest,
									 const char *raw, const char *bytes, Size size);
extern void	 streamext_values_import_end(const AggSpec *spec, const ViewState *state, GroupEntry *entry);

/* Of an export that contradicts itself. */
pg_noreturn extern void streamext_aggregate_import_damaged(const AggSpec *spec);

#endif /* STREAMEXT_AGGREGATE_MODES_H */
