/*
 * shared/slots.h
 *		The structs in shared memory: a slot for each stream and shard, a slot for each continuous view and shard.
 *
 * Lock order: registry_lock, then a StreamSlot's journal_lock, lock, buffer_lock, then the chunk allocator's lock.
 * A slot's identity changes only under registry_lock exclusive; who keeps a pointer to a slot beyond holding that lock
 * re-checks the identity. A slot is made of structs by owner; each says who writes it.
 */
#ifndef STREAMEXT_SLOTS_H
#define STREAMEXT_SLOTS_H

#include "base/streamext.h"
#include "base/budget.h"
#include "shared/feed.h"
#include "shared/teller.h"
#include "shared/times.h"
#include "state/buffer.h"
#include "source/connector.h"
#include "port/atomics.h"
#include "shared/gateway_slot.h"
#include "state/pane.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"

typedef enum StreamState
{
	STREAM_STARTING, /* no worker yet (shown as waiting) */
	STREAM_RUNNING,
	STREAM_CATCHING_UP,
	STREAM_PAUSED,
	STREAM_STALLED,	 /* source unreachable */
	STREAM_DIVERGED, /* not the source read before */
	STREAM_FULL,	 /* memory limit */
	STREAM_WAITING,	 /* no worker slot */
	STREAM_STANDBY,	 /* never in a slot: the server is in recovery and has no workers */
	STREAM_FAILED
} StreamState;

/* Stopped until an operator does something. */
#define STREAMEXT_STATE_FAILED(state) ((state) == STREAM_FAILED || (state) == STREAM_DIVERGED)

typedef struct PartitionSlot /* written by the worker under StreamSlot.lock exclusive */
{
	char		topic[256];
	int32		partition;
	int64		position;		/* next to be read; -1: nothing known yet, at the stream's start */
	int64		start_position; /* where reading began, -1 unknown: what `start` meant when the stream was new */
	int64		begin; /* where counting begins since streamext.seek with rebuild; -1: as the option start says */
	int64		high_watermark; /* -1 unknown */
	TimestampTz max_event_time; /* DT_NOBEGIN: none yet */
	TimestampTz last_arrival;	/* by the clock */
	bool		empty;			/* found at the source's end, */
	bool		idle;			/* for idle_timeout, by the source's own word: it does not hold the watermark back */
	TimestampTz empty_since;	/* by the clock */
	uint64		rows;
	uint64		missed; /* records that the source had lost before they were read */
	RecordMark	last;	/* of the last record read */
} PartitionSlot;

/*
 * Which stream and shard it is: shared/stream_slot.c, under registry_lock exclusive.
 * @writers shared/stream_slot.c, sql/catalog.c
 */
typedef struct SlotIdentity
{
	bool in_use;
	Oid	 dboid;
	Oid	 relid;
	int	 shard;
} SlotIdentity;

/* What is asked of the workers and what they have done of it: set by any process, then SetLatch. */
typedef struct StreamRequests
{
	/*
	 * Bumped at commit by DDL on the stream or its views; the worker re-reads the catalogue until seen equals it. 0: only
	 * reserved by a transaction that has not committed; no worker is started for it.
	 */
	pg_atomic_uint32 generation;
	pg_atomic_uint32 generation_seen;

	pg_atomic_uint32 pause;			   /* see streamext_pause_requested */
	pg_atomic_uint32 stops;			   /* how often the worker has stopped the stream itself (streamext_worker_stop) */
	pg_atomic_uint32 catchup_requests; /* bumped when a view begins to wait for the catch-up worker */
	pg_atomic_uint64 flush_requested;  /* tickets */
	pg_atomic_uint64 flush_done;
	pg_atomic_uint64
		settle_requested; /* the same: a checkpoint that was begun after the ticket was drawn is committed; */
	pg_atomic_uint64 settle_done;
	pg_atomic_uint64 windows_requested; /* and of shard 0: windows that are closed by then are given to their targets */
	pg_atomic_uint64 windows_done;
	pg_atomic_uint32
		windows_due; /* of shard 0: a checkpoint was committed since its worker has looked for windows to be written */
	pg_atomic_uint32 outbox_due; /* of shard 0 of a published stream: rows may wait to be sent (sink/delivery.c) */
} StreamRequests;

/*
 * A process at work for the stream: written by itself at start and exit, without a lock.
 * @writers shared/stream_slot.c
 */
typedef struct StreamProcess
{
	pid_t		pid;   /* 0: none */
	Latch	   *latch; /* valid while pid != 0 */
	TimestampTz started_at;
	uint64		restarts;
	bool		failed; /* how the last one ended; of the catch-up worker only */
	BudgetDeaf	deaf;
} StreamProcess;

