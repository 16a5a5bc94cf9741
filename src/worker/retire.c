/*
 * worker/retire.c
 *		The end of what views held before they were begun anew: the exchange for readers (shared/view_slot.c), and later their slices in
 *		history.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "durable/checkpoint.h"
#include "durable/history.h"
#include "worker/retire.h"

#define RETAIN_TIDY_MS 10000

void
streamext_views_retire(Worker *w)
{
	bool	  any = false;
	ListCell *lc;

	if (!w->shard.attached || w->reading.pending)
		return;
	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		if (v->slot->id.retained_slot == 0 || v->fold == NULL || v->paused || v->behind ||
			v->slot->counted.npositions < w->shard.slot->counted.npartitions)
			continue;
		streamext_view_retire(v->slot);
		v->retired_at = GetCurrentTimestamp();
		any = true;
	}
	if (any)
		streamext_checkpoint_note(&w->shard);
}

void
streamext_views_tidy(Worker *w, TimestampTz now)
{
	ListCell *lc;

	foreach (lc, w->shard.views)
	{
		WorkerView *v = lfirst(lc);

		/* a checkpoint from before would go on with the former state */
		if (v->retired_at == 0 || v->slot->checkpoint_at < v->retired_at ||
			!TimestampDifferenceExceeds(v->retired_at, now, RETAIN_TIDY_MS))
			continue;
		v->retired_at = 0;
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		streamext_history_tidy(v->slot);
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(w->round_cxt);
	}
}

TimestampTz
streamext_views_tidy_deadline(const Worker *w, TimestampTz now)
{
	TimestampTz next = DT_NOEND;
	ListCell   *lc;

	foreach (lc, w->shard.views)
	{
		const WorkerView *v = lfirst(lc);

		if (v->retired_at != 0)
			next = Min(next, Max(TimestampTzPlusMilliseconds(v->retired_at, RETAIN_TIDY_MS + 1),
								 TimestampTzPlusMilliseconds(now, RETAIN_TIDY_MS / 10)));
	}
	return next;
}
