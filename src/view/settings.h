/*
 * view/settings.h
 *		The settings that a view's expressions run under, and that its text does not depend on.
 */
#ifndef STREAMEXT_VIEW_SETTINGS_H
#define STREAMEXT_VIEW_SETTINGS_H

#include "base/streamext.h"
#include "view/compile.h"

/* Whether a view may have the option streamext.<name>, besides timezone, datestyle and intervalstyle. */
extern bool streamext_view_is_setting(const char *name);

/* The name of the i-th setting; NULL: there are no more. *value: the session's, if it is to be stored, else NULL. */
extern const char *streamext_view_setting(int i, const char **value);

/* All settings as the view keeps them, for the identity scope at hand. The options are complete (CompiledView's). */
extern void streamext_view_enter_settings(const ContinuousViewOptions *options);

/*
 * A query's text, palloc'd, which means the same whatever the session's DateStyle, IntervalStyle and extra_float_digits: of "SQL" zones are
 * abbreviations, and IST is Israel's to who reads it. Names are for the search_path at hand. The query is scribbled on.
 */
extern char *streamext_view_text(Query *query);

#endif /* STREAMEXT_VIEW_SETTINGS_H */
