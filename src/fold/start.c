/*-------------------------------------------------------------------------
 *
 * fold/start.c
 *		From a compiled view to a fold: its expressions made ready, its state in shared memory adopted or begun anew.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "view/definition.h"
#include "fold/fold_private.h"
#include "decode/plain.h"
#include "view/builtin.h"
#include "durable/into_position.h"
#include "state/buffer.h"
#include "view/closing.h"
#include "view/settings.h"

CompiledView *
streamext_fold_view(ViewFold *fold)
{
	return fold->view;
}

/* The number of an expression's vector; equal ones share it. */
static int
fold_add_expr(ViewFold *fold, Expr *expr)
{
	FoldExpr *fe;

	for (int i = 0; i < fold->exprs.n; i++)
		if (equal(fold->exprs.items[i].expr, expr))
			return i;

	fe = &fold->exprs.items[fold->exprs.n];
	fe->expr = expr;
	fe->column = fe->joined = -1;
	if (IsA(expr, RelabelType) && IsA(((RelabelType *) expr)->arg, Var))
		expr = ((RelabelType *) expr)->arg;
	if (IsA(expr, Var) && ((Var *) expr)->varno == fold->view->stream_varno && ((Var *) expr)->varattno > 0)
		fe->column = ((Var *) expr)->varattno - 1;
	else if (!fold->view->has_joins)
	{
		Expr *planned = expression_planner((Expr *) copyObject(fe->expr));

		fe->state = ExecInitExpr(planned, NULL);
		fold->guard.plain_select = fold->guard.plain_select && streamext_expr_is_plain((Node *) planned);
		fe->varlena = get_typlen(exprType((Node *) fe->expr)) == -1;
		fe->values = palloc0(sizeof(Datum) * STREAMEXT_BATCH_ROWS);
		fe->nulls = palloc0(sizeof(bool) * STREAMEXT_BATCH_ROWS);
		fold->guard.select = true;
	}
	return fold->exprs.n++;
}

/* What is not a plain column of the stream comes out of the join's query, which also has WHERE. */
static void
fold_init_join(ViewFold *fold)
{
	List *exprs = NIL;

	for (int i = 0; i < fold->exprs.n; i++)
		if (fold->exprs.items[i].column < 0)
		{
			fold->exprs.items[i].joined = list_length(exprs);
			exprs = lappend(exprs, fold->exprs.items[i].expr);
		}
	fold->join = streamext_join_start(fold->view, fold->config, exprs, fold->cxt);
}

static uint64 fold_functions = 0; /* changes seen */

static void
fold_note_function(Datum arg, int cacheid, uint32 hashvalue)
{
	fold_functions++;
}

static void
fold_init_quals(ViewFold *fold)
{
	List	 *quals = NIL;
	ListCell *lc;

	foreach (lc, fold->view->quals)
		quals = lappend(quals, expression_planner((Expr *) copyObject(lfirst(lc))));
	if (quals != NIL)
		fold->where = ExecInitQual(quals, NULL);
	fold->guard.plain_select = fold->guard.plain_select && streamext_expr_is_plain((Node *) quals);
}

/* What a derived stream keeps of each row. */
static void
fold_init_outputs(ViewFold *fold)
{
	List	 *outputs = fold->view->outputs;
	ListCell *lc;

	fold->exprs.output = palloc(sizeof(int) * list_length(outputs));
	fold->exprs.output_desc = CreateTemplateTupleDesc(list_length(outputs));
	foreach (lc, outputs)
	{
		int i = foreach_current_index(lc);

		fold->exprs.output[i] = fold_add_expr(fold, lfirst(lc));
		TupleDescInitEntry(fold->exprs.output_desc, i + 1, NULL, exprType(lfirst(lc)), -1, 0);
	}
}

static void
fold_make_buffer(ViewFold *fold)
{
	StreamSlot	 *stream = &streamext_shared->streams[fold->slot->id.stream];
	StreamBuffer *buffer;

	if (fold->slot->counted.rows != NULL)
		return;
	buffer = streamext_buffer_create(fold->config->buffer_size);
	streamext_stream_lock_exclusive(stream);
	fold->slot->counted.rows = buffer;
	LWLockRelease(stream->lock);
}

