/*
 * journal.c
 *		The append-only, checksummed file of a stream (see journal.h).
 *
 * Segment files are cut at multiples of 16 MB of the position, so that the file of a position follows from the position
 * alone and a writer's or reader's open file can never be a stale one: position p lies in the file named p - p % 16 MB. A
 * record that does not fit is preceded by a pad to the next multiple (the file is extended to full length, a hole); one
 * larger than a segment begins at a multiple and has its file to itself, the position after it is rounded up.
 *
 * The shared end is the only thing writers and readers agree on: it moves after the bytes are in the file, readers never
 * look beyond it. What a failed append left behind it is cut off at once, or overwritten by the next.
 *
 * Whether a record counts is decided by its transaction's state in the commit log, so a transaction id in a journal must never
 * be given out again: who appends inside a transaction has flushed WAL that carries the id before (stream_fdw.c). The one-byte
 * hint in a record's header keeps the answer beyond the commit log's truncation; it is outside of the checksum, and is not
 * given before the commit is on disk: a crash undoes one that is not (synchronous_commit = off).
 *
 * Everything but streamext_journal_read is POSIX and malloc only. Append side and read side of a handle share no fields, so one
 * thread may append while another reads; `mutex` serialises appends.
 */
#include "streamext.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/transam.h"
#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "storage/procarray.h"

#include "journal.h"

#define JOURNAL_SEGMENT		INT64CONST(16777216)
#define JOURNAL_LIMIT_MIN	(4 * JOURNAL_SEGMENT)	/* files are trimmed whole, and the last 16 MB of MQTT are kept */
#define JOURNAL_MAGIC		0x314a5853	/* SXJ1 */
#define JOURNAL_UNKNOWN		PG_UINT64_MAX
#define JOURNAL_BUFFER		(1024 * 1024)	/* bytes read or written at once */
#define JOURNAL_READ_LIMIT	(128 * 1024 * 1024) /* bytes a read looks at before it returns empty-handed */
#define JOURNAL_RECORD_MAX	(1024 * 1024 * 1024 - 1024)

#if PG_VERSION_NUM >= 170000
#define JOURNAL_OLDEST_CLOG_XID (TransamVariables->oldestClogXid)
#else
#define JOURNAL_OLDEST_CLOG_XID (ShmemVariableCache->oldestClogXid)
#endif

typedef enum JournalKind
{
	JOURNAL_DATA = 1,
	JOURNAL_PAD = 2				/* the rest of the segment is empty */
} JournalKind;

typedef enum JournalHint
{
	JOURNAL_HINT_NONE,
	JOURNAL_HINT_COMMITTED,
	JOURNAL_HINT_ABORTED,
	JOURNAL_IN_PROGRESS			/* never stored */
} JournalHint;

/* On disk before each record; payload, topic, a NUL and padding to 8 bytes follow. */
typedef struct JournalHeader
{
	uint32		magic;
	uint32		crc;			/* of all that follows, hint taken as 0 */
	uint32		size;			/* of the record, header included, multiple of 8 */
	uint8		kind;
	uint8		hint;
	uint8		qos;
	uint8		retained;
	uint64		fxid;
	int64		timestamp;
	uint64		row_type_hash;
	uint32		payload_size;
	uint16		topic_size;
	uint16		packet_id;
	int64		position;
} JournalHeader;

StaticAssertDecl(sizeof(JournalHeader) == 56, "the journal's record header has no padding");

#define JOURNAL_ALIGN(size) (((uint64) (size) + 7) & ~UINT64CONST(7))
#define JOURNAL_FIRST(position) ((position) - (position) % JOURNAL_SEGMENT)

struct Journal
{
	char		directory[MAXPGPATH];
	bool		writer;
	JournalMode mode;
	pg_atomic_uint64 *end;
	pthread_mutex_t mutex;

