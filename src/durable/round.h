/*
 * durable/round.h
 *		How often views have been begun anew, by streamext.rebuild, seek or import: the table streamext_internal.round.
 */
#ifndef STREAMEXT_ROUND_H
#define STREAMEXT_ROUND_H

#include "base/streamext.h"

/* How often that was asked of the view: its state is to be of this round. In a transaction with a snapshot. */
extern int64 streamext_view_round(Oid viewoid);

/* Its state is to be of a new round, which is returned, from commit on. */
extern int64 streamext_view_new_round(Oid viewoid);

#endif /* STREAMEXT_ROUND_H */