static void
fold_init_expressions(ViewFold *fold)
{
	static bool	  watching = false;
	CompiledView *view = fold->view;
	int			  n = view->nkeys;
	ListCell	 *lc;

	if (!watching)
		CacheRegisterSyscacheCallback(PROCOID, fold_note_function, (Datum) 0);
	watching = true;
	fold->functions = fold_functions;
	fold->guard.plain_select = !view->has_joins && !view->stateless;
	for (int a = 0; a < view->naggs; a++)
		n += list_length(view->aggs[a].args) + 1;
	n += list_length(view->outputs);
	fold->exprs.items = palloc0(sizeof(FoldExpr) * Max(n, 1));
	fold->exprs.key = palloc(sizeof(int) * Max(view->nkeys, 1));
	fold->exprs.arg = palloc(sizeof(int *) * Max(view->naggs, 1));
	fold->exprs.filter = palloc(sizeof(int) * Max(view->naggs, 1));

	for (int k = 0; k < view->nkeys; k++)
		fold->exprs.key[k] =
			view->keys[k].is_window || k == view->set_key ? -1 : fold_add_expr(fold, view->keys[k].expr);
	for (int a = 0; a < view->naggs; a++)
	{
		AggSpec *spec = &view->aggs[a];
		int		 arg = 0;

		fold->exprs.arg[a] = palloc(sizeof(int) * Max(list_length(spec->args), 1));
		foreach (lc, spec->args)
			fold->exprs.arg[a][arg++] = fold_add_expr(fold, lfirst(lc));
		fold->exprs.filter[a] = spec->filter == NULL ? -1 : fold_add_expr(fold, spec->filter);
		if (spec->mode != AGG_NATIVE)
			fold->guard.aggregate = true;
	}
	if (view->derived)
		fold_init_outputs(fold);
	if (view->has_joins || view->stateless)
		fold_init_join(fold);
	else
		fold_init_quals(fold);
	if (fold->where != NULL)
		fold->guard.select = true;
	if (view->window.kind == WINDOW_TRUNC)
		fold->guard.select = true; /* date_trunc may raise at the ends of the calendar */
	fold->guard.group = !streamext_keys_bytewise(view);
}

bool
streamext_fold_is_outdated(const ViewFold *fold)
{
	return fold->functions != fold_functions;
}

bool
streamext_fold_renew(ViewFold *fold)
{
	MemoryContext former = fold->renewed_cxt;
	MemoryContext old;
	IdentityScope scope;

	if (!streamext_fold_is_outdated(fold))
		return false;
	fold->functions = fold_functions;
	fold->renewed_cxt = AllocSetContextCreate(fold->cxt, "streamext fold expressions", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(fold->renewed_cxt);
	scope = streamext_fold_enter_owner(fold);
	for (int i = 0; i < fold->exprs.n; i++)
		if (fold->exprs.items[i].state != NULL)
			fold->exprs.items[i].state =
				ExecInitExpr(expression_planner((Expr *) copyObject(fold->exprs.items[i].expr)), NULL);
	if (fold->where != NULL)
		fold_init_quals(fold);
	for (int a = 0; a < fold->view->naggs; a++)
		if (fold->view->aggs[a].mode == AGG_TRANS)
		{
			streamext_aggregate_end(fold->aggs[a]);
			fold->aggs[a] = streamext_aggregate_start(&fold->view->aggs[a], &fold->slot->counted.state, fold->cxt);
		}
	streamext_identity_leave(scope);
	MemoryContextSwitchTo(old);
	if (former != NULL)
		MemoryContextDelete(former);
	return true;
}

IdentityScope
streamext_fold_enter_owner(ViewFold *fold)
{
	IdentityScope scope = streamext_identity_enter(fold->view->owner);

	streamext_view_enter_settings(&fold->view->options);
	return scope;
}

void
streamext_fold_check_types(ViewFold *fold)
{
	uint64				changes = streamext_layout_changes();
	const CompiledView *view = fold->view;
	const StreamSlot   *stream = &streamext_shared->streams[fold->slot->id.stream];
	RowLayout		   *types;

	if (fold->types_seen == changes)
		return;
	types = streamext_view_types(view);
	if (types == NULL || !streamext_layout_equal(types, view->types))
	{
		streamext_announce_stream(stream->id.dboid, stream->id.relid, stream->id.shard, false);
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("a composite type of continuous view \"%s\" has been altered", get_rel_name(view->relid))));
	}
	fold->types_seen = changes;
}

