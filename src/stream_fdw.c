/*
 * stream_fdw.c
 *		Streams as foreign tables: SELECT reads what the stream's buffer holds, INSERT and COPY put rows into local streams.
 *
 * A scan takes private copies of the buffers (one a shard) and decodes them at executor start, before a plan may enter parallel
 * mode, where the decoder's subtransactions are not allowed. It shows the moment the statement starts.
 *
 * Inserted rows wait in a spool of the transaction, one for each stream (and row type, should that change on the way); rows
 * of subtransactions that roll back are passed over. At PRE_COMMIT they are appended to the stream's journal with the
 * transaction's id; the worker counts them once the transaction has committed, so they come with the commit or not at all. Before
 * that, WAL with the id is flushed: otherwise a crash could give the same id to another transaction, whose commit would bring
 * our rows to life.
 *
 * Locks: journal_lock of the slot for each piece of about 1 MB, never longer. Before a stream has a slot (made in the same transaction, or
 * streamext.max_streams is reached) registry_lock takes its place: no slot can appear meanwhile.
 */
#include "streamext.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "commands/defrem.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "executor/executor.h"
#include "foreign/fdwapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "replication/message.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "batch.h"
#include "buffer.h"
#include "clock.h"
#include "connector.h"
#include "decoder.h"
#include "hooks.h"
#include "journal.h"
#include "checkpoint_read.h"
#include "options.h"
#include "shmem.h"

#define SCAN_ROWS_ESTIMATE	1000

#define SPOOL_PIECE_BYTES	(1024 * 1024)	/* appended under one hold of the lock */
#define SPOOL_PIECE_ROWS	8192
#define SPOOL_HANDLES		8		/* journals kept open by a backend */

/* ---- scan ---- */

typedef struct StreamScan
{
	Tuplestorestate *rows;		/* NULL: not loaded yet */
	TupleTableSlot *row;
} StreamScan;

static void
scan_rel_size(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	streamext_scan_check_stream(root, relid);
	baserel->tuples = SCAN_ROWS_ESTIMATE;
	set_baserel_size_estimates(root, baserel);
}

static void
scan_paths(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	/* All is decoded before the first row comes. */
	Cost		startup = baserel->tuples * 10 * cpu_tuple_cost + baserel->baserestrictcost.startup;
	Cost		total = startup + baserel->tuples * (cpu_tuple_cost + baserel->baserestrictcost.per_tuple);

	add_path(baserel, (Path *)
			 create_foreignscan_path(root, baserel, NULL, baserel->rows,
#if PG_VERSION_NUM >= 180000
									 0, /* disabled_nodes */
#endif
									 startup, total, NIL, baserel->lateral_relids, NULL,
#if PG_VERSION_NUM >= 170000
									 NIL,	/* fdw_restrictinfo */
#endif
									 NIL));
}

static ForeignScan *
scan_plan(PlannerInfo *root, RelOptInfo *baserel, Oid relid, ForeignPath *path, List *tlist, List *clauses, Plan *outer_plan)
{
	return make_foreignscan(tlist, extract_actual_clauses(clauses, false), baserel->relid,
							NIL, NIL, NIL, NIL, outer_plan);
}

/* A private copy of one shard's buffer, oldest record first; 0: nothing there. */
static int
scan_copy_shard(Oid relid, int shard, StreamRecord **records)
{
	int			index = streamext_find_stream(MyDatabaseId, relid, shard);
	StreamSlot *slot;
	int			n = 0;

	if (index < 0)
		return 0;
	slot = &streamext_shared->streams[index];
	streamext_stream_lock_shared(slot);
	if (slot->in_use && slot->dboid == MyDatabaseId && slot->relid == relid && slot->shard == shard && slot->buffer != NULL)
		n = streamext_buffer_copy(slot->buffer, slot->buffer_lock, records);
	LWLockRelease(slot->lock);
	return n;
}

