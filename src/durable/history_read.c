/*
 * durable/history_read.c
 *		From the table streamext_internal.history to copies of panes, for statements and for the worker's own start.
 *
 * The table is opened directly, without permission checks: who may read a view is decided by the view. The snapshot is
 * the newest there is, also in REPEATABLE READ: a statement copies memory and the mark `sealed` under the stream's lock, and only
 * then takes it, so that all slices up to the mark are seen (the worker commits them before it publishes the mark) and
 * what lies beyond is left out by number. A pane is therefore in one of the two, never in both.
 * Index entries of buckets that cannot hold the key looked for are passed over without a look at the table.
 */
#include "postgres.h"

#include "base/own_table.h"
#include "access/detoast.h"
#include "access/genam.h"
#include "access/heapam.h"
#include "access/itup.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "storage/bufmgr.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "base/fault.h"
#include "base/identity.h"
#include "durable/history_ahead.h"
#include "durable/slice_bytes.h"

/* A slice that is being put together from its parts. */
typedef struct SliceParts
{
	int64 pane;
	int32 bucket;
	int32 nparts; /* 0: none is at hand */
	char *bytes;  /* from the padding on; what is behind that is 8-aligned */
	Size  size;
	Size  capacity; /* 0: bytes cannot grow */

	/* of the only part, if it was summed ahead */
	const GroupEntry *sum; /* NULL: not; of so many entries */
	uint32			  nentries;
	uint64			  nrows;
} SliceParts;

struct HistoryReader
{
	Relation		table;
	Relation		index;
	Snapshot		snapshot;
	TupleTableSlot *slot;
	MemoryContext	cxt;	   /* the reader's own: callers come in short-lived ones */
	MemoryContext	slice_cxt; /* one slice's bytes, if only some of its entries are wanted */

	/* slices that are being read */
	IndexScanDesc		scan; /* NULL: none, or at the end */
	uint64				definition;
	uint32				state_size;
	const CompiledView *view;
	KeyMatcher		   *matcher; /* the caller's: of the keys in the entries; NULL: hashes are not asked for */
	bool				by_hash;
	uint32				hash;
	SliceParts			slice;
	HistoryRow			row;
	bool				held; /* the row is still to be taken */
	SliceSum			sum;
	uint32				nsummed; /* groups of the last copy */

	/* what has been read since it began */
	Size				 bytes; /* as stored */
	BlockNumber			 block; /* of the table, the last one */
	BlockNumber			 nblocks;
	BufferAccessStrategy strategy; /* NULL: there are not many blocks yet */
	bool				 alone;	   /* there is no thread to be had */
	HistoryAhead		*ahead;	   /* NULL: there is not much yet, or no thread */
};

Oid
streamext_history_relation(void)
{
	return streamext_control_table("history");
}

void
streamext_copy_array_add(CopyArray *array, StateCopy *copy, MemoryContext cxt)
{
	if (array->n == array->capacity)
	{
		array->capacity = array->capacity == 0 ? STREAMEXT_MAX_SHARDS : array->capacity * 2;
		if (array->items == NULL)
			array->items = MemoryContextAllocHuge(cxt, sizeof(StateCopy *) * array->capacity);
		else
			array->items = repalloc_huge(array->items, sizeof(StateCopy *) * array->capacity);
	}
	array->items[array->n++] = copy;
}

/* ---- open and close ---- */

HistoryReader *
streamext_history_open(HistoryReader *other)
{
	Oid			   relid = streamext_history_relation();
	HistoryReader *reader;

	if (!OidIsValid(relid))
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("table streamext_internal.history is missing"),
						errhint("DROP EXTENSION streamext CASCADE and CREATE EXTENSION streamext make it anew.")));
	reader = palloc0(sizeof(HistoryReader));
	reader->table = table_open(relid, AccessShareLock);
	if (!OidIsValid(RelationGetPrimaryKeyIndex(reader->table
#if PG_VERSION_NUM >= 180000
											   ,
											   false
#endif
											   )))
		elog(ERROR, "table streamext_internal.history has no primary key");
	reader->index = index_open(RelationGetPrimaryKeyIndex(reader->table
#if PG_VERSION_NUM >= 180000
														  ,
														  false
#endif
														  ),
							   AccessShareLock);
	/* In parallel mode GetLatestSnapshot is refused, and a catalogue snapshot is as new. */
	reader->snapshot = RegisterSnapshot(other != NULL		 ? other->snapshot
										: IsInParallelMode() ? GetCatalogSnapshot(relid)
															 : GetLatestSnapshot());
	reader->slot = table_slot_create(reader->table, NULL);
	reader->cxt = CurrentMemoryContext;
	reader->slice_cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext slice", ALLOCSET_DEFAULT_SIZES);
	return reader;
}

