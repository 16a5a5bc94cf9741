/*
 * worker/rights.c
 *		Whether a change of some role's rights matters to this stream's views.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "utils/inval.h"

#include "base/transaction.h"
#include "view/compile.h"
#include "view/rights.h"
#include "worker/worker_private.h"

bool
streamext_worker_rights_due(const Worker *w)
{
	return pg_atomic_read_u32(&streamext_shared->rights) != w->setup.rights_seen;
}

/* A view that has failed may be able to go on; one that runs must not, if its owner may not read what it reads any more. */
static bool
rights_rights_have_changed(Worker *w)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->slot->health.status == VIEW_FAILED ||
			(v->fold != NULL && !streamext_view_has_rights(streamext_fold_view(v->fold), false)))
			return true;
	}
	return false;
}

/*
 * Looks whether it matters to this stream's views that some role's rights have changed; if so, the stream's processes look into the
 * catalogue. Outside transactions.
 */
void
streamext_worker_check_rights(Worker *w)
{
	MemoryContext cxt = CurrentMemoryContext;
	uint32		  rights = pg_atomic_read_u32(&streamext_shared->rights);
	volatile bool changed = true;

	PG_TRY();
	{
		StartTransactionCommand();
		InvalidateSystemCaches();
		changed = rights_rights_have_changed(w);
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		FreeErrorData(streamext_worker_caught(cxt)); /* something is being dropped */
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	if (changed)
	{
		streamext_announce_stream(w->shard.identity.dboid, w->shard.identity.relid, w->shard.identity.shard, false);
		streamext_wake_launcher();
	}
	w->setup.rights_seen = rights;
}
