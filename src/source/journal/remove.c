/*
 * source/journal/remove.c
 *		The end of the journals of what is dropped.
 */
#include "base/streamext.h"

#include <dirent.h>
#include <unistd.h>

#include "miscadmin.h"

#include "source/journal/journal.h"


/* A directory of plain files, and itself. */
static void
journal_remove_directory(const char *directory)
{
	DIR			  *dir = opendir(directory);
	struct dirent *entry;

	if (dir == NULL)
		return;
	while ((entry = readdir(dir)) != NULL)
	{
		char path[MAXPGPATH * 2];

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
		(void) unlink(path);
	}
	closedir(dir);
	(void) rmdir(directory);
}

/* The streams' directories of a database whose names begin with prefix. */
static void
journal_remove_matching(Oid dboid, const char *prefix)
{
	char		   base[MAXPGPATH];
	DIR			  *dir;
	struct dirent *entry;

	snprintf(base, sizeof(base), "%s/streamext/%u", DataDir, dboid);
	dir = opendir(base);
	if (dir == NULL)
		return;
	while ((entry = readdir(dir)) != NULL)
	{
		char path[MAXPGPATH * 2];

		if (entry->d_name[0] == '.' || strncmp(entry->d_name, prefix, strlen(prefix)) != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", base, entry->d_name);
		journal_remove_directory(path);
	}
	closedir(dir);
}

void
streamext_journal_remove(Oid dboid, Oid relid)
{
	char prefix[32];

	snprintf(prefix, sizeof(prefix), "%u.", relid);
	journal_remove_matching(dboid, prefix);
}

void
streamext_journal_remove_database(Oid dboid)
{
	char base[MAXPGPATH];

	journal_remove_matching(dboid, "");
	snprintf(base, sizeof(base), "%s/streamext/%u", DataDir, dboid);
	(void) rmdir(base);
}
