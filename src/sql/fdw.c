/*
 * sql/fdw.c
 *		Streams as foreign tables: SELECT reads what the stream's buffer holds, INSERT and COPY put rows into local streams.
 *
 * A scan takes private copies of the buffers (one a shard) and decodes them at executor start, before a plan may enter parallel
 * mode, where the decoder's subtransactions are not allowed. It shows the moment the statement starts.
 *
 * Inserted rows wait in a spool (sink/spool.c) until their transaction commits.
 */
#include "base/streamext.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "commands/defrem.h"
#include "commands/explain.h"
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif
#include "executor/executor.h"
#include "foreign/fdwapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/planmain.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "decode/batch.h"
#include "state/buffer.h"
#include "source/connector.h"
#include "decode/decoder.h"
#include "base/hooks.h"
#include "stream/definition.h"
#include "shared/clock.h"
#include "shared/shmem.h"
#include "sink/outbox.h"
#include "sql/ask.h"
#include "sql/newest.h"
#include "sink/spool.h"

#define SCAN_ROWS_ESTIMATE 1000

/* ---- scan ---- */

typedef struct StreamScan
{
	Tuplestorestate *rows; /* NULL: not loaded yet */
	TupleTableSlot	*row;
} StreamScan;

static void
scan_rel_size(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	streamext_scan_check_stream(root, relid);
	baserel->tuples = SCAN_ROWS_ESTIMATE;
	set_baserel_size_estimates(root, baserel);
}

static void
scan_paths(PlannerInfo *root, RelOptInfo *baserel, Oid relid)
{
	/* All is decoded before the first row comes. */
	Cost startup = baserel->tuples * 10 * cpu_tuple_cost + baserel->baserestrictcost.startup;
	Cost total = startup + baserel->tuples * (cpu_tuple_cost + baserel->baserestrictcost.per_tuple);

	add_path(baserel, (Path *) create_foreignscan_path(root, baserel, NULL, baserel->rows,
#if PG_VERSION_NUM >= 180000
													   0, /* disabled_nodes */
#endif
													   startup, total, NIL, baserel->lateral_relids, NULL,
#if PG_VERSION_NUM >= 170000
													   NIL, /* fdw_restrictinfo */
#endif
													   NIL));
}

static ForeignScan *
scan_plan(PlannerInfo *root, RelOptInfo *baserel, Oid relid, ForeignPath *path, List *tlist, List *clauses,
		  Plan *outer_plan)
{
	return make_foreignscan(tlist, extract_actual_clauses(clauses, false), baserel->relid, NIL, NIL, NIL, NIL,
							outer_plan);
}

/* Decodes n records in batches into the tuple store; those that no longer decode are passed over. */
static void
scan_decode(StreamScan *scan, Decoder *decoder, Batch *batch, TupleDesc desc, const StreamRecord *records, int n)
{
	Datum *values = palloc(sizeof(Datum) * Max(desc->natts, 1));
	bool  *nulls = palloc(sizeof(bool) * Max(desc->natts, 1));

	/* They were accepted when they came, whatever the clock says now: the far future stands in for it. */
	const TimestampTz now = END_TIMESTAMP / 2;

	for (int done = 0; done < n; done += STREAMEXT_BATCH_ROWS)
	{
		CHECK_FOR_INTERRUPTS();
		streamext_batch_reset(batch);
		batch->nrecords = Min(n - done, STREAMEXT_BATCH_ROWS);
		batch->again = true; /* it is tried once */
		memcpy(batch->records, records + done, sizeof(StreamRecord) * batch->nrecords);
		streamext_decoder_run(decoder, batch, now);

		for (int row = 0; row < batch->nrows; row++)
		{
			for (int i = 0; i < desc->natts; i++)
			{
				nulls[i] = TupleDescAttr(desc, i)->attisdropped || batch->nulls[i][row];
				values[i] = nulls[i] ? (Datum) 0 : batch->values[i][row];
			}
			tuplestore_putvalues(scan->rows, desc, values, nulls);
		}
	}
}

