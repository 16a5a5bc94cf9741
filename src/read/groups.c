/*
 * read/groups.c
 *		The executor node that does GROUP BY above a continuous view in its scan: a coarser answer out of a finer view.
 *
 * Its rows are those that a scan would give (read/rows.c), of which no tuples are made. A group is of a *key*, what GROUP BY has of the view's
 * keys, and of a *span*, the values of what GROUP BY has of the window. Expressions and conditions of the window are evaluated when the
 * window changes, those of other keys when a stored key is met first; both as the reader. States are combined and finished as the view's owner.
 *
 * Where rows come in the order of their windows a span is given and forgotten as soon as no further row can be of it (GroupsOrder); so the
 * hours of a year take the memory of a few. A span that rows of memory's panes are of, which come before those of history, is kept until the
 * end. To meet a span that is forgotten would be an error of ours, and is raised.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "common/hashfn.h"
#include "common/int.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"

#include "read/groups.h"

#define GROUPS_AT_ONCE 256 /* entries of a pane that are combined together */

/* A stored key of the view. */
typedef struct StoredKey
{
	const char		 *bytes;
	uint32			  size;
	int				  key;		/* -1: WHERE leaves it out */
	struct StoredKey *expected; /* what came after it last; never NULL */
} StoredKey;

typedef struct StoredBytes
{
	const char *bytes;
	uint32		size;
} StoredBytes;

typedef struct StoredKeyEntry
{
	StoredBytes key;
	StoredKey  *stored;
	uint32		hash;
	char		status;
} StoredKeyEntry;

#define SH_PREFIX storedkey
#define SH_ELEMENT_TYPE StoredKeyEntry
#define SH_KEY_TYPE StoredBytes
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) (key).bytes, (int) (key).size)
#define SH_EQUAL(tb, a, b) ((a).size == (b).size && memcmp((a).bytes, (b).bytes, (a).size) == 0)
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Span
{
	dlist_node	  node; /* of the list that it is in, in the order in which they were met */
	MinimalTuple  values;
	MemoryContext cxt;	  /* of the states */
	char		**states; /* by key; NULL: no row */
	int			  capacity;
	bool		  kept;		/* until the end */
	TimestampTz	  left;		/* the first window of another span behind its last one; DT_NOBEGIN: none yet */
	int			  next_key; /* to be given */
} Span;

typedef struct GroupsState
{
	CustomScanState		css;
	ViewScanPlan		prune;
	GroupsPlan			plan;
	const CompiledView *view;
	ScanRead		   *read; /* NULL in plain EXPLAIN */
	RowReader		   *rows;
	TupleTableSlot	   *row;   /* the node's tuple, with the keys at hand, for expressions */
	List			   *panes; /* ExprState */
	ExprState		   *pane_quals, *key_quals;
	GroupsAggs			aggs;
	int64				lag; /* between Span.left and when it is given; -1: they are kept */
	GroupsTable			spans, keys;

	MemoryContext	cxt; /* of all that follows, since the last start */
	bool			started, ended;
	bool			any; /* a group was given */
	storedkey_hash *stored;
	StoredKey	   *last_stored; /* NULL: none was met */
	MinimalTuple   *key_values;	 /* by key */
	int				nkeys;
	int				keys_capacity;
	dlist_head		waiting, kept;
	Span		   *only;	 /* without a window in GROUP BY; or NULL */
	Span		   *current; /* of the window at hand; NULL: WHERE leaves it out */
	bool			has_window;
	TimestampTz		window; /* at hand */
	Span		   *giving; /* NULL: none */
} GroupsState;

/* ---- begin, rescan, end ---- */

static void
groups_check_functions(const GroupsPlan *plan)
{
	ListCell *lc;

	foreach (lc, plan->functions)
		streamext_scan_check_aggregate(lfirst_oid(lc));
}

static int64
groups_lag(GroupsOrder order)
{
	switch (order)
	{
		case GROUPS_ORDER_AT_ONCE:
			return 0;
		case GROUPS_ORDER_HOUR:
			return USECS_PER_HOUR;
		case GROUPS_ORDER_DAY:
			return 26 * USECS_PER_HOUR; /* what there is of zones from -12 to +14 */
		case GROUPS_ORDER_NONE:
			break;
	}
	return -1;
}

