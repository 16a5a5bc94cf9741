/*
 * export/row_desc.c
 *		The columns of a decoded and evaluated record, as streamext.export_rows gives it and the dialect postgres reads it. What the functions promise
 *		is in export/rows.h and export/plan.h.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "export/rows.h"

void
streamext_export_desc_group(TupleDesc desc, AttrNumber *att, const ExportPlan *plan)
{
	for (int k = 0; k < plan->nkeys; k++)
	{
		const KeySpec *key = &plan->view->keys[plan->keys[k]];

		TupleDescInitEntry(desc, ++*att, psprintf("k%d", k + 1), key->type, key->typmod, 0);
		TupleDescInitEntryCollation(desc, *att, key->collation);
	}
	if (plan->has_at)
		TupleDescInitEntry(desc, ++*att, "at", TIMESTAMPTZOID, -1, 0);
}

TupleDesc
streamext_export_row_desc(const ExportPlan *plan)
{
	int		   n = ROW_FIXED + plan->nkeys + (plan->has_at ? 1 : 0) + plan->ninputs;
	TupleDesc  desc = CreateTemplateTupleDesc(n);
	AttrNumber att = ROW_FIXED;

	TupleDescInitEntry(desc, ROW_TOPIC + 1, "topic", TEXTOID, -1, 0);
	TupleDescInitEntry(desc, ROW_PARTITION + 1, "partition", INT4OID, -1, 0);
	TupleDescInitEntry(desc, ROW_POSITION + 1, "position", INT8OID, -1, 0);
	TupleDescInitEntry(desc, ROW_EVENT_TIME + 1, "event_time", TIMESTAMPTZOID, -1, 0);
	TupleDescInitEntry(desc, ROW_KEPT + 1, "kept", BOOLOID, -1, 0);
	TupleDescInitEntry(desc, ROW_REJECTED + 1, "rejected", BOOLOID, -1, 0);
	streamext_export_desc_group(desc, &att, plan);
	for (int i = 0; i < plan->ninputs; i++)
	{
		Node *expr = (Node *) plan->inputs[i].expr;

		TupleDescInitEntry(desc, ++att, psprintf("i%d", i + 1), exprType(expr), exprTypmod(expr), 0);
		TupleDescInitEntryCollation(desc, att, exprCollation(expr));
	}
	return desc;
}

void
streamext_export_row_columns(StringInfo to, const ExportPlan *plan)
{
	TupleDesc desc = streamext_export_row_desc(plan);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		appendStringInfo(to, "%s%s %s", i > 0 ? ", " : "", NameStr(att->attname),
						 format_type_with_typemod(att->atttypid, att->atttypmod));
		if (OidIsValid(att->attcollation) && att->attcollation != get_typcollation(att->atttypid))
			appendStringInfo(to, " COLLATE %s", generate_collation_name(att->attcollation));
	}
}
