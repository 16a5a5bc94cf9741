/*-------------------------------------------------------------------------
 *
 * sql/flush.c
 *		streamext.flush, and what all functions that control streams need.
 *
 * It sets a request in the slots of a stream, wakes the workers and waits on the slot's condition variable; no lock is held
 * while it waits. A slot may be given up or taken by another stream meanwhile, so its identity is looked at in each round.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/identity.h"
#include "base/own_table.h"
#include "sql/control.h"
#include "sql/lock.h"
#include "source/journal/journal.h"
#include "durable/checkpoint_read.h"
#include "stream/definition.h"
#include "shared/shmem.h"
#include "sink/spool.h"
#include "view/chain.h"
#include "view/compile.h"
#include "view/inner.h"
#include "view/rights.h"

PG_FUNCTION_INFO_V1(streamext_flush);

/* Of libpq/libpq.h, which wants headers of Kerberos that a server's development package does not bring. */
extern bool pq_check_connection(void);

#define CONTROL_TICK_MS 100
#define FLUSH_GRACE_MS 2000	  /* a worker takes a moment to start, to fail for good, to find memory */
#define FLUSH_REFUSED_MS 1500 /* what was made or allowed just now is seen a second later */
#define FLUSH_START_MS 15000  /* the launcher may have all databases to look at first */

/* Who waits for a source that is away would do so for ever when the client that asked is gone: PostgreSQL looks only if told to. */
static void
control_check_client(void)
{
	if (MyProcPort == NULL || whereToSendOutput != DestRemote || pq_check_connection())
		return;
	ClientConnectionLost = true;
	InterruptPending = true;
	CHECK_FOR_INTERRUPTS();
}

static bool
control_is_owner(Oid relid)
{
	return object_ownercheck(RelationRelationId, relid, GetUserId());
}

/* There are no workers on a standby. */
static void
control_check_recovery(void)
{
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
						errmsg("streams and continuous views cannot be controlled during recovery"),
						errhint("Their workers run on the primary server.")));
}

char *
streamext_control_stream(Oid relid, bool owner)
{
	char *name;

	streamext_require_preload();
	control_check_recovery();
	name = streamext_lock_relation(relid, AccessShareLock);
	if (streamext_stream_kind(relid) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a stream", name),
				 streamext_view_options(relid).continuous
					 ? errhint("Name the stream that the view reads: \"%s\".", get_rel_name(streamext_view_root(relid)))
					 : 0));
	if (!owner)
	{
		AclResult allowed = pg_class_aclcheck(relid, GetUserId(), ACL_SELECT);

		if (allowed != ACLCHECK_OK)
			aclcheck_error(allowed, OBJECT_FOREIGN_TABLE, name);
	}
	else if (!control_is_owner(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_FOREIGN_TABLE, name);
	UnlockRelationOid(relid, AccessShareLock);
	return name;
}

Oid
streamext_control_view(Oid relid)
{
	char *name = get_rel_name(relid);
	Oid	  stream;

	if (!streamext_view_options(relid).continuous)
	{
		streamext_lock_check_there(relid, name);
		return InvalidOid;
	}
	control_check_recovery();
	stream = streamext_lock_view(relid);
	streamext_lock_check_there(relid, name);
	if (!control_is_owner(relid))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_VIEW, name);
	return stream;
}

int
streamext_control_find_slots(Oid relid, StreamSlot *slots[STREAMEXT_MAX_SHARDS])
{
	int n = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nstreams && n < STREAMEXT_MAX_SHARDS; i++)
	{
		StreamSlot *slot = &streamext_shared->streams[i];

		if (slot->id.in_use && slot->id.dboid == MyDatabaseId && slot->id.relid == relid &&
			pg_atomic_read_u32(&slot->ask.generation) != 0)
			slots[n++] = slot;
	}
	LWLockRelease(streamext_shared->registry_lock);
	return n;
}

