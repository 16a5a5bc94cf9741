/*-------------------------------------------------------------------------
 *
 * worker/teller.c
 *		The process of a database that tells: it evaluates alerts (sink/alert.h), notifies listeners of views' changes (streamext.notify), and emits
 *		them (sink/emit.h).
 *
 * It is there while the database has such views; the launcher keeps it running. Each view has a time of its own at which it is due, and a
 * transaction of its own: what raises costs nobody else anything, is logged and, of an alert, shown in streamext.alert_views. A view that takes
 * longer than TELLER_LIMIT_MS is cancelled, and is then left alone for a while that doubles each time in a row: it must not take the time of the
 * others. If its code catches that and goes on, the process ends; the next one leaves it alone likewise and begins with the views behind it, so
 * that each has its turn however many there are of that kind. So it goes, too, with a view in which a library ends the process, and with the one that
 * left most in the process's memory (plans, a language's state), of the role whose views did, when all of them together have left too much: of what
 * is kept as long as the process only a new process is free. flush asks for one evaluation of all alerts by a ticket (shared/teller.h).
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "commands/async.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/background.h"
#include "base/budget.h"
#include "base/fault.h"
#include "base/label.h"
#include "base/identity.h"
#include "base/own_table.h"
#include "base/relation.h"
#include "base/transaction.h"
#include "mb/pg_wchar.h"
#include "shared/clock.h"
#include "shared/database.h"
#include "shared/shmem.h"
#include "shared/teller.h"
#include "sink/alert.h"
#include "sink/changes.h"
#include "sink/emit.h"
#include "sink/ledger.h"
#include "view/builtin.h"
#include "view/compile.h"
#include "worker/teller_streams.h"
#include "worker/worker.h"
#include "worker/worker_private.h"

#define TELLER_LIMIT_MS 10000
#define TELLER_SETTLE_MS 10
#define TELLER_HELD_UP_MS 1000
#define TELLER_RETRY_US INT64CONST(5000000) /* after an error */
#define TELLER_DOUBLINGS 6					/* of it, at most, for a view that was cancelled */
#define TELLER_KEPT 2						/* half of streamext.teller_memory may be kept from one view to the next, */
#define TELLER_KEPT_SHORT 8					/* an eighth when one has run out of memory */
#define TELLER_KEPT_MUCH 16					/* this part of it by one run is much */

typedef enum TellerTask
{
	TELLER_ALERT,
	TELLER_NOTIFY, /* listeners are notified of changes */
	TELLER_EMIT	   /* changes go to the view's target */
} TellerTask;

typedef struct TellerView
{
	Oid			view;
	Oid			owner;
	TellerTask	task;
	int64		every;	 /* us */
	TimestampTz due;	 /* by the system's clock */
	char	   *token;	 /* told up to here; NULL: nothing yet */
	char	   *next;	 /* up to here, if the transaction commits */
	List	   *streams; /* that an alert reads, once it was looked for them */
	bool		looked;
	TimestampTz hidden;	   /* since when they could not be found; 0: they could */
	TimestampTz look_at;   /* not before */
	bool		failed;	   /* the last time, or it may have before this process */
	bool		under_way; /* changes may have been put out that have not arrived */
	int			cancelled; /* so many times in a row, or out of memory */
	int64		kept;	   /* bytes that it has left in the process's memory */
} TellerView;

/* What views of a role have left in the process's memory, those too that are gone since: their code's plans are still there. */
typedef struct TellerOwner
{
	Oid	  owner;
	int64 kept;
} TellerOwner;

static TellerSlot	*teller_slot = NULL;
static MemoryContext teller_cxt;   /* of the list of views */
static MemoryContext teller_round; /* reset after each view */
static List			*teller_views = NIL;
static List			*teller_owners = NIL; /* for good */
static TellerView	*teller_at = NULL;	  /* the one at work */
static bool			 teller_gone = false; /* one of them is no more; DROP does not say so */
static int64		 teller_empty = 0;	  /* bytes of memory before the first of them */

