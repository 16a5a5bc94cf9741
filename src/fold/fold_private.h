/*
 * fold/fold_private.h
 *		What the files of a fold share.
 *
 *	fold/start.c	from the compiled view to what is needed for each batch
 *	fold/fold.c		one batch: prepare, publish; the end
 *	fold/guard.c	its steps that run a user's code
 *	fold/select.c	its rows that count; fold/selected.c: what they become; fold/group.c: their panes and groups;
 *					fold/aggregate.c: what their aggregates do ahead
 *	fold/expire.c	panes that nobody can ask for any more
 */
#ifndef STREAMEXT_FOLD_PRIVATE_H
#define STREAMEXT_FOLD_PRIVATE_H

#include "base/identity.h"
#include "base/streamext.h"
#include "executor/executor.h"

#include "fold/fold.h"
#include "fold/join.h"

/* An expression as a vector over the rows of a batch. */
typedef struct FoldExpr
{
	Expr	  *expr;
	int		   column; /* plain column: its index; else -1 */
	ExprState *state;
	bool	   varlena;
	Datum	  *values; /* [row]; the batch's own for a plain column */
	bool	  *nulls;
	int		   joined; /* its number in the join's output, -1: none */
} FoldExpr;

/* The rows of the batch at hand that count in the view. */
typedef struct FoldSelected
{
	int			 n;
	int			 capacity; /* of what is [selected] */
	int			*rows;	   /* [selected] row numbers */
	uint8		*sets;	   /* [selected] numbers of grouping sets; NULL: the view has none */
	const int	*sources;  /* [joined row] row of the batch; NULL: rows are the batch's own */
	int64		*pane_ids; /* [row] */
	TimestampTz *froms;	   /* [row] its first window that is open, DT_NOBEGIN: all are; NULL: all are of all rows */
	Pane	   **panes;	   /* [selected] */
	GroupEntry **groups;
} FoldSelected;

/* What became of the batch's rows. */
typedef struct FoldCounts
{
	uint64		  accepted;
	uint64		  late;
	uint64		  rejected;
	uint64		  inserted; /* rows of a stateless view */
	int			  nkept;	/* rows of a derived stream, for its buffer */
	StreamRecord *kept;
	ErrorData	 *internal; /* the last internal error that was laid to a row's charge; NULL: none */
} FoldCounts;

typedef struct FoldExprs
{
	int		  n;
	FoldExpr *items;
	int		 *key;	  /* [nkeys], -1 for the window key and the grouping set's number */
	int		**arg;	  /* [agg][arg] */
	int		 *filter; /* [agg], -1: none */
	int		 *output; /* [outputs] of a derived stream */
	TupleDesc output_desc;
} FoldExprs;

/* Which steps run a user's code, or may raise. */
typedef struct FoldGuard
{
	bool select;
	bool plain_select; /* what raises in it leaves nothing behind but memory */
	bool group;		   /* key types' own functions */
	bool aggregate;
} FoldGuard;

typedef struct FoldKey
{
	KeyMatcher *matcher;
	GroupEqual	equal;
	char	   *bytes; /* of the row at hand */
	uint32		capacity;
} FoldKey;

struct ViewFold
{
	MemoryContext cxt;
	CompiledView *view;
	ViewSlot	 *slot;
	StreamConfig *config;

	ExprContext	   *econtext;
	TupleTableSlot *row;		 /* a row of the batch for expressions */
	ExprState	   *where;		 /* NULL: none */
	uint64			types_seen;	 /* streamext_layout_changes() when they were looked at last */
	uint64			functions;	 /* how often functions had been changed when the expressions were made ready */
	MemoryContext	renewed_cxt; /* of expressions that were made ready again; NULL: none yet */
	FoldExprs		exprs;
	FoldGuard		guard;
	List		   *stored; /* stateless: of IntoPosition, as committed when the fold was started */
	JoinRun		   *join;	/* NULL: the stream alone; else row numbers are those of joined rows after step 1 */

	AggRuntime **aggs;
	FoldKey		 key;

	TimestampTz session_end; /* of a session that keeps the oldest pane; DT_NOBEGIN: none is known */

	/* the batch at hand */
	Batch		*batch;
	FoldSelected selected;
	AggInput	*inputs;		/* [agg] */
	bool		 admitted;		/* it was offered while there were no more groups than streamext.max_groups */
	int64		*new_positions; /* chunk memory that replaces slot->positions at publication, or NULL */
	FoldCounts	 counts;
};

/* The row of the batch that a row number stands for. */
static inline int
streamext_fold_source(const ViewFold *fold, int row)
{
	return fold->selected.sources != NULL ? fold->selected.sources[row] : row;
}

/* False if the view has counted the record before, or rejected it and it is not to be tried again. */
static inline bool
streamext_fold_is_new(ViewFold *fold, const StreamRecord *record)
{
	if (unlikely(fold->batch->owed != NULL))
		return fold->batch->owed[record - fold->batch->records];
	return record->partition_index >= fold->slot->counted.npositions ||
		   record->position >= fold->slot->counted.positions[record->partition_index];
}

/* ---- guard.c ---- */

/* A step: works from *at on; raises with it at the culprit. Returns false when memory is full. */
typedef bool (*FoldStep)(ViewFold *fold, volatile int *at, void *arg);

/*
 * Runs a step as the view's owner in a subtransaction. Returns NULL if it went through (*result is what it returned), else
 * the error, with *at at the culprit. An error that is no row's is raised; so is an internal one in a batch that is tried first.
 */
extern ErrorData *streamext_fold_guarded(ViewFold *fold, FoldStep step, void *arg, volatile int *at,
										 volatile bool *result);
extern void		  streamext_fold_reject(ViewFold *fold, int row, const ErrorData *error);

/* ---- select.c, selected.c, group.c, aggregate.c ---- */

extern void streamext_fold_select(ViewFold *fold);
/* Selected rows go into the table, and with them where the view then stands. */
extern void streamext_fold_into(ViewFold *fold);
/* From selected rows of the batch to joined ones. */
extern void streamext_fold_join(ViewFold *fold);
/* The last rows of a derived stream are made ready for its buffer; there is nothing to be grouped. */
extern void streamext_fold_keep(ViewFold *fold);
/* Each selected row once for each grouping set. */
extern void streamext_fold_expand_sets(ViewFold *fold);
/* False: memory is full. */
extern bool streamext_fold_group(ViewFold *fold);
/*
 * Takes a selected row out, with all others that were joined from the same row of the batch: it was counted as accepted and
 * is rejected now. Returns how many rows before it went too.
 */
extern int streamext_fold_deselect(ViewFold *fold, int i);

/* What aggregates can do ahead. False: memory is full. */
extern bool streamext_fold_aggregate(ViewFold *fold);
extern void streamext_fold_forget_aggregates(ViewFold *fold);

/* ---- start.c ---- */

/* Whether renew would do anything. */
extern bool streamext_fold_is_outdated(const ViewFold *fold);
/*
 * Makes expressions and aggregates, none of which is prepared, ready anew if a function of the database was changed since; true if so.
 * PL/pgSQL keeps what it has compiled with each call's FmgrInfo, shares it, and crashes by it if a call comes after one that could not
 * compile the changed function.
 */
extern bool streamext_fold_renew(ViewFold *fold);
/* Raises (40001), and has the stream looked at anew, if a composite whose values the state holds is another than when the fold was started. */
extern void streamext_fold_check_types(ViewFold *fold);

/* As the view's owner, with the view's session settings. */
extern IdentityScope streamext_fold_enter_owner(ViewFold *fold);

#endif /* STREAMEXT_FOLD_PRIVATE_H */