/* Such a stream gets its slots when the transaction commits. */
static bool
control_is_uncommitted(Oid relid)
{
	Relation rel = try_relation_open(relid, AccessShareLock);
	bool	 result = rel != NULL && rel->rd_createSubid != InvalidSubTransactionId;

	if (rel != NULL)
		relation_close(rel, AccessShareLock);
	return result;
}

int
streamext_control_slots(Oid relid, const char *name, StreamSlot *slots[STREAMEXT_MAX_SHARDS])
{
	TimestampTz start = GetCurrentTimestamp();
	int			n;

	if (control_is_uncommitted(relid))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("stream \"%s\" has no worker", name),
						errdetail("This transaction has created it."), errhint("Commit the transaction first.")));
	while ((n = streamext_control_find_slots(relid, slots)) == 0)
	{
		streamext_lock_check_there(relid, name);
		if (TimestampDifferenceExceeds(start, GetCurrentTimestamp(), FLUSH_START_MS))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("stream \"%s\" has no worker", name),
					 errhint("See streamext.max_streams and the server's log.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, CONTROL_TICK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return n;
}

int
streamext_control_lock_slots(Oid relid, char **name, StreamSlot *slots[STREAMEXT_MAX_SHARDS])
{
	*name = streamext_control_stream(relid, true);
	(void) streamext_control_slots(relid, *name, slots);
	(void) streamext_lock_relation(relid, ShareUpdateExclusiveLock);
	*name = streamext_control_stream(relid, true);
	return streamext_control_slots(relid, *name, slots);
}

typedef struct FlushTarget
{
	Oid				  relid;
	const char		 *name;
	int				  shard;
	StreamSlot		 *slot;
	uint32			  generation; /* the worker must have seen this one, */
	uint64			  ticket;	  /* then served this one; 0: not drawn yet */
	pg_atomic_uint64 *done;		  /* where it says so */
	bool			  hidden;	  /* who flushes has no right to know what its errors say */
	StreamState		  state;	  /* as last seen, since when */
	TimestampTz		  since;
	TimestampTz		  blocked_since; /* a view that catches up does not get on; 0: none */
	bool			  refused;		 /* as last seen, since when */
	TimestampTz		  refused_since;
	bool			  told;		/* that the source is away */
	TimestampTz		  deadline; /* DT_NOEND: none */
} FlushTarget;

/* The slot may have been given up, or even to another stream. */
static bool
flush_slot_lost(const FlushTarget *target)
{
	const StreamSlot *slot = target->slot;

	return !slot->id.in_use || slot->id.dboid != MyDatabaseId || slot->id.relid != target->relid ||
		   slot->id.shard != target->shard;
}

static bool
flush_reached(const FlushTarget *target)
{
	if (target->ticket == 0)
		return (int32) (pg_atomic_read_u32(&target->slot->ask.generation_seen) - target->generation) >= 0;
	return pg_atomic_read_u64(target->done) >= target->ticket;
}

pg_noreturn static void
flush_fail(const FlushTarget *target, StreamState state, const char *error)
{
	if (target->hidden && error[0] != '\0')
		error = STREAMEXT_ERROR_HIDDEN;
	if (state == STREAM_WAITING || state == STREAM_STARTING)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("stream \"%s\" is waiting for a worker", target->name),
						error[0] != '\0' ? errdetail_internal("%s", error) : 0,
						errhint("Raise max_worker_processes (now %d) and restart the server.", max_worker_processes)));
	if (state == STREAM_FULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("stream \"%s\" has stopped at the memory limit", target->name),
			 error[0] != '\0' ? errdetail_internal("%s", error) : 0,
			 errhint(
				 "Raise streamext.memory_limit and restart the server, give views a retention, or raise streamext.max_groups by ALTER VIEW.")));
	ereport(
		ERROR,
		(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
		 errmsg(state == STREAM_DIVERGED ? "the source of stream \"%s\" is not the one read before"
										 : "stream \"%s\" has failed",
				target->name),
		 error[0] != '\0' ? errdetail_internal("%s", error) : 0,
		 state == STREAM_DIVERGED
			 ? errhint("streamext.seek takes the source as it is now; streamext.resume looks at it again.")
			 : errhint(
				   "When the cause is mended, streamext.resume goes on; rejected records are in streamext.dead_letters.")));
}

