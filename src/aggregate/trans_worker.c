/*
 * aggregate/trans_worker.c
 *		TRANS aggregates in a worker, and in checkpoints.
 *
 * Invariants. What stands in a group's entry and its blob is the truth; the worker's transition values are a cache of it,
 * dropped whole panes at a time. Between prepare and publish the writer touches, without the lock, only what no reader
 * looks at: TransState.spare. So dropping a batch needs nothing undone.
 *
 * Takes no locks; streamext_state_blob may take the stream's for a moment.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "utils/datum.h"

#include "aggregate/trans.h"

#define TRANS_CACHE_BYTES ((Size) 64 * 1024 * 1024) /* of a worker's transition values, for each aggregate */

/* ---- what the worker has of its own ---- */

typedef struct TransPane TransPane;

typedef struct TransGroup
{
	GroupEntry *entry;
	TransPane  *pane;
	TransValue	value;
	bool		touched;
	bool		to_spare; /* the staged bytes go to the spare blob */
	uint64		tried;	  /* AggRuntime.tries when it was touched last in that */
	uint32		length;
	char	   *staged; /* in AggRuntime.staging */
} TransGroup;

/* A group's value before the row that is being tried; of internal states their serialised bytes. */
typedef struct TransUndo
{
	TransGroup *group;
	TransValue	value;
} TransUndo;

typedef struct TransSlot
{
	const GroupEntry *entry;
	TransGroup		 *group;
	char			  status;
} TransSlot;

#define SH_PREFIX transgroups
#define SH_ELEMENT_TYPE TransSlot
#include "aggregate/entry_table.h"

struct TransPane
{
	Pane			 *pane; /* hash key */
	int64			  id;
	MemoryContext	  cxt;		  /* holds all of this but the struct itself */
	ExprContext		 *aggcontext; /* its per-tuple memory holds the transition values */
	transgroups_hash *groups;
	bool			  doomed;
};

/* ---- the worker ---- */

static void
trans_free_pane(AggRuntime *agg, TransPane *pane)
{
	MemoryContext cxt = pane->cxt;
	ExprContext	 *aggcontext = pane->aggcontext;

	agg->last_pane = NULL;
	hash_search(agg->panes, &pane->pane, HASH_REMOVE, NULL);
	FreeExprContext(aggcontext, true);
	MemoryContextDelete(cxt);
}

/* Frees the panes marked doomed, or all. */
static void
trans_free_panes(AggRuntime *agg, bool all)
{
	HASH_SEQ_STATUS scan;
	TransPane	   *pane;

	hash_seq_init(&scan, agg->panes);
	while ((pane = hash_seq_search(&scan)) != NULL)
	{
		if (all || pane->doomed)
			trans_free_pane(agg, pane);
	}
}

static TransPane *
trans_pane(AggRuntime *agg, Pane *pane)
{
	TransPane		 *found;
	MemoryContext	  cxt;
	MemoryContext	  old;
	ExprContext		 *aggcontext;
	transgroups_hash *groups;

	if (agg->last_pane != NULL && agg->last_pane->pane == pane && agg->last_pane->id == pane->id)
		return agg->last_pane;
	found = hash_search(agg->panes, &pane, HASH_FIND, NULL);
	if (found != NULL && found->id != pane->id)
	{
		trans_free_pane(agg, found);
		found = NULL;
	}
	if (found == NULL)
	{
		/* Everything that may raise comes before the table's entry. */
		cxt = AllocSetContextCreate(agg->cxt, "streamext aggregate pane", ALLOCSET_SMALL_SIZES);
		old = MemoryContextSwitchTo(cxt);
		aggcontext = CreateStandaloneExprContext();
		groups = transgroups_create(cxt, 64, NULL);
		MemoryContextSwitchTo(old);
		found = hash_search(agg->panes, &pane, HASH_ENTER, NULL);
		found->id = pane->id;
		found->cxt = cxt;
		found->aggcontext = aggcontext;
		found->groups = groups;
		found->doomed = false;
	}
	agg->last_pane = found;
	return found;
}

/* A state of its serialised bytes, to go on from. */
static TransValue
trans_revive(AggCalls *calls, const char *bytes)
{
	TransValue	  value = streamext_trans_initial(calls);
	MemoryContext old = MemoryContextSwitchTo(calls->temp);
	Datum		  partial = streamext_trans_deserialize(calls, bytes);

	MemoryContextSwitchTo(old);
	streamext_trans_merge(calls, &value, partial, false);
	return value;
}