static void
scan_load(ForeignScanState *node)
{
	StreamScan	 *scan = node->fdw_state;
	Oid			  relid = RelationGetRelid(node->ss.ss_currentRelation);
	TupleDesc	  desc = RelationGetDescr(node->ss.ss_currentRelation);
	MemoryContext query_cxt = node->ss.ps.state->es_query_cxt, cxt, shard_cxt;
	StreamConfig *config;
	Decoder		 *decoder;
	Batch		 *batch;
	IdentityScope scope;

	streamext_require_preload();
	if (RecoveryInProgress())
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						errmsg("stream \"%s\" cannot be read during recovery",
							   RelationGetRelationName(node->ss.ss_currentRelation)),
						errdetail("Its last records are in the memory of the primary server."),
						errhint("Read its continuous views.")));
	MemoryContextSwitchTo(query_cxt);
	scan->rows = tuplestore_begin_heap(true, false, work_mem);
	scan->row = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	cxt = AllocSetContextCreate(query_cxt, "streamext scan", ALLOCSET_DEFAULT_SIZES);
	shard_cxt = AllocSetContextCreate(cxt, "streamext scan buffer", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(cxt);

	config = streamext_stream_config(relid);
	if (config == NULL)
		elog(ERROR, "relation %u is not a stream", relid);
	if (config->desc->natts != desc->natts)
		elog(ERROR, "stream %u has changed during the query", relid);
	decoder = streamext_decoder_create(config, cxt);
	scope = streamext_decoder_enter(decoder);
	batch = streamext_batch_create(config, NULL, cxt);
	MemoryContextSwitchTo(shard_cxt);
	for (int shard = 0; shard < Max(config->workers, 1); shard++)
	{
		StreamRecord *records;
		int			  n = streamext_newest_copy(relid, shard, &records);

		if (n > 0)
			scan_decode(scan, decoder, batch, desc, records, n);
		MemoryContextReset(shard_cxt);
	}
	streamext_identity_leave(scope);
	streamext_decoder_free(decoder);
	MemoryContextSwitchTo(query_cxt);
	MemoryContextDelete(cxt);
}

static void
scan_begin(ForeignScanState *node, int eflags)
{
	MemoryContext caller = CurrentMemoryContext;

	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	node->fdw_state = MemoryContextAllocZero(node->ss.ps.state->es_query_cxt, sizeof(StreamScan));

	/* A recheck of a locked row sees the row it locked, not the stream: load only if it asks. */
	if (node->ss.ps.state->es_epq_active == NULL)
		scan_load(node);
	MemoryContextSwitchTo(caller);
}

static TupleTableSlot *
scan_iterate(ForeignScanState *node)
{
	StreamScan	   *scan = node->fdw_state;
	TupleTableSlot *slot = node->ss.ss_ScanTupleSlot;
	int				natts = slot->tts_tupleDescriptor->natts;

	/* The caller's context lasts for one tuple, `row` frees its tuple with the next. */
	MemoryContext caller = MemoryContextSwitchTo(node->ss.ps.state->es_query_cxt);
	bool		  found;

	if (scan->rows == NULL)
		scan_load(node);
	ExecClearTuple(slot);
	found = tuplestore_gettupleslot(scan->rows, true, false, scan->row);
	MemoryContextSwitchTo(caller);
	if (!found)
		return slot;
	slot_getallattrs(scan->row);
	memcpy(slot->tts_values, scan->row->tts_values, sizeof(Datum) * natts);
	memcpy(slot->tts_isnull, scan->row->tts_isnull, sizeof(bool) * natts);
	return ExecStoreVirtualTuple(slot);
}

static void
scan_rescan(ForeignScanState *node)
{
	StreamScan *scan = node->fdw_state;

	if (scan->rows == NULL)
		return;
	ExecClearTuple(scan->row);
	tuplestore_rescan(scan->rows);
}

static void
scan_end(ForeignScanState *node)
{
	StreamScan *scan = node->fdw_state;

	if (scan == NULL || scan->rows == NULL)
		return;
	ExecClearTuple(node->ss.ss_ScanTupleSlot); /* points into row */
	ExecDropSingleTupleTableSlot(scan->row);
	tuplestore_end(scan->rows);
	scan->rows = NULL;
}

