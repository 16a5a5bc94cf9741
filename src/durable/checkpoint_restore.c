/*-------------------------------------------------------------------------
 *
 * durable/checkpoint_restore.c
 *		From the log back to shared memory.
 *
 * A worker that starts reads the last position row, whether it will need it or not: its own checkpoints go on from there. If shared memory
 * still knows the stream (only the worker has died) nothing else is read. After a crash or restart of the server the stream's
 * partitions and counters are restored when its configuration is known, and each view when its fold has been started, if its
 * definition is the checkpoint's.
 *
 * What reads a view's rows is checkpoint_view.c. Readers see none of it before the panes' row counts are set, at the end and
 * under the lock; until then the view's slot is not `ready`, and they read the log themselves (durable/checkpoint_read.c).
 *
 * A checksum that is wrong, or contents that contradict themselves, are reported, and the view is counted anew from the source.
 *
 * One worker at a time: an advisory lock of a class that SQL functions cannot take is held as long as the process lives.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/label.h"
#include "base/clip.h"
#include "base/transaction.h"
#include "durable/checkpoint_seed.h"
#include "durable/checkpoint_state.h"
#include "base/chunk.h"
#include "shared/clock.h"

/* Tells this process's transactions apart. */
#if PG_VERSION_NUM >= 170000
#define LOAD_TRANSACTION (MyProc->vxid.lxid)
#else
#define LOAD_TRANSACTION (MyProc->lxid)
#endif

#define LOAD_LOCK_CLASS 0x5358 /* pg_advisory_lock's are 1 and 2 */

/* ---------------------------------------------------------------- the last checkpoint */

static void
load_lock(Shard *shard)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, shard->identity.dboid, shard->identity.relid, shard->identity.shard, LOAD_LOCK_CLASS);
	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_IN_USE), errmsg("another process still works for stream %s",
															   streamext_relation_label(shard->identity.relid))));
}

/* This transaction's index of the stream's rows. The table's lock is held since open, so rows stay where they are. */
static CheckpointIndex *
load_index(Checkpoint *c, Relation rel, Snapshot snapshot, const Shard *shard)
{
	MemoryContext old;

	if (c->index != NULL && c->index_made == LOAD_TRANSACTION)
		return c->index;
	old = MemoryContextSwitchTo(TopTransactionContext);
	c->index = streamext_checkpoint_log_index(rel, snapshot, shard->identity.relid, shard->identity.shard);
	c->index_made = LOAD_TRANSACTION;
	MemoryContextSwitchTo(old);
	return c->index;
}

/* What a step of loading found to be damaged; any other error is the caller's. */
typedef void (*LoadStep)(Shard *shard, void *arg);

typedef struct LoadGuarded
{
	Shard	*shard;
	LoadStep step;
	void	*arg;
} LoadGuarded;

/* A StreamextStep. */
static void
load_guarded_step(void *arg)
{
	LoadGuarded *guarded = arg;

	guarded->step(guarded->shard, guarded->arg);
}

/* Runs the step in a subtransaction; the message if it found damage, else NULL. */
static char *
load_guarded(Shard *shard, LoadStep step, void *arg)
{
	LoadGuarded guarded = { shard, step, arg };
	ErrorData  *error = streamext_try(load_guarded_step, &guarded);

	if (error != NULL && error->sqlerrcode != ERRCODE_DATA_CORRUPTED)
		ReThrowError(error);
	return error != NULL ? error->message : NULL;
}

static void
load_report(Shard *shard, const char *what, const char *damage)
{
	char message[STREAMEXT_MAX_MESSAGE];

	streamext_clip_format(message, sizeof(message),
						  "the checkpoint of %s is damaged (%s); it is counted anew from what the source has", what,
						  damage);
	ereport(WARNING, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("%s", message)));
	streamext_stream_set_state(shard->slot, shard->slot->status.state, message);
}

static void
load_last(Shard *shard, void *arg)
{
	Checkpoint		*c = shard->checkpoint;
	Relation		 rel = arg;
	Snapshot		 snapshot = RegisterSnapshot(GetLatestSnapshot());
	CheckpointIndex *index = load_index(c, rel, snapshot, shard);
	MemoryContext	 old;

	c->seq = index->n > 0 ? Max(index->refs[index->n - 1].seq, 0) : 0;
	c->incomplete = c->seq > 0;
	old = MemoryContextSwitchTo(c->last_cxt);
	c->last = streamext_checkpoint_log_last(rel, snapshot, index->refs, index->n, &c->seq);
	MemoryContextSwitchTo(old);
	c->incomplete = c->last != NULL ? c->last->seq != c->seq : c->seq > 0;
	UnregisterSnapshot(snapshot);
}