void
streamext_history_close(HistoryReader *reader)
{
	streamext_history_end(reader);
	ExecDropSingleTupleTableSlot(reader->slot);
	UnregisterSnapshot(reader->snapshot);
	index_close(reader->index, AccessShareLock);
	table_close(reader->table, AccessShareLock);
	MemoryContextDelete(reader->slice_cxt);
	pfree(reader);
}

static IndexScanDesc
history_begin_scan(HistoryReader *reader, ScanKey keys, int nkeys)
{
	IndexScanDesc scan;

#if PG_VERSION_NUM >= 180000
	scan = index_beginscan(reader->table, reader->index, reader->snapshot, NULL, nkeys, 0);
#else
	scan = index_beginscan(reader->table, reader->index, reader->snapshot, nkeys, 0);
#endif
	scan->xs_want_itup = true;
	index_rescan(scan, keys, nkeys, NULL, 0);
	return scan;
}

/* A column of the primary key, from the index entry at hand. */
static Datum
history_index_column(IndexScanDesc scan, int column)
{
	bool isnull;

	return index_getattr(scan->xs_itup, column, scan->xs_itupdesc, &isnull);
}

static Datum
history_column(HistoryReader *reader, int column)
{
	bool  isnull;
	Datum value = slot_getattr(reader->slot, column, &isnull);

	if (isnull)
		elog(ERROR, "streamext_internal.history has a NULL in column %d", column);
	return value;
}

/* ---- slices ---- */

/* True if the bucket may hold the key. */
static bool
slice_has_hash(int32 bucket, uint32 hash)
{
	uint32 n = 1;

	while (n <= (uint32) bucket / 2)
		n *= 2;
	return ((uint32) bucket - n) == (hash & (n - 1));
}

pg_noreturn static void
slice_refuse(void)
{
	ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("a row of streamext_internal.history cannot be read")));
}

static void
slice_open(const HistoryReader *reader, SliceBytes *bytes)
{
	if (!streamext_slice_open(reader->slice.bytes, reader->slice.size, reader->state_size, bytes))
		slice_refuse();
}

/* Gives a pane's groups memory's hash, if anybody asks for it. */
static void
slice_rehash(const HistoryReader *reader, PaneCopy *pane)
{
	IdentityScope scope;

	if (reader->matcher == NULL)
		return;
	if (!reader->view->builtin)
		scope = streamext_identity_enter(reader->view->owner);
	for (Size i = 0; i < pane->ngroups; i++)
	{
		GroupEntry *entry = pane->groups[i];

		entry->hash =
			streamext_key_rehash(reader->matcher, STREAMEXT_ENTRY_KEY(entry, reader->state_size), entry->key_size);
	}
	if (!reader->view->builtin)
		streamext_identity_leave(scope);
}

/* The pane's groups: all entries, where they are. In the current memory context. */
static void
slice_find_groups(const SliceBytes *slice, PaneCopy *pane)
{
	const SliceHeader *header = slice->header;
	Size			   at = 0;
	uint32			   n = 0;

	pane->groups = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(GroupEntry *) * Max((Size) header->nentries, 1));
	for (; at < header->entries_size && n < header->nentries; at += pane->groups[n++]->size)
	{
		pane->groups[n] = streamext_slice_entry(slice, at);
		if (pane->groups[n] == NULL)
			slice_refuse();
	}
	if (at < header->entries_size || n < header->nentries)
		slice_refuse();
	pane->ngroups = n;
}

