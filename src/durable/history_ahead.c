/*
 * durable/history_ahead.c
 *		Rows of history unpacked ahead of their reader. What the functions promise is in durable/history_ahead.h.
 *
 * Batches of rows go round in a ring. The process fills one, the thread, or the process, unpacks it, the process takes its rows: batches
 * [taken - 1, filled) are in use, and those of them that are not done are whose who has begun with them; all others are the process's, which alone
 * allocates. The mutex is of `filled`, `begun`, `done` and `stop`; it is never held where an error can be raised.
 */
#include "postgres.h"

#include <dlfcn.h>
#include <time.h>

#include "access/detoast.h"
#include "access/toast_compression.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "base/thread.h"
#include "durable/history_ahead.h"

#define AHEAD_THREADS \
	4 /* of a process at a time: it may have any number of cursors, and the system has not so many threads */
#define AHEAD_BATCHES 5
#define AHEAD_ROWS 256
#define AHEAD_BYTES (256 * 1024)		   /* of a batch, unpacked; one row may go beyond */
#define AHEAD_ROW_BYTES (512 * 1024)	   /* what claims to be more is left to PostgreSQL */
#define AHEAD_LEAST_BYTES (64 * 1024)	   /* of a buffer */
#define AHEAD_LOOK_NS (100 * 1000 * 1000L) /* between two looks for interrupts while the process waits */

/* liblz4's, which PostgreSQL is linked with if it has LZ4. */
typedef int (*AheadDecompress)(const char *from, char *to, int size, int capacity);

typedef struct AheadBuffer
{
	char *bytes;
	Size  used;
	Size  capacity;
} AheadBuffer;

typedef struct AheadRow
{
	HistoryRow row;
	Size	   at;	   /* in the batch's unpacked bytes */
	Size	   packed; /* in its packed ones: a compressed varlena */
	Size	   sum;	   /* in its sums */
	bool	   is_packed;
	bool	   failed; /* it could not be decompressed */
} AheadRow;

typedef struct AheadBatch
{
	int			n;
	AheadRow	rows[AHEAD_ROWS];
	AheadBuffer packed;
	AheadBuffer unpacked;
	AheadBuffer sums; /* an entry for each row */
	bool		done; /* unpacked */
} AheadBatch;

struct HistoryAhead
{
	HistoryReader		 *reader;
	HistoryFetch		  fetch;
	MemoryContext		  cxt;
	MemoryContextCallback end;
	AheadDecompress		  decompress;
	SliceSum			  sum;
	pthread_t			  thread;
	pthread_mutex_t		  mutex;
	pthread_cond_t		  work; /* for the thread: filled or stop */
	pthread_cond_t		  done; /* for the process: a batch is done */
	bool				  stop;
	uint64				  filled, begun, taken; /* batches */
	bool				  ended;				/* there are no more rows to fetch */
	int					  next;					/* row of batch taken - 1 */
	AheadBatch			  batches[AHEAD_BATCHES];
};

static AheadBatch *
ahead_batch(HistoryAhead *ahead, uint64 number)
{
	return &ahead->batches[number % AHEAD_BATCHES];
}

/* ---- the thread ---- */

/* If the row is not a whole slice, or not a sound one, it is left for its reader to say so. */
static void
row_sum(const HistoryAhead *ahead, HistoryRow *row, GroupEntry *into)
{
	SliceBytes slice;

	if (!streamext_slice_open(row->bytes, row->size, ahead->sum.state_size, &slice) ||
		!streamext_slice_sum(&slice, &ahead->sum, into))
		return;
	row->sum = into;
	row->nentries = slice.header->nentries;
	row->nrows = slice.header->nrows;
}

static void
row_unpack(const HistoryAhead *ahead, const AheadBatch *batch, AheadRow *ahead_row)
{
	HistoryRow *row = &ahead_row->row;
	char	   *to = batch->unpacked.bytes + ahead_row->at;

	if (ahead_row->is_packed)
	{
		const char *from = batch->packed.bytes + ahead_row->packed;
		int size = ahead->decompress(from + VARHDRSZ_COMPRESSED, to, (int) (VARSIZE(from) - VARHDRSZ_COMPRESSED),
									 (int) row->size);

		ahead_row->failed = size < 0;
		row->size = Max(size, 0);
	}
	row->bytes = to;
	if (row->part == 0)
		row_sum(ahead, row, (GroupEntry *) (batch->sums.bytes + ahead_row->sum));
}

