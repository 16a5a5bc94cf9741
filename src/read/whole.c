/*
 * read/whole.c
 *		A whole view at one moment (read/whole.h): whether it is worth reading, and its groups. Its positions and counts are in read/whole_counted.c.
 */
#include "base/streamext.h"

#include "miscadmin.h"

#include "read/whole.h"
#include "shared/shmem.h"

/* ---- whether it is worth reading ---- */

static bool
whole_is_behind(const StreamSlot *stream, const ViewSlot *slot)
{
	if (slot->id.retained_slot > 0)
		return true;
	if (slot->counted.accepted + slot->counted.late + slot->counted.rejected == 0)
		return false;
	for (int i = 0; i < stream->counted.npartitions; i++)
		if (i >= slot->counted.npositions || slot->counted.positions[i] < stream->counted.partitions[i].position)
			return true;
	return false;
}

static WholeStanding
whole_stands(const StreamSlot *stream, const ViewSlot *slot)
{
	if (!slot->counted.ready || !whole_is_behind(stream, slot))
		return WHOLE_LEVEL;
	if (slot->health.status >= VIEW_PAUSED ||
		(stream->status.state != STREAM_RUNNING && stream->status.state != STREAM_CATCHING_UP))
		return WHOLE_STUCK;
	return WHOLE_BEHIND;
}

WholeStanding
streamext_whole_standing(Oid viewoid)
{
	WholeStanding worst = WHOLE_LEVEL;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *slot = &streamext_shared->views[i];
		StreamSlot	   *stream = &streamext_shared->streams[slot->id.stream];

		if (!slot->id.in_use || slot->id.retained || slot->id.dboid != MyDatabaseId || slot->id.viewoid != viewoid)
			continue;
		streamext_stream_lock_shared(stream);
		worst = Max(worst, whole_stands(stream, slot));
		LWLockRelease(stream->lock);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return worst;
}

/* ---- reading ---- */

WholeRead *
streamext_read_whole(Oid viewoid)
{
	WholeRead	 *whole = palloc0(sizeof(WholeRead));
	IdentityScope scope;
	bool		  entered;

	whole->watermark = DT_NOBEGIN;
	streamext_statement_whole(viewoid, whole);
	whole->groups.view = whole->read->view;
	whole->groups.matcher = whole->read->matcher;
	whole->groups.cxt = CurrentMemoryContext;
	entered = streamext_read_enter(whole->read->view, &scope);
	streamext_gather(&whole->groups, &whole->read->copies);
	streamext_read_leave(entered, &scope);
	return whole;
}

AggReader **
streamext_whole_readers(const WholeRead *whole)
{
	const CompiledView *view = whole->read->view;
	AggReader		  **readers = palloc(sizeof(AggReader *) * Max(view->naggs, 1));

	for (int a = 0; a < view->naggs; a++)
		readers[a] = streamext_aggregate_reader(&view->aggs[a], CurrentMemoryContext);
	return readers;
}
