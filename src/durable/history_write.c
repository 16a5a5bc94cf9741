/*
 * durable/history_write.c
 *		Sealed panes leave memory for the table streamext.history, exactly once.
 *
 * The worker writes the slices of panes that became sealed, commits, and only then, under the stream's exclusive lock, publishes
 * the mark ViewSlot.history.sealed (all panes up to it are in history) and takes the panes out of memory: in one step for readers,
 * who copy memory and mark under the lock and read slices with a newer snapshot (durable/history_read.c).
 *
 * No transaction is shared with anything else that is durable. The table is the truth about what is sealed: when a view's
 * state is begun or gone on with, the last slice says how far history reaches, and panes up to there are void in memory,
 * from wherever they came. Rows that are read again and fall into such panes count as accepted and are not folded: every
 * row that was delivered before the seal had been folded by then, and one delivered after it is late, for a hopping window's pane
 * is sealed when the last window that holds it is closed: until then rows may come that count in some of its windows. Should the server
 * crash before the slices' commit has reached the disk, memory is lost as well and the panes are made again from the
 * source. WAL is ordered, so nothing that was committed after the slices outlives them.
 *
 * Slices are known by a hash of the view's definition and of the source's; those of another one are deleted before any is
 * written. The primary key keeps a stale worker from writing a pane twice. There is no other row that would have
 * to be updated: each slice carries the totals through its pane, and the floor of retention.
 *
 * Windows that tumble or hop and calendar buckets are kept so; not what slides over now, nor sessions, nor views without a
 * window, whose panes are never sealed.
 */
#include "base/streamext.h"
#include "base/content.h"

#include "base/transaction.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/toast_compression.h"
#include "access/toast_internals.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "common/int.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/own_table.h"
#include "base/fault.h"
#include "base/identity.h"
#include "durable/flow_position.h"
#include "durable/history.h"
#include "shared/shard.h"

#define HISTORY_BUCKET_BYTES (8 * 1024) /* about, of entries, before compression */
#define HISTORY_MAX_BUCKETS 4096
#define HISTORY_PART_BYTES (512 * 1024)				 /* before compression */
#define HISTORY_TRANSACTION_BYTES (16 * 1024 * 1024) /* or one pane */
#define HISTORY_RETRY_MS 10000

#ifdef USE_LZ4
#define HISTORY_COMPRESSION TOAST_LZ4_COMPRESSION
#else
#define HISTORY_COMPRESSION TOAST_PGLZ_COMPRESSION
#endif

/* Leading panes of a view that are being moved. */
typedef struct SealedView
{
	WorkerView	 *v;
	int			  npanes;
	int64		  sealed;
	TimestampTz	  until;
	HistoryTotals written; /* what the slot's will be */
	HistoryTotals deleted;
} SealedView;

typedef struct HistoryWriter
{
	Relation		  table;
	CatalogIndexState indexes;
	MemoryContext	  cxt; /* of a pane */
} HistoryWriter;

static TimestampTz history_retry_at = 0;
static TimestampTz history_trouble_at = 0; /* noted in the catalogue; 0: it is over */

/* ---------------------------------------------------------------- deleting */

/* One of the statements below on streamext.history; the number of rows. Needs a snapshot. */
static uint64
history_delete(const char *sql, Oid view, int shard, int64 pane)
{
	IdentityScope own;
	Oid			  types[3] = { OIDOID, INT4OID, INT8OID };
	Datum		  values[3] = { ObjectIdGetDatum(view), Int32GetDatum(shard), Int64GetDatum(pane) };
	int			  rc;
	uint64		  n;

	own = streamext_own_begin();
	rc = SPI_execute_with_args(sql, 3, types, values, NULL, false, 0);
	if (rc != SPI_OK_DELETE)
		elog(ERROR, "could not delete from streamext.history: %s", SPI_result_code_string(rc));
	n = SPI_processed;
	streamext_own_end(own);
	return n;
}

#define HISTORY_DELETE \
	"DELETE FROM streamext.history WHERE view OPERATOR(pg_catalog.=) $1 AND shard OPERATOR(pg_catalog."

