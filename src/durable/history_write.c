/*
 * durable/history_write.c
 *		Sealed panes leave memory for the table streamext_internal.history, exactly once.
 *
 * The worker writes the slices of panes that became sealed, commits, and only then, under the stream's exclusive lock, publishes
 * the mark ViewSlot.history.sealed (all panes up to it are in history) and takes the panes out of memory: in one step for readers,
 * who copy memory and mark under the lock and read slices with a newer snapshot (durable/history_read.c).
 *
 * No transaction is shared with anything else that is durable. The table is the truth about what is sealed: when a view's
 * state is begun or gone on with, the last slice says how far history reaches, and panes up to there are void in memory,
 * from wherever they came. Rows that are read again and fall into such panes count as accepted and are not folded: every
 * row that was delivered before the seal had been folded by then, and one delivered after it is late, for a hopping window's pane
 * is sealed when the last window that holds it is closed: until then rows may come that count in some of its windows. Should the server
 * crash before the slices' commit has reached the disk, memory is lost as well and the panes are made again from the
 * source. WAL is ordered, so nothing that was committed after the slices outlives them.
 *
 * Slices are known by a hash of the view's definition and of the source's; those of another one are deleted before any is
 * written. The primary key keeps a stale worker from writing a pane twice. There is no other row that would have
 * to be updated: each slice carries the totals through its pane, and the floor of retention.
 *
 * Windows that tumble or hop and calendar buckets are kept so; not what slides over now, nor sessions, nor views without a
 * window, whose panes are never sealed.
 */
#include "base/streamext.h"

#include "base/transaction.h"
#include "access/table.h"
#include "access/xact.h"
#include "common/int.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/fault.h"
#include "durable/history_slice.h"
#include "shared/shard.h"

#define HISTORY_TRANSACTION_BYTES (16 * 1024 * 1024) /* or one pane */
#define HISTORY_RETRY_MS 10000

/* Leading panes of a view that are being moved. */
typedef struct SealedView
{
	WorkerView	 *v;
	int			  npanes;
	int64		  sealed;
	TimestampTz	  until;
	HistoryTotals written; /* what the slot's will be */
	HistoryTotals deleted;
} SealedView;

static TimestampTz history_retry_at = 0;
static TimestampTz history_trouble_at = 0; /* noted in the catalogue; 0: it is over */

/* ---------------------------------------------------------------- start */

static int
history_count_through(const ViewState *state, int64 id)
{
	int n = 0;

	while (n < state->npanes && state->panes[n]->id <= id)
		n++;
	return n;
}

/* The panes that are leaving, as an array of their own. */
static Pane **
history_leaving(const ViewState *state, int npanes)
{
	Pane **panes = palloc_extended(sizeof(Pane *) * Max(npanes, 1), MCXT_ALLOC_HUGE);

	if (npanes > 0)
		memcpy(panes, state->panes, sizeof(Pane *) * npanes);
	return panes;
}

void
streamext_history_start(Shard *shard_of, WorkerView *v)
{
	ViewSlot   *slot = v->slot;
	HistoryKept kept;
	int			npanes;
	Pane	  **panes;

	if (!OidIsValid(streamext_history_relation()))
		return;
	streamext_history_choose(shard_of, v, &kept);
	npanes = history_count_through(&slot->counted.state, kept.pane);
	panes = history_leaving(&slot->counted.state, npanes);
	shard_of->does->forget_panes(v, panes, npanes);
	streamext_stream_lock_exclusive(&streamext_shared->streams[slot->id.stream]);
	slot->history.shard = kept.shard;
	if (slot->history.number != kept.key)
	{
		slot->history.number = kept.key;
		slot->history.covered = kept.pane;
	}
	if (kept.found)
	{
		slot->history.sealed = kept.pane;
		slot->history.sealed_until = streamext_window_pane_end(&v->view->window, kept.pane);
		slot->history.floor = Max(slot->history.floor, kept.last.floor);
		slot->history.written = kept.last.total;
		slot->history.deleted = kept.deleted;
	}
	streamext_state_unlink_panes(&slot->counted.state, npanes);
	LWLockRelease(slot->counted.state.lock);
	streamext_state_free_panes(panes, npanes);
	pfree(panes);
}

