/*
 * worker/teller_streams.h
 *		Whether what an alert reads is as new as it was when the alert was evaluated last.
 */
#ifndef STREAMEXT_TELLER_STREAMS_H
#define STREAMEXT_TELLER_STREAMS_H

#include "base/streamext.h"
#include "nodes/pg_list.h"

typedef enum TellerSettled
{
	TELLER_SETTLED,
	TELLER_HELD_UP, /* by what may last: the source is away, there is no worker, no memory, or it has not been soon */
	TELLER_SETTLING /* soon */
} TellerSettled;

/*
 * The streams behind a view, through other views; in the current context. Needs a transaction. Raises what the views' owners bring about: it locks
 * them, which may take as long as their transactions, and they may be nested deeper than the stack.
 */
extern List *streamext_teller_streams(Oid view);

/* Whether the streams have read all that they had when this process asked first. Takes no transaction; waits for nothing. */
extern TellerSettled streamext_teller_settled(List *streams);

#endif /* STREAMEXT_TELLER_STREAMS_H */
