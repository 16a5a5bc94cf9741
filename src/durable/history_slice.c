/*
 * durable/history_slice.c
 *		A pane as slices of history: its visible entries by buckets, behind a header and the blocks that their pointers refer to (durable/history.h), and
 *		these as rows of the table. What the function promises is in durable/history_slice.h.
 */
#include "base/streamext.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/toast_compression.h"
#include "access/toast_internals.h"
#include "utils/rel.h"

#include "base/identity.h"
#include "durable/history_slice.h"

#define HISTORY_BUCKET_BYTES (8 * 1024) /* about, of entries, before compression */
#define HISTORY_MAX_BUCKETS 4096
#define HISTORY_PART_BYTES (512 * 1024) /* before compression */

#ifdef USE_LZ4
#define HISTORY_COMPRESSION TOAST_LZ4_COMPRESSION
#else
#define HISTORY_COMPRESSION TOAST_PGLZ_COMPRESSION
#endif

/* A pane on its way. */
typedef struct SlicedPane
{
	const CompiledView *view;
	const Pane		   *pane;
	SliceHeader			header; /* what all its slices have */
	int					nblocks;
	StateBlock		  **blocks; /* of blobs */
	uint32			   *hashes; /* of the visible entries */
	int					n;		/* buckets */
	Size			   *sizes;	/* by bucket: of its entries, then of its slice */
	uint32			   *counts;
	char			  **slices, **at;
} SlicedPane;

/* Calls for each visible entry of the pane: `FOR_ENTRIES(pane, entry) if (entry->visible) ...` */
#define FOR_ENTRIES(pane, entry)                                                            \
	for (const StateBlock *block_ = (pane)->entries; block_ != NULL; block_ = block_->next) \
		for (const GroupEntry *entry = (const GroupEntry *) block_->data;                   \
			 (const char *) entry < block_->data + block_->used;                            \
			 entry = (const GroupEntry *) ((const char *) entry + entry->size))

/* ---- rows ---- */