/* Of a shard, panes below `pane`. */
static uint64
history_delete_panes(Oid view, int shard, int64 pane)
{
	return history_delete(HISTORY_DELETE "=) $2 AND pane OPERATOR(pg_catalog.<) $3", view, shard, pane);
}

/* Of a shard, all; PG_INT64_MAX is no pane's id. */
static void
history_delete_shard(Oid view, int shard)
{
	history_delete_panes(view, shard, PG_INT64_MAX);
}

/* Shards from `shard` on. */
static void
history_delete_shards_from(Oid view, int shard)
{
	history_delete(HISTORY_DELETE ">=) $2 AND pane OPERATOR(pg_catalog.<) $3", view, shard, PG_INT64_MAX);
}

void
streamext_history_forget_dropped(void)
{
	Oid view = InvalidOid;

	streamext_content_forget_dropped();
	streamext_flow_forget_former();
	if (!OidIsValid(streamext_history_relation()))
		return;
	while (OidIsValid(view = streamext_history_next_view(view)))
		if (!streamext_view_options(view).continuous)
			history_delete_shards_from(view, 0);
}

/* ---------------------------------------------------------------- start */

static uint64
history_key(const CompiledView *view, const ViewSlot *slot, uint64 source)
{
	uint64 key = hash_combine64(view->definition, source);
	char  *content;

	/* After pg_upgrade: PostgreSQL's own states, and how they are compressed, are of its version. */
	key = hash_combine64(key, PG_VERSION_NUM / 10000);
	if (slot->counted.round > 0)
		key = hash_combine64(key, (uint64) slot->counted.round);
	content = psprintf("history\n" UINT64_FORMAT " " UINT64_FORMAT " %d " INT64_FORMAT, view->definition, source,
					   PG_VERSION_NUM / 10000, slot->counted.round);
	return streamext_content_number(view->relid, content, strlen(content), NULL, key);
}

/* What retention has deleted before the first slice that is there. */
static HistoryTotals
history_deleted_before(const SliceHeader *first)
{
	HistoryTotals deleted = first->total;

	deleted.panes -= first->pane.panes;
	deleted.groups -= first->pane.groups;
	deleted.bytes -= first->pane.bytes;
	return deleted;
}

HistoryTotals
streamext_history_kept(Oid view, int shard, uint64 key)
{
	HistoryTotals kept = { 0 };
	SliceHeader	  last;
	SliceHeader	  first;
	HistoryTotals deleted;
	int64		  pane;
	uint64		  definition;

	if (!OidIsValid(streamext_history_relation()) ||
		!streamext_history_edge(view, shard, true, NULL, &pane, &definition) || definition != key ||
		!streamext_history_edge(view, shard, true, &last, &pane, &definition) ||
		!streamext_history_edge(view, shard, false, &first, &pane, &definition))
		return kept;
	deleted = history_deleted_before(&first);
	kept.panes = last.total.panes - deleted.panes;
	kept.groups = last.total.groups - deleted.groups;
	kept.bytes = last.total.bytes - deleted.bytes;
	return kept;
}

static int
history_count_through(const ViewState *state, int64 id)
{
	int n = 0;

	while (n < state->npanes && state->panes[n]->id <= id)
		n++;
	return n;
}

/* The panes that are leaving, as an array of their own. */
static Pane **
history_leaving(const ViewState *state, int npanes)
{
	Pane **panes = palloc_extended(sizeof(Pane *) * Max(npanes, 1), MCXT_ALLOC_HUGE);

	if (npanes > 0)
		memcpy(panes, state->panes, sizeof(Pane *) * npanes);
	return panes;
}

/* The same; a look costs less than a DELETE of nothing. */
static void
history_clear_shard(Oid view, int shard)
{
	int64  pane;
	uint64 definition;

	if (streamext_history_edge(view, shard, true, NULL, &pane, &definition))
		history_delete_shard(view, shard);
}

/* Of shards that there are no more, in either set. */
static void
history_delete_former_shards(Oid view, int shards)
{
	for (int shard = shards; shard < STREAMEXT_MAX_SHARDS; shard++)
		for (int set = 0; set < HISTORY_SETS; set++)
			history_clear_shard(view, HISTORY_SHARD_OF(shard, set));
}

