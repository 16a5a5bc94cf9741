/*
 * view/union.c
 *		UNION ALL of streams as one input. What the functions promise is in view/union.h.
 *
 * Each part becomes SELECT of expressions over one stream with conditions: what is joined with the rows is joined outside of the UNION ALL,
 * and what aggregates is a view of its own. The columns have the types that PostgreSQL has found for the whole, so a part's expressions are
 * cast to them as its planner would.
 */
#include "base/streamext.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "stream/definition.h"
#include "base/transaction.h"
#include "view/check.h"
#include "view/dependents.h"
#include "view/flatten.h"
#include "view/inner.h"
#include "view/reads.h"
#include "view/union.h"

#define UNION_HINT_OUTSIDE \
	"Join with what comes out of the UNION ALL: FROM (SELECT ... UNION ALL SELECT ...) q JOIN ..."

/* ---- which views and streams ---- */

List *
streamext_union_streams(Oid viewoid)
{
	List	*parts = NIL;
	Relation rel;

	if (!streamext_view_options(viewoid).continuous)
		return NIL;
	rel = try_relation_open(viewoid, AccessShareLock);
	if (rel == NULL)
		return NIL;
	if (rel->rd_rel->relkind == RELKIND_VIEW && rel->rd_rel->relhasrules && rel->rd_rules != NULL)
		(void) streamext_view_parts_of(get_view_query(rel), &parts);
	relation_close(rel, NoLock);
	return parts;
}

typedef struct UnionStep
{
	Oid	 view;
	Oid	 stream;
	bool reads;
} UnionStep;

/* A StreamextStep. */
static void
union_reads_step(void *arg)
{
	UnionStep *step = arg;

	step->reads = list_member_oid(streamext_union_streams(step->view), step->stream);
	UnlockRelationOid(step->view, AccessShareLock); /* here, where whose it is is known */
}

/* Of a view that is locked; true also where a view below it is not to be had, for the same transaction may wait for this one. */
static bool
union_may_read(Oid view, Oid stream)
{
	UnionStep  step = { view, stream, true };
	ErrorData *error = streamext_try(union_reads_step, &step);

	if (error != NULL && !streamext_error_is_lock(error->sqlerrcode))
		ReThrowError(error);
	return step.reads;
}

List *
streamext_union_views(Oid stream)
{
	List	 *views = NIL;
	ListCell *lc;

	foreach (lc, streamext_view_dependents(stream))
	{
		Oid view = lfirst_oid(lc);

		if (!streamext_view_options(view).continuous)
			continue;
		if (!ConditionalLockRelationOid(view, AccessShareLock))
		{
			views = lappend_oid(views, view);
			continue;
		}
		if (union_may_read(view, stream))
			views = lappend_oid(views, view);
		UnlockRelationOid(view, AccessShareLock);
	}
	return views;
}

/* ---- parts ---- */

static void
union_check_stream(const UnionPart *part)
{
	const ConnectorOps *kind = streamext_stream_kind(part->stream);

	if (kind == NULL)
		streamext_view_refuse("parts of UNION ALL that are continuous views with aggregates",
							  "Make an ordinary view with UNION ALL over the continuous views.");
	if (kind->silent)
		streamext_view_refuse(
			psprintf("views over \"%s\", whose rows go out and never come back", get_rel_name(part->stream)),
			"Make the view over the stream whose rows you send.");
}

/* The one entry in FROM; raises unless it is a stream. */
static void
union_find_stream(UnionPart *part)
{
	const List	  *from = part->query->jointree->fromlist;
	RangeTblEntry *entry;

	if (streamext_view_is_join(part->query) || checkExprHasSubLink((Node *) part->query->targetList))
		streamext_view_refuse("joins, subqueries and set-returning functions within a part of UNION ALL",
							  UNION_HINT_OUTSIDE);
	if (from == NIL)
		streamext_view_refuse("parts of UNION ALL that read no stream", "Join what is in tables with the UNION ALL.");
	part->varno = linitial_node(RangeTblRef, from)->rtindex;
	entry = rt_fetch(part->varno, part->query->rtable);
	if (entry->rtekind == RTE_SUBQUERY && streamext_union_is(entry))
		streamext_view_refuse("UNION ALL within a part of UNION ALL", "Write all parts side by side.");
	if (entry->rtekind != RTE_RELATION || entry->tablesample != NULL ||
		(entry->relkind != RELKIND_FOREIGN_TABLE && entry->relkind != RELKIND_VIEW))
		streamext_view_refuse("parts of UNION ALL that read no stream", "Join what is in tables with the UNION ALL.");
	part->stream = entry->relid;
	union_check_stream(part);
}