/* The transition value that is published in the entry, to go on from. */
static TransValue
trans_load(AggRuntime *agg, const TransState *published)
{
	AggCalls  *calls = agg->calls;
	TransValue value = { 0 };

	if (!(published->flags & TRANS_PRESENT))
		return streamext_trans_initial(calls);
	if (!(published->flags & TRANS_NULL) && OidIsValid(agg->spec->deserialfn))
		value = trans_revive(calls, published->u.blob);
	else
	{
		value.isnull = (published->flags & TRANS_NULL) != 0;
		value.value = value.isnull			  ? (Datum) 0
					  : agg->spec->transbyval ? published->u.value
											  : streamext_trans_keep(calls, PointerGetDatum(published->u.blob));
	}
	value.empty = (published->flags & TRANS_EMPTY) != 0;
	return value;
}

/* The private group of an entry, marked touched, its pane's aggregate context entered. */
static TransGroup *
trans_touch(AggRuntime *agg, Pane *pane, GroupEntry *entry)
{
	TransPane  *owner = trans_pane(agg, pane);
	TransSlot  *slot = transgroups_lookup(owner->groups, entry);
	TransGroup *group;
	bool		found;

	streamext_calls_enter(agg->calls, owner->aggcontext);
	if (slot == NULL)
	{
		group = MemoryContextAllocZero(owner->cxt, sizeof(TransGroup));
		group->entry = entry;
		group->pane = owner;
		group->value = trans_load(agg, (TransState *) (entry->data + agg->spec->offset));
		slot = transgroups_insert(owner->groups, entry, &found);
		slot->group = group;
	}
	group = slot->group;
	if (!group->touched)
	{
		if (agg->ntouched == agg->touched_capacity)
		{
			agg->touched = repalloc(agg->touched, sizeof(TransGroup *) * agg->touched_capacity * 2);
			agg->touched_capacity *= 2;
		}
		agg->touched[agg->ntouched++] = group;
		group->touched = true;
	}
	return group;
}

/* Serialises a touched group and makes room for it. False: memory is full. */
static bool
trans_stage(AggRuntime *agg, TransGroup *group)
{
	TransState *published = (TransState *) (group->entry->data + agg->spec->offset);
	uint32		capacity;

	if (group->value.isnull || (agg->spec->transbyval && agg->spec->transtype != INTERNALOID))
		return true;
	streamext_calls_enter(agg->calls, group->pane->aggcontext);
	group->staged = streamext_trans_serialize(agg->calls, group->value.value, &group->length);

	group->to_spare = group->length > published->capacity;
	if (group->to_spare && group->length > published->spare_capacity)
	{
		/* Some slack, so that a growing state does not leave a blob behind each time. */
		capacity = published->capacity == 0 ? group->length : group->length + Min(group->length, 128 * 1024);
		capacity = MAXALIGN(Max(capacity, 16));
		published->spare_capacity = 0;
		published->spare = streamext_state_blob(agg->state, group->pane->pane, capacity);
		if (published->spare == NULL)
			return false;
		published->spare_capacity = capacity;
	}
	return true;
}

/* All groups that were touched. False: memory is full. */
static bool
trans_stage_all(AggRuntime *agg)
{
	MemoryContext old;
	bool		  room = true;

	MemoryContextReset(agg->staging);
	old = MemoryContextSwitchTo(agg->staging);
	for (int i = 0; i < agg->ntouched && room; i++)
		room = trans_stage(agg, agg->touched[i]);
	MemoryContextSwitchTo(old);
	return room;
}

static void
trans_bound_cache(AggRuntime *agg)
{
	if (agg->ntouched == 0 && MemoryContextMemAllocated(agg->cxt, true) > TRANS_CACHE_BYTES)
		trans_free_panes(agg, true);
}

static inline void
trans_advance_row(AggRuntime *agg, const AggInput *in, int row, TransGroup *group)
{
	FunctionCallInfo fcinfo = agg->calls->trans.fcinfo;

	for (int arg = 0; arg < agg->nargs; arg++)
	{
		fcinfo->args[arg + 1].value = in->args[arg][row];
		fcinfo->args[arg + 1].isnull = in->nulls[arg][row];
	}
	streamext_trans_advance(agg->calls, &agg->calls->trans, &group->value);
	MemoryContextReset(agg->temp);
}