/* Of the pane's groups copies of those that have the hash. */
static void
slice_choose_groups(uint32 hash, PaneCopy *pane, MemoryContext cxt)
{
	GroupEntry **groups = pane->groups;
	int			 all = pane->ngroups, n = 0;
	Size		 size = 0;
	char		*to;

	for (int i = 0; i < all; i++)
		if (groups[i]->hash == hash)
		{
			size += groups[i]->size;
			groups[n++] = groups[i];
		}
	pane->ngroups = n;
	if (n == 0)
		return;
	pane->groups = MemoryContextAllocHuge(cxt, sizeof(GroupEntry *) * (Size) n + size);
	to = (char *) (pane->groups + n);
	for (int i = 0; i < n; i++)
	{
		pane->groups[i] = memcpy(to, groups[i], groups[i]->size);
		to += groups[i]->size;
	}
}

/* The same of the blobs. */
static void
slice_find_blobs(const SliceBytes *slice, const uint32 *hash, StateCopy *copy, MemoryContext cxt)
{
	const SliceHeader *header = slice->header;
	char			  *to = slice->blobs;
	Size			   at = 0;

	if (hash != NULL)
	{
		to = MemoryContextAllocHuge(cxt, header->blobs_size);
		memcpy(to, slice->blobs, header->blobs_size);
	}
	copy->nblocks = header->nblocks;
	copy->blocks = MemoryContextAllocHuge(cxt, sizeof(StateCopyBlock) * (Size) header->nblocks);
	for (uint32 b = 0; b < header->nblocks; b++) /* they were sorted when written */
	{
		if (slice->blocks[b].size > header->blobs_size - at)
			slice_refuse();
		copy->blocks[b].shared = (const char *) (uintptr_t) slice->blocks[b].shared;
		copy->blocks[b].size = slice->blocks[b].size;
		copy->blocks[b].copy = to + at;
		at += slice->blocks[b].size;
	}
}

/* A copy of one pane. */
static StateCopy *
copy_make(const HistoryReader *reader, const PaneCopy *pane, MemoryContext cxt)
{
	struct
	{
		StateCopy copy;
		PaneCopy  pane;
	} *result = MemoryContextAllocZero(cxt, sizeof(*result));

	result->pane = *pane;
	result->copy.state_size = reader->state_size;
	result->copy.npanes = 1;
	result->copy.panes = &result->pane;
	return &result->copy;
}

/* A slice that has been put together, as a copy of its pane; NULL if none of its entries is wanted. */
static StateCopy *
slice_to_copy(const HistoryReader *reader, MemoryContext cxt)
{
	const uint32 *hash = reader->by_hash ? &reader->hash : NULL;
	SliceBytes	  slice;
	PaneCopy	  pane = { .id = reader->slice.pane };
	StateCopy	 *copy;

	slice_open(reader, &slice);
	slice_find_groups(&slice, &pane);
	if (hash != NULL)
		slice_choose_groups(*hash, &pane, cxt);
	if (pane.ngroups == 0)
		return NULL;
	slice_rehash(reader, &pane);
	pane.nrows = slice.header->nrows;
	copy = copy_make(reader, &pane, cxt);
	if (slice.header->nblocks > 0)
		slice_find_blobs(&slice, hash, copy, cxt);
	return copy;
}

/* The same with one group for all. */
static StateCopy *
slice_to_sum(HistoryReader *reader, MemoryContext cxt)
{
	const SliceParts *slice = &reader->slice;
	PaneCopy		  pane = { .id = slice->pane, .ngroups = 1 };
	GroupEntry		 *entry;
	SliceBytes		  bytes;

	pane.groups = MemoryContextAlloc(cxt, sizeof(GroupEntry *) + streamext_slice_sum_size(&reader->sum));
	entry = pane.groups[0] = (GroupEntry *) (pane.groups + 1);
	if (slice->sum != NULL)
	{
		memcpy(entry, slice->sum, streamext_slice_sum_size(&reader->sum));
		reader->nsummed = slice->nentries;
		pane.nrows = slice->nrows;
	}
	else
	{
		slice_open(reader, &bytes);
		if (!streamext_slice_sum(&bytes, &reader->sum, entry))
			slice_refuse();
		reader->nsummed = bytes.header->nentries;
		pane.nrows = bytes.header->nrows;
	}
	return reader->nsummed > 0 ? copy_make(reader, &pane, cxt) : NULL;
}

