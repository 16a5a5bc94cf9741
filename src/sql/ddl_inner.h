/*
 * sql/ddl_inner.h
 *		Continuous views that CREATE VIEW makes of queries in FROM, and that live with the view that reads them.
 *
 * Such a view has the option streamext.inner and depends on its reader as the member of an extension does on the extension: DROP of
 * the reader takes it, nobody drops it by itself. Which that is, every CREATE VIEW finds anew by the option, so that two ordinary CREATE
 * VIEWs of a dump restore it.
 */
#ifndef STREAMEXT_DDL_INNER_H
#define STREAMEXT_DDL_INNER_H

#include "base/streamext.h"
#include "nodes/parsenodes.h"

/*
 * Before a continuous view is created with the options, from the text: makes a view of each query in FROM that groups by a window, and
 * lets the statement read it. `replaced`: the view that is there, whose own of the same query or columns are kept, or InvalidOid. False:
 * there is none. made: gets those that were not there, for streamext_ddl_inner_tell.
 */
extern bool streamext_ddl_inner_make(ViewStmt *stmt, List *own, const char *text, Oid replaced, List **made);

/* NOTICE of the views that were made for this one: once it is there, so that an error about it stands alone. */
extern void streamext_ddl_inner_tell(Oid relid, List *made);

/* The options that inner views have in the place of a view, which may be InvalidOid. */
extern List *streamext_ddl_inner_former(Oid replaced);

/* Whether views live with this one. */
extern bool streamext_ddl_inner_has(Oid relid);

/* The view has been created: what it reads lives with it from now on, if it has the option and the same owner. */
extern void streamext_ddl_inner_bind(Oid relid);

/* Options that a statement has set or reset go on to the inner views; what means nothing for the view itself is taken from it. */
extern void streamext_ddl_inner_pass(Oid relid, List *changes, bool reset);

/* The view has been replaced: those of its inner views that it does not read any more are dropped. */
extern void streamext_ddl_inner_tidy(Oid relid);

typedef struct DdlInnerPlace
{
	Oid owner;
	Oid schema;
} DdlInnerPlace;

/* Where a relation is and whose; of InvalidOid nothing. */
extern DdlInnerPlace streamext_ddl_inner_place(Oid relid);
/* It was that before: inner views go with it where they were so too, and one that its new owner has lives with it from now on. */
extern void streamext_ddl_inner_follow(Oid relid, DdlInnerPlace before);

#endif /* STREAMEXT_DDL_INNER_H */
