/*
 * view/rights.h
 *		Who may read and write what a query names.
 */
#ifndef STREAMEXT_VIEW_RIGHTS_H
#define STREAMEXT_VIEW_RIGHTS_H

#include "base/streamext.h"
#include "nodes/parsenodes.h"
#include "view/compile.h"

/*
 * Whether all that the range table's entries ask for is granted, to whom they say (checkAsUser, else the current user). Raises
 * 42501 if not and `raise`. Other modules' ExecutorCheckPerms_hook is not called: there is no executor.
 */
extern bool streamext_rights_check(Query *query, bool raise);

/* The same of every query in it, those of UNION ALL, WITH and subqueries too. Raises. */
extern void streamext_rights_check_all(Query *query);

/*
 * Raises 0A000 for a view with security_invoker over a join. Row security of what is joined would have to hide other rows from each
 * reader, and there is one state for all. At its definition, and again whenever somebody reads.
 */
extern void streamext_rights_check_invoker(const CompiledView *view);

/*
 * True if the current user may see what the view's errors say: he has the rights of its owner, or may read all that it reads himself, with no rows
 * hidden from him.
 */
extern bool streamext_view_explains(Oid viewoid);

/* Stands in for what he may not. */
#define STREAMEXT_ERROR_HIDDEN "the error is for who may read all that the view reads"

#endif /* STREAMEXT_VIEW_RIGHTS_H */
