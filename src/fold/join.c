/*
 * fold/join.c
 *		The rows of a batch, joined with tables as they are now.
 *
 * The view's query below the aggregation becomes a query of its own: the stream's range table entry is an ephemeral named
 * relation, a tuplestore that holds the batch's rows and behind the stream's columns their row numbers. It is planned once
 * for few rows (then look-ups by index are right) and once for many, and planned again after any invalidation that may
 * concern it: changed or dropped tables and indexes, new statistics, changed functions, row security.
 *
 * Order in a run: lock the plan's relations, see whether the plan survived that, execute. Before the executor has started
 * nothing depends on rows, so that an error until then (no permission, a view below that is broken) is the query's.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/datum.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/queryenvironment.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"

#include "base/giving.h"
#include "view/target.h"
#include "fold/join.h"

#define JOIN_RELATION "streamext_batch"
#define JOIN_FEW 64 /* rows up to here take the plan for few */

/* Number of rows that the plans are made for. */
static const int join_plan_rows[] = { 16, 1024 };

#define JOIN_PLANS lengthof(join_plan_rows)

typedef struct JoinPlan
{
	MemoryContext cxt; /* NULL: to be planned */
	PlannedStmt	 *statement;
	uint64		  generation; /* of join_generation, when it was made */
} JoinPlan;

struct JoinRun
{
	MemoryContext cxt;
	CompiledView *view;
	Query		 *rows;	 /* the view's FROM and WHERE over the batch */
	Query		 *query; /* before rewriting: rows itself, or an INSERT that has it inside */
	int			  nexprs;
	int16		 *typlen; /* [expression] */
	bool		 *typbyval;

	TupleDesc			  desc;	  /* the stream's columns, then the row number */
	bool				 *needed; /* [column of the stream] */
	TupleTableSlot		 *slot;
	JoinPlan			  plans[JOIN_PLANS];
	bool				  started;	/* the executor has, in the last run */
	uint64				  inserted; /* rows, in the last run */
	MemoryContextCallback forget;
};

/* Collects what the query returns. */
typedef struct JoinReceiver
{
	DestReceiver  pub;
	JoinRun		 *join;
	JoinRows	 *to;
	MemoryContext cxt; /* the batch's */
} JoinReceiver;

/* ---------------------------------------------------------------- invalidation */

/* Moves with each invalidation that may concern any plan; plans also look at their own relations. */
static uint64 join_generation = 1;
static List	 *join_runs = NIL; /* in TopMemoryContext */

static void
join_forget_relation(Datum arg, Oid relid)
{
	ListCell *lc;

	if (!OidIsValid(relid))
	{
		join_generation++;
		return;
	}
	foreach (lc, join_runs)
	{
		JoinRun *join = lfirst(lc);

		for (int i = 0; i < JOIN_PLANS; i++)
			if (join->plans[i].statement != NULL && list_member_oid(join->plans[i].statement->relationOids, relid))
				join->plans[i].generation = 0;
	}
}

static void
join_forget_all(Datum arg, int cacheid, uint32 hashvalue)
{
	join_generation++;
}

/* A MemoryContextCallback: an error may have taken the memory with it. */
static void
join_forget_run(void *join)
{
	join_runs = list_delete_ptr(join_runs, join);
}

static void
join_watch(void)
{
	static bool		 watching = false;
	static const int caches[] = { PROCOID,	TYPEOID,		  NAMESPACEOID,			 OPEROID,
								  AMOPOPID, FOREIGNSERVEROID, FOREIGNDATAWRAPPEROID, AUTHOID };

	if (watching)
		return;
	watching = true;
	CacheRegisterRelcacheCallback(join_forget_relation, (Datum) 0);
	for (int i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], join_forget_all, (Datum) 0);
}

/* ---------------------------------------------------------------- the query */

