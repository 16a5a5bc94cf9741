/*
 * aggregate/native.h
 *		The table of aggregates that have a native form.
 */
#ifndef STREAMEXT_AGGREGATE_NATIVE_H
#define STREAMEXT_AGGREGATE_NATIVE_H

#include "aggregate/aggregate.h"

/* The native form of a built-in aggregate, or NULL. */
extern const NativeAggregate *streamext_native_aggregate(Oid aggfnoid);

#endif /* STREAMEXT_AGGREGATE_NATIVE_H */
