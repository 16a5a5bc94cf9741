/*
 * view/window_clause.h
 *		From the expressions over a continuous view's event time to its Window (view/window.h).
 *
 * For each group key and each qual one function says whether it is of the window, and takes it in if so; finish comes last.
 */
#ifndef STREAMEXT_VIEW_WINDOW_H
#define STREAMEXT_VIEW_WINDOW_H

#include "base/streamext.h"

#include "stream/definition.h"
#include "view/compile.h"

/* Whether the group key is a window; 0A000 for what is one but is not supported. */
extern bool streamext_view_window_key(CompiledView *view, const StreamConfig *config, Node *node);

/* Whether the qual bounds the event time by now(). */
extern bool streamext_view_window_qual(CompiledView *view, const StreamConfig *config, Node *qual);

/* The rest of the window once keys and quals are known. */
extern void streamext_view_window_finish(CompiledView *view);

/* Whether it is the column that says when something happened. */
extern bool streamext_view_is_event_time(const CompiledView *view, const StreamConfig *config, const Node *node);

#endif /* STREAMEXT_VIEW_WINDOW_H */
