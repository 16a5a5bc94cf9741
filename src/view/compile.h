/*
 * view/compile.h
 *		From the Query of a continuous view's rule to what workers fold and readers read.
 *
 * The same function is run at CREATE VIEW (to refuse what is not supported), in the worker (to fold) and in the planner
 * hook (to read), so they cannot disagree.
 */
#ifndef STREAMEXT_VIEW_COMPILE_H
#define STREAMEXT_VIEW_COMPILE_H

#include "base/streamext.h"
#include "aggregate/aggregate.h"
#include "view/window.h"
#include "lib/stringinfo.h"
#include "utils/rel.h"

/* streamext.* options of a view, from pg_class.reloptions. */
typedef struct ContinuousViewOptions
{
	bool  continuous;
	int64 retention; /* 0: for ever */
	int64 lateness;
	bool  keep_late;				   /* late rows go to streamext.late_rows */
	int64 step;						   /* 0: default */
	int64 max_groups;				   /* 0: no limit */
	char *into;						   /* qualified name of a table, or NULL */
	bool  emit_changes;				   /* streamext.emit is 'changes' */
	char *changes_into;				   /* where they go, as into, which is NULL then; or NULL */
	int64 emit_interval;			   /* of changes (sink/changes.h), us; 0: default */
	bool  notify;					   /* tells listeners that there are changes */
	bool  inner;					   /* made of a query in FROM of the view that reads it (sql/ddl_inner.c) */
	bool  alert;					   /* not continuous: an alert (sink/alert.h), of which are also: */
	char *key;						   /* columns; NULL: keys of what it reads */
	char *clear;					   /* a condition, or NULL */
	char *to;						   /* whom events are sent to, or NULL */
	int64 hold, repeat, absent, every; /* us; 0: not given */
	char *timezone;					   /* of CREATE VIEW */
	char *datestyle;
	char *intervalstyle;
	List *settings; /* DefElem: others of CREATE VIEW (view/settings.c), by their names in pg_settings */
} ContinuousViewOptions;

typedef struct KeySpec
{
	Expr *expr;		 /* over the stream's columns (varno = stream_varno); has_joins: over all of FROM */
	bool  is_window; /* the window's start; not part of the stored key */
	Oid	  type;
	int32 typmod;
	Oid	  collation;
	int16 typlen;
	bool  typbyval;
	char  typalign;
	bool  bytewise; /* equal exactly if the serialised bytes are */
	Oid	  eqop;		/* the group clause's equality operator */
	Oid	  eqfunc;
	Oid	  hashfunc;
	char *name; /* output column's name or ?column? */
} KeySpec;

typedef struct CompiledView
{
	Oid relid;
	Oid owner;
	Oid stream_relid; /* inner: the view itself, whose stream of its own has the inner one's closed windows (view/inner.h) */
	Oid	   inner;		 /* the continuous view that it reads; InvalidOid: it reads a stream */
	uint64 inner_number; /* streamext_inner_number of that one, and so of all below it; 0: there is none */
	uint64 whole_number; /* with a part's expressions: streamext_inner_number of the whole; else 0 */
	List  *parts;		 /* of UnionPart: what it reads is UNION ALL of streams (view/union.h); NIL: it is not */
	Index  stream_varno; /* in query */
	bool   stateless;	 /* no aggregation: rows go into a table; no keys, no aggregates, no window */
	bool   derived;		 /* the same, and the last rows are kept: a derived stream */
	List  *outputs;		 /* derived: Expr of its columns */
	Oid	   into;		 /* that table */
	bool   has_joins;	 /* more than the stream in FROM: expressions are over the joined row (fold/join.h) */
	bool   below_views;	 /* the stream is below an ordinary view */
	Query *query;		 /* a copy of the user's own, flattened (view/flatten.h) */
	ContinuousViewOptions options;
	Window				  window; /* finished; prepare it in the process that uses it */
	int64 sliding_unit; /* the predicate is over truncated times: a multiple of this is the step; 0: it is not */
	int32 sliding_days; /* of window.length: calendar days of the view's TimeZone (as PostgreSQL's now() - '1 day') */
	List *quals;		/* implicit-AND list of Expr over the stream's columns, the sliding predicate taken out */
	int	  nkeys;		/* with the window key */
	KeySpec *keys;
	bool
		keys_change; /* one is of a type whose definition may change: hashes of stored keys are of former ones (view/key.c) */
	const struct RowLayout *types;		/* of the values in the kept state, if composites are in them; else NULL */
	int						window_key; /* index into keys, -1: none */
	int		set_key; /* with GROUPING SETS: the last key, an int4 that no expression stands for: the set's number; -1 */
	int		nsets;	 /* 0: none */
	uint32 *sets;	 /* the keys of each, a bit for each key number; empty sets come first */
	bool	has_totals; /* some set is without the window: a group of it is of all panes */
	int		nempty;		/* rows that there are without any input: no GROUP BY, or that many empty sets */
	int		naggs;
	AggSpec *aggs;		   /* distinct ones */
	uint32	 state_size;   /* of all aggregates, and a session's span */
	uint32	 span_offset;  /* WINDOW_SESSION: of the span (fold/session.h) in GroupEntry.data */
	bool	 has_group_by; /* false: exactly one row */
	bool	 in_c;		   /* not builtin, but all in C */
	bool	 builtin;	   /* no user's code is at work when its state is read (view/builtin.h) */
	/* numbers of contents (base/content.h), never 0 */
	uint64 definition; /* all that the kept state depends on */
	uint64 layout;	   /* of these, what a reader of a state depends on: all but which rows are counted */
} CompiledView;