/* Room for more bytes of a slice that has several parts, or whose only one is not aligned. */
static void
slice_grow(SliceParts *slice, Size more)
{
	char *grown;

	if (slice->size + more <= slice->capacity)
		return;
	slice->capacity = Max(slice->capacity * 2, slice->size + more);
	grown = MemoryContextAllocHuge(CurrentMemoryContext, VARHDRSZ + slice->capacity);
	if (slice->size > 0)
		memcpy(grown + VARHDRSZ, slice->bytes, slice->size);
	slice->bytes = grown + VARHDRSZ;
}

/* Adds bytes behind those that are there; ours: they stay as long as the slice is used, and are aligned. */
static void
slice_add_bytes(SliceParts *slice, char *bytes, Size size, bool ours)
{
	if (slice->nparts == 0 && ours)
		slice->bytes = bytes;
	else
	{
		slice_grow(slice, size);
		memcpy(slice->bytes + slice->size, bytes, size);
	}
	slice->size += size;
}

/* Appends the row at hand, in the current memory context; parts come in order. */
static void
slice_append(HistoryReader *reader)
{
	SliceParts		 *slice = &reader->slice;
	const HistoryRow *row = &reader->row;

	if (row->part != slice->nparts || (row->part > 0 && (row->pane != slice->pane || row->bucket != slice->bucket)))
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("streamext_internal.history lacks a row")));
	if (row->bytes != NULL)
		slice_add_bytes(slice, row->bytes, row->size, true);
	else
	{
		struct varlena *bytes = PG_DETOAST_DATUM_PACKED(row->data);

		/* decompressed: ours, and aligned */
		slice_add_bytes(slice, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes),
						(Pointer) bytes != DatumGetPointer(row->data));
	}
	slice->sum = row->sum;
	slice->nentries = row->nentries;
	slice->nrows = row->nrows;
	slice->pane = row->pane;
	slice->bucket = row->bucket;
	slice->nparts++;
}

/* ---- reading ---- */

void
streamext_history_begin(HistoryReader *reader, const CompiledView *view, KeyMatcher *matcher, const HistoryMark *mark,
						int64 min, int64 max, const uint32 *bucket)
{
	MemoryContext old;
	ScanKeyData	  keys[4];

	streamext_history_end(reader);
	max = Min(max, mark->sealed);
	if (mark->history == 0 || mark->sealed == PG_INT64_MIN || min > max)
		return;
	ScanKeyInit(&keys[0], HISTORY_VIEW, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(view->relid));
	ScanKeyInit(&keys[1], HISTORY_SHARD, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(mark->shard));
	ScanKeyInit(&keys[2], HISTORY_PANE, BTGreaterEqualStrategyNumber, F_INT8GE, Int64GetDatum(min));
	ScanKeyInit(&keys[3], HISTORY_PANE, BTLessEqualStrategyNumber, F_INT8LE, Int64GetDatum(max));
	reader->definition = mark->history;
	reader->state_size = view->state_size;
	reader->view = view;
	reader->matcher = matcher;
	reader->by_hash = bucket != NULL;
	reader->hash = bucket != NULL ? *bucket : 0;
	reader->alone = false;
	reader->sum.state_size = view->state_size;
	reader->bytes = 0;
	reader->block = InvalidBlockNumber;
	reader->nblocks = 0;
	old = MemoryContextSwitchTo(reader->cxt);
	reader->scan = history_begin_scan(reader, keys, 4);
	MemoryContextSwitchTo(old);
}

void
streamext_history_sum(HistoryReader *reader, const AggSpec *const *aggs, int n)
{
	SliceSum *sum = &reader->sum;

	if (reader->scan == NULL)
		return;
	Assert(sum->aggs == NULL && !reader->by_hash && reader->ahead == NULL);
	sum->aggs = MemoryContextAlloc(reader->cxt, sizeof(sum->aggs[0]) * Max(n, 1));
	sum->n = n;
	for (int i = 0; i < n; i++)
	{
		sum->aggs[i].offset = aggs[i]->offset;
		sum->aggs[i].combine = aggs[i]->native->combine;
	}
}

uint32
streamext_history_summed(const HistoryReader *reader)
{
	return reader->nsummed;
}