/* Decodes n records in batches into the tuple store; those that no longer decode are passed over. */
static void
scan_decode(StreamScan *scan, Decoder *decoder, Batch *batch, TupleDesc desc, const StreamRecord *records, int n)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(desc->natts, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(desc->natts, 1));

	/* They were accepted when they came, whatever the clock says now: the far future stands in for it. */
	const TimestampTz now = END_TIMESTAMP / 2;

	for (int done = 0; done < n; done += STREAMEXT_BATCH_ROWS)
	{
		CHECK_FOR_INTERRUPTS();
		streamext_batch_reset(batch);
		batch->nrecords = Min(n - done, STREAMEXT_BATCH_ROWS);
		memcpy(batch->records, records + done, sizeof(StreamRecord) * batch->nrecords);
		streamext_decoder_run(decoder, batch, now);

		for (int row = 0; row < batch->nrows; row++)
		{
			for (int i = 0; i < desc->natts; i++)
			{
				nulls[i] = TupleDescAttr(desc, i)->attisdropped || batch->nulls[i][row];
				values[i] = nulls[i] ? (Datum) 0 : batch->values[i][row];
			}
			tuplestore_putvalues(scan->rows, desc, values, nulls);
		}
	}
}

static void
scan_load(ForeignScanState *node)
{
	StreamScan *scan = node->fdw_state;
	Oid			relid = RelationGetRelid(node->ss.ss_currentRelation);
	TupleDesc	desc = RelationGetDescr(node->ss.ss_currentRelation);
	MemoryContext query_cxt = node->ss.ps.state->es_query_cxt,
				cxt,
				shard_cxt;
	StreamConfig *config;
	Decoder    *decoder;
	Batch	   *batch;
	int			nest_level;

	streamext_require_preload();
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("stream \"%s\" cannot be read during recovery", RelationGetRelationName(node->ss.ss_currentRelation)),
				 errdetail("Its last records are in the memory of the primary server."),
				 errhint("Read its continuous views.")));
	MemoryContextSwitchTo(query_cxt);
	scan->rows = tuplestore_begin_heap(true, false, work_mem);
	scan->row = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	cxt = AllocSetContextCreate(query_cxt, "streamext scan", ALLOCSET_DEFAULT_SIZES);
	shard_cxt = AllocSetContextCreate(cxt, "streamext scan buffer", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cxt);

	config = streamext_stream_config(relid);
	if (config == NULL)
		elog(ERROR, "relation %u is not a stream", relid);
	if (config->desc->natts != desc->natts)
		elog(ERROR, "stream %u has changed during the query", relid);
	nest_level = streamext_decoder_session();
	decoder = streamext_decoder_create(config, cxt);
	batch = streamext_batch_create(config, NULL, cxt);
	MemoryContextSwitchTo(shard_cxt);
	for (int shard = 0; shard < Max(config->workers, 1); shard++)
	{
		StreamRecord *records;
		int			n = scan_copy_shard(relid, shard, &records);

		if (n > 0)
			scan_decode(scan, decoder, batch, desc, records, n);
		MemoryContextReset(shard_cxt);
	}
	streamext_decoder_free(decoder);
	AtEOXact_GUC(true, nest_level);
	MemoryContextSwitchTo(query_cxt);
	MemoryContextDelete(cxt);
}

static void
scan_begin(ForeignScanState *node, int eflags)
{
	MemoryContext caller = CurrentMemoryContext;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	node->fdw_state = MemoryContextAllocZero(node->ss.ps.state->es_query_cxt, sizeof(StreamScan));

	/* A recheck of a locked row sees the row it locked, not the stream: load only if it asks. */
	if (node->ss.ps.state->es_epq_active == NULL)
		scan_load(node);
	MemoryContextSwitchTo(caller);
}

static TupleTableSlot *
scan_iterate(ForeignScanState *node)
{
	StreamScan *scan = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	int			natts = slot->tts_tupleDescriptor->natts;

	/* The caller's context lasts for one tuple, `row` frees its tuple with the next. */
	MemoryContext caller = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);
	bool		found;

	if (scan->rows == NULL)
		scan_load(node);
	ExecClearTuple(slot);
	found = tuplestore_gettupleslot(scan->rows, true, false, scan->row);
	MemoryContextSwitchTo(caller);
	if (!found)
		return slot;
	slot_getallattrs(scan->row);
	memcpy(slot->tts_values, scan->row->tts_values, sizeof(Datum) * natts);
	memcpy(slot->tts_isnull, scan->row->tts_isnull, sizeof(bool) * natts);
	return ExecStoreVirtualTuple(slot);
}

