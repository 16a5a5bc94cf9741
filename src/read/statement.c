/*
 * read/statement.c
 *		What a statement reads of continuous views: private copies of their panes, all of one moment.
 *
 * The first scan that begins walks the whole plan and copies what every scan in it wants with all their streams' locks
 * held (registry_lock shared, then the streams' locks in the order of their slots; registry_lock keeps the slots' identity
 * while the locks are gathered). What is copied hangs on the statement's EState and goes with its memory. A look-up whose
 * values are known by then copies only the groups with its hash; all other scans of a view share one copy.
 *
 * Sealed panes are in history: up to the mark that was noted with the copies they are read from there, under one snapshot
 * for the statement that is taken when the locks are released. See history_read.c.
 *
 * A slot whose state is laid out for another definition than the one that was compiled here counts as empty. What a view
 * held before it was begun anew is read in its place until it has caught up (sql/rebuild.c). Where no worker has restored a
 * shard, or can (on a standby), the last checkpoint takes the place of memory (durable/checkpoint_read.c).
 */
#include "postgres.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "durable/checkpoint_read.h"
#include "shared/clock.h"
#include "view/closing.h"
#include "shared/shmem.h"
#include "read/scan.h"
#include "read/whole.h"

/* Streams of one statement whose locks are held together; PostgreSQL allows 200 at once. */
#define READ_MAX_STREAMS 128

typedef struct StatementRead
{
	struct StatementRead *next;
	EState				 *estate;
	MemoryContext		  cxt; /* goes with the estate's */
	MemoryContextCallback gone;
	TimestampTz			  now;
	List				 *views; /* ViewRead */
	List				 *scans; /* ScanRead */
	WholeRead			 *whole; /* a whole view outside of a query: noted with its copies; else NULL */
} StatementRead;

/* Statements of this process that read continuous views now. */
static StatementRead *read_statements = NULL;

/* ---- the statement's moment ---- */

static void
statement_gone(void *arg)
{
	StatementRead **link = &read_statements;

	while (*link != NULL && *link != arg)
		link = &(*link)->next;
	if (*link != NULL)
		*link = (*link)->next;
}

static ViewRead *
statement_view(StatementRead *statement, Oid viewoid)
{
	ViewRead *read;
	ListCell *lc;

	foreach (lc, statement->views)
	{
		read = lfirst(lc);
		if (read->view->relid == viewoid)
			return read;
	}
	read = palloc0(sizeof(ViewRead));
	read->view = streamext_view_cached(viewoid, statement->cxt);
	read->matcher = streamext_key_matcher(read->view, statement->cxt);
	streamext_read_sliding_range(read->view, statement->now, &read->first, &read->last);
	read->min = PG_INT64_MAX;
	read->max = PG_INT64_MIN;
	read->floor = read->sealed_until = DT_NOBEGIN;
	streamext_read_limit_windows(read);
	read->changed = streamext_changed_take(viewoid);
	statement->views = lappend(statement->views, read);
	return read;
}

/* What is known of a scan's look-up and bounds before anything runs. */
static void
statement_evaluate(StatementRead *statement, ScanRead *scan)
{
	ExprContext *econtext = CreateExprContext(statement->estate);
	Datum		 values[STREAMEXT_MAX_KEYS];
	bool		 nulls[STREAMEXT_MAX_KEYS];
	ListCell	*lc, *lc2;

	scan->by_hash =
		scan->prune.keys != NIL && streamext_read_known(statement->estate, econtext, scan->prune.values, values, nulls);
	if (scan->by_hash)
		scan->probe = streamext_read_probe(scan, values, nulls);
	forboth (lc, scan->prune.strategies, lc2, scan->prune.bounds)
	{
		List *bound = list_make1(lfirst(lc2));
		bool  isnull;
		Datum value;

		if (streamext_read_known(statement->estate, econtext, bound, &value, &isnull) && !isnull)
			streamext_read_narrow(scan->read->view, lfirst_int(lc), DatumGetTimestampTz(value), &scan->min, &scan->max);
	}
	FreeExprContext(econtext, true);
}

