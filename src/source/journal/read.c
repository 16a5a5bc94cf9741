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

uint32
streamext_journal_crc(const JournalHeader *header, const char *body)
{
	JournalHeader plain = *header;
	pg_crc32c	  crc;

	plain.hint = 0;
	INIT_CRC32C(crc);
	if (header->magic == JOURNAL_MAGIC_ROW)
		COMP_CRC32C(crc, &plain.magic, sizeof(plain.magic));
	COMP_CRC32C(crc, (const char *) &plain + offsetof(JournalHeader, size),
				sizeof(plain) - offsetof(JournalHeader, size));
	if (header->size > sizeof(JournalHeader))
		COMP_CRC32C(crc, body, header->size - sizeof(JournalHeader));
	FIN_CRC32C(crc);
	return crc;
}

static bool
journal_header_plausible(const JournalHeader *header, int64 position, int64 limit)
{
	if ((header->magic != JOURNAL_MAGIC && header->magic != JOURNAL_MAGIC_ROW) || header->position != position)
		return false;
	if (header->kind == JOURNAL_PAD)
		return header->size == sizeof(JournalHeader) && header->magic == JOURNAL_MAGIC;
	if (header->kind != JOURNAL_DATA || header->size > limit - position)
		return false;
	if (journal_carries_layout(header))
		return header->size >= journal_layout_offset(header) + sizeof(RowLayout);
	return header->size == journal_layout_offset(header);
}

/* Reads at least `need` bytes at position into the buffer, more if they are there below limit; false and errno on failure. */
static bool
journal_fill(Journal *journal, int64 position, size_t need, int64 limit)
{
	int64  first = JOURNAL_FIRST(position);
	size_t want;

	journal->read_size = 0;
	if (journal->read_fd < 0 || journal->read_first != first)
	{
		if (journal->read_fd >= 0)
			close(journal->read_fd);
		journal->read_fd = streamext_journal_open_file(journal, first, O_RDWR);
		if (journal->read_fd < 0 && (errno == EACCES || errno == EROFS))
			journal->read_fd = streamext_journal_open_file(journal, first, O_RDONLY);
		journal->read_first = first;
		if (journal->read_fd < 0)
			return false;
	}

	/* A buffer grown for a large record is given back with the next. */
	want = Max(need, JOURNAL_BUFFER);
	if (journal->read_capacity != want)
	{
		free(journal->read_buffer);
		journal->read_capacity = 0;
		journal->read_buffer = malloc(want);
		if (journal->read_buffer == NULL)
		{
			errno = ENOMEM;
			return false;
		}
		journal->read_capacity = want;
	}

	want = Min((int64) want, limit - position);
	journal->read_position = position;
	while (journal->read_size < want)
	{
		ssize_t got = pread(journal->read_fd, journal->read_buffer + journal->read_size, want - journal->read_size,
							position - first + journal->read_size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return false;
		if (got == 0)
			break;
		journal->read_size += got;
	}
	errno = EBADMSG;
	return journal->read_size >= need;
}

JournalHeader *
streamext_journal_fetch(Journal *journal, int64 position, int64 limit, bool refill)
{
	size_t need = sizeof(JournalHeader);

	for (;;)
	{
		JournalHeader *header;

		if (position + (int64) need > limit)
		{
			errno = EBADMSG;
			return NULL;
		}
		if (journal->read_size == 0 || position < journal->read_position ||
			position + (int64) need > journal->read_position + (int64) journal->read_size)
		{
			if (!refill)
			{
				errno = EAGAIN;
				return NULL;
			}
			if (!journal_fill(journal, position, need, limit))
				return NULL;
		}

		header = (JournalHeader *) (journal->read_buffer + (position - journal->read_position));
		if (!journal_header_plausible(header, position, limit))
		{
			errno = EBADMSG;
			return NULL;
		}
		if (need == header->size)
		{
			if (header->crc == streamext_journal_crc(header, (char *) (header + 1)))
				return header;
			errno = EBADMSG;
			return NULL;
		}
		need = header->size;
	}
}

/* ---- layouts ---- */

static bool
journal_pread(int fd, void *to, size_t size, off_t at)
{
	size_t done = 0;

	while (done < size)
	{
		ssize_t got = pread(fd, (char *) to + done, size - done, at + done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
		{
			if (got == 0)
				errno = EBADMSG;
			return false;
		}
		done += got;
	}
	return true;
}

RowLayout *
streamext_journal_load_layout(int fd, int64 first, int64 position, int64 limit, JournalHeader *header)
{
	char	  *body;
	RowLayout *layout;
	size_t	   size;

	if (!journal_pread(fd, header, sizeof(*header), position - first))
		return NULL;
	errno = EBADMSG;
	if (!journal_header_plausible(header, position, limit) || !journal_carries_layout(header))
		return NULL;
	size = header->size - sizeof(*header);
	body = malloc(size);
	if (body == NULL)
		return NULL;
	layout = (RowLayout *) (body + (journal_layout_offset(header) - sizeof(*header)));
	if (!journal_pread(fd, body, size, position - first + sizeof(*header)) ||
		header->crc != streamext_journal_crc(header, body) || layout->magic != LAYOUT_MAGIC ||
		layout->size > (size_t) (body + size - (char *) layout))
	{
		free(body);
		errno = EBADMSG;
		return NULL;
	}
	memmove(body, layout, layout->size);
	return (RowLayout *) body;
}

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
			streamext_journal_load_layout(journal->read_fd, journal->read_first, at, header->position, &other);

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
		if (pwrite(journal->read_fd, &hint, 1,
				   header->position - journal->read_first + offsetof(JournalHeader, hint)) != 1)
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
