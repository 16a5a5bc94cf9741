/*-------------------------------------------------------------------------
 *
 * worker/watermark.c
 *		Event time's progress, of the stream.
 *
 * The stream's watermark is the least of its partitions' greatest event times, less watermark_delay; it never goes back. A
 * partition that is idle does not hold it back, but if all are idle it stays.
 *
 * Idle is a partition that was found empty at the source's end for idle_timeout, by a worker that has looked without a break. That the source has
 * nothing to read must be known of a moment after the events by which the watermark moves past the partition came: what is read first says nothing
 * of what waits elsewhere, after a hold-up, on a busy machine, or when partitions are replayed one after the other. So the worker asks the source for
 * the ends of its idle partitions before each such step, every WATERMARK_ASK_MS at most; without idle partitions it asks nothing.
 *
 * Each worker has a watermark of its own partitions. One whose partitions are all idle, or that has none, is idle and takes over the least watermark of
 * those that are not, or, when all are, of the one that became so last. A worker that is not there is not idle: it holds the watermark where it was.
 *
 * With close_idle the clock takes over where nothing comes: when all partitions of all workers have been empty for so long, and still are by the source's
 * word, the watermark is the clock, less watermark_delay, as long as there is a window left to be closed. What comes then with an older time may be late.
 *
 * A view over another one reads windows in whatever order: what its stream's watermark may be is said by who gives them (sink/windows.c), of a moment
 * by which they all were in the journal, and holds when this is read.
 *
 * Of views that are behind: worker/view_watermark.c.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "common/int.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "durable/checkpoint.h"
#include "shared/clock.h"
#include "worker/worker_private.h"

#define WATERMARK_JUMP (60 * USECS_PER_SEC) /* a step of the watermark that is told if rows are late for it */
#define WATERMARK_ASK_MS 250				/* between two questions for the ends of idle partitions */
#define WATERMARK_CLOSE_MS 1000				/* between two steps of a watermark that goes by the clock */
#define WATERMARK_BREAK_MS 1000 /* a worker that has not looked for so long, and for idle_timeout, has had a break */

static TimestampTz
watermark_after(TimestampTz event_time, int64 delay)
{
	return event_time == DT_NOBEGIN ? DT_NOBEGIN : event_time - delay;
}

/* ---------------------------------------------------------------- parts of UNION ALL */

/* Whether slot number i is another worker's of the same stream. With registry_lock. */
static bool
watermark_is_other(const Worker *w, int i)
{
	const StreamSlot *slot = &streamext_shared->streams[i];

	return slot->id.in_use && slot->id.dboid == w->shard.identity.dboid && slot->id.relid == w->shard.identity.relid &&
		   slot->id.shard < w->shard.config->workers && i != w->shard.index;
}

/*
 * The watermark of a part is the least that all parts' own partitions allow, but for those that are idle; DT_NOBEGIN: one has not said. So that it can
 * rise at all, what a part's own partitions allow is told apart from it.
 */
static TimestampTz
watermark_of_parts(Worker *w, TimestampTz own)
{
	TimestampTz least = own;
	int			n = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *other = &streamext_shared->streams[i];

		if (!watermark_is_other(w, i))
			continue;
		n++;
		if (!other->quiet.idle)
			least = Min(least, other->quiet.own); /* 64 bits, that only rise; seen late is too little */
	}
	LWLockRelease(streamext_shared->registry_lock);
	return n < w->shard.config->workers - 1 ? DT_NOBEGIN : least;
}

/* Those that this one has held. */
static void
watermark_tell_parts(Worker *w)
{
	TimestampTz own = w->shard.slot->quiet.own;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *other = &streamext_shared->streams[i];

		if (other->id.in_use && other->id.dboid == w->shard.identity.dboid &&
			other->id.relid == w->shard.identity.relid && i != w->shard.index && other->quiet.own > w->watch.told_own)
			streamext_wake_worker(other);
	}
	LWLockRelease(streamext_shared->registry_lock);
	w->watch.told_own = own;
}

/* ---------------------------------------------------------------- what arrives */

