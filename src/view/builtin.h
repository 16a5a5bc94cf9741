/*
 * view/builtin.h
 *		Whose code it takes to read a view's state.
 */
#ifndef STREAMEXT_VIEW_BUILTIN_H
#define STREAMEXT_VIEW_BUILTIN_H

#include "view/compile.h"

/*
 * Of a compiled view: whether what is kept is combined, finished and compared by PostgreSQL's own code and the extension's alone: no
 * aggregate, operator or type of a user's, nor a row whose columns might be of one. Then a reader needs no scope of the owner's for each
 * row.
 */
extern bool streamext_view_is_builtin(const CompiledView *view);

/*
 * Of a compiled view that is not: whether it is at least all in C, over types without parts, as what extensions bring. Then whose rights that
 * code has is all there is to a scope.
 */
extern bool streamext_view_is_in_c(const CompiledView *view);

/*
 * Raises 0A000 if the view is a superuser's and calls what an ordinary role has written (streamext_identity_mistrusts_function): its constants are
 * folded as soon as a worker starts on it. Inside the owner's scope. So a view that is being restored waits for ALTER VIEW ... OWNER TO.
 */
extern void streamext_view_check_trust(const CompiledView *view);

/* Whether a query, or a view that it reads, at any depth, calls such. As who would run it. */
extern bool streamext_query_mistrusts(Query *query);
/* The same of a view whose rows are made JSON, which calls casts of their types. */
extern bool streamext_view_mistrusts_rows(Oid view);

#endif /* STREAMEXT_VIEW_BUILTIN_H */