/* True if each group of a pane is a row, and all are wanted: then history need not be copied first. */
static bool
scan_reads_in_order(const ScanRead *scan)
{
	const Window *window = &scan->read->view->window;

	return !scan->by_hash && scan->prune.keys == NIL && !scan->read->view->keys_change &&
		   streamext_window_has_ends(window) && window->kind != WINDOW_HOP && !scan->read->view->has_totals;
}

static void
statement_add_scan(StatementRead *statement, const CustomScan *plan)
{
	ScanRead *scan = palloc0(sizeof(ScanRead));

	scan->plan = plan;
	scan->prune = streamext_scan_plan_load(plan);
	scan->read = statement_view(statement, scan->prune.view);
	scan->min = scan->read->first;
	scan->max = scan->read->last;
	statement_evaluate(statement, scan);
	if (!scan->by_hash)
	{
		scan->read->whole = true;
		scan->read->preload = scan->read->preload || !scan_reads_in_order(scan);
		scan->read->min = Min(scan->read->min, scan->min);
		scan->read->max = Max(scan->read->max, scan->max);
	}
	statement->scans = lappend(statement->scans, scan);
}

static void statement_walk_plans(StatementRead *statement, const List *plans);

static void
statement_walk(StatementRead *statement, const Plan *plan)
{
	if (plan == NULL)
		return;
	check_stack_depth();
	switch (nodeTag(plan))
	{
		case T_CustomScan:
			if (streamext_scan_reads_view((const CustomScan *) plan))
				statement_add_scan(statement, (const CustomScan *) plan);
			statement_walk_plans(statement, ((const CustomScan *) plan)->custom_plans);
			break;
		case T_SubqueryScan:
			statement_walk(statement, ((const SubqueryScan *) plan)->subplan);
			break;
		case T_Append:
			statement_walk_plans(statement, ((const Append *) plan)->appendplans);
			break;
		case T_MergeAppend:
			statement_walk_plans(statement, ((const MergeAppend *) plan)->mergeplans);
			break;
		default:
			break;
	}
	statement_walk(statement, plan->lefttree);
	statement_walk(statement, plan->righttree);
}

static void
statement_walk_plans(StatementRead *statement, const List *plans)
{
	ListCell *lc;

	foreach (lc, plans)
		statement_walk(statement, lfirst(lc));
}

/* Notes the streams whose views are wanted; registry_lock is held. */
static int
statement_find_streams(StatementRead *statement, bool *wanted)
{
	int n = 0;

	for (int i = 0; i < streamext_shared->views_end; i++)
	{
		const ViewSlot *slot = &streamext_shared->views[i];
		ListCell	   *lc;

		if (!slot->id.in_use || slot->id.retained || slot->id.dboid != MyDatabaseId)
			continue;
		foreach (lc, statement->views)
		{
			if (((ViewRead *) lfirst(lc))->view->relid != slot->id.viewoid || wanted[slot->id.stream])
				continue;
			wanted[slot->id.stream] = true;
			n++;
		}
	}
	return n;
}

static void
statement_raise_floor(ViewRead *read, TimestampTz floor)
{
	if (streamext_window_has_ends(&read->view->window))
		read->floor = Max(read->floor, floor);
}

/* By which windows and sessions are beyond retention; the slot's stream's lock is held. */
static TimestampTz
statement_limit(const ViewRead *read, const ViewSlot *slot)
{
	return streamext_into_limit(read->view, slot->into.gives, slot->into.written,
								streamext_shared->streams[slot->id.stream].counted.watermark);
}

/* Windows that end by then are left out; the slot's stream's lock is held. */
static void
statement_note_floor(ViewRead *read, const ViewSlot *slot)
{
	statement_raise_floor(read,
						  Max(streamext_fold_floor(read->view, statement_limit(read, slot)), slot->history.floor));
}

/* What history has of the slot; its stream's lock is held. */
static void
statement_note_history(ViewRead *read, const ViewSlot *slot)
{
	HistoryMark *mark = &read->shards[read->nshards++];

	mark->history = slot->history.number;
	mark->shard = slot->history.shard;
	mark->sealed = streamext_changed_by_group(read) ? PG_INT64_MIN : slot->history.sealed;
	mark->checkpointed = false;
	read->sealed_until = Max(read->sealed_until, slot->history.sealed_until);
	statement_note_floor(read, slot);
}

