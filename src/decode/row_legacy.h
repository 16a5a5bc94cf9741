/*
 * decode/row_legacy.h
 *		Rows of versions before 1.1, which have no layout but a 32-bit hash of their columns' types (decode/row.h).
 */
#ifndef STREAMEXT_ROW_LEGACY_H
#define STREAMEXT_ROW_LEGACY_H

#include "base/streamext.h"
#include "access/htup.h"
#include "access/tupdesc.h"

/* That hash: of the live columns' numbers and types. Other rows may have it, by intent too. */
extern uint32 streamext_row_legacy_hash(TupleDesc desc);

/* Whether the tuple can be nothing that harms a reader of desc: each value lies in it and is one of its column's type. False: not known either. */
extern bool streamext_row_legacy_check(HeapTuple tuple, TupleDesc desc);

#endif /* STREAMEXT_ROW_LEGACY_H */
