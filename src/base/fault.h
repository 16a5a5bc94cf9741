/*
 * base/fault.h
 *		Test-only: places where a process kills itself with SIGKILL, as a crash would, or waits.
 *
 * streamext.fault_point (superuser) names one. It works in background workers that were running when it was set by a reload;
 * a process that began with it is not concerned, so that the server comes back after the crash. 'wait NAME' makes every
 * background worker wait there until another reload. 'kill NAME VALUE' kills again and again.
 */
#ifndef STREAMEXT_FAULT_H
#define STREAMEXT_FAULT_H

#include "base/streamext.h"

extern char *streamext_fault_point; /* the setting */

/* For what is only different, and no fault. */
extern bool streamext_fault_is_set(const char *name);
/* At the start of a worker. */
extern void streamext_fault_start(void);

extern void streamext_fault_reached(const char *name);
/* 'kill NAME VALUE' kills each process that comes there with this value, also one that began with the setting. */
extern void streamext_fault_value(const char *name, int64 value);
/* Says nothing; at 'wait NAME' the thread is called "fault wait". */
extern void streamext_fault_reached_in_thread(const char *name);

#define STREAMEXT_FAULT(name)                                                            \
	do                                                                                   \
	{                                                                                    \
		if (unlikely(streamext_fault_point != NULL && streamext_fault_point[0] != '\0')) \
			streamext_fault_reached(name);                                               \
	} while (0)

/* For threads that may not call PostgreSQL. */
#define STREAMEXT_FAULT_THREAD(name)                                                     \
	do                                                                                   \
	{                                                                                    \
		if (unlikely(streamext_fault_point != NULL && streamext_fault_point[0] != '\0')) \
			streamext_fault_reached_in_thread(name);                                     \
	} while (0)

#endif /* STREAMEXT_FAULT_H */
