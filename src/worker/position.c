/*-------------------------------------------------------------------------
 *
 * worker/position.c
 *		Partitions and position vectors: where the stream and each view stand, and where the connector shall read from.
 *
 * Vectors are indexed as Connector.partitions. A connector that was opened anew may know its partitions in another order and
 * one after the other, so each that comes up is looked for among the slot's, and the slot's entries (and those of all views'
 * vectors) are exchanged so that the indexes agree; entries of partitions that have not come up yet stand behind.
 *
 * The connector reads from the least position of the stream and of all views that are neither failed nor paused. Views skip what they have counted,
 * and the stream's own counters, buffer and watermark what it has read.
 *
 * ViewSlot.counted.positions, once there, has room for StreamSlot.counted.partitions_capacity entries.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "base/chunk.h"
#include "durable/checkpoint.h"
#include "shared/clock.h"
#include "worker/alone.h"
#include "worker/worker_private.h"

#define POSITION_CAPACITY 16

/* ---------------------------------------------------------------- where views stand */

/* The position of a view in a partition, -1: at the stream's start, which is not known as a number. */
int64
streamext_worker_view_position(Worker *w, WorkerView *v, int index)
{
	ViewSlot *slot = v->slot;
	int64	  position = index < slot->counted.npositions ? slot->counted.positions[index] : -1;

	if (v->fold != NULL)
	{
		int64 stored = streamext_fold_stored_position(v->fold, w->shard.slot->counted.partitions[index].topic,
													  w->shard.slot->counted.partitions[index].partition);

		/* beyond a journal's end: the machine has lost the tail */
		if (stored >= 0 && !w->shard.ops->replayable && w->shard.connector->partitions[index].high_watermark >= 0)
			stored = Min(stored, w->shard.connector->partitions[index].high_watermark);
		/* what shared memory was given by a checkpoint may be older than the table */
		position = Max(position, stored);
	}
	if (position >= 0)
		return position;
	if (w->shard.slot->counted.partitions[index].begin >= 0)
		return Max(w->shard.slot->counted.partitions[index].begin,
				   w->shard.ops->replayable ? -1 : slot->counted.start_position);
	if (!w->shard.ops->replayable && slot->counted.start_position >= 0)
		return slot->counted.start_position;
	/* `latest` means what it meant when the stream was new, and so does a time that was behind the end then */
	if (!w->shard.ops->replayable || w->shard.config->source.start != START_EARLIEST)
		return w->shard.slot->counted.partitions[index].start_position;
	return -1;
}

/* Sees whether the view still has to read what the stream has read. */
bool
streamext_worker_check_behind(Worker *w, WorkerView *v)
{
	v->behind = false;
	if (v->paused)
		return false;
	for (int i = 0; i < w->shard.npartitions && !v->behind; i++)
		v->behind = streamext_worker_view_position(w, v, i) < w->shard.slot->counted.partitions[i].position;
	if (v->behind)
		streamext_shard_view_begin_behind(v);
	return v->behind;
}

/* What the source is known to hold beyond the stream's positions. */
int64
streamext_worker_lag(Worker *w)
{
	int64 lag = 0;

	for (int i = 0; i < w->shard.npartitions; i++)
	{
		ConnectorPartition *partition = &w->shard.connector->partitions[i];

		if (partition->high_watermark >= 0)
			lag += Max(0, partition->high_watermark - Max(partition->position, 0));
	}
	return lag;
}

/* True when the stream and all views that are neither failed nor go on by themselves stand at the targets or beyond. */
bool
streamext_worker_reached(Worker *w, const int64 *targets, int n)
{
	for (int i = 0; i < n; i++)
	{
		ListCell *lc;

		if (targets[i] <= 0)
			continue; /* nothing there */
		if (w->shard.slot->counted.partitions[i].position < targets[i])
			return false;
		foreach (lc, w->shard.views)
		{
			WorkerView *v = lfirst(lc);

			if (!v->paused && !streamext_alone_is(v->slot) &&
				(v->fold != NULL || v->slot->owner.catchup != CATCHUP_NONE) &&
				streamext_worker_view_position(w, v, i) < targets[i])
				return false;
		}
	}
	return true;
}

/* ---------------------------------------------------------------- room */