static void
scan_explain(ForeignScanState *node, ExplainState *es)
{
	StreamConfig  *config = streamext_stream_config(RelationGetRelid(node->ss.ss_currentRelation));
	StringInfoData topics;
	ListCell	  *lc;

	if (config == NULL)
		return;
	ExplainPropertyText("Connector", config->connector->name, es);
	if (config->source.topics == NIL)
		return;
	initStringInfo(&topics);
	foreach (lc, config->source.topics)
		appendStringInfo(&topics, "%s%s", topics.len > 0 ? ", " : "", (char *) lfirst(lc));
	ExplainPropertyText("Topic", topics.data, es);
}

/* ---- insert ---- */

typedef struct InsertState
{
	RowSpool	 *spool;  /* or, where rows are sent from the outbox, */
	OutboxWriter *outbox; /* that */
	StreamConfig *config;
	bool		 *ignored; /* by attribute: dropped, or its value comes from the record */
	int			 *needed;  /* indexes of columns that are NOT NULL and not ignored */
	int			  nneeded;
	Datum		 *values;
	bool		 *nulls;
	MemoryContext row_cxt; /* flattened values */
	TimestampTz	  latest;  /* event times beyond were too far ahead when the statement began */
	bool		  doubted; /* it was told that rows will be rejected */
} InsertState;

static void
insert_refuse(const ConnectorOps *connector)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("cannot insert into a %s stream", connector->name),
					errhint("Streams of the wrappers %s take INSERT and COPY.", streamext_connector_writable())));
}

/* A bit mask of commands; never raises, information_schema asks too. */
static int
insert_updatable(Relation rel)
{
	const ConnectorOps *connector = streamext_stream_kind(RelationGetRelid(rel));

	return connector != NULL && connector->writable ? 1 << CMD_INSERT : 0;
}

static List *
insert_plan(PlannerInfo *root, ModifyTable *plan, Index result_relation, int subplan_index)
{
	const ConnectorOps *connector = streamext_stream_kind(planner_rt_fetch(result_relation, root)->relid);

	/* Others are refused by the executor, which misses their callbacks. */
	if (plan->operation == CMD_INSERT && !connector->writable)
		insert_refuse(connector);
	if (plan->onConflictAction == ONCONFLICT_UPDATE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("ON CONFLICT DO UPDATE is not supported for streams")));
	return NIL;
}

static void
insert_start(ResultRelInfo *target)
{
	Oid			  relid = RelationGetRelid(target->ri_RelationDesc);
	StreamConfig *config;
	InsertState	 *state;

	streamext_require_preload();
	config = streamext_stream_config(relid);
	if (config == NULL)
		elog(ERROR, "relation %u is not a stream", relid);
	if (!config->connector->writable)
		insert_refuse(config->connector);

	state = palloc0(sizeof(InsertState));
	state->config = config;
	if (config->connector->published)
		state->outbox = streamext_outbox_begin(config);
	else
		state->spool = streamext_spool_get(config);
	state->ignored = palloc0(sizeof(bool) * Max(config->desc->natts, 1));
	state->needed = palloc(sizeof(int) * Max(config->desc->natts, 1));
	state->values = palloc0(sizeof(Datum) * Max(config->desc->natts, 1));
	state->nulls = palloc0(sizeof(bool) * Max(config->desc->natts, 1));
	for (int i = 0; i < config->desc->natts; i++)
	{
		state->ignored[i] =
			config->columns[i].dropped || (state->outbox == NULL && config->columns[i].metadata != METADATA_NONE);
		if (config->columns[i].notnull && !state->ignored[i])
			state->needed[state->nneeded++] = i;
	}
	state->row_cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext insert row", ALLOCSET_DEFAULT_SIZES);
	state->latest = streamext_clock_now() + config->time.max_ahead;
	target->ri_FdwState = state;
}

static void
insert_begin_modify(ModifyTableState *mtstate, ResultRelInfo *target, List *fdw_private, int subplan_index, int eflags)
{
	if (!(eflags & EXEC_FLAG_EXPLAIN_ONLY) && mtstate->operation == CMD_INSERT)
		insert_start(target);
}

static void
insert_begin(ModifyTableState *mtstate, ResultRelInfo *target)
{
	insert_start(target);
}

