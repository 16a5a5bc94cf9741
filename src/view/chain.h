/*
 * view/chain.h
 *		Streams that views put rows into (streamext.into): what follows from a stream, and that it never comes back to it.
 */
#ifndef STREAMEXT_CHAIN_H
#define STREAMEXT_CHAIN_H

#include "base/streamext.h"

/*
 * The streams that views of this one put rows into, each once, by streamext.into or because another view reads their windows (view/inner.h); and
 * views that read this stream among others by UNION ALL (view/union.h);
 * *any: some view has streamext.into at all, or is read so. By the newest catalogue. Holds no
 * lock on a view afterwards that was not held before.
 */
extern List *streamext_chain_targets(Oid stream, bool *any);

/*
 * Raises if what the view, which reads the stream, puts into the target (InvalidOid: none) and into views over it would come back to the stream.
 * Until the transaction's end nobody else asks.
 */
extern void streamext_chain_check(Oid view, Oid stream, Oid target);

#endif /* STREAMEXT_CHAIN_H */
