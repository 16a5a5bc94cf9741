/*
 * view/closing.h
 *		When a view's windows are closed, and which there are.
 */
#ifndef STREAMEXT_CLOSING_H
#define STREAMEXT_CLOSING_H

#include "base/streamext.h"
#include "view/compile.h"
#include "view/window.h"

/* True if it is such a view's windows that go into a table. */
static inline bool
streamext_into_has_windows(const CompiledView *view)
{
	return view->options.into != NULL && !view->stateless;
}

/* Windows that end by then are closed; DT_NOBEGIN: none is. */
extern TimestampTz streamext_view_closed(const CompiledView *view, TimestampTz watermark);

/* The last end of a window up to `until`; of sessions a step of time. DT_NOBEGIN: none. */
extern TimestampTz streamext_view_last_end(const Window *window, TimestampTz until);

/*
 * The watermark, but not so late that retention would take windows that have not been given to all who take them (ViewSlot.gives) yet: those
 * up to `written` have.
 */
extern TimestampTz streamext_into_limit(const CompiledView *view, bool gives, TimestampTz written,
										TimestampTz watermark);

/* Windows that end by then are beyond retention; DT_NOBEGIN: none is. */
extern TimestampTz streamext_fold_floor(const CompiledView *view, TimestampTz watermark);

/* Sessions that end by then are over for good and beyond retention; DT_NOBEGIN: none is. */
extern TimestampTz streamext_session_horizon(const CompiledView *view, TimestampTz watermark);

#endif /* STREAMEXT_CLOSING_H */
