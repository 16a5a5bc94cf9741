/*
 * read/scan.h
 *		What the files that read continuous views know of each other: read/plan.c (queries), read/path.c (paths), read/scan_plan.c (what plans carry),
 *		read/statement.c (the statement's copies), read/rows.c (groups and windows) and read/scan.c (the executor node).
 *
 * A continuous view's rule becomes a scan of the function streamext_internal.view_rows(view), which nobody ever runs: its columns
 * are the view's keys in GROUP BY order, then its distinct aggregates in CompiledView order, then, if streamext.merge wants one, the
 * states of these, then, for a shard, a session's last row's time; and its only path is the custom scan.
 */
#ifndef STREAMEXT_VIEW_SCAN_H
#define STREAMEXT_VIEW_SCAN_H

#include "base/streamext.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/pathnodes.h"

#include "base/identity.h"
#include "durable/history.h"
#include "read/changed.h"
#include "view/compile.h"

/*
 * States are combined, finished and compared as the view's owner, whose aggregates and types' operators these are; what stands above them,
 * output expressions and quals, is the reader's. Without a user's code in it a view costs no scope for a row: *scope is not entered.
 */
static inline bool
streamext_read_enter(const CompiledView *view, IdentityScope *scope)
{
	if (!view->builtin)
		*scope = view->in_c ? streamext_identity_enter_lightly(view->owner) : streamext_identity_enter(view->owner);
	return !view->builtin;
}

static inline void
streamext_read_leave(bool entered, const IdentityScope *scope)
{
	if (entered)
		streamext_identity_leave(*scope);
}

/* ---- plans ---- */

/*
 * What a CustomScan carries. custom_exprs: the values of the look-up, then the bounds of the window key. Both only save
 * work: all quals stay as filters.
 */
typedef struct ViewScanPlan
{
	Oid	  view;
	List *keys;		  /* int: numbers of the keys looked up, all stored ones or NIL */
	List *types;	  /* Oid: of the values */
	List *values;	  /* Expr */
	List *strategies; /* int: btree strategies of window key <op> bound */
	List *bounds;	  /* Expr of type timestamptz */
} ViewScanPlan;

extern void			streamext_scan_plan_store(const ViewScanPlan *from, CustomScan *scan);
extern ViewScanPlan streamext_scan_plan_load(const CustomScan *scan);

/* By these names the nodes go, and by their place they are known. */
extern const char streamext_scan_name[];
extern const char streamext_groups_name[];
/* Whether the node reads a view's state: a scan, or groups made in it. */
extern bool streamext_scan_reads_view(const CustomScan *scan);

extern const CustomScanMethods streamext_scan_methods;
extern const CustomScanMethods streamext_derived_methods; /* of a derived stream (read/derived.c) */

extern const CustomScanMethods streamext_groups_methods; /* of groups made in the scan (read/groups.c) */

extern void streamext_plan_install_hook(void);
extern void streamext_path_install_hook(void);
extern void streamext_groups_path_install_hook(void);

/* What the clauses (RestrictInfo) on the entry of view_rows allow to leave out. */
extern ViewScanPlan streamext_path_prune(PlannerInfo *root, const CompiledView *view, Index rti, List *clauses);
/* Estimates of a view's rows and panes. */
extern void streamext_path_count(const CompiledView *view, double *rows, double *panes);

/* Raise unless the current user may execute the aggregate, or all of the view's, as the executor does for those that it runs itself. */
extern void streamext_scan_check_aggregate(Oid function);
extern void streamext_scan_check_aggregates(const CompiledView *view);
/* read NULL: plain EXPLAIN. */
struct ScanRead;
extern void streamext_scan_explain(const CustomScanState *node, const ViewScanPlan *prune, const CompiledView *view,
								   const struct ScanRead *read, List *ancestors, struct ExplainState *es);

/* ---- queries ---- */

/* read/view_rows.c: an entry that calls view_rows of the view. */
extern RangeTblEntry *streamext_view_rows_entry(const CompiledView *view);
/* True for streamext_internal.view_rows(oid). */
extern bool streamext_is_view_rows(Oid funcid);
/* The view that the entry is view_rows of, or InvalidOid. */
extern Oid streamext_view_rows_view(const RangeTblEntry *rte);

