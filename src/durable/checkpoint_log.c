/*-------------------------------------------------------------------------
 *
 * durable/checkpoint_log.c
 *		The table of checkpoints: reading, writing, compaction.
 *
 * An ordinary logged table without index or TOAST, so WAL, crash recovery, standbys and backups are PostgreSQL's. It grows by a
 * few rows with each checkpoint whatever snapshots are open, and becomes small again by a new file (TRUNCATE), which no
 * snapshot can prevent.
 *
 * Nobody waits for the table's lock: writers take RowExclusiveLock and the compaction AccessExclusiveLock if they are free,
 * else they come again. All of its rows' order is in seq and part; where rows stand in the file means nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/tablecmds.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "port/pg_crc32c.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "base/label.h"
#include "base/own_table.h"
#include "base/transaction.h"
#include "durable/checkpoint_log.h"
#include "durable/checkpoint_seed.h"
#include "base/fault.h"

#define LOG_TABLE "checkpoint_log"

#define LOG_COMPACT_BYTES (16 * 1024 * 1024) /* smaller ones are left alone */
#define LOG_COMPACT_FACTOR 4				 /* times what was alive after the last one */
#define LOG_COMPACT_GAIN \
	2 /* times what is alive, as far as is known: a log that has only begun to fill is not copied for nothing */

#define WRITER_ROWS 64

/* Columns of the table, from 0. */
enum
{
	LOG_SEQ,
	LOG_PANE,
	LOG_STREAM,
	LOG_VIEW,
	LOG_SHARD,
	LOG_PART,
	LOG_KIND,
	LOG_DATA,
	LOG_COLUMNS
};

/* ---------------------------------------------------------------- the table */

/* Takes over the lock. */
static Relation
log_open_locked(Oid relid, LOCKMODE lockmode)
{
	Relation rel = try_relation_open(relid, NoLock);

	if (rel == NULL)
		UnlockRelationOid(relid, lockmode);
	else if (rel->rd_att->natts != LOG_COLUMNS || rel->rd_rel->relkind != RELKIND_RELATION)
		elog(ERROR, "the table %s is not what this version of the extension made", LOG_TABLE);
	return rel;
}

Relation
streamext_checkpoint_log_open(LOCKMODE lockmode)
{
	Oid relid = streamext_control_table(LOG_TABLE);

	if (!OidIsValid(relid) || !ConditionalLockRelationOid(relid, lockmode))
		return NULL;
	return log_open_locked(relid, lockmode);
}

Relation
streamext_checkpoint_log_wait(LOCKMODE lockmode)
{
	Oid relid = streamext_control_table(LOG_TABLE);

	if (!OidIsValid(relid))
		return NULL;
	LockRelationOid(relid, lockmode);
	return log_open_locked(relid, lockmode);
}

/* Of the table's file. */
static int64
log_bytes(Relation rel)
{
	return (int64) RelationGetNumberOfBlocks(rel) * BLCKSZ;
}

/* ---------------------------------------------------------------- rows */

static pg_crc32c
log_checksum(const CheckpointRow *row)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &row->seq, sizeof(row->seq));
	COMP_CRC32C(crc, &row->pane, sizeof(row->pane));
	COMP_CRC32C(crc, &row->stream, sizeof(row->stream));
	COMP_CRC32C(crc, &row->view, sizeof(row->view));
	COMP_CRC32C(crc, &row->shard, sizeof(row->shard));
	COMP_CRC32C(crc, &row->part, sizeof(row->part));
	COMP_CRC32C(crc, &row->kind, sizeof(row->kind));
	COMP_CRC32C(crc, row->data, row->size);
	FIN_CRC32C(crc);
	return crc;
}

static void
log_damaged(const CheckpointRef *ref)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED), errmsg("row %d of checkpoint " INT64_FORMAT " of stream %s is damaged",
													 ref->part, ref->seq, streamext_relation_label(ref->stream))));
}

