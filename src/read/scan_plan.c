/*
 * read/scan_plan.c
 *		What a CustomScan of this room carries from the planner to the executor, and by which names it goes. What the functions promise is in
 *		read/scan.h and read/groups.h.
 */
#include "postgres.h"

#include "read/groups.h"

const char streamext_scan_name[] = "ContinuousView";
const char streamext_groups_name[] = "ContinuousViewGroups";

bool
streamext_scan_reads_view(const CustomScan *scan)
{
	return scan->methods->CustomName == streamext_scan_name || scan->methods->CustomName == streamext_groups_name;
}

void
streamext_scan_plan_store(const ViewScanPlan *from, CustomScan *scan)
{
	scan->custom_private = list_make4(list_make1_oid(from->view), from->keys, from->types, from->strategies);
	scan->custom_exprs = list_concat_copy(from->values, from->bounds);
}

ViewScanPlan
streamext_scan_plan_load(const CustomScan *scan)
{
	ViewScanPlan plan;
	int			 nvalues;

	plan.view = linitial_oid((List *) linitial(scan->custom_private));
	plan.keys = lsecond(scan->custom_private);
	plan.types = lthird(scan->custom_private);
	plan.strategies = lfourth(scan->custom_private);
	nvalues = list_length(plan.keys);
	plan.values = list_truncate(list_copy(scan->custom_exprs), nvalues);
	plan.bounds = list_copy_tail(scan->custom_exprs, nvalues);
	return plan;
}

List *
streamext_groups_plan_store(const GroupsPlan *plan)
{
	List *groups = list_make5(list_make2_int(plan->order, plan->plain), plan->keys, plan->key_operators,
							  plan->key_collations, plan->panes);

	groups = lappend(lappend(lappend(groups, plan->pane_columns), plan->pane_operators), plan->pane_collations);
	groups = lappend(lappend(groups, plan->pane_quals), plan->key_quals);
	return lappend(lappend(lappend(groups, plan->kinds), plan->numbers), plan->functions);
}

GroupsPlan
streamext_groups_plan_load(const List *stored)
{
	GroupsPlan plan;
	int		   i = 0;

	plan.order = linitial_int(list_nth(stored, i));
	plan.plain = lsecond_int(list_nth(stored, i++));
	plan.keys = list_nth(stored, i++);
	plan.key_operators = list_nth(stored, i++);
	plan.key_collations = list_nth(stored, i++);
	plan.panes = list_nth(stored, i++);
	plan.pane_columns = list_nth(stored, i++);
	plan.pane_operators = list_nth(stored, i++);
	plan.pane_collations = list_nth(stored, i++);
	plan.pane_quals = list_nth(stored, i++);
	plan.key_quals = list_nth(stored, i++);
	plan.kinds = list_nth(stored, i++);
	plan.numbers = list_nth(stored, i++);
	plan.functions = list_nth(stored, i++);
	return plan;
}