/* ---------------------------------------------------------------- what there is to do */

static TellerView *
teller_find(List *views, Oid view, TellerTask task)
{
	ListCell *lc;

	foreach (lc, views)
	{
		TellerView *known = lfirst(lc);

		if (known->view == view && known->task == task)
			return known;
	}
	return NULL;
}

/* It has ended a process before this one. */
static void
teller_leave_alone(TellerView *item, TellerEnd how)
{
	static const char *const reasons[] = {
		[TELLER_CAUGHT] = "it took too long, and its code went on after it was canceled",
		[TELLER_FULL] =
			"its plans and code took more of streamext.teller_memory than others of its role, whose views took most",
		[TELLER_DIED] = "it ended the process of alerts; the server's log says by what",
	};
	const char *why = reasons[how];
	int64		rest = TELLER_RETRY_US << item->cancelled;

	item->due = GetCurrentTimestamp() + rest;
	if (item->view == teller_slot->last)
		ereport(LOG, (errmsg("view %s is left alone for %d s: %s", streamext_relation_label(item->view),
							 (int) (rest / USECS_PER_SEC), why)));
	if (item->task != TELLER_NOTIFY)
		streamext_ledger_note_error(item->task == TELLER_ALERT ? LEDGER_ALERTS : LEDGER_EMITTED, item->view, why);
}

/* Takes what is known of a view from the former list. */
static void
teller_add(List *former, Oid view, TellerTask task, int64 every)
{
	TellerView *known = teller_find(former, view, task);
	TellerView *item = palloc0(sizeof(TellerView));
	TellerEnd	how;

	item->view = view;
	item->owner = streamext_relation_owner(view, true);
	item->task = task;
	item->every = every;
	item->failed = known == NULL || known->failed;
	item->under_way = true;
	item->token = known != NULL && known->token != NULL ? pstrdup(known->token) : NULL;
	if (known != NULL)
		item->due = known->cancelled > 0 ? known->due : Min(known->due, GetCurrentTimestamp() + every);
	item->cancelled =
		known != NULL ? known->cancelled : Min(streamext_teller_ended(teller_slot, view, task, &how), TELLER_DOUBLINGS);
	if (known == NULL && item->cancelled > 0)
		teller_leave_alone(item, how);
	item->kept = known != NULL ? known->kept : 0;
	item->hidden = known != NULL ? known->hidden : 0;
	item->look_at = known != NULL ? known->look_at : 0;
	teller_views = lappend(teller_views, item);
}

/* By their oids, beginning behind the one that ended the process before. */
static List *
teller_turns(List *views)
{
	List	 *first = NIL;
	List	 *then = NIL;
	ListCell *lc;

	list_sort(views, list_oid_cmp);
	foreach (lc, views)
		if (lfirst_oid(lc) > teller_slot->last)
			first = lappend_oid(first, lfirst_oid(lc));
		else
			then = lappend_oid(then, lfirst_oid(lc));
	return list_concat(first, then);
}

/* In a transaction; in the list's context. */
static void
teller_list(List *former)
{
	ListCell *lc;

	foreach (lc, teller_turns(streamext_views_with_options()))
	{
		Oid					  view = lfirst_oid(lc);
		ContinuousViewOptions options = streamext_view_options(view);
		int64				  interval = options.emit_interval > 0 ? options.emit_interval : STREAMEXT_EMIT_INTERVAL;

		if (options.alert)
			teller_add(former, view, TELLER_ALERT, options.every > 0 ? options.every : STREAMEXT_ALERT_EVERY);
		if (options.continuous && options.notify)
			teller_add(former, view, TELLER_NOTIFY, interval);
		if (options.continuous && options.changes_into != NULL)
			teller_add(former, view, TELLER_EMIT, interval);
	}
}

static List *
teller_with_task(TellerTask task)
{
	List	 *views = NIL;
	ListCell *lc;

	foreach (lc, teller_views)
		if (((TellerView *) lfirst(lc))->task == task)
			views = lappend_oid(views, ((TellerView *) lfirst(lc))->view);
	return views;
}

