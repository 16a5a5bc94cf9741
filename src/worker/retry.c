/*-------------------------------------------------------------------------
 *
 * worker/retry.c
 *		streamext.retry_dead_letters: rejected records are decoded and folded again, for the views that rejected them.
 *
 * The function (sql/retry.c) leaves rows for each shard in streamext.retry_request, each for as many letters as one batch shall hold, and the commit makes
 * the workers look. A worker does the requests above StreamSlot.counted.retry in their order, between two batches:
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
#include "durable/into_position.h"
#include "worker/retry.h"

/* ---------------------------------------------------------------- statements */

static const char retry_list_sql[] =
	"SELECT id FROM streamext.retry_request WHERE stream OPERATOR(pg_catalog.=) $1 AND shard OPERATOR(pg_catalog.=) $2 "
	"AND source OPERATOR(pg_catalog.=) $3 ORDER BY id";
static const char retry_tidy_sql[] =
	"DELETE FROM streamext.retry_request AS r WHERE (r.stream OPERATOR(pg_catalog.=) $1 AND "
	"((r.shard OPERATOR(pg_catalog.=) $2 AND r.source OPERATOR(pg_catalog.<>) $3) OR r.shard OPERATOR(pg_catalog.>=) $4)) "
	"OR NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) r.stream)";

static const char retry_select_sql[] =
	"SELECT d.id, d.view, d.topic, d.partition, d.position, d.payload, d.record, d.done, d.retry FROM streamext.dead_letter AS d, "
	"streamext.retry_request AS r WHERE r.id OPERATOR(pg_catalog.=) $1 AND d.stream OPERATOR(pg_catalog.=) r.stream "
	"AND (d.id OPERATOR(pg_catalog.=) ANY (r.letters) OR d.retry OPERATOR(pg_catalog.=) r.id) "
	"AND d.source OPERATOR(pg_catalog.=) 0 AND d.whole ORDER BY d.id";
static const char retry_marked_sql[] =
	"SELECT id, view, topic, partition, retry FROM streamext.dead_letter WHERE stream OPERATOR(pg_catalog.=) $1 "
	"AND retry OPERATOR(pg_catalog.<>) 0";
static const char retry_unmark_sql[] =
	"UPDATE streamext.dead_letter SET retry = 0 WHERE id OPERATOR(pg_catalog.=) ANY ($1)";
static const char retry_reject_sql[] =
	"UPDATE streamext.dead_letter AS d SET sqlstate = u.s, reason = u.r, received_at = pg_catalog.clock_timestamp() "
	"FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) AS u (id, s, r) "
	"WHERE d.id OPERATOR(pg_catalog.=) u.id";
static const char retry_mark_sql[] =
	"UPDATE streamext.dead_letter SET retry = $2 WHERE id OPERATOR(pg_catalog.=) ANY ($1)";
static const char retry_split_sql[] =
	"INSERT INTO streamext.dead_letter (stream, view, topic, partition, position, received_at, sqlstate, reason, payload, record, whole, retry) "
	"SELECT d.stream, u.v, d.topic, d.partition, d.position, d.received_at, COALESCE(u.s, d.sqlstate), COALESCE(u.r, d.reason), d.payload, "
	"d.record, d.whole, u.n FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), "
	"pg_catalog.unnest($4), pg_catalog.unnest($5)) AS u (id, v, s, r, n) JOIN streamext.dead_letter AS d "
	"ON d.id OPERATOR(pg_catalog.=) u.id ON CONFLICT (stream, partition, position, view, topic, source) "
	"DO UPDATE SET sqlstate = EXCLUDED.sqlstate, reason = EXCLUDED.reason, retry = EXCLUDED.retry";
static const char retry_delete_sql[] = "DELETE FROM streamext.dead_letter WHERE id OPERATOR(pg_catalog.=) ANY ($1)";
static const char retry_decoded_sql[] =
	"UPDATE streamext.retry_request SET decoded = decoded OPERATOR(pg_catalog.+) $2 WHERE id OPERATOR(pg_catalog.=) $1 RETURNING decoded";