static TupleDesc
groups_key_desc(const GroupsState *state)
{
	TupleDesc desc = CreateTemplateTupleDesc(list_length(state->plan.keys));
	ListCell *lc;

	foreach (lc, state->plan.keys)
	{
		const KeySpec *key = &state->view->keys[lfirst_int(lc)];

		TupleDescInitEntry(desc, foreach_current_index(lc) + 1, "key", key->type, key->typmod, 0);
		TupleDescInitEntryCollation(desc, foreach_current_index(lc) + 1, key->collation);
	}
	return desc;
}

static TupleDesc
groups_span_desc(const GroupsState *state)
{
	TupleDesc desc = CreateTemplateTupleDesc(list_length(state->plan.panes));
	ListCell *lc;

	foreach (lc, state->plan.panes)
	{
		Node *expr = lfirst(lc);

		TupleDescInitEntry(desc, foreach_current_index(lc) + 1, "span", exprType(expr), exprTypmod(expr), 0);
		TupleDescInitEntryCollation(desc, foreach_current_index(lc) + 1, exprCollation(expr));
	}
	return desc;
}

static void
groups_begin(CustomScanState *node, EState *estate, int eflags)
{
	GroupsState		 *state = (GroupsState *) node;
	const CustomScan *plan = (const CustomScan *) node->ss.ps.plan;
	AggReader		**readers;

	streamext_require_preload();
	state->prune = streamext_scan_plan_load(plan);
	state->plan = streamext_groups_plan_load(list_copy_tail(plan->custom_private, GROUPS_PRIVATE));
	groups_check_functions(&state->plan);
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
	{
		state->view = streamext_view_cached(state->prune.view, estate->es_query_cxt);
		streamext_scan_check_aggregates(state->view);
		return;
	}
	state->read = streamext_read_begin(estate, plan);
	state->read->unhashed = true;
	state->view = state->read->read->view;
	if (list_length(plan->custom_scan_tlist) < state->view->nkeys)
		elog(ERROR, "plan of continuous view %u is out of date", state->view->relid);
	streamext_scan_check_aggregates(state->view);
	readers = streamext_groups_aggs(&state->aggs, state->view, &state->plan, estate->es_query_cxt);
	state->rows = streamext_rows_create(state->read, readers, estate->es_query_cxt);
	state->lag = groups_lag(state->plan.order);
	state->row = ExecInitExtraTupleSlot(estate, node->ss.ss_ScanTupleSlot->tts_tupleDescriptor, &TTSOpsVirtual);
	state->panes = ExecInitExprList(state->plan.panes, &node->ss.ps);
	state->pane_quals = ExecInitQual(state->plan.pane_quals, &node->ss.ps);
	state->key_quals = ExecInitQual(state->plan.key_quals, &node->ss.ps);
	streamext_groups_table_init(&state->spans, estate, groups_span_desc(state));
	streamext_groups_table_init(&state->keys, estate, groups_key_desc(state));
	state->cxt = AllocSetContextCreate(estate->es_query_cxt, "streamext groups", ALLOCSET_DEFAULT_SIZES);
}

static void
groups_rescan(CustomScanState *node)
{
	((GroupsState *) node)->started = false;
	ExecScanReScan(&node->ss);
}

static void
groups_end(CustomScanState *node)
{
	GroupsState *state = (GroupsState *) node;

	if (state->rows != NULL)
		streamext_rows_end(state->rows);
	state->rows = NULL;
}

/* Whether the window alone is grouped by: which key a row has does not matter. */
static bool
stored_is_one(const GroupsState *state)
{
	return state->keys.n == 0 && state->key_quals == NULL;
}

static void
groups_start(GroupsState *state)
{
	MemoryContext old = CurrentMemoryContext;

	MemoryContextReset(state->cxt);
	MemoryContextSwitchTo(state->cxt);
	state->started = true;
	state->ended = state->any = state->has_window = false;
	state->stored = storedkey_create(state->cxt, 64, NULL);
	state->last_stored = NULL;
	state->key_values = NULL;
	state->nkeys = state->keys_capacity = 0;
	dlist_init(&state->waiting);
	dlist_init(&state->kept);
	state->only = state->current = state->giving = NULL;
	streamext_groups_table_start(&state->spans, &state->css.ss.ps, state->plan.pane_operators,
								 state->plan.pane_collations, state->cxt);
	streamext_groups_table_start(&state->keys, &state->css.ss.ps, state->plan.key_operators, state->plan.key_collations,
								 state->cxt);
	MemoryContextSwitchTo(old);
	streamext_rows_start(state->rows, state->read->min, state->read->max, NULL);
	if (state->aggs.native && stored_is_one(state))
		streamext_rows_sum(state->rows);
}