/* What readers may still want from the slot's view besides its own slices; -1: nothing. */
static int
history_retained_shard(const ViewSlot *slot)
{
	const ViewSlot *retained = slot->id.retained_slot > 0 ? &streamext_shared->views[slot->id.retained_slot - 1] : NULL;

	return retained != NULL && retained->history.number != 0 ? retained->history.shard : -1;
}

/* The set where slices of this key are, with the last one of them, or else one that nothing stands in the way in. */
static int
history_choose_set(const CompiledView *view, const ViewSlot *slot, uint64 key, bool *found, SliceHeader *last,
				   int64 *pane)
{
	int	   retained = history_retained_shard(slot);
	uint64 definition;

	for (int set = 0; set < HISTORY_SETS; set++)
	{
		int shard = HISTORY_SHARD_OF(slot->id.shard, set);

		*found = streamext_history_edge(view->relid, shard, true, NULL, pane, &definition) && definition == key &&
				 streamext_history_edge(view->relid, shard, true, last, pane, &definition) &&
				 last->format == HISTORY_FORMAT && last->state_size == view->state_size;
		if (*found)
			return shard;
	}
	return HISTORY_SHARD_OF(slot->id.shard, retained == HISTORY_SHARD_OF(slot->id.shard, 0) ? 1 : 0);
}

/* Of sets that are neither `shard`'s nor retained. */
static void
history_delete_others(Oid view, const ViewSlot *slot, int shard)
{
	for (int set = 0; set < HISTORY_SETS; set++)
	{
		int other = HISTORY_SHARD_OF(slot->id.shard, set);

		if (other != shard && other != history_retained_shard(slot))
			history_clear_shard(view, other);
	}
}

void
streamext_history_tidy(const ViewSlot *slot)
{
	if (OidIsValid(streamext_history_relation()) && slot->history.number != 0)
		history_delete_others(slot->id.viewoid, slot, slot->history.shard);
}

void
streamext_history_start(Shard *shard_of, WorkerView *v)
{
	ViewSlot		   *slot = v->slot;
	const CompiledView *view = v->view;
	uint64				key = history_key(view, slot, shard_of->slot->counted.source);
	SliceHeader			first = { 0 };
	SliceHeader			last = { 0 };
	uint64				definition;
	int64				pane = PG_INT64_MIN;
	int64				unused;
	bool				found;
	int					shard;
	int					npanes;
	Pane			  **panes;

	if (!OidIsValid(streamext_history_relation()))
		return;
	if (slot->id.shard == 0)
		history_delete_former_shards(view->relid, shard_of->config->workers);
	shard = history_choose_set(view, slot, key, &found, &last, &pane);
	history_delete_others(view->relid, slot, shard);
	if (found)
		(void) streamext_history_edge(view->relid, shard, false, &first, &unused, &definition);
	else
	{
		history_clear_shard(view->relid, shard);
		pane = PG_INT64_MIN;
	}

	npanes = history_count_through(&slot->counted.state, pane);
	panes = history_leaving(&slot->counted.state, npanes);
	shard_of->does->forget_panes(v, panes, npanes);
	streamext_stream_lock_exclusive(&streamext_shared->streams[slot->id.stream]);
	slot->history.shard = shard;
	if (slot->history.number != key)
	{
		slot->history.number = key;
		slot->history.covered = pane;
	}
	if (found)
	{
		slot->history.sealed = pane;
		slot->history.sealed_until = streamext_window_pane_end(&view->window, pane);
		slot->history.floor = Max(slot->history.floor, last.floor);
		slot->history.written = last.total;
		slot->history.deleted = history_deleted_before(&first);
	}
	streamext_state_unlink_panes(&slot->counted.state, npanes);
	LWLockRelease(slot->counted.state.lock);
	streamext_state_free_panes(panes, npanes);
	pfree(panes);
}

/* ---------------------------------------------------------------- which panes */

