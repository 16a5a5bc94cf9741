/*
 * gateway/keys.c
 *		Idempotency keys. The file's format and what the functions promise are in gateway/keys.h.
 *
 * In memory: a hash table for each stream that was ever sent a key, its entries in a list for each role, oldest first.
 */
#include "base/streamext.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_perm.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#include "gateway/keys.h"

#define KEYS_SLACK 1024 /* entries of the file that are nobody's any more, before it is written anew */

typedef struct KeyEntry
{
	pg_crc32c	crc; /* of all that follows */
	Oid			role;
	TimestampTz at;
	int64		position; /* the journal's end when it was written */
	KeyHash		key, body;
	uint64		unused;
} KeyEntry;

StaticAssertDecl(sizeof(KeyEntry) == 64, "an entry has no padding");

typedef struct KeyRole
{
	Oid		   role;
	int		   n;
	dlist_head keys; /* of KeyItem, oldest first */
} KeyRole;

typedef struct KeyItem
{
	struct
	{
		Oid		role;
		KeyHash key;
	} id; /* hash key */
	KeyHash		body;
	TimestampTz at;
	bool		noted; /* of the group at work */
	KeyRole	   *of;
	dlist_node	node;
	dlist_node	group; /* in keys_group, if noted */
} KeyItem;

typedef struct KeyFile
{
	Oid			  relid;
	JournalPlace  place;
	MemoryContext cxt;
	HTAB		 *items;
	List		 *roles; /* of KeyRole */
	int			  fd;
	int64		  entries; /* of the file */
} KeyFile;

static List		 *keys_files = NIL;
static KeyFile	 *keys_file = NULL; /* of the group at work */
static dlist_head keys_group = DLIST_STATIC_INIT(keys_group);
static int64	  keys_before; /* entries of the file before the group's */

/* ---- in memory ---- */

static KeyRole *
keys_role(KeyFile *file, Oid role)
{
	MemoryContext old;
	KeyRole		 *of;
	ListCell	 *lc;

	foreach (lc, file->roles)
		if (((KeyRole *) lfirst(lc))->role == role)
			return lfirst(lc);
	old = MemoryContextSwitchTo(file->cxt);
	of = palloc0(sizeof(KeyRole));
	of->role = role;
	dlist_init(&of->keys);
	file->roles = lappend(file->roles, of);
	MemoryContextSwitchTo(old);
	return of;
}

static void
keys_remove(KeyFile *file, KeyItem *item)
{
	dlist_delete(&item->node);
	item->of->n--;
	(void) hash_search(file->items, &item->id, HASH_REMOVE, NULL);
}

static void
keys_expire(KeyFile *file, KeyRole *of, TimestampTz now)
{
	while (!dlist_is_empty(&of->keys))
	{
		KeyItem *oldest = dlist_head_element(KeyItem, node, &of->keys);

		if (oldest->noted || (of->n <= STREAMEXT_KEYS_KEPT && oldest->at > now - STREAMEXT_KEYS_TIME))
			return;
		keys_remove(file, oldest);
	}
}

/* The item of the key; NULL: there is none, and with `make` it is made. */
static KeyItem *
keys_item(KeyFile *file, Oid role, KeyHash key, bool make)
{
	KeyItem	 id;
	KeyItem *item;
	bool	 found;

	memset(&id, 0, sizeof(id));
	id.id.role = role;
	id.id.key = key;
	item = hash_search(file->items, &id.id, make ? HASH_ENTER : HASH_FIND, &found);
	if (!make)
		return item;
	Assert(!found);
	item->of = keys_role(file, role);
	item->of->n++;
	item->noted = false;
	dlist_push_tail(&item->of->keys, &item->node);
	return item;
}

/* ---- the file ---- */

static pg_crc32c
keys_crc(const KeyEntry *entry)
{
	pg_crc32c crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, (const char *) entry + sizeof(entry->crc), sizeof(*entry) - sizeof(entry->crc));
	FIN_CRC32C(crc);
	return crc;
}