static Expr *
union_cast(const UnionPart *part, Expr *expr, Oid type, int32 typmod, Oid collation)
{
	Node *node = (Node *) expr;

	if (exprType(node) != type || (typmod >= 0 && exprTypmod(node) != typmod))
		node = coerce_to_target_type(NULL, node, exprType(node), type, typmod, COERCION_IMPLICIT, COERCE_IMPLICIT_CAST,
									 -1);
	if (node == NULL)
		streamext_view_refuse("columns of UNION ALL that need an explicit cast", "Write the cast in each part.");
	if (exprCollation(node) != collation)
		node = (Node *) makeRelabelType((Expr *) node, type, exprTypmod(node), collation, COERCE_IMPLICIT_CAST);
	return (Expr *) node;
}

/* The part's columns, of the types of the whole. */
static void
union_outputs(UnionPart *part, const SetOperationStmt *whole)
{
	ListCell *lc;
	int		  i = 0;

	foreach (lc, part->query->targetList)
	{
		TargetEntry	  *entry = lfirst_node(TargetEntry, lc);
		WindowFunction function = streamext_view_window_function((Node *) entry->expr);

		if (entry->resjunk)
			continue;
		if (function == FUNCTION_TUMBLE || function == FUNCTION_HOP || function == FUNCTION_SESSION)
			streamext_view_refuse("windows within a part of UNION ALL",
								  "Let each part give its event time, and group by the window over the UNION ALL.");
		if (expression_returns_set((Node *) entry->expr))
			streamext_view_refuse("set-returning functions within a part of UNION ALL", UNION_HINT_OUTSIDE);
		streamext_view_check_below((Node *) entry->expr, "a part of UNION ALL");
		entry = flatCopyTargetEntry(entry);
		entry->expr = union_cast(part, entry->expr, list_nth_oid(whole->colTypes, i),
								 list_nth_int(whole->colTypmods, i), list_nth_oid(whole->colCollations, i));
		entry->resno = ++i;
		part->outputs = lappend(part->outputs, entry);
	}
}

/* Whether a part names what stands beside the UNION ALL; the UNION ALL is a query around each part, what is beside it one around that. */
static bool
union_looks_up_walker(Node *node, void *context)
{
	Index *depth = context;
	bool   result;

	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varlevelsup > *depth;
	if (!IsA(node, Query))
		return expression_tree_walker(node, union_looks_up_walker, context);
	(*depth)++;
	result = query_tree_walker((Query *) node, union_looks_up_walker, context, 0);
	(*depth)--;
	return result;
}

static UnionPart *
union_part(const Query *leaf, const SetOperationStmt *whole, List **derived)
{
	UnionPart	 *part = palloc0(sizeof(UnionPart));
	StreamConfig *config;
	List		 *found = NIL;
	Index		  depth = 0;

	if (leaf->hasAggs || leaf->groupClause != NIL || leaf->groupingSets != NIL || leaf->havingQual != NULL ||
		leaf->distinctClause != NIL)
		streamext_view_refuse(
			"GROUP BY, DISTINCT and aggregates within a part of UNION ALL",
			"Aggregate over the UNION ALL: SELECT ... FROM (SELECT ... UNION ALL SELECT ...) q GROUP BY ...; "
			"or make a continuous view of each part, and an ordinary view over them.");
	streamext_flatten_check(leaf);
	if (query_tree_walker(unconstify(Query *, leaf), union_looks_up_walker, &depth, 0))
		streamext_view_refuse("LATERAL within UNION ALL", UNION_HINT_OUTSIDE);
	part->query = streamext_view_flatten(leaf, &found);
	union_find_stream(part);
	union_outputs(part, whole);
	part->quals = part->query->jointree->quals;
	streamext_view_check_below(part->quals, "WHERE of a part of UNION ALL");
	config = streamext_stream_config(part->stream);
	if (config == NULL)
		elog(ERROR, "stream %u has gone", part->stream);
	part->event_time = config->event_time;
	*derived = list_concat_unique_oid(*derived, found);
	return part;
}