static void
scan_rescan(ForeignScanState *node)
{
	StreamScan *scan = node->fdw_state;

	if (scan->rows == NULL)
		return;
	ExecClearTuple(scan->row);
	tuplestore_rescan(scan->rows);
}

static void
scan_end(ForeignScanState *node)
{
	StreamScan *scan = node->fdw_state;

	if (scan == NULL || scan->rows == NULL)
		return;
	ExecClearTuple(node->ss.ss_ScanTupleSlot);	/* points into row */
	ExecDropSingleTupleTableSlot(scan->row);
	tuplestore_end(scan->rows);
	scan->rows = NULL;
}

static void
scan_explain(ForeignScanState *node, ExplainState *es)
{
	StreamConfig *config = streamext_stream_config(RelationGetRelid(node->ss.ss_currentRelation));
	StringInfoData topics;
	ListCell   *lc;

	if (config == NULL)
		return;
	ExplainPropertyText("Connector", streamext_connector_name(config->connector), es);
	if (config->topics == NIL)
		return;
	initStringInfo(&topics);
	foreach(lc, config->topics)
		appendStringInfo(&topics, "%s%s", topics.len > 0 ? ", " : "", (char *) lfirst(lc));
	ExplainPropertyText("Topic", topics.data, es);
}

/* ---- spool: the rows of this transaction, by stream ---- */

typedef struct SpoolMark		/* rows from start on belong to the subtransaction (those of its committed children too) */
{
	SubTransactionId subid;
	int64		start;
} SpoolMark;

typedef struct SpoolHole		/* rows from .. to - 1 were rolled back */
{
	int64		from;
	int64		to;
} SpoolHole;

typedef struct RowSpool
{
	Oid			relid;
	uint32		row_type_hash;
	JournalMode journal;
	char	   *name;			/* for messages */
	TupleDesc	desc;
	Tuplestorestate *rows;
	int64		nrows;
	List	   *marks;			/* of SpoolMark *, innermost last */
	List	   *holes;			/* of SpoolHole *, ascending, apart */
	bool		broken;			/* a write failed half-way */
	bool		appended;
	int64		floor;			/* for streamext_journal_open */
} RowSpool;

static List *spools = NIL;		/* of this transaction, in TopTransactionContext */

/* The transaction's spool for a stream as it is defined now. */
static RowSpool *
spool_get(const StreamConfig *config)
{
	MemoryContext old;
	ResourceOwner owner;
	RowSpool   *spool;
	ListCell   *lc;

	foreach(lc, spools)
	{
		spool = lfirst(lc);
		if (spool->relid == config->relid && spool->row_type_hash == config->row_type_hash && !spool->broken)
			return spool;
	}

	/* It outlives the subtransaction that happens to come first. */
	old = MemoryContextSwitchTo(TopTransactionContext);
	spool = palloc0(sizeof(RowSpool));
	spool->relid = config->relid;
	spool->row_type_hash = config->row_type_hash;
	spool->journal = config->journal;
	spool->name = pstrdup(config->name);
	spool->desc = CreateTupleDescCopy(config->desc);
	owner = CurrentResourceOwner;
	CurrentResourceOwner = TopTransactionResourceOwner;
	spool->rows = tuplestore_begin_heap(false, false, work_mem);
	CurrentResourceOwner = owner;
	spools = lappend(spools, spool);
	MemoryContextSwitchTo(old);
	return spool;
}

static void
spool_put(RowSpool *spool, Datum *values, bool *nulls)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	SpoolMark  *mark = spool->marks == NIL ? NULL : llast(spool->marks);

	if (spool->broken)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot insert into stream \"%s\" after an insert of this transaction failed to write", spool->name)));
	if (mark == NULL || mark->subid != subid)
	{
		MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

		mark = palloc(sizeof(SpoolMark));
		mark->subid = subid;
		mark->start = spool->nrows;
		spool->marks = lappend(spool->marks, mark);
		MemoryContextSwitchTo(old);
	}
	spool->broken = true;
	tuplestore_putvalues(spool->rows, spool->desc, values, nulls);
	spool->broken = false;
	spool->nrows++;
}