/* So that a checkpoint that would say the same is not taken. */
static void
load_comparable(Checkpoint *c)
{
	CheckpointPosition same;

	initStringInfo(&c->last_encoded);
	if (c->last == NULL)
		return;
	same = *c->last;
	same.head.taken_at = 0;
	same.head.first_part = 0;
	streamext_checkpoint_encode(&c->last_encoded, &same);
}

void
streamext_checkpoint_open(Shard *shard)
{
	Relation	  rel = streamext_checkpoint_log_wait(AccessShareLock);
	MemoryContext old;
	Checkpoint	 *c;
	char		 *damage;

	if (rel == NULL)
		return; /* the extension is being dropped */
	if (shard->checkpoint == NULL)
	{
		load_lock(shard);
		old = MemoryContextSwitchTo(shard->cxt);
		c = palloc0(sizeof(Checkpoint));
		c->cxt = AllocSetContextCreate(shard->cxt, "streamext checkpoint", ALLOCSET_DEFAULT_SIZES);
		c->last_cxt = AllocSetContextCreate(c->cxt, "streamext last checkpoint", ALLOCSET_DEFAULT_SIZES);
		MemoryContextSwitchTo(c->cxt);
		c->confirm = palloc(sizeof(int64) * STREAMEXT_MAX_PARTITIONS);
		c->noted = true;
		shard->checkpoint = c;
		MemoryContextSwitchTo(old);
		damage = load_guarded(shard, load_last, rel);
		if (damage != NULL)
		{
			c->last = NULL;
			c->incomplete = true;
			load_report(shard, "the stream", damage);
		}
		old = MemoryContextSwitchTo(c->cxt);
		load_comparable(c);
		MemoryContextSwitchTo(old);
	}
	table_close(rel, NoLock);
}

bool
streamext_checkpoint_is_known(const Shard *shard)
{
	return shard->checkpoint != NULL && shard->checkpoint->last != NULL;
}

/* ---------------------------------------------------------------- the stream */

static void
load_forget(Checkpoint *c)
{
	c->last = NULL;
	MemoryContextReset(c->last_cxt);
	resetStringInfo(&c->last_encoded);
}

void
streamext_checkpoint_restore_stream(Shard *shard)
{
	Checkpoint		   *c = shard->checkpoint;
	StreamSlot		   *slot = shard->slot;
	CheckpointPosition *last = c != NULL ? c->last : NULL;
	PartitionSlot	   *partitions;
	int					n;
	int					capacity = 16;

	if (last == NULL)
		return;
	/* Of a copied database the positions in journals mean nothing. */
	if (last->head.source != slot->counted.source ||
		(!shard->ops->replayable && last->head.dboid != shard->identity.dboid))
	{
		load_forget(c);
		return;
	}
	n = last->head.npartitions;
	while (capacity < n)
		capacity *= 2;
	partitions = streamext_chunk_alloc(sizeof(PartitionSlot) * capacity, NULL);
	if (partitions == NULL)
	{
		slot->counted.source = 0;
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("no memory to restore the stream's last checkpoint"),
						errhint("Raise streamext.memory_limit and restart the server.")));
	}
	memset(partitions, 0, sizeof(PartitionSlot) * capacity);
	for (int i = 0; i < n; i++)
	{
		streamext_checkpoint_give_partition(&last->partitions[i], &partitions[i]);
		partitions[i].last_arrival = streamext_clock_now();
	}
	streamext_stream_lock_exclusive(slot);
	slot->counted.partitions = partitions;
	slot->counted.partitions_capacity = capacity;
	streamext_checkpoint_give_counts(last, &slot->counted);
	slot->checkpoint.seq = last->seq;
	slot->checkpoint.at = last->head.taken_at;
	LWLockRelease(slot->lock);
}

/* ---------------------------------------------------------------- a view */

/* Index of the checkpoint's partition among the slot's; -1: not there. */
static int
load_partition(const StreamSlot *slot, const CheckpointPartition *partition, int guess)
{
	for (int n = 0; n < slot->counted.npartitions; n++)
	{
		int i = (guess + n) % slot->counted.npartitions;

		if (slot->counted.partitions[i].partition == partition->partition &&
			strcmp(slot->counted.partitions[i].topic, partition->topic) == 0)
			return i;
	}
	return -1;
}

