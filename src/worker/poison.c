/*-------------------------------------------------------------------------
 *
 * worker/poison.c
 *		Records and views that crash their worker: known by a mark that survives it.
 *
 * A crash of one worker is one of the whole server: shared memory begins anew, the worker reads on from its checkpoint, and without a
 * mark would crash again, for ever. The mark is a piece of a file that all workers have mapped: what is written there by plain stores
 * is in the kernel's hands and outlives any process (not the machine; then it is stale, and costs a moment of care). Before a batch a worker
 * notes which records it holds, before each view the view; after it that nothing is at work. A worker that ends by an error or a signal
 * says so too, as one does that the postmaster ends because another process has crashed (SIGQUIT). What remains is a crash of its own, or a
 * kill -9 from outside.
 *
 * The first crash makes the next worker careful: records of the marked batch are taken one by one, each in its own transaction, so that the second
 * names record and view. Only when the same record in the same view crashes the worker once more is it set aside: as a dead letter of that view, or
 * of the stream if no view was at work. A view that has never counted anything, or that crashes again after a record was set aside for it, is
 * `failed` itself, until it is changed. So three crashes at most for each culprit, and no single kill -9 blames anybody. Starts after the second crash
 * wait, for twice as long each time.
 *
 * Letters that are tried again are marked as a batch is, with their request. That comes again as a whole after a crash, so care is to try each
 * letter alone before, and what is set aside is so for that request: who asks once more has changed something. At the second one set aside the
 * request is given up.
 *
 * Between batches there are a client's threads, which take what a broker sends: no record can be named there. A process that crashes so without
 * having passed where the one before it was has the third one's successor stop the stream (streamext_poison_stops), until resume. Who sends what crashes
 * it can send a good record before each time: so it is, too, when three in a row have ended soon after their start by a fault of the program (a failed
 * assertion, mostly), which the process notes itself. A kill -9, also the kernel's for want of memory, is none.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"


#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_rewrite.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "rewrite/rewriteSupport.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "base/label.h"
#include "base/fault.h"
#include "worker/poison_private.h"

#define POISON_CRASHES 3
#define POISON_LIVED (600 * USECS_PER_SEC) /* what has lived for so long was not crashed by what it began with */
#define POISON_WAIT_MS 1000
#define POISON_WAIT_MAX_MS 60000
#if PG_VERSION_NUM >= 160000
#define SEND_ABORT_FOR_CRASH send_abort_for_crash
#else
#define SEND_ABORT_FOR_CRASH false
#endif
#define POISON_CAREFUL (2 * STREAMEXT_BATCH_ROWS) /* records at most, where the mark could not hold all partitions */

static PoisonEntry *poison_entry = NULL; /* NULL: there is no file, nothing is marked */
static PoisonMark  *poison_mark = NULL;
static PoisonPlace	poison_suspect; /* to be taken carefully; stage NONE: nothing */
static bool			poison_careful = false;
static int			poison_left;
static bool			poison_passed[POISON_RANGES];

/* ---------------------------------------------------------------- whom to blame */

static bool
poison_blames_view(Oid view)
{
	for (uint32 i = 0; i < poison_mark->nblamed; i++)
		if (poison_mark->blamed[i].view == view)
			return true;
	return false;
}

static void
poison_blame(const PoisonPlace *place)
{
	PoisonBlame blame = { .view = place->view, .retry = place->retry };

	blame.whole = place->stage == STAGE_START || (place->stage == STAGE_VIEW && place->retry == 0 &&
												  (!place->counted || poison_blames_view(place->view)));
	if (!blame.whole)
	{
		blame.topic = place->ranges[0].topic;
		blame.partition = place->ranges[0].partition;
		blame.position = place->ranges[0].first;
	}
	poison_mark->blamed[poison_mark->next_blamed % POISON_BLAMED] = blame;
	poison_mark->next_blamed = (poison_mark->next_blamed + 1) % POISON_BLAMED;
	poison_mark->nblamed = Min(poison_mark->nblamed + 1, POISON_BLAMED);
	if (blame.whole)
		ereport(LOG, (errmsg("continuous view %s has crashed the worker and is set aside",
							 streamext_relation_label(blame.view))));
	else
		ereport(LOG, (errmsg("a record (partition %d, position " INT64_FORMAT
							 ") has crashed the worker and is set aside, for %s",
							 blame.partition, blame.position,
							 OidIsValid(blame.view) ? psprintf("view %s", streamext_relation_label(blame.view))
													: "all views")));
}