/* One that its view rejects again just now is marked no more. */
static const char retry_settle_sql[] =
	"DELETE FROM streamext.dead_letter WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND retry OPERATOR(pg_catalog.<>) 0";
static const char retry_end_sql[] = "DELETE FROM streamext.retry_request WHERE id OPERATOR(pg_catalog.=) $1";

/* Within SPI. */
static void
retry_execute(const char *sql, int nargs, Oid *types, Datum *values, int expected)
{
	int rc = SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0);

	if (rc != expected)
		elog(ERROR, "could not run a statement on streamext.dead_letter: %s", SPI_result_code_string(rc));
}

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
	retry_execute(retry_list_sql, 3, types, values, SPI_OK_SELECT);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(w->requests.retries_cxt);
		int64		 *id = palloc(sizeof(int64));
		bool		  isnull;

		*id = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		w->requests.retries = lappend(w->requests.retries, id);
		MemoryContextSwitchTo(old);
	}
	retry_execute(retry_tidy_sql, 4, types, values, SPI_OK_DELETE);
	streamext_own_end(own);
}

bool
streamext_retries_due(const Worker *w)
{
	return w->requests.retries != NIL && w->shard.attached && !w->reading.pending &&
		   w->shard.slot->counted.retry < *(const int64 *) linitial(w->requests.retries);
}

/* ---------------------------------------------------------------- letters and views */

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
	retry_execute(retry_select_sql, 1, types, values, SPI_OK_SELECT);
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

/* ---------------------------------------------------------------- marks */

/* What retry_marked_sql finds, in the memory context of its caller. */
typedef struct RetryMark
{
	Datum id;
	Oid	  view;
	int64 retry;
	bool  own; /* of a partition of this shard */
} RetryMark;

/* Within SPI. While the shard's partitions are not known none is its own. */
static RetryMark *
retry_marks(Worker *w, int *n)
{
	Oid		   types[1] = { OIDOID };
	Datum	   values[1] = { ObjectIdGetDatum(w->shard.identity.relid) };
	RetryMark *marks;

	retry_execute(retry_marked_sql, 1, types, values, SPI_OK_SELECT);
	*n = SPI_processed;
	marks = palloc(sizeof(RetryMark) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		HeapTuple tuple = SPI_tuptable->vals[i];
		TupleDesc desc = SPI_tuptable->tupdesc;
		bool	  isnull;
		char	 *topic = TextDatumGetCString(SPI_getbinval(tuple, desc, 3, &isnull));
		int32	  partition = DatumGetInt32(SPI_getbinval(tuple, desc, 4, &isnull));

		marks[i].id = Int64GetDatum(DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull)));
		marks[i].view = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		marks[i].retry = DatumGetInt64(SPI_getbinval(tuple, desc, 5, &isnull));
		marks[i].own = w->shard.attached && streamext_letters_partition(w, topic, partition) >= 0;
	}
	return marks;
}

/* Of a view that is about to get the request's number: whether its state was lost. */
static bool
retry_is_lost(const Retry *r, const RetryMark *mark)
{
	if (mark->retry == r->request)
		return true;
	for (int i = 0; i < r->nviews && mark->own; i++)
		if (r->views[i].v->viewoid == mark->view)
			return r->views[i].ready && mark->retry > r->views[i].v->slot->counted.retry;
	return false;
}

/* Within SPI. */
static void
retry_unmark(Worker *w, const Retry *r)
{
	Oid		   types[1] = { INT8ARRAYOID };
	Datum	   values[1];
	Datum	  *ids;
	int		   nids = 0;
	int		   n;
	RetryMark *marks = retry_marks(w, &n);

	ids = palloc(sizeof(Datum) * Max(n, 1));
	for (int i = 0; i < n; i++)
		if (retry_is_lost(r, &marks[i]))
			ids[nids++] = marks[i].id;
	if (nids == 0)
		return;
	values[0] = streamext_dead_letter_array(ids, NULL, nids, INT8OID);
	retry_execute(retry_unmark_sql, 1, types, values, SPI_OK_UPDATE);
}

/* ---------------------------------------------------------------- what comes of it */

