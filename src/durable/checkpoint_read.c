/*-------------------------------------------------------------------------
 *
 * durable/checkpoint_read.c
 *		Readers without a worker: views as the last complete checkpoint has them, in private memory.
 *
 * On a physical standby there are no workers and shared memory is empty; on any server it is so from its start until the worker
 * has restored a view, or has none to run in. Then a reader takes the table that the worker would start from: it sees all of the
 * newest checkpoint whose position row its snapshot sees, because rows are committed before it and in order. History is read up
 * to the mark of that moment, which the position row holds, so each pane is seen once and all is of the row's positions.
 *
 * What has been decoded is kept as long as the checkpoint is the last one, and dropped when it takes more than
 * READ_CACHE_BYTES. To find that out the log has to be looked through (it has no index), so that is done for at most a tenth of
 * the time: an answer may be older than the last checkpoint by ten times what a look takes, and READ_FRESH_MAX at most.
 *
 * The table's lock comes before the snapshot (a compaction puts the live rows into a new file, where an older snapshot does
 * not see them) and is given back with the reader: replay on a standby must not wait for an open transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/reloptions.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_foreign_table.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "durable/checkpoint_state.h"
#include "durable/checkpoint_read.h"
#include "durable/checkpoint_seed.h"
#include "durable/into_position.h"
#include "stream/definition.h"
#include "view/union.h"

#define READ_CACHE_BYTES ((Size) 256 * 1024 * 1024)
#define READ_FRESH_FACTOR 10
#define READ_FRESH_MAX USECS_PER_SEC

/* A view that has been decoded. */
typedef struct KeptView
{
	Oid			  viewoid;
	MemoryContext cxt; /* of it and the state */
	ViewState	 *state;
} KeptView;

/* The last checkpoint of a stream and shard. */
typedef struct KeptShard
{
	Oid					stream;
	int					shard;
	uint64				look;	  /* when it was found to be the last one */
	MemoryContext		cxt;	  /* of the position and the views */
	CheckpointPosition *position; /* NULL: there is none */
	List			   *views;	  /* of KeptView */
	List			   *missing;  /* OIDs of views that this look has found nothing of */
} KeptShard;

static MemoryContext read_cxt = NULL; /* of all that is kept */
static List			*read_shards = NIL;
static uint64		 read_looks = 0;
static TimestampTz	 read_fresh_until = 0; /* what is kept need not be looked after before */

struct CheckpointReader
{
	MemoryContext	 cxt;
	Relation		 rel; /* NULL: not looked at */
	Snapshot		 snapshot;
	CheckpointIndex *index;	  /* of the whole log */
	bool			 missing; /* there is no log */
	uint64			 look;

	/* of the stream last asked for */
	Oid	   stream;
	int	   shard;
	uint64 source;
	bool   replayable;
};

void
streamext_checkpoint_read_forget(void)
{
	if (read_cxt == NULL)
		return;
	MemoryContextDelete(read_cxt);
	read_cxt = NULL;
	read_shards = NIL;
	read_fresh_until = 0;
}

int
streamext_checkpoint_shards(Oid stream)
{
	HeapTuple	  tuple = SearchSysCache1(FOREIGNTABLEREL, ObjectIdGetDatum(stream));
	const char	 *workers;
	bool		  isnull;
	Datum		  options;
	StreamConfig *config;

	if (!HeapTupleIsValid(tuple))
	{
		config = get_rel_relkind(stream) == RELKIND_VIEW ? streamext_stream_config(stream) : NULL;
		return config == NULL ? 0 : config->workers;
	}
	options = SysCacheGetAttr(FOREIGNTABLEREL, tuple, Anum_pg_foreign_table_ftoptions, &isnull);
	workers = isnull ? NULL : streamext_option(untransformRelOptions(options), "workers");
	ReleaseSysCache(tuple);
	return workers == NULL ? 1 : Min(Max(atoi(workers), 1), STREAMEXT_MAX_SHARDS);
}

/* ---------------------------------------------------------------- the log */

CheckpointReader *
streamext_checkpoint_reader(void)
{
	MemoryContext cxt =
		AllocSetContextCreate(CurrentMemoryContext, "streamext checkpoint reader", ALLOCSET_DEFAULT_SIZES);
	CheckpointReader *reader = MemoryContextAllocZero(cxt, sizeof(CheckpointReader));

	reader->cxt = cxt;
	if (read_cxt == NULL)
		read_cxt = AllocSetContextCreate(TopMemoryContext, "streamext checkpoints", ALLOCSET_SMALL_SIZES);
	return reader;
}