static bool
seal_is_sealed(const CompiledView *view, const Pane *pane, TimestampTz watermark)
{
	TimestampTz end = streamext_window_last_end(&view->window, pane->id);

	return !pg_add_s64_overflow(end, view->options.lateness, &end) && watermark >= end;
}

static Size
seal_pane_bytes(const Pane *pane)
{
	Size bytes = 0;

	for (const StateBlock *block = pane->entries; block != NULL; block = block->next)
		bytes += block->used;
	for (const StateBlock *block = pane->blobs; block != NULL; block = block->next)
		bytes += block->used;
	return bytes;
}

/* Leading panes of the view that are sealed, as long as there are less than *bytes of them. True: there are more. */
static bool
seal_gather(Shard *shard, WorkerView *v, SealedView *sealed, Size *bytes)
{
	const CompiledView *view = v->view;
	const ViewState	   *state = &v->slot->counted.state;
	TimestampTz			watermark = v->behind ? v->watermark : shard->slot->counted.watermark;

	memset(sealed, 0, sizeof(SealedView));
	sealed->v = v;
	if (v->paused || v->slot->history.number == 0 || !streamext_window_has_ends(&view->window) ||
		watermark == DT_NOBEGIN)
		return false;
	for (int i = 0; i < state->npanes && seal_is_sealed(view, state->panes[i], watermark); i++)
	{
		if (*bytes == 0)
			return true;
		*bytes -= Min(*bytes, seal_pane_bytes(state->panes[i]) + sizeof(SliceHeader));
		sealed->npanes++;
	}
	return false;
}

/* ---------------------------------------------------------------- writing */

static void
slice_write_part(HistoryWriter *writer, const SealedView *sealed, const Pane *pane, int bucket, int part,
				 const char *bytes, Size size)
{
	ViewSlot	   *slot = sealed->v->slot;
	Datum			values[HISTORY_COLUMNS];
	bool			nulls[HISTORY_COLUMNS] = { 0 };
	struct varlena *data = palloc(VARHDRSZ + size);
	Datum			compressed;
	HeapTuple		tuple;

	SET_VARSIZE(data, VARHDRSZ + size);
	memcpy(VARDATA(data), bytes, size);
	compressed = toast_compress_datum(PointerGetDatum(data), HISTORY_COMPRESSION);

	values[HISTORY_VIEW - 1] = ObjectIdGetDatum(slot->id.viewoid);
	values[HISTORY_SHARD - 1] = Int32GetDatum(slot->history.shard);
	values[HISTORY_PANE - 1] = Int64GetDatum(pane->id);
	values[HISTORY_BUCKET - 1] = Int32GetDatum(bucket);
	values[HISTORY_PART - 1] = Int32GetDatum(part);
	values[HISTORY_DEFINITION - 1] = Int64GetDatum((int64) slot->history.number);
	values[HISTORY_NROWS - 1] = Int64GetDatum((int64) pane->nrows);
	values[HISTORY_DATA - 1] = DatumGetPointer(compressed) != NULL ? compressed : PointerGetDatum(data);
	tuple = heap_form_tuple(RelationGetDescr(writer->table), values, nulls);
	CatalogTupleInsertWithInfo(writer->table, tuple, writer->indexes);
	heap_freetuple(tuple);
	pfree(data);
	if (DatumGetPointer(compressed) != NULL)
		pfree(DatumGetPointer(compressed));
}

static void
slice_write(HistoryWriter *writer, const SealedView *sealed, const Pane *pane, int bucket, const char *bytes, Size size)
{
	int part = 0;

	for (Size at = 0; at < size; at += HISTORY_PART_BYTES)
		slice_write_part(writer, sealed, pane, bucket, part++, bytes + at, Min(size - at, HISTORY_PART_BYTES));
}

static int
slice_compare_blocks(const void *a, const void *b)
{
	uint64 x = (uint64) (uintptr_t) * (StateBlock *const *) a;
	uint64 y = (uint64) (uintptr_t) * (StateBlock *const *) b;

	return x < y ? -1 : x > y;
}

