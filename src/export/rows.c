/*
 * export/rows.c
 *		Raw records decoded and looked at by the product's own decoder and expressions: what an engine does of a batch, done here.
 *
 * It is what records go through that an engine has sent raw, because it could not be sure to read them as this product does, and what the
 * dialect postgres computes with. The decoder rejects what it always rejects, and a row on which one of the view's expressions raises is
 * rejected for the view, so acceptance and values are the same whoever reads the topic.
 *
 * A batch's rows are evaluated in one subtransaction, and one by one if that raises. The view's expressions run as its owner, under the
 * settings of its CREATE; the relation is read as who calls.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

#include "base/transaction.h"
#include "decode/decoder.h"
#include "durable/letters.h"
#include "export/dialect.h"
#include "export/rows.h"
#include "shared/clock.h"
#include "view/builtin.h"
#include "view/settings.h"

PG_FUNCTION_INFO_V1(streamext_export_rows);

#define ROWS_BATCH_BYTES (64 * 1024 * 1024) /* of payloads and keys; and a record */

/* Columns of what is read. */
enum
{
	RAW_TOPIC,
	RAW_PARTITION,
	RAW_POSITION,
	RAW_TIMESTAMP,
	RAW_KEY,
	RAW_PAYLOAD,
	RAW_COLUMNS
};

typedef struct RowMaker
{
	ExportRows	   *rows;
	Batch		   *batch;
	Decoder		   *decoder;
	ExprContext	   *econtext;
	TupleTableSlot *slot; /* a row of the stream */
	ExprState	   *where;
	ExprState	  **keys;
	ExprState	  **inputs;
	ExprState	  **filters;  /* or NULL each */
	MemoryContext	cxt;	  /* of a batch's tuples */
	MinimalTuple   *made;	  /* [row] */
	int				from, to; /* rows to be made by a step */
} RowMaker;

/* ---- expressions ---- */

static ExprState *
rows_prepare(Expr *expr)
{
	return ExecInitExpr(expression_planner(copyObject(expr)), NULL);
}

static void
rows_prepare_all(RowMaker *maker)
{
	const ExportPlan *plan = maker->rows->plan;
	List			 *quals = NIL;
	ListCell		 *lc;

	foreach (lc, plan->view->quals)
		quals = lappend(quals, expression_planner(copyObject(lfirst(lc))));
	maker->where = ExecInitQual(quals, NULL);
	maker->keys = palloc(sizeof(ExprState *) * Max(plan->nkeys, 1));
	for (int k = 0; k < plan->nkeys; k++)
		maker->keys[k] = rows_prepare(plan->view->keys[plan->keys[k]].expr);
	maker->inputs = palloc(sizeof(ExprState *) * Max(plan->ninputs, 1));
	maker->filters = palloc0(sizeof(ExprState *) * Max(plan->ninputs, 1));
	for (int i = 0; i < plan->ninputs; i++)
	{
		maker->inputs[i] = rows_prepare(plan->inputs[i].expr);
		if (plan->inputs[i].filter != NULL)
			maker->filters[i] = rows_prepare(plan->inputs[i].filter);
	}
}

static void
rows_load(RowMaker *maker, int row)
{
	TupleTableSlot *slot = maker->slot;

	ExecClearTuple(slot);
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		slot->tts_isnull[i] = TupleDescAttr(slot->tts_tupleDescriptor, i)->attisdropped || maker->batch->nulls[i][row];
		slot->tts_values[i] = slot->tts_isnull[i] ? (Datum) 0 : maker->batch->values[i][row];
	}
	ExecStoreVirtualTuple(slot);
}

static void
rows_put_input(RowMaker *maker, int i, Datum *value, bool *isnull)
{
	bool none;

	*isnull = true;
	if (maker->filters[i] != NULL && (!DatumGetBool(ExecEvalExpr(maker->filters[i], maker->econtext, &none)) || none))
		return;
	*value = ExecEvalExpr(maker->inputs[i], maker->econtext, isnull);
}

/* The columns that every row has; the others are NULL. */
static void
rows_put_fixed(const RowMaker *maker, int record, Datum *values, bool *nulls)
{
	const StreamRecord *r = &maker->batch->records[record];

	memset(nulls, true, sizeof(bool) * maker->rows->desc->natts);
	values[ROW_TOPIC] = CStringGetTextDatum(r->topic);
	values[ROW_PARTITION] = Int32GetDatum(r->partition);
	values[ROW_POSITION] = Int64GetDatum(r->position);
	values[ROW_KEPT] = values[ROW_REJECTED] = BoolGetDatum(false);
	nulls[ROW_TOPIC] = nulls[ROW_PARTITION] = nulls[ROW_POSITION] = nulls[ROW_KEPT] = nulls[ROW_REJECTED] = false;
}