/* What would be waited for comes only when somebody mends it at the source. */
pg_noreturn static void
flush_refused(const FlushTarget *target, const char *error)
{
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("the source of stream \"%s\" does not let it be flushed", target->name),
					errdetail_internal("%s", target->hidden ? STREAMEXT_ERROR_HIDDEN : error),
					errhint("streamext.check says what the source asks for; the stream goes on by itself when that is "
							"mended.")));
}

/* Who waits learns what for, and who does not, because no source means no records, that there is none. */
static void
flush_tell_stalled(FlushTarget *target, const char *error, bool waits)
{
	if (target->told || target->shard != 0)
		return;
	target->told = true;
	if (target->hidden && error[0] != '\0')
		error = STREAMEXT_ERROR_HIDDEN;
	ereport(NOTICE, (errmsg(waits ? "stream \"%s\" is stalled; flush waits for its source" : "stream \"%s\" is stalled",
							target->name),
					 error[0] != '\0' ? errdetail_internal("%s", error) : 0));
}

/*
 * Raises in states that will not pass by themselves, once they have lasted for their grace. A failure from before the worker
 * has seen the newest DDL may be mended by that.
 */
static void
flush_check_state(FlushTarget *target)
{
	StreamSlot *slot = target->slot;
	char		error[STREAMEXT_MAX_MESSAGE];
	StreamState state;
	bool		refused;
	int			grace;

	streamext_stream_lock_shared(slot);
	state = slot->status.state;
	refused = slot->status.refused;
	strlcpy(error, slot->status.last_error, sizeof(error));
	LWLockRelease(slot->lock);

	/* on_error 'stop' leaves both: that is a failure */
	if (streamext_pause_requested(slot) && !STREAMEXT_STATE_FAILED(state))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream \"%s\" is paused", target->name), errhint("Call streamext.resume first.")));
	switch (state)
	{
		case STREAM_FAILED:
		case STREAM_DIVERGED:
			grace = target->ticket != 0 ? 0 : FLUSH_GRACE_MS;
			break;
		case STREAM_WAITING:
		case STREAM_FULL:
			grace = FLUSH_GRACE_MS;
			break;
		case STREAM_STARTING:
			grace = FLUSH_START_MS;
			break;
		default:
			grace = -1;
			break;
	}
	if (refused != target->refused || target->refused_since == 0)
	{
		target->refused = refused;
		target->refused_since = GetCurrentTimestamp();
	}
	if (refused && error[0] != '\0' && target->ticket != 0 &&
		TimestampDifferenceExceeds(target->refused_since, GetCurrentTimestamp(), FLUSH_REFUSED_MS))
		flush_refused(target, error);
	if (state != target->state || target->since == 0)
	{
		target->state = state;
		target->since = GetCurrentTimestamp();
	}
	if (state == STREAM_STALLED && TimestampDifferenceExceeds(target->since, GetCurrentTimestamp(), FLUSH_GRACE_MS))
		flush_tell_stalled(target, error, true);
	if (grace >= 0 && (grace == 0 || TimestampDifferenceExceeds(target->since, GetCurrentTimestamp(), grace)))
		flush_fail(target, state, error);
}

