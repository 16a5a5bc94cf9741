/*
 * worker/teller_streams.c
 *		Whether what an alert reads is as new as it was when the alert was evaluated last.
 *
 * After a crash, views begin as the last checkpoint has them and read on from there. An alert that was evaluated of newer rows must not see
 * older ones: it would clear, and fire again. So a new teller draws a ticket of flush from each stream, and evaluates an alert only when the
 * streams behind it have served theirs. A stream that has failed or is paused stays as it is and is waited for by nobody; one whose source is away holds
 * back its alerts, but not who waits for an evaluation.
 */
#include "base/streamext.h"

#include "access/relation.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "shared/shmem.h"
#include "view/reads.h"
#include "view/compile.h"
#include "worker/teller_streams.h"

#define TELLER_SETTLING_MS 15000

typedef struct TellerStream
{
	Oid	   relid;
	int	   shard;
	uint64 ticket; /* 0: not drawn yet */
	bool   served;
} TellerStream;

static List *teller_streams = NIL; /* in TopMemoryContext, as long as the process */

typedef struct TellerFind
{
	List *seen; /* views: one may come from itself by CREATE OR REPLACE, and up to PostgreSQL 15 its rule names it */
	List *streams;
} TellerFind;

static void teller_find_in(TellerFind *find, Oid view);

static bool
teller_find_walker(Node *node, TellerFind *find)
{
	if (node == NULL)
		return false;
	if (IsA(node, RangeTblEntry))
	{
		RangeTblEntry *rte = (RangeTblEntry *) node;

		if (rte->rtekind == RTE_RELATION && get_rel_relkind(rte->relid) == RELKIND_VIEW)
			teller_find_in(find, rte->relid);
		return false;
	}
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, teller_find_walker, find, QTW_EXAMINE_RTES_BEFORE);
	return expression_tree_walker(node, teller_find_walker, find);
}

static void
teller_find_in(TellerFind *find, Oid view)
{
	Relation rel;

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (list_member_oid(find->seen, view))
		return;
	find->seen = lappend_oid(find->seen, view);
	rel = try_relation_open(view, AccessShareLock);
	if (rel == NULL)
		return;
	if (rel->rd_rel->relkind == RELKIND_VIEW && streamext_view_options(view).continuous)
	{
		Oid stream = streamext_view_stream(view);

		if (OidIsValid(stream))
			find->streams = list_append_unique_oid(find->streams, stream);
	}
	else if (rel->rd_rel->relkind == RELKIND_VIEW)
		(void) query_tree_walker(get_view_query(rel), teller_find_walker, find, QTW_EXAMINE_RTES_BEFORE);
	relation_close(rel, NoLock);
}

List *
streamext_teller_streams(Oid view)
{
	TellerFind find = { NIL };

	teller_find_in(&find, view);
	return find.streams;
}

static TellerStream *
teller_stream(Oid relid, int shard)
{
	MemoryContext old;
	TellerStream *stream;
	ListCell	 *lc;

	foreach (lc, teller_streams)
	{
		stream = lfirst(lc);
		if (stream->relid == relid && stream->shard == shard)
			return stream;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	stream = palloc0(sizeof(TellerStream));
	stream->relid = relid;
	stream->shard = shard;
	teller_streams = lappend(teller_streams, stream);
	MemoryContextSwitchTo(old);
	return stream;
}

/* Of one shard. */
static TellerSettled
teller_slot_settled(StreamSlot *slot, TellerStream *stream)
{
	StreamState state;

	if (stream->served)
		return TELLER_SETTLED;
	if (stream->ticket != 0 && pg_atomic_read_u64(&slot->ask.flush_done) >= stream->ticket)
	{
		stream->served = true;
		return TELLER_SETTLED;
	}
	streamext_stream_lock_shared(slot);
	state = slot->status.state;
	LWLockRelease(slot->lock);
	if (STREAMEXT_STATE_FAILED(state) || state == STREAM_PAUSED)
		return TELLER_SETTLED;
	/* as flush: drawn when all views are known */
	if (stream->ticket == 0 &&
		pg_atomic_read_u32(&slot->ask.generation_seen) == pg_atomic_read_u32(&slot->ask.generation))
	{
		stream->ticket = pg_atomic_add_fetch_u64(&slot->ask.flush_requested, 1);
		streamext_wake_worker(slot);
	}
	return state == STREAM_STALLED || state == STREAM_WAITING || state == STREAM_FULL ? TELLER_HELD_UP
																					  : TELLER_SETTLING;
}

/* Who waits for an evaluation does not wait for a stream with a long way to go, which need not be his own: his own he has flushed. */
static TellerSettled
teller_bound(TellerSettled settled)
{
	static TimestampTz started = 0;

	if (started == 0)
		started = GetCurrentTimestamp();
	if (settled == TELLER_SETTLING && TimestampDifferenceExceeds(started, GetCurrentTimestamp(), TELLER_SETTLING_MS))
		return TELLER_HELD_UP;
	return settled;
}

TellerSettled
streamext_teller_settled(List *streams)
{
	StreamSlot	 *slots[STREAMEXT_MAX_SHARDS];
	TellerSettled settled = TELLER_SETTLED;
	ListCell	 *lc;

	foreach (lc, streams)
	{
		int n = 0;

		LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
		for (int i = 0; i < streamext_shared->nstreams && n < STREAMEXT_MAX_SHARDS; i++)
			if (streamext_shared->streams[i].id.in_use && streamext_shared->streams[i].id.dboid == MyDatabaseId &&
				streamext_shared->streams[i].id.relid == lfirst_oid(lc))
				slots[n++] = &streamext_shared->streams[i];
		LWLockRelease(streamext_shared->registry_lock);
		if (n == 0)
			settled = Max(settled, TELLER_SETTLING);
		for (int i = 0; i < n; i++)
			settled = Max(settled, teller_slot_settled(slots[i], teller_stream(lfirst_oid(lc), slots[i]->id.shard)));
	}
	return teller_bound(settled);
}