/* Unpacks the next batch that nobody has begun with; false: there is none. With the mutex, which it lets go meanwhile. */
static bool
ahead_unpack_next(HistoryAhead *ahead)
{
	AheadBatch *batch = ahead_batch(ahead, ahead->begun);

	if (ahead->begun == ahead->filled)
		return false;
	ahead->begun++;
	pthread_mutex_unlock(&ahead->mutex);
	for (int i = 0; i < batch->n; i++)
		row_unpack(ahead, batch, &batch->rows[i]);
	pthread_mutex_lock(&ahead->mutex);
	batch->done = true;
	return true;
}

static void *
ahead_run(void *arg)
{
	HistoryAhead *ahead = arg;

	pthread_mutex_lock(&ahead->mutex);
	while (!ahead->stop)
	{
		if (!ahead_unpack_next(ahead))
			pthread_cond_wait(&ahead->work, &ahead->mutex);
		else
			pthread_cond_signal(&ahead->done);
	}
	pthread_mutex_unlock(&ahead->mutex);
	return NULL;
}

/* ---- start and stop ---- */

static AheadDecompress
ahead_find_decompress(void)
{
	static AheadDecompress found;

	if (found == NULL)
		found = (AheadDecompress) dlsym(RTLD_DEFAULT, "LZ4_decompress_safe");
	return found;
}

static int ahead_nthreads = 0; /* of this process */

/* When the context goes. */
static void
ahead_join(void *arg)
{
	HistoryAhead *ahead = arg;

	pthread_mutex_lock(&ahead->mutex);
	ahead->stop = true;
	pthread_cond_signal(&ahead->work);
	pthread_mutex_unlock(&ahead->mutex);
	pthread_join(ahead->thread, NULL);
	ahead_nthreads--;
}

/* False: there is no thread to be had. */
static bool
ahead_start_thread(HistoryAhead *ahead)
{
	pthread_mutex_init(&ahead->mutex, NULL);
	pthread_cond_init(&ahead->work, NULL);
	streamext_thread_cond_init(&ahead->done);
	return streamext_thread_start(&ahead->thread, ahead_run, ahead) == 0;
}

HistoryAhead *
streamext_ahead_start(HistoryReader *reader, HistoryFetch fetch, const SliceSum *sum, MemoryContext cxt)
{
	static const char zeros[4096];
	HistoryAhead	 *ahead;
	MemoryContext	  own;

	/* Workers, of the extension or parallel ones, have none: other processes want the processors more. */
	if (MyBackendType != B_BACKEND || ahead_nthreads >= AHEAD_THREADS || ahead_find_decompress() == NULL)
		return NULL;
	own = AllocSetContextCreate(cxt, "streamext history ahead", ALLOCSET_DEFAULT_SIZES);
	ahead = MemoryContextAllocZero(own, sizeof(HistoryAhead));
	ahead->reader = reader;
	ahead->fetch = fetch;
	ahead->sum = *sum;
	ahead->cxt = own;
	ahead->decompress = ahead_find_decompress();
	(void) streamext_checksum(zeros, sizeof(zeros)); /* makes its tables, here */
	if (!ahead_start_thread(ahead))
	{
		MemoryContextDelete(own);
		return NULL;
	}
	ahead_nthreads++;
	(void) pthread_setname_np(ahead->thread, "history ahead");
	ahead->end.func = ahead_join;
	ahead->end.arg = ahead;
	MemoryContextRegisterResetCallback(own, &ahead->end);
	return ahead;
}

void
streamext_ahead_stop(HistoryAhead *ahead)
{
	MemoryContextDelete(ahead->cxt);
}

/* ---- filling ---- */

/* Room for more bytes behind what is used; where it begins. */
static Size
buffer_take(HistoryAhead *ahead, AheadBuffer *buffer, Size padding, Size more)
{
	Size at = MAXALIGN(buffer->used) + padding;

	if (at + more > buffer->capacity)
	{
		buffer->capacity = Max(Max(buffer->capacity + buffer->capacity / 2, at + more), AHEAD_LEAST_BYTES);
		buffer->bytes = buffer->bytes == NULL ? MemoryContextAllocHuge(ahead->cxt, buffer->capacity)
											  : repalloc_huge(buffer->bytes, buffer->capacity);
	}
	buffer->used = at + more;
	return at;
}

/* Whether the thread can decompress it. */
static bool
data_is_for_thread(const struct varlena *data)
{
	return VARATT_IS_COMPRESSED(data) && VARDATA_COMPRESSED_GET_COMPRESS_METHOD(data) == TOAST_LZ4_COMPRESSION_ID &&
		   VARDATA_COMPRESSED_GET_EXTSIZE(data) <= AHEAD_ROW_BYTES;
}