	/* append side, under mutex */
	int			append_fd;		/* -1: none */
	int64		append_first;	/* its segment */
	char	   *append_buffer;
	size_t		append_capacity;
	size_t		append_used;
	int64		append_position;	/* of append_buffer[0] */
	int64		room_base;		/* the base when it was last looked at, see journal_has_room */

	/* read side */
	int			read_fd;
	int64		read_first;
	char	   *read_buffer;
	size_t		read_capacity;
	size_t		read_size;
	int64		read_position;	/* of read_buffer[0] */
	uint64		resolved_fxid;	/* 0: none */
	JournalHint resolved;
	bool		durable;		/* resolved will still hold after a crash */
	uint64		hinted_fxid;	/* last one whose hint was written in this read */
	bool		warned;
};

/* ---- files ---- */

static void
journal_path(const Journal *journal, int64 first, char *path)
{
	snprintf(path, MAXPGPATH + 32, "%s/%016llX", journal->directory, (unsigned long long) first);
}

static int
journal_open_file(const Journal *journal, int64 first, int flags)
{
	char		path[MAXPGPATH + 32];
	int			fd;

	journal_path(journal, first, path);
	do
		fd = open(path, flags | O_CLOEXEC, pg_file_create_mode);
	while (fd < 0 && errno == EINTR);
	return fd;
}

static int
journal_compare_positions(const void *a, const void *b)
{
	int64		left = *(const int64 *) a,
				right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

/* First positions of the segments there are, ascending, malloc'd; -1 and errno on failure. No directory is no segment. */
static int
journal_list(const Journal *journal, int64 **firsts)
{
	DIR		   *dir = opendir(journal->directory);
	struct dirent *entry;
	int			n = 0,
				capacity = 0;

	*firsts = NULL;
	if (dir == NULL)
		return errno == ENOENT ? 0 : -1;
	while ((entry = readdir(dir)) != NULL)
	{
		if (strlen(entry->d_name) != 16 || strspn(entry->d_name, "0123456789ABCDEF") != 16)
			continue;
		if (n == capacity)
		{
			int64	   *larger = realloc(*firsts, sizeof(int64) * (capacity = Max(64, capacity * 2)));

			if (larger == NULL)
			{
				closedir(dir);
				free(*firsts);
				*firsts = NULL;
				errno = ENOMEM;
				return -1;
			}
			*firsts = larger;
		}
		(*firsts)[n++] = (int64) strtoull(entry->d_name, NULL, 16);
	}
	closedir(dir);
	if (n > 1)
		qsort(*firsts, n, sizeof(int64), journal_compare_positions);
	return n;
}

static void
journal_sync_directory(const Journal *journal)
{
	int			fd = open(journal->directory, O_RDONLY | O_CLOEXEC);

	if (fd >= 0)
	{
		(void) fsync(fd);
		close(fd);
	}
}

/* The directory and those above it; false and errno on failure. */
static bool
journal_make_directory(Oid dboid, const Journal *journal)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/streamext", DataDir);
	if (mkdir(path, pg_dir_create_mode) != 0 && errno != EEXIST)
		return false;
	snprintf(path, sizeof(path), "%s/streamext/%u", DataDir, dboid);
	if (mkdir(path, pg_dir_create_mode) != 0 && errno != EEXIST)
		return false;
	return mkdir(journal->directory, pg_dir_create_mode) == 0 || errno == EEXIST;
}

/* ---- records ---- */

static uint32
journal_crc(const JournalHeader *header, const char *body)
{
	JournalHeader plain = *header;
	pg_crc32c	crc;

	plain.hint = 0;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, (const char *) &plain + offsetof(JournalHeader, size), sizeof(plain) - offsetof(JournalHeader, size));
	if (header->size > sizeof(JournalHeader))
		COMP_CRC32C(crc, body, header->size - sizeof(JournalHeader));
	FIN_CRC32C(crc);
	return crc;
}