/* A pane's blocks of blobs, ascending by address as readers want them. */
static StateBlock **
slice_sort_blocks(const Pane *pane, int *nblocks)
{
	StateBlock **blocks;
	int			 n = 0;

	for (const StateBlock *block = pane->blobs; block != NULL; block = block->next)
		n++;
	blocks = palloc(sizeof(StateBlock *) * Max(n, 1));
	n = 0;
	for (StateBlock *block = pane->blobs; block != NULL; block = block->next)
		blocks[n++] = block;
	qsort(blocks, n, sizeof(StateBlock *), slice_compare_blocks);
	*nblocks = n;
	return blocks;
}

/* Calls for each visible entry of the pane: `FOR_ENTRIES(pane, entry) if (entry->visible) ...` */
#define FOR_ENTRIES(pane, entry)                                                            \
	for (const StateBlock *block_ = (pane)->entries; block_ != NULL; block_ = block_->next) \
		for (const GroupEntry *entry = (const GroupEntry *) block_->data;                   \
			 (const char *) entry < block_->data + block_->used;                            \
			 entry = (const GroupEntry *) ((const char *) entry + entry->size))

static int
slice_count_buckets(const CompiledView *view, Size entries_size)
{
	int n = 1;

	for (int a = 0; a < view->naggs; a++)
		if (view->aggs[a].mode != AGG_NATIVE)
			return 1;
	while (n < HISTORY_MAX_BUCKETS && entries_size / n > HISTORY_BUCKET_BYTES)
		n *= 2;
	return n;
}

/* The pane's buckets, as rows. */
static void
seal_write_pane(HistoryWriter *writer, SealedView *sealed, const Pane *pane)
{
	const CompiledView *view = sealed->v->view;
	SliceHeader			header = { .format = HISTORY_FORMAT, .state_size = view->state_size, .nrows = pane->nrows };
	int					nblocks;
	StateBlock		  **blocks = slice_sort_blocks(pane, &nblocks);
	int					n;
	Size			   *sizes;
	uint32			   *counts;
	char			  **at;
	char			  **slices;
	KeyMatcher		   *matcher = streamext_key_matcher(view, CurrentMemoryContext);
	uint32			   *hashes; /* of the visible entries */
	IdentityScope		scope;
	int64				e = 0;

	FOR_ENTRIES(pane, entry)
	{
		if (entry->visible == 0)
			continue;
		header.pane.bytes += entry->size;
		header.pane.groups++;
	}
	if (!view->builtin)
		scope = streamext_identity_enter(view->owner);
	hashes = palloc_extended(sizeof(uint32) * Max(header.pane.groups, 1), MCXT_ALLOC_HUGE);
	FOR_ENTRIES(pane, entry)
	{
		if (entry->visible != 0)
			hashes[e++] = streamext_key_bucket(matcher, STREAMEXT_ENTRY_KEY(entry, view->state_size), entry->key_size);
	}
	if (!view->builtin)
		streamext_identity_leave(scope);
	n = slice_count_buckets(view, header.pane.bytes);
	for (int b = 0; b < nblocks; b++)
		header.blobs_size += blocks[b]->used;
	header.nblocks = nblocks;
	header.pane.bytes += header.blobs_size;
	header.pane.panes = 1;
	sealed->written.panes++;
	sealed->written.groups += header.pane.groups;
	sealed->written.bytes += header.pane.bytes;
	header.total = sealed->written;
	header.floor = sealed->v->slot->history.floor;

	sizes = palloc0(sizeof(Size) * n);
	counts = palloc0(sizeof(uint32) * n);
	at = palloc(sizeof(char *) * n);
	slices = palloc(sizeof(char *) * n);
	e = 0;
	FOR_ENTRIES(pane, entry)
	{
		uint32 hash;

		if (entry->visible == 0)
			continue;
		hash = hashes[e++];
		sizes[hash & (n - 1)] += entry->size;
		counts[hash & (n - 1)]++;
	}
	for (int b = 0; b < n; b++)
	{
		if (counts[b] == 0)
			continue;
		header.entries_size = sizes[b];
		header.nentries = counts[b];
		sizes[b] += HISTORY_PAD + sizeof(SliceHeader) + nblocks * sizeof(SliceBlock) + header.blobs_size;
		slices[b] = at[b] = palloc_extended(sizes[b], MCXT_ALLOC_HUGE);
		at[b] += HISTORY_PAD;
		memcpy(at[b], &header, sizeof(SliceHeader));
		at[b] += sizeof(SliceHeader);
		for (int i = 0; i < nblocks; i++)
		{
			SliceBlock block = { (uint64) (uintptr_t) blocks[i]->data, blocks[i]->used };

			memcpy(at[b], &block, sizeof(SliceBlock));
			at[b] += sizeof(SliceBlock);
		}
	}
	e = 0;
	FOR_ENTRIES(pane, entry)
	{
		uint32 hash;
		int	   b;

		if (entry->visible == 0)
			continue;
		hash = hashes[e++];
		b = hash & (n - 1);
		memcpy(at[b], entry, entry->size);
		((GroupEntry *) at[b])->hash = hash;
		at[b] += entry->size;
	}
	for (int b = 0; b < n; b++)
	{
		pg_crc32c crc;

		if (counts[b] == 0)
			continue;
		for (int i = 0; i < nblocks; i++)
		{
			memcpy(at[b], blocks[i]->data, blocks[i]->used);
			at[b] += blocks[i]->used;
		}
		Assert(at[b] == slices[b] + sizes[b]);
		crc = streamext_slice_checksum(slices[b], sizes[b]);
		memcpy(slices[b], &crc, sizeof(crc));
		slice_write(writer, sealed, pane, n + b, slices[b], sizes[b]);
	}
}