/* ---- spans ---- */

static Span *
span_make(GroupsState *state, MinimalTuple values)
{
	Span *span = MemoryContextAllocZero(state->cxt, sizeof(Span));

	span->values = values;
	span->cxt = AllocSetContextCreate(state->cxt, "streamext span", ALLOCSET_DEFAULT_SIZES);
	span->left = DT_NOBEGIN;
	dlist_push_tail(&state->waiting, &span->node);
	return span;
}

/* The span of the window at hand, whose values are in the table's slot. */
static Span *
span_find(GroupsState *state)
{
	MinimalTuple values;
	bool		 isnew;
	void	   **at;

	if (state->spans.n == 0)
	{
		if (state->only == NULL)
			state->only = span_make(state, NULL);
		return state->only;
	}
	at = streamext_groups_table_find(&state->spans, &values, &isnew);
	if (isnew)
		*at = span_make(state, values);
	else if (((Span *) *at)->cxt == NULL)
		elog(ERROR, "windows of continuous view %u are out of order", state->view->relid);
	return *at;
}

static void
span_keep(GroupsState *state, Span *span)
{
	if (span->kept)
		return;
	span->kept = true;
	dlist_delete(&span->node);
	dlist_push_tail(&state->kept, &span->node);
}

/* Rows come in the order of their windows, and those that come now are of the span at hand. */
static void
spans_leave(GroupsState *state)
{
	dlist_iter iter;

	state->current->left = DT_NOBEGIN;
	dlist_foreach (iter, &state->waiting)
	{
		Span	   *span = dlist_container(Span, node, iter.cur);
		TimestampTz until;

		if (span == state->current)
			continue;
		if (span->left == DT_NOBEGIN)
			span->left = state->window;
		if (state->giving == NULL && !pg_add_s64_overflow(span->left, state->lag, &until) && state->window >= until)
			state->giving = span;
	}
}

static void
span_give_up(GroupsState *state, Span *span)
{
	dlist_delete(&span->node);
	MemoryContextDelete(span->cxt);
	span->cxt = NULL;
	state->giving = NULL;
}

/* ---- windows and keys ---- */

/* The row for expressions, with nothing in it. */
static void
row_clear(GroupsState *state)
{
	TupleTableSlot *row = state->row;

	ExecClearTuple(row);
	memset(row->tts_isnull, true, row->tts_tupleDescriptor->natts);
	memset(row->tts_values, 0, sizeof(Datum) * row->tts_tupleDescriptor->natts);
	state->css.ss.ps.ps_ExprContext->ecxt_scantuple = row;
}

/* Evaluates GROUP BY for the window at hand. */
static void
window_values(GroupsState *state)
{
	TupleTableSlot *slot = state->spans.slot;
	ListCell	   *lc;

	ExecClearTuple(slot);
	foreach (lc, state->panes)
	{
		int i = foreach_current_index(lc);

		slot->tts_values[i] = ExecEvalExpr(lfirst(lc), state->css.ss.ps.ps_ExprContext, &slot->tts_isnull[i]);
	}
	ExecStoreVirtualTuple(slot);
}

/* Rows are of another window than before. */
static void
window_enter(GroupsState *state)
{
	const CompiledView *view = state->view;

	state->window = streamext_rows_window(state->rows);
	state->has_window = true;
	row_clear(state);
	if (view->window_key >= 0)
	{
		state->row->tts_values[view->window_key] = TimestampTzGetDatum(state->window);
		state->row->tts_isnull[view->window_key] = false;
	}
	ExecStoreVirtualTuple(state->row);
	state->current = NULL;
	if (!ExecQual(state->pane_quals, state->css.ss.ps.ps_ExprContext))
		return;
	window_values(state);
	state->current = span_find(state);
	if (state->lag < 0 || !streamext_rows_ascend(state->rows))
		span_keep(state, state->current);
	else
		spans_leave(state);
}