/* The position after a record. */
static int64
journal_next(const JournalHeader *header, int64 position)
{
	if (header->kind == JOURNAL_PAD)
		return JOURNAL_FIRST(position) + JOURNAL_SEGMENT;
	position += header->size;
	if (header->size > JOURNAL_SEGMENT)
		position = JOURNAL_FIRST(position + JOURNAL_SEGMENT - 1);
	return position;
}

/* True when no header fits before the segment's end: an unwritten pad. */
static bool
journal_at_segment_end(int64 position)
{
	return JOURNAL_SEGMENT - position % JOURNAL_SEGMENT < (int64) sizeof(JournalHeader);
}

static bool
journal_header_plausible(const JournalHeader *header, int64 position, int64 limit)
{
	if (header->magic != JOURNAL_MAGIC || header->position != position)
		return false;
	if (header->kind == JOURNAL_PAD)
		return header->size == sizeof(JournalHeader);
	return header->kind == JOURNAL_DATA &&
		header->size == JOURNAL_ALIGN(sizeof(JournalHeader) + (uint64) header->payload_size + header->topic_size + 1) &&
		header->size <= limit - position;
}

/* ---- reading ---- */

/* Reads at least `need` bytes at position into the buffer, more if they are there below limit; false and errno on failure. */
static bool
journal_fill(Journal *journal, int64 position, size_t need, int64 limit)
{
	int64		first = JOURNAL_FIRST(position);
	size_t		want;

	journal->read_size = 0;
	if (journal->read_fd < 0 || journal->read_first != first)
	{
		if (journal->read_fd >= 0)
			close(journal->read_fd);
		journal->read_fd = journal_open_file(journal, first, O_RDWR);
		if (journal->read_fd < 0 && (errno == EACCES || errno == EROFS))
			journal->read_fd = journal_open_file(journal, first, O_RDONLY);
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
		ssize_t		got = pread(journal->read_fd, journal->read_buffer + journal->read_size, want - journal->read_size,
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

/*
 * The whole record at position, checked, in the read buffer. NULL with errno EBADMSG or what the system said if there is none;
 * without `refill` NULL with errno EAGAIN if the buffer does not hold it.
 */
static JournalHeader *
journal_fetch(Journal *journal, int64 position, int64 limit, bool refill)
{
	size_t		need = sizeof(JournalHeader);

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
			if (header->crc == journal_crc(header, (char *) (header + 1)))
				return header;
			errno = EBADMSG;
			return NULL;
		}
		need = header->size;
	}
}

/* The transaction's state, asked of the server; main thread only. */
static JournalHint
journal_transaction_state(Journal *journal, uint64 fxid)
{
	TransactionId xid = (TransactionId) fxid;
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	uint64		oldest;
	bool		known,
				committed = false;

	if (fxid >= next)
		return JOURNAL_HINT_ABORTED;	/* not of this server's history */

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
		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
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
		uint8		hint = (uint8) state;

		/* best effort: without it the commit log answers */
		if (pwrite(journal->read_fd, &hint, 1,
				   header->position - journal->read_first + offsetof(JournalHeader, hint)) != 1)
			errno = 0;
	}
	journal->hinted_fxid = header->fxid;
	return state;
}

/*
 * errno after *corrupt: EBADMSG for damage (also: nothing there), else what the system said about a file that may be readable later.
 */