static void
log_note(CheckpointIndex *index, TupleTableSlot *slot)
{
	CheckpointRef *ref;

	if (index->n == index->capacity)
	{
		index->capacity *= 2;
		index->refs = repalloc_huge(index->refs, sizeof(CheckpointRef) * index->capacity);
	}
	ref = &index->refs[index->n++];
	ref->seq = DatumGetInt64(slot->tts_values[LOG_SEQ]);
	ref->part = DatumGetInt32(slot->tts_values[LOG_PART]);
	ref->shard = DatumGetInt32(slot->tts_values[LOG_SHARD]);
	ref->stream = DatumGetObjectId(slot->tts_values[LOG_STREAM]);
	ref->view = DatumGetObjectId(slot->tts_values[LOG_VIEW]);
	ref->kind = DatumGetChar(slot->tts_values[LOG_KIND]);
	ref->tid = slot->tts_tid;
}

static int
log_compare(const void *a, const void *b)
{
	const CheckpointRef *x = a;
	const CheckpointRef *y = b;

	if (x->stream != y->stream)
		return x->stream < y->stream ? -1 : 1;
	if (x->shard != y->shard)
		return x->shard < y->shard ? -1 : 1;
	if (x->seq != y->seq)
		return x->seq < y->seq ? -1 : 1;
	return x->part < y->part ? -1 : x->part > y->part;
}

CheckpointIndex *
streamext_checkpoint_log_index(Relation rel, Snapshot snapshot, Oid stream, int32 shard)
{
	CheckpointIndex *index = palloc(sizeof(CheckpointIndex));
	TupleTableSlot	*slot = table_slot_create(rel, NULL);
	TableScanDesc	 scan = table_beginscan(rel, snapshot, 0, NULL);

	index->n = 0;
	index->capacity = 256;
	index->refs = palloc(sizeof(CheckpointRef) * index->capacity);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(slot, LOG_DATA);
		if (!OidIsValid(stream) || (DatumGetObjectId(slot->tts_values[LOG_STREAM]) == stream &&
									DatumGetInt32(slot->tts_values[LOG_SHARD]) == shard))
			log_note(index, slot);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	qsort(index->refs, index->n, sizeof(CheckpointRef), log_compare);
	return index;
}

/* The row in the slot; data points into it. False: its checksum is wrong. */
static bool
log_read(TupleTableSlot *slot, CheckpointRow *row)
{
	bytea	 *stored;
	pg_crc32c crc;

	slot_getallattrs(slot);
	for (int i = 0; i < LOG_COLUMNS; i++)
		if (slot->tts_isnull[i])
			return false;
	row->seq = DatumGetInt64(slot->tts_values[LOG_SEQ]);
	row->pane = DatumGetInt64(slot->tts_values[LOG_PANE]);
	row->stream = DatumGetObjectId(slot->tts_values[LOG_STREAM]);
	row->view = DatumGetObjectId(slot->tts_values[LOG_VIEW]);
	row->shard = DatumGetInt32(slot->tts_values[LOG_SHARD]);
	row->part = DatumGetInt32(slot->tts_values[LOG_PART]);
	row->kind = DatumGetChar(slot->tts_values[LOG_KIND]);
	stored = (bytea *) DatumGetPointer(slot->tts_values[LOG_DATA]);
	if (VARATT_IS_EXTENDED(stored) && !VARATT_IS_SHORT(stored))
		return false;
	row->size = VARSIZE_ANY_EXHDR(stored) - sizeof(crc);
	if (row->size < 0)
		return false;
	memcpy(&crc, VARDATA_ANY(stored), sizeof(crc));
	row->data = VARDATA_ANY(stored) + sizeof(crc);
	return EQ_CRC32C(crc, log_checksum(row));
}

void
streamext_checkpoint_log_fetch(Relation rel, Snapshot snapshot, const CheckpointRef *ref, CheckpointRow *row)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	ItemPointerData tid = ref->tid;
	char		   *data = NULL;

	if (table_tuple_fetch_row_version(rel, &tid, snapshot, slot) && log_read(slot, row) && row->seq == ref->seq &&
		row->part == ref->part && row->stream == ref->stream && row->shard == ref->shard && row->view == ref->view &&
		row->kind == ref->kind)
	{
		data = palloc(Max(row->size, 1));
		memcpy(data, row->data, row->size);
	}
	ExecDropSingleTupleTableSlot(slot);
	if (data == NULL)
		log_damaged(ref);
	row->data = data;
}

/* ---------------------------------------------------------------- the last checkpoint */

