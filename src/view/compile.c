/*
 * view/compile.c
 *		A continuous view's query: what of it is kept, and how.
 *
 * The query is split at the aggregation. Below it (WHERE, group keys, aggregate arguments, FILTER) stands what the worker
 * evaluates once for each row, so nothing there may depend on when, by whom or against which tables it is evaluated
 * (view/check.c). Above it (HAVING, output expressions, DISTINCT, ORDER BY, LIMIT, window
 * functions) everything is the reader's and stays with PostgreSQL.
 *
 * Nothing is planned or folded here but the constants of windows (view/window_clause.c): keys and aggregates must stay equal() to
 * the expressions of the query, which read/plan.c looks for.
 */
#include "postgres.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_agg.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "rewrite/rewriteManip.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "base/chunk.h"
#include "base/identity.h"
#include "base/layout.h"
#include "base/relation.h"
#include "view/closing.h"
#include "view/target.h"
#include "stream/definition.h"
#include "view/span.h"
#include "view/builtin.h"
#include "view/check.h"
#include "view/compile.h"
#include "view/flatten.h"
#include "view/definition.h"
#include "view/inner_check.h"
#include "view/reads.h"
#include "view/join_clause.h"
#include "view/doubts.h"
#include "view/window_clause.h"
#include "view/rights.h"
#include "view/union.h"

#define COMPILE_HINT_SEVERAL "Make several continuous views, and join them where they are read."

typedef struct CompileContext
{
	CompiledView *view;
	StreamConfig *config;
	int			  sublevels;
	List		 *aggrefs;
} CompileContext;

/* What expressions run under; a view made before the option was kept falls back to fixed settings, never to the session's. */
static void
compile_default_options(ContinuousViewOptions *options)
{
	if (options->timezone == NULL)
		options->timezone = pstrdup("UTC");
	if (options->datestyle == NULL)
		options->datestyle = pstrdup("ISO, MDY");
	if (options->intervalstyle == NULL)
		options->intervalstyle = pstrdup("postgres");
}

/* ---- the query's shape ---- */

/* The relations of another query among this one's. */
static void
compile_add_rights(Query *query, Query *other)
{
	List	 *relations = NIL;
	ListCell *lc;

	foreach (lc, other->rtable)
		if (lfirst_node(RangeTblEntry, lc)->rtekind == RTE_RELATION)
			relations = lappend(relations, lfirst(lc));
#if PG_VERSION_NUM >= 160000
	CombineRangeTables(&query->rtable, &query->rteperminfos, relations, other->rteperminfos);
#else
	query->rtable = list_concat(query->rtable, relations);
#endif
}

static void
compile_check_speaks(Oid stream)
{
	const ConnectorOps *connector = streamext_stream_kind(stream);

	if (connector != NULL && connector->silent)
		streamext_view_refuse(
			psprintf("views over \"%s\", whose rows go out and never come back", get_rel_name(stream)),
			"Make the view over the stream whose rows you send.");
}

/* The view reads UNION ALL of streams, and has a stream of its own. Who may read what is in the parts is asked with the whole. */
static void
compile_union(CompiledView *view, const RangeTblEntry *entry, List **derived)
{
	ListCell *lc;

	view->parts = streamext_union_parts(entry, derived);
	view->stream_relid = view->relid;
	foreach (lc, view->parts)
	{
		Query *part = copyObject(((UnionPart *) lfirst(lc))->query);

		compile_add_rights(view->query, part);
	}
	compile_add_rights(view->query, copyObject(entry->subquery));
}

/* Finds the stream in FROM: the only item there, or the one stream that is joined with other things. entries: how many the query had as it was written. */
static void
compile_from(CompiledView *view, int entries, List **derived)
{
	Query		  *query = view->query;
	RangeTblEntry *entry;

	if (query->jointree->fromlist == NIL)
		streamext_view_refuse("queries without a stream in FROM", "Name a stream in FROM.");
	view->has_joins = streamext_view_is_join(query);
	if (view->has_joins)
		view->stream_varno = streamext_join_check(query);
	else
	{
		view->stream_varno = linitial_node(RangeTblRef, query->jointree->fromlist)->rtindex;
		if (!streamext_union_is(rt_fetch(view->stream_varno, query->rtable)))
			streamext_view_check_from(rt_fetch(view->stream_varno, query->rtable));
	}
	entry = rt_fetch(view->stream_varno, query->rtable);
	view->below_views = view->stream_varno > entries;
	if (streamext_union_is(entry))
	{
		compile_union(view, entry, derived);
		return;
	}
	view->stream_relid = entry->relid;
	if (get_rel_relkind(view->stream_relid) == RELKIND_VIEW)
	{
		if (!OidIsValid(streamext_view_stream_of(query)))
			streamext_view_refuse(
				"continuous views in FROM that keep no rows",
				"DROP it and make it anew without its option streamext.into: then it is a derived stream, which others read.");
		view->inner = view->stream_relid;
		view->stream_relid = view->relid;
	}
	else
		compile_check_speaks(view->stream_relid);
}