int
streamext_journal_read(Journal *journal, int64 *position, JournalRecord *records, int max, bool *corrupt)
{
	uint64		shared_end = pg_atomic_read_u64(journal->end);
	int64		end = (int64) shared_end,
				stop = *position + JOURNAL_READ_LIMIT;
	int			n = 0;

	*corrupt = false;
	if (shared_end == JOURNAL_UNKNOWN)
		return 0;
	pg_read_barrier();
	journal->hinted_fxid = 0;

	while (n < max && *position < end && (n > 0 || *position < stop))
	{
		JournalHeader *header;
		JournalHint state;

		if (journal_at_segment_end(*position))
		{
			*position = JOURNAL_FIRST(*position) + JOURNAL_SEGMENT;
			continue;
		}
		header = journal_fetch(journal, *position, end, n == 0);
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
			JournalRecord *record = &records[n++];

			record->fxid = header->fxid;
			record->timestamp = header->timestamp;
			record->row_type_hash = header->row_type_hash;
			record->qos = header->qos;
			record->retained = header->retained != 0;
			record->packet_id = header->packet_id;
			record->payload = (char *) (header + 1);
			record->payload_size = header->payload_size;
			record->topic = record->payload + header->payload_size;
			record->topic_size = header->topic_size;
			record->position = *position;
			record->next_position = journal_next(header, *position);
		}
		*position = journal_next(header, *position);
	}
	return n;
}

int64
streamext_journal_align(Journal *journal, int64 position)
{
	int64		end = streamext_journal_end(journal),
				at = JOURNAL_FIRST(position);

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
		header = journal_fetch(journal, at, end, true);
		if (header == NULL)
			return position;
		at = journal_next(header, at);
	}
	return at;
}

/* ---- finding the end ---- */

/* True when the segment at `first` is whole, so that the one at `next` may follow it. */
static bool
journal_segment_complete(Journal *journal, int64 first, int64 next)
{
	int			fd = journal_open_file(journal, first, O_RDONLY);
	struct stat st;
	JournalHeader header;
	bool		complete;

	if (fd < 0)
		return true;			/* nothing to tell it by; readers will see */
	complete = fstat(fd, &st) == 0 && st.st_size == JOURNAL_SEGMENT;
	if (!complete && st.st_size > JOURNAL_SEGMENT && pread(fd, &header, sizeof(header), 0) == sizeof(header))
		complete = header.magic == JOURNAL_MAGIC && header.size == st.st_size && journal_next(&header, first) == next;
	close(fd);
	return complete;
}

/*
 * The position after the last good record. With `repair` what is behind it is cut off, later segments that a torn one
 * makes unreachable included. -1 and errno on failure.
 */
static int64
journal_scan_end(Journal *journal, bool repair)
{
	int64	   *firsts;
	int			n = journal_list(journal, &firsts);
	int64		first,
				position,
				limit;
	char		path[MAXPGPATH + 32];
	struct stat st;

	if (n <= 0)
		return n;				/* 0: an empty journal */
	for (; n > 1 && !journal_segment_complete(journal, firsts[n - 2], firsts[n - 1]); n--)
	{
		journal_path(journal, firsts[n - 1], path);
		if (repair && unlink(path) != 0)
		{
			free(firsts);
			return -1;
		}
	}
	first = position = firsts[n - 1];
	free(firsts);

	journal_path(journal, first, path);
	if (stat(path, &st) != 0)
		return -1;
	limit = first + st.st_size;
	while (position < limit && JOURNAL_FIRST(position) == first)
	{
		JournalHeader *header;

		if (journal_at_segment_end(position))
		{
			position = first + JOURNAL_SEGMENT;
			break;
		}
		header = journal_fetch(journal, position, limit, true);
		if (header == NULL)
		{
			if (errno != EBADMSG)
				return -1;
			break;
		}
		position = journal_next(header, position);
	}
	journal->read_size = 0;		/* it may hold what is cut off now */

	if (repair && JOURNAL_FIRST(position) == first && st.st_size != position - first && truncate(path, position - first) != 0)
		return -1;
	return position;
}

static bool
journal_recover(Journal *journal)
{
	int64		end = journal_scan_end(journal, true);

	if (end < 0)
		return false;
	pg_atomic_write_u64(journal->end, (uint64) end);
	return true;
}

/* ---- appending; all with the mutex held ---- */

static void
journal_close_append(Journal *journal)
{
	if (journal->append_fd >= 0)
		close(journal->append_fd);
	journal->append_fd = -1;
}

