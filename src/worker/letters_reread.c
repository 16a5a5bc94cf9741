/*-------------------------------------------------------------------------
 *
 * worker/letters_reread.c
 *		Dead letters of records that are read again.
 *
 * What streamext.retry_dead_letters relies on: of the records before a view's position, those that it has rejected, and not
 * counted, are the ones with a letter of that view, or one of the whole stream (view 0) whose `done` does not name it. At and
 * behind the position a letter means nothing for the view, for the record will be read, and decided, again: after a crash that
 * undid what came after the checkpoint, in a view that is begun anew, or in one made later, when expressions and columns may not be
 * what they were.
 *
 * So before a view is published behind records that have letters, and in a transaction committed by then, it is taken out of
 * these: its own letters are deleted (it writes them anew if it rejects the records again), and it is put into `done` of those of
 * the stream, or taken out of it if the record is rejected again. A letter that no view is in any more is deleted.
 *
 * Where reading goes on from live records none of this costs anything: a worker looks only as long as there are letters of
 * records that it has still to read (Worker.letters.behind), and for views that are behind.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

#include "base/own_table.h"
#include "durable/letters.h"
#include "stream/definition.h"
#include "worker/letters_reread.h"

/* LATERAL, so that each range is looked up by the index and the letters of a full table are not read for each batch. */
static const char reread_select_sql[] =
	"SELECT d.id, d.view, d.position, d.done, u.i "
	"FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6)) "
	"AS u (i, topic, number, first, next) CROSS JOIN LATERAL (SELECT e.id, e.view, e.position, e.done FROM streamext_internal.dead_letter AS e "
	"WHERE e.stream OPERATOR(pg_catalog.=) $1 AND e.partition OPERATOR(pg_catalog.=) u.number "
	"AND e.position OPERATOR(pg_catalog.>=) u.first AND e.position OPERATOR(pg_catalog.<) u.next "
	"AND (u.topic IS NULL OR e.topic OPERATOR(pg_catalog.=) u.topic OR (pg_catalog.starts_with(u.topic, ' of ') "
	"AND pg_catalog.right(e.topic, pg_catalog.length(u.topic)) OPERATOR(pg_catalog.=) u.topic)) AND e.source OPERATOR(pg_catalog.=) 0 "
	"OFFSET 0) AS d";
static const char reread_behind_sql[] =
	"SELECT FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS u (number, next) "
	"CROSS JOIN LATERAL (SELECT FROM streamext_internal.dead_letter AS e WHERE e.stream OPERATOR(pg_catalog.=) $1 "
	"AND e.partition OPERATOR(pg_catalog.=) u.number AND e.position OPERATOR(pg_catalog.>=) u.next "
	"AND e.source OPERATOR(pg_catalog.=) 0 LIMIT 1) AS d LIMIT 1";
static const char reread_done_sql[] =
	"UPDATE streamext_internal.dead_letter AS d SET done = u.done::pg_catalog.oid[] "
	"FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (id, done) WHERE d.id OPERATOR(pg_catalog.=) u.id";
static const char reread_delete_sql[] =
	"DELETE FROM streamext_internal.dead_letter WHERE id OPERATOR(pg_catalog.=) ANY ($1)";
static const char reread_leave_sql[] =
	"UPDATE streamext_internal.dead_letter SET source = $2 WHERE stream OPERATOR(pg_catalog.=) $1 AND source OPERATOR(pg_catalog.=) 0 "
	"AND partition OPERATOR(pg_catalog.=) ANY ($3)";

static OwnPlan reread_select_plan;

/* ---------------------------------------------------------------- what letters mean */

/* A partition's topic, by which its letters are told from those of other partitions of this number; NULL: the number is enough. */
static const char *
letters_topic(const Worker *w, int index)
{
	if (w->shard.ops->partitioned)
		return streamext_stream_topic(w->shard.config, w->shard.slot->counted.partitions[index].topic);
	return w->shard.config->from.tag;
}

