/*
 * source/journal/append.c
 *		From records to the journal's files. All with the handle's mutex held.
 *
 * Bytes, then (with 'fsync') the disk, then the shared end. What a failed append left behind the end is cut off at once, or
 * overwritten by the next.
 */
#include "base/streamext.h"

#include <fcntl.h>
#include <unistd.h>

#include "source/journal/journal_private.h"

#define JOURNAL_LIMIT_MIN (4 * JOURNAL_SEGMENT) /* files are trimmed whole, and the last 16 MB of MQTT are kept */
#define JOURNAL_RECORD_MAX (1024 * 1024 * 1024 - 1024)

void
streamext_journal_close_append(Journal *journal)
{
	if (journal->append_fd >= 0)
		close(journal->append_fd);
	journal->append_fd = -1;
}

/*
 * Makes append_fd the file of position; its first record makes (or empties) the file. With 'fsync' its name is on disk: it may have
 * been made by a writer that did not care.
 */
static bool
journal_open_append(Journal *journal, int64 position)
{
	int64 first = JOURNAL_FIRST(position);
	bool  create = position == first;

	if (journal->append_fd >= 0 && journal->append_first == first && !create)
		return true;
	streamext_journal_close_append(journal);
	journal->append_fd = streamext_journal_open_file(journal, first, O_RDWR | (create ? O_CREAT | O_TRUNC : 0));
	journal->append_first = first;
	if (journal->append_fd < 0)
		return false;
	return journal->mode != JOURNAL_FSYNC || streamext_journal_sync_directory(journal->directory);
}

