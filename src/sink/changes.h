/*
 * sink/changes.h
 *		How a continuous view has changed since a token: its rows as readers see them, compared with what was told before.
 */
#ifndef STREAMEXT_CHANGES_H
#define STREAMEXT_CHANGES_H

#include "base/streamext.h"

#define STREAMEXT_CHANGE_RESET 'r'
#define STREAMEXT_CHANGE_UPSERT 'u'
#define STREAMEXT_CHANGE_DELETE 'd'
#define STREAMEXT_EMIT_INTERVAL INT64CONST(250000) /* us, when a view does not say */

/* key and row: texts of JSON as jsonb's, not terminated, NULL of a reset. */
typedef struct Change
{
	char		op;
	uint64		incarnation, number; /* what the token says */
	const char *token;				 /* during the call */
	TimestampTz at;
	const char *key, *row;
	uint32		key_size, row_size;
} Change;

/* Must not call user code: the feed is held. */
typedef void (*ChangesEmit)(void *arg, const Change *change);

typedef struct ChangesQuestion
{
	const char *after; /* a token; NULL: begin anew */
	TimestampTz fresh; /* as the view is then or later */
	bool		idle; /* the caller waits, and the view is not read again where nothing can have changed since it was */
	bool gone; /* who begins anew is told of what is gone, too: then all tokens from the reset's on are within reach */
} ChangesQuestion;

/* One view as the current user sees it in this session. */
typedef struct ChangesReader ChangesReader;

/*
 * Raises what SELECT from the view would, 42809 if the view is not continuous, 0A000 if its rows are not told apart by what it outputs. Lives
 * in the current memory context, until the transaction's end at most.
 */
extern ChangesReader *streamext_changes_open(Oid view);

extern int64 streamext_changes_emit_interval(const ChangesReader *reader); /* us */
/* When the view was read that the last answer is of. */
extern TimestampTz streamext_changes_looked_at(const ChangesReader *reader);
extern List		  *streamext_changes_keys(const ChangesReader *reader); /* names of the key's columns (char *) */

/*
 * Gives what has changed; how many without the reset. *newest (may be NULL): where it stands now. Within a transaction with a snapshot; not
 * within SPI.
 */
extern uint64 streamext_changes_read(ChangesReader *reader, const ChangesQuestion *question, ChangesEmit emit,
									 void *arg, char **newest);

#endif /* STREAMEXT_CHANGES_H */
