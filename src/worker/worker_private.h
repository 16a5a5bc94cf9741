/*
 * worker/worker_private.h
 *		What the files of the worker process share.
 *
 *	worker/loop.c			the stream's worker: start, loop, sleep, end
 *	worker/process.c		what it has in common with the catch-up worker
 *	worker/chores.c			what it does between two batches
 *	worker/refresh.c	from the catalogue to configuration, connector, views
 *	worker/view_list.c	which views there are
 *	worker/view_start.c	a view's fold, begun; worker/view_end.c ended
 *	worker/rights.c		who may read what is asked again
 *	worker/position.c	partitions, position vectors; worker/attach.c where to read from
 *	worker/reading.c		the batch at hand: polled, cut, given up, passed
 *	worker/view_prepare.c	a view's part of it
 *	worker/batch_cycle.c		one batch: decode, fold, publish, dead letters, buffer
 *	worker/watermark.c	event time's progress, of the stream; worker/view_watermark.c of views that catch up
 *	worker/catchup.c	the other process of a stream, in which new views catch up
 *	worker/handover.c			views that change hands between the two
 *
 * A Worker is made of structs by owner; each says whose it is.
 */
#ifndef STREAMEXT_WORKER_PRIVATE_H
#define STREAMEXT_WORKER_PRIVATE_H

#include "base/streamext.h"
#include "decode/batch.h"
#include "source/connector.h"
#include "decode/decoder.h"
#include "durable/checkpoint_log.h"
#include "fold/fold.h"
#include "shared/shard.h"
#include "shared/shmem.h"
#include "sink/delivery.h"
#include "shared/ownership.h"
#include "portability/instr_time.h"

#define WORKER_RATE_SECONDS 10

/*
 * One configuration, and when the next is looked for: worker/refresh.c.
 * @writers worker/catchup.c, worker/loop.c, worker/refresh.c, worker/rights.c
 */
typedef struct WorkerSetup
{
	MemoryContext cxt;			 /* NULL: none */
	int64		  journal_floor; /* for the connector: JournalPlace.floor */
	char		 *fingerprint;	 /* of all that needs a new connector or decoder when it changes */
	Decoder		 *decoder;
	uint32		  rights_seen; /* SharedState.rights that all views were checked at */
	uint32		  pause_seen;  /* StreamSlot.ask.pause before the last look into the catalogue */
	TimestampTz	  refresh_at;  /* look into the catalogue again (a view was locked); 0: no */
} WorkerSetup;

/*
 * The batch at hand, and whether there may be one.
 * @writers worker/attach.c, worker/batch_cycle.c, worker/catchup.c, worker/loop.c, worker/reading.c, worker/refresh.c,
 * worker/seek.c, worker/trouble.c, worker/view_prepare.c
 */
typedef struct WorkerReading
{
	Batch	   *batch;
	bool		pending; /* polled, not yet published */
	bool		decoded;
	bool		cut;		  /* by on_error 'stop': records behind it were polled with it */
	bool		dropped;	  /* records were polled and thrown away since it was attached */
	bool		undecided;	  /* where partitions start is decided, but a crash may take that back */
	bool		paused;		  /* the connector is */
	bool		stopped;	  /* until resume(): on_error stop, or the connector failed */
	TimestampTz gather_until; /* the last batch was small: poll no sooner */
	bool		full;		  /* memory was full at the last try */
	TimestampTz retry_at;	  /* when full */
	char		full_reason[STREAMEXT_MAX_MESSAGE];
} WorkerReading;

/*
 * worker/trouble.c
 * @writers worker/trouble.c, worker/view_prepare.c
 */
typedef struct WorkerTrouble
{
	int			tries;		   /* that the batch at hand has failed, or batches before it in a row */
	TimestampTz backoff_until; /* it is not tried sooner; 0: it is */
	TimestampTz noted_at;	   /* why, in the catalogue; 0: it is over */
	WorkerView *culprit;	   /* the view at work, while it is */
} WorkerTrouble;

/*
 * The step of a view's that has a limit in time: worker/alone.c.
 * @writers worker/alone.c
 */
typedef struct WorkerAlone
{
	WorkerView *timed; /* NULL: none */
	TimestampTz timed_at;
	TimestampTz turn_until; /* the view that is alone may have to let another one have its turn */
	TimestampTz rest_until; /* nothing is read: the last record took too long */
} WorkerAlone;

/*
 * What the batch at hand has taken so far, in microseconds.
 * @writers worker/batch_cycle.c
 */
