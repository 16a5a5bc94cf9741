/*
 * fold/group.c
 *		The second step of a batch: the pane and the group of each selected row, made if need be. New groups stay invisible until they are published.
 */
#include "base/streamext.h"

#include "fold/fold_private.h"

#define PANE_CACHE 16

/* Leaves the set's own keys. */
static inline void
group_key_of_set(const ViewFold *fold, int set, Datum *values, bool *nulls)
{
	const CompiledView *view = fold->view;

	for (int k = 0; k < view->set_key; k++)
		if ((view->sets[set] & ((uint32) 1 << k)) == 0)
			nulls[k] = true;
	nulls[view->set_key] = false;
	values[view->set_key] = Int32GetDatum(set);
}

/* From selected row *at on; false: full. plain: no joins, grouping sets or rows that are late for some of their windows. */
static pg_attribute_always_inline bool
group_some(ViewFold *fold, volatile int *at, bool plain)
{
	ViewState	 *state = &fold->slot->counted.state;
	CompiledView *view = fold->view;
	Datum		  values[STREAMEXT_MAX_KEYS];
	bool		  nulls[STREAMEXT_MAX_KEYS];
	int64		  cached_id[PANE_CACHE];
	Pane		 *cached[PANE_CACHE] = { NULL };

	for (; *at < fold->selected.n; (*at)++)
	{
		int	   i = *at;
		int	   row = fold->selected.rows[i];
		int64  pane_id = fold->selected.pane_ids[plain ? row : streamext_fold_source(fold, row)];
		int	   c = (uint64) pane_id % PANE_CACHE;
		uint32 size;
		uint32 hash;
		bool   is_new;

		if (cached[c] == NULL || cached_id[c] != pane_id)
		{
			cached[c] = streamext_state_pane(state, pane_id);
			cached_id[c] = pane_id;
			if (cached[c] == NULL)
				return false;
		}
		for (int k = 0; k < view->nkeys; k++)
			if (fold->exprs.key[k] >= 0)
			{
				FoldExpr *fe = &fold->exprs.items[fold->exprs.key[k]];

				values[k] = fe->values[row];
				nulls[k] = fe->nulls[row];
			}
		if (!plain && fold->selected.sets != NULL)
			group_key_of_set(fold, fold->selected.sets[i], values, nulls);
		size = streamext_key_serialize(view, values, nulls, &fold->key.bytes, &fold->key.capacity);
		hash = streamext_key_hash(fold->key.matcher, values, nulls, fold->key.bytes, size);
		if (!plain && fold->selected.froms != NULL &&
			fold->selected.froms[streamext_fold_source(fold, row)] != DT_NOBEGIN)
			size = streamext_key_add_from(fold->selected.froms[streamext_fold_source(fold, row)], &fold->key.bytes,
										  &fold->key.capacity, size);
		fold->selected.panes[i] = cached[c];
		fold->selected.groups[i] = streamext_state_group(state, cached[c], hash, fold->key.bytes, size, fold->key.equal,
														 fold->key.matcher, &is_new);
		if (fold->selected.groups[i] == NULL)
			return false;
	}
	return true;
}

/* A FoldStep. */
static bool
group_rows(ViewFold *fold, volatile int *at, void *arg)
{
	if (fold->selected.sources == NULL && fold->selected.sets == NULL && fold->selected.froms == NULL)
		return group_some(fold, at, true);
	return group_some(fold, at, false);
}

int
streamext_fold_deselect(ViewFold *fold, int i)
{
	int source = streamext_fold_source(fold, fold->selected.rows[i]);
	int before = 0;
	int n = 0;

	for (int k = 0; k < fold->selected.n; k++)
	{
		if (streamext_fold_source(fold, fold->selected.rows[k]) == source)
		{
			before += k < i;
			continue;
		}
		fold->selected.rows[n] = fold->selected.rows[k];
		if (fold->selected.sets != NULL)
			fold->selected.sets[n] = fold->selected.sets[k];
		fold->selected.groups[n] = fold->selected.groups[k];
		fold->selected.panes[n] = fold->selected.panes[k];
		n++;
	}
	fold->selected.n = n;
	fold->counts.accepted--;
	return before;
}

bool
streamext_fold_group(ViewFold *fold)
{
	volatile int  at = 0;
	volatile bool fits = true;

	if (!fold->guard.group)
		return group_rows(fold, &at, NULL);
	while (fits && at < fold->selected.n)
	{
		ErrorData *error = streamext_fold_guarded(fold, group_rows, NULL, &at, &fits);

		if (error != NULL)
		{
			streamext_fold_reject(fold, fold->selected.rows[at], error);
			at -= streamext_fold_deselect(fold, at);
		}
	}
	return fits;
}
