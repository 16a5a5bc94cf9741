/*
 * worker/worker_private.h
 *		What the files of the worker process share.
 *
 *	worker/loop.c			the process: start, loop, wait, flush, state, end
 *	worker/refresh.c	from the catalogue to configuration, connector, views
 *	worker/position.c	partitions, position vectors, where to read from
 *	worker/batch_cycle.c		one batch: decode, fold, publish, dead letters, buffer
 *	worker/watermark.c	event time's progress, of the stream and of views that catch up
 *	worker/catchup.c	the other process of a stream, in which new views catch up
 *	worker/handover.c			views that change hands between the two
 */
#ifndef STREAMEXT_WORKER_PRIVATE_H
#define STREAMEXT_WORKER_PRIVATE_H

#include "base/streamext.h"
#include "decode/batch.h"
#include "source/connector.h"
#include "decode/decoder.h"
#include "fold/fold.h"
#include "shared/shmem.h"
#include "sink/delivery.h"

/* Whose worker it is, as the launcher meant it (bgw_extra). */
typedef struct WorkerIdentity
{
	Oid dboid;
	Oid relid;
	int shard;
} WorkerIdentity;

typedef struct WorkerView
{
	Oid			  viewoid;
	ViewSlot	 *slot;
	MemoryContext cxt;			   /* of the compiled view and the fold */
	ViewFold	 *fold;			   /* NULL: failed */
	bool		  prepared;		   /* of the batch at hand */
	bool		  too_many_groups; /* why it was not */
	bool		  over_share;	   /* the same: its owner's views have too much memory */
	bool		  paused;		   /* by streamext.pause: it has its fold, for checkpoints, but reads nothing */

	struct Sink *sink; /* of its closed windows; NULL: not needed yet */

	TimestampTz retired_at; /* its former content; 0: nothing of that is left in history */

	/* behind: it reads what the stream has read before, by a watermark of its own */
	bool		 behind;
	TimestampTz *max_event_time; /* [STREAMEXT_MAX_PARTITIONS]; NULL until needed */
	TimestampTz	 watermark;
} WorkerView;

/* For messages: the name in quotes, or the OID of one that is gone. In a transaction; palloc'd. */
extern const char *streamext_worker_view_label(const WorkerView *v);

#define WORKER_RATE_SECONDS 10

typedef struct Worker
{
	WorkerIdentity identity;
	int			   index;
	bool		   catchup; /* this is the catch-up worker: see worker/catchup.c */
	StreamSlot	  *slot;
	MemoryContext  cxt;		  /* as long as the process */
	MemoryContext  round_cxt; /* as long as a round of the loop, or its batch */

	/* one configuration */
	MemoryContext		config_cxt;	   /* NULL: none */
	int64				journal_floor; /* for the connector: JournalPlace.floor */
	char			   *fingerprint;   /* of all that needs a new connector or decoder when it changes */
	StreamConfig	   *config;
	const ConnectorOps *ops;
	Connector		   *connector; /* NULL: not open */
	Decoder			   *decoder;
	Batch			   *batch;
	int					npartitions; /* of the connector's, known to the slot */
	bool				attached;	 /* all positions are set and the connector reads from the right place */
	bool				dropped;	 /* records were polled and thrown away since */
	bool				undecided;	 /* where partitions start is decided, but a crash may take that back */
	bool				connector_paused;
	List			   *seeks; /* still to be done (worker/seek.c) */
	MemoryContext		seeks_cxt;
	List *retries; /* of int64 *, in retries_cxt: retry_requests that are not in a checkpoint yet (worker/retry.c) */
	MemoryContext retries_cxt;
	bool
		unmarked; /* no letter is marked by a request that is done (worker/retry.c); else not yet in checkpoint marks_seen */
	int64		marks_seen;
	TimestampTz letters_retry_at; /* held letters could not be written (worker/letters_hold.c); 0: they could */
	bool		letters_behind;	  /* no dead letter is of a record that the stream has still to read */
	uint64		connector_errors; /* seen */
	bool		outage;			  /* an event of it is written */
	char		full_reason[STREAMEXT_MAX_MESSAGE];
	bool		confirmed; /* the connector was told of a checkpoint */

	MemoryContext views_cxt;
	List		 *views; /* of WorkerView; in the stream's worker those in other hands too, without a fold */

	/* catch-up worker */
	uint32		generation; /* of the slot, as last read */
	uint32		requests;	/* StreamSlot.ask.catchup_requests, the same */
	uint32		layout;		/* StreamSlot.counted.layout that the map holds for */
	int			nmapped;
	int		   *map;		/* from the connector's partitions to the slot's */
	TimestampTz hold_at;	/* the stream's worker may be held again */
	TimestampTz turn_until; /* the view that is alone may have to let another one have its turn */
	TimestampTz rest_until; /* nothing is read: the last record took too long */

	/* the step of a view's that has a limit in time (worker/alone.c) */
	WorkerView *timed; /* NULL: none */
	TimestampTz timed_at;

	/* the batch at hand */
	bool		pending; /* polled, not yet published */
	bool		decoded;
	bool		cut;		  /* by on_error 'stop': records behind it were polled with it */
	TimestampTz gather_until; /* the last batch was small: poll no sooner */
	bool		full;		  /* memory was full at the last try */
	TimestampTz retry_at;	  /* when full */

	int			tries;		   /* that the batch at hand has failed, or batches before it in a row (worker/trouble.c) */
	TimestampTz backoff_until; /* it is not tried sooner; 0: it is */
	WorkerView *culprit;	   /* the view at work, while it is */

	bool		stopped;	 /* until resume(): on_error stop, or the connector failed */
	uint32		rights_seen; /* SharedState.rights that all views were checked at */
	uint32		pause_seen;	 /* StreamSlot.ask.pause before the last look into the catalogue */
	TimestampTz refresh_at;	 /* look into the catalogue again (a view was locked); 0: no */

	uint64 flush_ticket; /* being served; 0: none */
	bool   flush_known;	 /* targets are */
	int	   flush_partitions;
	int64 *flush_targets;
	uint64 settle_ticket; /* the same of StreamSlot.ask.settle_requested: its checkpoint is under way */

	/* worker/watermark.c */
	TimestampTz looked_at, /* at all partitions; 0: away since */
		asked_at;		   /* for the ends of idle partitions, last */
	bool ask_later,		   /* it is to be asked again */
		others_busy,	   /* this worker is idle, another one is not */
		told, told_idle;   /* the others know that */
	TimestampTz close_at;  /* when the clock may move the watermark, with close_idle; DT_NOEND: not by itself */

	TimestampTz		   expired_at;
	bool			   expire_due;
	struct Checkpoint *checkpoint; /* NULL: not looked for yet, or no extension any more */

	TimestampTz windows_retry_at; /* windows could not be written into their tables */

	Sending sending; /* what waits in the outbox for the stream */

	uint64 rate_counts[WORKER_RATE_SECONDS];
	int64  rate_second; /* that rate_counts ends with */
} Worker;

