/*
 * worker/view_list.c
 *		Which continuous views a stream has, by the catalogue, and their slots.
 *
 * The catalogue says which views there are, by what their rules depend on; the registry, which have a slot on the stream. A view that now reads another
 * stream is handed over to that one's worker.
 */
#include "base/streamext.h"

#include "miscadmin.h"

#include "base/transaction.h"
#include "durable/history.h"
#include "stream/definition.h"
#include "view/reads.h"
#include "view/compile.h"
#include "view/dependents.h"
#include "worker/worker_private.h"

typedef struct ViewStream
{
	Oid viewoid;
	Oid stream;
} ViewStream;

/* A StreamextStep. */
static void
view_list_view_stream_step(void *arg)
{
	ViewStream *found = arg;

	found->stream = streamext_view_stream(found->viewoid);
}

/* The stream that the view reads; false: a transaction holds the view. */
static bool
view_list_view_stream(Oid viewoid, Oid *stream)
{
	ViewStream found = { viewoid, InvalidOid };
	ErrorData *error = streamext_try(view_list_view_stream_step, &found);

	if (error != NULL && !streamext_error_is_lock(error->sqlerrcode))
		ReThrowError(error);
	*stream = error == NULL ? found.stream : InvalidOid;
	return error == NULL;
}

/*
 * Continuous views over the stream, by what their rules depend on; of those that a transaction holds the ones that have a slot
 * on it (the end of the transaction makes us look again), where starting them will find it out. The oldest first, so that a view that joins a table finds in
 * it what an older one has written of the same batch.
 */
List *
streamext_worker_list_views(Worker *w, const List *slots)
{
	Oid		  relid = w->shard.identity.relid;
	List	 *views = NIL;
	ListCell *lc;

	if (OidIsValid(w->shard.config->from.inner) || OidIsValid(w->shard.config->from.origin))
		return list_make1_oid(relid);
	foreach (lc, streamext_view_dependents(relid))
	{
		Oid view = lfirst_oid(lc);
		Oid stream;

		if (!streamext_view_options(view).continuous)
			continue;
		if (view_list_view_stream(view, &stream) ? stream == relid : list_member_oid(slots, view))
			views = lappend_oid(views, view);
	}
	list_sort(views, list_oid_cmp);
	return views;
}

void
streamext_worker_hand_over(Oid stream)
{
	for (int shard = 0; OidIsValid(stream) && shard < STREAMEXT_MAX_SHARDS; shard++)
		streamext_announce_stream(MyDatabaseId, stream, shard, false);
}

/* The stream that a view now reads is told to look. */
static void
view_list_hand_over(Oid viewoid)
{
	if (streamext_view_options(viewoid).continuous)
		streamext_worker_hand_over(streamext_view_stream(viewoid));
}

bool
streamext_worker_heirs(Worker *w, List **heirs)
{
	ListCell *lc;

	foreach (lc, streamext_worker_list_slots(w))
	{
		Oid			  stream;
		MemoryContext old;

		if (!streamext_view_options(lfirst_oid(lc)).continuous)
			continue;
		if (!view_list_view_stream(lfirst_oid(lc), &stream))
			return false;
		old = MemoryContextSwitchTo(w->shard.cxt);
		if (OidIsValid(stream) && stream != w->shard.identity.relid)
			*heirs = list_append_unique_oid(*heirs, stream);
		MemoryContextSwitchTo(old);
	}
	return true;
}

/* The views that have a settled slot on this stream. Ask before the catalogue: a view committed later is not yet to be missed. */
List *
streamext_worker_list_slots(Worker *w)
{
	List *views = NIL;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *view = &streamext_shared->views[i];

		if (view->id.in_use && !view->id.reserved && !view->id.retained && view->id.stream == w->shard.index)
			views = lappend_oid(views, view->id.viewoid);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return views;
}

/* Frees the slots of views that are not on the stream any more. False: the catch-up worker has not let go of one yet. */
bool
streamext_worker_drop_views(Worker *w, List *slots, List *views)
{
	bool	  complete = true;
	bool	  gone = false;
	ListCell *lc;

	foreach (lc, list_difference_oid(slots, views))
	{
		int index = streamext_find_view(w->shard.identity.dboid, lfirst_oid(lc), w->shard.identity.shard);

		if (index < 0 || streamext_shared->views[index].id.stream != w->shard.index)
			continue;
		if (!streamext_remove_view(index))
		{
			complete = false;
			continue;
		}
		view_list_hand_over(lfirst_oid(lc));
		gone = true;
	}
	if (gone)
		streamext_history_forget_dropped();
	return complete;
}

/* The view's slot on this stream; -1: there is none to be had (*reason), or another stream's worker has not let it go yet (NULL). */
int
streamext_worker_view_slot(Worker *w, Oid viewoid, const char **reason)
{
	int		  index = streamext_add_view(w->shard.identity.dboid, viewoid, w->shard.index, -1);
	ViewSlot *slot;
	bool	  abandoned;

	*reason = NULL;
	if (index < 0)
	{
		*reason = "too many continuous views; raise streamext.max_views";
		return -1;
	}
	slot = &streamext_shared->views[index];
	if (slot->id.stream == w->shard.index)
		return index;

	/* without a worker there the state is nobody's */
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	abandoned = slot->id.in_use && streamext_shared->streams[slot->id.stream].worker.pid == 0;
	LWLockRelease(streamext_shared->registry_lock);
	if (!abandoned)
		return -1;
	if (!streamext_remove_view(index))
		return -1;
	index = streamext_add_view(w->shard.identity.dboid, viewoid, w->shard.index, -1);
	return index >= 0 && streamext_shared->views[index].id.stream == w->shard.index ? index : -1;
}
