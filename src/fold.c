/*-------------------------------------------------------------------------
 *
 * fold.c
 *		One batch into one view.
 *
 * prepare, unlocked, in this order:
 *	1. select: rows the view has not counted yet, less late ones, less those that WHERE drops; key, argument and FILTER
 *	   expressions are evaluated into vectors (plain columns are used as they are);
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
	int		   *key_expr;		/* [nkeys], -1 for the window key */
	int		  **arg_expr;		/* [agg][arg] */
	int		   *filter_expr;	/* [agg], -1: none */
	bool		guard_select;	/* step 1 runs user code or may raise */
	bool		guard_group;	/* key types' own functions */
	bool		guard_aggregate;

	AggRuntime **aggs;
	KeyMatcher *matcher;
	GroupEqual	equal;
	char	   *key;
	uint32		key_capacity;

	TimestampTz session_end;	/* of a session that keeps the oldest pane; DT_NOBEGIN: none is known */

	/* the batch at hand */
	Batch	   *batch;
	int			nselected;
	int		   *rows;			/* [selected] row numbers */
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
	fe->column = -1;
	if (IsA(expr, RelabelType) && IsA(((RelabelType *) expr)->arg, Var))
		expr = ((RelabelType *) expr)->arg;
	if (IsA(expr, Var) && ((Var *) expr)->varattno > 0)
		fe->column = ((Var *) expr)->varattno - 1;
	else
	{
		fe->state = ExecInitExpr(expression_planner((Expr *) copyObject(fe->expr)), NULL);
		fe->varlena = get_typlen(exprType((Node *) fe->expr)) == -1;
		fe->values = palloc0(sizeof(Datum) * STREAMEXT_BATCH_ROWS);
		fe->nulls = palloc0(sizeof(bool) * STREAMEXT_BATCH_ROWS);
		fold->guard_select = true;
	}
	return fold->nexprs++;
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
		fold->key_expr[k] = view->keys[k].is_window ? -1 : fold_add_expr(fold, view->keys[k].expr);
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
	LWLockRelease(stream->lock);
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
	FreeExprContext(fold->econtext, false);
	ExecDropSingleTupleTableSlot(fold->row);
	MemoryContextDelete(fold->cxt);
}

/* ---------------------------------------------------------------- guarded steps */

static void
fold_reject(ViewFold *fold, int row, const ErrorData *error)
{
	streamext_batch_reject(fold->batch, fold->view->relid, fold->batch->record[row], error->sqlerrcode, error->message);
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
	TimestampTz end = streamext_window_pane_end(&fold->view->window, pane);

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
	bool		evaluate = fold->guard_select;
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
		if (!evaluate || fold_evaluate(fold, row))
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

/* ---------------------------------------------------------------- step 2: group */

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
		int64		pane_id = fold->pane_ids[row];
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
		size = streamext_key_serialize(view, values, nulls, &fold->key, &fold->key_capacity);
		hash = streamext_key_hash(fold->matcher, values, nulls, fold->key, size);
		fold->panes[i] = cached[c];
		fold->groups[i] = streamext_state_group(state, cached[c], hash, fold->key, size, fold->equal, fold->matcher, &is_new);
		if (fold->groups[i] == NULL)
			return false;
	}
	return true;
}

/* Takes a selected row out: it was counted as accepted and is rejected now. */
static void
fold_deselect(ViewFold *fold, int i)
{
	int			after = fold->nselected - i - 1;

	memmove(&fold->rows[i], &fold->rows[i + 1], sizeof(int) * after);
	memmove(&fold->groups[i], &fold->groups[i + 1], sizeof(GroupEntry *) * after);
	memmove(&fold->panes[i], &fold->panes[i + 1], sizeof(Pane *) * after);
	fold->nselected--;
	fold->accepted--;
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
			fold_deselect(fold, at);
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
			int		   *rows = palloc(sizeof(int) * Max(fold->nselected, 1));
			GroupEntry **groups = palloc(sizeof(GroupEntry *) * Max(fold->nselected, 1));
			Pane	  **panes = palloc(sizeof(Pane *) * Max(fold->nselected, 1));
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
			streamext_session_add(view, fold->groups[i], batch->event_time[fold->rows[i]]);
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

void
streamext_fold_expire(ViewFold *fold, TimestampTz watermark)
{
	ViewState  *state = &fold->slot->state;
	TimestampTz now = streamext_clock_now();

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