static void
union_collect(const Query *query, const Node *node, const SetOperationStmt *whole, List **parts, List **derived)
{
	const SetOperationStmt *operation = (const SetOperationStmt *) node;

	check_stack_depth();
	if (IsA(node, RangeTblRef))
	{
		const RangeTblEntry *entry = rt_fetch(((const RangeTblRef *) node)->rtindex, query->rtable);

		*parts = lappend(*parts, union_part(entry->subquery, whole, derived));
		return;
	}
	union_collect(query, operation->larg, whole, parts, derived);
	union_collect(query, operation->rarg, whole, parts, derived);
}

List *
streamext_union_parts(const RangeTblEntry *entry, List **derived)
{
	Query *query = copyObject(entry->subquery);
	List  *parts = NIL;

	if (query->limitCount != NULL || query->limitOffset != NULL)
		streamext_view_refuse("LIMIT over the stream in FROM", "Put LIMIT into a query over the continuous view.");
	union_collect(query, query->setOperations, castNode(SetOperationStmt, query->setOperations), &parts, derived);
	if (list_length(parts) > STREAMEXT_MAX_SHARDS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("UNION ALL in a continuous view can have at most %d parts", STREAMEXT_MAX_SHARDS),
						errhint("Make several continuous views of some of the parts each, and read them together.")));
	return parts;
}

/* ---- the view's stream ---- */

static bool
union_is_event_time(const UnionPart *part, int column)
{
	const Var *var = (const Var *) list_nth_node(TargetEntry, part->outputs, column)->expr;

	return part->event_time != 0 && IsA(var, Var) && var->varno == part->varno && var->varattno == part->event_time;
}

/* The first column that is the event time in all parts; 0: none. */
static AttrNumber
union_event_time(const List *parts, int ncolumns)
{
	for (int i = 0; i < ncolumns; i++)
	{
		bool	  all = true;
		ListCell *lc;

		foreach (lc, parts)
			all = all && union_is_event_time(lfirst(lc), i);
		if (all)
			return i + 1;
	}
	return 0;
}

static void
union_read_columns(StreamConfig *config, const RangeTblEntry *entry)
{
	const SetOperationStmt *whole = castNode(SetOperationStmt, entry->subquery->setOperations);
	int						n = list_length(whole->colTypes);

	config->desc = CreateTemplateTupleDesc(n);
	config->columns = palloc0(sizeof(StreamColumn) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		StreamColumn *column = &config->columns[i];

		column->attnum = i + 1;
		column->name = pstrdup(strVal(list_nth(entry->eref->colnames, i)));
		column->type = list_nth_oid(whole->colTypes, i);
		column->typmod = list_nth_int(whole->colTypmods, i);
		TupleDescInitEntry(config->desc, i + 1, column->name, column->type, column->typmod, 0);
		TupleDescInitEntryCollation(config->desc, i + 1, list_nth_oid(whole->colCollations, i));
	}
}

/* By OID, which a stream keeps; a stream that is in several parts is counted. */
static char *
union_tag(const StreamConfig *whole, Oid stream)
{
	int		  n = 1;
	ListCell *lc;

	foreach (lc, whole->from.parts)
		n += ((const StreamConfig *) lfirst(lc))->from.origin == stream;
	return n == 1 ? psprintf(" of %u", stream) : psprintf(" of %u.%d", stream, n);
}

/* The part's stream as a shard of the view's. */
static StreamConfig *
union_part_config(const StreamConfig *whole, const UnionPart *part, int shards)
{
	StreamConfig *config = streamext_stream_config(part->stream);

	if (config == NULL)
		elog(ERROR, "stream %u has gone", part->stream);
	if (config->connector->journaled && config->workers > 1)
		streamext_view_refuse(
			psprintf("UNION ALL over \"%s\", whose journal is of several workers", get_rel_name(part->stream)),
			"Set its option workers to 1.");
	if (config->connector->journaled && config->source.journal == JOURNAL_NONE)
		streamext_view_refuse(psprintf("UNION ALL over \"%s\", which keeps no journal", get_rel_name(part->stream)),
							  "Set its option journal to os or fsync: the view reads the journal too.");
	config->from.origin = part->stream;
	config->from.tag = union_tag(whole, part->stream);
	config->relid = whole->relid;
	config->schema = whole->schema;
	config->name = whole->name;
	config->workers = shards;
	if (config->on_error == ON_ERROR_STOP)
		config->on_error = ON_ERROR_DEAD_LETTER; /* the stream's own worker stops */
	return config;
}

