/*
 * sink/spool.c
 *		Rows that a transaction has inserted into local streams, until it commits.
 *
 * They wait in a spool of the transaction, one for each stream (and row type, should that change on the way); rows
 * of subtransactions that roll back are passed over. At PRE_COMMIT they are appended to the stream's journal with the
 * transaction's id; the worker counts them once the transaction has committed, so they come with the commit or not at all. Before
 * that, WAL with the id is flushed: otherwise a crash could give the same id to another transaction, whose commit would bring
 * our rows to life.
 *
 * Locks: journal_lock of the slot for each piece of about 1 MB, never longer. Before a stream has a slot (made in the same transaction, or
 * streamext.max_streams is reached) registry_lock takes its place: no slot can appear meanwhile.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "replication/message.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "durable/checkpoint_read.h"
#include "durable/journal_base.h"
#include "shared/clock.h"
#include "source/journal/block.h"
#include "source/journal/journal.h"
#include "shared/shmem.h"
#include "sink/spool.h"

#define SPOOL_PIECE_BYTES (1024 * 1024) /* appended under one hold of the lock */
#define SPOOL_PIECE_RECORDS 8192
#define SPOOL_BLOCK_BYTES (64 * 1024) /* a reader's buffer holds several whole ones */
#define SPOOL_BLOCK_NAME "view"

typedef struct SpoolMark /* rows from start on belong to the subtransaction (those of its committed children too) */
{
	SubTransactionId subid;
	int64			 start;
} SpoolMark;

typedef struct SpoolHole /* rows from .. to - 1 were rolled back */
{
	int64 from;
	int64 to;
} SpoolHole;

static List *spools = NIL; /* of this transaction, in TopTransactionContext */

/* ---- rows wait ---- */

RowSpool *
streamext_spool_get(const StreamConfig *config)
{
	MemoryContext old;
	ResourceOwner owner;
	RowSpool	 *spool;
	uint64		  changes = streamext_layout_changes();
	RowLayout	 *layout = streamext_layout_make(config->desc, true);
	ListCell	 *lc;

	foreach (lc, spools)
	{
		spool = lfirst(lc);
		if (spool->relid == config->relid && streamext_layout_equal(spool->layout, layout) && !spool->broken)
			return spool;
	}

	/* It outlives the subtransaction that happens to come first. */
	old = MemoryContextSwitchTo(TopTransactionContext);
	spool = palloc0(sizeof(RowSpool));
	spool->relid = config->relid;
	spool->layout = palloc(layout->size);
	memcpy(spool->layout, layout, layout->size);
	spool->changes = changes;
	spool->place.dboid = MyDatabaseId;
	spool->place.relid = config->relid;
	spool->place.mode = config->source.journal;
	spool->blocks = config->connector->blocks;
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

bool
streamext_spool_has(Oid relid)
{
	ListCell *lc;

	foreach (lc, spools)
		if (((RowSpool *) lfirst(lc))->relid == relid && ((RowSpool *) lfirst(lc))->marks != NIL)
			return true;
	return false;
}

/*
 * Others cannot alter a type that the rows reach while we hold locks on them (spool_get), but a function that the statement runs can: rows that were made
 * before and rows that are made after it are not alike.
 */
static void
spool_check_layout(RowSpool *spool)
{
	uint64	   changes = streamext_layout_changes();
	RowLayout *layout = streamext_layout_make(spool->desc, false);

	if (!streamext_layout_equal(spool->layout, layout))
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("a type in stream \"%s\" was altered while rows were inserted into it", spool->name)));
	spool->changes = changes;
	pfree(layout);
}

void
streamext_spool_put(RowSpool *spool, Datum *values, bool *nulls)
{
	SubTransactionId subid = GetCurrentSubTransactionId();
	SpoolMark		*mark = spool->marks == NIL ? NULL : llast(spool->marks);

	if (spool->broken)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("cannot insert into stream \"%s\" after an insert of this transaction failed to write",
							   spool->name)));
	if (unlikely(spool->changes != streamext_layout_changes()))
		spool_check_layout(spool);
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
	SpoolMark *mark = spool->marks == NIL ? NULL : llast(spool->marks);
	int		   n = list_length(spool->marks);

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
	SpoolMark	 *mark = spool->marks == NIL ? NULL : llast(spool->marks);
	SpoolHole	 *hole;
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
	int64	  live = spool->nrows;
	ListCell *lc;

	foreach (lc, spool->holes)
	{
		const SpoolHole *hole = lfirst(lc);

		live -= hole->to - hole->from;
	}
	return live;
}