/* Replaces the slot's partitions by a larger array, and with it each view's vector. False: memory is full, nothing has changed. */
static bool
position_grow(Worker *w, int capacity)
{
	StreamSlot	  *slot = w->shard.slot;
	int			   nviews = list_length(w->shard.views);
	int64		 **vectors = palloc0(sizeof(int64 *) * Max(nviews, 1));
	PartitionSlot *partitions = streamext_chunk_alloc(sizeof(PartitionSlot) * capacity, NULL);
	PartitionSlot *old = slot->counted.partitions;
	bool		   full = partitions == NULL;

	for (int i = 0; i < nviews && !full; i++)
	{
		vectors[i] = streamext_chunk_alloc(sizeof(int64) * capacity, NULL);
		full = vectors[i] == NULL;
	}
	if (full)
	{
		for (int i = 0; i < nviews; i++)
			if (vectors[i] != NULL)
				streamext_chunk_free(vectors[i]);
		if (partitions != NULL)
			streamext_chunk_free(partitions);
		pfree(vectors);
		return false;
	}

	streamext_stream_lock_exclusive(slot);
	memset(partitions, 0, sizeof(PartitionSlot) * capacity);
	if (old != NULL)
		memcpy(partitions, old, sizeof(PartitionSlot) * slot->counted.npartitions);
	slot->counted.partitions = partitions;
	slot->counted.partitions_capacity = capacity;
	slot->counted.layout++;
	for (int i = 0; i < nviews; i++)
	{
		ViewSlot *view = ((WorkerView *) list_nth(w->shard.views, i))->slot;
		int64	 *former = view->counted.positions;

		if (former != NULL)
			memcpy(vectors[i], former, sizeof(int64) * view->counted.npositions);
		view->counted.positions = vectors[i];
		vectors[i] = former;
	}
	LWLockRelease(slot->lock);

	for (int i = 0; i < nviews; i++)
		if (vectors[i] != NULL)
			streamext_chunk_free(vectors[i]);
	if (old != NULL)
		streamext_chunk_free(old);
	pfree(vectors);
	return true;
}

/* Gives each view a vector with an entry for each partition of the slot. False: memory is full. */
static bool
position_fit_views(Worker *w)
{
	StreamSlot *slot = w->shard.slot;
	ListCell   *lc;

	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);
		ViewSlot   *view = v->slot;
		int64	   *vector = view->counted.positions;

		if (vector == NULL && slot->counted.partitions_capacity > 0)
			vector = streamext_chunk_alloc(sizeof(int64) * slot->counted.partitions_capacity, NULL);
		if (vector == NULL && slot->counted.npartitions > 0)
			return false;
		if (view->counted.npositions == slot->counted.npartitions && view->counted.positions == vector)
			continue;
		streamext_stream_lock_exclusive(slot);
		view->counted.positions = vector;
		for (int i = view->counted.npositions; i < slot->counted.npartitions; i++)
			vector[i] = -1;
		view->counted.npositions = slot->counted.npartitions;
		slot->counted.layout++;
		LWLockRelease(slot->lock);
	}
	return true;
}

/* ---------------------------------------------------------------- partitions that come up */

static void
position_exchange(Worker *w, int a, int b)
{
	PartitionSlot partition = w->shard.slot->counted.partitions[a];
	ListCell	 *lc;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	w->shard.slot->counted.partitions[a] = w->shard.slot->counted.partitions[b];
	w->shard.slot->counted.partitions[b] = partition;
	w->shard.slot->counted.layout++;
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);
		int64		position = v->slot->counted.positions[a];

		v->slot->counted.positions[a] = v->slot->counted.positions[b];
		v->slot->counted.positions[b] = position;
		if (v->max_event_time != NULL)
		{
			TimestampTz event_time = v->max_event_time[a];

			v->max_event_time[a] = v->max_event_time[b];
			v->max_event_time[b] = event_time;
		}
	}
}

