/*
 * decode/batch.h
 *		The unit of everything: up to STREAMEXT_BATCH_ROWS records decoded into column vectors, with the positions that hold
 *		after it. Folded whole, counted whole.
 */
#ifndef STREAMEXT_BATCH_H
#define STREAMEXT_BATCH_H

#include "base/streamext.h"
#include "source/connector.h"

/* A record that does not count: for the whole stream (view = 0) or for one view. */
typedef struct RejectedRecord
{
	Oid	  view;
	int	  record; /* into Batch.records */
	int	  sqlstate;
	char *reason;	  /* in the batch's context; at most STREAMEXT_MAX_REASON bytes, in whole characters */
	bool  known;	  /* its letter was written when the record was read first */
	bool  unlettered; /* of the whole stream's: the record was taken when it was read first, or its letter is gone */
	const char *done; /* of the whole stream's: views that have counted the record, as oid[] in text; NULL: none */
} RejectedRecord;

/* A record that came too late for a view that keeps such (streamext.keep_late). */
typedef struct LateRecord
{
	Oid			view;
	int			record; /* into Batch.records */
	TimestampTz event_time;
} LateRecord;

typedef struct Batch
{
	MemoryContext cxt; /* values, reasons; reset for each batch */
	StreamConfig *config;
	Connector	 *connector;

	int			  nrecords; /* as polled */
	StreamRecord *records;

	/* rows: the records that were decoded and accepted, in order; every declared column is decoded */
	int			 nrows;
	int			*record;	 /* row -> index into records */
	Datum	   **values;	 /* [natts][row]; varlena values are plain, unTOASTed; row capacity STREAMEXT_BATCH_ROWS */
	bool	   **nulls;		 /* [natts][row] */
	TimestampTz *event_time; /* [row], finite */

	List *
		set_aside; /* of RejectedRecord *, in cxt: not to be decoded, or not for that view; to be rejected with its reason */
	List *rejected; /* of RejectedRecord *, in cxt */
	List *late;		/* of LateRecord *, in cxt */

	/* set by the worker */
	bool
		again; /* it has failed by errors that may have been nobody's: what is internal is laid to a row's charge now */
	int npartitions;
	int64	   *positions; /* after this batch, [npartitions] */
	TimestampTz watermark; /* of the stream before this batch; DT_NOBEGIN: none yet */
	const bool *
		owed; /* [record] these, once rejected, are tried again for the view at hand (worker/retry.c); NULL: new records */
} Batch;

extern Batch *streamext_batch_create(StreamConfig *config, Connector *connector, MemoryContext cxt);
/* Empties it: nrecords = nrows = 0, memory reset. */
extern void streamext_batch_reset(Batch *batch);
extern void streamext_batch_reject(Batch *batch, Oid view, int record, int sqlstate, const char *reason);
extern void streamext_batch_set_aside(Batch *batch, Oid view, int record, const char *reason);
/* For the view itself; InvalidOid: for the stream. */
extern bool streamext_batch_is_set_aside(const Batch *batch, Oid view, int record);
/* What the view has rejected or kept as late of this batch is void. */
extern void streamext_batch_withdraw(Batch *batch, Oid view);
extern void streamext_batch_keep_late(Batch *batch, Oid view, int row);

#endif /* STREAMEXT_BATCH_H */