/* The entry of a flattened query that is the UNION ALL; NULL: there is none. */
static RangeTblEntry *
union_find_entry(const Query *query)
{
	ListCell *lc;

	foreach (lc, query->rtable)
		if (streamext_union_is(lfirst(lc)))
			return lfirst(lc);
	return NULL;
}

static StreamConfig *
union_make_config(Relation view, const RangeTblEntry *entry)
{
	StreamConfig *config = palloc0(sizeof(StreamConfig));
	List		 *derived = NIL;
	List		 *parts = streamext_union_parts(entry, &derived);
	ListCell	 *lc;

	config->relid = RelationGetRelid(view);
	config->owner = view->rd_rel->relowner;
	config->schema = get_namespace_name(RelationGetNamespace(view));
	config->name = pstrdup(RelationGetRelationName(view));
	config->workers = list_length(parts);
	config->source.start = START_EARLIEST;
	foreach (lc, parts)
		config->from.parts = lappend(config->from.parts, union_part_config(config, lfirst(lc), list_length(parts)));
	config->connector = ((StreamConfig *) linitial(config->from.parts))->connector;
	config->format = ((StreamConfig *) linitial(config->from.parts))->format;
	union_read_columns(config, entry);
	config->event_time = union_event_time(parts, config->desc->natts);
	return config;
}

StreamConfig *
streamext_union_config(Oid relid)
{
	StreamConfig  *config = NULL;
	RangeTblEntry *entry;
	Relation	   view;

	if (streamext_union_streams(relid) == NIL)
		return NULL;
	view = try_relation_open(relid, AccessShareLock);
	if (view == NULL)
		return NULL;
	entry = union_find_entry(streamext_view_flatten(get_view_query(view), NULL));
	if (entry != NULL)
		config = union_make_config(view, entry);
	relation_close(view, NoLock);
	return config;
}

/* ---- what a shard's worker evaluates ---- */

struct UnionTake
{
	const UnionPart *part;
	Index			 varno; /* of the UNION ALL in the view's query, and then of the part's stream */
	RangeTblEntry	*entry;
	List			*outputs; /* of the part, over varno */
	Node			*quals;	  /* the same */
};

UnionTake *
streamext_union_take(const CompiledView *view, int shard)
{
	UnionTake *take = palloc0(sizeof(UnionTake));

	take->part = list_nth(view->parts, shard);
	take->varno = view->stream_varno;
	take->entry = rt_fetch(view->stream_varno, view->query->rtable);
	take->outputs = copyObject(take->part->outputs);
	take->quals = copyObject(take->part->quals);
	ChangeVarNodes((Node *) take->outputs, take->part->varno, take->varno, 0);
	ChangeVarNodes(take->quals, take->part->varno, take->varno, 0);
	return take;
}

void *
streamext_union_replace(const UnionTake *take, void *node)
{
	return streamext_flatten_replace(node, take->varno, take->entry, take->outputs);
}

List *
streamext_union_quals(const UnionTake *take, List *quals)
{
	quals = streamext_union_replace(take, quals);
	return take->quals != NULL ? lcons(take->quals, quals) : quals;
}

Query *
streamext_union_query(const UnionTake *take, Query *query)
{
	RangeTblEntry *stream = copyObject(rt_fetch(take->part->varno, take->part->query->rtable));
	FromExpr	  *from;

#if PG_VERSION_NUM >= 160000
	stream->perminfoindex = 0;
#endif
	query = streamext_union_replace(take, query);
	lfirst(list_nth_cell(query->rtable, take->varno - 1)) = stream;
	from = query->jointree;
	if (from->quals == NULL)
		from->quals = take->quals;
	else if (take->quals != NULL)
		from->quals = make_and_qual(take->quals, from->quals);
	return query;
}