void
streamext_history_end(HistoryReader *reader)
{
	if (reader->ahead != NULL)
		streamext_ahead_stop(reader->ahead);
	reader->ahead = NULL;
	if (reader->sum.aggs != NULL)
		pfree(reader->sum.aggs);
	reader->sum.aggs = NULL;
	if (reader->strategy != NULL)
		FreeAccessStrategy(reader->strategy);
	reader->strategy = NULL;
	if (reader->scan != NULL)
		index_endscan(reader->scan);
	reader->scan = NULL;
	reader->held = false;
	memset(&reader->slice, 0, sizeof(SliceParts));
	MemoryContextReset(reader->slice_cxt);
	ExecClearTuple(reader->slot);
}

/*
 * The row of the index entry at hand into reader->slot; false: it is not seen. Blocks in excess of a quarter of the shared buffers take the place of each
 * other and of nothing else there, as in PostgreSQL's own scans of large tables.
 */
static bool
history_fetch_heap(HistoryReader *reader)
{
	BlockNumber block = ItemPointerGetBlockNumber(&reader->scan->xs_heaptid);
	Buffer		buffer = InvalidBuffer;
	bool		found;

	if (block != reader->block)
	{
		reader->block = block;
		if (reader->strategy == NULL && ++reader->nblocks > NBuffers / 4)
			reader->strategy = GetAccessStrategy(BAS_BULKREAD);
		if (reader->strategy != NULL)
			buffer = ReadBufferExtended(reader->table, MAIN_FORKNUM, block, RBM_NORMAL, reader->strategy);
	}
	found = index_fetch_heap(reader->scan, reader->slot);
	if (BufferIsValid(buffer))
		ReleaseBuffer(buffer);
	return found;
}

/* The next row of the table that may matter, as it is in reader->slot; false: there is none. */
static bool
history_fetch(HistoryReader *reader, HistoryRow *row)
{
	IndexScanDesc scan = reader->scan;
	MemoryContext old = MemoryContextSwitchTo(reader->cxt);
	bool		  found = false;

	while (!found && index_getnext_tid(scan, ForwardScanDirection) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (reader->by_hash && !slice_has_hash(DatumGetInt32(history_index_column(scan, HISTORY_BUCKET)), reader->hash))
			continue;
		found = history_fetch_heap(reader) &&
				DatumGetInt64(history_column(reader, HISTORY_DEFINITION)) == (int64) reader->definition;
	}
	if (found)
	{
		row->pane = DatumGetInt64(history_column(reader, HISTORY_PANE));
		row->bucket = DatumGetInt32(history_column(reader, HISTORY_BUCKET));
		row->part = DatumGetInt32(history_column(reader, HISTORY_PART));
		row->data = history_column(reader, HISTORY_DATA);
		row->bytes = NULL;
		row->sum = NULL;
		reader->bytes += toast_datum_size(row->data);
	}
	MemoryContextSwitchTo(old);
	return found;
}

/* The next row that may matter, at hand; false at the end. */
static bool
history_next_row(HistoryReader *reader)
{
	if (reader->ahead == NULL && !reader->alone && reader->sum.aggs != NULL &&
		(reader->bytes >= HISTORY_AHEAD_AFTER || streamext_fault_is_set("history-ahead")))
	{
		reader->ahead = streamext_ahead_start(reader, history_fetch, &reader->sum, reader->cxt);
		reader->alone = reader->ahead == NULL;
	}
	return reader->ahead != NULL ? streamext_ahead_next(reader->ahead, &reader->row)
								 : history_fetch(reader, &reader->row);
}

/* The slice that has been put together; NULL: nothing of it is wanted. */
static StateCopy *
history_finish_slice(HistoryReader *reader, HistoryStats *stats, MemoryContext cxt)
{
	SliceParts *slice = &reader->slice;
	bool		summed = reader->sum.aggs != NULL;
	StateCopy  *copy = summed ? slice_to_sum(reader, cxt) : slice_to_copy(reader, cxt);

	stats->slices++;
	stats->bytes += slice->size;
	if (copy != NULL)
		stats->groups += summed ? reader->nsummed : copy->panes[0].ngroups;
	memset(slice, 0, sizeof(SliceParts));
	MemoryContextReset(reader->slice_cxt);
	return copy;
}

