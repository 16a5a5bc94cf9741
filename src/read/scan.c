/*
 * read/scan.c
 *		The executor node of a continuous view's scan: values from partial aggregates, filters, EXPLAIN.
 *
 * Only columns that the plan refers to are computed, and quals that need no aggregate are tried before aggregates are.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "access/sysattr.h"
#include "catalog/pg_proc.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "executor/executor.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "optimizer/clauses.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"
#include "utils/timestamp.h"

#include "base/hooks.h"
#include "read/scan.h"
#include "view/union.h"

typedef struct ViewScanState
{
	CustomScanState		css;
	ViewScanPlan		prune;
	const CompiledView *view;
	ScanRead		   *read; /* NULL in plain EXPLAIN */
	RowReader		   *rows;
	ReadChanged		   *changed; /* notes the rows that are given, unless NULL */

	List		 *values;  /* ExprStates, if the look-up's values are known only while the statement runs */
	List		 *bounds;  /* the same, NULL in the place of bounds known before */
	bool		  started; /* since the last rescan */
	MemoryContext probe_cxt;
	ScanProbe	  probe;

	int			ncolumns;  /* of view_rows */
	bool		states;	   /* they are more than keys and aggregates: streamext.merge asks for states */
	bool		last;	   /* and, behind these, for the time of a session's last row */
	bool	   *needed;	   /* by column */
	AggReader **readers;   /* by aggregate; NULL: not needed */
	bool		need_keys; /* any but the window key */
	ExprState  *key_qual;  /* quals that need no aggregate, or NULL */
	Datum	   *key_values;
	bool	   *key_nulls;
} ViewScanState;

