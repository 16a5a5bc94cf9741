/*
 * shared/feed.h
 *		What readers of a view's changes were told last (streamext.changes): a bounded image of the view in shared memory.
 *
 * A feed holds the newest entry of each key: the row as it was told, or that it is gone. Entries are numbered in the order in which they
 * became known; who has all up to a number lacks those above it. So nothing grows for a slow reader: he gets the latest state of each
 * key. Of keys that are gone only some are kept; `floor` is the number up to which others were forgotten, and who has less has to begin
 * anew. Nobody asks: no feed, and nothing of this is at work.
 *
 * A feed belongs to who holds its heavyweight lock (open .. close): he alone reads and writes it. The directory's lock guards which
 * feeds there are. Memory is the chunk allocator's; feeds that nobody has asked for the longest give way when there is no more.
 */
#ifndef STREAMEXT_FEED_H
#define STREAMEXT_FEED_H

#include "base/streamext.h"
#include "port/atomics.h"
#include "storage/lwlock.h"

#define STREAMEXT_MAX_FEEDS 128

/* Who is told the same: all for whom these are equal. Compared as bytes: zero it first. */
typedef struct FeedIdentity
{
	uint64 settings; /* hash of what output depends on besides the view's state */
	Oid	   dboid;
	Oid	   view;
	Oid	   role; /* InvalidOid: the output is the same for all roles */
	int32  pid;	 /* 0: for all sessions */
} FeedIdentity;

typedef struct FeedEntry
{
	uint64		number;
	TimestampTz at;
	uint32		size;	  /* in memory */
	uint32		key_size; /* of the text in data, not terminated */
	uint32		row_size; /* of the text behind it */
	bool		dead;	  /* there is a newer one of its key, or it was forgotten */
	bool		gone;	  /* the key's row has left the view; this is the last one */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} FeedEntry;

typedef struct FeedSegment
{
	struct FeedSegment *next;
	Size				capacity; /* of data */
	Size				used;
	char				data[FLEXIBLE_ARRAY_MEMBER]; /* FeedEntry after FeedEntry, by number */
} FeedSegment;

typedef struct FeedSlot
{
	/* the directory's lock */
	bool		 in_use;
	FeedIdentity identity;
	TimestampTz	 asked_at;

	/* who holds the feed */
	uint64		 incarnation; /* random; 0: nothing was told yet */
	uint64		 number;	  /* of the newest entry */
	uint64		 floor;
	TimestampTz	 looked_at; /* when the look at the view began that the entries are of */
	uint64		 version;	/* of the view's state then, as the reader of changes has it; 0: unknown */
	FeedSegment *first, *last;
	Size		 used; /* bytes of entries, */
	Size		 dead; /* of these */
	uint32		 live_entries, gone_entries;
} FeedSlot;

typedef struct FeedDirectory
{
	LWLock			*lock;
	pg_atomic_uint64 bytes; /* of all segments */
	FeedSlot		 feeds[STREAMEXT_MAX_FEEDS];
} FeedDirectory;

extern void streamext_feed_init(FeedDirectory *directory, LWLock *lock);

/*
 * The feed of this identity, held by this process until close, or the end of the (sub)transaction; made if it is not there. Waits for who
 * holds it. Raises 53400 when all are held by others.
 */
extern FeedSlot *streamext_feed_open(const FeedIdentity *identity);
extern void		 streamext_feed_close(FeedSlot *feed);

/* Empties it: all tokens are out of reach. */
extern void streamext_feed_reset(FeedSlot *feed);

/* Entries in the order of their numbers, without dead ones: the first above `after`, the one behind `entry`; NULL: no more. */
extern FeedEntry *streamext_feed_first(FeedSlot *feed, uint64 after);
extern FeedEntry *streamext_feed_next(FeedSlot *feed, const FeedEntry *entry);

typedef struct FeedChange
{
	FeedEntry  *old; /* of the same key, or NULL */
	const char *key, *row;
	uint32		key_size, row_size;
	bool		gone;
} FeedChange;

/*
 * Takes changes, at most one of a key, numbered in the order given, and forgets what is above the bounds. False, and nothing is done:
 * memory is full. Never raises, calls nobody's code.
 */
extern bool streamext_feed_add(FeedSlot *feed, const FeedChange *changes, int n, TimestampTz at);

#endif /* STREAMEXT_FEED_H */