static bool
poison_same_place(const PoisonPlace *a, const PoisonPlace *b)
{
	if (a->stage != b->stage || a->view != b->view)
		return false;
	if (a->stage == STAGE_START)
		return true;
	return a->nrecords == 1 && b->nrecords == 1 && memcmp(&a->ranges[0], &b->ranges[0], sizeof(PoisonRange)) == 0;
}

/* The process before has ended in the midst of something. */
static void
poison_judge(void)
{
	PoisonMark *mark = poison_mark;
	PoisonPlace place = mark->now;
	bool		again = mark->crashes > 0 && poison_same_place(&place, &mark->last);

	place.nranges = Min(place.nranges, POISON_RANGES);
	mark->crashes++;
	ereport(LOG,
			(errmsg("the worker has crashed %u times in a row, now with %u records at hand%s", mark->crashes,
					place.stage == STAGE_START ? 0 : place.nrecords,
					OidIsValid(place.view) ? psprintf(", in continuous view %s", streamext_relation_label(place.view))
										   : "")));
	/* a view for which a record was set aside already does not get three more crashes for each further one */
	if ((mark->crashes >= POISON_CRASHES && again) ||
		(mark->crashes >= 2 && place.stage == STAGE_VIEW && place.retry == 0 && place.view == mark->last.view &&
		 poison_blames_view(place.view)))
	{
		poison_blame(&place);
		mark->crashes = 0;
	}
	else if (place.stage != STAGE_START)
		poison_suspect = place;
	mark->last = place;
	mark->at_work = 0;
}

/* What it has lived through for long was not by what it began with. Also in a signal handler. */
static void
poison_forget_lived(PoisonMark *mark)
{
	if (GetCurrentTimestamp() - mark->started > POISON_LIVED)
		mark->barren = mark->faults = 0;
}

/*
 * The process before has ended, not by itself, with nothing at work. Who has ended the whole server means nobody; where that is how a server deals with
 * a crash it cannot be told.
 */
static void
poison_judge_barren(PoisonMark *mark)
{
	if (mark->postmaster != PgStartTime && restart_after_crash)
		return;
	poison_forget_lived(mark);
	mark->barren++;
	mark->faults = mark->faulted ? mark->faults + 1 : 0;
	ereport(LOG, (errmsg("the worker has crashed %u times in a row, now with no record at hand",
						 streamext_poison_barren(mark))));
}

/* Then the signal does what it does without: it ends the process. With send_abort_for_crash it is the postmaster that aborts whoever is left. */
static void
poison_note_fault(SIGNAL_ARGS)
{
	if (postgres_signal_arg == SIGABRT && SEND_ABORT_FOR_CRASH)
		streamext_poison_end();
	else
		poison_mark->faulted = 1;
	signal(postgres_signal_arg, SIG_DFL);
	raise(postgres_signal_arg);
}

