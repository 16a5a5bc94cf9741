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
	uint32		hash;	  /* of the group that the row is of (FeedLook) */
	TimestampTz start;	  /* and of its window, where it is of one */
	char		data[FLEXIBLE_ARRAY_MEMBER];
} FeedEntry;

typedef struct FeedSegment
{
	struct FeedSegment *next;
	Size				capacity; /* of data */
	Size				used;
	TimestampTz			first_start, last_start;	 /* of its entries' windows */
	char				data[FLEXIBLE_ARRAY_MEMBER]; /* FeedEntry after FeedEntry, by number */
} FeedSegment;

/* The state of one shard as a look found it. */
typedef struct FeedMark
{
	uint64 born;   /* ViewCounted.born */
	int64  sealed; /* ViewHistory.sealed */
	uint32 period; /* what was published since is of this one or later ones (ViewState.period) */
} FeedMark;

/* What a look at the view has seen, so that the next one need look only at what was published since (read/changed.h). */
typedef struct FeedLook
{
	int			nmarks; /* 0: nothing is known, or the rows are not told apart by groups */
	FeedMark	marks[STREAMEXT_MAX_SHARDS];
	int64		first, last; /* panes that a sliding predicate let through */
	TimestampTz floor;		 /* windows that end by then were left out */
} FeedLook;

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
	bool		 grouped;	/* entries say which group they are of */
	FeedLook	 look;
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

/* A way through the entries that are not dead, in the order of their numbers; good until one is added. */
typedef struct FeedCursor
{
	FeedSegment *segment;
	Size		 at;
	uint64		 after;
	TimestampTz	 from, until;
} FeedCursor;

/* Those above `after`. */
extern FeedCursor streamext_feed_after(FeedSlot *feed, uint64 after);
/* All of windows that start in [from, until], and maybe others. */
extern FeedCursor streamext_feed_between(FeedSlot *feed, TimestampTz from, TimestampTz until);
/* NULL: no more. */
extern FeedEntry *streamext_feed_next(FeedCursor *cursor);

typedef struct FeedChange
{
	FeedEntry  *old; /* of the same key, or NULL */
	const char *key, *row;
	uint32		key_size, row_size;
	bool		gone;
	uint32		hash;
	TimestampTz start;
} FeedChange;

/*
 * Takes changes, at most one of a key, numbered in the order given, and forgets what is above the bounds. False, and nothing is done:
 * memory is full. Never raises, calls nobody's code.
 */
extern bool streamext_feed_add(FeedSlot *feed, const FeedChange *changes, int n, TimestampTz at);

#endif /* STREAMEXT_FEED_H */