bool
streamext_trans_prepare(AggRuntime *agg, const AggInput *in, volatile int *row)
{
	MemoryContext old;

	trans_bound_cache(agg);
	old = MemoryContextSwitchTo(agg->temp);
	for (int i = 0; i < in->n; i++)
	{
		*row = in->rows[i];
		trans_advance_row(agg, in, in->rows[i], trans_touch(agg, in->panes[i], in->groups[i]));
	}
	MemoryContextSwitchTo(old);
	return trans_stage_all(agg);
}

/* ---- row by row ---- */

void
streamext_trans_try_begin(AggRuntime *agg)
{
	if (agg->undo_cxt == NULL)
	{
		agg->undo_cxt = AllocSetContextCreate(agg->cxt, "streamext aggregate undo", ALLOCSET_DEFAULT_SIZES);
		agg->undo_capacity = 16;
		agg->undo = MemoryContextAlloc(agg->cxt, sizeof(TransUndo) * agg->undo_capacity);
	}
	trans_bound_cache(agg);
	agg->nundo = 0;
	agg->tries++;
	MemoryContextReset(agg->undo_cxt);
}

/* A transition function may change its state in place, and raise in the midst of that. */
static void
trans_note(AggRuntime *agg, TransGroup *group)
{
	const AggSpec *spec = agg->spec;
	TransValue	   value = group->value;
	MemoryContext  old = MemoryContextSwitchTo(agg->undo_cxt);
	uint32		   length;

	if (!value.isnull && spec->transtype == INTERNALOID)
		value.value = PointerGetDatum(streamext_trans_serialize(agg->calls, value.value, &length));
	else if (!value.isnull)
		value.value = datumCopy(value.value, spec->transbyval, spec->translen);
	MemoryContextSwitchTo(old);
	if (agg->nundo == agg->undo_capacity)
		agg->undo = repalloc(agg->undo, sizeof(TransUndo) * (agg->undo_capacity *= 2));
	agg->undo[agg->nundo++] = (TransUndo){ group, value };
	group->tried = agg->tries;
}

void
streamext_trans_try_row(AggRuntime *agg, const AggInput *in, int row, Pane *pane, GroupEntry *entry)
{
	MemoryContext old = MemoryContextSwitchTo(agg->temp);
	TransGroup	 *group = trans_touch(agg, pane, entry);

	if (group->tried != agg->tries)
		trans_note(agg, group);
	trans_advance_row(agg, in, row, group);
	MemoryContextSwitchTo(old);
}

/* That its state can be serialised is the row's business too. */
void
streamext_trans_try_end(AggRuntime *agg)
{
	MemoryContext old = MemoryContextSwitchTo(agg->temp);
	uint32		  length;

	for (int i = 0; i < agg->nundo && agg->spec->transtype == INTERNALOID; i++)
	{
		TransGroup *group = agg->undo[i].group;

		if (group->value.isnull)
			continue;
		streamext_calls_enter(agg->calls, group->pane->aggcontext);
		(void) streamext_trans_serialize(agg->calls, group->value.value, &length);
		MemoryContextReset(agg->temp);
	}
	MemoryContextSwitchTo(old);
}

/* What the values were is not freed: nobody knows what the function has left of them. It goes with the pane. */
void
streamext_trans_try_undo(AggRuntime *agg)
{
	MemoryContext old;

	MemoryContextReset(agg->temp);
	old = MemoryContextSwitchTo(agg->temp);
	while (agg->nundo > 0)
	{
		const TransUndo *undo = &agg->undo[agg->nundo - 1];
		TransValue		 value = undo->value;

		streamext_calls_enter(agg->calls, undo->group->pane->aggcontext);
		if (!value.isnull && agg->spec->transtype == INTERNALOID)
			value = trans_revive(agg->calls, DatumGetPointer(value.value));
		else if (!value.isnull)
			value.value = streamext_trans_keep(agg->calls, value.value);
		undo->group->value = value;
		agg->nundo--;
		MemoryContextReset(agg->temp);
	}
	MemoryContextSwitchTo(old);
}

