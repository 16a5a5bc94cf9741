/*-------------------------------------------------------------------------
 *
 * durable/letters.c
 *		Rejected records into the table streamext.dead_letter, late ones into streamext.late_row.
 *
 * Both tables are written in one way and differ in few columns. One INSERT over unnested arrays for up to
 * DEAD_LETTER_ROWS records or about DEAD_LETTER_BYTES of payload, so that a source that sends nothing but rubbish costs no
 * statement a record. Payloads are cut at DEAD_LETTER_PAYLOAD bytes.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "base/layout.h"
#include "base/own_table.h"
#include "base/transaction.h"
#include "durable/letters.h"

#define LETTER_LOCK_CLASS 0x5359 /* pg_advisory_lock's are 1 and 2, durable/checkpoint_restore.c's the one before */

#define DEAD_LETTER_ROWS STREAMEXT_BATCH_ROWS
#define DEAD_LETTER_BYTES (8 * 1024 * 1024)
#define DEAD_LETTER_PAYLOAD (1024 * 1024)

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

typedef struct LetterTable
{
	const char *name;
	const char *insert_sql;
	const char *prune_sql;
	Oid			types[LETTER_COLUMNS];
	int			ncolumns;
	const int  *limit; /* rows kept for each stream */

	SPIPlanPtr insert_plan;
	SPIPlanPtr prune_plan;
	int64	   unpruned; /* inserted since the last pruning; at first nothing is known */
} LetterTable;

#define LETTER_PRUNE_SQL(table)                                                                              \
	"DELETE FROM streamext." table " WHERE stream OPERATOR(pg_catalog.=) $1 AND id OPERATOR(pg_catalog.<=) " \
	"(SELECT d.id FROM streamext." table                                                                     \
	" AS d WHERE d.stream OPERATOR(pg_catalog.=) $1 ORDER BY d.id DESC LIMIT 1 OFFSET $2)"

