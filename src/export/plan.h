/*
 * export/plan.h
 *		What of a continuous view an engine outside computes, and what is made of that here.
 *
 * An engine computes, of each batch of records, the rows of a GROUP BY the view's keys and panes: partials, plain values that can be merged
 * by plain functions. What is above the aggregation (windows of panes, finished aggregates, HAVING, output expressions) is PostgreSQL's own
 * view over the table of merged partials (export/state.c). So a plan has nothing of SQL in it that an engine would have to understand in
 * full: keys, arguments, filters and WHERE are written by a dialect (export/dialect.h) or refused.
 */
#ifndef STREAMEXT_EXPORT_PLAN_H
#define STREAMEXT_EXPORT_PLAN_H

#include "base/streamext.h"
#include "access/tupdesc.h"
#include "utils/tuplestore.h"
#include "base/stream_def.h"
#include "view/compile.h"

typedef enum ExportPartialKind
{
	EXPORT_COUNT,		/* count(*), count(argument) */
	EXPORT_SUM,			/* of integers: bigint, numeric of bigint; of real: double precision */
	EXPORT_SUM_NUMERIC, /* sum(argument::numeric) */
	EXPORT_SQUARES,		/* sum(argument::numeric * argument::numeric) */
	EXPORT_MIN,
	EXPORT_MAX,
	EXPORT_BOOL_AND,
	EXPORT_BOOL_OR,
	EXPORT_BIT_AND,
	EXPORT_BIT_OR,
	EXPORT_BIT_XOR,
	EXPORT_COUNT_PAIRS, /* regr_count(y, x) */
	EXPORT_MOMENTS,		/* double precision[]: n, sum, sum of squared deviations */
	EXPORT_REGRESSION,	/* double precision[]: n, sum x, deviations x, sum y, deviations y, of both */
	/* Of the row with the earliest or latest time, of equal times the one that came first: the argument, the time, the position in its partition. */
	EXPORT_FIRST,
	EXPORT_LAST,
	EXPORT_FIRST_AT,
	EXPORT_LAST_AT,
	EXPORT_FIRST_POSITION,
	EXPORT_LAST_POSITION,
	EXPORT_SET,		  /* an array of the distinct values */
	EXPORT_DISTINCT,  /* a distinct_sketch; of a batch an array of the distinct values */
	EXPORT_PERCENTILE /* a percentile_sketch; of a batch an array of the values */
} ExportPartialKind;

/* What is aggregated: an expression over the stream's columns, NULL where the filter is not true. */
typedef struct ExportInput
{
	Expr *expr;
	Expr *filter; /* or NULL */
} ExportInput;

typedef struct ExportPartial
{
	ExportPartialKind kind;
	int				  ninputs;	/* 0: count(*) */
	int				  input[2]; /* into ExportPlan.inputs */
	Oid				  argtype;	/* of the first */
	char			 *name;		/* p1, ... */
	char			 *type;		/* of the table's column, with its collation if that is not the type's */
	char			 *stage;	/* of the stage's: most often the same */
	char			 *cast;		/* the table's without a collation */
	Oid				  typeoid, stageoid, collation;
	const char		 *at, *position; /* of EXPORT_FIRST and its like: the partials that it goes by */
	int				  aggregate;	 /* of the view's, the first that needs it: its state holds the partial, */
	bool			  finished;		 /* which is its value */
} ExportPartial;

/* The partials that an aggregate's state can be made of again, by number. */
typedef struct ExportParts
{
	int	   n;
	int	   partial[3];
	bool   has_fraction; /* of approx_percentile */
	float8 fraction;
} ExportParts;

struct ExportDialect;

typedef struct ExportPlan
{
	const CompiledView		   *view;
	const StreamConfig		   *config;
	const struct ExportDialect *dialect;
	bool						has_at; /* rows are of panes: there is a column at */
	int							nkeys;	/* without the window and the grouping set */
	int						   *keys;	/* their numbers in view->keys; the columns are k1, ... in this order */
	int							ninputs;
	ExportInput				   *inputs;
	int							npartials;
	ExportPartial			   *partials;
	ExportParts				   *parts;	   /* [view->naggs] */
	char					  **finals;	   /* [view->naggs] SQL over aggregates of the state's columns */
	List					   *raises;	   /* of char *: predicates of the dialect */
	int							finishing; /* while it is made: the aggregate at hand */
} ExportPlan;

/*
 * The plan of a view, with the dialect's checks; raises 0A000 naming the construct that cannot be exported. In the current memory context.
 */
extern ExportPlan *streamext_export_make(const CompiledView *view, const struct ExportDialect *dialect);

pg_noreturn extern void streamext_export_refuse(const ExportPlan *plan, const char *what, const char *hint);

/*
 * The view compiled from what export() has kept if an engine computes it, else as it is; its window prepared. *engine: or NULL. Raises 42809
 * for what is neither.
 */
extern const CompiledView *streamext_export_compile(Oid viewoid, char **engine);