/* Makes append_fd the file of position; its first record makes (or empties) the file. */
static bool
journal_open_append(Journal *journal, int64 position)
{
	int64		first = JOURNAL_FIRST(position);
	bool		create = position == first;

	if (journal->append_fd >= 0 && journal->append_first == first && !create)
		return true;
	journal_close_append(journal);
	journal->append_fd = journal_open_file(journal, first, O_RDWR | (create ? O_CREAT | O_TRUNC : 0));
	journal->append_first = first;
	if (journal->append_fd >= 0 && create && journal->mode == JOURNAL_FSYNC)
		journal_sync_directory(journal);
	return journal->append_fd >= 0;
}

static bool
journal_flush(Journal *journal)
{
	size_t		done = 0;

	if (journal->append_used == 0)
		return true;
	if (!journal_open_append(journal, journal->append_position))
		return false;
	while (done < journal->append_used)
	{
		ssize_t		written = pwrite(journal->append_fd, journal->append_buffer + done, journal->append_used - done,
									 journal->append_position - journal->append_first + done);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
		{
			if (written == 0)
				errno = ENOSPC;
			return false;
		}
		done += written;
	}
	journal->append_used = 0;
	return true;
}

static bool
journal_sync(Journal *journal)
{
	return journal->mode != JOURNAL_FSYNC || journal->append_fd < 0 || fdatasync(journal->append_fd) == 0;
}

/* Room for size bytes at position in the buffer, zeroed. NULL and errno on failure. */
static char *
journal_reserve(Journal *journal, int64 position, size_t size)
{
	char	   *place;

	if (journal->append_used + size > journal->append_capacity)
	{
		size_t		capacity = Max(size, JOURNAL_BUFFER);

		if (!journal_flush(journal))
			return NULL;
		if (capacity != journal->append_capacity)
		{
			free(journal->append_buffer);
			journal->append_capacity = 0;
			journal->append_buffer = malloc(capacity);
			if (journal->append_buffer == NULL)
			{
				errno = ENOMEM;
				return NULL;
			}
			journal->append_capacity = capacity;
		}
	}
	if (journal->append_used == 0)
		journal->append_position = position;
	place = journal->append_buffer + journal->append_used;
	journal->append_used += size;
	memset(place, 0, sizeof(JournalHeader));
	return place;
}

/* Ends the segment of position and moves it to the next one. */
static bool
journal_pad(Journal *journal, int64 *position)
{
	if (!journal_at_segment_end(*position))
	{
		JournalHeader *header = (JournalHeader *) journal_reserve(journal, *position, sizeof(JournalHeader));

		if (header == NULL)
			return false;
		header->magic = JOURNAL_MAGIC;
		header->size = sizeof(JournalHeader);
		header->kind = JOURNAL_PAD;
		header->position = *position;
		header->crc = journal_crc(header, NULL);
	}

	/* Full length tells a recovery that the segment is whole. At its beginning opening it once more would empty it. */
	if (!journal_flush(journal) || (*position % JOURNAL_SEGMENT != 0 && !journal_open_append(journal, *position)) ||
		ftruncate(journal->append_fd, JOURNAL_SEGMENT) != 0 || !journal_sync(journal))
		return false;
	*position = JOURNAL_FIRST(*position) + JOURNAL_SEGMENT;
	return true;
}

