/*-------------------------------------------------------------------------
 *
 * fold.c
 *		One batch into one view.
 *
 * prepare, unlocked, in this order:
 *	1. select: rows the view has not counted yet, less late ones, less those that WHERE drops; key, argument and FILTER
 *	   expressions are evaluated into vectors (plain columns are used as they are). In a view that joins, WHERE and
 *	   expressions are those of a query over the rows that are not late (join.h), and what follows works on its rows;
 *	2. group: the pane and the group of each selected row, made if need be (new groups stay invisible);
 *	3. aggregate: what aggregates without a native form can do ahead.
 * publish, under the stream's exclusive lock: native folds over the vectors, counters, positions. It cannot raise.
 *
 * Steps that run user code are guarded: they run as the view's owner in a security-restricted operation with the view's own session
 * settings, inside a subtransaction; a row on which they raise is rejected for this view only and the rest goes on. Views whose
 * expressions are all plain columns of well-behaved types need no guard and pay nothing for it.
 *
 *-------------------------------------------------------------------------
 */
#include "streamext.h"

#include "access/xact.h"
#include "common/int.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "chunk.h"
#include "clock.h"
#include "fold.h"
#include "into.h"
#include "join.h"
#include "session.h"

/* Sliding panes are kept this much longer than their window, for statements that started a while ago. */
#define SLIDING_SLACK	(60 * USECS_PER_SEC)
#define PANE_CACHE		16

/* An expression as a vector over the rows of a batch. */
typedef struct FoldExpr
{
	Expr	   *expr;
	int			column;			/* plain column: its index; else -1 */
	ExprState  *state;
	bool		varlena;
	Datum	   *values;			/* [row]; the batch's own for a plain column */
	bool	   *nulls;
	int			joined;			/* its number in the join's output, -1: none */
} FoldExpr;

struct ViewFold
{
	MemoryContext cxt;
	CompiledView *view;
	ViewSlot   *slot;
	StreamConfig *config;

	ExprContext *econtext;
	TupleTableSlot *row;		/* a row of the batch for expressions */
	ExprState  *where;			/* NULL: none */
	int			nexprs;
	FoldExpr   *exprs;
	int		   *key_expr;		/* [nkeys], -1 for the window key and the grouping set's number */
	int		  **arg_expr;		/* [agg][arg] */
	int		   *filter_expr;	/* [agg], -1: none */
	bool		guard_select;	/* step 1 runs user code or may raise */
	bool		guard_group;	/* key types' own functions */
	bool		guard_aggregate;
	List	   *stored;			/* stateless: of IntoPosition, as committed when the fold was started */
	JoinRun    *join;			/* NULL: the stream alone; else row numbers are those of joined rows after step 1 */

	AggRuntime **aggs;
	KeyMatcher *matcher;
	GroupEqual	equal;
	char	   *key;
	uint32		key_capacity;

	TimestampTz session_end;	/* of a session that keeps the oldest pane; DT_NOBEGIN: none is known */

	/* the batch at hand */
	Batch	   *batch;
	int			nselected;
	int			capacity;		/* of what is [selected] */
	int		   *rows;			/* [selected] row numbers */
	uint8	   *sets;			/* [selected] numbers of grouping sets; NULL: the view has none */
	const int  *sources;		/* [joined row] row of the batch; NULL: rows are the batch's own */
	int64	   *pane_ids;		/* [row] */
	Pane	  **panes;			/* [selected] */
	GroupEntry **groups;
	AggInput   *inputs;			/* [agg] */
	int64	   *new_positions;	/* chunk memory that replaces slot->positions at publication, or NULL */
	uint64		accepted;
	uint64		late;
	uint64		rejected;
};

CompiledView *
streamext_fold_view(ViewFold *fold)
{
	return fold->view;
}

/* ---------------------------------------------------------------- set-up */

/* The number of an expression's vector; equal ones share it. */
static int
fold_add_expr(ViewFold *fold, Expr *expr)
{
	FoldExpr   *fe;

	for (int i = 0; i < fold->nexprs; i++)
		if (equal(fold->exprs[i].expr, expr))
			return i;

	fe = &fold->exprs[fold->nexprs];
	fe->expr = expr;
	fe->column = fe->joined = -1;
	if (IsA(expr, RelabelType) && IsA(((RelabelType *) expr)->arg, Var))
		expr = ((RelabelType *) expr)->arg;
	if (IsA(expr, Var) && ((Var *) expr)->varno == fold->view->stream_varno && ((Var *) expr)->varattno > 0)
		fe->column = ((Var *) expr)->varattno - 1;
	else if (!fold->view->has_joins)
	{
		fe->state = ExecInitExpr(expression_planner((Expr *) copyObject(fe->expr)), NULL);
		fe->varlena = get_typlen(exprType((Node *) fe->expr)) == -1;
		fe->values = palloc0(sizeof(Datum) * STREAMEXT_BATCH_ROWS);
		fe->nulls = palloc0(sizeof(bool) * STREAMEXT_BATCH_ROWS);
		fold->guard_select = true;
	}
	return fold->nexprs++;
}