/* A subtransaction's rows become its parent's. */
static void
spool_subcommit(RowSpool *spool, SubTransactionId subid, SubTransactionId parent)
{
	SpoolMark  *mark = spool->marks == NIL ? NULL : llast(spool->marks);
	int			n = list_length(spool->marks);

	if (mark == NULL || mark->subid != subid)
		return;
	if (n > 1 && ((SpoolMark *) list_nth(spool->marks, n - 2))->subid == parent)
		spool->marks = list_delete_last(spool->marks);
	else
		mark->subid = parent;
}

static void
spool_subabort(RowSpool *spool, SubTransactionId subid)
{
	SpoolMark  *mark = spool->marks == NIL ? NULL : llast(spool->marks);
	SpoolHole  *hole;
	MemoryContext old;

	if (mark == NULL || mark->subid != subid)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	spool->marks = list_delete_last(spool->marks);
	while (spool->holes != NIL && ((SpoolHole *) llast(spool->holes))->from >= mark->start)
		spool->holes = list_delete_last(spool->holes);
	if (spool->nrows > mark->start)
	{
		hole = palloc(sizeof(SpoolHole));
		hole->from = mark->start;
		hole->to = spool->nrows;
		spool->holes = lappend(spool->holes, hole);
	}
	MemoryContextSwitchTo(old);
}

/* Rows that were not rolled back. */
static int64
spool_live_rows(const RowSpool *spool)
{
	int64		live = spool->nrows;
	ListCell   *lc;

	foreach(lc, spool->holes)
	{
		const SpoolHole *hole = lfirst(lc);

		live -= hole->to - hole->from;
	}
	return live;
}

/* ---- spool to journal ---- */

typedef struct SpoolHandle
{
	Oid			relid;
	JournalMode mode;
	pg_atomic_uint64 *end;
	Journal    *journal;		/* NULL: free */
} SpoolHandle;

static SpoolHandle spool_handles[SPOOL_HANDLES];
static int	spool_next_handle = 0;

static void
spool_close_handle(SpoolHandle *handle)
{
	streamext_journal_close(handle->journal);
	handle->journal = NULL;
}

/* This backend's writer of the stream's journal; with journal_lock held. NULL and errno on failure. */
static SpoolHandle *
spool_handle(const RowSpool *spool, StreamSlot *slot)
{
	SpoolHandle *handle;

	for (int i = 0; i < SPOOL_HANDLES; i++)
	{
		handle = &spool_handles[i];
		if (handle->journal == NULL || handle->relid != spool->relid)
			continue;
		if (handle->end == &slot->journal_end && handle->mode == spool->journal)
			return handle;
		spool_close_handle(handle); /* the slot is another one now */
	}
	handle = &spool_handles[spool_next_handle];
	spool_next_handle = (spool_next_handle + 1) % SPOOL_HANDLES;
	if (handle->journal != NULL)
		spool_close_handle(handle);
	handle->relid = spool->relid;
	handle->mode = spool->journal;
	handle->end = &slot->journal_end;
	handle->journal = streamext_journal_open(MyDatabaseId, spool->relid, 0, spool->journal, true, spool->floor, handle->end);
	return handle->journal != NULL ? handle : NULL;
}

static void
spool_report(const RowSpool *spool, int saved_errno)
{
	if (saved_errno == EDQUOT)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("the journal of stream \"%s\" is full", spool->name),
				 errdetail("It has reached streamext.journal_limit. None of the transaction's rows is taken."),
				 errhint("It is trimmed when all views have counted what it holds. A paused or failed view holds it until it is "
						 "resumed, mended or dropped: see state in streamext.streams and streamext.continuous_views. "
						 "Rows of a transaction larger than the limit need several, or a higher limit.")));
	errno = saved_errno;
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not write to the journal of stream \"%s\": %m", spool->name)));
}

static bool
spool_slot_is(const StreamSlot *slot, Oid relid)
{
	return slot->in_use && slot->dboid == MyDatabaseId && slot->relid == relid && slot->shard == 0;
}

/* Under the slot's journal_lock. False: the slot is no longer the stream's. */
static bool
spool_append_slot(const RowSpool *spool, StreamSlot *slot, const JournalRecord *records, int n)
{
	SpoolHandle *handle;
	bool		done;
	int			saved;

	LWLockAcquire(slot->journal_lock, LW_EXCLUSIVE);
	if (!spool_slot_is(slot, spool->relid))
	{
		LWLockRelease(slot->journal_lock);
		return false;
	}
	handle = spool_handle(spool, slot);
	done = handle != NULL && streamext_journal_append(handle->journal, records, n);
	saved = errno;
	if (handle != NULL && !done)
		spool_close_handle(handle);
	LWLockRelease(slot->journal_lock);
	if (!done)
		spool_report(spool, saved);
	return true;
}