/* ---- WHERE ---- */

static List *
compile_flatten_and(Node *node, List *result)
{
	ListCell *lc;

	if (node == NULL)
		return result;
	if (IsA(node, List))
	{
		foreach (lc, (List *) node)
			result = compile_flatten_and(lfirst(lc), result);
		return result;
	}
	if (!is_andclause(node))
		return lappend(result, node);
	foreach (lc, ((BoolExpr *) node)->args)
		result = compile_flatten_and(lfirst(lc), result);
	return result;
}

static void
compile_quals(CompileContext *context)
{
	CompiledView *view = context->view;
	ListCell	 *lc;

	foreach (lc, compile_flatten_and(view->query->jointree->quals, NIL))
	{
		Node *qual = lfirst(lc);

		if (!view->stateless && !view->derived && streamext_view_window_qual(view, context->config, qual))
			continue;
		streamext_join_check_where(view->query, view->stream_varno, qual);
		view->quals = lappend(view->quals, qual);
	}
	if (view->window.has_upper && !view->window.sliding)
		streamext_view_refuse("an upper bound at now() without a sliding predicate",
							  "Add a predicate like event_time > now() - interval '1 minute'.");
}

/* ---- keys ---- */

static bool
compile_bytewise(Oid type, Oid collation)
{
	Oid base = getBaseType(type);

	switch (base)
	{
		case BOOLOID:
		case CHAROID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case DATEOID:
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case UUIDOID:
		case BYTEAOID:
		case MACADDROID:
		case MACADDR8OID:
			return true;
		case TEXTOID:
		case VARCHAROID:
			return !OidIsValid(collation) || get_collation_isdeterministic(collation);
		default:
			return streamext_type_names_object(base) || type_is_enum(base);
	}
}

char *
streamext_view_column_name(Oid relid, const TargetEntry *entry)
{
	char *name = entry->resjunk ? NULL : get_attname(relid, entry->resno, true);

	if (name == NULL && entry->resname != NULL)
		name = pstrdup(entry->resname);
	return name;
}

List *
streamext_view_named_outputs(Oid relid, const List *targetList)
{
	List	 *result = NIL;
	ListCell *lc;

	foreach (lc, targetList)
	{
		TargetEntry *entry = copyObject(lfirst_node(TargetEntry, lc));

		entry->resname = streamext_view_column_name(relid, entry);
		result = lappend(result, entry);
	}
	return result;
}

static void
compile_key(CompileContext *context, KeySpec *key, const SortGroupClause *group, const TargetEntry *entry)
{
	Node *expr = (Node *) entry->expr;
	Oid	  left, right;

	key->expr = entry->expr;
	key->name = streamext_view_column_name(context->view->relid, entry);
	if (key->name == NULL)
		key->name = pstrdup("?column?");
	key->type = exprType(expr);
	key->typmod = exprTypmod(expr);
	key->collation = exprCollation(expr);
	get_typlenbyvalalign(key->type, &key->typlen, &key->typbyval, &key->typalign);
	key->eqop = group->eqop;
	key->is_window = streamext_view_window_key(context->view, context->config, expr);
	if (key->is_window)
		return;

	streamext_view_check_below(expr, "GROUP BY");
	if (key->type == RECORDOID || key->type == RECORDARRAYOID || !group->hashable ||
		!get_op_hash_functions(group->eqop, &left, &right))
		streamext_view_refuse(psprintf("GROUP BY on type %s", format_type_be(key->type)), "The type cannot be hashed.");
	key->eqfunc = get_opcode(group->eqop);
	key->hashfunc = left;
	key->bytewise = compile_bytewise(key->type, key->collation);
	context->view->keys_change = context->view->keys_change || streamext_type_may_change(key->type);
}