/* A view that catches up in a process of its own may be stuck while the stream runs. Raises once that has lasted for its grace. */
static void
flush_check_catchup(FlushTarget *target)
{
	ViewStatus status = VIEW_RUNNING;
	char	   error[STREAMEXT_MAX_MESSAGE];
	Oid		   viewoid = InvalidOid;
	char	  *name;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	streamext_stream_lock_shared(target->slot);
	for (int i = 0; i < streamext_shared->nviews && !OidIsValid(viewoid); i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];

		if (!view->id.in_use || &streamext_shared->streams[view->id.stream] != target->slot ||
			view->owner.alone_until != 0 || view->owner.catchup == CATCHUP_NONE ||
			(view->health.status != VIEW_WAITING && view->health.status != VIEW_FULL))
			continue;
		viewoid = view->id.viewoid;
		status = view->health.status;
		strlcpy(error, view->health.last_error, sizeof(error));
	}
	LWLockRelease(target->slot->lock);
	LWLockRelease(streamext_shared->registry_lock);
	name = OidIsValid(viewoid) ? get_rel_name(viewoid) : NULL;
	if (name == NULL)
		target->blocked_since = 0;
	else if (target->blocked_since == 0)
		target->blocked_since = GetCurrentTimestamp();
	else if (TimestampDifferenceExceeds(target->blocked_since, GetCurrentTimestamp(), FLUSH_GRACE_MS))
		ereport(
			ERROR,
			(errcode(status == VIEW_FULL ? ERRCODE_OUT_OF_MEMORY : ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg(status == VIEW_FULL ? "continuous view \"%s\" has stopped at the memory limit"
										: "continuous view \"%s\" is waiting for a worker",
					name),
			 error[0] != '\0' ? errdetail_internal("%s", error) : 0,
			 status == VIEW_FULL
				 ? errhint(
					   "Raise streamext.memory_limit and restart the server, give views a retention, or raise streamext.max_groups by ALTER VIEW.")
				 : errhint("Raise max_worker_processes (now %d) and restart the server.", max_worker_processes)));
}

/* What was waited for in vain. */
pg_noreturn static void
flush_time_out(const FlushTarget *target)
{
	StreamSlot *slot = target->slot;
	char		error[STREAMEXT_MAX_MESSAGE];
	StreamState state;
	bool		past;
	int64		behind = 0;

	streamext_stream_lock_shared(slot);
	state = slot->status.state;
	strlcpy(error, slot->status.last_error, sizeof(error));
	past = error[0] == '\0' || (state == STREAM_RUNNING && slot->status.last_error_at < slot->status.since);
	for (int i = 0; i < slot->counted.npartitions; i++)
		behind += Max(slot->counted.partitions[i].high_watermark - Max(slot->counted.partitions[i].position, 0), 0);
	LWLockRelease(slot->lock);
	ereport(
		ERROR,
		(errcode(ERRCODE_QUERY_CANCELED), errmsg("stream \"%s\" was not flushed within the timeout", target->name),
		 past ? errdetail("The stream is %s, " INT64_FORMAT " positions before its source's end.",
						  streamext_stream_state_name(state), behind)
			  : errdetail("The stream is %s: %s", streamext_stream_state_name(state),
						  target->hidden ? STREAMEXT_ERROR_HIDDEN : error),
		 errhint("streamext.check says what a stream has not got; streamext.streams and streamext.continuous_views how "
				 "far they are.")));
}