/* Slices beyond retention; the newest stays, for it tells how far history reaches. */
static void
seal_delete_expired(SealedView *sealed)
{
	ViewSlot		   *slot = sealed->v->slot;
	const CompiledView *view = sealed->v->view;
	TimestampTz			from = slot->history.floor;
	SliceHeader			first;
	int64				pane;
	uint64				definition;

	if (from == DT_NOBEGIN ||
		(view->window.kind == WINDOW_HOP && pg_sub_s64_overflow(from, view->window.size, &from)) ||
		TIMESTAMP_NOT_FINITE(from) || !IS_VALID_TIMESTAMP(from))
		return;
	pane = Min(streamext_window_pane(&view->window, from), sealed->sealed);
	if (history_delete_panes(slot->id.viewoid, slot->history.shard, pane) > 0 &&
		streamext_history_edge(slot->id.viewoid, slot->history.shard, false, &first, &pane, &definition))
		sealed->deleted = history_deleted_before(&first);
}

static void
seal_write_view(HistoryWriter *writer, SealedView *sealed)
{
	ViewSlot		   *slot = sealed->v->slot;
	const CompiledView *view = sealed->v->view;
	MemoryContext		old = MemoryContextSwitchTo(writer->cxt);

	sealed->written = slot->history.written;
	sealed->deleted = slot->history.deleted;
	sealed->sealed = slot->history.sealed;
	sealed->until = slot->history.sealed_until;
	for (int i = 0; i < sealed->npanes; i++)
	{
		const Pane *pane = slot->counted.state.panes[i];

		if (pane->nrows == 0) /* never published */
			continue;
		seal_write_pane(writer, sealed, pane);
		sealed->sealed = pane->id;
		sealed->until = streamext_window_pane_end(&view->window, pane->id);
		MemoryContextReset(writer->cxt);
	}
	MemoryContextSwitchTo(old);
	if (sealed->written.panes > slot->history.written.panes)
	{
		CommandCounterIncrement();
		seal_delete_expired(sealed);
	}
}

