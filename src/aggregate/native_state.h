/*
 * aggregate/native_state.h
 *		What the native forms of counts, sums and variances keep: for aggregate/native.c, and for aggregate/parts.c, which takes it apart.
 */
#ifndef STREAMEXT_AGGREGATE_NATIVE_STATE_H
#define STREAMEXT_AGGREGATE_NATIVE_STATE_H

#include "postgres.h"

typedef struct CountState
{
	int64 count;
} CountState;

typedef struct IntSumState
{
	int64 sum;
	int64 count;
} IntSumState;

typedef struct WideSumState
{
	int128 sum;
	int64  count;
} WideSumState;

/* sum(float4) accumulates in float4 as PostgreSQL does; avg of both and sum(float8) in float8. */
typedef struct Float4SumState
{
	float4 sum;
	uint32 infinite; /* an input was infinite or NaN: an infinite sum is no overflow */
	int64  count;
} Float4SumState;

typedef struct Float8SumState
{
	float8 sum;
	int64  count;
	uint64 infinite;
} Float8SumState;

typedef struct FloatVarState
{
	float8 n;
	float8 sum;
	float8 squares;	 /* sum of squared distances from the mean; NaN once an input was not finite */
	uint64 overflow; /* finite inputs made an infinity */
} FloatVarState;

typedef struct IntVarState
{
	int128 squares;
	int128 sum;
	int64  count;
} IntVarState;

/* A numeric of scale 0. */
extern Datum streamext_numeric_of_int128(int128 value);

#endif /* STREAMEXT_AGGREGATE_NATIVE_STATE_H */