static void
teller_reload(void)
{
	MemoryContext former_cxt = teller_cxt;
	List		 *former = teller_views;

	teller_cxt = AllocSetContextCreate(TopMemoryContext, "streamext teller", ALLOCSET_DEFAULT_SIZES);
	teller_views = NIL;
	StartTransactionCommand();
	InvalidateSystemCaches(); /* the commit that asked for it may not have sent its messages yet */
	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(get_extension_oid("streamext", true)) && OidIsValid(streamext_control_table("alert_state")) &&
		OidIsValid(streamext_control_table("emitted")))
	{
		MemoryContext old = MemoryContextSwitchTo(teller_cxt);

		teller_list(former);
		MemoryContextSwitchTo(old);
		streamext_ledger_forget_others(LEDGER_ALERTS, teller_with_task(TELLER_ALERT));
		streamext_ledger_forget_others(LEDGER_EMITTED, teller_with_task(TELLER_EMIT));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (former_cxt != NULL)
		MemoryContextDelete(former_cxt);
}

/* ---------------------------------------------------------------- telling */

static void
teller_count(void *arg, const Change *change)
{
}

/* {"view", "token", "count"} on the channel schema.view, cut to what a channel's name may be. */
static void
teller_notify(Oid view, const char *token, uint64 count)
{
	char		  *schema = get_namespace_name(get_rel_namespace(view));
	char		  *channel = psprintf("%s.%s", schema, get_rel_name(view));
	StringInfoData payload;

	initStringInfo(&payload);
	appendStringInfoString(&payload, "{\"view\": ");
	escape_json(&payload, channel);
	appendStringInfo(&payload, ", \"token\": \"%s\", \"count\": %llu}", token, (unsigned long long) count);
	channel[pg_mbcliplen(channel, strlen(channel), NAMEDATALEN - 1)] = '\0';
	Async_Notify(channel, payload.data);
}

/* From the commit on. */
static void
teller_stands_at(TellerView *item, const char *newest)
{
	if (item->token == NULL || strcmp(item->token, newest) != 0)
		item->next = MemoryContextStrdup(teller_cxt, newest);
}

/* As the view's owner; where the view is gone, nothing. */
static void
teller_tell_changes(TellerView *item)
{
	ChangesQuestion question = { .idle = true };
	IdentityScope	scope;
	char		   *newest;
	uint64			count;
	Oid				owner = streamext_relation_owner(item->view, true);

	if (!OidIsValid(owner))
		return;
	scope = streamext_identity_enter(owner);
	if (streamext_view_mistrusts_rows(item->view))
		ereport(ERROR, (errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						errmsg("the view is a superuser's and calls a function of an ordinary role"),
						errhint("Give the view to the role that has written it by ALTER VIEW ... OWNER TO.")));
	question.after = item->token;
	question.fresh = GetCurrentTimestamp();
	count = streamext_changes_read(streamext_changes_open(item->view), &question, teller_count, NULL, &newest);
	streamext_identity_leave(scope);
	if (count > 0)
		teller_notify(item->view, newest, count);
	teller_stands_at(item, newest);
}

static void
teller_emit_changes(TellerView *item)
{
	char *newest = streamext_emit_changes(item->view, item->token, &item->under_way);

	if (newest != NULL)
		teller_stands_at(item, newest);
}

static void
teller_step(void *arg)
{
	TellerView *item = arg;

	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(item->view)))
	{
		teller_gone = true;
		return;
	}
	switch (item->task)
	{
		case TELLER_ALERT:
			streamext_alert_evaluate(item->view, streamext_clock_now());
			break;
		case TELLER_NOTIFY:
			teller_tell_changes(item);
			break;
		case TELLER_EMIT:
			teller_emit_changes(item);
			break;
	}
}