/* Retention is told by the watermark: the state's own horizon follows when its panes go. */
static void
statement_add_copy(StatementRead *statement, CopyArray *copies, StateCopy *copy, TimestampTz horizon)
{
	copy->horizon = Max(copy->horizon, horizon);
	streamext_copy_array_add(copies, copy, statement->cxt);
}

/* Copies what the view's scans want of one shard's state; sessions that end by `horizon` are left out. */
static void
statement_copy_state(StatementRead *statement, ViewRead *read, const ViewState *state, TimestampTz horizon)
{
	ListCell *lc;

	if (streamext_changed_by_group(read) && read->min <= read->max)
		statement_add_copy(statement, &read->copies,
						   streamext_state_copy_hashes(state, read->min, read->max, read->changed->groups->hashes,
													   read->changed->groups->nhashes, statement->cxt),
						   horizon);
	else if (read->whole && read->min <= read->max)
		statement_add_copy(statement, &read->copies, streamext_state_copy(state, read->min, read->max, statement->cxt),
						   horizon);
	foreach (lc, statement->scans)
	{
		ScanRead *scan = lfirst(lc);

		if (scan->read == read && scan->by_hash && !scan->probe.none && scan->min <= scan->max)
			statement_add_copy(
				statement, &scan->own,
				streamext_state_copy_hashes(state, scan->min, scan->max, &scan->probe.hash, 1, statement->cxt),
				horizon);
	}
}

/* Copies what the scans want of one slot; its stream's lock is held. */
static void
statement_copy_slot(StatementRead *statement, const ViewSlot *slot)
{
	ListCell *lc;

	foreach (lc, statement->views)
	{
		ViewRead	   *read = lfirst(lc);
		const ViewSlot *content =
			read->view->relid == slot->id.viewoid ? streamext_view_content(slot, read->view) : NULL;

		/* not ready: the checkpoint has more */
		if (read->view->relid != slot->id.viewoid || (!slot->counted.ready && (content == NULL || content == slot)))
			continue;
		read->settled[slot->id.shard] = true;
		if (content == NULL)
			continue;
		statement_note_history(read, content);
		statement_copy_state(statement, read, &content->counted.state,
							 streamext_session_horizon(read->view, statement_limit(read, content)));
		if (statement->whole != NULL)
			streamext_whole_note(statement->whole, &streamext_shared->streams[slot->id.stream], slot, content);
	}
}

/* The same of the last checkpoint of one shard. */
static void
statement_copy_checkpoint(StatementRead *statement, ViewRead *read, CheckpointReader *reader, int shard)
{
	CheckpointedView found;
	HistoryMark		*mark;

	if (!streamext_checkpoint_read_view(reader, read->view, shard, &found))
		return;
	mark = &read->shards[read->nshards++];
	mark->history = found.view->head.history;
	mark->shard = found.view->head.history_shard;
	mark->sealed = found.view->head.sealed;
	mark->checkpointed = true;
	read->sealed_until = Max(read->sealed_until, found.view->head.sealed_until);
	statement_raise_floor(read, streamext_fold_floor(read->view, found.position->head.watermark));
	statement_copy_state(statement, read, found.state,
						 streamext_session_horizon(read->view, found.position->head.watermark));
	if (statement->whole != NULL)
		streamext_whole_note_checkpoint(statement->whole, found.position, found.view);
}

/* Shards that shared memory has nothing to say of: it is a standby, or no worker has restored them yet. */
static void
statement_copy_checkpoints(StatementRead *statement)
{
	CheckpointReader *reader = NULL;
	ListCell		 *lc;

	foreach (lc, statement->views)
	{
		ViewRead *read = lfirst(lc);
		int		  n = streamext_checkpoint_shards(read->view->stream_relid);

		for (int shard = 0; shard < n; shard++)
		{
			if (read->settled[shard])
				continue;
			if (reader == NULL)
				reader = streamext_checkpoint_reader();
			statement_copy_checkpoint(statement, read, reader, shard);
		}
	}
	if (reader != NULL)
		streamext_checkpoint_reader_end(reader);
	else
		streamext_checkpoint_read_forget();
}