/* Once a statement, of a row that cannot be accepted: that it is not is seen where nobody who has just inserted it looks. */
static void
insert_doubt(InsertState *state)
{
	const StreamConfig *config = state->config;
	int					column = config->event_time - 1;
	const char		   *why = NULL;

	if (column >= 0 && state->nulls[column])
		why = "The event time, column \"%s\", is NULL.";
	else if (column >= 0 && TIMESTAMP_NOT_FINITE(DatumGetTimestampTz(state->values[column])))
		why = "The event time, column \"%s\", is infinite.";
	else if (column >= 0 && DatumGetTimestampTz(state->values[column]) > state->latest &&
			 DatumGetTimestampTz(state->values[column]) > streamext_clock_now() + config->time.max_ahead)
		why = "The event time, column \"%s\", is further ahead of the clock than the stream's option max_ahead allows.";
	for (int i = 0; i < state->nneeded && why == NULL; i++)
		if (state->nulls[state->needed[i]])
		{
			column = state->needed[i];
			why = "Column \"%s\", which is NOT NULL, is NULL.";
		}
	if (why == NULL)
		return;
	state->doubted = true;
	ereport(NOTICE, (errmsg("stream \"%s\" will reject rows of this statement", config->name),
					 errdetail(why, config->columns[column].name),
					 errhint("They are kept in streamext.dead_letters, and the others are counted.")));
}

/* The row into the spool, every value flat and in one piece: it outlives whatever it points to now. */
static TupleTableSlot *
insert_row(EState *estate, ResultRelInfo *target, TupleTableSlot *slot, TupleTableSlot *plan_slot)
{
	InsertState	 *state = target->ri_FdwState;
	TupleDesc	  desc = state->config->desc;
	MemoryContext old;

	MemoryContextReset(state->row_cxt);
	old = MemoryContextSwitchTo(state->row_cxt);
	slot_getallattrs(slot);
	for (int i = 0; i < desc->natts; i++)
	{
		Datum value = slot->tts_values[i];

		state->nulls[i] = slot->tts_isnull[i] || state->ignored[i];
		if (state->nulls[i])
			value = (Datum) 0;
		else if (TupleDescAttr(desc, i)->attlen == -1 &&
				 (VARATT_IS_EXTERNAL(DatumGetPointer(value)) || VARATT_IS_COMPRESSED(DatumGetPointer(value))))
			value = PointerGetDatum(PG_DETOAST_DATUM(value));
		state->values[i] = value;
	}
	if (heap_compute_data_size(desc, state->values, state->nulls) >
		STREAMEXT_MAX_RECORD - MAXALIGN(SizeofMinimalTupleHeader + BITMAPLEN(desc->natts)))
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("row is too large for stream \"%s\"", state->config->name),
						errdetail("A row may have %d bytes.", STREAMEXT_MAX_RECORD)));
	MemoryContextSwitchTo(old);

	if (state->outbox == NULL && !state->doubted)
		insert_doubt(state);
	if (state->outbox != NULL)
		streamext_outbox_put(state->outbox, state->values, state->nulls);
	else
		streamext_spool_put(state->spool, state->values, state->nulls);
	return slot;
}

static void
insert_end(EState *estate, ResultRelInfo *target)
{
	InsertState *state = target->ri_FdwState;

	if (state == NULL)
		return;
	if (state->outbox != NULL)
		streamext_outbox_end(state->outbox);
	MemoryContextDelete(state->row_cxt);
	target->ri_FdwState = NULL;
}

/* ---- handler ---- */

PG_FUNCTION_INFO_V1(streamext_fdw_handler);

/* One for all wrappers. What is left out PostgreSQL refuses itself: UPDATE, DELETE, TRUNCATE, ANALYZE. */
Datum
streamext_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->GetForeignRelSize = scan_rel_size;
	routine->GetForeignPaths = scan_paths;
	routine->GetForeignPlan = scan_plan;
	routine->BeginForeignScan = scan_begin;
	routine->IterateForeignScan = scan_iterate;
	routine->ReScanForeignScan = scan_rescan;
	routine->EndForeignScan = scan_end;
	routine->ExplainForeignScan = scan_explain;

	routine->IsForeignRelUpdatable = insert_updatable;
	routine->PlanForeignModify = insert_plan;
	routine->BeginForeignModify = insert_begin_modify;
	routine->ExecForeignInsert = insert_row;
	routine->EndForeignModify = insert_end;
	routine->BeginForeignInsert = insert_begin;
	routine->EndForeignInsert = insert_end;

	routine->ImportForeignSchema = streamext_import;

	PG_RETURN_POINTER(routine);
}