/* The number of the key in GROUP BY that the row for expressions has. */
static int
key_number(GroupsState *state)
{
	TupleTableSlot *slot = state->keys.slot;
	MinimalTuple	values = NULL;
	bool			isnew = state->nkeys == 0;
	void		  **at = NULL;
	ListCell	   *lc;

	if (state->keys.n > 0)
	{
		ExecClearTuple(slot);
		foreach (lc, state->plan.keys)
		{
			slot->tts_values[foreach_current_index(lc)] = state->row->tts_values[lfirst_int(lc)];
			slot->tts_isnull[foreach_current_index(lc)] = state->row->tts_isnull[lfirst_int(lc)];
		}
		ExecStoreVirtualTuple(slot);
		at = streamext_groups_table_find(&state->keys, &values, &isnew);
	}
	if (!isnew)
		return at == NULL ? 0 : (int) (intptr_t) *at;
	if (state->nkeys == state->keys_capacity)
	{
		state->keys_capacity = Max(state->keys_capacity * 2, 64);
		state->key_values = state->key_values == NULL
								? MemoryContextAllocHuge(state->cxt, sizeof(MinimalTuple) * state->keys_capacity)
								: repalloc_huge(state->key_values, sizeof(MinimalTuple) * state->keys_capacity);
	}
	if (at != NULL)
		*at = (void *) (intptr_t) state->nkeys;
	state->key_values[state->nkeys] = values;
	return state->nkeys++;
}

/* What is to be known of a stored key that is new. */
static StoredKey *
stored_make(GroupsState *state, const char *bytes, uint32 size)
{
	const CompiledView *view = state->view;
	StoredKey		   *stored = MemoryContextAlloc(state->cxt, sizeof(StoredKey));

	stored->bytes = memcpy(MemoryContextAlloc(state->cxt, Max(size, 1)), bytes, size);
	stored->size = size;
	stored->expected = stored;
	row_clear(state);
	streamext_key_deserialize(view, stored->bytes, state->row->tts_values, state->row->tts_isnull);
	if (view->window_key >= 0)
		state->row->tts_isnull[view->window_key] = true;
	ExecStoreVirtualTuple(state->row);
	stored->key = ExecQual(state->key_quals, state->css.ss.ps.ps_ExprContext) ? key_number(state) : -1;
	return stored;
}

/* The stored key of an entry. Panes have them in much the same order, so the one that came next last time is tried first. */
static StoredKey *
stored_find(GroupsState *state, const GroupEntry *entry)
{
	StoredBytes		key = { STREAMEXT_ENTRY_KEY(entry, state->view->state_size), entry->key_size };
	StoredKey	   *stored = state->last_stored == NULL ? NULL : state->last_stored->expected;
	StoredKeyEntry *found;
	bool			known;

	if (stored == NULL || stored->size != key.size || !streamext_state_same_bytes(stored->bytes, key.bytes, key.size))
	{
		found = storedkey_lookup(state->stored, key);
		if (found != NULL)
			stored = found->stored;
		else
		{
			stored = stored_make(state, key.bytes, key.size);
			key.bytes = stored->bytes;
			found = storedkey_insert(state->stored, key, &known);
			found->stored = stored;
		}
	}
	if (state->last_stored != NULL)
		state->last_stored->expected = stored;
	state->last_stored = stored;
	return stored;
}

/* ---- groups ---- */

static char *
group_make(GroupsState *state, Span *span, int key)
{
	if (key >= span->capacity)
	{
		int capacity = Max(key + 1, Max(span->capacity * 2, state->nkeys));

		span->states = span->states == NULL ? MemoryContextAllocHuge(span->cxt, sizeof(char *) * (Size) capacity)
											: repalloc_huge(span->states, sizeof(char *) * (Size) capacity);
		memset(span->states + span->capacity, 0, sizeof(char *) * (Size) (capacity - span->capacity));
		span->capacity = capacity;
	}
	span->states[key] = MemoryContextAllocZero(span->cxt, Max(state->aggs.size, 1));
	return span->states[key];
}