/* The topic that a letter has is a partition's; where topics change only the part of UNION ALL is told by it. */
static bool
reread_is_topic(const Worker *w, int index, const char *topic)
{
	const char *own = letters_topic(w, index);
	Size		size = own == NULL ? 0 : strlen(own);

	if (w->shard.ops->partitioned)
		return strcmp(own, topic) == 0;
	return strlen(topic) >= size && (size == 0 || strcmp(topic + strlen(topic) - size, own) == 0);
}

int
streamext_letters_partition(const Worker *w, const char *topic, int32 partition)
{
	for (int i = 0; i < w->shard.npartitions; i++)
		if (w->shard.slot->counted.partitions[i].partition == partition && reread_is_topic(w, i, topic))
			return i;
	return -1;
}

int64
streamext_letters_begin(const Worker *w, const ViewSlot *view, int index)
{
	return Max(w->shard.slot->counted.partitions[index].begin,
			   w->shard.ops->replayable ? -1 : view->counted.start_position);
}

const char *
streamext_letters_ahead(Worker *w, const StreamRecord *record)
{
	StringInfoData done;
	ListCell	  *lc;
	int			   n = 0;

	foreach (lc, w->shard.views)
	{
		const WorkerView *v = lfirst(lc);

		if (record->partition_index >= v->slot->counted.npositions ||
			v->slot->counted.positions[record->partition_index] <= record->position)
			continue;
		if (n++ == 0)
		{
			MemoryContext old = MemoryContextSwitchTo(w->reading.batch->cxt);

			initStringInfo(&done);
			MemoryContextSwitchTo(old);
		}
		appendStringInfo(&done, "%c%u", n == 1 ? '{' : ',', v->viewoid);
	}
	if (n == 0)
		return NULL;
	appendStringInfoChar(&done, '}');
	return done.data;
}

/* ---------------------------------------------------------------- what the batch passes */

/* Where views stood, by partition of the slot: of the batch's own views, and of all. */
typedef struct RereadView
{
	Oid	   viewoid;
	bool   moves;
	int64 *positions;
	int64 *begins;
} RereadView;

typedef struct Reread
{
	int			n; /* partitions that are passed */
	int		   *indexes;
	int64	   *first;
	int64	   *next;
	int			nviews;
	RereadView *views;
} Reread;

/* Views that the batch moves are those of this process which run. */
static bool
reread_moves(const WorkerView *v)
{
	return v->fold != NULL && !v->paused;
}

static bool
reread_is_needed(const Worker *w)
{
	ListCell *lc;

	if (w->shard.catchup || !w->letters.behind)
		return true;
	foreach (lc, w->shard.views)
		if (((const WorkerView *) lfirst(lc))->behind)
			return true;
	return false;
}

static int64
reread_position(const ViewSlot *view, int index)
{
	return index < view->counted.npositions ? view->counted.positions[index] : -1;
}

/* False: no view of this process moves. In the current memory context. */
static bool
reread_range(const Worker *w, Reread *r)
{
	const Batch *batch = w->reading.batch;
	ListCell	*lc;

	memset(r, 0, sizeof(*r));
	r->indexes = palloc(sizeof(int) * Max(batch->npartitions, 1));
	r->first = palloc(sizeof(int64) * Max(batch->npartitions, 1));
	r->next = palloc(sizeof(int64) * Max(batch->npartitions, 1));
	streamext_stream_lock_shared(w->shard.slot);
	for (int i = 0; i < Min(batch->npartitions, w->shard.slot->counted.npartitions); i++)
	{
		/* the stream's own letters, where there is no view that counts */
		int64 first = w->shard.catchup ? PG_INT64_MAX : w->shard.slot->counted.partitions[i].position;

		foreach (lc, w->shard.views)
			if (reread_moves(lfirst(lc)))
				first = Min(first, reread_position(((const WorkerView *) lfirst(lc))->slot, i));
		if (first >= batch->positions[i])
			continue;
		r->indexes[r->n] = i;
		r->first[r->n] = first;
		r->next[r->n++] = batch->positions[i];
	}
	LWLockRelease(w->shard.slot->lock);
	return r->n > 0;
}