static void
retry_reject(Retry *r, const RetryLetter *letter, const RejectedRecord *rejected)
{
	r->reject_ids[r->nreject] = Int64GetDatum(letter->id);
	r->reject_states[r->nreject] = CStringGetTextDatum(unpack_sql_state(rejected->sqlstate));
	r->reject_reasons[r->nreject++] = streamext_dead_letter_text(rejected->reason);
	r->nagain++;
}

/* A letter of the view's own for one of the stream. */
static void
retry_split(Retry *r, const RetryLetter *letter, const RetryView *view, const RejectedRecord *rejected)
{
	int n = r->nsplit++;

	r->split_ids[n] = Int64GetDatum(letter->id);
	r->split_views[n] = ObjectIdGetDatum(view->v->viewoid);
	r->split_nulls[n] = rejected == NULL;
	r->split_states[n] = rejected == NULL ? (Datum) 0 : CStringGetTextDatum(unpack_sql_state(rejected->sqlstate));
	r->split_reasons[n] = rejected == NULL ? (Datum) 0 : streamext_dead_letter_text(rejected->reason);
	r->split_numbers[n] = Int64GetDatum(rejected == NULL && view->ready ? r->request : 0);
}

static void
retry_decide(Retry *r, int n)
{
	const RetryLetter *letter = &r->letters[n];
	bool			   again = false;

	if (letter->rejected != NULL)
	{
		retry_reject(r, letter, letter->rejected);
		return;
	}
	for (int i = 0; i < r->nviews; i++)
	{
		const RetryView *view = &r->views[i];
		bool			 stateless = view->ready && streamext_fold_view(view->v->fold)->stateless;

		if (!view->owed[n])
			continue;
		again = again || view->rejected[n] != NULL || !view->ready;
		view->counted[letter->index] += stateless && view->rejected[n] == NULL;
		if (!OidIsValid(letter->view))
		{
			if (!stateless || view->rejected[n] != NULL)
				retry_split(r, letter, view, view->rejected[n]);
		}
		else if (view->rejected[n] != NULL)
			retry_reject(r, letter, view->rejected[n]);
		else if (stateless)
			r->gone_ids[r->ngone++] = Int64GetDatum(letter->id);
		else if (view->ready)
			r->mark_ids[r->nmark++] = Int64GetDatum(letter->id);
	}
	if (!OidIsValid(letter->view))
	{
		r->gone_ids[r->ngone++] = Int64GetDatum(letter->id);
		r->ndecoded++;
		r->nagain += again;
	}
}

static void
retry_make_room(Retry *r)
{
	int n = Max(r->nletters, 1);
	int nsplit = Max(r->nletters * r->nviews, 1);

	r->reject_ids = palloc(sizeof(Datum) * n);
	r->reject_states = palloc(sizeof(Datum) * n);
	r->reject_reasons = palloc(sizeof(Datum) * n);
	r->mark_ids = palloc(sizeof(Datum) * n);
	r->gone_ids = palloc(sizeof(Datum) * n);
	r->split_ids = palloc(sizeof(Datum) * nsplit);
	r->split_views = palloc(sizeof(Datum) * nsplit);
	r->split_states = palloc(sizeof(Datum) * nsplit);
	r->split_reasons = palloc(sizeof(Datum) * nsplit);
	r->split_numbers = palloc(sizeof(Datum) * nsplit);
	r->split_nulls = palloc(sizeof(bool) * nsplit);
}

