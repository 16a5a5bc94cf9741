/*
 * view/inner.c
 *		Continuous views over continuous views. What the functions promise is in view/inner.h.
 */
#include "base/streamext.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "decode/format.h"
#include "stream/definition.h"
#include "view/check.h"
#include "view/compile.h"
#include "view/dependents.h"
#include "view/flatten.h"
#include "view/inner.h"
#include "view/union.h"

#define INNER_BUFFER 1000 /* rows that a view without aggregates shows */
#define INNER_HINT_READ "Make an ordinary view over it: its answer is always the newest."

/* ---- which is over which ---- */

Oid
streamext_view_inner(Oid relid)
{
	bool several;
	Oid	 result;

	if (!streamext_view_options(relid).continuous)
		return InvalidOid;
	result = streamext_view_reads(relid, NoLock, &several);
	return get_rel_relkind(result) == RELKIND_VIEW ? result : InvalidOid;
}

Oid
streamext_view_root(Oid relid)
{
	for (;;)
	{
		Oid inner = streamext_view_inner(relid);

		CHECK_FOR_INTERRUPTS();
		if (!OidIsValid(inner))
		{
			List *parts = streamext_union_streams(relid);

			return parts != NIL ? linitial_oid(parts) : streamext_view_stream(relid);
		}
		relid = inner;
	}
}

List *
streamext_view_outers(Oid relid)
{
	List	 *outers = NIL;
	ListCell *lc;

	foreach (lc, streamext_view_dependents(relid))
	{
		Oid	 outer = lfirst_oid(lc);
		bool several;

		if (!streamext_view_options(outer).continuous)
			continue;
		if (streamext_view_reads(outer, AccessShareLock, &several) == relid)
			outers = lappend_oid(outers, outer);
	}
	return outers;
}

void
streamext_inner_check_circle(Oid relid)
{
	List *seen = NIL;

	for (Oid inner = relid; OidIsValid(inner); inner = streamext_view_inner(inner))
	{
		if (list_member_oid(seen, inner))
			ereport(ERROR, (errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
							errmsg("continuous view \"%s\" would read its own windows", get_rel_name(relid)),
							errhint("Let it read a stream, or a view that does not come from it.")));
		seen = lappend_oid(seen, inner);
	}
}

/* ---- what of the inner view matters ---- */

uint64
streamext_inner_number(const CompiledView *inner)
{
	StringInfoData buf;
	uint64		   number;

	if (inner->whole_number != 0)
		return inner->whole_number;
	initStringInfo(&buf);
	appendStringInfo(&buf, "%u " UINT64_FORMAT "\n", inner->relid, inner->definition);
	streamext_view_append_node(&buf, inner->query->targetList);
	streamext_view_append_node(&buf, inner->query->havingQual);
	number = hash_bytes_extended((unsigned char *) buf.data, buf.len, 0);
	pfree(buf.data);
	return number == 0 ? 1 : number;
}

AttrNumber
streamext_inner_window_column(const CompiledView *inner)
{
	ListCell *lc;

	if (inner->window_key < 0)
		return 0;
	foreach (lc, inner->query->targetList)
	{
		const TargetEntry *entry = lfirst_node(TargetEntry, lc);

		if (!entry->resjunk && equal(entry->expr, inner->keys[inner->window_key].expr))
			return entry->resno;
	}
	return 0;
}

/* The window's start is as good as a constant: it is asked of nobody. */
static Node *
inner_blank_window(Node *node, void *context)
{
	const Node *window = context;

	if (node == NULL)
		return NULL;
	if (equal(node, window))
		return (Node *) makeNullConst(TIMESTAMPTZOID, -1, InvalidOid);
	return expression_tree_mutator(node, inner_blank_window, context);
}