long
streamext_poison_start(Worker *w)
{
	static const int faults[] = { SIGABRT, SIGBUS, SIGILL, SIGSEGV };

	int			 n = streamext_max_streams;
	PoisonEntry *entries = streamext_poison_map(n);
	uint32		 crashes;
	long		 wait;

	if (entries == NULL)
		return 0;
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	poison_entry = streamext_poison_find(w, entries, n);
	if (poison_entry != NULL)
		poison_entry->used = GetCurrentTimestamp();
	LWLockRelease(streamext_shared->registry_lock);
	if (poison_entry == NULL)
		return 0;
	poison_mark = &poison_entry->marks[w->shard.catchup ? 1 : 0];
	if (poison_mark->at_work)
		poison_judge();
	else if (poison_mark->alive)
		poison_judge_barren(poison_mark);
	poison_left = POISON_CAREFUL;
	crashes = Max(poison_mark->crashes, poison_mark->barren);
	wait = crashes < 2 || streamext_poison_barren(poison_mark) >= POISON_CRASHES
			   ? 0
			   : Min(POISON_WAIT_MAX_MS, (long) POISON_WAIT_MS << Min(crashes - 2, 10));
	poison_mark->postmaster = PgStartTime;
	poison_mark->started = GetCurrentTimestamp() + wait * 1000;
	poison_mark->faulted = 0;
	poison_mark->alive = 1;
	for (int i = 0; i < lengthof(faults); i++)
		pqsignal(faults[i], poison_note_fault);
	return wait;
}

const char *
streamext_poison_stops(void)
{
	if (poison_mark == NULL || streamext_poison_barren(poison_mark) < POISON_CRASHES)
		return NULL;
	return psprintf(
		"its worker has crashed %u times in a row with no record at hand, as by what its connections bring; "
		"streamext.resume has that tried again",
		streamext_poison_barren(poison_mark));
}

void
streamext_poison_absolve(void)
{
	for (int role = 0; role < 2 && poison_entry != NULL; role++)
		poison_entry->marks[role].barren = poison_entry->marks[role].faults = 0;
}

/* Changes with whatever is done to the view. In a transaction. */
static uint64
poison_stamp(Oid view)
{
	HeapTuple class = SearchSysCache1(RELOID, ObjectIdGetDatum(view));
	HeapTuple rule = SearchSysCache2(RULERELNAME, ObjectIdGetDatum(view), CStringGetDatum(pstrdup(ViewSelectRuleName)));
	uint64	  stamp = 1;

	if (HeapTupleIsValid(class))
	{
		stamp += HeapTupleHeaderGetRawXmin(class->t_data);
		ReleaseSysCache(class);
	}
	if (HeapTupleIsValid(rule))
	{
		stamp += (uint64) HeapTupleHeaderGetRawXmin(rule->t_data) << 32;
		ReleaseSysCache(rule);
	}
	return stamp;
}

bool
streamext_poison_is_blamed(Worker *w, Oid view)
{
	for (int role = 0; role < 2 && poison_entry != NULL; role++)
		for (uint32 i = 0; i < poison_entry->marks[role].nblamed; i++)
		{
			PoisonBlame *blame = &poison_entry->marks[role].blamed[i];
			uint64		 stamp;

			if (!blame->whole || blame->view != view)
				continue;
			stamp = poison_stamp(view);
			if (blame->stamp == 0)
				blame->stamp = stamp;
			if (blame->stamp == stamp)
				return true;
			blame->whole = false; /* it was changed: another try */
			blame->view = InvalidOid;
			blame->position = -1;
		}
	return false;
}

/* ---------------------------------------------------------------- care */

static uint32
poison_topic(const Worker *w, int index)
{
	return string_hash(w->shard.slot->counted.partitions[index].topic,
					   sizeof(w->shard.slot->counted.partitions[index].topic));
}

/* The suspect range that is of the record's partition; -1: none. */
static int
poison_range(const Worker *w, const StreamRecord *record)
{
	int index = record->partition_index;

	for (uint32 i = 0; i < poison_suspect.nranges; i++)
		if (poison_suspect.ranges[i].partition == w->shard.slot->counted.partitions[index].partition &&
			poison_suspect.ranges[i].topic == poison_topic(w, index))
			return i;
	return -1;
}

static bool
poison_is_suspect(const Worker *w, const StreamRecord *record)
{
	int i = poison_range(w, record);

	if (i < 0)
		return poison_suspect.overflow > 0;
	return record->position >= poison_suspect.ranges[i].first && record->position < poison_suspect.ranges[i].end;
}

