/*
 * read/pane_range.c
 *		Which panes a statement wants of a view: by bounds of its window key, by its sliding predicate, and where only some windows are to be seen.
 *		What the functions promise is in read/scan.h.
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "common/int.h"
#include "pgtime.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "read/scan.h"

void
streamext_read_narrow(const CompiledView *view, int strategy, TimestampTz bound, int64 *min, int64 *max)
{
	const Window *window = &view->window;
	bool		  lower = strategy == BTGreaterStrategyNumber || strategy == BTGreaterEqualStrategyNumber ||
				 strategy == BTEqualStrategyNumber;
	bool upper =
		strategy == BTLessStrategyNumber || strategy == BTLessEqualStrategyNumber || strategy == BTEqualStrategyNumber;

	if (strategy == BTLessStrategyNumber && bound > MIN_TIMESTAMP && !TIMESTAMP_NOT_FINITE(bound))
		bound--;
	if (TIMESTAMP_NOT_FINITE(bound) || !IS_VALID_TIMESTAMP(bound))
		return;
	if (window->kind == WINDOW_TRUNC)
	{
		/* A pane that is a bucket is known by its start; where a sliding predicate cuts buckets, leave it at that. */
		if (window->sliding)
			return;
		if (lower)
			*min = Max(*min, bound);
		if (upper)
			*max = Min(*max, bound);
		return;
	}
	if (window->kind == WINDOW_SESSION)
	{
		/* Rows within the gap before it tell whether a session starts there; where it ends is open. */
		if (lower && !pg_sub_s64_overflow(bound, window->size, &bound) && bound >= MIN_TIMESTAMP)
			*min = Max(*min, streamext_window_pane(window, bound));
		return;
	}
	/* A window's rows are no earlier than its start; the first of all windows is said to start later than it does. */
	if (lower && bound > MIN_TIMESTAMP)
		*min = Max(*min, streamext_window_pane(window, bound));
	if (upper)
	{
		/* The last window that starts by then is the last that holds this pane, if any does. */
		int64		last = streamext_window_pane(window, bound);
		int64		unused;
		TimestampTz from, to;

		streamext_window_starts(window, last, &from, &to);
		if (from <= to)
			streamext_window_pane_range(window, to, &unused, &last);
		*max = Min(*max, last);
	}
}

void
streamext_read_sliding_range(const CompiledView *view, TimestampTz clock, int64 *first, int64 *last)
{
	Window	 window = view->window;
	pg_tz	*zone;
	pg_tz	*session_zone = session_timezone;
	Interval interval = { 0 };
	TimestampTz volatile lower = 0;
	TimestampTz volatile now = clock;
	int64 rest;

	*first = PG_INT64_MIN;
	*last = PG_INT64_MAX;
	if (!window.sliding)
		return;
	zone = view->sliding_days != 0 ? pg_tzset(view->options.timezone) : NULL;
	if (zone == NULL)
	{
		streamext_window_sliding_range(&window, clock, first, last);
		return;
	}
	rest = clock % window.step;
	now -= rest < 0 ? rest + window.step : rest;
	interval.day = view->sliding_days;
	interval.time = window.length - view->sliding_days * USECS_PER_DAY;
	PG_TRY();
	{
		session_timezone = zone;
		lower = DatumGetTimestampTz(
			DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(now), IntervalPGetDatum(&interval)));
	}
	PG_FINALLY();
	{
		session_timezone = session_zone;
	}
	PG_END_TRY();
	window.length = now - lower;
	if (lower % window.pane != 0)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("the sliding window of continuous view \"%s\" begins between two steps",
							   get_rel_name(view->relid)),
						errhint("Write its interval in hours, or choose a smaller streamext.step.")));
	streamext_window_sliding_range(&window, now, first, last);
}

/* ---- some windows only ---- */

static struct
{
	Oid			view;
	TimestampTz from;
	TimestampTz until;
} pane_windows = { InvalidOid, DT_NOBEGIN, DT_NOEND };

void
streamext_read_windows(Oid view, TimestampTz from, TimestampTz until)
{
	pane_windows.view = view;
	pane_windows.from = from;
	pane_windows.until = until;
}

void
streamext_read_limit_windows(ViewRead *read)
{
	const Window *window = &read->view->window;
	TimestampTz	  first;

	read->from = DT_NOBEGIN;
	read->until = DT_NOEND;
	if (read->view->relid != pane_windows.view)
		return;
	read->from = pane_windows.from;
	read->until = pane_windows.until;
	if (!streamext_window_has_ends(window))
		return;
	first = read->from;
	if (first != DT_NOBEGIN && window->kind == WINDOW_HOP && pg_sub_s64_overflow(first, window->size, &first))
		first = DT_NOBEGIN;
	if (first != DT_NOBEGIN && IS_VALID_TIMESTAMP(first))
		read->first = streamext_window_pane_by(window, first);
	if (IS_VALID_TIMESTAMP(read->until))
		read->last = streamext_window_pane_by(window, read->until);
}