/*
 * What the stream has counted: what a checkpoint holds of it. By the stream's worker, under the stream's lock exclusive (readers: shared):
 * worker/batch_cycle.c publishes it, durable/checkpoint_restore.c loads it.
 * @writers durable/checkpoint_counts.c, durable/checkpoint_restore.c, shared/stream_slot.c, sql/catalog.c, worker/batch_cycle.c, worker/flow.c,
 * worker/position.c, worker/reading.c, worker/retry.c, worker/seek.c, worker/watermark.c
 */
typedef struct StreamCounted
{
	uint64		   source;	   /* hash of what positions mean (connector, topics, start, shards); 0: none yet */
	PartitionSlot *partitions; /* chunk memory */
	int			   npartitions;
	int			   partitions_capacity;
	uint32		   layout;	  /* bumped when indexes into partitions mean something else, or arrays were replaced */
	int64		   seek;	  /* number of the last request that was done (worker/seek.c) */
	int64		   retry;	  /* the same of retries (worker/retry.c) */
	TimestampTz	   watermark; /* DT_NOBEGIN: none yet */
	uint64		   batches;
	uint64		   rows_in; /* records delivered */
	uint64		   bytes_in;
	uint64		   rejected;
	uint64		   tombstones; /* ignored */
} StreamCounted;

/*
 * What is told of the stream: under the stream's lock exclusive, by streamext_stream_set_state and its like.
 * @writers shared/stream_slot.c, sql/catalog.c
 */
typedef struct StreamStatus
{
	StreamState state;
	TimestampTz since; /* it is; 0: since the slot was made */
	bool
		refused; /* the last error is one of the source's that it will not take back by itself: a right, a name, a login */
	char		last_error[STREAMEXT_MAX_MESSAGE];
	TimestampTz last_error_at;
	double		rate; /* records a second over about the last 10 s */
} StreamStatus;

/*
 * Whether anything comes: worker/watermark.c, under the stream's lock exclusive.
 * @writers shared/stream_slot.c, worker/watermark.c
 */
typedef struct StreamQuiet
{
	bool		idle;		/* there is a worker, and all of its partitions are idle, if it has any; */
	TimestampTz idle_since; /* then: when the last one was found empty, by the clock; DT_NOBEGIN: it has none */
	TimestampTz
		own; /* a part of UNION ALL: the watermark that its own partitions allow; the least of all parts' counts */
	TimestampTz
		silent_since; /* close_idle: all partitions are empty since then, by the clock; DT_NOEND: they are not */
} StreamQuiet;

/*
 * Between the stream's worker and the catch-up worker (worker/handover.c), under the stream's lock exclusive.
 * @writers shared/stream_slot.c, worker/handover.c
 */
typedef struct StreamHandover
{
	TimestampTz hold_until; /* by the catch-up worker: read nothing until then, so that it can draw level; 0: no */
	bool		done;		/* some view is CATCHUP_DONE */
} StreamHandover;

/*
 * Of a view over another one, by the inner view's worker (sink/windows.c) under the stream's lock exclusive: the watermark when all that is in
 * the journal now is read, and under which number that was given (durable/flow_position.h).
 */
typedef struct StreamWindows
{
	TimestampTz mark; /* DT_NOBEGIN: none */
	uint64		number;
} StreamWindows;

/*
 * Of a part of UNION ALL (view/union.h) that reads the journal of a stream: which one, and up to where its checkpoints on disk hold it, so that the
 * journal may be trimmed up to there; (uint64) -1: not known, nothing may go. Read without a lock.
 * @writers shared/stream_slot.c
 */
typedef struct StreamFollow
{
	Oid				 origin; /* InvalidOid: none */
	pg_atomic_uint64 kept;
} StreamFollow;

/*
 * The last checkpoint: durable/checkpoint_write.c, under the stream's lock exclusive.
 * @writers durable/checkpoint_cut.c, durable/checkpoint_restore.c, durable/checkpoint_write.c, sql/catalog.c
 */
typedef struct StreamCheckpoint
{
	int64		seq;	 /* 0: none yet */
	TimestampTz at;		 /* when it was cut */
	uint64		bytes;	 /* written for it */
	double		ms;		 /* the worker's time for it */
	bool		pending; /* something may have changed since it was cut, or the next one is being written */
} StreamCheckpoint;

