/*
 * source/journal/recover.c
 *		Where a journal ends: as its processes know it, or, after the server's start, found in its files and mended.
 */
#include "base/streamext.h"

#include <sys/stat.h>
#include <unistd.h>

#include "source/journal/journal_private.h"

/*
 * What looks like a record behind a bad one may be anything, a payload that somebody has made so: of heads each of which says that its record
 * goes to the end there is no end.
 */
#define JOURNAL_SCAN_MOST (16 * (uint64) JOURNAL_SEGMENT)

/* The next good record behind a bad one in the same segment; limit: there is none; -1: too much looks like one. */
static int64
journal_scan_on(Journal *journal, int64 position, int64 limit, uint64 most)
{
	while ((position += JOURNAL_ALIGN(1)) < limit)
	{
		if (streamext_journal_fetch(journal, position, limit, true) != NULL)
			return position;
		if (journal->checked > most)
			return -1;
	}
	return limit;
}

/*
 * The position after the last good record of the last segment, whose length then is *size. What is bad with good ones behind it is
 * not a torn tail but damage, left to the readers to find and tell, and so is what cannot be looked through: all of the file is kept.
 * -1 and errno on failure; without segments 0.
 */
static int64
journal_scan_end(Journal *journal, int64 *first, int64 *size)
{
	int64	   *firsts;
	int			n = streamext_journal_list(journal, &firsts);
	int64		position, limit;
	uint64		most;
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
	most = journal->checked + *size + JOURNAL_SCAN_MOST;
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
			int64 next = journal_scan_on(journal, position, limit, most);

			if (next == limit)
				break;
			position = next >= 0 ? next : JOURNAL_FIRST(limit + JOURNAL_SEGMENT - 1);
		}
	}
	journal->read.size = 0; /* it may hold what is cut off now */
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

int64
streamext_journal_end(Journal *journal)
{
	uint64 end = pg_atomic_read_u64(journal->end);
	int64  first, size;

	if (end == JOURNAL_UNKNOWN)
		return Max(journal_scan_end(journal, &first, &size), 0);
	return (int64) end;
}