/* Waits until the worker has seen the generation, or served the ticket. A shard that is not there any more has nothing to wait for. */
static void
flush_wait(FlushTarget *target)
{
	ConditionVariablePrepareToSleep(&target->slot->progress);
	while (!flush_slot_lost(target) && !flush_reached(target))
	{
		flush_check_state(target);
		if (target->ticket != 0)
			flush_check_catchup(target);
		control_check_client();
		if (GetCurrentTimestamp() >= target->deadline)
			flush_time_out(target);
		(void) ConditionVariableTimedSleep(&target->slot->progress, CONTROL_TICK_MS, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/* All that the source held is counted, but not by a view that has failed, and not by paused ones, which are named. */
static void
flush_check_views(FlushTarget *target)
{
	char		error[STREAMEXT_MAX_MESSAGE];
	char		stalled[STREAMEXT_MAX_MESSAGE];
	StreamState state;
	Oid			viewoid = InvalidOid;
	List	   *paused = NIL;
	List	   *alone = NIL;
	ListCell   *lc;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	streamext_stream_lock_shared(target->slot);
	state = target->slot->status.state;
	strlcpy(stalled, target->slot->status.last_error, sizeof(stalled));
	for (int i = 0; i < streamext_shared->nviews && !OidIsValid(viewoid); i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];

		if (view->id.in_use && &streamext_shared->streams[view->id.stream] == target->slot &&
			view->health.status == VIEW_FAILED)
		{
			viewoid = view->id.viewoid;
			strlcpy(error, view->health.last_error, sizeof(error));
		}
		else if (view->id.in_use && &streamext_shared->streams[view->id.stream] == target->slot &&
				 view->health.status == VIEW_PAUSED)
			paused = lappend_oid(paused, view->id.viewoid);
		else if (view->id.in_use && &streamext_shared->streams[view->id.stream] == target->slot && !view->id.retained &&
				 view->owner.alone_until != 0)
			alone = lappend_oid(alone, view->id.viewoid);
	}
	LWLockRelease(target->slot->lock);
	LWLockRelease(streamext_shared->registry_lock);
	if (state == STREAM_STALLED)
		flush_tell_stalled(target, stalled, false);
	foreach (lc, target->shard == 0 ? paused : NIL)
		if (get_rel_name(lfirst_oid(lc)) != NULL)
			ereport(NOTICE,
					(errmsg("continuous view \"%s\" is paused and was not waited for", get_rel_name(lfirst_oid(lc)))));
	foreach (lc, alone)
		if (get_rel_name(lfirst_oid(lc)) != NULL)
			ereport(NOTICE, (errmsg("continuous view \"%s\" goes on by itself and was not waited for",
									get_rel_name(lfirst_oid(lc)))));
	if (OidIsValid(viewoid) && get_rel_name(viewoid) != NULL)
		ereport(
			ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("continuous view \"%s\" has failed", get_rel_name(viewoid)),
			 error[0] != '\0'
				 ? errdetail_internal("%s", streamext_view_explains(viewoid) ? error : STREAMEXT_ERROR_HIDDEN)
				 : 0,
			 errhint(
				 "When the cause is mended it goes on where it stood: at once after a GRANT, else after any ALTER VIEW or CREATE OR REPLACE VIEW.")));
}

/*
 * What a view calls, a trigger of its `into` table say, runs within a batch of its stream's worker, which serves no request until it is
 * through: it would wait for itself, or two workers for each other.
 */
static void
flush_refuse_in_worker(const char *name)
{
	if (streamext_identity_is_own_process())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream \"%s\" cannot be flushed by a stream's worker", name),
						errdetail("What a view calls runs in its stream's worker, for which flush would wait."),
						errhint("Call streamext.flush in a session.")));
}

/* The shards of a stream. n. */
static int
flush_begin(Oid relid, const char *name, TimestampTz deadline, FlushTarget targets[STREAMEXT_MAX_SHARDS])
{
	StreamSlot *slots[STREAMEXT_MAX_SHARDS];
	bool		hidden = pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK;
	int			n = streamext_control_slots(relid, name, slots);

	memset(targets, 0, sizeof(FlushTarget) * STREAMEXT_MAX_SHARDS);
	for (int i = 0; i < n; i++)
	{
		targets[i].relid = relid;
		targets[i].name = name;
		targets[i].slot = slots[i];
		targets[i].shard = slots[i]->id.shard;
		targets[i].generation = pg_atomic_read_u32(&slots[i]->ask.generation);
		targets[i].hidden = hidden;
		targets[i].deadline = deadline;
		streamext_wake_worker(slots[i]);
	}
	return n;
}

static void
flush_draw(FlushTarget *target, pg_atomic_uint64 *requested, pg_atomic_uint64 *done)
{
	target->done = done;
	target->ticket = pg_atomic_add_fetch_u64(requested, 1);
	streamext_wake_worker(target->slot);
}

/*
 * Windows that are closed by what is counted go to the targets of streamext.into: the worker of shard 0 gives them, behind a checkpoint of
 * each shard.
 */
