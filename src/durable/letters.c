/*-------------------------------------------------------------------------
 *
 * durable/letters.c
 *		Rejected records into the table streamext_internal.dead_letter, late ones into streamext_internal.late_row.
 *
 * Both tables are written in one way and differ in few columns. One INSERT over unnested arrays for up to
 * DEAD_LETTER_ROWS records or about DEAD_LETTER_BYTES of payload, so that a source that sends nothing but rubbish costs no
 * statement a record. Payloads are cut at DEAD_LETTER_PAYLOAD bytes.
 *
 * Letters of a batch may be held instead (worker/letters_hold.c says when): they stay in this process, in the form in which they will be written, and
 * of those that follow each other so fast only as many as the table keeps are ever written. Held rows belong to batches that are published; until then
 * they are staged, and given up with the batch.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "access/xact.h"
#include "portability/instr_time.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/fault.h"
#include "base/own_table.h"
#include "base/transaction.h"
#include "durable/letter_record.h"
#include "durable/letters.h"
#include "stream/definition.h"

#define LETTER_LOCK_CLASS 0x5359 /* pg_advisory_lock's are 1 and 2, durable/checkpoint_restore.c's the one before */

#define DEAD_LETTER_ROWS STREAMEXT_BATCH_ROWS
#define DEAD_LETTER_BYTES (8 * 1024 * 1024)

#define LETTER_OVERHEAD 256 /* bytes of memory for what is in all rows */
#define LETTER_HELD_BYTES (16 * 1024 * 1024)
#define LETTER_HELD_MS 1000
#define LETTER_COST_FACTOR 10 /* at most a tenth of the time is spent with it, where nothing else asks for it */

/* $1 is the stream, the others are arrays by these. */
enum
{
	LETTER_VIEW,
	LETTER_TOPIC,
	LETTER_PARTITION,
	LETTER_POSITION,
	LETTER_PAYLOAD,
	LETTER_COMMON,					   /* columns of both tables */
	LETTER_EVENT_TIME = LETTER_COMMON, /* late_row */
	LATE_COLUMNS,
	LETTER_SQLSTATE = LETTER_COMMON, /* dead_letter */
	LETTER_REASON,
	LETTER_RECORD,
	LETTER_WHOLE,
	LETTER_DONE,
	LETTER_COLUMNS
};

typedef struct LetterRows LetterRows;

typedef struct LetterList
{
	LetterRows *first;
	LetterRows *last;
	int64		n; /* rows */
} LetterList;

typedef struct LetterTable
{
	const char *name;
	const char *insert_sql;
	const char *prune_sql;
	Oid			types[LETTER_COLUMNS];
	int			ncolumns;
	const int  *limit; /* rows kept for each stream */

	OwnPlan insert_plan;
	OwnPlan prune_plan;
	int64	unpruned; /* inserted since the last pruning; at first nothing is known */

	LetterList staged;
	LetterList held;
} LetterTable;

/* What one statement inserts. */
struct LetterRows
{
	LetterRows	 *next;
	MemoryContext cxt; /* holds all of it */
	int			  n;
	Size		  bytes; /* about, of all that is not the same for all rows */
	Datum		 *values[LETTER_COLUMNS];
	bool		 *nulls;	/* none is */
	int			  sqlstate; /* the last one's */
	const char	 *reason;	/* the same, of the batch */
	Datum		  nobody;	/* '{}', for `done` */
	bool		 *payload_nulls;
};

static Size		   letter_held_bytes;
static TimestampTz letter_held_since;
static int64	   letter_cost_us; /* of the last time that held ones were written */

#define LETTER_PRUNE_SQL(table)                                                                                       \
	"DELETE FROM streamext_internal." table " WHERE stream OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.<=) " \
	"(SELECT d.id FROM streamext_internal." table                                                                     \
	" AS d WHERE d.stream OPERATOR(pg_catalog.=) $1 ORDER BY d.id DESC LIMIT 1 OFFSET $2)"

