/*
 * view/inner_check.c
 *		What a continuous view whose closed windows are read by others may not be.
 */
#include "postgres.h"

#include "catalog/pg_type_d.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"

#include "view/check.h"
#include "view/inner_check.h"

#define INNER_HINT_READ "Make an ordinary view over it: its answer is always the newest."

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
streamext_inner_check(const CompiledView *inner)
{
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
