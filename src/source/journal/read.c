/*
 * source/journal/read.c
 *		From the journal's files to records.
 *
 * Whether a record counts is decided by its transaction's state in the commit log, so a transaction id in a journal must never
 * be given out again: who appends inside a transaction has flushed WAL that carries the id before (sink/spool.c). The one-byte
 * hint in a record's header keeps the answer beyond the commit log's truncation; it is outside of the checksum, and is not
 * given before the commit is on disk: a crash undoes one that is not (synchronous_commit = off).
 */
#include "base/streamext.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/transam.h"
#include "access/xlog.h"
#include "storage/procarray.h"

#include "source/journal/journal_private.h"

#define JOURNAL_READ_LIMIT (128 * 1024 * 1024) /* bytes a read looks at before it returns empty-handed */

#if PG_VERSION_NUM >= 170000
#define JOURNAL_OLDEST_CLOG_XID (TransamVariables->oldestClogXid)
#else
#define JOURNAL_OLDEST_CLOG_XID (ShmemVariableCache->oldestClogXid)
#endif

/* ---- layouts ---- */

/* The layout that a row names; NULL and errno: there is none. Main thread only. */
static const RowLayout *
journal_layout(Journal *journal, const JournalHeader *header)
{
	int64			 at = (int64) header->layout;
	const RowLayout *layout = NULL;

	for (int i = 0; i < JOURNAL_LAYOUTS; i++)
		if (journal->layout_at[i] == at)
			return journal->layouts[i];
	errno = EBADMSG;
	if (at == header->position)
		layout = streamext_layout_intern((const char *) header + journal_layout_offset(header),
										 header->size - journal_layout_offset(header));
	else if (at >= JOURNAL_FIRST(header->position) && at < header->position)
	{
		JournalHeader other;
		RowLayout	 *loaded =
			streamext_journal_load_layout(journal->read.fd, journal->read.first, at, header->position, &other);

		if (loaded != NULL)
			layout = streamext_layout_intern(loaded, loaded->size);
		free(loaded);
	}
	if (layout == NULL)
		return NULL;
	journal->layout_at[journal->next_layout] = at;
	journal->layouts[journal->next_layout] = layout;
	journal->next_layout = (journal->next_layout + 1) % JOURNAL_LAYOUTS;
	return layout;
}

/* ---- transactions ---- */

/* The transaction's state, asked of the server; main thread only. */
static JournalHint
journal_transaction_state(Journal *journal, uint64 fxid)
{
	TransactionId xid = (TransactionId) fxid;
	uint64		  next = U64FromFullTransactionId(ReadNextFullTransactionId());
	uint64		  oldest;
	bool		  known, committed = false;

	if (fxid >= next)
		return JOURNAL_HINT_ABORTED; /* not of this server's history */

	/* This order: a transaction leaves the set of running ones after its commit is in the log. */
	if (next - fxid < PG_INT32_MAX && TransactionIdIsInProgress(xid))
		return JOURNAL_IN_PROGRESS;

	LWLockAcquire(XactTruncationLock, LW_SHARED);
	oldest = next - (uint32) ((uint32) next - JOURNAL_OLDEST_CLOG_XID);
	known = fxid >= oldest;
	if (known)
		committed = TransactionIdDidCommit(xid);
	journal->durable = !committed || TransactionIdGetCommitLSN(xid) <= GetFlushRecPtr(NULL);
	LWLockRelease(XactTruncationLock);

	if (!known && !journal->warned)
	{
		journal->warned = true;
		ereport(WARNING, (errcode(ERRCODE_DATA_CORRUPTED),
						  errmsg("transaction %llu in a stream's journal is too old to tell whether it committed",
								 (unsigned long long) fxid),
						  errdetail("Its rows are taken as rolled back.")));
	}
	return committed ? JOURNAL_HINT_COMMITTED : JOURNAL_HINT_ABORTED;
}

/* Whether a record counts; leaves a hint in the file at the first record of each run of one transaction. */
static JournalHint
journal_resolve(Journal *journal, const JournalHeader *header)
{
	JournalHint state;

	if (header->fxid == 0)
		return JOURNAL_HINT_COMMITTED;
	if (header->hint == JOURNAL_HINT_COMMITTED || header->hint == JOURNAL_HINT_ABORTED)
		state = (JournalHint) header->hint;
	else if (header->fxid == journal->resolved_fxid)
		state = journal->resolved;
	else
		state = journal_transaction_state(journal, header->fxid);
	if (state == JOURNAL_IN_PROGRESS)
		return state;

	journal->resolved_fxid = header->fxid;
	journal->resolved = state;
	if (header->hint == JOURNAL_HINT_NONE && header->fxid != journal->hinted_fxid && journal->durable)
	{
		uint8 hint = (uint8) state;

		/* best effort: without it the commit log answers */
		if (pwrite(journal->read.fd, &hint, 1,
				   header->position - journal->read.first + offsetof(JournalHeader, hint)) != 1)
			errno = 0;
	}
	journal->hinted_fxid = header->fxid;
	return state;
}