/* The view's positions for the slot's partitions, in chunk memory; NULL: there are partitions that it does not have. */
static int64 *
load_positions(Shard *shard, WorkerView *v, const CheckpointPosition *last, const CheckpointView *from)
{
	StreamSlot *slot = shard->slot;
	int64	   *positions = streamext_chunk_alloc(sizeof(int64) * Max(slot->counted.partitions_capacity, 1), NULL);

	if (positions == NULL)
		streamext_checkpoint_load_full();
	for (int i = 0; i < slot->counted.npartitions; i++)
		positions[i] = -1;
	if (from->head.behind)
		streamext_shard_view_begin_behind(v);
	for (int j = 0; j < last->head.npartitions; j++)
	{
		int i = load_partition(slot, &last->partitions[j], j);

		if (i < 0)
		{
			streamext_chunk_free(positions);
			return NULL;
		}
		positions[i] = from->positions[j];
		if (from->head.behind)
			v->max_event_time[i] = from->max_event_time[j];
	}
	if (from->head.behind)
		v->watermark = from->head.watermark;
	return positions;
}

/* Everything becomes visible. */
static void
load_publish(const ViewLoad *load, StreamSlot *slot, ViewSlot *view, const CheckpointPosition *last, int64 *positions)
{
	const CheckpointViewHead *head = &load->from->head;
	int64					 *former = view->counted.positions;

	streamext_stream_lock_exclusive(slot);
	streamext_checkpoint_load_show(load);
	view->counted.positions = positions;
	view->counted.npositions = slot->counted.npartitions;
	view->counted.accepted = head->accepted;
	view->counted.late = head->late;
	view->counted.rejected = head->rejected;
	view->counted.retry = head->retry;
	view->checkpoint_at = last->head.taken_at;
	view->into.settled = streamext_checkpoint_settled(last, load->from);
	LWLockRelease(slot->lock);
	if (former != NULL)
		streamext_chunk_free(former);
}

/* Nothing of the view in the log is of use any more. */
static void
load_forget_view(Checkpoint *c, CheckpointView *view)
{
	*view = c->last->views[--c->last->head.nviews];
	resetStringInfo(&c->last_encoded); /* it is not what the log has */
}

/* A LoadStep. */
static void
load_view(Shard *shard, void *arg)
{
	ViewLoad *load = arg;

	load->snapshot = RegisterSnapshot(GetLatestSnapshot());
	load->index = load_index(shard->checkpoint, load->rel, load->snapshot, shard);
	streamext_checkpoint_load_view(load);
	UnregisterSnapshot(load->snapshot);
}

static void
load_restore(Shard *shard, WorkerView *v, CheckpointView *from)
{
	const CheckpointPosition *last = shard->checkpoint->last;
	ViewLoad load = { .view = v->view, .from = from, .seq = last->seq, .state = &v->slot->counted.state };
	char	*damage;
	int64	*positions = load_positions(shard, v, last, from);

	if (positions == NULL)
		return;
	load.rel = streamext_checkpoint_log_open(AccessShareLock);
	if (load.rel == NULL)
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("the log of checkpoints is locked")));
	PG_TRY();
	{
		damage = load_guarded(shard, load_view, &load);
	}
	PG_CATCH();
	{
		streamext_chunk_free(positions);
		PG_RE_THROW();
	}
	PG_END_TRY();
	table_close(load.rel, NoLock);
	if (damage == NULL)
	{
		load_publish(&load, shard->slot, v->slot, last, positions);
		return;
	}
	streamext_chunk_free(positions);
	streamext_stream_lock_exclusive(shard->slot);
	streamext_state_reset(&v->slot->counted.state);
	LWLockRelease(shard->slot->lock);
	load_report(shard, psprintf("the continuous view %s", v->label), damage);
	load_forget_view(shard->checkpoint, from);
}

