/*
 * read/changed.h
 *		A view is read again, of which somebody has all rows as they were at a former look: only what may be other ones now is read.
 *
 * What may be others are the rows of keys of which groups were published since (state/changed.h), in windows with panes that were. Where these are
 * not few among the groups of those panes, or panes went into history meanwhile, all keys are read in those windows. Where more may have changed (the
 * state is another one, a sliding window has moved) or rows are more than their group (sessions, grouping sets), all is.
 *
 * What leaves by retention is known by its window: see `now.floor`.
 */
#ifndef STREAMEXT_READ_CHANGED_H
#define STREAMEXT_READ_CHANGED_H

#include "base/streamext.h"
#include "shared/feed.h"
#include "state/changed.h"

/* The group and window of a row. */
typedef struct ChangedRow
{
	uint32		hash;
	TimestampTz start; /* 0 without a window */
} ChangedRow;

typedef struct ReadChanged
{
	Oid		 view;
	FeedLook before; /* nmarks 0: there was none */

	/* once the statement has begun */
	bool		  begun;
	FeedLook	  now;	 /* for the next time; nmarks 0: that has to read all */
	bool		  whole; /* all rows are read; */
	bool		  all_keys;
	TimestampTz	  from, until; /* else those of windows that start then, both included, */
	StateChanged *groups;	   /* and, unless all_keys, have the hash of one of these */

	/* of the rows, in the order in which the scan has given them */
	MemoryContext cxt;
	ChangedRow	 *rows;
	uint64		  nrows, capacity;
} ReadChanged;

/*
 * The next statement of this process that reads changed->view is one for what has changed; NULL takes it back. Its only scan of it has no
 * look-up, and nothing in it is a user's code. `changed` must live until the statement has ended.
 */
extern void streamext_read_changed(ReadChanged *changed);

/* Whether a row of this group and window was read, if it is there. */
extern bool streamext_changed_has(const ReadChanged *changed, uint32 hash, TimestampTz start);

/* ---- for read/statement.c and read/scan.c ---- */

struct ViewRead;

/* That of this view, once; NULL: none. */
extern ReadChanged *streamext_changed_take(Oid view);
/*
 * What the view's slots say: narrows the read's panes and windows. `plain`: one scan, of all groups; shards: so many there are. With
 * registry_lock and the locks of all of the view's streams.
 */
extern void streamext_changed_begin(struct ViewRead *read, bool plain, int shards);
/* True if only the groups of read->changed are to be copied; then nothing of history is wanted. */
extern bool streamext_changed_by_group(const struct ViewRead *read);
extern void streamext_changed_note(ReadChanged *changed, uint32 hash, TimestampTz start);

#endif /* STREAMEXT_READ_CHANGED_H */
