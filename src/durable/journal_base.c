/*
 * durable/journal_base.c
 *		The journals of streams as their slots and checkpoints know them. What the functions promise is in durable/journal_base.h.
 *
 * The slot's journal_lock serialises all that write a journal, and who opens one first since the server's start. A slot is
 * somebody else's as soon as its identity says so, which is looked at with that lock.
 */
#include "base/streamext.h"

#include "miscadmin.h"

#include "durable/checkpoint_read.h"
#include "durable/journal_base.h"
#include "source/journal/inbox.h"

JournalPlace
streamext_stream_journal(StreamSlot *slot, Oid relid, int shard, JournalMode mode)
{
	JournalPlace place = { MyDatabaseId, relid, shard, mode, 0, &slot->journal_end, slot->journal_lock };

	if (pg_atomic_read_u64(place.end) == (uint64) -1)
		place.floor = streamext_checkpoint_journal_floor(relid, shard);
	return place;
}

/* The first position that the journal of a stream's shard still holds; -1: there is none. */
static int64
base_first(const StreamConfig *config, int shard)
{
	Oid			 relid = OidIsValid(config->from.origin) ? config->from.origin : config->relid;
	int			 index;
	JournalPlace place;
	Journal		*journal;
	int64		 base = -1;

	shard = relid == config->relid ? shard : 0;
	index = streamext_find_stream(MyDatabaseId, relid, shard);
	if (index < 0 || config->source.journal == JOURNAL_NONE)
		return -1;
	place = streamext_stream_journal(&streamext_shared->streams[index], relid, shard, config->source.journal);
	LWLockAcquire(place.lock, LW_EXCLUSIVE);
	journal = streamext_journal_open(&place, config->connector->pushed);
	if (journal != NULL)
	{
		base = streamext_journal_base(journal);
		streamext_journal_close(journal);
	}
	LWLockRelease(place.lock);
	return base;
}

int64
streamext_stream_journal_end(StreamSlot *slot, const StreamConfig *config, int shard)
{
	JournalPlace place;
	uint64		 end;

	if (config->source.journal == JOURNAL_NONE)
		return -1;
	place = streamext_stream_journal(slot, config->relid, shard, config->source.journal);
	LWLockAcquire(place.lock, LW_EXCLUSIVE);
	end = pg_atomic_read_u64(place.end);
	if (end == (uint64) -1)
	{
		/* only where others than the worker append may somebody else be the writer */
		Journal *journal = streamext_journal_open(&place, config->connector->pushed);

		if (journal != NULL)
		{
			end = (uint64) streamext_journal_end(journal);
			streamext_journal_close(journal);
		}
	}
	LWLockRelease(place.lock);
	return (int64) end;
}

bool
streamext_view_is_held(const ViewSlot *slot, const StreamConfig *config)
{
	int64		base = base_first(config, slot->id.shard);
	StreamSlot *stream = &streamext_shared->streams[slot->id.stream];
	int64		begin = slot->counted.start_position;

	streamext_stream_lock_shared(stream);
	if (stream->counted.npartitions > 0)
		begin = Max(begin, stream->counted.partitions[0].begin);
	LWLockRelease(stream->lock);
	return base >= 0 && begin >= base;
}

StreamAppend
streamext_stream_append(StreamSlot *slot, const JournalPlace *place, const JournalRecord *records, int n)
{
	StreamAppend result = STREAM_APPEND_GONE;
	int			 saved;

	LWLockAcquire(place->lock, LW_EXCLUSIVE);
	if (slot->id.in_use && slot->id.dboid == place->dboid && slot->id.relid == place->relid &&
		slot->id.shard == place->shard)
		result = streamext_inbox_append(place, records, n) ? STREAM_APPENDED : STREAM_APPEND_FAILED;
	saved = errno;
	LWLockRelease(place->lock);
	errno = saved;
	return result;
}
