/*
 * durable/history_kept.c
 *		Which slices of history stay: those of a view's definition and source when its fold starts, those within retention, none of what was dropped.
 *		What the functions promise is in durable/history.h.
 *
 * The table is the truth about what is sealed (durable/history_write.c): when a view's state is begun or gone on with, the last slice says how far
 * history reaches, and panes up to there are void in memory.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"

#include "base/content.h"
#include "base/identity.h"
#include "base/own_table.h"
#include "durable/flow_position.h"
#include "durable/history.h"
#include "shared/shard.h"

/* ---------------------------------------------------------------- deleting */

/* One of the statements below on streamext_internal.history; the number of rows. Needs a snapshot. */
static uint64
history_delete(const char *sql, Oid view, int shard, int64 pane)
{
	IdentityScope own;
	Oid			  types[3] = { OIDOID, INT4OID, INT8OID };
	Datum		  values[3] = { ObjectIdGetDatum(view), Int32GetDatum(shard), Int64GetDatum(pane) };
	int			  rc;
	uint64		  n;

	own = streamext_own_begin();
	rc = SPI_execute_with_args(streamext_own_sql(sql), 3, types, values, NULL, false, 0);
	if (rc != SPI_OK_DELETE)
		elog(ERROR, "could not delete from streamext_internal.history: %s", SPI_result_code_string(rc));
	n = SPI_processed;
	streamext_own_end(own);
	return n;
}

#define HISTORY_DELETE \
	"DELETE FROM streamext_internal.history WHERE view OPERATOR(pg_catalog.=) $1 AND shard OPERATOR(pg_catalog."

/* Of a shard, panes below `pane`. */
static uint64
history_delete_panes(Oid view, int shard, int64 pane)
{
	return history_delete(HISTORY_DELETE "=) $2 AND pane OPERATOR(pg_catalog.<) $3", view, shard, pane);
}

/* Of a shard, all; PG_INT64_MAX is no pane's id. */
static void
history_delete_shard(Oid view, int shard)
{
	history_delete_panes(view, shard, PG_INT64_MAX);
}

/* Shards from `shard` on. */
static void
history_delete_shards_from(Oid view, int shard)
{
	history_delete(HISTORY_DELETE ">=) $2 AND pane OPERATOR(pg_catalog.<) $3", view, shard, PG_INT64_MAX);
}

void
streamext_history_forget_dropped(void)
{
	Oid view = InvalidOid;

	streamext_content_forget_dropped();
	streamext_flow_forget_former();
	if (!OidIsValid(streamext_history_relation()))
		return;
	while (OidIsValid(view = streamext_history_next_view(view)))
		if (!streamext_view_options(view).continuous)
			history_delete_shards_from(view, 0);
}

/* What retention has deleted before the first slice that is there. */
static HistoryTotals
history_deleted_before(const SliceHeader *first)
{
	HistoryTotals deleted = first->total;

	deleted.panes -= first->pane.panes;
	deleted.groups -= first->pane.groups;
	deleted.bytes -= first->pane.bytes;
	return deleted;
}

void
streamext_history_expire(const ViewSlot *slot, int64 pane, HistoryTotals *deleted)
{
	SliceHeader first;
	uint64		definition;

	if (history_delete_panes(slot->id.viewoid, slot->history.shard, pane) == 0 ||
		!streamext_history_edge(slot->id.viewoid, slot->history.shard, false, &first, &pane, &definition))
		return;
	*deleted = history_deleted_before(&first);
}

/* ---------------------------------------------------------------- at a fold's start */

static uint64
history_key(const CompiledView *view, const ViewSlot *slot, uint64 source)
{
	uint64 key = hash_combine64(view->definition, source);
	char  *content;

	/* After pg_upgrade: PostgreSQL's own states, and how they are compressed, are of its version. */
	key = hash_combine64(key, PG_VERSION_NUM / 10000);
	if (slot->counted.round > 0)
		key = hash_combine64(key, (uint64) slot->counted.round);
	content = psprintf("history\n" UINT64_FORMAT " " UINT64_FORMAT " %d " INT64_FORMAT, view->definition, source,
					   PG_VERSION_NUM / 10000, slot->counted.round);
	return streamext_content_number(view->relid, content, strlen(content), NULL, key);
}