/* The owner of a view that is there, raises if it is not; its table of merged partials, InvalidOid: it is not exported. */
extern Oid streamext_export_owner(Oid viewoid);
extern Oid streamext_export_partials(Oid viewoid);

/* The query of an exported view as it was, analyzed; NULL: it is not exported. Raises if what it names is not there. */
extern Query *streamext_export_former_query(Oid viewoid);

/*
 * export/dependency.c: what is in pg_depend of an exported view whose rule has just been made. streamext_export_renew: if it is not there, as
 * after pg_upgrade. streamext_export_replaced: a statement has replaced the view, which may be any; where what it needs cannot be
 * told, that is left to the next streamext_export_renew.
 */
extern void streamext_export_depend(Oid viewoid);
extern void streamext_export_renew(const CompiledView *view);
extern void streamext_export_replaced(Oid viewoid);
/* A relation has got another owner: if it is an exported view, its table follows, if the caller may give that away. */
extern void streamext_export_owner_changed(Oid relid);
/* A relation is being dropped: if it is an exported view, its row goes. */
extern void streamext_export_dropped(Oid relid);

/* Raises 42501 unless the caller may merge into the view: INSERT on it. Locks the view. */
extern void streamext_export_check_rights(Oid viewoid);

/* export/state.c: SQL. Names are qualified; palloc'd. */
/* Of an exported view (raises 55000 if its table is gone), or what it will be called. */
extern char *streamext_export_table(Oid viewoid);
extern char *streamext_export_stage(const ExportPlan *plan, const char *name);
extern char *streamext_export_create_table(const ExportPlan *plan);
extern char *streamext_export_create_stage(const ExportPlan *plan);
extern char *streamext_export_create_raw(const ExportPlan *plan);
extern char *streamext_export_view_query(const ExportPlan *plan);
/* states: the rows are as the table's, not as the stage's. */
extern char *streamext_export_merge_sql(const ExportPlan *plan, const char *stage, bool states);
/*
 * The table's groups as a continuous view keeps them: the grouping set's number (-1: there are none), the keys, at, opens, first and last, partials.
 */
extern char *streamext_export_groups_query(const ExportPlan *plan);
/* Appends the stage's columns, each before or behind a comma as `format` has it; '%s' is the name. */
extern void	 streamext_export_stage_names(StringInfo to, const ExportPlan *plan);
extern char *streamext_export_key_type(const ExportPlan *plan, int key);
/* Whether rows may count from a later window on than their pane's first: there is a column opens. */
extern bool streamext_export_has_opens(const ExportPlan *plan);

/* export/combine.c: SQL. A partial of many of the stage's, or of the table's; of one row t of the table and another s. */
extern char *streamext_export_combine_stage(const ExportPartial *p);
extern char *streamext_export_combine_many(const ExportPartial *p, const char *prefix);
extern char *streamext_export_combine_two(const ExportPartial *p);

/*
 * export/merge.c: the stage's columns, with `opens` behind them or not, or with what the table has of partials (states); a statement over such
 * rows by that name, as who is at work.
 */
extern TupleDesc streamext_export_stage_desc(const ExportPlan *plan, bool opens, bool states);
extern void		 streamext_export_run_over(const char *name, Tuplestorestate *store, TupleDesc desc, int64 n,
										   const char *sql, int expected);

/*
 * export/handover.c: what a continuous view has counted, for the table of its partials. Wait, before any lock on the view is held, until it
 * has counted what its stream has read, if that is to be expected. Take reads it, and refuses what is not handed over exactly; NULL: nothing
 * was counted. Its memory is the current context's. Give writes it, when the table and the view's row in streamext.exported are there.
 */
typedef struct HandOver HandOver;
extern void				streamext_export_wait(Oid viewoid);
extern HandOver		   *streamext_export_take(ExportPlan *plan);
extern void				streamext_export_give(const HandOver *from);

/*
 * export/comeback.c: what an engine has merged, for the continuous view that goes on from there. Wait, before any lock on the view is held, until
 * its worker has let go of what was counted before the export. Take reads how far it is, while that is there; give, once the view is continuous again,
 * reads the table and writes what the view begins with; back NULL: with nothing, from the stream's start. False, and the same: the table's columns are
 * not what the view would have now.
 */
typedef struct ComeBack ComeBack;
extern void				streamext_export_wait_gone(Oid viewoid);
extern ComeBack		   *streamext_export_take_back(ExportPlan *plan);
extern bool				streamext_export_give_back(ComeBack *back, const CompiledView *view);

/* export/row_desc.c: rows of a relation of raw records, as columns topic, partition, position, event_time, kept, rejected, k1, ..., at, i1, ... */
extern void streamext_export_row_columns(StringInfo to, const ExportPlan *plan);

/* export/postgres.c: an INSERT into the partial stage from what export_rows gives, or a relation of that shape under the alias r. */
extern char *streamext_export_fill(ExportPlan *plan, const char *rows);

/* export/json.c: the whole as JSON text. */
extern char *streamext_export_json(ExportPlan *plan);

#endif /* STREAMEXT_EXPORT_PLAN_H */
