#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"

#include "source/journal/journal.h"
#include "unit.h"

#define RECORDS 50

static pg_atomic_uint64 end;

static Journal *
journal_start(int64 floor)
{
	JournalPlace place = { .dboid = 1, .relid = 2, .mode = JOURNAL_OS, .floor = floor, .end = &end };

	pg_atomic_init_u64(&end, PG_UINT64_MAX);
	return streamext_journal_open(&place, true);
}

static bool
journal_write(Journal *journal, int n, uint64 fxid)
{
	char		  payload[200];
	JournalRecord record = { .fxid = fxid, .timestamp = n, .topic = "topic", .topic_size = 5, .payload = payload };

	memset(payload, 'a' + n % 26, sizeof(payload));
	record.payload_size = n % 200;
	return streamext_journal_append(journal, &record, 1);
}

/* The timestamps that are read from `from` on, added up; -1: damage was found. */
static int64
journal_sum(Journal *journal, int64 from, int *n)
{
	JournalRecord records[7];
	int64		  sum = 0;
	bool		  corrupt;
	int			  got;

	*n = 0;
	while ((got = streamext_journal_read(journal, &from, records, lengthof(records), &corrupt)) > 0)
		for (int i = 0; i < got; i++, (*n)++)
		{
			sum += records[i].timestamp;
			CHECK(strcmp(records[i].topic, "topic") == 0 && records[i].payload_size == records[i].timestamp % 200);
		}
	return corrupt ? -1 : sum;
}

/* Whatever is cut off the file: the records before it are there, the end is theirs, and writing goes on behind it. */
static void
journal_torn(const char *path)
{
	struct stat st;
	int64		sizes[RECORDS + 1] = { 0 };
	Journal	   *journal = journal_start(0);

	for (int i = 0; i < RECORDS; i++)
	{
		CHECK(journal_write(journal, i, 0));
		sizes[i + 1] = streamext_journal_end(journal);
	}
	streamext_journal_close(journal);
	CHECK(stat(path, &st) == 0 && st.st_size == sizes[RECORDS]);

	for (int64 size = st.st_size; size >= 0; size -= 37)
	{
		int n, whole = 0;

		CHECK(truncate(path, size) == 0);
		while (whole < RECORDS && sizes[whole + 1] <= size)
			whole++;
		journal = journal_start(0);
		CHECK(journal != NULL && streamext_journal_end(journal) == sizes[whole]);
		CHECK(journal_sum(journal, 0, &n) == (int64) whole * (whole - 1) / 2 && n == whole);
		CHECK(journal_write(journal, whole, 0) && journal_sum(journal, 0, &n) == (int64) whole * (whole + 1) / 2);
		streamext_journal_close(journal);
	}
}

static void
journal_damaged(const char *path)
{
	int		 n, fd;
	Journal *journal = journal_start(0);
	int64	 last;

	while (streamext_journal_end(journal) < 5000)
		CHECK(journal_write(journal, 3, 0));
	last = streamext_journal_end(journal);
	streamext_journal_close(journal);
	fd = open(path, O_RDWR);
	CHECK(pwrite(fd, "x", 1, 1000) == 1);
	close(fd);
	journal = journal_start(0);
	CHECK(streamext_journal_end(journal) == last);
	CHECK(journal_sum(journal, 0, &n) == -1);
	streamext_journal_close(journal);
}

/* Odd transactions have committed, even ones not, from server_running on they run: the reader stops there. */
static void
journal_transactions(void)
{
	int		 n;
	Journal *journal = journal_start(0);

	for (int i = 0; i < 10; i++)
		CHECK(journal_write(journal, i, 100 + i));
	CHECK(journal_write(journal, 10, server_running + 1) && journal_write(journal, 11, 0));
	CHECK(journal_sum(journal, 0, &n) == 1 + 3 + 5 + 7 + 9 && n == 5);
	streamext_journal_close(journal);
}

void
test_journal(void)
{
	char path[MAXPGPATH];

	snprintf(path, sizeof(path), "%s/streamext/1/2.0/%016X", unit_directory(), 0);
	journal_torn(path);
	unlink(path);
	journal_damaged(path);
	unlink(path);
	journal_transactions();
	unlink(path);

	/* Positions that have been given out are not given out again, and names that are none are passed over. */
	{
		Journal *journal = journal_start(20000000);
		char	 stray[MAXPGPATH];
		int64	 begin = streamext_journal_end(journal);
		int		 n;

		CHECK(begin >= 20000000 && journal_write(journal, 5, 0));
		streamext_journal_close(journal);
		for (int i = 0; i < 2; i++)
		{
			snprintf(stray, sizeof(stray), "%s/streamext/1/2.0/%s", DataDir,
					 i == 0 ? "FFFFFFFFFF000000" : "0000000004000001");
			close(open(stray, O_RDWR | O_CREAT, 0600));
		}
		journal = journal_start(0);
		CHECK(streamext_journal_align(journal, 100) == 16777216 && journal_sum(journal, begin, &n) == 5);
		streamext_journal_close(journal);
	}
}