bool
streamext_trans_try_finish(AggRuntime *agg)
{
	return trans_stage_all(agg);
}

void
streamext_trans_publish(AggRuntime *agg, const AggInput *in)
{
	bool byval = agg->spec->transbyval && agg->spec->transtype != INTERNALOID;

	for (int i = 0; i < agg->ntouched; i++)
	{
		TransGroup *group = agg->touched[i];
		TransState *published = (TransState *) (group->entry->data + agg->spec->offset);

		group->touched = false;
		published->flags =
			TRANS_PRESENT | (group->value.isnull ? TRANS_NULL : 0) | (group->value.empty ? TRANS_EMPTY : 0);
		if (group->value.isnull)
			continue;
		if (byval)
		{
			published->u.value = group->value.value;
			continue;
		}
		if (group->to_spare)
		{
			char  *outgrown = published->u.blob;
			uint32 capacity = published->capacity;

			published->u.blob = published->spare;
			published->capacity = published->spare_capacity;
			published->spare = outgrown;
			published->spare_capacity = capacity;
		}
		memcpy(published->u.blob, group->staged, group->length);
		published->length = group->length;
	}
	agg->ntouched = 0;
}

void
streamext_trans_forget(AggRuntime *agg)
{
	if (agg->ntouched == 0)
		return;
	for (int i = 0; i < agg->ntouched; i++)
		agg->touched[i]->pane->doomed = true;
	agg->ntouched = 0;
	trans_free_panes(agg, false);
}

void
streamext_trans_forget_pane(AggRuntime *agg, Pane *pane)
{
	TransPane *found = hash_search(agg->panes, &pane, HASH_FIND, NULL);

	if (found != NULL)
		trans_free_pane(agg, found);
}

void
streamext_trans_start(AggRuntime *agg)
{
	HASHCTL control = { 0 };

	agg->calls = streamext_calls_create(agg->spec, agg->temp);
	agg->staging = AllocSetContextCreate(agg->cxt, "streamext aggregate staging", ALLOCSET_DEFAULT_SIZES);
	agg->touched_capacity = 1024;
	agg->touched = palloc(sizeof(TransGroup *) * agg->touched_capacity);
	control.keysize = sizeof(Pane *);
	control.entrysize = sizeof(TransPane);
	control.hcxt = agg->cxt;
	agg->panes = hash_create("streamext aggregate panes", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* ---- checkpoints ---- */

/* Beside the state's own bytes there is the blob that is published in it, if any. */
static const TransState *
trans_published(const AggSpec *spec, const GroupEntry *entry, Size *size)
{
	const TransState *published = (const TransState *) (entry->data + spec->offset);
	bool			  blob = (published->flags & TRANS_PRESENT) && !(published->flags & TRANS_NULL) &&
				(!spec->transbyval || spec->transtype == INTERNALOID);

	*size = blob ? published->length : 0;
	return published;
}

Size
streamext_trans_export_size(const AggSpec *spec, const ViewState *state, const GroupEntry *entry, bool whole)
{
	Size size;

	trans_published(spec, entry, &size);
	return size;
}

void
streamext_trans_export(const AggSpec *spec, const ViewState *state, GroupEntry *entry, bool whole, AggPut put,
					   void *arg)
{
	Size			  size;
	const TransState *published = trans_published(spec, entry, &size);

	if (size > 0)
		put(arg, published->u.blob, size);
}

/* The entry holds the exported state, with pointers and capacities of another time. */
bool
streamext_trans_import(const AggSpec *spec, ViewState *state, Pane *pane, GroupEntry *entry, bool newest,
					   const char *raw, const char *bytes, Size size)
{
	TransState *published = (TransState *) (entry->data + spec->offset);
	Size		expected;

	if (!newest)
		return true;

	trans_published(spec, entry, &expected);
	published->spare = NULL;
	published->spare_capacity = published->capacity = 0;
	if (size != expected)
		streamext_aggregate_import_damaged(spec);
	if (!spec->transbyval || spec->transtype == INTERNALOID)
		published->u.blob = NULL;
	if (size == 0)
		return true;
	published->u.blob = streamext_state_blob(state, pane, MAXALIGN(size));
	if (published->u.blob == NULL)
		return false;
	published->capacity = MAXALIGN(size);
	memcpy(published->u.blob, bytes, size);
	return true;
}