static LetterTable letter_dead = {
	.name = "streamext_internal.dead_letter",
	.insert_sql =
		"INSERT INTO streamext_internal.dead_letter (stream, view, topic, partition, position, payload, sqlstate, reason, record, whole, done) "
		"SELECT $1, u.v, u.t, u.p, u.o, u.b, u.s, u.r, u.e, u.w, u.d::pg_catalog.oid[] "
		"FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), "
		"pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10), "
		"pg_catalog.unnest($11)) AS u(v, t, p, o, b, s, r, e, w, d) "
		"ON CONFLICT (stream, partition, position, view, topic, source) DO UPDATE SET sqlstate = EXCLUDED.sqlstate, "
		"reason = EXCLUDED.reason, payload = EXCLUDED.payload, record = EXCLUDED.record, whole = EXCLUDED.whole, retry = 0",
	.prune_sql = LETTER_PRUNE_SQL("dead_letter"),
	.types = { OIDOID, TEXTOID, INT4OID, INT8OID, BYTEAOID, TEXTOID, TEXTOID, BYTEAOID, BOOLOID, TEXTOID },
	.ncolumns = LETTER_COLUMNS,
	.limit = &streamext_dead_letter_limit,
	.unpruned = PG_INT64_MAX
};

static LetterTable letter_late = {
	.name = "streamext_internal.late_row",
	.insert_sql =
		"INSERT INTO streamext_internal.late_row (stream, view, topic, partition, position, payload, event_time) "
		"SELECT $1, u.v, u.t, u.p, u.o, u.b, u.e "
		"FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), "
		"pg_catalog.unnest($6), pg_catalog.unnest($7)) AS u(v, t, p, o, b, e) "
		"ON CONFLICT DO NOTHING",
	.prune_sql = LETTER_PRUNE_SQL("late_row"),
	.types = { OIDOID, TEXTOID, INT4OID, INT8OID, BYTEAOID, TIMESTAMPTZOID },
	.ncolumns = LATE_COLUMNS,
	.limit = &streamext_late_row_limit,
	.unpruned = PG_INT64_MAX
};

static void
letter_prepare_plans(LetterTable *table)
{
	Oid types[1 + LETTER_COLUMNS] = { OIDOID };
	Oid prune_types[2] = { OIDOID, INT8OID };

	for (int i = 0; i < table->ncolumns; i++)
		types[i + 1] = get_array_type(table->types[i]);
	(void) streamext_own_plan(&table->insert_plan, table->insert_sql, 1 + table->ncolumns, types);
	(void) streamext_own_plan(&table->prune_plan, table->prune_sql, 2, prune_types);
}

/* Text from outside, in whatever encoding: bytes that the database's encoding does not know become question marks. */
Datum
streamext_dead_letter_text(const char *s)
{
	Size  size = s == NULL ? 0 : strlen(s);
	text *copy = palloc(VARHDRSZ + size);
	char *bytes = VARDATA(copy);

	SET_VARSIZE(copy, VARHDRSZ + size);
	if (size > 0)
		memcpy(bytes, s, size);
	if (!pg_verify_mbstr(GetDatabaseEncoding(), bytes, size, true))
		for (Size i = 0; i < size; i++)
			if (IS_HIGHBIT_SET(bytes[i]))
				bytes[i] = '?';
	return PointerGetDatum(copy);
}

static bytea *
letter_raw_payload(const StreamRecord *record, Size size)
{
	bytea *payload = palloc(VARHDRSZ + size);

	SET_VARSIZE(payload, VARHDRSZ + size);
	memcpy(VARDATA(payload), record->payload, size);
	return payload;
}

typedef struct RowPayloads
{
	Batch		*batch;
	Decoder		*decoder;
	const int	*records;
	Datum		*payloads; /* [n] */
	int			 n;
	volatile int at;
} RowPayloads;

/* A StreamextStep. Rows as JSON text, which runs output functions; raises at the culprit. */
static void
letter_row_step(void *arg)
{
	RowPayloads *rows = arg;

	for (; rows->at < rows->n; rows->at++)
	{
		const StreamRecord *record = &rows->batch->records[rows->records[rows->at]];

		if (record->payload != NULL)
			rows->payloads[rows->at] = PointerGetDatum(streamext_decoder_payload(rows->decoder, record));
	}
}

/* Payloads of rows. Should the output of one raise, its bytes must do. */
static void
letter_row_payloads(Batch *batch, Decoder *decoder, const int *records, Datum *payloads, int n)
{
	RowPayloads rows = { batch, decoder, records, payloads, n, 0 };

	while (rows.at < n)
	{
		ErrorData		   *error = streamext_try(letter_row_step, &rows);
		const StreamRecord *record;

		CHECK_FOR_INTERRUPTS(); /* it may have been a cancel */
		if (error == NULL)
			return;
		if (streamext_error_blame(error) == BLAME_GENERAL)
			ReThrowError(error);
		record = &batch->records[records[rows.at]];
		payloads[rows.at++] =
			PointerGetDatum(letter_raw_payload(record, Min(record->payload_size, DEAD_LETTER_PAYLOAD)));
	}
}

