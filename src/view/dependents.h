/*
 * view/dependents.h
 *		Views whose answers come from a relation.
 */
#ifndef STREAMEXT_VIEW_DEPENDENTS_H
#define STREAMEXT_VIEW_DEPENDENTS_H

#include "base/streamext.h"

/* OIDs of the views and other relations whose rules name the relation, or a view that does, at any depth; as the newest catalogue has it. */
extern List *streamext_view_dependents(Oid relid);

#endif /* STREAMEXT_VIEW_DEPENDENTS_H */