/* Of the key's number; -1: NULL. */
static char *
group_of(GroupsState *state, Span *span, int key)
{
	if (key < 0)
		return NULL;
	return key < span->capacity && span->states[key] != NULL ? span->states[key] : group_make(state, span, key);
}

/* Adds entries of one window, each for so many, to one group. As the view's owner. */
static void
group_combine_all(const GroupsAggs *aggs, char *to, GroupEntry *const *entries, int n, int64 stand_for)
{
	for (int i = 0; i < aggs->n; i++)
	{
		const GroupsAgg *agg = &aggs->aggs[i];

		if (agg->kind == GROUPS_ROWS)
			*(int64 *) (to + agg->at) += n * stand_for;
		else
			for (int e = 0; e < n; e++)
				agg->native->combine(to + agg->at, entries[e]->data + agg->offset);
	}
}

/* Adds each entry to a group of its own; NULL: to none. As the view's owner. */
static void
group_combine_each(const GroupsAggs *aggs, char *const *to, GroupEntry *const *entries, int n)
{
	for (int i = 0; i < aggs->n; i++)
	{
		const GroupsAgg *agg = &aggs->aggs[i];

		for (int e = 0; e < n; e++)
		{
			if (to[e] == NULL)
				continue;
			if (agg->kind == GROUPS_ROWS)
				++*(int64 *) (to[e] + agg->at);
			else
				agg->native->combine(to[e] + agg->at, entries[e]->data + agg->offset);
		}
	}
}

/* Adds all that the pane at hand still has, with the row at hand: they are of one window. */
static void
group_combine_pane(GroupsState *state, Span *span)
{
	char			  *to[GROUPS_AT_ONCE];
	GroupEntry *const *entries;
	int				   n;
	int64			   stand_for;
	IdentityScope	   scope;
	bool			   entered, one = stored_is_one(state);

	while ((n = streamext_rows_rest(state->rows, GROUPS_AT_ONCE, &entries, &stand_for)) > 0)
	{
		CHECK_FOR_INTERRUPTS();
		ResetExprContext(state->css.ss.ps.ps_ExprContext);
		if (one)
			to[0] = group_of(state, span, key_number(state));
		else
			for (int e = 0; e < n; e++)
				to[e] = group_of(state, span, stored_find(state, entries[e])->key);
		entered = streamext_read_enter(state->view, &scope);
		if (one)
			group_combine_all(&state->aggs, to[0], entries, n, stand_for);
		else
			group_combine_each(&state->aggs, to, entries, n);
		streamext_read_leave(entered, &scope);
	}
}

/* Adds the row at hand. */
static void
group_combine(GroupsState *state, char *to, MemoryContext cxt)
{
	const char	 *states = streamext_rows_states(state->rows);
	IdentityScope scope;
	bool		  entered = streamext_read_enter(state->view, &scope);

	for (int i = 0; i < state->aggs.n; i++)
	{
		const GroupsAgg *agg = &state->aggs.aggs[i];

		if (agg->kind == GROUPS_ROWS)
			++*(int64 *) (to + agg->at);
		else if (agg->native != NULL && states != NULL)
			agg->native->combine(to + agg->at, states + agg->offset);
		else
			streamext_groups_agg_combine(&state->aggs, agg, state->rows, to, cxt);
	}
	streamext_read_leave(entered, &scope);
}

/* False: there are no more rows. */
static bool
groups_take_row(GroupsState *state)
{
	IdentityScope scope;
	bool		  entered = streamext_read_enter(state->view, &scope);
	bool		  found = streamext_rows_next(state->rows);
	int			  key;
	char		 *to;
	Span		 *span;

	streamext_read_leave(entered, &scope);
	if (!found)
		return false;
	if (!state->has_window || state->window != streamext_rows_window(state->rows))
		window_enter(state);
	span = state->current;
	if (span == NULL)
		return true;
	if (state->aggs.native && streamext_rows_states(state->rows) != NULL)
	{
		group_combine_pane(state, span);
		return true;
	}
	key = stored_is_one(state) ? key_number(state) : stored_find(state, streamext_rows_entry(state->rows))->key;
	to = group_of(state, span, key);
	if (to != NULL)
		group_combine(state, to, span->cxt);
	return true;
}

/* ---- what is given ---- */

