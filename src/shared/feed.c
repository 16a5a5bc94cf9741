/*-------------------------------------------------------------------------
 *
 * shared/feed.c
 *		Images of views for readers of changes: entries by number, in segments of chunk memory.
 *
 * Entries are only appended, so that a walk through the segments meets them in the order of their numbers. One that a newer entry of its
 * key replaces is marked dead; when the dead are more than the others, what lives is copied into new segments. Between open and close
 * an error leaves the feed as it was: add makes all room first and then only writes.
 *
 * Locks: the feed's heavyweight lock, then the directory's, then the chunk allocator's. Who is in need of memory takes feeds whose lock
 * is free, so he never waits for one while he holds another.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/timestamp.h"

#include "base/chunk.h"
#include "shared/feed.h"
#include "shared/shmem.h"

#define FEED_LOCK_CLASS 0x535a /* pg_advisory_lock's are 1 and 2, durable/letters.c's the one before */
#define FEED_GONE_MIN 1000	   /* keys that are gone and not forgotten; as many as there are rows if those are more */
#define FEED_SLACK (64 * 1024)
#define FEED_SEGMENT_MIN 8192
#define FEED_SHARE 4 /* all feeds take no more than this part of memory: the rest is for views */
#define FEED_SEGMENT_HEAD offsetof(FeedSegment, data)

#define FEED_DIRECTORY (&streamext_shared->feeds)

void
streamext_feed_init(FeedDirectory *directory, LWLock *lock)
{
	directory->lock = lock;
	pg_atomic_init_u64(&directory->bytes, 0);
}

/* ---- who holds a feed ---- */

static LOCKTAG
feed_tag(int index)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, InvalidOid, index, 0, FEED_LOCK_CLASS); /* of no database: any may take it away */
	return tag;
}

static bool
feed_lock(int index, bool wait)
{
	LOCKTAG tag = feed_tag(index);

	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

static void
feed_unlock(int index)
{
	LOCKTAG tag = feed_tag(index);

	(void) LockRelease(&tag, ExclusiveLock, false);
}

static bool
feed_is(const FeedSlot *feed, const FeedIdentity *identity)
{
	return feed->in_use && memcmp(&feed->identity, identity, sizeof(FeedIdentity)) == 0;
}

/* Needs the directory's lock. */
static int
feed_find(const FeedIdentity *identity)
{
	for (int i = 0; i < STREAMEXT_MAX_FEEDS; i++)
		if (feed_is(&FEED_DIRECTORY->feeds[i], identity))
			return i;
	return -1;
}

/*
 * The feed that nobody has asked for the longest and nobody holds is emptied, and free; its index. -1: there is none. Never waits.
 */
static int
feed_evict(const FeedSlot *but)
{
	bool tried[STREAMEXT_MAX_FEEDS] = { false };

	for (;;)
	{
		TimestampTz oldest = DT_NOEND;
		int			found = -1;

		LWLockAcquire(FEED_DIRECTORY->lock, LW_SHARED);
		for (int i = 0; i < STREAMEXT_MAX_FEEDS; i++)
		{
			const FeedSlot *feed = &FEED_DIRECTORY->feeds[i];

			if (!feed->in_use || feed == but || tried[i] || feed->asked_at >= oldest)
				continue;
			oldest = feed->asked_at;
			found = i;
		}
		LWLockRelease(FEED_DIRECTORY->lock);
		if (found < 0)
			return -1;
		tried[found] = true;
		if (!feed_lock(found, false))
			continue;
		LWLockAcquire(FEED_DIRECTORY->lock, LW_EXCLUSIVE);
		if (FEED_DIRECTORY->feeds[found].in_use)
		{
			streamext_feed_reset(&FEED_DIRECTORY->feeds[found]);
			FEED_DIRECTORY->feeds[found].in_use = false;
		}
		LWLockRelease(FEED_DIRECTORY->lock);
		feed_unlock(found);
		return found;
	}
}

/* The index of the feed of this identity, made if it is not there; it may be another's by the time that it is locked. */
static int
feed_claim(const FeedIdentity *identity)
{
	int index;

	LWLockAcquire(FEED_DIRECTORY->lock, LW_EXCLUSIVE);
	index = feed_find(identity);
	for (int i = 0; i < STREAMEXT_MAX_FEEDS && index < 0; i++)
	{
		FeedSlot *feed = &FEED_DIRECTORY->feeds[i];

		if (feed->in_use)
			continue;
		Assert(feed->first == NULL);
		memset(feed, 0, sizeof(FeedSlot));
		feed->in_use = true;
		feed->identity = *identity;
		index = i;
	}
	if (index >= 0)
		FEED_DIRECTORY->feeds[index].asked_at = GetCurrentTimestamp();
	LWLockRelease(FEED_DIRECTORY->lock);
	return index;
}

FeedSlot *
streamext_feed_open(const FeedIdentity *identity)
{
	for (;;)
	{
		int	 index = feed_claim(identity);
		bool mine;

		if (index < 0)
		{
			if (feed_evict(NULL) >= 0)
				continue;
			ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
							errmsg("changes of too many views are asked for at the same time"),
							errdetail("At most %d can be, counted once for each role or session for which they differ.",
									  STREAMEXT_MAX_FEEDS)));
		}
		(void) feed_lock(index, true);
		LWLockAcquire(FEED_DIRECTORY->lock, LW_SHARED);
		mine = feed_is(&FEED_DIRECTORY->feeds[index], identity);
		LWLockRelease(FEED_DIRECTORY->lock);
		if (mine)
			return &FEED_DIRECTORY->feeds[index];
		feed_unlock(index);
		CHECK_FOR_INTERRUPTS();
	}
}