/* The stream's columns are where they were; the row number is behind them. */
static TupleDesc
join_make_desc(const StreamConfig *config)
{
	int		  natts = config->desc->natts;
	TupleDesc desc = CreateTemplateTupleDesc(natts + 1);

	for (int i = 0; i < natts; i++)
	{
		TupleDescCopyEntry(desc, i + 1, config->desc, i + 1);
		TupleDescAttr(desc, i)->attnotnull = false;
	}
	TupleDescInitEntry(desc, natts + 1, "streamext_row", INT4OID, -1, 0);
	return desc;
}

static RangeTblEntry *
join_make_entry(const JoinRun *join, const RangeTblEntry *stream)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_NAMEDTUPLESTORE;
	rte->enrname = pstrdup(JOIN_RELATION);
	rte->alias = copyObject(stream->alias);
	rte->eref = makeAlias(stream->eref->aliasname, NIL);
	rte->inFromCl = true;
	for (int i = 0; i < join->desc->natts; i++)
	{
		Form_pg_attribute attr = TupleDescAttr(join->desc, i);
		bool			  dropped = attr->attisdropped;

		rte->eref->colnames = lappend(rte->eref->colnames, makeString(pstrdup(dropped ? "" : NameStr(attr->attname))));
		rte->coltypes = lappend_oid(rte->coltypes, dropped ? InvalidOid : attr->atttypid);
		rte->coltypmods = lappend_int(rte->coltypmods, attr->atttypmod);
		rte->colcollations = lappend_oid(rte->colcollations, attr->attcollation);
	}
	return rte;
}

/* FROM and WHERE of the view, over the batch; output: the row number, then the expressions; stateless: the view's own. */
static Query *
join_make_query(JoinRun *join, List *exprs)
{
	CompiledView *view = join->view;
	Query		 *query = copyObject(view->query);
	Query		 *result = makeNode(Query);
	AttrNumber	  number = 1;
	Var			 *row = makeVar(view->stream_varno, join->desc->natts, INT4OID, -1, InvalidOid, 0);
	ListCell	 *lc;

	result->commandType = CMD_SELECT;
	result->querySource = QSRC_ORIGINAL;
	result->canSetTag = true;
	result->hasSubLinks = query->hasSubLinks;
	result->rtable = query->rtable;
#if PG_VERSION_NUM >= 160000
	result->rteperminfos = query->rteperminfos;
#endif
	result->jointree = query->jointree;
	result->jointree->quals = view->quals == NIL ? NULL : (Node *) make_ands_explicit(copyObject(view->quals));
	if (view->stateless)
		result->targetList = query->targetList;
	else
		result->targetList = list_make1(makeTargetEntry((Expr *) row, number++, pstrdup("streamext_row"), false));
	foreach (lc, exprs)
		result->targetList = lappend(result->targetList,
									 makeTargetEntry(copyObject(lfirst(lc)), number++, pstrdup("expression"), false));
	result->stmt_location = -1;
	result->stmt_len = 0;

	foreach (lc, result->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		/* Before PostgreSQL 16: the view itself, as OLD and NEW of its rule. */
		if (rte->rtekind == RTE_RELATION && rte->relid == view->relid)
		{
			RangeTblEntry *none = makeNode(RangeTblEntry);

			none->rtekind = RTE_RESULT;
			none->eref = makeAlias("*RESULT*", NIL);
			lfirst(lc) = none;
		}
	}
	lfirst(list_nth_cell(result->rtable, view->stream_varno - 1)) =
		join_make_entry(join, rt_fetch(view->stream_varno, result->rtable));
	return result;
}

typedef struct JoinNeeds
{
	JoinRun *join;
	int		 sublevels;
} JoinNeeds;