/* Takes the accepted rows of the batch that the stream has not read before. With the exclusive lock, before positions move. */
void
streamext_worker_stream_events(Worker *w, TimestampTz now)
{
	Batch		  *batch = w->reading.batch;
	PartitionSlot *partitions = w->shard.slot->counted.partitions;
	int			   last = -1;

	Assert(LWLockHeldByMeInMode(w->shard.slot->lock, LW_EXCLUSIVE));
	for (int i = 0; i < batch->nrecords; i++)
	{
		StreamRecord  *record = &batch->records[i];
		PartitionSlot *partition = &partitions[record->partition_index];

		if (record->partition_index == last || record->position < partition->position)
			continue;
		last = record->partition_index;
		partition->last_arrival = now;
		partition->empty = partition->idle = w->shard.slot->quiet.idle = false;
	}
	for (int row = 0; row < batch->nrows; row++)
	{
		StreamRecord  *record = &batch->records[batch->record[row]];
		PartitionSlot *partition = &partitions[record->partition_index];

		if (record->position >= partition->position && batch->event_time[row] > partition->max_event_time)
			partition->max_event_time = batch->event_time[row];
	}
}

/* ---------------------------------------------------------------- the stream's */

/* Takes the exclusive lock if there is something to change, unless it is held. */
static void
watermark_raise(Worker *w, TimestampTz to)
{
	StreamSlot *slot = w->shard.slot;
	bool		held = LWLockHeldByMe(slot->lock);

	if (to <= slot->counted.watermark)
		return;
	if (!held)
		streamext_stream_lock_exclusive(slot);
	slot->counted.watermark = to;
	if (!held)
		LWLockRelease(slot->lock);
	w->expiry.due = true;
	streamext_checkpoint_note(&w->shard);
}

/* What the partitions but for those that may be passed over allow; DT_NOEND: none is left. */
static TimestampTz
watermark_of_partitions(const Worker *w, const bool *passed)
{
	TimestampTz least = DT_NOEND;

	for (int i = 0; i < w->shard.npartitions; i++)
		if (passed == NULL || !passed[i])
			least = Min(least, w->shard.slot->counted.partitions[i].max_event_time);
	return least == DT_NOEND ? least : watermark_after(least, w->shard.config->time.watermark_delay);
}

static uint64
watermark_late(const Worker *w)
{
	uint64	  late = 0;
	ListCell *lc;

	foreach (lc, w->shard.views)
		late += ((WorkerView *) lfirst(lc))->slot->counted.late;
	return late;
}

/* By which record of the batch: the one that is furthest. */
static void
watermark_note_jump(Worker *w, TimestampTz from)
{
	const Batch		   *batch = w->reading.batch;
	const StreamRecord *record;
	int					furthest = 0;

	if (batch->nrows == 0)
		return;
	for (int row = 1; row < batch->nrows; row++)
		if (batch->event_time[row] > batch->event_time[furthest])
			furthest = row;
	record = &batch->records[batch->record[furthest]];
	w->watch.jumped_from = from;
	w->watch.jumped_late = watermark_late(w);
	streamext_clip_format(w->watch.jumped_by, sizeof(w->watch.jumped_by), "partition %d, position " INT64_FORMAT,
						  record->partition, record->position);
}

/* Whether rows that are late since would not have been without the jump: in this batch there are such. */
static void
watermark_tell_jump(Worker *w)
{
	const Batch *batch = w->reading.batch;
	TimestampTz	 from = w->watch.jumped_from, to = w->shard.slot->counted.watermark;

	if (watermark_late(w) <= w->watch.jumped_late)
		return;
	for (int row = 0; row < batch->nrows; row++)
		if (batch->event_time[row] > from && batch->event_time[row] < to)
		{
			streamext_connector_event(w->shard.connector, "jump", -1, 0,
									  "the watermark has moved by " INT64_FORMAT
									  " s with a record (%s), and others are late for it; see the options max_ahead "
									  "and watermark_delay",
									  (to - from) / USECS_PER_SEC, w->watch.jumped_by);
			w->watch.jumped_from = 0;
			return;
		}
}