typedef struct WorkerTimes
{
	instr_time began; /* its last try */
	int64	   decode;
	int64	   fold;
} WorkerTimes;

/*
 * Tickets that are being served: worker/chores.c.
 * @writers worker/chores.c, worker/loop.c, worker/refresh.c, worker/seek.c
 */
typedef struct WorkerFlush
{
	uint64 ticket; /* 0: none */
	bool   known;  /* targets are */
	int	   npartitions;
	int64 *targets;
	uint64 settle_ticket; /* of StreamRequests.settle_requested: its checkpoint is under way; 0: none */
} WorkerFlush;

/*
 * Rows of tables that ask for something: worker/seek.c, worker/retry.c.
 * @writers worker/retry.c, worker/retry_outcome.c, worker/seek.c
 */
typedef struct WorkerRequests
{
	List		 *seeks; /* still to be done */
	MemoryContext seeks_cxt;
	List		 *retries; /* of int64 *, in retries_cxt: retry_requests that are not in a checkpoint yet */
	MemoryContext retries_cxt;
	bool		  unmarked; /* no letter is marked by a request that is done; else not yet in checkpoint marks_seen */
	int64		  marks_seen;
} WorkerRequests;

/*
 * Dead letters: worker/letters_hold.c, worker/letters_reread.c.
 * @writers worker/handover.c, worker/letters_hold.c, worker/letters_reread.c, worker/position.c, worker/refresh.c
 */
typedef struct WorkerLetters
{
	TimestampTz retry_at;	/* held letters could not be written; 0: they could */
	TimestampTz trouble_at; /* why, in the catalogue; 0: it is over */
	bool		behind;		/* no dead letter is of a record that the stream has still to read */
} WorkerLetters;

/*
 * From the order of the catch-up worker's partitions to the slot's: worker/catchup.c.
 * @writers worker/catchup.c, worker/refresh.c
 */
typedef struct CatchupMap
{
	uint32		generation; /* of the slot, as last read */
	uint32		requests;	/* StreamRequests.catchup_requests, the same */
	uint32		layout;		/* StreamCounted.layout that the map holds for */
	int			nmapped;
	int		   *index;	 /* from the connector's partitions to the slot's */
	TimestampTz hold_at; /* the stream's worker may be held again */
} CatchupMap;

/*
 * Whether anything comes, and who knows: worker/watermark.c.
 * @writers worker/loop.c, worker/watermark.c
 */
typedef struct WorkerWatch
{
	TimestampTz looked_at;	 /* at all partitions; 0: away since */
	TimestampTz asked_at;	 /* for the ends of idle partitions, last */
	bool		ask_later;	 /* it is to be asked again */
	bool		others_busy; /* this worker is idle, another one is not */
	bool		told;		 /* the others know what this one is: */
	bool		told_idle;	 /* idle, or not */
	TimestampTz told_own;	 /* of a part of UNION ALL: StreamQuiet.own when the others were told */
	TimestampTz jumped_from; /* the watermark before a jump that nobody was told of yet; 0: none */
	uint64		jumped_late; /* late rows of all views at that moment */
	char		jumped_by[128];
	TimestampTz close_at; /* when the clock may move the watermark, with close_idle; DT_NOEND: not by itself */
} WorkerWatch;

/*
 * Panes that go: worker/chores.c, worker/catchup.c.
 * @writers worker/catchup.c, worker/chores.c, worker/refresh.c, worker/watermark.c
 */
typedef struct WorkerExpiry
{
	TimestampTz at; /* last */
	bool		due;
} WorkerExpiry;

/*
 * What the connector has said.
 * @writers worker/catchup.c, worker/chores.c, worker/refresh.c
 */
typedef struct WorkerSource
{
	uint64 errors; /* seen */
	bool   outage; /* an event of it is written */
} WorkerSource;

/*
 * How many records come: worker/rate.c.
 * @writers worker/rate.c
 */
typedef struct WorkerRate
{
	uint64 counts[WORKER_RATE_SECONDS];
	int64  second; /* that counts ends with */
} WorkerRate;