static uint32
compile_set_mask(const CompiledView *view, const List *refs)
{
	uint32	  mask = 0;
	int		  k = 0;
	ListCell *lc;

	foreach (lc, view->query->groupClause)
	{
		if (list_member_int(refs, lfirst_node(SortGroupClause, lc)->tleSortGroupRef))
			mask |= (uint32) 1 << k;
		k++;
	}
	return mask;
}

/* What a set without the window counts must not go, nor count twice. */
static void
compile_check_totals(const CompiledView *view)
{
	const char *hint =
		"Put the window beside them, as in GROUP BY window_start, ROLLUP (site, device), and make a view "
		"without the window for the other sets.";

	if (view->window.kind == WINDOW_HOP)
		streamext_view_refuse("grouping sets without the window where windows overlap", hint);
	if (view->options.retention != 0)
		streamext_view_refuse("streamext.retention with grouping sets without the window", hint);
	if (view->options.into != NULL)
		streamext_view_refuse("streamext.into with grouping sets without the window", hint);
}

/* GROUPING SETS, ROLLUP and CUBE: a row belongs to a group of each set. */
static void
compile_sets(CompiledView *view)
{
	List	 *sets = expand_grouping_sets(view->query->groupingSets, view->query->groupDistinct, -1);
	KeySpec	 *key = &view->keys[view->nkeys];
	int		  from = 0;
	int		  to;
	ListCell *lc;

	if (list_length(sets) > STREAMEXT_MAX_SETS)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("continuous views can have at most %d grouping sets", STREAMEXT_MAX_SETS),
						errhint(COMPILE_HINT_SEVERAL)));
	view->nsets = list_length(sets);
	view->sets = palloc(sizeof(uint32) * view->nsets);
	to = view->nsets;
	foreach (lc, sets)
	{
		uint32 mask = compile_set_mask(view, lfirst(lc));

		if (view->window_key >= 0 && (mask & ((uint32) 1 << view->window_key)) == 0)
			view->has_totals = true;
		view->sets[mask == 0 ? from++ : --to] = mask;
	}
	view->nempty = from;
	if (view->has_totals)
		compile_check_totals(view);

	view->set_key = view->nkeys++;
	key->type = INT4OID;
	key->typmod = -1;
	get_typlenbyvalalign(key->type, &key->typlen, &key->typbyval, &key->typalign);
	key->bytewise = true;
	key->eqop = Int4EqualOperator;
	key->eqfunc = F_INT4EQ;
	key->hashfunc = F_HASHINT4;
	key->name = pstrdup("grouping_set");
}

static void
compile_keys(CompileContext *context)
{
	CompiledView *view = context->view;
	List		 *groups = view->query->groupClause;
	ListCell	 *lc;

	view->has_group_by = groups != NIL || view->query->groupingSets != NIL;
	view->window_key = -1;
	view->keys = palloc0(sizeof(KeySpec) * (list_length(groups) + 1));
	foreach (lc, groups)
	{
		SortGroupClause *group = lfirst_node(SortGroupClause, lc);
		KeySpec			*key = &view->keys[view->nkeys];

		compile_key(context, key, group, get_sortgroupclause_tle(group, view->query->targetList));
		if (key->is_window)
			view->window_key = view->nkeys;
		view->nkeys++;
	}
	view->set_key = -1;
	view->nempty = groups == NIL ? 1 : 0;
	if (view->query->groupingSets != NIL)
		compile_sets(view);
}

/* ---- aggregates ---- */

static void
compile_add_aggref(CompileContext *context, Aggref *aggref)
{
	/* Seen from the view's own level, also where a sublink in the output refers to it. */
	aggref = copyObject(aggref);
	if (context->sublevels > 0)
		IncrementVarSublevelsUp((Node *) aggref, -context->sublevels, context->sublevels);
	if (list_member(context->aggrefs, aggref))
		return;
	streamext_view_check_aggregate(aggref);
	streamext_view_check_below((Node *) aggref->args, "an aggregate's arguments");
	streamext_view_check_below((Node *) aggref->aggdirectargs, "an aggregate's arguments");
	streamext_view_check_below((Node *) aggref->aggfilter, "FILTER");
	context->aggrefs = lappend(context->aggrefs, aggref);
}