static bool
journal_put(Journal *journal, const JournalRecord *record, int64 *position)
{
	uint64		size = JOURNAL_ALIGN(sizeof(JournalHeader) + (uint64) record->payload_size + record->topic_size + 1);
	JournalHeader *header;
	char	   *body;

	if (size > JOURNAL_RECORD_MAX || record->topic_size > PG_UINT16_MAX)
	{
		errno = EFBIG;
		return false;
	}
	if (*position % JOURNAL_SEGMENT != 0 && (int64) size > JOURNAL_SEGMENT - *position % JOURNAL_SEGMENT &&
		!journal_pad(journal, position))
		return false;

	header = (JournalHeader *) journal_reserve(journal, *position, size);
	if (header == NULL)
		return false;
	header->magic = JOURNAL_MAGIC;
	header->size = (uint32) size;
	header->kind = JOURNAL_DATA;
	header->qos = record->qos;
	header->retained = record->retained;
	header->fxid = record->fxid;
	header->timestamp = record->timestamp;
	header->row_type_hash = record->row_type_hash;
	header->payload_size = record->payload_size;
	header->topic_size = record->topic_size;
	header->packet_id = record->packet_id;
	header->position = *position;
	body = (char *) (header + 1);
	if (record->payload_size > 0)
		memcpy(body, record->payload, record->payload_size);
	body += record->payload_size;
	if (record->topic_size > 0)
		memcpy(body, record->topic, record->topic_size);
	body += record->topic_size;
	memset(body, 0, (char *) header + size - body);
	header->crc = journal_crc(header, (char *) (header + 1));

	/* The buffer never reaches over a segment's end. */
	*position = journal_next(header, *position);
	return *position % JOURNAL_SEGMENT != 0 || (journal_flush(journal) && journal_sync(journal));
}

/*
 * Moves the end to a segment's beginning not before floor: what is left out between reads as pads. Segments of a pad and nothing
 * else take a block on disk each, until they are trimmed.
 */
static bool
journal_skip(Journal *journal, int64 floor)
{
	JournalMode mode = journal->mode;
	int64		end = (int64) pg_atomic_read_u64(journal->end);

	journal->mode = JOURNAL_OS;	/* lost with the machine it is made anew */
	while (end < floor)
		if (!journal_pad(journal, &end))
			break;
	journal->mode = mode;
	journal_close_append(journal);
	pg_write_barrier();
	pg_atomic_write_u64(journal->end, (uint64) end);
	return end >= floor;
}

/* Takes away what a failed append from start left, as far as the system lets us; the next append writes over the rest. */
static void
journal_undo(Journal *journal, int64 start, int64 reached)
{
	int			saved = errno;
	int64		first;
	char		path[MAXPGPATH + 32];

	journal_close_append(journal);
	journal->append_used = 0;
	for (first = JOURNAL_FIRST(start + JOURNAL_SEGMENT - 1); first <= reached; first += JOURNAL_SEGMENT)
	{
		journal_path(journal, first, path);
		(void) unlink(path);
	}
	if (start % JOURNAL_SEGMENT != 0)
	{
		journal_path(journal, JOURNAL_FIRST(start), path);
		if (truncate(path, start % JOURNAL_SEGMENT) != 0)
			errno = saved;
	}
	errno = saved;
}

/* The directory is read only when what came since the last time may be too much. What a floor left out takes no room. */
static bool
journal_has_room(Journal *journal)
{
	int64		limit = Max((int64) streamext_journal_limit_mb * 1024 * 1024, JOURNAL_LIMIT_MIN),
				end = (int64) pg_atomic_read_u64(journal->end);

	if (streamext_journal_limit_mb == 0 || end - journal->room_base < limit)
		return true;
	journal->room_base = streamext_journal_base(journal);
	if (end - journal->room_base < limit || streamext_journal_bytes(journal) < limit)
		return true;
	errno = EDQUOT;
	return false;
}