int
streamext_poison_most(const Worker *w)
{
	return unlikely(poison_careful) ? 1 : STREAMEXT_BATCH_ROWS;
}

int
streamext_poison_take(const Worker *w)
{
	int n = w->reading.batch->nrecords;
	int i = 0;

	if (likely(poison_suspect.stage == STAGE_NONE) || poison_suspect.retry != 0)
		return n;
	while (i < n && !poison_is_suspect(w, &w->reading.batch->records[i]))
		i++;
	if (i == n)
		return n;
	poison_careful = true;
	return Max(i, 1);
}

/* The batch at hand, taken carefully, is through. */
static void
poison_note_passed(Worker *w)
{
	bool all = poison_suspect.overflow == 0;

	for (int r = 0; r < w->reading.batch->nrecords; r++)
	{
		const StreamRecord *record = &w->reading.batch->records[r];
		int					i = poison_range(w, record);

		if (i >= 0 && record->next_position >= poison_suspect.ranges[i].end)
			poison_passed[i] = true;
	}
	for (uint32 i = 0; i < poison_suspect.nranges; i++)
		all = all && poison_passed[i];
	if (!all && --poison_left > 0)
		return;
	poison_suspect.stage = STAGE_NONE;
	poison_careful = false;
	poison_mark->crashes = 0;
}

/* ---------------------------------------------------------------- marks */

/* Records of the batch that were set aside before; when they are tried again, by that request. */
static void
poison_match(Worker *w, const PoisonMark *mark)
{
	int64 retry = poison_mark->now.retry;

	for (uint32 i = 0; i < mark->nblamed; i++)
	{
		const PoisonBlame *blame = &mark->blamed[i];

		if (retry != 0 && blame->retry != retry)
			continue;
		for (int r = 0; r < w->reading.batch->nrecords && !blame->whole; r++)
		{
			const StreamRecord *record = &w->reading.batch->records[r];

			if (record->position == blame->position &&
				w->shard.slot->counted.partitions[record->partition_index].partition == blame->partition &&
				poison_topic(w, record->partition_index) == blame->topic)
				streamext_batch_set_aside(w->reading.batch, blame->view, r, STREAMEXT_POISON_REASON);
		}
	}
}

/* A request in which two were set aside: there may be many more. */
static void
poison_give_up(Worker *w, const PoisonMark *mark)
{
	int n = 0;

	for (uint32 i = 0; i < mark->nblamed; i++)
		n += mark->blamed[i].retry == mark->now.retry;
	for (int r = 0; r < w->reading.batch->nrecords && n > 1; r++)
		streamext_batch_set_aside(w->reading.batch, InvalidOid, r, STREAMEXT_POISON_REASON);
}

/* The range of a record's partition; a new one begins with the record. NULL: there are too many. */
static PoisonRange *
poison_note_range(Worker *w, PoisonPlace *now, int *range, const StreamRecord *record)
{
	int index = record->partition_index;

	if (index >= POISON_RANGES)
	{
		now->overflow = 1;
		return NULL;
	}
	if (range[index] < 0)
	{
		range[index] = now->nranges;
		now->ranges[now->nranges++] =
			(PoisonRange){ poison_topic(w, index), w->shard.slot->counted.partitions[index].partition, record->position,
						   record->next_position };
	}
	return &now->ranges[range[index]];
}