/* Notes which of the stream's columns the query uses, also by the names of joins. */
static bool
join_needs_walker(Node *node, JoinNeeds *needs)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) && ((Var *) node)->varlevelsup == needs->sublevels)
	{
		Var			  *var = (Var *) node;
		JoinRun		  *join = needs->join;
		RangeTblEntry *rte = rt_fetch(var->varno, join->rows->rtable);

		if (rte->rtekind == RTE_JOIN)
		{
			JoinNeeds outer = { join, 0 };
			Node	 *alias =
				var->varattno > 0 ? list_nth(rte->joinaliasvars, var->varattno - 1) : (Node *) rte->joinaliasvars;

			return join_needs_walker(alias, &outer);
		}
		if (var->varno != join->view->stream_varno)
			return false;
		for (int i = 0; i < join->desc->natts - 1; i++)
			if (var->varattno <= 0 || i == var->varattno - 1)
				join->needed[i] = true;
		return false;
	}
	if (IsA(node, Query))
	{
		bool result;

		needs->sublevels++;
		result = query_tree_walker((Query *) node, join_needs_walker, needs, QTW_IGNORE_JOINALIASES);
		needs->sublevels--;
		return result;
	}
	return expression_tree_walker(node, join_needs_walker, needs);
}

JoinRun *
streamext_join_start(CompiledView *view, StreamConfig *config, List *exprs, MemoryContext cxt)
{
	MemoryContext own = AllocSetContextCreate(cxt, "streamext join", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	JoinRun		 *join = palloc0(sizeof(JoinRun));
	JoinNeeds	  needs = { join, 0 };
	ListCell	 *lc;

	join_watch();
	join->cxt = own;
	join->view = view;
	join->desc = join_make_desc(config);
	join->slot = MakeSingleTupleTableSlot(join->desc, &TTSOpsVirtual);
	join->needed = palloc0(sizeof(bool) * join->desc->natts);
	join->typlen = palloc(sizeof(int16) * Max(list_length(exprs), 1));
	join->typbyval = palloc(sizeof(bool) * Max(list_length(exprs), 1));
	foreach (lc, exprs)
	{
		get_typlenbyval(exprType(lfirst(lc)), &join->typlen[join->nexprs], &join->typbyval[join->nexprs]);
		join->nexprs++;
	}
	join->rows = join_make_query(join, exprs);
	(void) query_tree_walker(join->rows, join_needs_walker, &needs, QTW_IGNORE_JOINALIASES);
	join->query = join->rows;
	if (view->stateless)
		join->query = streamext_into_query(
			view->into, streamext_view_named_outputs(view->relid, join->rows->targetList), join->rows);
	MemoryContextSwitchTo(TopMemoryContext);
	join_runs = lappend(join_runs, join);
	join->forget.func = join_forget_run;
	join->forget.arg = join;
	MemoryContextRegisterResetCallback(own, &join->forget);
	MemoryContextSwitchTo(old);
	return join;
}

void
streamext_join_end(JoinRun *join)
{
	ExecDropSingleTupleTableSlot(join->slot);
	MemoryContextDelete(join->cxt);
}

/* ---------------------------------------------------------------- plans */

static void
join_plan(JoinRun *join, JoinPlan *plan, int rows)
{
	MemoryContext old = CurrentMemoryContext;
	MemoryContext cxt = AllocSetContextCreate(join->cxt, "streamext join plan", ALLOCSET_SMALL_SIZES);
	MemoryContext scratch = AllocSetContextCreate(old, "streamext join planning", ALLOCSET_DEFAULT_SIZES);
	uint64		  generation = join_generation;
	Query		 *query;
	PlannedStmt	 *statement;

	if (plan->cxt != NULL)
		MemoryContextDelete(plan->cxt);
	plan->statement = NULL;
	plan->cxt = cxt;
	MemoryContextSwitchTo(scratch);
	rt_fetch(join->view->stream_varno, join->rows->rtable)->enrtuples = rows;
	query = copyObject(join->query);
	AcquireRewriteLocks(query, true, false);
	query = join->view->stateless ? streamext_into_rewrite(query) : linitial_node(Query, QueryRewrite(query));
	statement = pg_plan_query(query, "", 0, NULL);
	MemoryContextSwitchTo(cxt);
	plan->statement = copyObject(statement);
	plan->generation = generation;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
}

/* All relations of the plan: as AcquireExecutorLocks of PostgreSQL's plan cache. */
static void
join_lock(const PlannedStmt *statement)
{
	ListCell *lc;

	foreach (lc, statement->rtable)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (OidIsValid(rte->relid) && rte->rellockmode != NoLock &&
			(rte->rtekind == RTE_RELATION || rte->rtekind == RTE_SUBQUERY))
			LockRelationOid(rte->relid, rte->rellockmode);
	}
}