void
streamext_checkpoint_reader_end(CheckpointReader *reader)
{
	if (reader->rel != NULL)
	{
		UnregisterSnapshot(reader->snapshot);
		table_close(reader->rel, AccessShareLock);
	}
	MemoryContextDelete(reader->cxt);
	if (read_cxt != NULL && MemoryContextMemAllocated(read_cxt, true) > READ_CACHE_BYTES)
		streamext_checkpoint_read_forget();
}

/* Looks through the log, if that has not been done. False: there is none. */
static bool
reader_look(CheckpointReader *reader)
{
	TimestampTz	  begin = GetCurrentTimestamp();
	MemoryContext old;

	if (reader->rel != NULL || reader->missing)
		return !reader->missing;
	reader->rel = streamext_checkpoint_log_wait(AccessShareLock);
	if (reader->rel == NULL)
	{
		reader->missing = true;
		return false;
	}
	old = MemoryContextSwitchTo(reader->cxt);
	/* In parallel mode GetLatestSnapshot is refused, and a catalogue snapshot is as new. */
	reader->snapshot =
		RegisterSnapshot(IsInParallelMode() ? GetCatalogSnapshot(RelationGetRelid(reader->rel)) : GetLatestSnapshot());
	reader->index = streamext_checkpoint_log_index(reader->rel, reader->snapshot, InvalidOid, 0);
	reader->look = ++read_looks;
	read_fresh_until = GetCurrentTimestamp();
	read_fresh_until += Min((read_fresh_until - begin) * READ_FRESH_FACTOR, READ_FRESH_MAX);
	MemoryContextSwitchTo(old);
	return true;
}

/* The part of the index that is of a stream and shard; its refs are not a copy. */
static CheckpointIndex
reader_range(const CheckpointReader *reader, Oid stream, int shard)
{
	const CheckpointRef *refs = reader->index->refs;
	int					 first = 0;
	int					 end;

	while (first < reader->index->n && (refs[first].stream != stream || refs[first].shard != shard))
		first++;
	for (end = first; end < reader->index->n && refs[end].stream == stream && refs[end].shard == shard; end++)
		;
	return (CheckpointIndex){ .n = end - first, .capacity = end - first, .refs = reader->index->refs + first };
}

/* ---------------------------------------------------------------- streams */

static KeptShard *
read_find_shard(Oid stream, int shard)
{
	ListCell *lc;

	foreach (lc, read_shards)
	{
		KeptShard *kept = lfirst(lc);

		if (kept->stream == stream && kept->shard == shard)
			return kept;
	}
	return NULL;
}

static bool
read_is_same(const CheckpointPosition *a, const CheckpointPosition *b)
{
	if (a == NULL || b == NULL)
		return a == b;
	return a->seq == b->seq && a->head.taken_at == b->head.taken_at;
}

/* Takes the place of what was kept before. The position is in cxt. */
static KeptShard *
read_keep(Oid stream, int shard, CheckpointPosition *position, MemoryContext cxt)
{
	KeptShard	 *kept = read_find_shard(stream, shard);
	MemoryContext old = MemoryContextSwitchTo(read_cxt);

	if (kept == NULL)
	{
		kept = palloc0(sizeof(KeptShard));
		kept->stream = stream;
		kept->shard = shard;
		read_shards = lappend(read_shards, kept);
	}
	else
	{
		MemoryContextDelete(kept->cxt);
		list_free(kept->views);
		kept->views = NIL;
	}
	MemoryContextSetParent(cxt, read_cxt);
	kept->cxt = cxt;
	kept->position = position;
	MemoryContextSwitchTo(old);
	return kept;
}

