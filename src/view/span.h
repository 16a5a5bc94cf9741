/*
 * view/span.h
 *		What a group of a view with session windows keeps of its rows' times in each pane. What sessions are made of it: fold/session.h, read/rows.c.
 */
#ifndef STREAMEXT_SPAN_H
#define STREAMEXT_SPAN_H

#include "base/streamext.h"
#include "common/int.h"
#include "state/pane.h"
#include "view/compile.h"

/* In GroupEntry.data at CompiledView.span_offset, behind the aggregates' states; meaningless while the entry is not visible. */
typedef struct SessionSpan
{
	TimestampTz first; /* of the group's rows in the pane */
	TimestampTz last;
} SessionSpan;

static inline const SessionSpan *
streamext_session_span(const CompiledView *view, const GroupEntry *entry)
{
	return (const SessionSpan *) (entry->data + view->span_offset);
}

/* With the exclusive lock, before the entry is made visible. */
static inline void
streamext_session_add(const CompiledView *view, GroupEntry *entry, TimestampTz t)
{
	SessionSpan *span = (SessionSpan *) (entry->data + view->span_offset);

	if (entry->visible == 0)
		span->first = span->last = t;
	else
	{
		span->first = Min(span->first, t);
		span->last = Max(span->last, t);
	}
}

/* The last instant at which a row is of the session that ends at `last`. */
static inline TimestampTz
streamext_session_reach(const Window *window, TimestampTz last)
{
	TimestampTz reach;

	return pg_add_s64_overflow(last, window->size, &reach) ? PG_INT64_MAX : reach;
}

#endif /* STREAMEXT_SPAN_H */