/* Of refs[first .. end), all of one checkpoint: its position row; NULL if it is not complete. */
static CheckpointPosition *
log_position(Relation rel, Snapshot snapshot, const CheckpointRef *refs, int first, int end)
{
	StringInfoData		bytes;
	CheckpointPosition *position;
	int					p;

	for (p = first; p < end && refs[p].kind != CHECKPOINT_POSITION; p++)
		;
	if (p == end)
		return NULL;
	initStringInfo(&bytes);
	for (int i = p; i < end; i++)
	{
		CheckpointRow row;

		if (refs[i].kind != CHECKPOINT_POSITION || refs[i].part != refs[p].part + (i - p))
			log_damaged(&refs[i]);
		streamext_checkpoint_log_fetch(rel, snapshot, &refs[i], &row);
		appendBinaryStringInfo(&bytes, row.data, row.size);
		pfree(row.data);
	}
	position = streamext_checkpoint_decode(bytes.data, bytes.len);
	pfree(bytes.data);
	if (position == NULL || position->head.first_part != refs[p].part || position->head.first_part != p - first)
		log_damaged(&refs[p]);
	position->seq = refs[p].seq;
	return position;
}

CheckpointPosition *
streamext_checkpoint_log_last(Relation rel, Snapshot snapshot, const CheckpointRef *refs, int n, int64 *seq)
{
	CheckpointPosition *position = NULL;
	int					end = n;

	*seq = n > 0 ? Max(refs[n - 1].seq, 0) : 0;
	while (end > 0 && refs[end - 1].seq > 0 && position == NULL)
	{
		int first = end - 1;

		while (first > 0 && refs[first - 1].seq == refs[end - 1].seq)
			first--;
		position = log_position(rel, snapshot, refs, first, end);
		end = first;
	}
	return position;
}

/* ---------------------------------------------------------------- writing */

struct CheckpointWriter
{
	Relation		rel;
	MemoryContext	cxt; /* of one insertion */
	BulkInsertState bulk;
	CommandId		command;
	TupleTableSlot *slots[WRITER_ROWS];
	char		   *data[WRITER_ROWS];
	int				n;
};

CheckpointWriter *
streamext_checkpoint_writer(Relation rel)
{
	CheckpointWriter *writer = palloc0(sizeof(CheckpointWriter));

	writer->rel = rel;
	writer->cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext checkpoint rows", ALLOCSET_DEFAULT_SIZES);
	writer->bulk = GetBulkInsertState();
	writer->command = GetCurrentCommandId(true);
	return writer;
}

static void
writer_flush(CheckpointWriter *writer)
{
	MemoryContext old = MemoryContextSwitchTo(writer->cxt);

	/* Several at once cannot be kept from logical decoding, which has no use for them. */
	if (RelationIsLogicallyLogged(writer->rel))
		for (int i = 0; i < writer->n; i++)
			table_tuple_insert(writer->rel, writer->slots[i], writer->command,
							   TABLE_INSERT_SKIP_FSM | TABLE_INSERT_NO_LOGICAL, writer->bulk);
	else if (writer->n > 0)
		table_multi_insert(writer->rel, writer->slots, writer->n, writer->command, TABLE_INSERT_SKIP_FSM, writer->bulk);
	writer->n = 0;
	MemoryContextSwitchTo(old);
	MemoryContextReset(writer->cxt);
}

/* An empty slot; what is put there is written with the next flush. */
static TupleTableSlot *
writer_next(CheckpointWriter *writer)
{
	if (writer->n == WRITER_ROWS)
		writer_flush(writer);
	if (writer->slots[writer->n] == NULL)
	{
		writer->slots[writer->n] = table_slot_create(writer->rel, NULL);
		writer->data[writer->n] = palloc(VARHDRSZ + sizeof(pg_crc32c) + CHECKPOINT_ROW_BYTES);
	}
	return ExecClearTuple(writer->slots[writer->n]);
}