static void
poison_note(Worker *w, int64 retry)
{
	Batch		*batch = w->reading.batch;
	PoisonPlace *now;
	PoisonRange *at = NULL;
	int			 range[POISON_RANGES]; /* of partitions by their index */
	int			 last = -1;

	if (poison_mark == NULL)
		return;
	now = &poison_mark->now;
	now->stage = STAGE_DECODE;
	now->view = InvalidOid;
	now->nrecords = batch->nrecords;
	now->nranges = now->overflow = 0;
	now->retry = retry;
	memset(range, -1, sizeof(range));
	for (int r = 0; r < batch->nrecords; r++)
	{
		const StreamRecord *record = &batch->records[r];

		/* they come in runs of a partition */
		if (unlikely(record->partition_index != last))
		{
			last = record->partition_index;
			at = poison_note_range(w, now, range, record);
		}
		if (likely(at != NULL))
		{
			at->first = Min(at->first, record->position);
			at->end = Max(at->end, record->next_position);
		}
	}
	batch->set_aside = NIL;
	for (int role = 0; role < 2; role++)
		if (unlikely(poison_entry->marks[role].nblamed > 0))
			poison_match(w, &poison_entry->marks[role]);
	if (retry != 0)
		poison_give_up(w, poison_mark);
	poison_mark->at_work = 1;
	if (unlikely(streamext_fault_point[0] != '\0'))
		for (int r = 0; r < batch->nrecords; r++)
			if (!streamext_batch_is_set_aside(batch, InvalidOid, r))
				streamext_fault_value("record", batch->records[r].position);
}

void
streamext_poison_batch(Worker *w)
{
	poison_note(w, 0);
}

void
streamext_poison_retry(Worker *w, int64 request)
{
	poison_note(w, request);
}

bool
streamext_poison_doubts_retry(int64 request)
{
	return poison_suspect.stage != STAGE_NONE && poison_suspect.retry == request;
}

void
streamext_poison_retried(void)
{
	if (poison_mark == NULL)
		return;
	poison_mark->at_work = 0;
	if (poison_suspect.retry == 0)
		return;
	memset(&poison_suspect, 0, sizeof(poison_suspect));
	poison_mark->crashes = 0;
}

void
streamext_poison_view(Worker *w, const WorkerView *v)
{
	if (poison_mark == NULL)
		return;
	poison_mark->now.counted = v->slot->counted.accepted + v->slot->counted.late > 0;
	poison_mark->now.view = v->viewoid;
	poison_mark->now.stage = STAGE_VIEW;
	if (likely(streamext_fault_point[0] == '\0'))
		return;
	streamext_fault_value("view", v->viewoid);
	for (int r = 0; r < w->reading.batch->nrecords; r++)
		if (!streamext_batch_is_set_aside(w->reading.batch, v->viewoid, r))
			streamext_fault_value("record-in-view", w->reading.batch->records[r].position);
}

void
streamext_poison_rest(Worker *w)
{
	if (poison_mark == NULL)
		return;
	poison_mark->now.view = InvalidOid;
	poison_mark->now.stage = STAGE_REST;
}

void
streamext_poison_starts(Worker *w, Oid view)
{
	if (poison_mark == NULL)
		return;
	poison_mark->now.view = view;
	poison_mark->now.retry = 0;
	poison_mark->now.stage = STAGE_START;
	poison_mark->at_work = 1;
	if (unlikely(streamext_fault_point[0] != '\0'))
		streamext_fault_value("start-view", view);
}

static void
poison_note_reached(const Batch *batch)
{
	uint64 sum = 0;

	for (int i = 0; i < batch->npartitions; i++)
		sum += Max(batch->positions[i], 0);
	if (sum <= poison_mark->reached)
		return;
	poison_mark->reached = sum;
	poison_mark->barren = 0;
}

void
streamext_poison_done(Worker *w, bool published)
{
	if (poison_mark == NULL)
		return;
	poison_mark->at_work = 0;
	if (published)
		poison_note_reached(w->reading.batch);
	if (unlikely(poison_careful) && published)
		poison_note_passed(w);
}

void
streamext_poison_leave(void)
{
	if (poison_mark != NULL)
		poison_mark->at_work = 0;
}

void
streamext_poison_end(void)
{
	streamext_poison_leave();
	if (poison_mark == NULL)
		return;
	poison_forget_lived(poison_mark);
	poison_mark->alive = 0;
}
