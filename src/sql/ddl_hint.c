/*
 * sql/ddl_hint.c
 *		What PostgreSQL's error of a function that does not exist cannot know: which one a continuous view has instead.
 *
 * The hint of the error in flight is replaced by an error context callback while CREATE VIEW runs; nothing is caught.
 */
#include "base/streamext.h"

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

/* A call, in what the parser made of the query, of one of these: *arg is its hint. */
static bool
hint_walker(Node *node, void *arg)
{
	const char **hint = arg;

	if (node == NULL)
		return false;
	if (IsA(node, FuncCall))
		for (int i = 0; i < lengthof(hint_functions); i++)
			if (strcmp(strVal(llast(((FuncCall *) node)->funcname)), hint_functions[i].name) == 0)
			{
				*hint = hint_functions[i].hint;
				return true;
			}
	return raw_expression_tree_walker(node, hint_walker, arg);
}

/* The query is walked through only now that something is wrong with it. */
void
streamext_ddl_hint(void *query)
{
	const char *hint = NULL;

	if (geterrcode() == ERRCODE_UNDEFINED_FUNCTION && hint_walker(query, &hint))
		errhint("%s", hint);
}

List *
streamext_ddl_run_hinted(const DdlCall *call, Node *query)
{
	ErrorContextCallback callback = { error_context_stack, streamext_ddl_hint, query };
	List				*relids;

	error_context_stack = &callback;
	relids = streamext_ddl_run(call);
	error_context_stack = callback.previous;
	return relids;
}