/* NULL: there is no log. */
static KeptShard *
reader_shard(CheckpointReader *reader, Oid stream, int shard)
{
	KeptShard		   *kept = read_find_shard(stream, shard);
	CheckpointPosition *position;
	CheckpointIndex		range;
	MemoryContext		cxt;
	MemoryContext		old;
	int64				seq;

	if (kept != NULL && reader->rel == NULL && GetCurrentTimestamp() < read_fresh_until)
		return kept;
	if (!reader_look(reader))
		return NULL;
	if (kept != NULL && kept->look == reader->look)
		return kept;
	range = reader_range(reader, stream, shard);
	cxt = AllocSetContextCreate(reader->cxt, "streamext checkpoint", ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	position = streamext_checkpoint_log_last(reader->rel, reader->snapshot, range.refs, range.n, &seq);
	MemoryContextSwitchTo(old);
	if (kept != NULL && read_is_same(kept->position, position))
		MemoryContextDelete(cxt);
	else
		kept = read_keep(stream, shard, position, cxt);
	if (kept->look != reader->look)
	{
		list_free(kept->missing);
		kept->missing = NIL;
	}
	kept->look = reader->look;
	return kept;
}

/* The source that positions must be of: that of the stream as it is defined now. False: there is no such stream. */
static bool
reader_source(CheckpointReader *reader, Oid stream, int shard)
{
	MemoryContext old;
	StreamConfig *config;

	if (reader->stream == stream && reader->shard == shard)
		return true;
	old = MemoryContextSwitchTo(reader->cxt);
	config = streamext_stream_config(stream);
	if (config != NULL)
	{
		config = streamext_stream_part(config, shard);
		reader->stream = stream;
		reader->shard = shard;
		reader->source = streamext_worker_source(config);
		reader->replayable = config->connector->replayable;
	}
	MemoryContextSwitchTo(old);
	return config != NULL;
}

/* The kept shard if what it has is of use, else NULL. */
static KeptShard *
reader_usable(CheckpointReader *reader, Oid stream, int shard)
{
	KeptShard *kept = reader_shard(reader, stream, shard);

	if (kept == NULL || kept->position == NULL || !reader_source(reader, stream, shard) ||
		kept->position->head.source != reader->source ||
		(!reader->replayable && kept->position->head.dboid != MyDatabaseId))
		return NULL;
	return kept;
}

const CheckpointPosition *
streamext_checkpoint_read_stream(CheckpointReader *reader, Oid stream, int shard)
{
	KeptShard *kept = reader_usable(reader, stream, shard);

	return kept != NULL ? kept->position : NULL;
}

static int64
reader_highest(const CheckpointPosition *position, int64 floor)
{
	for (int i = 0; position != NULL && i < position->head.npartitions; i++)
	{
		floor = Max(floor, position->partitions[i].position);
		for (int v = 0; v < position->head.nviews; v++)
			floor = Max(floor, position->views[v].positions[i]);
	}
	return floor;
}

/* The same of a view that reads the stream's journal as a part of UNION ALL. */
static int64
reader_highest_of_union(CheckpointReader *reader, Oid view, Oid stream, int64 floor)
{
	StreamConfig *config = streamext_stream_config(view);

	for (int shard = 0; config != NULL && shard < config->workers; shard++)
		if (streamext_stream_part(config, shard)->from.origin == stream)
			floor = reader_highest(streamext_checkpoint_read_stream(reader, view, shard), floor);
	return floor;
}

int64
streamext_checkpoint_journal_floor(Oid stream, int shard)
{
	CheckpointReader *reader = streamext_checkpoint_reader();
	int64			  floor =
		reader_highest(streamext_checkpoint_read_stream(reader, stream, shard), streamext_into_highest(stream));
	ListCell *lc;

	if (get_rel_relkind(stream) == RELKIND_FOREIGN_TABLE)
		foreach (lc, streamext_union_views(stream))
			floor = reader_highest_of_union(reader, lfirst_oid(lc), stream, floor);
	streamext_checkpoint_reader_end(reader);
	return floor;
}

/* ---------------------------------------------------------------- views */

static void
read_context(void *arg)
{
	errcontext("last checkpoint of continuous view \"%s\"", get_rel_name(*(const Oid *) arg));
}

/* The view's state as it was then, in the current memory context. */
static ViewState *
reader_load(CheckpointReader *reader, int shard, const CheckpointPosition *position, const CheckpointView *from,
			const CompiledView *view)
{
	ViewState			*state = palloc0(sizeof(ViewState));
	MemoryContext		 cxt = CurrentMemoryContext, old = MemoryContextSwitchTo(reader->cxt);
	CheckpointIndex		 range = reader_range(reader, view->stream_relid, shard);
	ViewLoad			 load = { .view = view, .from = from, .seq = position->seq, .state = state };
	ErrorContextCallback context = { .previous = error_context_stack, .callback = read_context };

	context.arg = unconstify(Oid *, &view->relid);
	error_context_stack = &context;
	streamext_state_init_private(state, view->state_size, cxt);
	load.rel = reader->rel;
	load.snapshot = reader->snapshot;
	load.index = &range;
	streamext_checkpoint_load_view(&load);
	streamext_checkpoint_load_show(&load);
	error_context_stack = context.previous;
	MemoryContextSwitchTo(old);
	return state;
}

/* The same to be kept with the shard. */
static KeptView *
reader_load_kept(CheckpointReader *reader, KeptShard *kept, const CheckpointView *from, const CompiledView *view)
{
	MemoryContext cxt = AllocSetContextCreate(reader->cxt, "streamext checkpointed view", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	KeptView	 *loaded = palloc0(sizeof(KeptView));

	loaded->viewoid = view->relid;
	loaded->cxt = cxt;
	loaded->state = reader_load(reader, kept->shard, kept->position, from, view);
	MemoryContextSetParent(cxt, kept->cxt);
	MemoryContextSwitchTo(read_cxt);
	kept->views = lappend(kept->views, loaded);
	MemoryContextSwitchTo(old);
	return loaded;
}

/* What the view begins with that was counted elsewhere, if that is newer than what the checkpoint has; it is not kept. */
static bool
reader_read_seed(CheckpointReader *reader, const CompiledView *view, int shard, const CheckpointView *from,
				 CheckpointedView *found)
{
	CheckpointIndex		range;
	CheckpointPosition *seed;
	MemoryContext		old;

	if (reader->rel == NULL || !reader_source(reader, view->stream_relid, shard))
		return false;
	range = reader_range(reader, view->stream_relid, shard);
	old = MemoryContextSwitchTo(reader->cxt);
	seed = streamext_checkpoint_seed_find(reader->rel, reader->snapshot, &range, view->relid,
										  from != NULL ? from->head.round : 0);
	if (seed != NULL && (seed->head.source != reader->source || seed->views[0].head.layout != view->layout))
		seed = NULL;
	if (seed != NULL)
	{
		found->position = seed;
		found->view = &seed->views[0];
		found->state = reader_load(reader, shard, seed, found->view, view);
	}
	MemoryContextSwitchTo(old);
	return seed != NULL;
}

static KeptView *
read_find_view(const KeptShard *kept, Oid viewoid)
{
	ListCell *lc;

	foreach (lc, kept->views)
		if (((KeptView *) lfirst(lc))->viewoid == viewoid)
			return lfirst(lc);
	return NULL;
}

/* Whether a look for a view that the last checkpoint does not have may tell more: it may have come from elsewhere since. */
static bool
reader_looks_again(CheckpointReader *reader, const CompiledView *view, int shard)
{
	KeptShard *kept = read_find_shard(view->stream_relid, shard);

	return reader->rel == NULL && kept != NULL && !list_member_oid(kept->missing, view->relid) && reader_look(reader);
}

static void
reader_note_missing(const CompiledView *view, int shard)
{
	KeptShard	 *kept = read_find_shard(view->stream_relid, shard);
	MemoryContext old = MemoryContextSwitchTo(read_cxt);

	if (kept != NULL)
		kept->missing = list_append_unique_oid(kept->missing, view->relid);
	MemoryContextSwitchTo(old);
}

bool
streamext_checkpoint_read_view(CheckpointReader *reader, const CompiledView *view, int shard, CheckpointedView *found)
{
	KeptShard	   *kept = reader_usable(reader, view->stream_relid, shard);
	CheckpointView *from = kept != NULL ? streamext_checkpoint_find_view(kept->position, view->relid) : NULL;
	KeptView	   *loaded;

	if (reader_read_seed(reader, view, shard, from, found))
		return true;
	if (from == NULL && reader_looks_again(reader, view, shard))
		return streamext_checkpoint_read_view(reader, view, shard, found);
	if (from == NULL)
		reader_note_missing(view, shard);
	if (from == NULL || from->head.layout != view->layout)
		return false;
	loaded = read_find_view(kept, view->relid);
	if (loaded == NULL && reader->rel == NULL)
	{
		/* it has to be looked through now, and there may be a newer one */
		if (!reader_look(reader))
			return false;
		return streamext_checkpoint_read_view(reader, view, shard, found);
	}
	if (loaded == NULL)
		loaded = reader_load_kept(reader, kept, from, view);
	found->position = kept->position;
	found->view = from;
	found->state = loaded->state;
	return true;
}
