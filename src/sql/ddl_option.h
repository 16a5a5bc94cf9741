/*
 * sql/ddl_option.h
 *		The options streamext.* of a view, as a list of DefElem with full names and the values as they are stored. Values are checked by
 *		streamext_view_options, once they are in the catalogue.
 */
#ifndef STREAMEXT_SQL_DDL_OPTION_H
#define STREAMEXT_SQL_DDL_OPTION_H

#include "base/streamext.h"
#include "nodes/parsenodes.h"

#define DDL_OPTION_PREFIX "streamext."

/* Of a statement's option: whether it is one of ours, by its name. */
extern bool streamext_ddl_option_is_own(const DefElem *def);
/* By its full name; NULL: none. */
extern DefElem *streamext_ddl_option_find(List *options, const char *name);
/* Whether they make the view an alert. */
extern bool streamext_ddl_option_alert(List *own);

/* Raises for one of ours without its prefix, which PostgreSQL is about to refuse without a hint. */
extern void streamext_ddl_option_check_prefix(List *options);
/* Options of alerts are for alerts, others' for others; raises. */
extern void streamext_ddl_option_check_kind(List *own, bool continuous);

/* Takes ours out of *options; with_values: as they are stored (RESET has none). Raises for a name that is none of ours. */
extern List *streamext_ddl_option_take(List **options, bool with_values);
/* What pg_class has of ours. */
extern List *streamext_ddl_option_stored(Oid relid);
/* Replaces ours in pg_class. The caller holds the relation's AccessExclusiveLock. */
extern void streamext_ddl_option_store(Oid relid, List *own);

/* Adds the session's settings where none are given; raises 22023 for those that are not valid. */
extern List *streamext_ddl_option_keep_settings(List *own);
/* How a view is kept goes on being so where CREATE OR REPLACE does not say otherwise. */
extern List *streamext_ddl_option_keep_former(List *own, List *former);
/* The stored options after one SET or RESET; raises for what ALTER may not do. */
extern List *streamext_ddl_option_change(List *stored, List *changes, bool reset);

#endif /* STREAMEXT_SQL_DDL_OPTION_H */
