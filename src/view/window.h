/*
 * view/window.h
 *		Window and pane arithmetic: pure int64, no shared state.
 *
 * A view's rows are folded into panes, the time slices that all of its windows are unions of. A pane is known by an int64:
 *	WINDOW_NONE		always 0 (unless sliding)
 *	WINDOW_TUMBLE, WINDOW_HOP, and sliding views: floor((t - origin) / pane), times two plus one when `edges` splits the
 *					instant at the pane's lower edge (id 2k) from the rest of the pane (id 2k + 1); ids ascend with time
 *	WINDOW_TRUNC	the bucket's start (TimestampTz), calendar units in a time zone (unless sliding)
 *	WINDOW_SESSION	as TUMBLE, of width gap (sliding: a part of it); which panes are of one session is fold/session.h's business
 */
#ifndef STREAMEXT_WINDOW_H
#define STREAMEXT_WINDOW_H

#include "base/streamext.h"
#include "pgtime.h"
#include "utils/timestamp.h"

typedef enum WindowKind
{
	WINDOW_NONE,
	WINDOW_TUMBLE, /* streamext.tumble, date_bin */
	WINDOW_HOP,	   /* streamext.hop */
	WINDOW_TRUNC,  /* date_trunc */
	WINDOW_SESSION
} WindowKind;

typedef struct TruncCache TruncCache;

typedef struct Window
{
	WindowKind	kind;
	int64		size;  /* tumble, hop; session: the gap */
	int64		slide; /* hop; tumble: = size */
	int64		origin;
	int64		pane; /* width of a pane: gcd(size, slide) and, sliding, of step, length and origin; 0: NONE, TRUNC */
	char	   *trunc_unit;	 /* TRUNC: 'minute', ... as the user wrote it, lower case */
	char	   *trunc_zone;	 /* TRUNC: three-argument date_trunc's zone or NULL for the view's TimeZone */
	TruncCache *trunc_cache; /* made by streamext_window_prepare */

	/* sliding predicate: event time [>, >=] now() - length, optionally and event time [<, <=] now() */
	bool  sliding;
	int64 length;
	int64 step; /* now() is rounded down to a multiple of it */
	bool  lower_inclusive;
	bool  has_upper;
	bool  upper_inclusive;
	bool  edges; /* panes are split at their lower edge; always true when sliding */
} Window;

/* Sets pane and edges from the rest; raises 0A000 / 22023 (too many panes a window: STREAMEXT_MAX_PANES). */
extern void streamext_window_finish(Window *window);

/*
 * Allocates what pane_of needs (TRUNC); keeps the session's TimeZone of now, if trunc_zone is NULL, for all later calls.
 * Call in the process that folds or reads, while the TimeZone is the view's.
 */
extern void streamext_window_prepare(Window *window, MemoryContext cxt);

/* The pane of a finite event time. TRUNC may raise for times at the end of the world. */
extern int64 streamext_window_pane(const Window *window, TimestampTz t);

/* The same of a time that no row need have; never raises. TRUNC: DT_NOBEGIN of times whose bucket begins before the first timestamp, or may. */
extern int64 streamext_window_pane_by(const Window *window, TimestampTz t);

/* A time that stands for the pane where there are no numbers: of that pane, and the same for each. Of an unwindowed one 2000-01-01. */
extern TimestampTz streamext_window_pane_time(const Window *window, int64 pane);

/*
 * The first instant after the pane (for the watermark); PG_INT64_MAX for an unwindowed pane; for a purely sliding view too (no late rows).
 * Says nothing of sessions.
 */
extern TimestampTz streamext_window_pane_end(const Window *window, int64 pane);

/*
 * Windows for readers. A window of TUMBLE/TRUNC is known by its start too. A TUMBLE window that starts before the first
 * timestamp (4713 BC) is shown to start there, a HOP window that does so is left out; so do the SQL functions.
 */

/*
 * Ids of the first and last pane that a window which starts at `start` is made of (inclusive). TRUNC with a sliding
 * predicate: where clocks go back by part of a bucket, its neighbour's panes may be among them; streamext_window_starts tells.
 */
extern void streamext_window_pane_range(const Window *window, TimestampTz start, int64 *first, int64 *last);
/* First and last start of the windows that the pane belongs to (HOP with slide > size: none when *first > *last). Step between them is slide. */
extern void streamext_window_starts(const Window *window, int64 pane, TimestampTz *first, TimestampTz *last);
/* The end of the last of these windows; of a pane in none, and of other kinds than HOP, its own. From then on nobody adds to it. */
extern TimestampTz streamext_window_last_end(const Window *window, int64 pane);
/* True if windows are fixed in time, so that they end for good: tumble, hop, trunc, not sliding. */
extern bool streamext_window_has_ends(const Window *window);
/* The first instant after the window of such a kind that starts at `start`; PG_INT64_MAX where there is none. */
extern TimestampTz streamext_window_end(const Window *window, TimestampTz start);
/* Pane ids that the sliding predicate lets through when the clock says now (PG_INT64_MIN / MAX where open). */
extern void streamext_window_sliding_range(const Window *window, TimestampTz now, int64 *first, int64 *last);

/* A fixed interval in microseconds (a day is 24 h), of any sign; raises 22023, calling it `what`, for months and for what is out of range. */
extern int64 streamext_interval_usecs(const Interval *interval, const char *what);

/* SQL: streamext.tumble(interval, timestamptz), streamext.hop(interval, interval, timestamptz) setof, streamext.session raises. */

#endif /* STREAMEXT_WINDOW_H */
