/*
 * durable/journal_base.h
 *		The journals of streams as their slots and checkpoints know them: where one is, where it begins and ends, and appending to it from
 *		outside of the stream's worker.
 */
#ifndef STREAMEXT_JOURNAL_BASE_H
#define STREAMEXT_JOURNAL_BASE_H

#include "base/streamext.h"
#include "shared/shmem.h"
#include "source/journal/journal.h"

/*
 * Where the stream's journal is and what its slot shares of it. Reads tables when nobody has opened it since the server's start, so
 * it needs a transaction, and no lock may be held.
 */
extern JournalPlace streamext_stream_journal(StreamSlot *slot, Oid relid, int shard, JournalMode mode);

/* The end of the journal of a stream's shard: where a new view on a source that cannot be replayed begins. -1: there is no journal yet. */
extern int64 streamext_stream_journal_end(StreamSlot *slot, const StreamConfig *config, int shard);

/* Whether the journal still holds all that the view has counted. */
extern bool streamext_view_is_held(const ViewSlot *slot, const StreamConfig *config);

/*
 * For backends and gateways: n records into the journal at place (of streamext_stream_journal), one fsync for all of them if the mode
 * says so; when it returns STREAM_APPENDED they may be acknowledged. The caller wakes the worker (streamext_wake_worker). Needs no
 * transaction. STREAM_APPEND_FAILED with errno, of streamext_journal_append: none of them is taken. STREAM_APPEND_GONE: the slot is
 * no longer the stream's.
 */
typedef enum StreamAppend
{
	STREAM_APPENDED,
	STREAM_APPEND_FAILED,
	STREAM_APPEND_GONE
} StreamAppend;

extern StreamAppend streamext_stream_append(StreamSlot *slot, const JournalPlace *place, const JournalRecord *records,
											int n);

#endif /* STREAMEXT_JOURNAL_BASE_H */