void
streamext_checkpoint_restore_view(Shard *shard, WorkerView *v)
{
	Checkpoint	   *c = shard->checkpoint;
	CheckpointView *from = c != NULL ? streamext_checkpoint_find_view(c->last, v->viewoid) : NULL;
	MemoryContext	cxt;
	MemoryContext	old;

	if (from == NULL)
		return;
	if (v->slot->counted.start_position < 0)
		v->slot->counted.start_position = from->head.start_position;
	if (from->head.definition != v->slot->counted.definition)
	{
		ereport(LOG,
				(errmsg("the continuous view %s is not the one of the last checkpoint and is counted anew", v->label)));
		return;
	}
	cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext checkpoint load", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	load_restore(shard, v, from);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

/* ---------------------------------------------------------------- a view that was counted elsewhere */

CheckpointPosition *
streamext_checkpoint_seed(Shard *shard, Oid viewoid, uint64 definition, int64 round)
{
	Checkpoint			 *c = shard->checkpoint;
	const CheckpointView *from = c != NULL ? streamext_checkpoint_find_view(c->last, viewoid) : NULL;
	CheckpointPosition	 *seed;
	Snapshot			  snapshot;
	Relation			  rel;

	if (c == NULL || round <= 0 || (from != NULL && from->head.round >= round))
		return NULL;
	rel = streamext_checkpoint_log_wait(AccessShareLock);
	if (rel == NULL)
		return NULL;
	/* what this transaction has found in it may be older than the round */
	c->index = NULL;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	seed = streamext_checkpoint_seed_find(rel, snapshot, load_index(c, rel, snapshot, shard), viewoid, round - 1);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	if (seed == NULL || seed->views[0].head.round != round || seed->views[0].head.definition != definition ||
		seed->head.source != shard->slot->counted.source)
		return NULL;
	return seed;
}

/* The positions, which may name partitions that the source has shown to nobody yet, have been made known to the stream. */
void
streamext_checkpoint_restore_seed(Shard *shard, WorkerView *v, const CheckpointPosition *seed)
{
	Checkpoint	   *c = shard->checkpoint;
	CheckpointView *former = streamext_checkpoint_find_view(c->last, v->viewoid);
	ViewLoad load = { .view = v->view, .from = &seed->views[0], .seq = seed->seq, .state = &v->slot->counted.state };
	int64	*positions = load_positions(shard, v, seed, load.from);
	MemoryContext cxt, old;

	if (positions == NULL)
		elog(ERROR, "a partition of the view is not the stream's");
	load.rel = streamext_checkpoint_log_wait(AccessShareLock);
	cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext seed load", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		load_view(shard, &load);
	}
	PG_CATCH();
	{
		streamext_chunk_free(positions);
		PG_RE_THROW();
	}
	PG_END_TRY();
	table_close(load.rel, NoLock);
	/* no checkpoint has anything of it: the next one takes all, whatever the last has of the view */
	load.state->saved = 0;
	if (former != NULL)
		load_forget_view(c, former);
	load_publish(&load, shard->slot, v->slot, seed, positions);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
	streamext_checkpoint_note(shard);
}

int64
streamext_checkpoint_round(const Shard *shard, Oid viewoid, uint64 definition, int64 otherwise)
{
	const Checkpoint	 *c = shard->checkpoint;
	const CheckpointView *from = c != NULL ? streamext_checkpoint_find_view(c->last, viewoid) : NULL;

	return from != NULL && from->head.definition == definition ? from->head.round : otherwise;
}

void
streamext_checkpoint_keep_views(Shard *shard, List *oids)
{
	Checkpoint *c = shard->checkpoint;

	if (c == NULL || c->last == NULL)
		return;
	for (int i = c->last->head.nviews - 1; i >= 0; i--)
		if (!list_member_oid(oids, c->last->views[i].head.viewoid))
			load_forget_view(c, &c->last->views[i]);
}

const char *
streamext_checkpoint_mark(const Shard *shard, uint32 *size)
{
	const CheckpointPosition *last = shard->checkpoint != NULL ? shard->checkpoint->last : NULL;

	*size = last != NULL ? last->mark_size : 0;
	return last != NULL ? last->mark : NULL;
}

/* ---------------------------------------------------------------- where views begin */

int64
streamext_checkpoint_start_position(Shard *shard, Oid viewoid)
{
	Checkpoint		*c = shard->checkpoint;
	Relation		 rel = c != NULL ? streamext_checkpoint_log_open(AccessShareLock) : NULL;
	Snapshot		 snapshot;
	CheckpointIndex *index;
	StartRow		 start = { -1, DT_NOBEGIN };

	if (rel == NULL)
		return -1;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	index = load_index(c, rel, snapshot, shard);
	for (int i = 0; i < index->n; i++)
	{
		CheckpointRow row;
		StartRow	  found;

		if (index->refs[i].kind != CHECKPOINT_START || index->refs[i].view != viewoid)
			continue;
		streamext_checkpoint_log_fetch(rel, snapshot, &index->refs[i], &row);
		if (row.size != sizeof(StartRow))
			continue;
		memcpy(&found, row.data, sizeof(found));
		if (found.at > start.at)
			start = found;
	}
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return start.position;
}

void
streamext_checkpoint_note_start(Oid stream, int shard, Oid viewoid, int64 position)
{
	StartRow		  start = { position, GetCurrentTimestamp() };
	CheckpointRow	  row = { .stream = stream,
							  .view = viewoid,
							  .shard = shard,
							  .kind = CHECKPOINT_START,
							  .size = sizeof(start),
							  .data = (char *) &start };
	CheckpointWriter *writer;
	Relation		  rel = streamext_checkpoint_log_wait(RowExclusiveLock);

	if (rel == NULL)
		return;
	writer = streamext_checkpoint_writer(rel);
	streamext_checkpoint_write(writer, &row);
	streamext_checkpoint_writer_end(writer);
	table_close(rel, NoLock);
}