/* Another entry of the slot, of which nothing has been read. False: memory is full. */
static bool
position_append(Worker *w, const char *topic, int32 partition)
{
	StreamSlot	  *slot = w->shard.slot;
	int			   n = slot->counted.npartitions;
	PartitionSlot *added;

	if (n == STREAMEXT_MAX_PARTITIONS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("stream \"%s.%s\" has more than %d partitions", w->shard.config->schema,
							   w->shard.config->name, STREAMEXT_MAX_PARTITIONS),
						errhint("Raise the stream's option workers, so that each worker has fewer.")));
	if (n == slot->counted.partitions_capacity &&
		!position_grow(w, n == 0 ? POSITION_CAPACITY : Min(n * 2, STREAMEXT_MAX_PARTITIONS)))
		return false;
	streamext_stream_lock_exclusive(slot);
	added = &slot->counted.partitions[n];
	memset(added, 0, sizeof(PartitionSlot));
	strlcpy(added->topic, topic, sizeof(added->topic));
	added->partition = partition;
	added->position = added->start_position = added->begin = -1;
	added->high_watermark = -1;
	added->max_event_time = DT_NOBEGIN;
	added->last.position = -1;
	added->last_arrival = streamext_clock_now();
	slot->counted.npartitions++;
	slot->counted.layout++;
	LWLockRelease(slot->lock);
	return true;
}

/* Makes the slot's entry w->shard.npartitions that of the connector's. False: memory is full. */
static bool
position_adopt(Worker *w)
{
	StreamSlot		   *slot = w->shard.slot;
	int					index = w->shard.npartitions;
	ConnectorPartition *theirs = &w->shard.connector->partitions[index];
	int					found;

	for (found = index; found < slot->counted.npartitions; found++)
		if (slot->counted.partitions[found].partition == theirs->partition &&
			strcmp(slot->counted.partitions[found].topic, theirs->topic) == 0)
			break;
	if (found == slot->counted.npartitions && !position_append(w, theirs->topic, theirs->partition))
		return false;
	if (!position_fit_views(w))
		return false;
	if (found != index)
	{
		streamext_stream_lock_exclusive(slot);
		position_exchange(w, index, found);
		LWLockRelease(slot->lock);
	}
	if (slot->counted.partitions[index].last.position > theirs->last.position)
		theirs->last = slot->counted.partitions[index].last;
	w->shard.npartitions++;
	w->letters.behind = false;
	return true;
}

/*
 * With the exclusive lock. What the stream has not begun, or no other view waits for, begins where the view is that comes from elsewhere: what lies
 * before that need not be there any more.
 */
static void
position_begin_at(Worker *w, PartitionSlot *partition, const CheckpointPartition *seed)
{
	bool only = list_length(w->shard.views) == 1;

	if (seed->position < 0 || (partition->position >= 0 && (!only || partition->position >= seed->position)))
		return;
	if (partition->start_position < 0)
		partition->start_position = seed->position;
	partition->position = seed->position;
	partition->max_event_time = Max(partition->max_event_time, seed->max_event_time);
}

bool
streamext_worker_expect(Worker *w, const CheckpointPosition *seed)
{
	StreamSlot *slot = w->shard.slot;

	for (int i = 0; i < seed->head.npartitions; i++)
	{
		const CheckpointPartition *from = &seed->partitions[i];
		int						   found;

		for (found = 0; found < slot->counted.npartitions; found++)
			if (slot->counted.partitions[found].partition == from->partition &&
				strcmp(slot->counted.partitions[found].topic, from->topic) == 0)
				break;
		if (found == slot->counted.npartitions && !position_append(w, from->topic, from->partition))
			return false;
		streamext_stream_lock_exclusive(slot);
		position_begin_at(w, &slot->counted.partitions[found], from);
		LWLockRelease(slot->lock);
	}
	if (list_length(w->shard.views) == 1 && seed->head.watermark > slot->counted.watermark)
	{
		streamext_stream_lock_exclusive(slot);
		slot->counted.watermark = seed->head.watermark;
		LWLockRelease(slot->lock);
	}
	return position_fit_views(w);
}

bool
streamext_worker_adopt(Worker *w)
{
	while (w->shard.npartitions < w->shard.connector->npartitions)
		if (!position_adopt(w))
			return false;
	return position_fit_views(w);
}

/* ---------------------------------------------------------------- where to read */

/* -1: the stream's start. */
int64
streamext_worker_target(Worker *w, int index)
{
	int64	  target = w->shard.slot->counted.partitions[index].position;
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->fold != NULL && !v->paused)
			target = Min(target, streamext_worker_view_position(w, v, index));
	}
	return target;
}