/* Of a view that is read again, what may have changed; before anything is copied, and with the same locks. */
static void
statement_find_changed(StatementRead *statement, ViewRead *read, int shards)
{
	ScanRead *only = NULL;
	int		  n = 0;
	ListCell *lc;

	foreach (lc, statement->scans)
		if (((ScanRead *) lfirst(lc))->read == read)
		{
			only = lfirst(lc);
			n++;
		}
	streamext_changed_begin(read, n == 1 && !only->by_hash && only->prune.keys == NIL, shards);
	if (read->changed->whole)
		return;
	only->min = read->min = Max(read->min, read->first);
	only->max = read->max = Min(read->max, read->last);
}

/* All copies of the statement, at one moment. */
static void
statement_copy(StatementRead *statement)
{
	bool	 *wanted = palloc0(sizeof(bool) * streamext_shared->nstreams);
	ViewRead *changed = NULL;
	int		  shards = 0;
	int		  n;
	ListCell *lc;

	foreach (lc, statement->views)
		if (((ViewRead *) lfirst(lc))->changed != NULL)
		{
			changed = lfirst(lc);
			shards = streamext_checkpoint_shards(changed->view->stream_relid);
		}
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	n = statement_find_streams(statement, wanted);
	if (n > READ_MAX_STREAMS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("a statement can read the continuous views of at most %d streams", READ_MAX_STREAMS)));
	for (int s = 0; s < streamext_shared->streams_end; s++)
		if (wanted[s])
			streamext_stream_lock_shared(&streamext_shared->streams[s]);
	if (changed != NULL)
		statement_find_changed(statement, changed, shards);
	for (int i = 0; i < streamext_shared->views_end; i++)
	{
		const ViewSlot *slot = &streamext_shared->views[i];

		if (slot->id.in_use && !slot->id.retained && slot->id.dboid == MyDatabaseId && wanted[slot->id.stream])
			statement_copy_slot(statement, slot);
	}
	for (int s = streamext_shared->streams_end - 1; s >= 0; s--)
		if (wanted[s])
			LWLockRelease(streamext_shared->streams[s].lock);
	LWLockRelease(streamext_shared->registry_lock);
	statement_copy_checkpoints(statement);

	foreach (lc, statement->scans)
	{
		ScanRead *scan = lfirst(lc);

		scan->copies = scan->by_hash ? &scan->own : &scan->read->copies;
	}
	pfree(wanted);
}

/* ---- history ---- */

static bool
read_has_history(const ViewRead *read)
{
	for (int i = 0; i < read->nshards; i++)
		if (read->shards[i].history != 0 && read->shards[i].sealed != PG_INT64_MIN)
			return true;
	return false;
}

/* Several shards may have a group each in a pane: they are put together from copies. */
static bool
read_wants_copies(const ViewRead *read)
{
	return read->whole && (read->preload || read->nshards > 1) && read_has_history(read);
}

static bool
scan_wants_copies(const ScanRead *scan)
{
	return scan->by_hash && !scan->probe.none && read_has_history(scan->read);
}

/* What the snapshot does not see any more is left out as a whole: the floor rises before retention takes anything. */
static void
statement_raise_floors(StatementRead *statement, HistoryReader *reader)
{
	ListCell *lc;

	foreach (lc, statement->views)
	{
		ViewRead *read = lfirst(lc);

		for (int i = 0; i < read->nshards; i++)
			if (read->shards[i].checkpointed)
				statement_raise_floor(read, streamext_history_floor(reader, read->view->relid, read->shards[i].shard));
	}
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->views_end; i++)
	{
		const ViewSlot *slot = &streamext_shared->views[i];

		if (!slot->id.in_use || slot->id.retained || slot->id.dboid != MyDatabaseId)
			continue;
		foreach (lc, statement->views)
		{
			ViewRead	   *read = lfirst(lc);
			const ViewSlot *content;

			if (read->view->relid != slot->id.viewoid)
				continue;
			streamext_stream_lock_shared(&streamext_shared->streams[slot->id.stream]);
			content = streamext_view_content(slot, read->view);
			if (content != NULL)
				statement_note_floor(read, content);
			LWLockRelease(streamext_shared->streams[slot->id.stream].lock);
		}
	}
	LWLockRelease(streamext_shared->registry_lock);
}

