/*
 * view/chain.c
 *		Streams that views put rows into. What the functions promise is in view/chain.h.
 */
#include "base/streamext.h"

#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"

#include "base/own_table.h"
#include "stream/definition.h"
#include "view/reads.h"
#include "view/chain.h"
#include "view/compile.h"
#include "view/dependents.h"
#include "view/inner.h"
#include "view/union.h"

/* InvalidOid: the table has another name, or is no more. */
static Oid
chain_find_target(const char *name)
{
	List *names = compat_name_list(name);

	return RangeVarGetRelid(makeRangeVarFromNameList(names), NoLock, true);
}

/* The continuous views that read the stream; that of a view over another one is read by this view alone. */
static List *
chain_views(Oid stream)
{
	List	 *views = NIL;
	ListCell *lc;
	bool	  several;

	if (get_rel_relkind(stream) == RELKIND_VIEW)
		return list_make1_oid(stream);
	foreach (lc, streamext_view_dependents(stream))
		if (streamext_view_options(lfirst_oid(lc)).continuous &&
			streamext_view_reads(lfirst_oid(lc), AccessShareLock, &several) == stream)
			views = lappend_oid(views, lfirst_oid(lc));
	return views;
}

List *
streamext_chain_targets(Oid stream, bool *any)
{
	List	 *targets = NIL;
	ListCell *lc;

	*any = false;
	foreach (lc, chain_views(stream))
	{
		ContinuousViewOptions options = streamext_view_options(lfirst_oid(lc));
		List				 *outers = streamext_view_outers(lfirst_oid(lc));
		Oid					  target = options.into != NULL ? chain_find_target(options.into) : InvalidOid;

		*any = *any || options.into != NULL || outers != NIL;
		if (get_rel_relkind(target) == RELKIND_FOREIGN_TABLE && streamext_stream_kind(target) != NULL)
			targets = list_append_unique_oid(targets, target);
		targets = list_concat_unique_oid(targets, outers);
	}
	if (get_rel_relkind(stream) == RELKIND_FOREIGN_TABLE)
		targets = list_concat_unique_oid(targets, streamext_union_views(stream));
	*any = *any || targets != NIL;
	return targets;
}

void
streamext_chain_check(Oid view, Oid stream, Oid target)
{
	List	 *reached = streamext_view_outers(view);
	ListCell *lc;
	bool	  any;

	if (get_rel_relkind(target) == RELKIND_FOREIGN_TABLE)
		reached = lappend_oid(reached, target);
	if (reached == NIL)
		return;
	/* Else two could close a circle together, neither of which sees the other's view. */
	LockRelationOid(streamext_control_table("into_position"), ShareUpdateExclusiveLock);
	foreach (lc, reached) /* grows */
	{
		if (lfirst_oid(lc) == stream)
			ereport(
				ERROR,
				(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
				 errmsg("%s of view \"%s\" closes a circle",
						get_rel_relkind(target) == RELKIND_FOREIGN_TABLE ? "streamext.into" : "the definition",
						get_rel_name(view)),
				 target == stream
					 ? errdetail("The view reads stream \"%s\" itself.", get_rel_name(stream))
					 : errdetail("Rows of the view flow on into \"%s\", which the view reads.", get_rel_name(stream)),
				 errhint(
					 "Its own rows would come back to it for ever. Name a stream from which no view leads to \"%s\".",
					 get_rel_name(stream))));
		reached = list_concat_unique_oid(reached, streamext_chain_targets(lfirst_oid(lc), &any));
	}
}
