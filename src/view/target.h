/*
 * view/target.h
 *		streamext.into: what a view makes goes into an ordinary table, once.
 *
 * Of a stateless view each accepted row, transformed (view/target.c); of a view with windows each window's rows when it is closed
 * (sink/windows.c).
 *
 * The rows of a batch, the view's positions behind it and its counters are written in one transaction, so that after whatever end of the
 * worker the table streamext_internal.into_position says which records have their rows in the target.
 */
#ifndef STREAMEXT_INTO_H
#define STREAMEXT_INTO_H

#include "base/streamext.h"
#include "view/compile.h"

/* streamext.into as the user wrote it, qualified and quoted; raises unless it names a table that rows can be put into. */
extern char *streamext_into_resolve(const char *name);
/* The table of a resolved name; raises as above. */
extern Oid streamext_into_target(const char *name);
/* The view depends on the table; replaces what it depended on before. InvalidOid: on none. */
extern void streamext_into_depend(Oid viewoid, Oid target);
/* What it depends on so; InvalidOid: nothing, as an alert to a channel. */
extern Oid streamext_into_depended(Oid viewoid);

/*
 * INSERT INTO target (output names of targetList) SELECT ... FROM rows, analysed; columns are assigned by name. rows
 * NULL: there are none. Raises what PostgreSQL raises for such an INSERT.
 */
extern Query *streamext_into_query(Oid target, List *targetList, Query *rows);
/* QueryRewrite of such a query, whose locks are held. */
extern Query *streamext_into_rewrite(Query *insert);
/* Deferred constraints are looked at when a row is put in, for the rest of the (sub)transaction. */
extern void streamext_into_check_at_once(void);
/* Raises what such an INSERT would, without any rows; 42501 unless the current user may do it. */
extern void streamext_into_check(Oid target, List *targetList);

#endif /* STREAMEXT_INTO_H */