static MinimalTuple
rows_form(const RowMaker *maker, const Datum *values, const bool *nulls)
{
	MemoryContext old = MemoryContextSwitchTo(maker->cxt);
	MinimalTuple  tuple;

	tuple = compat_minimal_tuple(maker->rows->desc, values, nulls);
	MemoryContextSwitchTo(old);
	return tuple;
}

static MinimalTuple
rows_make(RowMaker *maker, int row)
{
	const ExportPlan *plan = maker->rows->plan;
	TupleDesc		  desc = maker->rows->desc;
	Datum			 *values = palloc0(sizeof(Datum) * desc->natts);
	bool			 *nulls = palloc(sizeof(bool) * desc->natts);
	int				  att = ROW_FIXED;

	rows_put_fixed(maker, maker->batch->record[row], values, nulls);
	values[ROW_EVENT_TIME] = TimestampTzGetDatum(maker->batch->event_time[row]);
	nulls[ROW_EVENT_TIME] = false;
	rows_load(maker, row);
	if (ExecQual(maker->where, maker->econtext))
	{
		values[ROW_KEPT] = BoolGetDatum(true);
		for (int k = 0; k < plan->nkeys; k++, att++)
			values[att] = ExecEvalExpr(maker->keys[k], maker->econtext, &nulls[att]);
		if (plan->has_at)
		{
			const Window *window = &plan->view->window;

			values[att] = TimestampTzGetDatum(
				streamext_window_pane_time(window, streamext_window_pane(window, maker->batch->event_time[row])));
			nulls[att++] = false;
		}
		for (int i = 0; i < plan->ninputs; i++, att++)
			rows_put_input(maker, i, &values[att], &nulls[att]);
	}
	return rows_form(maker, values, nulls);
}

/* A StreamextStep. */
static void
rows_step(void *arg)
{
	RowMaker *maker = arg;

	for (int row = maker->from; row < maker->to; row++)
	{
		MemoryContext old = MemoryContextSwitchTo(maker->econtext->ecxt_per_tuple_memory);

		maker->made[row] = rows_make(maker, row);
		MemoryContextSwitchTo(old);
		ResetExprContext(maker->econtext);
	}
}

/* A row that raises is rejected for the view. */
static void
rows_make_one(RowMaker *maker, int row)
{
	ErrorData *error;

	maker->from = row;
	maker->to = row + 1;
	maker->made[row] = NULL;
	error = streamext_try(rows_step, maker);
	if (error == NULL)
		return;
	if (streamext_error_blame(error) == BLAME_GENERAL)
		ReThrowError(error);
	ResetExprContext(maker->econtext);
	maker->made[row] = NULL;
	streamext_batch_reject(maker->batch, maker->rows->plan->view->relid, maker->batch->record[row], error->sqlerrcode,
						   streamext_error_text(error));
}

static void
rows_make_all(RowMaker *maker)
{
	IdentityScope scope = streamext_identity_enter(maker->rows->plan->view->owner);
	ErrorData	 *error;

	streamext_view_enter_settings(&maker->rows->plan->view->options);
	maker->from = 0;
	maker->to = maker->batch->nrows;
	error = streamext_try(rows_step, maker);
	if (error != NULL && streamext_error_blame(error) == BLAME_GENERAL)
		ReThrowError(error);
	if (error != NULL)
	{
		ResetExprContext(maker->econtext);
		for (int row = 0; row < maker->batch->nrows; row++)
			rows_make_one(maker, row);
	}
	streamext_identity_leave(scope);
}

/* ---- batches ---- */

static void
rows_note_newest(ExportRows *rows, const StreamRecord *record, TimestampTz t)
{
	ExportNewest *newest;
	ListCell	 *lc;
	MemoryContext old;

	foreach (lc, rows->newest)
	{
		newest = lfirst(lc);
		if (newest->partition == record->partition && strcmp(newest->topic, record->topic) == 0)
		{
			newest->newest = Max(newest->newest, t);
			return;
		}
	}
	old = MemoryContextSwitchTo(rows->cxt);
	newest = palloc(sizeof(ExportNewest));
	newest->topic = pstrdup(record->topic);
	newest->partition = record->partition;
	newest->newest = t;
	rows->newest = lappend(rows->newest, newest);
	MemoryContextSwitchTo(old);
}

static void
rows_put_rejected(RowMaker *maker)
{
	TupleDesc desc = maker->rows->desc;
	Datum	 *values = palloc0(sizeof(Datum) * desc->natts);
	bool	 *nulls = palloc(sizeof(bool) * desc->natts);
	ListCell *lc;

	foreach (lc, maker->batch->rejected)
	{
		rows_put_fixed(maker, ((RejectedRecord *) lfirst(lc))->record, values, nulls);
		values[ROW_REJECTED] = BoolGetDatum(true);
		tuplestore_putvalues(maker->rows->store, desc, values, nulls);
	}
}

