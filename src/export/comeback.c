/*
 * export/comeback.c
 *		What an engine has merged becomes what the continuous view begins with (durable/checkpoint_seed.h): the way back of export/handover.c.
 *
 * Rows of the table are groups of panes, as a worker keeps them; their partials are put together to states (aggregate/parts.h). Of grouping sets
 * the table has the groups of all keys, from which PostgreSQL makes those of the others. Positions, newest event times and counts go with them,
 * in the transaction that makes the view continuous again and drops the table: at each moment one of both is there, whole.
 *
 * All groups go to the first of the stream's workers, as readers merge those of several anyway; each gets the positions of its own partitions.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"

#include "aggregate/parts.h"
#include "base/own_table.h"
#include "durable/checkpoint_read.h"
#include "durable/checkpoint_seed.h"
#include "durable/round.h"
#include "export/dialect.h"
#include "export/plan.h"
#include "shared/clock.h"
#include "shared/shmem.h"
#include "shared/view_slot.h"
#include "source/connector.h"
#include "stream/definition.h"
#include "view/span.h"

#define COMEBACK_WAIT_MS 60000
#define COMEBACK_TICK_MS 10
#define COMEBACK_ROWS 1000 /* of the table, at once */

typedef struct ComeBackPartition
{
	const char *topic;
	int32		partition;
	int64		position;
	TimestampTz newest; /* DT_NOBEGIN: none */
} ComeBackPartition;

struct ComeBack
{
	ExportPlan		  *plan; /* of the view as it was; as it is again, once its groups are read */
	const char		  *table, *query;
	MemoryContext	   cxt;
	int				   npartitions;
	ComeBackPartition *partitions;
	TimestampTz		   watermark; /* DT_NOBEGIN: none */
	int64			   delivered, late, rejected;
	ViewState		   state;
};

/* ---- what was counted before ---- */

/* Exported and taken back in one transaction nobody has let go of it, and nobody need: it has been counted on all the time. */
static bool
comeback_is_of_now(Oid viewoid)
{
	Oid	  types[] = { OIDOID };
	Datum values[] = { ObjectIdGetDatum(viewoid) };
	int64 xid =
		streamext_control_execute("SELECT xmin::pg_catalog.text::pg_catalog.int8 FROM streamext.exported WHERE view "
								  "OPERATOR(pg_catalog.=) $1",
								  lengthof(types), types, values, NULL, SPI_OK_SELECT);

	return TransactionIdIsCurrentTransactionId((TransactionId) xid);
}

/* A slot that a worker has still to free; where there is no worker, nobody wants it. */
static bool
comeback_is_held(Oid viewoid)
{
	int	 abandoned = -1;
	bool held = false;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews && !held; i++)
	{
		const ViewSlot *slot = &streamext_shared->views[i];

		if (!slot->id.in_use || slot->id.retained || slot->id.reserved || slot->id.dboid != MyDatabaseId ||
			slot->id.viewoid != viewoid)
			continue;
		if (streamext_shared->streams[slot->id.stream].worker.pid == 0)
			abandoned = i;
		else
			held = true;
	}
	LWLockRelease(streamext_shared->registry_lock);
	return held || (abandoned >= 0 && !streamext_remove_view(abandoned));
}