/* All views of the stream, as they stand now. */
static void
reread_views(const Worker *w, Reread *r)
{
	const Batch *batch = w->reading.batch;
	ListCell	*lc;

	r->views = palloc0(sizeof(RereadView) * streamext_shared->nviews);
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	streamext_stream_lock_shared(w->shard.slot);
	for (int s = 0; s < streamext_shared->nviews; s++)
	{
		const ViewSlot *slot = &streamext_shared->views[s];
		RereadView	   *view = &r->views[r->nviews];

		if (!slot->id.in_use || slot->id.retained || slot->id.stream != w->shard.index)
			continue;
		view->viewoid = slot->id.viewoid;
		view->positions = palloc(sizeof(int64) * Max(batch->npartitions, 1));
		view->begins = palloc(sizeof(int64) * Max(batch->npartitions, 1));
		for (int i = 0; i < batch->npartitions; i++)
		{
			view->positions[i] = reread_position(slot, i);
			view->begins[i] = i < w->shard.slot->counted.npartitions ? streamext_letters_begin(w, slot, i) : -1;
		}
		foreach (lc, w->shard.views)
			view->moves = view->moves || (((const WorkerView *) lfirst(lc))->slot == slot && reread_moves(lfirst(lc)));
		r->nviews++;
	}
	LWLockRelease(w->shard.slot->lock);
	LWLockRelease(streamext_shared->registry_lock);
}