/* ---------------------------------------------------------------- which panes */

static bool
seal_is_sealed(const CompiledView *view, const Pane *pane, TimestampTz watermark)
{
	TimestampTz end = streamext_window_last_end(&view->window, pane->id);

	return !pg_add_s64_overflow(end, view->options.lateness, &end) && watermark >= end;
}

static Size
seal_pane_bytes(const Pane *pane)
{
	Size bytes = 0;

	for (const StateBlock *block = pane->entries; block != NULL; block = block->next)
		bytes += block->used;
	for (const StateBlock *block = pane->blobs; block != NULL; block = block->next)
		bytes += block->used;
	return bytes;
}

/* Leading panes of the view that are sealed, as long as there are less than *bytes of them. True: there are more. */
static bool
seal_gather(Shard *shard, WorkerView *v, SealedView *sealed, Size *bytes)
{
	const CompiledView *view = v->view;
	const ViewState	   *state = &v->slot->counted.state;
	TimestampTz			watermark = v->behind ? v->watermark : shard->slot->counted.watermark;

	memset(sealed, 0, sizeof(SealedView));
	sealed->v = v;
	if (v->paused || v->slot->history.number == 0 || !streamext_window_has_ends(&view->window) ||
		watermark == DT_NOBEGIN)
		return false;
	for (int i = 0; i < state->npanes && seal_is_sealed(view, state->panes[i], watermark); i++)
	{
		if (*bytes == 0)
			return true;
		*bytes -= Min(*bytes, seal_pane_bytes(state->panes[i]) + sizeof(SliceHeader));
		sealed->npanes++;
	}
	return false;
}

/* ---------------------------------------------------------------- writing */

/* Slices beyond retention; the newest stays, for it tells how far history reaches. */
static void
seal_delete_expired(SealedView *sealed)
{
	ViewSlot		   *slot = sealed->v->slot;
	const CompiledView *view = sealed->v->view;
	TimestampTz			from = slot->history.floor;
	int64				pane;

	if (from == DT_NOBEGIN ||
		(view->window.kind == WINDOW_HOP && pg_sub_s64_overflow(from, view->window.size, &from)) ||
		TIMESTAMP_NOT_FINITE(from) || !IS_VALID_TIMESTAMP(from))
		return;
	pane = Min(streamext_window_pane_by(&view->window, from), sealed->sealed);
	streamext_history_expire(slot, pane, &sealed->deleted);
}

static void
seal_write_view(HistoryWriter *writer, SealedView *sealed)
{
	ViewSlot		   *slot = sealed->v->slot;
	const CompiledView *view = sealed->v->view;
	MemoryContext		old = MemoryContextSwitchTo(writer->cxt);

	sealed->written = slot->history.written;
	sealed->deleted = slot->history.deleted;
	sealed->sealed = slot->history.sealed;
	sealed->until = slot->history.sealed_until;
	for (int i = 0; i < sealed->npanes; i++)
	{
		const Pane *pane = slot->counted.state.panes[i];

		if (pane->nrows == 0) /* never published */
			continue;
		streamext_slices_write(writer, view, slot, pane, &sealed->written);
		sealed->sealed = pane->id;
		sealed->until = streamext_window_pane_end(&view->window, pane->id);
		MemoryContextReset(writer->cxt);
	}
	MemoryContextSwitchTo(old);
	if (sealed->written.panes > slot->history.written.panes)
	{
		CommandCounterIncrement();
		seal_delete_expired(sealed);
	}
}