static void
slice_write_part(HistoryWriter *writer, const ViewSlot *slot, const Pane *pane, int bucket, int part, const char *bytes,
				 Size size)
{
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
slice_write(HistoryWriter *writer, const ViewSlot *slot, const Pane *pane, int bucket, const char *bytes, Size size)
{
	int part = 0;

	for (Size at = 0; at < size; at += HISTORY_PART_BYTES)
		slice_write_part(writer, slot, pane, bucket, part++, bytes + at, Min(size - at, HISTORY_PART_BYTES));
}

/* ---- what is in a pane ---- */

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

/* Groups and bytes of the pane. */
static void
slice_measure(SlicedPane *sliced)
{
	HistoryTotals *totals = &sliced->header.pane;

	FOR_ENTRIES(sliced->pane, entry)
	{
		if (entry->visible == 0)
			continue;
		totals->bytes += entry->size;
		totals->groups++;
	}
	sliced->n = slice_count_buckets(sliced->view, totals->bytes);
	for (int b = 0; b < sliced->nblocks; b++)
		sliced->header.blobs_size += sliced->blocks[b]->used;
	sliced->header.nblocks = sliced->nblocks;
	totals->bytes += sliced->header.blobs_size;
	totals->panes = 1;
}

/* As the view's owner, whose types' functions may be called. */
static void
slice_hash(SlicedPane *sliced)
{
	const CompiledView *view = sliced->view;
	KeyMatcher		   *matcher = streamext_key_matcher(view, CurrentMemoryContext);
	IdentityScope		scope;
	int64				e = 0;

	sliced->hashes = palloc_extended(sizeof(uint32) * Max(sliced->header.pane.groups, 1), MCXT_ALLOC_HUGE);
	if (!view->builtin)
		scope = streamext_identity_enter(view->owner);
	FOR_ENTRIES(sliced->pane, entry)
	{
		if (entry->visible != 0)
			sliced->hashes[e++] =
				streamext_key_bucket(matcher, STREAMEXT_ENTRY_KEY(entry, view->state_size), entry->key_size);
	}
	if (!view->builtin)
		streamext_identity_leave(scope);
}

/* ---- buckets ---- */

static void
slice_measure_buckets(SlicedPane *sliced)
{
	int64 e = 0;

	sliced->sizes = palloc0(sizeof(Size) * sliced->n);
	sliced->counts = palloc0(sizeof(uint32) * sliced->n);
	sliced->at = palloc(sizeof(char *) * sliced->n);
	sliced->slices = palloc(sizeof(char *) * sliced->n);
	FOR_ENTRIES(sliced->pane, entry)
	{
		uint32 hash;

		if (entry->visible == 0)
			continue;
		hash = sliced->hashes[e++];
		sliced->sizes[hash & (sliced->n - 1)] += entry->size;
		sliced->counts[hash & (sliced->n - 1)]++;
	}
}

static void
slice_put(SlicedPane *sliced, int bucket, const void *bytes, Size size)
{
	memcpy(sliced->at[bucket], bytes, size);
	sliced->at[bucket] += size;
}

/* The header and the blocks' places. */
static void
slice_begin(SlicedPane *sliced, int bucket)
{
	SliceHeader header = sliced->header;

	header.entries_size = sliced->sizes[bucket];
	header.nentries = sliced->counts[bucket];
	sliced->sizes[bucket] +=
		HISTORY_PAD + sizeof(SliceHeader) + sliced->nblocks * sizeof(SliceBlock) + header.blobs_size;
	sliced->slices[bucket] = palloc_extended(sliced->sizes[bucket], MCXT_ALLOC_HUGE);
	sliced->at[bucket] = sliced->slices[bucket] + HISTORY_PAD;
	slice_put(sliced, bucket, &header, sizeof(SliceHeader));
	for (int i = 0; i < sliced->nblocks; i++)
	{
		SliceBlock block = { (uint64) (uintptr_t) sliced->blocks[i]->data, sliced->blocks[i]->used };

		slice_put(sliced, bucket, &block, sizeof(SliceBlock));
	}
}

static void
slice_put_entries(SlicedPane *sliced)
{
	int64 e = 0;

	FOR_ENTRIES(sliced->pane, entry)
	{
		GroupEntry *to;
		uint32		hash;

		if (entry->visible == 0)
			continue;
		hash = sliced->hashes[e++];
		to = (GroupEntry *) sliced->at[hash & (sliced->n - 1)];
		slice_put(sliced, hash & (sliced->n - 1), entry, entry->size);
		to->hash = hash;
	}
}

/* The blocks, and the checksum before it all. */
static void
slice_end(SlicedPane *sliced, int bucket)
{
	char	 *slice = sliced->slices[bucket];
	pg_crc32c crc;

	for (int i = 0; i < sliced->nblocks; i++)
		slice_put(sliced, bucket, sliced->blocks[i]->data, sliced->blocks[i]->used);
	Assert(sliced->at[bucket] == slice + sliced->sizes[bucket]);
	crc = streamext_slice_checksum(slice, sliced->sizes[bucket]);
	memcpy(slice, &crc, sizeof(crc));
}

void
streamext_slices_write(HistoryWriter *writer, const CompiledView *view, const ViewSlot *slot, const Pane *pane,
					   HistoryTotals *written)
{
	SlicedPane	 sliced = { .view = view, .pane = pane };
	SliceHeader *header = &sliced.header;

	header->format = HISTORY_FORMAT;
	header->state_size = view->state_size;
	header->nrows = pane->nrows;
	sliced.blocks = slice_sort_blocks(pane, &sliced.nblocks);
	slice_measure(&sliced);
	slice_hash(&sliced);
	written->panes++;
	written->groups += header->pane.groups;
	written->bytes += header->pane.bytes;
	header->total = *written;
	header->floor = slot->history.floor;
	slice_measure_buckets(&sliced);
	for (int b = 0; b < sliced.n; b++)
		if (sliced.counts[b] > 0)
			slice_begin(&sliced, b);
	slice_put_entries(&sliced);
	for (int b = 0; b < sliced.n; b++)
	{
		if (sliced.counts[b] == 0)
			continue;
		slice_end(&sliced, b);
		slice_write(writer, slot, pane, sliced.n + b, sliced.slices[b], sliced.sizes[b]);
	}
}