/* Within SPI: the letters in the ranges, of a snapshot taken now. */
static void
reread_select(const Worker *w, const Reread *r)
{
	static const Oid element[] = { INT4OID, TEXTOID, INT4OID, INT8OID, INT8OID };
	Oid				 types[6] = { OIDOID, INT4ARRAYOID, TEXTARRAYOID, INT4ARRAYOID, INT8ARRAYOID, INT8ARRAYOID };
	Datum			 args[6] = { ObjectIdGetDatum(w->shard.identity.relid) };
	Datum			*values[lengthof(element)];
	bool			*nulls = palloc0(sizeof(bool) * r->n);
	bool			*topic_nulls = palloc0(sizeof(bool) * r->n);
	SPIPlanPtr		 plan;

	for (int c = 0; c < lengthof(element); c++)
		values[c] = palloc(sizeof(Datum) * r->n);
	for (int i = 0; i < r->n; i++)
	{
		const char *topic = letters_topic(w, r->indexes[i]);

		values[0][i] = Int32GetDatum(r->indexes[i]);
		values[1][i] = topic == NULL ? (Datum) 0 : CStringGetTextDatum(topic);
		topic_nulls[i] = topic == NULL;
		values[2][i] = Int32GetDatum(w->shard.slot->counted.partitions[r->indexes[i]].partition);
		values[3][i] = Int64GetDatum(r->first[i]);
		values[4][i] = Int64GetDatum(r->next[i]);
	}
	for (int c = 0; c < lengthof(element); c++)
		args[c + 1] = streamext_dead_letter_array(values[c], c == 1 ? topic_nulls : nulls, r->n, element[c]);
	plan = streamext_own_plan(&reread_select_plan, reread_select_sql, 6, types);
	if (SPI_execute_plan(plan, args, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext_internal.dead_letter");
}

/* Within SPI: whether letters are left of records that the stream has still to read. */
static bool
reread_is_behind(const Worker *w)
{
	Oid	   types[3] = { OIDOID, INT4ARRAYOID, INT8ARRAYOID };
	Datum  args[3] = { ObjectIdGetDatum(w->shard.identity.relid) };
	int	   n = w->reading.batch->npartitions;
	Datum *numbers = palloc(sizeof(Datum) * Max(n, 1));
	Datum *positions = palloc(sizeof(Datum) * Max(n, 1));
	bool  *nulls = palloc0(sizeof(bool) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		numbers[i] = Int32GetDatum(w->shard.slot->counted.partitions[i].partition);
		positions[i] =
			Int64GetDatum(Max(w->reading.batch->positions[i], w->shard.slot->counted.partitions[i].position));
	}
	args[1] = streamext_dead_letter_array(numbers, nulls, n, INT4OID);
	args[2] = streamext_dead_letter_array(positions, nulls, n, INT8OID);
	if (SPI_execute_with_args(streamext_own_sql(reread_behind_sql), 3, types, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext_internal.dead_letter");
	return SPI_processed > 0;
}

/* ---------------------------------------------------------------- one letter */

/* The stream's rejections: none has a letter, until one is found. */
static void
reread_begin_rejections(const Batch *batch)
{
	ListCell *lc;

	foreach (lc, batch->rejected)
	{
		RejectedRecord *rejected = lfirst(lc);

		rejected->unlettered = rejected->view == InvalidOid;
	}
}

/* Whether the batch holds the letter's record and the stream rejects it. */
static bool
reread_is_rejected(const Batch *batch, int index, int64 position)
{
	ListCell *lc;

	foreach (lc, batch->rejected)
	{
		RejectedRecord	   *rejected = lfirst(lc);
		const StreamRecord *record = &batch->records[rejected->record];

		if (rejected->view != InvalidOid || record->partition_index != index || record->position != position)
			continue;
		rejected->unlettered = false;
		return true;
	}
	return false;
}

/* Of the stream's letters: *done as it is to be. False: it is that already. *owed: some view has rejected the record and not counted it. */
static bool
reread_done(const Reread *r, int index, int64 position, bool rejected, List **done, bool *owed)
{
	bool changed = false;

	*owed = rejected;
	for (int i = 0; i < r->nviews; i++)
	{
		const RereadView *view = &r->views[i];
		bool			  named = list_member_oid(*done, view->viewoid);

		if (view->positions[index] > position)
			*owed = *owed || (!named && position >= view->begins[index]);
		else if (view->moves && named == rejected)
		{
			*done = rejected ? list_delete_oid(*done, view->viewoid) : lappend_oid(*done, view->viewoid);
			changed = true;
		}
	}
	return changed;
}

/* A letter of a view that is behind it, or of one that is no more. */
static bool
reread_is_void(const Reread *r, Oid viewoid, int index, int64 position)
{
	for (int i = 0; i < r->nviews; i++)
		if (r->views[i].viewoid == viewoid)
			return r->views[i].moves && r->views[i].positions[index] <= position;
	return false;
}

static Datum
reread_put_done(const List *done)
{
	StringInfoData text;
	ListCell	  *lc;

	initStringInfo(&text);
	foreach (lc, done)
		appendStringInfo(&text, "%s%u", lc == list_head(done) ? "" : ",", lfirst_oid(lc));
	return CStringGetTextDatum(psprintf("{%s}", text.data));
}

/* Within SPI, after reread_select. */
static void
reread_apply(Worker *w, Reread *r)
{
	uint64		   n = SPI_processed;
	SPITupleTable *found = SPI_tuptable;
	Datum		  *gone = palloc(sizeof(Datum) * Max(n, 1));
	Datum		  *ids = palloc(sizeof(Datum) * Max(n, 1));
	Datum		  *lists = palloc(sizeof(Datum) * Max(n, 1));
	bool		  *nulls = palloc0(sizeof(bool) * Max(n, 1));
	Oid			   types[2] = { INT8ARRAYOID, TEXTARRAYOID };
	Datum		   args[2];
	int			   ngone = 0;
	int			   nids = 0;

	reread_views(w, r);
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple tuple = found->vals[i];
		TupleDesc desc = found->tupdesc;
		bool	  isnull;
		Datum	  id = Int64GetDatum(DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull)));
		Oid		  viewoid = DatumGetObjectId(SPI_getbinval(tuple, desc, 2, &isnull));
		int64	  position = DatumGetInt64(SPI_getbinval(tuple, desc, 3, &isnull));
		int		  index = DatumGetInt32(SPI_getbinval(tuple, desc, 5, &isnull));
		List	 *done;
		bool	  owed;

		if (OidIsValid(viewoid))
		{
			if (reread_is_void(r, viewoid, index, position))
				gone[ngone++] = id;
			continue;
		}
		done = streamext_dead_letter_done(SPI_getbinval(tuple, desc, 4, &isnull));
		if (reread_done(r, index, position, reread_is_rejected(w->reading.batch, index, position), &done, &owed) &&
			owed)
		{
			ids[nids] = id;
			lists[nids++] = reread_put_done(done);
		}
		if (!owed)
			gone[ngone++] = id;
	}
	args[0] = streamext_dead_letter_array(gone, nulls, ngone, INT8OID);
	if (ngone > 0 &&
		SPI_execute_with_args(streamext_own_sql(reread_delete_sql), 1, types, args, NULL, false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete from streamext_internal.dead_letter");
	args[0] = streamext_dead_letter_array(ids, nulls, nids, INT8OID);
	args[1] = streamext_dead_letter_array(lists, nulls, nids, TEXTOID);
	if (nids > 0 &&
		SPI_execute_with_args(streamext_own_sql(reread_done_sql), 2, types, args, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update streamext_internal.dead_letter");
}

/* ---------------------------------------------------------------- when */

static bool
reread_run(Worker *w, Reread *r)
{
	IdentityScope own;
	bool		  locked = false;

	if (!OidIsValid(streamext_control_table("dead_letter")))
		return false;
	own = streamext_own_begin();
	reread_begin_rejections(w->reading.batch);
	reread_select(w, r);
	if (SPI_processed > 0)
	{
		/* as they are once nobody else is at them */
		(void) streamext_dead_letters_lock(w->shard.identity.relid, true);
		reread_select(w, r);
		reread_apply(w, r);
		locked = true;
	}
	if (!w->shard.catchup && !w->letters.behind)
		w->letters.behind = !reread_is_behind(w);
	streamext_own_end(own);
	return locked;
}

bool
streamext_letters_reread(Worker *w)
{
	MemoryContext old;
	Reread		  r;
	bool		  written = false;

	if (!reread_is_needed(w))
		return false;
	old = MemoryContextSwitchTo(w->reading.batch->cxt);
	if (reread_range(w, &r))
		written = reread_run(w, &r);
	MemoryContextSwitchTo(old);
	return written;
}

void
streamext_letters_passed(Worker *w)
{
	MemoryContext old;
	Reread		  r;

	if (!reread_is_needed(w))
		return;
	old = MemoryContextSwitchTo(w->reading.batch->cxt);
	if (reread_range(w, &r))
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		MemoryContextSwitchTo(w->reading.batch->cxt);
		(void) reread_run(w, &r);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	MemoryContextSwitchTo(old);
}

void
streamext_letters_leave(Worker *w, int64 seek)
{
	IdentityScope own;
	Oid			  types[3] = { OIDOID, INT8OID, INT4ARRAYOID };
	Datum		  args[3] = { ObjectIdGetDatum(w->shard.identity.relid), Int64GetDatum(seek) };
	MemoryContext old = CurrentMemoryContext;
	int			  n = w->shard.slot->counted.npartitions;
	Datum		 *numbers;
	bool		 *nulls;

	StartTransactionCommand();
	(void) streamext_dead_letters_lock(w->shard.identity.relid, true);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(streamext_control_table("dead_letter")))
	{
		numbers = palloc(sizeof(Datum) * Max(n, 1));
		nulls = palloc0(sizeof(bool) * Max(n, 1));
		for (int i = 0; i < n; i++)
			numbers[i] = Int32GetDatum(w->shard.slot->counted.partitions[i].partition);
		args[2] = streamext_dead_letter_array(numbers, nulls, n, INT4OID);
		own = streamext_own_begin();
		if (SPI_execute_with_args(streamext_own_sql(reread_leave_sql), 3, types, args, NULL, false, 0) != SPI_OK_UPDATE)
			elog(ERROR, "could not update streamext_internal.dead_letter");
		streamext_own_end(own);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}
