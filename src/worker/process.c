/*
 * worker/process.c
 *		What the processes of a stream have in common: signals, session settings, memory, waiting.
 *
 * SIGTERM in the midst of a user's expression ends that expression.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/background.h"
#include "durable/checkpoint.h"
#include "worker/letters_hold.h"
#include "worker/poison.h"
#include "worker/worker.h"
#include "worker/worker_private.h"

static WaitEventSet *process_wait_set = NULL; /* latch and connector; NULL: none yet */
static int			 process_wait_fd = -1;

/* ---- settings ---- */

/* What a database's or role's settings must not change. Also for probes. */
void
streamext_worker_session(void)
{
	static const char *const settings[][2] = {
		{ "search_path", "pg_catalog, pg_temp" },
		{ "statement_timeout", "0" },
		{ "lock_timeout", "0" },
		{ "deadlock_timeout", "10ms" }, /* of two that wait for each other ours gives way: a user's DROP would fail */
		{ "idle_in_transaction_session_timeout", "0" },
#if PG_VERSION_NUM >= 170000
		{ "transaction_timeout", "0" },
#endif
		{ "default_transaction_isolation", "read committed" },
		{ "default_transaction_read_only", "off" },
		{ "session_replication_role", "origin" },
		{ "row_security", "on" },
		{ "synchronous_commit", "off" }, /* what is written, dead letters and history, can be made again */
		{ "application_name", "streamext worker" },
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* ---- start ---- */

static void
process_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	ShutdownRequestPending = true; /* for the loop: a quiet end */
	die(postgres_signal_arg);	   /* for whatever else is running */
	errno = save_errno;
}

/* Another process has crashed, or the server is stopped at once: not by what is at work here. */
static void
process_sigquit(SIGNAL_ARGS)
{
	streamext_poison_end();
	SignalHandlerForCrashExit(postgres_signal_arg);
}

void
streamext_worker_signals(void)
{
	pqsignal(SIGQUIT, process_sigquit);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, process_sigterm);
	BackgroundWorkerUnblockSignals();
	/* A reload since the fork is lost: PostgreSQL has the signal ignored until there is a handler. */
	ConfigReloadPending = true;
}

void
streamext_worker_contexts(Worker *w)
{
	w->shard.cxt = AllocSetContextCreate(TopMemoryContext, "streamext worker", ALLOCSET_DEFAULT_SIZES);
	w->views_cxt = AllocSetContextCreate(w->shard.cxt, "streamext views", ALLOCSET_DEFAULT_SIZES);
	w->round_cxt = AllocSetContextCreate(w->shard.cxt, "streamext worker round", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(w->shard.cxt);
}

bool
streamext_worker_enter(Worker *w, int index, const WorkerRole *role)
{
	ShardIdentity *identity = &w->shard.identity;

	memcpy(identity, MyBgworkerEntry->bgw_extra, sizeof(ShardIdentity));
	if (!streamext_stream_enter(index, identity->dboid, identity->relid, identity->shard, role->catchup))
		return false;
	w->shard.does = &streamext_worker_shard_ops;
	w->shard.index = index;
	w->shard.slot = &streamext_shared->streams[index];
	w->shard.catchup = role->catchup;
	w->role = role;
	return true;
}

/* ---- waiting ---- */

/* The connector's descriptor is closed or another one. */
void
streamext_worker_unwatch(void)
{
	if (process_wait_set != NULL)
		FreeWaitEventSet(process_wait_set);
	process_wait_set = NULL;
	process_wait_fd = -1;
}

static void
process_watch(int fd)
{
	if (process_wait_set != NULL && process_wait_fd == fd)
		return;
	streamext_worker_unwatch();
#if PG_VERSION_NUM >= 170000
	process_wait_set = CreateWaitEventSet(NULL, 3);
#else
	process_wait_set = CreateWaitEventSet(TopMemoryContext, 3);
#endif
	AddWaitEventToSet(process_wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(process_wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(process_wait_set, WL_SOCKET_READABLE, fd, NULL, NULL);
	process_wait_fd = fd;
}

/* Until the latch is set, the descriptor (-1: none) is readable, or the time is over; ms, -1: no limit. */
void
streamext_worker_doze(int fd, long timeout)
{
	WaitEvent event;

	if (fd >= 0)
	{
		process_watch(fd);
		(void) WaitEventSetWait(process_wait_set, timeout, &event, 1, PG_WAIT_EXTENSION);
	}
	else
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (timeout > 0 ? WL_TIMEOUT : 0), timeout,
						 PG_WAIT_EXTENSION);
}

void
streamext_worker_interrupts(Worker *w)
{
	if (ShutdownRequestPending)
	{
		HOLD_INTERRUPTS(); /* die() has asked for the end already */
		if (w != NULL && streamext_letters_settled(w))
			streamext_checkpoint_finish(&w->shard);
		proc_exit(0);
	}
	(void) streamext_background_interrupts();
}

/* A worker that has crashed before does not come back at once. */
void
streamext_worker_calm(Worker *w, long ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	TimestampTz now;

	while ((now = GetCurrentTimestamp()) < until)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, (until - now + 999) / 1000,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		streamext_worker_interrupts(w);
	}
}
