/*
 * view/definition.h
 *		Numbers of a continuous view's contents.
 */
#ifndef STREAMEXT_VIEW_DEFINITION_H
#define STREAMEXT_VIEW_DEFINITION_H

#include "base/streamext.h"
#include "lib/stringinfo.h"
#include "stream/definition.h"
#include "view/compile.h"

/* What CompiledView.layout and definition are, of a view that is compiled but for these. */
extern void streamext_view_define(const CompiledView *view, const StreamConfig *config, const List *aggrefs,
								  uint64 *layout, uint64 *definition);

/* CompiledView.types as the catalogue is now, palloc'd; NULL: none. */
extern struct RowLayout *streamext_view_types(const CompiledView *view);

/* Appends a node's text without what depends only on where in a query text it was written. */
extern void streamext_view_append_node(StringInfo buf, const void *node);

/* A number of all that the rows of the inner view's windows depend on. */
extern uint64 streamext_inner_number(const CompiledView *inner);

#endif /* STREAMEXT_VIEW_DEFINITION_H */