/*
 * Without a slot: the end is found anew for each piece, as nothing shared remembers it. False: there is a slot by now.
 */
static bool
spool_append_unregistered(const RowSpool *spool, const JournalRecord *records, int n)
{
	pg_atomic_uint64 end;
	Journal    *journal;
	bool		done;
	int			saved;

	pg_atomic_init_u64(&end, PG_UINT64_MAX);
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	for (int i = 0; i < streamext_shared->nstreams; i++)
		if (spool_slot_is(&streamext_shared->streams[i], spool->relid))
		{
			LWLockRelease(streamext_shared->registry_lock);
			return false;
		}
	journal = streamext_journal_open(MyDatabaseId, spool->relid, 0, spool->journal, true, spool->floor, &end);
	done = journal != NULL && streamext_journal_append(journal, records, n);
	saved = errno;
	streamext_journal_close(journal);
	LWLockRelease(streamext_shared->registry_lock);
	if (!done)
		spool_report(spool, saved);
	return true;
}

static void
spool_append_piece(const RowSpool *spool, const JournalRecord *records, int n)
{
	for (;;)
	{
		int			index = streamext_find_stream(MyDatabaseId, spool->relid, 0);

		if (index >= 0 ? spool_append_slot(spool, &streamext_shared->streams[index], records, n) :
			spool_append_unregistered(spool, records, n))
			return;
		CHECK_FOR_INTERRUPTS();
	}
}

/* What a writer that is the first since the server's start must know. It reads tables, so no lock may be held. */
static int64
spool_floor(const RowSpool *spool)
{
	int			index = streamext_find_stream(MyDatabaseId, spool->relid, 0);

	if (index >= 0 && pg_atomic_read_u64(&streamext_shared->streams[index].journal_end) != (uint64) -1)
		return 0;
	return streamext_checkpoint_journal_floor(spool->relid, 0);
}

/* Appends what was not rolled back, piece by piece. */
static void
spool_append(RowSpool *spool, uint64 fxid, TimestampTz now)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);
	JournalRecord *records = palloc0(sizeof(JournalRecord) * SPOOL_PIECE_ROWS);
	Size		capacity = SPOOL_PIECE_BYTES,
				used = 0;
	char	   *piece = palloc(capacity);
	ListCell   *hole = list_head(spool->holes);
	int			n = 0;

	spool->floor = spool_floor(spool);
	for (int64 row = 0; tuplestore_gettupleslot(spool->rows, true, false, slot); row++)
	{
		MinimalTuple tuple;
		bool		should_free;

		while (hole != NULL && row >= ((SpoolHole *) lfirst(hole))->to)
			hole = lnext(spool->holes, hole);
		if (hole != NULL && row >= ((SpoolHole *) lfirst(hole))->from)
			continue;

		tuple = ExecFetchSlotMinimalTuple(slot, &should_free);
		if (n == SPOOL_PIECE_ROWS || (n > 0 && used + tuple->t_len > capacity))
		{
			CHECK_FOR_INTERRUPTS();
			spool_append_piece(spool, records, n);
			n = 0;
			used = 0;
		}
		if (tuple->t_len > capacity)
		{
			pfree(piece);
			capacity = tuple->t_len;
			piece = palloc(capacity);
		}
		memcpy(piece + used, tuple, tuple->t_len);
		records[n].fxid = fxid;
		records[n].timestamp = now;
		records[n].row_type_hash = spool->row_type_hash;
		records[n].payload = piece + used;
		records[n].payload_size = tuple->t_len;
		n++;
		used += tuple->t_len;
		if (should_free)
			pfree(tuple);
	}
	if (n > 0)
		spool_append_piece(spool, records, n);

	ExecDropSingleTupleTableSlot(slot);
	pfree(piece);
	pfree(records);
}