/* False: its layout cannot be had; errno says why. */
static bool
journal_take(Journal *journal, JournalHeader *header, int64 position, JournalRecord *record)
{
	record->layout = NULL;
	record->row_type_hash = 0;
	if (header->magic == JOURNAL_MAGIC)
		record->row_type_hash = (uint32) header->layout;
	else if ((record->layout = journal_layout(journal, header)) == NULL)
		return false;
	record->fxid = header->fxid;
	record->timestamp = header->timestamp;
	record->qos = header->qos;
	record->retained = header->retained != 0;
	record->packet_id = header->packet_id;
	record->payload = (char *) (header + 1);
	record->payload_size = header->payload_size;
	record->topic = record->payload + header->payload_size;
	record->topic_size = header->topic_size;
	record->position = position;
	record->next_position = journal_next(header, position);
	return true;
}

/*
 * errno after *corrupt: EBADMSG for damage (also: nothing there), else what the system said about a file that may be readable later.
 */
int
streamext_journal_read(Journal *journal, int64 *position, JournalRecord *records, int max, bool *corrupt)
{
	uint64 shared_end = pg_atomic_read_u64(journal->end);
	int64  end = (int64) shared_end, stop = *position + JOURNAL_READ_LIMIT;
	int	   n = 0;

	*corrupt = false;
	if (shared_end == JOURNAL_UNKNOWN)
		return 0;
	pg_read_barrier();
	journal->hinted_fxid = 0;

	while (n < max && *position < end && (n > 0 || *position < stop))
	{
		JournalHeader *header;
		JournalHint	   state;

		if (journal_at_segment_end(*position))
		{
			*position = JOURNAL_FIRST(*position) + JOURNAL_SEGMENT;
			continue;
		}
		header = streamext_journal_fetch(journal, *position, end, n == 0);
		if (header == NULL)
		{
			if (n == 0)
			{
				*corrupt = true;
				if (errno == ENOENT)
					errno = EBADMSG;
			}
			break;
		}
		if (header->kind == JOURNAL_PAD)
		{
			*position = journal_next(header, *position);
			continue;
		}
		state = journal_resolve(journal, header);
		if (state == JOURNAL_IN_PROGRESS)
			break;
		if (state == JOURNAL_HINT_COMMITTED)
		{
			if (!journal_take(journal, header, *position, &records[n]))
			{
				*corrupt = n == 0;
				break;
			}
			n++;
		}
		*position = journal_next(header, *position);
	}
	return n;
}

int64
streamext_journal_align(Journal *journal, int64 position)
{
	int64 end = streamext_journal_end(journal), at = JOURNAL_FIRST(position);

	if (position >= end)
		return position;
	while (at < position && at < end)
	{
		JournalHeader *header;

		if (journal_at_segment_end(at))
		{
			at = JOURNAL_FIRST(at) + JOURNAL_SEGMENT;
			continue;
		}
		header = streamext_journal_fetch(journal, at, end, true);
		if (header == NULL)
			return position;
		at = journal_next(header, at);
	}
	return at;
}

int64
streamext_journal_containing(Journal *journal, int64 position)
{
	int64 end = streamext_journal_end(journal), at = streamext_journal_before(journal, position + 1);

	if (position >= end || at < 0)
		return position;
	while (at < position)
	{
		JournalHeader *header;
		int64		   next;

		if (journal_at_segment_end(at))
			next = JOURNAL_FIRST(at) + JOURNAL_SEGMENT;
		else
		{
			header = streamext_journal_fetch(journal, at, end, true);
			if (header == NULL)
				return position;
			next = journal_next(header, at);
			if (next > position && header->kind == JOURNAL_DATA)
				return at;
		}
		at = next;
	}
	return at;
}

int64
streamext_journal_recent(Journal *journal)
{
	int64 last = streamext_journal_before(journal, streamext_journal_end(journal));
	int64 former = last > 0 ? streamext_journal_before(journal, last) : -1;

	return former >= 0 ? former : last;
}