/* The next group of the span that is given; false: there is none. */
static bool
give_next(GroupsState *state, TupleTableSlot *to)
{
	int	  first = to->tts_tupleDescriptor->natts - state->aggs.n;
	Span *span = state->giving;

	while (span->next_key < span->capacity && span->states[span->next_key] == NULL)
		span->next_key++;
	if (span->next_key >= span->capacity)
	{
		span_give_up(state, span);
		return false;
	}
	streamext_groups_table_give(&state->spans, span->values, state->plan.pane_columns, to);
	streamext_groups_table_give(&state->keys, state->key_values[span->next_key], state->plan.keys, to);
	streamext_groups_agg_values(&state->aggs, span->states[span->next_key], to->tts_values + first,
								to->tts_isnull + first);
	span->next_key++;
	state->any = true;
	return true;
}

/* When there are no more rows. */
static Span *
give_rest(GroupsState *state)
{
	dlist_head *list = !dlist_is_empty(&state->waiting) ? &state->waiting : &state->kept;

	return dlist_is_empty(list) ? NULL : dlist_container(Span, node, dlist_head_node(list));
}

/* The next group into the slot's values; false: there is none. */
static bool
groups_next(GroupsState *state, TupleTableSlot *to)
{
	ExprContext *econtext = state->css.ss.ps.ps_ExprContext;
	int			 first;

	for (;;)
	{
		if (state->giving != NULL && give_next(state, to))
			return true;
		if (state->ended)
		{
			state->giving = give_rest(state);
			if (state->giving != NULL)
				continue;
			if (state->any || !state->plan.plain)
				return false;
			first = to->tts_tupleDescriptor->natts - state->aggs.n;
			streamext_groups_agg_nothing(&state->aggs, to->tts_values + first, to->tts_isnull + first);
			state->any = true;
			return true;
		}
		while (state->giving == NULL && !state->ended)
		{
			ResetExprContext(econtext);
			state->ended = !groups_take_row(state);
		}
	}
}

static TupleTableSlot *
groups_fetch(ScanState *node)
{
	GroupsState	   *state = (GroupsState *) node;
	TupleTableSlot *slot = node->ss_ScanTupleSlot;
	MemoryContext	old = MemoryContextSwitchTo(node->ps.ps_ExprContext->ecxt_per_tuple_memory);

	ExecClearTuple(slot);
	if (!state->started)
		groups_start(state);
	memset(slot->tts_isnull, true, slot->tts_tupleDescriptor->natts);
	if (groups_next(state, slot))
		ExecStoreVirtualTuple(slot);
	MemoryContextSwitchTo(old);
	return slot;
}

static bool
groups_recheck(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
groups_exec(CustomScanState *node)
{
	return ExecScan(&node->ss, (ExecScanAccessMtd) groups_fetch, (ExecScanRecheckMtd) groups_recheck);
}

/* ---- EXPLAIN ---- */

static void
groups_explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	const GroupsState *state = (const GroupsState *) node;
	const CustomScan  *plan = (const CustomScan *) node->ss.ps.plan;
	List			  *context = set_deparse_context_plan(es->deparse_cxt, node->ss.ps.plan, ancestors);
	List			  *names = NIL;
	ListCell		  *lc;

	foreach (lc, list_concat_copy(state->plan.keys, state->plan.pane_columns))
	{
		Node *expr = (Node *) list_nth_node(TargetEntry, plan->custom_scan_tlist, lfirst_int(lc))->expr;

		names = lappend(names, deparse_expression(expr, context, false, false));
	}
	if (names != NIL)
		ExplainPropertyList("Group Key", names, es);
	streamext_scan_explain(node, &state->prune, state->view, state->read, ancestors, es);
}

/* ---- the node ---- */

static Node *
groups_create_state(CustomScan *scan)
{
	static const CustomExecMethods methods = { .CustomName = streamext_groups_name,
											   .BeginCustomScan = groups_begin,
											   .ExecCustomScan = groups_exec,
											   .EndCustomScan = groups_end,
											   .ReScanCustomScan = groups_rescan,
											   .ExplainCustomScan = groups_explain };
	GroupsState					  *state = palloc0(sizeof(GroupsState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &methods;
	return (Node *) state;
}

const CustomScanMethods streamext_groups_methods = { .CustomName = streamext_groups_name,
													 .CreateCustomScanState = groups_create_state };
