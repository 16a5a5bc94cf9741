/*
 * read/derived.c
 *		The executor node of a derived stream: a continuous view without aggregates, whose last rows its workers keep as a stream's
 *		buffer is kept (state/buffer.h, ViewSlot.counted.rows). An entry's payload is a minimal tuple of CompiledView.outputs.
 *
 * Each shard's rows are copied when the scan begins; none are shown that were made for another definition.
 */
#include "postgres.h"

#include "executor/executor.h"
#include "miscadmin.h"
#include "utils/lsyscache.h"

#include "read/scan.h"
#include "shared/shmem.h"
#include "state/buffer.h"

typedef struct DerivedScanState
{
	CustomScanState		css;
	const CompiledView *view;
	List			   *tuples; /* MinimalTuple's */
	int					next;
	TupleTableSlot	   *row;
} DerivedScanState;

static Node			  *derived_create_state(CustomScan *scan);
static void			   derived_begin(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *derived_exec(CustomScanState *node);
static void			   derived_end(CustomScanState *node);
static void			   derived_rescan(CustomScanState *node);

const CustomScanMethods streamext_derived_methods = { .CustomName = "DerivedStream",
													  .CreateCustomScanState = derived_create_state };

static const CustomExecMethods derived_exec_methods = { .CustomName = "DerivedStream",
														.BeginCustomScan = derived_begin,
														.ExecCustomScan = derived_exec,
														.EndCustomScan = derived_end,
														.ReScanCustomScan = derived_rescan };

static Node *
derived_create_state(CustomScan *scan)
{
	DerivedScanState *state = palloc0(sizeof(DerivedScanState));

	NodeSetTag(state, T_CustomScanState);
	state->css.methods = &derived_exec_methods;
	return (Node *) state;
}

/* A private copy of one slot's rows. */
static int
derived_copy_slot(const CompiledView *view, int index, StreamRecord **records)
{
	ViewSlot   *slot = &streamext_shared->views[index];
	StreamSlot *stream;
	int			n = 0;

	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	if (slot->id.in_use && !slot->id.retained && slot->id.dboid == MyDatabaseId && slot->id.viewoid == view->relid)
	{
		stream = &streamext_shared->streams[slot->id.stream];
		streamext_stream_lock_shared(stream);
		if (slot->counted.definition == view->definition && slot->counted.rows != NULL)
			n = streamext_buffer_copy(slot->counted.rows, stream->buffer_lock, records);
		LWLockRelease(stream->lock);
	}
	LWLockRelease(streamext_shared->registry_lock);
	return n;
}

static void
derived_copy(DerivedScanState *state)
{
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		StreamRecord *records;
		int			  n = derived_copy_slot(state->view, i, &records);

		for (int r = 0; r < n; r++)
			state->tuples = lappend(state->tuples, unconstify(char *, records[r].payload));
	}
}

static void
derived_begin(CustomScanState *node, EState *estate, int eflags)
{
	DerivedScanState *state = (DerivedScanState *) node;
	const CustomScan *plan = (const CustomScan *) node->ss.ps.plan;
	TupleTableSlot	 *slot = node->ss.ss_ScanTupleSlot;

	streamext_require_preload();
	state->view = streamext_view_cached(streamext_scan_plan_load(plan).view, estate->es_query_cxt);
	if (list_length(plan->custom_scan_tlist) != list_length(state->view->outputs))
		elog(ERROR, "plan of continuous view %u is out of date", state->view->relid);
	state->row = ExecInitExtraTupleSlot(estate, slot->tts_tupleDescriptor, &TTSOpsMinimalTuple);
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("continuous view \"%s\" cannot be read during recovery", get_rel_name(state->view->relid)),
				 errdetail("It is without aggregates, and its last records are in the memory of the primary server.")));
	derived_copy(state);
}

static TupleTableSlot *
derived_next(ScanState *node)
{
	DerivedScanState *state = (DerivedScanState *) node;
	TupleTableSlot	 *slot = node->ss_ScanTupleSlot;
	int				  natts = slot->tts_tupleDescriptor->natts;

	ExecClearTuple(slot);
	if (state->next >= list_length(state->tuples))
		return slot;
	ExecStoreMinimalTuple(list_nth(state->tuples, state->next++), state->row, false);
	slot_getallattrs(state->row);
	memcpy(slot->tts_values, state->row->tts_values, sizeof(Datum) * natts);
	memcpy(slot->tts_isnull, state->row->tts_isnull, sizeof(bool) * natts);
	return ExecStoreVirtualTuple(slot);
}

/* Nothing was locked that could have changed. */
static bool
derived_recheck(ScanState *node, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
derived_exec(CustomScanState *node)
{
	return ExecScan(&node->ss, derived_next, derived_recheck);
}

static void
derived_rescan(CustomScanState *node)
{
	((DerivedScanState *) node)->next = 0;
	ExecScanReScan(&node->ss);
}

static void
derived_end(CustomScanState *node)
{
}