/* The transaction's id, after WAL that carries it is on disk (see the top of the file). */
static uint64
spool_log_transaction(void)
{
	FullTransactionId fxid = GetTopFullTransactionId();
	XLogRecPtr	lsn;

#if PG_VERSION_NUM >= 170000
	lsn = LogLogicalMessage("streamext", "", 0, true, false);
#else
	lsn = LogLogicalMessage("streamext", "", 0, true);
#endif
	XLogFlush(lsn);
	return U64FromFullTransactionId(fxid);
}

/* The temporary files go here, at commit nobody else would close them without a warning. */
static void
spool_end_all(void)
{
	ListCell   *lc;

	foreach(lc, spools)
	{
		RowSpool   *spool = lfirst(lc);

		if (spool->rows != NULL)
			tuplestore_end(spool->rows);
		spool->rows = NULL;
	}
}

static void
spool_pre_commit(void)
{
	uint64		fxid = 0;
	TimestampTz now = streamext_clock_now();
	ListCell   *lc;

	foreach(lc, spools)
	{
		RowSpool   *spool = lfirst(lc);

		/* nothing left of it, or the stream was dropped by this transaction */
		if (spool_live_rows(spool) == 0 || !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(spool->relid)))
			continue;
		if (spool->broken)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot commit rows of stream \"%s\" after an insert of this transaction failed to write",
							spool->name)));
		if (fxid == 0)
			fxid = spool_log_transaction();
		spool->appended = true;
		spool_append(spool, fxid, now);
	}
	spool_end_all();
}

static void
spool_pre_prepare(void)
{
	ListCell   *lc;

	foreach(lc, spools)
		if (spool_live_rows(lfirst(lc)) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot PREPARE a transaction that has inserted into a local stream")));
	spool_end_all();
}

/* The transaction is over, one way or the other: workers that waited for it may go on. */
static void
spool_finish(void)
{
	ListCell   *lc;

	foreach(lc, spools)
	{
		RowSpool   *spool = lfirst(lc);
		int			index;

		if (!spool->appended)
			continue;
		index = streamext_find_stream(MyDatabaseId, spool->relid, 0);
		if (index >= 0)
			streamext_wake_worker(&streamext_shared->streams[index]);
	}
	spools = NIL;
}

static void
spool_xact_callback(XactEvent event, void *arg)
{
	if (spools == NIL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			spool_pre_commit();
			break;
		case XACT_EVENT_PRE_PREPARE:
			spool_pre_prepare();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			spool_finish();
			break;
		default:
			break;
	}
}

static void
spool_subxact_callback(SubXactEvent event, SubTransactionId subid, SubTransactionId parent, void *arg)
{
	ListCell   *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach(lc, spools)
	{
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			spool_subcommit(lfirst(lc), subid, parent);
		else
			spool_subabort(lfirst(lc), subid);
	}
}

void
streamext_fdw_install_callbacks(void)
{
	RegisterXactCallback(spool_xact_callback, NULL);
	RegisterSubXactCallback(spool_subxact_callback, NULL);
}

/* ---- insert ---- */

typedef struct InsertState
{
	RowSpool   *spool;
	bool	   *ignored;		/* by attribute: dropped, or its value comes from the record */
	Datum	   *values;
	bool	   *nulls;
	MemoryContext row_cxt;		/* flattened values */
} InsertState;

static void
insert_refuse(ConnectorKind kind)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot insert into a %s stream", streamext_connector_name(kind)),
			 errhint("Only streams of the local wrapper take INSERT and COPY.")));
}

/* A bit mask of commands; never raises, information_schema asks too. */
static int
insert_updatable(Relation rel)
{
	return streamext_stream_kind(RelationGetRelid(rel)) == CONNECTOR_LOCAL ? 1 << CMD_INSERT : 0;
}

static List *
insert_plan(PlannerInfo *root, ModifyTable *plan, Index result_relation, int subplan_index)
{
	ConnectorKind kind = streamext_stream_kind(planner_rt_fetch(result_relation, root)->relid);

	/* Others are refused by the executor, which misses their callbacks. */
	if (plan->operation == CMD_INSERT && kind != CONNECTOR_LOCAL)
		insert_refuse(kind);
	if (plan->onConflictAction == ONCONFLICT_UPDATE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("ON CONFLICT DO UPDATE is not supported for streams")));
	return NIL;
}