static void
keys_path(const KeyFile *file, const char *suffix, char path[MAXPGPATH])
{
	char directory[MAXPGPATH];

	streamext_journal_directory(file->place.dboid, file->relid, 0, directory);
	snprintf(path, MAXPGPATH, "%.900s/keys%s", directory, suffix);
}

static bool
keys_write_all(int fd, const void *data, size_t size, off_t at)
{
	const char *from = data;

	while (size > 0)
	{
		ssize_t n = pwrite(fd, from, size, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (n == 0)
				errno = ENOSPC;
			return false;
		}
		from += n;
		at += n;
		size -= n;
	}
	return true;
}

/* Entries of the file at path into memory; no file is none. False and errno. */
static bool
keys_load(KeyFile *file, const char *path, TimestampTz now)
{
	int64	 end = (int64) pg_atomic_read_u64(file->place.end);
	int		 fd = open(path, O_RDONLY | O_CLOEXEC);
	KeyEntry entries[256];
	ssize_t	 n;

	if (fd < 0)
		return errno == ENOENT;
	while ((n = read(fd, entries, sizeof(entries))) > 0)
		for (int i = 0; i < n / (ssize_t) sizeof(KeyEntry); i++)
		{
			KeyItem *item;

			if (keys_crc(&entries[i]) != entries[i].crc || entries[i].position >= end)
				continue;
			item = keys_item(file, entries[i].role, entries[i].key, false);
			if (item != NULL)
				keys_remove(file, item);
			item = keys_item(file, entries[i].role, entries[i].key, true);
			item->body = entries[i].body;
			item->at = entries[i].at;
			keys_expire(file, item->of, now);
		}
	close(fd);
	return n == 0;
}

static void
keys_fill(KeyEntry *entry, const KeyItem *item, int64 position)
{
	memset(entry, 0, sizeof(*entry));
	entry->role = item->id.role;
	entry->key = item->id.key;
	entry->body = item->body;
	entry->at = item->at;
	entry->position = position;
	entry->crc = keys_crc(entry);
}

/* What is in memory into a new file, which takes the old one's place. False and errno; then the old one stays. */
static bool
keys_renew(KeyFile *file)
{
	char	  path[MAXPGPATH], temporary[MAXPGPATH];
	int		  fd;
	KeyEntry *entries = palloc(sizeof(KeyEntry) * Max(hash_get_num_entries(file->items), 1));
	int64	  n = 0;
	ListCell *lc;
	bool	  done;

	foreach (lc, file->roles)
	{
		dlist_iter iter;

		dlist_foreach (iter, &((KeyRole *) lfirst(lc))->keys)
			keys_fill(&entries[n++], dlist_container(KeyItem, node, iter.cur), -1);
	}
	keys_path(file, "", path);
	keys_path(file, ".new", temporary);
	fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, pg_file_create_mode);
	done = fd >= 0 && keys_write_all(fd, entries, sizeof(KeyEntry) * n, 0) &&
		   (file->place.mode != JOURNAL_FSYNC || fsync(fd) == 0) && rename(temporary, path) == 0;
	pfree(entries);
	if (!done)
	{
		int saved = errno;

		if (fd >= 0)
			close(fd);
		errno = saved;
		return false;
	}
	if (file->fd >= 0)
		close(file->fd);
	file->fd = fd;
	file->entries = n;
	return true;
}

static KeyFile *
keys_find(Oid relid)
{
	ListCell *lc;

	foreach (lc, keys_files)
		if (((KeyFile *) lfirst(lc))->relid == relid)
			return lfirst(lc);
	return NULL;
}