/* The process: what lower rooms see of it, and what each file of this one keeps. */
typedef struct Worker
{
	Shard					 shard; /* first: a Shard of a process that runs here is its Worker */
	const struct WorkerRole *role;
	MemoryContext			 round_cxt; /* as long as a round of the loop, or its batch */
	MemoryContext			 views_cxt;

	WorkerSetup	   setup;
	WorkerReading  reading;
	WorkerTrouble  trouble;
	WorkerAlone	   alone;
	WorkerTimes	   times;
	WorkerFlush	   flush;
	WorkerRequests requests;
	WorkerLetters  letters;
	CatchupMap	   map;
	WorkerWatch	   watch;
	WorkerExpiry   expiry;
	WorkerSource   source;
	WorkerRate	   rate;
	uint64		   flow_number; /* of a view over another one: under which it counts (worker/flow.c) */
	Sending		   sending;		/* what waits in the outbox for the stream */
} Worker;

extern const ShardOps streamext_worker_shard_ops;

/* What differs between the two processes of a stream: its worker (worker/loop.c) and its catch-up worker (worker/catchup.c). */
typedef struct WorkerRole
{
	bool catchup;
	/*
	 * Publishes what all views have prepared of the batch at hand, under the stream's exclusive lock. False: something has
	 * changed since, and nothing is published.
	 */
	bool (*publish)(Worker *w, TimestampTz now);
} WorkerRole;

/* What is done between two batches (worker/chores.c). */
typedef struct WorkerChore
{
	void (*run)(Worker *w, TimestampTz now, bool paused);
	/* when it will be due by itself, DT_NOEND: not; `reading`: the worker waits for records. NULL: never by itself */
	TimestampTz (*deadline)(Worker *w, TimestampTz now, bool reading);
} WorkerChore;

/* worker/process.c */
/* Makes the process, a background worker, that of the slot it was launched for; false: it is not to be had. */
extern bool streamext_worker_enter(Worker *w, int index, const WorkerRole *role);
extern void streamext_worker_session(void);
extern void streamext_worker_signals(void);
extern void streamext_worker_contexts(Worker *w);
/* Ends the process if it shall, after a last checkpoint of w (NULL: without one). */
extern void streamext_worker_interrupts(Worker *w);
extern void streamext_worker_doze(int fd, long timeout);
extern void streamext_worker_unwatch(void);			   /* the connector is about to be closed */
extern void streamext_worker_calm(Worker *w, long ms); /* does nothing for so long, but end if it shall */

/* worker/chores.c */
extern void		   streamext_chores_run(Worker *w, bool paused);
extern TimestampTz streamext_chores_deadline(Worker *w, TimestampTz now, bool reading);

/* worker/rate.c */
extern void streamext_worker_count_rate(Worker *w, uint64 n);
extern void streamext_worker_rest_rate(Worker *w, TimestampTz now); /* nothing may arrive any more */

/* worker/refresh.c: false if the stream is gone, its slot removed with it */
extern bool streamext_worker_refresh(Worker *w);
extern bool streamext_worker_refresh_catchup(Worker *w);

/* worker/view_list.c: in a transaction */
extern List *streamext_worker_list_views(Worker *w, const List *slots);
extern List *streamext_worker_list_slots(Worker *w);
extern bool	 streamext_worker_drop_views(Worker *w, List *slots, List *views);
/* The streams that the views of one that is no more read now, in the shard's context. False: a transaction holds a view. */
extern bool streamext_worker_heirs(Worker *w, List **heirs);
/* Outside transactions too: the stream is told to look for views that another one has let go. */
extern void streamext_worker_hand_over(Oid stream);
extern int	streamext_worker_view_slot(Worker *w, Oid viewoid, const char **reason);

/* worker/view_start.c */
extern WorkerView *streamext_worker_add_view(Worker *w, Oid viewoid, ViewSlot *slot, bool paused);
extern bool		   streamext_worker_start_view(Worker *w, WorkerView *v);

/* worker/view_end.c */
extern void streamext_worker_end_fold(WorkerView *v); /* nothing is being copied of it; it may have none */
extern void streamext_worker_fail_view(Worker *w, WorkerView *v, const char *message);
/* The same, for a while. */
extern void streamext_worker_set_aside(Worker *w, WorkerView *v, const ErrorData *error);

/* worker/rights.c */
extern bool streamext_worker_rights_due(const Worker *w); /* somebody's rights may have changed */
extern void streamext_worker_check_rights(Worker *w);

/* worker/fingerprint.c: palloc'd. Holds secrets: stays in this process. */
extern char *streamext_worker_fingerprint(const StreamConfig *config);

/* worker/attach.c */
extern bool streamext_worker_attach(Worker *w);

