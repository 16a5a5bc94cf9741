/*-------------------------------------------------------------------------
 *
 * fault.c
 *		Test-only fault points.
 *
 *-------------------------------------------------------------------------
 */
#include "streamext.h"

#include <signal.h>
#include <unistd.h>

#include "fault.h"

char *streamext_fault_point = NULL;

static bool fault_started = false;
static char fault_inherited[NAMEDATALEN];

void
streamext_fault_start(void)
{
	strlcpy(fault_inherited, streamext_fault_point != NULL ? streamext_fault_point : "", sizeof(fault_inherited));
	fault_started = true;
}

static bool
fault_is(const char *name)
{
	return fault_started && strcmp(streamext_fault_point, name) == 0 && strcmp(fault_inherited, name) != 0;
}

void
streamext_fault_reached_in_thread(const char *name)
{
	if (fault_is(name))
		kill(getpid(), SIGKILL);
}

void
streamext_fault_reached(const char *name)
{
	if (!fault_is(name))
		return;
	ereport(LOG, (errmsg("fault point \"%s\" reached", name)));
	kill(getpid(), SIGKILL);
}