Datum
streamext_dead_letter_array(Datum *values, bool *nulls, int n, Oid type)
{
	int	  dims[1] = { n };
	int	  lbs[1] = { 1 };
	int16 len;
	bool  byval;
	char  align;

	get_typlenbyvalalign(type, &len, &byval, &align);
	return PointerGetDatum(construct_md_array(values, nulls, 1, dims, lbs, type, len, byval, align));
}

List *
streamext_dead_letter_done(Datum array)
{
	Datum *values;
	List  *done = NIL;
	int	   n;

	deconstruct_array(DatumGetArrayTypePCopy(array), OIDOID, sizeof(Oid), true, TYPALIGN_INT, &values, NULL, &n);
	for (int i = 0; i < n; i++)
		done = lappend_oid(done, DatumGetObjectId(values[i]));
	return done;
}

/* ---------------------------------------------------------------- rows */

static int
letter_record_number(const LetterTable *table, const void *item)
{
	return table == &letter_late ? ((const LateRecord *) item)->record : ((const RejectedRecord *) item)->record;
}

/* The columns that only one of the tables has, and the view. */
static void
letter_fill(const LetterTable *table, const Batch *batch, const void *item, LetterRows *rows)
{
	const RejectedRecord *rejected = item;
	const LateRecord	 *late = item;
	bytea				 *record;
	bool				  whole;
	int					  n = rows->n;

	if (table == &letter_late)
	{
		rows->values[LETTER_VIEW][n] = ObjectIdGetDatum(late->view);
		rows->values[LETTER_EVENT_TIME][n] = TimestampTzGetDatum(late->event_time);
		return;
	}
	record = streamext_letter_record(batch, &batch->records[rejected->record], &whole);
	rows->values[LETTER_VIEW][n] = ObjectIdGetDatum(rejected->view);
	rows->values[LETTER_SQLSTATE][n] = n > 0 && rejected->sqlstate == rows->sqlstate
										   ? rows->values[LETTER_SQLSTATE][n - 1]
										   : CStringGetTextDatum(unpack_sql_state(rejected->sqlstate));
	rows->sqlstate = rejected->sqlstate;
	rows->values[LETTER_REASON][n] = n > 0 && strcmp(rejected->reason, rows->reason) == 0
										 ? rows->values[LETTER_REASON][n - 1]
										 : streamext_dead_letter_text(rejected->reason);
	rows->reason = rejected->reason;
	rows->values[LETTER_DONE][n] = rejected->done != NULL ? CStringGetTextDatum(rejected->done) : rows->nobody;
	rows->values[LETTER_RECORD][n] = PointerGetDatum(record);
	rows->values[LETTER_WHOLE][n] = BoolGetDatum(whole);
	rows->bytes += VARSIZE_ANY(record);
}

