/*
 * view/rights.h
 *		Who may read and write what a query names.
 */
#ifndef STREAMEXT_VIEW_RIGHTS_H
#define STREAMEXT_VIEW_RIGHTS_H

#include "base/streamext.h"
#include "nodes/parsenodes.h"

/*
 * Whether all that the range table's entries ask for is granted, to whom they say (checkAsUser, else the current user). Raises
 * 42501 if not and `raise`. Other modules' ExecutorCheckPerms_hook is not called: there is no executor.
 */
extern bool streamext_rights_check(Query *query, bool raise);

#endif /* STREAMEXT_VIEW_RIGHTS_H */
