/*
 * base/hooks.h
 *		What _PG_init installs beside shared memory: DDL and planner hooks.
 */
#ifndef STREAMEXT_HOOKS_H
#define STREAMEXT_HOOKS_H

#include "base/streamext.h"

extern void streamext_ddl_install_hooks(void);	/* sql/ddl.c: ProcessUtility, object_access */
extern void streamext_scan_install_hooks(void); /* read/hooks.c: planner, set_rel_pathlist, custom scan methods */

/* Raises if the query tree being planned scans the stream under an unsubstituted continuous view (read/plan.c; called by sql/fdw.c). */
struct PlannerInfo;
extern void streamext_scan_check_stream(struct PlannerInfo *root, Oid stream_relid);

#endif /* STREAMEXT_HOOKS_H */