static Node			  *scan_create_state(CustomScan *scan);
static void			   scan_begin(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *scan_exec(CustomScanState *node);
static void			   scan_end(CustomScanState *node);
static void			   scan_rescan(CustomScanState *node);
static void			   scan_explain(CustomScanState *node, List *ancestors, ExplainState *es);

const CustomScanMethods streamext_scan_methods = { .CustomName = streamext_scan_name,
												   .CreateCustomScanState = scan_create_state };

static const CustomExecMethods scan_exec_methods = { .CustomName = streamext_scan_name,
													 .BeginCustomScan = scan_begin,
													 .ExecCustomScan = scan_exec,
													 .EndCustomScan = scan_end,
													 .ReScanCustomScan = scan_rescan,
													 .ExplainCustomScan = scan_explain };

/* ---- begin, rescan, end ---- */

static Node *
scan_create_state(CustomScan *scan)
{
	ViewScanState *state = palloc0(sizeof(ViewScanState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &scan_exec_methods;
	return (Node *) state;
}

void
streamext_scan_check_aggregate(Oid function)
{
	AclResult result;

	result = object_aclcheck(ProcedureRelationId, function, GetUserId(), ACL_EXECUTE);
	if (result != ACLCHECK_OK)
		aclcheck_error(result, OBJECT_AGGREGATE, get_func_name(function));
}

void
streamext_scan_check_aggregates(const CompiledView *view)
{
	for (int a = 0; a < view->naggs; a++)
		streamext_scan_check_aggregate(view->aggs[a].aggref->aggfnoid);
}

static Bitmapset *
scan_columns_of(Node *node)
{
	Bitmapset *columns = NULL;

	pull_varattnos(node, INDEX_VAR, &columns);
	return columns;
}

/*
 * Which columns are wanted, and which quals can be tried before aggregates are computed. Quals come ordered by security
 * level and cost: after one that waits only such are tried that tell nothing of what they see.
 */
static void
scan_find_columns(ViewScanState *state, const Plan *plan)
{
	const CompiledView *view = state->view;
	Bitmapset *columns = bms_union(scan_columns_of((Node *) plan->targetlist), scan_columns_of((Node *) plan->qual));
	List	  *early = NIL;
	bool	   waiting = false;
	ListCell  *lc;

	state->needed = palloc0(sizeof(bool) * Max(state->ncolumns, 1));
	for (int c = 0; c < state->ncolumns; c++)
	{
		state->needed[c] = bms_is_member(c + 1 - FirstLowInvalidHeapAttributeNumber, columns);
		if (state->needed[c] && c < view->nkeys && !view->keys[c].is_window)
			state->need_keys = true;
	}

	foreach (lc, plan->qual)
	{
		Node	  *qual = lfirst(lc);
		Bitmapset *used = scan_columns_of(qual);
		int		   highest = bms_is_empty(used) ? 0 : bms_prev_member(used, -1) + FirstLowInvalidHeapAttributeNumber;

		if (highest < 1 || highest > view->nkeys || contain_subplans(qual) || contain_volatile_functions(qual) ||
			(waiting && contain_leaked_vars(qual)))
			waiting = true;
		else
			early = lappend(early, qual);
	}
	/* Without aggregates to be spared they would only be tried twice. */
	if (early != NIL && view->naggs > 0)
		state->key_qual = ExecInitQual(early, &state->css.ss.ps);
}

/* Expressions that are known only while the statement runs; NULL in the place of the others. */
static List *
scan_init_unknown(ViewScanState *state, List *exprs, bool all)
{
	List	 *result = NIL;
	ListCell *lc;

	foreach (lc, exprs)
		result = lappend(
			result, !all && streamext_read_is_known(lfirst(lc)) ? NULL : ExecInitExpr(lfirst(lc), &state->css.ss.ps));
	return result;
}

/* Whether streamext.merge asks for the aggregate's state. */
static inline bool
scan_wants_state(const ViewScanState *state, int a)
{
	int c = state->view->nkeys + state->view->naggs + a;

	return c < state->ncolumns && state->needed[c];
}

/* What columns view_rows has behind keys and aggregates. */
static void
scan_find_states(ViewScanState *state, int ncolumns)
{
	const CompiledView *view = state->view;
	int					all = view->nkeys + 2 * view->naggs;

	state->ncolumns = ncolumns;
	state->last = ncolumns == all + 1 && view->window.kind == WINDOW_SESSION;
	state->states = ncolumns == all || state->last;
	if (!state->states && ncolumns != view->nkeys + view->naggs)
		elog(ERROR, "plan of continuous view %u is out of date", view->relid);
}

static void
scan_begin(CustomScanState *node, EState *estate, int eflags)
{
	ViewScanState	   *state = (ViewScanState *) node;
	const CustomScan   *plan = (const CustomScan *) node->ss.ps.plan;
	const CompiledView *view;
	IdentityScope		scope;
	bool				entered;

	streamext_require_preload();
	state->prune = streamext_scan_plan_load(plan);
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
	{
		state->view = streamext_view_cached(state->prune.view, estate->es_query_cxt);
		streamext_scan_check_aggregates(state->view);
		return;
	}
	state->read = streamext_read_begin(estate, plan);
	view = state->view = state->read->read->view;
	state->changed = state->read->read->changed;
	scan_find_states(state, list_length(plan->custom_scan_tlist));
	streamext_scan_check_aggregates(view);
	scan_find_columns(state, &plan->scan.plan);
	if (!state->read->by_hash)
		state->values = scan_init_unknown(state, state->prune.values, true);
	state->bounds = scan_init_unknown(state, state->prune.bounds, false);
	state->key_values = palloc0(sizeof(Datum) * Max(view->nkeys, 1));
	state->key_nulls = palloc0(sizeof(bool) * Max(view->nkeys, 1));
	state->probe_cxt = AllocSetContextCreate(estate->es_query_cxt, "streamext look-up", ALLOCSET_SMALL_SIZES);
	state->readers = palloc0(sizeof(AggReader *) * Max(view->naggs, 1));
	entered = streamext_read_enter(view, &scope);
	for (int a = 0; a < view->naggs; a++)
		if (state->needed[view->nkeys + a] || scan_wants_state(state, a))
			state->readers[a] = streamext_aggregate_reader(&view->aggs[a], estate->es_query_cxt);
	streamext_read_leave(entered, &scope);
	state->rows = streamext_rows_create(state->read, state->readers, estate->es_query_cxt);
}

static void
scan_rescan(CustomScanState *node)
{
	ViewScanState *state = (ViewScanState *) node;

	state->started = false;
	ExecScanReScan(&node->ss);
}

static void
scan_end(CustomScanState *node)
{
	ViewScanState *state = (ViewScanState *) node;

	if (state->rows != NULL)
		streamext_rows_end(state->rows);
	state->rows = NULL;
}

/* Starts the rows, with what is known only now of look-up and bounds. */
static void
scan_start(ViewScanState *state)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	int64		 min = state->read->min;
	int64		 max = state->read->max;
	ListCell	*lc, *lc2;

	state->started = true;
	if (state->values != NIL)
	{
		Datum		  values[STREAMEXT_MAX_KEYS];
		bool		  nulls[STREAMEXT_MAX_KEYS];
		MemoryContext old;
		int			  n = 0;

		foreach (lc, state->values)
		{
			values[n] = ExecEvalExprSwitchContext(lfirst(lc), econtext, &nulls[n]);
			n++;
		}
		MemoryContextReset(state->probe_cxt);
		old = MemoryContextSwitchTo(state->probe_cxt);
		state->probe = streamext_read_probe(state->read, values, nulls);
		MemoryContextSwitchTo(old);
	}
	forboth (lc, state->prune.strategies, lc2, state->bounds)
	{
		bool  isnull;
		Datum value;

		if (lfirst(lc2) == NULL)
			continue;
		value = ExecEvalExprSwitchContext(lfirst(lc2), econtext, &isnull);
		if (!isnull)
			streamext_read_narrow(state->view, lfirst_int(lc), DatumGetTimestampTz(value), &min, &max);
	}
	streamext_rows_start(state->rows, min, max, state->values != NIL ? &state->probe : NULL);
}

/* ---- values ---- */

static void
row_keys(ViewScanState *state, TupleTableSlot *slot)
{
	const CompiledView *view = state->view;

	if (state->need_keys && streamext_rows_entry(state->rows) == NULL)
	{
		memset(state->key_nulls, true, view->nkeys);
		if (view->set_key >= 0)
		{
			state->key_nulls[view->set_key] = false;
			state->key_values[view->set_key] = Int32GetDatum(streamext_rows_empty(state->rows));
		}
	}
	else if (state->need_keys)
		streamext_key_deserialize(view, STREAMEXT_ENTRY_KEY(streamext_rows_entry(state->rows), view->state_size),
								  state->key_values, state->key_nulls);
	for (int k = 0; k < view->nkeys; k++)
	{
		slot->tts_isnull[k] = true;
		slot->tts_values[k] = (Datum) 0;
		if (!state->needed[k])
			continue;
		slot->tts_isnull[k] = view->keys[k].is_window ? !streamext_rows_has_window(state->rows) : state->key_nulls[k];
		slot->tts_values[k] =
			view->keys[k].is_window ? TimestampTzGetDatum(streamext_rows_window(state->rows)) : state->key_values[k];
	}
}

/* The columns behind keys and aggregates. */
static void
row_states(ViewScanState *state, TupleTableSlot *slot)
{
	const CompiledView *view = state->view;
	int					first = view->nkeys + view->naggs;

	for (int a = 0; a < view->naggs; a++)
	{
		int c = first + a;

		slot->tts_isnull[c] = !state->needed[c];
		slot->tts_values[c] = state->needed[c] ? streamext_rows_state(state->rows, a) : (Datum) 0;
	}
	if (state->last)
	{
		slot->tts_isnull[state->ncolumns - 1] = false;
		slot->tts_values[state->ncolumns - 1] = TimestampTzGetDatum(streamext_rows_last(state->rows));
	}
}

static pg_attribute_always_inline void
row_compute(ViewScanState *state, TupleTableSlot *slot)
{
	const CompiledView *view = state->view;
	const bool		   *needed = state->needed + view->nkeys;
	Datum			   *values = slot->tts_values + view->nkeys;
	bool			   *nulls = slot->tts_isnull + view->nkeys;

	for (int a = 0; a < view->naggs; a++)
		if (needed[a])
			values[a] = streamext_rows_aggregate(state->rows, a, &nulls[a]);
		else
		{
			nulls[a] = true;
			values[a] = (Datum) 0;
		}
	if (state->states)
		row_states(state, slot);
}

static void
row_aggregates(ViewScanState *state, TupleTableSlot *slot)
{
	IdentityScope scope;
	bool		  entered = streamext_read_enter(state->view, &scope);

	row_compute(state, slot);
	streamext_read_leave(entered, &scope);
}

/* Finding the next row compares keys and combines windows. Its aggregates too, where no qual of the reader's comes between: one scope a row. */
static bool
row_next(ViewScanState *state, TupleTableSlot *slot)
{
	IdentityScope scope;
	bool		  entered = streamext_read_enter(state->view, &scope);
	bool		  found = streamext_rows_next(state->rows);

	if (found && state->key_qual == NULL)
		row_compute(state, slot);
	streamext_read_leave(entered, &scope);
	return found;
}

/* True if the row's keys pass the quals on keys; the slot's aggregates are not there yet. */
static bool
row_passes(ViewScanState *state, TupleTableSlot *slot)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	int			 nkeys = state->view->nkeys;

	memset(slot->tts_isnull + nkeys, true, state->ncolumns - nkeys);
	ExecStoreVirtualTuple(slot);
	econtext->ecxt_scantuple = slot;
	return ExecQual(state->key_qual, econtext);
}

static TupleTableSlot *
scan_fetch(ScanState *node)
{
	ViewScanState  *state = (ViewScanState *) node;
	TupleTableSlot *slot = node->ss_ScanTupleSlot;
	MemoryContext	row_cxt = node->ps.ps_ExprContext->ecxt_per_tuple_memory;
	MemoryContext	old = MemoryContextSwitchTo(row_cxt);

	ExecClearTuple(slot);
	if (!state->started)
		scan_start(state);
	while (row_next(state, slot))
	{
		row_keys(state, slot);
		if (state->key_qual != NULL && !row_passes(state, slot))
		{
			InstrCountFiltered1(node, 1);
			ExecClearTuple(slot);
			MemoryContextReset(row_cxt);
			continue;
		}
		ExecClearTuple(slot);
		if (state->key_qual != NULL)
			row_aggregates(state, slot);
		ExecStoreVirtualTuple(slot);
		break;
	}
	MemoryContextSwitchTo(old);
	return slot;
}

static bool
scan_recheck(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
scan_next(ViewScanState *state)
{
	return ExecScan(&state->css.ss, (ExecScanAccessMtd) scan_fetch, (ExecScanRecheckMtd) scan_recheck);
}

static pg_noinline TupleTableSlot *
scan_next_noted(ViewScanState *state)
{
	TupleTableSlot *slot = scan_next(state);

	if (!TupIsNull(slot) && streamext_rows_entry(state->rows) != NULL)
		streamext_changed_note(state->changed, streamext_rows_entry(state->rows)->hash,
							   streamext_rows_window(state->rows));
	return slot;
}

static TupleTableSlot *
scan_exec(CustomScanState *node)
{
	ViewScanState *state = (ViewScanState *) node;

	return likely(state->changed == NULL) ? scan_next(state) : scan_next_noted(state);
}

/* ---- EXPLAIN ---- */

static void
scan_explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	const ViewScanState *state = (const ViewScanState *) node;

	streamext_scan_explain(&state->css, &state->prune, state->view, state->read, ancestors, es);
}

/* ---- the rest ---- */
