/*
 * worker/retry_outcome.c
 *		What comes of letters that are tried again, in streamext_internal.dead_letter: new reasons, letters of views' own, marks, and their end.
 *
 * What marks mean is in worker/retry.c.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/own_table.h"
#include "durable/checkpoint_state.h"
#include "durable/into_position.h"
#include "durable/letters.h"
#include "worker/letters_reread.h"
#include "worker/retry_outcome.h"

/* ---------------------------------------------------------------- statements */

static const char retry_marked_sql[] =
	"SELECT id, view, topic, partition, retry FROM streamext_internal.dead_letter WHERE stream OPERATOR(pg_catalog.=) $1 "
	"AND retry OPERATOR(pg_catalog.<>) 0";
static const char retry_unmark_sql[] =
	"UPDATE streamext_internal.dead_letter SET retry = 0 WHERE id OPERATOR(pg_catalog.=) ANY ($1)";
static const char retry_reject_sql[] =
	"UPDATE streamext_internal.dead_letter AS d SET sqlstate = u.s, reason = u.r, received_at = pg_catalog.clock_timestamp() "
	"FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) AS u (id, s, r) "
	"WHERE d.id OPERATOR(pg_catalog.=) u.id";
static const char retry_mark_sql[] =
	"UPDATE streamext_internal.dead_letter SET retry = $2 WHERE id OPERATOR(pg_catalog.=) ANY ($1)";
static const char retry_split_sql[] =
	"INSERT INTO streamext_internal.dead_letter (stream, view, topic, partition, position, received_at, sqlstate, reason, payload, record, whole, retry) "
	"SELECT d.stream, u.v, d.topic, d.partition, d.position, d.received_at, COALESCE(u.s, d.sqlstate), COALESCE(u.r, d.reason), d.payload, "
	"d.record, d.whole, u.n FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), "
	"pg_catalog.unnest($4), pg_catalog.unnest($5)) AS u (id, v, s, r, n) JOIN streamext_internal.dead_letter AS d "
	"ON d.id OPERATOR(pg_catalog.=) u.id ON CONFLICT (stream, partition, position, view, topic, source) "
	"DO UPDATE SET sqlstate = EXCLUDED.sqlstate, reason = EXCLUDED.reason, retry = EXCLUDED.retry";
static const char retry_delete_sql[] =
	"DELETE FROM streamext_internal.dead_letter WHERE id OPERATOR(pg_catalog.=) ANY ($1)";
static const char retry_decoded_sql[] =
	"UPDATE streamext_internal.retry_request SET decoded = decoded OPERATOR(pg_catalog.+) $2 WHERE id OPERATOR(pg_catalog.=) $1 RETURNING decoded";
/* One that its view rejects again just now is marked no more. */
static const char retry_settle_sql[] =
	"DELETE FROM streamext_internal.dead_letter WHERE id OPERATOR(pg_catalog.=) ANY ($1) AND retry OPERATOR(pg_catalog.<>) 0";

void
streamext_retry_execute(const char *sql, int nargs, Oid *types, Datum *values, int expected)
{
	int rc = SPI_execute_with_args(streamext_own_sql(sql), nargs, types, values, NULL, false, 0);

	if (rc != expected)
		elog(ERROR, "could not run a statement on streamext_internal.dead_letter: %s", SPI_result_code_string(rc));
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

	streamext_retry_execute(retry_marked_sql, 1, types, values, SPI_OK_SELECT);
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

/* Within SPI: the statement, with the ids of letters as its parameter, if there are any. */
static void
retry_execute_on(const char *sql, Datum *ids, int n, int expected)
{
	Oid	  types[1] = { INT8ARRAYOID };
	Datum values[1];

	if (n == 0)
		return;
	values[0] = streamext_dead_letter_array(ids, NULL, n, INT8OID);
	streamext_retry_execute(sql, 1, types, values, expected);
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
	int		   nids = 0;
	int		   n;
	RetryMark *marks = retry_marks(w, &n);
	Datum	  *ids = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		if (retry_is_lost(r, &marks[i]))
			ids[nids++] = marks[i].id;
	retry_execute_on(retry_unmark_sql, ids, nids, SPI_OK_UPDATE);
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

int32
streamext_retry_write(Worker *w, Retry *r)
{
	IdentityScope own;
	Oid			  types[5] = { INT8ARRAYOID };
	Datum		  values[5];
	int32		  decoded = 0;
	bool		  isnull;

	retry_make_room(r);
	for (int n = 0; n < r->nletters; n++)
		retry_decide(r, n);
	own = streamext_own_begin();
	retry_unmark(w, r);
	if (r->nreject > 0)
	{
		types[1] = types[2] = TEXTARRAYOID;
		values[0] = streamext_dead_letter_array(r->reject_ids, NULL, r->nreject, INT8OID);
		values[1] = streamext_dead_letter_array(r->reject_states, NULL, r->nreject, TEXTOID);
		values[2] = streamext_dead_letter_array(r->reject_reasons, NULL, r->nreject, TEXTOID);
		streamext_retry_execute(retry_reject_sql, 3, types, values, SPI_OK_UPDATE);
	}
	if (r->nmark > 0)
	{
		types[1] = INT8OID;
		values[0] = streamext_dead_letter_array(r->mark_ids, NULL, r->nmark, INT8OID);
		values[1] = Int64GetDatum(r->request);
		streamext_retry_execute(retry_mark_sql, 2, types, values, SPI_OK_UPDATE);
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
		streamext_retry_execute(retry_split_sql, 5, types, values, SPI_OK_INSERT);
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
		streamext_retry_execute(retry_delete_sql, 1, types, values, SPI_OK_DELETE);
	}
	types[0] = INT8OID;
	types[1] = INT4OID;
	values[0] = Int64GetDatum(r->request);
	values[1] = Int32GetDatum(r->ndecoded);
	streamext_retry_execute(retry_decoded_sql, 2, types, values, SPI_OK_UPDATE_RETURNING);
	if (SPI_processed > 0)
		decoded = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	streamext_own_end(own);
	return decoded;
}

/* ---------------------------------------------------------------- settle */

void
streamext_retry_delete_marked(Worker *w, const CheckpointPosition *last, int64 request)
{
	int		   nids = 0;
	int		   n;
	RetryMark *marks = retry_marks(w, &n);
	Datum	  *ids = palloc(sizeof(Datum) * Max(n, 1));

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
	retry_execute_on(retry_settle_sql, ids, nids, SPI_OK_DELETE);
}