/* Of a view over UNION ALL: expressions are over the stream of the shard's part from now on, for its worker. */
extern void streamext_view_take_part(CompiledView *view, int shard);

/* The options of a view relation; continuous = false for any other relation. Cheap (syscache). */
extern ContinuousViewOptions streamext_view_options(Oid relid);
/* Raises 22023 for an option of a view that is none; the hint has those that there are. */
pg_noreturn extern void streamext_view_option_unknown(const char *name);

/* The same of what stands, or stood, in pg_class.reloptions. */
extern ContinuousViewOptions streamext_view_options_of(Datum reloptions);

/* OIDs of all views that have any option: those that may have ours. Reads all of pg_class. */
extern List *streamext_views_with_options(void);

/*
 * The name of a column that the view's query puts out, palloc'd: the relation's, which ALTER VIEW ... RENAME COLUMN changes alone, while the stored
 * query keeps the one that it was made with. Of an entry that is no output what the query calls it; NULL: nothing.
 */
extern char *streamext_view_column_name(Oid relid, const TargetEntry *entry);
/* A copy of the query's outputs with these names. */
extern List *streamext_view_named_outputs(Oid relid, const List *targetList);

/* Compiles in the current memory context; needs a transaction. Raises 0A000 (etc.) naming the construct. */
extern CompiledView *streamext_view_compile(Oid relid);
/*
 * The same for readers, with its window prepared, from a cache of this process while nothing has changed. It must not be
 * changed, and lives at least as long as the context `user`.
 */
extern const CompiledView *streamext_view_cached(Oid relid, MemoryContext user);
/* Before any of view/window.h that tells where a pane lies: under the view's TimeZone, as its worker has it. In the current memory context. */
extern void streamext_view_prepare_window(CompiledView *view);

/*
 * The same from a query and options at hand (CREATE VIEW before the options are stored). Raises WARNINGs about what was
 * hardly meant; options NULL: the stored ones, and no WARNINGs.
 */
extern CompiledView *streamext_view_compile_query(Oid relid, Query *query, const ContinuousViewOptions *options);

/* The same from a query and options that the view had before it became an ordinary one (export/definition.c). */
extern CompiledView *streamext_view_compile_former(Oid relid, Query *query, const ContinuousViewOptions *options);

/* Whether the view's owner may read what the query names, whoever is to read the view (security_invoker); raises if he may not and `raise`. */
extern bool streamext_view_has_rights(const CompiledView *view, bool raise);

/* ---- keys: serialised into a group's key bytes; window key left out ---- */

/* Bytes written to buf (capacity grows by repalloc, *buf may move). values/nulls by key number, detoasted. */
extern uint32 streamext_key_serialize(const CompiledView *view, const Datum *values, const bool *nulls, char **buf,
									  uint32 *capacity);
/* The values point into key or are palloc'd. */
extern void streamext_key_deserialize(const CompiledView *view, const char *key, Datum *values, bool *nulls);

/*
 * Hopping windows: a row that comes when some of its windows are closed counts in those that start at `from` or later. Such rows have a group of
 * their own in their pane, whose stored key is the group's key and behind it this start; all hashes are of the key alone.
 */
extern uint32 streamext_key_add_from(TimestampTz from, char **buf, uint32 *capacity, uint32 used);
/* The size of the key alone; *from is what stands behind it, DT_NOBEGIN: nothing. */
extern uint32 streamext_key_split(const CompiledView *view, const char *key, uint32 key_size, TimestampTz *from);

/* Hashing and equality for one view in one process (FmgrInfos). May raise for types whose functions do. */
typedef struct KeyMatcher KeyMatcher;
extern KeyMatcher		 *streamext_key_matcher(const CompiledView *view, MemoryContext cxt);
/* Of memory alone: it depends on a secret of the cluster. */
extern uint32 streamext_key_hash(KeyMatcher *matcher, const Datum *values, const bool *nulls, const char *key,
								 uint32 key_size);
/* The same from a stored key. */
extern uint32 streamext_key_rehash(KeyMatcher *matcher, const char *key, uint32 key_size);
/* What history's buckets are numbered by, the same in every cluster; of a stored key. */
extern uint32 streamext_key_bucket(KeyMatcher *matcher, const char *key, uint32 key_size);
/* Whether a stored key is of a grouping set without the window. */
extern bool streamext_key_is_total(const CompiledView *view, const char *key);

/* A GroupEqual (state/pane.h) with the matcher as arg; NULL may be passed instead when all keys are bytewise. */
extern bool streamext_key_equal(void *matcher, const char *stored, uint32 stored_size, const char *probe,
								uint32 probe_size);
extern bool streamext_keys_bytewise(const CompiledView *view);

#endif /* STREAMEXT_VIEW_COMPILE_H */