/* Copies a row, before the next one is fetched. */
static void
batch_add(HistoryAhead *ahead, AheadBatch *batch, const HistoryRow *row)
{
	AheadRow	   *to = &batch->rows[batch->n];
	MemoryContext	old = MemoryContextSwitchTo(ahead->cxt);
	struct varlena *stored = (struct varlena *) DatumGetPointer(row->data);
	struct varlena *data = VARATT_IS_EXTERNAL(stored) ? detoast_external_attr(stored) : stored;

	to->row = *row;
	to->failed = false;
	to->is_packed = data_is_for_thread(data);
	if (to->is_packed)
	{
		to->row.size = VARDATA_COMPRESSED_GET_EXTSIZE(data);
		to->packed = buffer_take(ahead, &batch->packed, 0, VARSIZE(data));
		memcpy(batch->packed.bytes + to->packed, data, VARSIZE(data));
		to->at = buffer_take(ahead, &batch->unpacked, HISTORY_PAD, to->row.size);
	}
	else
	{
		struct varlena *plain = pg_detoast_datum_packed(data);

		to->row.size = VARSIZE_ANY_EXHDR(plain);
		to->at = buffer_take(ahead, &batch->unpacked, HISTORY_PAD, to->row.size);
		memcpy(batch->unpacked.bytes + to->at, VARDATA_ANY(plain), to->row.size);
		if (plain != data)
			pfree(plain);
	}
	if (data != stored)
		pfree(data);
	to->sum = buffer_take(ahead, &batch->sums, 0, streamext_slice_sum_size(&ahead->sum));
	MemoryContextSwitchTo(old);
	batch->n++;
}

static void
batch_fill(HistoryAhead *ahead, AheadBatch *batch)
{
	HistoryRow row;

	batch->n = 0;
	batch->done = false;
	batch->packed.used = batch->unpacked.used = batch->sums.used = 0;
	while (batch->n < AHEAD_ROWS && batch->unpacked.used < AHEAD_BYTES)
	{
		ahead->ended = !ahead->fetch(ahead->reader, &row);
		if (ahead->ended)
			break;
		batch_add(ahead, batch, &row);
	}
}

/* Gives the thread what the ring has room for. */
static void
ahead_fill(HistoryAhead *ahead)
{
	while (!ahead->ended && ahead->filled - (ahead->taken == 0 ? 0 : ahead->taken - 1) < AHEAD_BATCHES)
	{
		AheadBatch *batch = ahead_batch(ahead, ahead->filled);

		batch_fill(ahead, batch);
		if (batch->n == 0)
			break;
		pthread_mutex_lock(&ahead->mutex);
		ahead->filled++;
		pthread_cond_signal(&ahead->work);
		pthread_mutex_unlock(&ahead->mutex);
	}
}

/* ---- taking ---- */

/* With the mutex. */
static void
ahead_wait(HistoryAhead *ahead)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += AHEAD_LOOK_NS;
	until.tv_sec += until.tv_nsec / (1000 * 1000 * 1000);
	until.tv_nsec %= 1000 * 1000 * 1000;
	pgstat_report_wait_start(PG_WAIT_EXTENSION);
	(void) pthread_cond_timedwait(&ahead->done, &ahead->mutex, &until);
	pgstat_report_wait_end();
}

/* Whether the next batch to be taken is done. If it is not, does what the thread has not come to yet, or waits for it. */
static bool
ahead_is_done(HistoryAhead *ahead)
{
	bool done;

	pthread_mutex_lock(&ahead->mutex);
	if (!ahead_batch(ahead, ahead->taken)->done && !ahead_unpack_next(ahead))
		ahead_wait(ahead);
	done = ahead_batch(ahead, ahead->taken)->done;
	pthread_mutex_unlock(&ahead->mutex);
	return done;
}

/* The next batch; false: there is none. */
static bool
ahead_take(HistoryAhead *ahead)
{
	ahead_fill(ahead);
	if (ahead->taken == ahead->filled)
		return false;
	while (!ahead_is_done(ahead))
		CHECK_FOR_INTERRUPTS();
	ahead->taken++;
	ahead->next = 0;
	return true;
}

bool
streamext_ahead_next(HistoryAhead *ahead, HistoryRow *row)
{
	AheadBatch *batch;
	AheadRow   *from;

	if ((ahead->taken == 0 || ahead->next == ahead_batch(ahead, ahead->taken - 1)->n) && !ahead_take(ahead))
		return false;
	batch = ahead_batch(ahead, ahead->taken - 1);
	from = &batch->rows[ahead->next++];
	if (from->failed)
	{
		(void) pg_detoast_datum_packed((struct varlena *) (batch->packed.bytes + from->packed));
		elog(ERROR, "a row of streamext_internal.history was not decompressed");
	}
	*row = from->row;
	return true;
}