typedef struct StreamSlot
{
	SlotIdentity   id;
	StreamRequests ask;
	StreamProcess  worker;
	StreamProcess  catchup; /* the catch-up worker (worker/catchup.c) */

	LWLock			 *lock; /* guards partitions, all ViewSlots of this slot and their states, for whole batches */
	LWLock			 *buffer_lock;
	LWLock			 *journal_lock;	   /* local streams: appends */
	pg_atomic_uint32  readers_waiting; /* see streamext_stream_lock_shared */
	ConditionVariable progress;		   /* broadcast when flush_done and its like, state, generation_seen change */
	pg_atomic_uint64  journal_end;	   /* see source/journal/journal.h; (uint64) -1: unknown */

	StreamCounted	 counted;
	StreamStatus	 status;
	StreamQuiet		 quiet;
	StreamHandover	 handover;
	StreamWindows	 windows;
	StreamFollow	 follow;
	StreamCheckpoint checkpoint;
	BatchTimes		 times;

	Oid payer; /* of a view's own stream: the role whose share of places it takes; else InvalidOid. With registry_lock */

	/* worker/refresh.c, when it has looked into the catalogue; the owner also who has made the slot or changed it */
	Oid			  owner;	   /* of the stream; InvalidOid: nobody has looked yet */
	StreamBuffer *buffer;	   /* or NULL */
	int			  buffer_size; /* that it was made for */
	ColumnCounts *columns; /* what they have found since the worker has read the definition; chunk memory, or NULL */
	int			  ncolumns;
} StreamSlot;

typedef enum ViewStatus
{
	VIEW_STARTING, /* not yet picked up by a worker */
	VIEW_RUNNING,
	VIEW_CATCHING_UP,
	VIEW_WAITING, /* for a process that catches up */
	VIEW_PAUSED,  /* by streamext.pause, it alone */
	VIEW_FULL,
	VIEW_FAILED
} ViewStatus;

/*
 * Which process a view's state belongs to: only that one may write ViewSlot's fields, have a fold on it, and follow pointers
 * into it without the lock. Changes under the stream's lock exclusive; worker/handover.c has all transitions.
 */
typedef enum ViewCatchup
{
	CATCHUP_NONE,	/* the stream's worker */
	CATCHUP_WANTED, /* nobody; waits for the catch-up worker, the stream's worker may take it back */
	CATCHUP_ACTIVE, /* the catch-up worker */
	CATCHUP_DONE	/* nobody; waits for the stream's worker, whose positions it has reached */
} ViewCatchup;

typedef struct HistoryTotals
{
	uint64 panes;
	uint64 groups; /* counted once in each pane */
	uint64 bytes;  /* before compression */
} HistoryTotals;

/*
 * Which view and shard it is: shared/view_slot.c, under registry_lock exclusive.
 * @writers shared/view_slot.c
 */
typedef struct ViewIdentity
{
	bool in_use;
	Oid	 dboid;
	Oid	 viewoid;
	int	 stream; /* index into streams[] */
	int	 shard;
	bool reserved; /* its transaction has not committed: no worker may free it */
	bool retained; /* former content of another slot's view, for readers only (sql/rebuild.c) */
	int retained_slot; /* 1 + index of what the view held before it was begun anew; 0: nothing. With the stream's lock too */
} ViewIdentity;

/*
 * Who has the view, and its share: worker/handover.c and worker/alone.c.
 * @writers shared/ownership.c, shared/view_slot.c, worker/alone.c
 */
typedef struct ViewOwner
{
	ViewCatchup catchup;
	TimestampTz started;	 /* of the process or rewind at work that catches up; 0: none */
	uint64		rows;		 /* records read since, that are new to the view */
	Oid			role;		 /* whose share of memory it takes */
	TimestampTz alone_until; /* it goes on by itself, and not less long than that; 0: with the others */
	TimestampTz alone_ended; /* when it came back the last time; 0: never */
	int			alone_times; /* in a row that it had to leave */
	int			alone_most;	 /* records it gets at once */
	TimestampTz taken_at;	 /* by the catch-up worker, the last time */
} ViewOwner;

/*
 * What the view has counted: fold/fold.c publishes it, durable/checkpoint_restore.c loads it.
 * @writers durable/checkpoint_restore.c, durable/checkpoint_write.c, fold/fold.c, fold/session.c, fold/start.c,
 * shared/view_slot.c, worker/flow.c, worker/position.c, worker/seek.c
 */
