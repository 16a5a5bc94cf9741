/*-------------------------------------------------------------------------
 *
 * worker/retry.c
 *		streamext.retry_dead_letters: rejected records are decoded and folded again, for the views that rejected them.
 *
 * The function (sql/retry.c) leaves rows for each shard in streamext_internal.retry_request, each for as many letters as one batch shall
 * hold, and the commit makes the workers look. A worker does the requests above StreamSlot.counted.retry in their order, between two batches:
 *
 *	1. in one transaction the letters are decoded and prepared for the views that owe them, and what comes of it is written. Of a letter that
 *	   is decoded now and was of the whole stream (view 0) each view that owes it gets one of its own, and it goes. A letter that its view
 *	   rejects again gets the new reason. One that the view takes (it counts, or is late) is marked with the request (dead_letter.retry);
 *	   if the view writes its rows into a table it goes at once, for they are written in this transaction;
 *	2. it commits, and then the views are published, and with them, under the same lock, the request's number, in each view (ViewSlot.counted.retry) and
 *	   in the stream. Both numbers are in checkpoints, with the states that they tell of;
 *	3. a checkpoint is taken at once, and when it is committed, the marked letters of views whose number in it says so go, and the
 *	   request. The letters of a view whose fold ended after 2, so that it is in the checkpoint as it was before, stay marked, and go
 *	   by a later one.
 *
 * So after any end in between, the numbers say whether a marked letter is in the view's state: below, the request is done again, with all its
 * letters and those that are marked with it. There is one request at a time. Before it raises a view's number, the marks above that number,
 * of a state that was lost, are taken away; so a number that is not below a mark always tells of it.
 *
 * Which views owe a letter is what worker/letters_reread.c keeps true. A view that does not run (paused, failed, catching up) keeps its letters.
 *
 * Where views stand is looked at before the letters: the process that moves a view over letters commits what that means for them first.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

#include "base/own_table.h"
#include "durable/checkpoint.h"
#include "durable/checkpoint_state.h"
#include "shared/clock.h"
#include "durable/letters.h"
#include "worker/letters_reread.h"
#include "worker/poison.h"
#include "base/fault.h"
#include "worker/retry.h"
#include "worker/retry_outcome.h"

/* ---------------------------------------------------------------- statements */

static const char retry_list_sql[] =
	"SELECT id FROM streamext_internal.retry_request WHERE stream OPERATOR(pg_catalog.=) $1 AND shard OPERATOR(pg_catalog.=) $2 "
	"AND source OPERATOR(pg_catalog.=) $3 ORDER BY id";
static const char retry_tidy_sql[] =
	"DELETE FROM streamext_internal.retry_request AS r WHERE (r.stream OPERATOR(pg_catalog.=) $1 AND "
	"((r.shard OPERATOR(pg_catalog.=) $2 AND r.source OPERATOR(pg_catalog.<>) $3) OR r.shard OPERATOR(pg_catalog.>=) $4)) "
	"OR NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) r.stream)";

static const char retry_select_sql[] =
	"SELECT d.id, d.view, d.topic, d.partition, d.position, d.payload, d.record, d.done, d.retry FROM streamext_internal.dead_letter AS d, "
	"streamext_internal.retry_request AS r WHERE r.id OPERATOR(pg_catalog.=) $1 AND d.stream OPERATOR(pg_catalog.=) r.stream "
	"AND (d.id OPERATOR(pg_catalog.=) ANY (r.letters) OR d.retry OPERATOR(pg_catalog.=) r.id) "
	"AND d.source OPERATOR(pg_catalog.=) 0 AND d.whole ORDER BY d.id";
static const char retry_end_sql[] = "DELETE FROM streamext_internal.retry_request WHERE id OPERATOR(pg_catalog.=) $1";

/* ---------------------------------------------------------------- requests */