/* A plan that is right now, its relations locked until the end of the (sub)transaction. */
static PlannedStmt *
join_ready(JoinRun *join, int nrows)
{
	int		  which = nrows <= JOIN_FEW ? 0 : 1;
	JoinPlan *plan = &join->plans[which];

	for (;;)
	{
		if (plan->statement == NULL || plan->generation != join_generation)
			join_plan(join, plan, join_plan_rows[which]);
		join_lock(plan->statement);
		AcceptInvalidationMessages();
		if (plan->generation == join_generation)
			return plan->statement;
		CHECK_FOR_INTERRUPTS();
	}
}

/* ---------------------------------------------------------------- rows in and out */

static Tuplestorestate *
join_fill(JoinRun *join, Batch *batch, const int *rows, int nrows)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	TupleTableSlot	*slot = join->slot;
	int				 natts = join->desc->natts - 1;

	for (int n = 0; n < nrows; n++)
	{
		ExecClearTuple(slot);
		for (int i = 0; i < natts; i++)
		{
			slot->tts_isnull[i] = !join->needed[i] || batch->nulls[i][rows[n]];
			slot->tts_values[i] = slot->tts_isnull[i] ? (Datum) 0 : batch->values[i][rows[n]];
		}
		slot->tts_isnull[natts] = false;
		slot->tts_values[natts] = Int32GetDatum(rows[n]);
		ExecStoreVirtualTuple(slot);
		tuplestore_puttupleslot(store, slot);
	}
	ExecClearTuple(slot);
	return store;
}

static void
join_grow(const JoinRun *join, JoinRows *to)
{
	to->capacity *= 2;
	to->rows = repalloc_huge(to->rows, sizeof(int) * to->capacity);
	for (int e = 0; e < join->nexprs; e++)
	{
		to->values[e] = repalloc_huge(to->values[e], sizeof(Datum) * to->capacity);
		to->nulls[e] = repalloc_huge(to->nulls[e], sizeof(bool) * to->capacity);
	}
}

static bool
join_receive(TupleTableSlot *slot, DestReceiver *self)
{
	JoinReceiver *receiver = (JoinReceiver *) self;
	JoinRun		 *join = receiver->join;
	JoinRows	 *to = receiver->to;
	MemoryContext old = MemoryContextSwitchTo(receiver->cxt);
	int			  at = to->n;

	slot_getallattrs(slot);
	if (to->n == to->capacity)
	{
		if (to->capacity > INT_MAX / 2)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED), errmsg("the join of a batch returns too many rows")));
		join_grow(join, to);
	}
	to->rows[at] = DatumGetInt32(slot->tts_values[0]);
	for (int e = 0; e < join->nexprs; e++)
	{
		Datum value = slot->tts_values[e + 1];

		to->nulls[e][at] = slot->tts_isnull[e + 1];
		if (to->nulls[e][at])
			value = (Datum) 0;
		else if (join->typlen[e] == -1)
		{
			struct varlena *flat = PG_DETOAST_DATUM_PACKED(value);

			value = (Pointer) flat == DatumGetPointer(value) ? datumCopy(value, false, -1) : PointerGetDatum(flat);
		}
		else
			value = datumCopy(value, join->typbyval[e], join->typlen[e]);
		to->values[e][at] = value;
	}
	to->n++;
	MemoryContextSwitchTo(old);
	return true;
}