static void
flush_windows(FlushTarget *targets, int n)
{
	for (int i = 0; i < n; i++)
		flush_draw(&targets[i], &targets[i].slot->ask.settle_requested, &targets[i].slot->ask.settle_done);
	for (int i = 0; i < n; i++)
		flush_wait(&targets[i]);
	for (int i = 0; i < n; i++)
		if (targets[i].shard == 0)
		{
			flush_draw(&targets[i], &targets[i].slot->ask.windows_requested, &targets[i].slot->ask.windows_done);
			flush_wait(&targets[i]);
		}
}

/* Views over views of this stream have said which windows they want. */
static void
flush_followers(const List *next, TimestampTz deadline)
{
	ListCell *lc;

	foreach (lc, next)
	{
		FlushTarget targets[STREAMEXT_MAX_SHARDS];
		char	   *name = get_rel_name(lfirst_oid(lc));

		if (name == NULL || get_rel_relkind(lfirst_oid(lc)) != RELKIND_VIEW)
			continue;
		for (int i = flush_begin(lfirst_oid(lc), name, deadline, targets) - 1; i >= 0; i--)
			flush_wait(&targets[i]);
	}
}

/*
 * Returns when everything that the source holds now is in every view. A ticket is drawn only after the worker knows all
 * views, else one made just before could be left out. Returns the streams into which views of this one put rows.
 */
static List *
flush_stream(Oid relid, const char *name, TimestampTz deadline)
{
	FlushTarget targets[STREAMEXT_MAX_SHARDS];
	int			n = flush_begin(relid, name, deadline, targets);
	bool		into;
	List	   *next;

	for (int i = 0; i < n; i++)
		flush_wait(&targets[i]);
	for (int i = 0; i < n; i++)
		flush_draw(&targets[i], &targets[i].slot->ask.flush_requested, &targets[i].slot->ask.flush_done);
	for (int i = 0; i < n; i++)
		flush_wait(&targets[i]);
	next = streamext_chain_targets(relid, &into);
	flush_followers(next, deadline);
	if (into)
		flush_windows(targets, n);
	for (int i = 0; i < n; i++)
		if (!flush_slot_lost(&targets[i]))
			flush_check_views(&targets[i]);
		else
			streamext_lock_check_there(relid, name);
	return next;
}

/* NULL, and no argument at all: for ever. */
static TimestampTz
flush_deadline(FunctionCallInfo fcinfo)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz deadline;

	if (PG_NARGS() < 2 || PG_ARGISNULL(1))
		return DT_NOEND;
	deadline =
		DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(now), PG_GETARG_DATUM(1)));
	if (deadline < now)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("the timeout of streamext.flush must not be negative")));
	return deadline;
}

static bool
flush_has_alerts(void)
{
	ListCell *lc;

	foreach (lc, streamext_views_with_options())
		if (streamext_view_options(lfirst_oid(lc)).alert)
			return true;
	return false;
}

Datum
streamext_flush(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = flush_deadline(fcinfo);
	Oid			relid = PG_ARGISNULL(0) ? InvalidOid : PG_GETARG_OID(0);
	char	   *name;
	List	   *next;
	ListCell   *lc;

	if (!OidIsValid(relid))
		PG_RETURN_NULL();
	name = streamext_control_stream(relid, false);
	flush_refuse_in_worker(name);
	if (streamext_spool_has(relid))
		ereport(NOTICE, (errmsg("rows that this transaction has inserted into stream \"%s\" are not waited for", name),
						 errdetail("They enter the stream when the transaction commits."),
						 errhint("Commit first, then call streamext.flush.")));
	next = flush_stream(relid, name, deadline);
	foreach (lc, next) /* grows: one that two lead to is flushed behind both */
	{
		char			   *follower = get_rel_name(lfirst_oid(lc));
		const ConnectorOps *connector = streamext_stream_kind(lfirst_oid(lc));

		/* a view over another one has a stream of its own */
		if (follower != NULL &&
			(connector != NULL ? !connector->published : streamext_view_options(lfirst_oid(lc)).continuous))
			next = list_concat(next, flush_stream(lfirst_oid(lc), follower, deadline));
	}
	streamext_teller_wait(flush_has_alerts);
	PG_RETURN_VOID();
}
