/*
 * durable/history_ahead.h
 *		Rows of history unpacked ahead of their reader, by a thread of the session's process.
 *
 * Only for readers of sums (streamext_history_sum): whoever reads each group on another processor waits for its bytes as long as they take to be unpacked.
 * The process fetches rows from the table as ever and copies them as they are stored into a ring of at most 8 MB (mostly 2); there the thread
 * decompresses them, takes their checksums, and sums the slices up. The process does the same with what the thread has not
 * come to when it is wanted, so that a thread which gets no processor holds nothing up. It calls nothing of PostgreSQL that allocates, raises or writes
 * what others see, takes no signal, and lives no longer than the memory context that it was started in: what ends the reader, be it an error or the
 * session's end, ends it.
 */
#ifndef STREAMEXT_HISTORY_AHEAD_H
#define STREAMEXT_HISTORY_AHEAD_H

#include "durable/history.h"
#include "durable/slice_bytes.h"

/* Stored bytes that a reader goes through before it has a thread: 30 MB or so of groups, 20 ms. */
#define HISTORY_AHEAD_AFTER (8 * 1024 * 1024)

/* A row of the table of history. */
typedef struct HistoryRow
{
	int64 pane;
	int32 bucket;
	int32 part;
	Datum data;	 /* as it is stored; of an unpacked row it is gone */
	char *bytes; /* NULL: not unpacked; else what is behind HISTORY_PAD is aligned */
	Size  size;	 /* of the bytes */

	/* if it is a sound slice, else NULL: its groups together; how many, and the pane's rows */
	GroupEntry *sum;
	uint32		nentries;
	uint64		nrows;
} HistoryRow;

typedef struct HistoryAhead HistoryAhead;

/* The next row of the table, not unpacked; false: there is none. */
typedef bool (*HistoryFetch)(HistoryReader *reader, HistoryRow *row);

/*
 * In a memory context of its own below cxt; *sum, whose aggregates live as long, says of which the sum is asked for. NULL: this process, no client's
 * session, has no thread, or enough of them, or none could be started.
 */
extern HistoryAhead *streamext_ahead_start(HistoryReader *reader, HistoryFetch fetch, const SliceSum *sum,
										   MemoryContext cxt);
/* Ends the thread, and with it all bytes of rows. */
extern void streamext_ahead_stop(HistoryAhead *ahead);
/*
 * The next row, unpacked; false: there is none. Its bytes stay until the next call but one. Raises what fetching, or
 * decompressing this row here, would raise; fetching is some rows ahead.
 */
extern bool streamext_ahead_next(HistoryAhead *ahead, HistoryRow *row);

#endif /* STREAMEXT_HISTORY_AHEAD_H */
