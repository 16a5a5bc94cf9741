/*
 * export/rows.h
 *		Raw records as an engine delivers them, decoded and looked at by the product's own decoder and expressions.
 */
#ifndef STREAMEXT_EXPORT_ROWS_H
#define STREAMEXT_EXPORT_ROWS_H

#include "base/streamext.h"
#include "nodes/pg_list.h"
#include "utils/tuplestore.h"

#include "export/plan.h"

/* Columns before the keys. */
enum
{
	ROW_TOPIC,
	ROW_PARTITION,
	ROW_POSITION,
	ROW_EVENT_TIME,
	ROW_KEPT,
	ROW_REJECTED,
	ROW_FIXED
};

/* Where a partition's rows have got to. */
typedef struct ExportNewest
{
	char	   *topic;
	int32		partition;
	TimestampTz newest;
} ExportNewest;

typedef struct ExportRows
{
	/* given */
	ExportPlan		*plan;
	bool			 letters; /* what is rejected goes to streamext.dead_letters, and there is no row for it */
	Tuplestorestate *store;	  /* rows go here, as `desc` says */
	TupleDesc		 desc;	  /* streamext_export_row_desc */
	MemoryContext	 cxt;	  /* of `newest` */
	/* told */
	int64 records, rejected;
	List *newest; /* of ExportNewest */
} ExportRows;

/* export/row_desc.c: topic, partition, position, event_time, kept, rejected, k1, ..., at, i1, ... */
extern TupleDesc streamext_export_row_desc(const ExportPlan *plan);
/* Its columns, and the stage's, of a group: the keys and `at`, behind *att. */
extern void streamext_export_desc_group(TupleDesc desc, AttrNumber *att, const ExportPlan *plan);

/*
 * Reads a relation of the columns topic, partition, position, timestamp, key, payload by SPI, which is connected, as who is at work; the view's code
 * runs as its owner. `relation` is qualified and quoted.
 */
extern void streamext_export_rows_run(ExportRows *rows, const char *relation);

#endif /* STREAMEXT_EXPORT_ROWS_H */