static KeyFile *
keys_new(Oid relid, const JournalPlace *place)
{
	MemoryContext cxt = AllocSetContextCreate(TopMemoryContext, "streamext keys", ALLOCSET_DEFAULT_SIZES);
	HASHCTL		  control = { .keysize = sizeof(((KeyItem *) NULL)->id), .entrysize = sizeof(KeyItem), .hcxt = cxt };
	KeyFile		 *file = MemoryContextAllocZero(cxt, sizeof(KeyFile));

	file->relid = relid;
	file->cxt = cxt;
	file->fd = -1;
	file->place = *place;
	file->items = hash_create("streamext keys", 1024, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return file;
}

static void
keys_drop(KeyFile *file)
{
	if (file->fd >= 0)
		close(file->fd);
	MemoryContextDelete(file->cxt);
}

/* ---- a group ---- */

bool
streamext_keys_begin(Oid relid, const JournalPlace *place)
{
	KeyFile		 *file = keys_find(relid);
	MemoryContext old;
	char		  path[MAXPGPATH];

	dlist_init(&keys_group);
	keys_file = file;
	if (pg_atomic_read_u64(place->end) == (uint64) -1)
	{
		errno = EIO;
		return false;
	}
	if (file != NULL)
	{
		file->place = *place;
		keys_before = file->entries;
		return true;
	}
	file = keys_new(relid, place);
	keys_path(file, "", path);
	if (!keys_load(file, path, GetCurrentTimestamp()) || !keys_renew(file))
	{
		int saved = errno;

		keys_drop(file);
		errno = saved;
		return false;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	keys_files = lappend(keys_files, file);
	MemoryContextSwitchTo(old);
	keys_file = file;
	keys_before = file->entries;
	return true;
}

KeyState
streamext_keys_note(Oid role, KeyHash key, KeyHash body, TimestampTz now)
{
	KeyRole *of = keys_role(keys_file, role);
	KeyItem *item;

	keys_expire(keys_file, of, now);
	item = keys_item(keys_file, role, key, false);
	if (item != NULL && memcmp(&item->body, &body, sizeof(body)) != 0)
		return KEY_OTHER;
	if (item != NULL)
		return item->noted ? KEY_NOTED : KEY_TAKEN;
	item = keys_item(keys_file, role, key, true);
	item->body = body;
	item->at = now;
	item->noted = true;
	dlist_push_tail(&keys_group, &item->group);
	return KEY_NEW;
}

bool
streamext_keys_write(void)
{
	int64	   position = (int64) pg_atomic_read_u64(keys_file->place.end);
	dlist_iter iter;

	if (dlist_is_empty(&keys_group))
		return true;
	if (keys_file->entries > 2 * hash_get_num_entries(keys_file->items) + KEYS_SLACK)
	{
		/* what is noted is written below, not as if it were taken */
		dlist_foreach (iter, &keys_group)
			dlist_delete(&dlist_container(KeyItem, group, iter.cur)->node);
		(void) keys_renew(keys_file);
		keys_before = keys_file->entries;
		dlist_foreach (iter, &keys_group)
		{
			KeyItem *item = dlist_container(KeyItem, group, iter.cur);

			dlist_push_tail(&item->of->keys, &item->node);
		}
	}
	dlist_foreach (iter, &keys_group)
	{
		KeyEntry entry;

		keys_fill(&entry, dlist_container(KeyItem, group, iter.cur), position);
		if (!keys_write_all(keys_file->fd, &entry, sizeof(entry), keys_file->entries * sizeof(entry)))
			return false;
		keys_file->entries++;
	}
	return keys_file->place.mode != JOURNAL_FSYNC || fdatasync(keys_file->fd) == 0;
}

void
streamext_keys_end(bool taken)
{
	while (!dlist_is_empty(&keys_group))
	{
		KeyItem *item = dlist_container(KeyItem, group, dlist_pop_head_node(&keys_group));

		item->noted = false;
		if (!taken)
			keys_remove(keys_file, item);
	}

	/* else the next append would make them valid */
	if (!taken && keys_file->entries > keys_before && ftruncate(keys_file->fd, keys_before * sizeof(KeyEntry)) == 0)
		keys_file->entries = keys_before;
	else if (!taken && keys_file->entries > keys_before)
		(void) keys_renew(keys_file);
	keys_file = NULL;
}