static bool
journal_flush(Journal *journal)
{
	size_t done = 0;

	if (journal->append_used == 0)
		return true;
	if (!journal_open_append(journal, journal->append_position))
		return false;
	while (done < journal->append_used)
	{
		ssize_t written = pwrite(journal->append_fd, journal->append_buffer + done, journal->append_used - done,
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
	char *place;

	if (journal->append_used + size > journal->append_capacity)
	{
		size_t capacity = Max(size, JOURNAL_BUFFER);

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
		header->crc = streamext_journal_crc(header, NULL);
	}

	/* Full length tells a recovery that the segment is whole. At its beginning opening it once more would empty it. */
	if (!journal_flush(journal) || (*position % JOURNAL_SEGMENT != 0 && !journal_open_append(journal, *position)) ||
		ftruncate(journal->append_fd, JOURNAL_SEGMENT) != 0 || !journal_sync(journal))
		return false;
	*position = JOURNAL_FIRST(*position) + JOURNAL_SEGMENT;
	return true;
}

/* Notes that the record at position carries the layout. */
static bool
journal_note_layout(Journal *journal, const RowLayout *layout, int64 position)
{
	RowLayout *copy = malloc(layout->size);

	if (copy == NULL)
	{
		errno = ENOMEM;
		return false;
	}
	memcpy(copy, layout, layout->size);
	free(journal->append_layout);
	journal->append_layout = copy;
	journal->append_layout_at = position;
	return true;
}

/*
 * Whether a record of the segment of position carries the layout: of this handle's, or its first, whoever wrote that. So many short-lived
 * writers do not each write it again.
 */
static bool
journal_has_layout(Journal *journal, const RowLayout *layout, int64 position)
{
	int64		  first = JOURNAL_FIRST(position);
	JournalHeader header;
	RowLayout	 *other;
	int			  fd;
	bool		  same;

	if (journal->append_layout_at >= first)
		return streamext_layout_equal(journal->append_layout, layout);
	if (position == first || pg_atomic_read_u64(journal->end) <= (uint64) first)
		return false;
	fd = streamext_journal_open_file(journal, first, O_RDONLY);
	if (fd < 0)
		return false;
	other = streamext_journal_load_layout(fd, first, first, position, &header);
	close(fd);
	same = other != NULL && streamext_layout_equal(other, layout) && journal_note_layout(journal, layout, first);
	free(other);
	return same;
}

/*
 * The size of the record at *position, with its layout if that must come along; *position moves to a segment's beginning if it does not fit. 0
 * and errno on failure.
 */
static uint64
journal_place(Journal *journal, const JournalRecord *record, int64 *position, bool *carries)
{
	uint64 bare = JOURNAL_ALIGN(sizeof(JournalHeader) + (uint64) record->payload_size + record->topic_size + 1);

	for (;;)
	{
		uint64 size = bare;

		*carries = record->layout != NULL && !journal_has_layout(journal, record->layout, *position);
		if (*carries)
			size += JOURNAL_ALIGN(record->layout->size);
		if (size > JOURNAL_RECORD_MAX || record->topic_size > PG_UINT16_MAX)
		{
			errno = EFBIG;
			return 0;
		}
		if (*position % JOURNAL_SEGMENT == 0 || (int64) size <= JOURNAL_SEGMENT - *position % JOURNAL_SEGMENT)
			return size;
		if (!journal_pad(journal, position))
			return 0;
	}
}

static bool
journal_put(Journal *journal, const JournalRecord *record, int64 *position)
{
	bool		   carries;
	uint64		   size = journal_place(journal, record, position, &carries);
	JournalHeader *header;
	char		  *body;

	if (size == 0 || (carries && !journal_note_layout(journal, record->layout, *position)))
		return false;
	header = (JournalHeader *) journal_reserve(journal, *position, size);
	if (header == NULL)
		return false;
	header->magic = record->layout != NULL ? JOURNAL_MAGIC_ROW : JOURNAL_MAGIC;
	header->size = (uint32) size;
	header->kind = JOURNAL_DATA;
	header->qos = record->qos;
	header->retained = record->retained;
	header->fxid = record->fxid;
	header->timestamp = record->timestamp;
	header->layout = record->layout != NULL ? (uint64) journal->append_layout_at : 0;
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
	if (carries)
		memcpy((char *) header + journal_layout_offset(header), record->layout, record->layout->size);
	header->crc = streamext_journal_crc(header, (char *) (header + 1));

	/* The buffer never reaches over a segment's end. */
	*position = journal_next(header, *position);
	return *position % JOURNAL_SEGMENT != 0 || (journal_flush(journal) && journal_sync(journal));
}

bool
streamext_journal_skip(Journal *journal, int64 floor)
{
	JournalMode mode = journal->mode;
	int64		end = (int64) pg_atomic_read_u64(journal->end);

	journal->mode = JOURNAL_OS; /* lost with the machine it is made anew */
	while (end < floor)
		if (!journal_pad(journal, &end))
			break;
	journal->mode = mode;
	streamext_journal_close_append(journal);
	pg_write_barrier();
	pg_atomic_write_u64(journal->end, (uint64) end);
	return end >= floor;
}

/* Takes away what a failed append from start left, as far as the system lets us; the next append writes over the rest. */
static void
journal_undo(Journal *journal, int64 start, int64 reached)
{
	int	  saved = errno;
	int64 first;
	char  path[JOURNAL_PATH_SIZE];

	streamext_journal_close_append(journal);
	journal->append_used = 0;
	journal->append_layout_at = -1; /* it may lie in what is taken away */
	for (first = JOURNAL_FIRST(start + JOURNAL_SEGMENT - 1); first <= reached; first += JOURNAL_SEGMENT)
	{
		streamext_journal_path(journal, first, path);
		(void) unlink(path);
	}
	if (start % JOURNAL_SEGMENT != 0)
	{
		streamext_journal_path(journal, JOURNAL_FIRST(start), path);
		if (truncate(path, start % JOURNAL_SEGMENT) != 0)
			errno = saved;
	}
	errno = saved;
}

/*
 * The oldest file does not count: it may be one that trimming keeps, and larger than any limit. The directory is read only when
 * what came since the last time may be too much. What a floor left out takes no room.
 */
static bool
journal_has_room(Journal *journal)
{
	int64 limit = Max((int64) streamext_journal_limit_mb * 1024 * 1024, JOURNAL_LIMIT_MIN),
		  end = (int64) pg_atomic_read_u64(journal->end);
	int64 *firsts;
	int	   n;
	bool   room;

	if (streamext_journal_limit_mb == 0 || end - journal->room_base < limit)
		return true;
	n = streamext_journal_list(journal, &firsts);
	if (n < 0)
		return false;
	journal->room_base = n > 1 ? firsts[1] : end;
	room = end - journal->room_base < limit || streamext_journal_segment_bytes(journal, firsts + 1, n - 1) < limit;
	free(firsts);
	if (!room)
		errno = JOURNAL_AT_LIMIT;
	return room;
}

bool
streamext_journal_append(Journal *journal, const JournalRecord *records, int n)
{
	int64 start, position, cut;
	bool  ok = true;
	int	  saved;

	if (!journal->writer)
	{
		errno = EBADF;
		return false;
	}
	pthread_mutex_lock(&journal->mutex);
	if ((pg_atomic_read_u64(journal->end) == JOURNAL_UNKNOWN && !streamext_journal_recover(journal, &cut)) ||
		!journal_has_room(journal))
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