void
streamext_checkpoint_write(CheckpointWriter *writer, const CheckpointRow *row)
{
	TupleTableSlot *slot = writer_next(writer);
	char		   *data = writer->data[writer->n];
	pg_crc32c		crc = log_checksum(row);

	Assert(row->size <= CHECKPOINT_ROW_BYTES);
	SET_VARSIZE(data, VARHDRSZ + sizeof(crc) + row->size);
	memcpy(VARDATA(data), &crc, sizeof(crc));
	memcpy(VARDATA(data) + sizeof(crc), row->data, row->size);
	slot->tts_values[LOG_SEQ] = Int64GetDatum(row->seq);
	slot->tts_values[LOG_PANE] = Int64GetDatum(row->pane);
	slot->tts_values[LOG_STREAM] = ObjectIdGetDatum(row->stream);
	slot->tts_values[LOG_VIEW] = ObjectIdGetDatum(row->view);
	slot->tts_values[LOG_SHARD] = Int32GetDatum(row->shard);
	slot->tts_values[LOG_PART] = Int32GetDatum(row->part);
	slot->tts_values[LOG_KIND] = CharGetDatum(row->kind);
	slot->tts_values[LOG_DATA] = PointerGetDatum(data);
	memset(slot->tts_isnull, 0, sizeof(bool) * LOG_COLUMNS);
	ExecStoreVirtualTuple(slot);
	writer->n++;
}

void
streamext_checkpoint_write_bytes(CheckpointWriter *writer, CheckpointRow *row, char *bytes, int size)
{
	for (int at = 0; at < size; at += CHECKPOINT_ROW_BYTES, row->part++)
	{
		row->size = Min(CHECKPOINT_ROW_BYTES, size - at);
		row->data = bytes + at;
		streamext_checkpoint_write(writer, row);
	}
}

void
streamext_checkpoint_writer_end(CheckpointWriter *writer)
{
	writer_flush(writer);
	for (int i = 0; i < WRITER_ROWS && writer->slots[i] != NULL; i++)
	{
		ExecDropSingleTupleTableSlot(writer->slots[i]);
		pfree(writer->data[i]);
	}
	FreeBulkInsertState(writer->bulk);
	table_finish_bulk_insert(writer->rel, TABLE_INSERT_SKIP_FSM);
	MemoryContextDelete(writer->cxt);
	pfree(writer);
}

/* ---------------------------------------------------------------- compaction */

/* What was alive after the last compaction, as the first row says. */
static int64
log_compacted_bytes(Relation rel, Snapshot snapshot)
{
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc	scan = table_beginscan_strat(rel, snapshot, 0, NULL, true, false);
	CheckpointRow	row;
	int64			bytes = 0;

	if (table_scan_getnextslot(scan, ForwardScanDirection, slot) && log_read(slot, &row) &&
		row.kind == CHECKPOINT_HEADER && row.size == sizeof(bytes))
		memcpy(&bytes, row.data, sizeof(bytes));
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return bytes;
}

/* Of what a view begins with that was counted elsewhere: until a checkpoint has the view at that round. */
static bool
log_seed_is_alive(const CheckpointPosition *last, const CheckpointRef *ref)
{
	const CheckpointView *view = streamext_checkpoint_find_view(last, ref->view);

	Assert(ref->seq < 0);
	return (view == NULL || CHECKPOINT_SEED_SEQ(view->head.round) > ref->seq) &&
		   streamext_view_options(ref->view).continuous;
}

/* True for a row that the stream's last checkpoint, or one that is being written, needs. */
static bool
log_is_alive(const CheckpointPosition *last, const CheckpointRef *ref)
{
	const CheckpointView *view;

	if (ref->seq < 0)
		return log_seed_is_alive(last, ref);
	if (ref->kind == CHECKPOINT_START)
		return streamext_checkpoint_find_view(last, ref->view) == NULL &&
			   SearchSysCacheExists1(RELOID, ObjectIdGetDatum(ref->view));
	if (last == NULL || ref->seq > last->seq)
		return true;
	if (ref->kind == CHECKPOINT_POSITION)
		return ref->seq == last->seq;
	view = streamext_checkpoint_find_view(last, ref->view);
	return view != NULL && ref->seq >= view->head.base;
}

typedef struct LastStep
{
	Relation			 rel;
	Snapshot			 snapshot;
	const CheckpointRef *refs;
	int					 n;
	CheckpointPosition	*last;
} LastStep;

/* A StreamextStep. */
static void
log_last_step(void *arg)
{
	LastStep *step = arg;
	int64	  seq;

	step->last = streamext_checkpoint_log_last(step->rel, step->snapshot, step->refs, step->n, &seq);
}

/* The last checkpoint of refs[0 .. n), which are of one stream and shard. *damaged: nothing of it is to be touched. */
static CheckpointPosition *
log_try_last(Relation rel, Snapshot snapshot, const CheckpointRef *refs, int n, bool *damaged)
{
	LastStep   step = { rel, snapshot, refs, n, NULL };
	ErrorData *error = streamext_try(log_last_step, &step);

	if (error != NULL && error->sqlerrcode != ERRCODE_DATA_CORRUPTED)
		ReThrowError(error);
	*damaged = error != NULL;
	return *damaged ? NULL : step.last;
}