/* By the batch that is being published; with the exclusive lock. Where a partition is idle the source is asked first, later. */
void
streamext_worker_advance_watermark(Worker *w)
{
	TimestampTz before = w->shard.slot->counted.watermark;
	TimestampTz least = OidIsValid(w->shard.config->from.inner) ? DT_NOEND : watermark_of_partitions(w, NULL);

	if (unlikely(w->watch.jumped_from != 0))
		watermark_tell_jump(w);
	if (least == DT_NOEND ||
		OidIsValid(w->shard.config->from.origin)) /* parts look at the others when no lock is held */
		return;
	watermark_raise(w, least);
	if (!TIMESTAMP_NOT_FINITE(before) && unlikely(least - before > WATERMARK_JUMP))
		watermark_note_jump(w, before);
}

/* ---------------------------------------------------------------- who is idle */

/* They look whether what they take over has changed. */
static void
watermark_tell_others(Worker *w)
{
	if (w->shard.config->workers == 1 || (w->watch.told && w->watch.told_idle == w->shard.slot->quiet.idle))
		return;
	w->watch.told = true;
	w->watch.told_idle = w->shard.slot->quiet.idle;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *other = &streamext_shared->streams[i];

		if (other->id.in_use && other->id.dboid == w->shard.identity.dboid &&
			other->id.relid == w->shard.identity.relid && i != w->shard.index)
			streamext_wake_worker(other);
	}
	LWLockRelease(streamext_shared->registry_lock);
}

/* Nothing is known of partitions that are not looked at. */
void
streamext_worker_look_away(Worker *w)
{
	StreamSlot *slot = w->shard.slot;

	w->watch.looked_at = 0;
	w->watch.ask_later = w->watch.others_busy = false;
	w->watch.close_at = DT_NOEND;
	streamext_stream_lock_exclusive(slot);
	slot->quiet.idle = false;
	slot->quiet.silent_since = DT_NOEND;
	for (int i = 0; i < w->shard.npartitions; i++)
		slot->counted.partitions[i].empty = slot->counted.partitions[i].idle = false;
	LWLockRelease(slot->lock);
	watermark_tell_others(w);
}

/* Whether all is read that the source is known to have. */
static bool
watermark_is_empty(const Worker *w, int index)
{
	int64 end = w->shard.connector->partitions[index].high_watermark;

	return end >= 0 && Max(w->shard.slot->counted.partitions[index].position, 0) >= end;
}

/* Which partitions have been empty for so long that they are idle if they still are; how many. */
static int
watermark_look(Worker *w, TimestampTz now, bool *ripe)
{
	StreamSlot *slot = w->shard.slot;
	int			n = 0;

	for (int i = 0; i < w->shard.npartitions; i++)
	{
		PartitionSlot *partition = &slot->counted.partitions[i];
		bool		   empty = !w->reading.pending && watermark_is_empty(w, i);

		if (empty && !partition->empty)
			partition->empty_since = now;
		/* readers of `idle` hold no lock, and may see it late */
		if (!empty)
			partition->idle = slot->quiet.idle = false;
		partition->empty = empty;
		ripe[i] = empty && now - partition->empty_since >= w->shard.config->time.idle_timeout;
		n += ripe[i];
	}
	return n;
}

/* Since when all partitions have been empty, if they are; without one for ever. */
static TimestampTz
watermark_idle_since(const Worker *w)
{
	TimestampTz since = DT_NOBEGIN;

	for (int i = 0; i < w->shard.npartitions; i++)
		since = Max(since, w->shard.slot->counted.partitions[i].empty_since);
	return since;
}

