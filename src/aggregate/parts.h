/*
 * aggregate/parts.h
 *		States of PostgreSQL's own aggregates taken apart into plain values, as an engine outside would have computed them (export/).
 */
#ifndef STREAMEXT_AGGREGATE_PARTS_H
#define STREAMEXT_AGGREGATE_PARTS_H

#include "aggregate/aggregate.h"

typedef enum AggPart
{
	AGG_PART_COUNT, /* bigint: values that were taken; of avg and exact variances */
	AGG_PART_SUM, /* of avg and exact variances; NULL: no value was taken. avg of smallint, integer: bigint; of real: double precision */
	AGG_PART_SQUARES, /* numeric: of exact variances, sum of squares, or NULL */
	AGG_PART_STATE, /* the state itself, NULL: none: double precision[] of a variance of floats, or of two columns' statistics; a sketch */
	AGG_PART_TIME,	/* timestamp with time zone, of first and last, or NULL */
	AGG_PART_VALUES /* an array of what an aggregate with DISTINCT has kept, NULLs left out */
} AggPart;

/*
 * A part of the state of an aggregate of PostgreSQL's own over values of `argtype`, in the current memory context. Raises 22003 for a state that
 * only ever raises that when it is read.
 */
extern Datum streamext_aggregate_part(AggReader *reader, const AggPartial *partial, AggPart part, Oid argtype,
									  bool *isnull);

/* aggregate/first_last.c: the time in a state, and a state of a value of this type. */
extern TimestampTz streamext_first_last_time(const bytea *state);
extern bytea	  *streamext_first_last_state(Oid type, Datum value, bool isnull, TimestampTz at);

/* What is left to do when streamext.import refuses. The table cannot be dropped while the view reads it. */
#define IMPORT_ANEW_HINT                                                                                          \
	"Or replace the view (CREATE OR REPLACE VIEW) by one that does not read the table, drop the table, and call " \
	"streamext.import again: then the view is counted anew from the stream's start."
#define IMPORT_REFUSED_HINT "Mend the table's rows. " IMPORT_ANEW_HINT

/* What streamext_aggregate_assemble is given. */
typedef struct AggParts
{
	bool  has_value, has_count, has_sum, has_squares, has_floats, has_time, has_state, has_fraction;
	bool  value_null, sum_null, squares_null, floats_null, time_null, state_null;
	Datum value; /* of an aggregate that is kept as its value: a smallest one, all bits that are set */
	int64 count;
	Datum sum, squares, floats; /* as AGG_PART_SUM and the like; the sum of a sum of real is double precision */
	int	  nfloats;

	TimestampTz time;	  /* of first and last, whose value is `value` */
	Datum		state;	  /* a sketch; an array of distinct values */
	float8		fraction; /* that approx_percentile is asked for */
} AggParts;

/*
 * The way back (aggregate/assemble.c): what a group's entry holds of an aggregate over values of `argtype` that has these parts, into its zeroed
 * states, and what streamext_aggregate_import takes besides (nothing: the state is plain). Raises 22003 for parts that are of no state.
 */
extern void streamext_aggregate_assemble(const AggSpec *spec, Oid argtype, const AggParts *parts, GroupEntry *entry,
										 StringInfo extra);

#endif /* STREAMEXT_AGGREGATE_PARTS_H */