/* What is not a plain column of the stream comes out of the join's query, which also has WHERE. */
static void
fold_init_join(ViewFold *fold)
{
	List	   *exprs = NIL;

	for (int i = 0; i < fold->nexprs; i++)
		if (fold->exprs[i].column < 0)
		{
			fold->exprs[i].joined = list_length(exprs);
			exprs = lappend(exprs, fold->exprs[i].expr);
		}
	fold->join = streamext_join_start(fold->view, fold->config, exprs, fold->cxt);
}

static void
fold_init_expressions(ViewFold *fold)
{
	CompiledView *view = fold->view;
	int			n = view->nkeys;
	List	   *quals = NIL;
	ListCell   *lc;

	for (int a = 0; a < view->naggs; a++)
		n += list_length(view->aggs[a].args) + 1;
	fold->exprs = palloc0(sizeof(FoldExpr) * Max(n, 1));
	fold->key_expr = palloc(sizeof(int) * Max(view->nkeys, 1));
	fold->arg_expr = palloc(sizeof(int *) * Max(view->naggs, 1));
	fold->filter_expr = palloc(sizeof(int) * Max(view->naggs, 1));

	for (int k = 0; k < view->nkeys; k++)
		fold->key_expr[k] = view->keys[k].is_window || k == view->set_key ? -1 : fold_add_expr(fold, view->keys[k].expr);
	for (int a = 0; a < view->naggs; a++)
	{
		AggSpec    *spec = &view->aggs[a];
		int			arg = 0;

		fold->arg_expr[a] = palloc(sizeof(int) * Max(list_length(spec->args), 1));
		foreach(lc, spec->args)
			fold->arg_expr[a][arg++] = fold_add_expr(fold, lfirst(lc));
		fold->filter_expr[a] = spec->filter == NULL ? -1 : fold_add_expr(fold, spec->filter);
		if (spec->mode != AGG_NATIVE)
			fold->guard_aggregate = true;
	}
	if (view->has_joins || view->stateless)
		fold_init_join(fold);
	else
		foreach(lc, view->quals)
			quals = lappend(quals, expression_planner((Expr *) copyObject(lfirst(lc))));
	if (quals != NIL)
	{
		fold->where = ExecInitQual(quals, NULL);
		fold->guard_select = true;
	}
	if (view->window.kind == WINDOW_TRUNC)
		fold->guard_select = true;	/* date_trunc may raise at the ends of the calendar */
	fold->guard_group = !streamext_keys_bytewise(view);
}

/* As the view's owner, restricted, with the view's session settings. Undone by fold_leave_owner, or by the abort of the subtransaction. */
typedef struct OwnerScope
{
	Oid			user;
	int			sec_context;
	int			guc_level;
} OwnerScope;