/* Returns how many letters of the stream were decoded by the request, with former tries whose state is lost. */
static int32
retry_write(Worker *w, Retry *r)
{
	IdentityScope own;
	Oid			  types[5] = { INT8ARRAYOID };
	Datum		  values[5];
	int32		  decoded = 0;
	bool		  isnull;

	own = streamext_own_begin();
	retry_unmark(w, r);
	if (r->nreject > 0)
	{
		types[1] = types[2] = TEXTARRAYOID;
		values[0] = streamext_dead_letter_array(r->reject_ids, NULL, r->nreject, INT8OID);
		values[1] = streamext_dead_letter_array(r->reject_states, NULL, r->nreject, TEXTOID);
		values[2] = streamext_dead_letter_array(r->reject_reasons, NULL, r->nreject, TEXTOID);
		retry_execute(retry_reject_sql, 3, types, values, SPI_OK_UPDATE);
	}
	if (r->nmark > 0)
	{
		types[1] = INT8OID;
		values[0] = streamext_dead_letter_array(r->mark_ids, NULL, r->nmark, INT8OID);
		values[1] = Int64GetDatum(r->request);
		retry_execute(retry_mark_sql, 2, types, values, SPI_OK_UPDATE);
	}
	if (r->nsplit > 0)
	{
		types[1] = OIDARRAYOID;
		types[2] = types[3] = TEXTARRAYOID;
		types[4] = INT8ARRAYOID;
		values[0] = streamext_dead_letter_array(r->split_ids, NULL, r->nsplit, INT8OID);
		values[1] = streamext_dead_letter_array(r->split_views, NULL, r->nsplit, OIDOID);
		values[2] = streamext_dead_letter_array(r->split_states, r->split_nulls, r->nsplit, TEXTOID);
		values[3] = streamext_dead_letter_array(r->split_reasons, r->split_nulls, r->nsplit, TEXTOID);
		values[4] = streamext_dead_letter_array(r->split_numbers, NULL, r->nsplit, INT8OID);
		retry_execute(retry_split_sql, 5, types, values, SPI_OK_INSERT);
	}
	for (int i = 0; i < r->nviews; i++)
		for (int p = 0; p < w->shard.npartitions; p++)
			if (r->views[i].counted[p] > 0)
				streamext_into_recount(r->views[i].v->viewoid, w->shard.config,
									   w->shard.slot->counted.partitions[p].topic,
									   w->shard.slot->counted.partitions[p].partition, r->views[i].counted[p]);
	if (r->ngone > 0)
	{
		values[0] = streamext_dead_letter_array(r->gone_ids, NULL, r->ngone, INT8OID);
		retry_execute(retry_delete_sql, 1, types, values, SPI_OK_DELETE);
	}
	types[0] = INT8OID;
	types[1] = INT4OID;
	values[0] = Int64GetDatum(r->request);
	values[1] = Int32GetDatum(r->ndecoded);
	retry_execute(retry_decoded_sql, 2, types, values, SPI_OK_UPDATE_RETURNING);
	if (SPI_processed > 0)
		decoded = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	streamext_own_end(own);
	return decoded;
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

bool
streamext_retries_run(Worker *w)
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
	retry_make_room(r);
	for (int n = 0; n < r->nletters; n++)
		retry_decide(r, n);
	decoded = retry_write(w, r);
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

/* ---------------------------------------------------------------- settle */

/* Within SPI: letters go whose view's state, as it is in the checkpoint, tells of their marks, or whose view is no more. */
static void
retry_delete_marked(Worker *w, const CheckpointPosition *last, int64 request)
{
	Oid		   types[1] = { INT8ARRAYOID };
	Datum	   values[1];
	Datum	  *ids;
	int		   nids = 0;
	int		   n;
	RetryMark *marks = retry_marks(w, &n);

	ids = palloc(sizeof(Datum) * Max(n, 1));
	w->requests.unmarked = w->shard.attached;
	w->requests.marks_seen = w->shard.attached ? last->seq : 0;
	for (int i = 0; i < n; i++)
	{
		const CheckpointView *view = streamext_checkpoint_find_view(last, marks[i].view);

		if (!marks[i].own && marks[i].retry != request)
			continue;
		if ((view != NULL && view->head.retry >= marks[i].retry) || get_rel_name(marks[i].view) == NULL)
			ids[nids++] = marks[i].id;
		else
			w->requests.unmarked = false;
	}
	if (nids == 0)
		return;
	values[0] = streamext_dead_letter_array(ids, NULL, nids, INT8OID);
	retry_execute(retry_settle_sql, 1, types, values, SPI_OK_DELETE);
}

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
		retry_delete_marked(w, last, request);
		values[0] = Int64GetDatum(request);
		if (request > 0)
			retry_execute(retry_end_sql, 1, types, values, SPI_OK_DELETE);
		streamext_own_end(own);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	if (request > 0)
		w->requests.retries = list_delete_first(w->requests.retries);
}