/* Items from number *from on, as many as one statement shall carry; *from is then the next one's. In a memory context of its own, below `parent`. */
static LetterRows *
letter_rows(const LetterTable *table, Batch *batch, Decoder *decoder, List *items, int *from, MemoryContext parent)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "streamext dead letters", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	LetterRows	 *rows = palloc0(sizeof(LetterRows));
	int			  most = Min(list_length(items) - *from, DEAD_LETTER_ROWS);
	int			 *records = palloc(sizeof(int) * most);
	const char	 *topic = NULL;
	Datum		  topic_text = (Datum) 0;
	Datum		 *payloads;

	rows->cxt = cxt;
	rows->nobody = CStringGetTextDatum("{}");
	rows->nulls = palloc0(sizeof(bool) * most);
	rows->payload_nulls = palloc0(sizeof(bool) * most);
	for (int i = 0; i < table->ncolumns; i++)
		rows->values[i] = palloc0(sizeof(Datum) * most);
	for (; rows->n < most && rows->bytes < DEAD_LETTER_BYTES; (*from)++, rows->n++)
	{
		const void		   *item = list_nth(items, *from);
		int					n = rows->n;
		const StreamRecord *record = &batch->records[letter_record_number(table, item)];

		letter_fill(table, batch, item, rows);
		records[n] = letter_record_number(table, item);
		if (n == 0 || record->topic != topic)
			topic_text = streamext_dead_letter_text(streamext_stream_topic(batch->config, record->topic));
		topic = record->topic;
		rows->values[LETTER_TOPIC][n] = topic_text;
		rows->values[LETTER_PARTITION][n] = Int32GetDatum(record->partition);
		rows->values[LETTER_POSITION][n] = Int64GetDatum(record->position);
		rows->payload_nulls[n] = record->payload == NULL;
		rows->bytes += LETTER_OVERHEAD;
		if (record->payload != NULL)
			rows->bytes += Min(record->payload_size, DEAD_LETTER_PAYLOAD);
	}
	payloads = rows->values[LETTER_PAYLOAD];
	if (batch->config->format->rows)
		letter_row_payloads(batch, decoder, records, payloads, rows->n);
	for (int i = 0; i < rows->n; i++)
	{
		const StreamRecord *record = &batch->records[records[i]];

		if (record->payload == NULL)
			continue;
		if (!batch->config->format->rows)
			payloads[i] = PointerGetDatum(letter_raw_payload(record, Min(record->payload_size, DEAD_LETTER_PAYLOAD)));
		if (VARSIZE_ANY_EXHDR(DatumGetPointer(payloads[i])) > DEAD_LETTER_PAYLOAD)
			SET_VARSIZE(DatumGetPointer(payloads[i]), VARHDRSZ + DEAD_LETTER_PAYLOAD);
	}
	pfree(records);
	MemoryContextSwitchTo(old);
	return rows;
}

/* Within SPI. Of the rows nothing changes. */
static void
letter_insert(LetterTable *table, const LetterRows *rows, Oid stream)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext dead letters", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	Datum		  args[1 + LETTER_COLUMNS];
	int			  rc;

	args[0] = ObjectIdGetDatum(stream);
	for (int i = 0; i < table->ncolumns; i++)
		args[i + 1] = streamext_dead_letter_array(
			rows->values[i], i == LETTER_PAYLOAD ? rows->payload_nulls : rows->nulls, rows->n, table->types[i]);
	rc = SPI_execute_plan(table->insert_plan.plan, args, NULL, false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "could not insert into %s: %s", table->name, SPI_result_code_string(rc));
	if (table->unpruned < PG_INT64_MAX - rows->n)
		table->unpruned += rows->n;
	MemoryContextSwitchTo(old);
	MemoryContextDelete(cxt);
}

bool
streamext_dead_letters_lock(Oid stream, bool wait)
{
	LOCKTAG tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, stream, 0, LETTER_LOCK_CLASS);
	return LockAcquire(&tag, ExclusiveLock, false, !wait) != LOCKACQUIRE_NOT_AVAIL;
}

/* Not after each batch: a tenth more than the limit may stand there for a while. */
static void
letter_prune(LetterTable *table, Oid stream)
{
	Datum args[2];
	int	  rc;

	if (table->unpruned <= *table->limit / 10)
		return;
	/* this transaction has letters: rather next time than wait */
	if (table == &letter_dead && !streamext_dead_letters_lock(stream, false))
		return;
	args[0] = ObjectIdGetDatum(stream);
	args[1] = Int64GetDatum(*table->limit);
	rc = SPI_execute_plan(table->prune_plan.plan, args, NULL, false, 0);
	if (rc != SPI_OK_DELETE)
		elog(ERROR, "could not delete from %s: %s", table->name, SPI_result_code_string(rc));
	table->unpruned = 0;
}

static void
letter_write(LetterTable *table, Batch *batch, Decoder *decoder, List *items)
{
	IdentityScope own;
	int			  next;

	if (items == NIL || *table->limit == 0)
		return;
	own = streamext_own_begin();
	letter_prepare_plans(table);
	/* those that the pruning would take at once are not written at all */
	next = Max(0, list_length(items) - *table->limit);
	while (next < list_length(items))
	{
		LetterRows *rows = letter_rows(table, batch, decoder, items, &next, CurrentMemoryContext);

		letter_insert(table, rows, batch->config->relid);
		MemoryContextDelete(rows->cxt);
	}
	letter_prune(table, batch->config->relid);
	streamext_own_end(own);
}

/* Those of batch->rejected that are to have a letter. */
static List *
letter_fresh(const Batch *batch)
{
	List	 *fresh = NIL;
	ListCell *lc;

	if (batch->config->on_error == ON_ERROR_SKIP)
		return NIL;
	foreach (lc, batch->rejected)
		if (!((RejectedRecord *) lfirst(lc))->known)
			fresh = lappend(fresh, lfirst(lc));
	return fresh;
}

