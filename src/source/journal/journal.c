/*
 * source/journal/journal.c
 *		The handle of a journal (see source/journal/journal.h): opening, which after the server's start finds and mends the end, and closing.
 */
#include "base/streamext.h"

#include <sys/stat.h>
#include <unistd.h>

#include "source/journal/journal_private.h"

const char *const streamext_words_journal[] = { "none", "os", "fsync", NULL };

StaticAssertDecl((int) JOURNAL_NONE == 0 && (int) JOURNAL_OS == 1 && (int) JOURNAL_FSYNC == 2,
				 "streamext_words_journal follows JournalMode");

/* ---- finding the end ---- */

/* The next good record behind a bad one in the same segment; limit: there is none. */
static int64
journal_scan_on(Journal *journal, int64 position, int64 limit)
{
	while ((position += JOURNAL_ALIGN(1)) < limit)
		if (streamext_journal_fetch(journal, position, limit, true) != NULL)
			return position;
	return limit;
}

/*
 * The position after the last good record of the last segment, whose length then is *size. What is bad with good ones behind it is
 * not a torn tail but damage, left to the readers to find and tell. -1 and errno on failure; without segments 0.
 */
static int64
journal_scan_end(Journal *journal, int64 *first, int64 *size)
{
	int64	   *firsts;
	int			n = streamext_journal_list(journal, &firsts);
	int64		position, limit;
	char		path[JOURNAL_PATH_SIZE];
	struct stat st;

	*first = *size = 0;
	if (n <= 0)
		return n;
	*first = position = firsts[n - 1];
	free(firsts);
	streamext_journal_path(journal, *first, path);
	if (stat(path, &st) != 0)
		return -1;
	*size = st.st_size;
	limit = *first + *size;
	while (position < limit && JOURNAL_FIRST(position) == *first)
	{
		JournalHeader *header;

		if (journal_at_segment_end(position))
		{
			position = *first + JOURNAL_SEGMENT;
			break;
		}
		header = streamext_journal_fetch(journal, position, limit, true);
		if (header != NULL)
			position = journal_next(header, position);
		else if (errno != EBADMSG)
			return -1;
		else
		{
			int64 next = journal_scan_on(journal, position, limit);

			if (next == limit)
				break;
			position = next;
		}
	}
	journal->read_size = 0; /* it may hold what is cut off now */
	return position;
}

/*
 * The last segment as it must be: nothing behind the end, or whole. With what is not cut off it is on disk: PostgreSQL syncs the data
 * directory before it recovers from a crash.
 */
static bool
journal_repair(const Journal *journal, int64 first, int64 size, int64 end)
{
	int64 length = JOURNAL_FIRST(end) == first ? end - first : Max(size, JOURNAL_SEGMENT);
	char  path[JOURNAL_PATH_SIZE];

	streamext_journal_path(journal, first, path);
	return size == length || truncate(path, length) == 0;
}

bool
streamext_journal_recover(Journal *journal, int64 *cut)
{
	int64 first, size, end = journal_scan_end(journal, &first, &size);

	*cut = 0;
	if (end < 0 || (size > 0 && !journal_repair(journal, first, size, end)))
		return false;
	*cut = Max(first + size - end, 0);
	pg_atomic_write_u64(journal->end, (uint64) end);
	return true;
}

/* ---- handles ---- */

Journal *
streamext_journal_open(const JournalPlace *place, bool writer)
{
	Journal *journal = calloc(1, sizeof(Journal));
	int64	 cut = 0;
	bool	 ok = true;
	int		 saved;

	if (journal == NULL)
	{
		errno = ENOMEM;
		return NULL;
	}
	journal->writer = writer;
	journal->mode = place->mode;
	journal->end = place->end;
	journal->append_fd = journal->read_fd = -1;
	journal->append_layout_at = -1;
	memset(journal->layout_at, -1, sizeof(journal->layout_at));
	pthread_mutex_init(&journal->mutex, NULL);
	streamext_journal_directory(place->dboid, place->relid, place->shard, journal->directory);

	if (writer && !streamext_journal_make_directory(place->dboid, journal))
		ok = false;
	else if (writer && pg_atomic_read_u64(place->end) == JOURNAL_UNKNOWN)
		ok = streamext_journal_recover(journal, &cut) && streamext_journal_skip(journal, place->floor);
	saved = errno;
	if (cut > 0)
		ereport(LOG, (errmsg("cut " INT64_FORMAT " bytes of an unfinished record off the end of journal \"%s\"", cut,
							 journal->directory)));
	if (!ok)
	{
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
	streamext_journal_close_append(journal);
	if (journal->read_fd >= 0)
		close(journal->read_fd);
	free(journal->append_buffer);
	free(journal->append_layout);
	free(journal->read_buffer);
	pthread_mutex_destroy(&journal->mutex);
	free(journal);
}

int64
streamext_journal_end(Journal *journal)
{
	uint64 end = pg_atomic_read_u64(journal->end);
	int64  first, size;

	if (end == JOURNAL_UNKNOWN)
		return Max(journal_scan_end(journal, &first, &size), 0);
	return (int64) end;
}