/* ---- rows into the journal ---- */

static void
spool_report(const RowSpool *spool, int saved_errno)
{
	if (saved_errno == JOURNAL_AT_LIMIT)
		ereport(
			ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("the journal of stream \"%s\" is full", spool->name),
			 errdetail("It has reached streamext.journal_limit. None of the transaction's rows is taken."),
			 errhint(
				 "It is trimmed when all views have counted what it holds. A paused or failed view holds it until it is "
				 "resumed, mended or dropped: see state in streamext.streams and streamext.continuous_views. "
				 "Rows of a transaction larger than the limit need several, or a higher limit.")));
	errno = saved_errno;
	if (saved_errno == ENOSPC || saved_errno == EDQUOT)
		ereport(
			ERROR,
			(errcode(ERRCODE_DISK_FULL), errmsg("could not write to the journal of stream \"%s\": %m", spool->name),
			 errdetail("None of the transaction's rows is taken."),
			 errhint("Make room on the file system of the data directory, or raise its quota for the server's user.")));
	ereport(ERROR,
			(errcode_for_file_access(), errmsg("could not write to the journal of stream \"%s\": %m", spool->name)));
}

static bool
spool_slot_is(const StreamSlot *slot, Oid relid)
{
	return slot->id.in_use && slot->id.dboid == MyDatabaseId && slot->id.relid == relid && slot->id.shard == 0;
}

/* False: the slot is no longer the stream's. */
static bool
spool_append_slot(const RowSpool *spool, StreamSlot *slot, const JournalRecord *records, int n)
{
	JournalPlace place = spool->place;
	StreamAppend result;

	place.end = &slot->journal_end;
	place.lock = slot->journal_lock;
	result = streamext_stream_append(slot, &place, records, n);
	if (result == STREAM_APPEND_FAILED)
		spool_report(spool, errno);
	return result == STREAM_APPENDED;
}

/*
 * Without a slot: the end is found anew for each piece, as nothing shared remembers it. False: there is a slot by now.
 */
static bool
spool_append_unregistered(const RowSpool *spool, const JournalRecord *records, int n)
{
	JournalPlace	 place = spool->place;
	pg_atomic_uint64 end;
	Journal			*journal;
	bool			 done;
	int				 saved;

	pg_atomic_init_u64(&end, PG_UINT64_MAX);
	place.end = &end;
	LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
	for (int i = 0; i < streamext_shared->nstreams; i++)
		if (spool_slot_is(&streamext_shared->streams[i], spool->relid))
		{
			LWLockRelease(streamext_shared->registry_lock);
			return false;
		}
	journal = streamext_journal_open(&place, true);
	done = journal != NULL && streamext_journal_append(journal, records, n);
	saved = errno;
	streamext_journal_close(journal);
	LWLockRelease(streamext_shared->registry_lock);
	if (!done)
		spool_report(spool, saved);
	return true;
}

/* What is appended under one hold of the lock. */
typedef struct SpoolPiece
{
	JournalRecord  like;	/* what all records have */
	StringInfoData bytes;	/* their payloads; they do not move while there are any */
	JournalRecord *records; /* [SPOOL_PIECE_RECORDS] */
	int			   n;
} SpoolPiece;

/* False: there is no room; an empty piece takes every row. */
static bool
spool_piece_add(const RowSpool *spool, SpoolPiece *piece, MinimalTuple tuple)
{
	JournalRecord *record = piece->n > 0 ? &piece->records[piece->n - 1] : NULL;
	Size		   size = spool->blocks ? STREAMEXT_BLOCK_ENTRY(tuple->t_len, 0) : tuple->t_len;

	if (piece->n == 0)
		enlargeStringInfo(&piece->bytes, (int) size);
	else if (piece->bytes.len + size >= (Size) piece->bytes.maxlen)
		return false;
	if (record == NULL || !spool->blocks || record->payload_size + size > SPOOL_BLOCK_BYTES)
	{
		if (piece->n == SPOOL_PIECE_RECORDS)
			return false;
		record = &piece->records[piece->n++];
		*record = piece->like;
		record->payload = piece->bytes.data + piece->bytes.len;
	}
	record->payload_size += size;
	if (spool->blocks)
		streamext_block_add(&piece->bytes, (char *) tuple, tuple->t_len, NULL, 0);
	else
		appendBinaryStringInfo(&piece->bytes, (char *) tuple, tuple->t_len);
	return true;
}

