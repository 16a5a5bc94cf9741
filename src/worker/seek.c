/*-------------------------------------------------------------------------
 *
 * worker/seek.c
 *		streamext.seek: a stream goes on at another position.
 *
 * Only the worker can ask the source where `latest` or a time is. So the functions (sql/seek.c) leave a row for each shard in
 * streamext_internal.seek_request (durable/seek_request.h), and the commit makes the workers look. A worker does the requests above
 * StreamSlot.counted.seek in their order, before it reads anything, and the checkpoint that holds the positions holds that number too: what a crash undoes is
 * done again. What the source has said is kept in the row first, so that it is done again the same way.
 *
 * A crash also undoes what was read before the request, which must not be skipped then. So the row holds the positions of that
 * moment, and a worker that stands before them reads up to there first.
 *
 * What a request does to a partition that stands at P, when it shall be at T:
 *	forward (T > P)		the stream goes to T, and with it the views that stand where it stands. Views that are behind, and
 *						those made later, count what was skipped;
 *	back (T <= P)		nothing: all of that is counted, and nothing is counted twice;
 *	accepted			the stream was `diverged` when it was asked: what is at the source now is another one. Stream and views go to T,
 *						whichever way, and keep what they have counted; event time begins anew;
 *	rebuild				besides, T is from now on where counting begins (PartitionSlot.begin), for new views too, and the views
 *						that there are have been begun anew by streamext_internal.round (sql/rebuild.c). The stream's own position and
 *						counts only go forward.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "durable/paused.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "durable/checkpoint.h"
#include "durable/checkpoint_state.h"
#include "durable/seek_request.h"
#include "worker/letters_reread.h"
#include "worker/seek.h"


/* ---------------------------------------------------------------- the requests */

