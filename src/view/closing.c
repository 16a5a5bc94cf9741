/*
 * view/closing.c
 *		When a view's windows are closed, and which there are. What the functions promise is in view/closing.h.
 */
#include "base/streamext.h"

#include "common/int.h"
#include "utils/timestamp.h"

#include "view/closing.h"

#define INTO_SESSION_STEPS 16 /* sessions are looked for each time the watermark has moved by the gap / this */

/* What passes between the watermark and the moment at which a window is closed that ends at, or a session whose last row is at, a time. */
static int64
into_delay(const CompiledView *view)
{
	int64 delay = view->options.lateness;

	if (view->window.kind == WINDOW_SESSION && (pg_add_s64_overflow(delay, view->window.size, &delay) ||
												pg_add_s64_overflow(delay, view->window.size, &delay)))
		return PG_INT64_MAX;
	return delay;
}

TimestampTz
streamext_view_closed(const CompiledView *view, TimestampTz watermark)
{
	TimestampTz until;

	if (watermark == DT_NOBEGIN || pg_sub_s64_overflow(watermark, into_delay(view), &until) ||
		!IS_VALID_TIMESTAMP(until))
		return DT_NOBEGIN;
	return until;
}

TimestampTz
streamext_into_limit(const CompiledView *view, bool gives, TimestampTz written, TimestampTz watermark)
{
	TimestampTz limit;

	if (!gives)
		return watermark;
	if (written == DT_NOBEGIN || pg_add_s64_overflow(written, into_delay(view), &limit))
		return written;
	return Min(watermark, limit);
}

TimestampTz
streamext_view_last_end(const Window *window, TimestampTz until)
{
	TimestampTz first, last;
	int64		slide = window->slide;
	TimestampTz base = window->origin;

	switch (window->kind)
	{
		case WINDOW_TUMBLE:
			streamext_window_starts(window, streamext_window_pane(window, until), &first, &last);
			return first;
		case WINDOW_TRUNC:
			first = streamext_window_pane_by(window, until);
			if (first <= MIN_TIMESTAMP || !IS_VALID_TIMESTAMP(first))
				return first;
			/* Where clocks go back by half an hour, this hour has a start before the end of the last one. */
			base = streamext_window_pane_by(window, first - 1);
			if (base == DT_NOBEGIN)
				return first;
			last = streamext_window_end(window, base);
			return last <= until ? Max(first, last) : first;
		case WINDOW_HOP:
			if (pg_add_s64_overflow(base, window->size, &base))
				return DT_NOBEGIN;
			break;
		default:
			slide = Max(window->size / INTO_SESSION_STEPS, 1);
			base = 0;
			break;
	}
	if (pg_sub_s64_overflow(until, base, &last))
		return DT_NOBEGIN;
	last = last % slide < 0 ? last % slide + slide : last % slide;
	if (pg_sub_s64_overflow(until, last, &last) || !IS_VALID_TIMESTAMP(last))
		return DT_NOBEGIN;
	return last;
}

TimestampTz
streamext_fold_floor(const CompiledView *view, TimestampTz watermark)
{
	const ContinuousViewOptions *options = &view->options;
	TimestampTz					 floor;

	if (options->retention == 0 || !streamext_window_has_ends(&view->window) || watermark == DT_NOBEGIN ||
		pg_sub_s64_overflow(watermark, options->retention, &floor) ||
		pg_sub_s64_overflow(floor, options->lateness, &floor))
		return DT_NOBEGIN;
	return floor;
}

TimestampTz
streamext_session_horizon(const CompiledView *view, TimestampTz watermark)
{
	int64		behind;
	TimestampTz horizon;

	if (view->window.kind != WINDOW_SESSION || view->options.retention == 0 || watermark == DT_NOBEGIN ||
		pg_mul_s64_overflow(view->window.size, 2, &behind) ||
		pg_add_s64_overflow(behind, view->options.lateness, &behind) ||
		pg_add_s64_overflow(behind, view->options.retention, &behind) ||
		pg_sub_s64_overflow(watermark, behind, &horizon))
		return DT_NOBEGIN;
	return horizon;
}