static void
insert_start(ResultRelInfo *target)
{
	Oid			relid = RelationGetRelid(target->ri_RelationDesc);
	StreamConfig *config;
	InsertState *state;

	streamext_require_preload();
	config = streamext_stream_config(relid);
	if (config == NULL)
		elog(ERROR, "relation %u is not a stream", relid);
	if (config->connector != CONNECTOR_LOCAL)
		insert_refuse(config->connector);

	state = palloc0(sizeof(InsertState));
	state->spool = spool_get(config);
	state->ignored = palloc0(sizeof(bool) * Max(config->desc->natts, 1));
	state->values = palloc0(sizeof(Datum) * Max(config->desc->natts, 1));
	state->nulls = palloc0(sizeof(bool) * Max(config->desc->natts, 1));
	for (int i = 0; i < config->desc->natts; i++)
		state->ignored[i] = config->columns[i].dropped || config->columns[i].metadata != METADATA_NONE;
	state->row_cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext insert row", ALLOCSET_DEFAULT_SIZES);
	target->ri_FdwState = state;
}

static void
insert_begin_modify(ModifyTableState *mtstate, ResultRelInfo *target, List *fdw_private, int subplan_index, int eflags)
{
	if (!(eflags & EXEC_FLAG_EXPLAIN_ONLY) && mtstate->operation == CMD_INSERT)
		insert_start(target);
}

static void
insert_begin(ModifyTableState *mtstate, ResultRelInfo *target)
{
	insert_start(target);
}

/* The row into the spool, every value flat and in one piece: it outlives whatever it points to now. */
static TupleTableSlot *
insert_row(EState *estate, ResultRelInfo *target, TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	InsertState *state = target->ri_FdwState;
	TupleDesc	desc = state->spool->desc;
	MemoryContext old;

	MemoryContextReset(state->row_cxt);
	old = MemoryContextSwitchTo(state->row_cxt);
	slot_getallattrs(slot);
	for (int i = 0; i < desc->natts; i++)
	{
		Datum		value = slot->tts_values[i];

		state->nulls[i] = slot->tts_isnull[i] || state->ignored[i];
		if (state->nulls[i])
			value = (Datum) 0;
		else if (TupleDescAttr(desc, i)->attlen == -1 &&
				 (VARATT_IS_EXTERNAL(DatumGetPointer(value)) || VARATT_IS_COMPRESSED(DatumGetPointer(value))))
			value = PointerGetDatum(PG_DETOAST_DATUM(value));
		state->values[i] = value;
	}
	if (heap_compute_data_size(desc, state->values, state->nulls) >
		STREAMEXT_MAX_RECORD - MAXALIGN(SizeofMinimalTupleHeader + BITMAPLEN(desc->natts)))
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("row is too large for stream \"%s\"", state->spool->name),
				 errdetail("A row may have %d bytes.", STREAMEXT_MAX_RECORD)));
	MemoryContextSwitchTo(old);

	spool_put(state->spool, state->values, state->nulls);
	return slot;
}

static void
insert_end(EState *estate, ResultRelInfo *target)
{
	InsertState *state = target->ri_FdwState;

	if (state == NULL)
		return;
	MemoryContextDelete(state->row_cxt);
	target->ri_FdwState = NULL;
}

/* ---- handler ---- */

PG_FUNCTION_INFO_V1(streamext_fdw_handler);

/* One for all wrappers. What is left out PostgreSQL refuses itself: UPDATE, DELETE, TRUNCATE, ANALYZE, IMPORT FOREIGN SCHEMA. */
Datum
streamext_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = scan_rel_size;
	routine->GetForeignPaths = scan_paths;
	routine->GetForeignPlan = scan_plan;
	routine->BeginForeignScan = scan_begin;
	routine->IterateForeignScan = scan_iterate;
	routine->ReScanForeignScan = scan_rescan;
	routine->EndForeignScan = scan_end;
	routine->ExplainForeignScan = scan_explain;

	routine->IsForeignRelUpdatable = insert_updatable;
	routine->PlanForeignModify = insert_plan;
	routine->BeginForeignModify = insert_begin_modify;
	routine->ExecForeignInsert = insert_row;
	routine->EndForeignModify = insert_end;
	routine->BeginForeignInsert = insert_begin;
	routine->EndForeignInsert = insert_end;

	PG_RETURN_POINTER(routine);
}