/* Puts the live rows into the store; their bytes. */
static int64
log_collect(Relation rel, Snapshot snapshot, Tuplestorestate *store)
{
	CheckpointIndex *index = streamext_checkpoint_log_index(rel, snapshot, InvalidOid, 0);
	TupleTableSlot	*slot = table_slot_create(rel, NULL);
	int64			 bytes = 0;

	for (int first = 0, end; first < index->n; first = end)
	{
		Oid					stream = index->refs[first].stream;
		int32				shard = index->refs[first].shard;
		CheckpointPosition *last = NULL;
		bool				damaged = false;

		for (end = first; end < index->n && index->refs[end].stream == stream && index->refs[end].shard == shard; end++)
			;
		if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(stream)))
			continue; /* dropped, or the header row */
		last = log_try_last(rel, snapshot, &index->refs[first], end - first, &damaged);
		for (int i = first; i < end; i++)
		{
			CHECK_FOR_INTERRUPTS();
			if (!damaged && !log_is_alive(last, &index->refs[i]))
				continue;
			if (!table_tuple_fetch_row_version(rel, &index->refs[i].tid, snapshot, slot))
				elog(ERROR, "a row of %s has vanished", LOG_TABLE);
			tuplestore_puttupleslot(store, slot);
			bytes += sizeof(ItemIdData) + ((HeapTupleTableSlot *) slot)->tuple->t_len;
		}
	}
	ExecDropSingleTupleTableSlot(slot);
	return bytes;
}

static void
log_replace_file(Relation *rel)
{
	TruncateStmt *stmt = makeNode(TruncateStmt);
	Oid			  relid = RelationGetRelid(*rel);
	char		 *schema = get_namespace_name(RelationGetNamespace(*rel));

	table_close(*rel, NoLock);
	stmt->relations = list_make1(makeRangeVar(schema, LOG_TABLE, -1));
	stmt->behavior = DROP_RESTRICT;
	ExecuteTruncate(stmt);
	CommandCounterIncrement();
	*rel = table_open(relid, NoLock);
}

/* With AccessExclusiveLock. */
static void
log_rewrite(Relation *rel)
{
	Snapshot		  snapshot = RegisterSnapshot(GetLatestSnapshot());
	Tuplestorestate	 *store = tuplestore_begin_heap(false, false, maintenance_work_mem);
	TupleTableSlot	 *slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(RelationGetDescr(*rel)), &TTSOpsMinimalTuple);
	int64			  bytes = log_collect(*rel, snapshot, store);
	CheckpointRow	  header = { .kind = CHECKPOINT_HEADER, .size = sizeof(bytes), .data = (char *) &bytes };
	CheckpointWriter *writer;

	UnregisterSnapshot(snapshot);
	log_replace_file(rel);
	writer = streamext_checkpoint_writer(*rel);
	streamext_checkpoint_write(writer, &header);
	while (tuplestore_gettupleslot(store, true, false, slot))
	{
		ExecCopySlot(writer_next(writer), slot);
		writer->n++;
	}
	streamext_checkpoint_writer_end(writer);
	ExecDropSingleTupleTableSlot(slot);
	tuplestore_end(store);
}

bool
streamext_checkpoint_log_compact(int64 alive)
{
	Relation rel;
	bool	 wanted = false;
	bool	 done = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	rel = streamext_checkpoint_log_open(AccessShareLock);
	if (rel != NULL)
	{
		int64 bytes = log_bytes(rel);

		wanted = bytes > LOG_COMPACT_BYTES && bytes > LOG_COMPACT_GAIN * alive &&
				 bytes > LOG_COMPACT_FACTOR * log_compacted_bytes(rel, GetActiveSnapshot());
		table_close(rel, AccessShareLock);
	}
	if (wanted && (rel = streamext_checkpoint_log_open(AccessExclusiveLock)) != NULL)
	{
		log_rewrite(&rel);
		table_close(rel, NoLock);
		STREAMEXT_FAULT("compaction-before-commit");
		done = true;
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (done)
		STREAMEXT_FAULT("compaction-after-commit");
	return done || !wanted;
}