void
streamext_feed_close(FeedSlot *feed)
{
	feed_unlock(feed - FEED_DIRECTORY->feeds);
}

static void
feed_free_segments(FeedSegment *segment)
{
	while (segment != NULL)
	{
		FeedSegment *next = segment->next;

		pg_atomic_sub_fetch_u64(&FEED_DIRECTORY->bytes, segment->capacity + FEED_SEGMENT_HEAD);
		streamext_chunk_free(segment);
		segment = next;
	}
}

void
streamext_feed_reset(FeedSlot *feed)
{
	feed_free_segments(feed->first);
	feed->first = feed->last = NULL;
	feed->incarnation = feed->number = feed->floor = feed->version = 0;
	feed->looked_at = 0;
	feed->grouped = false;
	feed->look.nmarks = 0;
	feed->used = feed->dead = 0;
	feed->live_entries = feed->gone_entries = 0;
}

/* ---- entries ---- */

static inline FeedEntry *
feed_entry(FeedSegment *segment, Size at)
{
	return (FeedEntry *) (segment->data + at);
}

/* Whether all of a segment are numbered up to `after`; entries are by number, so the next one's first says so. */
static bool
feed_is_before(const FeedSegment *segment, uint64 after)
{
	return segment->next != NULL && segment->next->used > 0 && feed_entry(segment->next, 0)->number <= after;
}

FeedCursor
streamext_feed_after(FeedSlot *feed, uint64 after)
{
	FeedCursor cursor = { .segment = feed->first, .after = after, .from = PG_INT64_MIN, .until = PG_INT64_MAX };

	while (cursor.segment != NULL && feed_is_before(cursor.segment, after))
		cursor.segment = cursor.segment->next;
	return cursor;
}

FeedCursor
streamext_feed_between(FeedSlot *feed, TimestampTz from, TimestampTz until)
{
	FeedCursor cursor = { .segment = feed->first, .from = from, .until = until };

	return cursor;
}

FeedEntry *
streamext_feed_next(FeedCursor *cursor)
{
	for (; cursor->segment != NULL; cursor->segment = cursor->segment->next, cursor->at = 0)
	{
		FeedSegment *segment = cursor->segment;

		if (segment->first_start > cursor->until || segment->last_start < cursor->from)
			continue;
		while (cursor->at < segment->used)
		{
			FeedEntry *entry = feed_entry(segment, cursor->at);

			cursor->at += entry->size;
			if (!entry->dead && entry->number > cursor->after)
				return entry;
		}
	}
	return NULL;
}

static Size
feed_entry_size(Size key_size, Size row_size)
{
	return MAXALIGN(offsetof(FeedEntry, data) + key_size + row_size);
}

/* Room for so many bytes more in one segment behind `last`; the new one, not linked yet, NULL where memory is full. Feeds of others give way. */
static FeedSegment *
feed_make_segment(FeedSlot *feed, Size size)
{
	FeedSegment *segment;
	Size		 actual;

	size = Max(FEED_SEGMENT_HEAD + size, FEED_SEGMENT_MIN);
	while (pg_atomic_read_u64(&FEED_DIRECTORY->bytes) + size > streamext_chunk_total() / FEED_SHARE ||
		   (segment = streamext_chunk_alloc(size, &actual)) == NULL)
		if (feed_evict(feed) < 0)
			return NULL;
	pg_atomic_add_fetch_u64(&FEED_DIRECTORY->bytes, actual);
	segment->next = NULL;
	segment->capacity = actual - FEED_SEGMENT_HEAD;
	segment->used = 0;
	segment->first_start = PG_INT64_MAX;
	segment->last_start = PG_INT64_MIN;
	return segment;
}

/* Where entries are put, in a row of segments that are there already. */
typedef struct FeedPlan
{
	FeedSegment *first, *at;
	Size		 left; /* of the last segment, while it is planned */
} FeedPlan;

