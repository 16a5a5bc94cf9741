/*
 * base/background.h
 *		Background workers of the extension that are started when they are wanted. None is restarted by the postmaster: who started one is told
 *		when it ends, by its latch, and decides.
 */
#ifndef STREAMEXT_BACKGROUND_H
#define STREAMEXT_BACKGROUND_H

#include "base/streamext.h"
#include "postmaster/bgworker.h"

typedef struct BackgroundStart
{
	const char *name;	  /* of the process, below BGW_MAXLEN bytes */
	const char *type;	  /* pg_stat_activity.backend_type */
	const char *function; /* its main, of this library */
	Datum		arg;
	const void *extra; /* bgw_extra; NULL: none */
	Size		extra_size;
	bool		in_recovery; /* on a standby too */
} BackgroundStart;

/* False: there is no free slot, and *handle is NULL. The handle lives until streamext_background_ended, or pfree. */
extern bool streamext_background_start(const BackgroundStart *start, BackgroundWorkerHandle **handle);

/* Whether the process is gone; then *handle is freed and NULL. */
extern bool streamext_background_ended(BackgroundWorkerHandle **handle);

/* What each round of such a process begins with: interrupts, the configuration, others' invalidations. Whether the configuration was read again. */
extern bool streamext_background_interrupts(void);

/*
 * Beyond so many MB of its own memory the process raises "out of memory", where the system would end all of the server's processes; 0: no limit. For those
 * without threads of a library, which would end with it.
 */
extern void streamext_background_bound_memory(int mb);
/* Bytes that the process has allocated and not freed: memory contexts, and with glibc also libraries' (compiled code, other languages' state). */
extern int64 streamext_background_memory(void);

#endif /* STREAMEXT_BACKGROUND_H */
