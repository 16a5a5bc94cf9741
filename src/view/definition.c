/*
 * view/definition.c
 *		Numbers of a continuous view's contents: what its kept state depends on, what a reader of it does, what its windows' rows do.
 *
 * What is forgotten here is read wrongly later. Texts of nodes are hashed without where in a query they stood.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "nodes/nodeFuncs.h"

#include "base/content.h"
#include "base/layout.h"
#include "view/definition.h"
#include "view/inner.h"
#include "view/join_clause.h"
#include "view/union.h"

void
streamext_view_append_node(StringInfo buf, const void *node)
{
	static const char location[] = ":location ";
	char			 *text = nodeToString(node);
	char			 *at = text;
	char			 *found;

	/* A string inside has its blanks escaped, so the token is a field's name wherever it stands. */
	while ((found = strstr(at, location)) != NULL)
	{
		appendBinaryStringInfo(buf, at, found - at);
		at = found + strlen(location);
		while (*at == '-' || (*at >= '0' && *at <= '9'))
			at++;
	}
	appendStringInfoString(buf, at);
	appendStringInfoChar(buf, '\n');
	pfree(text);
}

static uint64
definition_hash(const StringInfoData *buf)
{
	uint64 hash = hash_bytes_extended((unsigned char *) buf->data, buf->len, 0);

	return hash == 0 ? 1 : hash;
}

/* Of an argument of type record what is in its ROW(...). */
static List *
definition_add_types(List *types, Node *expr)
{
	ListCell *lc;

	if (!IsA(expr, RowExpr) || exprType(expr) != RECORDOID)
		return list_append_unique_oid(types, exprType(expr));
	foreach (lc, ((RowExpr *) expr)->args)
		types = definition_add_types(types, lfirst(lc));
	return types;
}

RowLayout *
streamext_view_types(const CompiledView *view)
{
	List	 *types = NIL;
	TupleDesc desc;
	ListCell *lc;

	for (int k = 0; k < view->nkeys; k++)
		if (!view->keys[k].is_window)
			types = list_append_unique_oid(types, view->keys[k].type);
	for (int a = 0; a < view->naggs; a++)
	{
		if (OidIsValid(view->aggs[a].transtype))
			types = list_append_unique_oid(types, view->aggs[a].transtype);
		foreach (lc, view->aggs[a].args)
			types = definition_add_types(types, lfirst(lc));
	}
	foreach (lc, view->outputs)
		types = definition_add_types(types, lfirst(lc));
	desc = CreateTemplateTupleDesc(list_length(types));
	foreach (lc, types)
		TupleDescInitEntry(desc, foreach_current_index(lc) + 1, NULL, lfirst_oid(lc), -1, 0);
	return streamext_layout_changing(desc);
}

/* The number of a content of the view that begins with a word for its kind. */
static uint64
definition_number(const CompiledView *view, const char *kind, const StringInfoData *buf)
{
	char *content = psprintf("%s\n%s", kind, buf->data);

	return streamext_content_number(view->relid, content, strlen(content), view->types, definition_hash(buf));
}

static void
definition_parts_definition(const CompiledView *view, StringInfo buf)
{
	ListCell *lc;

	foreach (lc, view->parts)
	{
		const UnionPart *part = lfirst(lc);

		appendStringInfo(buf, "part of %u %d\n", part->stream, part->event_time);
		streamext_view_append_node(buf, part->outputs);
		streamext_view_append_node(buf, part->quals);
	}
}

/*
 * Everything that the kept state depends on; lateness and retention only change what becomes of rows from now on. First what
 * it is made of, then which rows are in it.
 */
void
streamext_view_define(const CompiledView *view, const StreamConfig *config, const List *aggrefs, uint64 *layout,
					  uint64 *definition)
{
	const Window  *w = &view->window;
	StringInfoData buf;
	ListCell	  *cell;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%u %u %s/%s/%s\n", OidIsValid(view->inner) ? view->inner : view->stream_relid,
					 config->event_time, view->options.timezone, view->options.datestyle, view->options.intervalstyle);
	foreach (cell, view->options.settings)
		appendStringInfo(&buf, "%s=%s\n", lfirst_node(DefElem, cell)->defname, strVal(lfirst_node(DefElem, cell)->arg));
	appendStringInfo(&buf, "%d " INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT " " INT64_FORMAT " %s %s\n", w->kind,
					 w->size, w->slide, w->origin, w->pane, w->trunc_unit != NULL ? w->trunc_unit : "",
					 w->trunc_zone != NULL ? w->trunc_zone : "");
	appendStringInfo(&buf, "%d %d " INT64_FORMAT " %d %d %d\n", w->sliding, w->edges, w->length, w->lower_inclusive,
					 w->has_upper, w->upper_inclusive);
	for (int k = 0; k < view->nkeys; k++)
		streamext_view_append_node(&buf, view->keys[k].expr);
	for (int s = 0; s < view->nsets; s++)
		appendStringInfo(&buf, "%x ", view->sets[s]);
	streamext_view_append_node(&buf, aggrefs);
	*layout = definition_number(view, "layout", &buf);
	streamext_view_append_node(&buf, streamext_join_quals_definition(view->quals));
	if (view->has_joins)
	{
		List *from = streamext_join_definition(view->query);

		streamext_view_append_node(&buf, from);
	}
	if (view->stateless)
	{
		appendStringInfo(&buf, "%u\n", view->into);
		streamext_view_append_node(&buf, view->query->targetList);
	}
	if (view->derived)
		streamext_view_append_node(&buf, view->outputs);
	definition_parts_definition(view, &buf);
	*definition = definition_number(view, "definition", &buf);
	pfree(buf.data);
}

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
	if (inner->inner_number != 0)
		appendStringInfo(&buf, UINT64_FORMAT "\n", inner->inner_number);
	number = hash_bytes_extended((unsigned char *) buf.data, buf.len, 0);
	pfree(buf.data);
	return number == 0 ? 1 : number;
}