/* worker/position.c */
extern bool streamext_worker_adopt(Worker *w);
/* The partitions of a view that was counted elsewhere are the stream's, with positions. False: memory is full. */
extern bool	 streamext_worker_expect(Worker *w, const CheckpointPosition *seed);
extern int64 streamext_worker_target(Worker *w, int index);
extern int64 streamext_worker_view_position(Worker *w, WorkerView *v, int index);
extern int64 streamext_worker_lag(Worker *w);
extern bool	 streamext_worker_check_behind(Worker *w, WorkerView *v);
extern bool	 streamext_worker_reached(Worker *w, const int64 *targets, int n);

/* worker/reading.c */
extern bool streamext_worker_poll(Worker *w);
extern void streamext_worker_watch_lag(Worker *w);
extern void streamext_worker_publish_ends(Worker *w);
/* Records were polled into the batch: they are at hand, or as many as are to be taken now. */
extern void streamext_reading_take(Worker *w);
/* Only the first n records of the batch at hand are taken now; the rest is read again. */
extern void streamext_worker_cut(Worker *w, int n);
extern void streamext_worker_drop_batch(Worker *w);
/* The batch counts: positions of the stream and its views move. With the exclusive lock. */
extern void streamext_reading_publish(Worker *w);

/* worker/view_prepare.c */
/* One view's part of the batch; an error that is no row's fault ends the view. False: memory is full. */
extern bool streamext_worker_prepare_view(Worker *w, WorkerView *v);
extern void streamext_worker_abandon_views(Worker *w);
/* Before prepared views are published, by this transaction or right after it. */
extern void streamext_worker_keep_groups(Worker *w);
/* Why the stream is full. In a transaction. */
extern void streamext_worker_note_full(Worker *w, const WorkerView *full);

/* worker/batch_cycle.c */
/* The batch at hand, once, as streamext_worker_try. False: memory is full, it stays at hand. */
extern bool streamext_worker_fold(Worker *w);
/* WorkerRole.publish of the stream's worker */
extern bool streamext_batch_publish(Worker *w, TimestampTz now);
extern void streamext_worker_count_view(Worker *w, WorkerView *v);

/*
 * worker/trouble.c. What run says; after an error that is no row's true, when it has been undone (undo may be NULL) and is to be tried again: backs_off
 * says for how long not.
 */
extern bool streamext_worker_try(Worker *w, bool (*run)(Worker *), void (*undo)(Worker *));
extern bool streamext_worker_backs_off(Worker *w);
/* Until resume(). The reason is the stream's error. */
extern void streamext_worker_stop(Worker *w, const char *reason);
/* The same at its start, if its predecessors have crashed one after the other with nothing at work (worker/poison.h). */
extern void streamext_worker_check_poison(Worker *w);
/* What is internal is laid to a row's charge now (Batch.again). */
extern bool streamext_worker_is_last_try(const Worker *w);
/* An error that may be over by itself. */
extern bool streamext_worker_error_is_passing(const ErrorData *error);
/* When the next of the views that were set aside is to be started again; DT_NOEND: there is none. */
extern TimestampTz streamext_worker_retry_view_at(const Worker *w);

/* worker/watermark.c */
extern void		   streamext_worker_stream_events(Worker *w, TimestampTz now);
extern void		   streamext_worker_advance_watermark(Worker *w);
extern void		   streamext_worker_watch_watermark(Worker *w, bool at_once);
extern void		   streamext_worker_look_away(Worker *w); /* nothing is being read */
extern TimestampTz streamext_worker_watermark_deadline(Worker *w, TimestampTz now);


/* worker/view_watermark.c */
extern void streamext_worker_view_watermark(Worker *w, WorkerView *v);
extern void streamext_worker_view_events(Worker *w, WorkerView *v);

/* worker/handover.c */
extern void		 streamext_handover_request(Worker *w);
extern bool		 streamext_handover_reclaim(StreamSlot *stream, ViewSlot *view, bool alone);
extern bool		 streamext_handover_is_busy(int stream);
extern void		 streamext_handover_alone(Worker *w, WorkerView *v, const char *reason, TimestampTz until);
extern void		 streamext_handover_accept(Worker *w);
extern List		*streamext_handover_choose(Worker *w, List *oids);
extern ViewSlot *streamext_handover_take(Worker *w, Oid viewoid);
extern void		 streamext_handover_release(Worker *w, ViewSlot *view);
extern int64	 streamext_handover_finish(Worker *w);

#endif /* STREAMEXT_WORKER_PRIVATE_H */