StateCopy *
streamext_history_next(HistoryReader *reader, HistoryStats *stats, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(reader->by_hash ? reader->slice_cxt : cxt);
	StateCopy	 *copy = NULL;

	while (reader->scan != NULL && copy == NULL)
	{
		bool found = reader->held || history_next_row(reader);

		/* A slice is complete when the next one begins; that row waits. */
		if (reader->slice.nparts > 0 && (!found || reader->row.part == 0))
			copy = history_finish_slice(reader, stats, cxt);
		else if (found)
			slice_append(reader);
		reader->held = found && (copy != NULL || reader->slice.nparts == 0);
		if (!found)
			streamext_history_end(reader);
	}
	MemoryContextSwitchTo(old);
	return copy;
}

void
streamext_history_read(HistoryReader *reader, const CompiledView *view, KeyMatcher *matcher, const HistoryMark *mark,
					   int64 min, int64 max, const uint32 *bucket, CopyArray *into, HistoryStats *stats,
					   MemoryContext cxt)
{
	StateCopy *copy;

	streamext_history_begin(reader, view, matcher, mark, min, max, bucket);
	while ((copy = streamext_history_next(reader, stats, cxt)) != NULL)
		streamext_copy_array_add(into, copy, cxt);
}

/* ---- its first and last slices ---- */

static bool
history_edge(HistoryReader *reader, Oid view, int shard, bool last, SliceHeader *header, int64 *pane,
			 uint64 *definition)
{
	ScanKeyData	  keys[2];
	IndexScanDesc scan;
	bool		  found = false;

	ScanKeyInit(&keys[0], HISTORY_VIEW, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(view));
	ScanKeyInit(&keys[1], HISTORY_SHARD, BTEqualStrategyNumber, F_INT4EQ, Int32GetDatum(shard));
	scan = history_begin_scan(reader, keys, 2);
	while (!found && index_getnext_tid(scan, last ? BackwardScanDirection : ForwardScanDirection) != NULL)
	{
		struct varlena *bytes;

		CHECK_FOR_INTERRUPTS();
		if (DatumGetInt32(history_index_column(scan, HISTORY_PART)) != 0)
			continue; /* the header is in the first part */
		*pane = DatumGetInt64(history_index_column(scan, HISTORY_PANE));
		if (!index_fetch_heap(scan, reader->slot))
			continue;
		*definition = (uint64) DatumGetInt64(history_column(reader, HISTORY_DEFINITION));
		found = true;
		if (header == NULL)
			break;
		bytes = PG_DETOAST_DATUM_SLICE(history_column(reader, HISTORY_DATA), HISTORY_PAD, sizeof(SliceHeader));
		memset(header, 0, sizeof(SliceHeader));
		memcpy(header, VARDATA_ANY(bytes), Min(VARSIZE_ANY_EXHDR(bytes), sizeof(SliceHeader)));
	}
	index_endscan(scan);
	return found;
}

bool
streamext_history_edge(Oid view, int shard, bool last, SliceHeader *header, int64 *pane, uint64 *definition)
{
	HistoryReader *reader = streamext_history_open(NULL);
	bool		   found = history_edge(reader, view, shard, last, header, pane, definition);

	streamext_history_close(reader);
	return found;
}

TimestampTz
streamext_history_floor(HistoryReader *reader, Oid view, int shard)
{
	SliceHeader header;
	int64		pane;
	uint64		definition;

	return history_edge(reader, view, shard, true, &header, &pane, &definition) ? header.floor : DT_NOBEGIN;
}

Oid
streamext_history_next_view(Oid after)
{
	HistoryReader *reader = streamext_history_open(NULL);
	ScanKeyData	   key;
	IndexScanDesc  scan;
	Oid			   view = InvalidOid;

	ScanKeyInit(&key, HISTORY_VIEW, BTGreaterStrategyNumber, F_OIDGT, ObjectIdGetDatum(after));
	scan = history_begin_scan(reader, &key, 1);
	while (!OidIsValid(view) && index_getnext_tid(scan, ForwardScanDirection) != NULL)
		if (index_fetch_heap(scan, reader->slot))
			view = DatumGetObjectId(history_column(reader, HISTORY_VIEW));
	index_endscan(scan);
	streamext_history_close(reader);
	return view;
}
