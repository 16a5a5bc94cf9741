/*
 * read/groups.h
 *		What read/groups_path.c (queries) and read/groups.c (the executor node) know of each other: GROUP BY above a continuous view, done in its scan.
 *
 * The node's tuples are the view's keys, then the expressions of GROUP BY that are no bare key, then the aggregates. Of the keys those have a value that
 * are in GROUP BY.
 */
#ifndef STREAMEXT_GROUPS_H
#define STREAMEXT_GROUPS_H

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

#endif /* STREAMEXT_GROUPS_H */
