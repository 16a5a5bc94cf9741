/*
 * sql/rebuild.h
 *		streamext.rebuild: views that are counted anew.
 */
#ifndef STREAMEXT_VIEW_RETAIN_H
#define STREAMEXT_VIEW_RETAIN_H

#include "base/streamext.h"

/* The view is of one more round (durable/round.h), from commit on. Checks no rights. */
extern void streamext_view_next_round(Oid viewoid, Oid stream);

#endif /* STREAMEXT_VIEW_RETAIN_H */
