/*
 * source/feed/intake.h
 *		From a feed's records to the stream's journal: what is left out, what has come before, what is an error of the server's, and the
 *		token from which the feed can be resumed.
 *
 * Records are collected while libcurl delivers bytes, and appended together. The token moves with the records collected; with the process
 * goes what was not appended, and with it the token: the next one takes it from the journal's last record.
 *
 * What the journal keeps as a record's topic: the event's name, a NUL, the id. packet_id is a short hash of where the record is from, so
 * that no token is taken for another feed's.
 */
#ifndef STREAMEXT_FEED_INTAKE_H
#define STREAMEXT_FEED_INTAKE_H

#include "source/feed/cutter.h"
#include "source/feed/options.h"
#include "source/feed/text.h"
#include "base/record.h"
#include "source/journal/journal.h"

typedef struct FeedIntake FeedIntake;

/* Palloc'd and malloc'd; raises if memory is out. options outlive it. */
extern FeedIntake *streamext_feed_intake_new(const FeedOptions *options);
extern void		   streamext_feed_intake_free(FeedIntake *intake);

/*
 * Where a feed can be resumed behind a record of its journal: what checkpoints keep, for a server that has the checkpoint and not the journal, or an
 * older one. As bytes: these two, the token.
 */
typedef struct FeedMark
{
	int64  position; /* next one of the record with the token */
	uint16 origin;	 /* of what tokens mean something for */
} FeedMark;

#define FEED_MARK_HEAD (sizeof(int64) + sizeof(uint16))

/*
 * Takes the token and what repeats are known by out of the journal's last two files, or the token out of the mark if that is of a later record.
 * Main thread.
 */
extern void streamext_feed_intake_load(FeedIntake *intake, Journal *journal, const char *mark, size_t size);

/* The mark of the last of these records, as they were read, that has a token; false: none has. Main thread, not while the link is driven. */
extern bool streamext_feed_intake_mark(FeedIntake *intake, const StreamRecord *records, int n, FeedText *mark);

/* What is taken from now on has come now. */
extern void streamext_feed_intake_arrival(FeedIntake *intake);

/* False: streamext_feed_intake_trouble says why. */
extern bool streamext_feed_intake_take(FeedIntake *intake, const FeedRecord *record);

/* Why the last take was refused: the server's own words for an error, or that memory is out. "": it was not; forgets it. */
extern const char *streamext_feed_intake_trouble(FeedIntake *intake);

/* Bytes that what is collected takes: records, and what is known of each. */
extern size_t streamext_feed_intake_waiting(const FeedIntake *intake);
/* Records taken by this process, repeated or left out ones included: whether something comes. */
extern uint64 streamext_feed_intake_count(const FeedIntake *intake);

/* Appends what was collected. False and errno on failure; it stays collected. */
extern bool streamext_feed_intake_append(FeedIntake *intake, Journal *journal);

/* The token, not NUL-terminated; size 0: none is known. */
extern const FeedText *streamext_feed_intake_token(const FeedIntake *intake);

#endif /* STREAMEXT_FEED_INTAKE_H */
