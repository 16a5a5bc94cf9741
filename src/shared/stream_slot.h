/*
 * shared/stream_slot.h
 *		Verbs on the slots of streams and shards.
 */
#ifndef STREAMEXT_STREAM_SLOT_H
#define STREAMEXT_STREAM_SLOT_H

#include "base/streamext.h"
#include "shared/slots.h"

/* From shmem's start-up: what stays whosever the slot is. Three locks. */
extern void streamext_stream_slot_init(StreamSlot *slot, LWLockPadded *locks);

/* A private copy of a slot's index; -1 if there is none. Takes registry_lock shared. */
extern int streamext_find_stream(Oid dboid, Oid relid, int shard);

/* Makes the slot if it is not there (registry_lock exclusive); -1 when streamext.max_streams is reached. */
extern int streamext_add_stream(Oid dboid, Oid relid, int shard);

/*
 * The slot is of a view that the role owns, and counts in its share of places from now on; InvalidOid: in nobody's. False: the role has `most` others
 * and this one is not among them yet; nothing has changed.
 */
extern bool streamext_stream_charge(int index, Oid role, int most);

/*
 * The slot is of a stream that the role owns. False: it is new, or has been somebody else's, and the role has `most` others; nothing has changed. Zero: no
 * limit.
 */
extern bool streamext_stream_own(int index, Oid owner, int most);

/* The slot, of a part of UNION ALL, reads that stream's journal; InvalidOid: none. True if that is new. */
extern bool streamext_stream_follow(int index, Oid origin);
/* A checkpoint of the part that is on disk holds that stream's journal up to there; nothing if the slot follows another one by now. */
extern void streamext_stream_keep(StreamSlot *slot, Oid origin, int64 position);
/* Up to where the stream's journal may go: `limit`, or less if a part that reads it is not so far; 0: one of these views' parts has no slot yet. */
extern int64 streamext_stream_followed(const StreamSlot *stream, const List *views, int64 limit);
/* There may be something in the journal. */
extern void streamext_stream_wake_followers(const StreamSlot *stream);

/*
 * Makes the stream's slot if `make` and it is not there, bumps its generation if it is, and wakes its worker. Returns its index,
 * -1: not there, or no room. Does not raise.
 */
extern int streamext_announce_stream(Oid dboid, Oid relid, int shard, bool make);

/*
 * Frees a slot, its views, buffer and partitions. No worker may run on it any more; false: nothing was done, because a catch-up worker
 * does.
 */
extern bool streamext_remove_stream(int stream);
/* The same only if the generation is still this one; true if it was. The worker's own way out: its worker_pid may be its own. */
extern bool streamext_remove_stream_at(int stream, uint32 generation);

/* Sets state and error text (worker; takes the lock exclusively) and broadcasts. message NULL keeps the last error. */
extern void streamext_stream_set_state(StreamSlot *slot, StreamState state, const char *message);
/* Whether the error is one that the source will not take back by itself (worker). */
extern void		   streamext_stream_set_refused(StreamSlot *slot, bool refused);
extern const char *streamext_stream_state_name(StreamState state);
/* The same with the lock held, without a state. */
extern void streamext_stream_set_error(StreamSlot *slot, const char *message);
/* Trouble with which the stream goes on, so that no state tells when it is over; returns its moment (worker; takes the lock). */
extern TimestampTz streamext_stream_note_trouble(StreamSlot *slot, const char *message);
/* The trouble of that moment is over: last_error is past, if it is still that one. *noted becomes 0; nothing if it is. */
extern void streamext_stream_trouble_over(StreamSlot *slot, TimestampTz *noted);
extern void streamext_stream_set_rate(StreamSlot *slot, double rate);

/*
 * Makes this process the slot's worker, or its catch-up worker. False if it is not to be had: gone, taken, or its database is to be left.
 * Takes registry_lock.
 */
extern bool streamext_stream_enter(int index, Oid dboid, Oid relid, int shard, bool catchup);
/* The end of that; with registry_lock exclusive. `failed`: it was not asked to end. */
extern void streamext_stream_leave(StreamSlot *slot, bool catchup, bool failed);

/* Positions of another source are void, and with them all that was counted; views are the caller's to make void. Needs registry_lock and the lock. */
extern void streamext_stream_reset(StreamSlot *slot, uint64 source);

/* What the catalogue says; with the lock exclusive. What was there before is the caller's to free. */
extern void streamext_stream_set_buffer(StreamSlot *slot, StreamBuffer *buffer, int size);
extern void streamext_stream_set_columns(StreamSlot *slot, ColumnCounts *columns, int n);

/* The stream's worker reads nothing until then; 0: it goes on. With the lock exclusive. */
extern void streamext_stream_hold(StreamSlot *slot, TimestampTz until);

/*
 * StreamSlot.ask.pause: bit 0 says whether the stream shall not be read, the others count the changes. Whoever has read the table
 * streamext_internal.paused in an older snapshot sees by them that somebody knew better since.
 */
static inline bool
streamext_pause_requested(StreamSlot *slot)
{
	return (pg_atomic_read_u32(&slot->ask.pause) & 1) != 0;
}

static inline uint32
streamext_pause_next(uint32 old, bool pause)
{
	return ((old | 1) + 1) | pause;
}

extern void streamext_pause_request(StreamSlot *slot, bool pause);

/* Wakes a slot's worker and its catch-up worker. */
extern void streamext_wake_worker(StreamSlot *slot);
extern void streamext_wake_all_workers(void);

#endif /* STREAMEXT_STREAM_SLOT_H */