static void
fold_set(const char *name, const char *value)
{
	if (value != NULL)
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static OwnerScope
fold_enter_owner(ViewFold *fold)
{
	OwnerScope	scope;

	GetUserIdAndSecContext(&scope.user, &scope.sec_context);
	SetUserIdAndSecContext(fold->view->owner, scope.sec_context | SECURITY_RESTRICTED_OPERATION);
	scope.guc_level = NewGUCNestLevel();
	fold_set("search_path", "pg_catalog, pg_temp");
	fold_set("TimeZone", fold->view->options.timezone);
	fold_set("DateStyle", fold->view->options.datestyle);
	fold_set("IntervalStyle", fold->view->options.intervalstyle);
	return scope;
}

static void
fold_leave_owner(OwnerScope scope)
{
	AtEOXact_GUC(true, scope.guc_level);
	SetUserIdAndSecContext(scope.user, scope.sec_context);
}

/* State that was made for another definition is of no use. */
static void
fold_adopt_state(ViewFold *fold, StreamSlot *stream)
{
	ViewSlot   *slot = fold->slot;

	if (slot->definition == fold->view->definition)
		return;
	streamext_stream_lock_exclusive(stream);
	if (slot->definition != 0)
		streamext_state_reset(&slot->state);
	streamext_state_init(&slot->state, stream->lock, fold->view->state_size);
	slot->definition = fold->view->definition;
	slot->accepted = slot->late = slot->rejected = 0;
	for (int i = 0; i < slot->npositions; i++)
		slot->positions[i] = -1;
	slot->history = 0;
	memset(&slot->history_written, 0, sizeof(HistoryTotals));
	memset(&slot->history_deleted, 0, sizeof(HistoryTotals));
	slot->sealed = slot->covered = PG_INT64_MIN;
	slot->sealed_until = slot->floor = DT_NOBEGIN;
	LWLockRelease(stream->lock);
}

/* A stateless view stands where its table says, whatever a worker that ended before its commit has left in shared memory. */
static void
fold_load_positions(ViewFold *fold, StreamSlot *stream)
{
	ViewSlot   *slot = fold->slot;

	fold->stored = streamext_into_load(fold->view->relid, fold->view->stream_relid);
	streamext_stream_lock_exclusive(stream);
	for (int i = 0; i < slot->npositions; i++)
		slot->positions[i] = -1;
	LWLockRelease(stream->lock);
}

int64
streamext_fold_stored_position(const ViewFold *fold, const char *topic, int partition)
{
	ListCell   *lc;

	foreach(lc, fold->stored)
	{
		IntoPosition *stored = lfirst(lc);

		if (stored->partition == partition && strcmp(stored->topic, topic) == 0)
			return stored->position;
	}
	return -1;
}

ViewFold *
streamext_fold_start(CompiledView *view, ViewSlot *slot, StreamConfig *config, MemoryContext cxt)
{
	MemoryContext own = AllocSetContextCreate(cxt, "streamext fold", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	ViewFold   *fold = palloc0(sizeof(ViewFold));
	OwnerScope	scope;

	fold->cxt = own;
	fold->view = view;
	fold->slot = slot;
	fold->config = config;
	fold_adopt_state(fold, &streamext_shared->streams[slot->stream]);
	if (view->stateless)
		fold_load_positions(fold, &streamext_shared->streams[slot->stream]);

	scope = fold_enter_owner(fold);
	streamext_window_prepare(&view->window, own);
	fold->econtext = CreateStandaloneExprContext();
	fold->row = MakeSingleTupleTableSlot(CreateTupleDescCopy(config->desc), &TTSOpsVirtual);
	fold->econtext->ecxt_scantuple = fold->row;
	fold_init_expressions(fold);
	fold->matcher = streamext_key_matcher(view, own);
	fold->equal = fold->guard_group ? streamext_key_equal : NULL;
	fold->aggs = palloc(sizeof(AggRuntime *) * Max(view->naggs, 1));
	for (int a = 0; a < view->naggs; a++)
		fold->aggs[a] = streamext_aggregate_start(&view->aggs[a], &slot->state, own);
	fold_leave_owner(scope);

	fold->session_end = DT_NOBEGIN;
	fold->key_capacity = 256;
	fold->key = palloc(fold->key_capacity);
	fold->capacity = STREAMEXT_BATCH_ROWS;
	fold->rows = palloc(sizeof(int) * STREAMEXT_BATCH_ROWS);
	fold->pane_ids = palloc0(sizeof(int64) * STREAMEXT_BATCH_ROWS);
	fold->panes = palloc(sizeof(Pane *) * STREAMEXT_BATCH_ROWS);
	fold->groups = palloc(sizeof(GroupEntry *) * STREAMEXT_BATCH_ROWS);
	fold->inputs = palloc0(sizeof(AggInput) * Max(view->naggs, 1));
	for (int a = 0; a < view->naggs; a++)
	{
		int			nargs = list_length(view->aggs[a].args);

		fold->inputs[a].args = palloc(sizeof(Datum *) * Max(nargs, 1));
		fold->inputs[a].nulls = palloc(sizeof(bool *) * Max(nargs, 1));
	}
	MemoryContextSwitchTo(old);
	return fold;
}

void
streamext_fold_end(ViewFold *fold)
{
	streamext_fold_abandon(fold);
	if (fold->join != NULL)
		streamext_join_end(fold->join);
	FreeExprContext(fold->econtext, false);
	ExecDropSingleTupleTableSlot(fold->row);
	MemoryContextDelete(fold->cxt);
}

/* ---------------------------------------------------------------- guarded steps */

/* The row of the batch that a row number stands for. */
static inline int
fold_source(const ViewFold *fold, int row)
{
	return fold->sources != NULL ? fold->sources[row] : row;
}

static void
fold_reject(ViewFold *fold, int row, const ErrorData *error)
{
	streamext_batch_reject(fold->batch, fold->view->relid, fold->batch->record[fold_source(fold, row)], error->sqlerrcode, error->message);
	fold->rejected++;
}

/* A step: works from *row (or *index) on; raises with it at the culprit. Returns false when memory is full. */
typedef bool (*FoldStep) (ViewFold *fold, volatile int *at);

/*
 * Runs a step as the view's owner in a subtransaction. Returns NULL if it went through (*result is what it returned), else
 * the error, with *at at the culprit.
 */
static ErrorData *
fold_guarded(ViewFold *fold, FoldStep step, volatile int *at, volatile bool *result)
{
	MemoryContext old = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(fold->batch->cxt);
	PG_TRY();
	{
		OwnerScope	scope = fold_enter_owner(fold);

		*result = step(fold, at);
		fold_leave_owner(scope);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(fold->batch->cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	CurrentResourceOwner = owner;
	CHECK_FOR_INTERRUPTS();
	return error;
}

/* ---------------------------------------------------------------- step 1: select */

/* False if the view has counted the row's record before. */
static inline bool
fold_is_new(ViewFold *fold, const StreamRecord *record)
{
	return record->partition_index >= fold->slot->npositions ||
		record->position >= fold->slot->positions[record->partition_index];
}

static inline bool
fold_is_late(ViewFold *fold, int64 pane)
{
	TimestampTz end;

	/* Never into a sealed pane, even if the watermark has begun anew or the lateness was raised since. */
	if (pane <= fold->slot->sealed && pane > fold->slot->covered)
		return true;
	end = streamext_window_pane_end(&fold->view->window, pane);
	if (pg_add_s64_overflow(end, fold->view->options.lateness, &end))
		return false;
	return fold->batch->watermark >= end;
}

static void
fold_load_row(ViewFold *fold, int row)
{
	Batch	   *batch = fold->batch;
	TupleTableSlot *slot = fold->row;

	ExecClearTuple(slot);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		slot->tts_values[i] = batch->values[i][row];
		slot->tts_isnull[i] = batch->nulls[i][row];
	}
	ExecStoreVirtualTuple(slot);
}

/* WHERE and all expressions of one row; true if it is selected. Results stay in the batch's memory. */
static bool
fold_evaluate(ViewFold *fold, int row)
{
	fold_load_row(fold, row);
	if (fold->where != NULL && !ExecQual(fold->where, fold->econtext))
		return false;
	for (int i = 0; i < fold->nexprs; i++)
	{
		FoldExpr   *fe = &fold->exprs[i];

		if (fe->state == NULL)
			continue;
		fe->values[row] = ExecEvalExpr(fe->state, fold->econtext, &fe->nulls[row]);
		if (fe->varlena && !fe->nulls[row])
			fe->values[row] = PointerGetDatum(PG_DETOAST_DATUM_PACKED(fe->values[row]));
	}
	return true;
}

/* From row *at on; guarded or not. */
static bool
fold_select_rows(ViewFold *fold, volatile int *at)
{
	Batch	   *batch = fold->batch;
	const Window *window = &fold->view->window;
	bool		evaluate = fold->guard_select && fold->join == NULL;
	int64		known_pane = 0;
	bool		known_late = false,
				known = false;

	for (; *at < batch->nrows; (*at)++)
	{
		int			row = *at;
		int64		pane;

		if (!fold_is_new(fold, &batch->records[batch->record[row]]))
			continue;
		pane = streamext_window_pane(window, batch->event_time[row]);
		if (window->kind == WINDOW_SESSION)
			known_late = streamext_session_is_late(fold->view, &fold->slot->state, batch->event_time[row], batch->watermark);
		else if (!known || pane != known_pane)
		{
			known_late = fold_is_late(fold, pane);
			known_pane = pane;
			known = true;
		}
		if (known_late)
		{
			fold->late++;
			if (fold->view->options.keep_late)
				streamext_batch_keep_late(batch, fold->view->relid, row);
			continue;
		}
		fold->pane_ids[row] = pane;
		/* What fell into panes that history had when the state was begun is in their slices. */
		if ((!evaluate || fold_evaluate(fold, row)) && pane > fold->slot->covered)
			fold->rows[fold->nselected++] = row;
		fold->accepted++;
	}
	return true;
}

static void
fold_select(ViewFold *fold)
{
	volatile int at = 0;
	volatile bool result;

	if (!fold->guard_select)
	{
		fold_select_rows(fold, &at);
		return;
	}
	while (at < fold->batch->nrows)
	{
		ErrorData  *error = fold_guarded(fold, fold_select_rows, &at, &result);

		if (error != NULL)
		{
			fold_reject(fold, at, error);
			at++;
		}
	}
}

/* ---------------------------------------------------------------- step 1, continued: join */

typedef struct FoldJoin
{
	const int  *rows;			/* of the batch */
	int			n;
	JoinRows   *joined;
} FoldJoin;

static FoldJoin fold_join_part;	/* what the step works on */

/* A FoldStep. */
static bool
fold_join_step(ViewFold *fold, volatile int *at)
{
	streamext_join_run(fold->join, fold->batch, fold_join_part.rows, fold_join_part.n, fold_join_part.joined);
	return true;
}

/* Joins rows; where that raises, it is done again in halves, down to the row that is to blame. */
static void
fold_join_rows(ViewFold *fold, const int *rows, int n, JoinRows *joined)
{
	volatile int at = 0;
	volatile bool result;
	ErrorData  *error;

	if (n == 0)
		return;
	fold_join_part = (FoldJoin) {rows, n, joined};
	error = fold_guarded(fold, fold_join_step, &at, &result);
	if (error == NULL)
		return;
	if (!streamext_join_is_row_error(fold->join, error))
		ReThrowError(error);
	if (n == 1)
	{
		fold_reject(fold, rows[0], error);
		fold->accepted--;
		return;
	}
	fold_join_rows(fold, rows, n / 2, joined);
	fold_join_rows(fold, rows + n / 2, n - n / 2, joined);
}

/* Room for so many selected rows. */
static void
fold_reserve_rows(ViewFold *fold, Size n)
{
	if (n > INT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a batch makes too many rows")));
	if (n <= fold->capacity)
		return;
	fold->capacity = n;
	fold->rows = repalloc_huge(fold->rows, sizeof(int) * n);
	fold->panes = repalloc_huge(fold->panes, sizeof(Pane *) * n);
	fold->groups = repalloc_huge(fold->groups, sizeof(GroupEntry *) * n);
}

/* Each selected row once for each grouping set. */
static void
fold_expand_sets(ViewFold *fold)
{
	int			nsets = fold->view->nsets;
	Size		n = (Size) fold->nselected * nsets;

	fold_reserve_rows(fold, n);
	fold->sets = MemoryContextAllocHuge(fold->batch->cxt, Max(n, 1));
	for (int i = fold->nselected - 1; i >= 0; i--)
		for (int s = 0; s < nsets; s++)
		{
			fold->rows[i * nsets + s] = fold->rows[i];
			fold->sets[i * nsets + s] = s;
		}
	fold->nselected = n;
}

/* Selected rows go into the table, and with them where the view then stands. */
static void
fold_into(ViewFold *fold)
{
	fold_join_rows(fold, fold->rows, fold->nselected, NULL);
	fold->nselected = 0;
	streamext_into_save(fold->slot, fold->batch);
}

/* From selected rows of the batch to joined ones. */
static void
fold_join(ViewFold *fold)
{
	Batch	   *batch = fold->batch;
	JoinRows   *joined = streamext_join_begin(fold->join, batch);
	int		   *rows = palloc(sizeof(int) * Max(fold->nselected, 1));

	memcpy(rows, fold->rows, sizeof(int) * fold->nselected);
	fold_join_rows(fold, rows, fold->nselected, joined);
	fold_reserve_rows(fold, joined->n);
	fold->sources = joined->rows;
	fold->nselected = joined->n;
	for (int i = 0; i < joined->n; i++)
		fold->rows[i] = i;
	for (int e = 0; e < fold->nexprs; e++)
	{
		FoldExpr   *fe = &fold->exprs[e];

		if (fe->joined >= 0)
		{
			fe->values = joined->values[fe->joined];
			fe->nulls = joined->nulls[fe->joined];
			continue;
		}
		fe->values = MemoryContextAllocHuge(batch->cxt, sizeof(Datum) * Max(joined->n, 1));
		fe->nulls = MemoryContextAllocHuge(batch->cxt, sizeof(bool) * Max(joined->n, 1));
		for (int i = 0; i < joined->n; i++)
		{
			fe->values[i] = batch->values[fe->column][joined->rows[i]];
			fe->nulls[i] = batch->nulls[fe->column][joined->rows[i]];
		}
	}
}

/* ---------------------------------------------------------------- step 2: group */

/* Leaves the set's own keys. */
static inline void
fold_key_of_set(const ViewFold *fold, int set, Datum *values, bool *nulls)
{
	const CompiledView *view = fold->view;

	for (int k = 0; k < view->set_key; k++)
		if ((view->sets[set] & ((uint32) 1 << k)) == 0)
			nulls[k] = true;
	nulls[view->set_key] = false;
	values[view->set_key] = Int32GetDatum(set);
}

/* From selected row *at on; false: full. */
static bool
fold_group_rows(ViewFold *fold, volatile int *at)
{
	ViewState  *state = &fold->slot->state;
	CompiledView *view = fold->view;
	Datum		values[STREAMEXT_MAX_KEYS];
	bool		nulls[STREAMEXT_MAX_KEYS];
	int64		cached_id[PANE_CACHE];
	Pane	   *cached[PANE_CACHE] = {NULL};

	for (; *at < fold->nselected; (*at)++)
	{
		int			i = *at;
		int			row = fold->rows[i];
		int64		pane_id = fold->pane_ids[fold_source(fold, row)];
		int			c = (uint64) pane_id % PANE_CACHE;
		uint32		size;
		uint32		hash;
		bool		is_new;

		if (cached[c] == NULL || cached_id[c] != pane_id)
		{
			cached[c] = streamext_state_pane(state, pane_id);
			cached_id[c] = pane_id;
			if (cached[c] == NULL)
				return false;
		}
		for (int k = 0; k < view->nkeys; k++)
			if (fold->key_expr[k] >= 0)
			{
				FoldExpr   *fe = &fold->exprs[fold->key_expr[k]];

				values[k] = fe->values[row];
				nulls[k] = fe->nulls[row];
			}
		if (fold->sets != NULL)
			fold_key_of_set(fold, fold->sets[i], values, nulls);
		size = streamext_key_serialize(view, values, nulls, &fold->key, &fold->key_capacity);
		hash = streamext_key_hash(fold->matcher, values, nulls, fold->key, size);
		fold->panes[i] = cached[c];
		fold->groups[i] = streamext_state_group(state, cached[c], hash, fold->key, size, fold->equal, fold->matcher, &is_new);
		if (fold->groups[i] == NULL)
			return false;
	}
	return true;
}

/*
 * Takes a selected row out, with all others that were joined from the same row of the batch: it was counted as accepted and
 * is rejected now. Returns how many rows before it went too.
 */
static int
fold_deselect(ViewFold *fold, int i)
{
	int			source = fold_source(fold, fold->rows[i]);
	int			before = 0;
	int			n = 0;

	for (int k = 0; k < fold->nselected; k++)
	{
		if (fold_source(fold, fold->rows[k]) == source)
		{
			before += k < i;
			continue;
		}
		fold->rows[n] = fold->rows[k];
		if (fold->sets != NULL)
			fold->sets[n] = fold->sets[k];
		fold->groups[n] = fold->groups[k];
		fold->panes[n] = fold->panes[k];
		n++;
	}
	fold->nselected = n;
	fold->accepted--;
	return before;
}

static bool
fold_group(ViewFold *fold)
{
	volatile int at = 0;
	volatile bool fits = true;

	if (!fold->guard_group)
		return fold_group_rows(fold, &at);
	while (fits && at < fold->nselected)
	{
		ErrorData  *error = fold_guarded(fold, fold_group_rows, &at, &fits);

		if (error != NULL)
		{
			fold_reject(fold, fold->rows[at], error);
			at -= fold_deselect(fold, at);
		}
	}
	return fits;
}

/* ---------------------------------------------------------------- step 3: aggregate */

/* The rows each aggregate takes. */
static void
fold_make_inputs(ViewFold *fold)
{
	CompiledView *view = fold->view;
	MemoryContext old = MemoryContextSwitchTo(fold->batch->cxt);

	for (int a = 0; a < view->naggs; a++)
	{
		AggInput   *in = &fold->inputs[a];
		int			nargs = list_length(view->aggs[a].args);

		for (int arg = 0; arg < nargs; arg++)
		{
			in->args[arg] = fold->exprs[fold->arg_expr[a][arg]].values;
			in->nulls[arg] = fold->exprs[fold->arg_expr[a][arg]].nulls;
		}
		in->n = fold->nselected;
		in->rows = fold->rows;
		in->groups = fold->groups;
		in->panes = fold->panes;
		if (fold->filter_expr[a] >= 0)
		{
			FoldExpr   *filter = &fold->exprs[fold->filter_expr[a]];
			Size		most = Max(fold->nselected, 1);
			int		   *rows = MemoryContextAllocHuge(fold->batch->cxt, sizeof(int) * most);
			GroupEntry **groups = MemoryContextAllocHuge(fold->batch->cxt, sizeof(GroupEntry *) * most);
			Pane	  **panes = MemoryContextAllocHuge(fold->batch->cxt, sizeof(Pane *) * most);
			int			n = 0;

			for (int i = 0; i < fold->nselected; i++)
			{
				int			row = fold->rows[i];

				if (filter->nulls[row] || !DatumGetBool(filter->values[row]))
					continue;
				rows[n] = row;
				groups[n] = fold->groups[i];
				panes[n] = fold->panes[i];
				n++;
			}
			in->n = n;
			in->rows = rows;
			in->groups = groups;
			in->panes = panes;
		}
	}
	MemoryContextSwitchTo(old);
}

/* All aggregates; *at is a row number when it raises. */
static bool
fold_prepare_aggregates(ViewFold *fold, volatile int *at)
{
	for (int a = 0; a < fold->view->naggs; a++)
		if (fold->view->aggs[a].mode != AGG_NATIVE && !streamext_aggregate_prepare(fold->aggs[a], &fold->inputs[a], at))
			return false;
	return true;
}

static void
fold_forget(ViewFold *fold)
{
	for (int a = 0; a < fold->view->naggs; a++)
		streamext_aggregate_forget(fold->aggs[a]);
}

/* After a raise everything is done again without the culprit: transition states cannot be taken back row by row. */
static bool
fold_aggregate(ViewFold *fold)
{
	for (;;)
	{
		volatile int row = -1;
		volatile bool fits = true;
		ErrorData  *error;
		int			i;

		fold_make_inputs(fold);
		if (!fold->guard_aggregate)
			return true;
		error = fold_guarded(fold, fold_prepare_aggregates, &row, &fits);
		if (error == NULL)
			return fits;
		fold_forget(fold);
		for (i = 0; i < fold->nselected && fold->rows[i] != row; i++)
			;
		if (i == fold->nselected)
			ThrowErrorData(error);	/* not a row's fault */
		fold_reject(fold, row, error);
		fold_deselect(fold, i);
	}
}

/* ---------------------------------------------------------------- prepare and publish */

/* A batch may be offered again; what it rejected for this view the first time, or kept as late, is decided anew. */
static void
fold_withdraw_rejects(ViewFold *fold)
{
	ListCell   *lc;

	foreach(lc, fold->batch->late)
		if (((LateRecord *) lfirst(lc))->view == fold->view->relid)
			fold->batch->late = foreach_delete_current(fold->batch->late, lc);
	foreach(lc, fold->batch->rejected)
	{
		RejectedRecord *r = lfirst(lc);

		if (r->view == fold->view->relid)
			fold->batch->rejected = foreach_delete_current(fold->batch->rejected, lc);
		else if (r->view == InvalidOid && fold_is_new(fold, &fold->batch->records[r->record]))
			fold->rejected++;
	}
}

/* Room for the positions of partitions that came up since. */
static bool
fold_reserve_positions(ViewFold *fold)
{
	ViewSlot   *slot = fold->slot;
	int			n = fold->batch->npartitions;

	if (n <= slot->npositions)
		return true;
	fold->new_positions = streamext_chunk_alloc(sizeof(int64) * n, NULL);
	if (fold->new_positions == NULL)
		return false;
	for (int i = 0; i < n; i++)
		fold->new_positions[i] = i < slot->npositions ? slot->positions[i] : -1;
	return true;
}

FoldResult
streamext_fold_prepare(ViewFold *fold, Batch *batch)
{
	ViewSlot   *slot = fold->slot;
	CompiledView *view = fold->view;
	MemoryContext old = MemoryContextSwitchTo(batch->cxt);
	bool		fits;

	fold->batch = batch;
	fold->nselected = 0;
	fold->sources = NULL;
	fold->sets = NULL;
	fold->accepted = fold->late = fold->rejected = 0;
	for (int i = 0; i < fold->nexprs; i++)
		if (fold->exprs[i].column >= 0)
		{
			fold->exprs[i].values = batch->values[fold->exprs[i].column];
			fold->exprs[i].nulls = batch->nulls[fold->exprs[i].column];
		}
	fold_withdraw_rejects(fold);

	fits = view->options.max_groups == 0 || slot->state.ngroups <= view->options.max_groups;
	if (fits)
	{
		fold_select(fold);
		if (view->stateless)
			fold_into(fold);
		else if (fold->join != NULL)
			fold_join(fold);
		if (view->nsets > 0)
			fold_expand_sets(fold);
		fits = fold_group(fold) && fold_aggregate(fold) && fold_reserve_positions(fold);
	}
	if (!fits)
		streamext_fold_abandon(fold);
	MemoryContextSwitchTo(old);
	return fits ? FOLD_OK : FOLD_FULL;
}

void
streamext_fold_abandon(ViewFold *fold)
{
	fold_forget(fold);
	if (fold->new_positions != NULL)
		streamext_chunk_free(fold->new_positions);
	fold->new_positions = NULL;
	fold->nselected = 0;
}

void
streamext_fold_publish(ViewFold *fold, Batch *batch)
{
	ViewSlot   *slot = fold->slot;
	CompiledView *view = fold->view;
	bool		sessions = view->window.kind == WINDOW_SESSION;

	for (int a = 0; a < view->naggs; a++)
		streamext_aggregate_publish(fold->aggs[a], &fold->inputs[a]);

	slot->state.batches++;
	for (int i = 0; i < fold->nselected; i++)
	{
		if (sessions)
			streamext_session_add(view, fold->groups[i], batch->event_time[fold_source(fold, fold->rows[i])]);
		fold->groups[i]->visible = slot->state.period;
		fold->panes[i]->nrows++;
		fold->panes[i]->changed = slot->state.period;
	}
	slot->accepted += fold->accepted;
	slot->late += fold->late;
	slot->rejected += fold->rejected;

	if (fold->new_positions != NULL)
	{
		if (slot->positions != NULL)
			streamext_chunk_free(slot->positions);
		slot->positions = fold->new_positions;
		slot->npositions = batch->npartitions;
		fold->new_positions = NULL;
	}
	for (int i = 0; i < batch->npartitions; i++)
		slot->positions[i] = Max(slot->positions[i], batch->positions[i]);
	fold->nselected = 0;
}

/* ---------------------------------------------------------------- expiry */

/* True if no reader can ask for the pane any more. */
static bool
fold_is_expired(ViewFold *fold, const Pane *pane, TimestampTz watermark, TimestampTz now)
{
	const Window *window = &fold->view->window;
	const ContinuousViewOptions *options = &fold->view->options;
	TimestampTz end;

	if (window->sliding && pg_atomic_read_u64(&streamext_shared->test_clock) == 0)
	{
		int64		first,
					last;

		streamext_window_sliding_range(window, now - SLIDING_SLACK, &first, &last);
		if (pane->id < first)
			return true;
	}
	if (options->retention == 0 || window->kind == WINDOW_NONE)
		return false;
	if (window->kind == WINDOW_SESSION)
		return fold->slot->state.horizon >= fold->session_end &&
			streamext_session_is_over(fold->view, fold->slot, pane, &fold->session_end);
	end = streamext_window_pane_end(window, pane->id);
	if (window->kind == WINDOW_HOP)
	{
		TimestampTz first_start,
					last_start;

		streamext_window_starts(window, pane->id, &first_start, &last_start);
		if (first_start <= last_start)
			end = last_start + window->size;
	}
	return end < PG_INT64_MAX - options->retention - options->lateness &&
		end + options->retention + options->lateness <= watermark;
}

/* Readers leave out windows that are gone in part before any part goes. */
static void
fold_raise_floor(ViewFold *fold, TimestampTz watermark)
{
	ViewSlot   *slot = fold->slot;
	TimestampTz floor = streamext_fold_floor(fold->view, watermark);

	if (floor <= slot->floor)
		return;
	streamext_stream_lock_exclusive(&streamext_shared->streams[slot->stream]);
	slot->floor = floor;
	LWLockRelease(slot->state.lock);
}

TimestampTz
streamext_fold_floor(const CompiledView *view, TimestampTz watermark)
{
	const ContinuousViewOptions *options = &view->options;
	TimestampTz floor;

	if (options->retention == 0 || !streamext_window_has_ends(&view->window) || watermark == DT_NOBEGIN ||
		pg_sub_s64_overflow(watermark, options->retention, &floor) ||
		pg_sub_s64_overflow(floor, options->lateness, &floor))
		return DT_NOBEGIN;
	return floor;
}

void
streamext_fold_forget_panes(ViewFold *fold, Pane *const *panes, int npanes)
{
	for (int a = 0; a < fold->view->naggs; a++)
		for (int p = 0; p < npanes; p++)
			streamext_aggregate_forget_pane(fold->aggs[a], panes[p]);
}

void
streamext_fold_expire(ViewFold *fold, TimestampTz watermark)
{
	ViewState  *state = &fold->slot->state;
	TimestampTz now = streamext_clock_now();

	fold_raise_floor(fold, watermark);
	if (fold->view->window.kind == WINDOW_SESSION)
		streamext_session_advance(fold->view, fold->slot, watermark);
	while (state->npanes > 0 && fold_is_expired(fold, state->panes[0], watermark, now))
	{
		Pane	   *pane = state->panes[0];

		for (int a = 0; a < fold->view->naggs; a++)
			streamext_aggregate_forget_pane(fold->aggs[a], pane);
		streamext_stream_lock_exclusive(&streamext_shared->streams[fold->slot->stream]);
		streamext_state_drop_pane(state, pane);
		LWLockRelease(state->lock);
	}
}