/* State that was made for another definition is of no use. */
static void
fold_adopt_state(ViewFold *fold)
{
	ViewSlot *slot = fold->slot;

	if (slot->counted.definition == fold->view->definition)
		return;
	if (slot->counted.definition != 0)
		streamext_view_begin_anew(slot);
	streamext_view_slot_begin(slot, fold->view->definition, fold->view->layout, fold->view->state_size);
}

/* A stateless view stands where its table says, whatever a worker that ended before its commit has left in shared memory. */
static void
fold_load_positions(ViewFold *fold, StreamSlot *stream, const StreamConfig *config)
{
	ViewSlot *slot = fold->slot;

	fold->stored = streamext_into_load(fold->view->relid, config);
	streamext_stream_lock_exclusive(stream);
	for (int i = 0; i < slot->counted.npositions; i++)
		slot->counted.positions[i] = -1;
	LWLockRelease(stream->lock);
}

int64
streamext_fold_stored_position(const ViewFold *fold, const char *topic, int partition)
{
	ListCell *lc;

	foreach (lc, fold->stored)
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
	ViewFold	 *fold = palloc0(sizeof(ViewFold));
	IdentityScope scope;

	fold->cxt = own;
	fold->view = view;
	fold->slot = slot;
	fold->config = config;
	fold_adopt_state(fold);
	if (view->derived)
		fold_make_buffer(fold);
	if (view->stateless)
		fold_load_positions(fold, &streamext_shared->streams[slot->id.stream], config);

	scope = streamext_fold_enter_owner(fold);
	streamext_view_check_trust(view);
	streamext_window_prepare(&view->window, own);
	fold->econtext = CreateStandaloneExprContext();
	fold->row = MakeSingleTupleTableSlot(CreateTupleDescCopy(config->desc), &TTSOpsVirtual);
	fold->econtext->ecxt_scantuple = fold->row;
	fold_init_expressions(fold);
	fold->key.matcher = streamext_key_matcher(view, own);
	fold->key.equal = fold->guard.group ? streamext_key_equal : NULL;
	fold->aggs = palloc(sizeof(AggRuntime *) * Max(view->naggs, 1));
	for (int a = 0; a < view->naggs; a++)
		fold->aggs[a] = streamext_aggregate_start(&view->aggs[a], &slot->counted.state, own);
	streamext_identity_leave(scope);

	fold->session_end = DT_NOBEGIN;
	fold->key.capacity = 256;
	fold->key.bytes = palloc(fold->key.capacity);
	fold->selected.capacity = STREAMEXT_BATCH_ROWS;
	fold->selected.rows = palloc(sizeof(int) * STREAMEXT_BATCH_ROWS);
	fold->selected.pane_ids = palloc0(sizeof(int64) * STREAMEXT_BATCH_ROWS);
	fold->selected.panes = palloc(sizeof(Pane *) * STREAMEXT_BATCH_ROWS);
	fold->selected.groups = palloc(sizeof(GroupEntry *) * STREAMEXT_BATCH_ROWS);
	fold->inputs = palloc0(sizeof(AggInput) * Max(view->naggs, 1));
	for (int a = 0; a < view->naggs; a++)
	{
		int nargs = list_length(view->aggs[a].args);

		fold->inputs[a].args = palloc(sizeof(Datum *) * Max(nargs, 1));
		fold->inputs[a].nulls = palloc(sizeof(bool *) * Max(nargs, 1));
	}
	MemoryContextSwitchTo(old);
	return fold;
}
