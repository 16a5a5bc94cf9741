/*
 * fold/fold_private.h
 *		What the files of a fold share.
 *
 *	fold/start.c	from the compiled view to what is needed for each batch; the end of it
 *	fold/fold.c			one batch: prepare, publish
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
	int				nexprs;
	FoldExpr	   *exprs;
	int			   *key_expr;	 /* [nkeys], -1 for the window key and the grouping set's number */
	int			  **arg_expr;	 /* [agg][arg] */
	int			   *filter_expr; /* [agg], -1: none */
	int			   *output_expr; /* [outputs] of a derived stream */
	TupleDesc		output_desc;
	bool			guard_select; /* step 1 runs user code or may raise */
	bool			plain_select; /* what raises in it leaves nothing behind but memory */
	bool			guard_group;  /* key types' own functions */
	bool			guard_aggregate;
	List		   *stored; /* stateless: of IntoPosition, as committed when the fold was started */
	JoinRun		   *join;	/* NULL: the stream alone; else row numbers are those of joined rows after step 1 */

	AggRuntime **aggs;
	KeyMatcher	*matcher;
	GroupEqual	 equal;
	char		*key;
	uint32		 key_capacity;

	TimestampTz session_end; /* of a session that keeps the oldest pane; DT_NOBEGIN: none is known */

	/* the batch at hand */
	Batch		 *batch;
	int			  nselected;
	int			  capacity; /* of what is [selected] */
	int			 *rows;		/* [selected] row numbers */
	uint8		 *sets;		/* [selected] numbers of grouping sets; NULL: the view has none */
	const int	 *sources;	/* [joined row] row of the batch; NULL: rows are the batch's own */
	int64		 *pane_ids; /* [row] */
	TimestampTz	 *froms;	/* [row] its first window that is open, DT_NOBEGIN: all are; NULL: all are of all rows */
	Pane		**panes;	/* [selected] */
	GroupEntry	**groups;
	AggInput	 *inputs;		 /* [agg] */
	bool		  admitted;		 /* it was offered while there were no more groups than streamext.max_groups */
	int64		 *new_positions; /* chunk memory that replaces slot->positions at publication, or NULL */
	uint64		  inserted;		 /* rows of a stateless view */
	int			  nkept;		 /* rows of a derived stream, for its buffer */
	StreamRecord *kept;
	uint64		  accepted;
	uint64		  late;
	uint64		  rejected;
	ErrorData	 *internal; /* the last internal error that was laid to a row's charge; NULL: none */
};

/*
 * Makes expressions and aggregates, none of which is prepared, ready anew if a function of the database was changed since; true if so. PL/pgSQL keeps what it has compiled with each
 * call's FmgrInfo, shares it, and crashes by it if a call comes after one that could not compile the changed function.
 */
extern bool streamext_fold_renew(ViewFold *fold);
/* Raises (40001), and has the stream looked at anew, if a composite whose values the state holds is another than when the fold was started. */
extern void streamext_fold_check_types(ViewFold *fold);

/* As the view's owner, with the view's session settings. */
extern IdentityScope streamext_fold_enter_owner(ViewFold *fold);

#endif /* STREAMEXT_FOLD_PRIVATE_H */