static LetterTable letter_dead = {
	.name = "streamext.dead_letter",
	.insert_sql =
		"INSERT INTO streamext.dead_letter (stream, view, topic, partition, position, payload, sqlstate, reason, record, whole, done) "
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
	.name = "streamext.late_row",
	.insert_sql =
		"INSERT INTO streamext.late_row (stream, view, topic, partition, position, payload, event_time) "
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

static SPIPlanPtr
letter_prepare(const LetterTable *table, const char *sql, int nargs, Oid *types)
{
	SPIPlanPtr plan = SPI_prepare(sql, nargs, types);

	if (plan == NULL)
		elog(ERROR, "could not prepare a statement on %s: %s", table->name, SPI_result_code_string(SPI_result));
	SPI_keepplan(plan);
	return plan;
}

static void
letter_prepare_plans(LetterTable *table)
{
	Oid types[1 + LETTER_COLUMNS] = { OIDOID };
	Oid prune_types[2] = { OIDOID, INT8OID };

	for (int i = 0; i < table->ncolumns; i++)
		types[i + 1] = get_array_type(table->types[i]);
	if (table->insert_plan == NULL)
		table->insert_plan = letter_prepare(table, table->insert_sql, 1 + table->ncolumns, types);
	if (table->prune_plan == NULL)
		table->prune_plan = letter_prepare(table, table->prune_sql, 2, prune_types);
}

/* Text from outside, in whatever encoding: bytes that the database's encoding does not know become question marks. */
Datum
streamext_dead_letter_text(const char *s)
{
	char *copy = pstrdup(s == NULL ? "" : s);

	if (!pg_verify_mbstr(GetDatabaseEncoding(), copy, strlen(copy), true))
		for (char *c = copy; *c; c++)
			if (IS_HIGHBIT_SET(*c))
				*c = '?';
	return CStringGetTextDatum(copy);
}

static bytea *
letter_raw_payload(const StreamRecord *record, Size size)
{
	bytea *payload = palloc(VARHDRSZ + size);

	SET_VARSIZE(payload, VARHDRSZ + size);
	memcpy(VARDATA(payload), record->payload, size);
	return payload;
}

typedef struct RowPayload
{
	Decoder			   *decoder;
	const StreamRecord *record;
	bytea			   *payload;
} RowPayload;

/* A StreamextStep. */
static void
letter_row_step(void *arg)
{
	RowPayload *row = arg;

	row->payload = streamext_decoder_payload(row->decoder, row->record);
}

/* A row as JSON text runs output functions: should one raise, the bytes must do. */
static bytea *
letter_row_payload(Decoder *decoder, const StreamRecord *record)
{
	RowPayload row = { decoder, record, NULL };
	ErrorData *error = streamext_try(letter_row_step, &row);

	CHECK_FOR_INTERRUPTS(); /* it may have been a cancel */
	if (error == NULL)
		return row.payload;
	if (streamext_error_blame(error) == BLAME_GENERAL)
		ReThrowError(error);
	return letter_raw_payload(record, Min(record->payload_size, DEAD_LETTER_PAYLOAD));
}

static Datum
letter_payload(Batch *batch, Decoder *decoder, const StreamRecord *record, Size *size)
{
	bytea *payload = batch->config->format->rows
						 ? letter_row_payload(decoder, record)
						 : letter_raw_payload(record, Min(record->payload_size, DEAD_LETTER_PAYLOAD));

	if (VARSIZE_ANY_EXHDR(payload) > DEAD_LETTER_PAYLOAD)
		SET_VARSIZE(payload, VARHDRSZ + DEAD_LETTER_PAYLOAD);
	*size += VARSIZE_ANY(payload);
	return PointerGetDatum(payload);
}

/* ---------------------------------------------------------------- what makes it a record again */

/*
 * The column `record`: what the table's other columns do not say. This head (32 bytes, as the machine has it), the key, the headers, and of a row, whose payload is
 * shown as JSON, the row and its layout (base/layout.h). It is valid if and only if its length is the sum of these. `layout` is LETTER_LAYOUT
 * and the layout's size; 0: not of a row; else, by a version before 1.1, a 32-bit hash of the row's columns' types.
 */
#define LETTER_LAYOUT (UINT64CONST(1) << 63)

typedef struct LetterRecord
{
	TimestampTz timestamp;
	uint64		layout;
	uint32		key_size;
	uint32		headers_size;
	uint32		row_size;
	uint8		qos;
	bool		retained;
	bool		has_key;
	bool		has_headers;
} LetterRecord;

/* *whole: nothing was too large to be kept. */
static bytea *
letter_record(const Batch *batch, StreamRecord *record, bool *whole)
{
	Connector	*connector = batch->connector;
	const char	*headers = record->headers;
	const char	*row = batch->config->format->rows ? record->payload : NULL;
	LetterRecord head;
	Size		 size = sizeof(head);
	bytea		*result;
	char		*to;

	/* no column takes them, now */
	if (headers == NULL && connector != NULL && connector->ops->headers != NULL && record->message != NULL)
		headers = connector->ops->headers(connector, record);
	memset(&head, 0, sizeof(head));
	head.timestamp = record->timestamp;
	head.layout = record->layout != NULL ? LETTER_LAYOUT | record->layout->size : record->row_type_hash;
	head.qos = record->qos;
	head.retained = record->retained;
	head.has_key = record->key != NULL && record->key_size <= DEAD_LETTER_PAYLOAD;
	head.key_size = head.has_key ? record->key_size : 0;
	head.has_headers = headers != NULL && strlen(headers) <= DEAD_LETTER_PAYLOAD;
	head.headers_size = head.has_headers ? strlen(headers) : 0;
	head.row_size = row != NULL && record->payload_size <= DEAD_LETTER_PAYLOAD ? record->payload_size : 0;
	*whole = (record->payload == NULL || record->payload_size <= DEAD_LETTER_PAYLOAD) &&
			 head.has_key == (record->key != NULL) && head.has_headers == (headers != NULL);

	size += head.key_size + head.headers_size + head.row_size + (record->layout != NULL ? record->layout->size : 0);
	result = palloc(VARHDRSZ + size);
	SET_VARSIZE(result, VARHDRSZ + size);
	to = VARDATA(result);
	memcpy(to, &head, sizeof(head));
	to += sizeof(head);
	if (head.key_size > 0)
		memcpy(to, record->key, head.key_size);
	to += head.key_size;
	if (head.headers_size > 0)
		memcpy(to, headers, head.headers_size);
	to += head.headers_size;
	if (head.row_size > 0)
		memcpy(to, row, head.row_size);
	to += head.row_size;
	if (record->layout != NULL)
		memcpy(to, record->layout, record->layout->size);
	return result;
}

bool
streamext_dead_letter_record(StreamRecord *record, const FormatOps *format, const bytea *payload, const bytea *rest)
{
	const char	*from = VARDATA_ANY(rest);
	LetterRecord head;
	Size		 layout_size;

	if (VARSIZE_ANY_EXHDR(rest) < sizeof(head))
		return false;
	memcpy(&head, from, sizeof(head));
	layout_size = (head.layout & LETTER_LAYOUT) != 0 ? head.layout & ~LETTER_LAYOUT : 0;
	if (layout_size > MaxAllocSize || VARSIZE_ANY_EXHDR(rest) != sizeof(head) + (Size) head.key_size +
																	 head.headers_size + head.row_size + layout_size)
		return false;
	from += sizeof(head);
	record->timestamp = head.timestamp;
	record->row_type_hash = layout_size == 0 ? (uint32) head.layout : 0;
	record->layout = NULL;
	record->qos = head.qos;
	record->retained = head.retained;
	record->key = head.has_key ? from : NULL;
	record->key_size = head.key_size;
	from += head.key_size;
	record->headers = head.has_headers ? pnstrdup(from, head.headers_size) : NULL;
	from += head.headers_size;
	if (format->rows)
	{
		record->payload = from;
		record->payload_size = head.row_size;
		if (layout_size > 0)
		{
			record->layout =
				streamext_layout_intern(memcpy(palloc(layout_size), from + head.row_size, layout_size), layout_size);
			if (record->layout == NULL)
				return false;
		}
	}
	else if (payload != NULL)
	{
		record->payload = VARDATA_ANY(payload);
		record->payload_size = VARSIZE_ANY_EXHDR(payload);
	}
	return true;
}

/* Of a letter's record: the key, or the headers. False: it has none, or none that was small enough to be kept. */
static bool
letter_part(const bytea *rest, bool headers, const char **part, Size *size)
{
	LetterRecord head;

	if (VARSIZE_ANY_EXHDR(rest) < sizeof(head))
		return false;
	memcpy(&head, VARDATA_ANY(rest), sizeof(head));
	if (VARSIZE_ANY_EXHDR(rest) < sizeof(head) + (Size) head.key_size + head.headers_size)
		return false;
	*part = VARDATA_ANY(rest) + sizeof(head) + (headers ? head.key_size : 0);
	*size = headers ? head.headers_size : head.key_size;
	return headers ? head.has_headers : head.has_key;
}

PG_FUNCTION_INFO_V1(streamext_letter_key);
PG_FUNCTION_INFO_V1(streamext_letter_headers);

Datum
streamext_letter_key(PG_FUNCTION_ARGS)
{
	const char *part;
	Size		size;

	if (!letter_part(PG_GETARG_BYTEA_PP(0), false, &part, &size))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(PointerGetDatum(cstring_to_text_with_len(part, size))); /* bytea has the same layout */
}

/* Text that the connector has made, of type json. */
Datum
streamext_letter_headers(PG_FUNCTION_ARGS)
{
	const char *part;
	Size		size;

	if (!letter_part(PG_GETARG_BYTEA_PP(0), true, &part, &size))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(DirectFunctionCall1(json_in, CStringGetDatum(pnstrdup(part, size))));
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

/* The columns that only one of the tables has, and the view; gives the record. */
static StreamRecord *
letter_fill(const LetterTable *table, const Batch *batch, const void *item, Datum **values, int n)
{
	const RejectedRecord *rejected = item;
	const LateRecord	 *late = item;
	StreamRecord		 *record;
	bool				  whole;

	if (table == &letter_late)
	{
		values[LETTER_VIEW][n] = ObjectIdGetDatum(late->view);
		values[LETTER_EVENT_TIME][n] = TimestampTzGetDatum(late->event_time);
		return &batch->records[late->record];
	}
	values[LETTER_VIEW][n] = ObjectIdGetDatum(rejected->view);
	values[LETTER_SQLSTATE][n] = CStringGetTextDatum(unpack_sql_state(rejected->sqlstate));
	values[LETTER_REASON][n] = streamext_dead_letter_text(rejected->reason);
	values[LETTER_DONE][n] = CStringGetTextDatum(rejected->done != NULL ? rejected->done : "{}");
	record = &batch->records[rejected->record];
	values[LETTER_RECORD][n] = PointerGetDatum(letter_record(batch, record, &whole));
	values[LETTER_WHOLE][n] = BoolGetDatum(whole);
	return record;
}

/* Inserts items from number `from` on, as many as one statement shall carry; the next one's number. */
static int
letter_insert_some(LetterTable *table, Batch *batch, Decoder *decoder, List *items, int from)
{
	Datum *values[LETTER_COLUMNS];
	bool  *nulls = palloc0(sizeof(bool) * DEAD_LETTER_ROWS);
	bool  *payload_nulls = palloc0(sizeof(bool) * DEAD_LETTER_ROWS);
	Datum  args[1 + LETTER_COLUMNS];
	Size   bytes = 0;
	int	   n = 0;
	int	   rc;

	for (int i = 0; i < table->ncolumns; i++)
		values[i] = palloc(sizeof(Datum) * DEAD_LETTER_ROWS);
	for (; from < list_length(items) && n < DEAD_LETTER_ROWS && bytes < DEAD_LETTER_BYTES; from++, n++)
	{
		StreamRecord *record = letter_fill(table, batch, list_nth(items, from), values, n);

		values[LETTER_TOPIC][n] = streamext_dead_letter_text(record->topic);
		values[LETTER_PARTITION][n] = Int32GetDatum(record->partition);
		values[LETTER_POSITION][n] = Int64GetDatum(record->position);
		payload_nulls[n] = record->payload == NULL;
		values[LETTER_PAYLOAD][n] = payload_nulls[n] ? (Datum) 0 : letter_payload(batch, decoder, record, &bytes);
		if (table == &letter_dead)
			bytes += VARSIZE_ANY(DatumGetPointer(values[LETTER_RECORD][n]));
	}
	args[0] = ObjectIdGetDatum(batch->config->relid);
	for (int i = 0; i < table->ncolumns; i++)
		args[i + 1] =
			streamext_dead_letter_array(values[i], i == LETTER_PAYLOAD ? payload_nulls : nulls, n, table->types[i]);
	rc = SPI_execute_plan(table->insert_plan, args, NULL, false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "could not insert into %s: %s", table->name, SPI_result_code_string(rc));
	if (table->unpruned < PG_INT64_MAX - n)
		table->unpruned += n;
	return from;
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
	rc = SPI_execute_plan(table->prune_plan, args, NULL, false, 0);
	if (rc != SPI_OK_DELETE)
		elog(ERROR, "could not delete from %s: %s", table->name, SPI_result_code_string(rc));
	table->unpruned = 0;
}

static void
letter_write(LetterTable *table, Batch *batch, Decoder *decoder, List *items)
{
	IdentityScope own;
	MemoryContext cxt;
	MemoryContext old;
	int			  next;

	if (items == NIL || *table->limit == 0)
		return;
	own = streamext_own_begin();
	letter_prepare_plans(table);
	cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext dead letters", ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);
	/* those that the pruning would take at once are not written at all */
	next = Max(0, list_length(items) - *table->limit);
	while (next < list_length(items))
	{
		next = letter_insert_some(table, batch, decoder, items, next);
		MemoryContextReset(cxt);
	}
	MemoryContextSwitchTo(old);
	letter_prune(table, batch->config->relid);
	streamext_own_end(own);
}

void
streamext_dead_letters_write(Batch *batch, Decoder *decoder)
{
	List	 *fresh = NIL;
	ListCell *lc;

	if (batch->config->on_error == ON_ERROR_SKIP)
		return;
	foreach (lc, batch->rejected)
		if (!((RejectedRecord *) lfirst(lc))->known)
			fresh = lappend(fresh, lfirst(lc));
	letter_write(&letter_dead, batch, decoder, fresh);
}

void
streamext_late_rows_write(Batch *batch, Decoder *decoder)
{
	letter_write(&letter_late, batch, decoder, batch->late);
}
