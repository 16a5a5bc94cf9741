/*
 * durable/round.h
 *		How often views have been begun anew by streamext.rebuild: the table streamext.round.
 */
#ifndef STREAMEXT_ROUND_H
#define STREAMEXT_ROUND_H

#include "base/streamext.h"

/* How often streamext.rebuild was called for the view: its state is to be of this round. In a transaction with a snapshot. */
extern int64 streamext_view_round(Oid viewoid);

#endif /* STREAMEXT_ROUND_H */
