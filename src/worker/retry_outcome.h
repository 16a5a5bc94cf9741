/*
 * worker/retry_outcome.h
 *		Letters that are tried again, the views that owe them, and what is written of it.
 */
#ifndef STREAMEXT_RETRY_OUTCOME_H
#define STREAMEXT_RETRY_OUTCOME_H

#include "durable/checkpoint_state.h"
#include "worker/worker_private.h"

/* A letter, whose record is the batch's of the same number. */
typedef struct RetryLetter
{
	int64			id;
	Oid				view;
	List		   *done;
	int64			retry;
	int				index; /* of its partition */
	int64			position;
	RejectedRecord *rejected; /* it cannot be decoded now either */
} RetryLetter;

typedef struct RetryView
{
	WorkerView		*v;
	int64			*positions; /* by partition */
	int64			*begins;
	bool			 ready;
	bool			*owed;	   /* [letter] */
	RejectedRecord **rejected; /* [letter], by the view itself */
	int64			*counted;  /* by partition, of a stateless one */
} RetryView;

typedef struct Retry
{
	int64		 request;
	int			 nletters;
	RetryLetter *letters;
	int			 nviews;
	RetryView	*views;

	/* what is to be written; arrays with room for all */
	int	   nreject, nmark, ngone, nsplit, ndecoded, nagain;
	Datum *reject_ids, *reject_states, *reject_reasons;
	Datum *mark_ids;
	Datum *gone_ids;
	Datum *split_ids, *split_views, *split_states, *split_reasons, *split_numbers;
	bool  *split_nulls;
} Retry;

/* A statement on the extension's own tables. Within SPI. */
extern void streamext_retry_execute(const char *sql, int nargs, Oid *types, Datum *values, int expected);

/*
 * Letters are decoded and prepared for the views: writes what that means for each. Returns how many letters of the stream were decoded by the
 * request, with former tries whose state is lost.
 */
extern int32 streamext_retry_write(Worker *w, Retry *r);

/* Within SPI: letters go whose view's state, as it is in the checkpoint, tells of their marks, or whose view is no more. */
extern void streamext_retry_delete_marked(Worker *w, const CheckpointPosition *last, int64 request);

#endif /* STREAMEXT_RETRY_OUTCOME_H */