/* All slices, in a transaction. False: somebody has locked the table; nothing was written. */
static bool
seal_write(List *views)
{
	HistoryWriter writer;
	Oid			  relid;
	bool		  available;
	ListCell	 *lc;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	relid = streamext_history_relation();
	available = OidIsValid(relid) && ConditionalLockRelationOid(relid, RowExclusiveLock);
	if (available)
	{
		writer.table = table_open(relid, NoLock);
		writer.indexes = CatalogOpenIndexes(writer.table);
		writer.cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext history", ALLOCSET_DEFAULT_SIZES);
		foreach (lc, views)
			seal_write_view(&writer, lfirst(lc));
		MemoryContextDelete(writer.cxt);
		CatalogCloseIndexes(writer.indexes);
		table_close(writer.table, NoLock);
	}
	PopActiveSnapshot();
	STREAMEXT_FAULT("history-before-commit");
	CommitTransactionCommand();
	STREAMEXT_FAULT("history-after-commit");
	return available;
}

/* From a catch block: the log says why, and the catalogue. */
static void
seal_failed(const Shard *shard, MemoryContext cxt)
{
	ErrorData *error = streamext_worker_caught(cxt);
	char	   message[STREAMEXT_MAX_MESSAGE];

	ereport(LOG, (errmsg("sealed panes could not be written to streamext_internal.history, they stay in memory: %s",
						 streamext_error_text(error))));
	streamext_clip_format(message, sizeof(message), "closed windows could not be written and stay in memory: %s",
						  error->message);
	if (!shard->catchup)
		history_trouble_at = streamext_stream_note_trouble(shard->slot, message);
	FreeErrorData(error);
}

/* The same; trouble is told, and false. */
static bool
seal_try_write(const Shard *shard, List *views)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool written = false;

	PG_TRY();
	{
		written = seal_write(views);
		streamext_stream_trouble_over(shard->slot, &history_trouble_at);
	}
	PG_CATCH();
	{
		seal_failed(shard, cxt);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return written;
}

/* ---------------------------------------------------------------- publishing */

/* In one step for readers: the marks move and the panes are gone from memory. */
static void
seal_publish(Shard *shard, List *views)
{
	Pane   ***leaving = palloc(sizeof(Pane **) * list_length(views));
	ListCell *lc;

	foreach (lc, views)
	{
		SealedView *sealed = lfirst(lc);
		Pane	  **panes = history_leaving(&sealed->v->slot->counted.state, sealed->npanes);

		shard->does->forget_panes(sealed->v, panes, sealed->npanes);
		leaving[foreach_current_index(lc)] = panes;
	}
	streamext_stream_lock_exclusive(shard->slot);
	foreach (lc, views)
	{
		SealedView *sealed = lfirst(lc);
		ViewSlot   *slot = sealed->v->slot;

		slot->history.sealed = sealed->sealed;
		slot->history.sealed_until = sealed->until;
		slot->history.written = sealed->written;
		slot->history.deleted = sealed->deleted;
		streamext_state_unlink_panes(&slot->counted.state, sealed->npanes);
	}
	LWLockRelease(shard->slot->lock);
	foreach (lc, views)
	{
		Pane **panes = leaving[foreach_current_index(lc)];

		streamext_state_free_panes(panes, ((SealedView *) lfirst(lc))->npanes);
		pfree(panes);
	}
	pfree(leaving);
}

TimestampTz
streamext_history_retry_at(void)
{
	return history_retry_at != 0 ? history_retry_at : DT_NOEND;
}

bool
streamext_history_seal(Shard *shard)
{
	Size		bytes = HISTORY_TRANSACTION_BYTES;
	List	   *views = NIL;
	bool		more = false;
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *lc;

	if (now < history_retry_at)
		return false;
	history_retry_at = 0;
	foreach (lc, shard->views)
	{
		WorkerView *v = lfirst(lc);
		SealedView *sealed;

		if (v->fold == NULL)
			continue;
		sealed = palloc(sizeof(SealedView));
		more = seal_gather(shard, v, sealed, &bytes) || more;
		if (sealed->npanes > 0)
			views = lappend(views, sealed);
		else
			pfree(sealed);
	}
	if (views == NIL)
	{
		streamext_stream_trouble_over(shard->slot, &history_trouble_at); /* nothing is left to be written */
		return false;
	}
	if (!seal_try_write(shard, views))
	{
		history_retry_at = TimestampTzPlusMilliseconds(now, HISTORY_RETRY_MS);
		more = false;
	}
	else
		seal_publish(shard, views);
	list_free_deep(views);
	return more;
}
