/*
 * source/journal/segment.c
 *		The journal's files: their names, which there are, trimming. Their contents are source/journal/append.c's and source/journal/read.c's.
 */
#include "base/streamext.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"

#include "source/journal/journal_private.h"

void
streamext_journal_directory(Oid dboid, Oid relid, int shard, char directory[MAXPGPATH])
{
	snprintf(directory, MAXPGPATH, "%s/streamext/%u/%u.%d", DataDir, dboid, relid, shard);
}

void
streamext_journal_path(const Journal *journal, int64 first, char path[JOURNAL_PATH_SIZE])
{
	snprintf(path, JOURNAL_PATH_SIZE, "%s/%016llX", journal->directory, (unsigned long long) first);
}

int
streamext_journal_open_file(const Journal *journal, int64 first, int flags)
{
	char path[JOURNAL_PATH_SIZE];
	int	 fd;

	streamext_journal_path(journal, first, path);
	do
		fd = open(path, flags | O_CLOEXEC, pg_file_create_mode);
	while (fd < 0 && errno == EINTR);
	return fd;
}

static int
journal_compare_positions(const void *a, const void *b)
{
	int64 left = *(const int64 *) a, right = *(const int64 *) b;

	return left < right ? -1 : left > right;
}

int
streamext_journal_list(const Journal *journal, int64 **firsts)
{
	DIR			  *dir = opendir(journal->directory);
	struct dirent *entry;
	int			   n = 0, capacity = 0;

	*firsts = NULL;
	if (dir == NULL)
		return errno == ENOENT ? 0 : -1;
	while ((entry = readdir(dir)) != NULL)
	{
		uint64 first;

		if (strlen(entry->d_name) != 16 || strspn(entry->d_name, "0123456789ABCDEF") != 16)
			continue;
		first = strtoull(entry->d_name, NULL, 16);
		if (first % JOURNAL_SEGMENT != 0 || first > JOURNAL_LAST)
			continue;
		if (n == capacity)
		{
			int64 *larger = realloc(*firsts, sizeof(int64) * (capacity = Max(64, capacity * 2)));

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
		(*firsts)[n++] = (int64) first;
	}
	closedir(dir);
	if (n > 1)
		qsort(*firsts, n, sizeof(int64), journal_compare_positions);
	return n;
}

bool
streamext_journal_sync_directory(const char *directory)
{
	int	 fd = open(directory, O_RDONLY | O_CLOEXEC);
	int	 saved;
	bool done;

	if (fd < 0)
		return false;
	done = fsync(fd) == 0;
	saved = errno;
	close(fd);
	errno = saved;
	return done;
}

/* A name that a crash of the machine may not take away again: with it all that is below would be gone. */
static bool
journal_make_one(const char *parent, const char *path)
{
	if (mkdir(path, pg_dir_create_mode) != 0)
		return errno == EEXIST;
	return !enableFsync || streamext_journal_sync_directory(parent);
}

bool
streamext_journal_make_directory(Oid dboid, const Journal *journal)
{
	char all[MAXPGPATH], database[MAXPGPATH];

	snprintf(all, sizeof(all), "%s/streamext", DataDir);
	snprintf(database, sizeof(database), "%s/streamext/%u", DataDir, dboid);
	return journal_make_one(DataDir, all) && journal_make_one(all, database) &&
		   journal_make_one(database, journal->directory);
}

/* ---- what there is ---- */

int64
streamext_journal_base(Journal *journal)
{
	int64 *firsts;
	int64  base = 0;

	if (streamext_journal_list(journal, &firsts) > 0)
		base = firsts[0];
	free(firsts);
	return base;
}

int64
streamext_journal_before(Journal *journal, int64 position)
{
	int64 *firsts;
	int	   n = streamext_journal_list(journal, &firsts);
	int64  before = -1;

	for (int i = 0; i < n && firsts[i] < position; i++)
		before = firsts[i];
	free(firsts);
	return before;
}

/* While the end is not known since server start it is looked up in the file, without repair; then main thread only. */
void
streamext_journal_trim(Journal *journal, int64 position)
{
	int64 *firsts;
	int	   n;

	pthread_mutex_lock(&journal->mutex);
	n = streamext_journal_list(journal, &firsts);
	/* The last one stays, it keeps the position from starting over. */
	for (int i = 0; i + 1 < n && firsts[i + 1] <= position; i++)
	{
		char path[JOURNAL_PATH_SIZE];

		streamext_journal_path(journal, firsts[i], path);
		(void) unlink(path);
	}
	free(firsts);
	pthread_mutex_unlock(&journal->mutex);
}

int64
streamext_journal_segment_bytes(const Journal *journal, const int64 *firsts, int n)
{
	int64 bytes = 0;

	for (int i = 0; i < n; i++)
	{
		char		path[JOURNAL_PATH_SIZE];
		struct stat st;

		streamext_journal_path(journal, firsts[i], path);
		if (stat(path, &st) == 0)
			bytes += (int64) st.st_blocks * 512;
	}
	return bytes;
}

bool
streamext_journal_extent(Oid dboid, Oid relid, int shard, uint64 end, JournalExtent *extent)
{
	Journal journal;
	int64  *firsts;
	int		n;

	if (end == JOURNAL_UNKNOWN)
		return false;
	streamext_journal_directory(dboid, relid, shard, journal.directory);
	n = streamext_journal_list(&journal, &firsts);
	extent->end = (int64) end;
	extent->begin = n > 0 ? firsts[0] : extent->end;
	extent->bytes = streamext_journal_segment_bytes(&journal, firsts, n);
	free(firsts);
	return n >= 0;
}