HistoryTotals
streamext_history_kept(Oid view, int shard, uint64 key)
{
	HistoryTotals kept = { 0 };
	SliceHeader	  last;
	SliceHeader	  first;
	HistoryTotals deleted;
	int64		  pane;
	uint64		  definition;

	if (!OidIsValid(streamext_history_relation()) ||
		!streamext_history_edge(view, shard, true, NULL, &pane, &definition) || definition != key ||
		!streamext_history_edge(view, shard, true, &last, &pane, &definition) ||
		!streamext_history_edge(view, shard, false, &first, &pane, &definition))
		return kept;
	deleted = history_deleted_before(&first);
	kept.panes = last.total.panes - deleted.panes;
	kept.groups = last.total.groups - deleted.groups;
	kept.bytes = last.total.bytes - deleted.bytes;
	return kept;
}

/* Of a shard, all; a look costs less than a DELETE of nothing. */
static void
history_clear_shard(Oid view, int shard)
{
	int64  pane;
	uint64 definition;

	if (streamext_history_edge(view, shard, true, NULL, &pane, &definition))
		history_delete_shard(view, shard);
}

/* Of shards that there are no more, in either set. */
static void
history_delete_former_shards(Oid view, int shards)
{
	for (int shard = shards; shard < STREAMEXT_MAX_SHARDS; shard++)
		for (int set = 0; set < HISTORY_SETS; set++)
			history_clear_shard(view, HISTORY_SHARD_OF(shard, set));
}

/* What readers may still want from the slot's view besides its own slices; -1: nothing. */
static int
history_retained_shard(const ViewSlot *slot)
{
	const ViewSlot *retained = slot->id.retained_slot > 0 ? &streamext_shared->views[slot->id.retained_slot - 1] : NULL;

	return retained != NULL && retained->history.number != 0 ? retained->history.shard : -1;
}

/* The set where slices of this key are, with the last one of them, or else one that nothing stands in the way in. */
static int
history_choose_set(const CompiledView *view, const ViewSlot *slot, uint64 key, bool *found, SliceHeader *last,
				   int64 *pane)
{
	int	   retained = history_retained_shard(slot);
	uint64 definition;

	for (int set = 0; set < HISTORY_SETS; set++)
	{
		int shard = HISTORY_SHARD_OF(slot->id.shard, set);

		*found = streamext_history_edge(view->relid, shard, true, NULL, pane, &definition) && definition == key &&
				 streamext_history_edge(view->relid, shard, true, last, pane, &definition) &&
				 last->format == HISTORY_FORMAT && last->state_size == view->state_size;
		if (*found)
			return shard;
	}
	return HISTORY_SHARD_OF(slot->id.shard, retained == HISTORY_SHARD_OF(slot->id.shard, 0) ? 1 : 0);
}

/* Of sets that are neither `shard`'s nor retained. */
static void
history_delete_others(Oid view, const ViewSlot *slot, int shard)
{
	for (int set = 0; set < HISTORY_SETS; set++)
	{
		int other = HISTORY_SHARD_OF(slot->id.shard, set);

		if (other != shard && other != history_retained_shard(slot))
			history_clear_shard(view, other);
	}
}

void
streamext_history_tidy(const ViewSlot *slot)
{
	if (OidIsValid(streamext_history_relation()) && slot->history.number != 0)
		history_delete_others(slot->id.viewoid, slot, slot->history.shard);
}

void
streamext_history_choose(const Shard *shard, const WorkerView *v, HistoryKept *kept)
{
	const ViewSlot	   *slot = v->slot;
	const CompiledView *view = v->view;
	SliceHeader			first;
	int64				unused;
	uint64				definition;

	memset(kept, 0, sizeof(*kept));
	kept->key = history_key(view, slot, shard->slot->counted.source);
	if (slot->id.shard == 0)
		history_delete_former_shards(view->relid, shard->config->workers);
	kept->shard = history_choose_set(view, slot, kept->key, &kept->found, &kept->last, &kept->pane);
	history_delete_others(view->relid, slot, kept->shard);
	if (!kept->found)
	{
		history_clear_shard(view->relid, kept->shard);
		kept->pane = PG_INT64_MIN;
	}
	else if (streamext_history_edge(view->relid, kept->shard, false, &first, &unused, &definition))
		kept->deleted = history_deleted_before(&first);
}