/* Room for one more entry; sizes are asked for in the order in which entries are put. */
static bool
feed_plan(FeedSlot *feed, FeedPlan *plan, Size size)
{
	FeedSegment *segment;

	if (plan->at != NULL && plan->left >= size)
	{
		plan->left -= size;
		return true;
	}
	segment = feed_make_segment(feed, Max(size, plan->at != NULL ? STREAMEXT_CHUNK_MAX - FEED_SEGMENT_HEAD : 0));
	if (segment == NULL)
		return false;
	if (plan->at != NULL)
		plan->at->next = segment;
	else
		plan->first = segment;
	plan->at = segment;
	plan->left = segment->capacity - size;
	return true;
}

static FeedEntry *
feed_put(FeedSlot *feed, FeedPlan *plan, Size size, TimestampTz start)
{
	FeedEntry *entry;

	while (plan->at->used + size > plan->at->capacity)
		plan->at = plan->at->next;
	entry = feed_entry(plan->at, plan->at->used);
	plan->at->used += size;
	plan->at->first_start = Min(plan->at->first_start, start);
	plan->at->last_start = Max(plan->at->last_start, start);
	feed->used += size;
	return entry;
}

static void
feed_kill(FeedSlot *feed, FeedEntry *entry)
{
	Assert(!entry->dead);
	entry->dead = true;
	feed->dead += entry->size;
	if (entry->gone)
		feed->gone_entries--;
	else
		feed->live_entries--;
}

/* Of keys that are gone the oldest, above the bound; not those above `until`, for who has all up to there. */
static void
feed_forget(FeedSlot *feed, uint64 until)
{
	uint32	   most = Max(FEED_GONE_MIN, feed->live_entries);
	FeedEntry *entry;

	if (feed->gone_entries <= most)
		return;
	most /= 2; /* not at each call again */
	for (FeedSegment *segment = feed->first; segment != NULL && feed->gone_entries > most; segment = segment->next)
		for (Size at = 0; at < segment->used && feed->gone_entries > most; at += entry->size)
		{
			entry = feed_entry(segment, at);
			if (entry->number > until)
				return;
			if (entry->dead || !entry->gone)
				continue;
			feed->floor = entry->number;
			feed_kill(feed, entry);
		}
}

/* What lives goes into segments of its own when the dead take more room; not where there is no memory for that. */
static void
feed_compact(FeedSlot *feed)
{
	FeedPlan   plan = { 0 };
	FeedEntry *entry;

	if (feed->dead < FEED_SLACK || feed->dead * 2 < feed->used)
		return;
	for (FeedSegment *segment = feed->first; segment != NULL; segment = segment->next)
		for (Size at = 0; at < segment->used; at += entry->size)
		{
			entry = feed_entry(segment, at);
			if (!entry->dead && !feed_plan(feed, &plan, entry->size))
			{
				feed_free_segments(plan.first);
				return;
			}
		}
	plan.at = plan.first;
	feed->used = feed->dead = 0;
	for (FeedSegment *segment = feed->first; segment != NULL; segment = segment->next)
		for (Size at = 0; at < segment->used; at += entry->size)
		{
			entry = feed_entry(segment, at);
			if (!entry->dead)
				memcpy(feed_put(feed, &plan, entry->size, entry->start), entry, entry->size);
		}
	feed_free_segments(feed->first);
	feed->first = plan.first;
	feed->last = plan.at;
}

static void
feed_write(FeedEntry *entry, const FeedChange *change, Size size)
{
	entry->size = size;
	entry->key_size = change->key_size;
	entry->row_size = change->row_size;
	entry->dead = false;
	entry->gone = change->gone;
	entry->hash = change->hash;
	entry->start = change->start;
	memcpy(entry->data, change->key, change->key_size);
	memcpy(entry->data + change->key_size, change->row, change->row_size);
}

bool
streamext_feed_add(FeedSlot *feed, const FeedChange *changes, int n, TimestampTz at)
{
	FeedPlan plan = { 0 };
	uint64	 before = feed->number;

	if (n == 0)
		return true;
	plan.first = plan.at = feed->last;
	plan.left = feed->last != NULL ? feed->last->capacity - feed->last->used : 0;
	for (int i = 0; i < n; i++)
		if (!feed_plan(feed, &plan, feed_entry_size(changes[i].key_size, changes[i].row_size)))
		{
			feed_free_segments(feed->last != NULL ? feed->last->next : plan.first);
			if (feed->last != NULL)
				feed->last->next = NULL;
			return false;
		}
	plan.at = plan.first;
	for (int i = 0; i < n; i++)
	{
		Size	   size = feed_entry_size(changes[i].key_size, changes[i].row_size);
		FeedEntry *entry = feed_put(feed, &plan, size, changes[i].start);

		feed_write(entry, &changes[i], size);
		entry->number = ++feed->number;
		entry->at = at;
		if (changes[i].gone)
			feed->gone_entries++;
		else
			feed->live_entries++;
		if (changes[i].old != NULL)
			feed_kill(feed, changes[i].old);
	}
	if (feed->first == NULL)
		feed->first = plan.first;
	feed->last = plan.at;
	feed_forget(feed, before);
	feed_compact(feed);
	return true;
}