static bool
compile_aggregate_walker(Node *node, CompileContext *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Aggref) && ((Aggref *) node)->agglevelsup == context->sublevels)
	{
		compile_add_aggref(context, (Aggref *) node);
		return false;
	}
	if (IsA(node, GroupingFunc) && ((GroupingFunc *) node)->agglevelsup == context->sublevels)
		return false; /* says which keys; nothing is evaluated */
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == context->sublevels)
		streamext_view_check_var((Var *) node, "the output");
	if (IsA(node, Query))
	{
		bool result;

		context->sublevels++;
		result = query_tree_walker((Query *) node, compile_aggregate_walker, context, 0);
		context->sublevels--;
		return result;
	}
	return expression_tree_walker(node, compile_aggregate_walker, context);
}

/* By their text, so that a query that names the same ones in another order means the same state. */
static int
compile_compare_aggregates(const ListCell *a, const ListCell *b)
{
	StringInfoData one, other;
	int			   result;

	initStringInfo(&one);
	initStringInfo(&other);
	streamext_view_append_node(&one, lfirst(a));
	streamext_view_append_node(&other, lfirst(b));
	result = strcmp(one.data, other.data);
	pfree(one.data);
	pfree(other.data);
	return result;
}

static void
compile_aggregates(CompileContext *context)
{
	CompiledView *view = context->view;
	ListCell	 *lc;
	uint64		  size = 0;

	compile_aggregate_walker((Node *) view->query->targetList, context);
	compile_aggregate_walker(view->query->havingQual, context);
	if (list_length(context->aggrefs) > STREAMEXT_MAX_AGGREGATES)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("continuous views can have at most %d different aggregates", STREAMEXT_MAX_AGGREGATES),
						errhint(COMPILE_HINT_SEVERAL)));
	list_sort(context->aggrefs, compile_compare_aggregates);
	view->aggs = palloc0(sizeof(AggSpec) * Max(list_length(context->aggrefs), 1));
	foreach (lc, context->aggrefs)
	{
		AggSpec *spec = &view->aggs[view->naggs++];

		streamext_aggregate_compile(lfirst_node(Aggref, lc), spec);
		spec->offset = (uint32) size;
		spec->state_size = MAXALIGN(spec->state_size);
		size += spec->state_size;
	}
	if (view->window.kind == WINDOW_SESSION)
	{
		view->span_offset = (uint32) size;
		size += sizeof(SessionSpan);
	}
	if (size > STREAMEXT_CHUNK_MAX / 2)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("the aggregates of the view need too large a state"), errhint(COMPILE_HINT_SEVERAL)));
	view->state_size = (uint32) size;
}

/* ---- stateless ---- */

/* Output expressions are evaluated for each row; check: the table takes them, and the current user may insert. */
static void
compile_stateless(CompileContext *context, bool check)
{
	CompiledView *view = context->view;
	List		 *outputs = view->query->targetList;

	streamext_view_check_below((Node *) outputs, "the output");
	view->into = streamext_into_target(view->options.into);
	if (check)
		streamext_into_check(view->into, streamext_view_named_outputs(view->relid, outputs));
}

static void
compile_derived(CompiledView *view)
{
	ListCell *lc;

	streamext_view_check_below((Node *) view->query->targetList, "the output");
	foreach (lc, view->query->targetList)
		view->outputs = lappend(view->outputs, lfirst_node(TargetEntry, lc)->expr);
}

/* What a derived stream computes means the same in the views over it, which compute it under their own settings. */
static void
compile_check_settings(const CompiledView *view, const List *derived)
{
	const ContinuousViewOptions *own = &view->options;
	ListCell					*lc;

	foreach (lc, derived)
	{
		ContinuousViewOptions other = streamext_view_options(lfirst_oid(lc));

		compile_default_options(&other);
		if (strcmp(own->timezone, other.timezone) == 0 && strcmp(own->datestyle, other.datestyle) == 0 &&
			strcmp(own->intervalstyle, other.intervalstyle) == 0 && equal(own->settings, other.settings))
			continue;
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("continuous views do not support derived streams that were made under other settings"),
						errdetail("\"%s\" was made with TimeZone %s, DateStyle %s, IntervalStyle %s.",
								  get_rel_name(lfirst_oid(lc)), other.timezone, other.datestyle, other.intervalstyle),
						errhint("SET these before CREATE VIEW.")));
	}
}

