/*-------------------------------------------------------------------------
 *
 * sql/rebuild.c
 *		A view that is begun anew (streamext.rebuild, CREATE OR REPLACE) shows its former content until it has caught up.
 *
 * The slot that processes know is emptied and counts from the start. What it held, panes in memory and the mark of its slices in
 * history, moves to a second ViewSlot (`retained`) that only readers look at; ViewSlot.id.retained_slot leads to it. Nobody writes
 * it. When the view has caught up with its stream both are exchanged for readers in one step, under the stream's exclusive
 * lock, and the second slot is free again. A view that is begun anew while it catches up keeps the older content.
 *
 * Readers compile the newest definition. They take former content if it is laid out as that wants (CompiledView.layout: the
 * same keys, window and aggregates), which is always so after streamext.rebuild. Else they read what is counted so far.
 *
 * Slices in history: the new ones go to another set of shard numbers (ViewSlot.history.shard), the former are deleted some time
 * after the exchange, when every statement that had noted their mark has its snapshot.
 *
 * Checkpoints hold the former state, as it was last, until the exchange: after a crash the view is at its former round, shows
 * that, and begins anew once more. What its round is to be stands in the table streamext_internal.round.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "sql/commit.h"
#include "base/own_table.h"
#include "access/xact.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "sql/control.h"
#include "sql/lock.h"
#include "stream/definition.h"
#include "durable/journal_base.h"
#include "durable/round.h"
#include "sql/rebuild.h"

PG_FUNCTION_INFO_V1(streamext_rebuild);

/* ---------------------------------------------------------------- streamext.rebuild */

/* Raises if the journal of a source that cannot be replayed does not hold any more what the view has counted. */
static void
rebuild_check_journal(Oid viewoid, Oid stream)
{
	StreamConfig *config = streamext_stream_config(stream);
	bool		  held = true;

	if (config == NULL || OidIsValid(config->from.inner))
		return; /* the inner view gives its windows again */
	for (int shard = 0; shard < Max(list_length(config->from.parts), 1); shard++)
	{
		const StreamConfig *part = streamext_stream_part(config, shard);
		int					view = streamext_find_view(MyDatabaseId, viewoid, shard);

		held = held && (part->connector->replayable ||
						(view >= 0 && streamext_view_is_held(&streamext_shared->views[view], part)));
	}
	if (!held)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("continuous view \"%s\" cannot be counted anew", get_rel_name(viewoid)),
						errdetail("The journal of its stream does not hold any more all that the view has counted."),
						errhint("Drop and create the view to begin with what comes next.")));
}

void
streamext_view_next_round(Oid viewoid, Oid stream)
{
	(void) streamext_view_new_round(viewoid);
	streamext_touch_view(viewoid, stream);
}

Datum
streamext_rebuild(PG_FUNCTION_ARGS)
{
	Oid relid = PG_GETARG_OID(0);
	Oid stream;

	streamext_require_preload();
	stream = streamext_control_view(relid);
	if (!OidIsValid(stream))
		ereport(ERROR, (errcode(ERRCODE_WRONG_OBJECT_TYPE),
						errmsg("\"%s\" is not a continuous view", streamext_lock_relation(relid, AccessShareLock))));
	if (streamext_view_options(relid).into != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("a view with streamext.into cannot be counted anew"),
				 errdetail("Its rows would be written into the table once more."),
				 errhint("Empty the table, then drop and create the view.")));
	rebuild_check_journal(relid, stream);
	streamext_view_next_round(relid, stream);
	PG_RETURN_VOID();
}