void
streamext_retries_load(Worker *w)
{
	IdentityScope own;
	Oid			  types[4] = { OIDOID, INT4OID, INT8OID, INT4OID };
	Datum		  values[4];

	w->requests.retries = NIL;
	if (w->requests.retries_cxt == NULL)
		w->requests.retries_cxt = AllocSetContextCreate(w->shard.cxt, "streamext retries", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(w->requests.retries_cxt);
	if (!OidIsValid(streamext_control_table("retry_request")))
		return;
	values[0] = ObjectIdGetDatum(w->shard.identity.relid);
	values[1] = Int32GetDatum(w->shard.identity.shard);
	values[2] = Int64GetDatum((int64) w->shard.slot->counted.source);
	values[3] = Int32GetDatum(w->shard.config->workers);
	own = streamext_own_begin();
	streamext_retry_execute(retry_list_sql, 3, types, values, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(w->requests.retries_cxt);
		int64		 *id = palloc(sizeof(int64));
		bool		  isnull;

		*id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		w->requests.retries = lappend(w->requests.retries, id);
		MemoryContextSwitchTo(old);
	}
	streamext_retry_execute(retry_tidy_sql, 4, types, values, SPI_OK_DELETE);
	streamext_own_end(own);
}

bool
streamext_retries_due(const Worker *w)
{
	return w->requests.retries != NIL && w->shard.attached && !w->reading.pending &&
		   w->shard.slot->counted.retry < *(const int64 *) linitial(w->requests.retries);
}

/* ---------------------------------------------------------------- letters and views */

static bool
retry_is_ready(const WorkerView *v)
{
	return v->fold != NULL && !v->paused && !v->behind;
}

/* Where all views stand now. */
static void
retry_take_views(Worker *w, Retry *r)
{
	int		  n = Max(w->shard.npartitions, 1);
	ListCell *lc;

	r->views = palloc0(sizeof(RetryView) * Max(list_length(w->shard.views), 1));
	streamext_stream_lock_shared(w->shard.slot);
	foreach (lc, w->shard.views)
	{
		RetryView *view = &r->views[r->nviews++];

		view->v = lfirst(lc);
		view->ready = retry_is_ready(view->v);
		view->positions = palloc(sizeof(int64) * n);
		view->begins = palloc(sizeof(int64) * n);
		view->counted = palloc0(sizeof(int64) * n);
		for (int i = 0; i < w->shard.npartitions; i++)
		{
			view->positions[i] = i < view->v->slot->counted.npositions ? view->v->slot->counted.positions[i] : -1;
			view->begins[i] = streamext_letters_begin(w, view->v->slot, i);
		}
	}
	LWLockRelease(w->shard.slot->lock);
}

/* Whether the view has rejected the record and not counted it since. */
static bool
retry_is_owed(const RetryView *view, const RetryLetter *letter)
{
	if (letter->position >= view->positions[letter->index] || letter->position < view->begins[letter->index])
		return false;
	if (!OidIsValid(letter->view))
		return !list_member_oid(letter->done, view->v->viewoid);
	return letter->view == view->v->viewoid && (letter->retry == 0 || letter->retry > view->v->slot->counted.retry);
}

/* Whether trying it now can lead to anything. */
static bool
retry_is_wanted(const Worker *w, const Retry *r, const RetryLetter *letter)
{
	if (!OidIsValid(letter->view))
		return letter->position < w->shard.slot->counted.partitions[letter->index].position;
	for (int i = 0; i < r->nviews; i++)
		if (r->views[i].ready && retry_is_owed(&r->views[i], letter))
			return true;
	return false;
}

/* One row of retry_select_sql, as the batch's next record. In the batch's context. */
static void
retry_add_letter(Worker *w, Retry *r, HeapTuple tuple, TupleDesc desc)
{
	Batch		 *batch = w->reading.batch;
	RetryLetter	 *letter = &r->letters[r->nletters];
	StreamRecord *record = &batch->records[r->nletters];
	bool		  isnull;
	bool		  no_payload;
	char		 *topic = TextDatumGetCString(SPI_getbinval(tuple, desc, 3, &isnull));
	int32		  partition = DatumGetInt32(SPI_getbinval(tuple, desc, 4, &isnull));
	Datum		  payload = SPI_getbinval(tuple, desc, 6, &no_payload);

	memset(letter, 0, sizeof(*letter));
	letter->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	letter->view = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
	letter->position = DatumGetInt64(SPI_getbinval(tuple, desc, 5, &isnull));
	letter->done = streamext_dead_letter_done(SPI_getbinval(tuple, desc, 8, &isnull));
	letter->retry = DatumGetInt64(SPI_getbinval(tuple, desc, 9, &isnull));
	letter->index = streamext_letters_partition(w, topic, partition);
	if (letter->index < 0 || !retry_is_wanted(w, r, letter))
		return;
	memset(record, 0, sizeof(*record));
	if (w->shard.config->from.tag != NULL)
		topic[strlen(topic) - strlen(w->shard.config->from.tag)] = '\0';
	record->topic = topic;
	record->partition = partition;
	record->partition_index = letter->index;
	record->position = letter->position;
	record->next_position = letter->position + 1;
	if (streamext_dead_letter_record(record, w->shard.config->format, no_payload ? NULL : DatumGetByteaPCopy(payload),
									 DatumGetByteaPCopy(SPI_getbinval(tuple, desc, 7, &isnull))))
		r->nletters++;
}

/* Fills the batch. */
static void
retry_take_letters(Worker *w, Retry *r)
{
	IdentityScope own;
	Batch		 *batch = w->reading.batch;
	Oid			  types[1] = { INT8OID };
	Datum		  values[1] = { Int64GetDatum(r->request) };

	own = streamext_own_begin();
	streamext_retry_execute(retry_select_sql, 1, types, values, SPI_OK_SELECT);
	MemoryContextSwitchTo(batch->cxt);
	r->letters = palloc(sizeof(RetryLetter) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed && r->nletters < STREAMEXT_BATCH_ROWS; i++)
		retry_add_letter(w, r, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
	streamext_own_end(own);
	MemoryContextSwitchTo(batch->cxt);
	batch->nrecords = r->nletters;
	batch->npartitions = w->shard.npartitions;
	for (int i = 0; i < w->shard.npartitions; i++)
		batch->positions[i] = -1; /* nothing moves */
}

/* ---------------------------------------------------------------- decode and prepare */

static void
retry_decode_batch(Worker *w)
{
	IdentityScope scope = streamext_decoder_enter(w->setup.decoder);

	streamext_decoder_run(w->setup.decoder, w->reading.batch, streamext_clock_now());
	streamext_identity_leave(scope);
}

static void
retry_decode(Worker *w, Retry *r)
{
	ListCell *lc;

	retry_decode_batch(w);
	foreach (lc, w->reading.batch->rejected)
	{
		RejectedRecord *rejected = lfirst(lc);

		r->letters[rejected->record].rejected = rejected;
	}
}

/* False: memory is full, and nothing is prepared. */
static bool
retry_prepare(Worker *w, Retry *r)
{
	ListCell *lc;

	for (int i = 0; i < r->nviews; i++)
	{
		RetryView *view = &r->views[i];
		bool	   any = false;

		view->v->prepared = false;
		view->owed = palloc0(sizeof(bool) * Max(r->nletters, 1));
		view->rejected = palloc0(sizeof(RejectedRecord *) * Max(r->nletters, 1));
		for (int n = 0; n < r->nletters; n++)
		{
			view->owed[n] = retry_is_owed(view, &r->letters[n]);
			any = any || view->owed[n];
		}
		if (!any || !view->ready)
			continue;
		w->reading.batch->owed = view->owed;
		if (!streamext_worker_prepare_view(w, view->v))
		{
			streamext_worker_note_full(w, view->v);
			streamext_worker_abandon_views(w);
			return false;
		}
		view->ready = view->v->fold != NULL;
		foreach (lc, w->reading.batch->rejected)
		{
			RejectedRecord *rejected = lfirst(lc);

			if (rejected->view == view->v->viewoid)
				view->rejected[rejected->record] = rejected;
		}
	}
	return true;
}

/* ---------------------------------------------------------------- publish */

static void
retry_publish(Worker *w, Retry *r, int32 decoded)
{
	StreamSlot *slot = w->shard.slot;

	streamext_stream_lock_exclusive(slot);
	for (int i = 0; i < r->nviews; i++)
	{
		WorkerView *v = r->views[i].v;

		if (v->prepared)
		{
			w->reading.batch->watermark = slot->counted.watermark;
			streamext_poison_view(w, v);
			streamext_fold_publish(v->fold, w->reading.batch);
			v->prepared = false;
		}
		if (r->views[i].ready)
			streamext_view_retried(v->slot, r->request);
	}
	slot->counted.rejected -= Min(slot->counted.rejected, decoded);
	slot->counted.retry = r->request;
	LWLockRelease(slot->lock);
}

static void
retry_end_batch(Worker *w, MemoryContext old)
{
	MemoryContextSwitchTo(old);
	streamext_batch_reset(w->reading.batch);
}

/* The batch at hand is this letter alone. What comes of it is undone. */
static void
retry_probe_letter(Worker *w, Retry *r, int n)
{
	Batch		 *batch = w->reading.batch;
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	batch->rejected = batch->late = NIL;
	retry_decode_batch(w);
	for (int i = 0; i < r->nviews; i++)
	{
		RetryView *view = &r->views[i];
		bool	   owed = view->ready && view->v->fold != NULL && retry_is_owed(view, &r->letters[n]);

		batch->owed = &owed;
		if (owed)
			(void) streamext_worker_prepare_view(w, view->v);
		streamext_worker_abandon_views(w);
	}
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
}

/* Only for the mark, so that a crash names the letter: each of them is decoded and prepared alone. */
static void
retry_probe(Worker *w, Retry *r)
{
	Batch		 *batch = w->reading.batch;
	StreamRecord *records = batch->records;

	PG_TRY();
	{
		for (int n = 0; n < r->nletters; n++)
		{
			batch->records = &records[n];
			batch->nrecords = 1;
			streamext_poison_retry(w, r->request);
			retry_probe_letter(w, r, n);
		}
	}
	PG_FINALLY();
	{
		batch->records = records;
	}
	PG_END_TRY();
	batch->nrecords = r->nletters;
	batch->rejected = batch->late = NIL;
	batch->owed = NULL;
	for (int i = 0; i < r->nviews; i++)
		r->views[i].ready = r->views[i].ready && r->views[i].v->fold != NULL;
}

/* False: memory is full, and nothing has changed. */
static bool
retry_run(Worker *w)
{
	MemoryContext old = CurrentMemoryContext;
	Retry		 *r;
	int32		  decoded;

	streamext_batch_reset(w->reading.batch);
	w->reading.batch->again = streamext_worker_is_last_try(w);
	r = MemoryContextAllocZero(w->reading.batch->cxt, sizeof(Retry));
	r->request = *(int64 *) linitial(w->requests.retries);
	StartTransactionCommand();
	streamext_identity_rest(w->shard.config->owner);
	MemoryContextSwitchTo(w->reading.batch->cxt);
	(void) streamext_dead_letters_lock(w->shard.identity.relid, true);
	retry_take_views(w, r);
	PushActiveSnapshot(GetTransactionSnapshot());
	retry_take_letters(w, r);
	if (unlikely(streamext_poison_doubts_retry(r->request)))
		retry_probe(w, r);
	streamext_poison_retry(w, r->request);
	retry_decode(w, r);
	if (!retry_prepare(w, r))
	{
		streamext_poison_leave();
		PopActiveSnapshot();
		AbortCurrentTransaction();
		retry_end_batch(w, old);
		return false;
	}
	streamext_poison_rest(w);
	decoded = streamext_retry_write(w, r);
	streamext_late_rows_write(w->reading.batch, w->setup.decoder);
	streamext_worker_keep_groups(w);
	PopActiveSnapshot();
	STREAMEXT_FAULT("retry-before-commit");
	CommitTransactionCommand();
	streamext_identity_rise();
	STREAMEXT_FAULT("retry-after-commit");
	retry_publish(w, r, decoded);
	streamext_poison_retried();
	streamext_connector_event(w->shard.connector, "retry", -1, 0,
							  "%d dead letters tried again, %d of them rejected again", r->nletters, r->nagain);
	retry_end_batch(w, old);
	streamext_checkpoint_want(&w->shard);
	return true;
}

/* What is left of a request that failed is taken away; it is the first one still. */
static void
retry_undo(Worker *w)
{
	streamext_batch_reset(w->reading.batch);
}

bool
streamext_retries_run(Worker *w)
{
	return streamext_worker_try(w, retry_run, retry_undo);
}

/* ---------------------------------------------------------------- settle */

void
streamext_retries_settle(Worker *w)
{
	IdentityScope			  own;
	const CheckpointPosition *last = w->shard.checkpoint != NULL ? w->shard.checkpoint->last : NULL;
	MemoryContext			  old = CurrentMemoryContext;
	Oid						  types[1] = { INT8OID };
	Datum					  values[1];
	int64					  request = 0;

	if (w->requests.retries != NIL && w->shard.slot->counted.retry >= *(int64 *) linitial(w->requests.retries))
		request = *(int64 *) linitial(w->requests.retries);
	if (request > 0 && (last == NULL || last->head.retry < request))
	{
		if (w->shard.checkpoint != NULL && w->shard.checkpoint->cut == NULL && !w->shard.checkpoint->wanted)
			streamext_checkpoint_want(&w->shard);
		return;
	}
	/* marks that former requests have left, or former workers: once for each checkpoint */
	if (request == 0 &&
		(w->requests.unmarked || !w->shard.attached || last == NULL || last->seq == w->requests.marks_seen))
		return;
	StartTransactionCommand();
	(void) streamext_dead_letters_lock(w->shard.identity.relid, true);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(streamext_control_table("retry_request")))
	{
		own = streamext_own_begin();
		streamext_retry_delete_marked(w, last, request);
		values[0] = Int64GetDatum(request);
		if (request > 0)
			streamext_retry_execute(retry_end_sql, 1, types, values, SPI_OK_DELETE);
		streamext_own_end(own);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	if (request > 0)
		w->requests.retries = list_delete_first(w->requests.retries);
}
