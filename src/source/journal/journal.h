/*
 * source/journal/journal.h
 *		The append-only, checksummed file of a stream that makes a source replayable which is not: local streams and MQTT.
 *
 * Segment files under DataDir/streamext/<database oid>/<stream oid>.<shard>/<first position, 16 hex>. A position is a byte
 * offset over all segments; a record never straddles two segments. Each record carries a CRC-32C; a torn tail is cut when
 * a writer opens the journal. Appends of several processes (local streams) are serialised by the caller with the stream
 * slot's journal_lock; several threads of one process by the handle's own mutex.
 *
 * A record written inside a transaction carries its full transaction id and counts only if that committed; readers
 * stop before a record whose transaction is still in progress.
 */
#ifndef STREAMEXT_JOURNAL_H
#define STREAMEXT_JOURNAL_H

#include "base/streamext.h"
#include "base/layout.h"
#include "base/stream_def.h"
#include "port/atomics.h"

extern const char
	*const streamext_words_journal[]; /* of the option journal: none and the others, in the order of JournalMode */

typedef struct JournalRecord
{
	uint64			 fxid;			/* FullTransactionId, 0: none */
	TimestampTz		 timestamp;		/* arrival */
	const RowLayout *layout;		/* payloads that are rows: theirs, read: interned; else NULL */
	uint32			 row_type_hash; /* read only: rows of a version that kept no layout, else 0 */
	uint8			 qos;
	bool			 retained;
	uint16			 packet_id; /* MQTT; 0: none */
	const char		*topic;		/* read: NUL-terminated */
	uint32			 topic_size;
	const char		*payload;
	uint32			 payload_size;
	int64			 position, /* read only */
		next_position;		   /* read only */
} JournalRecord;

typedef struct Journal Journal;

/*
 * Where a journal is, and what its writers and readers share. `end` is where its end position is shared (in the stream slot, or
 * private memory): -1 there means not known since server start, the first writer sets it: where the good records end, but not
 * before `floor`. Positions below that have been given out (streamext_checkpoint_journal_floor), by a journal that this one is
 * an older copy of, or that has lost its tail; a new record must not have one of them.
 */
typedef struct JournalPlace
{
	Oid				  dboid, relid;
	int				  shard;
	JournalMode		  mode;
	int64			  floor;
	pg_atomic_uint64 *end;
	LWLock			 *lock;	   /* serialises the writers where several processes are (ConnectorOps.pushed) */
	bool			  follows; /* it is of another stream, whose worker opens it first and trims it */
} JournalPlace;

/*
 * Opens (and if `writer`, creates and repairs) the journal. Who writes where several processes do holds place->lock. malloc'd;
 * usable from client threads. NULL and errno on failure.
 */
extern Journal *streamext_journal_open(const JournalPlace *place, bool writer);

/*
 * Appends n records and syncs if the mode says so. No PostgreSQL call inside: for client threads. False and errno on failure:
 * JOURNAL_AT_LIMIT when the journal has reached streamext.journal_limit; one call may exceed it.
 */
#define JOURNAL_AT_LIMIT (-1) /* no system's errno */
extern bool streamext_journal_append(Journal *journal, const JournalRecord *records, int n);

/* First position still there, and the end. */
extern int64 streamext_journal_base(Journal *journal);
extern int64 streamext_journal_end(Journal *journal);
/* Where the last file begins that begins below position: a record begins there too. -1: there is none. */
extern int64 streamext_journal_before(Journal *journal, int64 position);
/* Where the last two files begin, or the only one; -1: there is none. */
extern int64 streamext_journal_recent(Journal *journal);

/* Where the first record begins that is at position or behind it: the same, unless position lies in what a floor left out. */
extern int64 streamext_journal_align(Journal *journal, int64 position);

/* Where the record begins that position lies in; else as align. */
extern int64 streamext_journal_containing(Journal *journal, int64 position);

/*
 * Up to max records from position on; they are good until the next read on this handle. Resolves transactions (main thread
 * only): skips aborted ones, stops at one in progress. *position moves behind what was read or skipped.
 * A record whose checksum is wrong ends the read with *corrupt set.
 */
extern int streamext_journal_read(Journal *journal, int64 *position, JournalRecord *records, int max, bool *corrupt);

/* Deletes whole segments below position. */
extern void streamext_journal_trim(Journal *journal, int64 position);
extern void streamext_journal_close(Journal *journal);

/* Where its files lie. */
extern void streamext_journal_directory(Oid dboid, Oid relid, int shard, char directory[MAXPGPATH]);

/* What the files are like, to be shown; without a handle. `end`: the shared one; false: it is not known. */
typedef struct JournalExtent
{
	int64 begin,	/* first position still there */
		end, bytes; /* on disk */
} JournalExtent;

extern bool streamext_journal_extent(Oid dboid, Oid relid, int shard, uint64 end, JournalExtent *extent);

/* Removes the files of a dropped stream (all shards) or database; missing ones are fine. */
extern void streamext_journal_remove(Oid dboid, Oid relid);
extern void streamext_journal_remove_database(Oid dboid);

#endif /* STREAMEXT_JOURNAL_H */