/*
 * As letters of this view alone: they are of what an engine has said, and may read the stream no more than that. Letters of the whole stream
 * are what its owner has counted in all views by streamext.retry_dead_letters.
 */
static void
rows_write_letters(RowMaker *maker)
{
	ListCell *lc;

	foreach (lc, maker->batch->rejected)
		((RejectedRecord *) lfirst(lc))->view = maker->rows->plan->view->relid;
	if (maker->batch->rejected != NIL)
		streamext_dead_letters_write(maker->batch, maker->decoder);
}

static void
rows_put_all(RowMaker *maker)
{
	ExportRows	   *rows = maker->rows;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(rows->desc, &TTSOpsMinimalTuple);

	for (int row = 0; row < maker->batch->nrows; row++)
	{
		rows_note_newest(rows, &maker->batch->records[maker->batch->record[row]], maker->batch->event_time[row]);
		if (maker->made[row] == NULL)
			continue;
		ExecStoreMinimalTuple(maker->made[row], slot, false);
		tuplestore_puttupleslot(rows->store, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	rows->rejected += list_length(maker->batch->rejected);
	if (!rows->letters)
		rows_put_rejected(maker);
	else
		rows_write_letters(maker);
}

static void
rows_run_batch(RowMaker *maker)
{
	IdentityScope scope;

	CHECK_FOR_INTERRUPTS();
	MemoryContextReset(maker->cxt);
	maker->batch->again = true; /* it is tried once */
	scope = streamext_decoder_enter(maker->decoder);
	streamext_decoder_run(maker->decoder, maker->batch, streamext_clock_now());
	streamext_identity_leave(scope);
	rows_make_all(maker);
	rows_put_all(maker);
}

/* ---- what is read ---- */

static const char *
rows_bytes(HeapTuple tuple, TupleDesc desc, int column, uint32 *size)
{
	bool   isnull;
	Datum  value = SPI_getbinval(tuple, desc, column + 1, &isnull);
	bytea *bytes;
	char  *copy;

	*size = 0;
	if (isnull)
		return NULL;
	bytes = DatumGetByteaPP(value);
	*size = VARSIZE_ANY_EXHDR(bytes);
	copy = palloc(*size + 1);
	memcpy(copy, VARDATA_ANY(bytes), *size);
	copy[*size] = '\0';
	return copy;
}

static void
rows_read_record(StreamRecord *record, HeapTuple tuple, TupleDesc desc)
{
	bool  isnull[RAW_COLUMNS];
	Datum values[RAW_COLUMNS];

	for (int i = 0; i < RAW_COLUMNS; i++)
		values[i] = SPI_getbinval(tuple, desc, i + 1, &isnull[i]);
	if (isnull[RAW_TOPIC] || isnull[RAW_PARTITION] || isnull[RAW_POSITION])
		ereport(ERROR, (errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						errmsg("a raw record is without topic, partition or position")));
	memset(record, 0, sizeof(*record));
	record->topic = TextDatumGetCString(values[RAW_TOPIC]);
	record->partition = DatumGetInt32(values[RAW_PARTITION]);
	record->position = DatumGetInt64(values[RAW_POSITION]);
	record->next_position = record->position + 1;
	record->timestamp = isnull[RAW_TIMESTAMP] ? streamext_clock_now() : DatumGetTimestampTz(values[RAW_TIMESTAMP]);
	record->key = rows_bytes(tuple, desc, RAW_KEY, &record->key_size);
	record->payload = rows_bytes(tuple, desc, RAW_PAYLOAD, &record->payload_size);
	if (record->payload_size > STREAMEXT_MAX_RECORD)
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("a raw record of more than %d bytes", STREAMEXT_MAX_RECORD)));
}

static void
rows_run_taken(RowMaker *maker)
{
	maker->rows->records += maker->batch->nrecords;
	if (maker->batch->nrecords > 0)
		rows_run_batch(maker);
	streamext_batch_reset(maker->batch);
}

/* What is in hand becomes a batch, or several if it is large, but for what counts nowhere. */
static void
rows_take(RowMaker *maker, SPITupleTable *table, uint64 n)
{
	const StreamConfig *config = maker->rows->plan->config;
	Size				bytes = 0;

	streamext_batch_reset(maker->batch);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(maker->batch->cxt);
		StreamRecord *record = &maker->batch->records[maker->batch->nrecords];

		rows_read_record(record, table->vals[i], table->tupdesc);
		MemoryContextSwitchTo(old);
		bytes += record->payload_size + record->key_size;
		if (!streamext_decoder_ignores(config, record))
			maker->batch->nrecords++;
		if (bytes > ROWS_BATCH_BYTES)
		{
			rows_run_taken(maker);
			bytes = 0;
		}
	}
	rows_run_taken(maker);
}

