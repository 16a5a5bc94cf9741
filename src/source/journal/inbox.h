/*
 * source/journal/inbox.h
 *		A stream's journal as a source of records: what all connectors have in common whose records are brought to them.
 *
 * Who takes a record in appends it before it acknowledges it: a client thread of the stream's worker by streamext_journal_append,
 * any other process (a backend, a gateway) by streamext_inbox_append, which may carry the records of many acknowledgements and costs
 * one fsync. The worker reads, aligns a position to a record's beginning, and trims behind its checkpoints. What is in the journal
 * and a worker has not read yet waits there, up to streamext.journal_limit; then appends fail with JOURNAL_AT_LIMIT.
 *
 * A connector that has nothing to do but that takes the functions below as its ops (source/local/local.c). One that does more embeds
 * JournalInbox as its first field and calls those that fit.
 */
#ifndef STREAMEXT_INBOX_H
#define STREAMEXT_INBOX_H

#include "base/streamext.h"

#include "source/connector.h"
#include "source/journal/journal.h"

/* One partition; positions are the journal's. */
typedef struct JournalInbox
{
	Connector		   c;
	ConnectorPartition partition;
	JournalPlace	   place;
	Journal			  *journal; /* NULL: not open (yet), or closed */
	int64			   wanted;	/* where to begin once the journal is open; -1: at the journal's beginning */
	bool			   paused;
	int64			   keep;	/* bytes counted that stay, for who must know what came last */
	int64			   step;	/* bytes counted between two trims */
	int64			   trimmed; /* commit has seen this position */
	JournalRecord	  *records; /* STREAMEXT_BATCH_ROWS, of the last read */
	bool
		blocks; /* its journal's records hold several of the stream's (source/journal/block.h): positions may lie within one */
	int64 block_at; /* then: where the journal is read next */
} JournalInbox;

/* Fills what does not need the journal. `topic` names the partition, and records that were appended without a topic. */
extern void streamext_inbox_init(JournalInbox *inbox, const ConnectorOps *ops, const ConnectorOpen *args,
								 const char *topic);

/* Up to max records from the partition's position on, which moves. -1 and errno as streamext_journal_read when *corrupt is set there. */
extern int streamext_inbox_read(JournalInbox *inbox, StreamRecord *records, int max);

/* With journal 'none' deletes what the last poll and those before have given out, counted by a checkpoint or not. */
extern void streamext_inbox_forget(JournalInbox *inbox);

/* Opens the journal if it is not; a failure is reported and tried again at the next call. */
extern bool streamext_inbox_connect(JournalInbox *inbox);
/* What a reading error means: damage stays, what the system refused may pass. */
extern void streamext_inbox_read_failed(Connector *c, int saved_errno);

/* ---- ops of a connector that is an inbox and no more: other processes append, and set the worker's latch ---- */

extern Connector *streamext_inbox_open(const ConnectorOps *ops, const ConnectorOpen *args, const char *topic);
extern void		  streamext_inbox_seek(Connector *c, int index, int64 position);
extern int		  streamext_inbox_poll(Connector *c, StreamRecord *records, int max);
extern void		  streamext_inbox_release(Connector *c);
extern bool		  streamext_inbox_flush_target(Connector *c, uint64 ticket, int64 *targets);
extern bool		  streamext_inbox_find(Connector *c, SeekKind kind, TimestampTz time, int64 *positions);
extern bool		  streamext_inbox_ends(Connector *c, const int *indexes, int n);
extern void		  streamext_inbox_commit(Connector *c, const int64 *positions, int n);
extern void		  streamext_inbox_pause(Connector *c, bool paused);
extern void		  streamext_inbox_close(Connector *c);

/* In a ConnectorOps; poll is named beside them, and commit by who trims the journal. */
#define STREAMEXT_INBOX_OPS                                                                                         \
	.seek = streamext_inbox_seek, .release = streamext_inbox_release, .flush_target = streamext_inbox_flush_target, \
	.find = streamext_inbox_find, .ends = streamext_inbox_ends, .pause = streamext_inbox_pause,                     \
	.close = streamext_inbox_close

/* ---- for who appends from outside of the stream's worker ---- */

/*
 * Appends and syncs as streamext_journal_append, with a handle of this process that is kept open with those of the last few journals.
 * The caller holds place->lock and knows that place->end still is the stream's.
 */
extern bool streamext_inbox_append(const JournalPlace *place, const JournalRecord *records, int n);

#endif /* STREAMEXT_INBOX_H */