void
streamext_export_wait_gone(Oid viewoid)
{
	if (streamext_export_partials(viewoid) == InvalidOid || comeback_is_of_now(viewoid))
		return;
	for (int waited = 0; comeback_is_held(viewoid); waited += COMEBACK_TICK_MS)
	{
		CHECK_FOR_INTERRUPTS();
		if (waited >= COMEBACK_WAIT_MS)
			ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							errmsg("the worker of the stream of view \"%s\" has not let go of it since it was exported",
								   get_rel_name(viewoid)),
							errhint("Call streamext.import again when the worker goes on.")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, COMEBACK_TICK_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

/* ---- how far ---- */

static const char comeback_positions_sql[] =
	"WITH e AS (SELECT * FROM streamext.exported WHERE view OPERATOR(pg_catalog.=) $1) "
	"SELECT n.topic, n.part, n.next, (e.newest -> n.topic -> n.part::text ->> 't')::timestamptz, "
	"e.watermark, e.delivered, e.late, e.rejected FROM e LEFT JOIN "
	"(SELECT t.key AS topic, p.key::integer AS part, p.value::bigint AS next FROM e, jsonb_each(e.positions) AS t, "
	"jsonb_each_text(t.value) AS p WHERE p.value::bigint >= 0 AND p.key::integer >= 0) AS n ON true";

static TimestampTz
comeback_time(HeapTuple row, int column)
{
	bool  isnull;
	Datum value = SPI_getbinval(row, SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? DT_NOBEGIN : DatumGetTimestampTz(value);
}

static int64
comeback_number(HeapTuple row, int column)
{
	bool isnull;

	return DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, column, &isnull));
}

static void
comeback_read_positions(ComeBack *back)
{
	Oid			  types[] = { OIDOID };
	Datum		  values[] = { ObjectIdGetDatum(back->plan->view->relid) };
	IdentityScope own = streamext_own_begin();

	/* what is there now: an engine may have merged while the view's lock was waited for */
	if (SPI_execute_with_args(comeback_positions_sql, 1, types, values, NULL, false, 0) != SPI_OK_SELECT ||
		SPI_processed == 0)
		elog(ERROR, "could not read streamext.exported");
	back->partitions = MemoryContextAlloc(back->cxt, sizeof(ComeBackPartition) * SPI_processed);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple		   row = SPI_tuptable->vals[i];
		ComeBackPartition *to = &back->partitions[back->npartitions];
		char			  *topic = SPI_getvalue(row, SPI_tuptable->tupdesc, 1);
		bool			   isnull;

		back->watermark = comeback_time(row, 5);
		back->delivered = comeback_number(row, 6);
		back->late = comeback_number(row, 7);
		back->rejected = comeback_number(row, 8);
		if (topic == NULL)
			continue;
		to->topic = MemoryContextStrdup(back->cxt, topic);
		to->partition = DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
		to->position = comeback_number(row, 3);
		to->newest = comeback_time(row, 4);
		back->npartitions++;
	}
	streamext_own_end(own);
}

/* ---- groups ---- */

/* A row of the table at hand. */
typedef struct ComeBackRow
{
	ComeBack	  *back;
	KeyMatcher	  *matcher;
	Datum		  *values;
	bool		  *nulls;
	int			   next; /* column */
	char		  *key;
	uint32		   key_capacity;
	StringInfoData extra;
} ComeBackRow;

static uint32
comeback_key(ComeBackRow *row)
{
	const CompiledView *view = row->back->plan->view;
	Datum				keys[STREAMEXT_MAX_KEYS + 1];
	bool				nulls[STREAMEXT_MAX_KEYS + 1];

	if (view->set_key >= 0)
	{
		keys[view->set_key] = row->values[0];
		nulls[view->set_key] = false;
	}
	for (int k = 0; k < row->back->plan->nkeys; k++, row->next++)
	{
		keys[row->back->plan->keys[k]] = row->values[row->next];
		nulls[row->back->plan->keys[k]] = row->nulls[row->next];
	}
	return streamext_key_serialize(view, keys, nulls, &row->key, &row->key_capacity);
}

pg_noreturn static void
comeback_refuse_time(const ComeBackRow *row)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("table %s has times that are of no record", row->back->table), errhint(IMPORT_REFUSED_HINT)));
}

/* The next column, a time of records. */
static TimestampTz
comeback_next_time(ComeBackRow *row)
{
	int			column = row->next++;
	TimestampTz time = DatumGetTimestampTz(row->values[column]);

	if (row->nulls[column] || TIMESTAMP_NOT_FINITE(time))
		comeback_refuse_time(row);
	return time;
}

static Pane *
comeback_pane(ComeBackRow *row)
{
	const ExportPlan *plan = row->back->plan;
	int64			  pane = 0;

	if (plan->has_at)
		pane = streamext_window_pane(&plan->view->window, comeback_next_time(row));
	return streamext_state_pane(&row->back->state, pane);
}

/* When a session's rows of a pane are. */
static void
comeback_take_span(ComeBackRow *row, const Pane *pane, SessionSpan *span)
{
	const Window *window = &row->back->plan->view->window;

	span->first = comeback_next_time(row);
	span->last = comeback_next_time(row);
	if (span->first > span->last || streamext_window_pane(window, span->first) != pane->id ||
		streamext_window_pane(window, span->last) != pane->id)
		comeback_refuse_time(row);
}

