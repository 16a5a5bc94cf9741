/*
 * view/check.h
 *		What a continuous view's query may not contain. Everything here raises 0A000 naming the construct, or returns.
 */
#ifndef STREAMEXT_VIEW_CHECK_H
#define STREAMEXT_VIEW_CHECK_H

#include "base/streamext.h"
#include "view/window.h"

typedef enum WindowFunction
{
	FUNCTION_OTHER,
	FUNCTION_DATE_BIN,
	FUNCTION_DATE_TRUNC, /* two or three arguments */
	FUNCTION_TUMBLE,
	FUNCTION_HOP,
	FUNCTION_SESSION
} WindowFunction;

/* Continuous views do not support <construct>; hint may be NULL. */
pg_noreturn extern void streamext_view_refuse(const char *construct, const char *hint);

/*
 * Anything but one SELECT with GROUP BY or aggregates, or without both if rows have somewhere to go (into); the FROM item: anything but a
 * stream (42809 for other tables).
 */
extern void streamext_view_check_shape(const Query *query, bool into);
extern void streamext_view_check_from(const RangeTblEntry *rte);

/*
 * For what the worker evaluates once for each row (WHERE, keys, aggregates' arguments, FILTER; `place` names it): whatever
 * depends on when, by whom or against which tables it is evaluated.
 */
extern void streamext_view_check_below(Node *node, const char *place);
/* The same, but that each subquery is handed to who knows what may be in it. */
typedef void (*CheckSubquery)(Query *subquery, void *arg);
extern void streamext_view_check_below_but(Node *node, const char *place, CheckSubquery subquery, void *arg);
/* The same for one function; may_read_tables: a function of the user's that is only STABLE passes. */
extern void		   streamext_view_check_function(Oid funcid, const char *place, bool may_read_tables);
extern const char *streamext_view_value_function_name(SQLValueFunctionOp op);
/* Counting distinct values of a type that cannot be hashed. */
extern void streamext_view_check_aggregate(const Aggref *aggref);
/* A constant third argument of date_trunc: PostgreSQL's error (22023) if there is no such time zone. */
extern void streamext_view_check_zone(Datum zone);
/* Whole-row and system column references. */
extern void streamext_view_check_var(const Var *var, const char *place);

/* streamext.into where rows are aggregated: only of windows that close. */
extern void streamext_view_check_into_window(const Window *window);

/* Neither GROUP BY nor aggregates. */
extern bool streamext_view_is_stateless(const Query *query);

/* True unless FROM is one plain item and WHERE has no subqueries. */
extern bool streamext_view_is_join(const Query *query);

/* Which window function an expression calls, by itself saying nothing of the arguments. */
extern WindowFunction streamext_view_window_function(const Node *node);

/* What to do where streams are one input by anything but UNION ALL. */
#define STREAMEXT_HINT_UNION                                                                                 \
	"Write UNION ALL, which takes each row of each part once; DISTINCT or GROUP BY over it makes rows one. " \
	"INTERSECT and EXCEPT are for a query over a continuous view of each part."

#endif /* STREAMEXT_VIEW_CHECK_H */