/*
 * read/outputs.c: what the view's query has above the aggregation, with what stands below it replaced by columns of view_rows, which is `varno`. Raises
 * for a column of the stream that is left.
 */
extern Node *streamext_outputs_over(const CompiledView *view, Node *node, Index varno);

/* read/merge.c: calls of streamext.merge over columns of continuous views that are expanded already. */
extern void streamext_merge_expand(Query *query);
/*
 * A state of streamext_partial_give as the bytea that this process takes back, and what is in it. Open raises 22P03 for other bytes, and for those of
 * another aggregate.
 */
extern bytea *streamext_merge_seal(const CompiledView *view, int number, const StringInfo state);
extern void	  streamext_merge_open(const CompiledView *view, int number, const bytea *sealed, const char **state,
								   Size *size);

/* An aggregate column of a continuous view: which, and as whom the view is read (InvalidOid: as the current user). */
typedef struct MergeColumn
{
	const CompiledView *view;
	int					number;
	Oid					reader;
} MergeColumn;

/* The column of the state that stands behind a bare column of the query; NULL: it is no aggregate column. */
extern Var *streamext_merge_find_state(Query *query, Node *node, MergeColumn *column);
/* view_rows gives states too from now on. */
extern void streamext_merge_add_states(RangeTblEntry *rte, const CompiledView *view);
/* And then the time of a session's last row; the number of that column. */
extern AttrNumber streamext_merge_add_last(RangeTblEntry *rte, const CompiledView *view);

/* As whom a view is read that has become a subquery; InvalidOid: as the current user. */
extern Oid streamext_merge_reader_of(const Query *query, RangeTblEntry *rte);

/*
 * read/partial.c: calls of streamext.partial. Returns streamext_internal.partial_state, of which views of rows are made; InvalidOid: nothing of
 * either is in the query.
 */
extern Oid streamext_partial_expand(Query *query);
/* Raises 42501 unless the user (InvalidOid: the current one) may have states of the view: they tell what HAVING and output expressions hide. */
extern void streamext_partial_check_rights(Oid viewoid, Oid user);
/* A call of streamext_internal.partial_state, which is `function`. */
extern Node *streamext_partial_of_state(Oid function, const MergeColumn *column, Expr *state, bool named);

/* read/shard_rows.c: views of rows that streamext.shard_view reads; `state` is streamext_internal.partial_state. */
extern void streamext_shard_expand(Query *query, Oid state);

/* ---- copies ---- */

/*
 * Until the next call, statements of this process see of this view only windows that end in (from, until], of sessions those
 * whose last row is there. InvalidOid: of all views all.
 */
extern void streamext_read_windows(Oid view, TimestampTz from, TimestampTz until);

/* A group's key as looked for. */
typedef struct ScanProbe
{
	bool   none; /* no group can be equal: a NULL, or an integer out of the key's range */
	uint32 hash;
	uint32 bucket; /* its hash in history */
	char  *key;
	uint32 key_size;
} ScanProbe;

/* One continuous view in one statement. */
typedef struct ViewRead
{
	const CompiledView *view;
	KeyMatcher		   *matcher;
	int64				first, /* panes that the sliding predicate lets through */
		last;
	bool  whole; /* some scan wants all groups */
	int64 min,	 /* panes that those scans want */
		max;
	CopyArray copies; /* of memory, then of history */

	bool preload; /* some of them must have history among the copies */

	/* as it was when memory was copied */
	bool		settled[STREAMEXT_MAX_SHARDS]; /* by shard: shared memory says what there is, if anything */
	int			nshards;
	HistoryMark shards[STREAMEXT_MAX_SHARDS];
	TimestampTz sealed_until; /* of any shard; DT_NOBEGIN: none */
	/* of a moment after the last slice was read */
	TimestampTz floor; /* windows that end by then are left out: they are gone, or in part */
	TimestampTz from,  /* as streamext_read_windows has it */
		until;
	ReadChanged *changed; /* NULL: what there is; else what may have changed */
	HistoryStats stats;
} ViewRead;

/* One CustomScan of it. */
typedef struct ScanRead
{
	const CustomScan *plan;
	ViewScanPlan	  prune;
	ViewRead		 *read;
	bool			  by_hash; /* the look-up's values are known at the start: copies of its own */
	ScanProbe		  probe;
	int64			  min, max;
	const CopyArray	 *copies; /* its own, or the view's */
	CopyArray		  own;
	HistoryReader	 *history;	/* gives sealed panes one by one after the copies; NULL: they are among them */
	bool			  unhashed; /* nobody asks for the hashes of these */
	HistoryStats	  stats;	/* of its own */
} ScanRead;