/* The group, which must be new, in its pane. */
static GroupEntry *
comeback_group(ComeBackRow *row, Pane **in)
{
	const ExportPlan   *plan = row->back->plan;
	const CompiledView *view = plan->view;
	uint32				size = comeback_key(row);
	Pane			   *pane = *in = comeback_pane(row);
	uint32				hash = streamext_key_rehash(row->matcher, row->key, size);
	GroupEntry		   *entry;
	bool				is_new;

	if (streamext_export_has_opens(plan) && row->nulls[row->next])
		row->next++;
	else if (streamext_export_has_opens(plan))
		size = streamext_key_add_from(comeback_next_time(row), &row->key, &row->key_capacity, size);
	entry = streamext_state_group(&row->back->state, pane, hash, row->key, size, streamext_key_equal, row->matcher,
								  &is_new);
	if (!is_new)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("table %s has several rows of one group", row->back->table), errhint(IMPORT_REFUSED_HINT)));
	pane->nrows++;
	entry->visible = 1;
	if (view->window.kind == WINDOW_SESSION)
		comeback_take_span(row, pane, unconstify(SessionSpan *, streamext_session_span(view, entry)));
	return entry;
}

static void
comeback_take_part(AggParts *parts, const ExportPartial *p, Datum value, bool isnull)
{
	switch (p->kind)
	{
		case EXPORT_COUNT:
		case EXPORT_COUNT_PAIRS:
			parts->has_count = true;
			parts->count = isnull ? 0 : DatumGetInt64(value);
			return;
		case EXPORT_SUM:
		case EXPORT_SUM_NUMERIC:
			parts->has_sum = true;
			parts->sum = value;
			parts->sum_null = isnull;
			return;
		case EXPORT_SQUARES:
			parts->has_squares = true;
			parts->squares = value;
			parts->squares_null = isnull;
			return;
		case EXPORT_MOMENTS:
		case EXPORT_REGRESSION:
			parts->has_floats = true;
			parts->floats = value;
			parts->floats_null = isnull;
			parts->nfloats = p->kind == EXPORT_MOMENTS ? 3 : 6;
			return;
		case EXPORT_FIRST_AT:
		case EXPORT_LAST_AT:
			parts->has_time = true;
			parts->time = isnull ? 0 : DatumGetTimestampTz(value);
			parts->time_null = isnull;
			return;
		case EXPORT_FIRST_POSITION:
		case EXPORT_LAST_POSITION:
			return; /* what is still to come comes later */
		case EXPORT_SET:
		case EXPORT_DISTINCT:
		case EXPORT_PERCENTILE:
			parts->has_state = true;
			parts->state = value;
			parts->state_null = isnull;
			return;
		default:
			parts->has_value = true;
			parts->value = value;
			parts->value_null = isnull;
	}
}

static void
comeback_put_states(ComeBackRow *row, GroupEntry *entry, Pane *pane)
{
	const ExportPlan *plan = row->back->plan;

	for (int a = 0; a < plan->view->naggs; a++)
	{
		const AggSpec *spec = &plan->view->aggs[a];
		AggParts	   parts = { 0 };
		Oid			   argtype = InvalidOid;

		for (int i = 0; i < plan->parts[a].n; i++)
		{
			int p = plan->parts[a].partial[i];

			comeback_take_part(&parts, &plan->partials[p], row->values[row->next + p], row->nulls[row->next + p]);
			argtype = plan->partials[p].argtype;
		}
		parts.has_fraction = plan->parts[a].has_fraction;
		parts.fraction = plan->parts[a].fraction;
		resetStringInfo(&row->extra);
		streamext_aggregate_assemble(spec, argtype, &parts, entry, &row->extra);
		if (!streamext_aggregate_is_plain(spec))
			(void) streamext_aggregate_import(spec, &row->back->state, pane, entry, true, entry->data + spec->offset,
											  row->extra.data, row->extra.len);
	}
}

