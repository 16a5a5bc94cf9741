/*
 * base/streamext.h
 *		What every file needs: PostgreSQL's base headers, the settings, and the limits.
 *
 * Units: times are TimestampTz or int64 microseconds unless a name says otherwise; sizes are bytes.
 */
#ifndef STREAMEXT_H
#define STREAMEXT_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"

#include "base/compat.h"

/* Limits; error messages print these constants. */
#define STREAMEXT_BATCH_ROWS 4096				/* records a batch at most */
#define STREAMEXT_MAX_KEYS 32					/* GROUP BY expressions of a view */
#define STREAMEXT_MAX_SETS 128					/* GROUPING SETS of a view */
#define STREAMEXT_MAX_AGGREGATES 128			/* distinct aggregates of a view */
#define STREAMEXT_MAX_PANES 10000				/* panes a window */
#define STREAMEXT_MAX_PARTITIONS 1024			/* partitions of a stream and shard */
#define STREAMEXT_MAX_SHARDS 16					/* option workers */
#define STREAMEXT_MAX_RECORD (16 * 1024 * 1024) /* bytes of a payload */
#define STREAMEXT_MAX_DEPTH 64					/* nesting of a JSON payload */
#define STREAMEXT_MAX_REASON 1024				/* bytes of a dead letter's reason */
#define STREAMEXT_MAX_MESSAGE 256				/* bytes of an error text kept in shared memory */

/* Settings (base/settings.c). */
extern int streamext_memory_limit_mb; /* streamext.memory_limit, postmaster */
extern int streamext_max_streams;	  /* streamext.max_streams: streams x shards, postmaster */
extern int streamext_max_views;		  /* streamext.max_views: views x shards, postmaster */
extern int streamext_late_row_limit;  /* streamext.late_row_limit: rows kept a stream, sighup */
extern int streamext_outbox_limit;	  /* streamext.outbox_limit: rows that wait to be sent, a target, sighup */
extern int
	streamext_delivery_timeout; /* streamext.delivery_timeout: s that a set of rows may take to be sent to Kafka, sighup */
extern int streamext_dead_letter_limit; /* streamext.dead_letter_limit: rows kept a stream, sighup */

extern int streamext_journal_limit_mb;	  /* streamext.journal_limit: see source/journal/journal.h, sighup; 0: none */
extern int streamext_checkpoint_interval; /* streamext.checkpoint_interval, ms, sighup */
extern int streamext_view_time_limit_ms;  /* streamext.view_time_limit, sighup; 0: none */
extern int streamext_owner_memory_share;  /* streamext.owner_memory_share: percent, sighup */
extern int streamext_owner_stream_share;  /* streamext.owner_stream_share: percent, sighup */
extern int streamext_owner_streams; /* streamext.owner_streams: places of streams of one owner, sighup; 0: no limit */
extern int streamext_owner_views;	/* streamext.owner_views: the same of continuous views */
extern int streamext_teller_memory_mb; /* streamext.teller_memory: sighup; 0: no limit */
extern int streamext_owner_workers;	   /* streamext.owner_workers: of the streams of one owner, sighup; 0: no limit */
extern int streamext_catchup_min_rows; /* streamext.catchup_min_rows: see worker/catchup.c, sighup */

/* Raises 55000 with a hint about shared_preload_libraries unless that loaded the library. */
extern void streamext_require_preload(void);

#endif /* STREAMEXT_H */