static void
rows_check_columns(TupleDesc desc)
{
	static const Oid types[RAW_COLUMNS] = { TEXTOID, INT4OID, INT8OID, TIMESTAMPTZOID, BYTEAOID, BYTEAOID };

	for (int i = 0; i < RAW_COLUMNS; i++)
		if (TupleDescAttr(desc, i)->atttypid != types[i])
			ereport(ERROR, (errcode(ERRCODE_INVALID_TABLE_DEFINITION),
							errmsg("column \"%s\" of raw records is of type %s, not %s",
								   NameStr(TupleDescAttr(desc, i)->attname),
								   format_type_be(TupleDescAttr(desc, i)->atttypid), format_type_be(types[i])),
							errhint("Make it as the plan says.")));
}

static void
rows_begin(RowMaker *maker, ExportRows *rows, MemoryContext cxt)
{
	IdentityScope scope;

	maker->rows = rows;
	maker->decoder = streamext_decoder_create(unconstify(StreamConfig *, rows->plan->config), cxt);
	maker->batch = streamext_batch_create(unconstify(StreamConfig *, rows->plan->config), NULL, cxt);
	maker->cxt = AllocSetContextCreate(cxt, "streamext export rows", ALLOCSET_DEFAULT_SIZES);
	maker->made = palloc0(sizeof(MinimalTuple) * STREAMEXT_BATCH_ROWS);
	maker->econtext = CreateStandaloneExprContext();
	maker->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(rows->plan->config->desc), &TTSOpsVirtual);
	maker->econtext->ecxt_scantuple = maker->slot;
	scope = streamext_identity_enter(rows->plan->view->owner);
	streamext_view_enter_settings(&rows->plan->view->options);
	streamext_view_check_trust(rows->plan->view);
	rows_prepare_all(maker);
	streamext_identity_leave(scope);
}

void
streamext_export_rows_run(ExportRows *rows, const char *relation)
{
	MemoryContext cxt = CurrentMemoryContext;
	RowMaker	  maker = { 0 };
	Portal		  cursor;
	SPIPlanPtr	  plan;
	IdentityScope scope;

	rows_begin(&maker, rows, cxt);
	scope = streamext_identity_enter_lightly(GetUserId()); /* who calls, whose relation it is */
	plan = SPI_prepare(psprintf("SELECT topic, partition, position, \"timestamp\", key, payload FROM %s", relation), 0,
					   NULL);
	if (plan == NULL)
		elog(ERROR, "could not read %s: %s", relation, SPI_result_code_string(SPI_result));
	cursor = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	streamext_identity_leave(scope);
	rows_check_columns(cursor->tupDesc);
	for (;;)
	{
		SPITupleTable *table;
		uint64		   n;

		SPI_cursor_fetch(cursor, true, STREAMEXT_BATCH_ROWS);
		table = SPI_tuptable;
		n = SPI_processed;
		if (n == 0)
			break;
		MemoryContextSwitchTo(cxt);
		rows_take(&maker, table, n);
		SPI_freetuptable(table);
	}
	SPI_cursor_close(cursor);
	FreeExprContext(maker.econtext, true);
	ExecDropSingleTupleTableSlot(maker.slot);
	streamext_decoder_free(maker.decoder);
}

/* ---- for the dialect postgres ---- */

static bool
rows_same_columns(TupleDesc a, TupleDesc b)
{
	for (int i = 0; a->natts == b->natts && i < a->natts; i++)
		if (TupleDescAttr(a, i)->atttypid != TupleDescAttr(b, i)->atttypid)
			return false;
	return a->natts == b->natts;
}

/* streamext.export_rows(view regclass, batch regclass) */
Datum
streamext_export_rows(PG_FUNCTION_ARGS)
{
	Oid			   viewoid = PG_GETARG_OID(0);
	Oid			   relation = PG_GETARG_OID(1);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ExportRows	   rows = { .cxt = CurrentMemoryContext };
	char		  *name;

	streamext_export_check_rights(viewoid);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	rows.plan = streamext_export_make(streamext_export_compile(viewoid, NULL), &streamext_export_postgres);
	rows.desc = streamext_export_row_desc(rows.plan);
	if (!rows_same_columns(rsinfo->setDesc, rows.desc))
		ereport(ERROR, (errcode(ERRCODE_DATATYPE_MISMATCH), errmsg("the columns are not those of the view's plan")));
	rows.store = rsinfo->setResult;
	name = get_rel_name(relation);
	if (name == NULL)
		ereport(ERROR, (errcode(ERRCODE_UNDEFINED_TABLE), errmsg("there is no such relation of records any more")));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	streamext_export_rows_run(&rows, quote_qualified_identifier(get_namespace_name(get_rel_namespace(relation)), name));
	SPI_finish();
	PG_RETURN_VOID();
}
