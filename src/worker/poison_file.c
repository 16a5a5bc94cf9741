/*-------------------------------------------------------------------------
 *
 * worker/poison_file.c
 *		The file of marks: one entry for each stream and shard, mapped by its workers (poison.c).
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"
#include "utils/timestamp.h"

#include "worker/poison_private.h"

#define POISON_FILE "streamext_marks"
#define POISON_MAGIC 0x73786d34

PoisonEntry *
streamext_poison_map(int n)
{
	Size		size = sizeof(PoisonEntry) * n;
	int			fd = OpenTransientFile(POISON_FILE, O_RDWR | O_CREAT | PG_BINARY);
	struct stat st;
	void	   *map = MAP_FAILED;

	/* with room on disk for all of it: a store into a mapped hole of a full disk would be the end of the process */
	if (fd >= 0 && fstat(fd, &st) == 0 && (st.st_size >= (off_t) size || posix_fallocate(fd, 0, size) == 0))
		map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		ereport(LOG, (errcode_for_file_access(), errmsg("could not map file \"%s\": %m", POISON_FILE),
					  errdetail("Records that crash their worker are not found out.")));
	if (fd >= 0)
		CloseTransientFile(fd);
	return map == MAP_FAILED ? NULL : map;
}

/* Its stream is there: it may be marked at this moment. With registry_lock. */
static bool
poison_is_in_use(const PoisonEntry *entry)
{
	for (int i = 0; i < streamext_shared->nstreams && entry->magic == POISON_MAGIC; i++)
	{
		const StreamSlot *slot = &streamext_shared->streams[i];

		if (slot->id.in_use && slot->id.dboid == entry->dboid && slot->id.relid == entry->relid &&
			slot->id.shard == entry->shard)
			return true;
	}
	return false;
}

/* It tells of a crash. Until its stream's worker has found it, it is the only one who knows: after a crash no stream is in use at first. */
static bool
poison_tells(const PoisonEntry *entry)
{
	for (int role = 0; role < 2 && entry->magic == POISON_MAGIC; role++)
	{
		const PoisonMark *mark = &entry->marks[role];

		if (mark->at_work || mark->alive || mark->crashes > 0 || mark->nblamed > 0 || streamext_poison_barren(mark) > 0)
			return true;
	}
	return false;
}

PoisonEntry *
streamext_poison_find(const Worker *w, PoisonEntry *entries, int n)
{
	PoisonEntry *oldest = NULL;
	bool		 oldest_tells = false;

	for (int i = 0; i < n; i++)
	{
		PoisonEntry *entry = &entries[i];
		bool		 tells;

		if (entry->magic != POISON_MAGIC)
			entry->used = 0;
		else if (entry->dboid == w->shard.identity.dboid && entry->relid == w->shard.identity.relid &&
				 entry->shard == w->shard.identity.shard)
			return entry;
		if (poison_is_in_use(entry))
			continue;
		tells = poison_tells(entry);
		if (oldest == NULL || tells < oldest_tells || (tells == oldest_tells && entry->used < oldest->used))
		{
			oldest = entry;
			oldest_tells = tells;
		}
	}
	if (oldest == NULL) /* there are as many as streams */
		return NULL;
	memset(oldest, 0, sizeof(*oldest));
	oldest->dboid = w->shard.identity.dboid;
	oldest->relid = w->shard.identity.relid;
	oldest->shard = w->shard.identity.shard;
	oldest->magic = POISON_MAGIC;
	return oldest;
}