JoinRows *
streamext_join_begin(JoinRun *join, Batch *batch)
{
	MemoryContext old = MemoryContextSwitchTo(batch->cxt);
	JoinRows	 *to = palloc0(sizeof(JoinRows));

	to->capacity = STREAMEXT_BATCH_ROWS;
	to->rows = palloc(sizeof(int) * to->capacity);
	to->values = palloc(sizeof(Datum *) * Max(join->nexprs, 1));
	to->nulls = palloc(sizeof(bool *) * Max(join->nexprs, 1));
	for (int e = 0; e < join->nexprs; e++)
	{
		to->values[e] = palloc(sizeof(Datum) * to->capacity);
		to->nulls[e] = palloc(sizeof(bool) * to->capacity);
	}
	MemoryContextSwitchTo(old);
	return to;
}

/* ---------------------------------------------------------------- run */

static void
join_execute(JoinRun *join, PlannedStmt *statement, Tuplestorestate *store, DestReceiver *receiver)
{
	QueryEnvironment	  *environment = create_queryEnv();
	EphemeralNamedRelation batch = palloc0(sizeof(EphemeralNamedRelationData));
	QueryDesc			  *query;

	batch->md.name = pstrdup(JOIN_RELATION);
	batch->md.reliddesc = InvalidOid;
	batch->md.tupdesc = join->desc;
	batch->md.enrtype = ENR_NAMED_TUPLESTORE;
	batch->md.enrtuples = tuplestore_tuple_count(store);
	batch->reldata = store;
	register_ENR(environment, batch);

	if (statement->commandType == CMD_INSERT)
	{
		Giving giving = { .view = join->view->relid };

		streamext_into_check_at_once();
		streamext_giving_begin(&giving);
	}
	query = CreateQueryDesc(statement, "", GetActiveSnapshot(), InvalidSnapshot, receiver, NULL, environment, 0);
	ExecutorStart(query, 0);
	join->started = true;
#if PG_VERSION_NUM >= 180000
	ExecutorRun(query, ForwardScanDirection, 0);
#else
	ExecutorRun(query, ForwardScanDirection, 0, true);
#endif
	ExecutorFinish(query);
	join->inserted = query->estate->es_processed;
	ExecutorEnd(query);
	FreeQueryDesc(query);
	streamext_giving_end();
	if (statement->commandType == CMD_INSERT)
		CommandCounterIncrement();
}

void
streamext_join_run(JoinRun *join, Batch *batch, const int *rows, int nrows, JoinRows *to)
{
	JoinReceiver receiver = { .pub = *None_Receiver };
	int			 before = to != NULL ? to->n : 0;

	join->started = false;
	receiver.pub.receiveSlot = join_receive;
	receiver.join = join;
	receiver.to = to;
	receiver.cxt = batch->cxt;
	PG_TRY();
	{
		MemoryContext	 cxt = AllocSetContextCreate(batch->cxt, "streamext join run", ALLOCSET_DEFAULT_SIZES);
		MemoryContext	 old = MemoryContextSwitchTo(cxt);
		PlannedStmt		*statement;
		Tuplestorestate *store;

		/* Planning and functions need a snapshot; the tables are read as they are once they are locked. */
		statement = join_ready(join, nrows);
		PushActiveSnapshot(GetLatestSnapshot());
		store = join_fill(join, batch, rows, nrows);
		join_execute(join, statement, store, &receiver.pub);
		tuplestore_end(store);
		PopActiveSnapshot();
		MemoryContextSwitchTo(old);
		MemoryContextDelete(cxt);
	}
	PG_CATCH();
	{
		if (to != NULL)
			to->n = before;
		PG_RE_THROW();
	}
	PG_END_TRY();
}

uint64
streamext_join_inserted(const JoinRun *join)
{
	return join->inserted;
}

bool
streamext_join_has_started(const JoinRun *join)
{
	return join->started;
}
