/*
 * source/journal/journal.c
 *		The handle of a journal (see source/journal/journal.h): opening and closing.
 */
#include "base/streamext.h"

#include <unistd.h>

#include "source/journal/journal_private.h"

const char *const streamext_words_journal[] = { "none", "os", "fsync", NULL };

StaticAssertDecl((int) JOURNAL_NONE == 0 && (int) JOURNAL_OS == 1 && (int) JOURNAL_FSYNC == 2,
				 "streamext_words_journal follows JournalMode");

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
	journal->append_fd = journal->read.fd = -1;
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
	if (journal->read.fd >= 0)
		close(journal->read.fd);
	free(journal->append_buffer);
	free(journal->append_layout);
	free(journal->read.buffer);
	pthread_mutex_destroy(&journal->mutex);
	free(journal);
}