/* The other workers: the watermark that one which is idle takes over, DT_NOBEGIN: none. *busy: one of them is not idle. */
static TimestampTz
watermark_of_others(Worker *w, bool *busy)
{
	TimestampTz least = DT_NOEND, last = DT_NOBEGIN, since = watermark_idle_since(w);
	int			n = 0;

	*busy = false;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *other = &streamext_shared->streams[i];

		if (!watermark_is_other(w, i))
			continue;
		n++;
		streamext_stream_lock_shared(other);
		if (!other->quiet.idle)
		{
			*busy = true;
			least = Min(least, other->counted.watermark);
		}
		else if (other->quiet.idle_since > since)
		{
			since = other->quiet.idle_since;
			last = other->counted.watermark;
		}
		LWLockRelease(other->lock);
	}
	LWLockRelease(streamext_shared->registry_lock);
	if (n < w->shard.config->workers - 1)
	{
		*busy = true; /* not started yet */
		return DT_NOBEGIN;
	}
	return *busy ? least : last;
}

/* Whether the ripe partitions still are empty, by the source's own word; those that are not are not ripe. False: it does not say. */
static bool
watermark_ask(Worker *w, bool *ripe)
{
	static int indexes[STREAMEXT_MAX_PARTITIONS];
	int		   n = 0;

	for (int i = 0; i < w->shard.npartitions; i++)
		if (ripe[i])
			indexes[n++] = i;
	w->watch.asked_at = GetCurrentTimestamp();
	if (!w->shard.ops->ends(w->shard.connector, indexes, n))
		return false;
	for (int i = 0; i < n; i++)
	{
		PartitionSlot *partition = &w->shard.slot->counted.partitions[indexes[i]];

		if (watermark_is_empty(w, indexes[i]))
			partition->idle = true;
		else
			ripe[indexes[i]] = partition->empty = partition->idle = false;
	}
	return true;
}

/* With all partitions idle, or none at all. */
static void
watermark_be_idle(Worker *w, TimestampTz take_over)
{
	StreamSlot *slot = w->shard.slot;

	if (!slot->quiet.idle)
	{
		streamext_stream_lock_exclusive(slot);
		slot->quiet.idle = true;
		slot->quiet.idle_since = watermark_idle_since(w);
		LWLockRelease(slot->lock);
	}
	if (take_over != DT_NOBEGIN)
		watermark_raise(w, take_over);
}

/* ---------------------------------------------------------------- closing by the clock */

/* The watermark that closes the last window of the views; DT_NOBEGIN: they have none. */
static TimestampTz
watermark_wanted(const Worker *w)
{
	TimestampTz last = DT_NOBEGIN;
	ListCell   *lc;

	foreach (lc, w->shard.views)
	{
		const WorkerView   *v = lfirst(lc);
		const CompiledView *view;
		const ViewState	   *state = &v->slot->counted.state;
		TimestampTz			end;

		if (v->fold == NULL || v->behind || state->npanes == 0)
			continue;
		view = streamext_fold_view(v->fold);
		if (view->window.kind != WINDOW_SESSION && !streamext_window_has_ends(&view->window))
			continue;
		end = streamext_window_last_end(&view->window, state->panes[state->npanes - 1]->id);
		if (view->window.kind == WINDOW_SESSION && pg_add_s64_overflow(end, 2 * view->window.size, &end))
			continue;
		if (!pg_add_s64_overflow(end, view->options.lateness, &end))
			last = Max(last, end);
	}
	return last;
}

/* Since when the other workers' partitions are all empty, DT_NOEND: they are not; and the greatest watermark of theirs. */
static TimestampTz
watermark_others_silent(const Worker *w, TimestampTz *greatest)
{
	TimestampTz since = DT_NOBEGIN;
	int			n = 1;

	*greatest = DT_NOBEGIN;
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams; i++)
	{
		StreamSlot *other = &streamext_shared->streams[i];

		if (!watermark_is_other(w, i))
			continue;
		n++;
		streamext_stream_lock_shared(other);
		since = Max(since, other->worker.pid != 0 ? other->quiet.silent_since : DT_NOEND);
		*greatest = Max(*greatest, other->counted.watermark);
		LWLockRelease(other->lock);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return n < w->shard.config->workers ? DT_NOEND : since;
}