typedef struct ViewCounted
{
	uint64		  definition; /* hash of the compiled view; 0: no state yet */
	uint64		  layout;	  /* of what readers need to know of it */
	int64		  round;	  /* how often the state was begun anew by streamext.rebuild */
	uint64		  born;		  /* the state's own number: another one whenever a view or shard has begun from nothing */
	bool		  ready;	  /* the state holds all that the last checkpoint does; before, readers take that one */
	ViewState	  state;
	StreamBuffer *rows;		 /* of a derived stream: its last ones; NULL: none */
	int64		 *positions; /* next to be counted, by partition index; chunk memory; -1: from the start */
	int			  npositions;
	uint64		  accepted;
	uint64		  late;
	uint64		  rejected;
	int64		  retry;		  /* number of the last retry_request that the state holds (worker/retry.c) */
	int64		  start_position; /* non-replayable: the journal's end when the view was created */
} ViewCounted;

/*
 * What history holds of it (durable/history.h); set when a state is begun.
 * @writers durable/history_write.c, fold/expire.c, shared/view_slot.c
 */
typedef struct ViewHistory
{
	uint64		  number;  /* what its slices are known by; 0: not looked at yet */
	int			  shard;   /* the number that they have for the shard: two sets take turns when a view is begun anew */
	int64		  sealed;  /* panes up to this one are in history, PG_INT64_MIN: none */
	int64		  covered; /* of these, those that were there when the state was begun: rows are read again */
	TimestampTz	  sealed_until; /* end of pane `sealed`; DT_NOBEGIN: none */
	TimestampTz	  floor;		/* windows that end by then may be gone; DT_NOBEGIN: none. Published before they go */
	HistoryTotals written;		/* since it began */
	HistoryTotals deleted;		/* of these, by retention */
} ViewHistory;

/*
 * streamext.into of a view with windows (sink/windows.c).
 * @writers durable/checkpoint_restore.c, durable/checkpoint_write.c, shared/view_slot.c, sink/windows.c
 */
typedef struct ViewInto
{
	TimestampTz
		settled; /* watermark of the last checkpoint that holds it with all that the stream had read; DT_NOBEGIN: none */
	/* and of one whose windows other views read (view/inner.h): */
	bool		gives;	 /* it is one of these */
	TimestampTz written; /* windows that end by then have been given to all; DT_NOBEGIN: none */
	TimestampTz given;	 /* windows that end by then have been given to some */
} ViewInto;

/*
 * How it fares.
 * @writers shared/view_slot.c
 */
typedef struct ViewHealth
{
	ViewStatus	status;
	char		last_error[STREAMEXT_MAX_MESSAGE];
	uint32		failures; /* how often it was set aside since it has last counted a batch (worker/trouble.c) */
	TimestampTz retry_at; /* of one that was: when it is started again; 0: not by itself */
} ViewHealth;

/*
 * All but the identity by the process that owner.catchup says, under the stream slot's lock exclusive; positions may be moved by the stream's
 * worker.
 */
typedef struct ViewSlot
{
	ViewIdentity id;
	ViewOwner	 owner;
	ViewCounted	 counted;
	ViewHistory	 history;
	ViewInto	 into;
	ViewHealth	 health;
	TimestampTz	 checkpoint_at; /* of the last checkpoint that holds it; 0: none */
} ViewSlot;

typedef struct SharedState
{
	LWLock			*registry_lock;
	pid_t			 launcher_pid;
	Latch			*launcher_latch;
	pg_atomic_uint64 births;	 /* ViewCounted.born, the last one given */
	pg_atomic_uint32 rights;	 /* transactions that may have changed what a view's owner may do; workers look */
	pg_atomic_uint64 test_clock; /* set by streamext.set_clock, as shared/clock.c encodes it; 0: none */

	/* databases to be probed by the launcher, and those that must be left alone for a while; registry_lock */
#define STREAMEXT_MAX_DATABASES 64
	struct DatabaseSlot
	{
		Oid	 dboid; /* 0: free */
		bool probe; /* look what streams there are */
		bool held;	/* and again: transactions held what the probe has left out */
		int	 leave; /* so many DDL commands on the database want it empty of workers */
	} databases[STREAMEXT_MAX_DATABASES];
	bool probe_all; /* too many to note them one by one; registry_lock */

	FeedDirectory feeds; /* of readers of changes */
	GatewaySlot	  gateways[STREAMEXT_MAX_GATEWAYS];
	TellerSlot	  tellers[STREAMEXT_MAX_TELLERS];

	int nstreams; /* = streamext_max_streams */
	int nviews;
	/* No slot from these on is in use, so that whoever looks through them on behalf of a query need not look at all; registry_lock */
	int			streams_end;
	int			views_end;
	StreamSlot *streams;
	ViewSlot   *views;
} SharedState;

extern SharedState *streamext_shared; /* NULL: not preloaded */

extern void streamext_wake_launcher(void);

#endif /* STREAMEXT_SLOTS_H */