static void
teller_note(TellerView *item, const ErrorData *error)
{
	if (error != NULL && !item->failed)
		ereport(LOG, (errmsg(item->task == TELLER_ALERT ? "alert %s could not be evaluated: %s"
														: "changes of view %s could not be told: %s",
							 streamext_relation_label(item->view), streamext_error_text(error))));
	if (item->task != TELLER_NOTIFY && (error != NULL || item->failed))
		streamext_ledger_note_error(item->task == TELLER_ALERT ? LEDGER_ALERTS : LEDGER_EMITTED, item->view,
									error != NULL ? error->message : NULL);
	item->failed = error != NULL;
}

static int
teller_limit_ms(void)
{
	return streamext_fault_is_set("tellers-hurry") ? 1000 : TELLER_LIMIT_MS;
}

/* Lays what one of its views has left to the role's charge. */
static void
teller_charge(Oid owner, int64 kept)
{
	MemoryContext old;
	TellerOwner	 *one;
	ListCell	 *lc;

	foreach (lc, teller_owners)
	{
		one = lfirst(lc);
		if (one->owner == owner)
		{
			one->kept += kept;
			return;
		}
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	one = palloc(sizeof(TellerOwner));
	one->owner = owner;
	one->kept = kept;
	teller_owners = lappend(teller_owners, one);
	MemoryContextSwitchTo(old);
}

/* The one that left most, of the role whose views have: many that leave little, or come and go, are no loss of others'. NULL: that has none any more. */
static TellerView *
teller_keeps_most(void)
{
	const TellerOwner *owner = NULL;
	TellerView		  *most = NULL;
	ListCell		  *lc;

	foreach (lc, teller_owners)
		if (owner == NULL || ((TellerOwner *) lfirst(lc))->kept > owner->kept)
			owner = lfirst(lc);
	foreach (lc, teller_views)
	{
		TellerView *item = lfirst(lc);

		if (owner != NULL && item->owner == owner->owner && (most == NULL || item->kept > most->kept))
			most = item;
	}
	return most;
}

/* Its memory is full of what views have left there. */
static void
teller_end_full(void)
{
	TellerView *most = teller_keeps_most();

	if (most != NULL)
		streamext_teller_set_aside(teller_slot, most->view, most->task, TELLER_FULL);
	ereport(
		LOG,
		(errmsg(
			 "the process of alerts and changes of database %s begins anew: plans and code of its views take too much memory",
			 streamext_database_label(MyDatabaseId)),
		 errhint("Raise streamext.teller_memory (now %d MB) if they are wanted.", streamext_teller_memory_mb)));
	proc_exit(0);
}

typedef enum TellerRun
{
	TELLER_DONE,
	TELLER_FAILED,
	TELLER_OVER, /* it was cancelled for its time */
	TELLER_SHORT /* it ran out of memory */
} TellerRun;

/* What a run has left in memory, which was so full before. */
static void
teller_weigh(TellerView *item, int64 before, TellerRun run)
{
	int64 limit = (int64) streamext_teller_memory_mb * 1024 * 1024;
	int64 now = streamext_background_memory();

	item->kept += now - before;
	teller_charge(item->owner, now - before);
	if (run != TELLER_OVER && (limit == 0 || now - before < limit / TELLER_KEPT_MUCH))
		streamext_teller_forgive(teller_slot, item->view, item->task);
	if (limit > 0 && now - teller_empty >= limit / (run == TELLER_SHORT ? TELLER_KEPT_SHORT : TELLER_KEPT))
		teller_end_full();
}

static TellerRun
teller_result(TellerView *item, ErrorData *error, bool over)
{
	if (error != NULL && over)
		streamext_budget_explain(error, teller_limit_ms());
	if (error != NULL && error->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
		error->message = psprintf("out of memory, streamext.teller_memory is %d MB", streamext_teller_memory_mb);
	item->cancelled = over || (error != NULL && (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
												 error->sqlerrcode == ERRCODE_OUT_OF_MEMORY))
						  ? Min(item->cancelled + 1, TELLER_DOUBLINGS)
						  : 0;
	if (over)
		return TELLER_OVER;
	if (error == NULL)
		return TELLER_DONE;
	return error->sqlerrcode == ERRCODE_OUT_OF_MEMORY ? TELLER_SHORT : TELLER_FAILED;
}

/* One view, in a transaction. False: there was an error, or it took too long. */
static bool
teller_run(TellerView *item)
{
	int64			   before = streamext_background_memory();
	volatile TellerRun run = TELLER_FAILED;
	MemoryContext	   cxt = CurrentMemoryContext;

	item->next = NULL;
	PG_TRY();
	{
		ErrorData *error;
		bool	   over;

		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(teller_round);
		pgstat_report_activity(STATE_RUNNING,
							   item->task == TELLER_ALERT ? "evaluating an alert" : "telling of changes");
		teller_at = item;
		streamext_worker_short_lock_timeout(); /* others' views wait meanwhile */
		streamext_budget_begin_view(item->view, teller_limit_ms());
		error = streamext_try(teller_step, item);
		over = streamext_budget_end();
		teller_at = NULL;
		run = teller_result(item, error, over);
		teller_note(item, error);
		PopActiveSnapshot();
		CommitTransactionCommand();
		if (error == NULL && item->next != NULL)
		{
			if (item->token != NULL)
				pfree(item->token);
			item->token = item->next;
		}
	}
	PG_CATCH();
	{
		ErrorData *error;

		(void) streamext_budget_end();
		teller_at = NULL;
		if (run == TELLER_DONE)
			run = TELLER_FAILED;
		error = streamext_worker_caught(cxt);
		ereport(LOG, (errmsg("view %s could not be told of: %s", streamext_relation_label(item->view),
							 streamext_error_text(error))));
		FreeErrorData(error);
	}
	PG_END_TRY();
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(cxt);
	MemoryContextReset(teller_round);
	teller_weigh(item, before, run);
	return run == TELLER_DONE;
}

/* ---------------------------------------------------------------- what alerts read */

static void
teller_look_step(void *arg)
{
	TellerView	 *item = arg;
	List		 *streams = streamext_teller_streams(item->view);
	MemoryContext old = MemoryContextSwitchTo(teller_cxt);

	item->streams = list_copy(streams);
	MemoryContextSwitchTo(old);
}

/*
 * Which streams an alert reads; false: not now. A transaction may hold the view, or one below it, for as long as it likes, and views may be made such
 * that nothing finds its way through them: it is the view that has to wait then, and no other one.
 */
static bool
teller_look(TellerView *item)
{
	MemoryContext cxt = CurrentMemoryContext;
	ErrorData	 *error;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(teller_round);
	streamext_worker_short_lock_timeout();
	streamext_budget_begin(teller_limit_ms());
	error = streamext_try(teller_look_step, item);
	(void) streamext_budget_end();
	item->looked = error == NULL;
	if (error == NULL)
		item->hidden = 0;
	else if (item->hidden == 0)
		item->hidden = GetCurrentTimestamp();
	else
		teller_note(item, error);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(cxt);
	MemoryContextReset(teller_round);
	return item->looked;
}

static TellerSettled
teller_settled(TellerView *item, TimestampTz now)
{
	if (item->task != TELLER_ALERT)
		return TELLER_SETTLED;
	if (!item->looked && now < item->look_at)
		return TELLER_HELD_UP;
	if (item->looked || teller_look(item))
		return streamext_teller_settled(item->streams);
	/* the commit that made it known holds it for a moment yet */
	if (!TimestampDifferenceExceeds(item->hidden, GetCurrentTimestamp(), TELLER_HELD_UP_MS))
		return TELLER_SETTLING;
	item->look_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), TELLER_HELD_UP_MS);
	return TELLER_HELD_UP;
}

