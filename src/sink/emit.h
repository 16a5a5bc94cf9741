/*
 * sink/emit.h
 *		streamext.emit = 'changes': what changes in a continuous view goes to the target of streamext.into, the newest row of each key, and that a key
 *		is gone as a message without payload.
 */
#ifndef STREAMEXT_EMIT_H
#define STREAMEXT_EMIT_H

#include "base/streamext.h"

/* Raises unless the view's changes can go to the target. As the current user; options are stored. */
extern void streamext_emit_check(Oid view, Oid target);

/*
 * Puts what has changed after the token (NULL: everything) into the outbox, as the view's owner; in a transaction with a snapshot, not within
 * SPI. Where it stands then, in the current context, which holds if the transaction commits; NULL: the view emits nothing, or rows of it are on
 * their way, before which no others go. *under_way: whether there may be such rows, or refused ones; true at first, then as it was left, be the
 * transaction committed or not.
 */
extern char *streamext_emit_changes(Oid view, const char *token, bool *under_way);

#endif /* STREAMEXT_EMIT_H */