/* The piece is empty then. */
static void
spool_append_piece(const RowSpool *spool, SpoolPiece *piece)
{
	for (;;)
	{
		int index = streamext_find_stream(MyDatabaseId, spool->relid, 0);

		if (index >= 0 ? spool_append_slot(spool, &streamext_shared->streams[index], piece->records, piece->n)
					   : spool_append_unregistered(spool, piece->records, piece->n))
			break;
		CHECK_FOR_INTERRUPTS();
	}
	piece->n = 0;
	resetStringInfo(&piece->bytes);
}

/* What a writer that is the first since the server's start must know. It reads tables, so no lock may be held. */
static int64
spool_floor(const RowSpool *spool)
{
	int index = streamext_find_stream(MyDatabaseId, spool->relid, 0);

	if (index >= 0 && pg_atomic_read_u64(&streamext_shared->streams[index].journal_end) != (uint64) -1)
		return 0;
	return streamext_checkpoint_journal_floor(spool->relid, 0);
}

/* Appends what was not rolled back, piece by piece. */
static void
spool_append(RowSpool *spool, uint64 fxid, TimestampTz now)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);
	SpoolPiece		piece = { .like = { .fxid = fxid, .timestamp = now, .layout = spool->layout } };
	ListCell	   *hole = list_head(spool->holes);

	if (spool->blocks)
	{
		piece.like.topic = SPOOL_BLOCK_NAME;
		piece.like.topic_size = sizeof(SPOOL_BLOCK_NAME);
	}
	piece.records = palloc(sizeof(JournalRecord) * SPOOL_PIECE_RECORDS);
	initStringInfo(&piece.bytes);
	enlargeStringInfo(&piece.bytes, SPOOL_PIECE_BYTES);
	spool->place.floor = spool_floor(spool);
	for (int64 row = 0; tuplestore_gettupleslot(spool->rows, true, false, slot); row++)
	{
		MinimalTuple tuple;
		bool		 should_free;

		while (hole != NULL && row >= ((SpoolHole *) lfirst(hole))->to)
			hole = lnext(spool->holes, hole);
		if (hole != NULL && row >= ((SpoolHole *) lfirst(hole))->from)
			continue;

		tuple = ExecFetchSlotMinimalTuple(slot, &should_free);
		if (!spool_piece_add(spool, &piece, tuple))
		{
			CHECK_FOR_INTERRUPTS();
			spool_append_piece(spool, &piece);
			(void) spool_piece_add(spool, &piece, tuple);
		}
		if (should_free)
			pfree(tuple);
	}
	if (piece.n > 0)
		spool_append_piece(spool, &piece);

	ExecDropSingleTupleTableSlot(slot);
	pfree(piece.bytes.data);
	pfree(piece.records);
}

/* ---- the transaction ends ---- */

/* The transaction's id, after WAL that carries it is on disk (see the top of the file). */
static uint64
spool_log_transaction(void)
{
	FullTransactionId fxid = GetTopFullTransactionId();
	XLogRecPtr		  lsn;

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
	ListCell *lc;

	foreach (lc, spools)
	{
		RowSpool *spool = lfirst(lc);

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

	foreach (lc, spools)
	{
		RowSpool *spool = lfirst(lc);

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
	ListCell *lc;

	foreach (lc, spools)
		if (spool_live_rows(lfirst(lc)) > 0)
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("cannot PREPARE a transaction that has inserted into a local stream")));
	spool_end_all();
}

/* The transaction is over, one way or the other: workers that waited for it may go on. */
static void
spool_finish(void)
{
	ListCell *lc;

	foreach (lc, spools)
	{
		RowSpool *spool = lfirst(lc);
		int		  index;

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
	ListCell *lc;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	foreach (lc, spools)
	{
		if (event == SUBXACT_EVENT_COMMIT_SUB)
			spool_subcommit(lfirst(lc), subid, parent);
		else
			spool_subabort(lfirst(lc), subid);
	}
}

void
streamext_spool_install_callbacks(void)
{
	RegisterXactCallback(spool_xact_callback, NULL);
	RegisterSubXactCallback(spool_subxact_callback, NULL);
}