static void
inner_check_outputs(const CompiledView *inner)
{
	Node *window = inner->window_key >= 0 ? (Node *) inner->keys[inner->window_key].expr : NULL;

	streamext_view_check_below(inner_blank_window((Node *) inner->query->targetList, window),
							   "the output of a continuous view in FROM");
	streamext_view_check_below(inner_blank_window(inner->query->havingQual, window),
							   "HAVING of a continuous view in FROM");
}

static void
inner_check_shape(const Query *query)
{
	const char *hint = "Make the view in FROM without it; put it into a query or ordinary view over this view.";

	if (query->distinctClause != NIL)
		streamext_view_refuse("continuous views with DISTINCT in FROM", hint);
	if (query->hasWindowFuncs)
		streamext_view_refuse("continuous views with window functions in FROM", hint);
	if (query->limitCount != NULL || query->limitOffset != NULL)
		streamext_view_refuse("continuous views with LIMIT in FROM", hint);
}

void
streamext_inner_check(Oid relid)
{
	CompiledView *inner = streamext_view_compile(relid);

	if (inner->window.sliding)
		streamext_view_refuse("continuous views in FROM that slide over now()", INNER_HINT_READ);
	if (inner->window.kind == WINDOW_NONE)
		streamext_view_refuse(
			"continuous views in FROM that aggregate without a window",
			"What is taken of it are its closed windows: let it group by streamext.tumble, streamext.hop, "
			"streamext.session or date_trunc of the event time. Else make an ordinary view over it: its "
			"answer is always the newest.");
	if (inner->has_totals)
		streamext_view_refuse("continuous views in FROM with grouping sets without the window",
							  "Let the window stand beside them, as in GROUP BY window_start, ROLLUP (site, device).");
	inner_check_shape(inner->query);
	inner_check_outputs(inner);
}

/* ---- the outer view's stream ---- */

static void
inner_read_columns(StreamConfig *config, Relation inner)
{
	config->desc = CreateTupleDescCopy(RelationGetDescr(inner));
	config->columns = palloc0(sizeof(StreamColumn) * Max(config->desc->natts, 1));
	for (int i = 0; i < config->desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(config->desc, i);

		config->columns[i].attnum = att->attnum;
		config->columns[i].dropped = att->attisdropped;
		config->columns[i].name = pstrdup(NameStr(att->attname));
		config->columns[i].type = att->atttypid;
		config->columns[i].typmod = att->atttypmod;
	}
}

/* What streamext_stream_config reads of a foreign table. */
static StreamConfig *
inner_config(Oid relid)
{
	Oid			  innerid = streamext_view_inner(relid);
	Relation	  inner = OidIsValid(innerid) ? try_relation_open(innerid, AccessShareLock) : NULL;
	CompiledView *compiled;
	Relation	  outer;
	StreamConfig *config;

	if (inner == NULL)
		return streamext_union_config(relid);
	outer = relation_open(relid, AccessShareLock);
	compiled = streamext_view_compile(innerid);
	config = palloc0(sizeof(StreamConfig));
	config->relid = relid;
	config->owner = outer->rd_rel->relowner;
	config->schema = get_namespace_name(RelationGetNamespace(outer));
	config->name = pstrdup(RelationGetRelationName(outer));
	config->connector = &streamext_view_ops;
	config->format = &streamext_row_format;
	config->event_time = streamext_inner_window_column(compiled);
	config->time.idle_timeout = STREAMEXT_OPTION_INTERVAL_MAX;
	config->time.max_ahead = STREAMEXT_OPTION_INTERVAL_MAX;
	config->tombstones_rejected = true;
	config->buffer_size = INNER_BUFFER;
	config->workers = 1;
	config->source.start = START_EARLIEST;
	config->source.journal = JOURNAL_FSYNC; /* what is given to it is not made again */
	config->from.inner = innerid;
	config->from.inner_number = streamext_inner_number(compiled);
	inner_read_columns(config, inner);
	relation_close(inner, NoLock);
	relation_close(outer, NoLock);
	return config;
}

void
streamext_inner_install(void)
{
	streamext_view_config = inner_config;
}