/*
 * The scan's part of what its statement reads; the first call in a statement makes all copies. Lives as long as the
 * EState.
 */
extern ScanRead *streamext_read_begin(EState *estate, const CustomScan *scan);

/* True if the expression can be evaluated before the statement runs: constants, parameters and PostgreSQL's own functions. */
extern bool streamext_read_is_known(Node *expr);
/*
 * Their values, in memory of the ExprContext; false: one of them is not known, or raises, which is to be seen when the scan
 * runs, if it does.
 */
extern bool streamext_read_known(EState *estate, ExprContext *econtext, List *exprs, Datum *values, bool *nulls);

/* The probe for the look-up's values, in the order of prune.keys; its key is in the current memory context. */
extern ScanProbe streamext_read_probe(const ScanRead *scan, const Datum *values, const bool *nulls);

/*
 * Narrows [*min, *max], pane ids, to what windows with `start strategy bound` are made of; may leave panes that are not.
 * Bounds at the ends of time narrow nothing.
 */
extern void streamext_read_narrow(const CompiledView *view, int strategy, TimestampTz bound, int64 *min, int64 *max);
/* The panes that the sliding predicate lets through at `clock`, all without one; a day of it is one of the view's time zone. */
extern void streamext_read_sliding_range(const CompiledView *view, TimestampTz clock, int64 *first, int64 *last);
/* The panes that the windows of streamext_read_windows are made of; of sessions all, because they may have begun at any time. */
extern void streamext_read_limit_windows(ViewRead *read);

/* ---- rows ---- */

typedef struct RowReader RowReader;

/* Readers of the aggregates that are wanted, by number; NULL: not wanted. */
extern RowReader *streamext_rows_create(ScanRead *scan, AggReader **readers, MemoryContext cxt);
extern void		  streamext_rows_end(RowReader *rows);

/* From the start again: panes from min to max; only the group of probe unless that is NULL (it must outlive the rows). */
extern void streamext_rows_start(RowReader *rows, int64 min, int64 max, const ScanProbe *probe);

/* Directly after: which groups of a pane there are is not asked for, and all that are wanted of aggregates is native. So panes may have fewer. */
extern void streamext_rows_sum(RowReader *rows);

/* The next group and window; false at the end. */
extern bool streamext_rows_next(RowReader *rows);

/* The number of the empty grouping set that the row at hand stands for, if it has no group. */
extern int streamext_rows_empty(const RowReader *rows);
/* Of the row at hand: an entry with its key (NULL: no group, nothing was ever counted), and its window's start. */
extern const GroupEntry *streamext_rows_entry(const RowReader *rows);
/* False if it is of a grouping set without the window. */
extern bool		   streamext_rows_has_window(const RowReader *rows);
extern TimestampTz streamext_rows_window(const RowReader *rows);
extern TimestampTz streamext_rows_last(const RowReader *rows); /* of a session: its last row's time */
/* Where each row is a group of one pane: the states of its entry; else NULL. */
extern const char *streamext_rows_states(const RowReader *rows);
/*
 * Where that is not NULL: takes at most max entries of the pane that the row at hand is of, which are of the same window: with that row at first,
 * from where it ended when it is called again. How many; 0: no more. After it there is no row at hand. *stand_for: of how many groups each is the sum.
 */
extern int streamext_rows_rest(RowReader *rows, int max, GroupEntry *const **entries, int64 *stand_for);
/* True if rows from the one at hand on come in the order of their windows, and one before was not of the same window as one behind. */
extern bool streamext_rows_ascend(const RowReader *rows);
/* An aggregate's partial, which may be changed and lives no longer than the row; in the current memory context. */
extern AggPartial *streamext_rows_partial(const RowReader *rows, int a);
/* An aggregate's state, as streamext.merge takes it (read/merge.c); in the current memory context. */
extern Datum streamext_rows_state(const RowReader *rows, int a);
/* An aggregate's value, in the current memory context. */
extern Datum streamext_rows_aggregate(const RowReader *rows, int a, bool *isnull);

#endif /* STREAMEXT_VIEW_SCAN_H */