static void
comeback_put_row(ComeBackRow *row)
{
	GroupEntry *entry;
	Pane	   *pane;

	row->next = 1; /* behind the grouping set */
	entry = comeback_group(row, &pane);
	comeback_put_states(row, entry, pane);
}

/* The table is its owner's to change: values are only what the plan takes them for if their columns are of its types. */
static void
comeback_check_columns(const ComeBack *back, TupleDesc desc)
{
	const ExportPlan *plan = back->plan;
	int	 times = plan->has_at + streamext_export_has_opens(plan) + (plan->view->window.kind == WINDOW_SESSION ? 2 : 0);
	bool good = desc->natts == 1 + plan->nkeys + times + plan->npartials;

	for (int c = 1; c < desc->natts && good; c++)
	{
		int i = c - 1;
		Oid type = TIMESTAMPTZOID;

		if (i < plan->nkeys)
			type = plan->view->keys[plan->keys[i]].type;
		else if (i >= plan->nkeys + times)
			type = plan->partials[i - plan->nkeys - times].typeoid;
		good = TupleDescAttr(desc, c)->atttypid == type;
	}
	if (!good)
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH),
						errmsg("table %s has not the columns that it was made with", back->table),
						errhint(IMPORT_REFUSED_HINT)));
}

/* All rows, a part of them at a time. */
static void
comeback_read_groups(ComeBack *back)
{
	ComeBackRow	  row = { .back = back, .matcher = streamext_key_matcher(back->plan->view, back->cxt) };
	Portal		  portal;
	TupleDesc	  desc;
	MemoryContext cxt;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext merged group", ALLOCSET_DEFAULT_SIZES);
	initStringInfo(&row.extra);
	/* as the positions, of now */
	portal = SPI_cursor_open_with_args(NULL, back->query, 0, NULL, NULL, NULL, false, 0);
	desc = portal->tupDesc;
	comeback_check_columns(back, desc);
	row.values = palloc(sizeof(Datum) * desc->natts);
	row.nulls = palloc(sizeof(bool) * desc->natts);
	for (SPI_cursor_fetch(portal, true, COMEBACK_ROWS); SPI_processed > 0;
		 SPI_cursor_fetch(portal, true, COMEBACK_ROWS))
	{
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(cxt);

			CHECK_FOR_INTERRUPTS();
			heap_deform_tuple(SPI_tuptable->vals[i], desc, row.values, row.nulls);
			row.key = NULL;
			row.key_capacity = 0;
			comeback_put_row(&row);
			MemoryContextSwitchTo(old);
			MemoryContextReset(cxt);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	SPI_finish();
}

ComeBack *
streamext_export_take_back(ExportPlan *plan)
{
	ComeBack *back = palloc0(sizeof(ComeBack));

	back->plan = plan;
	back->cxt = CurrentMemoryContext;
	back->table = streamext_export_table(plan->view->relid);
	back->query = streamext_export_groups_query(plan);
	comeback_read_positions(back);
	return back;
}

/* Whether columns of the table are to the view as it is now what they were to the view that was exported. */
static bool
comeback_is_same(const ExportPlan *was, const ExportPlan *is)
{
	if (was->nkeys != is->nkeys || was->npartials != is->npartials || was->view->nsets != is->view->nsets ||
		was->view->window.kind != is->view->window.kind || was->has_at != is->has_at)
		return false;
	for (int k = 0; k < is->nkeys; k++)
		if (was->keys[k] != is->keys[k] || was->view->keys[was->keys[k]].type != is->view->keys[is->keys[k]].type)
			return false;
	for (int s = 0; s < is->view->nsets; s++)
		if (was->view->sets[s] != is->view->sets[s])
			return false;
	for (int p = 0; p < is->npartials; p++)
		if (was->partials[p].kind != is->partials[p].kind || was->partials[p].typeoid != is->partials[p].typeoid ||
			was->partials[p].argtype != is->partials[p].argtype)
			return false;
	return true;
}

/* As the view's owner, whose table it is. */
static bool
comeback_read(ComeBack *back, const CompiledView *view)
{
	ExportPlan	 *plan = streamext_export_make(view, &streamext_export_postgres);
	IdentityScope scope;

	if (!comeback_is_same(back->plan, plan))
		return false;
	back->plan = plan;
	streamext_state_init_private(&back->state, view->state_size, back->cxt);
	scope = streamext_identity_enter(view->owner);
	comeback_read_groups(back);
	streamext_identity_leave(scope);
	return true;
}

/* ---- what the view begins with ---- */

/* Whose worker reads the partition; negative: none does. */
static int
comeback_shard(const StreamConfig *config, const ComeBackPartition *partition)
{
	if (config->connector->shard_of == NULL)
		return 0;
	return config->connector->shard_of(config, partition->topic, partition->partition);
}

/* Engines say how far they are: what the stream's workers cannot go on from is refused while the table is still there. */
static void
comeback_check_partitions(const ComeBack *back, const StreamConfig *config)
{
	int counts[STREAMEXT_MAX_SHARDS] = { 0 };

	for (int i = 0; i < back->npartitions; i++)
	{
		const ComeBackPartition *partition = &back->partitions[i];
		int						 shard = comeback_shard(config, partition);

		if (shard < 0)
			ereport(
				ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table %s has records of topic \"%s\" partition %d, which stream \"%s\" does not read",
						back->table, partition->topic, partition->partition, config->name),
				 errhint("Set the stream's options topic and partitions back to what they were. " IMPORT_ANEW_HINT)));
		if (++counts[shard] > STREAMEXT_MAX_PARTITIONS)
			ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
							errmsg("table %s has records of more than %d partitions for a worker of stream \"%s\"",
								   back->table, STREAMEXT_MAX_PARTITIONS, config->name),
							errhint("Raise the stream's option workers, so that each worker has fewer.")));
	}
}