/* A reader with the snapshot that the statement has already, if it has one. */
static HistoryReader *
statement_open_history(StatementRead *statement)
{
	MemoryContext  old = MemoryContextSwitchTo(statement->cxt);
	HistoryReader *reader = NULL;
	ListCell	  *lc;

	foreach (lc, statement->scans)
		if (((ScanRead *) lfirst(lc))->history != NULL)
			reader = ((ScanRead *) lfirst(lc))->history;
	if (reader != NULL)
		reader = streamext_history_open(reader);
	else
	{
		reader = streamext_history_open(NULL);
		statement_raise_floors(statement, reader);
	}
	MemoryContextSwitchTo(old);
	return reader;
}

/* Adds slices to the copies of memory, each pane up to the mark that was noted with them. */
static void
statement_read_history(StatementRead *statement)
{
	HistoryReader *reader = NULL;
	ListCell	  *lc;

	foreach (lc, statement->views)
	{
		ViewRead *read = lfirst(lc);

		if (!read_wants_copies(read))
			continue;
		if (reader == NULL)
			reader = statement_open_history(statement);
		for (int i = 0; i < read->nshards; i++)
			streamext_history_read(reader, read->view, read->matcher, &read->shards[i], read->min, read->max, NULL,
								   &read->copies, &read->stats, statement->cxt);
	}
	foreach (lc, statement->scans)
	{
		ScanRead	   *scan = lfirst(lc);
		const ViewRead *read = scan->read;

		if (!scan_wants_copies(scan))
			continue;
		if (reader == NULL)
			reader = statement_open_history(statement);
		for (int i = 0; i < read->nshards; i++)
			streamext_history_read(reader, read->view, read->matcher, &read->shards[i], scan->min, scan->max,
								   &scan->probe.bucket, &scan->own, &scan->stats, statement->cxt);
	}
	if (reader != NULL)
		streamext_history_close(reader);
}

/* The statement that runs in this EState; its copies are made when the first scan of it begins. */
static StatementRead *
statement_of(EState *estate)
{
	StatementRead *statement;
	MemoryContext  cxt, old;

	for (statement = read_statements; statement != NULL; statement = statement->next)
		if (statement->estate == estate)
			return statement;

	cxt = AllocSetContextCreate(estate->es_query_cxt, "streamext continuous views", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	statement = palloc0(sizeof(StatementRead));
	statement->estate = estate;
	statement->cxt = cxt;
	statement->now = streamext_clock_statement();
	statement_walk(statement, estate->es_plannedstmt->planTree);
	statement_walk_plans(statement, estate->es_plannedstmt->subplans);
	statement_copy(statement);
	statement_read_history(statement);

	statement->gone.func = statement_gone;
	statement->gone.arg = statement;
	MemoryContextRegisterResetCallback(cxt, &statement->gone);
	statement->next = read_statements;
	read_statements = statement;
	MemoryContextSwitchTo(old);
	return statement;
}

ScanRead *
streamext_read_begin(EState *estate, const CustomScan *plan)
{
	StatementRead *statement = statement_of(estate);
	ListCell	  *lc;

	foreach (lc, statement->scans)
	{
		ScanRead *scan = lfirst(lc);

		if (scan->plan != plan)
			continue;
		if (scan->history == NULL && !scan->by_hash && read_has_history(scan->read) && !read_wants_copies(scan->read))
			scan->history = statement_open_history(statement);
		if (scan->read->changed != NULL)
			scan->read->changed->now.floor = scan->read->floor;
		return scan;
	}
	elog(ERROR, "scan of a continuous view is not part of its statement");
	return NULL; /* keep the compiler quiet */
}

/* ---- outside of a query ---- */

void
streamext_statement_whole(Oid viewoid, WholeRead *whole)
{
	StatementRead statement = { .cxt = CurrentMemoryContext, .now = streamext_clock_statement(), .whole = whole };
	ViewRead	 *read = statement_view(&statement, viewoid);

	whole->read = read;
	read->whole = read->preload = true;
	read->min = PG_INT64_MIN;
	read->max = PG_INT64_MAX;
	statement_copy(&statement);
	statement_read_history(&statement);
}