void
streamext_seeks_load(Worker *w)
{
	const CheckpointPosition *last = w->shard.checkpoint != NULL ? w->shard.checkpoint->last : NULL;

	w->requests.seeks = NIL;
	if (w->requests.seeks_cxt == NULL)
		w->requests.seeks_cxt = AllocSetContextCreate(w->shard.cxt, "streamext seeks", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(w->requests.seeks_cxt);
	w->requests.seeks = streamext_seek_requests_load(w->shard.identity.relid, w->shard.identity.shard,
													 w->shard.slot->counted.seek, w->shard.slot->counted.source,
													 last != NULL ? last->head.seek : 0, w->requests.seeks_cxt);
	/* what has stopped the stream may be what is left behind */
	if (w->requests.seeks != NIL && w->reading.stopped)
	{
		w->reading.stopped = false;
		streamext_pause_settle(w->shard.slot, w->setup.pause_seen);
		streamext_stream_set_state(w->shard.slot, STREAM_STARTING, NULL);
	}
}

bool
streamext_seeks_rebuild(const Worker *w)
{
	ListCell *lc;

	foreach (lc, w->requests.seeks)
		if (((const SeekRequest *) lfirst(lc))->rebuild)
			return true;
	return false;
}

/* ---------------------------------------------------------------- one request */

/* Keeps what the source has said, for good. */
static void
seek_save(Worker *w, const SeekRequest *request, const int64 *targets)
{
	MemoryContext old = CurrentMemoryContext;
	SeekPositions positions;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	streamext_seek_make_positions(&positions, w->shard.npartitions);
	for (int i = 0; i < w->shard.npartitions; i++)
	{
		positions.topics[i] = CStringGetTextDatum(w->shard.connector->partitions[i].topic);
		positions.numbers[i] = Int32GetDatum(w->shard.connector->partitions[i].partition);
		positions.positions[i] = Int64GetDatum(targets[i]);
	}
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	streamext_seek_request_resolve(request->id, &positions);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

/* Where the partitions shall be; -1: not addressed. False: not known yet. */
static bool
seek_resolve(Worker *w, const SeekRequest *request, int64 *targets)
{
	if (request->kind != SEEK_OFFSET && !request->resolved)
	{
		if (!w->shard.ops->find(w->shard.connector, request->kind, request->time, targets))
			return false;
		seek_save(w, request, targets);
		return true;
	}
	for (int i = 0; i < w->shard.npartitions && request->resolved; i++)
		targets[i] = streamext_seek_position(&request->targets, w->shard.connector->partitions[i].topic,
											 w->shard.connector->partitions[i].partition);
	if (request->resolved)
		return true;
	for (int i = 0; i < w->shard.npartitions; i++)
	{
		const ConnectorPartition *partition = &w->shard.connector->partitions[i];

		targets[i] = partition->partition == request->partition && strcmp(partition->topic, request->topic) == 0
						 ? request->offset
						 : -1;
	}
	return true;
}

/* With the lock: views that stand where the stream stands, or all of them. */
static void
seek_move_views(Worker *w, int index, int64 former, int64 target, bool all)
{
	ListCell *lc;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	foreach (lc, w->shard.views)
	{
		ViewSlot *view = ((WorkerView *) lfirst(lc))->slot;

		if (index < view->counted.npositions && (all || view->counted.positions[index] >= former))
			view->counted.positions[index] = target;
	}
}

/* With the lock. Partitions that another source does not have would never be reached. */
static void
seek_forget_partitions(Worker *w)
{
	ListCell *lc;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	w->shard.slot->counted.npartitions = w->shard.npartitions;
	foreach (lc, w->shard.views)
	{
		ViewSlot *view = ((WorkerView *) lfirst(lc))->slot;

		view->counted.npositions = Min(view->counted.npositions, w->shard.npartitions);
	}
}

/* Views that do not run are in the next checkpoint as in the last one, which is of the former source. */
static void
seek_move_carried(Worker *w, const int64 *targets)
{
	CheckpointPosition *last = w->shard.checkpoint != NULL ? w->shard.checkpoint->last : NULL;

	for (int j = 0; last != NULL && j < last->head.npartitions; j++)
		for (int i = 0; i < w->shard.npartitions; i++)
		{
			if (targets[i] < 0 || last->partitions[j].partition != w->shard.connector->partitions[i].partition ||
				strcmp(last->partitions[j].topic, w->shard.connector->partitions[i].topic) != 0)
				continue;
			for (int v = 0; v < last->head.nviews; v++)
				last->views[v].positions[j] = targets[i];
		}
}

typedef struct SeekSums
{
	int64 skipped; /* records, or bytes of a journal */
	int	  moved;   /* partitions */
	int	  kept;	   /* that stay, because what is from there on is counted */
} SeekSums;

static void
seek_move(Worker *w, const SeekRequest *request, const int64 *targets, SeekSums *sums)
{
	StreamSlot *slot = w->shard.slot;

	if (request->accept)
		seek_move_carried(w, targets);
	streamext_stream_lock_exclusive(slot);
	if (request->accept && request->kind != SEEK_OFFSET)
	{
		seek_forget_partitions(w);
		slot->counted.watermark = DT_NOBEGIN;
	}
	for (int i = 0; i < w->shard.npartitions; i++)
	{
		PartitionSlot *partition = &slot->counted.partitions[i];
		int64		   former = partition->position;
		int64		   target = targets[i];

		if (target < 0)
			continue;
		if (request->rebuild)
			partition->begin = target;
		if (!request->accept && former >= 0 && target <= former)
		{
			sums->kept += target < former;
			continue;
		}
		if (!request->accept && former >= 0)
			sums->skipped += target - former;
		sums->moved++;
		if (request->accept)
			partition->max_event_time = DT_NOBEGIN;
		seek_move_views(w, i, former, target, request->accept && !request->rebuild);
		partition->position = target;
		if (partition->start_position < 0)
			partition->start_position = target;
		partition->last.position = -1;
		w->shard.connector->partitions[i].last.position = -1;
	}
	slot->counted.seek = request->id;
	slot->counted.layout++; /* a catch-up worker looks where it stands */
	LWLockRelease(slot->lock);
}

static void
seek_report(Worker *w, const SeekRequest *request, const SeekSums *sums)
{
	Connector  *c = w->shard.connector;
	const char *unit = w->shard.ops->replayable ? "records" : "bytes of the journal";
	char		where[MAXDATELEN + 64];
	int			n = c->nevents;

	switch (request->kind)
	{
		case SEEK_EARLIEST:
			strlcpy(where, "earliest", sizeof(where));
			break;
		case SEEK_LATEST:
			strlcpy(where, "latest", sizeof(where));
			break;
		case SEEK_TIME:
			snprintf(where, sizeof(where), "%s", timestamptz_to_str(request->time));
			break;
		case SEEK_OFFSET:
			snprintf(where, sizeof(where), "offset " INT64_FORMAT " of partition %d", request->offset,
					 request->partition);
			break;
	}
	streamext_connector_event(
		c, "seek", -1, sums->skipped,
		"to %s%s%s: " INT64_FORMAT " %s skipped; %d partitions moved, %d not, because all from there on is counted",
		where, request->accept ? ", another source" : "", request->rebuild ? ", views begun anew" : "", sums->skipped,
		unit, sums->moved, request->rebuild ? 0 : sums->kept);
	if (c->nevents > n)
		c->events[n].counted = true; /* not the source's loss */
}

/* Where a partition of the slot was when it was asked; -1: not known, or of no importance. */
static int64
seek_former(const SeekRequest *request, const PartitionSlot *partition)
{
	return request->accept ? -1 : streamext_seek_position(&request->former, partition->topic, partition->partition);
}

bool
streamext_seeks_due(const Worker *w)
{
	if (w->requests.seeks == NIL)
		return false;
	for (int i = 0; i < w->shard.npartitions; i++)
		if (w->shard.slot->counted.partitions[i].position <
			seek_former(linitial(w->requests.seeks), &w->shard.slot->counted.partitions[i]))
			return false;
	return true;
}

void
streamext_seeks_bound(const Worker *w, Batch *batch)
{
	static int64 bounds[STREAMEXT_MAX_PARTITIONS];
	int			 n = 0;

	for (int i = 0; i < w->shard.npartitions; i++)
	{
		int64 former = seek_former(linitial(w->requests.seeks), &w->shard.slot->counted.partitions[i]);

		bounds[i] = former < 0 ? PG_INT64_MAX : Max(former, w->shard.slot->counted.partitions[i].position);
	}
	for (int i = 0; i < batch->nrecords; i++)
		if (batch->records[i].position < bounds[batch->records[i].partition_index])
			batch->records[n++] = batch->records[i];
	batch->nrecords = n;
	for (int i = 0; i < w->shard.npartitions; i++)
		batch->positions[i] = Min(batch->positions[i], bounds[i]);
}

/* Until the source says where: nothing of it counts, whichever it is. */
static void
seek_wait(Worker *w)
{
	Connector *c = w->shard.connector;

	for (int i = 0; i < c->npartitions; i++)
		c->partitions[i].last.position = -1;
	if (streamext_connector_poll(c, w->reading.batch->records, STREAMEXT_BATCH_ROWS) > 0)
		w->reading.dropped = true;
	streamext_connector_release(c);
}

bool
streamext_seeks_apply(Worker *w)
{
	static int64 targets[STREAMEXT_MAX_PARTITIONS];

	while (streamext_seeks_due(w))
	{
		SeekRequest *request = linitial(w->requests.seeks);
		SeekSums	 sums = { 0 };

		if (w->shard.npartitions == 0 && w->shard.ops->pushed)
			return true; /* a shard without a journal */
		if (w->shard.npartitions == 0 || !seek_resolve(w, request, targets))
		{
			seek_wait(w);
			return false;
		}
		if (request->accept)
			streamext_letters_leave(w, request->id);
		seek_move(w, request, targets, &sums);
		seek_report(w, request, &sums);
		streamext_checkpoint_confirm_nothing(&w->shard);
		streamext_checkpoint_note(&w->shard);
		w->flush.known = false;
		w->requests.seeks = list_delete_first(w->requests.seeks);
	}
	/* a new comparison with what was read last, where the stream goes on as it was */
	for (int i = 0; i < w->shard.npartitions; i++)
		w->shard.connector->partitions[i].last = w->shard.slot->counted.partitions[i].last;
	return true;
}
