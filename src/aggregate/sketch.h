/*
 * aggregate/sketch.h
 *		Approximate aggregates: what their states have in common.
 *
 * A state is the value of an SQL type of its own (distinct_sketch, percentile_sketch), a flat varlena, so that it can be stored,
 * merged later and kept by continuous views like any other transition value. Every function trusts only states that
 * passed its type's validate: they may come from a client.
 */
#ifndef STREAMEXT_SKETCH_H
#define STREAMEXT_SKETCH_H

#include "base/streamext.h"
#include "lib/stringinfo.h"

/* Raises 22P03 unless the bytes are a state. */
typedef void (*SketchValidate)(const struct varlena *sketch);

/* The types' input (hex, as bytea's), output and binary functions. */
extern Datum			streamext_sketch_in(const char *text, SketchValidate validate);
extern Datum			streamext_sketch_recv(StringInfo buf, SketchValidate validate);
pg_noreturn extern void streamext_sketch_invalid(const char *type);

/* True if the call comes from an aggregate, whose state may be changed in place. */
extern bool streamext_sketch_in_place(FunctionCallInfo fcinfo);

/* A percentile_sketch as approx_percentile would have made it: a copy that remembers the fraction. */
extern Datum streamext_percentile_ask(Datum sketch, double fraction);

#endif /* STREAMEXT_SKETCH_H */