bool
streamext_journal_append(Journal *journal, const JournalRecord *records, int n)
{
	int64		start,
				position;
	bool		ok = true;
	int			saved;

	if (!journal->writer)
	{
		errno = EBADF;
		return false;
	}
	pthread_mutex_lock(&journal->mutex);
	if ((pg_atomic_read_u64(journal->end) == JOURNAL_UNKNOWN && !journal_recover(journal)) || !journal_has_room(journal))
		ok = false;
	if (ok)
	{
		start = position = (int64) pg_atomic_read_u64(journal->end);
		journal->append_used = 0;
		for (int i = 0; i < n && ok; i++)
			ok = journal_put(journal, &records[i], &position);
		ok = ok && journal_flush(journal) && journal_sync(journal);
		if (ok)
		{
			pg_write_barrier();
			pg_atomic_write_u64(journal->end, (uint64) position);
		}
		else
			journal_undo(journal, start, position);
	}
	saved = errno;
	if (journal->append_capacity > JOURNAL_BUFFER)
	{
		free(journal->append_buffer);
		journal->append_buffer = NULL;
		journal->append_capacity = 0;
	}
	pthread_mutex_unlock(&journal->mutex);
	errno = saved;
	return ok;
}

/* ---- handles ---- */

Journal *
streamext_journal_open(Oid dboid, Oid relid, int shard, JournalMode mode, bool writer, int64 floor, pg_atomic_uint64 *end)
{
	Journal    *journal = calloc(1, sizeof(Journal));

	if (journal == NULL)
	{
		errno = ENOMEM;
		return NULL;
	}
	journal->writer = writer;
	journal->mode = mode;
	journal->end = end;
	journal->append_fd = journal->read_fd = -1;
	pthread_mutex_init(&journal->mutex, NULL);
	snprintf(journal->directory, sizeof(journal->directory), "%s/streamext/%u/%u.%d", DataDir, dboid, relid, shard);

	if (writer && (!journal_make_directory(dboid, journal) ||
				   (pg_atomic_read_u64(end) == JOURNAL_UNKNOWN &&
					!(journal_recover(journal) && journal_skip(journal, floor)))))
	{
		int			saved = errno;

		streamext_journal_close(journal);
		errno = saved;
		return NULL;
	}
	return journal;
}

void
streamext_journal_close(Journal *journal)
{
	if (journal == NULL)
		return;
	journal_close_append(journal);
	if (journal->read_fd >= 0)
		close(journal->read_fd);
	free(journal->append_buffer);
	free(journal->read_buffer);
	pthread_mutex_destroy(&journal->mutex);
	free(journal);
}

int64
streamext_journal_base(Journal *journal)
{
	int64	   *firsts;
	int64		base = 0;

	if (journal_list(journal, &firsts) > 0)
		base = firsts[0];
	free(firsts);
	return base;
}

int64
streamext_journal_before(Journal *journal, int64 position)
{
	int64	   *firsts;
	int			n = journal_list(journal, &firsts);
	int64		before = -1;

	for (int i = 0; i < n && firsts[i] < position; i++)
		before = firsts[i];
	free(firsts);
	return before;
}

/* While the end is not known since server start it is looked up in the file, without repair; then main thread only. */
int64
streamext_journal_end(Journal *journal)
{
	uint64		end = pg_atomic_read_u64(journal->end);

	if (end == JOURNAL_UNKNOWN)
		return Max(journal_scan_end(journal, false), 0);
	return (int64) end;
}

void
streamext_journal_trim(Journal *journal, int64 position)
{
	int64	   *firsts;
	int			n;

	pthread_mutex_lock(&journal->mutex);
	n = journal_list(journal, &firsts);
	/* The last one stays, it keeps the position from starting over. */
	for (int i = 0; i + 1 < n && firsts[i + 1] <= position; i++)
	{
		char		path[MAXPGPATH + 32];

		journal_path(journal, firsts[i], path);
		(void) unlink(path);
	}
	free(firsts);
	pthread_mutex_unlock(&journal->mutex);
}

int64
streamext_journal_bytes(Journal *journal)
{
	int64	   *firsts;
	int			n = journal_list(journal, &firsts);
	int64		bytes = 0;

	for (int i = 0; i < n; i++)
	{
		char		path[MAXPGPATH + 32];
		struct stat st;

		journal_path(journal, firsts[i], path);
		if (stat(path, &st) == 0)
			bytes += (int64) st.st_blocks * 512;
	}
	free(firsts);
	return bytes;
}
