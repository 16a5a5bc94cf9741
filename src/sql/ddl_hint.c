/*
 * sql/ddl_hint.c
 *		What PostgreSQL's error of a function that does not exist cannot know: which one a continuous view has instead.
 *
 * The hint of the error in flight is replaced by an error context callback while CREATE VIEW runs; nothing is caught.
 */
#include "base/streamext.h"

#include "mb/pg_wchar.h"
#include "nodes/nodeFuncs.h"

#include "sql/ddl.h"

typedef struct HintFunction
{
	const char *name;
	const char *hint;
} HintFunction;

/* By the name that is written, with or without the schema streamext. */
static const HintFunction hint_functions[] = {
	{ "tumble", "Write streamext.tumble(size, event_time), as in streamext.tumble('1 minute', ts)." },
	{ "hop", "Write streamext.hop(size, slide, event_time), as in streamext.hop('1 hour', '5 minutes', ts)." },
	{ "session", "Write streamext.session(gap, event_time), as in streamext.session('30 minutes', ts)." },
	{ "first", "Write streamext.first(value, event_time)." },
	{ "last", "Write streamext.last(value, event_time)." },
	{ "approx_count_distinct", "Write streamext.approx_count_distinct(value)." },
	{ "approx_percentile",
	  "Write streamext.approx_percentile(fraction, value), as in streamext.approx_percentile(0.95, x)." },
	{ "merge", "Write streamext.merge(column), of a column of a continuous view." },
	{ "time_bucket", "Write streamext.tumble(size, event_time), or date_bin(size, event_time, origin)." },
	{ "date_bin",
	  "date_bin has an origin: date_bin(size, event_time, origin). Without one write streamext.tumble(size, event_time)." },
	{ "tumbling", "Write streamext.tumble(size, event_time), as in streamext.tumble('1 minute', ts)." },
	{ "tumble_start", "Write streamext.tumble(size, event_time): its value is the start of the window." },
	{ "hop_start", "Write streamext.hop(size, slide, event_time): its value is the start of the window." },
	{ "session_start", "Write streamext.session(gap, event_time): its value is the time of the first record." },
};

typedef struct HintWalk
{
	const char *text;
	const char *hint;
} HintWalk;

/* Whether it is this call that the error in flight is of: others in the query may be right. */
static bool
hint_is_at(const FuncCall *call, const char *text)
{
	return call->location >= 0 && pg_mbstrlen_with_len(text, call->location) + 1 == geterrposition();
}

/* The call, in what the parser made of the query, that the error is of, if it is of one of these. */
static bool
hint_walker(Node *node, HintWalk *walk)
{
	if (node == NULL)
		return false;
	if (IsA(node, FuncCall) && hint_is_at((FuncCall *) node, walk->text))
		for (int i = 0; i < lengthof(hint_functions); i++)
			if (strcmp(strVal(llast(((FuncCall *) node)->funcname)), hint_functions[i].name) == 0)
			{
				walk->hint = hint_functions[i].hint;
				return true;
			}
	return raw_expression_tree_walker(node, hint_walker, walk);
}

/* The query is walked through only now that something is wrong with it. */
void
streamext_ddl_hint(void *arg)
{
	const DdlHint *query = arg;
	HintWalk	   walk = { query->text, NULL };

	if (geterrcode() == ERRCODE_UNDEFINED_FUNCTION && hint_walker(query->query, &walk))
		errhint("%s", walk.hint);
}

List *
streamext_ddl_run_hinted(const DdlCall *call, Node *query)
{
	DdlHint				 hint = { query, call->query_string };
	ErrorContextCallback callback = { error_context_stack, streamext_ddl_hint, &hint };
	List				*relids;

	error_context_stack = &callback;
	relids = streamext_ddl_run(call);
	error_context_stack = callback.previous;
	return relids;
}
