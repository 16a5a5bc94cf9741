/*-------------------------------------------------------------------------
 *
 * sink/changes_look.c
 *		A look at a view: its rows are read as any SELECT reads them and compared with the feed's (shared/feed.h).
 *
 * Output expressions, HAVING, window functions, ORDER BY with LIMIT and time itself (sliding windows, retention) decide which rows there are,
 * and the state of groups alone does not say what becomes of them. So it is the answer that is compared, row by row, under the view's key
 * columns: whatever the cause of a change was, applying what is told gives the answer.
 *
 * Deletes come before upserts of the same look, since two texts may be one key (1.0 and 1.00).
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "common/hashfn.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "tcop/dest.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "read/changed.h"
#include "shared/shmem.h"
#include "sink/changes_private.h"
#include "sink/row_text.h"

#define LOOK_EXPECTED (4 * 1024 * 1024)

uint64
streamext_changes_version(const ChangesReader *reader)
{
	uint64 version = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];
		StreamSlot	   *stream;
		uint64			seen[16];

		if (!view->id.in_use || view->id.viewoid != reader->view || view->id.dboid != MyDatabaseId)
			continue;
		stream = &streamext_shared->streams[view->id.stream];
		streamext_stream_lock_shared(stream);
		seen[0] = (uint64) i << 32 | view->id.retained << 16 | view->counted.ready << 8 | (uint64) view->health.status;
		seen[1] = view->id.retained_slot;
		seen[2] = view->counted.definition;
		seen[3] = view->counted.round;
		seen[4] = view->counted.state.batches;
		seen[5] = view->counted.state.ngroups;
		seen[6] = view->counted.state.horizon;
		seen[7] = view->history.sealed;
		seen[8] = view->history.floor;
		seen[9] = view->history.written.panes;
		seen[10] = view->history.deleted.panes;
		seen[11] = view->counted.accepted;
		seen[12] = stream->counted.batches;
		seen[13] = stream->counted.watermark;
		seen[14] = view->history.number;
		seen[15] = view->history.sealed_until;
		LWLockRelease(stream->lock);
		version = hash_bytes_extended((const unsigned char *) seen, sizeof(seen), version);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return version;
}

/* ---- rows by key ---- */

typedef struct LookKey
{
	const char *data; /* not terminated */
	uint32		size;
} LookKey;

/* A key's row as it was told and as it is. */
typedef struct LookRow
{
	LookKey	   key;
	uint32	   hash;
	char	   status; /* the table's own */
	bool	   seen;
	FeedEntry *entry; /* NULL: new */
} LookRow;

static inline uint32
look_key_hash(LookKey key)
{
	return hash_bytes((const unsigned char *) key.data, key.size);
}