/* worker/loop.c */
extern void streamext_worker_session(void);
extern void streamext_worker_signals(void);
extern void streamext_worker_interrupts(void);
extern void streamext_worker_doze(int fd, long timeout);
extern void streamext_worker_contexts(Worker *w);
extern void streamext_worker_unwatch(void); /* the connector is about to be closed */
extern void streamext_worker_stop(Worker *w, const char *reason);
extern void streamext_worker_count_rate(Worker *w, uint64 n);
extern void streamext_worker_calm(long ms); /* does nothing for so long, but end if it shall */

/* worker/refresh.c: false if the stream is gone, its slot removed with it */
extern bool streamext_worker_refresh(Worker *w);
extern bool streamext_worker_refresh_catchup(Worker *w);
extern bool streamext_worker_start_view(Worker *w, WorkerView *v);
extern bool streamext_worker_rights_due(const Worker *w); /* somebody's rights may have changed */
extern void streamext_worker_check_rights(Worker *w);
extern void streamext_worker_fail_view(Worker *w, WorkerView *v, const char *message);

/* worker/position.c */
extern bool	 streamext_worker_attach(Worker *w);
extern bool	 streamext_worker_adopt(Worker *w);
extern int64 streamext_worker_target(Worker *w, int index);
extern int64 streamext_worker_view_position(Worker *w, WorkerView *v, int index);
extern int64 streamext_worker_lag(Worker *w);
extern bool	 streamext_worker_check_behind(Worker *w, WorkerView *v);
extern void	 streamext_worker_view_begin_behind(WorkerView *v);
extern bool	 streamext_worker_reached(Worker *w, const int64 *targets, int n);

/* worker/batch_cycle.c */
extern bool streamext_worker_poll(Worker *w);
extern void streamext_worker_watch_lag(Worker *w);
extern void streamext_worker_publish_ends(Worker *w);
extern bool streamext_worker_fold(Worker *w);
extern void streamext_worker_drop_batch(Worker *w);
/* Only the first n records of the batch at hand are taken now; the rest is read again. */
extern void streamext_worker_cut(Worker *w, int n);
extern void streamext_worker_count_view(Worker *w, WorkerView *v);
/* One view's part of the batch; an error that is no row's fault ends the view. False: memory is full. */
extern bool streamext_worker_prepare_view(Worker *w, WorkerView *v);
extern void streamext_worker_abandon_views(Worker *w);
/* Why the stream is full. In a transaction. */
extern void streamext_worker_note_full(Worker *w, const WorkerView *full);

/*
 * worker/trouble.c. As streamext_worker_fold, but an error that is no row's leaves the batch at hand, to be tried again: true, and backs_off says for
 * how long not.
 */
extern bool streamext_worker_try_fold(Worker *w);
extern bool streamext_worker_backs_off(Worker *w);
/* The same for dead letters that are to be tried again: streamext_retries_run. */
extern bool streamext_worker_try_retries(Worker *w);
/* What is internal is laid to a row's charge now (Batch.again). */
extern bool streamext_worker_is_last_try(const Worker *w);
/* An error that may be over by itself. */
extern bool streamext_worker_error_is_passing(const ErrorData *error);
/* As streamext_worker_fail_view, for a while. */
extern void streamext_worker_set_aside(Worker *w, WorkerView *v, const ErrorData *error);
/* When the next of the views that were set aside is to be started again; DT_NOEND: there is none. */
extern TimestampTz streamext_worker_retry_view_at(const Worker *w);

/* worker/watermark.c */
extern void		   streamext_worker_view_watermark(Worker *w, WorkerView *v);
extern void		   streamext_worker_view_events(Worker *w, WorkerView *v);
extern void		   streamext_worker_stream_events(Worker *w, TimestampTz now);
extern void		   streamext_worker_advance_watermark(Worker *w);
extern void		   streamext_worker_watch_watermark(Worker *w, bool at_once);
extern void		   streamext_worker_look_away(Worker *w); /* nothing is being read */
extern TimestampTz streamext_worker_watermark_deadline(Worker *w, TimestampTz now);

/* worker/catchup.c: false if the batch could not be published and is given up */
extern bool streamext_catchup_publish(Worker *w);

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
