/*
 * read/groups.h
 *		GROUP BY above a continuous view, done in its scan: read/groups_path.c (queries), read/groups.c (the executor node), read/groups_agg.c and
 *		read/groups_table.c (what a group and GROUP BY are in it).
 *
 * The node's tuples are the view's keys, then the expressions of GROUP BY that are no bare key, then the aggregates. Of the keys those have a value that
 * are in GROUP BY.
 */
#ifndef STREAMEXT_GROUPS_H
#define STREAMEXT_GROUPS_H

#include "aggregate/native.h"
#include "read/scan.h"

/* How one aggregate of the query is made. */
typedef enum GroupsAggKind
{
	GROUPS_MERGE, /* streamext_internal.merge_states over the state of the view's aggregate; and min of min, max of max */
	GROUPS_ROWS, /* count(*) */
	GROUPS_SUM	 /* sum(bigint) over a count */
} GroupsAggKind;

/* When no further row can be of the same groups, if rows come in the order of their windows. */
typedef enum GroupsOrder
{
	GROUPS_ORDER_AT_ONCE, /* as soon as another window's group was there */
	GROUPS_ORDER_HOUR,	  /* an hour behind that: clocks were set back */
	GROUPS_ORDER_DAY,	  /* so many hours as clocks may be set back */
	GROUPS_ORDER_NONE	  /* at the end */
} GroupsOrder;

/* Expressions are over view_rows, as planned: they are evaluated by themselves. */
typedef struct GroupsPlan
{
	GroupsOrder order;
	List	   *keys;			/* int: numbers of the keys in GROUP BY, not the window's */
	List	   *key_operators;	/* Oid */
	List	   *key_collations; /* Oid */
	List	   *panes;			/* Expr: the rest of GROUP BY, of the window alone */
	List	   *pane_columns;	/* int: their columns of the node's tuples, from 0 */
	List	   *pane_operators, *pane_collations;
	List	   *pane_quals; /* Expr: WHERE, of the window alone */
	List	   *key_quals;	/* Expr: WHERE, of other keys alone */
	List	   *kinds;		/* int: GroupsAggKind */
	List	   *numbers;	/* int: the view's aggregate; GROUPS_ROWS: -1 */
	List	   *functions;	/* Oid: the query's aggregates, for rights */
	bool		plain;		/* no GROUP BY: there is a row even of nothing */
} GroupsPlan;

extern List		 *streamext_groups_plan_store(const GroupsPlan *plan);
extern GroupsPlan streamext_groups_plan_load(const List *stored);

/* Of a CustomScan, behind what ViewScanPlan has. */
#define GROUPS_PRIVATE 4

/* ---- read/groups_agg.c: the query's aggregates ---- */

/* One of the query's aggregates. */
typedef struct GroupsAgg
{
	GroupsAggKind		   kind;
	int					   number; /* of the view's aggregate */
	AggReader			  *reader;
	const NativeAggregate *native; /* or NULL */
	uint32				   offset; /* of a native state in an entry */
	uint32				   at;	   /* of the state in a group's: native, AggPartial *, or a count */
} GroupsAgg;

/* A group's state is `size` bytes, zero at first. */
typedef struct GroupsAggs
{
	const CompiledView *view;
	int					n;
	GroupsAgg		   *aggs;
	uint32				size;
	bool				native; /* all are native, or counts of rows */
} GroupsAggs;

/* In the current memory context. Returns the readers of the view's aggregates that rows must give, by number. */
extern AggReader **streamext_groups_aggs(GroupsAggs *aggs, const CompiledView *view, const GroupsPlan *plan,
										 MemoryContext cxt);
/* Adds the row at hand, which is more than one entry's, or to an aggregate that is not native: its states are in cxt. As the view's owner. */
extern void streamext_groups_agg_combine(const GroupsAggs *aggs, const GroupsAgg *agg, const RowReader *rows,
										 char *group, MemoryContext cxt);
/* All values of a group. */
extern void streamext_groups_agg_values(const GroupsAggs *aggs, char *group, Datum *values, bool *nulls);
/* Of no row at all; leaves alone what is NULL then. */
extern void streamext_groups_agg_nothing(const GroupsAggs *aggs, Datum *values, bool *nulls);

/* ---- read/groups_table.c ---- */

/* Values of GROUP BY to a pointer. */
typedef struct GroupsTable
{
	int				n;		 /* columns; 0: there is one of all */
	TupleTableSlot *slot;	 /* of what is looked for */
	TupleTableSlot *in_hash; /* of what is there */
	TupleHashTable	hash;
} GroupsTable;

/* For values of the columns of desc. */
extern void streamext_groups_table_init(GroupsTable *table, EState *estate, TupleDesc desc);
/* Empty, in cxt. */
extern void streamext_groups_table_start(GroupsTable *table, PlanState *node, const List *operators,
										 const List *collations, MemoryContext cxt);
/* Where the table has a pointer for the values in its slot, with these values; *isnew: it is NULL. Of a table with columns. */
extern void **streamext_groups_table_find(GroupsTable *table, MinimalTuple *values, bool *isnew);
/* Values that it has given into columns of a node's tuple. */
extern void streamext_groups_table_give(GroupsTable *table, MinimalTuple values, const List *columns,
										TupleTableSlot *to);

#endif /* STREAMEXT_GROUPS_H */