void
streamext_dead_letters_write(Batch *batch, Decoder *decoder)
{
	letter_write(&letter_dead, batch, decoder, letter_fresh(batch));
}

void
streamext_late_rows_write(Batch *batch, Decoder *decoder)
{
	letter_write(&letter_late, batch, decoder, batch->late);
}

/* ---------------------------------------------------------------- held */

static void
letter_append(LetterList *list, LetterRows *rows)
{
	if (list->first == NULL)
		list->first = rows;
	else
		list->last->next = rows;
	list->last = rows;
	list->n += rows->n;
}

static void
letter_drop_first(LetterList *list)
{
	LetterRows *rows = list->first;

	list->first = rows->next;
	list->n -= rows->n;
	MemoryContextDelete(rows->cxt);
}

static void
letter_drop_all(LetterList *list)
{
	while (list->first != NULL)
		letter_drop_first(list);
}

static void
letter_stage(LetterTable *table, Batch *batch, Decoder *decoder, List *items)
{
	int next = Max(0, list_length(items) - *table->limit);

	while (next < list_length(items))
		letter_append(&table->staged, letter_rows(table, batch, decoder, items, &next, TopMemoryContext));
}

void
streamext_letters_stage(Batch *batch, Decoder *decoder)
{
	MemoryContext old = MemoryContextSwitchTo(batch->cxt);

	streamext_letters_unstage();
	letter_stage(&letter_dead, batch, decoder, letter_fresh(batch));
	letter_stage(&letter_late, batch, decoder, batch->late);
	MemoryContextSwitchTo(old);
}

void
streamext_letters_unstage(void)
{
	letter_drop_all(&letter_dead.staged);
	letter_drop_all(&letter_late.staged);
}

static void
letter_hold(LetterTable *table)
{
	LetterList *held = &table->held;
	LetterRows *next;

	for (LetterRows *rows = table->staged.first; rows != NULL; rows = next)
	{
		next = rows->next;
		rows->next = NULL;
		letter_append(held, rows);
		letter_held_bytes += rows->bytes;
	}
	memset(&table->staged, 0, sizeof(LetterList));
	/* what the pruning would take at once */
	while (held->first != NULL && held->n - held->first->n >= *table->limit)
	{
		letter_held_bytes -= held->first->bytes;
		letter_drop_first(held);
	}
}

void
streamext_letters_hold(void)
{
	bool before = streamext_letters_are_held();

	letter_hold(&letter_dead);
	letter_hold(&letter_late);
	if (!before)
		letter_held_since = GetCurrentTimestamp();
}

bool
streamext_letters_are_held(void)
{
	return letter_dead.held.first != NULL || letter_late.held.first != NULL;
}

bool
streamext_letters_are_due(void)
{
	return letter_held_bytes > LETTER_HELD_BYTES ||
		   GetCurrentTimestamp() - letter_held_since >
			   Max(LETTER_HELD_MS * INT64CONST(1000), letter_cost_us * LETTER_COST_FACTOR);
}

/* Within SPI. */
static void
letter_write_held(LetterTable *table, Oid stream)
{
	if (table->held.first == NULL)
		return;
	letter_prepare_plans(table);
	for (const LetterRows *rows = table->held.first; rows != NULL; rows = rows->next)
		letter_insert(table, rows, stream);
	letter_prune(table, stream);
}

void
streamext_letters_settle(Oid stream)
{
	MemoryContext old = CurrentMemoryContext;
	IdentityScope own;
	instr_time	  begin;
	instr_time	  end;

	if (!streamext_letters_are_held())
		return;
	INSTR_TIME_SET_CURRENT(begin);
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(streamext_control_table("dead_letter")))
	{
		own = streamext_own_begin();
		letter_write_held(&letter_dead, stream);
		letter_write_held(&letter_late, stream);
		streamext_own_end(own);
	}
	PopActiveSnapshot();
	STREAMEXT_FAULT("letters-before-commit");
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	letter_drop_all(&letter_dead.held);
	letter_drop_all(&letter_late.held);
	letter_held_bytes = 0;
	INSTR_TIME_SET_CURRENT(end);
	INSTR_TIME_SUBTRACT(end, begin);
	letter_cost_us = INSTR_TIME_GET_MICROSEC(end);
}