static void
comeback_put_partition(CheckpointPosition *position, const ComeBackPartition *from)
{
	CheckpointPartition *to = &position->partitions[position->head.npartitions];

	strlcpy(to->topic, from->topic, sizeof(to->topic));
	to->partition = from->partition;
	to->position = to->start_position = from->position;
	to->begin = -1;
	to->max_event_time = from->newest;
	to->last.position = -1;
	position->views[0].positions[position->head.npartitions] = from->position;
	position->views[0].max_event_time[position->head.npartitions++] = from->newest;
}

static CheckpointPosition *
comeback_position(const ComeBack *back, const StreamConfig *config, int shard)
{
	CheckpointPosition *position = palloc0(sizeof(CheckpointPosition));
	int					n = back != NULL ? back->npartitions : 0;

	position->head.source = streamext_worker_source(config);
	position->head.taken_at = GetCurrentTimestamp();
	position->head.watermark = back != NULL ? back->watermark : DT_NOBEGIN;
	position->head.nviews = 1;
	position->partitions = palloc0(sizeof(CheckpointPartition) * Max(n, 1));
	position->views = palloc0(sizeof(CheckpointView));
	position->views[0].positions = palloc(sizeof(int64) * Max(n, 1));
	position->views[0].max_event_time = palloc(sizeof(TimestampTz) * Max(n, 1));
	position->views[0].head.watermark = position->head.watermark;
	for (int i = 0; i < n; i++)
		if (comeback_shard(config, &back->partitions[i]) == shard)
			comeback_put_partition(position, &back->partitions[i]);
	if (back != NULL && shard == 0)
	{
		position->views[0].head.accepted = back->delivered - back->late - back->rejected;
		position->views[0].head.late = back->late;
		position->views[0].head.rejected = back->rejected;
		position->views[0].head.groups = back->state.ngroups;
		position->views[0].head.panes = back->state.npanes;
	}
	return position;
}

bool
streamext_export_give_back(ComeBack *back, const CompiledView *view)
{
	StreamConfig *config = streamext_stream_config(view->stream_relid);
	int64		  round = streamext_view_new_round(view->relid);

	if (config == NULL)
		elog(ERROR, "stream %u has gone", view->stream_relid);
	if (back != NULL && !comeback_read(back, view))
		back = NULL;
	if (back != NULL)
		comeback_check_partitions(back, config);
	for (int shard = 0; shard < Max(config->workers, 1); shard++)
		streamext_checkpoint_seed_write(view, shard, round, comeback_position(back, config, shard),
										back != NULL && shard == 0 ? &back->state : NULL);
	streamext_checkpoint_read_forget();
	return back != NULL;
}
