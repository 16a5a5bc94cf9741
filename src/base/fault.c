/*-------------------------------------------------------------------------
 *
 * base/fault.c
 *		Test-only fault points.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "base/fault.h"

#define FAULT_TICK_MS 100

char *streamext_fault_point = NULL;

static bool fault_started = false;
static char fault_inherited[NAMEDATALEN];

void
streamext_fault_start(void)
{
	strlcpy(fault_inherited, streamext_fault_point != NULL ? streamext_fault_point : "", sizeof(fault_inherited));
	fault_started = true;
}

bool
streamext_fault_is_set(const char *name)
{
	return streamext_fault_point != NULL && strcmp(streamext_fault_point, name) == 0;
}

static bool
fault_is(const char *name)
{
	return fault_started && strcmp(streamext_fault_point, name) == 0 && strcmp(fault_inherited, name) != 0;
}

static bool
fault_is_waited_at(const char *name)
{
	return strncmp(streamext_fault_point, "wait ", 5) == 0 && strcmp(streamext_fault_point + 5, name) == 0;
}

/* The thread's name tells a test that it is there. */
static void
fault_wait_in_thread(const char *name)
{
	char former[16];

	if (!fault_is_waited_at(name))
		return;
	(void) pthread_getname_np(pthread_self(), former, sizeof(former));
	(void) pthread_setname_np(pthread_self(), "fault wait");
	while (fault_is_waited_at(name))
		pg_usleep(FAULT_TICK_MS * 100);
	(void) pthread_setname_np(pthread_self(), former);
}

void
streamext_fault_reached_in_thread(const char *name)
{
	fault_wait_in_thread(name);
	if (fault_is(name))
		kill(getpid(), SIGKILL);
}

/* Until the setting is another. */
static void
fault_wait(const char *name)
{
	while (fault_is_waited_at(name))
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, FAULT_TICK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
}

void
streamext_fault_reached(const char *name)
{
	fault_wait(name);
	if (!fault_is(name))
		return;
	ereport(LOG, (errmsg("fault point \"%s\" reached", name)));
	kill(getpid(), SIGKILL);
}

void
streamext_fault_value(const char *name, int64 value)
{
	char wanted[2 * NAMEDATALEN];

	snprintf(wanted, sizeof(wanted), "kill %s " INT64_FORMAT, name, value);
	if (strcmp(streamext_fault_point, wanted) != 0)
		return;
	ereport(LOG, (errmsg("fault point \"%s\" reached", wanted)));
	kill(getpid(), SIGKILL);
}