/* All slices, in a transaction. False: somebody has locked the table; nothing was written. */
static bool
seal_write(List *views)
{
	HistoryWriter writer;
	Oid			  relid;
	bool		  available;
	ListCell	 *lc;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	relid = streamext_history_relation();
	available = OidIsValid(relid) && ConditionalLockRelationOid(relid, RowExclusiveLock);
	if (available)
	{
		writer.table = table_open(relid, NoLock);
		writer.indexes = CatalogOpenIndexes(writer.table);
		writer.cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext history", ALLOCSET_DEFAULT_SIZES);
		foreach (lc, views)
			seal_write_view(&writer, lfirst(lc));
		MemoryContextDelete(writer.cxt);
		CatalogCloseIndexes(writer.indexes);
		table_close(writer.table, NoLock);
	}
	PopActiveSnapshot();
	STREAMEXT_FAULT("history-before-commit");
	CommitTransactionCommand();
	STREAMEXT_FAULT("history-after-commit");
	return available;
}

/* From a catch block: the log says why, and the catalogue. */
static void
seal_failed(const Shard *shard, MemoryContext cxt)
{
	ErrorData *error = streamext_worker_caught(cxt);
	char	   message[STREAMEXT_MAX_MESSAGE];

	ereport(LOG, (errmsg("sealed panes could not be written to streamext.history, they stay in memory: %s",
						 streamext_error_text(error))));
	streamext_clip_format(message, sizeof(message), "closed windows could not be written and stay in memory: %s",
						  error->message);
	if (!shard->catchup)
		history_trouble_at = streamext_stream_note_trouble(shard->slot, message);
	FreeErrorData(error);
}

/* The same; trouble is told, and false. */
static bool
seal_try_write(const Shard *shard, List *views)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool written = false;

	PG_TRY();
	{
		written = seal_write(views);
		streamext_stream_trouble_over(shard->slot, &history_trouble_at);
	}
	PG_CATCH();
	{
		seal_failed(shard, cxt);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return written;
}

/* ---------------------------------------------------------------- publishing */

/* In one step for readers: the marks move and the panes are gone from memory. */
static void
seal_publish(Shard *shard, List *views)
{
	Pane   ***leaving = palloc(sizeof(Pane **) * list_length(views));
	ListCell *lc;

	foreach (lc, views)
	{
		SealedView *sealed = lfirst(lc);
		Pane	  **panes = history_leaving(&sealed->v->slot->counted.state, sealed->npanes);

		shard->does->forget_panes(sealed->v, panes, sealed->npanes);
		leaving[foreach_current_index(lc)] = panes;
	}
	streamext_stream_lock_exclusive(shard->slot);
	foreach (lc, views)
	{
		SealedView *sealed = lfirst(lc);
		ViewSlot   *slot = sealed->v->slot;

		slot->history.sealed = sealed->sealed;
		slot->history.sealed_until = sealed->until;
		slot->history.written = sealed->written;
		slot->history.deleted = sealed->deleted;
		streamext_state_unlink_panes(&slot->counted.state, sealed->npanes);
	}
	LWLockRelease(shard->slot->lock);
	foreach (lc, views)
	{
		Pane **panes = leaving[foreach_current_index(lc)];

		streamext_state_free_panes(panes, ((SealedView *) lfirst(lc))->npanes);
		pfree(panes);
	}
	pfree(leaving);
}

TimestampTz
streamext_history_retry_at(void)
{
	return history_retry_at != 0 ? history_retry_at : DT_NOEND;
}

bool
streamext_history_seal(Shard *shard)
{
	Size		bytes = HISTORY_TRANSACTION_BYTES;
	List	   *views = NIL;
	bool		more = false;
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	if (now < history_retry_at)
		return false;
	history_retry_at = 0;
	foreach (lc, shard->views)
	{
		WorkerView *v = lfirst(lc);
		SealedView *sealed;

		if (v->fold == NULL)
			continue;
		sealed = palloc(sizeof(SealedView));
		more = seal_gather(shard, v, sealed, &bytes) || more;
		if (sealed->npanes > 0)
			views = lappend(views, sealed);
		else
			pfree(sealed);
	}
	if (views == NIL)
	{
		streamext_stream_trouble_over(shard->slot, &history_trouble_at); /* nothing is left to be written */
		return false;
	}
	if (!seal_try_write(shard, views))
	{
		history_retry_at = TimestampTzPlusMilliseconds(now, HISTORY_RETRY_MS);
		more = false;
	}
	else
		seal_publish(shard, views);
	list_free_deep(views);
	return more;
}