/* ---------------------------------------------------------------- turns */

/* When it is due again. */
static TimestampTz
teller_run_and_wait(TellerView *item, TimestampTz now)
{
	if (teller_run(item) && item->cancelled == 0)
		return now + item->every;
	return GetCurrentTimestamp() + Max(item->every, TELLER_RETRY_US << item->cancelled);
}

/*
 * All that is due; `all`: alerts are, too, but those that were cancelled. When the next one will be; *complete: no alert is left out that
 * somebody may wait for.
 */
static TimestampTz
teller_run_due(bool all, bool *complete)
{
	TimestampTz next = DT_NOEND;
	ListCell   *lc;

	*complete = true;
	foreach (lc, teller_views)
	{
		TellerView	 *item = lfirst(lc);
		TimestampTz	  now = GetCurrentTimestamp();
		TellerSettled settled = teller_settled(item, now);

		if (settled != TELLER_SETTLED)
			item->due = Max(
				item->cancelled > 0 ? item->due : 0,
				TimestampTzPlusMilliseconds(now, settled == TELLER_SETTLING ? TELLER_SETTLE_MS : TELLER_HELD_UP_MS));
		else if (now >= item->due || (all && item->task == TELLER_ALERT && item->cancelled == 0))
			item->due = teller_run_and_wait(item, now);
		*complete = *complete && settled != TELLER_SETTLING;
		next = Min(next, item->due);
	}
	return next;
}