static inline bool
look_key_equal(LookKey a, LookKey b)
{
	return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

#define SH_PREFIX look_rows
#define SH_ELEMENT_TYPE LookRow
#define SH_KEY_TYPE LookKey
#define SH_KEY key
#define SH_HASH_KEY(table, key) look_key_hash(key)
#define SH_EQUAL(table, a, b) look_key_equal(a, b)
#define SH_SCOPE static inline
#define SH_STORE_HASH
#define SH_GET_HASH(table, row) (row)->hash
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

typedef struct Look
{
	DestReceiver		 receiver; /* takes the view's rows */
	const ChangesReader *reader;
	FeedSlot			*feed;
	ReadChanged			 changed;
	MemoryContext		 cxt;	/* of all that the look keeps; */
	MemoryContext		 texts; /* below it, of texts: one behind the other */
	RowText				*text;
	look_rows_hash		*rows;
	uint64				 nread;
	FeedChange			*changes; /* upserts */
	int					 nchanges, capacity;
} Look;

/* ---- what was told ---- */

static void
look_take_told(Look *look, FeedEntry *entry)
{
	LookKey	 key = { entry->data, entry->key_size };
	bool	 found;
	LookRow *row = look_rows_insert(look->rows, key, &found);

	row->seen = false;
	row->entry = entry;
}

/* About so many rows are read. */
static uint32
look_expected(const Look *look)
{
	uint64 n = look->changed.whole ? look->feed->live_entries : look->changed.groups->published;

	return Min(Max(n, 64), LOOK_EXPECTED);
}

/* What was told of all rows that are read, if they are there still: those that are not seen then are gone. */
static void
look_told(Look *look)
{
	const ReadChanged *changed = &look->changed;
	TimestampTz		   floor = changed->now.floor;
	FeedCursor		   cursor;
	FeedEntry		  *entry;

	look->rows = look_rows_create(look->cxt, look_expected(look), NULL);
	cursor = changed->whole ? streamext_feed_after(look->feed, 0)
							: streamext_feed_between(look->feed, changed->from, changed->until);
	while ((entry = streamext_feed_next(&cursor)) != NULL)
		if (streamext_changed_has(changed, entry->hash, entry->start))
			look_take_told(look, entry);
	if (changed->whole || floor <= changed->before.floor)
		return;
	cursor = streamext_feed_between(look->feed, PG_INT64_MIN, floor);
	while ((entry = streamext_feed_next(&cursor)) != NULL)
		if (streamext_window_end(look->reader->window, entry->start) <= floor)
			look_take_told(look, entry);
}

/* ---- what is there ---- */

static FeedChange *
look_append(Look *look)
{
	if (look->nchanges == look->capacity)
	{
		look->capacity = Max(look->capacity * 2, 256);
		look->changes = look->changes == NULL ? palloc_extended(sizeof(FeedChange) * look->capacity, MCXT_ALLOC_HUGE)
											  : repalloc_huge(look->changes, sizeof(FeedChange) * look->capacity);
	}
	return &look->changes[look->nchanges++];
}

static const char *
look_keep(Look *look, const char *text, Size size)
{
	return memcpy(MemoryContextAlloc(look->texts, size), text, size);
}

static void
look_refuse_twice(const Look *look, LookKey key)
{
	ereport(ERROR, (errcode(ERRCODE_CARDINALITY_VIOLATION),
					errmsg("changes of \"%s\" are not available", get_rel_name(look->reader->view)),
					errdetail("It has several rows with the key %.*s.", (int) Min(key.size, 200), key.data)));
}

static void
look_note_change(Look *look, LookRow *row, const StringInfo text)
{
	FeedChange *change = look_append(look);

	memset(change, 0, sizeof(FeedChange));
	change->old = row->entry;
	change->key = row->key.data;
	change->key_size = row->key.size;
	change->row = look_keep(look, text->data, text->len);
	change->row_size = text->len;
	if (look->reader->grouped && look->nread < look->changed.nrows)
	{
		change->hash = look->changed.rows[look->nread].hash;
		change->start = look->changed.rows[look->nread].start;
	}
}

/* The row that is in the texts. */
static void
look_compare(Look *look)
{
	const StringInfo text = &look->text->row;
	LookKey			 key = { look->text->key.data, look->text->key.len };
	bool			 found;
	LookRow			*row = look_rows_insert(look->rows, key, &found);

	if (found && row->seen)
		look_refuse_twice(look, key);
	if (!found)
	{
		row->key.data = look_keep(look, key.data, key.size);
		row->entry = NULL;
	}
	row->seen = true;
	if (!found || row->entry->gone || row->entry->row_size != text->len ||
		memcmp(row->entry->data + row->entry->key_size, text->data, text->len) != 0)
		look_note_change(look, row, text);
	look->nread++;
}

/* ---- reading ---- */

/* What is read of the view is known then, and what was told of that. */
static void
look_startup(DestReceiver *receiver, int operation, TupleDesc desc)
{
	Look		 *look = (Look *) receiver;
	MemoryContext old = MemoryContextSwitchTo(look->cxt);

	streamext_read_changed(NULL);
	look->changed.whole = look->changed.whole || !look->changed.begun;
	look->text = streamext_row_text_create(desc, look->reader->keys);
	look_told(look);
	MemoryContextSwitchTo(old);
}

static bool
look_receive(TupleTableSlot *slot, DestReceiver *receiver)
{
	Look		 *look = (Look *) receiver;
	MemoryContext old = MemoryContextSwitchTo(look->cxt);

	streamext_row_text_write(look->text, slot);
	look_compare(look);
	MemoryContextSwitchTo(old);
	return true;
}

static void
look_read_view(Look *look)
{
	SPIExecuteOptions options = { .dest = &look->receiver };
	SPIPlanPtr		  plan;
	volatile int	  result = 0;

	look->receiver = *None_Receiver;
	look->receiver.receiveSlot = look_receive;
	look->receiver.rStartup = look_startup;
	look->receiver.mydest = DestTuplestore; /* any that keeps rows */
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	plan = SPI_prepare(look->reader->query, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare \"%s\"", look->reader->query);
	streamext_read_changed(&look->changed);
	PG_TRY();
	{
		result = SPI_execute_plan_extended(plan, &options);
	}
	PG_FINALLY();
	{
		streamext_read_changed(NULL);
	}
	PG_END_TRY();
	if (result != SPI_OK_SELECT)
		elog(ERROR, "could not read the view: %s", SPI_result_code_string(result));
	SPI_finish();
}

/* ---- the look ---- */

/* Deletes, then the upserts. */
static FeedChange *
look_collect(Look *look, int *n)
{
	look_rows_iterator scan;
	LookRow			  *row;
	FeedChange		  *all;
	int				   deletes = 0;

	look_rows_start_iterate(look->rows, &scan);
	while ((row = look_rows_iterate(look->rows, &scan)) != NULL)
		deletes += !row->seen && !row->entry->gone;
	all = palloc_extended(sizeof(FeedChange) * (deletes + look->nchanges + 1), MCXT_ALLOC_HUGE);
	*n = 0;
	look_rows_start_iterate(look->rows, &scan);
	while ((row = look_rows_iterate(look->rows, &scan)) != NULL)
	{
		FeedEntry *entry = row->entry;

		if (row->seen || entry->gone)
			continue;
		all[*n].old = entry;
		all[*n].key = entry->data;
		all[*n].key_size = entry->key_size;
		all[*n].row = entry->data + entry->key_size;
		all[*n].row_size = entry->row_size;
		all[*n].gone = true;
		all[*n].hash = entry->hash;
		all[*n].start = entry->start;
		(*n)++;
	}
	memcpy(all + *n, look->changes, sizeof(FeedChange) * look->nchanges);
	*n += look->nchanges;
	return all;
}

void
streamext_changes_look(const ChangesReader *reader, FeedSlot *feed)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext changes", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	TimestampTz	  now = GetCurrentTimestamp();
	uint64		  version = reader->steady ? streamext_changes_version(reader) : 0;
	Look		  look = { .reader = reader, .feed = feed, .cxt = cxt };
	FeedChange	 *changes;
	int			  n;

	look.texts = GenerationContextCreate(cxt, "streamext changes texts", ALLOCSET_DEFAULT_SIZES);
	look.changed.view = reader->view;
	look.changed.cxt = cxt;
	if (feed->incarnation != 0)
		look.changed.before = feed->look;
	look_read_view(&look);
	changes = look_collect(&look, &n);
	while (feed->incarnation == 0)
		if (!pg_strong_random(&feed->incarnation, sizeof(feed->incarnation)))
			elog(ERROR, "could not generate a random number");
	if (!streamext_feed_add(feed, changes, n, GetCurrentTimestamp()))
	{
		streamext_feed_reset(feed);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY),
						errmsg("there is no memory for the changes of \"%s\"", get_rel_name(reader->view)),
						errhint("Raise streamext.memory_limit and restart the server.")));
	}
	feed->looked_at = now;
	feed->version = version;
	feed->look = look.changed.now;
	feed->grouped = reader->grouped && look.nread == look.changed.nrows;
	if (!feed->grouped)
		feed->look.nmarks = 0;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}
