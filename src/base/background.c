/*
 * base/background.c
 *		Background workers started, their end seen, and their interrupts. What the functions promise is in base/background.h.
 */
#include "base/background.h"

#include <sys/resource.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/sinval.h"
#include "utils/guc.h"
#include "utils/memutils.h"

bool
streamext_background_start(const BackgroundStart *start, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;
	MemoryContext	 old;
	bool			 registered;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = start->in_recovery ? BgWorkerStart_ConsistentState : BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	worker.bgw_main_arg = start->arg;
	Assert(start->extra_size <= sizeof(worker.bgw_extra));
	if (start->extra_size > 0)
		memcpy(worker.bgw_extra, start->extra, start->extra_size);
	strlcpy(worker.bgw_library_name, "streamext", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, start->function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, start->name, BGW_MAXLEN);
	strlcpy(worker.bgw_type, start->type, BGW_MAXLEN);

	old = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);
	if (!registered)
		*handle = NULL;
	return registered;
}

bool
streamext_background_ended(BackgroundWorkerHandle **handle)
{
	pid_t pid;

	if (GetBackgroundWorkerPid(*handle, &pid) != BGWH_STOPPED)
		return false;
	pfree(*handle);
	*handle = NULL;
	return true;
}

bool
streamext_background_interrupts(void)
{
	bool reloaded = ConfigReloadPending;

	CHECK_FOR_INTERRUPTS();
	if (reloaded)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	if (catchupInterruptPending)
		ProcessCatchupInterrupt();
	return reloaded;
}

void
streamext_background_bound_memory(int mb)
{
	struct rlimit data;

	if (getrlimit(RLIMIT_DATA, &data) != 0)
		return;
	data.rlim_cur = data.rlim_max;
	if (mb > 0 && (data.rlim_max == RLIM_INFINITY || data.rlim_max / 1024 / 1024 > (rlim_t) mb))
		data.rlim_cur = (rlim_t) mb * 1024 * 1024;
	(void) setrlimit(RLIMIT_DATA, &data);
}

int64
streamext_background_memory(void)
{
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
	struct mallinfo2 heap = mallinfo2();

	return (int64) (heap.uordblks + heap.hblkhd);
#else
	return (int64) MemoryContextMemAllocated(TopMemoryContext, true);
#endif
}