/* Notes for the other workers since when all partitions are empty; DT_NOEND: they are not. */
static TimestampTz
watermark_note_silent(Worker *w)
{
	StreamSlot *slot = w->shard.slot;
	TimestampTz since = w->reading.pending ? DT_NOEND : watermark_idle_since(w);

	for (int i = 0; i < w->shard.npartitions; i++)
		if (!slot->counted.partitions[i].empty)
			since = DT_NOEND;
	if (since != slot->quiet.silent_since)
	{
		streamext_stream_lock_exclusive(slot);
		slot->quiet.silent_since = since;
		LWLockRelease(slot->lock);
	}
	return since;
}

/* Whether all partitions are empty, by the source's own word; false also if it does not say. */
static bool
watermark_source_is_empty(Worker *w)
{
	static int indexes[STREAMEXT_MAX_PARTITIONS];

	for (int i = 0; i < w->shard.npartitions; i++)
		indexes[i] = i;
	w->watch.asked_at = GetCurrentTimestamp();
	if (w->shard.npartitions > 0 && !w->shard.ops->ends(w->shard.connector, indexes, w->shard.npartitions))
		return false;
	for (int i = 0; i < w->shard.npartitions; i++)
		if (!watermark_is_empty(w, i))
			return false;
	return true;
}

/* When the source is silent the watermark goes by the clock until all windows are closed. */
static void
watermark_close_idle(Worker *w, TimestampTz now, TimestampTz real, bool at_once)
{
	StreamSlot *slot = w->shard.slot;
	TimestampTz since, wanted, greatest = DT_NOBEGIN;

	if (w->shard.config->time.close_idle == 0)
		return;
	since = watermark_note_silent(w);
	if (since == DT_NOEND)
		return;
	wanted = watermark_wanted(w);
	if (w->shard.config->workers > 1)
	{
		TimestampTz others = watermark_others_silent(w, &greatest);

		/* windows go out by the least of all workers' watermarks */
		if (greatest > slot->counted.watermark)
			wanted = DT_NOEND;
		w->watch.others_busy = w->watch.others_busy || others == DT_NOEND || wanted > slot->counted.watermark;
		since = Max(since, others);
	}
	if (since == DT_NOEND || wanted <= slot->counted.watermark)
		return;
	w->watch.close_at =
		Max(Max(since, DT_NOBEGIN + 1) + w->shard.config->time.close_idle, now + WATERMARK_CLOSE_MS * INT64CONST(1000));
	if (now - since < w->shard.config->time.close_idle)
	{
		w->watch.close_at = since + w->shard.config->time.close_idle;
		return;
	}
	if (now - w->shard.config->time.watermark_delay <= slot->counted.watermark)
		return;
	if (!at_once && real - w->watch.asked_at < WATERMARK_ASK_MS * INT64CONST(1000))
		w->watch.ask_later = true;
	else if (watermark_source_is_empty(w))
		watermark_raise(w, now - w->shard.config->time.watermark_delay);
}

/* ---------------------------------------------------------------- of windows */

static void
watermark_of_windows(Worker *w)
{
	StreamSlot *slot = w->shard.slot;
	TimestampTz mark;

	if (slot->windows.mark <= slot->counted.watermark)
		return;
	streamext_stream_lock_shared(slot); /* the journal's end is of later */
	mark = slot->windows.number == w->flow_number ? slot->windows.mark : DT_NOBEGIN;
	LWLockRelease(slot->lock);
	if (!w->reading.pending && watermark_source_is_empty(w))
		watermark_raise(w, mark);
}

/* ---------------------------------------------------------------- of a part of UNION ALL, in each round */

static void
watermark_reach(Worker *w, TimestampTz own)
{
	StreamSlot *slot = w->shard.slot;

	if (own != DT_NOEND && own > slot->quiet.own)
		slot->quiet.own = own;
	if (slot->quiet.own > w->watch.told_own)
		watermark_tell_parts(w);
	if (slot->quiet.idle)
		return;
	watermark_raise(w, watermark_of_parts(w, slot->quiet.own));
	w->watch.others_busy = w->watch.others_busy || slot->quiet.own > slot->counted.watermark;
}

/* ---------------------------------------------------------------- in each round */