/* ---- windows into a table ---- */

/* The target is looked for when there is something to be written: reading the view does without it. */
static void
compile_into_windows(const CompileContext *context, bool check)
{
	const CompiledView *view = context->view;

	streamext_view_check_into_window(&view->window);
	if (check)
		streamext_into_check(streamext_into_target(view->options.into),
							 streamext_view_named_outputs(view->relid, view->query->targetList));
}

/* ---- entry points ---- */

/* Constants are folded and aggregates' first states made: the owner is at work. */
static void
compile_query(CompiledView *view, Query *query, const ContinuousViewOptions *options, bool is_new)
{
	CompileContext context = { .view = view };
	List		  *derived = NIL;

	view->options = options != NULL ? *options : streamext_view_options(view->relid);
	compile_default_options(&view->options);
	view->query = streamext_view_flatten(query, &derived);
	streamext_view_check_shape(view->query, view->options.into != NULL);
	view->stateless = streamext_view_is_stateless(view->query) && view->options.into != NULL;
	view->derived = streamext_view_is_stateless(view->query) && view->options.into == NULL;
	compile_from(view, list_length(query->rtable), &derived);
	compile_check_settings(view, derived);
	context.config = streamext_stream_config(view->stream_relid);
	if (context.config == NULL)
		elog(ERROR, "stream %u has gone", view->stream_relid);
	view->inner_number = context.config->from.inner_number;

	compile_keys(&context);
	if (view->stateless)
		compile_stateless(&context, is_new);
	if (view->derived)
		compile_derived(view);
	compile_quals(&context);
	streamext_view_window_finish(view);
	if (streamext_into_has_windows(view))
		compile_into_windows(&context, is_new);
	compile_aggregates(&context);
	view->types = streamext_view_types(view);
	streamext_view_define(view, context.config, context.aggrefs, &view->layout, &view->definition);
	view->builtin = streamext_view_is_builtin(view);
	view->in_c = !view->builtin && streamext_view_is_in_c(view);
	if (is_new)
	{
		if (OidIsValid(view->inner))
			streamext_inner_check(streamext_view_compile(view->inner));
		streamext_rights_check_invoker(view);
		streamext_view_doubt(view, context.config);
	}
}

static CompiledView *
compile_as_owner(Oid relid, Query *query, const ContinuousViewOptions *options, bool is_new)
{
	CompiledView *view = palloc0(sizeof(CompiledView));
	IdentityScope scope;

	view->relid = relid;
	view->owner = streamext_relation_owner(relid, true);
	if (!OidIsValid(view->owner))
		view->owner = GetUserId();
	scope = streamext_identity_enter(view->owner);
	compile_query(view, query, options, is_new);
	streamext_identity_leave(scope);
	return view;
}

CompiledView *
streamext_view_compile_query(Oid relid, Query *query, const ContinuousViewOptions *options)
{
	return compile_as_owner(relid, query, options, options != NULL);
}

CompiledView *
streamext_view_compile_former(Oid relid, Query *query, const ContinuousViewOptions *options)
{
	return compile_as_owner(relid, query, options, false);
}

CompiledView *
streamext_view_compile(Oid relid)
{
	Relation	  rel = relation_open(relid, AccessShareLock);
	CompiledView *view;

	if (rel->rd_rel->relkind != RELKIND_VIEW)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE), errmsg("\"%s\" is not a view", RelationGetRelationName(rel))));
	view = streamext_view_compile_query(relid, get_view_query(rel), NULL);
	relation_close(rel, NoLock);
	return view;
}

void
streamext_view_take_part(CompiledView *view, int shard)
{
	UnionTake *take = streamext_union_take(view, shard);

	view->whole_number = streamext_inner_number(view);
	for (int k = 0; k < view->nkeys; k++)
		view->keys[k].expr = streamext_union_replace(take, view->keys[k].expr);
	for (int a = 0; a < view->naggs; a++)
	{
		view->aggs[a].args = streamext_union_replace(take, view->aggs[a].args);
		view->aggs[a].filter = streamext_union_replace(take, view->aggs[a].filter);
	}
	view->outputs = streamext_union_replace(take, view->outputs);
	view->quals = streamext_union_quals(take, view->quals);
	view->query = streamext_union_query(take, view->query);
}