/* ---------------------------------------------------------------- the process */

static void
teller_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	ShutdownRequestPending = true; /* for the loop: a quiet end */
	die(postgres_signal_arg);	   /* for whatever else is running */
	errno = save_errno;
}

static void
teller_at_exit(int code, Datum arg)
{
	LWLockReleaseAll();
	if (teller_at != NULL && !ShutdownRequestPending)
		streamext_teller_set_aside(teller_slot, teller_at->view, teller_at->task,
								   streamext_budget_is_over() ? TELLER_CAUGHT : TELLER_DIED);
	(void) streamext_teller_leave(teller_slot, false, 0);
	streamext_wake_launcher();
}

static bool
teller_is_dismissed(void)
{
	bool leaving;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	leaving = streamext_database_leaving(MyDatabaseId);
	LWLockRelease(streamext_shared->registry_lock);
	return leaving || ShutdownRequestPending;
}

static void
teller_loop(void)
{
	uint32 seen = 0;
	bool   known = false;

	while (!teller_is_dismissed())
	{
		uint64		ticket = pg_atomic_read_u64(&teller_slot->requested);
		uint32		generation = pg_atomic_read_u32(&teller_slot->generation);
		TimestampTz next;
		bool		complete;
		long		timeout;

		ResetLatch(MyLatch);
		if (streamext_background_interrupts() || !known)
			streamext_background_bound_memory(streamext_teller_memory_mb);
		if (!known || generation != seen || teller_gone)
			teller_reload();
		known = true;
		teller_gone = false;
		seen = generation;
		if (teller_views == NIL && streamext_teller_leave(teller_slot, true, generation))
			break;
		next = teller_run_due(ticket > pg_atomic_read_u64(&teller_slot->done), &complete);
		if (complete)
		{
			pg_atomic_write_u64(&teller_slot->done, ticket);
			ConditionVariableBroadcast(&teller_slot->progress);
		}
		pgstat_report_stat(false);
		if (teller_gone || (complete && pg_atomic_read_u64(&teller_slot->requested) != ticket))
			continue;
		timeout = next == DT_NOEND ? 1000 : Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next), 1);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, PG_WAIT_EXTENSION);
	}
}

void
streamext_teller_main(Datum arg)
{
	pqsignal(SIGTERM, teller_sigterm);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(arg), InvalidOid, 0);
	streamext_worker_session();
	/* what was told must not be told again after a crash */
	SetConfigOption("synchronous_commit", "on", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("application_name", "streamext teller", PGC_SUSET, PGC_S_OVERRIDE);
	teller_slot = streamext_teller_claim(MyDatabaseId);
	if (teller_slot == NULL)
		proc_exit(0);
	before_shmem_exit(teller_at_exit, 0);
	streamext_budget_publish(&teller_slot->deaf);
	teller_round = AllocSetContextCreate(TopMemoryContext, "streamext teller round", ALLOCSET_DEFAULT_SIZES);
	streamext_budget_register();
	teller_empty = streamext_background_memory();
	teller_loop();
	proc_exit(0);
}