/*
 * A break in the worker's attention: somebody has stopped it, or a batch took very long. Where the source's end cannot be asked for, as what a broker
 * still has for an MQTT client, a short one is enough.
 */
static bool
watermark_after_break(Worker *w, TimestampTz real)
{
	TimestampTz before = w->watch.looked_at;
	int64		limit = WATERMARK_BREAK_MS * INT64CONST(1000);

	if (!w->shard.ops->journaled || w->shard.ops->pushed)
		limit = Max(limit, w->shard.config->time.idle_timeout);
	w->watch.looked_at = real;
	return before != 0 && real - before > limit;
}

/*
 * Passes over idle partitions, and takes over the other workers' watermark when all of its own are. `at_once`: the source is asked
 * whenever it was last asked. Outside transactions, no lock held; the source may take a second to answer.
 */
void
streamext_worker_watch_watermark(Worker *w, bool at_once)
{
	static bool ripe[STREAMEXT_MAX_PARTITIONS];
	TimestampTz now = streamext_clock_now(), real = GetCurrentTimestamp();
	TimestampTz take_over = DT_NOBEGIN, least;
	StreamSlot *slot = w->shard.slot;
	bool		part = OidIsValid(w->shard.config->from.origin);
	bool		all, wanted;
	int			n;

	w->watch.ask_later = w->watch.others_busy = false;
	w->watch.close_at = DT_NOEND;
	if (OidIsValid(w->shard.config->from.inner))
	{
		watermark_of_windows(w);
		return;
	}
	if (w->shard.connector->stalled || watermark_after_break(w, real))
	{
		streamext_worker_look_away(w);
		if (w->shard.connector->stalled)
			return;
		w->watch.looked_at = real;
	}
	n = watermark_look(w, now, ripe);
	all = n == w->shard.npartitions;
	least = watermark_of_partitions(w, ripe);
	if (all && w->shard.config->workers > 1)
		take_over = watermark_of_others(w, &w->watch.others_busy);
	wanted = all ? w->shard.config->workers > 1 && (!slot->quiet.idle || take_over > slot->counted.watermark)
				 : n > 0 && least > (part ? slot->quiet.own : slot->counted.watermark);
	if (wanted && !at_once && real - w->watch.asked_at < WATERMARK_ASK_MS * INT64CONST(1000))
		w->watch.ask_later = true;
	else if (wanted && watermark_ask(w, ripe))
	{
		least = watermark_of_partitions(w, ripe);
		if (least == DT_NOEND)
			watermark_be_idle(w, take_over);
		else if (part)
			watermark_reach(w, least);
		else
			watermark_raise(w, least);
	}
	else if (wanted)
		w->watch.ask_later = true;
	if (part)
		watermark_reach(w, watermark_of_partitions(w, NULL));
	watermark_close_idle(w, now, real, at_once);
	watermark_tell_others(w);
}

/* When there is something to be seen by itself; DT_NOEND: nothing, or a set clock decides. */
TimestampTz
streamext_worker_watermark_deadline(Worker *w, TimestampTz now)
{
	TimestampTz deadline = DT_NOEND;
	int			held = 0;

	if (OidIsValid(w->shard.config->from.inner))
		return deadline;
	if (w->watch.ask_later)
		deadline = Max(w->watch.asked_at + WATERMARK_ASK_MS * INT64CONST(1000), now);
	else if (w->watch.others_busy)
		deadline = now + WATERMARK_ASK_MS * INT64CONST(1000);
	if (streamext_clock_is_set())
		return deadline;
	deadline = Min(deadline, w->watch.close_at);
	for (int i = 0; i < w->shard.npartitions; i++)
	{
		const PartitionSlot *partition = &w->shard.slot->counted.partitions[i];

		/* the last one that is not idle holds nothing back, but for other workers */
		if (partition->idle)
			continue;
		held++;
		if (partition->empty && partition->empty_since + w->shard.config->time.idle_timeout > now)
			deadline = Min(deadline, partition->empty_since + w->shard.config->time.idle_timeout);
	}
	return held >= 2 || w->shard.config->workers > 1 || w->watch.ask_later ? deadline : w->watch.close_at;
}
