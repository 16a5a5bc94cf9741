/*
 * view/inner.c
 *		Continuous views over continuous views. What the functions promise is in view/inner.h.
 */
#include "base/streamext.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "decode/format.h"
#include "stream/definition.h"
#include "view/compile.h"
#include "view/dependents.h"
#include "view/definition.h"
#include "view/inner.h"
#include "view/reads.h"
#include "view/union.h"

#define INNER_BUFFER 1000 /* rows that a view without aggregates shows */

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
